"""AdaptConfig: what of a pretrained model is trained on new data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from scigpt.errors import UserError


@dataclass(frozen=True)
class AdaptConfig:
    """How a run with `init` trains.

    Args:
        mode: `full`: every parameter. `frozen`: the backbone stays as it is, tokenizer and head are trained. `lora`: everything stays as it
            is but low-rank additions to the matrices of the blocks (Hu et al., arXiv:2106.09685) and what came with the new data: rows of
            variables and coefficients, a new head.
        rank, alpha, targets: of lora; what is added is `alpha / rank` times a product of two matrices of `rank` columns.
        layer_decay: factor on the learning rate from each block to the one below it; the last block and the head learn at the full rate,
            the tokenizer at that of a block below the first (as in Clark et al., arXiv:2003.10555).
        like: for variables that the model has never seen, known ones whose weights they begin with (`{surface_height: pressure_field}`);
            others begin at random, and their forecasts as persistence.
        new_rate: factor on the learning rate of variables and coefficients that the model has never seen, and of a new head.
    """

    mode: Literal["full", "frozen", "lora"] = "full"
    rank: int = 8
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["qkv", "out", "gate_up", "down"])
    layer_decay: float = 1.0
    like: dict[str, str] = field(default_factory=dict)
    new_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank is {self.rank}; expected 1 or more")
        for name in ("alpha", "layer_decay", "new_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if self.mode == "lora" and not self.targets:
            raise UserError("targets is empty, so lora has nothing to add to; name some of qkv, out, gate_up, down")
        if self.layer_decay > 1:
            raise UserError(f"layer_decay is {self.layer_decay}; expected at most 1")
