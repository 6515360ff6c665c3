"""Windows of recorded channels on a regular grid, gaps left open.

A channel is first put together from all files that hold a part of the window; what two of them both hold must agree. Response and
resampling then work on each contiguous stretch of the window and some seconds around it, never across a gap.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic import waveforms
from scigpt.data_prep.seismic.stationxml import Metadata
from scigpt.data_prep.seismic.waveforms import Header, form_of, obspy, traces_of
from scigpt.errors import UserError

ALIKE = 1e-4
"""Relative difference of two sampling rates that are the same."""
KEPT = 512 << 20
SHORTEST, LONGEST = 40, 1 << 25
"""Samples of one channel in a row that are filtered; what is shorter is left out, longer refused."""
TAPER = 0.05
"""Share of a stretch that is tapered at each end before its response is removed."""
REACH = 32
"""Samples of the slower of two rates that the low-pass filter between them takes in on each side of an output."""
ATTENUATION = 80.0
"""Of that filter, dB: what lies above the lower Nyquist frequency is below 1e-4, and up to 0.84 of it is true to 1e-4."""


@dataclass(frozen=True)
class Processing:
    """What is done to the raw samples of a window.

    Args:
        metadata: of the stations, for the response; None leaves raw samples.
        output: `VEL`, `DISP`, `ACC`; `DEF` leaves the unit of what the instrument senses (Pa).
        pre_filt: four corner frequencies in Hz of the taper before the response is removed.
        water_level: in dB.
        rate: samples per second to resample to.
        pad: seconds around the window that are read too, for the filters.
    """

    metadata: Metadata | None = None
    output: str = "VEL"
    pre_filt: tuple[float, ...] | None = None
    water_level: float = 60.0
    rate: float | None = None
    pad: float = 60.0

    def ratio(self, rate: float) -> tuple[int, int]:
        """By how much samples at this rate are multiplied, and of those every how many-th is kept.

        Raises:
            UserError: rates without a ratio of whole numbers up to 1000.
        """
        if self.rate is None:
            return 1, 1
        ratio = Fraction(self.rate / rate).limit_denominator(1000)
        if not ratio or abs(float(ratio) * rate / self.rate - 1) > 1e-6 or ratio.numerator > 1000:
            raise UserError(
                f"rate={self.rate:g} and {rate:g} samples per second have no ratio of small whole numbers; choose another rate="
            )
        return ratio.numerator, ratio.denominator

    @property
    def filters(self) -> bool:
        return self.metadata is not None or self.rate is not None

    def reach(self, rate: float) -> float:
        """Seconds on each side of a sample that resampling from this rate takes in."""
        up, down = self.ratio(rate)
        return 0.0 if up == down else REACH * max(up, down) / up / rate


@dataclass(frozen=True)
class Grid:
    """A regular grid of instants: of the output index 0 `begin` (nanoseconds since 1970), of raw samples `rate` a second."""

    begin: int
    rate: float
    up: int = 1
    down: int = 1

    @property
    def step(self) -> float:
        return self.down / (self.up * self.rate)

    def index(self, instant: int) -> float:
        """Of the output, a fraction between two samples."""
        return (instant - self.begin) / 1e9 / self.step

    def instant(self, index: int) -> int:
        return self.begin + round(index * self.step * 1e9)


def margin_of(options: Any, rate: float) -> int:
    """Nanoseconds around a window of samples at a rate that are read too, for the filters."""
    if not options.response and options.rate is None:
        return 0
    return round(max(options.pad, Processing(rate=options.rate).reach(rate)) * 1e9)


class Reader:
    """Windows of channels; files are kept while there is room."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, list[Any]] = OrderedDict()

    def window(self, headers: Iterable[Header], grid: Grid, start: int, stop: int, how: Processing) -> np.ndarray:
        """Samples start..stop of the grid of one channel, float64, NaN where there are none.

        Raises:
            UserError: traces that overlap and differ, another rate, or a response that cannot be removed.
        """
        margin = round(max(how.pad, how.reach(grid.rate)) * grid.rate) if how.filters else 0
        low, high = (start * grid.down) // grid.up - margin, -(-stop * grid.down // grid.up) + margin
        raw = np.full(high - low, np.nan)
        headers = list(headers)
        for header in headers:
            self._lay(raw, header, grid, low)
        if not how.filters:
            return raw
        result = np.full(stop - start, np.nan)
        known = np.isfinite(raw)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
        for a, b in edges.reshape(-1, 2).tolist():
            if b - a < SHORTEST:
                continue
            if b - a > LONGEST:
                raise UserError(f"{headers[0].id}: {b - a} samples in a row are too many to be filtered; ask for shorter samples")
            first, values = self._filtered(raw[a:b], headers[0], grid, low + a, how)
            lo, hi = max(first, start), min(first + values.size, stop)
            if lo < hi:
                result[lo - start : hi - start] = values[lo - first : hi - first]
        return result

    def _lay(self, raw: np.ndarray, header: Header, grid: Grid, low: int) -> None:
        """What a trace holds of the window whose first raw sample is number `low` of the grid."""
        span = (grid.begin + round(low / grid.rate * 1e9), grid.begin + round((low + raw.size) / grid.rate * 1e9))
        if not header.touches(*span):
            return
        drift = abs(header.rate / grid.rate - 1)
        if drift > ALIKE or drift * header.count > 0.5:
            raise UserError(
                f"{header.path.name}: {header.id} has {header.rate:.9g} samples per second and its window {grid.rate:.9g}; "
                "resample one of them, or leave it out with channels="
            )
        for begin, data in self._pieces(header, span):
            at = round((begin - grid.begin) / 1e9 * grid.rate) - low
            a, b = max(at, 0), min(at + data.size, raw.size)
            if a >= b:
                continue
            new, old = data[a - at : b - at].astype(np.float64), raw[a:b]
            both = np.isfinite(old) & np.isfinite(new)
            if not np.array_equal(old[both], new[both]):
                raise UserError(
                    f"{header.path.name}: {header.id} overlaps other samples of the same time that differ; leave one of them out"
                )
            raw[a:b] = np.where(np.isfinite(old), old, new)

    def _pieces(self, header: Header, span: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
        """Instant of the first sample, and the samples, of the trace of this header."""
        form = form_of(header.path)
        assert form is not None
        if form != "SAC" and header.path.stat().st_size > waveforms.WHOLE:
            second = 10**9
            traces = traces_of(header.path, form, False, header.id, (span[0] - second, span[1] + second))
            low, high = header.start - second, header.stop + second
            return [(t.stats.starttime.ns, t.data) for t in traces if low <= t.stats.starttime.ns <= high]
        if header.path not in self._files:
            self._files[header.path] = list(traces_of(header.path, form, False))
            while len(self._files) > 1 and sum(t.data.nbytes for f in self._files.values() for t in f) > KEPT:
                self._files.popitem(last=False)
        self._files.move_to_end(header.path)
        found = self._files[header.path]
        return [(t.stats.starttime.ns, t.data) for t in found if t.id == header.id and t.stats.starttime.ns == header.start]

    def _filtered(self, raw: np.ndarray, header: Header, grid: Grid, at: int, how: Processing) -> tuple[int, np.ndarray]:
        """A contiguous stretch whose first sample has the raw number `at`, processed: number of its first sample on the grid, samples."""
        if how.metadata is not None:
            raw = _without_response(raw, header, grid.begin + round(at / grid.rate * 1e9), grid.rate, how)
        return resampled(raw, at, grid.up, grid.down)


def _without_response(raw: np.ndarray, header: Header, start: int, rate: float, how: Processing) -> np.ndarray:
    """As obspy's remove_response; what its taper has touched becomes NaN."""
    assert how.metadata is not None
    found = how.metadata.channel(header.id, start)
    if found is None or found.response is None:
        raise UserError(f"{header.path.name}: no StationXML gives the response of {header.id}; fetch it with level=response")
    trace = obspy().Trace(raw.copy(), {"sampling_rate": rate, "starttime": obspy().UTCDateTime(ns=start), "response": found.response})
    with one_sentence(header.path, f"freed of its response ({header.id} in the StationXML)"):
        trace.remove_response(output=how.output, pre_filt=how.pre_filt, water_level=how.water_level, taper_fraction=TAPER)
    values = np.asarray(trace.data, np.float64)
    touched = int(np.ceil(TAPER * values.size))
    values[:touched] = np.nan
    values[values.size - touched :] = np.nan
    return values


def resampled(raw: np.ndarray, at: int, up: int, down: int) -> tuple[int, np.ndarray]:
    """Samples of a stretch at `up / down` of its rate through a zero-phase low-pass filter against aliases.

    Args:
        raw: float64; NaN only at its ends (they stay NaN).
        at: number of its first sample on the raw grid; output sample `k` lies where raw sample `k down / up` does.

    Returns:
        Number of the first output sample, and the samples; NaN where the filter would reach beyond the stretch.
    """
    if (up, down) == (1, 1):
        return at, raw
    known = np.flatnonzero(np.isfinite(raw))
    if not known.size:
        return -(-at * up // down), np.zeros(0)
    raw, at = raw[known[0] : known[-1] + 1], at + int(known[0])
    first = -(-at * up // down)
    offset = first * down - at * up  # of the first output, in steps of the finer grid
    lead = next(k for k in range(down) if (offset + k * up) % down == 0)
    taps = _low_pass(up, down)
    made = signal.resample_poly(np.concatenate([np.zeros(lead), raw]), up, down, window=taps)
    skip = (offset + lead * up) // down
    count = max(((raw.size - 1) * up - offset) // down + 1, 0)
    made, half = made[skip : skip + count], taps.size // 2
    place = offset + np.arange(count) * down
    return first, np.where((place >= half) & (place <= (raw.size - 1) * up - half), made, np.nan)


@functools.lru_cache(16)
def _low_pass(up: int, down: int) -> np.ndarray:
    """Taps on the finer grid; those that meet at one output sum to the same, so that a level stays what it is."""
    slower, half = max(up, down), REACH * max(up, down)
    width = (ATTENUATION - 7.95) / (2.285 * 2 * half * np.pi)  # Kaiser's, in Nyquist frequencies of the finer grid
    taps = signal.firwin(2 * half + 1, 1 / slower - width / 2, window=("kaiser", signal.kaiser_beta(ATTENUATION)))
    for phase in range(up):
        taps[phase::up] /= taps[phase::up].sum() * up
    return np.asarray(taps)
