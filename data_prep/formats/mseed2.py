"""miniSEED 2 by obspy, a block of whole records at a time: what is read at once does not grow with the file.

obspy itself goes through a whole file, for headers or for a minute of one channel too.
"""

from __future__ import annotations

import functools
import io
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 8 << 20
"""Bytes; a multiple of every length of record that is in use."""
_STEP = 128
"""Bytes of the shortest record; all others are multiples of it."""
_FLOATS = ("FLOAT32", "FLOAT64")


@dataclass(frozen=True)
class _Block:
    """Whole records: their bytes in the file, and of each trace that they hold its id, start and end (nanoseconds since 1970)."""

    begin: int
    end: int
    traces: tuple[tuple[str, int, int], ...]


def read(path: Path, headonly: bool = False, channel: str | None = None, span: tuple[int, int] | None = None) -> list[Any]:
    """Contiguous traces, by channel in the order in which these appear.

    Args:
        channel: of this id alone.
        span: cut to it, nanoseconds since 1970.
    """
    if path.stat().st_size <= BLOCK:
        return _read(path, 0, path.stat().st_size, headonly, channel, span)
    state = path.stat()
    blocks = _blocks(path, state.st_size, state.st_mtime_ns)
    wanted = [b for b in blocks if (channel is None and span is None) or _holds(b, channel, span)]
    return _joined(_read(path, b.begin, b.end, headonly, channel, span) for b in wanted)


def _holds(block: _Block, channel: str | None, span: tuple[int, int] | None) -> bool:
    return any(channel in (None, name) and (span is None or (a <= span[1] and b >= span[0])) for name, a, b in block.traces)


def _read(path: Path, begin: int, end: int, headonly: bool, channel: str | None, span: tuple[int, int] | None) -> list[Any]:
    from obspy import UTCDateTime
    from obspy import read as read_with

    chosen: dict[str, Any] = {} if channel is None else {"sourcename": channel}
    if span is not None:
        chosen |= {"starttime": UTCDateTime(ns=span[0]), "endtime": UTCDateTime(ns=span[1])}
    with path.open("rb") as file:
        file.seek(begin)
        body = io.BytesIO(file.read(end - begin))
    return list(read_with(body, format="MSEED", headonly=headonly, details=False, **chosen))


@functools.lru_cache(8)
def _blocks(path: Path, size: int, changed: int) -> tuple[_Block, ...]:
    found = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        begin = 0
        while begin < size:
            end = _boundary(raw, begin)
            traces = _read(path, begin, end, True, None, None)
            found.append(_Block(begin, end, tuple((t.id, t.stats.starttime.ns, t.stats.endtime.ns) for t in traces)))
            begin = end
    return tuple(found)


def _boundary(raw: mmap.mmap, begin: int) -> int:
    """Where the last record begins that is not within a block; the end of the file where that is near."""
    size, end = len(raw), begin + BLOCK
    while end < size:
        for at in range(end, begin, -_STEP):
            if _begins(raw, at):
                return at
        end += BLOCK  # nothing but control headers, or noise
    return size


def _begins(raw: mmap.mmap, at: int) -> bool:
    """Whether the fixed header of a data record stands here, by the rules of libmseed."""
    head = raw[at : at + 27]
    number, code, blank, hour, minute, second = head[:6], head[6:7], head[7:8], *head[24:27]
    return (
        all(b in b"0123456789 \0" for b in number)
        and code in (b"D", b"R", b"Q", b"M")
        and blank in (b" ", b"\0")
        and hour < 24
        and minute < 60
        and second <= 60
    )


def _joined(parts: Iterable[list[Any]]) -> list[Any]:
    """What continues across blocks as one trace, as within a block: the same channel, quality, rate and kind, within half a sample."""
    runs: dict[tuple[str, str], list[list[Any]]] = {}
    for traces in parts:
        for trace in traces:
            own = runs.setdefault((trace.id, trace.stats.mseed.dataquality), [])
            if own and _goes_on(own[-1][-1].stats, trace.stats):
                own[-1].append(trace)
            else:
                own.append([trace])
    return [_one(run) for own in runs.values() for run in own]


def _goes_on(before: Any, after: Any) -> bool:
    alike = abs(before.sampling_rate - after.sampling_rate) <= 1e-4 * after.sampling_rate
    same = (before.mseed.encoding in _FLOATS) == (after.mseed.encoding in _FLOATS)
    return alike and same and before.npts > 0 and abs((after.starttime - before.endtime) / before.delta - 1) <= 0.5


def _one(run: Sequence[Any]) -> Any:
    first = run[0]
    if len(run) > 1:
        stats = first.stats
        stats.mseed.record_length = min(t.stats.mseed.record_length for t in run)
        if len(first.data):
            first.data = np.concatenate([t.data for t in run])
        else:
            stats.npts = sum(t.stats.npts for t in run)
    return first
