"""What the three steady families of Subramanian et al. (arXiv:2306.00258) share: sizes, options and the form of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, SimulatorOptions, require


@dataclass(frozen=True)
class SteadyOptions(SimulatorOptions):
    """Sizes of the splits and of the grid.

    Args:
        grid: points along x and y, even; 32 at least, so that the bumps of the source are resolved.
    """

    train: int = 1024
    valid: int = 64
    test: int = 64
    ood: int = 64
    grid: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 32 and self.grid % 2 == 0, f"option grid={self.grid}: expected an even number of at least 32")

    @property
    def bytes_per_sample(self) -> int:
        return 16 * self.grid**2 + (1 << 14)


def steady_pair(name: str, place: str, source: np.ndarray, solution: np.ndarray, coefficients: Mapping[str, float]) -> Sample:
    """Source and solution `(n, n)` on the periodic unit square, as the two frames of a steady problem."""
    n = source.shape[-1]
    values = np.zeros((2, 2, 1, n, n), np.float32)
    values[:, 0, 0], values[1, 1, 0] = source, solution
    valid = np.ones(values.shape, bool)
    valid[0, 1] = False
    axis = np.arange(n) / n
    return Sample(
        values=values,
        valid=valid,
        variables=(Variable("source", "1", "forcing"), Variable("solution", "1", "state")),
        time=Time.regular(0.0, 1.0, 2),
        origin=Origin(name, LICENCE, place=place),
        boundary=Boundary(y=("periodic", "periodic"), x=("periodic", "periodic")),
        coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
        coefficients=coefficients,
        steady=True,
    )
