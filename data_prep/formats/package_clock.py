"""When the rows of a table of a data package are: the columns of time, how they are written, and where their clock hangs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from scigpt.data_prep.formats.data_package import NOTHING, Column, FileNote
from scigpt.data_prep.formats.package_files import Entry
from scigpt.errors import UserError

_TIME = re.compile(r"(utc_?)?(date_?time|time_?stamp)(_?(utc|gmt|local|[a-z]{3,4}))?")
_ZONES = {
    "utc": 0, "gmt": 0, "akst": -9, "akdt": -8, "pst": -8, "pdt": -7, "mst": -7, "mdt": -6, "cst": -6, "cdt": -5, "est": -5, "edt": -4,
}  # fmt: skip
_OFFSET = re.compile(r"(?:UTC|GMT)?\s*([+-])\s*(\d{1,2})(?::?(\d\d))?")
_OWN_OFFSET = re.compile(r"\d\s*(Z|[+-]\d\d:?\d\d)$")
_WORDS = (("YYYY", "%Y"), ("DD", "%d"), ("HH", "%H"), ("hh", "%H"), ("SS", "%S"), ("ss", "%S"))


@dataclass(frozen=True)
class Told:
    """What a line of the block of headers says of a column."""

    unit: str
    installation: str
    instrument: str


@dataclass(frozen=True, eq=False)
class Clocking:
    """Which columns hold the time of a row, how it is written, and where its clock hangs.

    Args:
        offset: seconds to subtract for UTC; None where nobody says (dates alone need none).
        stamp: of what a value is: of the instant, or of the step that begins or ends there.
    """

    columns: tuple[int, ...]
    format: str | None
    offset: int | None
    stamp: str

    @property
    def form(self) -> str:
        return f"a time of the form {self.format or '2020-01-31 18:00:00'}"

    def parse(self, cells: Sequence[Sequence[str]]) -> tuple[pd.Series, bool]:
        """Instants as written (NaT where a cell is none), and whether the cells state their offset, which is then applied."""
        text = pd.Series([" ".join(row[c] for c in self.columns) for row in cells], dtype=object)
        own = text.str.contains(_OWN_OFFSET) & text.str.contains(":", regex=False)
        parsed = pd.to_datetime(text, format=self.format or "ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
        return parsed.where(own) if own.any() else parsed, bool(own.any())


def clocking(
    entry: Entry, names: Sequence[str], note: FileNote, columns: Mapping[str, Column], told: Mapping[str, Told], time: Sequence[str],
    utc_offset: str | None, stamp: str | None,
) -> Clocking | None:  # fmt: skip
    lower = [n.lower() for n in names]
    if time:
        if any(t.lower() not in lower for t in time):
            return None
        at = tuple(lower.index(t.lower()) for t in time)
    else:
        begin, end = (
            next((i for i, n in enumerate(lower) if re.fullmatch(rf"(date_?time|time_?stamp)_?{w}", n)), None) for w in ("start", "end")
        )
        single = [i for i, n in enumerate(lower) if _TIME.fullmatch(n) and i not in (begin, end)]
        single = sorted(single, key=lambda i: "utc" not in lower[i])[:1]
        if begin is not None and end is not None:
            at, stamp = (begin,), stamp or "begin"
        elif single:
            at = (single[0],)
        elif "date" in lower:
            at = (lower.index("date"), lower.index("time")) if "time" in lower else (lower.index("date"),)
        else:
            return None
    units = [told[n].unit if n in told else columns[n].unit if n in columns else "" for n in (lower[i] for i in at)]
    defined = " ".join(columns[lower[i]].definition for i in at if lower[i] in columns)
    unit = " ".join(u for u in units if u.lower() not in NOTHING)
    if stamp is None:
        meant = re.search(
            r"\b(start|begin|beginning|end)\s+of\s+(the|each|an?)\s+[\w\s-]{0,30}?(averag|interval|period)", defined, re.IGNORECASE
        )
        stamp = "instant" if meant is None else "end" if meant[1].lower() == "end" else "begin"
    zone = re.search(r"_?([a-z]{3,4})$", lower[at[0]])
    offsets = {
        "the time column": _seconds(unit.partition("UTC")[2] or "+0", entry) if "UTC" in unit else None,
        "its name": None if zone is None or zone[1] not in _ZONES else 3600 * _ZONES[zone[1]],
        "the file-level metadata": _seconds(note.utc_offset, entry) if note.utc_offset else None,
    }
    known = {k: v for k, v in offsets.items() if v is not None}
    if utc_offset is None and len(set(known.values())) > 1:
        words = " and ".join(f"{k} ({v / 3600:+g} h)" for k, v in known.items())
        raise UserError(f"{entry.label}: {words} say different offsets from UTC; correct one of them or give utc_offset=-08:00")
    offset = _seconds(utc_offset, entry) if utc_offset is not None else next(iter(known.values()), None)
    return Clocking(at, _format(unit), offset, stamp)


def _seconds(text: str, entry: Entry) -> int:
    """`UTC-08:00`, `-8`, `+05:30` in seconds."""
    if text.strip().upper() in ("UTC", "GMT", "Z", "0"):
        return 0
    match = _OFFSET.match(text.strip())
    if match is None or int(match[2]) > 14:
        raise UserError(f"{entry.label}: the offset from UTC {text[:30]!r} is not of the form -08:00; correct it or give utc_offset=-08:00")
    return (-1 if match[1] == "-" else 1) * (3600 * int(match[2]) + 60 * int(match[3] or 0))


def _format(unit: str) -> str | None:
    """`MM/DD/YYYY hh:mm` as strptime reads it; None for ISO 8601 and where nothing is said."""
    text = re.split(r"\s*\b(?:UTC|GMT)\b", unit)[0].strip()
    if not re.search(r"YYYY", text) or text.startswith("YYYY-MM"):
        return None
    hours = re.search(r"[hH]{2}", text)
    day, rest = (text[: hours.start()], text[hours.start() :]) if hours else (text, "")
    made = day.replace("MM", "%m") + rest.replace("mm", "%M").replace("MM", "%M")
    made = made.replace("mm", "%m")
    for word, code in _WORDS:
        made = made.replace(word, code)
    return None if re.search(r"[A-Za-z]{2,}", re.sub(r"%[A-Za-z]", "", made)) else made
