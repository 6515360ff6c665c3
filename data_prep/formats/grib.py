"""Whether a GRIB file is whole: the ecCodes library passes over what it cannot read, and some damage ends its process.

Messages, their sections and the end mark of each are walked by their lengths (WMO Manual on Codes, FM 92, editions 1 and 2); values are not
looked at. The format has no checksum, so a changed bit among packed values cannot be found.
"""

from __future__ import annotations

import functools
import math
import mmap
from pathlib import Path

from scigpt.errors import UserError

HEADER, PADDING = 80, 128
"""Bytes that may lie between messages: a bulletin header (no message is as short), or zeros."""
_ORDER = {1: (2, 3), 2: (3,), 3: (4,), 4: (5,), 5: (6,), 6: (7,), 7: (2, 3, 4, 8)}
"""Sections of edition 2 that may follow a section; 8 is the end mark."""


def require_whole(path: Path) -> None:
    """Every byte of the file belongs to a message whose sections fill it exactly.

    Raises:
        UserError: a message that is cut off or whose lengths do not agree, or bytes that belong to none.
    """
    status = path.stat()
    _require_whole(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _require_whole(path: Path, size: int, changed: int) -> None:
    """Cached by what a changed file would change, since every process opens its inputs more than once."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = count = 0
        while at < size:
            start = data.find(b"GRIB", at, at + PADDING + 4)
            ended = start < 0 and size - at <= PADDING and count > 0
            between = data[at : size if ended else start] if ended or start >= 0 else None
            if between is None or (len(between) > HEADER and any(between)):
                raise _damaged(path, f"the bytes from {at} on belong to no message")
            if ended:
                return
            count += 1
            try:
                at = start + _message(data, start, size)
            except (IndexError, ValueError) as error:
                raise _damaged(path, f"message {count}, at byte {start}: {str(error) or 'it is cut off'}") from None


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path.name} is not a whole GRIB file: {what}; it is damaged or truncated, fetch it again")


def _number(data: mmap.mmap, at: int, width: int) -> int:
    field = data[at : at + width]
    if len(field) < width:
        raise ValueError("it is cut off")
    return int.from_bytes(field, "big")


def _message(data: mmap.mmap, start: int, size: int) -> int:
    """The length of a message."""
    edition = _number(data, start + 7, 1)
    if edition not in (1, 2):
        raise ValueError(f"it says edition {edition}; expected 1 or 2")
    sections, length = (_edition_1 if edition == 1 else _edition_2)(data, start)
    if start + length > size:
        raise ValueError("it is cut off")
    if sections != length - 4:
        raise ValueError(f"its sections have {sections + 4} bytes and it says {length}")
    if data[start + length - 4 : start + length] != b"7777":
        raise ValueError("its end mark is missing")
    return length


def _edition_1(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Bytes of all sections before the end mark, and of the message."""
    length = _number(data, start + 4, 3)
    at = start + 8
    flags = _number(data, at + 7, 1)
    at = _past(data, at, 28, "product definition")
    points = None
    if flags & 128:
        if _number(data, at + 5, 1) in (0, 4, 10) and 65535 not in (shape := [_number(data, at + b, 2) for b in (6, 8)]):
            points = math.prod(shape)  # a regular grid on latitude and longitude
        at = _past(data, at, 32, "grid description")
    if flags & 64:
        bits = _number(data, at, 3)
        if _number(data, at + 4, 2) == 0:
            given = (bits - 6) * 8 - _number(data, at + 3, 1)
            if points is not None and given != points:
                raise ValueError(f"its bitmap has {given} points, its grid {points}")
        points = None
        at = _past(data, at, 6, "bitmap")
    packed, start_of_values = _number(data, at, 3), at
    if length & 0x800000 and packed < 120:  # too large for 24 bits: counted in 120 bytes
        length = (length & 0x7FFFFF) * 120 - packed + 4
        packed = start + length - 4 - at
    width = _number(data, start_of_values + 10, 1)
    unused = _number(data, start_of_values + 3, 1)
    if unused & 0xF0 == 0 and points is not None:  # grid points, simple packing
        needed = 11 + -(-points * width // 8)
        if not needed <= packed <= needed + 2:
            raise ValueError(f"its values take {packed} bytes, and {points} of {width} bits need {needed}")
    if packed < 11:
        raise ValueError("its values are cut off")
    return at + packed - start, length


def _past(data: mmap.mmap, at: int, least: int, name: str) -> int:
    length = _number(data, at, 3)
    if length < least:
        raise ValueError(f"its {name} has {length} bytes; expected {least} or more")
    return at + length


def _edition_2(data: mmap.mmap, start: int) -> tuple[int, int]:
    """Bytes of all sections before the end mark, and of the message."""
    length = _number(data, start + 8, 8)
    at, points = start + 16, 0
    following: tuple[int, ...] = (1,)
    while at < start + length - 4:
        size, number = _number(data, at, 4), _number(data, at + 4, 1)
        if number not in following or size < 5:
            raise ValueError(f"section {number} of {size} bytes stands where section {' or '.join(map(str, following))} should")
        if at + size > start + length - 4:
            raise ValueError(f"section {number} reaches beyond its end")
        if number == 3:
            points = _number(data, at + 6, 4)
        if number == 5:
            values, template = _number(data, at + 5, 4), _number(data, at + 9, 2)
            width = _number(data, at + 19, 1) if template == 0 else None
            if values > points:
                raise ValueError(f"it holds {values} values on a grid of {points}")
        if number == 6 and _number(data, at + 5, 1) == 0 and size != 6 + -(-points // 8):
            raise ValueError(f"its bitmap has {size - 6} bytes for {points} points")
        if number == 7 and width is not None and size != 5 + -(-values * width // 8):
            raise ValueError(f"its values take {size - 5} bytes, and {values} of {width} bits need {-(-values * width // 8)}")
        following = _ORDER[number]
        at += size
    if 8 not in following:
        raise ValueError("it ends before its values")
    return at - start, length
