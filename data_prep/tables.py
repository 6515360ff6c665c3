"""Tables: CSV and its relatives, every cell checked, become tracks: one for each station, or one of points."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from scigpt.data.sample import Boundary, Coordinate, Time, Variable
from scigpt.data.variables import convert
from scigpt.data_prep.datamap import DataMap, Place, TableFormat
from scigpt.data_prep.instants import instants, on_steps, step_seconds
from scigpt.data_prep.suggest import nearest
from scigpt.data_prep.tracks import Track, boundary, convert_channel, make_variable, parse_level
from scigpt.errors import UserError

MISSING = ("", "na", "n/a", "nan", "null", "none", "-")
SEPARATORS = ("\t", ";", ",", "|")
PLACES = {"latitude": ("degrees_north", "degree"), "longitude": ("degrees_east", "degree"), "height": ("m", "m")}
"""Unit a coordinate is stored with, and how pint calls it."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table as text: what stands in each cell, and the line of the file of each row."""

    path: Path
    format: TableFormat
    frame: pd.DataFrame
    lines: Sequence[int]
    parsed: dict[str, np.ndarray] = field(default_factory=dict)
    """Columns that were read as numbers before."""

    def text(self, column: str, key: str) -> pd.Series:
        """A column; `key` is the place in the map that asks for it."""
        if column not in self.frame.columns:
            near = nearest(column, self.frame.columns) or f"it has {', '.join(self.frame.columns)}"
            raise UserError(f"{self.path.name} has no column {column!r} ({key} in the map); {near}")
        return self.frame[column]

    def numbers(self, column: str, key: str) -> np.ndarray:
        """A column of numbers, float64, NaN where a value is missing.

        Raises:
            UserError: a cell that is neither a number nor missing, by line and column.
        """
        text = self.text(column, key)
        if column in self.parsed:
            return self.parsed[column]
        missing = self.missing(text)
        numeric = text.str.replace(self.format.decimal, ".", regex=False) if self.format.decimal != "." else text
        values = pd.to_numeric(numeric.where(~missing), errors="coerce").to_numpy(np.float64)
        wrong = ~np.isfinite(values) & ~missing.to_numpy()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"{self.at(row)}, column {column!r}: {text.iloc[row][:40]!r} is not a number; correct it or list it in format.missing"
            )
        codes = [float(c) for c in self.format.missing if _is_number(c)]
        return self.parsed.setdefault(column, np.where(np.isin(values, codes), np.nan, values))

    def missing(self, text: pd.Series) -> pd.Series:
        return text.str.lower().isin([*MISSING, *(c.strip().lower() for c in self.format.missing)])

    def at(self, row: int) -> str:
        return f"{self.path.name}, line {self.lines[row]}"


def content(path: Path, form: TableFormat, limit: int | None = None) -> tuple[list[int], list[str]]:
    """Number and text of the lines that are neither blank nor comments, among the first `limit`."""
    encoding = "utf-8-sig" if form.encoding.lower().replace("-", "") == "utf8" else form.encoding
    try:
        with gzip.open(path, "rt", encoding=encoding) if path.suffix == ".gz" else path.open(encoding=encoding) as file:
            kept = [
                (i, line)
                for i, line in enumerate(itertools.islice(file, limit), 1)
                if line.strip() and not (form.comment and line.lstrip().startswith(form.comment))
            ]
    except (UnicodeDecodeError, LookupError, gzip.BadGzipFile) as error:
        raise UserError(f"{path.name} is not text in {form.encoding} ({error}); state format.encoding, as in latin-1") from None
    return [i for i, _ in kept], [line for _, line in kept]


def separator_of(lines: Sequence[str]) -> str | None:
    """The separator that cuts all these lines into the same number of columns, two at least; None for whitespace."""
    for separator in SEPARATORS:
        counts = {len(row) for row in csv.reader(lines, delimiter=separator)}
        if len(counts) == 1 and counts.pop() > 1:
            return separator
    return None


def read_table(path: Path, form: TableFormat, limit: int | None = None) -> Table:
    """A table, or what its first `limit` lines hold; nothing is interpreted yet.

    Raises:
        UserError: not text, no rows, or rows of different lengths.
    """
    numbers, lines = content(path, form, limit)
    lines, numbers = lines[form.header :], numbers[form.header :]
    if len(lines) < 2 + form.skip:
        raise UserError(f"{path.name} has {len(lines)} lines from the header on; expected names and rows below them (format.header)")
    separator = form.separator or separator_of(lines[:1] + lines[1 + form.skip : 40]) or "whitespace"
    del lines[1 : 1 + form.skip]
    rows = numbers[1 + form.skip :]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(
                io.StringIO("".join(lines)),
                sep=r"\s+" if separator == "whitespace" else separator,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                index_col=False,
                skipinitialspace=True,
            )
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise UserError(f"{path.name} cannot be read as a table ({str(error).strip()}); check format.separator and format.header") from None
    frame.columns = [str(c).strip() for c in frame.columns]
    return Table(path, form, frame.fillna("").apply(lambda c: c.str.strip()), rows)


