"""What is missing from a split: values, whole frames, and stretches of time between its samples. Counted sample by sample, mergeable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scigpt.data.sample import Sample, Time

HOLE = 1.5
"""A step of so many usual ones is a hole in time, unless a source says otherwise; months and years of unequal length are none."""
LISTED = 20
"""Holes that a manifest lists, the longest ones."""


@dataclass(slots=True)
class Gaps:
    """Counts of a split: by variable all values, invalid ones, and frames without a valid one; frames without a value to predict; by place
    the time that each sample spans."""

    total: dict[str, int] = field(default_factory=dict)
    invalid: dict[str, int] = field(default_factory=dict)
    missing_frames: dict[str, int] = field(default_factory=dict)
    empty_frames: int = 0
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        whole = bool(sample.valid.all())
        there = None if whole else np.any(sample.valid, axis=(2, 3, 4)).reshape(sample.valid.shape[:2])
        for c, variable in enumerate(sample.variables):
            valid, key = sample.valid[:, c], variable.key
            self.total[key] = self.total.get(key, 0) + valid.size
            self.invalid[key] = self.invalid.get(key, 0) + (0 if whole else valid.size - int(np.count_nonzero(valid)))
            self.missing_frames[key] = self.missing_frames.get(key, 0) + (0 if there is None else int((~there[:, c]).sum()))
        if there is not None:
            self.empty_frames += int((~there[:, [v.predicted for v in sample.variables]].any(1)).sum())
        self.spans.setdefault(sample.origin.place, []).append((float(sample.time.seconds[0]), float(sample.time.seconds[-1])))

    def merge(self, other: Gaps) -> None:
        self.empty_frames += other.empty_frames
        for mine, theirs in ((self.total, other.total), (self.invalid, other.invalid), (self.missing_frames, other.missing_frames)):
            for key, number in theirs.items():
                mine[key] = mine.get(key, 0) + number
        for place, spans in other.spans.items():
            self.spans.setdefault(place, []).extend(spans)

    def to_json(self) -> dict[str, Any]:
        return {
            "variables": {k: [self.total[k], self.invalid[k], self.missing_frames[k]] for k in self.total},
            "empty_frames": self.empty_frames,
            "spans": {place: [list(s) for s in spans] for place, spans in self.spans.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gaps:
        total, invalid, missing = ({k: v[i] for k, v in data["variables"].items()} for i in range(3))
        return cls(total, invalid, missing, data["empty_frames"], {p: [(a, b) for a, b in s] for p, s in data["spans"].items()})

    def holes(self, step: float | None, hole: float = HOLE) -> list[tuple[str, float, float]]:
        """Place, last instant before and first after each stretch of time in which samples are missing, the longest first.

        Args:
            step: time between frames; where there is none, single frames are taken to follow each other at their usual distance.
        """
        jumps = []
        for place, spans in sorted(self.spans.items()):
            ends = np.maximum.accumulate([b for _, b in sorted(spans)])
            starts = np.array([a for a, _ in sorted(spans)])
            jumps += [(place, float(b), float(a)) for b, a in zip(ends[:-1], starts[1:], strict=True) if a > b]
        if not jumps:
            return []
        usual = step or float(np.median([a - b for _, b, a in jumps]))
        return sorted((j for j in jumps if j[2] - j[1] > hole * usual), key=lambda j: (j[1] - j[2], j[0], j[1]))

    def summary(self, calendar: str, step: float | None, steady: bool = False, hole: float = HOLE) -> dict[str, Any]:
        """What the manifest says: first and last instant (not of steady problems), shares invalid, frames that are missing, and holes (none
        in simulated time)."""
        every = [instant for spans in self.spans.values() for span in spans for instant in span]
        holes = [] if calendar == "none" else self.holes(step, hole)
        return {
            **({} if steady else _ends("first", min(every), "last", max(every), calendar)),
            "invalid": {key: self.invalid[key] / self.total[key] for key in self.total},
            "missing_frames": {key: number for key, number in self.missing_frames.items() if number},
            "empty_frames": self.empty_frames,
            "holes": len(holes),
            "longest_holes": [{"place": place, **_ends("after", a, "before", b, calendar)} for place, a, b in holes[:LISTED]],
        }


def _ends(one: str, first: float, other: str, last: float, calendar: str) -> dict[str, Any]:
    labels = Time(np.array([first]), calendar).labels() + Time(np.array([last]), calendar).labels()
    return {one: labels[0], other: labels[1], "seconds": [first, last]}
