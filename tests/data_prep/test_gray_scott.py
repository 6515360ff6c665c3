from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from scigpt.data_prep.pde.gray_scott import DIFFUSION, REGIMES, GrayScott, GrayScottOptions, fixed_points, random_start, simulate
from scigpt.data_prep.pde.spectral import resample
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

FEED, KILL = REGIMES["maze"]


def start(n: int, seed: int = 0) -> np.ndarray:
    return random_start(np.random.default_rng(seed), n, 0.75)


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected - expected.mean(axis=(-2, -1), keepdims=True)))


def test_uniform_states_that_do_not_change() -> None:
    feed, kill = 0.03, 0.05
    points = fixed_points(feed, kill)
    assert len(points) == 3
    assert fixed_points(0.03, 0.062) == [(1.0, 0.0)]
    for a, b in points:
        assert abs(feed * (1 - a) - a * b * b) < 1e-16
        assert abs(a * b * b - (feed + kill) * b) < 1e-16
        state = np.stack([np.full((16, 16), a), np.full((16, 16), b)])
        np.testing.assert_allclose(simulate(state, feed, kill, [10.0])[0], state, atol=1e-12)


def test_uniform_states_follow_the_reaction_alone() -> None:
    state = np.stack([np.full((16, 16), 0.5), np.full((16, 16), 0.25)])
    times = np.array([0.0, 20.0, 60.0])
    got = simulate(state, FEED, KILL, times, longest=0.5)

    def reaction(_: float, s: np.ndarray) -> list[float]:
        a, b = s
        return [FEED * (1 - a) - a * b * b, a * b * b - (FEED + KILL) * b]

    exact = solve_ivp(reaction, (0, 60), [0.5, 0.25], t_eval=times, rtol=1e-11, atol=1e-13).y.T
    np.testing.assert_allclose(got, np.broadcast_to(exact[:, :, None, None], got.shape), atol=1e-7)


def test_without_the_second_substance_the_first_is_exact() -> None:
    """a - 1 decays by feed and diffusion alone, whatever the step."""
    x = np.arange(32) / 32
    shape = np.cos(2 * np.pi * (2 * x[None, :] - 3 * x[:, None]))
    state = np.stack([1 + 0.1 * shape, 0 * shape])
    end = simulate(state, FEED, KILL, [50.0], longest=50.0)[0]
    rate = FEED + DIFFUSION[0] * (2 * np.pi) ** 2 * 13
    np.testing.assert_allclose(end[0], 1 + 0.1 * np.exp(-50 * rate) * shape, atol=1e-12)
    assert not end[1].any()


def test_sum_of_both_diffuses_when_they_diffuse_alike() -> None:
    """With kill 0 and equal diffusivities the reaction cancels in a + b: a linear equation with an exact solution."""
    state = start(64)
    frames = simulate(state, FEED, 0.0, [60.0], diffusion=(2e-5, 2e-5), side=0.75)
    k = np.fft.fftfreq(64, 1 / 64)
    keep = (np.abs(k)[:, None] < 64 / 3) & (np.abs(k) < 64 / 3)
    decay = np.exp(-60 * (FEED + 2e-5 * (2 * np.pi / 0.75) ** 2 * (k[:, None] ** 2 + k**2)))
    total = np.fft.ifft2(decay * keep * np.fft.fft2(state.sum(axis=0) - 1)).real + 1
    np.testing.assert_allclose(frames[0].sum(axis=0), total, atol=1e-12)
    assert frames[0, 1].std() > 0.01


def test_mass_is_conserved_in_a_closed_reactor_and_fed_at_the_right_rate() -> None:
    closed = simulate(start(48), 0.0, 0.0, [0.0, 50.0, 200.0], side=0.75)
    mass = closed.mean(axis=(2, 3)).sum(axis=1)
    assert np.abs(mass / mass[0] - 1).max() < 1e-13
    assert closed[-1, 0].mean() < closed[0, 0].mean() - 0.02  # a has become b

    times = np.linspace(0, 40, 161)
    means = simulate(start(48), FEED, KILL, times, side=0.75, longest=0.25).mean(axis=(2, 3))
    gain = FEED * (1 - means[:, 0]) - (FEED + KILL) * means[:, 1]
    integral = (gain[0] + gain[-1] + 4 * gain[1:-1:2].sum() + 2 * gain[2:-1:2].sum()) * 0.25 / 3
    assert means[-1].sum() - means[0].sum() == pytest.approx(integral, rel=1e-7)


