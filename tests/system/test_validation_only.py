"""A source for validation only: no model is trained on it, and what knows its variables is scored on it by the scales of its training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import make_corpus, settings, write
from toy import ToySource

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, Plan, SampleRef, Split
from scigpt.launch.cli import main


class Benchmark(ToySource):
    """Everything is in the split test, ten times as large as what the model is trained on."""

    name = "benchmark"

    @classmethod
    def describe(cls) -> Description:
        return replace(super().describe(), name="benchmark", use="validate")

    def plan(self) -> Plan:
        plan = super().plan()
        return replace(plan, refs=tuple(replace(r, split="test") for r in plan.refs), splits=(Split("test"),))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        for sample in super().samples(refs):
            assert sample is not None
            yield replace(sample, values=sample.values * np.float32(10))


def left(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(w) for w in words])
    return int(caught.value.code or 0)


def test_it_is_scored_and_never_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scigpt.evaluate.evaluate.draw", lambda *_: [])  # pictures take longer than all else; `test_study.py` draws them
    train = make_corpus(tmp_path)
    held = convert(Benchmark(options=Benchmark.Options(samples=4, frames=8)), tmp_path / "benchmark", progress=False)
    corpus = Corpus.open(held)
    assert (corpus.use, corpus.stats.samples, corpus.splits) == ("validate", 0, ("test",))

    both = write(settings([train, held], tmp_path / "both"), tmp_path / "both.yaml")
    for command in ("pretrain", "plan"):
        capsys.readouterr()
        assert left(command, both) == 2
        told = capsys.readouterr().err
        assert f"corpus benchmark ({held}) is for validation only" in told
        assert told.count("\n") == 1
    assert not (tmp_path / "both").exists()

    run = tmp_path / "run"
    assert left("pretrain", write(settings([train], run, steps=4, validate_every=4), tmp_path / "c.yaml"), "--json") == 0
    capsys.readouterr()
    assert left("evaluate", run, "--corpus", held, "--split", "test", "--json") == 0
    ((only,),) = [c["splits"] for c in json.loads(capsys.readouterr().out)["corpora"]]
    assert only["split"] == "test"
    scores = only["one_step"]["concentration"]["methods"]
    assert all(np.isfinite(scores[name]["vrmse"]) for name in ("model", "persistence"))
