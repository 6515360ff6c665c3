"""A table of a data package: where its names and rows stand, what its columns are in, when each row is, and the numbers.

Header rows, units, codes of missing values and the offset from UTC come from the block of `# ` lines, the data dictionary and the
file-level metadata; nothing is guessed. The reporting formats count header rows in three ways over their versions (below the names, from
the top, with the lines of comments): any of them is taken that agrees with where the names and the first instant stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from scigpt.data_prep.formats.data_package import NOTHING, SITE_NAMES, Column, FileNote, refuse_template
from scigpt.data_prep.formats.package_clock import Clocking, Told, clocking
from scigpt.data_prep.formats.package_files import Entry
from scigpt.data_prep.formats.unit_words import spelled_short
from scigpt.errors import UserError

CHUNK = 50_000
"""Rows that are text at one time."""
MISSING = ("", "na", "n/a", "nan", "null", "none", "-")
LABELS = re.compile(
    r"(site|location|station|well|plot|parent|sample|sensor|logger|instrument|installationmethod)(_?(id|name|code|type))?|igsn|notes?|"
    r"comments?|.*flag.*|lat(itude)?|lon(g|gitude)?|.*date.*|time(stamp)?|utc_offset"
)
"""Columns that say what a row is of, not what was measured."""
_TEXT = ("text", "string", "character", "char", "categorical", "date", "time", "datetime", "boolean", "factor")


@dataclass(frozen=True, eq=False)
class Head:
    """How a table begins.

    Args:
        names: of the columns, in order.
        start: rows before the data, comments left out.
        told: by name in lower case, what the block of headers says.
    """

    names: tuple[str, ...]
    start: int
    told: Mapping[str, Told] = field(default_factory=dict)
    clock: Clocking | None = None


def read_head(
    entry: Entry,
    note: FileNote,
    columns: Mapping[str, Column],
    encoding: str,
    time: Sequence[str],
    utc_offset: str | None,
    stamp: str | None,
) -> Head:
    """Names, the first row of data, and the clock (None for a table without time).

    Args:
        time: columns of the time, where the user names them.
        utc_offset, stamp: what the user says.

    Raises:
        UserError: a template, or metadata that do not agree with the table.
    """
    comments: list[str] = []
    plain: list[tuple[int, list[str]]] = []
    for line, row in entry.rows(encoding):
        if row[0].startswith("#"):
            comments += [] if plain else [re.sub(r"[,\s]+$", "", ",".join(row))]
        else:
            plain.append((line, row))
        if len(plain) < 2:
            refuse_template(entry, line, row)
        if len(plain) == 40:
            break
    if not plain:
        raise UserError(f"{entry.label} holds no table; it may be damaged or truncated, fetch it again")
    told = _block(entry, comments)
    known = {*columns, *told}
    hits = [sum(c.lower() in known for c in row) for _, row in plain[:20]]
    stated = max((note.position or 1) - 1, 0)
    at = int(np.argmax(hits)) if max(hits) else min(stated, len(plain) - 1)
    if note.position is not None and note.position >= 0 and at not in {p - c for p in (stated, note.position) for c in (0, len(comments))}:
        raise UserError(
            f"{entry.label}: the file-level metadata say that names stand at {note.position}, and the columns of the data dictionary stand "
            f"in line {plain[at][0]}; correct column_or_row_name_position"
        )
    names = tuple(plain[at][1])
    while names and not names[-1]:
        names = names[:-1]
    twice = next((n for i, n in enumerate(names) if n and n.lower() in {o.lower() for o in names[:i]}), None)
    if twice is not None:
        raise UserError(f"{entry.label} has two columns {twice}; rename one of them")
    clock = clocking(entry, names, note, columns, told, time, utc_offset, stamp)
    if clock is None or len(plain) == at + 1:
        return Head(names, at + 1, told, clock)
    padded = [row + [""] * (len(names) - len(row)) for _, row in plain[at + 1 :]]
    good = clock.parse(padded)[0].notna().to_numpy()
    below = int(np.argmax(good)) if good.any() else len(good)
    count = note.header_rows if note.header_rows is not None and note.header_rows >= 0 else None
    fits = below == 0 if count is None else count in (below, at + 1 + below, len(comments) + at + 1 + below)
    if not good.any() or not fits:
        first = min(below if count else 0, len(padded) - 1)
        cell = " ".join(padded[first][c] for c in clock.columns)
        said = "nothing" if count is None else f"header_rows={count}"
        raise UserError(
            f"{entry.label}, line {plain[at + 1 + first][0]}: the time reads {cell[:40]!r}, and the file-level metadata say {said} of "
            f"header rows; expected {clock.form} in the first row of data and none above it, correct the file or its metadata"
        )
    return Head(names, at + 1 + below, told, clock)


def _block(entry: Entry, comments: Sequence[str]) -> dict[str, Told]:
    """The lines `# Column_Header; Unit; InstallationMethod_ID; Instrument_Summary`."""
    at = next((i for i, c in enumerate(comments) if re.match(r"#\s*HeaderRows_\d+", c)), None)
    if at is None:
        return {}
    count, found = int(re.search(r"\d+", comments[at])[0]), {}  # type: ignore[index]
    if count != len(comments) - at + 1:
        raise UserError(
            f"{entry.label}: its first line says {count} header rows, and {len(comments) - at + 1} are there with the row of "
            "names; it may be damaged, correct it or fetch it again"
        )
    for text in comments[at + 1 :]:
        parts = [p.strip() for p in text.lstrip("# ").split(";", 3)]
        if text.lstrip("# ").startswith("HeaderRows_Format"):
            continue
        if len(parts) < 3:
            raise UserError(f"{entry.label}: the header {text[:60]!r} is not of the form 'name; unit; installation; instrument'")
        found[parts[0].lower()] = Told(parts[1], "" if parts[2].lower() in NOTHING else parts[2], parts[3] if len(parts) > 3 else "")
    return found


def unit_of(entry: Entry, name: str, head: Head, columns: Mapping[str, Column], given: Mapping[str, str]) -> str | None:
    """The unit of a column as pint reads it; None for a column that is not measured.

    Raises:
        UserError: header and dictionary say different units.
    """
    key = name.lower()
    if key in given:
        return spelled_short(given[key])
    told, own = head.told.get(key), columns.get(key)
    said = [u for u in (told.unit if told else "", own.unit if own else "") if u.lower() not in NOTHING]
    if (own is not None and own.type.lower() in _TEXT) or any("YYYY" in u for u in said):
        return None
    short = {spelled_short(u): u for u in said}
    if len(short) > 1:
        raise UserError(
            f"{entry.label}: the column {name} is in {' by its header and in '.join(map(repr, said))} by the data dictionary; correct one"
        )
    if short:
        return next(iter(short))
    return None if LABELS.fullmatch(key) or any(u for u in (told.unit if told else "", own.unit if own else "")) else ""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of a table: instants as written, datetime64[s] `(n,)`; whether cells state an offset and they are in UTC; lines and cells."""

    begins: np.ndarray
    own: bool
    lines: list[int]
    cells: list[list[str]]


