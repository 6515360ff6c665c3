"""How SEG-Y surveys are cut: into blocks, each of one split, and these into samples of one size.

Neighbouring traces, shots and depths record the same ground: splits are blocks with a gap between them, never traces drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scigpt.data_prep.blocks import SPLITS, pieces, shares, time_blocks
from scigpt.data_prep.source import Split
from scigpt.data_prep.sources.segy_geometry import Kind
from scigpt.data_prep.sources.segy_survey import Survey
from scigpt.errors import UserError

VOLUME_SIDE, LINE_SIDE = 64, 256
"""Longest sides of a sample, where tile= does not say them."""
SplitBy = Literal["auto", "tile", "shot", "file", "time"]


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
            blocks = self._by_wholes(whole, by, notes)
        else:
            blocks = []
            for block in whole:
                axis = "samples" if by == "time" else "rows" if kind == "volume" else "columns"
                count = getattr(block, axis)[1]
                cuts = time_blocks(count, self.splits, self._gap(count))
                if len(cuts) < sum(f > 0 for f in self.splits):
                    named = {"samples": "samples", "rows": "inlines", "columns": "traces"}[axis]
                    notes.append(f"{surveys[block.survey].file.path.name}: {count} {named} are too few to be split; all go to train")
                for name, a, b in cuts:
                    part: dict[str, tuple[int, int]] = {axis: (a, b)}
                    blocks.append(replace(block, split=name, **part))  # type: ignore[arg-type]
        return blocks, {n: Split(n) for n in SPLITS if any(b.split == n for b in blocks)}

    def window(self, kind: Kind, blocks: Sequence[Block], notes: list[str]) -> tuple[int, int]:
        """Rows and columns of every sample.

        Raises:
            UserError: a tile that no block can hold.
        """
        sides = [(b.rows[1] - b.rows[0], b.columns[1] - b.columns[0]) for b in blocks]
        rows, columns = min(r for r, _ in sides), min(c for _, c in sides)
        if self.tile is None:
            if kind == "volume":
                return _even(rows, VOLUME_SIDE), _even(columns, VOLUME_SIDE)
            return 1, columns if kind == "shots" else _even(columns, LINE_SIDE)
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)", self.tile)
        height, width = (int(match[1] or (match[2] if kind == "volume" else 1)), int(match[2])) if match else (0, 0)
        longest = max(c for _, c in sides) if kind == "shots" else columns
        if not (0 < height <= rows and 0 < width <= longest):
            raise UserError(
                f"tile={self.tile} must be rows x columns, such as 64x64, within {rows} x {longest}, the smallest block of a split; "
                "give a smaller tile, other splits= or split="
            )
        lost = 1 - sum(r // height * height * (c // width * width) for r, c in sides) / sum(r * c for r, c in sides)
        if lost > 0.005:
            notes.append(f"tile={self.tile} leaves out {lost:.1%} of the bins, at the end of rows and columns")
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

    def _by_wholes(self, whole: Sequence[Block], by: str, notes: list[str]) -> list[Block]:
        """Whole files or whole records in each split."""
        unit = [(b.survey, b.panel if by == "shot" else 0) for b in whole]
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


def _even(count: int, longest: int) -> int:
    """The largest size of at most `longest` of which the fewest pieces fill `count`."""
    return count // -(-count // longest)