def table_tracks(path: Path, own: DataMap) -> list[Track]:
    """The records of a table: one for each station, or all stations as points.

    Raises:
        UserError: a column that is not there, a cell that is no number, an instant that cannot be read or is out of order.
    """
    if own.axes.trajectory or own.axes.x or own.axes.y or own.axes.z or own.steady:
        raise UserError(f"{path.name} is a table: axes.trajectory, x, y, z and steady are for files of arrays; use axes.station")
    table = read_table(path, own.format)
    variables, columns = [], []
    for column, channel in own.variables.items():
        where = f"{path.name}, column {column!r}"
        made = make_variable(column, channel, channel.unit, parse_level(channel.level, where), where)
        assert channel.unit is not None
        numbers = table.numbers(column, f"variables.{column}")
        columns.append(convert_channel(numbers, channel.unit, made.name, made.unit, where))
        variables.append(made)
    values = np.stack(columns, axis=1).astype(np.float32)
    seconds, calendar = instants(table, own.axes.time)
    if own.axes.station is None:
        groups = {path.stem: np.arange(len(table.frame))}
    else:
        groups = {str(n): rows for n, rows in sorted(table.frame.groupby(table.text(own.axes.station, "axes.station")).indices.items())}
    for rows in groups.values():
        _increasing(table, seconds, rows)
    if own.layout == "series":
        return [_track(table, own, tuple(variables), values, seconds, calendar, {name: rows}, name) for name, rows in groups.items()]
    if own.axes.latitude is None or own.axes.longitude is None:
        raise UserError(f"{path.name}: layout: points needs axes.latitude and axes.longitude, the columns that say where stations are")
    return [_track(table, own, tuple(variables), values, seconds, calendar, groups, path.stem)]


def _track(
    table: Table,
    own: DataMap,
    variables: tuple[Variable, ...],
    values: np.ndarray,
    seconds: np.ndarray,
    calendar: str,
    stations: Mapping[str, np.ndarray],
    place: str,
) -> Track:
    """Stations (their rows) side by side along X over their common times; where one has no row it has no value."""
    rows = np.concatenate(list(stations.values()))
    if own.axes.time.column and own.axes.time.step is not None:
        index = on_steps(table, own.axes.time, seconds, rows)
        times = seconds[rows].min() + step_seconds(own.axes.time) * np.arange(index.max() + 1)
    else:
        times, index = np.unique(seconds[rows], return_inverse=True)
    station = np.repeat(np.arange(len(stations)), [len(r) for r in stations.values()])
    frames = np.full((len(times), len(variables), 1, 1, len(stations)), np.nan, np.float32)
    frames[index, :, 0, 0, station] = values[rows]
    row_of = np.full(len(times), -1)
    row_of[index] = rows
    time = Time(times, calendar)
    coordinates = {
        name: Coordinate(("x",), np.array([_place(table, given, name, r) for r in stations.values()]), unit)
        for name, (unit, _) in PLACES.items()
        if (given := getattr(own.axes, name)) is not None
    }
    return Track(
        place=place,
        whole=place,
        path=table.path,
        variables=variables,
        time=time,
        grid=(1, 1, len(stations)),
        read=lambda start, stop: frames[start:stop].copy(),
        where=lambda frame: f"line {table.lines[row_of[frame]]}" if row_of[frame] >= 0 else time[frame : frame + 1].labels()[0],
        geometry=own.geometry or ("points" if {"latitude", "longitude"} <= set(coordinates) else "plane"),
        boundary=boundary(own.boundary, Boundary()),
        coordinates=coordinates,
        coefficients={name: _coefficient(table, name, given, rows) for name, given in own.coefficients.items()},
        filled=True,
    )


def _increasing(table: Table, seconds: np.ndarray, rows: np.ndarray) -> None:
    wrong = np.diff(seconds[rows]) <= 0
    if wrong.any():
        before, row = rows[int(np.argmax(wrong))], rows[int(np.argmax(wrong)) + 1]
        if seconds[before] == seconds[row]:
            raise UserError(
                f"{table.at(row)}: the same time as in line {table.lines[before]}; expected one row for each time, remove one of them or "
                "tell stations apart with axes.station"
            )
        raise UserError(f"{table.at(row)}: an earlier time than in line {table.lines[before]}; sort the rows by time")


def _place(table: Table, place: Place, name: str, rows: np.ndarray) -> float:
    """Latitude, longitude or height of a station: one number of the map, or a column that is constant in its rows."""
    unit = PLACES[name][1]
    value = _constant(table, place.name, f"axes.{name}", rows)
    return float(convert(np.array([value]), place.unit or unit, unit, f"{table.path.name}, axes.{name}")[0])


def _coefficient(table: Table, name: str, given: str | float, rows: np.ndarray) -> float:
    return _constant(table, given, f"coefficients.{name}", rows)


def _constant(table: Table, given: str | float, key: str, rows: np.ndarray) -> float:
    if isinstance(given, float):
        return given
    found = table.numbers(given, key)[rows]
    differs = found != found[0]
    if differs.any():
        row = rows[int(np.argmax(differs))]
        raise UserError(
            f"{table.at(row)}, column {given!r}: {found[differs][0]:g} differs from {found[0]:g} in line {table.lines[rows[0]]}; "
            f"{key} must be the same in all rows of a record, and none may be missing"
        )
    return float(found[0])


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
