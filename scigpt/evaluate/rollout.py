"""Free-running forecasts: the model is fed its own predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.keyed import key, uniform
from scigpt.data.sample import SPACE_AXES
from scigpt.errors import UserError
from scigpt.model.backbone import Cache

Method = Literal["recompute", "cache", "sliding"]


class Forecast(Protocol):
    """What a model returns; see `scigpt.model.backbone.Prediction`."""

    def physical(self) -> Tensor: ...


class Model(Protocol):
    """What is evaluated: entry `t` of `model(batch).physical()` is frame `t + 1`, predicted from the frames up to `t`."""

    def __call__(self, batch: Batch) -> Forecast: ...


def hide(batch: Batch, context: int) -> Batch:
    """The batch with what a forecaster at frame `context` cannot know made invalid: predicted variables of that frame and later."""
    predicted = torch.tensor([v.predicted for v in batch.layout.variables], device=batch.valid.device).view(1, 1, -1, 1, 1, 1)
    later = torch.arange(batch.valid.shape[1], device=batch.valid.device).view(1, -1, 1, 1, 1, 1) >= context
    valid = batch.valid & ~(predicted & later)
    return replace(batch, valid=valid, values=torch.where(valid, batch.values, 0.0))


def rollout(
    model: Model, batch: Batch, context: int, steps: int, window: int, jitter: bool = False, method: Method = "recompute"
) -> Tensor:
    """Forecast `steps` frames from the first `context` frames; see `forecasts`.

    Returns:
        Physical values `(B, steps, C, Z, Y, X)`; meaningless for variables that are not predicted.

    Raises:
        UserError: a context or horizon that the batch cannot hold.
    """
    return torch.stack(list(forecasts(model, batch, context, steps, window, jitter, method)), dim=1)


def forecasts(
    model: Any,
    batch: Batch,
    context: int,
    steps: int,
    window: int,
    jitter: bool = False,
    method: Method = "recompute",
    choose: Callable[[Any, int], Tensor] = lambda prediction, step: prediction.physical()[:, -1],
) -> Iterator[Tensor]:
    """Forecast frame after frame from the first `context` frames.

    The true state is hidden first, forcing and static variables stay. Every step writes its prediction into the next frame, at the points
    that were valid at some time of the context (land stays land).

    Args:
        batch: at least `context + steps` frames.
        window: frames that the model has been trained to see.
        jitter: show the model each step moved by another part of a patch along the periodic axes of a plane, so that the errors at the
            edges of patches do not pile up (patch jitter, McCabe et al., arXiv:2511.15684); what is kept in a cache is of one shift, so it
            changes when the cache begins anew. The shifts are keyed by the step.
        method: recompute: the model is shown the last `window` frames in every step. cache: it keeps what it has computed of them, and
            begins anew from the last half of the window when it has seen a whole one. sliding: it keeps that for ever, and attention
            reaches as far back as the model's configuration says; beyond the trained window it drifts.
        choose: from a prediction and the number of the step to the physical values `(B, C, Z, Y, X)` that are told and fed back.

    Yields:
        Physical values `(B, C, Z, Y, X)` of one frame; meaningless for variables that are not predicted.

    Raises:
        UserError: a context or horizon that the batch cannot hold.
    """
    frames = batch.values.shape[1]
    if context < 1 or steps < 1 or window < 1 or context + steps > frames:
        raise UserError(
            f"corpus {batch.corpus!r}: a rollout of {steps} steps after {context} frames with a window of {window} does not fit a record "
            f"of {frames} frames; each must be at least 1 and context + steps at most the record"
        )
    known = hide(batch.frames(slice(0, context + steps)), context)
    values, valid = list(known.values.unbind(1)), list(known.valid.unbind(1))
    predicted = [c for c, v in enumerate(batch.layout.variables) if v.predicted]
    domain = known.valid[:, :context, predicted].any(1)
    cache: Cache | None = None
    shift: tuple[int, ...] = (0, 0, 0)
    for target in range(context, context + steps):
        past, options, anew = window, {}, True
        if method != "recompute":
            if cache is None:
                cache = Cache()
            elif method == "cache" and cache.frames >= window:
                cache, past = Cache(), (window + 1) // 2
            else:
                past, anew = 1, False
            options = {"cache": cache}
        span = slice(max(0, target - past), target + 1)
        seen = replace(known.frames(span), values=torch.stack(values[span], 1), valid=torch.stack(valid[span], 1))
        shift = _shift(batch, target) if jitter and anew else shift
        with torch.no_grad():
            forecast = choose(model(seen.shifted(shift) if jitter else seen, **options), target - context).to(values[0].dtype)
        forecast = forecast.roll(tuple(-s for s in shift), (2, 3, 4)) if jitter else forecast
        yield forecast
        values[target], valid[target] = values[target].clone(), valid[target].clone()
        values[target][:, predicted] = torch.where(domain, forecast[:, predicted], 0.0)
        valid[target][:, predicted] = domain


def _shift(batch: Batch, step: int) -> tuple[int, ...]:
    """Points to move by along (Z, Y, X): less than a patch, 0 where the axis is not periodic or the geometry knows places."""
    if batch.layout.geometry != "plane":
        return (0, 0, 0)
    draws = uniform(np.arange(3), np.array(batch.patch), key("rollout", step))
    return tuple(int(d) if batch.layout.boundary.periodic(a) else 0 for a, d in zip(SPACE_AXES, draws, strict=True))
