"""Drift of conserved quantities over a rollout: the area-weighted mean (the integral over the area) and the mean square (energy-like).

Both are taken over the points that are valid in the last frame given and in the frame compared with it. The drift of the mean is
relative to the RMS of that first frame (a mean may be zero), the drift of the mean square relative to its own first value. The truth's
own drift stands beside: a forced or dissipative field changes, and a forecast should change with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Drift:
    """Signed relative drift at each lead, float64 `(B, F)`; NaN where nothing is valid or the field is zero."""

    mean: Tensor
    mean_square: Tensor


def drift(first: Tensor, later: Tensor, first_valid: Tensor, later_valid: Tensor, weight: Tensor) -> Drift:
    """From the last frame given `(B, 1, Z, Y, X)` to the frames after it `(B, F, Z, Y, X)`; `weight` `(B, 1, 1, Y, X)`."""
    both = first_valid & later_valid
    shares = torch.where(both, weight.double(), 0.0)
    space = (-3, -2, -1)

    def moments(field: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.where(both, field.double(), 0.0)
        total = shares.sum(space)
        return (shares * values).sum(space) / total, (shares * values.square()).sum(space) / total

    (mean_then, square_then), (mean_now, square_now) = moments(first.expand_as(later)), moments(later)
    size = torch.where(square_then > 0, square_then, torch.nan)
    found = Drift((mean_now - mean_then) / size.sqrt(), (square_now - square_then) / size)
    there = shares.sum(space) > 0
    # the mean of a forecast that is not a number has drifted without bounds
    known = [d.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf) for d in (found.mean, found.mean_square)]
    return Drift(*(torch.where(there & (size > 0), d, torch.nan) for d in known))
