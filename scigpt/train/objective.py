"""The training objective: the mean error over the valid targets of a group, whatever the split into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scigpt.data.batches import Batch, target_weight

if TYPE_CHECKING:
    from scigpt.model.backbone import Prediction
    from scigpt.model.heads import Head


def group_weight(batches: Iterable[Batch], weight: Callable[[Batch], Tensor] = target_weight) -> float:
    """Sum of a head's `weight` over micro-batches. Over a whole group it is what its loss is divided by, known before the first pass."""
    # rows first: the same whatever the split, and a sum in float64 alone takes three times as long
    return sum(float(weight(b).sum(-1).sum(dtype=torch.float64)) for b in batches)


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


def share_of_loss(prediction: Prediction, head: Head, total: float) -> Share:
    """The share of a micro-batch in the mean over its group, whose `group_weight` (over all processes) is `total`."""
    weight = head.weight(prediction.batch)
    error = head.error(prediction.distribution, head.target(prediction.normalized, prediction.batch))
    # where, not a product: what the model says at a point without a target must not matter even if it is not finite
    errors = torch.where(weight > 0, error * weight, 0.0).sum((0, 1, 3, 4, 5))
    return Share(errors.sum() / total, errors.detach(), weight.sum((0, 1, 3, 4, 5)))