def test_order_in_time_is_four() -> None:
    state = start(64)
    reference = simulate(state, FEED, KILL, [64.0], side=0.75, longest=0.125)
    errors = [error(simulate(state, FEED, KILL, [64.0], side=0.75, longest=dt), reference) for dt in (4.0, 2.0, 1.0)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.7).all(), (errors, orders)
    assert errors[1] < 2e-4


def test_finer_grids_converge_faster_than_any_power() -> None:
    coarse, middle, fine, finest = (resample(simulate(start(n), FEED, KILL, [100.0], side=0.75), 48) for n in (48, 64, 96, 160))
    errors = [error(f, finest) for f in (coarse, middle, fine)]
    assert errors[2] < 1e-3
    assert np.log(errors[0] / errors[1]) / np.log(64 / 48) > 3
    assert np.log(errors[1] / errors[2]) / np.log(96 / 64) > 5


def test_trajectory_fulfils_the_equation() -> None:
    """Time derivative by central differences, Laplacian by a dense matrix."""
    n, side, h = 144, 0.75, 0.25
    a, b = simulate(start(n), FEED, KILL, 150 + h * np.arange(-2, 3), side=side, longest=0.25).swapaxes(0, 1)
    gap = np.arange(n)[:, None] - np.arange(n)
    half = np.where(gap == 0, 1.0, gap * np.pi / n)
    second = np.where(gap == 0, -(n**2) / 12 - 1 / 6, -0.5 * (-1.0) ** gap / np.sin(half) ** 2) * (2 * np.pi / side) ** 2
    reaction = a[2] * b[2] ** 2
    for c, diffusion, source in ((a, DIFFUSION[0], FEED * (1 - a[2]) - reaction), (b, DIFFUSION[1], reaction - (FEED + KILL) * b[2])):
        rate = (c[0] - 8 * c[1] + 8 * c[3] - c[4]) / (12 * h)
        residual = rate - diffusion * (second @ c[2] + c[2] @ second.T) - source
        assert np.linalg.norm(residual) < 1e-3 * np.linalg.norm(source)


@pytest.mark.parametrize("regime", ["maze", "spots", "gliders"])
def test_default_samples_are_resolved_and_alive(regime: str) -> None:
    options = GrayScottOptions(train=1, ood=0, frames=2, step=200.0, regimes=(regime,), ood_regimes=("worms",))
    (a,), (b,) = (s.samples(s.plan().refs[:1]) for s in (GrayScott((), options), GrayScott((), replace(options, refine=3.0))))
    feed, kill = a.coefficients["feed"], a.coefficients["kill"]
    assert abs(feed / REGIMES[regime][0] - 1) <= 0.015
    assert abs(kill / REGIMES[regime][1] - 1) <= 0.015
    assert a.values[1, 1].std() > 0.02
    assert a.values.min() > -1e-3
    assert a.values.max() < 1 + 1e-3
    assert error(a.values.astype(float)[1, 1], b.values.astype(float)[1, 1]) < 1e-3


def test_splits_hold_their_own_regimes() -> None:
    source = GrayScott((), GrayScottOptions(train=12, valid=0, test=0, ood=4, frames=1, warmup=0.0, grid=16))
    plan = source.plan()
    kinds = [s.origin.place.split(", ")[-1] for s in source.samples(plan.refs)]
    assert set(kinds[:12]) == {"spirals", "maze", "spots"}
    assert set(kinds[12:]) == {"gliders"}
    assert "gliders: feed 0.014, kill 0.054" in plan.splits[-1].description


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=63"], "grid=63"),
        (["refine=0.5"], "refine=0.5"),
        (["step=0"], "step=0"),
        (["side=nan"], "side=nan"),
        (["frames=0"], "frames=0"),
        (["warmup=-1"], "warmup=-1"),
        (["jitter=1"], "jitter=1"),
        (["regimes=mazes"], "expected some of spirals"),
        (["regimes="], "expected some of"),
        (["ood_regimes=maze,gliders"], "both hold maze"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(GrayScott.Options, words)


def test_impossible_problems_are_refused() -> None:
    state = np.ones((2, 16, 16))
    for arguments in (
        (state[:1], 0.1, 0.1, [1.0]),
        (state[:, :15, :15], 0.1, 0.1, [1.0]),
        (state, -0.1, 0.1, [1.0]),
        (state, 0.1, 0.1, [1.0, 0.5]),
    ):
        with pytest.raises(ValueError):
            simulate(*arguments)
