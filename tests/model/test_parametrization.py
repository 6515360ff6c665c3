"""The coordinate check (Yang et al., arXiv:2203.03466, appendix D.1): what Adam changes in a few steps is as large in a wide or deep model
as in a small one, and is not so with one learning rate for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import VOCABULARY, make_batch

from scigpt.model.backbone import ModelConfig, SciGPT
from scigpt.model.parametrization import learning_rate_scale, residual_share
from scigpt.train.optim import AdamW, OptimConfig

STEPS, RATE = 6, 3e-3
SIZES = {"width": [(128, 3), (256, 3), (512, 3)], "depth": [(64, 4), (64, 8), (64, 16)]}


@contextmanager
def stream(model: SciGPT) -> Iterator[list[Tensor]]:
    """The tokens after the last block, of every forward pass."""
    seen: list[Tensor] = []
    hook = model.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    yield seen
    hook.remove()


def changes(width: int, depth: int, scaled: bool) -> dict[str, float]:
    """RMS of what a few steps have changed in the last block's tokens and in the output."""
    model = SciGPT(ModelConfig(depth=depth, width=width, heads=width // 32), VOCABULARY)
    groups = model.parameter_groups()
    if not scaled:
        groups = [{**g, "lr_scale": 1.0} for g in groups]
        for block in model.blocks:
            block.share = 1.0  # type: ignore[assignment]
            for part in (block.space.out, block.time.out, block.down):  # type: ignore[union-attr]
                with torch.no_grad():
                    part.weight.mul_(residual_share(depth) ** 0.5)  # type: ignore[union-attr, operator, arg-type]
    optimizer = AdamW(groups, OptimConfig(lr=RATE))
    optimizer.set_rate(RATE)
    batch = make_batch((3, 1, 16, 16))
    with stream(model) as seen:
        for _ in range(STEPS):
            prediction = model(batch)
            optimizer.zero_grad()
            (prediction.raw - prediction.normalized.target).square().mean().backward()
            optimizer.inner.step()
        raw = model(batch).raw
    return {"stream": float((seen[-1] - seen[0]).square().mean().sqrt()), "output": float(raw.detach().square().mean().sqrt())}


def slopes(dial: str, scaled: bool) -> dict[str, float]:
    """Exponent with which the changes grow along the dial."""
    found = [changes(width, depth, scaled) for width, depth in SIZES[dial]]
    along = [math.log(size[dial == "depth"]) for size in SIZES[dial]]
    return {name: float(np.polyfit(along, [math.log(f[name]) for f in found], 1)[0]) for name in found[0]}


@pytest.mark.parametrize("dial", ["width", "depth"])
def test_coordinate_check(dial: str) -> None:
    with_rule, without = slopes(dial, True), slopes(dial, False)
    assert max(map(abs, with_rule.values())) < 0.25, with_rule
    assert without["stream"] > max(0.3, 2 * abs(with_rule["stream"])), without


def test_nano_is_the_reference() -> None:
    assert learning_rate_scale(128) == learning_rate_scale(64) == residual_share(4) == residual_share(2) == 1.0
    assert (learning_rate_scale(512), residual_share(16)) == (0.25, 0.25)
