"""What follows from the latitudes and longitudes of a grid: which sides are joined, which are poles, which cells have no place."""

from __future__ import annotations

import numpy as np

from scigpt.data.sample import Boundary
from scigpt.errors import UserError


def boundary(latitude: np.ndarray, longitude: np.ndarray) -> Boundary:
    """Periodic in X where the gap that closes a full turn is as wide as a cell; then a side within one row of a pole is a pole, of a grid
    coarser than 15 degrees within half a row.

    Args:
        latitude, longitude: degrees, `(Y,)` and `(X,)`, or both `(Y, X)`.
    """
    row = longitude if longitude.ndim == 1 else longitude[int(np.argmin(np.abs(latitude).mean(axis=1)))]
    steps = np.abs(np.diff(np.unwrap(row, period=360.0)))
    cell = float(np.median(steps)) if steps.size else 0.0
    if cell == 0.0 or abs(steps.sum() + cell - 360.0) > 0.05 * cell:
        return Boundary()
    rows = latitude[:, None] if latitude.ndim == 1 else latitude
    height = float(np.median(np.abs(np.diff(rows, axis=0)))) if len(rows) > 1 else 0.0
    low, high = ("pole" if 90.0 - np.abs(rows[side]).min() <= max(height / 2, min(height, 15.0)) + 1e-6 else "open" for side in (0, -1))
    return Boundary(y=(low, high), x=("periodic", "periodic"))  # type: ignore[arg-type]


def placed(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curvilinear coordinates `(Y, X)` that are finite everywhere, and where they were known.

    A missing place (land cells of an ocean grid) takes its nearest neighbour's.
    """
    known = np.isfinite(latitude) & (np.abs(latitude) <= 90.5) & np.isfinite(longitude) & (np.abs(longitude) <= 720)
    if known.any() and not known.all():
        try:
            from scipy.ndimage import distance_transform_edt
        except ImportError:
            raise UserError(
                "latitude or longitude has gaps, and filling them needs scipy, which is not installed; run: pip install scipy"
            ) from None
        near = tuple(distance_transform_edt(~known, return_distances=False, return_indices=True))
        latitude, longitude = latitude[near], longitude[near]
    return latitude, longitude, known
