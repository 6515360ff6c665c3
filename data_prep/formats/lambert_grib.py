"""GRIB on a Lambert grid (NARR, NAM): messages listed in one pass and read one by one, levels and instants put into order.

cfgrib reads such a file again for each of its hypercubes (16 s for the 1.2 MB of a NAM forecast, against 0.3 s here) and misnames NARR's
own GRIB 1 files: ecCodes takes the numbers of NCEP's table 131 for those of another centre, so they are named here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scigpt.data_prep.formats import grib
from scigpt.data_prep.formats.lazy import Read, lazy
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

TABLE_131: Mapping[int, tuple[str, str]] = {
    1: ("pres", "Pa"), 2: ("prmsl", "Pa"), 7: ("gh", "gpm"), 11: ("t", "K"), 17: ("dpt", "K"), 33: ("u", "m s**-1"), 34: ("v", "m s**-1"),
    39: ("w", "Pa s**-1"), 51: ("q", "kg kg**-1"), 52: ("r", "%"), 54: ("pwat", "kg m**-2"), 61: ("tp", "kg m**-2"),
    65: ("sdwe", "kg m**-2"), 71: ("tcc", "%"), 204: ("dswrf", "W m**-2"),
}  # fmt: skip
"""Parameters of NCEP's GRIB 1 table 131 by number: name as ecCodes calls the quantity elsewhere, and unit."""

LEVELS: Mapping[str, Mapping[str, str]] = {
    "isobaricInhPa": {"units": "hPa", "standard_name": "air_pressure"},
    "heightAboveGround": {"units": "m", "standard_name": "height", "positive": "up"},
}
"""Kinds of levels that tell channels of one variable apart, and how the CF conventions describe their coordinate."""

_KEYS = ("shortName", "cfVarName", "units", "typeOfLevel", "level", "topLevel", "bottomLevel", "stepType", "startStep", "endStep")
_PROJECTION = ("LaDInDegrees", "LoVInDegrees", "Latin1InDegrees", "Latin2InDegrees")
_GRID = ("Nx", "Ny", "latitudeOfFirstGridPointInDegrees", "longitudeOfFirstGridPointInDegrees", "DxInMetres", "DyInMetres", *_PROJECTION)


@dataclass(frozen=True, slots=True)
class Message:
    """One field of a file: the `part`-th of the message at `offset`.

    Args:
        layer: what tells fields on surfaces without a level of their own apart (top and bottom of a layer).
        hours: length of the interval that ends at `time`; 0 for an instant.
        along_grid: 1 where the components of a vector are along the grid, 0 where they are to the east and north.
    """

    offset: int
    part: int
    name: str
    unit: str
    surface: str
    level: float
    layer: tuple[int, int]
    step_type: str
    time: np.datetime64
    hours: int
    along_grid: int


