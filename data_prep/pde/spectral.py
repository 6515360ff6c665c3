"""Fourier helpers for periodic squares, shared by the simulators. Fields are `(..., n, n)` with x on the last axis."""

from __future__ import annotations

import numpy as np
from scipy import fft


def wavenumbers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer wavenumbers `kx (1, n // 2 + 1)` and `ky (n, 1)` of the modes of `scipy.fft.rfft2` on an n x n grid."""
    return fft.rfftfreq(n, 1 / n)[None, :], fft.fftfreq(n, 1 / n)[:, None]


def resample(field: np.ndarray, n: int) -> np.ndarray:
    """Real periodic fields `(..., m, m)` on an n x n grid, m and n even, by dropping or adding Fourier modes.

    Modes at and above the Nyquist wavenumber of the smaller grid are dropped, so nothing is aliased and linear relations
    between fields (no divergence, velocity from vorticity) stay exact.
    """
    m = field.shape[-1]
    if m == n:
        return field
    half = min(m, n) // 2
    spectrum = fft.rfft2(field)
    out = np.zeros((*field.shape[:-2], n, n // 2 + 1), complex)
    out[..., :half, :half] = spectrum[..., :half, :half]
    out[..., 1 - half :, :half] = spectrum[..., 1 - half :, :half]
    return fft.irfft2(out * (n / m) ** 2, s=(n, n))
