"""A run that is stopped, killed or damaged goes on as if nothing had happened, to the last bit."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from runs import config, history, ledger, lines, make_corpus, tensors
from toy import ToySource, smooth_sample

from scigpt.data.files import DiskFull
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.checkpoint import Piece, check_parameters, newest, opened
from scigpt.train.config import RunConfig
from scigpt.train.engine import train
from scigpt.train.processes import Place, Processes
from scigpt.train.run import open_run
from scigpt.train.saver import Saver


@pytest.fixture(scope="module")
def whole(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    summary = train(config(corpora, run))
    assert summary["status"] == "finished"
    assert summary["step"] == 20
    assert summary["validation"].keys() == {"toys", "wide"}
    return run


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run as it was found after a crash at step 13: checkpoints 5 and 10, and lines of three lost steps."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step-00000020")
    shutil.rmtree(run / "checkpoints" / "step-00000015")
    return run


def assert_equal_runs(a: Path, b: Path) -> None:
    assert history(a) == history(b)
    assert ledger(a) == ledger(b)
    assert tensors(a) == tensors(b)


def as_kept(corpora: list[Path], run: Path) -> RunConfig:
    return config(corpora, run)


def test_two_runs_of_one_configuration_are_equal(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    train(config(corpora, tmp_path / "run"))
    assert_equal_runs(tmp_path / "run", whole)


def test_a_run_says_what_it_did(whole: Path) -> None:
    metrics = lines(whole)
    assert [m["step"] for m in metrics] == list(range(1, 21))
    assert all(float.fromhex(m["loss_hex"]) == m["loss"] for m in metrics)
    assert all(m["tokens"] > 0 and m["flops"] > 0 and m["seconds"] >= m["data_wait"] >= 0 for m in metrics)
    assert {c for m in metrics for c in m["corpora"]} == {"toys", "wide"}
    assert metrics[9]["validation"]["toys"]["vrmse"] > 0
    assert metrics[9]["variables"].keys() <= {"toys", "wide"}
    groups = [g for line in lines(whole, "ledger/groups.jsonl") for g in line["groups"]]
    assert [g["group"] for g in groups] == list(range(20))
    assert all(len(item) == 5 for g in groups for item in g["items"])
    about = json.loads((whole / "provenance.json").read_text())
    assert about["licences"] == ["CC0-1.0"]
    assert about["corpora"].keys() == {"toys", "wide"}
    assert len(about["launches"]) == 1
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == [f"step-{n:08d}" for n in (5, 10, 15, 20)]


def test_a_crash_between_checkpoints(corpora: list[Path], whole: Path, cut: Path) -> None:
    (cut / "checkpoints" / "step-00000015.tmp").mkdir()  # and a save that was under way
    summary = train(as_kept(corpora, cut))
    assert summary["resumed_from_step"] == 10
    assert_equal_runs(cut, whole)
    assert len(json.loads((cut / "provenance.json").read_text())["launches"]) == 2


def test_a_crash_before_the_first_checkpoint(corpora: list[Path], whole: Path, cut: Path) -> None:
    shutil.rmtree(cut / "checkpoints")
    assert train(as_kept(corpora, cut))["resumed_from_step"] is None
    assert_equal_runs(cut, whole)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
DAMAGES = {
    **{f"{name} cut off": (lambda c, n=name: os.truncate(c / n, (c / n).stat().st_size // 2)) for name in FILES},
    **{f"{name} empty": (lambda c, n=name: os.truncate(c / n, 0)) for name in FILES},
    **{f"{name} missing": (lambda c, n=name: (c / n).unlink()) for name in FILES},
    **{f"a bit of {name}": (lambda c, n=name: flip_a_bit(c / n)) for name in FILES[:3]},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(whole: Path, cut: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(whole / "checkpoints" / "step-00000015", cut / "checkpoints" / "step-00000015")
    DAMAGES[damage](cut / "checkpoints" / "step-00000015")
    found = newest(cut / "checkpoints")
    assert found is not None
    assert found.step == 10
    assert "step-00000015 is passed over" in caplog.text


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(corpora: list[Path], whole: Path, cut: Path) -> None:
    flip_a_bit(cut / "checkpoints" / "step-00000010" / "model.safetensors")
    assert train(as_kept(corpora, cut))["resumed_from_step"] == 5
    assert_equal_runs(cut, whole)


def test_a_broken_checkpoint_of_a_later_step_does_not_push_out_a_good_one(corpora: list[Path], cut: Path, whole: Path) -> None:
    broken = cut / "checkpoints" / "step-00000020"
    shutil.copytree(whole / "checkpoints" / "step-00000020", broken)
    (broken / "manifest.json").unlink()
    found = newest(cut / "checkpoints")
    assert found is not None
    model = found.model()
    both = {"model": model, "optimizer": found.optimizer()}
    pieces = [Piece(kind, n, tuple(t.shape), 0, t.reshape(-1)) for kind, tensors in both.items() for n, t in tensors.items()]
    saver = Saver(cut / "checkpoints", Processes(Place(), None), (0, 1), 1, lambda step: False)
    saver.save(11, pieces, found.state)
    saver.wait()
    assert sorted(p.name for p in broken.parent.iterdir()) == ["step-00000011", "step-00000020"]
    again = newest(cut / "checkpoints")
    assert again is not None
    assert again.step == 11
    assert again.model().keys() == model.keys()
    assert all(torch.equal(again.model()[n], t) for n, t in model.items())


def test_a_model_of_another_shape_is_refused(whole: Path) -> None:
    found = newest(whole / "checkpoints")
    assert found is not None
    vocabulary = Vocabulary.from_json(found.state["vocabulary"])
    shape = ModelConfig(depth=1, width=32, heads=1)
    check_parameters(SciGPT(shape, vocabulary), found.model(), found.path)
    more = Vocabulary({**vocabulary.units, "density": "1"}, vocabulary.coefficients)
    with pytest.raises(UserError, match=r"has the shape \(1, .* in the checkpoint and \(2, .* in the model"):
        check_parameters(SciGPT(shape, more), found.model(), found.path)
    with pytest.raises(UserError, match=r"the checkpoint lacks the parameter blocks\.1\."):
        check_parameters(SciGPT(ModelConfig(depth=2, width=32, heads=1), vocabulary), found.model(), found.path)


def test_micro_batches_and_several_groups(corpora: list[Path], tmp_path: Path) -> None:
    for run, train_options in {"a": {"groups": 2}, "b": {"groups": 2, "micro_batch": 1}}.items():
        train(config(corpora, tmp_path / run, steps=8, **train_options))
    a, b = lines(tmp_path / "a"), lines(tmp_path / "b")
    assert [m["loss"] for m in b] == pytest.approx([m["loss"] for m in a], rel=1e-4)
    assert [m["grad_norm"] for m in b] == pytest.approx([m["grad_norm"] for m in a], rel=1e-3)
    assert [m["tokens"] for m in b] == [m["tokens"] for m in a]
    groups = [g["group"] for line in lines(tmp_path / "a", "ledger/groups.jsonl") for g in line["groups"]]
    assert groups == list(range(16))
    assert ledger(tmp_path / "a") == ledger(tmp_path / "b")


def test_bf16_trains(corpora: list[Path], tmp_path: Path) -> None:
    summary = train(config(corpora, tmp_path / "run", precision="bf16"))
    assert summary["loss"] < lines(tmp_path / "run")[0]["loss"] * 1.5


def test_a_missing_split_is_told_before_training(corpora: list[Path], tmp_path: Path) -> None:
    made = config(corpora, tmp_path / "run")
    odd = dataclasses.replace(made.data.corpora[0], valid=["vaild"])
    with pytest.raises(UserError, match=r"toys: has no split 'vaild' to validate on, only train, valid"):
        train(dataclasses.replace(made, data=dataclasses.replace(made.data, corpora=[odd])))
    assert not (tmp_path / "run").exists()


def test_a_split_of_short_records_is_validated_in_short_windows(tmp_path: Path) -> None:
    """A record cut into 0.7, 0.1 and 0.2 of its time may leave less than a window of training to validate on."""
    corpus = convert(Uneven(), tmp_path / "uneven", progress=False)
    summary = train(config([corpus], tmp_path / "run", steps=1, validate_every=1))
    assert summary["validation"]["uneven"]["windows"] == 1
    assert summary["validation"]["uneven"]["vrmse"] is not None


class Uneven(ToySource):
    """Records of 8 frames to train on and of 3 to validate on."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield smooth_sample(ref.spec["seed"], 3 if ref.split == "valid" else 8)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_stops_between_steps_and_the_run_goes_on(corpora: list[Path], whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"

    def send() -> None:
        while not (run / "metrics.jsonl").exists() or len(lines(run)) < 7:
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    sender = threading.Thread(target=send)
    sender.start()
    summary = train(as_kept(corpora, run))
    sender.join()
    assert signal.getsignal(number) is before
    assert summary["status"] == "stopped"
    assert summary["signal"] == number.name
    assert 7 <= summary["step"] < 20
    assert len(lines(run)) == summary["step"]
    again = train(as_kept(corpora, run))
    assert again["resumed_from_step"] == summary["step"]
    assert again["status"] == "finished"
    assert_equal_runs(run, whole)


