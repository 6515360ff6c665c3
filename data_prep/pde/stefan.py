"""The Stefan problem (a melting front): `u_t = (k(u) u_x)_x` on [0, 1], `k = 1` where `u > u*`, else 0; `u(t, 0) = 1`, `u(0, x) = 0`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import erf

from scigpt.data_prep.pde.line import Line, LineOptions
from scigpt.data_prep.pde.simulator import require, require_ranges


def constants(threshold: float) -> tuple[float, float]:
    """`alpha` and `c_1`: the front is at `alpha sqrt(t)`, behind it `u = 1 - c_1 erf(x / (2 sqrt(t)))`.

    With `alpha = 2 z`: `u* erf(z) z exp(z^2) = (1 - u*) / sqrt(pi)` (what the front takes up is the flux that arrives there) and
    `c_1 = (1 - u*) / erf(z)`.
    """
    z = brentq(lambda z: threshold * erf(z) * z * np.exp(z * z) - (1 - threshold) / np.sqrt(np.pi), 0.0, 5.0, xtol=1e-15, rtol=1e-15)
    return 2 * float(z), (1 - threshold) / float(erf(z))


def solution(x: np.ndarray, t: np.ndarray, threshold: float) -> np.ndarray:
    """Behind the front, and 0 ahead of it; t above 0."""
    alpha, c1 = constants(threshold)
    return np.where(x <= alpha * np.sqrt(t), 1 - c1 * erf(x / (2 * np.sqrt(t))), 0.0)


def mass(t: np.ndarray, threshold: float) -> np.ndarray:
    """The integral of the solution over [0, 1], while the front is inside."""
    return 2 * constants(threshold)[1] * np.sqrt(t / np.pi)


@dataclass(frozen=True)
class StefanOptions(LineOptions):
    """Options of the Stefan corpus.

    Args:
        threshold_low, threshold_high: range of u* of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    threshold_low: float = 0.55
    threshold_high: float = 0.7
    ood_low: float = 0.45
    ood_high: float = 0.55

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "threshold")
        for name in ("threshold_low", "threshold_high", "ood_low", "ood_high"):
            value = getattr(self, name)
            require(0.05 <= value <= 0.95, f"option {name}={value}: expected 0.05 to 0.95, so that the front stays inside the domain")


class Stefan(Line):
    """A front with a jump of height u*, at a random u*."""

    name = "stefan"
    Options = StefanOptions
    about = "Stefan problem (melting front)"
    end = 0.1
    knob = "threshold"
    coefficient = "threshold"

    @staticmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        alpha, c1 = constants(knob)
        width = 2 * np.sqrt(t)
        x = np.minimum(x, alpha * width / 2)
        z = np.minimum(x / np.where(width > 0, width, 1), alpha / 2)
        return x - c1 * (x * erf(z) + width / np.sqrt(np.pi) * np.expm1(-z * z))

    @staticmethod
    def inflow(t: np.ndarray, knob: float) -> np.ndarray:
        return np.ones_like(t)
