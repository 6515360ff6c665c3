"""Baselines are exact where they should be, and never touch what is invalid or still to come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.evaluate.baselines import BASELINES, baselines_for, linear, mean, persistence, trailing_mean
from scigpt.evaluate.metrics import score, scored


def batch_of(
    values: np.ndarray, valid: np.ndarray | None = None, seconds: np.ndarray | None = None, name: str = "density", **scales: object
) -> Batch:
    """One window `(T, X)` of one variable."""
    shaped = values.astype(np.float32)[:, None, None, None]
    there = np.ones(values.shape, bool) if valid is None else valid
    times = np.arange(len(values), dtype=float) if seconds is None else seconds
    steady = len(values) == 2
    sample = Sample(shaped, there[:, None, None, None], (Variable(name, "1"),), Time(times), Origin("t", "CC0-1.0"), steady=steady)
    given = {"transform": (("identity", 1.0),), "center": (5.0,), "scale": (2.0,), "increment": (1.0,)} | scales
    return collate([sample], Scales(**given))  # type: ignore[arg-type]


def test_persistence_is_exact_on_constants_and_linear_on_straight_lines_at_any_step() -> None:
    seconds = np.array([0.0, 1.0, 2.5, 3.0, 7.0, 7.5])
    constant = batch_of(np.tile([1.0, -3.0, 4.0], (6, 1)), seconds=seconds)
    assert torch.equal(persistence(constant).one_step(constant), constant.values[:, 1:].double())
    assert torch.equal(persistence(constant).rollout(constant, 2), constant.values[:, 2:].double())
    straight = batch_of(seconds[:, None] * [2.0, -1.0, 0.25] + [1.0, 2.0, 3.0], seconds=seconds)
    assert torch.allclose(linear(straight).one_step(straight)[:, 1:], straight.values[:, 2:].double(), rtol=0, atol=1e-6)
    for context in (2, 3, 4):
        assert torch.allclose(linear(straight).rollout(straight, context), straight.values[:, context:].double(), rtol=0, atol=1e-5)


def test_linear_is_twice_the_last_less_the_one_before_at_a_constant_step() -> None:
    batch = batch_of(np.random.default_rng(0).normal(size=(5, 3)))
    u = batch.values.double()
    assert torch.allclose(linear(batch).one_step(batch)[:, 1:], 2 * u[:, 1:-1] - u[:, :-2], rtol=0, atol=1e-12)


def test_the_last_valid_value_is_carried_and_the_training_mean_stands_in_before_it() -> None:
    valid = np.array([[False, True], [True, True], [False, False], [False, True]])
    values = np.where(valid, np.arange(8.0).reshape(4, 2), np.nan)
    batch = batch_of(values, valid)
    assert persistence(batch).level.squeeze().tolist() == [[5, 1], [2, 3], [2, 3], [2, 7]]
    assert trailing_mean(batch).level.squeeze().tolist() == [[5, 1], [2, 2], [2, 2], [2, pytest.approx(11 / 3)]]
    assert linear(batch).slope.squeeze().tolist() == [[0, 0], [0, 2], [0, 0], [0, 0]]
    assert all(torch.isfinite(build(batch).one_step(batch)).all() for build in BASELINES.values())


def test_the_training_mean_is_taken_in_transform_space_and_scores_one() -> None:
    logged = batch_of(np.ones((3, 2)), name="precipitation_amount", transform=(("log1p", 1.0),), center=(1.0,))
    assert mean(logged).level[0, 0, 0, 0, 0].tolist() == pytest.approx([np.e - 1] * 2)
    noise = np.random.default_rng(1).normal(5.0, 2.0, (400, 50))
    batch = batch_of(noise)
    scores = {
        n: score(b.one_step(batch), batch.values[:, 1:], scored(batch), batch.weight).vrmse.item() for n, b in baselines_for(batch).items()
    }
    assert scores["mean"] == pytest.approx(1.0, abs=1e-3)
    assert scores["trailing mean"] == pytest.approx(1.0, abs=0.02)
    assert scores["persistence"] == pytest.approx(2**0.5, abs=0.02)
    assert scores["linear"] == pytest.approx(6**0.5, abs=0.05)


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_later_and_nothing_invalid_is_read(name: str) -> None:
    generator = np.random.default_rng(2)
    values, valid = generator.normal(size=(8, 5)), generator.random((8, 5)) > 0.2
    other = np.where(valid, values, np.nan)
    other[4:] = 1e9
    first, second = batch_of(values, valid), batch_of(other, valid)
    for a, b in ((BASELINES[name](first), BASELINES[name](second)),):
        assert torch.equal(a.one_step(first)[:, :4], b.one_step(second)[:, :4])
        assert torch.equal(a.rollout(first, 4), b.rollout(second, 4))


def test_a_steady_problem_has_the_mean_only() -> None:
    assert list(baselines_for(batch_of(np.zeros((2, 3))))) == ["mean"]
