"""What the one-dimensional equations with an exact solution share: cell averages in space and time (Hansen et al., arXiv:2302.11002)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require
from scigpt.data_prep.source import Description


@dataclass(frozen=True)
class LineOptions(SimulatorOptions):
    """Sizes of the splits, and the resolution.

    Args:
        grid: cells along x.
        frames: from the start to the end of the equation's interval of time, both included.
    """

    grid: int = 128
    frames: int = 33

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 8, f"option grid={self.grid}: expected 8 or more")
        require(self.frames >= 2, f"option frames={self.frames}: expected 2 or more")


class Line(Simulator):
    """An equation with one random number, its knob.

    The values are averages over cells, exact to rounding because they are differences of the primitive in x: their sum times the
    width of a cell is the conserved mass, also with a front inside a cell. Where the low side is `given`, the forcing `inflow` holds
    the value prescribed there at the instant of each frame, in the first cell alone.
    """

    about: ClassVar[str]
    domain: ClassVar[tuple[float, float]] = (0.0, 1.0)
    end: ClassVar[float] = 1.0
    knob: ClassVar[str]
    """Prefix of the two options that hold its range."""
    coefficient: ClassVar[str]
    """Its name among the coefficients of a sample."""
    state: ClassVar[str] = "concentration"
    options: LineOptions

    @staticmethod
    @abstractmethod
    def primitive(x: np.ndarray, t: np.ndarray, knob: float) -> np.ndarray:
        """The integral of the solution from the low side of the domain to x, at time t; arguments are broadcast."""

    @staticmethod
    def inflow(t: np.ndarray, knob: float) -> np.ndarray | None:
        """The value prescribed at the low side; None where the domain is periodic."""
        return None

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, f"1-D {cls.about}, exact solution (arXiv:2302.11002)", "simulated", LICENCE)

    def _range(self, prefix: str) -> tuple[float, float]:
        return getattr(self.options, f"{prefix}_low"), getattr(self.options, f"{prefix}_high")

    def ranges(self) -> tuple[str, str]:
        inside, outside = ("{} {:g} to {:g}".format(self.coefficient, *self._range(prefix)) for prefix in (self.knob, "ood"))
        return inside, outside

    def bytes_per_sample(self) -> int:
        return 10 * self.options.frames * self.options.grid + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        knob = float(rng.uniform(*self._range("ood" if outside else self.knob)))
        time = Time.regular(0.0, self.end / (o.frames - 1), o.frames)
        edges = np.linspace(*self.domain, o.grid + 1)
        fields = [np.diff(self.primitive(edges, time.seconds[:, None], knob)) * o.grid / (self.domain[1] - self.domain[0])]
        variables = [Variable(self.state, "1")]
        inflow = self.inflow(time.seconds, knob)
        if inflow is not None:
            fields.append(np.repeat(inflow[:, None], o.grid, axis=1))
            variables.append(Variable("inflow", "1", "forcing"))

        values = np.stack(fields, axis=1)[:, :, None, None].astype(np.float32)
        valid = np.ones(values.shape, bool)
        valid[:, 1:, ..., 1:] = False
        return Sample(
            values=values,
            valid=valid,
            variables=tuple(variables),
            time=time,
            origin=Origin(self.name, LICENCE, place=place),
            boundary=Boundary(x=("periodic", "periodic") if inflow is None else ("given", "open")),
            coordinates={"x": Coordinate(("x",), (edges[1:] + edges[:-1]) / 2, "1")},
            coefficients={self.coefficient: knob},
        )
