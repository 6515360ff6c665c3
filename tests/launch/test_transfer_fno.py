"""The FNO of a transfer study: its size, what it learns from, and the score that it shares with the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transfers import make_poisson

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.loader import evaluation_batches
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.normalize import Scales
from scigpt.errors import UserError
from scigpt.evaluate.fno import Fno, FnoConfig, Shape, parameters, train_few
from scigpt.launch.transfer.score import score_model

DATA = DataConfig(frames=2, tokens=64, patch=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(make_poisson(tmp_path_factory.mktemp("poisson"), "far", train=6, low=5, high=10))


def loss(net: Fno, corpus: Corpus, split: str, count: int) -> float:
    """Of the first records."""
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json(), 1)
    with torch.no_grad():
        return float(net.loss(next(evaluation_batches(corpus, scales, CorpusConfig(str(corpus.path)), 2, split, count))))


def test_it_is_the_widest_of_a_million_parameters(corpus: Corpus) -> None:
    shape = FnoConfig().shape(corpus.layout, 3)
    assert shape.modes == (16, 16)
    assert parameters(shape) <= 1_000_000 < parameters(Shape.of(corpus.layout, 3, shape.width + 4, 8))
    assert FnoConfig(width=8, modes=99).shape(corpus.layout, 3).modes == (32, 32)  # no more than there are
    with pytest.raises(UserError, match="rate is -1"):
        FnoConfig(rate=-1)


def test_it_learns_its_few_examples_and_no_others(corpus: Corpus, tmp_path: Path) -> None:
    settings, config = CorpusConfig(str(corpus.path), limit=1), FnoConfig(width=8, modes=4, rate=1e-2)
    net, about = train_few(tmp_path, corpus, settings, DATA, 0, config, 60, 2, progress=False)
    assert (about["width"], about["steps"], about["windows"]) == (8, 60, 60 * 2 * 4)
    assert about["parameters"] == parameters(config.shape(corpus.layout, 3))
    known, other = loss(net, corpus, "train", 1), loss(net, corpus, "test", 2)
    assert known < 0.02
    assert other > 5 * known

    saved = (tmp_path / "fno-far.safetensors").read_bytes()
    again, _ = train_few(tmp_path, corpus, settings, DATA, 0, config, 60, 2, progress=False)
    assert loss(again, corpus, "test", 2) == other
    assert (tmp_path / "fno-far.safetensors").read_bytes() == saved
    _, more = train_few(tmp_path, corpus, CorpusConfig(str(corpus.path), limit=2), DATA, 0, config, 1, 2, progress=False)
    assert more["key"] != about["key"]


@dataclass
class Answer:
    values: Tensor

    def physical(self) -> Tensor:
        return self.values


def test_the_score_is_over_every_record_and_known_in_closed_form(corpus: Corpus) -> None:
    """A solution of Poisson's equation has no mean: 10 % too much is a VRMSE and a relative error of 0.1."""
    seen: list[int] = []

    def model(batch: Batch) -> Answer:
        seen.append(len(batch))
        return Answer(batch.values[:, 1:] * 1.1)

    found = score_model(model, corpus, CorpusConfig(str(corpus.path)), DATA, "test")
    assert sum(seen) == found["windows"] == len(corpus.entries("test"))
    assert found["vrmse"] == pytest.approx(0.1, rel=1e-4)
    assert found["vrmse_median"] == pytest.approx(0.1, rel=1e-4)
    assert found["relative_l2"] == pytest.approx(0.1, rel=1e-4)
    assert found["diverged"] == 0
    assert list(found["variables"]) == ["solution"]

    lost = score_model(lambda batch: Answer(batch.values[:, 1:] * torch.nan), corpus, CorpusConfig(str(corpus.path)), DATA, "test")
    assert (lost["vrmse"], lost["diverged"]) == (None, 3)
