"""Advection and diffusion in a box: exact for single waves, grid shifts and a Gaussian cloud; the mean stays."""

from __future__ import annotations

import numpy as np
import pytest

from scigpt.data_prep.pde.advection_diffusion_3d import AdvectionDiffusion3D, random_cloud, solve
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

WIND = (0.3, -0.7, 0.45)


def test_a_wave_drifts_and_decays_exactly() -> None:
    n, diffusivity, times = 16, 3e-3, np.array([0.0, 0.4, 1.7])
    x = np.arange(n) / n
    for k in ((1, 0, 0), (0, 2, 0), (0, 0, 7), (3, -2, 1), (7, 7, -7)):
        phases = [
            2 * np.pi * (k[0] * (x - WIND[0] * t) + k[1] * (x - WIND[1] * t)[:, None] + k[2] * (x - WIND[2] * t)[:, None, None])
            for t in times
        ]
        decay = np.exp(-4 * np.pi**2 * diffusivity * np.dot(k, k) * times)
        exact = np.stack([0.8 + 1.3 * d * np.sin(p + 0.4) for d, p in zip(decay, phases, strict=True)])
        np.testing.assert_allclose(solve(exact[0], WIND, diffusivity, times), exact, atol=1e-13)


def test_wind_without_diffusion_moves_the_cloud_unchanged() -> None:
    cloud = random_cloud(np.random.default_rng(0), 32, 3.0)
    moved = solve(cloud, (4 / 32, -3 / 32, 7 / 32), 0.0, [2.0])[0]
    np.testing.assert_allclose(moved, np.roll(cloud, (14, -6, 8), (0, 1, 2)), atol=1e-12)


def test_a_gaussian_spreads_as_on_an_endless_line() -> None:
    """Variance s^2 grows by 2 D t in each direction; the images beyond the box are summed."""
    n, width, diffusivity, t = 32, 0.06, 1e-3, 1.2
    x = np.arange(n) / n

    def cloud(variance: float, shift: float, axis: int) -> np.ndarray:
        images = sum(np.exp(-((x - 0.5 - WIND[axis] * shift + m) ** 2) / (2 * variance)) for m in range(-4, 5))
        return np.asarray(images) / np.sqrt(2 * np.pi * variance)

    def product(variance: float, shift: float) -> np.ndarray:
        a, b, c = (cloud(variance, shift, axis) for axis in range(3))
        return a * b[:, None] * c[:, None, None]

    got = solve(product(width**2, 0), WIND, diffusivity, [t])[0]
    np.testing.assert_allclose(got, product(width**2 + 2 * diffusivity * t, t), atol=1e-6 * got.max())


def test_mean_is_conserved_and_variance_only_falls() -> None:
    start = 0.7 + random_cloud(np.random.default_rng(1), 24, 3.0)
    frames = solve(start, WIND, 2e-3, np.linspace(0, 2, 9))
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 0.7, atol=1e-14)
    assert (np.diff(frames.var(axis=(1, 2, 3))) < 0).all()
    # steps compose: two halves are the whole
    np.testing.assert_allclose(solve(frames[4], WIND, 2e-3, [1.0])[0], frames[8], atol=1e-13)


def test_clouds_are_the_same_on_every_grid() -> None:
    coarse, fine = (random_cloud(np.random.default_rng(2), n, 3.0) for n in (24, 48))
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-13)
    assert coarse.std() == pytest.approx(1, rel=1e-12)
    assert abs(coarse.mean()) < 1e-14
    k = np.fft.fftfreq(24, 1 / 24)
    squared = k**2 + k[:, None] ** 2 + k[:, None, None] ** 2
    power = sum(np.abs(np.fft.fftn(random_cloud(np.random.default_rng(seed), 24, 3.0))) ** 2 for seed in range(10))
    expected = squared * np.exp(-2 * squared / 9)
    shells = [np.rint(np.sqrt(squared)) == s for s in range(1, 8)]
    ratios = np.array([power[shell].sum() / expected[shell].sum() for shell in shells])
    np.testing.assert_allclose(ratios / ratios.mean(), 1, atol=0.2)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=9"], "grid=9"),
        (["frames=0"], "frames=0"),
        (["step=0"], "step=0"),
        (["peak=9"], "peak=9"),
        (["speed=-1"], "speed=-1"),
        (["diffusivity_low=0"], "diffusivity_low=0"),
        (["ood_low=0.001"], "overlap"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(AdvectionDiffusion3D.Options, words)
