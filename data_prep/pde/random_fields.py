"""Smooth random fields on the unit square, as sums of few modes: the same stream gives the same field on every grid."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Basis = Literal["periodic", "cosine", "sine"]


def random_field(rng: np.random.Generator, peak: float, y: np.ndarray, x: np.ndarray, basis: Basis = "periodic") -> np.ndarray:
    """A Gaussian random field at the points y, x of the unit square: `(len(y), len(x))`.

    Its power density is proportional to `k^3 exp(-2 (k / peak)^2)`, k in waves per side. Root mean square 1 over the square, exactly.

    Args:
        basis: `periodic`; `cosine`, no slope across the sides; `sine`, zero at the sides.
    """
    count = 2 * math.ceil(3 * peak)
    by, k = _modes(y, count, basis)
    bx, _ = _modes(x, count, basis)
    waves = np.hypot(k[:, None], k)
    coefficients = waves * np.exp(-((waves / peak) ** 2)) * rng.standard_normal((count, count))
    # einsum, not matrix products: bytes that do not depend on the BLAS and its threads
    field = np.einsum("yi,ix->yx", by, np.einsum("ij,xj->ix", coefficients, bx))
    return field / np.sqrt((coefficients**2).sum())


def centres(n: int) -> np.ndarray:
    """Middles of n cells between 0 and 1."""
    return (np.arange(n) + 0.5) / n


def coarsen(fields: np.ndarray, n: int) -> np.ndarray:
    """Means over square blocks of cells: `(..., m, m)` to `(..., n, n)`, m a multiple of n."""
    block = fields.shape[-1] // n
    return fields.reshape(*fields.shape[:-2], n, block, n, block).mean(axis=(-3, -1))


def _modes(points: np.ndarray, count: int, basis: Basis) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal functions `(len(points), count)` and how many waves per side each has `(count,)`."""
    order = np.arange(count)
    if basis == "periodic":
        waves, phase = (order + 1) // 2 * 1.0, np.where(order % 2, 0.0, -np.pi / 2) * (order > 0)
    elif basis == "cosine":
        waves, phase = order / 2, np.zeros(count)
    else:
        waves, phase = (order + 1) / 2, np.full(count, -np.pi / 2)
    scale = np.where(waves == 0, 1.0, np.sqrt(2.0))
    return scale * np.cos(2 * np.pi * np.asarray(points)[:, None] * waves + phase), waves
