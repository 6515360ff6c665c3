"""LoRA: additions of low rank to the matrices of a model that stays as it is (Hu et al., arXiv:2106.09685)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.errors import UserError
from scigpt.model.backbone import SciGPT


class LoRALinear(nn.Linear):
    """A linear layer with an addition of low rank: `y = W x + b + (alpha / rank) B A x`.

    `lora_a` `(rank, inputs)` is random and `lora_b` `(outputs, rank)` zero, so that the layer begins as the one it takes the place of, to
    the last bit. `weight` and `bias` keep their names. All three products go through `product`, which a strategy may replace.

    Args:
        base: the layer; its parameters are taken over.
    """

    product: Callable[..., Tensor] = staticmethod(F.linear)

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
        return self.product(x, self.weight, self.bias) + self.scale * self.product(self.product(x, self.lora_a), self.lora_b)


def insert(model: SciGPT, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Replace matrices by `LoRALinear`: those of the blocks whose names end in one of `targets` (qkv, out, gate_up, down), and `modulate`,
    which gives the blocks their conditions.

    Raises:
        UserError: a target that is not there, a rank below 1 or above the width.
    """
    if not 1 <= rank <= model.width:
        raise UserError(f"adapt.rank is {rank}; expected 1 to {model.width}, the width of the model")
    found: dict[str, list[tuple[nn.Module, nn.Linear]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (name.startswith("blocks.") or name == "modulate"):
            parent, _, own = name.rpartition(".")
            found.setdefault(own, []).append((model.get_submodule(parent), module))
    for target in targets:
        if target not in found:
            near = difflib.get_close_matches(target, found, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"adapt.targets: there is no matrix {target!r}; {hint}expected some of {', '.join(sorted(found))}")
    for target in dict.fromkeys(targets):
        for parent_module, module in found[target]:
            setattr(parent_module, target, LoRALinear(module, rank, alpha))


def merged(weight: Tensor, low: Tensor, high: Tensor, scale: float) -> Tensor:
    """`W + scale B A`, formed in float64; `low` is A and `high` is B."""
    return (weight.double() + scale * (high.double() @ low.double())).to(weight.dtype)


def merge(model: nn.Module) -> None:
    """Put plain layers in the place of all `LoRALinear`, with the same outputs up to rounding."""
    for name, module in list(model.named_modules()):
        if not isinstance(module, LoRALinear):
            continue
        plain = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
        with torch.no_grad():
            plain.weight = nn.Parameter(merged(module.weight, module.lora_a, module.lora_b, module.scale))
        plain.bias = module.bias
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, plain)
