"""What is known besides the fields: step, season, hour, boundary, geometry, coefficients, place. They shift and scale every block."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.data.batches import Batch
from scigpt.data.constant import at, constant, vector
from scigpt.data.patching import token_grid
from scigpt.data.sample import SPACE_AXES, BoundaryKind, Geometry, Layout
from scigpt.model.positions import COORDINATE_FEATURES, coordinate_features
from scigpt.model.tokenizer import add_rows, pool, rows_of

BOUNDARIES = get_args(BoundaryKind)
GEOMETRIES = get_args(Geometry)
LAYOUT_FEATURES = 6 * len(BOUNDARIES) + len(GEOMETRIES) + 1
CLOCK_FEATURES = 16


@constant
def layout_features(layout: Layout) -> Tensor:
    """One-hot kinds of the six sides (none on an axis of length 1), geometry, steadiness."""
    row = torch.zeros(LAYOUT_FEATURES)
    for axis, name in enumerate(SPACE_AXES):
        if layout.grid[axis] > 1:
            for side, kind in enumerate(getattr(layout.boundary, name)):
                row[(2 * axis + side) * len(BOUNDARIES) + BOUNDARIES.index(kind)] = 1.0
    row[6 * len(BOUNDARIES) + GEOMETRIES.index(layout.geometry)] = 1.0
    row[-1] = float(layout.steady)
    return row


def clock_features(batch: Batch) -> Tensor:
    """`(B, T-1, 16)`: season and hour of each frame, and the logarithm of the step to the next."""
    dated = batch.calendar != "none"
    frames = slice(0, batch.step.shape[1])
    turns = 2 * torch.pi * torch.stack([batch.season[:, frames], batch.hour[:, frames]], -1)
    clock = torch.cat([torch.sin(turns), torch.cos(turns)], -1) * float(dated)
    log_step = torch.log10(batch.step.clamp(min=1e-12))[..., None]
    waves = torch.cat([f(k * log_step) for k in (0.5, 1.0, 2.0) for f in (torch.sin, torch.cos)], -1)
    zeros = torch.zeros_like(waves)
    return torch.cat([clock, waves, zeros] if dated else [clock, zeros, waves], -1)


class Conditions(nn.Module):
    """One vector a frame, `(B, T-1, D)`, from everything that holds for the whole frame, and one a token for place and sides."""

    def __init__(self, width: int, coefficients: int, added: int = 0) -> None:
        super().__init__()
        self.layout = nn.Linear(LAYOUT_FEATURES, width)
        self.clock = nn.Linear(CLOCK_FEATURES, width, bias=False)
        self.coefficient = nn.Parameter(torch.empty(max(coefficients, 1), 2, width))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.place = nn.Linear(COORDINATE_FEATURES, width, bias=False)
        self.sides = nn.Parameter(torch.empty(6, len(BOUNDARIES), width))
        inputs = {"layout": LAYOUT_FEATURES, "clock": CLOCK_FEATURES, "mix.1": width, "place": COORDINATE_FEATURES}
        self.spread = {f"{name}.weight": (3 * count) ** -0.5 for name, count in inputs.items()} | {"coefficient": 0.5}
        add_rows(self, "coefficient", added)

    def forward(self, batch: Batch, index: tuple[int, ...], center: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """The two of them. `index`, `center` and `spread` `(K,)`: row and pooled statistics of each coefficient of the batch."""
        features = self.layout(at(layout_features(batch.layout), self.sides.device)) + self.clock(clock_features(batch))
        # the sum over no coefficients keeps every parameter in the graph of every batch
        table = rows_of(self, "coefficient")
        rows = table[vector(index, torch.int64, table.device)]
        told = torch.where(batch.known, (batch.coefficients - center) / spread, 0.0)
        named = torch.einsum("bk,kd->bd", told, rows[:, 0]) + torch.einsum("bk,kd->bd", batch.known.float(), rows[:, 1])
        return self.mix(features + named[:, None] + 0.0 * table.sum()), self._tokens(batch)

    def _tokens(self, batch: Batch) -> Tensor:
        """Added to the tokens of every frame: place on the Earth, and the kind of a side where a token lies at one; `(B or 1, 1, N, D)`.

        A periodic side adds nothing, so that shifting a periodic field by a patch shifts the tokens. Stations have no sides: the first
        and the last of a list are like the others.
        """
        nz, ny, nx = token_grid(batch.layout.grid, batch.patch)
        sides = self.sides[0, 0].new_zeros(1, nz, ny, nx, self.sides.shape[-1]) + 0.0 * self.sides.sum()
        for axis, name in enumerate(SPACE_AXES):
            if batch.layout.grid[axis] == 1 or batch.layout.geometry == "points":
                continue
            for side, kind in enumerate(getattr(batch.layout.boundary, name)):
                if kind != "periodic":
                    edge = [slice(None)] * 4
                    edge[axis + 1] = slice(0, 1) if side == 0 else slice(-1, None)
                    mask = sides.new_zeros(1, nz, ny, nx, 1)
                    mask[tuple(edge)] = 1.0
                    sides = sides + mask * self.sides[2 * axis + side, BOUNDARIES.index(kind)]
        place = coordinate_features(batch)
        if place is None:  # no place, and yet every parameter in the graph of every batch
            return (sides + self.place(sides.new_zeros(COORDINATE_FEATURES))).flatten(1, 3)[:, None]
        pooled = self.place(pool(place, batch.patch))[:, None]  # (B, 1, ny, nx, D)
        return (sides + pooled).flatten(1, 3)[:, None]


class Modulation(nn.Module):
    """Layer norm whose scale and shift come from the conditions: one projection shared by all blocks, one offset each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(2, width))

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        """`x` `(B, T, N, D)`, shared `(B, T, 2, D)`."""
        scale, shift = (shared + self.offset).unbind(-2)
        normed = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(shift[:, :, None], normed, 1.0 + scale[:, :, None])
