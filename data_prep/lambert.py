"""The Lambert conformal conic projection of a file: places of its cells, and winds from along the grid to along the Earth.

Formulae: Snyder (1987), Map Projections: A Working Manual, USGS Professional Paper 1395, pages 107-109. A meridian meets the grid's own
north at the angle `theta = n (lambda - lambda0)` (14-4), `n` the constant of the cone (15-8, with 14-15 and 15-9; 15-3 on a sphere).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigpt.data.conventions import LATITUDE, LONGITUDE, is_coordinate
from scigpt.data_prep.fields import decode
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

NCEP_RADIUS = 6371200.0
"""Metres, of the sphere on which NCEP makes its Lambert grids; used where a file does not say its own."""

_STORAGE = ("_FillValue", "missing_value", "scale_factor", "add_offset", "valid_range", "valid_min", "valid_max")


@dataclass(frozen=True, slots=True)
class Lambert:
    """The projection.

    Args:
        parallels: standard parallels, degrees; equal for a cone that touches the sphere.
        latitude, longitude: of the origin, degrees north and east; the longitude is that of the central meridian.
        easting, northing: of the origin, metres.
        semi_axes: equatorial and polar radius of the Earth, metres.
    """

    parallels: tuple[float, float]
    latitude: float
    longitude: float
    easting: float = 0.0
    northing: float = 0.0
    semi_axes: tuple[float, float] = (NCEP_RADIUS, NCEP_RADIUS)

    @classmethod
    def from_cf(cls, attrs: Mapping[str, Any], where: str) -> Lambert:
        """From the attributes of a CF grid mapping variable.

        Raises:
            UserError: not a Lambert conformal conic, or without its parallels and meridian; names `where`.
        """
        if attrs.get("grid_mapping_name") != "lambert_conformal_conic":
            raise UserError(f"{where} has the grid mapping {attrs.get('grid_mapping_name')!r}; expected 'lambert_conformal_conic'")
        try:
            parallels = np.ravel(attrs["standard_parallel"]).astype(float)
            meridian = float(attrs["longitude_of_central_meridian"])
        except (KeyError, ValueError, TypeError):
            raise UserError(f"{where} lacks standard_parallel or longitude_of_central_meridian; expected a CF grid mapping") from None
        major = float(attrs.get("semi_major_axis", attrs.get("earth_radius", NCEP_RADIUS)))
        flattening = float(attrs.get("inverse_flattening", 0.0))
        minor = float(attrs.get("semi_minor_axis", major * (1.0 - 1.0 / flattening) if flattening else major))
        return cls(
            (float(parallels[0]), float(parallels[-1])),
            float(attrs.get("latitude_of_projection_origin", parallels[0])),
            meridian,
            float(attrs.get("false_easting", 0.0)),
            float(attrs.get("false_northing", 0.0)),
            (major, minor),
        )

    @property
    def cone(self) -> float:
        """The constant `n` of the cone."""
        first, second = np.radians(self.parallels)
        if abs(first - second) < 1e-10:
            return float(np.sin(first))
        eccentricity = np.sqrt(1.0 - (self.semi_axes[1] / self.semi_axes[0]) ** 2)

        def m(phi: float) -> float:
            return float(np.cos(phi) / np.sqrt(1.0 - (eccentricity * np.sin(phi)) ** 2))

        def t(phi: float) -> float:
            s = eccentricity * np.sin(phi)
            return float(np.tan(np.pi / 4 - phi / 2) / ((1.0 - s) / (1.0 + s)) ** (eccentricity / 2))

        return float((np.log(m(first)) - np.log(m(second))) / (np.log(t(first)) - np.log(t(second))))

    def convergence(self, longitude: np.ndarray) -> np.ndarray:
        """Radians by which true north lies anticlockwise of the grid's y axis at these longitudes (degrees), in their shape."""
        return self.cone * np.radians((longitude - self.longitude + 180.0) % 360.0 - 180.0)

    def continuous(self, longitude: np.ndarray) -> np.ndarray:
        """The same longitudes within half a turn of the central meridian, so that no step of 360 degrees lies inside the domain."""
        centre = (self.longitude + 180.0) % 360.0 - 180.0
        return centre + (longitude - centre + 180.0) % 360.0 - 180.0

    def places(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitude and longitude `(Y, X)`, degrees, of the cells at `x` `(X,)` and `y` `(Y,)`, metres.

        Raises:
            UserError: pyproj is not installed.
        """
        try:
            import pyproj
        except ImportError:
            raise UserError(
                "places on a Lambert grid without latitudes need pyproj, which is not installed; run: pip install 'scigpt[raster]'"
            ) from None
        projection = pyproj.Proj(
            proj="lcc",
            lat_1=self.parallels[0],
            lat_2=self.parallels[1],
            lat_0=self.latitude,
            lon_0=self.longitude,
            x_0=self.easting,
            y_0=self.northing,
            a=self.semi_axes[0],
            b=self.semi_axes[1],
        )
        columns, rows = np.meshgrid(x, y)
        longitude, latitude = projection(columns, rows, inverse=True)
        return latitude, self.continuous(longitude)


def placed(path: Path, dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with 2-D latitude and longitude, computed where it has none, and longitudes without a step of 360 degrees.

    One without a Lambert grid mapping is given back as it is.
    """
    mapping = next((v for v in dataset.variables.values() if v.attrs.get("grid_mapping_name") == "lambert_conformal_conic"), None)
    if mapping is None:
        return dataset
    projection = Lambert.from_cf(mapping.attrs, path.name)
    flat = {str(n): v for n, v in dataset.variables.items() if v.ndim == 2}
    found = next((n for n, v in flat.items() if is_coordinate(n, v, LONGITUDE)), None)
    if found is not None and any(is_coordinate(n, v, LATITUDE) for n, v in flat.items()):
        values = projection.continuous(decode(flat[found].to_numpy(), flat[found].attrs, exact=True))
        attrs = {k: v for k, v in flat[found].attrs.items() if k not in _STORAGE}
        result = dataset.assign_coords({found: xr.Variable(flat[found].dims, values, attrs)})
    else:
        axes = [v for a in "yx" for v in dataset.variables.values() if v.attrs.get("standard_name") == f"projection_{a}_coordinate"]
        if [v.ndim for v in axes] != [1, 1]:
            raise UserError(f"{path.name} has neither 2-D latitude and longitude nor projection_x_coordinate and projection_y_coordinate")
        y, x = (v.to_numpy().astype(float) * {"km": 1000.0}.get(str(v.attrs.get("units")), 1.0) for v in axes)
        latitude, values = projection.places(x, y)
        dims = axes[0].dims[0], axes[1].dims[0]
        result = dataset.assign_coords(
            latitude=xr.Variable(dims, latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            longitude=xr.Variable(dims, values, {"units": "degrees_east", "standard_name": "longitude"}),
        )
    return result


def turned(u: np.ndarray, v: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components along the grid's x and y as components to the east and to the north.

    Args:
        angle: convergence, radians, `(Y, X)`; the last two axes of `u` and `v`.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    return u * cosine + v * sine, v * cosine - u * sine


class _Pair:
    """Both components of a vector, read together; the one not asked for is kept until it is asked for or another window is."""

    def __init__(self, components: tuple[xr.Variable, xr.Variable], paths: tuple[Path, Path], angle: np.ndarray) -> None:
        self.components, self.paths, self.angle = components, paths, angle
        self.kept: tuple[int, tuple[slice, ...], np.ndarray] | None = None

    def read(self, component: int, window: tuple[slice, ...]) -> np.ndarray:
        kept, self.kept = self.kept, None
        if kept is not None and kept[:2] == (component, window):
            return kept[2]
        values = []
        for variable, path in zip(self.components, self.paths, strict=True):
            with one_sentence(path):
                values.append(decode(variable[window].to_numpy(), variable.attrs, exact=True))
        both = [part.astype(np.float32) for part in turned(values[0], values[1], self.angle[window[-2:]])]
        self.kept = 1 - component, window, both[1 - component]
        return both[component]


def earth_relative(
    u: xr.Variable, v: xr.Variable, angle: np.ndarray, paths: tuple[Path, Path], units: tuple[str, str]
) -> tuple[xr.Variable, xr.Variable]:
    """Two lazy variables of which reading one reads both: the components to the east and to the north, float32, NaN where one is missing.

    Args:
        u, v: components along the grid's x and y as stored (packed or not), on the same dimensions, the last two those of `angle`.
        angle: convergence, radians, `(Y, X)`.
        paths: the files of `u` and of `v`, for the sentence about one that is damaged.
        units: their units, which must be one.

    Raises:
        UserError: dimensions or units that differ.
    """
    if u.dims != v.dims or u.shape != v.shape or u.shape[-2:] != angle.shape:
        raise UserError(
            f"{paths[0].name} and {paths[1].name}: the components of the wind have the shapes {u.shape} and {v.shape} "
            f"on a grid {angle.shape}; expected one shape, y and x last"
        )
    if units[0] != units[1]:
        files = f"{paths[0].name} and {paths[1].name}"
        raise UserError(f"{files}: the components of the wind are in {units[0]} and {units[1]}; expected one unit")
    pair = _Pair((u, v), paths, angle)

    def component(number: int, variable: xr.Variable) -> xr.Variable:
        attrs = {k: value for k, value in variable.attrs.items() if k not in _STORAGE}
        return lazy(tuple(map(str, variable.dims)), variable.shape, np.float32, lambda window: pair.read(number, window), attrs)

    return component(0, u), component(1, v)
