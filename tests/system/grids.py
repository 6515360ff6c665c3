"""Toy worlds on every kind of grid, each with a rule that can be learned, and the source that makes corpora of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split

ORIGIN = Origin("grids", "CC0-1.0", (), "nobody")
KINDS = {"series": (1, 1, 1), "line": (1, 1, 48), "map": (1, 24, 24), "volume": (8, 10, 12), "stations": (1, 1, 20)}


def waves(generator: np.random.Generator, grid: Sequence[int], frames: int, speed: float, damping: float = 0.0) -> np.ndarray:
    """Periodic advection-diffusion of a few random Fourier modes, exact, `(T, Z, Y, X)`: mode k turns by k.v a frame and decays by k**2."""
    modes = 3
    velocity = speed * generator.normal(size=3)
    cells = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in grid), indexing="ij")
    time = np.arange(frames)[:, None, None, None]
    field = np.zeros((frames, *grid))
    for k in np.ndindex(*(modes + 1 if n > 1 else 1 for n in grid)):
        wave = np.array(k) * generator.choice([-1, 1], 3)
        square = float((wave**2).sum())
        if square:
            phase = sum(w * c for w, c in zip(wave, cells, strict=True)) - (wave @ velocity) * time + generator.uniform(0, 2 * np.pi)
            field += generator.normal() / square * np.exp(-damping * square * time) * np.cos(phase)
    return field / field[0].std()


def _gaps(generator: np.random.Generator, shape: Sequence[int], share: float) -> np.ndarray:
    """Valid points: runs of frames are missing, each point on its own."""
    valid = np.ones(shape, bool)
    for index in np.ndindex(*shape[1:]):
        for start in np.flatnonzero(generator.random(shape[0]) < share / 4):
            valid[(slice(start, start + 4), *index)] = False
    return valid


def sample(kind: str, seed: int, frames: int) -> Sample:
    """One record. A series rings and dies away again and again; stations share the course of the day, each at its own hour; the rest is
    carried by a velocity of its own and diffuses."""
    generator = np.random.default_rng(seed)
    grid = KINDS[kind]
    if kind == "series":
        time = np.arange(frames)
        field = np.zeros(frames)
        for onset in generator.integers(-32, frames, frames // 24):
            since = np.maximum(time - onset, 0)
            field += (time > onset) * generator.normal() * np.exp(-since / 24) * np.sin(2 * np.pi * since / generator.uniform(10, 14))
        values, variable, step, calendar = 1e-6 * field[:, None, None, None], Variable("ground_velocity_up", "m s**-1"), 1.0, "standard"
    elif kind == "stations":
        hours = np.arange(frames)[:, None] + np.linspace(0, 24, grid[2])  # the places are those of the longitudes below
        field = generator.normal(0, 2, grid[2]) + generator.uniform(4, 8) * np.sin(2 * np.pi * (hours - 8) / 24)
        values, variable, step, calendar = 285 + field[:, None, None, :], Variable("air_temperature", "K"), 3600.0, "noleap"
    else:
        values, variable, step, calendar = waves(generator, grid, frames, 0.15, 0.004), Variable("concentration", "1"), 0.1, "none"
    values = values[:, None].astype(np.float32)
    valid = _gaps(generator, values.shape, 0.1) if kind in ("series", "stations") else np.ones(values.shape, bool)
    values[~valid] = np.nan
    coordinates = {}
    if kind == "stations":
        latitude = np.random.default_rng(0).uniform(-50, 50, grid[2])
        coordinates = {
            "latitude": Coordinate(("x",), latitude, "degrees_north"),
            "longitude": Coordinate(("x",), np.linspace(0, 360, grid[2], endpoint=False), "degrees_east"),
        }
    return Sample(
        values, valid, (variable,), Time.regular(0.0, step, frames, calendar), ORIGIN, "points" if kind == "stations" else "plane",
        Boundary() if kind in ("series", "stations") else Boundary.all("periodic"), coordinates,
    )  # fmt: skip


class GridSource(Source):
    """Records of one kind; the last ones are for validation and for the test."""

    name = "grids"

    @dataclass(frozen=True)
    class Options:
        kind: str = "map"
        train: int = 24
        held_out: int = 4
        frames: int = 16

    @classmethod
    def describe(cls) -> Description:
        return Description("grids", "tests", "none", "CC0-1.0", "nobody")

    def plan(self) -> Plan:
        o = self.options
        splits = ["train"] * o.train + ["valid"] * o.held_out + ["test"] * o.held_out
        refs = tuple(SampleRef(f"{i:06d}", split, {"seed": i}) for i, split in enumerate(splits))
        return Plan(refs, (Split("train"), Split("valid"), Split("test")))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield sample(self.options.kind, ref.spec["seed"], self.options.frames)


def make(folder: Path, kind: str, **options: int) -> Path:
    return convert(GridSource((), GridSource.Options(kind, **options)), folder / kind, progress=False)
