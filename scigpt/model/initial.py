"""Initial weights: each a function of the seed, the parameter's name and its shape alone.

Every strategy and every number of processes therefore starts from the same numbers, and a process that holds a part of the model
never needs the whole: the model is built without storage (`torch.device("meta")`) and filled parameter by parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scigpt.data.keyed import torch_generator


class Initial:
    """The initial weights of a model by parameter name.

    Modules state the standard deviations of their random parameters, their children's included, in an attribute `spread`
    (name to number). The weight of a norm is 1, every other parameter 0.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.seed = seed
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        self._spreads: dict[str, float] = {}
        self._ones = set()
        for prefix, module in model.named_modules():
            place = f"{prefix}." if prefix else ""
            spread: Mapping[str, float] = getattr(module, "spread", {})
            self._spreads |= {place + name: value for name, value in spread.items()}
            if isinstance(module, nn.LayerNorm):
                self._ones.add(f"{place}weight")
        assert self._spreads.keys() <= self._shapes.keys()

    def __call__(self, name: str) -> Tensor:
        """The whole parameter, float32, on the CPU."""
        shape, spread = self._shapes[name], self._spreads.get(name)
        if spread is not None:
            return torch.randn(shape, generator=torch_generator(self.seed, "weights", name)) * spread
        return torch.ones(shape) if name in self._ones else torch.zeros(shape)
