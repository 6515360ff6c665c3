"""An export holds what a run has learned, says what it learned from, and is whole or not there."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import make_corpus, settings, write
from toy import ToySource

from scigpt.adapt import trainable
from scigpt.adapt.lightning import SciGPTModule
from scigpt.adapt.start import EXPORT, Start
from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.data.loader import evaluation_batches
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.normalize import Scales
from scigpt.data.sample import Sample, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, SampleRef
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.export import weights
from scigpt.export.folder import CARD, WEIGHTS, Exported, spelled
from scigpt.model.backbone import SciGPT
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train
from scigpt.train.run import checkpoint_of


class Survey(ToySource):
    """A variable of its own, and data that may not be passed on."""

    @classmethod
    def describe(cls) -> Description:
        return Description("survey", "tests", "none", "by-agreement", "the survey", redistributable=False)

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            origin = replace(sample.origin, licence="by-agreement", attribution="the survey")
            yield replace(sample, variables=(Variable("salinity_like", "1"),), origin=origin)


def adapted(folder: Path, name: str, init: Path, corpus: str = "survey") -> RunConfig:
    data = settings([folder / corpus], folder / name, steps=10)
    data |= {"init": str(init), "adapt": {"mode": "lora", "rank": 4, "alpha": 16.0}, "optim": {"lr": 0.1, "warmup": 2}}
    del data["model"]
    return load(write(data, folder / f"{name}.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toys`, of which `run` learned, and `survey`, of which `lora` learned on top."""
    path = tmp_path_factory.mktemp("weights")
    train(load(write(settings([make_corpus(path)], path / "run"), path / "run.yaml")))
    convert(Survey(options=Survey.Options(samples=20, frames=8)), path / "survey", progress=False)
    train(adapted(path, "lora", path / "run"))
    return path


def batch_of(corpus: Path) -> Batch:
    opened = Corpus.open(corpus)
    scales = Scales.from_stats(opened.layout, opened.stats.to_json())
    (batch,) = evaluation_batches(opened, scales, CorpusConfig(str(corpus)), 4, "valid", 8, 4, 4)
    return batch


@torch.no_grad()
def predicted(model: SciGPT, corpus: Path) -> torch.Tensor:
    return model.eval()(batch_of(corpus)).physical()


def exported_model(out: Path) -> SciGPT:
    return Start.open(str(out)).model()


def test_an_export_predicts_what_the_run_predicts(folder: Path, tmp_path: Path) -> None:
    out = weights.write(folder / "run", tmp_path / "deep" / "out")
    assert sorted(p.name for p in out.iterdir()) == sorted([WEIGHTS, EXPORT, CARD])
    assert torch.equal(predicted(exported_model(out), folder / "toys"), predicted(TrainedRun.open(folder / "run").model, folder / "toys"))
    exported, model = Exported.open(out), TrainedRun.open(folder / "run").model
    assert {n: exported.tensors.shape(n) for n in exported.tensors} == {n: tuple(p.shape) for n, p in model.named_parameters()}


def test_low_rank_and_new_rows_are_merged(folder: Path, tmp_path: Path) -> None:
    out = weights.write(folder / "lora", tmp_path / "out")
    found = checkpoint_of(folder / "lora")
    assert found is not None
    config, start = load(folder / "lora" / "config.yaml"), Start.of(found)
    trained = SciGPT(start.config, start.raw)
    trainable.prepare(trained, config.adapt)
    trained.load_state_dict(dict(found.model()))
    before, after = predicted(trained, folder / "survey"), predicted(exported_model(out), folder / "survey")
    assert float((before - after).abs().max()) < 1e-5 * float(before.abs().max())
    exported = Exported.open(out)
    assert not [n for n in exported.tensors if ".lora_" in n or n.endswith("_added")]
    assert (list(exported.vocabulary.units), exported.vocabulary.added) == (["concentration", "salinity_like"], 0)
    moved = [
        n for n in exported.tensors if n.endswith("qkv.weight") and not torch.equal(exported.tensors[n], Start.open(str(folder / "run"))[n])
    ]
    assert len(moved) == 2


