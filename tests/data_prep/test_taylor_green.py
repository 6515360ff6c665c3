"""The 3-D flow solver against exact solutions, series and balances, with derivatives taken by dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scigpt.data_prep.pde import box
from scigpt.data_prep.pde.navier_stokes import random_vorticity
from scigpt.data_prep.pde.navier_stokes import simulate as simulate_2d
from scigpt.data_prep.pde.navier_stokes import velocity as velocity_2d
from scigpt.data_prep.pde.taylor_green import TaylorGreen, TaylorGreenOptions, resolving_grid, simulate, vortices
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

PHASES = (0.3, 1.1, 2.0)


def derivative(field: np.ndarray, axis: str) -> np.ndarray:
    """By the dense Fourier differentiation matrix of period 2 pi (Trefethen 2000, eq. 3.10); axes of the field are z, y, x."""
    n = field.shape[-1]
    gap = np.arange(n)[:, None] - np.arange(n)
    matrix = np.where(gap == 0, 0.0, 0.5 * (-1.0) ** gap / np.tan(np.where(gap == 0, 1.0, gap * np.pi / n)))
    return np.moveaxis(np.moveaxis(field, -1 - "xyz".index(axis), -1) @ matrix.T, -1, -1 - "xyz".index(axis))


def curl(velocity: np.ndarray) -> np.ndarray:
    u, v, w = velocity
    d = derivative
    return np.stack([d(w, "y") - d(v, "z"), d(u, "z") - d(w, "x"), d(v, "x") - d(u, "y")])


def divergence(velocity: np.ndarray) -> np.ndarray:
    return sum((derivative(c, a) for c, a in zip(velocity, "xyz", strict=True)), np.zeros(()))


def energy(velocity: np.ndarray) -> float:
    return float((velocity**2).sum(axis=0).mean() / 2)


def enstrophy(velocity: np.ndarray) -> float:
    return energy(curl(velocity))


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_two_dimensional_vortices_decay_exactly() -> None:
    x = 2 * np.pi / 16 * np.arange(16)
    flat = np.stack([np.sin(x) * np.cos(x)[:, None], -np.cos(x) * np.sin(x)[:, None], np.zeros((16, 16))])
    start = np.repeat(flat[:, None], 16, axis=1)
    times = np.array([0.0, 0.5, 2.0])
    exact = start * np.exp(-2 * 0.05 * times)[:, None, None, None, None]
    np.testing.assert_allclose(simulate(start, 0.05, times), exact, atol=1e-13)
    # the same in the plane of y and z
    turned = np.roll(start.transpose(0, 2, 3, 1), 1, axis=0)
    np.testing.assert_allclose(simulate(turned, 0.05, [2.0])[0], np.roll(exact[2].transpose(0, 2, 3, 1), 1, axis=0), atol=1e-13)


def test_flow_in_a_plane_is_that_of_the_solver_in_two_dimensions() -> None:
    vorticity = random_vorticity(np.random.default_rng(0), 24, 2.0, 1.0)
    start = np.zeros((3, 24, 24, 24))
    start[:2] = velocity_2d(vorticity)[:, None]
    got = simulate(start, 0.05, [1.0], courant=0.5)[0]
    assert not got[2].any()
    np.testing.assert_allclose(got[:2, 7], velocity_2d(simulate_2d(vorticity, 0.05, [1.0], courant=0.25)[0]), atol=2e-4)


def test_a_helical_flow_is_steady_but_for_viscosity() -> None:
    """Arnold, Beltrami and Childress: curl u = u, so u x curl u = 0 and every mode decays alike."""
    x = 2 * np.pi / 16 * np.arange(16)
    y, z = x[:, None], x[:, None, None]
    start = np.stack(np.broadcast_arrays(np.sin(z) + 0.7 * np.cos(y), 0.5 * np.sin(x) + np.cos(z), 0.7 * np.sin(y) + 0.5 * np.cos(x)))
    np.testing.assert_allclose(simulate(start, 0.1, [1.5])[0], start * np.exp(-0.15), atol=1e-13)


def test_trajectory_fulfils_the_equation() -> None:
    """Time derivative by central differences, space derivatives by dense matrices; what remains must be a gradient: it has no curl."""
    viscosity, h = 0.1, 0.004
    u = simulate(vortices(32, 0.4, 1.0, PHASES), viscosity, 0.5 + h * np.arange(-2, 3), courant=0.1)
    rate = (u[0] - 8 * u[1] + 8 * u[3] - u[4]) / (12 * h)
    now = u[2]
    advection = np.stack([sum(now[j] * derivative(now[i], "xyz"[j]) for j in range(3)) for i in range(3)])
    diffusion = viscosity * sum(derivative(derivative(now, a), a) for a in "xyz")
    rest = rate + advection - diffusion
    assert np.linalg.norm(diffusion) > 0.1 * np.linalg.norm(advection)
    assert np.linalg.norm(rest) > 0.1 * np.linalg.norm(advection)
    assert np.linalg.norm(curl(rest)) < 1e-4 * np.linalg.norm(curl(advection))
    assert np.abs(divergence(now)).max() < 1e-12 * 32


def test_enstrophy_grows_as_the_series_of_taylor_and_green() -> None:
    """Without viscosity `Z(t) / Z(0) = 1 + 5 t^2 / 48 + ...` (Taylor & Green 1937), Z(0) = 3 / 8, E(0) = 1 / 8."""
    times = np.array([0.0, 0.1, 0.2])
    z = np.array([enstrophy(u) for u in simulate(vortices(16, 0.0), 0.0, times, courant=0.1)])
    assert z[0] == pytest.approx(3 / 8, rel=1e-13)
    assert energy(vortices(16, 0.0)) == pytest.approx(1 / 8, rel=1e-13)
    growth = (z[1:] / z[0] - 1) / times[1:] ** 2
    assert (4 * growth[0] - growth[1]) / 3 == pytest.approx(5 / 48, rel=1e-5)


def test_energy_is_conserved_without_viscosity() -> None:
    u = simulate(vortices(24, 0.6, 1.0, PHASES), 0.0, [0.0, 2.0, 4.0], courant=0.25)
    assert error(u[2], u[0]) > 0.5
    assert max(abs(energy(v) / energy(u[0]) - 1) for v in u) < 1e-7
    assert max(np.abs(divergence(v)).max() for v in u) < 1e-11
    assert np.abs(u.mean(axis=(2, 3, 4))).max() < 1e-15


def test_energy_decays_by_twice_viscosity_times_enstrophy() -> None:
    viscosity, times = 0.03, np.linspace(0, 4, 81)
    u = simulate(vortices(24, 0.2, 1.0, PHASES), viscosity, times)
    e, z = np.array([energy(v) for v in u]), np.array([enstrophy(v) for v in u])
    lost = 2 * viscosity * (z[0] + z[-1] + 4 * z[1:-1:2].sum() + 2 * z[2:-1:2].sum()) * 0.05 / 3
    assert e[0] - e[-1] == pytest.approx(lost, rel=1e-6)


def test_order_in_time_is_four() -> None:
    start, end = 2 * vortices(24, 0.6, 1.0, PHASES), 1.0
    speed = np.abs(start).sum(axis=0).max()

    def solve(steps: int) -> np.ndarray:
        return simulate(start, 0.02, [end], courant=end * speed / (2 * np.pi / 24) / steps * (1 + 1e-9))[0]

    reference = solve(160)
    errors = [error(solve(steps), reference) for steps in (10, 20, 40)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.8).all(), (errors, orders)


def test_finer_grids_converge_to_the_same_flow() -> None:
    solutions = {n: box.resample(simulate(vortices(n, 0.3), 0.03, [3.0])[0], 16) for n in (16, 24, 32, 48)}
    errors = [error(solutions[n], solutions[48]) for n in (16, 24, 32)]
    assert errors[2] < 1e-3
    assert errors[0] > 4 * errors[1] > 16 * errors[2], errors


def test_symmetries_of_the_vortex_are_kept() -> None:
    """Mirrors at x = 0, y = 0 and z = 0, and the exchange of x and y with half a wave along z (Brachet et al. 1983)."""
    u = simulate(vortices(24, 0.0), 0.01, [3.0])[0]
    assert np.abs(u[2]).max() > 0.1  # the vertical velocity has grown from nothing
    for component, axis in enumerate((3, 2, 1)):
        signs = np.ones((3, 1, 1, 1))
        signs[component] = -1
        np.testing.assert_allclose(signs * np.roll(np.flip(u, axis), 1, axis), u, atol=1e-12)
    np.testing.assert_allclose(np.roll(u[[1, 0, 2]].transpose(0, 1, 3, 2), 12, axis=1), u, atol=1e-12)


def test_the_cube_has_no_origin_and_no_preferred_axis() -> None:
    start = vortices(16, 0.5, 1.0, PHASES)
    later = simulate(start, 0.02, [1.0])[0]
    moved = simulate(np.roll(start, (3, -5, 7), (1, 2, 3)), 0.02, [1.0])[0]
    np.testing.assert_allclose(moved, np.roll(later, (3, -5, 7), (1, 2, 3)), atol=1e-12)
    # x becomes y, y becomes z, z becomes x
    turned = simulate(np.roll(start.transpose(0, 2, 3, 1), 1, axis=0), 0.02, [1.0])[0]
    np.testing.assert_allclose(turned, np.roll(later.transpose(0, 2, 3, 1), 1, axis=0), atol=1e-12)


def test_vortices_are_free_of_divergence_whatever_the_angle() -> None:
    for angle in (0.0, 0.7, 2.5):
        u = vortices(16, angle, 1.3, PHASES)
        assert np.abs(divergence(u)).max() < 1e-13
        assert energy(u) == pytest.approx(1.3**2 / 8, rel=1e-12)
    assert np.abs(vortices(16, 0.0)).max() == pytest.approx(1, rel=1e-12)


def test_default_samples_are_resolved() -> None:
    """A stored trajectory beside the same one on twice the grid; half the frames reach the peak of the enstrophy."""
    options = TaylorGreenOptions(frames=7, viscosity_low=0.015, viscosity_high=0.016)
    source = TaylorGreen((), options)
    ref = source.plan().refs[0]
    (stored,), (better,) = (TaylorGreen((), o).samples([ref]) for o in (options, replace(options, resolution=2.1)))
    assert error(stored.values, better.values) < 0.01


def test_resampling_is_exact_for_resolved_modes() -> None:
    fine = vortices(24, 0.5, 1.0, PHASES)
    np.testing.assert_allclose(box.resample(fine, 16), vortices(16, 0.5, 1.0, PHASES), atol=1e-14)
    np.testing.assert_allclose(box.resample(box.resample(fine, 36), 24), fine, atol=1e-14)


def test_dissipative_scales_choose_the_grid() -> None:
    assert [resolving_grid(1.0, v, 1.4) for v in (0.04, 0.01)] == [24, 48]


def test_impossible_problems_are_refused() -> None:
    u = vortices(8, 0.0)
    for arguments in ((u[:2], 0.1, [1.0]), (u[..., :4], 0.1, [1.0]), (u, -0.1, [1.0]), (u, 0.1, [1.0, 0.5]), (u, 0.1, [-1.0])):
        with pytest.raises(ValueError):
            simulate(*arguments)
    assert not simulate(np.zeros((3, 8, 8, 8)), 0.1, [1.0]).any()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=9"], "grid=9"),
        (["frames=0"], "frames=0"),
        (["step=0"], "step=0"),
        (["resolution=nan"], "resolution=nan"),
        (["spread=0.5"], "spread=0.5"),
        (["viscosity_low=0"], "viscosity_low=0"),
        (["ood_high=0.02"], "overlap"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(TaylorGreen.Options, words)
