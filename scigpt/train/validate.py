"""Validation inside a run: one-step loss and VRMSE of fixed windows. Baselines and rollouts are `scigpt evaluate`'s."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.evaluate.metrics import score, scored
from scigpt.train.journal import number
from scigpt.train.objective import target_weight
from scigpt.train.strategies import Strategy

if TYPE_CHECKING:
    from scigpt.model.backbone import SciGPT


@torch.no_grad()
def validate(model: SciGPT, strategy: Strategy, batches: Iterable[Batch]) -> dict[str, float | None]:
    """`windows`; `loss`, the training objective over all of them; `vrmse`, the mean over windows and variables where it is defined
    (`scigpt.evaluate.metrics`). None where there is nothing to score."""
    errors, weights, windows = 0.0, 0.0, 0
    scores: list[Tensor] = []
    for batch in map(strategy.place, batches):
        with strategy.autocast():
            prediction = model(batch)
        weight = target_weight(batch)
        error = model.head.error(prediction.distribution, prediction.normalized.target)
        errors += float(torch.where(weight > 0, error * weight, 0.0).sum(dtype=torch.float64))
        weights += float(weight.sum(dtype=torch.float64))
        windows += len(batch)
        found = score(prediction.physical(), batch.values[:, 1:], scored(batch), batch.weight).vrmse
        scores.append(found[~found.isnan()])
    defined = torch.cat(scores) if scores else torch.empty(0)
    return {
        "loss": number(errors / weights) if weights else None,
        "vrmse": number(float(defined.mean())) if defined.numel() else None,
        "windows": windows,
    }
