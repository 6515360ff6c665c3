"""Which part of a remote Zarr store is asked for: variables with what belongs to them, and positions along their axes."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr

from scigpt.errors import UserError

Position = slice | np.ndarray
"""Positions along one axis: a slice, or numbers where they do not lie side by side."""

_KEYS = ("variables", "start", "stop", "levels", "latitude", "longitude")
_LEVELS = ("level", "pressure_level", "isobaricInhPa", "plev", "lev", "depth", "hybrid")
_LATITUDE, _LONGITUDE = ("latitude", "lat"), ("longitude", "lon")


def dims_of(array: zarr.Array) -> tuple[str, ...]:
    """Names of the axes, as xarray keeps them in either Zarr format."""
    named: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(str(n) for n in named) if named else tuple(f"{array.basename}_{i}" for i in range(array.ndim))


class Selection:
    """A part of a store.

    Args:
        arrays: all arrays at the top of the store.
        select: see `Remote.select`; dates are both within, longitudes are from low eastward to high.

    Raises:
        UserError: names, dates, levels or an area that the store does not have.
    """

    def __init__(self, where: str, arrays: Mapping[str, zarr.Array], attrs: Mapping[str, Any], select: Mapping[str, Any]) -> None:
        if unknown := set(select) - set(_KEYS):
            raise UserError(f"{where}: a part of a store is chosen by {', '.join(_KEYS)}, not by {', '.join(sorted(unknown))}")
        self.where, self.arrays, self.attrs = where, arrays, attrs
        self.names = self._with_belongings(select.get("variables") or ())
        self.positions: dict[str, Position] = {}
        self.replaced: dict[str, np.ndarray] = {}
        self._cut_time(select.get("start"), select.get("stop"))
        if select.get("levels"):
            self._cut_levels(select["levels"])
        if select.get("latitude"):
            self._cut_latitude(*map(float, select["latitude"]))
        if select.get("longitude"):
            self._cut_longitude(*map(float, select["longitude"]))

    def of(self, name: str) -> tuple[Position, ...]:
        """Positions along each axis of an array."""
        array = self.arrays[name]
        return tuple(self.positions.get(d, slice(0, n)) for d, n in zip(dims_of(array), array.shape, strict=True))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(length(p) for p in self.of(name))

    def bytes(self) -> int:
        return sum(math.prod(self.shape(n)) * self.arrays[n].dtype.itemsize for n in self.names)

    def _with_belongings(self, wanted: Sequence[str]) -> list[str]:
        numeric = [n for n, a in self.arrays.items() if a.dtype.kind in "biuf"]
        names: list[str] = []
        todo = list(wanted or numeric)
        if not todo:
            raise UserError(f"{self.where}: none of its arrays holds numbers ({', '.join(self.arrays)[:160]}); use another store")
        for name in todo:
            if name not in numeric:
                near = difflib.get_close_matches(name, numeric, n=1)
                hint = f"did you mean {near[0]}?" if near else f"choose among {', '.join(numeric)[:160]}"
                raise UserError(f"{self.where}: no variable {name!r}; {hint}")
        while todo:
            name = todo.pop(0)
            if name in names or name not in numeric:
                continue
            names.append(name)
            told = " ".join(str(self.arrays[name].attrs.get(k, "")) for k in ("coordinates", "bounds", "grid_mapping", "cell_measures"))
            todo += [*dims_of(self.arrays[name]), *re.findall(r"[\w.-]+", told)]
        return sorted(names)

    def _axis(self, known: Sequence[str], standard_names: Sequence[str], what: str) -> str:
        """Name of the coordinate along an axis: of one of these names or standard names."""
        found = [n for n in self.names if dims_of(self.arrays[n]) == (n,)]
        for name in found:
            if name in known or self.arrays[name].attrs.get("standard_name") in standard_names:
                return name
        raise UserError(
            f"{self.where}: there is no axis of {what} to choose along (axes: {', '.join(found)}); leave that out of the options"
        )

    def _cut_time(self, start: str | None, stop: str | None) -> None:
        axes = [n for n in self.names if dims_of(self.arrays[n]) == (n,) and " since " in str(self.arrays[n].attrs.get("units", ""))]
        if not axes:
            if start or stop:
                raise UserError(f"{self.where}: there is no axis of time to choose start and stop along; leave them out of the options")
            return
        name = "time" if "time" in axes else axes[0]
        array = self.arrays[name]
        attrs = {k: array.attrs[k] for k in ("units", "calendar") if k in array.attrs}
        index = xr.decode_cf(xr.Dataset(coords={name: (name, np.asarray(array[:]), attrs)})).indexes[name]
        if not index.is_monotonic_increasing:
            raise UserError(f"{self.where}: its times do not increase, so no period of it can be chosen; fetch files instead")
        chosen = slice(0, len(index))
        valid = (self.attrs.get("valid_time_start"), self.attrs.get("valid_time_stop"))  # outside these ARCO-ERA5 is all NaN
        for low, high in ((start, stop), valid):
            try:
                found = index.slice_indexer(low, high)
            except (ValueError, TypeError, KeyError):
                raise UserError(f"{self.where}: start={low} and stop={high} are not dates; expected such as 2020-01-01") from None
            chosen = slice(max(chosen.start, found.start or 0), min(chosen.stop, len(index) if found.stop is None else found.stop))
        if chosen.start >= chosen.stop:
            low, high = valid[0] or index[0], valid[1] or index[-1]
            raise UserError(f"{self.where}: nothing lies between start={start} and stop={stop}; the store holds {low} to {high}")
        self.positions[name] = slice(int(chosen.start), int(chosen.stop))

    def _cut_levels(self, levels: Sequence[float]) -> None:
        name = self._axis(_LEVELS, ("air_pressure", "depth", "height", "altitude"), "levels")
        held = np.asarray(self.arrays[name][:], np.float64)
        near = [int(np.abs(held - float(level)).argmin()) for level in levels]
        if missing := [str(v) for v, i in zip(levels, near, strict=True) if not np.isclose(held[i], float(v), rtol=1e-5)]:
            raise UserError(f"{self.where}: no level {', '.join(missing)}; it holds {', '.join(f'{v:g}' for v in held)[:200]}")
        self.positions[name] = simplest(np.unique(near))

    def _cut_latitude(self, low: float, high: float) -> None:
        name = self._axis(_LATITUDE, ("latitude",), "latitude")
        held = np.asarray(self.arrays[name][:], np.float64)
        self.positions[name] = self._some(np.flatnonzero((held >= low) & (held <= high)), f"latitude={low:g},{high:g}")

    def _cut_longitude(self, low: float, high: float) -> None:
        """Eastward from low, whatever meridian the store begins at; the coordinate is then told from low on, so it increases."""
        name = self._axis(_LONGITUDE, ("longitude",), "longitude")
        held = np.asarray(self.arrays[name][:])
        east = (held.astype(np.float64) - low) % 360
        width = high - low if high > low else high - low + 360
        inside = np.flatnonzero(east <= width)
        inside = inside[np.argsort(east[inside], kind="stable")]
        self.positions[name] = self._some(inside, f"longitude={low:g},{high:g}")
        self.replaced[name] = (low + east[inside]).astype(held.dtype)

    def _some(self, inside: np.ndarray, what: str) -> Position:
        if not len(inside):
            raise UserError(f"{self.where}: no point of its grid lies in {what}; give low,high in degrees")
        return simplest(inside)


def simplest(numbers: np.ndarray) -> Position:
    """A slice where the numbers lie side by side."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if np.array_equal(numbers, np.arange(first, last + 1)) else numbers


def length(position: Position) -> int:
    return position.stop - position.start if isinstance(position, slice) else len(position)


def within(position: Position, start: int, stop: int) -> Position:
    """The part of a position from its `start`-th to before its `stop`-th."""
    return slice(position.start + start, position.start + stop) if isinstance(position, slice) else position[start:stop]
