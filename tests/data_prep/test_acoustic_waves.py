from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scigpt.data_prep.pde.acoustic_waves import AcousticWaves, AcousticWavesOptions, centred, random_layers, random_pulses, simulate
from scigpt.data_prep.pde.random_fields import centres
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError


def energy(frames: np.ndarray, sound_speed: np.ndarray) -> np.ndarray:
    p, u, v = np.moveaxis(frames, 1, 0)
    return ((p / sound_speed) ** 2 + u**2 + v**2).mean(axis=(1, 2)) / 2


def bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-((x - centre) ** 2) / (2 * width**2))


def smooth_medium(n: int) -> np.ndarray:
    x = centres(n)
    return 1 + 0.3 * np.cos(2 * np.pi * x)[None, :] * np.cos(4 * np.pi * x)[:, None]


@pytest.mark.parametrize("axis", [1, 2])
def test_plane_pulse_travels_unchanged_at_the_sound_speed(axis: int) -> None:
    """p = u = bump(x - c t): order four in the width of the cells."""
    errors = []
    for n in (48, 96):
        speed, t = 1.5, 0.3
        shape = (3, 4, n) if axis == 2 else (3, n, 4)
        start, exact = np.zeros(shape), np.zeros(shape)
        for field, time in ((start, 0.0), (exact, t)):
            p, u = (bump(x, 0.275 + speed * time, 0.045) for x in (centres(n), np.arange(n) / n))
            field[0] = speed * p if axis == 2 else speed * p[:, None]
            field[3 - axis] = u if axis == 2 else u[:, None]
        end = simulate(start, np.full(shape[1:], speed), [t], "periodic", 1 / n)[0]
        errors.append(np.linalg.norm(end - exact) / np.linalg.norm(exact))
    assert errors[1] < 2e-3
    assert np.log2(errors[0] / errors[1]) > 3.7, errors


