"""Daymet at points: the CSV of a single pixel, and the basin means of CAMELS, as datasets of one cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr

from scigpt.data.sample import Coordinate, Sample
from scigpt.data_prep.datamap import TableFormat
from scigpt.data_prep.files import kind
from scigpt.data_prep.tables import Table, content, read_table
from scigpt.errors import UserError

MISSING = ("-9999", "-9999.0", "-9999.00")
_COLUMN = re.compile(r"(\w+)\s*\((.+)\)")
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Point:
    """A pixel or a basin: its name, and where it is as far as its file (or a list of gauges) says."""

    name: str
    latitude: float
    longitude: float | None
    height: float | None

    def placed(self, sample: Sample) -> Sample:
        """A sample of one cell as one of a point; without a longitude it lies on no globe, and keeps what is known."""
        found = {"latitude": (self.latitude, "degrees_north"), "longitude": (self.longitude, "degrees_east"), "height": (self.height, "m")}
        coordinates = {n: Coordinate(("x",), np.array([v]), unit) for n, (v, unit) in found.items() if v is not None}
        return replace(sample, geometry="plane" if self.longitude is None else "points", coordinates=coordinates)


def point_kind(path: Path) -> Literal["pixel", "basin"] | None:
    """Which of the two text files this is, by its first lines."""
    if not path.is_file() or path.stat().st_size == 0 or kind(path) != "other":
        return None
    try:
        _, lines = content(path, TableFormat(), 20)
    except UserError:
        return None
    if any(re.match(r"year,\s*yday\b", line) for line in lines) and any("Daymet" in line for line in lines):
        return "pixel"
    basin = len(lines) > 4 and re.match(r"Year\s+Mnth\s+Day\s+Hr\s+dayl\(", lines[3], re.IGNORECASE)
    return "basin" if basin and all(_number(line) is not None for line in lines[:3]) else None


def read_point(path: Path, longitudes: Mapping[str, float]) -> tuple[Point, xr.Dataset]:
    """The point, and its daily values on (time, latitude, longitude) of one cell, in the units of the file.

    Args:
        longitudes: of gauges, by their number of eight digits.

    Raises:
        UserError: neither kind of file, damaged, or truncated.
    """
    form = point_kind(path)
    if form is None:
        raise UserError(f"{path.name} is neither a CSV of a Daymet pixel nor a Daymet forcing of a CAMELS basin")
    point, table, days, cited = _pixel(path) if form == "pixel" else _basin(path, longitudes)
    data: dict[str, xr.Variable] = {}
    for column in table.frame:
        if (match := _COLUMN.fullmatch(column)) is None:
            continue
        name, values = match[1].lower(), table.numbers(column, "its header")
        if form == "basin" and name == "swe" and not np.nan_to_num(values).any():
            continue  # a column of zeros stands there where nobody averaged the snow
        data[name] = xr.Variable(("time", "latitude", "longitude"), values[:, None, None], {"units": match[2].strip()})
    if not data:
        raise UserError(f"{path.name} has the columns {', '.join(table.frame)}; expected names with units such as 'prcp (mm/day)'")
    edges = np.stack([days, days + _DAY], 1).astype("datetime64[ns]")
    data["time_bounds"] = xr.Variable(("time", "edge"), edges)
    coordinates = {
        "time": xr.Variable("time", edges[:, 0] + np.timedelta64(12, "h"), {"standard_name": "time", "bounds": "time_bounds"}),
        "latitude": xr.Variable("latitude", [point.latitude], {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": xr.Variable("longitude", [point.longitude or 0.0], {"units": "degrees_east", "standard_name": "longitude"}),
    }
    return point, xr.Dataset(data, coordinates, {"place": point.name, "attribution": cited})


def gauge_longitudes(path: Path) -> dict[str, float]:
    """Longitudes by gauge, of the file camels_topo.txt."""
    table = read_table(path, TableFormat(separator=";"))
    names = table.text("gauge_id", "gauges").str.zfill(8)
    return dict(zip(names, table.numbers("gauge_lon", "gauges").tolist(), strict=True))


def _pixel(path: Path) -> tuple[Point, Table, np.ndarray, str]:
    """Lines of free text (place, elevation, version, how to cite), then a table of year and day of the year."""
    if not path.read_bytes().endswith(b"\n"):
        raise UserError(f"{path.name} ends within its last line; it is truncated, fetch it again")
    _, lines = content(path, TableFormat(), 20)
    header = next(i for i, line in enumerate(lines) if re.match(r"year,\s*yday\b", line))
    text = "".join(lines[:header])
    found = {n: re.search(rf"{n}:\s*(-?[\d.]+)", text) for n in ("Latitude", "Longitude", "Elevation")}
    latitude, longitude, height = (None if m is None else _number(m[1]) for m in found.values())
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise UserError(f"{path.name}: its first lines give no latitude and longitude; expected 'Latitude: 36.0133  Longitude: -84.2625'")
    table = _whole(read_table(path, TableFormat(separator=",", header=header, missing=MISSING)))
    year, day = (table.numbers(c, "its header") for c in ("year", "yday"))
    wrong = ~((year % 1 == 0) & (year > 1900) & (year < 2200) & (day % 1 == 0) & (day >= 1) & (day <= 365))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{table.at(row)}: year {year[row]:g}, yday {day[row]:g}; expected days 1 to 365, as all years of Daymet have")
    # day 60 of a leap year is 29 February, and 31 December is left out
    days = (year.astype(int) - 1970).astype("datetime64[Y]").astype("datetime64[D]") + (day.astype(int) - 1) * _DAY
    _increasing(table, days)
    version, cite = re.search(r"Daymet Data Version ([\d.]+\d)", text), re.search(r"How to cite: *(.+)", text)
    cited = "; ".join([*([f"Daymet data version {version[1]}"] if version else []), *([cite[1].strip()] if cite else [])])
    return Point(f"pixel {latitude:g} {longitude:g}", latitude, longitude, height), table, days, cited


def _basin(path: Path, longitudes: Mapping[str, float]) -> tuple[Point, Table, np.ndarray, str]:
    """Three numbers (latitude, elevation, area), then a table with a date in whole years, 31 December of leap years among them."""
    table = _whole(read_table(path, TableFormat(separator="whitespace", header=3, missing=MISSING)))
    _, lines = content(path, TableFormat(), 20)
    latitude, height = (_number(line) for line in lines[:2])
    assert latitude is not None
    last, before = (table.frame.iloc[i].str.extract(r"\.(\d+)$")[0].str.len() for i in (-1, -2))
    dates = table.frame.iloc[:, :3].agg("-".join, axis=1)
    try:
        days = np.array([np.datetime64(d, "D") for d in dates])
    except ValueError:
        raise UserError(
            f"{path.name} has rows that do not begin with a date such as '2000 01 01 12'; it may be damaged, fetch it again"
        ) from None
    _increasing(table, days)
    if not last.equals(before) or (days[-1] + _DAY).astype("datetime64[Y]") == days[-1].astype("datetime64[Y]"):
        raise UserError(f"{path.name} ends on {days[-1]}, within a year or within a line; it is truncated, fetch it again")
    gauge = match[1] if (match := re.match(r"(\d{8})_", path.name)) else path.stem
    cited = "CAMELS (Newman et al. 2015, doi:10.5194/hess-19-209-2015), basin means of Daymet"
    return Point(f"basin {gauge}", latitude, longitudes.get(gauge), height), table, days, cited


def _whole(table: Table) -> Table:
    """No cell is missing: these files have a number everywhere."""
    empty = (table.frame == "").any(axis=1).to_numpy()
    if empty.any():
        raise UserError(
            f"{table.at(int(np.argmax(empty)))} has fewer values than columns; the file is truncated or damaged, fetch it again"
        )
    return table


def _increasing(table: Table, days: np.ndarray) -> None:
    wrong = np.diff(days) <= np.timedelta64(0, "D")
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise UserError(f"{table.at(row)}: {days[row]} does not come after {days[row - 1]}; the file may be damaged, fetch it again")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
