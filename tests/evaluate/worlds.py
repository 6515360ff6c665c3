"""Small worlds that obey one rule, as corpora, and a model that knows the rule: every field moves one cell along X per frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split
from scigpt.evaluate.study import Subject

KINDS = {"line": (1, 1, 32), "map": (1, 16, 24), "volume": (6, 8, 10), "points": (1, 1, 12), "series": (1, 1, 1), "steady": (1, 12, 12)}
ORIGIN = Origin("worlds", "CC0-1.0", (), "nobody")


def world(kind: str, seed: int, frames: int = 12) -> Sample:
    """One record of a world; the map lies on the sphere and has land, points and series have gaps and dates."""
    generator = np.random.default_rng(seed)
    grid = KINDS[kind]
    z, y, x = (np.arange(n) / n * 2 * np.pi for n in grid)
    phase = generator.uniform(0, 2 * np.pi, 4)
    field = (
        np.sin(x + phase[0]) * (1 + 0.5 * np.cos(y[:, None] + phase[1]))
        + 0.4 * np.sin(3 * x + 2 * y[:, None] + phase[2])
        + 0.5 * np.cos(z[:, None, None] + phase[3])
    )
    time = Time.regular(0.0, 0.5, frames)
    if kind == "steady":
        source, solution = field[None], field[None] * 0.25
        values = np.stack([np.concatenate([source, source]), np.concatenate([np.zeros_like(solution), solution])], 1).astype(np.float32)
        valid = np.ones(values.shape, bool)
        valid[0, 1] = False
        variables = (Variable("source", "1", "static"), Variable("solution", "1"))
        return Sample(values, valid, variables, Time.regular(0.0, 1.0, 2), ORIGIN, boundary=Boundary.all("periodic"), steady=True)
    if kind in ("points", "series"):
        hours = np.arange(frames)[:, None] + 3 * np.arange(grid[2])
        values = (285 + 8 * np.sin(hours / 24 * 2 * np.pi + phase[0]) + generator.normal(0, 0.3, hours.shape)).astype(np.float32)
        valid = generator.random(values.shape) > 0.05
        values[~valid] = np.nan
        places = np.random.default_rng(0).uniform((-40, -20), (60, 50), (grid[2], 2))
        return Sample(
            values[:, None, None, None],
            valid[:, None, None, None],
            (Variable("air_temperature", "K"),),
            Time.regular(0.0, 3600.0, frames, "noleap"),
            ORIGIN,
            geometry="points",
            coordinates={
                "latitude": Coordinate(("x",), places[:, 1], "degrees_north"),
                "longitude": Coordinate(("x",), places[:, 0], "degrees_east"),
            },
        )
    values = np.stack([np.roll(field, t, axis=-1) for t in range(frames)])[:, None].astype(np.float32)
    valid = np.ones(values.shape, bool)
    if kind != "map":
        return Sample(values, valid, (Variable("concentration", "1"),), time, ORIGIN, boundary=Boundary.all("periodic"))
    valid[:, :, :, 3:6, 4:9] = False
    values = 290 + 10 * values
    values[~valid] = np.nan
    return Sample(
        values,
        valid,
        (Variable("sea_surface_temperature", "K"),),
        Time.regular(0.0, 86400.0, frames, "360_day"),
        ORIGIN,
        geometry="sphere",
        boundary=Boundary(("open", "open"), ("pole", "pole"), ("periodic", "periodic")),
        coordinates={
            "latitude": Coordinate(("y",), np.linspace(75, -75, 16), "degrees_north"),
            "longitude": Coordinate(("x",), np.arange(24) * 15.0, "degrees_east"),
        },
    )


class WorldSource(Source):
    """Records of one kind: three to train on, two for validation and two out of distribution."""

    name = "worlds"

    @dataclass(frozen=True)
    class Options:
        kind: str = "map"
        frames: int = 12

    @classmethod
    def describe(cls) -> Description:
        return Description("worlds", "tests", "none", "CC0-1.0", "nobody & <sons>")

    def plan(self) -> Plan:
        splits = ("train", "train", "train", "valid", "valid", "ood", "ood")
        refs = tuple(SampleRef(f"{i:06d}", split, {"seed": i}) for i, split in enumerate(splits))
        return Plan(refs, (Split("train"), Split("valid", "in", "like the rest"), Split("ood", "out", "later <years>")))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield world(self.options.kind, ref.spec["seed"], self.options.frames)


def make(folder: Path, kind: str, frames: int = 12, name: str | None = None) -> Path:
    path = folder / (name or kind)
    convert(WorldSource((), WorldSource.Options(kind, frames)), path, name or kind, 1)
    return path


def subject(path: Path, frames: int = 5) -> Subject:
    return Subject.of(Corpus.open(path), CorpusConfig(str(path)), DataConfig(frames=frames))


@dataclass
class Answer:
    values: Tensor

    def physical(self) -> Tensor:
        return self.values


class Mover:
    """Moves each frame by one cell and divides a source by four: exact but for what land hides; what it sees is checked to be finite."""

    def __call__(self, batch: Batch) -> Answer:
        assert torch.isfinite(batch.values).all()
        if batch.layout.steady:
            return Answer(batch.values[:, 1:, :1].expand(-1, -1, 2, -1, -1, -1) * 0.25)
        return Answer(batch.values[:, :-1].roll(1, dims=-1))
