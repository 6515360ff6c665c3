"""Inviscid Burgers: `u_t + (u^2 / 2)_x = 0` on [-1, 1]; `u(0, x)` is a up to -1, falls as `-a x` to 0 at 0, and is 0 beyond; inflow a."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.pde.line import Line, LineOptions
from scigpt.data_prep.pde.simulator import require_ranges


def solution(x: np.ndarray, t: np.ndarray, a: float) -> np.ndarray:
    """A ramp that steepens until it breaks at t = 1 / a, then a shock at `(a t - 1) / 2`."""
    ramp = np.clip(-a * x / np.where(a * t < 1, 1 - a * t, 1), 0, a)
    return np.where(a * t < 1, ramp, np.where(x <= (a * t - 1) / 2, a, 0.0))


def mass(t: np.ndarray, a: float) -> np.ndarray:
    """The integral of the solution over [-1, 1]; it is full when the shock has left, at t = 3 / a."""
    return np.minimum(a * (1 + a * t) / 2, 2 * a)


@dataclass(frozen=True)
class BurgersOptions(LineOptions):
    """Options of the Burgers corpus.

    Args:
        a_low, a_high: range of the height of the ramp of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    a_low: float = 1.0
    a_high: float = 5.0
    ood_low: float = 5.0
    ood_high: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "a")


class Burgers(Line):
    """A ramp of random height that breaks into a shock."""

    name = "burgers"
    Options = BurgersOptions
    about = "inviscid Burgers, a ramp that becomes a shock"
    domain = (-1.0, 1.0)
    knob = "a"
    coefficient = "amplitude"
    state = "velocity_x"

    @staticmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        remaining = np.maximum(1 - knob * t, 0)  # width of the ramp, which ends at 0 until it breaks
        front = np.maximum(knob * t - 1, 0) / 2
        ramp = np.clip(x, -remaining, 0)
        within = knob * (remaining**2 - ramp**2) / (2 * np.where(remaining > 0, remaining, 1))
        return knob * (np.minimum(x, front - remaining) + 1) + within

    @staticmethod
    def inflow(t: np.ndarray, knob: float) -> np.ndarray:
        return np.full_like(t, knob)
