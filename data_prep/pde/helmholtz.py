"""The Helmholtz family of Subramanian et al. (arXiv:2306.00258, SYS-3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Sample
from scigpt.data_prep.pde.poisson import DIFFUSION_SCALE, diffusion_symbol, random_bumps
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, require, require_ranges
from scigpt.data_prep.pde.steady import SteadyOptions, steady_pair
from scigpt.data_prep.source import Description
from scigpt.errors import UserError

DIFFUSION = np.array([DIFFUSION_SCALE, DIFFUSION_SCALE, 0.0])
LARGEST = 2.0
"""A sample is accepted where the solution is nowhere larger."""
ATTEMPTS = 10_000
"""Enough for the rarest solutions of the family (omega 2, one in 240); beyond, the search is given up."""


def solve(source: np.ndarray, omega: float) -> np.ndarray:
    """The solution of `-(0.01 (u_xx + u_yy) + omega u) = f` on the periodic unit square, exact for the grid's Fourier modes.

    The operator is indefinite. It is singular for no integer omega but 0, and nearly so where omega is close to `0.04 pi^2 (i^2 + j^2)`:
    2 lies 1.3 % above the value for `i^2 + j^2 = 5`, 4 lies 1.3 % above that for 10.

    Args:
        source: float64 `(..., n, n)`, y first.
    """
    n = source.shape[-1]
    return fft.irfft2(fft.rfft2(source) / (diffusion_symbol(n, DIFFUSION) - omega), s=(n, n))


def acceptance(omegas: Sequence[int], grid: int = 64, count: int = 1000) -> dict[int, float]:
    """Share of `count` random sources (always the same) whose solution is accepted, for each omega."""
    sources = np.stack([random_bumps(np.random.default_rng([0, i]), grid) for i in range(count)])
    modes, symbol = fft.rfft2(sources), diffusion_symbol(grid, DIFFUSION)
    sizes = ((omega, np.abs(fft.irfft2(modes / (symbol - omega), s=(grid, grid))).max(axis=(1, 2))) for omega in omegas)
    return {omega: float(np.mean(size <= LARGEST)) for omega, size in sizes}


@dataclass(frozen=True)
class HelmholtzOptions(SteadyOptions):
    """Options of the Helmholtz corpus.

    Args:
        omega_low, omega_high: range, both included, of the integer omega of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    omega_low: int = 1
    omega_high: int = 10
    ood_low: int = 15
    ood_high: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "omega")
        require(
            not self.ood or (self.ood_low != self.omega_high and self.ood_high != self.omega_low),
            f"options ood_low={self.ood_low} and ood_high={self.ood_high} share an omega with the training range; omega is an integer",
        )


class Helmholtz(Simulator):
    """Pairs of a source and its solution at a random integer wavenumber.

    Source and omega are drawn together, again and again until the solution is accepted: an omega near a resonance is rare in
    the corpus. Of omega 1 to 10, 2 is a tenth of the draws and one in 2000 of the samples, so that most corpora hold none. The
    descriptions of the splits say how often each omega is accepted.
    """

    name = "helmholtz"
    Options = HelmholtzOptions
    options: HelmholtzOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D steady oscillations, periodic (arXiv:2306.00258 SYS-3)", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        inside = self._range(o.omega_low, o.omega_high) if o.train or o.valid or o.test else ""
        return inside, self._range(o.ood_low, o.ood_high) if o.ood else ""

    def _range(self, low: int, high: int) -> str:
        shares = acceptance(range(low, high + 1))
        told = ", ".join(f"{omega}: {share:.1%}" for omega, share in shares.items() if share < 1)
        return f"omega {low} to {high}, accepted draws " + (f"{told}, others 100%" if told else "100% of every omega")

    def bytes_per_sample(self) -> int:
        return self.options.bytes_per_sample

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.omega_low, o.omega_high)
        for _ in range(ATTEMPTS):
            omega = int(rng.integers(low, high, endpoint=True))
            source = random_bumps(rng, o.grid)
            solution = solve(source, omega)
            if np.abs(solution).max() <= LARGEST:
                diffusion = dict(zip(("diffusion_xx", "diffusion_yy", "diffusion_xy"), map(float, DIFFUSION), strict=True))
                return steady_pair(self.name, place, source, solution, {**diffusion, "omega": float(omega)})
        raise UserError(f"{place}: none of {ATTEMPTS} solutions with omega {low} to {high} stays below {LARGEST:g}; choose a wider range")
