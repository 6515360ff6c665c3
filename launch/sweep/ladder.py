"""The ladder: shapes of models from small to large that differ in size and hardly in proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scigpt.errors import UserError
from scigpt.model.sizes import heads_of

if TYPE_CHECKING:
    from scigpt.model.backbone import ModelConfig, Vocabulary

LEAST_DEPTH, LEAST_WIDTH = 2, 32
"""Less than that is no transformer that says anything of a large one."""
ASPECT = (16.0, 64.0)
"""Lowest and highest width / depth; the named sizes have 30 to 60 up to half a billion parameters."""
CLOSE = 0.03
"""Shapes whose parameters differ by less (relatively) are equally near; the one in the middle of the aspects is taken."""
RUNG = 1.12
"""Ratio of parameters from rung to rung, about: what the shapes allow."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's proportions, and its number of trainable parameters in all."""

    depth: int
    width: int
    heads: int
    params: int

    def of(self, model: ModelConfig) -> ModelConfig:
        """The model with this shape."""
        return replace(model, depth=self.depth, width=self.width, heads=self.heads)


@dataclass
class Ladder:
    """Shapes of models of one vocabulary; parameters are counted from the model itself, without storage.

    Args:
        model: what the shapes share.
        aspect: lowest and highest width / depth.
    """

    model: ModelConfig
    vocabulary: Vocabulary
    aspect: Sequence[float] = ASPECT
    _counts: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self._depths(LEAST_WIDTH):
            raise UserError(f"no depth suits width {LEAST_WIDTH} at a width / depth within {list(self.aspect)}; widen ladder.aspect")

    def nearest(self, params: float) -> Shape:
        """The shape whose number of parameters is nearest (in its logarithm)."""
        found: list[Shape] = []
        width = LEAST_WIDTH
        while True:
            here = [self._shape(d, width) for d in self._depths(width)]
            found += here
            if here and here[0].params > 2 * params:
                break  # wider ones are larger still
            width = wider(width)
        distance = {s: abs(math.log(s.params / params)) for s in found}
        near = min(distance.values())
        middle = math.log(self.aspect[0] * self.aspect[1]) / 2
        return min((s for s in found if distance[s] <= near + CLOSE), key=lambda s: (abs(math.log(s.width / s.depth) - middle), s.params))

    def rungs(self, low: float, high: float) -> list[Shape]:
        """Different shapes from about `low` to about `high` parameters, rising."""
        count = 1 + max(0, math.ceil(math.log(high / low) / math.log(RUNG)))
        shapes = {self.nearest(low * (high / low) ** (i / max(count - 1, 1))) for i in range(count)}
        return sorted(shapes, key=lambda s: s.params)

    def _depths(self, width: int) -> range:
        low, high = self.aspect
        return range(max(LEAST_DEPTH, math.ceil(width / high)), math.floor(width / low) + 1)

    def _shape(self, depth: int, width: int) -> Shape:
        if width not in self._counts:
            from scigpt.train.account import parameters

            one, two = (parameters(Shape(d, width, heads_of(width), 0).of(self.model), self.vocabulary)["total"] for d in (1, 2))
            self._counts[width] = 2 * one - two, two - one  # blocks are alike
        outside, block = self._counts[width]
        return Shape(depth, width, heads_of(width), outside + depth * block)


def wider(width: int) -> int:
    """The next width: heads of `scigpt.model.sizes.heads_of` divide it."""
    return width + (32 if width < 256 else 64 if width < 768 else 128)
