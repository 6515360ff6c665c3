"""Errors of forecasts: VRMSE, nRMSE, relative L2, RMSE and maximum, masked by validity and weighted by area, accumulated in float64.

One rule serves maps, volumes, stations and single series. A **window** is a run of frames of one record, `S` its scored points: the
valid points of the scored frames, each with its area weight `w`. (The Well, arXiv:2412.00568, takes the variance over the space of
each frame, which a series of one point does not have.) For truth `u`, forecast `v` and the window's own mean `m = sum_S w u / sum_S w`:

    MSE   = sum_S w (v - u)^2 / sum_S w
    RMSE  = sqrt(MSE)                                   in the variable's unit
    nRMSE = sqrt(MSE / (sum_S w u^2 / sum_S w))         1 for the forecast 0
    VRMSE = sqrt(MSE / (sum_S w (u - m)^2 / sum_S w))   1 for the forecast m
    maximum = max_S |v - u|                             in the variable's unit

The relative L2 error `||v - u|| / ||u||` is that of single frames, each with its own norms as in papers on neural operators (FNO,
arXiv:2010.08895), and then the mean over the scored frames; with the norms of the whole window it would be the nRMSE again.

The score of a split is the mean over its windows (and the median beside it). By lead time, the MSE is that of one frame and the
denominator that of the whole window, so that the curves of a series are defined too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scigpt.data.batches import Batch

CONSTANT = 1e-6
"""A window whose standard deviation is below this share of its RMS is constant to float32 rounding: its VRMSE is undefined."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One number per window and variable, float64 `(B, C)`: NaN where undefined, infinite where the forecast is not finite."""

    rmse: Tensor
    nrmse: Tensor
    vrmse: Tensor
    relative_l2: Tensor
    maximum: Tensor


def scored(batch: Batch) -> Tensor:
    """Which one-step predictions count, bool `(B, T-1, C, Z, Y, X)`; entry `t` is frame `t + 1`.

    Valid points of predicted variables in frames with two or more frames of context (index 2 and later); in a steady problem
    those of the one solution.
    """
    predicted = torch.tensor([v.predicted for v in batch.layout.variables], device=batch.valid.device).view(1, 1, -1, 1, 1, 1)
    mask = batch.valid[:, 1:] & predicted
    if not batch.layout.steady:
        mask[:, 0] = False
    return mask


def score(prediction: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> Scores:
    """Scores of each window.

    Args:
        prediction, truth: `(B, F, C, Z, Y, X)` in physical units; anything (NaN too) may stand where `mask` is False.
        mask: bool, the same shape. weight: `(B, 1, 1, 1, Y, X)`.
    """
    mean_square, mass = squared_error(prediction, truth, mask, weight)
    total = mass.sum(1)
    mse = torch.where(mass > 0, mean_square * mass, 0.0).sum(1) / total
    variance, power = spread(truth, mask, weight)
    # a frame that is zero throughout has no relative error
    size = torch.where(mask, weight.double() * truth.double().square(), 0.0).sum((-3, -2, -1)) / mass
    relative = (mean_square / torch.where(size > 0, size, torch.nan)).sqrt()
    distance = (prediction.double() - truth.double()).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    most = torch.where(mask, distance, 0.0).amax((1, -3, -2, -1))
    return Scores(
        rmse=mse.sqrt(),
        nrmse=(mse / power).sqrt(),
        vrmse=(mse / variance).sqrt(),
        relative_l2=relative.nanmean(1),
        maximum=torch.where(total > 0, most, torch.nan),
    )


def vrmse_by_frame(prediction: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """VRMSE of each frame against the variance of its window, float64 `(B, F, C)`; arguments as of `score`."""
    mean_square, _ = squared_error(prediction, truth, mask, weight)
    variance, _ = spread(truth, mask, weight)
    return (mean_square / variance[:, None]).sqrt()


def squared_error(prediction: Tensor, truth: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error and the weight it stands for, both float64 `(B, F, C)`; NaN where nothing is scored."""
    space = (-3, -2, -1)
    shares = torch.where(mask, weight.double(), 0.0)
    difference = torch.where(mask, prediction.double() - truth.double(), 0.0)
    # a forecast that is not a number is infinitely wrong; NaN is kept for "nothing to score"
    squares = torch.nan_to_num(difference.square(), nan=torch.inf, posinf=torch.inf)
    mass = shares.sum(space)
    return torch.where(shares > 0, shares * squares, 0.0).sum(space) / mass, mass


def spread(truth: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean square of the truth over the scored points of each window, float64 `(B, C)`; NaN where zero or undefined."""
    inside = (1, -3, -2, -1)
    shares = torch.where(mask, weight.double(), 0.0)
    values = torch.where(mask, truth.double(), 0.0)
    mass = shares.sum(inside)
    mean = (shares * values).sum(inside) / mass
    variance = (shares * (values - mean[:, None, :, None, None, None]).square()).sum(inside) / mass
    power = (shares * values.square()).sum(inside) / mass
    return torch.where(variance > CONSTANT**2 * power, variance, torch.nan), torch.where(power > 0, power, torch.nan)


def survival(curve: Tensor, limit: float = 1.0) -> Tensor:
    """Steps a forecast lasts: frames before its VRMSE first exceeds `limit`, float64, from a curve `(B, F, C)` to `(B, C)`.

    F where it never does; NaN where the curve is undefined throughout.
    """
    beyond = torch.where(curve.isnan(), False, ~(curve <= limit))
    first = torch.where(beyond.any(1), beyond.to(torch.int64).argmax(1), curve.shape[1]).double()
    return torch.where(curve.isnan().all(1), torch.nan, first)
