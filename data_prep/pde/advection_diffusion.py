"""The advection-diffusion family of Subramanian et al. (arXiv:2306.00258, SYS-2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Sample
from scigpt.data_prep.pde.poisson import diffusion_symbol, random_diffusion, random_source
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, require, require_ranges
from scigpt.data_prep.pde.spectral import wavenumbers
from scigpt.data_prep.pde.steady import SteadyOptions, steady_pair
from scigpt.data_prep.source import Description

ANISOTROPY = (1.0, 5.0)
SHARES = tuple(
    float(round(v, 6)) for v in (*np.geomspace(0.01, 0.1, 11)[:-1], *np.linspace(0.1, 0.9, 41), *(1 - np.geomspace(0.1, 0.02, 9)[1:]))
)
"""The shares lambda of advection that a sample may have."""
MEAN_RATIOS = (
    0.041439, 0.052206, 0.065746, 0.082728, 0.10394, 0.13027, 0.16264, 0.20195, 0.24901, 0.30455, 0.3694, 0.42813,
    0.48363, 0.53671, 0.58803, 0.6381, 0.68734, 0.73611, 0.78469, 0.83335, 0.88232, 0.93183, 0.98208, 1.0333,
    1.0856, 1.1393, 1.1946, 1.2518, 1.311, 1.3725, 1.4367, 1.504, 1.5746, 1.6491, 1.728, 1.8118,
    1.9014, 1.9975, 2.1013, 2.2139, 2.3368, 2.4721, 2.6221, 2.7901, 2.9802, 3.198, 3.4514, 3.7517,
    4.1159, 4.5711, 5.1636, 5.8956, 6.7235, 7.6648, 8.7414, 9.9796, 11.412, 13.077, 15.021,
)  # fmt: skip
"""Mean ratio psi at each of `SHARES`: `mean_ratios(SHARES, 400)`."""


def solve(source: np.ndarray, diffusion: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """The solution without mean of `-div(K grad u) + v . grad u = f` on the periodic unit square, exact for the grid's Fourier modes.

    Args:
        source: float64 `(..., n, n)`, y first; a mean is removed.
        diffusion: `(..., 3)`, `K_xx, K_yy, K_xy`; positive definite.
        velocity: `(..., 2)`, `v_x, v_y`.
    """
    n = source.shape[-1]
    symbol = diffusion_symbol(n, diffusion) + 1j * advection_symbol(n, velocity)
    symbol[..., 0, 0] = 1
    modes = fft.rfft2(source)
    modes[..., 0, 0] = 0
    return fft.irfft2(modes / symbol, s=(n, n))


def advection_symbol(n: int, velocity: np.ndarray) -> np.ndarray:
    """`2 pi (v_x kx + v_y ky)`: `v . grad` multiplies each mode by i times this, `(..., n, n // 2 + 1)`. Nyquist modes have no slope."""
    kx, ky = wavenumbers(n)
    vx, vy = np.moveaxis(np.asarray(velocity, np.float64)[..., None, None], -3, 0)
    return 2 * np.pi * (vx * kx * (np.abs(kx) < n / 2) + vy * ky * (np.abs(ky) < n / 2))


def ratio(solution: np.ndarray, diffusion: np.ndarray, velocity: np.ndarray) -> float:
    """psi, the 2-norm of `v . grad u` over that of `div(K grad u)`, for one solution `(n, n)`."""
    n = solution.shape[-1]
    power = _power(solution)
    return float(np.sqrt((power * advection_symbol(n, velocity) ** 2).sum() / (power * diffusion_symbol(n, diffusion) ** 2).sum()))


def mean_ratios(shares: tuple[float, ...], count: int, grid: int = 64) -> np.ndarray:
    """Mean of psi over `count` random problems at each share lambda of advection, `(len(shares),)`; always the same problems."""
    total = np.zeros(len(shares))
    for i in range(count):
        rng = np.random.default_rng([0, i])
        diffusion, velocity, source = random_problem(rng, grid)
        power, spread, drift = _power(source), diffusion_symbol(grid, diffusion) ** 2, advection_symbol(grid, velocity) ** 2
        spread[0, 0] = 1
        for j, share in enumerate(shares):
            weight = power / ((1 - share) ** 2 * spread + share**2 * drift)
            total[j] += share / (1 - share) * np.sqrt((weight * drift).sum() / (weight * spread).sum())
    return total / count


def random_problem(rng: np.random.Generator, grid: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A diffusion tensor, a unit velocity of uniform direction and a source, before lambda weighs them."""
    _, diffusion = random_diffusion(rng, *ANISOTROPY)
    angle = rng.uniform(0, 2 * np.pi)
    return diffusion, np.array([np.cos(angle), np.sin(angle)]), random_source(rng, grid)


def _power(field: np.ndarray) -> np.ndarray:
    """Squared modes of a real field without its mean, counted so that their sum is proportional to its sum of squares (Parseval)."""
    n = field.shape[-1]
    power = np.abs(fft.rfft2(field)) ** 2
    power[:, 1 : n // 2] *= 2
    power[0, 0] = 0
    return power


@dataclass(frozen=True)
class AdvectionDiffusionOptions(SteadyOptions):
    """Options of the advection-diffusion corpus.

    Args:
        psi_low, psi_high: range of the ratio psi of advection to diffusion aimed at in train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    psi_low: float = 0.2
    psi_high: float = 1.0
    ood_low: float = 2.0
    ood_high: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "psi")
        for name in ("psi_low", "psi_high", "ood_low", "ood_high"):
            require(
                MEAN_RATIOS[0] <= getattr(self, name) <= MEAN_RATIOS[-1],
                f"option {name}={getattr(self, name)}: expected {MEAN_RATIOS[0]:.3g} to {MEAN_RATIOS[-1]:.3g}",
            )


class AdvectionDiffusion(Simulator):
    """Pairs of a source and its solution under random diffusion and uniform flow, `-(1 - lambda) div(K grad u) + lambda v . grad u = f`.

    psi is drawn uniformly and the lambda whose mean psi is nearest is taken; the psi of the sample itself, which scatters about it by a
    fifth to a third, is told in its origin.
    """

    name = "advection-diffusion"
    Options = AdvectionDiffusionOptions
    options: AdvectionDiffusionOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D steady advection and diffusion, periodic (arXiv:2306.00258 SYS-2)", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"psi {o.psi_low:g} to {o.psi_high:g}", f"psi {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return self.options.bytes_per_sample

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        aim = rng.uniform(*((o.ood_low, o.ood_high) if outside else (o.psi_low, o.psi_high)))
        share = SHARES[int(np.abs(np.array(MEAN_RATIOS) - aim).argmin())]
        diffusion, velocity, source = random_problem(rng, o.grid)
        diffusion, velocity = (1 - share) * diffusion, share * velocity
        solution = solve(source, diffusion, velocity)
        names = ("diffusion_xx", "diffusion_yy", "diffusion_xy", "advection_x", "advection_y")
        return steady_pair(
            self.name,
            f"{place}, lambda={share:.4g}, psi={ratio(solution, diffusion, velocity):.4g}",
            source,
            solution,
            dict(zip(names, map(float, (*diffusion, *velocity)), strict=True)),
        )
