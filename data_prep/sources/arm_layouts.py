"""How the files of ARM say where and what, in their old and their new layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from scigpt.data.sample import Level
from scigpt.data.variables import QUANTITIES, convert
from scigpt.errors import UserError

DATASTREAM = re.compile(r"(?P<site>[a-z]{3})(?P<product>[a-z0-9]+?)(?P<facility>[A-Z]\d+)\.(?P<level>[a-c]\d)(?=\.|$)")
_NAMED: tuple[tuple[str, str], ...] = (
    ("surface_air_pressure", "pressure_sfc p_sfc atmos_pressure atm_pres"),
    ("air_temperature", "temperature_sfc T_sfc temp_mean"),
    ("relative_humidity", "relative_humidity_sfc rh_sfc rh_mean"),
    ("vapour_pressure", "vapor_pressure_mean"),
    ("wind_speed", "wspd_arith_mean wind_spd"),
    ("eastward_wind", "u_wind_sfc u_sfc"),
    ("northward_wind", "v_wind_sfc v_sfc"),
    ("precipitation_amount", "tbrg_precip_total_corr tbrg_precip_total"),
    ("precipitation_flux", "precip_rate_sfc prec_sfc pwd_precip_rate_mean_1min org_precip_rate_mean"),
    ("surface_upward_sensible_heat_flux", "h sensible_heat_flux_baebbr sensible_heat_flux_qcecor SH_baebbr SH_qcecor"),
    ("surface_upward_latent_heat_flux", "lv_e latent_heat_flux_baebbr latent_heat_flux_qcecor LH_baebbr LH_qcecor"),
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
_NOT_USED = {"temp_irga": "it is the temperature within the gas analyser, not that of the air"}
_HEAT = ("surface_upward_sensible_heat_flux", "surface_upward_latent_heat_flux")
_UNSIGNED = re.compile("(SH|LH)_")
"""Of old best estimates: whether heat that leaves the surface is positive is only what the file says of it."""
_CLOCK = re.compile(r"time|time_offset|time_frac|\w*bounds")
_SPOILT = re.compile(r"(^|_)(qc|source|stdev|std|sdev|min|max|log|n)(_|$)", re.IGNORECASE)
_WATER = ("precipitation_amount", "precipitation_flux", "total_column_water_vapour")
MISSING = -9999.0
Rows = list[tuple[int | None, Level | None, float | None]]
"""Index on the dimension of levels, the level asked for, and where the file has it; None at the surface."""
_SURFACE: tuple[Rows, list[float]] = ([(None, None, None)], [])


@dataclass(frozen=True)
class Channel:
    """One column of a file.

    Args:
        name: in the file; `index` on its second dimension, None for a value at the surface.
        level: the one asked for; `own` is where the file has it, in the same unit.
        scale, offset: from the numbers of the file to `unit`.
    """

    name: str
    quantity: str
    unit: str
    level: Level | None
    own: float | None
    index: int | None
    scale: float
    offset: float


@dataclass(frozen=True)
class Columns:
    """What is known of a file, what is left out and why, and its columns that nothing is known of."""

    channels: tuple[Channel, ...]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]


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
        value = scalar(file, name, path)
        if re.fullmatch(turned, str(attribute(file[name], "units", "")).strip(), re.IGNORECASE):
            if value < 0:
                raise UserError(f"{path.name}: {name} is {value:g} in {attribute(file[name], 'units')}, which could mean either side")
            value = -value
        if name == "lon" and limit < value <= 360:
            value -= 360
        if not abs(value) <= limit:
            raise UserError(f"{path.name}: {name} is {value:g}; expected degrees, the file is damaged or gives no place")
        found.append(value)
    height = scalar(file, "alt", path) if "alt" in file.variables else np.nan
    return found[0], found[1], height if -500 < height < 9000 else None


def scalar(file: netCDF4.Dataset, name: str, path: Path) -> float:
    if name not in file.variables:
        raise UserError(f"{path.name} has no {name}; expected the file of a fixed site of ARM with lat and lon")
    values = np.unique(np.asarray(file[name][...], np.float64))
    if values.size != 1:
        raise UserError(f"{path.name}: {name} changes with time, the platform moved; only fixed sites are read")
    return float(values[0])


def columns_of(file: netCDF4.Dataset, heights: tuple[float, ...], pressures: tuple[float, ...]) -> Columns:
    """The columns of a file.

    Args:
        heights, pressures: metres above ground and hPa; of a profile the file's own levels next to these, or all where there are none.
    """
    found, notes, unknown, taken = list[Channel](), list[str](), list[str](), set[tuple[str, tuple[str, ...]]]()
    named = {name: quantity for quantity, names in _NAMED for name in names.split()}
    standard = _by_standard_name()
    order = [n for n in named if n in file.variables]
    order += [n for n in file.variables if n not in named and not _SPOILT.search(n)]
    for name in order:
        variable = file[name]
        dims = variable.dimensions
        if dims[:1] not in (("time",), ("time_offset",)) or _CLOCK.fullmatch(name):
            continue
        if name in _NOT_USED:
            notes.append(f"{name} is left out: {_NOT_USED[name]}")
            continue
        quantity = named.get(name) or standard.get(attribute(variable, "standard_name"))
        if quantity is None or len(dims) > 2 or variable.dtype.kind not in "fiu":
            unknown.append(name)
            continue
        if (quantity, dims) in taken:
            notes.append(f"{name} is left out: another column is {quantity}")
            continue
        rivals = [n for n in order if named.get(n) == quantity and file[n].dimensions == dims]
        try:
            if len(rivals) > 1 and np.isnan(numbers_of(variable)).all():
                raise UserError("it has no value")
            sign = 1 if quantity not in _HEAT else _sign(variable)
            scale, offset, unit = _conversion(quantity, str(attribute(variable, "units", "")), name)
            levels, shared = _SURFACE if len(dims) == 1 else _levels(file, dims[1], heights, pressures)
        except UserError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        if shared:
            notes.append(f"{name} at {', '.join(f'{w:g}' for w in shared)} is left out: other levels are nearer to what the file has")
        taken.add((quantity, dims))
        packed, shift = float(attribute(variable, "scale_factor", 1.0)), float(attribute(variable, "add_offset", 0.0))
        scale, shift = sign * scale * packed, sign * scale * shift + offset
        found += [Channel(name, quantity, unit, level, own, index, scale, shift) for index, level, own in levels]
    return Columns(tuple(found), tuple(notes), tuple(unknown))


def numbers_of(variable: Any) -> np.ndarray:
    """As they are stored, float64, NaN where one is missing; -9999 is missing whatever the attributes say."""
    numbers = np.asarray(variable[...]).astype(np.float64)
    codes = [float(c) for k in ("missing_value", "_FillValue") if _is_number(c := attribute(variable, k))]
    return np.where(np.isfinite(numbers) & ~np.isin(numbers, [MISSING, *codes]), numbers, np.nan)


def _is_number(value: Any) -> bool:
    try:
        return value is not None and bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False


def _sign(variable: Any) -> int:
    """1 where heat that leaves the surface is positive, -1 where it is negative: as the file says, else as its name promises."""
    said = " ".join(str(attribute(variable, k, "")) for k in ("standard_name", "long_name", "units", "comment", "description"))
    said = re.sub(r"[^a-z,;.()]+", " ", f"{said}, positive {attribute(variable, 'positive', '')}".lower())
    ways = {r"(?:up|upwards?|away)": 1, r"(?:down|downwards?|towards?)": -1}
    for between in range(4):  # words; the nearest direction counts, in "positive upward, negative downward" too
        for way, plus in ways.items():
            for word, sign in (("positive", plus), ("negative", -plus)):
                if re.search(rf"\b(?:{word}(?: [a-z]+){{{between}}} {way}|{way}(?: [a-z]+){{{between}}} {word})\b", said):
                    return sign
    if ("upward" in said) != ("downward" in said):
        return 1 if "upward" in said else -1
    if _UNSIGNED.match(variable.name):
        raise UserError("the file does not say whether heat that leaves the surface is positive")
    return 1


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


def _levels(file: netCDF4.Dataset, dim: str, heights: tuple[float, ...], pressures: tuple[float, ...]) -> tuple[Rows, list[float]]:
    """Row, level asked for and the file's own value of each level that is used; and those asked for whose row is nearer to another."""
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
    steps = np.diff(np.sort(values)) if values.size > 1 else np.array([1.0])
    low, high = values.min() - steps[0] / 2, values.max() + steps[-1] / 2
    used: dict[int, float] = {}
    inside = [w for w in wanted if low <= w <= high]
    for w in inside:
        row = int(np.argmin(np.abs(values - w)))
        used[row] = min(used.get(row, w), w, key=lambda v: abs(values[row] - v))
    if not wanted:
        used = {row: round(float(v), 2) for row, v in enumerate(values)}
    if not used:
        asked = f"{', '.join(f'{w:g}' for w in wanted[:3])}{', ...' if len(wanted) > 3 else ''}"
        raise UserError(
            f"its levels reach from {values.min():g} to {values.max():g} {'hPa' if kind == 'pressure' else 'm'}, none is near {asked}"
        )
    found: Rows = [(row, Level(kind, float(used[row])), round(float(values[row]), 2)) for row in sorted(used)]  # type: ignore[arg-type]
    return found, [w for w in dict.fromkeys(inside) if w not in used.values()]


def told_of(file: netCDF4.Dataset, stream: Mapping[str, str]) -> dict[str, Any]:
    """For people: site, facility, product and what the file says of itself."""
    said = {
        k: " ".join(str(attribute(file, k, "")).split())[:200] for k in ("location_description", "doi", "serial_number", "process_version")
    }
    return {**{k: stream[k] for k in ("site", "facility", "product", "level")}, **{k: v for k, v in said.items() if v}}
