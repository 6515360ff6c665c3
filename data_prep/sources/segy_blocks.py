"""How SEG-Y surveys are cut: into blocks, each of one split, and these into samples of one size.

Neighbouring traces, shots and depths record the same ground: splits are blocks with a gap between them, never traces drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scigpt.data_prep.blocks import SPLITS, pieces, shares
from scigpt.data_prep.recordings import Along, connected, cut_together
from scigpt.data_prep.source import Split
from scigpt.data_prep.sources.segy_geometry import Kind, Panel, positions
from scigpt.data_prep.sources.segy_survey import Survey
from scigpt.errors import UserError

VOLUME_SIDE, LINE_SIDE = 64, 256
"""Longest sides of a sample, where tile= does not say them."""
SplitBy = Literal["auto", "tile", "shot", "file", "time"]
Axis = Literal["samples", "rows", "columns"]


@dataclass(frozen=True)
class Block:
    """A part of a panel that belongs to one split: `(start, stop)` of rows, columns and samples."""

    split: str
    survey: int
    panel: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    samples: tuple[int, int]


@dataclass(frozen=True)
class Cutting:
    """The options that cut; see `SegyOptions`."""

    tile: str | None
    frames_per_sample: int
    along_z: bool
    splits: tuple[float, ...]
    split_by: SplitBy
    gap: int | None
    split: str | None

    def blocks(self, surveys: Sequence[Survey], notes: list[str]) -> tuple[list[Block], dict[str, Split]]:
        """The parts of every panel, and the splits they fall into.

        Raises:
            UserError: a split that the surveys do not allow.
        """
        if self.gap is not None and self.gap < 0:
            raise UserError(f"gap={self.gap} must be a number of inlines, traces, records or samples, 0 or more")
        kind = surveys[0].panels[0].kind
        sizes, counts = np.unique([p.columns.size for s in surveys for p in s.panels], return_counts=True)
        usual = int(sizes[np.argmax(sizes * counts)])  # traces of the records that most traces belong to
        whole = [
            Block("train", i, j, (0, s.panels[j].index.shape[0]), (0, s.panels[j].index.shape[1]), (0, s.count))
            for i, s in enumerate(surveys)
            for j in self._alike(s, usual, notes)
        ]
        if self.split is not None:
            return [replace(b, split=self.split) for b in whole], {self.split: Split(self.split, "out" if self.split == "ood" else "in")}
        by = self.split_by
        if by == "auto":
            by = "shot" if kind == "shots" and len(whole) > 1 else "tile"
        if by == "shot" and kind != "shots":
            raise UserError("split_by=shot needs shot records (dims=shots); expected split_by=tile, file or time for volumes and lines")
        if by in ("shot", "file"):
            blocks = self._by_wholes(surveys, whole, by, notes)
        else:
            axis: Axis = "samples" if by == "time" else "rows" if kind == "volume" else "columns"
            blocks = self._along(surveys, whole, axis, notes)
        return blocks, {n: Split(n) for n in SPLITS if any(b.split == n for b in blocks)}

    def window(self, kind: Kind, blocks: Sequence[Block], notes: list[str]) -> tuple[int, int]:
        """Rows and columns of every sample.

        Raises:
            UserError: a tile that no block of a split can hold.
        """
        sides = [(b.rows[1] - b.rows[0], b.columns[1] - b.columns[0]) for b in blocks]
        splits = {b.split for b in blocks}
        # what the largest block of each split can hold; a short line does not decide for all
        most = [min(max(side[i] for b, side in zip(blocks, sides, strict=True) if b.split == s) for s in splits) for i in (0, 1)]
        if self.tile is None:
            height, width = self._usual(kind, blocks, sides, most)
        else:
            match = re.fullmatch(r"(?:(\d+)x)?(\d+)", self.tile)
            height, width = (int(match[1] or (match[2] if kind == "volume" else 1)), int(match[2])) if match else (0, 0)
            longest = max(c for _, c in sides) if kind == "shots" else most[1]
            if not (0 < height <= most[0] and 0 < width <= longest):
                raise UserError(
                    f"tile={self.tile} must be rows x columns, such as 64x64, within {most[0]} x {longest}, the smallest block of a split; "
                    "give a smaller tile, other splits= or split="
                )
        small = sum(r < height or c < width for r, c in sides)
        if small:
            notes.append(f"{small} of {len(sides)} blocks of a split are smaller than a sample ({height} x {width}) and are left out")
        lost = 1 - sum(r // height * height * (c // width * width) for r, c in sides) / sum(r * c for r, c in sides)
        if lost > 0.005:
            told = f"samples of {height} x {width} leave" if self.tile is None else f"tile={self.tile} leaves"
            hint = "; tile= chooses another size" if self.tile is None else ""
            notes.append(f"{told} out {lost:.1%} of the bins, at the end of rows and columns{hint}")
        return height, width

    def _usual(self, kind: Kind, blocks: Sequence[Block], sides: Sequence[tuple[int, int]], most: Sequence[int]) -> tuple[int, int]:
        """Rows and columns without tile=: those that fit the smallest block, blocks of less than half the usual size left aside."""
        if kind == "shots":
            return 1, min(c for _, c in sides)
        longest = (VOLUME_SIDE, VOLUME_SIDE) if kind == "volume" else (1, LINE_SIDE)
        usual = [min(m, limit) for m, limit in zip(most, longest, strict=True)]
        kept = [(b, side) for b, side in zip(blocks, sides, strict=True) if all(2 * n >= u for n, u in zip(side, usual, strict=True))]
        if {b.split for b, _ in kept} != {b.split for b in blocks}:
            kept = list(zip(blocks, sides, strict=True))
        height, width = (_even(min(side[i] for _, side in kept), longest[i]) for i in (0, 1))
        return height, width

    def pieces(self, blocks: Sequence[Block], start: int, stop: int) -> list[tuple[int, int]]:
        """How samples of a trace are cut: into nearly equal pieces, or along Z into equal ones."""
        if not self.along_z:
            return pieces(start, stop, self.frames_per_sample)
        shortest = min(blocks, key=lambda b: b.samples[1] - b.samples[0]).samples
        first = pieces(*shortest, self.frames_per_sample)
        size = min(b - a for a, b in first)
        return [(a, a + size) for a in range(start, stop - size + 1, size)]

    def _gap(self, count: int) -> int:
        return max(1, count // 50) if self.gap is None else self.gap

    def _along(self, surveys: Sequence[Survey], whole: Sequence[Block], axis: Axis, notes: list[str]) -> list[Block]:
        """Every panel cut along one axis; files of one survey at common inlines, CDPs or times."""
        kind = surveys[0].panels[0].kind
        group = list(range(len(whole))) if kind == "shots" else joined(surveys)
        named = {"samples": "samples", "rows": "inlines", "columns": "traces"}[axis]
        blocks = []
        for number in dict.fromkeys(group):
            own = [b for b, g in zip(whole, group, strict=True) if g == number]
            places = [_places(surveys[b.survey], b, axis) for b in own]
            count = len(places[0]) if len(own) == 1 else len(np.unique(np.concatenate(places)))
            cuts, enough = cut_together([Along.of(p) for p in places], self.splits, self._gap(count))
            for block, cut in zip(own, cuts, strict=True):
                if not enough:
                    name = surveys[block.survey].file.path.name
                    notes.append(f"{name}: {count} {named} are too few to be split; all go to train")
                for name, a, b in cut:
                    part: dict[str, tuple[int, int]] = {axis: (a, b)}
                    blocks.append(replace(block, split=name, **part))  # type: ignore[arg-type]
        return blocks

    def _by_wholes(self, surveys: Sequence[Survey], whole: Sequence[Block], by: str, notes: list[str]) -> list[Block]:
        """Whole files or whole records in each split; records of one number in files of one survey stay together."""
        group = joined(surveys) if by == "shot" else list(range(len(surveys)))
        unit = [(group[b.survey], int(surveys[b.survey].panels[b.panel].rows[0]) if by == "shot" else 0) for b in whole]
        units = sorted(set(unit))
        gap = (self.gap or 0) if by == "file" else self._gap(len(units))
        of: dict[tuple[int, int], str] = {}
        for name, start, stop in shares(len(units), self.splits):
            kept = units[start + (gap if start else 0) : stop]
            if not kept and by == "file":
                raise UserError(f"split_by=file: {len(units)} files leave none for {name}; give more files or other splits=")
            if not kept:
                notes.append(f"{len(units)} records are too few to be split; all go to train")
                return list(whole)
            of |= dict.fromkeys(kept, name)
        return [replace(b, split=of[u]) for b, u in zip(whole, unit, strict=True) if u in of]

    def _alike(self, survey: Survey, usual: int, notes: list[str]) -> list[int]:
        """Panels that are used: with a tile all, else records of the usual number of traces."""
        numbers = list(range(len(survey.panels)))
        if survey.panels[0].kind != "shots" or self.tile is not None:
            return numbers
        kept = [n for n in numbers if survey.panels[n].columns.size == usual]
        if len(kept) < len(numbers):
            left = f"{survey.file.path.name}: {len(numbers) - len(kept)} of {len(numbers)} records are left out"
            notes.append(f"{left}, because they do not have {usual} traces; tile=N cuts all of them into pieces of N traces")
        return kept


def joined(surveys: Sequence[Survey]) -> list[int]:
    """Of each file the number of its group: files whose inlines, records or CDPs overlap or follow each other are of one group.

    Lines are mostly numbered each from its own 1: those that overlap are of one group only where a common CDP lies at one place.
    """
    ranges = [np.unique(np.concatenate([_numbers(p) for p in s.panels])) for s in surveys]
    steps = [int(np.diff(r).min()) if len(r) > 1 else 1 for r in ranges]
    keys: list[set[tuple[int, int]]] = [{(i, i)} for i in range(len(surveys))]
    order = sorted(range(len(surveys)), key=lambda i: int(ranges[i][0]))
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            apart = int(ranges[j][0]) - int(ranges[i][-1])
            if apart > max(steps[i], steps[j]):
                continue
            if surveys[i].panels[0].kind != "line" or (_numbered(surveys[i], surveys[j]) and (apart > 0 or _meet(surveys[i], surveys[j]))):
                keys[i].add((i, j))
                keys[j].add((i, j))
    return connected(keys)


def _numbers(panel: Panel) -> np.ndarray:
    return np.asarray(panel.columns if panel.kind == "line" else panel.rows)


def _numbered(*surveys: Survey) -> bool:
    return all(s.panels[0].numbered for s in surveys)


def _meet(one: Survey, other: Survey) -> bool:
    """Whether two lines lie at one place where they have a CDP in common."""
    a, b = (s.panels[0] for s in (one, other))
    live = [p.columns[p.index[0] >= 0] for p in (a, b)]
    common = np.intersect1d(*live)[[0, -1]] if np.intersect1d(*live).size else np.empty(0, np.int64)
    places = []
    for survey, panel in ((one, a), (other, b)):
        if not common.size or not {"x", "longitude"} & set(survey.ground.places.names):
            return False
        traces = panel.index[0][np.searchsorted(panel.columns, common)]
        places.append(np.stack(positions(survey.file, survey.ground.places, traces)))
    return bool(np.allclose(places[0], places[1], rtol=1e-9, atol=1e-6))


def _places(survey: Survey, block: Block, axis: Axis) -> np.ndarray:
    """Inline numbers, CDPs or times along an axis."""
    panel = survey.panels[block.panel]
    return survey.axis.at(0, survey.count) if axis == "samples" else np.asarray(getattr(panel, axis))


def _even(count: int, longest: int) -> int:
    """The largest size of at most `longest` of which the fewest pieces fill `count`."""
    return count // -(-count // longest)
