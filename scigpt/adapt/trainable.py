"""What of an adapted model is trained, and at which rate."""

from __future__ import annotations

import re
from collections.abc import Callable

from scigpt.adapt.config import AdaptConfig
from scigpt.model import lora
from scigpt.model.backbone import SciGPT

ENDS = ("tokenizer.", "head.", "conditions.coefficient")
"""What meets the data: trained where the backbone is frozen."""
_BLOCK = re.compile(r"blocks\.(\d+)\.")


def prepare(model: SciGPT, config: AdaptConfig, new: Callable[[str], bool] = lambda name: False) -> None:
    """Insert what is of low rank, freeze what is not trained, and set the rates; on a model with or without storage.

    Args:
        new: whether a parameter (by name) is none of the pretrained ones.
    """
    if config.mode == "lora":
        lora.insert(model, config.rank, config.alpha, config.targets)
    depth = len(model.blocks)
    for name, parameter in model.named_parameters():
        trained = config.mode == "full" or new(name) or ".lora_" in name or (config.mode == "frozen" and name.startswith(ENDS))
        parameter.requires_grad_(trained)
        rate = config.layer_decay ** below_the_top(name, depth)
        model.rates[name] = rate * config.new_rate if new(name) and ".lora_" not in name else rate


def below_the_top(name: str, depth: int) -> int:
    """How many blocks lie between a parameter and the head."""
    block = _BLOCK.match(name)
    if block:
        return depth - 1 - int(block.group(1))
    return depth if name.startswith(("tokenizer.", "conditions.", "modulate.")) else 0
