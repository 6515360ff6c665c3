"""Forecasts that need no model, always shown beside it.

Each is a level and a slope at every point, known at frame `t` from the frames up to `t`: the forecast for a later instant is
`level + slope * (time since t)`. Where nothing was observed yet, all of them fall back on the training mean. (They see the past of
diagnostic variables, which the model does not.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scigpt.data.batches import Batch


@dataclass(frozen=True, slots=True)
class Baseline:
    """`level` and `slope` (per unit of time) after each frame, float64 `(B, T, C, Z, Y, X)`."""

    level: Tensor
    slope: Tensor

    def one_step(self, batch: Batch) -> Tensor:
        """Forecasts of the frames `1 .. T-1`, each from the frames before it: `(B, T-1, C, Z, Y, X)`."""
        return self.level[:, :-1] + self.slope[:, :-1] * _wide(batch.seconds.diff(dim=1))

    def rollout(self, batch: Batch, context: int) -> Tensor:
        """Forecasts of the frames from `context` on, all made from the frames before it: `(B, T - context, C, Z, Y, X)`."""
        last = slice(context - 1, context)
        return self.level[:, last] + self.slope[:, last] * _wide(batch.seconds[:, context:] - batch.seconds[:, last])


def persistence(batch: Batch) -> Baseline:
    """The last valid value of each point."""
    level = _last_valid(batch)
    return Baseline(level, torch.zeros_like(level))


def linear(batch: Batch) -> Baseline:
    """Linear extrapolation in time, `2 u_t - u_(t-1)` at a constant step; persistence where one of the two is invalid."""
    level, slope = _last_valid(batch), torch.zeros_like(batch.values, dtype=torch.float64)
    both = batch.valid[:, 1:] & batch.valid[:, :-1]
    elapsed = _wide(batch.seconds.diff(dim=1))
    # no time passes between the frames of a steady problem, and there is nothing to extrapolate
    slope[:, 1:] = torch.where(both & (elapsed > 0), batch.values.double().diff(dim=1) / elapsed, 0.0)
    return Baseline(level, slope)


def mean(batch: Batch) -> Baseline:
    """The training mean of the variable (taken in its transform space, as the corpus's statistics are)."""
    level = _training_mean(batch)
    return Baseline(level, torch.zeros_like(level))


def trailing_mean(batch: Batch) -> Baseline:
    """The mean of the valid values of each point in the window so far."""
    total = torch.where(batch.valid, batch.values.double(), 0.0).cumsum(1)
    count = batch.valid.cumsum(1)
    level = torch.where(count > 0, total / count.clamp(min=1), _training_mean(batch))
    return Baseline(level, torch.zeros_like(level))


BASELINES: Mapping[str, Callable[[Batch], Baseline]] = {
    "persistence": persistence,
    "linear": linear,
    "mean": mean,
    "trailing mean": trailing_mean,
}


def baselines_for(batch: Batch) -> dict[str, Baseline]:
    """Every baseline that makes sense: for a steady problem, whose state is never seen, only the mean; in super-resolution, where the state
    is seen coarsely, its interpolation too."""
    found = {name: build(batch) for name, build in BASELINES.items() if not batch.layout.steady or name == "mean"}
    return {"interpolation": persistence(batch), **found} if batch.layout.steady and batch.truth is not None else found


NEAREST = 3
MAX_PLACES = 4096
"""Above so many, the distances of all pairs are too many to be sought for a baseline."""


def filled_in(batch: Batch, channel: int, seen: int) -> dict[str, Tensor]:
    """What needs no model where places are hidden (see `scigpt.data.reconstruction`), frames `1 .. T-1`, `(B, T-1, 1, Z, Y, X)`: the
    training mean; of stations also the mean of the three nearest that have a value at the time (great circles; the training mean where
    none has).

    Args:
        channel, seen: of the batch: what is asked, and what shows the other places.
    """
    mean = _training_mean(batch)[:, 1:, channel : channel + 1]
    if batch.layout.geometry != "points" or batch.values.shape[-1] > MAX_PLACES:
        return {"mean": mean}
    assert batch.latitude is not None
    assert batch.longitude is not None
    found = mean.clone()
    for b in range(len(batch)):
        phi, lam = (torch.deg2rad(t[b, 0].double()) for t in (batch.latitude, batch.longitude))
        place = torch.stack([phi.cos() * lam.cos(), phi.cos() * lam.sin(), phi.sin()], -1)
        apart = 1 - place @ place.T  # rises with the distance on the globe
        asked = batch.valid[b, :, channel, 0, 0].any(0).nonzero()[:, 0]
        for t in range(1, batch.values.shape[1]):
            there = batch.valid[b, t, seen, 0, 0].nonzero()[:, 0]
            if len(there) and len(asked):
                near = apart[asked][:, there].topk(min(NEAREST, len(there)), largest=False).indices
                found[b, t - 1, 0, 0, 0, asked] = batch.values[b, t, seen, 0, 0, there].double()[near].mean(1)
    return {"nearest three": found, "mean": mean}


def _wide(seconds: Tensor) -> Tensor:
    return seconds.double()[..., None, None, None, None]


def _training_mean(batch: Batch) -> Tensor:
    center = batch.scales.inverse(torch.zeros(1, 1, len(batch.layout.variables), 1, 1, 1, dtype=torch.float64, device=batch.values.device))
    return center.expand(batch.values.shape)


def _last_valid(batch: Batch) -> Tensor:
    """Each point's latest valid value, carried forward; the training mean before the first."""
    frame = torch.arange(batch.values.shape[1], device=batch.values.device).view(1, -1, 1, 1, 1, 1)
    latest = torch.where(batch.valid, frame, -1).cummax(1).values
    carried = batch.values.double().gather(1, latest.clamp(min=0))
    return torch.where(latest >= 0, carried, _training_mean(batch))
