"""Validation inside a run: one-step loss and VRMSE of fixed windows. Baselines and rollouts are `scigpt evaluate`'s."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from scigpt.data.batches import Batch
from scigpt.evaluate.metrics import score, scored
from scigpt.model.backbone import Prediction
from scigpt.model.heads import Head
from scigpt.train.journal import number
from scigpt.train.processes import Processes
from scigpt.train.strategies import Strategy


def sums(prediction: Prediction, head: Head) -> tuple[float, float, float, int]:
    """Over a batch: weighted errors, their weights, VRMSE of windows and variables where it is defined, and their number."""
    batch = prediction.batch
    weight = head.weight(batch)
    error = head.error(prediction.distribution, head.target(prediction.normalized, batch))
    errors = float(torch.where(weight > 0, error * weight, 0.0).sum(dtype=torch.float64))
    weights = float(weight.sum(dtype=torch.float64))
    if batch.answers is not None:  # of whole windows: there is no field to score
        return errors, weights, 0.0, 0
    found = score(prediction.physical(), batch.target_values(), scored(batch), batch.weight).vrmse
    found = found[~found.isnan()]
    return errors, weights, float(found.sum(dtype=torch.float64)), found.numel()


@torch.no_grad()
def validate(strategy: Strategy, processes: Processes, batches: Iterable[Batch]) -> dict[str, float | None]:
    """`windows`; `loss`, the training objective over all of them; `vrmse`, the mean over windows and variables where it is defined
    (`scigpt.evaluate.metrics`). None where there is nothing to score.

    `batches` are this process's part, as many as every other's; the result is that of all of them.
    """
    total = [0.0] * 5
    for batch in map(strategy.place, batches):
        with strategy.autocast():
            prediction = strategy.forward(batch)
        here = (*sums(prediction, strategy.model.head), int(batch.valid.flatten(1).any(1).sum()))
        total = [a + b for a, b in zip(total, here, strict=True)]
    errors, weights, scores, of, count = processes.total(total)
    return {
        "loss": number(errors / weights) if weights else None,
        "vrmse": number(scores / of) if of else None,
        "windows": int(count),
    }