def read(path: Path) -> list[xr.Dataset]:
    """The datasets of a file, one for each set of levels and instants; values are read where they are asked for.

    Variables lie on `(time, [level,] y, x)` beside 2-D latitude and longitude, their `surface`, `step_type` and,
    as 1 or 0 whether a wind is `along_grid` among their attributes; the projection is a CF grid mapping `lambert`.

    Raises:
        UserError: ecCodes is not installed; the file is damaged, not on one Lambert conformal grid, or holds a field twice.
    """
    messages, grid, latitude, longitude = _listed(path)
    series: dict[tuple[Any, ...], dict[float, list[Message]]] = {}
    for m in messages:
        own = None if m.surface == "isobaricInhPa" else (m.level, m.layer)
        series.setdefault((m.name, m.unit, m.surface, m.step_type, m.hours, m.along_grid, own), {}).setdefault(m.level, []).append(m)
    groups: dict[tuple[Any, ...], dict[tuple[str, str], list[list[Message]]]] = {}
    for (name, unit, surface, *kind), by_level in series.items():
        by_times: dict[tuple[np.datetime64, ...], list[list[Message]]] = {}
        for at_level in by_level.values():
            ordered = sorted(at_level, key=lambda m: m.time)
            times = tuple(m.time for m in ordered)
            if twice := [a for a, b in itertools.pairwise(times) if a == b]:
                where = f"{name} on {surface} {ordered[0].level:g}"
                raise UserError(f"{path.name} holds {where} twice for {twice[0]}; leave one of the messages out")
            by_times.setdefault(times, []).append(ordered)
        for times, levels in by_times.items():
            levels.sort(key=lambda level: level[0].level, reverse=surface == "isobaricInhPa")
            groups.setdefault((surface, *kind, times, tuple(level[0].level for level in levels)), {})[name, unit] = levels
    shared = {
        "latitude": xr.Variable(("y", "x"), latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": xr.Variable(("y", "x"), longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        "lambert": xr.Variable((), 0, _mapping(grid)),
    }
    return [_dataset(path, variables, shared) for variables in groups.values()]


def is_lambert(path: Path) -> bool:
    """Whether the first message is on a Lambert conformal grid; False where that cannot be told."""
    try:
        eccodes = _eccodes()
        grib.require_whole(path)
        with path.open("rb") as file:
            handle = eccodes.codes_grib_new_from_file(file, headers_only=True)
            if handle is None:
                return False
            try:
                return bool(eccodes.codes_get(handle, "gridType") == "lambert")
            finally:
                eccodes.codes_release(handle)
    except Exception:  # a damaged file, or no ecCodes: another reader will say so
        return False


def _dataset(path: Path, variables: Mapping[tuple[str, str], list[list[Message]]], shared: Mapping[str, xr.Variable]) -> xr.Dataset:
    """Of variables whose messages, by level and then by time, are of one kind."""
    by_level = next(iter(variables.values()))
    times, levels, first = [m.time for m in by_level[0]], [level[0].level for level in by_level], by_level[0][0]
    end = np.array(times, "datetime64[ns]")
    coordinates = {**shared, "time": xr.Variable("time", end, {"standard_name": "time"})}
    if first.hours:
        coordinates["time"].attrs["bounds"] = "time_bounds"
        coordinates["time_bounds"] = xr.Variable(("time", "nv"), np.stack([end - np.timedelta64(first.hours, "h"), end], axis=1))
    dims, shape = ["time"], [len(times)]
    about = {"surface": first.surface, "step_type": first.step_type, "along_grid": first.along_grid, "grid_mapping": "lambert"}
    if first.surface in LEVELS:
        dims, shape = [*dims, first.surface], [*shape, len(levels)]
        coordinates[first.surface] = xr.Variable(first.surface, np.array(levels), dict(LEVELS[first.surface]))
    grid = shared["latitude"].shape
    data = {
        name: lazy([*dims, "y", "x"], [*shape, *grid], np.float32, _reader(path, messages, (grid[0], grid[1])), {"units": unit, **about})
        for (name, unit), messages in variables.items()
    }
    return xr.Dataset(data, coordinates)


def _reader(path: Path, messages: list[list[Message]], grid: tuple[int, int]) -> Read:
    """Reads a window `(time, [level,] y, x)` of messages given by level and then by time."""

    def read_window(window: tuple[slice, ...]) -> np.ndarray:
        time, *level, y, x = window
        by_level = messages[level[0]] if level else messages
        chosen = [m for at_time in zip(*(m[time] for m in by_level), strict=True) for m in at_time]
        return _values(path, chosen, grid, y, x).reshape([w.stop - w.start for w in window])

    return read_window


def _mapping(grid: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": [grid["Latin1InDegrees"], grid["Latin2InDegrees"]],
        "longitude_of_central_meridian": grid["LoVInDegrees"],
        "latitude_of_projection_origin": grid["LaDInDegrees"],
    }


def _eccodes() -> Any:
    try:
        import eccodes
    except (ImportError, RuntimeError):  # RuntimeError: the library itself is not found
        raise UserError("reading GRIB needs eccodes, which is not installed; run: pip install 'scigpt[grib]'") from None
    return eccodes


@contextmanager
def _fields_of_messages(eccodes: Any) -> Iterator[None]:
    """NCEP puts both components of a wind into one message; ecCodes gives the second only while this switch of the process is on."""
    eccodes.codes_grib_multi_support_on()
    try:
        yield
    finally:
        eccodes.codes_grib_multi_support_off()


def _listed(path: Path) -> tuple[list[Message], dict[str, Any], np.ndarray, np.ndarray]:
    """All fields, the grid they share, and its latitudes and longitudes `(Y, X)`."""
    eccodes = _eccodes()
    found: list[Message] = []
    grid: dict[str, Any] = {}
    places = [np.empty(0)]
    grib.require_whole(path)
    with one_sentence(path), path.open("rb") as file, _fields_of_messages(eccodes):
        eccodes.codes_grib_multi_support_reset_file(file)
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                if (kind := eccodes.codes_get(handle, "gridType")) != "lambert":
                    raise UserError(f"{path.name} is on a {kind} grid; expected a Lambert conformal one (ERA5 has a source of its own)")
                own = {key: eccodes.codes_get(handle, key) for key in _GRID}
                if not grid:
                    grid, shape = own, (int(own["Ny"]), int(own["Nx"]))
                    places = [_rows(eccodes, handle, eccodes.codes_get_array(handle, f"{k}itudes"), shape) for k in ("lat", "long")]
                elif own != grid:
                    raise UserError(f"{path.name} holds fields on several grids; expected one")
                offset = int(eccodes.codes_get(handle, "offset"))
                part = found[-1].part + 1 if found and found[-1].offset == offset else 0
                found.append(_message(eccodes, handle, offset, part))
            finally:
                eccodes.codes_release(handle)
    if not found:
        raise UserError(f"{path.name} holds no GRIB message; expected one for each field")
    return found, grid, places[0], places[1]


def _message(eccodes: Any, handle: Any, offset: int, part: int) -> Message:
    keys = {key: eccodes.codes_get(handle, key) for key in _KEYS}
    name = keys["shortName"] if keys["cfVarName"] == "unknown" else keys["cfVarName"]
    unit = keys["units"]
    table = eccodes.codes_get(handle, "table2Version") if eccodes.codes_get(handle, "edition") == 1 else None
    if table == 131 and eccodes.codes_get(handle, "centre") == "kwbc":
        number = eccodes.codes_get(handle, "indicatorOfParameter")
        name, unit = TABLE_131.get(number, (f"table131_{number}", "unknown"))
    date, clock = (int(eccodes.codes_get(handle, f"validity{k}")) for k in ("Date", "Time"))
    text = f"{date:08d}"
    time = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:]}T{clock // 100:02d}:{clock % 100:02d}", "ns")
    hours = 0 if keys["stepType"] == "instant" else int(keys["endStep"]) - int(keys["startStep"])
    layer, along = (int(keys["topLevel"]), int(keys["bottomLevel"])), int(eccodes.codes_get(handle, "uvRelativeToGrid"))
    return Message(offset, part, name, unit, keys["typeOfLevel"], float(keys["level"]), layer, keys["stepType"], time, hours, along)


def _values(path: Path, messages: Sequence[Message], grid: tuple[int, int], y: slice, x: slice) -> np.ndarray:
    """A window of these fields, float32 `(N, Y, X)`, NaN where the bitmap says missing."""
    eccodes = _eccodes()
    result = np.empty((len(messages), y.stop - y.start, x.stop - x.start), np.float32)
    with one_sentence(path), path.open("rb") as file, _fields_of_messages(eccodes):
        for i in sorted(range(len(messages)), key=lambda i: (messages[i].offset, messages[i].part)):
            file.seek(messages[i].offset)
            eccodes.codes_grib_multi_support_reset_file(file)
            for part in range(messages[i].part + 1):
                handle = eccodes.codes_grib_new_from_file(file)
                if handle is None:
                    raise UserError(f"{path.name} has changed while it was read; expected a field at byte {messages[i].offset}")
                try:
                    if part == messages[i].part:
                        missing = 9.999e20
                        eccodes.codes_set(handle, "missingValue", missing)
                        values = eccodes.codes_get_values(handle)
                        if eccodes.codes_get(handle, "bitmapPresent"):
                            values = np.where(values == missing, np.nan, values)
                        result[i] = _rows(eccodes, handle, values, grid)[y, x]
                finally:
                    eccodes.codes_release(handle)
    return result


def _rows(eccodes: Any, handle: Any, values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Values in the order of the message as `(Y, X)`."""
    down = eccodes.codes_get(handle, "jPointsAreConsecutive")
    rows = values.reshape(grid[::-1] if down else grid).copy()
    if eccodes.codes_get(handle, "alternativeRowScanning"):
        rows[1::2] = rows[1::2, ::-1]
    return rows.T if down else rows
