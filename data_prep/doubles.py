"""The same gauge under two names: stations that lie near each other and whose values are the same, of which one is left out.

Large collections hold stations twice (Caravan has 1,589 basins that are in two of its parts). A double in two splits would give the answer
away, and two of a kind in one split count twice. A high correlation does not make a double: neighbours on one river have that too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from scigpt.data_prep.neighbours import EARTH_RADIUS, on_sphere
from scigpt.data_prep.station_records import Clock, Record

NEAR = 5.0
"""Kilometres."""
COMMON = 365
"""Values that two records must have in common to be compared."""
SHARE = 0.95
"""Of them that must be equal."""
_KEPT = 64


def without_doubles(records: Sequence[Record], clock: Clock, variable: str, notes: list[str], scaled: bool = False) -> list[Record]:
    """The records without those that say what another says; of a double the one with fewer values is left out (or the later id).

    Args:
        variable: by name, what is compared; a record that lacks it is no double.
        scaled: whether one may be a multiple of the other: flow by area, where two collections give a basin different areas.
        notes: gets a sentence if any is left out.
    """
    if len(records) < 2:
        return list(records)
    from scipy.spatial import cKDTree

    points = on_sphere(np.array([(r.station.latitude, r.station.longitude) for r in records]))
    pairs = cKDTree(points).query_pairs(2 * np.sin(NEAR / EARTH_RADIUS / 2), output_type="ndarray")
    series = _Series(records, clock, variable)
    out: dict[int, int] = {}
    for i, j in sorted(map(tuple, pairs.tolist())):
        if i in out or j in out:
            continue
        (ticks, a), (others, b) = series[i], series[j]
        _, left, right = np.intersect1d(ticks, others, assume_unique=True, return_indices=True)
        if same(a[left], b[right], scaled):
            keep, drop = (i, j) if a.size >= b.size else (j, i)
            out[drop] = keep
    if out:
        some = ", ".join(f"{records[d].station.id} of {records[k].station.id}" for d, k in list(out.items())[:3])
        notes.append(f"{len(out)} stations are left out as doubles of others ({some}); duplicates=keep keeps them")
    return [r for i, r in enumerate(records) if i not in out]


def same(a: np.ndarray, b: np.ndarray, scaled: bool = False) -> bool:
    """Whether two series of values at the same instants are one record, each rounded in its own way.

    Values are equal to within half the steps in which both are rounded; of scaled series also to within a hundredth, after the one is
    multiplied by the median ratio, which must lie between 0.8 and 1.25. A series that hardly varies says nothing.
    """
    if scaled:
        flowing = (a > 0) & (b > 0)
        a, b = a[flowing], b[flowing]
    if a.size < COMMON:
        return False
    a, b = a.astype(np.float64), b.astype(np.float64)
    factor = float(np.median(b / a)) if scaled else 1.0
    if not 0.8 <= factor <= 1.25:
        return False
    rounding = (_step(a) * factor + _step(b)) / 2
    if min(np.std(a) * factor, np.std(b)) < 5 * rounding or np.std(a) == 0:
        return False
    tolerance = rounding * (1 + 1e-6) + (0.01 * np.abs(b) if scaled else 1e-6 * np.abs(b))
    return bool((np.abs(a * factor - b) <= tolerance).mean() >= SHARE)


def _step(values: np.ndarray) -> float:
    """The steps in which values are rounded: the least distance between two different ones, beyond what float32 tells apart."""
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    gaps = gaps[gaps > 4e-7 * np.abs(distinct[1:])]
    return float(gaps.min()) if gaps.size else 0.0


class _Series:
    """Ticks and values of one variable of each record, read when they are needed."""

    def __init__(self, records: Sequence[Record], clock: Clock, variable: str) -> None:
        self.records, self.clock, self.variable = records, clock, variable
        self.kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self.kept:
            self.kept[index] = self._read(self.records[index])
            if len(self.kept) > _KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(index)
        return self.kept[index]

    def _read(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        ticks, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for _, station in record.parts:
            names = [v.name for v in station.variables]
            if self.variable in names:
                readings = station.read()
                column = readings.values[:, names.index(self.variable)]
                good = np.isfinite(column)
                ticks.append(self.clock.ticks(readings.begins)[good])
                values.append(column[good])
        every, first = np.unique(np.concatenate(ticks), return_index=True)
        return every, np.concatenate(values)[first]
