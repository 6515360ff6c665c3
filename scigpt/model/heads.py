"""Heads: what is predicted, and the loss that goes with it. A head owns its loss and returns a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.data.patching import Extent
from scigpt.data.sample import Layout
from scigpt.model.tokenizer import Detokenizer


class Distribution(Protocol):
    """What evaluation and export ask of any forecast, in the units of the target."""

    @property
    def mean(self) -> Tensor: ...

    def sample(self, generator: torch.Generator) -> Tensor: ...

    def quantile(self, level: float) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Point:
    """All mass at one value."""

    mean: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.mean

    def quantile(self, level: float) -> Tensor:
        return self.mean


class Forecast(nn.Module):
    """The next frame as one value per point; Huber loss, quadratic within `delta` units of the target and linear beyond."""

    def __init__(self, variables: int, width: int, delta: float = 3.0) -> None:
        super().__init__()
        self.delta = delta
        self.detokenizer = Detokenizer(variables, width)

    def forward(self, tokens: Tensor, layout: Layout, index: tuple[int, ...], patch: Extent) -> Point:
        """`(B, T, N, D)` to the distribution of `(B, T, C, Z, Y, X)`."""
        return Point(self.detokenizer(tokens, layout, index, patch))

    def error(self, distribution: Distribution, target: Tensor) -> Tensor:
        """Elementwise loss, the shape of the target."""
        return F.huber_loss(distribution.mean.float(), target, reduction="none", delta=self.delta)
