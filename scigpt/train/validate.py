"""Validation inside a run: one-step loss and VRMSE of fixed windows. Baselines and rollouts are `scigpt evaluate`'s."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from scigpt.data.batches import Batch
from scigpt.evaluate.metrics import score, scored
from scigpt.train.journal import number
from scigpt.train.processes import Processes
from scigpt.train.strategies import Strategy


@torch.no_grad()
def validate(strategy: Strategy, processes: Processes, batches: Iterable[Batch]) -> dict[str, float | None]:
    """`windows`; `loss`, the training objective over all of them; `vrmse`, the mean over windows and variables where it is defined
    (`scigpt.evaluate.metrics`). None where there is nothing to score.

    `batches` are this process's part, as many as every other's; the result is that of all of them.
    """
    errors, weights, windows, scores, defined = 0.0, 0.0, 0, 0.0, 0
    for batch in map(strategy.place, batches):
        with strategy.autocast():
            prediction = strategy.forward(batch)
        head = strategy.model.head
        weight = head.weight(batch)
        error = head.error(prediction.distribution, head.target(prediction.normalized, batch))
        errors += float(torch.where(weight > 0, error * weight, 0.0).sum(dtype=torch.float64))
        weights += float(weight.sum(dtype=torch.float64))
        windows += int(batch.valid.flatten(1).any(1).sum())
        if batch.answers is not None:  # of whole windows: there is no field to score
            continue
        found = score(prediction.physical(), batch.target_values(), scored(batch), batch.weight).vrmse
        found = found[~found.isnan()]
        scores, defined = scores + float(found.sum(dtype=torch.float64)), defined + found.numel()
    errors, weights, count, scores, of = processes.total([errors, weights, windows, scores, defined])
    return {
        "loss": number(errors / weights) if weights else None,
        "vrmse": number(scores / of) if of else None,
        "windows": int(count),
    }
