"""Fourier helpers for periodic cubes, shared by the simulators. Fields are `(..., n, n, n)` with axes z, y, x."""

from __future__ import annotations

import numpy as np
from scipy import fft

AXES = (-3, -2, -1)


def wavenumbers(n: int) -> np.ndarray:
    """Integer wavenumbers `(3, n, n, n // 2 + 1)` along x, y and z (the order of a vector's components) of the modes of `rfftn`."""
    k = fft.fftfreq(n, 1 / n)
    return np.stack(np.broadcast_arrays(fft.rfftfreq(n, 1 / n), k[:, None], k[:, None, None]))


def below_nyquist(n: int) -> np.ndarray:
    """Where every wavenumber lies below n / 2, bool `(n, n, n // 2 + 1)`: a derivative of the others is not a real field of the grid."""
    return (np.abs(wavenumbers(n)) < n / 2).all(axis=0)


def forward(fields: np.ndarray) -> np.ndarray:
    return fft.rfftn(fields, axes=AXES)


def backward(modes: np.ndarray) -> np.ndarray:
    n = modes.shape[-2]
    return fft.irfftn(modes, s=(n, n, n), axes=AXES)


def resample(fields: np.ndarray, n: int) -> np.ndarray:
    """Real periodic fields `(..., m, m, m)` on an n x n x n grid, m and n even; as `spectral.resample` does for squares."""
    m = fields.shape[-1]
    if m == n:
        return fields
    half = min(m, n) // 2
    modes = forward(fields)
    out = np.zeros((*fields.shape[:-3], n, n, n // 2 + 1), complex)
    low, high = slice(None, half), slice(1 - half, None)
    for z in (low, high):
        for y in (low, high):
            out[..., z, y, low] = modes[..., z, y, low]
    return backward(out * (n / m) ** 3)
