"""miniSEED 3, as the FDSN specifies it (https://docs.fdsn.org/projects/miniseed3): records of any length, each with a CRC-32C, which
obspy does not read yet."""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data_prep.formats.checksums import crc32c
from scigpt.errors import UserError

HEADER = struct.Struct("<2sBBIHHBBBBdIIBBHI")
FIXED = 40
PLAIN = {1: "<i2", 3: "<i4", 4: "<f4", 5: "<f8"}
STEIM = {10: 1, 11: 2}
TEXT = 0
FRAME_HOLDS = 105
"""Samples in a frame of 64 bytes at most: fifteen words of seven differences."""
LEAST, MOST = 1e-6, 1e6
"""Samples per second that an instrument can have."""
SMALL = 8 << 20
"""Bytes up to which the headers of a file are read again each time."""
_CRC_AT = 28
_TOGETHER = 4096
"""Records whose checksums are computed at once."""


_ROW = np.dtype(
    [
        ("at", "i8"), ("length", "i8"), ("id", "u4"), ("start", "i8"), ("rate", "f8"), ("count", "u4"), ("encoding", "u1"), ("crc", "u4"),
        ("version", "u1"), ("flags", "u1"), ("begin", "i8"), ("end", "i8"),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """The header of one record.

    Args:
        at, length: where it lies in the file, bytes.
        start: instant of the first sample, nanoseconds since 1970.
        rate: samples per second, 0 where there is none.
        version: of the publication, 1 the first.
        payload: range of the data in the file.
    """

    at: int
    length: int
    id: str
    start: int
    rate: float
    count: int
    encoding: int
    crc: int
    version: int
    flags: int
    payload: tuple[int, int]


def recognises(head: bytes) -> bool:
    return head[:3] == b"MS\x03"


@dataclass(frozen=True)
class Index:
    """The headers of all records of a file, in its order; a record of it is made when it is needed, because there are millions."""

    ids: tuple[str, ...]
    table: np.ndarray

    def record(self, row: int) -> Record:
        at, length, name, start, rate, count, encoding, crc, version, flags, begin, end = self.table[row].item()
        return Record(at, length, self.ids[name], start, rate, count, encoding, crc, version, flags, (begin, end))


def index_of(path: Path) -> Index:
    """The headers of a file; those of a large one are kept, as long as it does not change.

    Raises:
        UserError: something else between records, impossible numbers, or a file that ends within a record.
    """
    state = path.stat()
    return _indexed(path) if state.st_size <= SMALL else _kept(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(4)
def _kept(path: Path, size: int, changed: int) -> Index:
    return _indexed(path)


def _indexed(path: Path) -> Index:
    numbers: dict[str, int] = {}
    parts: list[np.ndarray] = []
    rows: list[tuple[Any, ...]] = []
    for row in _headers(path, numbers):
        rows.append(row)
        if len(rows) == 1 << 16:
            parts.append(np.array(rows, _ROW))
            rows = []
    return Index(tuple(numbers), np.concatenate([*parts, np.array(rows, _ROW)]))


def _headers(path: Path, numbers: dict[str, int]) -> Iterator[tuple[Any, ...]]:
    """The rows of an index; `numbers` gets the ids, numbered."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(FIXED)
            if not recognises(head) or len(head) < FIXED:
                raise UserError(
                    f"{path.name}, byte {at}: no miniSEED 3 record begins here; the file is damaged or truncated, fetch it again"
                )
            fields = HEADER.unpack(head)
            flags, nanosecond, year, day, hour, minute, second, encoding, rate, count, crc, version, named, extra, data = fields[2:]
            length = FIXED + named + extra + data
            if at + length > size:
                raise UserError(f"{path.name} ends within a record ({size} bytes, the last should end at {at + length}); it is truncated")
            name = file.read(named).decode("ascii", "replace")
            where = f"{path.name}, byte {at}: the record of {name[:60]}"
            if not (1 <= day <= 366 and hour < 24 and minute < 60 and second <= 60 and nanosecond < 10**9 and 1 <= year <= 9998):
                raise UserError(f"{where} has no possible time; the file is damaged, fetch it again")
            rate = rate if rate >= 0 else -1 / rate
            if rate != 0 and not LEAST <= rate <= MOST:
                raise UserError(f"{where} states {rate:g} samples per second; the file is damaged, fetch it again")
            if encoding != TEXT and count and rate:
                _fits(where, encoding, count, data)
            moment = datetime(year, 1, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)
            start = (round(moment.timestamp()) + second) * 10**9 + nanosecond
            begin = at + FIXED + named + extra
            number = numbers.setdefault(channel_id(path, name), len(numbers))
            yield at, length, number, start, rate, count, encoding, crc, version, flags, begin, begin + data
            at += length


def _fits(where: str, encoding: int, count: int, size: int) -> None:
    """Whether so many samples can be in so many bytes, before anything is made as large as they say."""
    if encoding in PLAIN:
        needed = count * np.dtype(PLAIN[encoding]).itemsize
        if size != needed:
            told = "shorter" if size < needed else "longer"
            raise UserError(f"{where} is {told} than its {count} samples ({size} bytes, expected {needed}); the file is damaged")
    elif encoding in STEIM:
        if count > FRAME_HOLDS * (size // 64):
            raise UserError(f"{where} states {count} samples and its {size // 64} frames hold fewer; the file is damaged, fetch it again")
    else:
        raise UserError(f"{where} has the encoding {encoding}; expected integers, floats, Steim-1 or Steim-2")


def channel_id(path: Path, source: str) -> str:
    """`NET.STA.LOC.CHA` of an FDSN source identifier `FDSN:NET_STA_LOC_B_S_s`.

    Raises:
        UserError: another form.
    """
    namespace, _, rest = source.partition(":")
    parts = rest.split("_")
    if namespace != "FDSN" or len(parts) != 6:
        raise UserError(f"{path.name}: the source identifier {source[:60]!r} is not of the form FDSN:NET_STA_LOC_B_S_s")
    return f"{parts[0]}.{parts[1]}.{parts[2]}.{''.join(parts[3:])}"


def read(path: Path, headonly: bool = False, channel: str | None = None, span: tuple[int, int] | None = None) -> list[Any]:
    """Contiguous traces as obspy's, in the order in which they begin in the file.

    Args:
        channel: of this id alone.
        span: only records that touch it, nanoseconds since 1970.

    Raises:
        UserError: a record that is damaged (by its checksum or its own count of samples) or of an encoding that is not read.
    """
    index = index_of(path)
    table = index.table
    samples = (table["encoding"] != TEXT) & (table["count"] > 0) & (table["rate"] > 0)
    wanted = samples.copy()
    if channel is not None:
        wanted &= table["id"] == (index.ids.index(channel) if channel in index.ids else len(index.ids))
    if span is not None:
        with np.errstate(divide="ignore"):
            wanted &= (table["start"] < span[1]) & (table["start"] + table["count"] / table["rate"] * 1e9 > span[0])
    runs = _runs(table, np.flatnonzero(wanted))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        if not headonly:
            _check(path, raw, [index.record(row) for row in np.flatnonzero(~samples).tolist()])
        return [_trace(path, index, run, None if headonly else raw) for run in runs]


@dataclass(slots=True)
class _Run:
    """Records that follow each other without a gap: their rows, and how many samples they hold."""

    rows: list[int]
    start: int
    rate: float
    floats: bool
    count: int = 0


def _runs(table: np.ndarray, rows: np.ndarray) -> list[_Run]:
    """In the order in which they begin in the file; a record goes on within half a sample of where its run ends."""
    found: list[_Run] = []
    latest: dict[tuple[int, int], _Run] = {}
    some = table[rows]
    columns = (some[n].tolist() for n in ("id", "version", "start", "rate", "count", "encoding"))
    for row, number, version, start, rate, count, encoding in zip(rows.tolist(), *columns, strict=True):
        run, floats = latest.get((number, version)), encoding in (4, 5)
        follows = run is not None and (rate, floats) == (run.rate, run.floats)
        if run is None or not follows or abs((start - run.start) * rate / 1e9 - run.count) > 0.5:
            run = latest[number, version] = _Run([], start, rate, floats)
            found.append(run)
        run.rows.append(row)
        run.count += count
    return found


def _trace(path: Path, index: Index, run: _Run, raw: mmap.mmap | None) -> Any:
    """A run of records as a trace, without values where there is nothing to take them from."""
    from obspy import Trace, UTCDateTime

    first = index.record(run.rows[0])
    network, station, location, channel = first.id.split(".")
    header = {
        "network": network,
        "station": station,
        "location": location,
        "channel": channel,
        "sampling_rate": first.rate,
        "starttime": UTCDateTime(ns=first.start),
        "mseed": {"dataquality": str(first.version), "record_length": first.length},
    }
    if raw is None:
        return Trace(header=header | {"npts": run.count})
    parts = []
    for begin in range(0, len(run.rows), _TOGETHER):
        some = [index.record(row) for row in run.rows[begin : begin + _TOGETHER]]
        _check(path, raw, some)
        parts += [decode(path, raw, r) for r in some]
    return Trace(np.concatenate(parts), header)


def _check(path: Path, raw: mmap.mmap, records: Sequence[Record]) -> None:
    blank = [raw[r.at : r.at + _CRC_AT] + bytes(4) + raw[r.at + _CRC_AT + 4 : r.at + r.length] for r in records]
    for record, found in zip(records, crc32c(blank), strict=True):
        if found != record.crc:
            raise UserError(
                f"{path.name}, byte {record.at}: the record of {record.id} does not have the checksum it states; fetch it again"
            )


def decode(path: Path, raw: mmap.mmap, record: Record) -> np.ndarray:
    """The samples of a record: int32, float32 or float64."""
    payload = raw[slice(*record.payload)]
    if (kind := PLAIN.get(record.encoding)) is not None:
        values = np.frombuffer(payload, kind, record.count)
        return values.astype(np.int32 if values.dtype.kind == "i" else values.dtype.newbyteorder("="))
    decoded = steim(payload, record.count, STEIM[record.encoding])
    if decoded is None:
        raise UserError(
            f"{path.name}, byte {record.at}: the Steim frames of {record.id} do not add up; the file is damaged, fetch it again"
        )
    return decoded


def steim(payload: bytes, count: int, level: int) -> np.ndarray | None:
    """Samples of Steim-1 or Steim-2 frames (SEED manual 2.4, appendix B); None where they do not end on the value that they state."""
    words = np.frombuffer(payload, ">u4", len(payload) // 64 * 16).astype(np.uint32).reshape(-1, 16)
    if not len(words):
        return None
    codes = (words[:, :1] >> np.arange(30, -2, -2, dtype=np.uint32)) & 3
    codes[:, 0] = 0
    codes[0, 1:3] = 0
    flat, code = words.ravel(), codes.ravel()
    differences, taken = np.zeros((flat.size, 7), np.int64), np.zeros(flat.size, np.int64)
    for chosen, bits, number in _parts(flat, code, level):
        shifts = np.arange(number - 1, -1, -1, dtype=np.uint32) * np.uint32(bits)
        part = ((flat[chosen, None] >> shifts) & np.uint32(2**bits - 1)).astype(np.int64)
        differences[chosen, :number] = np.where(part >= 2 ** (bits - 1), part - 2**bits, part)
        taken[chosen] = number
    steps = differences[np.arange(7) < taken[:, None]]
    if steps.size < count:
        return None
    first, last = (int(w) - (int(w) >> 31 << 32) for w in words[0, 1:3])
    steps = steps[:count]
    steps[0] = first
    values = np.cumsum(steps)
    return values.astype(np.int32) if values[-1] == last else None


def _parts(flat: np.ndarray, code: np.ndarray, level: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Which words hold how many differences of how many bits."""
    yield code == 1, 8, 4
    if level == 1:
        yield code == 2, 16, 2
        yield code == 3, 32, 1
        return
    upper = flat >> 30
    for high, table in ((2, {1: (30, 1), 2: (15, 2), 3: (10, 3)}), (3, {0: (6, 5), 1: (5, 6), 2: (4, 7)})):
        for low, (bits, number) in table.items():
            yield (code == high) & (upper == low), bits, number
