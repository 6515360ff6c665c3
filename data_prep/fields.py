"""One variable of one file: its axes found by CF attributes, its values decoded in float64 and made canonical in unit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import xarray as xr

from scigpt.data.conventions import LATITUDE, LONGITUDE, MILLIBAR, extreme, is_coordinate, level_kind
from scigpt.data.sample import LEVEL_UNITS, Boundary, Coordinate, Level, Time
from scigpt.data.sphere import boundary, placed
from scigpt.data.variables import Quantity, convert, same_unit
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

MEMBER_DIMS = ("number", "member", "member_id", "realization", "ensemble", "ensemble_member")


class Nowhere(UserError):
    """Cells of which none has a known place."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Horizontal grid: 1-D latitude (Y,) and longitude (X,), or both 2-D (Y, X); `known` is False where a coordinate is missing."""

    latitude: np.ndarray
    longitude: np.ndarray
    known: np.ndarray
    boundary: Boundary

    @property
    def shape(self) -> tuple[int, int]:
        return self.known.shape[0], self.known.shape[1]

    def coordinates(self) -> dict[str, Coordinate]:
        curvilinear = self.latitude.ndim == 2
        return {
            "latitude": Coordinate(("y", "x") if curvilinear else ("y",), self.latitude, "degrees_north"),
            "longitude": Coordinate(("y", "x") if curvilinear else ("x",), self.longitude, "degrees_east"),
        }


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the cells of a file's grid are; its latitudes and longitudes, 1-D or both 2-D, are read where they are asked for."""

    latitude: xr.Variable
    longitude: xr.Variable
    where: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.latitude.shape[0], self.longitude.shape[-1]

    def part(self, y: slice, x: slice) -> Grid:
        """The grid of some rows and columns."""
        curvilinear = self.latitude.ndim == 2
        latitude, longitude = self.latitude[(y, x) if curvilinear else y], self.longitude[(y, x) if curvilinear else x]
        return make_grid(_degrees(latitude), _degrees(longitude), self.where)

    @functools.cached_property
    def whole(self) -> Grid:
        return self.part(slice(None), slice(None))

    def same_as(self, other: Lattice) -> bool:
        """Compared by some rows and columns where the grid is curvilinear."""
        if self is other:
            return True
        if (self.shape, self.latitude.ndim) != (other.shape, other.latitude.ndim):
            return False
        pairs = ((self.latitude, other.latitude), (self.longitude, other.longitude))
        lines = [(slice(None), 0), (slice(None), -1), (0, slice(None)), (-1, slice(None))] if self.latitude.ndim == 2 else [slice(None)]
        return all(np.allclose(_degrees(a[i]), _degrees(b[i]), atol=1e-4, equal_nan=True) for a, b in pairs for i in lines)


