"""Solar radiation at the top of the atmosphere, computed for any grid, instant or interval, in every calendar.

The Sun's place is that of the low-precision formulas of The Astronomical Almanac (section C, "Low precision formulas for the Sun"):
0.01 degrees between 1950 and 2050. A calendar whose years all have one length (noleap, 360_day) has no date of the real sky: there the
fraction of the year gone is the fraction of the tropical year. The mean over an interval is the integral over the hour angle in closed
form (as in Berger 1978, doi:10.1175/1520-0469(1978)035<2362:LTVODI>2.0.CO;2, eq. 10, for a whole day), in pieces of at most one day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scigpt.data.sample import Time, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.fields import Field
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.records import Record, Series
from scigpt.errors import UserError

SOLAR_CONSTANT = 1361.0
"""W m-2 at one astronomical unit, rounded from 1360.8 (Kopp and Lean 2011, doi:10.1029/2010GL045777)."""

NAME = "toa_incident_solar_radiation"
DAY = 86400.0
_TROPICAL_YEAR = 365.2422
_YEAR_DAYS = {"noleap": 365.0, "all_leap": 366.0, "360_day": 360.0}
_JULIAN_DAYS_BEHIND = 13.0  # 2000-01-01 of the Julian calendar is 14 January of the Gregorian
_MEAN_NEW_YEAR = -0.113  # days from J2000.0 to 1 January, averaged over the leap years' cycle 2000-2003


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the Sun stands: declination and equation of time in radians, distance in astronomical units, each `(T,)`."""

    declination: np.ndarray
    equation_of_time: np.ndarray
    distance: np.ndarray


