"""GHCN-daily in its three forms (.dly, CSV, the list of stations) as one row of days for each station, year and element.

A year of all stations has 35 million lines: they are read in blocks, and what is kept of them is two bytes for each day of an element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import numpy as np

from scigpt.data_prep.formats.byte_text import BLOCK, MINUS, NEWLINE, SPACE, ZERO, Fields, blocks, numbers, open_text, require
from scigpt.data_prep.formats.ghcn_days import FIRST_YEAR, LAST_YEAR, Builder, Days, Place, length
from scigpt.errors import UserError

_RECORD = 269
_DLY = re.compile(rb"[A-Z0-9_-]{11}\d{4}[ -~]{254}\s*")
_LINE = re.compile(rb"[A-Z0-9_-]{11},\d{4}-?\d\d-?\d\d,[A-Z0-9]{4},")
_LISTED = re.compile(rb"[A-Z0-9_-]{11} +-?\d+\.\d+ +-?\d+\.\d+ +-?\d+\.\d")
COLUMNS = ("id", "date", "element", "value", "mflag", "qflag", "sflag", "obstime")
_NAMES = {"station": "id", "yearmonthday": "date", "datavalue": "value", "measurementflag": "mflag", "qualityflag": "qflag",
          "sourceflag": "sflag", "observationtime": "obstime"}  # fmt: skip
FileForm = Literal["dly", "csv", "places", "other"]


def form_of(path: Path) -> FileForm:
    """Which of the forms a file has, by its first bytes."""
    if not path.is_file() or path.stat().st_size == 0:
        return "other"
    try:
        with open_text(path) as file:
            head = file.read(4096)
    except (OSError, EOFError):
        return "other"
    first, _, rest = head.partition(b"\n")
    if _DLY.fullmatch(first):
        return "dly"
    if _LISTED.match(first):
        return "places"
    if _LINE.match(first) and first.count(b",") == len(COLUMNS) - 1:
        return "csv"
    header = first.count(b",") >= 4 and {"id", "date", "element", "value"} <= set(_header(first))
    return "csv" if header and (_LINE.match(rest) or not rest.strip()) else "other"


def read_places(path: Path) -> dict[str, Place]:
    """The list `ghcnd-stations.txt`, of fixed columns.

    Raises:
        UserError: a line that is none of it, or the file is truncated.
    """
    return places_of(path.name, path.read_bytes())


def places_of(name: str, text: bytes) -> dict[str, Place]:
    """The same of its text; `name` is for messages."""
    if not text.endswith(b"\n"):
        raise UserError(f"{name} ends within its last line; it is truncated, fetch it again")
    found = {}
    for number, raw in enumerate(text.split(b"\n")[:-1], 1):
        line = raw.decode("utf-8", errors="replace").rstrip()
        try:
            latitude, longitude, height = float(line[12:20]), float(line[21:30]), float(line[31:37])
        except ValueError:
            latitude = np.nan
        if not (len(line) > 36 and abs(latitude) <= 90 and abs(longitude) <= 180):
            raise UserError(f"{name}, line {number}: {line[:40]!r} is no station with a latitude and a longitude; fetch the list again")
        found[line[:11]] = Place(latitude, longitude, None if height < -999 else height, line[41:71].strip(), line[38:40].strip())
    return found


def read_daily(path: Path, elements: Collection[str], wanted: Callable[[str, Place | None], bool], presumed: bool) -> Days:
    """The days of all wanted stations of a file.

    Args:
        elements: those kept, numbered in this order.
        wanted: of an id, and its place where the file says it.
        presumed: whether a `missing presumed zero` counts as an observation of zero.

    Raises:
        UserError: a line that is not of the format, a date that does not exist, a value given twice, or the file is truncated.
    """
    build = Builder(path, list(elements), wanted, presumed)
    read = _read_dly if form_of(path) == "dly" else _read_csv
    read(path, build)
    return build.done()


def _read_dly(path: Path, build: Builder) -> None:
    with open_text(path) as file:
        head, line = file.readline(), 1
        width = len(head)
        while head:
            head += file.read(BLOCK // width * width - (width if line == 1 else 0))
            if len(head) % width or head[-1] != NEWLINE:
                raise UserError(f"{path.name} ends within a record of {_RECORD} characters; it is truncated, fetch it again")
            records = np.frombuffer(head, np.uint8).reshape(-1, width)
            lines = line + np.arange(len(records))
            require(path, lines, (records[:, :_RECORD] >= SPACE).all(1) & (records[:, -1] == NEWLINE), f"{_RECORD} characters")
            year, ok_year = numbers(records[:, 11:15])
            month, ok_month = numbers(records[:, 15:17])
            good = ok_year & ok_month & (year >= FIRST_YEAR) & (year < LAST_YEAR) & (month >= 1) & (month <= 12)
            require(path, lines, good & _word(records[:, :11]) & _word(records[:, 17:21]), "a station, a month and an element")
            cells = records[:, 21:_RECORD].reshape(-1, 31, 8)
            values, ok = numbers(cells[..., :5])
            require(path, lines, (ok & _flags(cells[..., 5]) & _flags(cells[..., 6]) & _flags(cells[..., 7], True)).all(1), "31 days")
            day = np.arange(1, 32)
            there = values != -9999
            require(path, lines, ~(there & (day > length(year, month)[:, None])).any(1), "no value after the month's end")
            r, d = np.nonzero(there)
            ids, element = (_words(records[:, a:b]) for a, b in ((0, 11), (17, 21)))
            flags = cells[r, d, 5], cells[r, d, 6]
            build.add(lines[r], ids[r], (year[r], month[r], day[d]), element[r], values[r, d], flags)
            head, line = file.read(width), line + len(records)


def _read_csv(path: Path, build: Builder) -> None:
    names: tuple[str, ...] = ()
    for first, block in blocks(path):
        skip = 0
        if not names:
            head = block[: block.index(b"\n")]
            skip = 0 if _LINE.match(head) else len(head) + 1
            names = _header(head) if skip else COLUMNS
        rows = Fields(path, first + (skip > 0), block[skip:], len(names))
        if not rows.count:
            continue
        at = {n: i for i, n in enumerate(names)}
        ids, element = rows.text(at["id"], 11), rows.text(at["element"], 4)
        value, ok = numbers(rows.text(at["value"], 6))
        date = rows.text(at["date"], 10)
        dashed = (date[:, 4] == MINUS) & (date[:, 7] == MINUS)
        plain = (date[:, :2] == SPACE).all(1)
        date = np.where(dashed[:, None], date[:, [0, 1, 2, 3, 5, 6, 8, 9]], date[:, 2:])
        (year, a), (month, b), (day, c) = (numbers(date[:, i:j]) for i, j in ((0, 4), (4, 6), (6, 8)))
        m, q, s = (rows.text(at[n], 1)[:, 0] if n in at else np.full(rows.count, SPACE, np.uint8) for n in ("mflag", "qflag", "sflag"))
        real = (dashed | plain) & a & b & c & (year >= FIRST_YEAR) & (year < LAST_YEAR) & (month >= 1) & (month <= 12) & (day >= 1)
        real[real] &= day[real] <= length(year[real], month[real])
        require(path, rows.lines, real, "a date that exists")
        require(path, rows.lines, _word(ids) & _word(element), "an id of 11 and an element of 4 characters")
        require(path, rows.lines, ok & _flags(m) & _flags(q) & _flags(s, True), "a whole number and its flags")
        observed = None
        if "obstime" in at:
            hours = rows.text(at["obstime"], 4)
            observed, stated = numbers(hours)
            require(path, rows.lines, stated | (hours == SPACE).all(1), "the hour of observation, such as 0700, or none")
            observed = np.where(stated, observed, -1).astype(np.int16)
        keep = value != -9999
        build.add(
            rows.lines[keep], _words(ids[keep]), (year[keep], month[keep], day[keep]), _words(element[keep]),
            value[keep], (m[keep], q[keep]), None if observed is None else observed[keep], _places(rows, at, np.flatnonzero(keep)),
        )  # fmt: skip


def _places(rows: Fields, at: dict[str, int], used: np.ndarray) -> Callable[[int], Place | None]:
    def place(row: int) -> Place | None:
        if "latitude" not in at or "longitude" not in at:
            return None
        words = [rows.word(int(used[row]), at[n]) if n in at else "" for n in ("latitude", "longitude", "elevation")]
        try:
            latitude, longitude, height = (float(w) if w else np.nan for w in words)
        except ValueError:
            latitude = np.nan
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            where = f"{rows.path.name}, line {rows.lines[used[row]]}"
            raise UserError(f"{where}: {words[0][:20]!r} and {words[1][:20]!r} are no latitude and longitude; fetch the file again")
        name, state = (rows.word(int(used[row]), at[n]) if n in at else "" for n in ("name", "state"))
        if len(state) > 2 and not name:  # whoever cut the list into columns took the blanks of a missing state for none
            name, state = state, ""
        return Place(latitude, longitude, height if height > -999 else None, name, state)

    return place


def _header(line: bytes) -> tuple[str, ...]:
    """Column names without what separates their words: `M-FLAG`, `M_FLAG` and `mflag` are one."""
    words = (re.sub(r"[^a-z]", "", w.lower()) for w in line.decode("utf-8-sig", "replace").split(","))
    return tuple(_NAMES.get(w, w) for w in words)


def _words(text: np.ndarray) -> np.ndarray:
    """Bytes `(n, width)` as n words."""
    return np.ascontiguousarray(text).view(f"S{text.shape[1]}")[:, 0]


def _flags(flag: np.ndarray, digits: bool = False) -> np.ndarray:
    """Blank or a capital letter (of a source also a small one, or a digit)."""
    good = (flag == SPACE) | ((flag >= ord("A")) & (flag <= ord("Z")))
    return good | ((flag >= ZERO) & (flag <= ord("9"))) | ((flag >= ord("a")) & (flag <= ord("z"))) if digits else good


def _word(text: np.ndarray) -> np.ndarray:
    """Letters, digits, _ and - in all places."""
    upper = (text >= ord("A")) & (text <= ord("Z"))
    return (upper | ((text >= ZERO) & (text <= ord("9"))) | (text == ord("_")) | (text == MINUS)).all(-1)
