"""The mesh: every process has its place, and processes that share samples read the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture
from scigpt.data.normalize import Scales
from scigpt.errors import UserError
from scigpt.train.mesh import Mesh
from scigpt.train.processes import Place
from scigpt.train.strategies import StrategyConfig


@given(st.dictionaries(st.sampled_from(["replicate", "shard", "tensor", "context"]), st.integers(1, 4), min_size=1))
def test_places_are_a_bijection(sizes: dict[str, int]) -> None:
    world = Mesh(sizes, 0).world
    places = [tuple(Mesh(sizes, rank).coordinates.values()) for rank in range(world)]
    assert places == sorted(set(places))
    parts = [Mesh(sizes, rank).data_rank for rank in range(world)]
    width = Mesh(sizes, 0).data_world
    assert {part: parts.count(part) for part in parts} == dict.fromkeys(range(width), world // width)


def test_ranks_of_a_tensor_dimension_read_identical_batches(corpora: list[Path]) -> None:
    opened = [Corpus.open(path) for path in corpora]
    scales = [Scales.from_stats(c.layout, c.stats.to_json()) for c in opened]
    mixture = Mixture(opened, DataConfig([CorpusConfig(str(c)) for c in corpora], frames=4, tokens=48, patch=4, data_width=4), 0)
    seen = []
    for rank in range(4):
        mesh = Mesh({"replicate": 1, "shard": 2, "tensor": 2}, rank)
        with BatchLoader(mixture, scales, 0, None, mesh.data_rank, mesh.data_world, hide_coefficients=0.5) as loader:
            batches = [b for _ in range(6) for b in next(loader)[1]]
        seen.append([hashlib.sha256(b.values.numpy().tobytes() + b.known.numpy().tobytes()).hexdigest() for b in batches])
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert not set(seen[0]) & set(seen[2])


@pytest.mark.parametrize(
    ("config", "world", "sizes"),
    [
        (StrategyConfig(), 1, (1, 1)),
        (StrategyConfig("ddp"), 4, (4, 1)),
        (StrategyConfig("fsdp2"), 4, (1, 4)),
        (StrategyConfig("hsdp"), 4, (2, 2)),
        (StrategyConfig("hsdp", shard=4), 4, (1, 4)),
        (StrategyConfig("deepspeed"), 4, (1, 4)),
    ],
)
def test_strategies_lay_out_their_processes(config: StrategyConfig, world: int, sizes: tuple[int, int]) -> None:
    mesh = config.mesh(Place(0, world, 0, 2))
    assert (mesh.sizes["replicate"], mesh.sizes["shard"]) == sizes


def test_layouts_that_do_not_work_out_are_refused() -> None:
    with pytest.raises(UserError, match=r"shard=3 does not divide the 4 processes"):
        StrategyConfig("hsdp", shard=3).mesh(Place(0, 4))
    with pytest.raises(UserError, match="single trains in one process and this job has 2"):
        StrategyConfig().mesh(Place(0, 2))
    with pytest.raises(UserError, match="name is single and processes is 2"):
        StrategyConfig(processes=2)
    with pytest.raises(UserError, match="stage is 4; expected ZeRO stage 1, 2 or 3"):
        StrategyConfig("deepspeed", stage=4)
