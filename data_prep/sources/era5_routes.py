"""Where ERA5 is fetched from: Zarr stores of WeatherBench 2 and ARCO on Google Cloud, or requests to the climate data store (CDS)."""

from __future__ import annotations

import calendar
import datetime
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from scigpt.data_prep.source import Remote
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

WEATHERBENCH = {
    "64x32": "1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
    "240x121": "1959-2023_01_10-6h-240x121_equiangular_with_poles_conservative.zarr",
    "1440x721": "1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr",
}
PRESSURE = (
    "divergence", "fraction_of_cloud_cover", "geopotential", "ozone_mass_mixing_ratio", "potential_vorticity", "relative_humidity",
    "specific_cloud_ice_water_content", "specific_cloud_liquid_water_content", "specific_humidity", "specific_rain_water_content",
    "specific_snow_water_content", "temperature", "u_component_of_wind", "v_component_of_wind", "vertical_velocity", "vorticity",
)  # fmt: skip
"""Variables of the pressure levels; all others are of single levels."""
STATIC = {"geopotential_at_surface": "geopotential", "land_sea_mask": "land_sea_mask"}
"""Fields that do not change, and their names in the climate data store."""


@dataclass(frozen=True)
class Fetch:
    """Options of `scigpt data fetch era5`.

    Args:
        route: `weatherbench` (6-hourly, 1959 to 2022, small grids too), `arco` (hourly, 0.25 degrees) or `cds` (GRIB; needs an account).
        variables: by the long names of ERA5.
        levels: pressure levels in hPa of the variables that have them.
        start, stop: first and last day.
        resolution: columns and rows of `weatherbench`: 64x32, 240x121 or 1440x721; the other routes have 1440x721.
        every: hours between frames of `cds`.
        latitude, longitude: low and high of a region, degrees; longitudes are from low eastward to high.
        server: of another copy of the stores.
    """

    route: Literal["weatherbench", "arco", "cds"] = "weatherbench"
    variables: tuple[str, ...] = (
        "2m_temperature",
        "mean_sea_level_pressure",
        "geopotential",
        "temperature",
        "geopotential_at_surface",
        "land_sea_mask",
    )
    levels: tuple[int, ...] = (500, 850)
    start: str = "2020-01-01"
    stop: str = "2020-01-31"
    resolution: str = "64x32"
    every: int = 6
    latitude: tuple[float, ...] | None = None
    longitude: tuple[float, ...] | None = None
    server: str | None = None


def remotes(options: Fetch) -> Iterator[Remote]:
    """Stores with the part to take, or one request for each month.

    Raises:
        UserError: options that cannot be.
    """
    first, last = _day("start", options.start), _day("stop", options.stop)
    if last < first:
        raise UserError(f"stop={options.stop} is before start={options.start}; expected the last day after the first")
    if not options.variables:
        raise UserError("variables= is empty; name what to fetch, such as variables=2m_temperature")
    for name in ("latitude", "longitude"):
        region = getattr(options, name)
        if region is not None and (len(region) != 2 or region[0] == region[1] or (name == "latitude" and region[0] > region[1])):
            raise UserError(f"option {name}={','.join(map(str, region))} is not a region; expected its low and its high, such as 35,60")
    if options.route == "cds":
        yield from _requests(options, first, last)
        return
    if options.route == "arco":
        url = f"{options.server or 'gs://gcp-public-data-arco-era5/ar'}/full_37-1h-0p25deg-chunk-1.zarr-v3"
    else:
        if options.resolution not in WEATHERBENCH:
            told = nearest(options.resolution, WEATHERBENCH) or f"expected one of {', '.join(WEATHERBENCH)}"
            raise UserError(f"option resolution={options.resolution} is none of WeatherBench; {told}")
        url = f"{options.server or 'gs://weatherbench2/datasets/era5'}/{WEATHERBENCH[options.resolution]}"
    select: dict[str, Any] = {"variables": list(options.variables), "start": first.isoformat(), "stop": last.isoformat()}
    select |= {"levels": list(options.levels)} if set(options.variables) & set(PRESSURE) else {}
    select |= {n: list(getattr(options, n)) for n in ("latitude", "longitude") if getattr(options, n) is not None}
    size = "1440x721" if options.route == "arco" else options.resolution
    yield Remote(url, f"era5-{options.route}-{size}-{first:%Y%m%d}-{last:%Y%m%d}.zarr", "zarr", select=select)


def _requests(options: Fetch, first: datetime.date, last: datetime.date) -> Iterator[Remote]:
    if options.every < 1 or 24 % options.every:
        raise UserError(f"option every={options.every} does not divide the 24 hours of a day; expected 1, 2, 3, 4, 6, 8, 12 or 24")
    moving = [v for v in options.variables if v not in STATIC]
    names = {"pressure-levels": [v for v in moving if v in PRESSURE], "single-levels": [v for v in moving if v not in PRESSURE]}
    for (year, month), kind in itertools.product(_months(first, last), names):
        if names[kind]:
            inside = [d for d in range(1, calendar.monthrange(year, month)[1] + 1) if first <= datetime.date(year, month, d) <= last]
            hours = range(0, 24, options.every)
            yield _request(options, kind, f"{kind}-{year:04d}-{month:02d}", names[kind], datetime.date(year, month, 1), inside, hours)
    if fixed := [STATIC[v] for v in options.variables if v in STATIC]:
        yield _request(options, "single-levels", "static", fixed, first.replace(day=1), [first.day], range(1))


def _request(options: Fetch, kind: str, name: str, variables: list[str], month: datetime.date, days: list[int], hours: range) -> Remote:
    request: dict[str, Any] = {
        "product_type": ["reanalysis"],
        "variable": variables,
        "year": [f"{month.year:04d}"],
        "month": [f"{month.month:02d}"],
        "day": [f"{d:02d}" for d in days],
        "time": [f"{h:02d}:00" for h in hours],
        # what the store calls NetCDF changes from time to time
        "data_format": "grib",
        "download_format": "unarchived",
    }
    if kind == "pressure-levels":
        if not options.levels:
            raise UserError(f"{', '.join(variables)} have pressure levels; say which, such as levels=500,850")
        request["pressure_level"] = [str(v) for v in options.levels]
    if options.latitude is not None or options.longitude is not None:
        south, north = options.latitude or (-90.0, 90.0)
        west, east = options.longitude or (-180.0, 180.0)
        request["area"] = [north, west if west < east else west - 360.0, south, east]
    return Remote(f"reanalysis-era5-{kind}", f"era5-{name}.grib", "cds", login="cds", select=request)


def _months(first: datetime.date, last: datetime.date) -> list[tuple[int, int]]:
    return [(m // 12, m % 12 + 1) for m in range(12 * first.year + first.month - 1, 12 * last.year + last.month)]


def _day(option: str, text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UserError(f"option {option}={text!r} is not a day; expected one such as 2020-01-31") from None
