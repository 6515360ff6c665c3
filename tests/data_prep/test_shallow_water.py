from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from scigpt.data_prep.pde.random_fields import centres, coarsen
from scigpt.data_prep.pde.shallow_water import ShallowWater, ShallowWaterOptions, centred, random_state, simulate
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError


def energy(frames: np.ndarray, bed: np.ndarray, gravity: float) -> np.ndarray:
    h, u, v = np.moveaxis(frames, 1, 0)
    kinetic = (h + np.roll(h, 1, -1)) * u**2 / 4 + (h + np.roll(h, 1, -2)) * v**2 / 4
    return (kinetic + gravity / 2 * (h + bed) ** 2).mean(axis=(1, 2))


def wave(n: int, amplitude: float, k: tuple[int, int], f: float, t: float) -> np.ndarray:
    """The linear inertia-gravity wave with kx, ky waves per side over depth 1, gravity 1; in the places of the C grid."""
    kx, ky = 2 * np.pi * np.array(k)
    omega = np.sqrt(f**2 + kx**2 + ky**2)
    middle, side = centres(n), np.arange(n) / n

    def phase(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return kx * x[None, :] + ky * y[:, None] - omega * t

    size = amplitude / (kx**2 + ky**2)
    a, b = phase(side, middle), phase(middle, side)
    u, v = size * (omega * kx * np.cos(a) - f * ky * np.sin(a)), size * (omega * ky * np.cos(b) + f * kx * np.sin(b))
    return np.stack([1 + amplitude * np.cos(phase(middle, middle)), u, v])


@pytest.mark.parametrize(("f", "k"), [(0.0, (1, 0)), (0.0, (1, 2)), (8.0, (2, -1))])
def test_linear_waves_follow_their_dispersion_relation(f: float, k: tuple[int, int]) -> None:
    """omega^2 = f^2 + g H k^2, with an error of second order."""
    errors = []
    for n in (24, 48, 96):
        got = simulate(wave(n, 1e-7, k, f, 0.0), np.zeros((n, n)), [0.5], 1 / n, coriolis=f)[0]
        exact = wave(n, 1e-7, k, f, 0.5)
        errors.append(np.linalg.norm(got - exact) / np.linalg.norm(exact - [[[1]], [[0]], [[0]]]))
    assert errors[2] < 0.03
    assert (np.log2(np.array(errors[:-1]) / errors[1:]) > 1.9).all(), errors


def test_standing_wave_between_walls() -> None:
    errors = []
    for n in (24, 48):
        x, t = centres(n), 0.9
        shape = 1e-7 * np.cos(3 * np.pi * x)[None, :] * np.cos(np.pi * x)[:, None]
        start = np.stack([1 + shape, 0 * shape, 0 * shape])
        got = simulate(start, np.zeros((n, n)), [t], 1 / n, wall=True)[0, 0] - 1
        exact = shape * np.cos(np.pi * np.sqrt(10) * t)
        errors.append(np.linalg.norm(got - exact) / np.linalg.norm(shape))
    assert errors[1] < 0.03
    assert np.log2(errors[0] / errors[1]) > 1.9


@pytest.mark.parametrize("wall", [False, True])
def test_water_at_rest_stays_at_rest_over_any_bed(wall: bool) -> None:
    bed = 0.6 * np.random.default_rng(0).random((32, 32))
    start = np.stack([1 - bed, 0 * bed, 0 * bed])
    end = simulate(start, bed, [1.0], 1 / 32, coriolis=3.0, viscosity=1e-3, wall=wall)[0]
    assert np.abs(end - start).max() < 1e-13


def test_geostrophic_jets_are_steady() -> None:
    """u(y) with f u = -g h_y solves the nonlinear equations."""
    errors = []
    for n in (24, 48, 96):
        y, f = np.tile(2 * np.pi * centres(n)[:, None], n), 5.0
        start = np.stack([1 + 0.1 * f / (2 * np.pi) * np.cos(y), 0.1 * np.sin(y), 0 * y])
        errors.append(np.abs(simulate(start, 0 * y, [2.0], 1 / n, coriolis=f)[0] - start).max())
    assert errors[2] < 1e-4
    assert (np.log2(np.array(errors[:-1]) / errors[1:]) > 1.9).all(), errors


@pytest.mark.parametrize("wall", [False, True])
def test_mass_and_energy_are_conserved(wall: bool) -> None:
    state, bed = random_state(np.random.default_rng(1), 48, 2.0, 0.05, 0.2, 0.4, wall)
    times = np.linspace(0, 2, 5)
    free = simulate(state, bed, times, 1 / 48, coriolis=4.0, wall=wall, courant=0.5)
    assert np.abs(free[-1] - free[0]).max() > 0.1  # much has happened
    mass = free[:, 0].mean(axis=(1, 2))
    assert np.abs(mass / mass[0] - 1).max() < 1e-14
    still = energy(np.stack([1 - bed, 0 * bed, 0 * bed])[None], bed, 1.0)[0]
    available = energy(free, bed, 1.0) - still
    assert np.abs(available / available[0] - 1).max() < 1e-4  # all of the drift is of the step in time:
    finer = energy(simulate(state, bed, times, 1 / 48, coriolis=4.0, wall=wall, courant=0.25), bed, 1.0) - still
    assert np.abs(finer / finer[0] - 1).max() < np.abs(available / available[0] - 1).max() / 12
    viscous = energy(simulate(state, bed, times, 1 / 48, coriolis=4.0, viscosity=1e-3, wall=wall), bed, 1.0)
    assert (np.diff(viscous) < 0).all()
    if wall:
        assert not free[:, 1, :, 0].any()
        assert not free[:, 2, 0].any()


@pytest.mark.parametrize("wall", [False, True])
def test_nonlinear_flow_converges_with_order_two(wall: bool) -> None:
    def solve(n: int) -> np.ndarray:
        state, bed = random_state(np.random.default_rng(2), n, 1.0, 0.03, 0.1, 0.3, wall)
        return coarsen(centred(simulate(state, bed, [0.5], 1 / n, coriolis=3.0, viscosity=4e-3, wall=wall), wall), 16)[0]

    a, b, c = (solve(n) for n in (32, 64, 128))
    assert np.log2(np.linalg.norm(b - a) / np.linalg.norm(c - b)) == pytest.approx(2, abs=0.15)


def test_order_in_time_is_four() -> None:
    state, bed = random_state(np.random.default_rng(3), 32, 2.0, 0.05, 0.2, 0.3, False)
    reference = simulate(state, bed, [0.5], 1 / 32, coriolis=3.0, courant=0.05)
    errors = [np.linalg.norm(simulate(state, bed, [0.5], 1 / 32, coriolis=3.0, courant=c) - reference) for c in (0.8, 0.4, 0.2)]
    assert (np.log2(np.array(errors[:-1]) / errors[1:]) > 3.7).all(), errors


def test_viscous_shear_decays_exactly() -> None:
    """A flow v(x) over flat water keeps its depth; v_t = viscosity v_xx."""
    n, viscosity, x = 64, 0.01, centres(64)
    start = np.stack([np.ones((n, n)), np.zeros((n, n)), np.tile(0.1 * np.sin(2 * np.pi * x), (n, 1))])
    end = simulate(start, np.zeros((n, n)), [2.0], 1 / n, viscosity=viscosity)[0]
    discrete = viscosity * (2 * n * np.sin(np.pi / n)) ** 2
    np.testing.assert_allclose(end[2], start[2] * np.exp(-discrete * 2.0), atol=1e-12)
    np.testing.assert_allclose(end[0], 1, atol=1e-12)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_dam_break_agrees_with_stoker(axis: str) -> None:
    """Height and front of the bore between the exact states of J. J. Stoker (Water Waves, 1957, 10.8), reached for small viscosity."""
    n, high, low, t = 2048, 1.2, 0.8, 0.1

    def velocity(depth: float) -> float:  # behind the rarefaction
        return 2 * (np.sqrt(high) - np.sqrt(depth))

    middle = brentq(lambda h: velocity(h) - (h - low) * np.sqrt((h + low) / (2 * h * low)), low, high)
    bore = middle * velocity(middle) / (middle - low)
    x = centres(n)
    depth = np.where(np.abs(x - 0.5) < 0.25, high, low)[None]
    state = np.stack([depth, 0 * depth, 0 * depth])
    state = state if axis == "x" else state.swapaxes(1, 2)
    end = simulate(state, 0 * state[0], [t], 1 / n, viscosity=5e-4)[0, 0].ravel()
    assert end[int((0.75 + bore * t / 2) * n)] == pytest.approx(middle, rel=1e-3)
    assert x[end > (middle + low) / 2].max() == pytest.approx(0.75 + bore * t, abs=1e-3)


@pytest.mark.parametrize(("split", "boundary"), [("train", "wall"), ("ood", "periodic")])
def test_default_samples_are_resolved(split: str, boundary: str) -> None:
    """Beside the same trajectory with cells half as wide."""
    options = ShallowWaterOptions(frames=2, step=0.2, boundary=boundary)  # type: ignore[arg-type]
    coarse, fine = (ShallowWater((), replace(options, refine=r)) for r in (2, 4))
    ref = next(r for r in coarse.plan().refs if r.split == split)
    (a,), (b,) = coarse.samples([ref]), fine.samples([ref])
    a_, b_ = a.values.astype(float), b.values.astype(float)
    vrmse = np.sqrt(((a_ - b_) ** 2).mean(axis=(2, 3, 4)) / b_.var(axis=(2, 3, 4)))
    assert vrmse.max() < 0.02


def test_bed_is_static_and_can_be_left_out() -> None:
    few: dict[str, Any] = {"train": 1, "valid": 0, "test": 0, "ood": 0, "frames": 2, "grid": 16, "peak": 1.0}
    source = ShallowWater((), ShallowWaterOptions(**few))
    (sample,) = source.samples(source.plan().refs)
    assert np.array_equal(sample.values[0, 3], sample.values[1, 3])
    assert sample.values[0, 3].min() >= 0
    assert sample.values[0, 3].max() <= 0.3
    assert abs(sample.values[:, 0].mean()) < 1e-7
    flat = ShallowWater((), ShallowWaterOptions(**few, relief=0.0, coriolis_high=0.0))
    (sample,) = flat.samples(flat.plan().refs)
    assert [v.name for v in sample.variables] == ["surface_height", "velocity_x", "velocity_y"]
    assert sample.coefficients["coriolis"] == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=8"], "grid=8"),
        (["refine=0"], "refine=0"),
        (["step=0"], "step=0"),
        (["frames=0"], "frames=0"),
        (["peak=20"], "peak=20"),
        (["height_high=0.5"], "height_high=0.5"),
        (["relief=0.9"], "relief=0.9"),
        (["coriolis_low=9"], "coriolis_low=9"),
        (["viscosity=-1"], "viscosity=-1"),
        (["ood_low=1"], "overlap"),
        (["boundary=open"], "open"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(ShallowWater.Options, words)


def test_impossible_problems_are_refused() -> None:
    good, bed = np.stack([np.ones((16, 16)), np.zeros((16, 16)), np.zeros((16, 16))]), np.zeros((16, 16))
    moving = good + np.array([0, 0.1, 0])[:, None, None]
    for arguments in ((good[:2], bed, [1.0]), (good, bed[1:], [1.0]), (good * 0, bed, [1.0]), (good, bed, [1.0, 0.5]), (good, bed, [-1.0])):
        with pytest.raises(ValueError):
            simulate(*arguments, 1 / 16)
    with pytest.raises(ValueError, match="wall"):
        simulate(moving, bed, [1.0], 1 / 16, wall=True)
