"""Patch sizes and token grids: plain arithmetic on shapes, outside every traced graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scigpt.data.sample import Geometry

Extent = tuple[int, int, int]


def choose_patch(grid: Sequence[int], preferred: int | Sequence[int], geometry: Geometry = "plane") -> Extent:
    """The patch `(pz, py, px)` for a grid `(Z, Y, X)`.

    A side no longer than the preferred patch is one patch; else the largest patch between half the preferred size and that size which
    divides the side; else the one that gives the fewest tokens and, among those, pads least. Points are always one token each. One
    number is meant for series and maps; volumes take half of it, so that a token holds as much as the tokenizer can carry.
    """
    if geometry == "points":
        return (1, 1, 1)
    if isinstance(preferred, int):
        preferred = ((preferred + 1) // 2 if min(grid) > 1 else preferred,) * 3
    return tuple(_choose(side, want) for side, want in zip(grid, preferred, strict=True))  # type: ignore[return-value]


def _choose(side: int, preferred: int) -> int:
    if side <= preferred:
        return side
    candidates = range(preferred, max(1, preferred // 2) - 1, -1)
    dividing = [p for p in candidates if side % p == 0]
    return dividing[0] if dividing else min(candidates, key=lambda p: (math.ceil(side / p), -side % p))


def token_grid(grid: Sequence[int], patch: Sequence[int]) -> Extent:
    """Patches along each axis, the last one padded where the patch does not divide the side."""
    return tuple(math.ceil(side / p) for side, p in zip(grid, patch, strict=True))  # type: ignore[return-value]


def token_count(grid: Sequence[int], patch: Sequence[int]) -> int:
    """Tokens of one frame."""
    return math.prod(token_grid(grid, patch))