def test_a_finished_run_has_nothing_to_do(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    summary = train(as_kept(corpora, run))
    assert (summary["status"], summary["step"], summary["tokens"]) == ("finished", 20, 0)
    assert summary["validation"]["toys"]["vrmse"] == lines(run)[-1]["validation"]["toys"]["vrmse"]
    assert_equal_runs(run, whole)


def test_more_steps_are_allowed_and_other_changes_refused(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(UserError, match=r"begun with another configuration \(train\.clip: 1\.0 -> 2\.0; train\.steps: 20 -> 10\)"):
        train(config(corpora, run, clip=2.0, steps=10))
    with pytest.raises(UserError, match=r"data\.corpora\.1\.weight: 1\.0 -> None"):
        train(config(corpora[:1], run))
    assert_equal_runs(run, whole)
    assert train(config(corpora, run, steps=22))["step"] == 22
    assert len(lines(run)) == 22


def test_another_corpus_of_the_same_name_is_refused(whole: Path, corpora: list[Path], tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "corpora"
    for corpus in corpora:
        shutil.copytree(corpus, moved / corpus.name)
    train(config([moved / c.name for c in corpora], run, steps=2))
    shutil.rmtree(moved / "wide")
    make_corpus(moved, "wide", size=12, seed=200)
    with pytest.raises(UserError, match="the corpus wide is not the one this run was trained on"):
        train(config([moved / c.name for c in corpora], run, steps=4))


def test_a_run_in_use_is_left_alone(corpora: list[Path], tmp_path: Path) -> None:
    settled = config(corpora, tmp_path / "run")
    with open_run(settled), pytest.raises(UserError, match="another process is training this run"):
        train(settled)


def test_a_folder_that_is_no_run_is_left_alone(corpora: list[Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"is not empty and has no config\.yaml"):
        train(config(corpora, tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_run_that_cannot_be_written(corpora: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file" / "run", Path("/proc/run")):
        made = dataclasses.replace(config(corpora, tmp_path / "run"), run=str(run))
        with pytest.raises(UserError, match="the run's folder cannot be written"):
            train(made)


@pytest.mark.parametrize("where", ["metrics.jsonl: no room for another line", "step-00000015: no room to write"])
def test_a_full_disk_ends_the_run_and_loses_nothing(corpora: list[Path], whole: Path, cut: Path, where: str) -> None:
    """The limit on the size of a file stands for the full disk: writing fails at the same place, in the journal or in the tensors."""
    written = json.loads((cut / "checkpoints" / "step-00000010" / "state.json").read_text())["journals"]["metrics.jsonl"]
    room = written + 500 if "metrics" in where else 200_000
    before = tensors(cut)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(DiskFull, match=where):
            train(as_kept(corpora, cut))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in (cut / "checkpoints").iterdir()) == ["step-00000005", "step-00000010"]
    assert tensors(cut) == before
    train(as_kept(corpora, cut))
    assert_equal_runs(cut, whole)


def test_every_nth_checkpoint_stays_for_good(corpora: list[Path], tmp_path: Path) -> None:
    train(config(corpora, tmp_path / "run", checkpoint_every=2, keep=2, keep_every=8))
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == [f"step-{n:08d}" for n in (8, 16, 18, 20)]


def test_a_checkpoint_is_of_the_moment_it_was_begun(tmp_path: Path) -> None:
    """What training does to the tensors while the thread writes does not reach the file, and a second save needs no second copy."""
    saver = Saver(tmp_path, Processes(Place(), None), (0, 1), 5, None)
    weights, places = torch.zeros(5_000_000), set()
    for step in (1, 2, 3):
        saver.save(step, [Piece("model", "weights", (5_000_000,), 0, weights)], {})
        weights += 1
        places.add(saver._buffers["model", "weights"].data_ptr())
    saver.wait()
    assert saver.saved == 3
    for step in (1, 2, 3):
        assert torch.equal(opened(tmp_path / f"step-{step:08d}").model()["weights"], torch.full((5_000_000,), float(step - 1)))
    assert len(places) == 1
