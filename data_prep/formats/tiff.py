"""Whether a TIFF file is whole (TIFF 6.0 and BigTIFF): all blocks that its directories list lie within it, and their checksums agree.

GDAL stops decoding a deflated block where it has enough values, before the checksum, and so returns damaged values without a word.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.errors import UserError

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NODATA = 42113
_TRAILER = b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED"
"""A cloud-optimised GeoTIFF says so at its beginning."""
_STORED, _DEFLATED = 1, (8, 32946)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The strips or tiles of an image, row by row (and plane by plane where bands lie apart).

    Args:
        rows, columns: cells of a block; down, across: blocks.
        offsets, sizes: in the file; unpacked: bytes of the values.
    """

    rows: int
    columns: int
    down: int
    across: int
    planes: int
    compression: int
    offsets: np.ndarray
    sizes: np.ndarray
    unpacked: np.ndarray

    def check(self, path: Path, band: int, y: slice, x: slice) -> None:
        """Compare the checksums of the deflated blocks in a window of a band (from 1); other compressions have none.

        Raises:
            UserError: a block is damaged.
        """
        if self.compression not in _DEFLATED:
            return
        first = (band - 1) * self.down * self.across if self.planes > 1 else 0
        with path.open("rb") as file:
            for row in range(y.start // self.rows, -(-y.stop // self.rows)):
                for column in range(x.start // self.columns, -(-x.stop // self.columns)):
                    block = first + row * self.across + column
                    if self.sizes[block] == 0:
                        continue
                    file.seek(int(self.offsets[block]))
                    unpacker, length = zlib.decompressobj(), int(self.unpacked[block])
                    try:
                        whole = len(unpacker.decompress(file.read(int(self.sizes[block])), length + 1)) == length and unpacker.eof
                    except zlib.error:
                        whole = False
                    if not whole:
                        raise UserError(
                            f"{path.name} is damaged at byte {int(self.offsets[block])}: a block of it cannot be unpacked; fetch it again"
                        )


def require_whole(path: Path, member: str | None, size: int) -> Blocks:
    """The blocks of the first image, once those of every image were found to lie within the file and none to be left out unsaid.

    Args:
        member: of a zip, where the path is one.
        size: bytes of the file.

    Raises:
        UserError: it is no TIFF, or damaged.
    """
    with ExitStack() as stack:
        if member is None:
            file: Any = stack.enter_context(path.open("rb"))
        else:
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
        head = file.read(512)
        if head[:4] not in HEADS:
            raise UserError(f"{member or path.name} is not a GeoTIFF by its first bytes; expected one, fetch it again")
        order, big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
        try:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
            trailer = 4 if _TRAILER in head else 0
            seen, found = set[int](), list[Blocks]()
            while at:
                if at in seen or len(seen) > 200:
                    raise ValueError("its directories form a ring")
                seen.add(at)
                tags, at = _directory(file, at, order, big)
                found.append(_blocks(tags, size - trailer))
            return found[0]
        except (struct.error, ValueError, KeyError, IndexError, OverflowError, ZeroDivisionError) as error:
            detail = str(error) if isinstance(error, ValueError) and str(error) else "its directory is cut off or broken"
            raise UserError(
                f"{member or path.name} is not a whole GeoTIFF: {detail[:120]}; it is damaged or truncated, fetch it again"
            ) from None


def _directory(file: Any, at: int, order: str, big: bool) -> tuple[dict[int, np.ndarray], int]:
    """The integer tags of an image file directory, and where the next one is."""
    file.seek(at)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    if count > 4096:
        raise ValueError("a directory has more tags than there are")
    width, form, inline = (20, "HHQ", 8) if big else (12, "HHI", 4)
    entries = file.read(count * width)
    (following,) = struct.unpack(order + ("Q" if big else "I"), file.read(8 if big else 4))
    tags: dict[int, np.ndarray] = {}
    for start in range(0, count * width, width):
        tag, kind, number = struct.unpack_from(order + form, entries, start)
        length = number * _SIZES.get(kind, 1)
        if length > 1 << 28:
            raise ValueError(f"tag {tag} is longer than any")
        value = entries[start + width - inline : start + width - inline + length]
        if length > inline:
            (offset,) = struct.unpack_from(order + ("Q" if big else "I"), entries, start + width - inline)
            file.seek(offset)
            value = file.read(length)
        if len(value) != length:
            raise ValueError(f"the values of tag {tag} lie beyond its end")
        if kind in _TYPES:
            tags[tag] = np.frombuffer(value, order + _TYPES[kind])
    return tags, following


def _blocks(tags: Mapping[int, np.ndarray], size: int) -> Blocks:
    def one(tag: int, default: int | None = None) -> int:
        return int(tags[tag][0]) if default is None or tag in tags else default

    width, height, bands, separate = one(256), one(257), one(277, 1), one(284, 1) == 2
    tiled = 324 in tags
    columns, rows = (one(322), one(323)) if tiled else (width, min(one(278, height), height))
    offsets, sizes = (tags[tag].astype(np.uint64) for tag in ((324, 325) if tiled else (273, 279)))
    across, down, planes = -(-width // columns), -(-height // rows), bands if separate else 1
    expected = across * down * planes
    if not offsets.size == sizes.size == expected:
        raise ValueError(f"it lists {offsets.size} blocks, its size asks for {expected}")
    if (beyond := (offsets > size) | (sizes > size) | (offsets + sizes > size)).any():
        raise ValueError(f"{int(beyond.sum())} of {expected} blocks lie beyond its end")
    empty = (offsets == 0) | (sizes == 0)
    if empty.any() and _NODATA not in tags:
        raise ValueError(f"{int(empty.sum())} of {expected} blocks are left out and would read as zeros")
    bits = int(tags[258].astype(np.int64).sum()) // planes if 258 in tags else 1
    lines = np.full(expected, rows)
    if not tiled:
        lines[down - 1 :: down] = height - (down - 1) * rows
    unpacked = lines * -(-columns * bits // 8)
    if one(259, 1) == _STORED and ((sizes < unpacked) & ~empty).any():
        raise ValueError("blocks are shorter than their size asks for")
    return Blocks(rows, columns, down, across, planes, one(259, 1), offsets, sizes, unpacked)
