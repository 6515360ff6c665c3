"""Linear advection of a step: `u_t + a u_x = 0` on [0, 1], `u(0, x) = 1` for x up to 0.5, else 0, with the inflow `u(t, 0) = 1`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.pde.line import Line, LineOptions
from scigpt.data_prep.pde.simulator import require_ranges

START = 0.5


def solution(x: np.ndarray, t: np.ndarray, a: float) -> np.ndarray:
    return np.where(x - a * t <= START, 1.0, 0.0)


def mass(t: np.ndarray, a: float) -> np.ndarray:
    """The integral of the solution over [0, 1]."""
    return START + np.minimum(a * t, 1 - START)


@dataclass(frozen=True)
class AdvectionOptions(LineOptions):
    """Options of the advection corpus.

    Args:
        a_low, a_high: range of the speed of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    a_low: float = 1.0
    a_high: float = 10.0
    ood_low: float = 10.0
    ood_high: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "a")


class Advection(Line):
    """A step that moves to the right at a random speed; at 5 it reaches the far side as the last frame is taken."""

    name = "advection"
    Options = AdvectionOptions
    about = "advection of a step with inflow"
    end = 0.1
    knob = "a"
    coefficient = "advection_x"

    @staticmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        return np.minimum(x, START + knob * t)

    @staticmethod
    def inflow(t: np.ndarray, knob: float) -> np.ndarray:
        return np.ones_like(t)
