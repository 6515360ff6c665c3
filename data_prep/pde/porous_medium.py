"""The porous-medium equation: `u_t = (u^m u_x)_x` on [0, 1], `u(0, x) = 0`, with the growing inflow `u(t, 0) = (m t)^(1 / m)`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.pde.line import Line, LineOptions
from scigpt.data_prep.pde.simulator import require_ranges


def solution(x: np.ndarray, t: np.ndarray, m: float) -> np.ndarray:
    """A front that moves at speed 1, for t up to 1."""
    return (m * np.maximum(t - x, 0)) ** (1 / m)


def mass(t: np.ndarray, m: float) -> np.ndarray:
    """The integral of the solution over [0, 1], t up to 1."""
    return m ** (1 + 1 / m) / (m + 1) * t ** (1 + 1 / m)


@dataclass(frozen=True)
class PorousMediumOptions(LineOptions):
    """Options of the porous-medium corpus.

    Args:
        m_low, m_high: range of the exponent m of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    m_low: float = 1.0
    m_high: float = 6.0
    ood_low: float = 6.0
    ood_high: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "m")


class PorousMedium(Line):
    """A front that fills an empty medium, at a random exponent; the steeper, the larger m."""

    name = "porous-medium"
    Options = PorousMediumOptions
    about = "porous medium with a prescribed inflow"
    knob = "m"
    coefficient = "exponent"

    @staticmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        return knob ** (1 / knob) / (1 + 1 / knob) * (t ** (1 + 1 / knob) - np.maximum(t - x, 0) ** (1 + 1 / knob))

    @staticmethod
    def inflow(t: np.ndarray, knob: float) -> np.ndarray:
        return solution(np.zeros(()), t, knob)
