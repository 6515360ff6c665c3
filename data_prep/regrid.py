"""Regridding, only where a recipe asks for it: area means on a coarser regular grid of latitude and longitude, by xarray-regrid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from scigpt.data.sample import Variable
from scigpt.data.sphere import boundary
from scigpt.data_prep.fields import Grid
from scigpt.errors import UserError

INVALID_SHARE = 0.5
"""A cell is valid where at least this share of its area was."""


class Regridder:
    """First-order conservative means over cells whose edges lie on multiples of `degrees`; gaps take no part.

    Args:
        source: a regular grid.
        degrees: of the cells aimed at, no smaller than those of the source.
        where: for messages.
        bounds: plausible low and high of a variable. What lies outside takes no part in a mean.
        share: of the values of one sample that may.

    Raises:
        UserError: a curvilinear grid, cells that are finer than the source's, or fewer than two of them; xarray-regrid is not installed.
    """

    def __init__(self, source: Grid, degrees: float, where: str, bounds: Callable[[Variable], tuple[float, float]], share: float) -> None:
        try:
            import xarray_regrid  # noqa: F401
        except ImportError:
            raise UserError("regrid= needs xarray-regrid, which is not installed; run: pip install 'scigpt[regrid]'") from None
        if source.latitude.ndim != 1:
            raise UserError(f"{where}: regrid= works on grids of 1-D latitude and longitude; this one is curvilinear, leave the option out")
        whole_turn = source.boundary.periodic("x")
        longitude = source.longitude % 360.0 if whole_turn else np.unwrap(source.longitude, period=360.0)
        self.order = np.argsort(longitude)
        self.longitude = longitude[self.order]
        cells = [float(np.abs(np.diff(a)).mean()) if a.size > 1 else 0.0 for a in (source.latitude, self.longitude)]
        if not degrees > 0 or degrees < max(cells) * (1 - 1e-6):
            raise UserError(f"{where}: regrid={degrees:g} is finer than its grid of {cells[0]:g} x {cells[1]:g} degrees; give more degrees")
        self.source, self.where, self.bounds, self.share, self.whole_turn = source, where, bounds, share, whole_turn
        latitude = _centres(source.latitude, cells[0], degrees, (-90.0, 90.0))
        longitude = _centres(self.longitude, cells[1], degrees, (0.0, 360.0) if whole_turn else (-np.inf, np.inf), whole_turn)
        if min(latitude.size, longitude.size) < 2:
            raise UserError(f"{where}: regrid={degrees:g} leaves {latitude.size} x {longitude.size} cells; give fewer degrees")
        self.grid = Grid(latitude, longitude, np.ones((latitude.size, longitude.size), bool), boundary(latitude, longitude))
        self.target = xr.Dataset(coords={"latitude": latitude, "longitude": longitude})

    def __call__(self, values: np.ndarray, channels: Sequence[Variable]) -> np.ndarray:
        """Float32 `(T, L, Y, X)` of the source, NaN where missing, on the target grid.

        Raises:
            UserError: too large a share of the values lies outside the bounds.
        """
        # not `.regrid`, which invents a row at each pole
        from xarray_regrid.methods.conservative import conservative_regrid

        values, longitude = self._plausible(values, channels)[..., self.order], self.longitude
        if self.whole_turn:  # a cell may reach across the seam
            longitude = np.concatenate([longitude[-1:] - 360, longitude, longitude[:1] + 360])
            values = np.concatenate([values[..., -1:], values, values[..., :1]], axis=-1)
        coords = {"latitude": self.source.latitude, "longitude": longitude}
        field = xr.DataArray(values, dims=("time", "level", "latitude", "longitude"), coords=coords)
        # ascending, as the method expects
        ordered = conservative_regrid(
            field.sortby("latitude"), self.target.sortby("latitude"), "latitude", skipna=True, nan_threshold=INVALID_SHARE
        )
        found = ordered.transpose(*field.dims).reindex(latitude=self.target.latitude)
        return found.to_numpy().astype(np.float32, copy=False)

    def _plausible(self, values: np.ndarray, channels: Sequence[Variable]) -> np.ndarray:
        result = values.copy()
        for c, variable in enumerate(channels):
            low, high = self.bounds(variable)
            outside = (values[:, c] < low) | (values[:, c] > high)
            if outside.mean() > self.share:
                raise UserError(
                    f"{self.where}: {outside.mean():.3%} of the values of {variable.key} lie outside {low:g} to {high:g} {variable.unit}; "
                    f"check its unit and its missing-value mark"
                )
            result[:, c][outside] = np.nan
        return result


def _centres(source: np.ndarray, cell: float, degrees: float, limits: tuple[float, float], whole_turn: bool = False) -> np.ndarray:
    """Centres of the cells that lie inside the source, in its direction."""
    low, high = limits if whole_turn else (max(limits[0], source.min() - cell / 2), min(limits[1], source.max() + cell / 2))
    first = np.ceil(low / degrees - 1e-6)
    count = int(np.floor((high - first * degrees) / degrees + 1e-6))
    centres = (first + np.arange(count) + 0.5) * degrees
    return centres if source[-1] >= source[0] else centres[::-1].copy()
