"""Scores of fields as images, for super-resolution: PSNR, SSIM and RFNE, the three of SuperBench (arXiv:2306.14070).

A **snapshot** is one frame of one variable of one window, `u` its truth and `v` the prediction. Every point counts alike, with no area
weights, as in papers on images. The score of a window is the mean over its snapshots, float64 `(B, C)`; NaN where none has one. The
conventions, which differ from paper to paper:

    L    = max u - min u over the valid points of the snapshot (of the whole volume where Z > 1)
    PSNR = 10 log10(L^2 / mean (v - u)^2)     dB, infinite where v = u; over valid points; none where the truth is constant
    RFNE = ||v - u|| / ||u||                  over valid points; none where u = 0
    SSIM = mean of (2 mu_u mu_v + (K1 L)^2) (2 s_uv + (K2 L)^2) / ((mu_u^2 + mu_v^2 + (K1 L)^2) (s_u^2 + s_v^2 + (K2 L)^2))

SSIM is that of Wang et al. 2004 (doi:10.1109/TIP.2003.819861, equation 13): means mu, variances and covariance s under a Gaussian window of
11 x 11 points and standard deviation 1.5, K1 = 0.01, K2 = 0.03, at every place where the whole window lies within the field (no padding,
periodic or not). It is taken of each X-Y slice and averaged over Z. A slice with an invalid point, with a constant truth in its snapshot,
or with fewer than 11 points along X or Y has none.

A prediction that is not finite has PSNR -inf, RFNE inf and SSIM -1, its least value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scigpt.evaluate.metrics import CONSTANT, squared_error

SIZE = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, `(B, C)`.

    Args:
        prediction, truth: `(B, F, C, Z, Y, X)` in physical units; anything may stand where `mask` is False.
        mask: bool, the same shape.
    """
    mean_square, _ = squared_error(prediction, truth, mask, _alike(truth))
    decibels = 10 * (data_range(truth, mask).square() / mean_square).log10()
    # a perfect frame does not make up for a broken one
    return torch.where((decibels == -torch.inf).any(1), -torch.inf, decibels.nanmean(1))


def rfne(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Relative Frobenius norm error, `(B, C)`; arguments as of `psnr`."""
    mean_square, _ = squared_error(prediction, truth, mask, _alike(truth))
    power, _ = squared_error(torch.zeros_like(truth), truth, mask, _alike(truth))
    return (mean_square / torch.where(power > 0, power, torch.nan)).sqrt().nanmean(1)


def ssim(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity, at most 1, `(B, C)`; arguments as of `psnr`."""
    batch, _, variables, _, *plane = truth.shape
    if min(plane) < SIZE:
        return torch.full((batch, variables), torch.nan, dtype=torch.float64, device=truth.device)
    extent = data_range(truth, mask)[..., None, None, None]
    # variances are those of anomalies, which keeps the digits of a small variation on a large mean
    level = torch.where(mask, truth.double(), 0.0).mean((-2, -1), keepdim=True)
    u, v = truth.double() - level, prediction.double() - level
    mean_u, mean_v, square_u, square_v, product = (_blurred(field) for field in (u, v, u * u, v * v, u * v))
    variances, covariance = square_u - mean_u.square() + square_v - mean_v.square(), product - mean_u * mean_v
    mean_u, mean_v = mean_u + level, mean_v + level
    c1, c2 = (K1 * extent).square(), (K2 * extent).square()
    luminance = (2 * mean_u * mean_v + c1) / (mean_u.square() + mean_v.square() + c1)
    similarity = (luminance * (2 * covariance + c2) / (variances + c2)).mean((-2, -1)).nan_to_num(nan=-1.0)
    defined = mask.all(-1).all(-1) & ~extent[..., 0, 0].isnan()
    return torch.where(defined, similarity, torch.nan).nanmean((1, 3))


def data_range(truth: Tensor, mask: Tensor) -> Tensor:
    """Largest less smallest valid value of each snapshot, float64 `(B, F, C)`; NaN where the truth is constant to rounding or not there."""
    space = (-3, -2, -1)
    values = truth.double()
    high = torch.where(mask, values, -torch.inf).amax(space)
    low = torch.where(mask, values, torch.inf).amin(space)
    return torch.where(high - low > CONSTANT * torch.maximum(high.abs(), low.abs()), high - low, torch.nan)


def _alike(truth: Tensor) -> Tensor:
    return torch.ones(1, 1, 1, 1, 1, 1, device=truth.device)


def _blurred(field: Tensor) -> Tensor:
    """Under the Gaussian window, `(B, F, C, Z, Y, X)` to `(B, F, C, Z, Y - 10, X - 10)`."""
    distance = torch.arange(SIZE, dtype=field.dtype, device=field.device) - SIZE // 2
    window = (-0.5 * (distance / SIGMA).square()).exp()
    window = window / window.sum()
    images = field.reshape(-1, 1, *field.shape[-2:])
    blurred = F.conv2d(F.conv2d(images, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return blurred.view(*field.shape[:-2], *blurred.shape[-2:])
