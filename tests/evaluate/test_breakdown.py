"""Regions and ranges of coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from worlds import world

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Origin, Sample, Time, Variable
from scigpt.evaluate.breakdown import ranges, regions


def plane(boundary: Boundary, grid: tuple[int, int, int] = (1, 16, 16)) -> Batch:
    values = np.zeros((3, 1, *grid), np.float32)
    sample = Sample(values, values == 0, (Variable("density", "1"),), Time.regular(0, 1, 3), Origin("t", "CC0-1.0"), boundary=boundary)
    return collate([sample], Scales((("identity", 1.0),), (0.0,), (1.0,), (1.0,)))


def test_the_sphere_has_tropics_and_what_lies_beyond() -> None:
    batch = collate([world("map", 0)], Scales((("identity", 1.0),), (290.0,), (10.0,), (0.3,)))
    found = regions(batch)
    assert torch.stack(list(found.values())).sum(0).eq(1).all()
    inside = found["tropics, 20°S to 20°N"][0, 0, 0, 0, :, 0]
    assert inside.tolist() == [abs(v) <= 20 for v in np.linspace(75, -75, 16)]


def test_a_plane_has_an_edge_along_sides_that_are_not_periodic() -> None:
    assert regions(plane(Boundary.all("periodic"))) == {}
    walls = regions(plane(Boundary.all("wall")))
    assert int(walls["edge"].sum()) == 256 - 144
    assert not (walls["edge"] & walls["interior"]).any()
    channel = regions(plane(Boundary(y=("wall", "wall"), x=("periodic", "periodic"))))["edge"][0, 0, 0, 0]
    assert channel.all(1).tolist() == channel.any(1).tolist() == [True] * 2 + [False] * 12 + [True] * 2
    assert regions(plane(Boundary(), (1, 1, 1))) == {}


def test_coefficients_fall_into_thirds() -> None:
    values = np.arange(9.0)
    found = ranges(values)
    assert [mask.sum() for mask in found.values()] == [3, 3, 3]
    assert next(iter(found)) == "0 to 2.667"
    assert np.stack(list(found.values())).sum(0).tolist() == [1] * 9
    assert {k: m.tolist() for k, m in ranges(np.array([1.0, 2, 1, np.nan])).items()} == {
        "1": [True, False, True, False],
        "2": [False, True, False, False],
    }
    assert ranges(np.full(4, 0.5)) == {}
    assert sum(m.sum() for m in ranges(np.append(values, np.nan)).values()) == 9


@pytest.mark.parametrize("count", [4, 5, 7, 64])
def test_every_value_is_in_one_third(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert np.stack(list(ranges(values).values())).sum(0).tolist() == [1] * count
