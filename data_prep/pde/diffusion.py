"""Diffusion of a sine: `u_t = k u_xx` on the periodic interval [0, 2 pi), `u(0, x) = sin x`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.pde.line import Line, LineOptions
from scigpt.data_prep.pde.simulator import require_ranges


def solution(x: np.ndarray, t: np.ndarray, k: float) -> np.ndarray:
    return np.exp(-k * t) * np.sin(x)


def mass(t: np.ndarray, k: float) -> np.ndarray:
    """The integral of the solution over the interval: none."""
    return np.zeros_like(t)


@dataclass(frozen=True)
class DiffusionOptions(LineOptions):
    """Options of the diffusion corpus.

    Args:
        k_low, k_high: range of the diffusivity of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    k_low: float = 1.0
    k_high: float = 5.0
    ood_low: float = 5.0
    ood_high: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, "k")


class Diffusion(Line):
    """A sine that decays, at a random diffusivity."""

    name = "diffusion"
    Options = DiffusionOptions
    about = "diffusion of a sine, periodic"
    domain = (0.0, 2 * np.pi)
    knob = "k"
    coefficient = "diffusivity"

    @staticmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        return np.exp(-knob * t) * (1 - np.cos(x))
