"""How long a classic NetCDF file must be: the NetCDF library reads what a truncated one lacks as zeros, without a word."""

from __future__ import annotations

import math
from pathlib import Path

from scigpt.errors import UserError

_ITEMSIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_HEADER = 16 << 20


class _Header:
    """Big-endian numbers and names of the header, in order (NetCDF User's Guide, "File Format Specifications")."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 4
        version = data[3]
        self.size_bytes, self.offset_bytes = (8 if version == 5 else 4), (4 if version == 1 else 8)

    def number(self, width: int) -> int:
        self.at += width
        if self.at > len(self.data):
            raise EOFError
        return int.from_bytes(self.data[self.at - width : self.at], "big")

    def size(self) -> int:
        return self.number(self.size_bytes)

    def skip(self, count: int) -> None:
        self.at += -(-count // 4) * 4

    def list_length(self) -> int:
        self.number(4)
        return self.size()

    def skip_attributes(self) -> None:
        for _ in range(self.list_length()):
            self.skip(self.size())
            itemsize = _ITEMSIZE[self.number(4)]
            self.skip(self.size() * itemsize)


def expected_bytes(path: Path) -> int:
    """The least number of bytes that hold every value the header promises (CDF-1, CDF-2 and CDF-5)."""
    with path.open("rb") as file:
        header = _Header(file.read(_HEADER))
    records = header.size()
    if records == (1 << 8 * header.size_bytes) - 1:  # "streaming": the count is not known
        records = 0
    dimensions = []
    for _ in range(header.list_length()):
        header.skip(header.size())
        dimensions.append(header.size())
    header.skip_attributes()
    end, record_begins, record_sizes = 0, [], []
    for _ in range(header.list_length()):
        header.skip(header.size())
        shape = [dimensions[header.size()] for _ in range(header.size())]
        header.skip_attributes()
        itemsize = _ITEMSIZE[header.number(4)]
        header.size()
        begin = header.number(header.offset_bytes)
        if shape and shape[0] == 0:  # the length of the record dimension is written as 0
            record_begins.append(begin)
            record_sizes.append(math.prod(shape[1:]) * itemsize)
        else:
            end = max(end, begin + math.prod(shape) * itemsize)
    if records and record_sizes:
        padded = record_sizes if len(record_sizes) == 1 else [-(-s // 4) * 4 for s in record_sizes]
        last = [b + (records - 1) * sum(padded) + s for b, s in zip(record_begins, record_sizes, strict=True)]
        end = max(end, *last)
    return end


def require_whole(path: Path) -> None:
    """Raise a UserError for a classic NetCDF file that ends before its last value."""
    try:
        expected = expected_bytes(path)
    except (EOFError, KeyError, IndexError):
        raise UserError(f"{path.name} is a damaged or truncated NetCDF file: its header does not end; fetch it again") from None
    if path.stat().st_size < expected:
        raise UserError(
            f"{path.name} is truncated: it has {path.stat().st_size} bytes where its NetCDF header promises {expected}; fetch it again"
        )
