"""The text files of the Global Runoff Data Centre: about 36 lines of `#`, then days or months of discharge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from scigpt.data_prep.formats.byte_text import MINUS, Fields, numbers, require
from scigpt.errors import UserError

MISSING = -999.0
NO_DAY = (-10.0, MISSING)
"""What stands at days that do not exist, such as 30 February."""
ADVISED_AGAINST = 99.0
"""The flag of a daily value whose use its provider does not recommend."""


@dataclass(frozen=True, eq=False)
class Gauge:
    """A file: `facts` by the first words of their line, in small letters; days (or first days of months), and m**3/s, NaN where missing."""

    facts: Mapping[str, str]
    latitude: float
    longitude: float
    area: float | None
    height: float | None
    monthly: bool
    begins: np.ndarray
    values: np.ndarray


def is_grdc(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"#") and b"GRDC-No." in head and b"GRDC STATION DATA FILE" in head


def read_gauge(path: Path, column: Literal["calculated", "original"], least: float) -> Gauge:
    """A file of days or of months.

    Args:
        column: which is used where there are two.
        least: per cent of a month's days that a calculated mean must rest on.

    Raises:
        UserError: no place, another unit, rows that are none, or fewer of them than the header says.
    """
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        raise UserError(f"{path.name} ends within its last line; it is truncated, fetch it again")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = text.replace("\r\n", "\n").split("\n")[:-1]
    start = next((i for i, line in enumerate(lines) if re.fullmatch(r"#\s*DATA\s*", line)), None)
    if start is None or start + 1 >= len(lines):
        raise UserError(f"{path.name} has no line '# DATA' with a table below it; it is truncated, or no file of GRDC")
    facts = _facts(lines[:start])
    unit = facts.get("unit of measure", facts.get("unit", ""))
    if not re.fullmatch(r"m(?:3|[^\x00-\x7f]{1,3})/s", unit):
        raise UserError(f"{path.name}: its unit of measure is {unit!r}; expected m3/s, the discharge of a day or a month")
    monthly = "MONTHLY" in facts.get("data set content", "").upper()
    names = [n.strip().lower() for n in lines[start + 1].split(";")]
    stated = re.match(r"\d+", facts.get("data lines", ""))
    rows = [line for line in lines[start + 2 :] if line.strip()]
    if stated and int(stated[0]) != len(rows):
        raise UserError(f"{path.name} has {len(rows)} lines of data and its header says {stated[0]}; it is truncated, fetch it again")
    if names[:2] != ["yyyy-mm-dd", "hh:mm"] or len(names) < 3:
        raise UserError(f"{path.name}: its table has the columns {'; '.join(names)[:80]}; expected YYYY-MM-DD;hh:mm; Value")
    begins, numbers = _table(path, start + 3, rows, names, monthly)
    latitude, longitude, area, height = (_fact(facts, n) for n in ("latitude", "longitude", "catchment area", "altitude"))
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        raise UserError(f"{path.name}: its header gives no latitude and longitude, as in '# Latitude (DD): 50.37'")
    values = _chosen(names, numbers, column, monthly, least)
    return Gauge(facts, latitude, longitude, None if area is None else area * 1e6, height, monthly, begins, values)


def _facts(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        match = re.match(r"#\s*([^:(]+?)\s*(?:\([^)]*\))?\s*:\s*(.*?)\s*$", line)
        if match is not None:
            found.setdefault(match[1].lower(), match[2])
    return found


def _fact(facts: Mapping[str, str], name: str) -> float | None:
    """A number of the header; -999 stands for one that is not known."""
    try:
        value = float(facts.get(name, ""))
    except ValueError:
        return None
    return value if np.isfinite(value) and value > MISSING else None


def _table(path: Path, first: int, rows: list[str], names: list[str], monthly: bool) -> tuple[np.ndarray, np.ndarray]:
    """Dates that exist (datetime64[D]) and numbers `(n, columns)`; `first` is the line of the first row."""
    fields = Fields(path, first, "".join(f"{row}\n" for row in rows).encode(), len(names), ord(";"))
    date, hours = fields.text(0, 10), fields.text(1, 5)
    dashed = (date[:, [4, 7]] == MINUS).all(1)
    (year, a), (month, b), (day, c) = (numbers(date[:, i:j]) for i, j in ((0, 4), (5, 7), (8, 10)))
    require(path, fields.lines, dashed & a & b & c & (year > 1000) & (month >= 1) & (month <= 12) & (day <= 31), "a date as YYYY-MM-DD")
    require(path, fields.lines, (hours == np.frombuffer(b"--:--", np.uint8)).all(1), "--:-- as the time of a mean")
    values = np.empty((len(rows), len(names) - 2))
    for column in range(len(names) - 2):
        text = np.ascontiguousarray(fields.text(2 + column, 20)).view("S20")[:, 0]
        try:
            values[:, column] = text.astype(np.float64)
        except ValueError:
            values[:, column] = [float(t) if re.fullmatch(rb" *-?[\d.]+ *", t) and t.count(b".") < 2 else np.nan for t in text.tolist()]
        require(path, fields.lines, np.isfinite(values[:, column]), f"a number in column {3 + column}")
    if monthly:
        day = np.ones_like(day)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    begins = months.astype("datetime64[D]") + (day - 1)
    real = (begins.astype("datetime64[M]") == months) & (day > 0)
    require(path, fields.lines, real | np.isin(values[:, 0], NO_DAY), "a date that exists where there is a value")
    rising = np.diff(begins[real]).astype(np.int64) > 0
    require(path, fields.lines[real][1:], rising, "a date after that of the row before")
    return begins[real], values[real]


def _chosen(names: list[str], numbers: np.ndarray, column: str, monthly: bool, least: float) -> np.ndarray:
    at = names[2:].index(column) if column in names else 0
    values = np.where(numbers[:, at] == MISSING, np.nan, numbers[:, at])
    if "flag" in names:
        flag = numbers[:, names.index("flag") - 2]
        if monthly and names[2 + at] == "calculated":
            values[flag < least] = np.nan
        elif not monthly:
            values[flag == ADVISED_AGAINST] = np.nan
    return values
