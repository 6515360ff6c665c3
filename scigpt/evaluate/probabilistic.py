"""Scores of probabilistic forecasts: CRPS, spread and skill, coverage, reliability.

Points, masks, weights and windows are those of `scigpt.evaluate.metrics`: one number per window and variable, float64 `(B, C)`, the mean
over the scored points of the window weighted by area; NaN where nothing is scored, infinite where a forecast is not finite. Heads that say
one thing of a window are scored the same way, `(B, 1, K, 1, 1, 1)` with a weight of ones.

A *distribution* is anything with `quantile(level)` (see `scigpt.model.heads.Distribution`) whose values are in the units of the truth.
Members `(M, B, F, C, Z, Y, X)` are those of an ensemble or draws of `sample`.

The CRPS (continuous ranked probability score, in the variable's unit, 0 is perfect) of a distribution function F at the truth y is
`integral (F(x) - [x >= y])^2 dx` (Gneiting and Raftery 2007, doi:10.1198/016214506000001437, equation 20); that of a single value is
`|v - y|`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scigpt.errors import UserError

MIDPOINTS = tuple((k + 0.5) / 50 for k in range(50))
"""Levels at which the CRPS of a distribution is integrated; of a normal distribution it is then 0.03 % too large in the mean."""

_INSIDE = (1, -3, -2, -1)


class HasQuantiles(Protocol):
    def quantile(self, level: float) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class SpreadSkill:
    """Float64 `(B, C)`, the first two in the variable's unit. The ratio of a reliable ensemble is 1, less means too sure of itself."""

    spread: Tensor
    skill: Tensor

    @property
    def ratio(self) -> Tensor:
        return self.spread / self.skill