@dataclass(frozen=True, eq=False)
class Field:
    """One variable of one file and the part each of its dimensions plays.

    Args:
        time: instants in increasing order, None for a field without time.
        order: position in the file of each instant (over the flattened time dimensions).
        levels: one for each channel; `(None,)` without a level dimension.
    """

    path: Path
    name: str
    quantity: Quantity
    unit: str
    variable: xr.Variable
    lattice: Lattice
    time: Time | None
    order: np.ndarray
    levels: tuple[Level | None, ...]
    members: tuple[int, ...]
    time_dims: tuple[str, ...]
    level_dim: str | None
    member_dim: str | None
    yx: tuple[str, str]
    extreme: str | None = None

    @property
    def place(self) -> str:
        return f"{self.path.name}, variable {self.name}"

    def at(self, levels: Sequence[float]) -> Field | None:
        """With these of its levels only, in the order of the file; a field without levels as it is, one on another single level not at all.

        Raises:
            UserError: a level that it has not.
        """
        if self.level_dim is None:
            only = self.levels[0]
            return self if only is None or np.isclose(levels, only.value).any() else None
        own = [level.value for level in self.levels if level is not None]
        if missing := [v for v in levels if not np.isclose(own, v).any()]:
            raise UserError(f"{self.place} has no level {missing[0]:g}; it has {', '.join(f'{v:g}' for v in own)}")
        kept = [i for i, v in enumerate(own) if np.isclose(levels, v).any()]
        return replace(self, levels=tuple(self.levels[i] for i in kept), variable=self.variable.isel({self.level_dim: kept}))

    @np.errstate(invalid="ignore", over="ignore")
    def read(self, positions: np.ndarray, member: int | None, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Frames at these positions of `time`, in a window of the grid: float32 `(T, L, Y, X)` in the canonical unit, NaN where missing."""
        inner = int(np.prod([self.variable.sizes[d] for d in self.time_dims[1:]]))
        flat = self.order[positions]
        first = int(flat.min()) // inner
        take: dict[str, Any] = dict(zip(self.yx, (y, x), strict=True))
        if self.time_dims:
            take[self.time_dims[0]] = slice(first, int(flat.max()) // inner + 1)
        if self.member_dim is not None:
            take[self.member_dim] = self.members.index(member) if member is not None else 0
        expver = [str(d) for d in self.variable.dims if d == "expver"]
        kept = [*self.time_dims, *expver, *([self.level_dim] if self.level_dim else []), *self.yx]
        take |= {str(d): 0 for d in self.variable.dims if d not in kept and d not in take}
        with one_sentence(self.path, f"read at variable {self.name}"):
            raw = self.variable.isel(take).transpose(*kept).to_numpy()
        values = decode(raw, self.variable.attrs, exact=not same_unit(self.unit, self.quantity.unit))
        values = values.reshape(-1, self.variable.sizes[expver[0]] if expver else 1, len(self.levels), *values.shape[-2:])
        merged = values[:, 0]
        for version in range(1, values.shape[1]):  # final and preliminary months lie side by side along expver
            merged = np.where(np.isnan(merged), values[:, version], merged)
        frames = flat - first * inner
        if not np.array_equal(frames, np.arange(len(merged))):
            merged = merged[frames]
        return convert(merged, self.unit, self.quantity.unit, self.place).astype(np.float32, copy=False)


@np.errstate(invalid="ignore", over="ignore")  # a number that is none, or too large, is marked by its bounds
def decode(raw: np.ndarray, attrs: Mapping[str, Any], exact: bool = False) -> np.ndarray:
    """Stored numbers to values: `_FillValue` and `missing_value` masked, scale and offset applied in float64.

    Float32 that needs no arithmetic stays float32 unless `exact`.
    """
    scale, offset = float(attrs.get("scale_factor", 1.0)), float(attrs.get("add_offset", 0.0))
    packed = raw.dtype.kind in "iu" or (scale, offset) != (1.0, 0.0)
    values = raw.astype(np.float64 if packed or exact else raw.dtype.newbyteorder("="), copy=False)
    missing = np.zeros((), bool)
    for fill in np.ravel([*np.ravel(attrs.get("_FillValue", [])), *np.ravel(attrs.get("missing_value", []))]):
        if np.isfinite(fill) and (raw.dtype.kind not in "iu" or _held(fill, raw.dtype)):
            missing = missing | (raw == np.asarray(fill).astype(raw.dtype))
    if packed:
        values = values * scale + offset
    return np.where(missing, values.dtype.type(np.nan), values) if missing.any() else values


def _held(number: Any, dtype: np.dtype) -> bool:
    """Whether a type of whole numbers can hold it; a fill of another type marks nothing."""
    return float(number).is_integer() and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def _beside(dataset: xr.Dataset, name: str) -> dict[str, xr.Variable]:
    """Variables that can be coordinates of this one: on some of its dimensions, its declared coordinates first, no bounds."""
    variable = dataset.variables[name]
    bounds = {v.attrs.get("bounds") for v in dataset.variables.values()}
    found = {n: v for n, v in dataset.variables.items() if n != name and n not in bounds and set(v.dims) <= set(variable.dims)}
    declared = dataset[name].coords
    return {str(n): found[n] for n in sorted(found, key=lambda n: n not in declared)}


def _lattice(beside: Mapping[str, xr.Variable], where: str) -> tuple[Lattice, tuple[str, str]] | str:
    latitude = next((v for n, v in beside.items() if v.ndim in (1, 2) and is_coordinate(n, v, LATITUDE)), None)
    longitude = next((v for n, v in beside.items() if v.ndim in (1, 2) and is_coordinate(n, v, LONGITUDE)), None)
    if latitude is None or longitude is None:
        return "no latitude and longitude were found (by standard_name, units degrees_north/degrees_east, or name)"
    if latitude.ndim == longitude.ndim == 1 and latitude.dims != longitude.dims:
        yx = (str(latitude.dims[0]), str(longitude.dims[0]))
    elif latitude.ndim == 2 and latitude.dims == longitude.dims:
        yx = (str(latitude.dims[0]), str(latitude.dims[1]))
        if yx[0] in beside and beside[yx[0]].attrs.get("axis") == "X":
            yx = (yx[1], yx[0])
        latitude, longitude = latitude.transpose(*yx), longitude.transpose(*yx)
    else:
        return "latitude and longitude share one dimension: points or an unstructured mesh, not a grid"
    return Lattice(latitude, longitude, where), yx


def _degrees(coordinate: xr.Variable) -> np.ndarray:
    return decode(coordinate.to_numpy(), coordinate.attrs, exact=True)


def make_grid(latitude: np.ndarray, longitude: np.ndarray, where: str) -> Grid:
    """Grid with finite coordinates: a missing one (land cells of an ocean grid) takes its nearest neighbour's and stays marked."""
    if latitude.ndim == 2:
        latitude, longitude, known = placed(latitude, longitude)
    else:
        known = np.isfinite(latitude) & bool(np.isfinite(longitude).all())
    if not known.any() or (latitude.ndim == 1 and not known.all()):
        raise Nowhere(f"{where}: latitude or longitude holds values that are not finite; expected degrees")
    if latitude.ndim == 1:
        known = np.ones((latitude.size, longitude.size), bool)
    return Grid(latitude, longitude, known, boundary(latitude, longitude))


def _levels(beside: Mapping[str, xr.Variable], where: str) -> tuple[tuple[Level | None, ...], str | None]:
    """Levels and their dimension. A single height (2 m) is the habit of a near-surface variable, not a level to tell apart."""
    for name, coordinate in beside.items():
        level = level_kind(name, coordinate.attrs) if coordinate.ndim <= 1 else None
        if level is None or (level == "height" and coordinate.ndim == 0):
            continue
        unit = str(coordinate.attrs.get("units") or LEVEL_UNITS[level])
        numbers = decode(np.atleast_1d(coordinate.to_numpy()), coordinate.attrs, exact=True)
        numbers = np.round(convert(numbers, MILLIBAR.get(unit, unit), LEVEL_UNITS[level], f"{where}, coordinate {name}"), 6)
        return tuple(Level(level, float(v)) for v in numbers), str(coordinate.dims[0]) if coordinate.ndim else None
    return (None,), None


def _instants(beside: Mapping[str, xr.Variable]) -> xr.Variable | None:
    """The coordinate that says when: CF standard name `time`, axis T, or its usual name; decoded to dates."""
    dated = {n: v for n, v in beside.items() if v.dtype.kind == "M" or (v.size and isinstance(v.to_numpy().flat[0], cftime.datetime))}
    for test in (
        lambda n, v: v.attrs.get("standard_name") == "time",
        lambda n, v: v.attrs.get("axis") == "T",
        lambda n, v: n in ("valid_time", "time"),
    ):
        if found := [v for n, v in dated.items() if test(n, v)]:
            return max(found, key=lambda v: v.ndim)
    return None


def _time(dataset: xr.Dataset, instants: xr.Variable, where: str) -> tuple[Time, np.ndarray]:
    """Sorted time and the position of each instant in the file."""
    flat = instants.to_numpy().ravel()
    order = np.argsort(flat, kind="stable")
    bounds = dataset.variables.get(instants.attrs.get("bounds"))
    usable = bounds is not None and bounds.ndim == instants.ndim + 1 and bounds.dtype.kind in "MO"
    edges = bounds.to_numpy().reshape(-1, 2)[order] if bounds is not None and usable else None
    try:
        return Time.from_dates(flat[order], bounds=edges), order
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def make_field(
    path: Path,
    dataset: xr.Dataset,
    name: str,
    quantity: Quantity,
    to_unit: Callable[[Quantity, str], str],
    times: dict[int, tuple[Time, np.ndarray]],
) -> Field | str:
    """The field of a variable, or the reason why it is none.

    Args:
        to_unit: gives the unit to convert from, where a source knows more than the `units` attribute says.
        times: instants already decoded, shared by the variables of a dataset.

    Raises:
        UserError: no unit, one that cannot be converted, or coordinates that are broken.
    """
    variable, where = dataset.variables[name], f"{path.name}, variable {name}"
    beside = _beside(dataset, name)
    found = _lattice(beside, where)
    if isinstance(found, str):
        return found
    lattice, yx = found
    unit = variable.attrs.get("units")
    if not isinstance(unit, str) or not unit.strip():
        raise UserError(f"{where} has no units attribute; expected one that converts to {quantity.unit!r}")
    unit = to_unit(quantity, unit.strip())
    convert(np.zeros(1), unit, quantity.unit, where)
    others = {n: v for n, v in beside.items() if not set(v.dims) & set(yx)}
    instants = _instants(others)
    time, order = None, np.zeros(1, int)
    if instants is not None:
        if id(instants) not in times:
            times[id(instants)] = _time(dataset, instants, where)
        time, order = times[id(instants)]
    time_dims = tuple(map(str, instants.dims)) if instants is not None else ()
    levels, level_dim = _levels({n: v for n, v in others.items() if not set(v.dims) & set(time_dims)}, where)
    member_dim = next((str(d) for d in variable.dims if d in MEMBER_DIMS), None)
    members: tuple[int, ...] = ()
    if member_dim is not None:
        numbers = dataset.variables.get(member_dim)
        usable = numbers is not None and numbers.dtype.kind in "iu"
        members = tuple(int(m) for m in (numbers.to_numpy() if numbers is not None and usable else range(variable.sizes[member_dim])))
    for dim in map(str, variable.dims):
        if dim not in (*time_dims, level_dim, member_dim, "expver", *yx) and variable.sizes[dim] > 1:
            return f"the dimension {dim} of length {variable.sizes[dim]} is not a CF time, level, ensemble member, latitude or longitude"
    end = extreme(name, variable.attrs)
    return Field(path, name, quantity, unit, variable, lattice, time, order, levels, members, time_dims, level_dim, member_dim, yx, end)
