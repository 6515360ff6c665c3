"""Strategies: who owns the device, the precision and, with several processes, the wrapping and the agreement between them.

The loop calls nothing else of torch that would differ between one process and many.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scigpt.data.batches import Batch


class Strategy(Protocol):
    """What the loop asks of one process among `world`."""

    device: torch.device
    rank: int
    world: int

    def setup(self, model: nn.Module) -> nn.Module:
        """Place (and, with several processes, wrap) the model; the optimizer is built from the result."""

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass."""

    def place(self, batch: Batch) -> Batch:
        """The batch on this process's device."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients. Over all processes they add up: the loss is already a share of the global mean."""

    def clip(self, parameters: Iterable[nn.Parameter], largest: float) -> float:
        """Clip the global gradient norm; returns the norm before."""

    def update(self, optimizer: Optimizer) -> None:
        """One optimizer step."""

    def total(self, value: float) -> float:
        """Sum of a number over all processes."""

    def agree(self, flag: bool) -> bool:
        """True on every process when it is on any."""

    def barrier(self) -> None:
        """Wait for the others."""


class Single:
    """One process on one device: the GPU when there is one, else the CPU.

    Lightning Fabric is left to the strategies that launch processes: in one process it would only choose the device, and its
    precision wrapper copies every dataclass that passes through `forward`.
    """

    rank = 0
    world = 1

    def __init__(self, precision: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._bf16 = precision == "bf16"

    def setup(self, model: nn.Module) -> nn.Module:
        return model.to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def place(self, batch: Batch) -> Batch:
        return batch if self.device.type == "cpu" else batch.to(self.device, non_blocking=True)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip(self, parameters: Iterable[nn.Parameter], largest: float) -> float:
        return float(nn.utils.clip_grad_norm_(parameters, largest, foreach=True))

    def update(self, optimizer: Optimizer) -> None:
        optimizer.step()

    def total(self, value: float) -> float:
        return value

    def agree(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        return None
