"""Rotary phases that follow physical position, and the features of coordinates and sides that enter as conditions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.constant import at, constant
from scigpt.data.patching import Extent, token_grid
from scigpt.data.sample import SPACE_AXES, Layout

HIGHEST = math.pi / 8
"""Radians per grid point of the fastest rotation: half a turn over a patch of 8 points."""
LOWEST = 2 * math.pi / 1024
POINTS_PER_DEGREE = 4.0
"""Stations are placed as on a grid of a quarter degree."""


@constant
def frequencies(count: int, period: float | None) -> Tensor:
    """`count` rotations in radians per grid point, fast to slow; on a periodic axis the nearest whole numbers of turns per `period`."""
    rates = torch.logspace(math.log10(HIGHEST), math.log10(LOWEST), count, dtype=torch.float64)
    if period is None:
        return rates
    whole = (rates * period / (2 * math.pi)).round().clamp(min=1.0)
    return whole * (2 * math.pi / period)


def pairs_per_axis(pairs: int) -> Extent:
    """How the rotated pairs of a head are shared among z, y, x."""
    z = pairs // 4
    y = (pairs - z) // 2
    return (z, y, pairs - z - y)


def turns(angle: Tensor) -> Tensor:
    """Unit numbers at angles in radians (float64): cosine and sine on a last axis of 2, float32."""
    return torch.stack([angle.cos(), angle.sin()], -1).float()


def space_phases(batch: Batch, pairs: int) -> Tensor:
    """Phases of the tokens of a frame, cosine and sine: `(1 or B, 1, N, 1, pairs, 2)`."""
    if batch.layout.geometry == "points":
        return _points(batch, pairs)
    return at(_grid(batch.layout, batch.patch, pairs), batch.values.device).view(1, 1, -1, 1, pairs, 2)


@constant
def _grid(layout: Layout, patch: Extent, pairs: int) -> Tensor:
    tokens = token_grid(layout.grid, patch)
    angles = []
    for axis, name in enumerate(SPACE_AXES):
        side, p, n = layout.grid[axis], patch[axis], tokens[axis]
        period = float(side) if layout.boundary.periodic(name) and side % p == 0 else None
        centre = (torch.arange(n, dtype=torch.float64) + 0.5) * p - 0.5
        angle = torch.outer(centre, frequencies(pairs_per_axis(pairs)[axis], period))
        shape = [1, 1, 1, -1]
        shape[axis] = n
        angles.append(angle.view(shape).expand(*tokens, -1))
    return turns(torch.cat(angles, -1).flatten(0, 2))


def _points(batch: Batch, pairs: int) -> Tensor:
    assert batch.latitude is not None
    assert batch.longitude is not None
    z, y, x = pairs_per_axis(pairs)
    latitude, longitude = (c.double().flatten(1) * POINTS_PER_DEGREE for c in (batch.latitude, batch.longitude))
    device = latitude.device
    angle = torch.cat(
        [
            torch.zeros(*latitude.shape, z, dtype=torch.float64, device=device),
            latitude[..., None] * at(frequencies(y, None), device),
            longitude[..., None] * at(frequencies(x, 360.0 * POINTS_PER_DEGREE), device),
        ],
        -1,
    )
    return turns(angle)[:, None, :, None]


def time_phases(frames: int, pairs: int, device: torch.device, first: int = 0) -> Tensor:
    """Phases of the frames `(1, T, 1, 1, pairs, 2)` from frame `first` on: one frame turns the fastest pair by a quarter."""
    return at(_times(frames, pairs, first), device).view(1, frames, 1, 1, pairs, 2)


@constant
def _times(frames: int, pairs: int, first: int) -> Tensor:
    rates = torch.logspace(math.log10(math.pi / 2), math.log10(2 * math.pi / 512), pairs, dtype=torch.float64)
    return turns(torch.outer(torch.arange(first, first + frames, dtype=torch.float64), rates))


COORDINATE_FEATURES = 14


def coordinate_features(batch: Batch) -> Tensor | None:
    """Where each point lies on the Earth, `(B, Y, X, 14)`: harmonics of latitude and longitude, height; None without coordinates."""
    if batch.latitude is None or batch.longitude is None:
        return None
    latitude, longitude = torch.deg2rad(batch.latitude), torch.deg2rad(batch.longitude)
    height = torch.zeros_like(latitude) if batch.height is None else torch.asinh(batch.height / 100.0)
    waves = [f(k * latitude) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
    waves += [f(k * longitude) * torch.cos(latitude) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
    return torch.stack([*waves, latitude, height], -1)
