"""Is the difference between two forecasts more than chance? A paired bootstrap over trajectories.

Windows of one trajectory resemble each other, so whole trajectories are drawn with replacement, not windows (the cluster bootstrap; Davison
and Hinkley 1997, section 3.8). The interval is that of the percentiles. The draws are keyed: the same data give the same interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.keyed import Part, generator

RESAMPLES = 1000
LEVEL = 0.95

Verdict = Literal["better", "even", "worse", "undefined"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Score of the model minus that of another method: mean and 95 % interval, NaN where undefined (an interval needs two trajectories)."""

    mean: float
    low: float
    high: float
    trajectories: int

    @property
    def verdict(self) -> Verdict:
        """`even` where the interval spans 0. Without an interval the sign of the mean decides."""
        low, high = (self.mean, self.mean) if np.isnan(self.low) else (self.low, self.high)
        if np.isnan(self.mean):
            return "undefined"
        if low <= 0 <= high:
            return "even"
        return "better" if high < 0 else "worse"


def paired(model: np.ndarray, other: np.ndarray, trajectory: np.ndarray, *name: Part) -> Difference:
    """The mean over variables of the mean over windows of `model - other`.

    Args:
        model, other: scores `(windows, variables)`, NaN where undefined, infinite where a forecast diverged.
        trajectory: which one each window is of, `(windows,)`.
        name: of the comparison; it keys the draws.
    """
    with np.errstate(invalid="ignore"):
        difference = model - other
    defined = ~(np.isnan(model) | np.isnan(other))
    defined_difference = np.where(defined, np.where(np.isnan(difference), 0.0, difference), 0.0)  # both infinite: alike
    _, place = np.unique(trajectory, return_inverse=True)
    count = int(place.max()) + 1 if place.size else 0
    sums, windows = np.zeros((count, model.shape[1])), np.zeros((count, model.shape[1]))
    np.add.at(sums, place, defined_difference)
    np.add.at(windows, place, defined)
    whole = float(_mean(np.ones((1, count)), sums, windows)[0])
    if count < 2 or np.isnan(whole):
        return Difference(whole, np.nan, np.nan, count)
    draws = generator("bootstrap", *name).integers(0, count, (RESAMPLES, count))
    times = np.zeros((RESAMPLES, count))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], draws), 1.0)
    means = _mean(times, sums, windows)
    means = means[~np.isnan(means)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail), method="inverted_cdf")
    return Difference(whole, float(low), float(high), count)


def _mean(times: np.ndarray, sums: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Of each resample, in which trajectory r occurs `times[:, r]` times: the mean over windows, then over variables."""
    finite, infinite = np.where(np.isinf(sums), 0.0, sums), np.where(np.isinf(sums), np.sign(sums), 0.0)
    drawn = times @ windows
    diverged = times @ infinite
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(drawn > 0, (times @ finite) / drawn, np.nan)
    means = np.where(diverged > 0, np.inf, np.where(diverged < 0, -np.inf, means))
    here = ~np.isnan(means)
    total = np.where(here, means, 0.0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(here.any(1), total / here.sum(1), np.nan)
