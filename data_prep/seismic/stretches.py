"""The traces of an instrument on one grid, and samples of it; of large files no more is read than a sample needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic import waveforms
from scigpt.data_prep.seismic.waveforms import EPOCH, form_of, obspy, read_traces, traces_of
from scigpt.data_prep.seismic.windows import KEPT, LONGEST
from scigpt.data_prep.source import SampleRef
from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.data_prep.sources.miniseed import Miniseed


@dataclass(frozen=True)
class Stretch:
    """A contiguous trace: which one of which file, and where it lies on the (decimated) grid of its record.

    Args:
        begin, end: instants of its first and last sample, nanoseconds since 1970.
    """

    path: Path
    number: int
    id: str
    begin: int
    end: int
    start: int
    skip: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(frozen=True)
class Instrument:
    """The traces of one station, location, band and instrument code on one regular grid.

    Args:
        begin: instant of grid index 0, nanoseconds since 1970.
        step: seconds from frame to frame.
        runs: ranges of the grid without a gap longer than a sample.
    """

    name: str
    begin: int
    step: float
    stretches: tuple[Stretch, ...]
    runs: tuple[tuple[int, int], ...]
    origin: Origin

    @property
    def letters(self) -> str:
        return "".join(sorted({s.id[-1] for s in self.stretches}))


class Reading:
    """Traces read and processed once, kept while consecutive samples of one instrument need them."""

    def __init__(self, source: Miniseed, variables: tuple[Variable, ...]) -> None:
        self.source, self.variables = source, variables
        self.instrument: Instrument | None = None
        self.files: dict[Path, Any] = {}
        self.data: dict[Stretch, np.ndarray] = {}

    def sample(self, instrument: Instrument, ref: SampleRef) -> Sample:
        if instrument is not self.instrument:
            self.instrument, self.files, self.data = instrument, {}, {}
        start, stop = ref.spec["start"], ref.spec["stop"]
        components = {c: np.full(stop - start, np.nan) for c in instrument.letters}
        for stretch in instrument.stretches:
            low, high = max(start, stretch.start), min(stop, stretch.stop)
            if low < high and _large(stretch) and not self._filters:
                self._lay_part(components[stretch.id[-1]], stretch, start, stop)
            elif low < high:
                self._lay(components[stretch.id[-1]][low - start : high - start], stretch, low, high)
        values = np.full((stop - start, len(self.variables), 1, 1, 1), np.nan)
        for direction, weights in self.source.weights(instrument).items():
            channel = next(c for c, v in enumerate(self.variables) if v.name.endswith(f"_{direction}"))
            values[:, channel, 0, 0, 0] = sum(weight * components[c] for c, weight in weights.items())
        valid = np.isfinite(values)
        if not valid.any():
            raise UserError(f"{ref.spec['files'][0][0]}: {instrument.name} has no finite sample at all in {ref.key}")
        first = instrument.begin - EPOCH + round(start * instrument.step * 1e9)
        files = tuple(SourceFile(name, digest) for name, digest in ref.spec["files"])
        origin = Origin(instrument.origin.source, instrument.origin.licence, files, instrument.origin.attribution, instrument.name)
        place = self._place(instrument)
        return Sample(
            np.where(valid, values, 0.0).astype(np.float32),
            valid,
            self.variables,
            Time.regular(first / 1e9, instrument.step, stop - start, "standard"),
            origin,
            "points" if place else "plane",
            coordinates=place,
        )

    def _lay(self, into: np.ndarray, stretch: Stretch, low: int, high: int) -> None:
        self._put(into, stretch, self._read(stretch)[low - stretch.start : high - stretch.start])

    def _lay_part(self, into: np.ndarray, stretch: Stretch, start: int, stop: int) -> None:
        """Of a large file, the samples start..stop of the record and no others."""
        assert self.instrument is not None
        ends = [self.instrument.begin + round(i * self.instrument.step * 1e9) for i in (start - 1, stop)]
        for trace in _traces(stretch, max(ends[0], stretch.begin), min(ends[1], stretch.end)):
            at = stretch.start + round((trace.stats.starttime.ns - stretch.begin) / 1e9 / self.instrument.step) - start
            a, b = max(at, 0), min(at + trace.stats.npts, into.size)
            if a < b:
                self._put(into[a:b], stretch, np.asarray(trace.data[a - at : b - at], np.float64))

    @property
    def _filters(self) -> bool:
        return self.source.options.response or self.source.options.decimate > 1

    def _put(self, into: np.ndarray, stretch: Stretch, new: np.ndarray) -> None:
        both = np.isfinite(into) & np.isfinite(new)
        if not np.array_equal(into[both], new[both]):
            raise UserError(f"{stretch.path.name}: {stretch.id} overlaps other samples of the same time that differ; leave one of them out")
        into[:] = np.where(np.isfinite(into), into, new)

    def _read(self, stretch: Stretch) -> np.ndarray:
        """All samples of a stretch, filtered as the options say: float64."""
        if stretch not in self.data:
            trace, o = self._trace(stretch), self.source.options
            trace.data = np.asarray(trace.data, np.float64)
            if o.response:
                with one_sentence(stretch.path, f"freed of its response ({stretch.id} in {o.stationxml})"):
                    trace.remove_response(inventory=self.source.inventory, output="VEL", pre_filt=o.pre_filt, water_level=o.water_level)
            if o.decimate > 1:
                first = trace.data[0]  # the filter starts from rest: an offset would ring
                trace.data = trace.data[stretch.skip :] - first
                with one_sentence(stretch.path, "decimated"):
                    trace.decimate(o.decimate)
                trace.data = trace.data + first
            self.data[stretch] = trace.data
            while len(self.data) > 1 and sum(d.nbytes for d in self.data.values()) > KEPT:
                del self.data[next(iter(self.data))]
        return self.data[stretch]

    def _trace(self, stretch: Stretch) -> Any:
        if _large(stretch):
            if (count := stretch.count * self.source.options.decimate) > LONGEST:
                raise UserError(
                    f"{stretch.path.name}: {stretch.id} has {count} samples in a row, too many to be filtered; cut the file, or leave "
                    "response= and decimate= away"
                )
            return next(t for t in _traces(stretch, stretch.begin, stretch.end) if t.stats.starttime.ns == stretch.begin)
        if stretch.path not in self.files:
            self.files[stretch.path] = read_traces(stretch.path)
            while len(self.files) > 1 and sum(t.data.nbytes for f in self.files.values() for t in f) > KEPT:
                del self.files[next(iter(self.files))]
        return self.files[stretch.path][stretch.number].copy()

    def _place(self, instrument: Instrument) -> dict[str, Coordinate]:
        if self.source.inventory is None:
            return {}
        stretch = instrument.stretches[0]
        with one_sentence(stretch.path, f"found in {self.source.options.stationxml}"):
            at = obspy().UTCDateTime(ns=instrument.begin)
            where = self.source.inventory.get_coordinates(stretch.id, at)
        units = {"latitude": "degrees_north", "longitude": "degrees_east", "elevation": "m"}
        return {n.replace("elevation", "height"): Coordinate(("x",), np.array([where[n]]), unit) for n, unit in units.items()}


def _large(stretch: Stretch) -> bool:
    return stretch.path.stat().st_size > waveforms.WHOLE


def _traces(stretch: Stretch, first: int, last: int) -> list[Any]:
    """Of the channel of a stretch, what a file holds within a span of the stretch."""
    form = form_of(stretch.path)
    assert form is not None
    return [t for t in traces_of(stretch.path, form, False, stretch.id, (first, last)) if t.stats.npts]
