"""Corpora for benchmarks, made in seconds: what is read and computed is real, what it shows is noise that drifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions
from scigpt.data_prep.source import Description


class Noise(Simulator):
    """What the made-up sources share."""

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "noise that drifts", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        return "noise", "noise"


def drifting(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A random walk along the first axis, float32."""
    steps = rng.standard_normal(shape, dtype=np.float32)
    return np.cumsum(steps, 0, dtype=np.float32, out=steps)


@dataclass(frozen=True)
class MapsOptions(SimulatorOptions):
    """Options of the maps."""

    frames: int = 64
    grid: int = 64


class Maps(Noise):
    """Periodic maps of two variables that drift; a corpus to read, made in a second."""

    name = "bench"
    Options = MapsOptions
    options: MapsOptions

    def bytes_per_sample(self) -> int:
        return 5 * 2 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        frames, side = self.options.frames, self.options.grid
        values = drifting(rng, frames, 2, 1, side, side) * np.float32(0.1)
        variables = (Variable("velocity_x", "1"), Variable("velocity_y", "1"))
        time_axis = Time.regular(0.0, 1.0, frames)
        return Sample(values, np.ones(values.shape, bool), variables, time_axis, Origin(place, LICENCE), boundary=Boundary.all("periodic"))


@dataclass(frozen=True)
class WeatherOptions(SimulatorOptions):
    """Options of the weather."""

    train: int = 1
    valid: int = 0
    test: int = 0
    ood: int = 0
    frames: int = 12
    variables: int = 69
    rows: int = 128


class Weather(Noise):
    """Global maps of as many variables as a reanalysis gives to a model, every six hours; what they show is noise that drifts."""

    name = "weather"
    Options = WeatherOptions
    options: WeatherOptions

    def bytes_per_sample(self) -> int:
        return 2 * self.options.frames * self.options.variables * 2 * self.options.rows**2

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        values = drifting(rng, o.frames, o.variables, 1, o.rows, 2 * o.rows)
        half = 90 / o.rows
        coordinates = {
            "latitude": Coordinate(("y",), np.linspace(90 - half, half - 90, o.rows), "degrees_north"),
            "longitude": Coordinate(("x",), np.arange(2 * o.rows) * 2 * half, "degrees_east"),
        }
        variables = tuple(Variable(f"field_{c}", "1") for c in range(o.variables))
        time_axis, boundary = Time.regular(0.0, 21600.0, o.frames, "standard"), Boundary(y=("pole", "pole"), x=("periodic", "periodic"))
        return Sample(values, np.ones(values.shape, bool), variables, time_axis, Origin(place, LICENCE), "sphere", boundary, coordinates)
