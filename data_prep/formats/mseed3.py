"""miniSEED 3, as the FDSN specifies it (https://docs.fdsn.org/projects/miniseed3): records of any length, each with a CRC-32C, which
obspy does not read yet."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.errors import UserError

HEADER = struct.Struct("<2sBBIHHBBBBdIIBBHI")
FIXED = 40
PLAIN = {1: "<i2", 3: "<i4", 4: "<f4", 5: "<f8"}
STEIM = {10: 1, 11: 2}
_CRC_AT = 28
_LANE = 64
_TOGETHER = 4096
"""Records whose checksums are computed at once."""


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

    def touches(self, low: int, high: int) -> bool:
        return self.start < high and self.start + self.count / self.rate * 1e9 > low


def recognises(head: bytes) -> bool:
    return head[:3] == b"MS\x03"


def read_records(path: Path) -> list[Record]:
    """All headers, in the order of the file.

    Raises:
        UserError: something else between records, impossible numbers, or a file that ends within a record.
    """
    records, size, at = [], path.stat().st_size, 0
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
            if not (1 <= day <= 366 and hour < 24 and minute < 60 and second <= 60 and nanosecond < 10**9 and 1 <= year <= 9998):
                raise UserError(f"{path.name}, byte {at}: the record of {name} has no possible time; the file is damaged, fetch it again")
            moment = datetime(year, 1, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1)
            start = (round(moment.timestamp()) + second) * 10**9 + nanosecond
            begin = at + FIXED + named + extra
            rate = rate if rate >= 0 else -1 / rate
            records.append(
                Record(at, length, channel_id(path, name), start, rate, count, encoding, crc, version, flags, (begin, begin + data))
            )
            at += length
    return records


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
    grouped: list[list[Record]] = []
    others: list[Record] = []
    open_runs: dict[tuple[str, int], list[Record]] = {}
    for record in read_records(path):
        if record.encoding == 0 or not record.count or not record.rate:
            others.append(record)  # text: a log
            continue
        if channel not in (None, record.id) or (span is not None and not record.touches(*span)):
            continue
        run = open_runs.get((record.id, record.version))
        if run is None or not _follows(run, record):
            run = open_runs[record.id, record.version] = []
            grouped.append(run)
        run.append(record)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        if not headonly:
            _check(path, raw, others)
        return [_trace(path, run, None if headonly else raw) for run in grouped]


def _trace(path: Path, run: Sequence[Record], raw: mmap.mmap | None) -> Any:
    """A run of records as a trace, without values where there is nothing to take them from."""
    from obspy import Trace, UTCDateTime

    network, station, location, channel = run[0].id.split(".")
    header = {
        "network": network,
        "station": station,
        "location": location,
        "channel": channel,
        "sampling_rate": run[0].rate,
        "starttime": UTCDateTime(ns=run[0].start),
        "mseed": {"dataquality": str(run[0].version), "record_length": run[0].length},
    }
    if raw is None:
        return Trace(header=header | {"npts": sum(r.count for r in run)})
    parts = []
    for first in range(0, len(run), _TOGETHER):
        some = run[first : first + _TOGETHER]
        _check(path, raw, some)
        parts += [decode(path, raw, r) for r in some]
    return Trace(np.concatenate(parts), header)


def _follows(run: Sequence[Record], record: Record) -> bool:
    """Whether a record goes on within half a sample of where the run ends."""
    first, count = run[0], sum(r.count for r in run)
    same = record.rate == first.rate and (record.encoding in (4, 5)) == (first.encoding in (4, 5))
    return same and abs((record.start - first.start) * first.rate / 1e9 - count) <= 0.5


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
        if len(payload) < record.count * np.dtype(kind).itemsize:
            raise UserError(f"{path.name}, byte {record.at}: the record of {record.id} is shorter than its {record.count} samples")
        values = np.frombuffer(payload, kind, record.count)
        return values.astype(np.int32 if values.dtype.kind == "i" else values.dtype.newbyteorder("="))
    if record.encoding not in STEIM:
        raise UserError(f"{path.name}: {record.id} has the encoding {record.encoding}; expected integers, floats, Steim-1 or Steim-2")
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


def _table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table


_TABLE = _table()


def _skip() -> list[list[int]]:
    """By each byte of a checksum: what it becomes when a lane of zeros follows."""
    rows = []
    for place in range(4):
        state = np.arange(256, dtype=np.uint32) << np.uint32(8 * place)
        for _ in range(_LANE):
            state = _TABLE[state & 255] ^ (state >> 8)
        rows.append(state.tolist())
    return rows


def crc32c(parts: Sequence[bytes]) -> list[int]:
    """CRC-32C (Castagnoli) of each; lanes of 64 bytes of all of them are worked on at once."""
    skip, table = _skip(), _TABLE.tolist()
    whole = [len(p) // _LANE for p in parts]
    lanes = np.frombuffer(b"".join(p[: n * _LANE] for p, n in zip(parts, whole, strict=True)), np.uint8).reshape(-1, _LANE)
    states = np.zeros(len(lanes), np.uint32)
    for column in lanes.T:
        states = _TABLE[(states ^ column) & 255] ^ (states >> 8)
    found, rest = [], iter(states.tolist())
    for part, number in zip(parts, whole, strict=True):
        crc = 0xFFFFFFFF
        for _ in range(number):
            crc = skip[0][crc & 255] ^ skip[1][crc >> 8 & 255] ^ skip[2][crc >> 16 & 255] ^ skip[3][crc >> 24] ^ next(rest)
        for byte in part[number * _LANE :]:
            crc = table[(crc ^ byte) & 255] ^ crc >> 8
        found.append(crc ^ 0xFFFFFFFF)
    return found
