"""Where a forecast is good: regions of a grid, and ranges of the coefficients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.sample import SPACE_AXES

TROPICS = 20.0
"""Latitude that bounds the tropics, in degrees, as the scores of forecasting centres have it (WeatherBench 2, arXiv:2308.15560)."""
EDGE = 8
"""Points nearer to a side that is not periodic than this part of the axis are its edge."""


def regions(batch: Batch) -> dict[str, Tensor]:
    """Masks `(B, 1, 1, Z, Y, X)` of the parts of the grid, bool; none where there is nothing to tell apart.

    On the sphere and for stations: the tropics and what lies north and south of them. On a plane or in a volume whose sides are not all
    periodic: the edge (an eighth of the axis along these sides) and the interior.
    """
    if batch.layout.geometry != "plane":
        if batch.latitude is None:
            return {}
        latitude = batch.latitude[:, None, None, None]
        bands = {
            f"north of {TROPICS:g}°N": latitude > TROPICS,
            f"tropics, {TROPICS:g}°S to {TROPICS:g}°N": latitude.abs() <= TROPICS,
            f"south of {TROPICS:g}°S": latitude < -TROPICS,
        }
        present = {name: mask for name, mask in bands.items() if mask.any()}
        return present if len(present) > 1 else {}
    grid = batch.values.shape[-3:]
    edge = torch.zeros(grid, dtype=torch.bool, device=batch.values.device)
    for i, (axis, n) in enumerate(zip(SPACE_AXES, grid, strict=True)):
        depth = max(1, n // EDGE)
        if n == 1 or 2 * depth >= n or getattr(batch.layout.boundary, axis)[0] == "periodic":
            continue
        along = torch.arange(n, device=edge.device)
        edge |= ((along < depth) | (along >= n - depth)).view([-1] + [1] * (2 - i))
    if not edge.any() or edge.all():
        return {}
    return {"interior": ~edge[None, None, None], "edge": edge[None, None, None]}


def ranges(values: np.ndarray) -> dict[str, np.ndarray]:
    """Which windows have a coefficient in the lower, middle and upper third of its values `(W,)` in the split, bool.

    There are no ranges of a constant, and one for each value where there are two or three. NaN (not told) is in no range.
    """
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if distinct.size < 2:
        return {}
    if distinct.size <= 3:
        return {f"{v:.4g}": values == v for v in distinct}
    low, high = np.quantile(known, (1 / 3, 2 / 3))
    found = {
        f"{known.min():.4g} to {low:.4g}": values <= low,
        f"{low:.4g} to {high:.4g}": (values > low) & (values <= high),
        f"{high:.4g} to {known.max():.4g}": values > high,
    }
    return {name: mask for name, mask in found.items() if mask.any()}
