"""What MODIS files share: tiles of the sinusoidal grid, their own account of product and day, bit fields of quality, scales that divide."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scigpt.data_prep.formats.hdf_eos import EosField, EosFile, EosGrid
from scigpt.data_prep.formats.lazy import Read
from scigpt.errors import UserError

RADIUS = 6371007.181
TILE = 2 * np.pi * RADIUS / 36
"""Side of a tile, metres."""

Bits = tuple[int, int, tuple[int, ...]]
"""First bit of a flag, the mask of its width, and the values that mark a pixel."""
STATE: Mapping[str, Bits] = {
    "cloud": (0, 3, (1, 2)),
    "shadow": (2, 1, (1,)),
    "aerosol": (6, 3, (3,)),
    "cirrus": (8, 3, (3,)),
    "internal_cloud": (10, 1, (1,)),
    "snow": (12, 1, (1,)),
    "adjacent": (13, 1, (1,)),
}
"""state_1km of the surface reflectance products (MODIS Surface Reflectance User's Guide, Collection 6)."""
INDEX_STATE: Mapping[str, Bits] = {
    "cloud": (0, 3, (2,)),
    "aerosol": (6, 3, (3,)),
    "adjacent": (8, 1, (1,)),
    "snow": (14, 1, (1,)),
    "shadow": (15, 1, (1,)),
}
"""VI Quality of the vegetation indices (MODIS Vegetation Index User's Guide, Collection 6)."""
UNUSABLE = (8, 9, 11, 13, 14, 15)
"""Quality of a band: dead detector, Sun below 4 degrees, missing input, out of bounds, faulty input, not processed."""

Layer = tuple[EosFile, str, int]
"""A variable of a file, and how many pixels of the grid lie along one side of one of its own."""


@dataclass(frozen=True)
class Granule:
    """What a file says about itself: product, tile, first day and the day after the last."""

    product: str
    tile: tuple[int, int]
    first: np.datetime64
    end: np.datetime64

    @property
    def place(self) -> str:
        return f"h{self.tile[0]:02d}v{self.tile[1]:02d}"


def granule_of(file: EosFile) -> Granule:
    """Product, tile and days by the file's own metadata, by its name where these are missing.

    Raises:
        UserError: neither says it, or they contradict each other.
    """
    text = "".join(str(v) for k, v in file.attrs.items() if k.startswith("CoreMetadata"))
    own, name = _odl(text, "LOCALGRANULEID") or file.path.name, file.path.name
    match = re.search(r"(M[OYC]D\w+)\.A(\d{4})(\d{3})\.h(\d\d)v(\d\d)\.", own)
    if match is None:
        raise UserError(f"{name} is no MODIS tile by its metadata or name; expected one such as MOD09GA.A2008296.h14v17.061.*.hdf")
    first = np.datetime64(f"{int(match[2]):04d}-01-01", "D") + np.timedelta64(int(match[3]) - 1, "D")
    begin, end = _odl(text, "RANGEBEGINNINGDATE") or str(first), _odl(text, "RANGEENDINGDATE") or str(first)
    try:
        start, last = np.datetime64(begin, "D"), np.datetime64(end, "D")
    except ValueError:
        raise UserError(f"{name}: {begin} and {end} in its metadata are no dates; it may be damaged, fetch it again") from None
    if start != first or not 0 <= int((last - first).astype(int)) < 32:
        raise UserError(f"{name}: A{match[2]}{match[3]} is {first}, its metadata says {begin} to {end}; it may be damaged, fetch it again")
    return Granule(match[1], (int(match[4]), int(match[5])), first, last + np.timedelta64(1, "D"))


def _odl(text: str, name: str) -> str | None:
    match = re.search(rf"OBJECT\s*=\s*{name}\s.*?VALUE\s*=\s*\"?([^\"\n]*)\"?\s*\n", text, re.DOTALL)
    return match[1].strip() if match else None


def check_tile(file: EosFile, grid: EosGrid, granule: Granule) -> None:
    """The grid must be the sinusoidal one, and its corners those of the tile."""
    (h, v), where = granule.tile, f"{file.path.name}, grid {grid.name}"
    if grid.projection != "GCTP_SNSOID" or abs(grid.parameters[0] - RADIUS) > 1:
        found = f"{grid.projection} of radius {grid.parameters[0]:.10g} m"
        raise UserError(f"{where}: the projection is {found}; expected the sinusoidal one of radius {RADIUS} m")
    expected = [(h - 18) * TILE, (9 - v) * TILE, (h - 17) * TILE, (8 - v) * TILE]
    if not np.allclose([*grid.upper_left, *grid.lower_right], expected, rtol=0, atol=1.0):
        raise UserError(f"{where}: its corners are not those of the tile {granule.place}; it may be damaged, fetch it again")


def degrees(grid: EosGrid, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (Y, X) of pixel centres by the inverse sinusoidal projection (Snyder 1987, eqs. 30-6 and 30-7).

    Longitudes beyond 180 degrees, which only pixels outside the globe have, come as they are.
    """
    y, x = grid.centres(rows, columns)
    latitude = np.broadcast_to(y[:, None] / RADIUS, (y.size, x.size))
    return np.degrees(latitude), np.degrees(x[None, :] / (RADIUS * np.cos(latitude)))


def place(grid: EosGrid, which: int) -> Read:
    """Reads latitude (0) or longitude (1); a pixel whose centre lies outside the globe is put on its edge."""
    return lambda window: np.clip(degrees(grid, window[0], window[1])[which], -180.0, 180.0)


def divisor(field: EosField, where: str) -> float:
    """What stored numbers are divided by: of `scale_factor` and its inverse the one that makes `valid_range` end near 1.

    MODIS land products write the divisor, 10000.0, where the CF conventions have the factor.

    Raises:
        UserError: neither does, or there is an offset.
    """
    attrs = field.attrs
    try:
        scale, top, offset = float(attrs["scale_factor"]), float(attrs["valid_range"][1]), float(attrs.get("add_offset", 0.0))
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"{where} lacks scale_factor or valid_range, or they are no numbers; it may be damaged, fetch it again") from None
    for candidate in (scale, round(1.0 / scale, 6)) if scale > 0 else ():
        if 0.5 * candidate <= top <= 2.0 * candidate and offset == 0.0:
            return candidate
    found = f"scale_factor {scale:g} and offset {offset:g} do not bring {top:g}, the end of valid_range, near 1"
    raise UserError(f"{where}: {found}; it may be damaged, fetch it again")


@dataclass(frozen=True, eq=False)
class Flags:
    """Bit fields that say which pixels are missing: the state (cloud, shadow, ...) and the quality of each band.

    Args:
        state, masks: the layer and those of its flags that make a pixel missing; None for none.
        quality, wanted: the layer, and which pixels are kept: `usable`, `ideal` or `any`.
        shift: first bit of the quality of the first band; None for the one quality of a vegetation index.
    """

    state: Layer | None
    masks: Mapping[str, Bits]
    quality: Layer
    wanted: str
    shift: int | None
    _last: dict[str, Any] = field(default_factory=dict)

    def missing(self, band: int, rows: slice, columns: slice) -> np.ndarray:
        """Bool (Y, X) of a band counted from 0."""
        if self._last.get("window") != (rows, columns):  # the bands of a window are read one after the other
            self._last.update(window=(rows, columns), hidden=self._hidden(rows, columns))
            if self.wanted != "any":
                self._last.update(quality=expanded(self.quality, rows, columns))
        hidden = self._last["hidden"]
        if self.wanted == "any":
            return hidden
        quality, unknown = self._last["quality"]
        if self.shift is None:
            poor = quality & 3 != 0 if self.wanted == "ideal" else quality & 3 == 3
        else:
            own = (quality >> (self.shift + 4 * band)) & 15
            poor = own != 0 if self.wanted == "ideal" else np.isin(own, UNUSABLE) | (quality & 3 >= 2)
        return hidden | unknown | poor

    def _hidden(self, rows: slice, columns: slice) -> np.ndarray:
        if self.state is None:
            return np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        state, hidden = expanded(self.state, rows, columns)
        for first, width, marked in self.masks.values():
            hidden |= np.isin((state >> first) & width, marked)
        return hidden


def fill_value(file: EosFile, name: str) -> int:
    """What stands where a pixel was not observed."""
    fill = file.fields[name].attrs.get("_FillValue")
    if not isinstance(fill, int):
        raise UserError(f"{file.path.name}, {name} has no whole number as _FillValue; it may be damaged, fetch it again")
    return fill


def expanded(layer: Layer, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """A bit field in a window of a finer grid, each of its pixels repeated, and where it holds its fill value."""
    file, name, times = layer
    coarse = tuple(slice(s.start // times, -(-s.stop // times)) for s in (rows, columns))
    values = file.read(name, coarse[0], coarse[1])
    if times > 1:
        values = values.repeat(times, 0).repeat(times, 1)
        top, left = rows.start - coarse[0].start * times, columns.start - coarse[1].start * times
        values = values[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    return values, values == fill_value(file, name)


def values(file: EosFile, name: str, band: int, flags: Flags) -> Read:
    """Reads a band (T, Y, X) as the fraction it stands for, float32, NaN where it is missing."""
    field = file.fields[name]
    scale = divisor(field, f"{file.path.name}, {name}")
    low, high = (float(v) for v in field.attrs["valid_range"])
    fill = fill_value(file, name)

    def read(window: tuple[slice, ...]) -> np.ndarray:
        rows, columns = window[1], window[2]
        raw = file.read(name, rows, columns).astype(np.float64)
        missing = (raw < low) | (raw > high) | (raw == fill) | flags.missing(band, rows, columns)
        return np.where(missing, np.nan, raw / scale).astype(np.float32)[None]

    return read
