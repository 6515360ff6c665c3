"""HDF4-EOS grid files, by pyhdf: what they hold, and windows of their variables.

The HDF4 library trusts a file's descriptors, so that a damaged one can be read short or end the process. Every descriptor is therefore
checked against the file's length and every deflated element is inflated (its checksum with it) before the library sees the file.
The layout of descriptors and special elements follows "HDF Specification and Developer's Guide", The HDF Group.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

MAGIC = b"\x0e\x03\x13\x01"
_NULL, _LINKED, _COMPRESSED = 1, 20, 40
_SPECIAL = 0x4000
_LINKED_BLOCKS, _EXTERNAL, _DEFLATED_ELEMENT, _DEFLATE = 1, 2, 3, 4
_LOCK = threading.Lock()
"""The HDF4 library keeps its state in global variables."""


@dataclass(frozen=True)
class EosGrid:
    """A grid of StructMetadata: `shape` (Y, X), outer corners (x, y) in metres of its projection."""

    name: str
    shape: tuple[int, int]
    upper_left: tuple[float, float]
    lower_right: tuple[float, float]
    projection: str
    parameters: tuple[float, ...]
    fields: tuple[str, ...]

    def centres(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Of the cells: y of these rows and x of these columns, metres."""
        (left, top), (right, bottom) = self.upper_left, self.lower_right
        y = top + (np.arange(rows.start, rows.stop) + 0.5) * (bottom - top) / self.shape[0]
        return y, left + (np.arange(columns.start, columns.stop) + 0.5) * (right - left) / self.shape[1]


