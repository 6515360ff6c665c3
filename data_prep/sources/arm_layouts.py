"""How the files of ARM say where, when and how well, in their old and their new layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np

from scigpt.data.sample import Level
from scigpt.data.variables import QUANTITIES, convert
from scigpt.errors import UserError

Stamp = Literal["begin", "middle", "end", "instant"]

DATASTREAM = re.compile(r"(?P<site>[a-z]{3})(?P<product>[a-z0-9]+?)(?P<facility>[A-Z]\d+)\.(?P<level>[a-c]\d)(?=\.|$)")
_NAMED: tuple[tuple[str, str], ...] = (
    ("surface_air_pressure", "pressure_sfc p_sfc atmos_pressure atm_pres"),
    ("air_temperature", "temperature_sfc T_sfc temp_mean temp_irga"),
    ("relative_humidity", "relative_humidity_sfc rh_sfc rh_mean"),
    ("vapour_pressure", "vapor_pressure_mean"),
    ("wind_speed", "wspd_arith_mean wind_spd"),
    ("eastward_wind", "u_wind_sfc u_sfc"),
    ("northward_wind", "v_wind_sfc v_sfc"),
    ("precipitation_amount", "tbrg_precip_total_corr tbrg_precip_total"),
    ("precipitation_flux", "precip_rate_sfc prec_sfc pwd_precip_rate_mean_1min org_precip_rate_mean"),
    ("surface_upward_sensible_heat_flux", "h"),
    ("surface_upward_latent_heat_flux", "lv_e"),
    ("surface_upward_mole_flux_of_carbon_dioxide", "fc"),
    ("friction_velocity", "ustar"),
    ("surface_downwelling_shortwave_flux", "swdn"),
    ("surface_upwelling_shortwave_flux", "swup"),
    ("surface_downwelling_longwave_flux", "lwdn"),
    ("surface_upwelling_longwave_flux", "lwup"),
    ("total_column_water_vapour", "pwv"),
    ("total_cloud_cover", "tot_cld totcld"),
    ("cloud_area_fraction_in_layer", "cld_frac"),
    ("air_temperature", "temperature_p T_p"),
    ("relative_humidity", "relative_humidity_p rh_p"),
    ("eastward_wind", "u_wind_p u_p"),
    ("northward_wind", "v_wind_p v_p"),
    ("dew_point_temperature", "dewpoint_p Td_p"),
)
"""Quantity, and what files call it, the preferred one first. Profiles have names of their own."""
_BEGINS = ("30ecor", "ecor")
_MIDDLES = ("armbe", "cmbe")
_SPOILT = re.compile(r"(^|_)(qc|source|stdev|std|sdev|min|max|log|n)(_|$)", re.IGNORECASE)
_WATER = ("precipitation_amount", "precipitation_flux", "total_column_water_vapour")


@dataclass(frozen=True)
class Channel:
    """One column of a file.

    Args:
        name: in the file; `index` on its second dimension, None for a value at the surface.
        scale, offset: from the numbers of the file to `unit`.
    """

    name: str
    quantity: str
    unit: str
    level: Level | None
    index: int | None
    scale: float
    offset: float


def attribute(variable: Any, name: str, default: Any = None) -> Any:
    return variable.getncattr(name) if name in variable.ncattrs() else default


def stream_of(file: netCDF4.Dataset, path: Path) -> re.Match[str]:
    """Site, product and facility, of the file or else of its name."""
    for text in (str(attribute(file, "datastream", "")), path.name, str(attribute(file, "zeb_platform", ""))):
        if (match := DATASTREAM.match(text.strip())) is not None:
            return match
    raise UserError(f"{path.name} does not say of which datastream it is; expected a name such as sgpmetE13.b1.20190101.000000.cdf")


def place_of(file: netCDF4.Dataset, path: Path) -> tuple[float, float, float | None]:
    """Latitude, longitude and height; old files write the west and the south as positive numbers and say so in the unit."""
    found = []
    for name, limit, turned in (("lat", 90.0, r"degrees?[ _]*(south|s)"), ("lon", 180.0, r"degrees?[ _]*(west|w)")):
        value = _scalar(file, name, path)
        if re.fullmatch(turned, str(attribute(file[name], "units", "")).strip(), re.IGNORECASE):
            if value < 0:
                raise UserError(f"{path.name}: {name} is {value:g} in {attribute(file[name], 'units')}, which could mean either side")
            value = -value
        if name == "lon" and limit < value <= 360:
            value -= 360
        if not abs(value) <= limit:
            raise UserError(f"{path.name}: {name} is {value:g}; expected degrees, the file is damaged or gives no place")
        found.append(value)
    height = _scalar(file, "alt", path) if "alt" in file.variables else np.nan
    return found[0], found[1], height if -500 < height < 9000 else None


def _scalar(file: netCDF4.Dataset, name: str, path: Path) -> float:
    if name not in file.variables:
        raise UserError(f"{path.name} has no {name}; expected the file of a fixed site of ARM with lat and lon")
    values = np.unique(np.asarray(file[name][...], np.float64))
    if values.size != 1:
        raise UserError(f"{path.name}: {name} changes with time, the platform moved; only fixed sites are read")
    return float(values[0])


def instants_of(file: netCDF4.Dataset, path: Path) -> np.ndarray:
    """Seconds since 1970 (UTC), float64, from base_time and time_offset; the copy `time` must agree."""
    if {"base_time", "time_offset"} <= set(file.variables):
        base = _scalar(file, "base_time", path)
        seconds = base + np.asarray(file["time_offset"][:], np.float64)
        if "time" in file.variables:
            copy = _decoded(file["time"], path)
            if copy.shape != seconds.shape or (np.abs(copy - seconds) > 0.5).any():
                raise UserError(f"{path.name}: time and base_time + time_offset do not agree; the file is damaged or was edited")
    elif "time" in file.variables:
        seconds = _decoded(file["time"], path)
    else:
        raise UserError(f"{path.name} has neither time nor base_time and time_offset; expected a file of ARM")
    if seconds.ndim != 1 or not seconds.size or not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        raise UserError(f"{path.name}: its times do not increase; the file is damaged")
    return np.round(seconds)


def _decoded(variable: Any, path: Path) -> np.ndarray:
    """The calendars that ARM names are one for its years; any other would mean other days."""
    units, calendar = str(attribute(variable, "units", "")), str(attribute(variable, "calendar", "standard")).lower()
    if calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        raise UserError(
            f"{path.name}: the calendar of {variable.name} is {calendar!r}; expected gregorian, standard or proleptic_gregorian"
        )
    match = re.match(r"(seconds|minutes|hours|days) since (\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?", units)
    if match is None:
        raise UserError(
            f"{path.name}: the unit of {variable.name} is {units[:60]!r}; expected such as 'seconds since 2019-01-01 00:00:00 0:00'"
        )
    year, month, day, hour, minute, second = (int(v or 0) for v in match.groups()[1:])
    start = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}", "s").astype(np.int64)
    return float(start) + np.asarray(variable[:], np.float64) * {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}[match[1]]


def begins_of(file: netCDF4.Dataset, path: Path, stamp: Stamp | None) -> tuple[np.ndarray, int | None, bool]:
    """Beginnings of the intervals (or instants), datetime64[s]; the step in seconds, None of a single value; whether they are intervals.

    Raises:
        UserError: the file does not say which part of an interval its times are, and `stamp` does not either.
    """
    seconds = instants_of(file, path)
    steps = np.diff(seconds)
    step = int(steps.min()) if steps.size else None
    shift = None
    if stamp is None and (bounds := _bounds(file, path, seconds)) is not None:
        widths = np.unique(np.round(bounds[:, 1] - bounds[:, 0]))
        if widths.size > 1 or (step is not None and widths[0] != step):
            raise UserError(f"{path.name}: intervals of {widths[0]:g} s every {step} s; expected intervals that follow each other")
        step = int(widths[0])
        shift = seconds - bounds[:, 0]
    else:
        stamp = stamp or _said(file, path)
        if step is None and stamp != "instant":
            raise UserError(f"{path.name} has a single time and no bounds, its interval is not known; leave it out or give stamp=instant")
        shift = {"begin": 0.0, "instant": 0.0, "end": float(step or 0), "middle": (step or 0) / 2}[stamp]
    if step is not None and (np.abs(steps / step - np.round(steps / step)) > 1e-6).any():
        raise UserError(f"{path.name}: steps of {steps.min():g} to {steps.max():g} s; expected one step and whole multiples of it")
    return np.round(seconds - shift).astype("datetime64[s]"), step, stamp != "instant"


def _bounds(file: netCDF4.Dataset, path: Path, seconds: np.ndarray) -> np.ndarray | None:
    name = attribute(file["time"], "bounds", "time_bounds") if "time" in file.variables else "time_bounds"
    if name not in file.variables:
        return None
    source = file["time"] if "time" in file.variables else file["time_offset"]
    found = np.asarray(file[name][:], np.float64) + (seconds - np.asarray(source[:], np.float64))[:, None]
    if found.shape != (seconds.size, 2) or (found[:, 0] > seconds + 0.5).any() or (found[:, 1] < seconds - 0.5).any():
        raise UserError(f"{path.name}: {name} does not enclose its times; the file is damaged")
    return found


def _said(file: netCDF4.Dataset, path: Path) -> Stamp:
    comment = str(attribute(file, "averaging_interval_comment", "")).lower()
    for word, stamp in (
        ("end of the averaging", "end"),
        ("beginning of the averaging", "begin"),
        ("start of the averaging", "begin"),
        ("middle of the averaging", "middle"),
    ):
        if word in comment:
            return stamp  # type: ignore[return-value]
    product = stream_of(file, path)["product"]
    if product.startswith(_MIDDLES):
        return "middle"
    if product in _BEGINS:
        return "begin"
    raise UserError(f"{path.name} does not say whether its times are the begin, middle or end of the intervals; state it with stamp=")


def channels_of(file: netCDF4.Dataset, heights: tuple[float, ...], pressures: tuple[float, ...]) -> tuple[list[Channel], list[str]]:
    """What is known of a file, and what is left out and why.

    Args:
        heights, pressures: metres above ground and hPa; of a profile the file's own levels next to these, or all where there are none.
    """
    found, notes, taken = list[Channel](), list[str](), set[tuple[str, tuple[str, ...]]]()
    named = {name: quantity for quantity, names in _NAMED for name in names.split()}
    standard = _by_standard_name()
    order = [n for n in named if n in file.variables]
    order += [n for n in file.variables if n not in named and not _SPOILT.search(n) and attribute(file[n], "standard_name") in standard]
    for name in order:
        variable = file[name]
        dims = variable.dimensions
        if dims[:1] not in (("time",), ("time_offset",)) or len(dims) > 2 or variable.dtype.kind not in "fiu":
            continue
        quantity = named.get(name) or standard[variable.getncattr("standard_name")]
        if (quantity, dims) in taken:
            notes.append(f"{name} is left out: another column is {quantity}")
            continue
        try:
            scale, offset, unit = _conversion(quantity, str(attribute(variable, "units", "")), name)
            levels = [(None, None)] if len(dims) == 1 else _levels(file, dims[1], heights, pressures)
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        taken.add((quantity, dims))
        packed, shift = float(attribute(variable, "scale_factor", 1.0)), float(attribute(variable, "add_offset", 0.0))
        found += [Channel(name, quantity, unit, level, index, scale * packed, scale * shift + offset) for index, level in levels]
    return found, notes


def _by_standard_name() -> dict[str, str]:
    """Quantities that a standard name alone stands for: of several the one that is called so (no maximum or minimum)."""
    every = [q.standard_name for q in QUANTITIES if q.standard_name]
    return {
        q.standard_name: q.name for q in QUANTITIES if q.standard_name and (q.name == q.standard_name or every.count(q.standard_name) == 1)
    }


def _conversion(quantity: str, unit: str, name: str) -> tuple[float, float, str]:
    target = QUANTITIES[quantity].unit
    given = unit.strip().replace("mm/hour", "mm/hr") or "1"
    if quantity in _WATER and re.match(r"(mm|cm|m)\b", given):
        given = f"({given}) * 1000 * kg / m**3"
    zero, one = convert(np.array([0.0, 1.0]), given, target, name)
    return float(one - zero), float(zero), target


def _levels(
    file: netCDF4.Dataset, dim: str, heights: tuple[float, ...], pressures: tuple[float, ...]
) -> list[tuple[int | None, Level | None]]:
    if dim not in file.variables or file[dim].ndim != 1:
        raise UserError(f"its dimension {dim} has no values")
    unit, told = str(attribute(file[dim], "units", "")), str(attribute(file[dim], "long_name", "")).lower()
    values = np.asarray(file[dim][:], np.float64)
    if unit in ("hPa", "mb", "mbar", "millibar", "kPa", "Pa"):
        kind, wanted, values = "pressure", pressures, convert(values, "mbar" if unit == "mb" else unit, "hPa", dim)
    elif unit in ("m", "km", "meters", "meter") and "sea level" not in told:
        kind, wanted, values = "height", heights, values * (1000 if unit == "km" else 1)
    else:
        raise UserError(f"its dimension {dim} in {unit or 'no unit'} is neither a pressure nor a height above ground")
    if not np.isfinite(values).all() or np.unique(values).size < values.size:
        raise UserError(f"the values of its dimension {dim} are not levels")
    near = np.abs(np.diff(values)).min() / 2 if values.size > 1 else 0.5
    inside = [w for w in wanted if values.min() - near <= w <= values.max() + near]
    rows = sorted({int(np.argmin(np.abs(values - w))) for w in inside}) if wanted else range(values.size)
    if not rows:
        raise UserError(f"its dimension {dim} has no level near those asked for")
    return [(i, Level(kind, round(float(values[i]), 2))) for i in rows]  # type: ignore[arg-type]


def told_of(file: netCDF4.Dataset, stream: Mapping[str, str]) -> dict[str, Any]:
    """For people: site, facility, product and what the file says of itself."""
    said = {
        k: " ".join(str(attribute(file, k, "")).split())[:200] for k in ("location_description", "doi", "serial_number", "process_version")
    }
    return {**{k: stream[k] for k in ("site", "facility", "product", "level")}, **{k: v for k, v in said.items() if v}}
