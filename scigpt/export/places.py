"""The space axes of a dataset as a domain has them: found, compared with training, turned the same way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from scigpt.data import sphere
from scigpt.data.conventions import LATITUDE, LONGITUDE, is_coordinate, level_kind
from scigpt.data.domain import Domain
from scigpt.data.sample import SPACE_AXES, Boundary, Coordinate
from scigpt.data.variables import convert
from scigpt.errors import UserError
from scigpt.export.matching import HEIGHTS

REGULAR, SPACING = 0.01, 0.05
"""Parts of a spacing: how much it may vary along an axis, and differ from that of training."""


@dataclass(frozen=True, eq=False)
class Places:
    """
    Args:
        dims: the dataset's dimension for each space axis, None where an axis has length 1.
        coordinates: as in a Sample.
        flipped: axes that run the other way in the dataset.
        known: bool `(Y, X)`, False where a curvilinear grid has no place.
    """

    dims: Mapping[str, str | None]
    sizes: tuple[int, int, int]
    coordinates: Mapping[str, Coordinate]
    boundary: Boundary
    flipped: tuple[str, ...] = ()
    known: np.ndarray | None = None


def find(dataset: xr.Dataset, dims: Sequence[str], domain: Domain, complain: Callable[[str], None]) -> Places:
    """
    Args:
        dims: dimensions of the variables that are used, without those of time and levels.
        complain: refuses or warns; called where the spacing is not that of training.

    Raises:
        UserError: axes that are missing or that the domain does not have, coordinates that cannot be understood.
    """
    geometry, grid = domain.layout.geometry, dict(zip(SPACE_AXES, domain.layout.grid, strict=True))
    on_axes: dict[str, str | None] = dict.fromkeys(SPACE_AXES)
    coordinates: dict[str, Coordinate] = {}
    known = None
    rest = list(dims)
    if geometry != "plane":
        on_axes, coordinates, known = _spherical(dataset, dims, domain)
        rest = [d for d in dims if d not in on_axes.values()]
    free = [a for a in SPACE_AXES if grid[a] > 1 and geometry != "points"]
    if geometry == "sphere":
        free = [a for a in free if a == "z"]
    for axis in free:
        found = [d for d in rest if _is_axis(dataset, d, axis, domain)]
        if len(found) > 1 and axis in found:
            found = [axis]
        if len(found) != 1:
            told = f"{' and '.join(found)} could each be it" if found else f"it has {', '.join(rest) or 'none besides time'}"
            raise UserError(
                f"the dataset has no one dimension for the {axis} axis of the domain {domain.name} ({told}); "
                f"call it {axis}, or give its coordinate the attribute axis={axis.upper()!r}"
            )
        on_axes[axis] = found[0]
        rest.remove(found[0])
        line = dataset.variables.get(found[0])
        if line is not None and line.ndim == 1 and line.dtype.kind in "iuf":
            name = next((n for n, c in domain.coordinates.items() if list(c["axes"]) == [axis]), axis)
            unit = str(domain.coordinates.get(name, {}).get("unit") or line.attrs.get("units") or "1")
            coordinates[name] = Coordinate((axis,), _numbers(line, found[0], unit), unit)
    for dim in rest:
        if dataset.sizes[dim] > 1:
            raise UserError(
                f"the dataset's dimension {dim} of length {dataset.sizes[dim]} is none that the domain {domain.name} has; "
                f"choose one entry, dataset.isel({dim}=0)"
            )
    sizes = tuple(1 if d is None else dataset.sizes[d] for d in on_axes.values())
    assert len(sizes) == 3
    places = Places(on_axes, sizes, coordinates, domain.layout.boundary, (), known)
    places = _as_learned(places, domain, complain)
    if geometry == "sphere" and sizes != domain.layout.grid:
        latitude, longitude = (places.coordinates[n] for n in ("latitude", "longitude"))
        if latitude.axes != ("x",) and longitude.axes != ("y",):
            places = replace(places, boundary=replace(sphere.boundary(latitude.values, longitude.values), z=domain.layout.boundary.z))
    return places


def _spherical(
    dataset: xr.Dataset, dims: Sequence[str], domain: Domain
) -> tuple[dict[str, str | None], dict[str, Coordinate], np.ndarray | None]:
    latitude, longitude = (_located(dataset, dims, wanted) for wanted in (LATITUDE, LONGITUDE))
    expected = "stations along one dimension" if domain.layout.geometry == "points" else "a grid"
    if latitude is None or longitude is None:
        missing = " and ".join(n for n, v in (("latitude", latitude), ("longitude", longitude)) if v is None)
        raise UserError(
            f"the dataset has no coordinate {missing} (by standard_name, units such as degrees_north, or name) on the dimensions "
            f"{', '.join(dims) or 'of its variables'}; the domain {domain.name} is {expected} with places"
        )
    on_axes: dict[str, str | None] = dict.fromkeys(SPACE_AXES)
    if domain.layout.geometry == "points":
        if latitude.ndim > 1 or latitude.dims != longitude.dims:
            raise UserError(
                f"the dataset's latitude and longitude lie on the dimensions {_shown(latitude)} and {_shown(longitude)}; "
                f"the domain {domain.name} is {expected}, with both on it"
            )
        on_axes["x"] = str(latitude.dims[0]) if latitude.ndim else None
        return on_axes, _stations(dataset, latitude, longitude, domain), None
    if latitude.ndim == 2 and latitude.dims == longitude.dims:
        yx = (str(latitude.dims[0]), str(latitude.dims[1]))
        if yx[0] in dataset.variables and dataset.variables[yx[0]].attrs.get("axis") == "X":
            yx = (yx[1], yx[0])
        on_axes |= {"y": yx[0], "x": yx[1]}
        phi, lam, known = sphere.placed(*(v.transpose(*yx).to_numpy().astype(np.float64) for v in (latitude, longitude)))
        if not known.any():
            raise UserError("the dataset's latitude and longitude hold no finite place; expected degrees")
        if np.ptp(phi, 1).max() < 1e-6 and np.ptp(lam, 0).max() < 1e-6:  # a regular grid, written out
            return on_axes, _degrees({"latitude": (("y",), phi[:, 0]), "longitude": (("x",), lam[0])}), known
        return on_axes, _degrees({"latitude": (("y", "x"), phi), "longitude": (("y", "x"), lam)}), known
    if latitude.ndim > 1 or longitude.ndim > 1 or (latitude.ndim and latitude.dims == longitude.dims):
        raise UserError(
            f"the dataset's latitude and longitude lie on the dimensions {_shown(latitude)} and {_shown(longitude)}; "
            f"the domain {domain.name} is {expected}: latitude and longitude on a dimension each, or both on the same two"
        )
    lines = {}
    for name, line, usual in (("latitude", latitude, "y"), ("longitude", longitude, "x")):
        axes = list(domain.coordinates.get(name, {}).get("axes", ()))
        axis = axes[0] if len(axes) == 1 else usual
        values = np.atleast_1d(line.to_numpy()).astype(np.float64)
        if not np.isfinite(values).all():
            raise UserError(f"the dataset's {name} holds values that are not finite; expected degrees")
        on_axes[axis] = str(line.dims[0]) if line.ndim else None
        lines[name] = ((axis,), values)
    return on_axes, _degrees(lines), None


def _shown(variable: xr.Variable) -> str:
    return f"({', '.join(map(str, variable.dims))})"


def _located(dataset: xr.Dataset, dims: Sequence[str], wanted: Any) -> xr.Variable | None:
    """A latitude or longitude of the variables: of several the one with the most dimensions."""
    edges = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in dataset.variables.values()}
    found = [
        v
        for n, v in dataset.variables.items()
        if v.ndim <= 2 and n not in edges and v.dtype.kind in "iuf" and set(v.dims) <= set(dims) and is_coordinate(str(n), v, wanted)
    ]
    return max(found, key=lambda v: v.ndim, default=None)


def _stations(dataset: xr.Dataset, latitude: xr.Variable, longitude: xr.Variable, domain: Domain) -> dict[str, Coordinate]:
    values = [np.atleast_1d(v.to_numpy()).astype(np.float64) for v in (latitude, longitude)]
    for name, each in zip(("latitude", "longitude"), values, strict=True):
        if not np.isfinite(each).all():
            raise UserError(f"the dataset's {name} of station {int(np.argmin(np.isfinite(each)))} is not finite; leave that station out")
    coordinates = _degrees({"latitude": (("x",), values[0]), "longitude": (("x",), values[1])})
    if "height" in domain.coordinates:
        height = np.full(values[0].shape, np.nan)  # unknown, which a model allows for
        for name, variable in ((str(n), v) for n, v in dataset.variables.items()):
            is_height = name.lower() in HEIGHTS or variable.attrs.get("standard_name") in HEIGHTS
            if is_height and variable.dims == latitude.dims and variable.dtype.kind in "iuf":
                height = np.atleast_1d(_numbers(variable, name, "m"))
        coordinates["height"] = Coordinate(("x",), height, "m")
    return coordinates


def _degrees(lines: Mapping[str, tuple[tuple[str, ...], np.ndarray]]) -> dict[str, Coordinate]:
    return {n: Coordinate(axes, v, "degrees_north" if n == "latitude" else "degrees_east") for n, (axes, v) in lines.items()}


def _is_axis(dataset: xr.Dataset, dim: str, axis: str, domain: Domain) -> bool:
    line = dataset.variables.get(dim)
    attrs = {} if line is None else line.attrs
    if "axis" in attrs:
        return bool(attrs["axis"] == axis.upper())
    names = {axis, *(n for n, c in domain.coordinates.items() if list(c["axes"]) == [axis])}
    vertical = axis == "z" and line is not None and level_kind(dim, attrs) is not None
    return dim.lower() in names or attrs.get("standard_name") == f"projection_{axis}_coordinate" or vertical


def _numbers(variable: xr.Variable, name: str, unit: str) -> np.ndarray:
    told = variable.attrs.get("units")
    if told is None and unit != "1":
        raise UserError(f"the dataset's coordinate {name} has no units attribute; expected one that converts to {unit!r}")
    return convert(variable.to_numpy().astype(np.float64), str(told or "1"), unit, f"the dataset's coordinate {name}")


def _as_learned(places: Places, domain: Domain, complain: Callable[[str], None]) -> Places:
    """Compare the spacing of regular axes with training, and note those that run the other way."""
    if domain.layout.geometry == "points":
        return places
    flipped = []
    for name, about, wanted in _spaced(domain):
        coordinate = places.coordinates.get(name)
        if coordinate is None:
            continue
        if len(coordinate.axes) > 1:
            complain(f"the dataset's {name} is curvilinear, and the domain {domain.name} was learned with a spacing of {wanted:.6g}{about}")
            continue
        values = np.unwrap(coordinate.values, period=360.0) if name == "longitude" else coordinate.values
        if values.size < 2:
            continue
        steps = np.diff(values)
        mean = float(steps.mean())
        expected = f"the domain {domain.name} was learned with {abs(wanted):.6g}{about}"
        if mean == 0 or (np.abs(steps - mean) > REGULAR * abs(mean)).any():
            smallest, largest = np.abs(steps).min(), np.abs(steps).max()
            complain(
                f"the dataset's {name} is not regular (spacing {smallest:.6g} to {largest:.6g}{about}), and {expected}; interpolate it"
            )
        elif abs(abs(mean) - abs(wanted)) > SPACING * abs(wanted):
            complain(f"the dataset's {name} has a spacing of {abs(mean):.6g}{about}, and {expected}; interpolate it to that spacing")
        if mean * wanted < 0:
            flipped.append(coordinate.axes[0])
    turned = {
        n: replace(c, values=np.flip(c.values, tuple(i for i, a in enumerate(c.axes) if a in flipped)))
        for n, c in places.coordinates.items()
    }
    known = places.known
    if known is not None:
        known = np.flip(known, tuple(i for i, a in enumerate("yx") if a in flipped))
    return replace(places, coordinates=turned, flipped=tuple(flipped), known=known)


def _spaced(domain: Domain) -> Iterator[tuple[str, str, float]]:
    """Regular coordinates of training: name, unit as it follows a number, signed spacing."""
    for name, about in domain.coordinates.items():
        if about["spacing"] is not None and len(about["axes"]) == 1:
            unit = "degrees" if name in ("latitude", "longitude") else about["unit"]
            yield name, "" if unit == "1" else f" {unit}", float(about["spacing"])
