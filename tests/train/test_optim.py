"""The learning rate as a function of the step, and the groups and state of AdamW."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scigpt.train.optim import AdamW, OptimConfig


def test_warm_up_stable_decay() -> None:
    config = OptimConfig(lr=1.0, warmup=10, decay=0.2, shape="sqrt")
    rates = [config.learning_rate(i, 100) for i in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[9:81] == [1.0] * 72
    assert rates[85] == pytest.approx(1 - (5 / 20) ** 0.5)
    assert 0 < rates[99] < 0.03
    linear = OptimConfig(lr=1.0, warmup=10, decay=0.2, shape="linear")
    assert linear.learning_rate(90, 100) == pytest.approx(0.5)


@given(st.integers(1, 500), st.integers(0, 600), st.floats(0, 1), st.sampled_from(["sqrt", "linear"]))
def test_every_rate_is_above_zero_and_at_most_the_peak(steps: int, warmup: int, decay: float, shape: str) -> None:
    config = OptimConfig(lr=0.5, warmup=warmup, decay=decay, shape=shape)  # type: ignore[arg-type]
    rates = [config.learning_rate(i, steps) for i in range(steps)]
    assert all(0 < r <= 0.5 for r in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def layers() -> tuple[torch.nn.Linear, AdamW]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    groups = [
        {"names": ["weight"], "params": [layer.weight], "lr_scale": 0.5, "decay": True},
        {"names": ["bias"], "params": [layer.bias], "lr_scale": 1.0, "decay": False},
    ]
    return layer, AdamW(groups, OptimConfig(lr=0.1, weight_decay=0.3))


def test_groups_have_their_rate_and_decay() -> None:
    _, optimizer = layers()
    optimizer.set_rate(0.2)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.inner.param_groups] == [(0.1, 0.6), (0.2, 0.0)]
