"""Files of arrays (NetCDF, Zarr, GRIB) with dimensions of any name become tracks: one for each trajectory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr

from scigpt.data.sample import LEVEL_UNITS, SPACE_AXES, Boundary, Coordinate, Geometry, Level, Time, Variable
from scigpt.data.variables import convert
from scigpt.data_prep.datamap import Channel, DataMap, Place
from scigpt.data_prep.fields import MILLIBAR, decode, level_kind, make_grid
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.instants import counted, numbers_to_seconds
from scigpt.data_prep.suggest import nearest
from scigpt.data_prep.tracks import Track, boundary, convert_channel, make_variable, parse_level
from scigpt.errors import UserError

DEGREES = {"latitude": "degrees_north", "longitude": "degrees_east"}


@dataclass(frozen=True, eq=False)
class Block:
    """One variable of the file, its channels (one for each level), and the dimension along each axis (None where it has none)."""

    array: xr.DataArray
    channels: tuple[Variable, ...]
    unit: str
    dims: Mapping[str, str | None]

    def read(self, start: int, stop: int, trajectory: int | None, path: Path) -> np.ndarray:
        """Frames as float32 `(T or 1, L, Z, Y, X)` in the unit of the channels, NaN where missing."""
        array, take = self.array, dict[str, Any]()
        if self.dims["time"]:
            take[self.dims["time"]] = slice(start, stop)
        if self.dims["trajectory"]:
            take[self.dims["trajectory"]] = trajectory
        order = [d for a in ("time", "level", *SPACE_AXES) if (d := self.dims[a])]
        take |= {str(d): 0 for d in array.dims if d not in order and d not in take}
        with one_sentence(path, f"read at variable {array.name}"):
            raw = array.isel(take).transpose(*order).to_numpy()
        shape = [array.sizes[d] if (d := self.dims[a]) else 1 for a in ("level", *SPACE_AXES)]
        values = decode(raw, array.attrs, exact=True).reshape(-1, *shape)
        first = self.channels[0]
        return convert_channel(values, self.unit, first.name, first.unit, f"{path.name}, variable {array.name}").astype(np.float32)


class ArrayFile:
    """The datasets of one file, under the names of a map."""

    def __init__(self, path: Path, datasets: Sequence[xr.Dataset], own: DataMap) -> None:
        self.path, self.datasets, self.own = path, datasets, own
        if own.layout == "points" or own.axes.station:
            raise UserError(f"{path.name} holds arrays: layout: points and axes.station are for tables; set geometry: points for stations")
        self.sizes = {str(d): int(n) for dataset in datasets for d, n in dataset.sizes.items()}
        self.time_dim = self._time_dim()
        self.trajectory = self._dim(own.axes.trajectory, "axes.trajectory") if own.axes.trajectory else None
        self.space = self._space()
        self.blocks = [self._block(name, channel) for name, channel in own.variables.items()]
        self.sizes_of_grid = (self._length("z"), self._length("y"), self._length("x"))

    def tracks(self) -> list[Track]:
        """One for each trajectory, or one.

        Raises:
            UserError: a name that is not in the file, a dimension without a part to play, a time that cannot be read.
        """
        geometry, found, coordinates, known = self._places()
        time = self._time()
        variables = tuple(v for b in self.blocks for v in b.channels)
        count = self.sizes[self.trajectory] if self.trajectory else 1
        labels = self._labels(count)
        return [
            Track(
                place=label,
                whole=label,
                path=self.path,
                variables=variables,
                time=time,
                grid=self.sizes_of_grid,
                read=lambda start, stop, number=number: self._read(start, stop, number, len(variables)),  # type: ignore[misc]
                where=lambda frame: f"frame {frame}",
                geometry=geometry,
                boundary=boundary(self.own.boundary, found),
                coordinates=coordinates,
                coefficients={n: self._coefficient(n, g, number) for n, g in self.own.coefficients.items()},
                steady=self.own.steady,
                known=known,
            )
            for number, label in enumerate(labels)
        ]

    # names

    def _names(self) -> dict[str, xr.DataArray]:
        return {str(n): d[n] for d in reversed(self.datasets) for n in d.variables}

    def _find(self, name: str, key: str) -> xr.DataArray:
        names = self._names()
        if name not in names:
            near = nearest(name, names) or f"it has {', '.join(names)}"
            raise UserError(f"{self.path.name} has no variable {name!r} ({key} in the map); {near}")
        return names[name]

    def _dim(self, name: str, key: str) -> str:
        """The dimension of this name, or that of the one-dimensional coordinate of this name."""
        if name in self.sizes:
            return name
        found = self._names().get(name)
        if found is not None and found.ndim == 1:
            return str(found.dims[0])
        near = nearest(name, self.sizes) or f"it has {', '.join(f'{d} ({n})' for d, n in self.sizes.items())}"
        raise UserError(f"{self.path.name} has no dimension {name!r} ({key} in the map); {near}")

    def _time_dim(self) -> str | None:
        axis = self.own.axes.time
        if self.own.steady or not axis.column:
            return None
        if len(axis.column) > 1:
            raise UserError(f"{self.path.name}: axes.time.column names {len(axis.column)} columns; expected one time coordinate")
        found = self._names().get(axis.column[0])
        return None if found is not None and found.ndim == 0 else self._dim(axis.column[0], "axes.time.column")

    def _space(self) -> dict[str, str | None]:
        axes = self.own.axes
        dims: dict[str, str | None] = dict.fromkeys(SPACE_AXES)
        for axis in SPACE_AXES:
            place: Place | None = getattr(axes, axis)
            if place is not None:
                dims[axis] = self._dim(str(place.name), f"axes.{axis}")
        if axes.latitude is not None and axes.longitude is not None and isinstance(axes.latitude.name, str):
            latitude = self._find(axes.latitude.name, "axes.latitude")
            longitude = self._find(str(axes.longitude.name), "axes.longitude")
            if latitude.ndim == 2:
                dims["y"], dims["x"] = dims["y"] or str(latitude.dims[0]), dims["x"] or str(latitude.dims[1])
            elif latitude.dims == longitude.dims:
                dims["x"] = str(longitude.dims[0]) if longitude.ndim else None
            else:
                dims["y"], dims["x"] = str(latitude.dims[0]), str(longitude.dims[0])
        return dims

    def _length(self, axis: str) -> int:
        dim = self.space[axis]
        return self.sizes[dim] if dim else 1

    # variables

    def _block(self, name: str, channel: Channel) -> Block:
        array, where = self._find(name, f"variables.{name}"), f"{self.path.name}, variable {name}"
        if array.dtype.kind not in "iufb":
            raise UserError(f"{where} holds {array.dtype}; expected numbers")
        unit = channel.unit or array.attrs.get("units")
        unit = None if unit is None else MILLIBAR.get(str(unit).strip(), str(unit).strip())
        level_dim = channel.level if channel.level in self.sizes else None
        levels = (parse_level(channel.level, where),) if level_dim is None else self._levels(level_dim, where)
        made = make_variable(name, channel, unit, None, where)
        dims = {"time": self.time_dim, "trajectory": self.trajectory, "level": level_dim, **self.space}
        dims = {a: d if d in array.dims else None for a, d in dims.items()}
        for dim, size in zip(map(str, array.dims), array.shape, strict=True):
            if dim not in dims.values() and size > 1:
                raise UserError(
                    f"{where}: the dimension {dim} of length {size} has no part to play; name it in axes (time, trajectory, z, y, x) or as "
                    "the level"
                )
        for axis in SPACE_AXES:
            if self.space[axis] and not dims[axis]:
                raise UserError(f"{where} has no dimension {self.space[axis]}, the {axis} of this map; leave the variable out")
        if self.time_dim and not dims["time"] and made.role not in ("static", "forcing"):
            raise UserError(f"{where} has no dimension {self.time_dim}, the time of this map; give it role: static")
        assert unit is not None
        return Block(array, tuple(replace(made, level=level) for level in levels), unit, dims)

    def _levels(self, dim: str, where: str) -> tuple[Level | None, ...]:
        coordinate = self._find(dim, "a level")
        kind = level_kind(dim, coordinate.attrs)
        if kind is None:
            raise UserError(f"{where}: the coordinate {dim} is not a level by its units; expected hPa, or m with the attribute positive")
        unit = str(coordinate.attrs.get("units") or LEVEL_UNITS[kind])
        numbers = convert(coordinate.to_numpy().astype(np.float64), MILLIBAR.get(unit, unit), LEVEL_UNITS[kind], f"{where}, {dim}")
        return tuple(Level(kind, float(v)) for v in np.round(numbers, 6))

    def _read(self, start: int, stop: int, trajectory: int, channels: int) -> np.ndarray:
        values = np.empty((stop - start, channels, *self.sizes_of_grid), np.float32)
        at = 0
        for block in self.blocks:
            values[:, at : at + len(block.channels)] = block.read(start, stop, trajectory, self.path)
            at += len(block.channels)
        return values

    # time and space

    def _time(self) -> Time:
        axis = self.own.axes.time
        if self.own.steady:
            return Time.regular(0.0, 1.0, 2)
        if not axis.column:
            return Time.regular(0.0, 1.0, 1)
        found, where = self._names().get(axis.column[0]), f"{self.path.name}, axes.time"
        try:
            if found is None or axis.step is not None:
                if axis.step is None:
                    raise UserError(f"the dimension {axis.column[0]} has no coordinate; state axes.time.step (and unit, start)")
                return Time(*counted(axis, self.sizes[self.time_dim or ""]))
            flat = np.atleast_1d(found.to_numpy())
            if flat.dtype.kind == "M" or isinstance(flat[0], cftime.datetime):
                return Time.from_dates(flat, bounds=self._bounds(found))
            if axis.unit is None:
                raise UserError(f"{axis.column[0]} has no dates; state axes.time.unit, as in s or hours since 2000-01-01")
            return Time(*numbers_to_seconds(flat.astype(np.float64), axis, self.path.name))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def _bounds(self, instants: xr.DataArray) -> np.ndarray | None:
        edges = self._names().get(str(instants.attrs.get("bounds")))
        return None if edges is None or edges.ndim != 2 or edges.dtype.kind not in "MO" else edges.to_numpy()

    def _places(self) -> tuple[Geometry, Boundary, dict[str, Coordinate], np.ndarray | bool]:
        axes = self.own.axes
        coordinates: dict[str, Coordinate] = {}
        if axes.latitude is not None and axes.longitude is not None:
            latitude, longitude = (self._numbers(n, p, "degree") for n, p in (("latitude", axes.latitude), ("longitude", axes.longitude)))
            yx = (self._length("y"), self._length("x"))
            if latitude.shape == longitude.shape == (yx[1],) and (yx[0] == 1 or latitude.size == 1):
                coordinates = {n: Coordinate(("x",), v, DEGREES[n]) for n, v in (("latitude", latitude), ("longitude", longitude))}
                if axes.height is not None:
                    coordinates["height"] = Coordinate(("x",), np.broadcast_to(self._numbers("height", axes.height, "m"), yx[1:]), "m")
                return self.own.geometry or "points", Boundary(), coordinates, True
            grid = make_grid(latitude, longitude, self.path.name)
            return self.own.geometry or "sphere", grid.boundary, {**grid.coordinates(), **self._lines(("z",))}, grid.known
        return self.own.geometry or "plane", Boundary(), self._lines(SPACE_AXES), True

    def _lines(self, axes: Sequence[str]) -> dict[str, Coordinate]:
        """Coordinates along the dimensions that have one."""
        lines = {}
        for axis in axes:
            place: Place | None = getattr(self.own.axes, axis)
            found = self._names().get(str(place.name)) if place is not None else None
            if place is not None and found is not None and found.ndim == 1 and found.dtype.kind in "iuf":
                lines[axis] = Coordinate((axis,), found.to_numpy(), place.unit or str(found.attrs.get("units") or "1"))
        return lines

    def _numbers(self, name: str, place: Place, unit: str) -> np.ndarray:
        if isinstance(place.name, float):
            return np.array([place.name])
        found = self._find(place.name, f"axes.{name}")
        if found.ndim == 2 and None not in (dims := (self.space["y"], self.space["x"])):
            found = found.transpose(*[str(d) for d in dims])
        stated = place.unit or str(found.attrs.get("units") or unit)
        stated = "degree" if stated.lower().startswith("degree") else stated
        return np.atleast_1d(convert(decode(found.to_numpy(), found.attrs, exact=True), stated, unit, f"{self.path.name}, axes.{name}"))

    # trajectories

    def _labels(self, count: int) -> list[str]:
        if self.trajectory is None:
            return [self.path.stem]
        names = self._names().get(self.trajectory)
        return [f"{self.path.stem} {self.trajectory} {i if names is None else names.to_numpy()[i]}" for i in range(count)]

    def _coefficient(self, name: str, given: str | float, trajectory: int) -> float:
        if isinstance(given, float):
            return given
        stated = next((d.attrs[given] for d in self.datasets if given in d.attrs and given not in self._names()), None)
        try:
            if stated is not None:
                return float(stated)
            found = self._find(given, f"coefficients.{name}")
            return float(found.isel({self.trajectory: trajectory}) if self.trajectory in found.dims else found)
        except UserError:
            raise
        except (TypeError, ValueError):
            raise UserError(
                f"{self.path.name}: coefficients.{name} names {given}, which is not one number for a record; expected a number, a variable "
                "without dimensions or along the trajectory, or an attribute of the file"
            ) from None
