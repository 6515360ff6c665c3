"""A bad step is left out exactly, explained, and forgotten by the history."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import config, history, ledger, lines, make_poisoned, tensors
from safetensors.torch import load_file

from scigpt.errors import UserError
from scigpt.train.engine import train
from scigpt.train.guard import Guard, GuardConfig


def guard(**options: float) -> Guard:
    return Guard(GuardConfig(**{"factor": 10.0, "window": 8, "grace": 4, "patience": 3} | options))  # type: ignore[arg-type]


def test_what_is_not_finite_is_refused_from_the_first_step() -> None:
    g = guard()
    assert g.judge(math.nan, 1.0) == "the loss is nan"
    assert g.judge(1.0, math.inf) == "the gradient norm is inf"
    assert math.isnan(g.median)


def test_spikes_are_looked_for_after_the_grace_and_never_enter_the_history() -> None:
    g = guard()
    assert [g.judge(1.0, n) for n in (1.0, 100.0, 1.0, 1.0)] == [None] * 4
    for _ in range(20):
        assert g.judge(1.0, 11.0) == "the gradient norm 11 is more than 10 times the running median 1"
        assert g.judge(math.nan, math.nan) is not None
        assert g.judge(1.0, 9.0 if g.median > 1 else 1.0) is None
        assert math.isfinite(g.median)


def test_patience_counts_skips_in_a_row() -> None:
    g = guard()
    for _ in range(3):
        g.judge(math.nan, 1.0)
    assert not g.exhausted
    g.judge(1.0, 1.0)
    for _ in range(3):
        g.judge(math.nan, 1.0)
    assert not g.exhausted
    g.refuse("no target is valid")
    assert g.exhausted


def test_the_history_survives_a_restart() -> None:
    g = guard()
    for n in (1.0, 1 / 3, 0.1, 2.0):
        g.judge(1.0, n)
    g.judge(math.nan, 1.0)
    again = guard()
    again.restore(json.loads(json.dumps(g.state())))
    assert (again.state(), again.median, again.row) == (g.state(), g.median, 1)


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    return make_poisoned(tmp_path)


def test_a_poisoned_sample_changes_nothing_but_the_counter(poisoned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    summary = train(config([poisoned], run, steps=20, checkpoint_every=1, keep=30, hide_coefficients=0))
    skipped = [m["step"] for m in lines(run) if m["skipped"]]
    seen = [line["step"] for line in lines(run, "ledger/groups.jsonl") if any(i[0] == "000003" for g in line["groups"] for i in g["items"])]
    assert skipped
    assert set(skipped) <= set(seen)
    assert summary["skipped_steps"] == len(skipped)
    assert math.isfinite(summary["loss"])
    for step in skipped:
        before, after = (run / "checkpoints" / f"step-{n:08d}" for n in (step - 1, step))
        if before.exists():
            for name in ("model.safetensors", "optimizer.safetensors"):
                a, b = load_file(before / name), load_file(after / name)
                assert a.keys() == b.keys()
                assert all(torch.equal(a[n], b[n]) for n in a)
        about = json.loads((run / "incidents" / f"step-{step}.json").read_text())
        assert about["reason"] == "the loss is nan"
        assert about["loss_by_variable"] == {"poisoned": {"concentration": None}}
        assert "000003" in {item[0] for g in about["groups"] for item in g["items"]}
        assert sum(s["concentration"]["not_finite"] for g in about["groups"] for s in g["statistics"]) == 1
    state = json.loads((run / "checkpoints" / "step-00000020" / "state.json").read_text())
    assert len(state["guard"]["norms"]) == 20 - len(skipped)


def test_incidents_resume_like_everything_else(poisoned: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config([poisoned], whole, checkpoint_every=2))
    skipped = [m["step"] for m in lines(whole) if m["skipped"]]
    shutil.copytree(whole, cut)
    for path in (cut / "checkpoints").iterdir():
        if int(path.name[5:]) > skipped[len(skipped) // 2]:
            shutil.rmtree(path)
    assert train(config([poisoned], cut, checkpoint_every=2))["skipped_steps"] == len(skipped)
    assert history(cut) == history(whole)
    assert ledger(cut) == ledger(whole)
    assert tensors(cut) == tensors(whole)


def test_a_run_that_skips_without_end_stops_with_a_sentence(poisoned: Path, tmp_path: Path) -> None:
    with open(poisoned / "train-000000.tar", "r+b") as shard:
        for sample in json.loads((poisoned / "train-000000.index.json").read_text())["samples"]:
            shard.seek(sample["members"]["values.npy"]["data_offset"])
            shard.write(np.full(6 * 64, np.nan, np.float32).tobytes())
    made = config([poisoned], tmp_path / "run")
    with pytest.raises(UserError, match=r"4 steps in a row were skipped, the last \(step 4\) because the loss is nan"):
        train(replace(made, guard=GuardConfig(patience=3)))
    assert not (tmp_path / "run" / "checkpoints").exists()
