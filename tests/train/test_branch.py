"""A run that branches off a trunk: it gives, to the last bit, what its configuration gives alone, and what it costs is told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import config, history, ledger, make_corpus, settings, tensors, write

from scigpt.errors import UserError
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train

STEPS, BRANCH = 20, 12
DECAY = (STEPS - BRANCH) / STEPS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("data"))


def describe(corpus: Path, run: Path, steps: int, decay: float, **train: Any) -> RunConfig:
    data = settings([corpus], run, steps=steps, **train)
    data["optim"]["decay"] = decay
    run.parent.mkdir(parents=True, exist_ok=True)
    return load(write(data, run.with_suffix(".yaml")))


@pytest.fixture(scope="module")
def trunk(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trunk") / "trunk"
    train(describe(corpus, run, 15, 0.0, keep_steps=[BRANCH], checkpoint_every=15, keep=1))
    return run


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def test_a_branch_is_the_run_without_a_trunk(corpus: Path, trunk: Path, tmp_path: Path) -> None:
    point = trunk / "checkpoints" / f"step-{BRANCH:08d}"
    assert sorted(p.name for p in point.parent.iterdir()) == [point.name, "step-00000015"]
    alone, branch = tmp_path / "alone", tmp_path / "branch"
    train(describe(corpus, alone, STEPS, DECAY))
    train(describe(corpus, branch, STEPS, DECAY, branch_from=str(point)))
    assert history(branch) == history(alone)[BRANCH:]
    assert ledger(alone).endswith(ledger(branch))
    assert tensors(branch) == tensors(alone)
    whole, own = result(alone), result(branch)
    same = [k for k in whole if k not in ("own_flops", "seconds", "branch_from", "branch_step")]
    assert {k: own[k] for k in same} == {k: whole[k] for k in same}
    assert own["branch_step"] == BRANCH
    assert own["own_flops"] * STEPS == pytest.approx(whole["own_flops"] * (STEPS - BRANCH))
    assert whole["own_flops"] == whole["flops"]["total"] == sum(line["flops"] for line in history(alone))


def test_a_branch_goes_on_when_its_trunk_is_gone(corpus: Path, trunk: Path, tmp_path: Path) -> None:
    copy, branch = tmp_path / "copy", tmp_path / "branch"
    shutil.copytree(trunk, copy)
    point = copy / "checkpoints" / f"step-{BRANCH:08d}"
    described = describe(corpus, branch, STEPS, DECAY, branch_from=str(point), checkpoint_every=4)
    train(described)
    whole = result(branch)
    shutil.rmtree(copy)
    shutil.rmtree(branch / "checkpoints" / f"step-{STEPS:08d}")
    assert train(described)["resumed_from_step"] == 16
    again = result(branch)
    del whole["seconds"], again["seconds"]
    assert again == whole


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"decay": 0.6}, "the learning rates of step 9 differ; branch off before either"),
        ({"steps": 11}, "its 11 steps are fewer"),
        ({"clip": 0.5}, r"the trunk is another run \(train.clip: 1.0 -> 0.5\)"),
        ({"branch_from": "nowhere"}, "nowhere is not a folder; give a checkpoint of a run"),
    ],
)
def test_what_cannot_be_a_branch(corpus: Path, trunk: Path, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    point = trunk / "checkpoints" / f"step-{BRANCH:08d}"
    given = {"steps": STEPS, "decay": DECAY, "branch_from": str(point)} | change
    described = describe(corpus, tmp_path / "branch", **given)
    with pytest.raises(UserError, match=sentence):
        train(described)
    assert not (tmp_path / "branch").exists()


def test_a_broken_point_is_refused(corpus: Path, trunk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trunk, copy)
    point = copy / "checkpoints" / f"step-{BRANCH:08d}"
    with open(point / "model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"oops")
    with pytest.raises(UserError, match=r"model.safetensors does not match its sha256; branch off from another checkpoint"):
        train(describe(corpus, tmp_path / "branch", STEPS, DECAY, branch_from=str(point)))


def test_a_divergence_is_a_result(corpus: Path, tmp_path: Path) -> None:
    data = settings([corpus], tmp_path / "run", steps=40)
    data["optim"]["lr"], data["guard"] = 1e9, {"grace": 2, "patience": 2, "factor": 1.5}
    with pytest.raises(UserError, match="steps in a row were skipped"):
        train(load(write(data, tmp_path / "run.yaml")))
    found = result(tmp_path / "run")
    assert found["status"] == "diverged"
    assert found["step"] < found["steps"] == 40
    assert found["skipped_steps"] >= 3


def test_a_result_is_of_a_finished_run_only(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config([corpus], run, steps=10))
    before = result(run)
    (line,) = [line["validation"]["toys"] for line in history(run) if line["step"] == 10]
    assert before["score"] == line["loss"]
    train(config([corpus], run, steps=12))
    after = result(run)
    assert (before["step"], after["step"]) == (10, 12)
    assert after["data"]["samples"] * 10 == before["data"]["samples"] * 12