@dataclass(frozen=True)
class EosField:
    """A scientific data set: its shape, NumPy type and attributes."""

    name: str
    shape: tuple[int, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class EosFile:
    """An HDF4-EOS file: `open_eos` makes it."""

    path: Path
    attrs: Mapping[str, Any]
    grids: tuple[EosGrid, ...]
    fields: Mapping[str, EosField]

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Stored numbers of a two-dimensional variable in a window."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        with _library(self.path) as file:
            values = np.asarray(file.select(name).get(start=(rows.start, columns.start), count=shape))
        if values.shape != shape:
            raise UserError(f"{self.path.name}: {name} was read as {values.shape}, not {shape}; it may be damaged, fetch it again")
        return values


def is_hdf4(path: Path) -> bool:
    """By the first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def open_eos(path: Path) -> EosFile:
    """What an HDF4-EOS file holds; values are read later.

    Raises:
        UserError: no HDF4, damaged or truncated, no HDF-EOS grid in it, or pyhdf is missing.
    """
    require_whole(path)
    with _library(path) as file:
        attrs = file.attributes()
        fields = {}
        for name, (_, shape, _, index) in file.datasets().items():
            fields[name] = EosField(name, tuple(np.ravel(shape).tolist()), file.select(index).attributes())
    parts = sorted((k for k in attrs if re.fullmatch(r"StructMetadata\.\d+", k)), key=lambda k: int(k.split(".")[1]))
    if not parts:
        raise UserError(f"{path.name} is HDF4 without StructMetadata, so not HDF-EOS; expected a MODIS tile as the archive gives it")
    with one_sentence(path, "read at its StructMetadata"):
        grids = tuple(struct_grids("".join(str(attrs[k]) for k in parts)))
    for grid in grids:
        for name in grid.fields:
            if name not in fields or fields[name].shape[:2] != grid.shape:
                has = "is missing" if name not in fields else f"has the shape {fields[name].shape}"
                raise UserError(f"{path.name}: {name} of the grid {grid.name} {has}; expected {grid.shape}, fetch the file again")
    return EosFile(path, attrs, grids, fields)


def struct_grids(text: str) -> Iterator[EosGrid]:
    """The grids that StructMetadata (ODL) describes.

    Raises:
        ValueError: one of their numbers is missing or is none.
    """
    for block in re.findall(r"GROUP=GRID_\d+\s(.*?)END_GROUP=GRID_\d+", text, re.DOTALL):
        x, y = (int(_value(block, key)) for key in ("XDim", "YDim"))
        upper, lower = _numbers(_value(block, "UpperLeftPointMtrs")), _numbers(_value(block, "LowerRightMtrs"))
        if min(x, y) < 1 or len(upper) != 2 or len(lower) != 2:
            raise ValueError("the size or the corners of a grid are not numbers")
        yield EosGrid(
            _value(block, "GridName").strip('"'),
            (y, x),
            (upper[0], upper[1]),
            (lower[0], lower[1]),
            _value(block, "Projection"),
            _numbers(_value(block, "ProjParams")),
            tuple(re.findall(r'DataFieldName="([^"\n]+)"', block)),
        )


def _value(block: str, key: str) -> str:
    match = re.search(rf"^\s*{key}=(.+?)\s*$", block, re.MULTILINE)
    if match is None:
        raise ValueError(f"{key} is missing")
    return match[1]


def _numbers(text: str) -> tuple[float, ...]:
    found = tuple(float(part) for part in text.strip("()").split(","))
    if not np.isfinite(found).all():
        raise ValueError(f"{text} holds a number that is not finite")
    return found


@contextmanager
def _library(path: Path) -> Iterator[Any]:
    try:
        from pyhdf.SD import SD
    except ImportError:
        raise UserError("reading HDF4 needs pyhdf, which is not installed; run: pip install 'scigpt[hdf4]'") from None
    with _LOCK, one_sentence(path):
        file = SD(str(path))
        try:
            yield file
        finally:
            file.end()


# the container


def require_whole(path: Path) -> None:
    """Descriptors lie within the file and deflated elements inflate to what they promise.

    Raises:
        UserError: no HDF4, damaged or truncated.
    """
    if path.is_dir():
        raise UserError(f"{path.name} is a folder; expected an HDF4 file")
    status = path.stat()
    _require_whole(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _require_whole(path: Path, size: int, modified: int) -> None:
    """Once for each state of a file in a process: `modified` is here to tell them apart."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise UserError(f"{path.name} is not HDF4 by its first bytes; expected a MODIS file (`scigpt data inspect` says what it is)")
        if size < 10:
            raise UserError(f"{path.name} is only {size} bytes long; it is truncated, fetch it again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                _check(data, size)
            except (ValueError, struct.error, zlib.error, RecursionError) as error:
                raise UserError(f"{path.name} is damaged or truncated ({error}); fetch it again") from None


def _check(data: mmap.mmap, size: int) -> None:
    found = _descriptors(data, size)
    for (tag, ref), (offset, length) in found.items():
        if not tag & _SPECIAL:
            continue
        kind = struct.unpack_from(">H", data, offset)[0]
        if kind == _EXTERNAL:
            raise ValueError("its values lie in another file")
        if kind == _DEFLATED_ELEMENT and length >= 14:
            _, _, whole, compressed, _, coder = struct.unpack_from(">HHIHHH", data, offset)
            if coder == _DEFLATE:
                _inflate(data, found, compressed, whole, f"element {tag & ~_SPECIAL}/{ref}")


def _descriptors(data: mmap.mmap, size: int) -> dict[tuple[int, int], tuple[int, int]]:
    """Offset and length of each element, by tag and reference number."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    block, seen = 4, set[int]()
    while block:
        if block in seen or block + 6 > size:
            raise ValueError(f"a block of descriptors at byte {block} of {size}")
        seen.add(block)
        count, following = struct.unpack_from(">hI", data, block)
        if count < 1 or block + 6 + 12 * count > size:
            raise ValueError(f"{count} descriptors at byte {block} of {size}")
        for tag, ref, offset, length in struct.iter_unpack(">HHII", data[block + 6 : block + 6 + 12 * count]):
            if tag == _NULL or (offset, length) == (0xFFFFFFFF, 0xFFFFFFFF):
                continue  # free, or never written
            if offset + length > size or offset < 4:
                raise ValueError(f"an element of {length} bytes at byte {offset} of {size}")
            if (tag, ref) in found:
                raise ValueError(f"two elements {tag}/{ref}")
            found[tag, ref] = offset, length
        block = following
    return found


def _inflate(data: mmap.mmap, found: Mapping[tuple[int, int], tuple[int, int]], ref: int, whole: int, what: str) -> None:
    engine, total = zlib.decompressobj(), 0
    for piece in _pieces(data, found, ref, what):
        if engine.eof:
            break
        total += len(engine.decompress(piece))
    if not engine.eof or total != whole:
        raise ValueError(f"{what} holds {total} bytes of {whole}")


def _pieces(data: mmap.mmap, found: Mapping[tuple[int, int], tuple[int, int]], ref: int, what: str) -> Iterator[bytes]:
    """The bytes of a compressed element: in one place, or in a chain of linked blocks."""
    if (_COMPRESSED, ref) in found:
        offset, length = found[_COMPRESSED, ref]
        for start in range(offset, offset + length, 1 << 16):
            yield data[start : min(start + (1 << 16), offset + length)]
        return
    if (_COMPRESSED | _SPECIAL, ref) not in found:
        raise ValueError(f"the values of {what} are missing")
    offset, _ = found[_COMPRESSED | _SPECIAL, ref]
    kind, left, _, count, table = struct.unpack_from(">HIIIH", data, offset)
    if kind != _LINKED_BLOCKS:
        raise ValueError(f"the values of {what} are stored in an unknown way")
    seen = set[int]()
    while table and left > 0:
        if table in seen or (_LINKED, table) not in found or found[_LINKED, table][1] < 2 + 2 * count:
            raise ValueError(f"the chain of blocks of {what} is broken")
        seen.add(table)
        table, *blocks = struct.unpack_from(f">{count + 1}H", data, found[_LINKED, table][0])
        for block in filter(None, blocks):
            if (_LINKED, block) not in found:
                raise ValueError(f"a block of {what} is missing")
            offset, length = found[_LINKED, block]
            yield data[offset : offset + min(length, left)]
            left -= length
            if left <= 0:
                break
