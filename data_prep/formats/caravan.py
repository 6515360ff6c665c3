"""Caravan, in all its parts: daily flow of a basin beside the weather over it (NetCDF), one file a basin or many in one.

The files of a basin state no unit at their variables; those of Caravan's own code stand here, and what a file states wins.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from scigpt.data.sample import Level, Variable
from scigpt.data.variables import WATER_DEPTH, convert
from scigpt.errors import UserError

_TEN, _TWO = Level("height", 10.0), Level("height", 2.0)
CHANNELS: Mapping[str, tuple[Variable, str]] = {
    "streamflow": (Variable("runoff_flux", "kg m**-2 s**-1"), "mm/d"),
    "total_precipitation_sum": (Variable("precipitation_amount", "kg m**-2", "forcing"), "mm"),
    "temperature_2m_mean": (Variable("air_temperature", "K", "forcing", _TWO), "degC"),
    "temperature_2m_max": (Variable("air_temperature_maximum", "K", "forcing", _TWO), "degC"),
    "temperature_2m_min": (Variable("air_temperature_minimum", "K", "forcing", _TWO), "degC"),
    "dewpoint_temperature_2m_mean": (Variable("dew_point_temperature", "K", "forcing", _TWO), "degC"),
    "surface_pressure_mean": (Variable("surface_air_pressure", "Pa", "forcing"), "kPa"),
    "u_component_of_wind_10m_mean": (Variable("eastward_wind", "m s**-1", "forcing", _TEN), "m/s"),
    "v_component_of_wind_10m_mean": (Variable("northward_wind", "m s**-1", "forcing", _TEN), "m/s"),
    "surface_net_solar_radiation_mean": (Variable("surface_net_downward_shortwave_flux", "W m**-2", "forcing"), "W/m2"),
    "surface_net_thermal_radiation_mean": (Variable("surface_net_downward_longwave_flux", "W m**-2", "forcing"), "W/m2"),
    "snow_depth_water_equivalent_mean": (Variable("surface_snow_amount", "kg m**-2", "forcing"), "mm"),
    "potential_evaporation_sum": (Variable("water_potential_evaporation_amount", "kg m**-2", "forcing"), "mm"),
    "potential_evaporation_sum_ERA5_LAND": (Variable("water_potential_evaporation_amount", "kg m**-2", "forcing"), "mm"),
    "potential_evaporation_sum_FAO_PENMAN_MONTEITH": (
        Variable("water_potential_evaporation_amount_penman_monteith", "kg m**-2", "forcing"),
        "mm",
    ),
    **{
        f"volumetric_soil_water_layer_{i}_mean": (Variable("soil_water_content", "1", "forcing", Level("depth", depth)), "m3/m3")
        for i, depth in enumerate((0.035, 0.175, 0.64, 1.945), 1)
    },
}
"""What a variable of the files becomes, and its unit where the file states none. Layers of soil lie at the middle of their depths."""
AREA = Variable("catchment_area", "m**2", "static")
_UNITS = {"°C": "degC", "m3/m3": "1", "m³/m³": "1", "W/m²": "W/m2", "mm/d": "mm/day"}
_WATER = ("streamflow", "total_precipitation", "snow_depth", "potential_evaporation")
_SINCE = re.compile(r"(days|hours|minutes|seconds) since (\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.0+)?)?")


@dataclass(frozen=True)
class Basin:
    """What is known of a basin. `area` in m**2, `height` of the gauge in metres, None where not known."""

    latitude: float
    longitude: float
    area: float | None = None
    height: float | None = None
    name: str = ""
    country: str = ""


@dataclass(frozen=True, eq=False)
class Series:
    """One basin in a file: its row (None where the file has only one), first and last day, and which channels are there."""

    id: str
    row: int | None
    first: np.datetime64
    last: np.datetime64
    channels: tuple[str, ...]
    basin: Basin | None
    timezone: str = ""


def is_caravan(dataset: netCDF4.Dataset) -> bool:
    return "streamflow" in dataset.variables and _axis(dataset) is not None


@contextmanager
def opened(name: str, data: Path | bytes) -> Iterator[netCDF4.Dataset]:
    """A NetCDF file, or its bytes."""
    dataset = netCDF4.Dataset(data) if isinstance(data, Path) else netCDF4.Dataset(name, memory=data)
    try:
        dataset.set_auto_mask(False)
        yield dataset
    finally:
        dataset.close()


def series_of(name: str, dataset: netCDF4.Dataset) -> list[Series]:
    """The basins of a file called `name` (`GRDC_1159100.nc`).

    Raises:
        UserError: no flow over days, or no day in it.
    """
    if not is_caravan(dataset):
        raise UserError(f"{name} holds no streamflow over a date or a time; expected a file of Caravan, as in timeseries/netcdf")
    days = _days(name, dataset)
    channels = tuple(n for n in CHANNELS if n in dataset.variables)
    taken = {CHANNELS[n][0].key: n for n in reversed(channels)}  # of two for one quantity the first
    channels = tuple(n for n in channels if taken[CHANNELS[n][0].key] == n)
    if "basin_id" not in dataset.variables:
        id_, zone = name.rpartition("/")[2].removesuffix(".nc"), str(getattr(dataset, "Timezone", ""))
        return [Series(id_, None, days[0], days[-1], channels, None, zone)]
    ids = _words(dataset, "basin_id")
    latitude, longitude, area = (_numbers(dataset, n, len(ids)) for n in ("lat", "lon", "area"))
    names, countries, zones = (_words(dataset, n) if n in dataset.variables else [""] * len(ids) for n in ("name", "country", "timezone"))
    found = []
    for row, id_ in enumerate(ids):
        basin = _basin(name, id_, latitude[row], longitude[row], area[row], np.nan, names[row], countries[row])
        found.append(Series(id_, row, days[0], days[-1], channels, basin, zones[row]))
    return found


def read_series(name: str, dataset: netCDF4.Dataset, series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Days (datetime64[D]) and values `(n, C)` float32 in the units of `CHANNELS`, NaN where there is none."""
    days = _days(name, dataset)
    columns = []
    for channel in series.channels:
        stored = dataset.variables[channel]
        if stored.shape != (days.size,) and (series.row is None or stored.shape[1:] != (days.size,)):
            raise UserError(f"{name}: {channel} has the shape {stored.shape}, and there are {days.size} days; fetch the file again")
        raw = np.asarray(stored[:] if series.row is None else stored[series.row], np.float64)
        fill = getattr(stored, "_FillValue", np.nan)
        raw[(raw == fill) | ~np.isfinite(raw)] = np.nan
        columns.append(convert(raw, _unit(dataset, channel), CHANNELS[channel][0].unit, f"{name}, {channel}"))
    return days, np.stack(columns, 1).astype(np.float32)


