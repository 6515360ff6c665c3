"""Masked reconstruction: some places are hidden in all frames of a window, and what they hold is found from the others.

A view of a batch, as every task (see `scigpt.data.tasks`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.keyed import torch_generator
from scigpt.data.patching import token_grid
from scigpt.data.sample import Layout
from scigpt.errors import UserError


def seen_as(layout: Layout, channel: int) -> int | None:
    """The channel that shows what a predicted one holds at the places that are not hidden; None in all tasks but reconstruction."""
    key = layout.variables[channel].key
    return next((c for c, v in enumerate(layout.variables) if c != channel and v.key == key), None)


@dataclass(frozen=True)
class Reconstruction:
    """Every state stands twice: as it is seen, a forcing (known also in the frame to predict) that is invalid at the hidden places; and as
    it is to be found, a diagnostic that is valid at these alone. Statics and forcings of the corpus hide nothing.

    A place is a token: a station, or a patch of the grid. `round(hidden * places)` of those with a value in the window are hidden, one at
    least, and never all.
    """

    hidden: float
    seed: int = 0

    @classmethod
    def of(cls, hidden: float, corpus: Corpus, seed: int) -> Reconstruction:
        layout, where = corpus.layout, f"corpus {corpus.name} ({corpus.path})"
        if math.prod(layout.grid) == 1:
            raise UserError(f"{where}: holds single places, and reconstruction hides some of many; make it with layout=points")
        if layout.steady or not any(v.role == "state" for v in layout.variables):
            raise UserError(f"{where}: has no state over time that could be hidden; reconstruction needs one")
        return cls(hidden, seed)

    def layout(self, layout: Layout) -> Layout:
        seen = (replace(v, role="forcing") if v.role == "state" else v for v in layout.variables)
        found = (replace(v, role="diagnostic") for v in layout.variables if v.role == "state")
        return replace(layout, variables=(*seen, *found))

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        return self.layout(layout), count, frames

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        states = [c for c, v in enumerate(batch.layout.variables) if v.role == "state"]
        hidden = torch.stack([self._hidden(batch, i, p, states) for i, p in enumerate(positions)])[:, None, None]  # (B, 1, 1, Z, Y, X)
        seen, asked = batch.valid.clone(), batch.valid[:, :, states] & hidden
        seen[:, :, states] &= ~hidden
        order = [*range(len(batch.layout.variables)), *states]
        return replace(
            batch,
            values=torch.where(torch.cat([seen, asked], 2), batch.values[:, :, order], 0.0),
            valid=torch.cat([seen, asked], 2),
            layout=self.layout(batch.layout),
            scales=batch.scales.of(order),
        )

    def _hidden(self, batch: Batch, index: int, position: int, states: Sequence[int]) -> Tensor:
        """Which points of a window are hidden: bool `(Z, Y, X)`."""
        there = batch.valid[index][:, states].flatten(0, 1).any(0)
        grid = token_grid(batch.layout.grid, batch.patch)
        tokens = torch.zeros(grid, dtype=torch.bool)
        tokens[tuple(torch.div(i, p, rounding_mode="floor") for i, p in zip(there.nonzero(as_tuple=True), batch.patch, strict=True))] = True
        places = tokens.flatten().nonzero()[:, 0]
        count = min(max(round(self.hidden * len(places)), 1), len(places) - 1)
        chosen = torch.zeros(tokens.numel(), dtype=torch.bool)
        if count > 0:
            order = torch.randperm(len(places), generator=torch_generator(self.seed, "hidden", batch.corpus, position))
            chosen[places[order[:count]]] = True
        wide = chosen.view(grid)
        for axis, (patch, side) in enumerate(zip(batch.patch, batch.layout.grid, strict=True)):
            wide = wide.repeat_interleave(patch, axis).narrow(axis, 0, side)
        return wide
