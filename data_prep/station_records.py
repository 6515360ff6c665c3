"""What a station is: its place, its record in each file, and the clock that the values of all stations lie on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.sample import Time, Variable
from scigpt.errors import UserError

DAY = 86400
_EPOCH = np.datetime64("2000-01-01", "s")


@dataclass(frozen=True)
class Clock:
    """The regular clock of a corpus of stations.

    Args:
        step: seconds from one value to the next; None for calendar months.
        interval: whether a value is of the whole step that begins at its instant (a mean, a total), or of the instant.
    """

    step: int | None = DAY
    interval: bool = True

    def ticks(self, begins: np.ndarray | np.datetime64) -> np.ndarray:
        """How many steps lie between 1970 and these instants (datetime64), int64, whatever part of a step they come after a tick."""
        if self.step is None:
            return begins.astype("datetime64[M]").astype(np.int64)
        return begins.astype("datetime64[s]").astype(np.int64) // self.step

    def phase(self, begins: np.ndarray | np.datetime64) -> np.ndarray:
        """Seconds by which these instants come after their tick."""
        if self.step is None:
            return (begins.astype("datetime64[s]") - begins.astype("datetime64[M]").astype("datetime64[s]")).astype(np.int64)
        return begins.astype("datetime64[s]").astype(np.int64) % self.step

    def time(self, start: int, stop: int, phase: int) -> Time:
        """Of the ticks start..stop: the middles of intervals with their bounds, or the instants."""
        ticks = np.arange(start, stop + 1)
        at = ticks.astype("datetime64[M]").astype("datetime64[s]") if self.step is None else (ticks * self.step).astype("datetime64[s]")
        edges = (at - _EPOCH).astype(np.float64) + phase
        if not self.interval:
            return Time(edges[:-1], "proleptic_gregorian")
        return Time((edges[:-1] + edges[1:]) / 2, "proleptic_gregorian", np.stack([edges[:-1], edges[1:]], 1))


@dataclass(frozen=True, eq=False)
class Readings:
    """What a station measured.

    Args:
        begins: datetime64[s] `(n,)`, rising: the instants of the values, or the beginnings of their intervals, in UTC (of a daily or
            monthly value the date that its station gives it).
        values: float32 `(n, C)`, one column for each of the station's variables, NaN where there is no (good) value.
    """

    begins: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Station:
    """One station, gauge, basin or tower in one file.

    Args:
        id: unique in its network; the same id in several files is one station.
        variables: what this file has of it, in the units of the registry.
        first, last: datetime64[s], the instants (or beginnings) of the first and last value that the file may have.
        read: called when the values are needed.
        height: metres above sea level, None where it is not known.
        whole: what a split by station keeps together (a basin with several gauges); the station itself by default.
        static: what does not change (the area of a catchment), in the units of the registry.
        about: of the station, for people: name, network, country, land cover.
        attribution, licence: of this station, beside or in place of those of the source.
    """

    id: str
    latitude: float
    longitude: float
    variables: tuple[Variable, ...]
    first: np.datetime64
    last: np.datetime64
    read: Callable[[], Readings]
    height: float | None = None
    whole: str = ""
    static: Mapping[Variable, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    attribution: str = ""
    licence: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """A station over all files that have it."""

    parts: tuple[tuple[Path, Station], ...]

    @property
    def station(self) -> Station:
        return self.parts[0][1]

    @property
    def first(self) -> np.datetime64:
        return min(s.first for _, s in self.parts)

    @property
    def last(self) -> np.datetime64:
        return max(s.last for _, s in self.parts)

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(p for p, _ in self.parts))


def lay(record: Record, clock: Clock, variables: Sequence[Variable], low: int, into: np.ndarray) -> None:
    """The values of a record from tick `low` on, `(T, C)`, where it has any; what two files say of one instant must agree.

    Raises:
        UserError: values that are not on the clock, that lie outside the span of their station, or that contradict each other.
    """
    phase = None
    for path, station in record.parts:
        readings = station.read()
        ticks, own = _ticks(path, station, readings, clock)
        if phase is not None and own is not None and own != phase:
            raise UserError(
                f"{path.name}: values of {station.id} begin {own} s after a step of the clock, and in another file of the input {phase} s; "
                "prepare these files apart"
            )
        phase = own if phase is None else phase
        inside = (ticks >= low) & (ticks < low + len(into))
        rows = ticks[inside] - low
        for column, variable in enumerate(station.variables):
            if variable not in variables:
                continue
            c = variables.index(variable)
            new, old = readings.values[inside, column], into[rows, c]
            differ = np.isfinite(new) & np.isfinite(old) & (new != old)
            if differ.any():
                i = int(np.argmax(differ))
                raise UserError(
                    f"{path.name}: {station.id} has {variable.name} {new[i]:g} at {readings.begins[inside][i]}, and another file of the "
                    f"input has {old[i]:g}; leave one of them out"
                )
            into[rows, c] = np.where(np.isfinite(new), new, old)


def _ticks(path: Path, station: Station, readings: Readings, clock: Clock) -> tuple[np.ndarray, int | None]:
    """The ticks of values, and by how much they come after them."""
    begins = readings.begins
    assert readings.values.shape == (begins.size, len(station.variables))
    ticks, phases = clock.ticks(begins), clock.phase(begins)
    wrong = np.flatnonzero((np.diff(ticks, prepend=ticks[:1] - 1) <= 0) | (phases != phases[:1]))
    if wrong.size:
        i = int(wrong[0])
        before = f"after {begins[i - 1]}" if i else "first"
        step = "month" if clock.step is None else f"step of {clock.step} s"
        raise UserError(f"{path.name}: {station.id} has a value of {begins[i]} {before}; expected one value for each {step}")
    if begins.size and not (station.first <= begins[0] and begins[-1] <= station.last):
        raise UserError(f"{path.name}: {station.id} has values from {begins[0]} to {begins[-1]}, outside {station.first} to {station.last}")
    return ticks, int(phases[0]) if phases.size else None
