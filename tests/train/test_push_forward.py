"""Training on forecasts of forecasts: what the model is shown is what it would have been shown in a free-running forecast."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import history, lines, settings, tensors, write
from toys import make_batch, make_model

from scigpt.data.normalize import normalize
from scigpt.errors import UserError
from scigpt.evaluate.rollout import rollout
from scigpt.train.config import RunConfig, TrainConfig, load
from scigpt.train.engine import train
from scigpt.train.rollout import CONTEXT, push_forward


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_pushed_frames_are_those_of_a_free_running_forecast(gaps: float) -> None:
    model, frames = make_model(), 8
    batch = make_batch((frames, 1, 8, 8), ("a", "b", "f"), gaps=0.0)
    if gaps:  # of the same points in all frames, as land is: a rollout cannot know which later points are valid
        valid = batch.valid & (torch.rand(batch.valid[:, :1].shape, generator=torch.Generator().manual_seed(0)) > gaps)
        batch = replace(batch, valid=valid, values=torch.where(valid, batch.values, 0.0))
    expected = rollout(model, batch, CONTEXT, frames - CONTEXT, frames)
    for passes in (1, 3, frames - CONTEXT):
        pushed = push_forward(model, batch, passes)
        known = slice(CONTEXT, CONTEXT + passes)
        found, there = pushed.values[:, known, :2], batch.valid[:, known, :2]
        assert torch.allclose(torch.where(there, found, 0.0), torch.where(there, expected[:, :passes, :2], 0.0), rtol=1e-4, atol=2e-5)
        assert torch.equal(pushed.values[:, :CONTEXT], batch.values[:, :CONTEXT])
        assert torch.equal(pushed.values[:, :, 2], batch.values[:, :, 2])  # a forcing is known in advance
        assert torch.equal(pushed.target_values(), batch.values[:, 1:])
    assert not torch.allclose(push_forward(model, batch, 1).values, push_forward(model, batch, 3).values)


def test_the_target_is_the_true_frame_seen_from_the_forecast_one() -> None:
    model, batch = make_model(), make_batch((5, 1, 8, 8), ("a", "b"))
    pushed = push_forward(model, batch, 2)
    fields = normalize(pushed)
    truth = batch.scales.forward(batch.values)[:, 1:]
    assert torch.allclose((fields.base + fields.unit * fields.target)[fields.mask], truth[fields.mask], atol=1e-5)
    assert torch.equal(fields.mask, normalize(batch).mask)
    assert not torch.allclose(fields.target, normalize(batch).target)


def test_nothing_is_pushed_where_there_is_nothing_to_push() -> None:
    model, batch = make_model(), make_batch((2, 1, 8, 8), ("a", "f"), steady=True)
    assert push_forward(model, batch, 4) is batch
    longer = make_batch((5, 1, 8, 8))
    assert push_forward(model, longer, 0) is longer


def test_the_number_of_forecasts_ahead_grows_with_the_steps() -> None:
    config = TrainConfig(steps=100, rollout=8, rollout_ramp=0.5)
    depth = [config.pushed(step) for step in range(100)]
    assert depth[0] == 0
    assert depth[49:] == [7] * 51
    assert all(b - a in (0, 1) for a, b in itertools.pairwise(depth))
    assert [TrainConfig(steps=4, rollout=3, rollout_ramp=0.0).pushed(s) for s in range(4)] == [2, 2, 2, 2]
    assert {TrainConfig(steps=10).pushed(s) for s in range(10)} == {0}
    with pytest.raises(UserError, match="rollout is 0"):
        TrainConfig(rollout=0)


def a_run(corpora: list[Path], run: Path, **changes: object) -> RunConfig:
    data = settings(corpora[:1], run, steps=16, rollout=3, rollout_ramp=0.5, **changes)
    data["data"]["frames"] = 6
    data["optim"]["decay"] = 0.0
    return load(write(data, run.with_suffix(".yaml")))


def test_a_run_with_rollouts_learns_and_resumes_exactly(tmp_path: Path, corpora: list[Path]) -> None:
    whole = train(a_run(corpora, tmp_path / "whole"))
    flops = [line["flops"] for line in lines(tmp_path / "whole")]
    assert flops[-1] == flops[0] // 3 * 5  # two passes without gradient
    assert np.isfinite(whole["loss"])
    broken = a_run(corpora, tmp_path / "broken")
    half = replace(broken, train=replace(broken.train, steps=8, rollout_ramp=1.0))  # equally long a ramp
    train(half)
    data = (tmp_path / "broken" / "config.yaml").read_text().replace("rollout_ramp: 1.0", "rollout_ramp: 0.5")
    (tmp_path / "broken" / "config.yaml").write_text(data)
    train(broken)
    assert history(tmp_path / "whole")[8:] == history(tmp_path / "broken")[8:]
    assert tensors(tmp_path / "whole") == tensors(tmp_path / "broken")
