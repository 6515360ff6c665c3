"""Patch sizes: exact where a side allows it, never wasteful where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scigpt.data.patching import choose_patch, token_count, token_grid

sides = st.integers(1, 300)
grids = st.tuples(sides, sides, sides)
patches = st.integers(1, 32)


@given(grids, patches)
def test_patches_cover_the_grid_and_no_patch_is_empty(grid: tuple[int, int, int], preferred: int) -> None:
    patch = choose_patch(grid, preferred)
    preferred = (preferred + 1) // 2 if min(grid) > 1 else preferred
    for side, p, n in zip(grid, patch, token_grid(grid, patch), strict=True):
        assert n * p >= side > (n - 1) * p
        assert min(side, max(1, preferred // 2)) <= p <= preferred
    z, y, x = token_grid(grid, patch)
    assert token_count(grid, patch) == z * y * x


@given(sides, patches)
def test_a_patch_that_divides_the_side_is_taken_and_else_the_one_with_fewest_tokens(side: int, preferred: int) -> None:
    p = choose_patch((1, 1, side), preferred)[2]
    candidates = range(max(1, preferred // 2), preferred + 1)
    dividing = [c for c in candidates if side % c == 0]
    if side <= preferred:
        assert p == side
    elif dividing:
        assert p == max(dividing)
    else:
        fewest = [c for c in candidates if -(-side // c) == -(-side // preferred)]
        assert p in fewest
        assert -side % p == min(-side % c for c in fewest)


@given(st.integers(1, 500), patches)
def test_points_are_one_token_each(count: int, preferred: int) -> None:
    assert token_count((1, 1, count), choose_patch((1, 1, count), preferred, "points")) == count


@pytest.mark.parametrize(
    ("grid", "preferred", "patch"),
    [
        ((1, 64, 64), 8, (1, 8, 8)),
        ((1, 37, 49), 8, (1, 8, 7)),  # 37 is prime: 8 makes the fewest tokens
        ((1, 33, 36), 10, (1, 9, 9)),  # 33: patches of 9 and 10 make four tokens, 9 pads three rows and 10 seven
        ((1, 721, 1440), 4, (1, 4, 4)),
        ((1, 1, 3000), 8, (1, 1, 8)),
        ((16, 16, 16), (4, 8, 2), (4, 8, 2)),
        ((32, 32, 32), 8, (4, 4, 4)),
    ],
)
def test_worked_cases(grid: tuple[int, int, int], preferred: int, patch: tuple[int, int, int]) -> None:
    assert choose_patch(grid, preferred) == patch
