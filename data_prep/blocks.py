"""Cutting a record in time: splits with a gap between them, then samples of nearly equal length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from scigpt.errors import UserError

SPLITS = ("train", "valid", "test")

MIN_FRAMES = 3
"""A block shorter than this has no frame with two frames of context to be scored."""


def shares(count: int, fractions: Sequence[float]) -> list[tuple[str, int, int]]:
    """`(split, start, stop)` of 0..count for those of train, valid and test that have a fraction.

    Raises:
        UserError: fractions that are not three numbers from 0 to 1 with the sum 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"splits={','.join(f'{f:g}' for f in fractions)} must be three fractions (train,valid,test) with the sum 1")
    edges = [0, *(round(count * e) for e in np.cumsum(fractions))]
    return [(name, *edge) for name, f, edge in zip(SPLITS, fractions, itertools.pairwise(edges), strict=True) if f > 0]


def time_blocks(count: int, fractions: Sequence[float], gap: int) -> list[tuple[str, int, int]]:
    """`(split, start, stop)` of the frames 0..count, in time order, `gap` frames left out before valid and before test.

    A record too short to give every wanted split `MIN_FRAMES` frames goes to train as a whole.

    Raises:
        UserError: fractions that are not three numbers from 0 to 1 with the sum 1, or a negative gap.
    """
    if gap < 0:
        raise UserError(f"gap={gap} must be a number of frames, 0 or more")
    parts = shares(count, fractions)
    blocks = [(name, start + (gap if i else 0), stop) for i, (name, start, stop) in enumerate(parts)]
    return blocks if all(stop - start >= MIN_FRAMES for _, start, stop in blocks) else [("train", 0, count)]


def pieces(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """The range cut into the fewest consecutive pieces of at most `size`, all of nearly equal length."""
    if size < 1:
        raise UserError(f"frames_per_sample={size} must be 1 or more")
    count = -(-(stop - start) // size)
    edges = [start + (stop - start) * i // count for i in range(count + 1)] if count else []
    return list(itertools.pairwise(edges))