def test_it_says_what_it_learned_from(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Exported.open(weights.write(folder / "run", tmp_path / "first")).facts
    toys = Corpus.open(folder / "toys")
    assert (first["run"], first["step"], first["redistributable"], first["unknown"]) == ("run", 20, True, [])
    assert [(c["name"], c["fingerprint"]) for c in first["learned_from"]] == [("toys", toys.fingerprint)]
    (domain,) = Exported.open(tmp_path / "first").domains
    assert domain == Domain.of(toys, CorpusConfig(str(folder / "toys")), DataConfig(frames=4, patch=4))
    assert (domain.layout, domain.calendar, domain.frames, domain.patch) == (toys.layout, "none", 4, 4)
    assert (domain.step, domain.varying) == (pytest.approx(0.1), False)
    assert domain.scales == Scales.from_stats(toys.layout, toys.stats.to_json())
    assert first["training"] | {"step": 20, "steps": 20, "adapted": False} == first["training"]
    assert first["training"]["data"]["tokens"] > 0
    assert caplog.messages == []
    second = Exported.open(weights.write(folder / "lora", tmp_path / "second")).facts
    assert [(c["run"], c["name"]) for c in second["learned_from"]] == [("lora", "survey"), ("run", "toys")]
    assert second["licences"] == ["CC0-1.0", "by-agreement"]
    assert second["attributions"] == ["nobody", "the survey"]
    assert second["redistributable"] is False
    (said,) = caplog.messages
    assert "the data of survey may not be redistributed" in said
    assert not [text for text in (str(folder), str(tmp_path)) if text in json.dumps(second)]


def test_what_an_export_learned_from_goes_on(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = weights.write(folder / "lora", tmp_path / "start")
    corpora = Exported.open(start).facts["learned_from"]
    run = adapted(folder, "again", start, "toys")
    train(run)
    found = Exported.open(weights.write(folder / "again", tmp_path / "out")).facts
    assert found["learned_from"][1:] == corpora
    assert found["licences"] == ["CC0-1.0", "by-agreement"]
    caplog.clear()
    shutil.rmtree(start)
    found = Exported.open(weights.write(folder / "again", tmp_path / "out")).facts
    assert ([c["name"] for c in found["learned_from"]], found["unknown"]) == (["toys"], ["start"])
    assert "began with start, which is not there any more" in caplog.text


def test_weights_without_a_run_ask_the_corpora(folder: Path, tmp_path: Path) -> None:
    config = load(write(settings([make_corpus(tmp_path)], tmp_path / "run"), tmp_path / "c.yaml"))
    module = SciGPTModule(config)
    module.save_weights(tmp_path / "saved")
    weights.write(tmp_path / "saved", tmp_path / "out")
    assert torch.equal(predicted(exported_model(tmp_path / "out"), folder / "toys"), predicted(module.model, folder / "toys"))
    facts = Exported.open(tmp_path / "out").facts
    assert (facts["run"], facts["licences"], [d["name"] for d in facts["domains"]]) == ("saved", ["CC0-1.0"], ["toys"])
    shutil.rmtree(tmp_path / "toys")
    with pytest.raises(UserError, match="toys: there is no such folder"):
        weights.write(tmp_path / "saved", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_whose_corpora_are_gone_is_exported(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    told = tmp_path / "run" / "provenance.json"
    told.write_text(told.read_text().replace(str(folder), str(tmp_path)))
    facts = Exported.open(weights.write(tmp_path / "run", tmp_path / "out")).facts
    assert [d["name"] for d in facts["domains"]] == ["toys"]
    assert facts["licences"] == ["CC0-1.0"]


def test_a_changed_export_is_refused(folder: Path, tmp_path: Path) -> None:
    out = weights.write(folder / "run", tmp_path / "out")
    about, values = (out / EXPORT).read_bytes(), (out / WEIGHTS).read_bytes()
    changes = [
        (WEIGHTS, values[:-1] + bytes([values[-1] ^ 1]), "does not match its sha256"),
        (WEIGHTS, values[: len(values) // 2], "does not match its sha256"),
        (EXPORT, about.replace(b"CC0-1.0", b"MIT"), "does not match its own checksum"),
        (EXPORT, about[:100], "is not valid JSON"),
        (
            EXPORT,
            about.replace(b'"schema_version": 2', b'"schema_version": 7'),
            "has schema version 7 and this scigpt knows up to 2; update",
        ),
        (EXPORT, about.replace(b'"schema_version": 2', b'"schema_version": 1'), "has schema version 1, expected 2; export the run again"),
        (EXPORT, b"[]", "is not the description of an export of scigpt"),
    ]
    for file, content, sentence in changes:
        good = (out / file).read_bytes()
        (out / file).write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            Exported.open(out)
        (out / file).write_bytes(good)
    Exported.open(out)
    for name, content in (("optimizer.pt", b""), ("deep/weights", b"\x80\x04\x95"), ("pytorch_model.bin", b"PK")):
        extra = out / name
        extra.parent.mkdir(exist_ok=True)
        extra.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: does not belong to the export and may hold a pickle"):
            Exported.open(out)
        extra.unlink()
    facts = json.loads(about)
    facts["files"]["../outside.safetensors"] = facts["files"][WEIGHTS]
    (out / EXPORT).write_bytes(spelled(facts))
    with pytest.raises(UserError, match=r"names the file \.\./outside\.safetensors, which lies elsewhere"):
        Exported.open(out)
    (out / EXPORT).write_bytes(about)
    (out / CARD).write_text("Better words.")
    Exported.open(out)
    (out / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: is missing"):
        Start.open(str(out))


def test_nothing_else_is_overwritten(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all of it")
    (tmp_path / "file").write_text("a file")
    for place in ("thesis", "file"):
        with pytest.raises(UserError, match=f"{place}: is there and is not an export"):
            weights.write(folder / "run", tmp_path / place)
    with pytest.raises(UserError, match="is there and is not an export"):
        weights.write(folder / "run", folder / "run")
    with pytest.raises(UserError, match="thesis: has no complete checkpoint"):
        weights.write(tmp_path / "thesis", tmp_path / "out")
    with pytest.raises(UserError, match=r"out: the export cannot be written \(Not a directory\)"):
        weights.write(folder / "run", tmp_path / "file" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "thesis"]
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "all of it"
    (tmp_path / "out").mkdir()  # empty
    weights.write(folder / "run", tmp_path / "out")
    assert Exported.open(weights.write(folder / "lora", tmp_path / "out")).facts["run"] == "lora"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out", "thesis"]


KILLED = """
import os, signal, sys
from pathlib import Path
from scigpt.export.folder import Exported
from scigpt.export.weights import write

run, out = map(Path, sys.argv[1:])
temporary, old = out.with_name(".out.tmp"), out.with_name(".out.old")
for moment in (temporary, temporary / "model.safetensors", temporary / "config.json", old):
    child = os.fork()
    if child == 0:
        while True:
            write(run, out)
    while not moment.exists():
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    midway = temporary.exists()
    found = Exported.open(out if out.exists() else old) if out.exists() or old.exists() else None
    print(moment.name, midway, None if found is None else len([found.tensors[name] for name in found.tensors]))
write(run, out)
print(*sorted(p.name for p in out.parent.iterdir()))
"""


@pytest.mark.drill
def test_a_killed_export_is_never_half_there(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder / "run"), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *kills, left = [line.split() for line in done.stdout.splitlines()]
    count = len(TrainedRun.open(folder / "run").model.state_dict())
    assert len(kills) == 4
    assert any(midway == "True" for _, midway, _ in kills)  # the rest was quicker than the signal
    assert {found for _, _, found in kills} <= {"None", str(count)}  # nothing, the old one or the new one
    assert left == ["out"]
