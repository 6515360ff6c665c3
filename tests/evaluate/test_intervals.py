"""The bootstrap covers the truth as often as it says, trajectories are its unit, and verdicts follow from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scigpt.evaluate.intervals import paired


def scores(generator: np.random.Generator, records: int, windows: int, effect: float, between: float) -> tuple[np.ndarray, np.ndarray]:
    """Differences with the mean `effect` whose trajectories differ by `between`, in two variables."""
    trajectory = np.repeat(np.arange(records), windows)
    own = generator.normal(0, between, (records, 2))[trajectory]
    return effect + own + generator.normal(0, 0.1, (trajectory.size, 2)), trajectory


def test_coverage() -> None:
    inside = 0
    for i in range(300):
        difference, trajectory = scores(np.random.default_rng(i), 25, 4, 0.3, 0.5)
        found = paired(difference, np.zeros_like(difference), trajectory, "coverage", i)
        inside += found.low <= 0.3 <= found.high
    assert 0.90 <= inside / 300 <= 0.97


def test_equal_to_scipy_where_every_trajectory_has_one_window() -> None:
    difference, trajectory = scores(np.random.default_rng(0), 60, 1, 0.2, 0.5)
    found = paired(difference, np.zeros_like(difference), trajectory, "scipy")
    other = stats.bootstrap(
        (difference.mean(1),), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.mean == pytest.approx(difference.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.02)


def test_windows_of_one_trajectory_are_no_evidence_of_their_own() -> None:
    """Copies of every window leave the interval as it was; as windows of their own they would shrink it by seven."""
    difference, trajectory = scores(np.random.default_rng(3), 20, 1, 0.0, 1.0)
    once = paired(difference, np.zeros_like(difference), trajectory, "x")
    many = paired(np.repeat(difference, 50, 0), np.zeros((1000, 2)), np.repeat(trajectory, 50), "x")
    assert (many.low, many.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_verdicts() -> None:
    difference, trajectory = scores(np.random.default_rng(5), 30, 2, 0.0, 0.5)
    zero = np.zeros_like(difference)
    centred = difference - difference.mean()
    assert paired(centred, zero, trajectory, "v").verdict == "even"
    assert paired(centred - 1, zero, trajectory, "v").verdict == "better"
    assert paired(centred + 1, zero, trajectory, "v").verdict == "worse"
    assert paired(zero, zero, trajectory, "v").verdict == "even"
    assert paired(zero * np.nan, zero, trajectory, "v").verdict == "undefined"
    alone = paired(centred - 1, zero, trajectory * 0, "v")
    assert (alone.trajectories, alone.verdict) == (1, "better")
    assert np.isnan(alone.low)
    assert paired(centred, zero, trajectory, "v") == paired(centred, zero, trajectory, "v")
    assert paired(centred, zero, trajectory, "v") != paired(centred, zero, trajectory, "w")


def test_undefined_windows_are_left_out_and_a_forecast_that_diverged_is_worse() -> None:
    model, other = np.array([[1.0, np.nan], [2.0, 4.0], [3.0, 5.0]]), np.zeros((3, 2))
    assert paired(model, other, np.arange(3), "n").mean == pytest.approx((2 + 4.5) / 2)
    model[1:] = np.inf
    found = paired(model, other, np.arange(3), "n")
    assert found.mean == np.inf
    assert found.verdict == "worse"
    assert paired(np.full_like(model, np.inf), other, np.arange(3), "n").low == np.inf
