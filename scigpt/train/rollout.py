"""Training on forecasts of forecasts: the push-forward trick (Brandstetter et al., arXiv:2202.03376, section 3.2), all frames at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from scigpt.data.batches import Batch
from scigpt.model.backbone import Prediction

CONTEXT = 2
"""First frames of a window that stay true."""


@torch.no_grad()
def push_forward(forward: Callable[[Batch], Prediction], batch: Batch, passes: int) -> Batch:
    """The batch with its frames from `CONTEXT` on replaced by forecasts; `truth` keeps what they are to be forecasts of.

    Every pass forecasts all frames from those that the pass before has left. Time is causal, so after `passes` of them the frame
    `CONTEXT + k` is the k + 1 steps long free-running forecast for k < `passes`, and a forecast `passes` steps long beyond: one more pass,
    with gradient, then trains rollouts of 1 to `passes + 1` steps.
    """
    if passes < 1 or batch.values.shape[1] <= CONTEXT:
        return batch
    truth, pushed = batch.target_values(), batch
    whole = torch.cat([batch.values[:, :1], truth], 1)
    predicted = [c for c, v in enumerate(batch.layout.variables) if v.predicted]
    for _ in range(passes):
        forecast = forward(pushed).physical()[:, CONTEXT - 1 :, predicted].to(whole.dtype)
        values = batch.values.clone()
        values[:, CONTEXT:, predicted] = torch.where(batch.valid[:, CONTEXT:, predicted], forecast, 0.0)
        pushed = replace(batch, values=values, truth=whole)
    return pushed
