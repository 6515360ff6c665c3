"""A survey of one SEG-Y file: its panels, where they lie, its axis of samples, and the samples of a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.formats.segy import COUNT, INTERVAL, SegyFile
from scigpt.data_prep.sources.segy_geometry import CDP, CODE, DEAD, FOOT, Ground, Panel, scale
from scigpt.errors import UserError

DELAY, TIME_SCALAR = 109, 215
HEADERS = (CDP, CODE, DELAY, COUNT, INTERVAL, TIME_SCALAR)
"""Words of every trace that decide what is read."""
ALIGNED = 0.01
"""Of an interval, within which traces lie on one axis of samples."""
APART = 8
"""Lengths of a trace, by which none can begin later than another."""


@dataclass(frozen=True, eq=False)
class Traces:
    """Values and what is known of them, `(n, samples)`; dead traces, numbers that are not finite."""

    values: np.ndarray
    known: np.ndarray
    dead: int
    not_finite: int

    def counted(self, holes: int) -> dict[str, int]:
        every = {"dead_traces": self.dead, "bins_without_trace": holes, "values_not_finite": self.not_finite}
        return {name: number for name, number in every.items() if number}


@dataclass(frozen=True, eq=False)
class Axis:
    """The axis of samples that the traces of a file share.

    Args:
        interval: s (or m) from sample to sample.
        begin: of the first sample.
        count: samples.
        shifts: samples by which each trace begins later than `begin`; None where all begin with it.
    """

    interval: float
    begin: float
    count: int
    shifts: np.ndarray | None = None

    def at(self, start: int, stop: int) -> np.ndarray:
        """s (or m) of samples start..stop."""
        return self.begin + self.interval * np.arange(start, stop)


@dataclass(frozen=True, eq=False)
class Survey:
    """One file: its panels, where they lie, and its axis of samples."""

    file: SegyFile
    panels: tuple[Panel, ...]
    ground: Ground
    axis: Axis

    @property
    def count(self) -> int:
        return self.axis.count

    def read(self, traces: np.ndarray, start: int, stop: int) -> Traces:
        """Samples start..stop of the axis; dead traces, and what lies before or after a trace, are not known."""
        dead = np.isin(self.file.header(CODE, traces), DEAD)
        values = np.zeros((traces.size, stop - start), np.float32)
        known = np.zeros(values.shape, bool)
        shifts = np.zeros(traces.size, np.int64) if self.axis.shifts is None else self.axis.shifts[traces]
        for shift in np.unique(shifts).tolist():
            here = np.flatnonzero(shifts == shift)
            low, high = max(start - shift, 0), min(stop - shift, self.file.samples)
            if high > low:
                to = slice(low + shift - start, high + shift - start)
                values[here, to], known[here, to] = self.file.read(traces[here], slice(low, high)), True
        silent = np.flatnonzero(~(values != 0).any(1) & ~dead)
        for some in (silent[i : i + 256] for i in range(0, silent.size, 256)):  # a muted stretch is no dead trace: all of it tells
            dead[some] = ~(self.file.read(traces[some]) != 0).any(1)
        known[dead] = False
        finite = np.isfinite(values)
        return Traces(values, known & finite, int(dead.sum()), int((known & ~finite).sum()))


def axis_of(file: SegyFile, depth: bool, dt: float | None, notes: list[str]) -> Axis:
    """The axis of samples by the headers.

    Args:
        depth: whether it is depth in m: an interval of 5000 in the headers is 5 m (or feet), a delay of 100 is 100 m.
        dt: interval of samples, instead of that of the headers.

    Raises:
        UserError: no interval, or delays that cannot be.
    """
    metres = FOOT if file.feet else 1.0
    interval = dt
    if interval is None:
        if file.interval is None:
            raise UserError(f"{file.path.name} has no sample interval in its headers; say it with dt= in {'m' if depth else 's'}")
        interval = file.interval * 1000 * metres if depth else file.interval
    if not (np.isfinite(interval) and interval > 0):
        raise UserError(f"dt={interval:g} must be a positive number of {'m' if depth else 's'}")
    delay = file.header(DELAY)
    if delay.min() == delay.max() and (file.revision[0] == 0 or np.ptp(file.header(TIME_SCALAR)) == 0):
        delay = delay[:1]
    unit = metres if depth else 1e-3
    begins = delay * (scale(file.header(TIME_SCALAR)[: delay.size]) if file.revision[0] >= 1 else 1.0) * unit
    begin = float(begins.min())
    late = (begins - begin) / interval
    if late.max() > APART * file.samples:
        apart = f"{begins.max() - begin:g} {'m' if depth else 's'}"
        raise UserError(
            f"{file.path.name}: its traces begin up to {apart} apart by the delay at byte {DELAY}, many times their length; the headers "
            "are wrong, correct them first"
        )
    shifts = np.rint(late).astype(np.int32)
    if np.abs(late - shifts).max() > ALIGNED:
        notes.append(f"{file.path.name}: traces that begin between two samples of the others are moved to the nearest one")
    longest = int(shifts.max())
    return Axis(interval, begin, file.samples + longest, shifts if longest else None)
