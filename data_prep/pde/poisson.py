"""The Poisson family of Subramanian et al., "Towards Foundation Models for Scientific Machine Learning" (arXiv:2306.00258, SYS-1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Sample
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, require_ranges
from scigpt.data_prep.pde.spectral import wavenumbers
from scigpt.data_prep.pde.steady import SteadyOptions, steady_pair
from scigpt.data_prep.source import Description

BUMPS = 12
WIDTH = 1 / 32
SPARSITY = (0.2, 0.4, 0.6, 0.8)
DIFFUSION_SCALE = 0.01


def solve(source: np.ndarray, diffusion: np.ndarray) -> np.ndarray:
    """The solution without mean of `-div(K grad u) = f` on the periodic unit square, exact for the grid's Fourier modes.

    The equation has a solution only for a source without mean: a mean is removed.

    Args:
        source: float64 `(..., n, n)`, y first.
        diffusion: `(..., 3)`, `K_xx, K_yy, K_xy`; positive definite.
    """
    n = source.shape[-1]
    symbol = diffusion_symbol(n, diffusion)
    symbol[..., 0, 0] = np.inf
    return fft.irfft2(fft.rfft2(source) / symbol, s=(n, n))


def diffusion_symbol(n: int, diffusion: np.ndarray) -> np.ndarray:
    """`4 pi^2 (K_xx kx^2 + K_yy ky^2 + 2 K_xy kx ky)`, what `-div(K grad)` multiplies each mode by: `(..., n, n // 2 + 1)`.

    The cross term, of odd order in each direction, is zero for the Nyquist modes.
    """
    kx, ky = wavenumbers(n)
    cross = 2 * kx * ky * ((np.abs(kx) < n / 2) & (np.abs(ky) < n / 2))
    xx, yy, xy = np.moveaxis(np.asarray(diffusion, np.float64)[..., None, None], -3, 0)
    return 4 * np.pi**2 * (xx * kx**2 + yy * ky**2 + xy * cross)


def random_source(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random bumps less their mean, `(n, n)`."""
    field = random_bumps(rng, n)
    return field - field.mean()


def random_bumps(rng: np.random.Generator, n: int) -> np.ndarray:
    """A field `(n, n)` of maximum 1: 12 x 12 Gaussian bumps of width 1/32, two widths apart, in the middle of the square.

    A share of them (0.2, 0.4, 0.6 or 0.8, drawn per sample) is absent, the others have amplitudes uniform in (0.001, 1).
    """
    absent = rng.choice(SPARSITY)
    amplitudes = rng.uniform(1e-3, 1, (BUMPS, BUMPS))
    present = rng.random((BUMPS, BUMPS)) > absent
    if not present.any():
        present.flat[rng.integers(present.size)] = True
    centres = 0.5 + 2 * WIDTH * (np.arange(BUMPS) - (BUMPS - 1) / 2)
    bumps = np.exp(-((np.arange(n) / n - centres[:, None]) ** 2) / (2 * WIDTH**2))
    # einsum, not matrix products: bytes that do not depend on the BLAS and its threads
    field = np.einsum("iy,ix->yx", bumps, np.einsum("ij,jx->ix", amplitudes * present, bumps))
    return field / field.max()


def random_diffusion(rng: np.random.Generator, low: float, high: float) -> tuple[float, np.ndarray]:
    """The anisotropy e, uniform in [low, high], and `K_xx, K_yy, K_xy` of `K = 0.01 R^T diag(1, e) R`, R a rotation by a uniform angle."""
    anisotropy, angle = rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return anisotropy, DIFFUSION_SCALE * np.array([c * c + anisotropy * s * s, s * s + anisotropy * c * c, (anisotropy - 1) * c * s])


@dataclass(frozen=True)
class PoissonOptions(SteadyOptions):
    """Options of the Poisson corpus.

    Args:
        e_low, e_high: range of the anisotropy e (the larger eigenvalue of the diffusion over the smaller) of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    e_low: float = 1.0
    e_high: float = 5.0
    ood_low: float = 5.0
    ood_high: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "e")


class Poisson(Simulator):
    """Pairs of a source and its solution under a random constant diffusion tensor; steady."""

    name = "poisson"
    Options = PoissonOptions
    options: PoissonOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D steady anisotropic diffusion, periodic (arXiv:2306.00258 SYS-1)", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"anisotropy {o.e_low:g} to {o.e_high:g}", f"anisotropy {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return self.options.bytes_per_sample

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        anisotropy, diffusion = random_diffusion(rng, *((o.ood_low, o.ood_high) if outside else (o.e_low, o.e_high)))
        source = random_source(rng, o.grid)
        coefficients = dict(zip(("diffusion_xx", "diffusion_yy", "diffusion_xy"), map(float, diffusion), strict=True))
        return steady_pair(self.name, f"{place}, e={anisotropy:.4g}", source, solve(source, diffusion), coefficients)
