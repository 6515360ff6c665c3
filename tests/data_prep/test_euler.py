"""The Euler solver against the exact Riemann solution, a moving vortex, mirror images and what must be conserved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from scigpt.data_prep.pde.euler import SWAPPED, Euler, EulerOptions, conserved, primitive, riemann_start, simulate, smooth_start
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

GAMMA = 1.4
State = tuple[float, float, float]
"""Density, velocity, pressure."""


def exact_riemann(left: State, right: State, positions: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """Density, velocity and pressure `(3, n)` at x / t of the Riemann problem (Toro, "Riemann Solvers", 2009, chapter 4)."""
    g = gamma

    def sound(state: State) -> float:
        return float(np.sqrt(g * state[2] / state[0]))

    def jump(p: float, state: State) -> float:
        """What the velocity changes by across the wave that leaves pressure p behind: a shock or a rarefaction."""
        rho, _, p0 = state
        if p > p0:
            return float((p - p0) * np.sqrt(2 / rho / ((g + 1) * p + (g - 1) * p0)))
        return float(2 * sound(state) / (g - 1) * ((p / p0) ** ((g - 1) / (2 * g)) - 1))

    p = brentq(lambda p: jump(p, left) + jump(p, right) + right[1] - left[1], 1e-12, 1e6, xtol=1e-14, rtol=1e-14)
    u = (left[1] + right[1] + jump(p, right) - jump(p, left)) / 2

    def left_half(state: State, x: np.ndarray, inside: float) -> np.ndarray:
        """The solution left of a contact that moves at `inside`."""
        rho, v, p0 = state
        c, ratio = sound(state), p / p0
        if p > p0:
            density = rho * (ratio + (g - 1) / (g + 1)) / (ratio * (g - 1) / (g + 1) + 1)
            shock = v - c * np.sqrt((g + 1) / (2 * g) * ratio + (g - 1) / (2 * g))
            return np.where(x < shock, np.array(state)[:, None], np.array([density, inside, p])[:, None])
        density, behind = rho * ratio ** (1 / g), c * ratio ** ((g - 1) / (2 * g))
        fan_c = 2 / (g + 1) * (c + (g - 1) / 2 * (v - x))
        fan = np.stack([rho * (fan_c / c) ** (2 / (g - 1)), x + fan_c, p0 * (fan_c / c) ** (2 * g / (g - 1))])
        after = np.where(x < inside - behind, fan, np.array([density, inside, p])[:, None])
        return np.where(x < v - c, np.array(state)[:, None], after)

    with np.errstate(invalid="ignore"):  # the formula of the fan, outside of it
        mirrored = left_half((right[0], -right[1], right[2]), -positions, -u)
        return np.where(positions < u, left_half(left, positions, u), mirrored * np.array([1, -1, 1])[:, None])


def tube(left: State, right: State, n: int) -> np.ndarray:
    """A shock tube along x, four cells wide; the membrane in the middle."""
    start = np.zeros((4, 4, n))
    for half, (rho, u, p) in ((slice(None, n // 2), left), (slice(n // 2, None), right)):
        start[0, :, half], start[1, :, half], start[3, :, half] = rho, u, p
    return start


SOD: tuple[State, State] = ((1.0, 0.0, 1.0), (0.125, 0.0, 0.1))


def test_the_exact_solution_of_sod_is_that_of_the_literature() -> None:
    # Toro 2009, table 4.2: p* = 0.30313, u* = 0.92745, densities 0.42632 and 0.26557 beside the contact
    got = exact_riemann(*SOD, np.array([-2.0, 0.9, 0.95, 3.0]))
    np.testing.assert_allclose(got[:, 1], [0.42632, 0.92745, 0.30313], atol=1e-5)
    np.testing.assert_allclose(got[:, 2], [0.26557, 0.92745, 0.30313], atol=1e-5)
    np.testing.assert_allclose(got[:, [0, 3]].T, SOD)


@pytest.mark.parametrize(
    ("left", "right", "time", "bound"),
    [
        (*SOD, 0.2, 0.012),
        ((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.12, 0.03),  # two rarefactions that all but leave a vacuum
        ((1.0, 0.0, 100.0), (1.0, 0.0, 0.01), 0.03, 0.04),  # a blast
        ((1.0, 2.0, 0.1), (1.0, -2.0, 0.1), 0.3, 0.02),  # colliding streams
    ],
    ids=["sod", "near vacuum", "blast", "collision"],
)
def test_shock_tubes_converge_to_the_exact_solution(left: State, right: State, time: float, bound: float) -> None:
    errors = []
    for n in (100, 400):
        got = simulate(tube(left, right, n), GAMMA, [time], "open", 1 / n)[0]
        np.testing.assert_allclose(got, got[:, :1].repeat(4, axis=1), atol=1e-12)
        exact = exact_riemann(left, right, ((np.arange(n) + 0.5) / n - 0.5) / time)
        errors.append((np.abs(got[[0, 1, 3], 0] - exact).mean(axis=1) / np.abs(exact).max(axis=1)).max())
    assert errors[0] < bound
    assert errors[1] < 0.45 * errors[0], errors


def test_both_axes_are_alike_to_the_bit() -> None:
    x = simulate(tube(*SOD, 64), GAMMA, [0.1], "wall", 1 / 64)[0]
    y = simulate(tube(*SOD, 64).transpose(0, 2, 1)[SWAPPED], GAMMA, [0.1], "wall", 1 / 64)[0]
    assert np.array_equal(y[SWAPPED].transpose(0, 2, 1), x)


def vortex(n: int, time: float, side: float = 10.0, strength: float = 5.0, drift: tuple[float, float] = (1.0, 0.5)) -> np.ndarray:
    """The isentropic vortex of Shu (1998) that a uniform wind carries along, on a periodic square."""
    centres = (np.arange(n) + 0.5) / n * side
    x, y = ((centres - d * time) % side - side / 2 for d in drift)
    swirl = strength / (2 * np.pi) * np.exp((1 - x[None, :] ** 2 - y[:, None] ** 2) / 2)
    heat = 1 - (GAMMA - 1) / (2 * GAMMA) * swirl**2
    return np.stack(
        [heat ** (1 / (GAMMA - 1)), drift[0] - swirl * y[:, None], drift[1] + swirl * x[None, :], heat ** (GAMMA / (GAMMA - 1))]
    )


def test_a_moving_vortex_converges_with_second_order() -> None:
    errors = []
    for n in (32, 64, 128):
        got = simulate(vortex(n, 0), GAMMA, [1.0], "periodic", 10 / n)[0]
        errors.append(np.abs(got - vortex(n, 1.0)).mean(axis=(1, 2)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.8).all(), orders


@pytest.mark.parametrize("boundary", ["periodic", "wall"])
def test_closed_boxes_conserve_to_rounding(boundary: str) -> None:
    for make in (riemann_start, smooth_start):
        start = make(np.random.default_rng(3), 32, 10.0, 0.5)
        frames = simulate(start, 1.3, [0.0, 0.2, 0.4], boundary, 1 / 32)  # type: ignore[arg-type]
        totals = np.array([conserved(f, 1.3).sum(axis=(1, 2)) for f in frames])
        assert np.abs(frames[2] - frames[0]).max() > 0.3
        drift = np.abs(totals - totals[0]).max(axis=0) / totals[0, 3]
        assert drift[[0, 3]].max() < 1e-13
        if boundary == "periodic":
            assert drift[[1, 2]].max() < 1e-13


def test_a_wall_is_a_mirror() -> None:
    """The closed box is a quarter of a periodic one that holds its mirror images."""
    start = riemann_start(np.random.default_rng(5), 24, 5.0, 0.5)
    signs = np.array([1, -1, 1, 1])[:, None, None]
    wide = np.concatenate([start, signs * start[:, :, ::-1]], axis=2)
    whole = np.concatenate([wide, signs[[0, 2, 1, 3]] * wide[:, ::-1]], axis=1)
    box = simulate(start, GAMMA, [0.3], "wall", 1 / 24)[0]
    mirrored = simulate(whole, GAMMA, [0.3], "periodic", 1 / 24)[0]
    np.testing.assert_allclose(mirrored[:, :24, :24], box, atol=1e-10)


def test_waves_leave_through_open_sides() -> None:
    x = (np.arange(64) + 0.5) / 64 - 0.5
    bump = 1 + 0.01 * np.exp(-(x[None, :] ** 2 + x[:, None] ** 2) / 0.01)
    start = np.stack([bump, 0 * bump, 0 * bump, bump**GAMMA])
    later = {b: simulate(start, GAMMA, [1.5], b, 1 / 64)[0, 3] - 1 for b in ("open", "wall")}  # type: ignore[arg-type]
    assert np.abs(later["open"]).max() < 2e-4
    assert np.abs(later["wall"]).max() > 2e-3


def test_symmetric_gas_stays_symmetric() -> None:
    n = 32
    x = (np.arange(n) + 0.5) / n - 0.5
    inside = x[None, :] ** 2 + x[:, None] ** 2 < 0.2**2
    start = np.stack([np.where(inside, 3.0, 1.0), np.zeros((n, n)), np.zeros((n, n)), np.where(inside, 5.0, 1.0)])
    got = simulate(start, GAMMA, [0.3], "wall", 1 / n)[0]
    assert np.array_equal(got[SWAPPED].transpose(0, 2, 1), got)
    np.testing.assert_allclose(got[:, :, ::-1], got * np.array([1, -1, 1, 1])[:, None, None], atol=1e-12)
    np.testing.assert_allclose(got[:, ::-1], got * np.array([1, 1, -1, 1])[:, None, None], atol=1e-12)


def test_resting_contacts_stay_and_a_uniform_wind_changes_nothing() -> None:
    start = riemann_start(np.random.default_rng(1), 16, 5.0, 0.0)
    start[3] = 0.7
    np.testing.assert_allclose(simulate(start, GAMMA, [0.5], "wall", 1 / 16)[0], start, atol=1e-13)
    wind = np.ones((4, 16, 16)) * np.array([1.3, 0.4, -0.8, 2.0])[:, None, None]
    for boundary in ("periodic", "open"):
        np.testing.assert_allclose(simulate(wind, GAMMA, [0.5], boundary, 1 / 16)[0], wind, atol=1e-13)  # type: ignore[arg-type]


def test_periodic_gas_knows_no_origin() -> None:
    start = smooth_start(np.random.default_rng(2), 32, 5.0, 0.5)
    got = simulate(start, 1.3, [0.3], "periodic", 1 / 32)[0]
    rolled = simulate(np.roll(start, (5, -9), (1, 2)), 1.3, [0.3], "periodic", 1 / 32)[0]
    assert np.array_equal(np.roll(got, (5, -9), (1, 2)), rolled)


@pytest.mark.parametrize("boundary", ["periodic", "wall", "open"])
def test_the_hardest_options_keep_density_and_pressure_positive(boundary: str) -> None:
    options = EulerOptions(
        train=0, valid=0, test=0, ood=6, grid=32, frames=5, step=0.1, boundary=boundary, speed=1, gamma_low=1.05, ood_low=19, ood_high=20
    )  # type: ignore[arg-type]
    source = Euler((), options)
    for sample in source.samples(source.plan().refs):
        assert sample.values[:, [0, 3]].min() > 0
        assert sample.boundary.x == sample.boundary.y == (boundary, boundary)


def test_starts_span_their_range_on_any_grid() -> None:
    for make in (riemann_start, smooth_start):
        fields = np.stack([make(np.random.default_rng(seed), 32, 4.0, 0.5) for seed in range(40)])
        assert 1.9 < fields[:, [0, 3]].max() <= 2
        assert 0.5 <= fields[:, [0, 3]].min() < 0.53
        assert 0.45 < np.abs(fields[:, 1:3]).max() <= 0.5
    coarse, fine = (riemann_start(np.random.default_rng(7), n, 4.0, 0.5) for n in (32, 96))
    assert (fine[:, 1::3, 1::3] == coarse).all()
    assert len(np.unique(coarse[0])) == 4


def test_smooth_gas_does_not_cross_walls() -> None:
    closed = smooth_start(np.random.default_rng(0), 256, 4.0, 0.5, "wall")
    assert np.abs(closed[1, :, [0, -1]]).max() < 0.1 * np.abs(closed[1]).max()
    assert np.abs(np.diff(closed[0], axis=1)[:, [0, -1]]).max() < 0.1 * np.abs(np.diff(closed[0], axis=1)).max()
    periodic = smooth_start(np.random.default_rng(0), 64, 4.0, 0.5)
    across = np.abs(periodic - np.roll(periodic, 1, axis=2)).max(axis=(1, 2))
    assert (np.abs(periodic[:, :, 0] - periodic[:, :, -1]).max(axis=1) <= across).all()


def test_conserved_variables_turn_back() -> None:
    fields = smooth_start(np.random.default_rng(4), 16, 5.0, 0.5)
    np.testing.assert_allclose(primitive(conserved(fields, 1.3), 1.3), fields, atol=1e-14)


def test_impossible_problems_are_refused() -> None:
    gas = np.ones((4, 8, 8))
    for arguments in (
        (gas[:3], GAMMA, [1.0]),
        (gas, 1.0, [1.0]),
        (-gas, GAMMA, [1.0]),
        (gas, GAMMA, [1.0, 0.5]),
        (gas, GAMMA, [-1.0]),
    ):
        with pytest.raises(ValueError):
            simulate(*arguments, "open", 0.1)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=63"], "grid=63"),
        (["frames=0"], "frames=0"),
        (["step=nan"], "step=nan"),
        (["speed=3"], "vacuum"),
        (["gamma_low=1"], "gamma_low=1"),
        (["gamma_high=2"], "gamma_high=2"),
        (["ood_high=50"], "1 to 20"),
        (["ood_low=4"], "overlap"),
        (["boundary=shut"], "boundary='shut'"),
        (["initial=rough"], "initial='rough'"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(Euler.Options, words)