def window_mean(values: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Mean over the scored points of each window, float64 `(B, C)`.

    Args:
        values: `(B, F, C, Z, Y, X)`; anything may stand where `mask` is False; elsewhere what is not finite is infinite.
        mask: bool, the same shape. weight: `(B, 1, 1, 1, Y, X)`.
    """
    shares = torch.where(mask, weight.double(), 0.0)
    finite = torch.where(values.isfinite(), values.double(), torch.inf)
    return torch.where(shares > 0, shares * finite, 0.0).sum(_INSIDE) / shares.sum(_INSIDE)


def crps_ensemble(members: Tensor, truth: Tensor, mask: Tensor, weight: Tensor, fair: bool = True) -> Tensor:
    """CRPS of an ensemble, `(B, C)`.

    `fair`: as if the ensemble had infinitely many members of its kind, with the pairs of different members alone (Ferro 2014,
    doi:10.1002/qj.2270); otherwise that of the members' own distribution function (Gneiting and Raftery 2007, equation 21).

    Raises:
        UserError: a fair score of fewer than two members.
    """
    count = _count(members, 2 if fair else 1)
    deviation = members.double() - truth.double()
    # the sum of x_j - x_i over the pairs i < j of sorted members is that of (2 i - M - 1) x_i
    factor = torch.arange(1 - count, count, 2, dtype=torch.float64, device=members.device).view(-1, *[1] * truth.ndim)
    apart = (factor * deviation.sort(0).values).sum(0)
    return window_mean(deviation.abs().mean(0) - apart / (count * (count - 1 if fair else count)), mask, weight)


def crps_gaussian(mean: Tensor, scale: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """CRPS of normal distributions, `(B, C)`: `s (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi))`, `z = (y - m) / s` (Gneiting and Raftery 2007,
    section 4.2). A standard deviation of 0 is a single value."""
    distance, size = (truth.double() - mean.double()).abs(), scale.double()
    z = torch.where(size == 0, torch.inf, distance / size)
    spread = size * (math.sqrt(2 / math.pi) * (-0.5 * z.square()).exp() - 1 / math.sqrt(math.pi))
    return window_mean(distance * torch.erf(z / math.sqrt(2)) + spread, mask, weight)


def crps_quantiles(values: Iterable[Tensor], levels: Sequence[float], truth: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Twice the mean pinball loss over the levels, `(B, C)`.

    The CRPS is twice the integral of the pinball loss over the level (Gneiting and Ranjan 2011, doi:10.1198/jbes.2010.08110), so this
    is the CRPS as far as the mean over `levels` is that integral; for a few levels it compares forecasts with the same levels only.

    Args:
        values: one tensor like the truth for each level.

    Raises:
        UserError: a level that is not between 0 and 1.
    """
    total = torch.zeros_like(truth, dtype=torch.float64)
    for level, value in zip(_checked(levels), values, strict=True):
        short = truth.double() - value.double()
        total += torch.maximum(level * short, (level - 1) * short)
    return window_mean(2 * total / len(levels), mask, weight)


def crps(distribution: HasQuantiles, truth: Tensor, mask: Tensor, weight: Tensor, levels: Sequence[float] = MIDPOINTS) -> Tensor:
    """CRPS of any distribution, `(B, C)`, integrated over its quantiles: `levels` are equal steps' midpoints. Exact for a single value."""
    return crps_quantiles((distribution.quantile(level) for level in levels), levels, truth, mask, weight)


def spread_skill(members: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> SpreadSkill:
    """Spread and error of an ensemble.

    Spread: root of `(M + 1) / M` times the mean variance (that with M - 1) of the members; skill: RMSE of their mean. So corrected the two
    are equal in expectation for members that are drawn as the truth is (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1).

    Raises:
        UserError: fewer than two members.
    """
    count = _count(members, 2)
    variance, mean = torch.var_mean(members.double(), 0)
    spread = window_mean((count + 1) / count * variance, mask, weight).sqrt()
    return SpreadSkill(spread, window_mean((mean - truth.double()).square(), mask, weight).sqrt())


def coverage(distribution: HasQuantiles, truth: Tensor, mask: Tensor, weight: Tensor, levels: Sequence[float]) -> Tensor:
    """Share of the truth in the central interval of each level, ends included, `(levels, B, C)`.

    Central: between the quantiles `(1 - level) / 2` and `(1 + level) / 2`. A reliable forecast has the level itself; what is not a number
    covers nothing.

    Raises:
        UserError: a level that is not between 0 and 1.
    """
    found = []
    for level in _checked(levels):
        low, high = (distribution.quantile((1 + sign * level) / 2) for sign in (-1, 1))
        found.append(window_mean((low <= truth) & (truth <= high), mask, weight))
    return torch.stack(found)


def calibration(distribution: HasQuantiles, truth: Tensor, mask: Tensor, weight: Tensor, levels: Sequence[float]) -> Tensor:
    """Share of the truth at or below the quantile of each level, `(levels, B, C)`; over the levels, the diagonal for a reliable forecast.

    Raises:
        UserError: a level that is not between 0 and 1.
    """
    return torch.stack([window_mean(truth <= distribution.quantile(level), mask, weight) for level in _checked(levels)])


def pit_histogram(distribution: HasQuantiles, truth: Tensor, mask: Tensor, weight: Tensor, bins: int = 10) -> Tensor:
    """Shares of the probability integral transform F(y) in equal bins, `(bins, B, C)`, sum 1.

    Flat for a reliable forecast, a U where it is too sure, a slope where it is biased (Gneiting, Balabdaoui and Raftery 2007,
    doi:10.1111/j.1467-9868.2007.00587.x).

    Raises:
        UserError: fewer than two bins.
    """
    if bins < 2:
        raise UserError(f"a histogram of {bins} bins says nothing of a forecast; expected 2 or more")
    below = calibration(distribution, truth, mask, weight, [k / bins for k in range(1, bins)])
    nothing = torch.zeros_like(below[:1])
    return torch.cat([nothing, below, torch.ones_like(nothing)]).diff(dim=0)


def rank_histogram(members: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Shares of the rank of the truth among the members, `(M + 1, B, C)`, sum 1; to be read as `pit_histogram`.

    A truth equal to some members counts in equal parts for every rank it may have (the expectation of ties broken at random; Hamill 2001).
    A member that is NaN is above.
    """
    count = _count(members, 1)
    below, equal = (members < truth).sum(0), (members == truth).sum(0)
    ranks = ((below <= rank) & (rank <= below + equal) for rank in range(count + 1))
    return torch.stack([window_mean(here / (equal + 1).double(), mask, weight) for here in ranks])


def _count(members: Tensor, least: int) -> int:
    """How many members there are.

    Raises:
        UserError: too few.
    """
    if len(members) < least:
        raise UserError(f"an ensemble of {len(members)} has no such score; expected {least} or more members along the first axis")
    return len(members)


def _checked(levels: Sequence[float]) -> Sequence[float]:
    """The levels.

    Raises:
        UserError: none, or one that is not between 0 and 1.
    """
    if not levels or not all(0 < level < 1 for level in levels):
        raise UserError(f"the levels of a forecast are {list(levels)}; expected one or more numbers between 0 and 1, both excluded")
    return levels
