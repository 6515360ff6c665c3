"""A record: the fields of one experiment from all its files, on one grid and with common times."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np

from scigpt.data.sample import TIME_UNITS, Origin, Role, Sample, Time, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.fields import Field, Grid, Lattice
from scigpt.data_prep.regrid import Regridder
from scigpt.errors import UserError

STATIC = ("surface_altitude", "land_area_fraction", "sea_area_fraction", "sea_floor_depth", "cell_area")
FORCING = ("toa_incident_solar_radiation", "day_length")
READ_BYTES = 64 << 20
"""Of a field, read at once."""


@dataclass(frozen=True, eq=False)
class Series:
    """One variable over all its files: frame i is at `position[i]` of `fields[piece[i]]`."""

    fields: tuple[Field, ...]
    channels: tuple[Variable, ...]
    piece: np.ndarray
    position: np.ndarray


@dataclass(frozen=True, eq=False)
class Record:
    name: str
    series: tuple[Series, ...]
    time: Time
    lattice: Lattice
    members: tuple[int | None, ...]
    files: tuple[Path, ...]
    origin: Origin
    regridder: Regridder | None = None

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(v for s in self.series for v in s.channels)

    @property
    def grid(self) -> Grid:
        return self.lattice.whole if self.regridder is None else self.regridder.grid

    @property
    def shape(self) -> tuple[int, int]:
        return self.lattice.shape if self.regridder is None else self.regridder.grid.shape

    @property
    def curvilinear(self) -> bool:
        return self.regridder is None and self.lattice.latitude.ndim == 2

    def files_of(self, start: int, stop: int) -> list[Path]:
        """Those that these frames are read from."""
        used = {s.fields[n].path for s in self.series for n in np.unique(s.piece[start:stop])}
        return [path for path in self.files if path in used]

    def segments(self, hole: float) -> list[tuple[int, int]]:
        """Ranges of frames without a hole: a step of so many median steps. Months and years of unequal length are not holes."""
        steps = np.diff(self.time.seconds)
        cuts = np.flatnonzero(steps > hole * np.median(steps)) + 1 if steps.size else np.empty(0, int)
        edges = [0, *cuts.tolist(), len(self.time)]
        return list(itertools.pairwise(edges))

    def read(self, start: int, stop: int, member: int | None, origin: Origin, window: tuple[slice, slice] | None = None) -> Sample:
        """Frames start..stop, of the whole grid or of a window `(y, x)` of it, as a Sample."""
        y, x = window or (slice(None), slice(None))
        grid = self.grid if window is None else self.lattice.part(y, x)
        variables = self.variables
        values = np.empty((stop - start, len(variables), 1, *grid.shape), np.float32)
        channel = 0
        for series in self.series:
            upto = channel + len(series.channels)
            piece, position = series.piece[start:stop], series.position[start:stop]
            for number in np.unique(piece):
                field, here = series.fields[number], np.flatnonzero(piece == number)
                # some frames at a time, because decoding and regridding take several times their memory
                cells = self.lattice.shape if window is None else grid.shape
                each = max(1, READ_BYTES // (4 * len(series.channels) * math.prod(cells)))
                for some in (here[i : i + each] for i in range(0, here.size, each)):
                    found = field.read(position[some], member, y, x)
                    if self.regridder is not None:
                        found = self.regridder(found, series.channels)
                    values[slice(some[0], some[-1] + 1) if some[-1] - some[0] + 1 == some.size else some, channel:upto, 0] = found
            channel = upto
        valid = np.isfinite(values)
        if not grid.known.all():
            valid &= grid.known
        if not valid.all():
            values[~valid] = 0.0
        cut = {a: ("open", "open") for a, n, whole in zip("yx", grid.shape, self.shape, strict=True) if n < whole}
        boundary = replace(grid.boundary, **cut)  # type: ignore[arg-type]
        return Sample(values, valid, variables, self.time[start:stop], origin, "sphere", boundary, grid.coordinates())

    def nothing_valid(self, start: int, stop: int) -> str:
        """The sentence about frames of which nothing is valid."""
        label = self.time[start:stop].labels()
        names = ", ".join(sorted({v.name for v in self.variables if v.predicted}))
        files = ", ".join(sorted({f.path.name for s in self.series for f in s.fields}))
        return f"{files}: {names} has no valid value at all from {label[0]} to {label[-1]}; leave that time out with period="

    def arranged(self, variables: Sequence[Variable]) -> Record:
        """With its variables in this order, if they are the same ones; else as it is."""
        place = {v: i for i, v in enumerate(variables)}
        if any(v not in place for v in self.variables):
            return self
        return replace(self, series=tuple(sorted(self.series, key=lambda s: place[s.channels[0]])))


def _key(seconds: np.ndarray) -> np.ndarray:
    return np.round(seconds * 1000.0).astype(np.int64)


def _role(field: Field) -> Role:
    if field.quantity.name in STATIC or field.time is None:
        return "static"
    return "forcing" if field.quantity.name in FORCING else "state"


def make_record(name: str, fields: Sequence[Field], origin: Origin, notes: list[str]) -> Record:
    """Fields of one experiment put together: files that follow each other in time, and variables side by side.

    Raises:
        UserError: two grids, two calendars, an instant read twice, or variables without common times.
    """
    first = next((f for f in fields if f.time is not None), None)
    if first is None or first.time is None:
        raise UserError(f"{fields[0].place} has no time; expected a CF time coordinate such as 'hours since 1900-01-01'")
    groups: dict[tuple[Any, ...], list[Field]] = {}
    for field in fields:
        if not field.lattice.same_as(first.lattice):
            raise UserError(f"{field.place} is on another grid than {first.place}; prepare them as two corpora or choose with variables=")
        if field.time is not None and field.time.calendar != first.time.calendar:
            a, b = (f"{f.place} has the calendar {t.calendar}" for f, t in ((field, field.time), (first, first.time)))
            raise UserError(f"{a} and {b}; prepare them as two corpora")
        groups.setdefault((field.quantity.name, field.levels, field.name), []).append(field)

    common: np.ndarray | None = None
    times: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for key, group in groups.items():
        if len({f.time is None for f in group}) > 1:
            lacking, other = (next(f for f in group if (f.time is None) is none) for none in (True, False))
            raise UserError(f"{lacking.place} has no time and {other.place} has; expected one for each, leave a file out")
        if group[0].time is None:
            continue
        keys = np.concatenate([_key(f.time.seconds) for f in group if f.time is not None])
        piece = np.repeat(np.arange(len(group)), [len(f.order) for f in group])
        position = np.concatenate([np.arange(len(f.order)) for f in group])
        order = np.argsort(keys, kind="stable")
        keys, piece, position = keys[order], piece[order], position[order]
        if (twice := np.flatnonzero(np.diff(keys) == 0)).size:
            where = " and in ".join(dict.fromkeys(group[piece[twice[0] + i]].path.name for i in (0, 1)))
            name = group[0].quantity.name
            raise UserError(f"{name} is given twice for the same time, in {where}; leave one out or choose with variables=")
        times[key] = keys, piece, position
        common = keys if common is None else np.intersect1d(common, keys, assume_unique=True)
    assert common is not None
    longest = max(len(keys) for keys, _, _ in times.values())
    if 2 * common.size < longest:
        names = ", ".join(f"{key[2]} ({len(times[key][0])})" for key in times)
        raise UserError(
            f"{first.path.name}: the variables {names} share only {common.size} times; expected the same times, choose some with variables="
        )
    if common.size < longest:
        notes.append(f"{longest - common.size} of {longest} frames of {name} are left out because not every variable has them")

    series: list[Series] = []
    for key, group in groups.items():
        if key in times:
            keys, piece, position = times[key]
            at = np.searchsorted(keys, common)
            piece, position = piece[at], position[at]
        else:
            piece = position = np.zeros(common.size, int)
        channels = tuple(Variable(group[0].quantity.name, group[0].quantity.unit, _role(group[0]), lv) for lv in group[0].levels)
        series.append(Series(tuple(group), channels, piece, position))
    series = _told_apart(series)
    lead = next(s for s in series if s.fields[0].time is not None)
    seconds, bounds = np.empty(common.size), np.empty((common.size, 2))
    for number, field in enumerate(lead.fields):
        here = lead.piece == number
        assert field.time is not None
        seconds[here] = field.time.seconds[lead.position[here]]
        bounds[here] = np.nan if field.time.bounds is None else field.time.bounds[lead.position[here]]
    members: tuple[int | None, ...] = next((f.members for f in fields if f.member_dim), ()) or (None,)
    if any(f.member_dim and f.members != members for f in fields):
        raise UserError(f"{first.path.name}: the variables do not have the same ensemble members; choose some with variables=")
    time = Time(seconds, first.time.calendar, bounds if np.isfinite(bounds).all() else None)
    return Record(name, tuple(series), time, first.lattice, members, tuple(dict.fromkeys(f.path for f in fields)), origin)


def _told_apart(series: list[Series]) -> list[Series]:
    """Two variables of one quantity: a daily maximum or minimum gets its own name, anything else is refused."""
    result = list(series)
    for i, one in enumerate(result):
        rivals = [s for s in result if s is not one and {v.key for v in s.channels} & {v.key for v in one.channels}]
        field = one.fields[0]
        if rivals and field.extreme and (own := f"{field.quantity.name}_{field.extreme}") in QUANTITIES:
            result[i] = replace(one, channels=tuple(replace(v, name=own) for v in one.channels))
    for i, one in enumerate(result):
        for other in result[i + 1 :]:
            if {v.key for v in one.channels} & {v.key for v in other.channels}:
                a, b = one.fields[0], other.fields[0]
                raise UserError(f"{a.place} and {b.place} are both {a.quantity.name}; choose one of them with variables=")
    return result


def period_frames(record: Record, period: str | None) -> tuple[int, int]:
    """Frames `(start, stop)` of the years `1980-2010`."""
    if period is None:
        return 0, len(record.time)
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", period.strip())
    if match is None:
        raise UserError(f"period {period!r} is not of the form 1980-2010 (years, both included)")
    calendar, first, last = record.time.calendar, int(match[1]), int(match[2] or match[1])
    low, high = cftime.date2num([cftime.datetime(y, 1, 1, calendar=calendar) for y in (first, last + 1)], TIME_UNITS, calendar)
    inside = np.flatnonzero((record.time.seconds >= low) & (record.time.seconds < high))
    if not inside.size:
        labels = record.time.labels()
        raise UserError(f"{record.files[0].name} has no frame in the period {period}; it runs from {labels[0]} to {labels[-1]}")
    return int(inside[0]), int(inside[-1]) + 1
