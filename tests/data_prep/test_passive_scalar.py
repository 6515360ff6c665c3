from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import fft

from scigpt.data_prep.pde.navier_stokes import advance, random_vorticity, simulate, velocity
from scigpt.data_prep.pde.passive_scalar import PassiveScalar, PassiveScalarOptions, random_concentration
from scigpt.data_prep.pde.spectral import resample
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError


def start(n: int, peak: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([random_vorticity(rng, n, peak, 1.0), random_concentration(rng, n, peak)])


def gradient(c: np.ndarray) -> np.ndarray:
    k = 1j * fft.fftfreq(c.shape[-1], 1 / c.shape[-1])
    s = fft.fft2(c)
    return np.stack([fft.ifft2(k * s).real, fft.ifft2(k[:, None] * s).real])


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_the_flow_is_that_of_navier_stokes() -> None:
    s = start(48)
    both = advance(s, np.array([0.02, 0.03]), [0.0, 0.7])
    assert np.array_equal(both[:, 0], simulate(s[0], 0.02, [0.0, 0.7]))


def test_dye_at_rest_diffuses_exactly() -> None:
    x = 2 * np.pi / 32 * np.arange(32)
    c = np.cos(2 * x)[None, :] * np.sin(3 * x)[:, None]
    end = advance(np.stack([0 * c, c]), np.array([0.1, 0.05]), [1.5])[0, 1]
    np.testing.assert_allclose(end, c * np.exp(-0.05 * 13 * 1.5), atol=1e-13)


def test_dye_in_a_shear_flow_tilts_exactly() -> None:
    """u = A sin y without decay carries c = f(x): c(t) = f(x - A t sin y) where nothing diffuses."""
    n, amplitude, t = 64, 0.8, 1.5
    x = 2 * np.pi / n * np.arange(n)
    vorticity = np.tile(-amplitude * np.cos(x)[:, None], n)
    np.testing.assert_allclose(velocity(vorticity)[0], amplitude * np.tile(np.sin(x)[:, None], n), atol=1e-12)
    c = np.tile(np.cos(x), (n, 1))
    end = advance(np.stack([vorticity, c]), np.zeros(2), [t], courant=0.25)[0, 1]
    np.testing.assert_allclose(end, np.cos(x[None, :] - amplitude * t * np.sin(x)[:, None]), atol=1e-6)


def test_mean_is_conserved_and_variance_decays_as_it_must() -> None:
    diffusivity, times = 0.03, np.linspace(0, 1, 101)
    c = advance(start(64), np.array([0.02, diffusivity]), times, courant=0.5)[:, 1]
    mean = c.mean(axis=(1, 2))
    assert np.abs(mean / mean[0] - 1).max() < 1e-13
    variance = c.var(axis=(1, 2))
    loss = 2 * diffusivity * np.array([(gradient(f) ** 2).sum(axis=0).mean() for f in c])
    integral = (loss[0] + loss[-1] + 4 * loss[1:-1:2].sum() + 2 * loss[2:-1:2].sum()) * 0.01 / 3
    assert variance[0] - variance[-1] == pytest.approx(integral, rel=1e-6)
    assert (np.diff(variance) < 0).all()


def test_without_diffusion_the_variance_stays() -> None:
    c = advance(start(96), np.array([0.05, 0.0]), [0.0, 0.5], courant=0.25)[:, 1]
    assert error(c[1], c[0]) > 0.1
    assert c[1].var() == pytest.approx(c[0].var(), rel=1e-6)


def test_order_in_time_is_four() -> None:
    s, coefficients = start(48), np.array([0.02, 0.03])
    speed = np.abs(velocity(s[0])).sum(axis=0).max()

    def solve(steps: int) -> np.ndarray:
        return advance(s, coefficients, [0.5], courant=0.5 * speed / (2 * np.pi / 48) / steps * (1 + 1e-9))[0, 1]

    reference = solve(160)
    errors = [error(solve(steps), reference) for steps in (5, 10, 20)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.7).all(), (errors, orders)


def test_finer_grids_converge_to_the_same_dye() -> None:
    s, coefficients = start(48), np.array([0.03, 0.03])
    coarse, fine, finest = (resample(advance(resample(s, n), coefficients, [1.5])[0, 1], 48) for n in (48, 72, 128))
    assert error(fine, finest) < 1e-5
    assert error(coarse, finest) > 10 * error(fine, finest)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_default_samples_are_resolved_and_bounded(split: str) -> None:
    options = PassiveScalarOptions(frames=6, step=0.3)
    source, finer = PassiveScalar((), options), PassiveScalar((), replace(options, resolution=2.4))
    ref = next(r for r in source.plan().refs if r.split == split)
    (a,), (b,) = source.samples([ref]), finer.samples([ref])
    assert a.coefficients == b.coefficients
    assert error(a.values, b.values) < 4e-3
    dye = a.values[:, 2]
    assert dye.min() > -1e-3  # the equation keeps it between the bounds of its start
    assert dye.max() < 1 + 1e-3
    assert np.ptp(dye[-1]) < np.ptp(dye[0])
    np.testing.assert_allclose(dye.mean(axis=(1, 2, 3)), dye[0].mean(), rtol=1e-5)


def test_every_field_needs_a_square_and_a_coefficient() -> None:
    with pytest.raises(ValueError, match="shape"):
        advance(start(32)[:, :16], np.zeros(2), [1.0])
    with pytest.raises(ValueError, match="negative"):
        advance(start(32), np.array([0.1, -0.1]), [1.0])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=63"], "grid=63"),
        (["peak=20"], "peak=20"),
        (["frames=0"], "frames=0"),
        (["step=0"], "step=0"),
        (["warmup=-1"], "warmup=-1"),
        (["spread=0.5"], "spread=0.5"),
        (["viscosity_low=1"], "viscosity_low=1"),
        (["ood_high=0.03"], "overlap"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(PassiveScalar.Options, words)
