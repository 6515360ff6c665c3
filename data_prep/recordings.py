"""Records without a common clock (seismograms, well logs, fibres): dealt to splits whole or cut along themselves, then into samples.

Records of one well, station or place are cut at common depths or times, because they tell of the same ground and the same motion.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.gaps import HOLE
from scigpt.data_prep.blocks import MIN_FRAMES, pieces, shares, time_blocks
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.source import SampleRef, Split
from scigpt.errors import UserError

_MOST = 2_000_000
"""Positions that are looked at to find where records are cut; of more of them every second, third ... is taken."""


@dataclass(frozen=True, eq=False)
class Along:
    """Where the frames of a record lie: times, depths or numbers.

    Args:
        segments: ranges of frames without a hole.
        ends: first and last position of each of them.
        read: the rising positions of all frames, `(N,)`; called for those alone that a cut falls into.
    """

    segments: tuple[tuple[int, int], ...]
    ends: tuple[tuple[float, float], ...]
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, positions: np.ndarray, segments: tuple[tuple[int, int], ...] | None = None) -> Along:
        """Of positions in memory, without a hole unless segments are given."""
        own = segments or ((0, len(positions)),)
        return cls(own, tuple((float(positions[a]), float(positions[b - 1])) for a, b in own), lambda: positions)

    @property
    def last(self) -> int:
        return self.segments[-1][1]

    @property
    def step(self) -> float | None:
        """The usual step; None where no segment has two frames."""
        steps = [(z - a) / (high - low - 1) for (low, high), (a, z) in zip(self.segments, self.ends, strict=True) if high - low > 1]
        return float(np.median(steps)) if steps else None

    def before(self, position: float) -> int:
        """How many frames lie before a position."""
        for (low, _), (first, end) in zip(self.segments, self.ends, strict=True):
            if position <= first:
                return low
            if position <= end:
                return int(np.searchsorted(self.read(), position))
        return self.last


@dataclass(frozen=True)
class Recorded:
    """One record still to be cut.

    Args:
        name: begins the keys of its samples.
        whole: what a split by event, station, well or file keeps together.
        along: where its frames lie.
        spec: JSON that says, with the range of frames, what to read.
        group: records that are cut at common positions; by default those of one `whole`.
    """

    name: str
    whole: str
    along: Along
    spec: Mapping[str, Any]
    group: str = ""


def deal(
    records: Sequence[Recorded],
    fractions: Sequence[float],
    gap: int,
    frames: int,
    split: str | None,
    whole: str | None,
    notes: list[str],
) -> tuple[tuple[SampleRef, ...], tuple[Split, ...]]:
    """The samples of all records, grouped by split.

    Args:
        gap: frames left out between the splits of a record that is cut.
        frames: longest sample.
        split: the one split for everything.
        whole: how to call what stays whole (`event`); None cuts every record along itself.
    """
    if gap < 0:
        raise UserError(f"gap={gap} must be a number of frames, 0 or more")
    names = list(dict.fromkeys(r.whole for r in records))
    drawn = sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())
    parts = shares(len(drawn), fractions)
    if whole is not None and split is None and any(start == stop for _, start, stop in parts):
        notes.append(f"{len(names)} of split_by {whole} are too few to be split; every record is cut along itself instead")
        whole = None
    homes = {name: s for s, start, stop in parts for name in drawn[start:stop]}
    if split is not None or whole is not None:
        cuts = [[(split or homes[r.whole], 0, r.along.last)] for r in records]
    else:
        cuts, short = _cut_groups(records, fractions, gap)
        if short:
            notes.append(f"{short} of {len(records)} records are too short to be split; they go to train whole")
    found: dict[str, list[SampleRef]] = {}
    for index, (record, blocks) in enumerate(zip(records, cuts, strict=True)):
        slug = re.sub(r"[^a-z0-9]+", "-", record.name.lower()).strip("-")[:60] or "record"
        for home, first, end in blocks:
            for low, high in record.along.segments:
                for a, b in pieces(max(low, first), min(high, end), frames) if min(high, end) > max(low, first) else ():
                    ref = SampleRef(f"{slug}-{index:04d}-{a:09d}", home, {**record.spec, "start": int(a), "stop": int(b)})
                    found.setdefault(home, []).append(ref)
    order = [s for s in ("train", "valid", "test") if s in found] + [s for s in found if s not in ("train", "valid", "test")]
    return tuple(ref for s in order for ref in found[s]), tuple(Split(s, "out" if s == "ood" else "in") for s in order)


def _cut_groups(records: Sequence[Recorded], fractions: Sequence[float], gap: int) -> tuple[list[list[tuple[str, int, int]]], int]:
    """`(split, start, stop)` of each record, and how many are too short."""
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(record.group or record.whole, []).append(index)
    cuts: list[list[tuple[str, int, int]]] = [[] for _ in records]
    short = 0
    for own in groups.values():
        blocks, enough = cut_together([records[i].along for i in own], fractions, gap)
        short += 0 if enough else len(own)
        for i, ranges in zip(own, blocks, strict=True):
            cuts[i] = ranges
    return cuts, short


def cut_together(records: Sequence[Along], fractions: Sequence[float], gap: int) -> tuple[list[list[tuple[str, int, int]]], bool]:
    """`(split, start, stop)` of the frames of each record, cut at positions that are common to all of them.

    The shares are those of all positions, each counted once however many records have it. Behind a cut every record leaves out `gap` of
    its own frames. All records go to train whole where a split would be too short.

    Returns:
        The ranges, and whether there is enough for every split.
    """
    parts = shares(1000, fractions)
    if len(records) == 1:
        blocks = time_blocks(records[0].last, fractions, gap)
        return [blocks], len(blocks) == len(parts)
    if gap < 0:
        raise UserError(f"gap={gap} must be a number of frames, 0 or more")
    every = _union(records)
    parts = shares(len(every), fractions)
    usual = float(np.median(np.diff(every))) if len(every) > 1 else 0.0
    found: list[list[tuple[str, int, int]]] = [[] for _ in records]
    totals = dict.fromkeys((name for name, _, _ in parts), 0)
    for name, start, stop in parts if all(stop > start for _, start, stop in parts) else ():
        low, high = (float(every[i - 1] + every[i]) / 2 if 0 < i < len(every) else None for i in (start, stop))
        for record, own in zip(records, found, strict=True):
            step = record.step or usual
            first = 0 if low is None else record.before(low + gap * step)
            last = record.last if high is None else record.before(high)
            if last > first:
                own.append((name, first, last))
                totals[name] += last - first
    if min(totals.values()) < MIN_FRAMES:
        return [[("train", 0, r.last)] for r in records], False
    return found, True


def _union(records: Sequence[Along]) -> np.ndarray:
    """The positions of all records in order, those that are nearer than a quarter of the smallest step taken as one."""
    count = sum(high - low for r in records for low, high in r.segments)
    each = max(1, -(-count // _MOST))
    spans = [(a, z, high - low) for r in records for (low, high), (a, z) in zip(r.segments, r.ends, strict=True)]
    smallest = min((s for r in records if (s := r.step)), default=0.0)
    if each > 1 and smallest:  # one for each cell of a lattice that holds a frame
        cell = each * smallest
        points = [np.floor(np.linspace(a, z, n // each + 2) / cell) for a, z, n in dict.fromkeys(spans)]
        return np.unique(np.concatenate(points)) * cell
    every = np.sort(np.concatenate([np.linspace(a, z, n) for a, z, n in dict.fromkeys(spans)]))
    return every[np.concatenate([[True], np.diff(every) > 0.25 * smallest])]


def connected(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Of each item the number of its group: items with a key in common, directly or through others, are of one group."""
    home: dict[Hashable, int] = {}
    group = list(range(len(keys)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for i, own in enumerate(keys):
        for key in own:
            one, other = sorted((root(i), root(home.setdefault(key, i))))
            group[other] = one
    return [root(i) for i in range(len(keys))]


def segments_of(positions: np.ndarray, where: str, unit: str) -> tuple[tuple[int, int], ...]:
    """Ranges of the rising positions (times, depths) of one usual step; cut where there is a hole.

    Raises:
        UserError: positions that are no numbers, do not rise, or follow each other by less than the usual step.
    """
    if not np.isfinite(positions).all():
        at = int(np.argmin(np.isfinite(positions)))
        raise UserError(f"{where}: frame {at + 1} has the position {positions[at]} {unit}; expected a number, the file may be damaged")
    steps = np.diff(positions)
    if not steps.size:
        return ((0, len(positions)),)
    usual = float(np.median(steps))
    wrong = (steps <= 0) | (steps < usual / HOLE)
    if wrong.any():
        at = int(np.argmax(wrong)) + 1
        raise UserError(
            f"{where}: {positions[at]:.9g} {unit} comes after {positions[at - 1]:.9g} {unit} where the usual step is {usual:.6g} {unit}; "
            "expected rising positions at one step, the file may be damaged or must be resampled first"
        )
    cuts = [0, *(np.flatnonzero(steps > HOLE * usual) + 1).tolist(), len(positions)]
    return tuple(itertools.pairwise(cuts))


def files_of(inputs: Iterable[Path], source: str, suffixes: Sequence[str]) -> list[Path]:
    """The files given, and those of folders given that end as asked, each once, by their absolute paths.

    Raises:
        UserError: no input, nothing there, or a folder without such a file.
    """
    files: list[Path] = []
    for each in inputs:
        path = locate(each)
        fitting = [p for p in members(path) if p.name.lower().endswith(tuple(suffixes))] if path.is_dir() else [path]
        if not fitting:
            raise UserError(f"the folder {path} has no file that ends with {', '.join(suffixes)}; check the path given as --input")
        files += [locate(p) for p in fitting]
    if not files:
        raise UserError(f"the source {source} needs a file: give --input PATH")
    return unique(files)


def unique(files: Iterable[Path]) -> list[Path]:
    """Each file once, however it is written, as an absolute path."""
    found: dict[Path, Path] = {}
    for path in files:
        found.setdefault(path.resolve(), Path(os.path.abspath(path)))
    return list(found.values())