def sun(seconds: np.ndarray, calendar: str) -> Sun:
    """The Sun at instants `(T,)`, in seconds since 2000-01-01 of the calendar."""
    if calendar in _YEAR_DAYS:
        days = (seconds / (DAY * _YEAR_DAYS[calendar])) % 1.0 * _TROPICAL_YEAR + _MEAN_NEW_YEAR
    else:
        days = seconds / DAY - 0.5 + (_JULIAN_DAYS_BEHIND if calendar == "julian" else 0.0)
    mean_longitude = np.deg2rad((280.460 + 0.9856474 * days) % 360.0)
    anomaly = np.deg2rad((357.528 + 0.9856003 * days) % 360.0)
    longitude = mean_longitude + np.deg2rad(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.deg2rad(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    return Sun(
        np.arcsin(np.sin(obliquity) * np.sin(longitude)),
        (mean_longitude - ascension + np.pi) % (2 * np.pi) - np.pi,
        1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly),
    )


def instantaneous(seconds: np.ndarray, calendar: str, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """W m-2 at instants `(T,)`, float32 `(T, Y, X)`; latitude and longitude in degrees, 1-D or both 2-D."""
    seconds, (rows, columns) = np.asarray(seconds, np.float64), _radians(latitude, longitude)
    place, result = sun(seconds, calendar), np.empty((seconds.size, *np.broadcast_shapes(rows.shape, columns.shape)), np.float32)
    noon = _hour_angle(seconds, place)
    for t in range(seconds.size):
        height = np.sin(rows) * np.sin(place.declination[t]) + np.cos(rows) * np.cos(place.declination[t]) * np.cos(noon[t] + columns)
        result[t] = SOLAR_CONSTANT / place.distance[t] ** 2 * np.maximum(height, 0.0)
    return result


def mean(bounds: np.ndarray, calendar: str, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """W m-2 averaged over intervals `(T, 2)`, float32 `(T, Y, X)`; latitude and longitude in degrees, 1-D or both 2-D."""
    bounds, (rows, columns) = np.asarray(bounds, np.float64), _radians(latitude, longitude)
    result = np.empty((len(bounds), *np.broadcast_shapes(rows.shape, columns.shape)), np.float32)
    for t, (first, last) in enumerate(bounds):
        pieces = max(1, int(np.ceil((last - first) / DAY - 1e-9)))
        length = (last - first) / pieces
        middles = first + (np.arange(pieces) + 0.5) * length
        place, half = sun(middles, calendar), np.pi * length / DAY
        noon = _hour_angle(middles, place)
        # over whole days the longitude does not matter
        across = columns[..., :1] if abs(length - DAY) < 1e-6 else columns
        total = np.zeros(np.broadcast_shapes(rows.shape, across.shape))
        for i in range(pieces):
            total += _over_hour_angle(rows, place.declination[i], noon[i] + across, half) / place.distance[i] ** 2
        result[t] = SOLAR_CONSTANT * np.maximum(total, 0.0) / pieces
    return result


def beside(record: Record, hours: float) -> Record:
    """The record with the computed forcing as one more variable, on its own grid and at its own times.

    Args:
        hours: the forcing is the mean over the bounds of a frame where it has some, else over this many hours before it; 0: at its instant.

    Raises:
        UserError: the record holds the variable already.
    """
    if any(v.name == NAME for v in record.variables):
        raise UserError(f"{record.files[0].name} holds {NAME} already; leave out solar=true, or the variable with variables=")
    time, lattice, quantity = record.time, record.lattice, QUANTITIES[NAME]
    bounds = time.bounds
    if bounds is None and hours > 0:
        bounds = np.stack([time.seconds - 3600.0 * hours, time.seconds], axis=1)

    def read(window: tuple[slice, ...]) -> np.ndarray:
        grid = lattice.part(window[1], window[2])
        if bounds is None or (bounds[window[0], 1] <= bounds[window[0], 0]).any():
            return instantaneous(time.seconds[window[0]], time.calendar, grid.latitude, grid.longitude)
        return mean(bounds[window[0]], time.calendar, grid.latitude, grid.longitude)

    variable = lazy(("time", "y", "x"), (len(time), *lattice.shape), np.float32, read, {"units": quantity.unit})
    everything = np.arange(len(time))
    field = Field(
        path=record.files[0],
        name=NAME,
        quantity=quantity,
        unit=quantity.unit,
        variable=variable,
        lattice=lattice,
        time=Time(time.seconds, time.calendar, bounds),
        order=everything,
        levels=(None,),
        members=(),
        time_dims=("time",),
        level_dim=None,
        member_dim=None,
        yx=("y", "x"),
    )
    channel = Variable(NAME, quantity.unit, "forcing")
    return replace(record, series=(*record.series, Series((field,), (channel,), np.zeros(len(time), int), everything)))


def _radians(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.deg2rad(np.asarray(latitude, np.float64)), np.deg2rad(np.asarray(longitude, np.float64))
    return (rows[:, None], columns[None, :]) if rows.ndim == 1 else (rows, columns)


def _hour_angle(seconds: np.ndarray, place: Sun) -> np.ndarray:
    """Of the true Sun at longitude 0, radians `(T,)`, zero at noon."""
    return 2 * np.pi * ((seconds / DAY) % 1.0) - np.pi + place.equation_of_time


def _over_hour_angle(latitude: np.ndarray, declination: float, middle: np.ndarray, half: float) -> np.ndarray:
    """Mean of max(0, cosine of the zenith angle) over hour angles `middle - half` to `middle + half`."""
    a, b = np.sin(latitude) * np.sin(declination), np.cos(latitude) * np.cos(declination)
    sunset = np.arccos(np.clip(-np.tan(latitude) * np.tan(declination), -1.0, 1.0))
    one_day = 2 * (a * sunset + b * np.sin(sunset))

    def upto(angle: np.ndarray) -> np.ndarray:
        turns = np.round(angle / (2 * np.pi))
        lit = np.clip(angle - 2 * np.pi * turns, -sunset, sunset)
        return turns * one_day + a * lit + b * np.sin(lit)

    return (upto(middle + half) - upto(middle - half)) / (2 * half)
