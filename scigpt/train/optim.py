"""AdamW and the learning rate: warm-up, a stable phase, decay; every step's rate is a function of its number alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from scigpt.errors import UserError


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) with a warm-up, stable, decay schedule (Hu et al., arXiv:2404.06395).

    Args:
        lr: peak learning rate at the reference width; the model scales it per group of parameters.
        betas, eps: of Adam.
        weight_decay: of hidden matrices at the full learning rate; where a group's rate is scaled down its decay is scaled up, so that the
            product stays (Dey et al., arXiv:2505.01618, table 1). Vectors, embeddings and kernels do not decay.
        warmup: steps of linear warm-up.
        decay: share of the run's steps over which the rate falls at the end.
        shape: `sqrt`: 1 - sqrt(progress) (Hägele et al., arXiv:2405.18392), or `linear`.
    """

    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    warmup: int = 100
    decay: float = 0.2
    shape: Literal["sqrt", "linear"] = "sqrt"

    def __post_init__(self) -> None:
        if not self.lr > 0 or not math.isfinite(self.lr):
            raise UserError(f"lr is {self.lr}; expected a number above 0")
        if not all(0 <= b < 1 for b in self.betas):
            raise UserError(f"betas are {list(self.betas)}; expected two numbers of 0 or more and below 1")
        if self.warmup < 0 or not 0 <= self.decay <= 1 or self.weight_decay < 0 or self.eps <= 0:
            raise UserError("expected warmup >= 0, decay within 0 and 1, weight_decay >= 0 and eps > 0")

    def learning_rate(self, step: int, steps: int) -> float:
        """Rate of step `step` (from 0) of a run of `steps` steps; above 0 on every step."""
        first = steps - round(self.decay * steps)
        factor = min(1.0, (step + 1) / max(1, self.warmup))
        if step > first:
            progress = (step - first) / (steps - first)
            factor = min(factor, 1 - math.sqrt(progress) if self.shape == "sqrt" else 1 - progress)
        return self.lr * factor


class AdamW:
    """torch's fused AdamW over the model's parameter groups; `named` lists name and parameter, group by group."""

    def __init__(self, groups: Iterable[Mapping[str, Any]], config: OptimConfig) -> None:
        self.named: list[tuple[str, torch.nn.Parameter]] = []
        prepared = []
        for group in groups:
            if group["params"]:
                self.named += zip(group["names"], group["params"], strict=True)
                decay = config.weight_decay / group["lr_scale"] if group["decay"] else 0.0
                prepared.append({"params": group["params"], "lr_scale": group["lr_scale"], "weight_decay": decay})
        self.inner = torch.optim.AdamW(prepared, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for _, p in self.named]

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step; each group takes its scale of it."""
        for group in self.inner.param_groups:
            group["lr"] = rate * group["lr_scale"]

    def zero_grad(self) -> None:
        self.inner.zero_grad(set_to_none=True)