def blocks(entry: Entry, head: Head, encoding: str, ended: bool) -> Iterator[Block]:
    """The rows of a table, some at a time.

    Args:
        ended: as of `Entry.rows`.

    Raises:
        UserError: a row of another length, or a time that is none.
    """
    assert head.clock is not None
    width, seen = len(head.names), 0
    lines: list[int] = []
    cells: list[list[str]] = []

    def done() -> Block:
        assert head.clock is not None
        parsed, own = head.clock.parse(cells)
        wrong = parsed.isna().to_numpy() | (parsed != parsed.dt.floor("s")).to_numpy()
        if wrong.any():
            i = int(np.argmax(wrong))
            said = " ".join(cells[i][c] for c in head.clock.columns)
            raise UserError(f"{entry.label}, line {lines[i]}: the time reads {said[:40]!r}; expected {head.clock.form} in whole seconds")
        return Block(parsed.to_numpy().astype("datetime64[s]"), own, lines, cells)

    for line, row in entry.rows(encoding, ended):
        if row[0].startswith("#"):
            continue
        seen += 1
        if seen <= head.start:
            continue
        if any(row[width:]) or len(row) < width:
            raise UserError(
                f"{entry.label}, line {line} has {len(row)} cells; expected {width}, the file may be damaged or truncated, fetch it again"
            )
        lines.append(line)
        cells.append(row)
        if len(cells) == CHUNK:
            yield done()
            lines, cells = [], []
    if cells:
        yield done()


def numbers(entry: Entry, name: str, text: list[str], lines: Sequence[int], missing: Sequence[str]) -> np.ndarray:
    """Cells as float64, NaN where a value is missing.

    Raises:
        UserError: a cell that is neither a number nor missing, by line and column.
    """
    series = pd.Series(text, dtype=object)
    gone = series.str.lower().isin([*MISSING, *(m.lower() for m in missing)])
    values = pd.to_numeric(series.where(~gone), errors="coerce").to_numpy(np.float64)
    wrong = ~np.isfinite(values) & ~gone.to_numpy()
    if wrong.any():
        i = int(np.argmax(wrong))
        raise UserError(
            f"{entry.label}, line {lines[i]}, column {name}: {text[i][:40]!r} is not a number; correct it, or give missing={text[i][:20]}"
        )
    codes = [float(m) for m in missing if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", m.lower())]
    return np.where(np.isin(values, codes), np.nan, values)


def site_column(names: Sequence[str], asked: str | None) -> int | None:
    """The column that tells stations apart."""
    lower = [n.lower() for n in names]
    if asked is not None:
        return lower.index(asked.lower()) if asked.lower() in lower else None
    return next((lower.index(n) for n in (*SITE_NAMES, "installationmethod_id") if n in lower), None)
