"""LoRA: additions of low rank to the matrices of a model that stays as it is (Hu et al., arXiv:2106.09685)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.errors import UserError
from scigpt.model.backbone import SciGPT


class LoRALinear(nn.Linear):
    """A linear layer with an addition of low rank: `y = W x + b + (alpha / rank) B A x`.

    `lora_a` `(rank, inputs)` is random and `lora_b` `(outputs, rank)` zero, so that the layer begins as the one it takes the place of, to
    the last bit. `weight` and `bias` keep their names.

    Args:
        base: the layer; its parameters are taken over.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.rank, self.scale = rank, alpha / rank
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.spread = {"lora_a": base.in_features**-0.5}
        if not self.lora_a.is_meta:
            nn.init.normal_(self.lora_a, std=base.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)

    def merged(self) -> nn.Linear:
        """A plain layer of the sum, formed in float64."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device=self.weight.device, dtype=self.weight.dtype)
        with torch.no_grad():
            added = self.scale * self.lora_b.double() @ self.lora_a.double()
            plain.weight.copy_(self.weight.double() + added)
            if self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain


def insert(model: SciGPT, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Replace the linear layers of the blocks whose names end in one of `targets` (qkv, out, gate_up, down) by `LoRALinear`.

    Raises:
        UserError: a target that no block has, a rank below 1 or above the width.
    """
    if not 1 <= rank <= model.width:
        raise UserError(f"adapt.rank is {rank}; expected 1 to {model.width}, the width of the model")
    found = [(name, module) for name, module in model.blocks.named_modules() if isinstance(module, nn.Linear)]
    there = sorted({name.rpartition(".")[2] for name, _ in found})
    for target in targets:
        if target not in there:
            near = difflib.get_close_matches(target, there, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(there)}"
            raise UserError(f"adapt.targets: the blocks have no matrix {target!r}; {hint}")
    for name, module in found:
        parent, _, own = name.rpartition(".")
        if own in targets:
            setattr(model.blocks.get_submodule(parent), own, LoRALinear(module, rank, alpha))


def merge(model: nn.Module) -> None:
    """Put plain layers in the place of all `LoRALinear`, with the same outputs up to rounding."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.merged())
