"""Picks of arrivals in traces of probability, and how well they meet the true ones.

A **pick** is a peak of the probability of one phase along one trace. Picks and true arrivals of a trace are matched one to one within a
tolerance: as many pairs as can be, and among those the nearest ones. A pick without an arrival is false, an arrival without a pick is
missed, as is usual for pickers (Zhu and Beroza 2019, arXiv:1803.03211). Times are counted in samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks

from scigpt.errors import UserError


@dataclass(frozen=True, slots=True)
class Picks:
    """Picks of one trace in order of time: `samples` int `(K,)`, `probability` float `(K,)`."""

    samples: np.ndarray
    probability: np.ndarray

    def strongest(self, count: int) -> np.ndarray:
        """Samples of the `count` most probable picks."""
        return self.samples[np.argsort(-self.probability, kind="stable")[:count]]


@dataclass(frozen=True, slots=True)
class PickScores:
    """Scores over all traces. A share of nothing is NaN.

    `precision`: matched picks over picks. `recall`: matched arrivals over arrivals. `f1`: twice the matches over picks and arrivals.
    `residual_*`: pick less arrival over the matches, in samples (`std` with their number, not one less).
    `within`: share of the traces with arrivals whose strongest picks, as many as there are arrivals, all meet one; further picks do not
    count.
    """

    picks: int
    arrivals: int
    matches: int
    precision: float
    recall: float
    f1: float
    residual_mean: float
    residual_std: float
    residual_mae: float
    within: float


def pick(probability: np.ndarray, threshold: float = 0.3, distance: int = 1) -> list[Picks]:
    """Picks of each trace: peaks at or above the threshold, of any two closer than `distance` samples the higher one; the middle of a flat
    peak. The ends of a trace may be peaks.

    Args:
        probability: `(N, T)`; what is not a number is no peak.

    Raises:
        UserError: another shape, a threshold that is not above 0 and at most 1, a distance below one sample.
    """
    if probability.ndim != 2:
        raise UserError(f"the probabilities to pick from have the shape {probability.shape}; expected (traces, samples)")
    if not 0 < threshold <= 1:
        raise UserError(f"the threshold of a pick is {threshold}; expected a probability above 0 and at most 1")
    if distance < 1:
        raise UserError(f"the distance between picks is {distance} samples; expected 1 or more")
    edged = np.pad(np.nan_to_num(probability.astype(np.float64), nan=0.0), ((0, 0), (1, 1)))
    found = []
    for trace in edged:
        peaks, _ = find_peaks(trace, height=threshold, distance=distance)
        found.append(Picks(peaks - 1, trace[peaks]))
    return found


def match(picked: np.ndarray, true: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices into picks and arrivals of one trace that belong together, one to one and at most `tolerance` samples apart."""
    apart = np.abs(np.subtract.outer(np.asarray(picked, np.float64), np.asarray(true, np.float64)))
    # one more pair is worth more than any nearness of the others
    forbidden = (tolerance + 1) * (min(apart.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(apart <= tolerance, apart, forbidden))
    kept = apart[rows, columns] <= tolerance
    return rows[kept], columns[kept]


def score_picks(picks: Sequence[Picks], arrivals: Sequence[np.ndarray], tolerance: float) -> PickScores:
    """Scores of picks against true arrivals.

    Args:
        arrivals: samples of the arrivals of each trace, fractions allowed; NaN stands for none, so that rows of a table `(N, K)` will do.
        tolerance: samples.

    Raises:
        UserError: another number of traces than of arrivals, a negative tolerance.
    """
    if len(picks) != len(arrivals):
        raise UserError(f"there are picks of {len(picks)} traces and arrivals of {len(arrivals)}; expected one entry of each per trace")
    if not tolerance >= 0:
        raise UserError(f"the tolerance of a pick is {tolerance} samples; expected 0 or more")
    residuals, met, with_arrivals, count = [np.zeros(0)], 0, 0, 0
    for found, given in zip(picks, arrivals, strict=True):
        true = np.asarray(given, np.float64)
        true = true[~np.isnan(true)]
        rows, columns = match(found.samples, true, tolerance)
        residuals.append(found.samples[rows] - true[columns])
        count += len(true)
        if len(true):
            with_arrivals += 1
            met += len(match(found.strongest(len(true)), true, tolerance)[0]) == len(true)
    residual, picked = np.concatenate(residuals), sum(len(p.samples) for p in picks)
    matches = len(residual)
    return PickScores(
        picks=picked,
        arrivals=count,
        matches=matches,
        precision=_share(matches, picked),
        recall=_share(matches, count),
        f1=_share(2 * matches, picked + count),
        residual_mean=float(residual.mean()) if matches else np.nan,
        residual_std=float(residual.std()) if matches else np.nan,
        residual_mae=float(np.abs(residual).mean()) if matches else np.nan,
        within=_share(met, with_arrivals),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan
