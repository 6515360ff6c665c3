"""Small samples and a small source, for tests that need data but not physics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split

ORIGIN = Origin("toy", "CC0-1.0", (SourceFile("toy.bin", "0" * 64),), "nobody")


def smooth_sample(
    seed: int = 0,
    frames: int = 6,
    grid: tuple[int, int, int] = (1, 8, 8),
    names: Sequence[str] = ("concentration",),
    gaps: float = 0.0,
    drift: float = 1.0,
) -> Sample:
    """Random fields that drift from frame to frame; a share `gaps` of the values is invalid (and NaN, to be caught if used)."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(size=(frames, len(names), *grid))
    steps[1:] *= drift
    values = steps.cumsum(0).astype(np.float32)
    valid = generator.random(values.shape) >= gaps
    values[~valid] = np.nan
    variables = tuple(Variable(n, "1") for n in names)
    time = Time.regular(0.0, 0.1, frames)
    coefficients = {"viscosity": 0.1 * (seed + 1)}
    return Sample(values, valid, variables, time, ORIGIN, boundary=Boundary.all("periodic"), coefficients=coefficients)


class ToySource(Source):
    """`samples` random trajectories, a tenth of them for validation."""

    name = "toy"

    @dataclass(frozen=True)
    class Options:
        samples: int = 12
        size: int = 8
        frames: int = 6
        seed: int = 0
        seconds: float = 0.0
        """How long a sample takes."""
        flaw: str = ""
        """What is odd about sample 3: nan, layout, place, bounds, long."""

    @classmethod
    def describe(cls) -> Description:
        return Description("toy", "tests", "none", "CC0-1.0", "nobody")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix == ".toy"

    def plan(self) -> Plan:
        o = self.options
        refs = [SampleRef(f"{i:06d}", "valid" if i % 10 == 9 else "train", {"seed": o.seed + i}) for i in range(o.samples)]
        return Plan(tuple(refs), (Split("train", description="toys"), Split("valid")), bytes_per_sample=o.frames * o.size**2 * 4)

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        o = self.options
        for ref in refs:
            sleep(o.seconds)
            seed = ref.spec["seed"]
            flawed = o.flaw if seed == o.seed + 3 else ""
            size = o.size + 1 if flawed == "layout" else o.size
            names = ("air_temperature",) if o.flaw == "bounds" else ("concentration",)
            sample = smooth_sample(seed, o.frames * 20 if flawed == "long" else o.frames, (1, size, size), names)
            if o.flaw == "bounds":
                sample = replace(sample, values=sample.values + np.float32(280), variables=(Variable("air_temperature", "K"),))
            if flawed == "nan":
                sample.values[2, 0, 0, 1, 1] = np.nan
            if flawed == "place":
                sample = replace(sample, coordinates={"x": Coordinate(("x",), np.arange(size), "m")})
            if flawed == "bounds":
                sample.values[0, 0, 0, :3] = 9999
            yield sample
