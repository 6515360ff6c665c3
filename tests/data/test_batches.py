"""Batches: areas of cells, and what must be alike in one batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scigpt.data.batches import Batch, Ground, Places, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Geometry, Origin, Sample, Time, Variable
from scigpt.errors import UserError

SCALES = Scales((("identity", 1.0),), (0.0,), (1.0,), (1.0,))


def sample(coordinates: dict[str, Coordinate], grid: tuple[int, int], geometry: Geometry = "sphere", periodic: bool = True) -> Sample:
    shape = (2, 1, 1, *grid)
    boundary = Boundary(x=("periodic", "periodic")) if periodic else Boundary()
    variables = (Variable("concentration", "1"),)
    time = Time.regular(0.0, 1.0, 2)
    return Sample(np.zeros(shape, np.float32), np.ones(shape, bool), variables, time, Origin("t", "c"), geometry, boundary, coordinates)


def batch(latitude: np.ndarray, longitude: np.ndarray, grid: tuple[int, int], periodic: bool = True) -> Batch:
    axes = ((("y",), ("x",)), (("y", "x"), ("y", "x")))[latitude.ndim - 1]
    coordinates = {
        "latitude": Coordinate(axes[0], latitude, "degrees_north"),
        "longitude": Coordinate(axes[1], longitude, "degrees_east"),
    }
    return collate([sample(coordinates, grid, periodic=periodic)], SCALES)


def test_a_regular_grid_written_as_a_curvilinear_one_has_the_same_areas() -> None:
    latitude, longitude = np.linspace(-89, 89, 90), np.arange(120) * 3.0
    regular = batch(latitude, longitude, (90, 120)).weight
    for periodic in (True, False):
        both = np.meshgrid(latitude, longitude, indexing="ij")
        assert torch.allclose(batch(*both, (90, 120), periodic).weight, regular, atol=2e-3)


def test_areas_of_a_mercator_ocean_grid_integrate_over_the_sphere() -> None:
    """Cells of an ocean model shrink towards the pole in both directions: cos(latitude) alone would give the mean of sin^2 as 0.47."""
    latitude = np.rad2deg(np.arcsin(np.tanh(np.linspace(-3, 3, 400))))
    phi = np.deg2rad(latitude)
    both = np.meshgrid(latitude, np.arange(90) * 4.0, indexing="ij")
    weight = batch(*both, (400, 90)).weight[0, 0, 0, 0].double().numpy()
    assert weight.dtype == np.float64
    assert (weight * np.sin(phi)[:, None] ** 2).mean() == pytest.approx(math.tanh(3) ** 2 / 3, rel=2e-3)


def test_samples_with_and_without_a_height_are_refused() -> None:
    """In one batch the height would be read or not according to the sample that comes first."""
    place = {n: Coordinate(("x",), np.array([5.0]), "degrees") for n in ("latitude", "longitude")}
    high = place | {"height": Coordinate(("x",), np.array([100.0]), "m")}
    for pair in ((place, high), (high, place)):
        with pytest.raises(UserError, match="do not share variables, grid, coordinates"):
            collate([sample(c, (1, 1), "points") for c in pair], SCALES)


def test_unknown_coordinates_are_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    unknown = {n: Coordinate(("x",), np.array([np.nan]), "degrees") for n in ("latitude", "longitude")}
    sample(unknown, (1, 1), "points")
    assert not recwarn.list


def test_the_ground_is_made_once_for_a_grid() -> None:
    """What is given again is the same tensor; another grid, number of windows or one window that lies elsewhere is found out."""

    def at(start: float, unknown: bool = False) -> Sample:
        values = {"latitude": ("y", np.linspace(-80, 80, 6)), "longitude": ("x", start + np.arange(8.0))}
        if unknown:
            values["height"] = ("x", np.full(8, np.nan))
        coordinates = {name: Coordinate((axis,), numbers, "degrees") for name, (axis, numbers) in values.items()}
        return sample(coordinates, (6, 8), periodic=False)

    def weight(samples: list[Sample]) -> torch.Tensor:
        return collate(samples, SCALES, ground=ground).weight

    ground = Ground()
    first = collate([at(0.0), at(0.0)], SCALES, ground=ground)
    assert first.weight.shape == (2, 1, 1, 1, 6, 8)
    assert weight([at(0.0), at(0.0)]) is first.weight
    assert weight([at(0.0)]) is not first.weight
    mixed = collate([at(0.0), at(5.0)], SCALES, ground=ground)
    assert mixed.longitude is not None
    assert mixed.longitude[:, 0, 0].tolist() == [0.0, 5.0]
    moved = collate([at(7.0)], SCALES, ground=ground)
    assert moved.longitude is not None
    assert moved.longitude[0, 0, 0] == 7.0
    unknown = [at(0.0, unknown=True)]
    assert weight(unknown) is weight([at(0.0, unknown=True)]), "what is unknown is the same, too"
    for field in ("latitude", "longitude", "weight"):
        assert torch.equal(getattr(first, field), getattr(Places.of([at(0.0), at(0.0)]), field))
