"""The training objective: the mean error over the valid targets of a group, whatever the split into micro-batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scigpt.data.batches import Batch

if TYPE_CHECKING:
    from scigpt.model.backbone import Prediction
    from scigpt.model.heads import Forecast


def target_weight(batch: Batch) -> Tensor:
    """What each target counts, float32 `(B, T-1, C, Z, Y, X)`: its area where it is valid and of a predicted variable, else 0."""
    predicted = torch.tensor([v.predicted for v in batch.layout.variables], device=batch.valid.device).view(1, 1, -1, 1, 1, 1)
    return batch.weight * (batch.valid[:, 1:] & predicted)


def group_weight(batches: Iterable[Batch]) -> float:
    """Sum of `target_weight` over micro-batches. Over a whole group it is what its loss is divided by, known before the first pass."""
    return sum(float(target_weight(b).sum(dtype=torch.float64)) for b in batches)


@dataclass(frozen=True, slots=True)
class Share:
    """One micro-batch's share of its group's mean.

    Args:
        loss: scalar; summed over the micro-batches it is the mean over the group, and so is its gradient.
        errors, weights: detached `(C,)`, sums of weighted errors and of weights per variable.
    """

    loss: Tensor
    errors: Tensor
    weights: Tensor


def share_of_loss(prediction: Prediction, head: Forecast, total: float) -> Share:
    """The share of a micro-batch in the mean over its group, whose `group_weight` (over all processes) is `total`."""
    weight = target_weight(prediction.batch)
    error = head.error(prediction.distribution, prediction.normalized.target)
    # where, not a product: what the model says at a point without a target must not matter even if it is not finite
    errors = torch.where(weight > 0, error * weight, 0.0).sum((0, 1, 3, 4, 5))
    return Share(errors.sum() / total, errors.detach(), weight.sum((0, 1, 3, 4, 5)))