@pytest.mark.parametrize("side", ["periodic", "wall"])
def test_order_of_convergence_is_four_in_a_smooth_medium(side: str) -> None:
    def solve(n: int) -> np.ndarray:
        x = centres(n)
        pressure = np.cos(2 * np.pi * x)[None, :] + np.cos(4 * np.pi * x)[:, None]
        start = np.stack([pressure, 0 * pressure, 0 * pressure])
        frames = simulate(start, smooth_medium(n), [0.7], side, 1 / n)  # type: ignore[arg-type]
        return frames[0, 0, n // 48 :: n // 24, n // 48 :: n // 24]  # cells three times smaller share their middles

    a, b, c = (solve(n) for n in (24, 72, 216))
    order = np.log(np.linalg.norm(b - a) / np.linalg.norm(c - b)) / np.log(3)
    assert order == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize("side", ["periodic", "wall"])
def test_energy_is_conserved_in_a_closed_domain(side: str) -> None:
    n = 64
    speed = random_layers(np.random.default_rng(1), n, 3.0)
    pressure = random_pulses(np.random.default_rng(2), n, 0.05, 0.08)
    start, times = np.stack([pressure, 0 * pressure, 0 * pressure]), np.linspace(0, 2, 5)
    drift = [
        np.abs(energy(f, speed) / energy(f[:1], speed) - 1).max()
        for f in (simulate(start, speed, times, side, 1 / n, courant=c) for c in (0.6, 0.3))  # type: ignore[arg-type]
    ]
    assert drift[0] < 2e-3
    assert drift[1] < drift[0] / 20  # it is of the step in time alone, of order five
    mass = [(f[0] / speed**2).mean() for f in simulate(start, speed, times, side, 1 / n)]  # type: ignore[arg-type]
    np.testing.assert_allclose(mass, mass[0], rtol=1e-12)


def test_standing_wave_between_walls() -> None:
    n, t = 48, 1.3
    x = centres(n)
    shape = np.cos(3 * np.pi * x)[None, :] * np.cos(np.pi * x)[:, None]
    end = simulate(np.stack([shape, 0 * shape, 0 * shape]), np.ones((n, n)), [t], "wall", 1 / n)[0]
    np.testing.assert_allclose(end[0], shape * np.cos(np.pi * np.sqrt(10) * t), atol=2e-4)
    assert not end[1, :, 0].any()
    assert not end[2, 0].any()


@pytest.mark.parametrize(("first", "second", "offset"), [(1.0, 2.0, 0.0), (2.0, 0.8, 0.0), (1.0, 2.0, 0.37)])
def test_reflection_and_transmission_at_an_interface(first: float, second: float, offset: float) -> None:
    """(Z2 - Z1) / (Z2 + Z1) and 2 Z2 / (Z2 + Z1), Z = c at density 1; also where the interface cuts a cell."""
    n, width = 400, 0.03
    x, cut = (centres(n), 0.5 + offset / n)
    share = np.clip(cut * n - np.arange(n), 0, 1)
    speed = 1 / np.sqrt(share / first**2 + (1 - share) / second**2)
    start = np.zeros((3, 4, n))
    start[0], start[1] = bump(x, 0.3, width), bump(np.arange(n) / n, 0.3, width) / first
    times = np.array([0.3 / first, 0.32 / first])
    end = simulate(start, np.tile(speed, (4, 1)), times, "periodic", 1 / n)[0, 0, 0]
    incident = bump(x, 0.3, width).sum() / first
    left, right = x < cut, x >= cut
    assert end[left].sum() / first / incident == pytest.approx((second - first) / (second + first), abs=2e-3)
    assert end[right].sum() / second / incident == pytest.approx(2 * second / (second + first), abs=2e-3)
    # and the echo lies where the travel time says
    assert x[left][np.abs(end[left]).argmax()] == pytest.approx(2 * cut - 0.3 - first * times[0], abs=1 / n)


def test_open_sides_throw_back_less_than_a_ten_thousandth() -> None:
    """Beside the same pulse in a domain so large that nothing comes back: a point source, so all angles of incidence."""
    n, big, t = 64, 192, [0.5, 0.8, 1.2]
    start, reference = np.zeros((3, n, n)), np.zeros((3, big, big))
    x, wide = centres(n), (np.arange(big) + 0.5 - n) / n
    start[0] = bump(x, 0.3, 0.04)[None, :] * bump(x, 0.6, 0.04)[:, None]
    reference[0] = bump(wide, 0.3, 0.04)[None, :] * bump(wide, 0.6, 0.04)[:, None]
    got = simulate(start, np.ones((n, n)), t, "open", 1 / n)
    expected = simulate(reference, np.ones((big, big)), t, "periodic", 1 / n)[:, :, n : 2 * n, n : 2 * n]
    crossing = np.abs(expected[0, 0]).max()
    assert np.abs(got - expected).max() < 1e-4 * crossing
    assert energy(got, np.ones((n, n)))[2] < 0.01 * energy(start[None], np.ones((n, n)))[0]


@pytest.mark.parametrize("speed", [1.0, 2.5])
def test_a_wave_at_normal_incidence_leaves(speed: float) -> None:
    n, tall = 64, 256  # what the ends of the front send out has not come to the middle
    start = np.zeros((3, tall, n))
    start[0], start[1] = bump(centres(n), 0.5, 0.06), bump(np.arange(n) / n, 0.5, 0.06) / speed
    end = simulate(start, np.full((tall, n), speed), [1.2 / speed], "open", 1 / n)[0, 0, tall // 2]
    assert np.abs(end).max() < 2e-5


def test_layers_that_meet_the_open_sides_leave_with_them() -> None:
    """Energy only ever falls, also where interfaces run into the absorbing layer, and long after the waves are gone it stays gone."""
    n = 64
    speed = random_layers(np.random.default_rng(5), n, 3.5)
    pressure = random_pulses(np.random.default_rng(6), n, 0.04, 0.06)
    frames = simulate(np.stack([pressure, 0 * pressure, 0 * pressure]), speed, np.arange(0.0, 16, 1.0), "open", 1 / n)
    history = energy(frames, speed)
    assert (np.diff(history) < 0).all()
    assert history[-1] < 1e-4 * history[0]


def test_random_layers_have_the_contrast_asked_for() -> None:
    for seed in range(5):
        speed = random_layers(np.random.default_rng(seed), 96, 2.0)
        assert speed.min() == pytest.approx(2**-0.5, rel=1e-6)
        assert speed.max() == pytest.approx(2**0.5, rel=1e-6)
        assert 3 <= len(np.unique(speed[:, 0].round(6))) <= 16


@pytest.mark.parametrize(("split", "bound"), [("train", 0.015), pytest.param("ood", 0.04, marks=pytest.mark.drill)])
def test_default_samples_are_resolved(split: str, bound: float) -> None:
    options = AcousticWavesOptions(frames=2, step=0.45)
    coarse, fine = AcousticWaves((), options), AcousticWaves((), replace(options, refine=4))
    ref = next(r for r in coarse.plan().refs if r.split == split)
    (a,), (b,) = coarse.samples([ref]), fine.samples([ref])
    a_, b_ = a.values.astype(float), b.values.astype(float)
    assert a.coefficients == b.coefficients
    vrmse = np.sqrt(((a_ - b_) ** 2).mean(axis=(2, 3, 4)) / b_.var(axis=(2, 3, 4)))
    assert vrmse.max() < bound, vrmse


@pytest.mark.parametrize("side", ["open", "wall", "periodic"])
def test_velocities_come_to_the_middles(side: str) -> None:
    frames = np.random.default_rng(0).standard_normal((2, 3, 6, 6))
    if side == "wall":
        frames[:, 1, :, 0] = frames[:, 2, 0] = 0
    middle = centred(frames, side)  # type: ignore[arg-type]
    assert np.array_equal(middle[:, 0], frames[:, 0])
    np.testing.assert_allclose(middle[:, 1, :, 2], frames[:, 1, :, 2:4].mean(axis=-1))
    last = {"open": frames[:, 2, -1], "wall": frames[:, 2, -1] / 2, "periodic": (frames[:, 2, -1] + frames[:, 2, 0]) / 2}[side]
    np.testing.assert_allclose(middle[:, 2, -1], last)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=8"], "grid=8"),
        (["refine=0"], "refine=0"),
        (["step=-1"], "step=-1"),
        (["frames=0"], "frames=0"),
        (["warmup=-1"], "warmup=-1"),
        (["width_low=0.001"], "width_low=0.001"),
        (["contrast_low=0.9"], "more than 1"),
        (["ood_low=2"], "overlap"),
        (["boundary=pole"], "pole"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(AcousticWaves.Options, words)


def test_impossible_problems_are_refused() -> None:
    start, speed = np.ones((3, 8, 8)), np.ones((8, 8))
    for arguments in (
        (start[:2], speed, [1.0], "open"),
        (start, 0 * speed, [1.0], "open"),
        (start, speed, [1.0, 0.5], "open"),
        (start, speed, [1.0], "wall"),
    ):
        with pytest.raises(ValueError):
            simulate(*arguments, 1 / 8)
