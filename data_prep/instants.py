"""Instants of a table: text in any format, zone and calendar, numbers in a unit, or none at all but a step."""

from __future__ import annotations

import re
import zoneinfo
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

import cftime
import numpy as np
import pandas as pd

from scigpt.data.sample import TIME_UNITS
from scigpt.data.variables import convert
from scigpt.data_prep.datamap import TimeAxis
from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.data_prep.tables import Table

OFFSET = r"[T ]\d.*(?:Z|[+-]\d\d:?\d\d)$"
REFORM = 1583
"""Before this year the standard calendar is Julian."""


def instants(table: Table, axis: TimeAxis) -> tuple[np.ndarray, str]:
    """The instant of each row, float64 seconds since 2000 `(N,)` in the calendar returned ("none" for simulated time).

    Raises:
        UserError: a cell that is no instant, by line; a format, unit, zone or calendar that cannot be.
    """
    if not axis.column:
        if axis.step is None:
            raise UserError(f"{table.path.name}: axes.time states neither a column nor a step; one of them says when each row is")
        return counted(axis, len(table.frame))
    if axis.unit is not None:
        column = axis.column[0]
        values = table.numbers(column, "axes.time.column")
        if np.isnan(values).any():
            raise UserError(f"{table.at(int(np.argmax(np.isnan(values))))}, column {column!r}: the time is missing; remove the row")
        return numbers_to_seconds(values, axis, table.path.name)
    text = whole(table.text(axis.column[0], "axes.time.column"))
    for column in axis.column[1:]:
        text = text.str.cat(whole(table.text(column, "axes.time.column")), sep=" ")
    return _parse(table, axis, text), axis.calendar


def whole(text: pd.Series) -> pd.Series:
    """`2020.0`, as some programs write whole numbers, without what follows the point."""
    return text.str.replace(r"^(\d+)\.0*$", r"\1", regex=True)


def numbers_to_seconds(values: np.ndarray, axis: TimeAxis, where: str) -> tuple[np.ndarray, str]:
    """Numbers in `s` or `hours since 1970-01-01` as seconds, and their calendar."""
    assert axis.unit is not None
    unit, _, reference = axis.unit.partition(" since ")
    scaled = values if unit == "1" else convert(values.astype(np.float64), unit, "s", f"{where}, axes.time.unit")
    if not reference:
        return scaled, "none"
    try:
        origin = cftime.num2date(0, axis.unit, axis.calendar)
        return scaled + float(cftime.date2num(origin, TIME_UNITS, axis.calendar)), axis.calendar
    except ValueError as error:
        raise UserError(f"{where}: axes.time.unit {axis.unit!r} is not of the form 'hours since 1970-01-01' ({error})") from None


def counted(axis: TimeAxis, count: int) -> tuple[np.ndarray, str]:
    """Frames that follow each other by the step of the map; dated where it states the start."""
    start = 0.0 if axis.start is None else _start(axis)
    return start + step_seconds(axis) * np.arange(count), "none" if axis.start is None else axis.calendar


def step_seconds(axis: TimeAxis) -> float:
    """The step of the map, in seconds (as it stands with the unit 1)."""
    assert axis.step is not None
    if axis.step <= 0:
        raise UserError(f"axes.time.step is {axis.step:g}; expected a number above 0")
    unit = (axis.unit or "s").partition(" since ")[0]
    return axis.step if unit == "1" else float(convert(np.array([axis.step]), unit, "s", "axes.time.unit")[0])


def on_steps(table: Table, axis: TimeAxis, seconds: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Number of the step each of these rows stands on, counted from the first of them.

    Raises:
        UserError: a row between two steps, or so many steps without a row that something is wrong.
    """
    step = step_seconds(axis)
    exact = (seconds[rows] - seconds[rows].min()) / step
    index = np.round(exact).astype(np.int64)
    off = np.abs(exact - index) > 0.01
    if off.any():
        row = rows[int(np.argmax(off))]
        raise UserError(f"{table.at(row)}: the time lies between two steps of {step:g} seconds from the first; correct axes.time.step")
    if index.max() > 100 * len(rows) + 1000:
        row = rows[int(np.argmax(index))]
        raise UserError(f"{table.at(row)}: {index.max()} steps of {step:g} seconds from the first of {len(rows)} rows; is the time right?")
    return index


def _start(axis: TimeAxis) -> float:
    try:
        date = cftime.num2date(0, f"seconds since {axis.start}", axis.calendar)
    except ValueError:
        raise UserError(f"axes.time.start {axis.start!r} is not a time of the form 2020-01-31 18:00") from None
    return float(cftime.date2num(date, TIME_UNITS, axis.calendar))


def _parse(table: Table, axis: TimeAxis, text: pd.Series) -> np.ndarray:
    if axis.calendar not in ("standard", "proleptic_gregorian"):
        return _parse_calendar(table, axis, text)
    stated = text.str.contains(OFFSET, regex=True).any() if axis.format is None else "%z" in axis.format
    parsed = pd.to_datetime(text, format=axis.format or "ISO8601", errors="coerce", utc=True)
    _refuse(table, axis, text, parsed.isna().to_numpy(), f"is not a time of the form {axis.format or 'ISO 8601 (2020-01-31 18:00)'}")
    if not stated and axis.zone != "UTC":
        local = parsed.dt.tz_localize(None)
        zone = _zone(axis.zone)
        try:
            placed = local.dt.tz_localize(zone, ambiguous="infer", nonexistent="NaT")
        except ValueError:  # the hour that comes twice in autumn cannot be told from the order of the rows
            placed = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        _refuse(table, axis, text, placed.isna().to_numpy(), f"does not exist or exists twice in {axis.zone} (the clock is changed)")
        parsed = placed.dt.tz_convert("UTC")
    dates = parsed.dt.tz_localize(None)
    if axis.calendar == "standard" and (dates.dt.year < REFORM).any():
        raise UserError(f"{table.path.name}: the calendar standard is Julian before {REFORM}; state calendar: proleptic_gregorian")
    return np.asarray((dates - pd.Timestamp(2000, 1, 1)) / pd.Timedelta(seconds=1), np.float64)


def _parse_calendar(table: Table, axis: TimeAxis, text: pd.Series) -> np.ndarray:
    if axis.format is None or axis.zone != "UTC":
        raise UserError(f"{table.path.name}: times in the calendar {axis.calendar} need axes.time.format, as in '%Y-%m-%d', and no zone")
    seconds = np.empty(len(text))
    for row, cell in enumerate(text):
        try:
            date = cftime.datetime.strptime(cell, axis.format, calendar=axis.calendar)
        except ValueError:
            _refuse(table, axis, text, np.arange(len(text)) == row, f"is not a time of the form {axis.format} in {axis.calendar}")
        seconds[row] = cftime.date2num(date, TIME_UNITS, axis.calendar)
    return seconds


def _refuse(table: Table, axis: TimeAxis, text: pd.Series, wrong: np.ndarray, why: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        columns = " and ".join(repr(c) for c in axis.column)
        raise UserError(f"{table.at(row)}, column {columns}: {text.iloc[row][:40]!r} {why}; state axes.time.format, or correct the cell")


def _zone(name: str) -> zoneinfo.ZoneInfo | timezone:
    match = re.fullmatch(r"(?:UTC)?([+-])(\d{1,2})(?::?(\d\d))?", name)
    try:
        if match is None:
            return zoneinfo.ZoneInfo(name)
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        return timezone(-offset if match[1] == "-" else offset)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise UserError(f"axes.time.zone {name!r} is unknown; expected a name such as Europe/Berlin, or +01:00") from None