def basins_of(tables: Mapping[str, bytes]) -> dict[str, Basin]:
    """Basins by id, of `attributes_other_*.csv`, with the heights of `attributes_additional_*.csv` where that is there.

    Raises:
        UserError: a table without the columns that say where basins are, or with a place that is none.
    """
    heights: dict[str, float] = {}
    rows: list[tuple[str, dict[str, str]]] = []
    for name, data in tables.items():
        if not data.endswith(b"\n"):
            raise UserError(f"{name} ends within its last line; it is truncated, fetch it again")
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace")))
        columns = set(reader.fieldnames or ())
        if {"gauge_id", "altitude"} <= columns:
            heights |= {r["gauge_id"]: _number(r["altitude"]) for r in reader}
        elif not {"gauge_id", "gauge_lat", "gauge_lon"} <= columns:
            raise UserError(f"{name} lacks gauge_id, gauge_lat or gauge_lon; give attributes_other_*.csv of Caravan")
        else:
            rows += [(name, r) for r in reader]
    return {
        r["gauge_id"]: _basin(
            name, r["gauge_id"], _number(r["gauge_lat"]), _number(r["gauge_lon"]), _number(r.get("area")),
            heights.get(r["gauge_id"], np.nan), r.get("gauge_name") or "", r.get("country") or "",
        )
        for name, r in rows
    }  # fmt: skip


def is_attributes(name: str) -> bool:
    """Whether a file of this name says where basins are."""
    return re.search(r"attributes_(other|additional)_\w+\.csv$", name) is not None


def beside(path: Path) -> list[Path]:
    """The tables of attributes that belong to a file in `timeseries/netcdf/PART`."""
    for folder in list(path.parents)[:4]:
        found = [p for p in sorted(folder.glob("attributes/*/attributes_*.csv")) if is_attributes(p.name)]
        if found:
            return found
    return []


class Archive:
    """A zip of Caravan: the members that are read, by their path after whatever its first folder is called."""

    def __init__(self, path: Path) -> None:
        self.path, self.zip = path, zipfile.ZipFile(path)
        names = [i.filename for i in self.zip.infolist()]
        self.series = {n.rpartition("/")[2].removesuffix(".nc"): n for n in names if re.search(r"timeseries/netcdf/[^/]+/[^/]+\.nc$", n)}
        self.tables = [n for n in names if is_attributes(n)]

    def read(self, member: str) -> bytes:
        return self.zip.read(member)


def _axis(dataset: netCDF4.Dataset) -> str | None:
    return next((n for n in ("date", "time") if n in dataset.variables and dataset.variables[n].ndim == 1), None)


def _days(name: str, dataset: netCDF4.Dataset) -> np.ndarray:
    axis = dataset.variables[_axis(dataset) or ""]
    match = _SINCE.match(str(getattr(axis, "units", "")))
    calendar = str(getattr(axis, "calendar", "proleptic_gregorian"))
    if match is None or calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        raise UserError(f"{name}: its dates are in {getattr(axis, 'units', 'no unit')!r}, {calendar}; expected 'days since 1950-01-01'")
    seconds = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}[match[1]]
    counts = np.asarray(axis[:], np.float64) * seconds
    whole = np.isfinite(counts) & (np.abs(counts) < 1e12)
    since = np.datetime64(f"{match[2]}T{match[3] or '00:00:00'}", "s")
    instants = since + np.rint(np.where(whole, counts, 0.5)).astype(np.int64).astype("timedelta64[s]")
    days = instants.astype("datetime64[D]")
    wrong = ~whole | (days.astype("datetime64[s]") != instants)
    wrong[1:] |= np.diff(days).astype(np.int64) <= 0
    if not days.size or wrong.any():
        at = int(np.argmax(wrong)) if days.size else 0
        raise UserError(f"{name}: its date {at} is no day after the one before it; the file may be damaged, fetch it again")
    return days


def _unit(dataset: netCDF4.Dataset, channel: str) -> str:
    variable = dataset.variables[channel]
    family = re.sub(r"_(mean|min|max|sum)$", "", channel)
    listed = re.search(rf"^\W*(?:{channel}|{family})\s*:[^\n]*\[([^\]]+)\]", str(getattr(dataset, "Units", "")), re.MULTILINE)
    stated = [str(getattr(variable, a, "")).strip() for a in ("unit", "units")] + ([listed[1].strip()] if listed else [])
    unit = next((u for u in stated if u not in ("", "-")), CHANNELS[channel][1])
    unit = _UNITS.get(unit, unit)
    return WATER_DEPTH.get(unit, unit) if channel.startswith(_WATER) else unit


def _words(dataset: netCDF4.Dataset, name: str) -> list[str]:
    stored = dataset.variables[name][:]
    words = netCDF4.chartostring(stored, encoding="utf-8") if stored.dtype.kind == "S" and stored.ndim == 2 else stored
    return [str(w).strip("\0 ") for w in np.asarray(words).tolist()]


def _numbers(dataset: netCDF4.Dataset, name: str, count: int) -> np.ndarray:
    return np.asarray(dataset.variables[name][:], np.float64) if name in dataset.variables else np.full(count, np.nan)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _basin(where: str, id_: str, latitude: float, longitude: float, square_km: float, height: float, name: str, country: str) -> Basin:
    if not (abs(latitude) <= 90 and abs(longitude) <= 360):
        raise UserError(f"{where}: {id_} lies at {latitude:g}, {longitude:g}; expected a latitude and a longitude in degrees")
    area = float(square_km) * 1e6 if square_km > 0 else None
    return Basin(float(latitude), float(longitude), area, float(height) if height > -999 else None, name, country)
