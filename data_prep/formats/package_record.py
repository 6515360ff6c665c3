"""The numbers of a table of a data package, row by row checked, as records of its sites on a regular clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scigpt.data_prep.formats.data_package import Column, FileNote, number_of
from scigpt.data_prep.formats.package_files import Entry
from scigpt.data_prep.formats.package_table import Head, blocks, numbers
from scigpt.errors import UserError

DAY = 86400


@dataclass(frozen=True)
class Wishes:
    """What the user says (see the options of the source), and whether a last line that does not end tells a truncated table."""

    step: int | None = None
    stamp: str | None = None
    tolerance: int = 0
    missing: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    encoding: str = "utf-8"
    ended: bool = True


@dataclass(frozen=True, eq=False)
class Record:
    """The numbers of a table.

    Args:
        columns: what is measured, as indexes among the names of the head.
        sites: what the column of sites says, in the order of the rows; one empty text without such a column.
        site: which of them each row is of, rising.
        begins: datetime64[s] `(n,)`, UTC (local dates of daily values), rising within a site.
        values: float32 `(n, C)`, as in the file, NaN where a value is missing.
        places: latitude and longitude of each site by its own columns, NaN where there are none.
        step: seconds, None for months.
        interval: whether values are of the step that begins at their instant.
    """

    entry: Entry
    head: Head
    columns: tuple[int, ...]
    sites: tuple[str, ...]
    site: np.ndarray
    begins: np.ndarray
    values: np.ndarray
    places: np.ndarray
    step: int | None
    interval: bool


def read_record(
    entry: Entry,
    head: Head,
    note: FileNote,
    dictionary: Mapping[str, Column],
    measured: Sequence[int],
    bare: Sequence[int],
    site: int | None,
    wishes: Wishes,
) -> Record | None:
    """A table; None without a column that is measured or without two instants of one site.

    Args:
        bare: of the measured columns those without a unit, which may hold text alone.
        site: the column of sites.

    Raises:
        UserError: a number without a unit, a cell that is no number, an offset from UTC that nobody says, two rows of one instant, steps
            that are not regular, a site that moves.
    """
    clock = head.clock
    assert clock is not None
    lower = [n.lower() for n in head.names]
    columns = [i for i in measured if i not in bare]
    codes = {
        i: (*wishes.missing, "-9999", *note.missing, *(dictionary[lower[i]].missing if lower[i] in dictionary else ())) for i in columns
    }
    flags = [i for i, n in enumerate(lower) if "flag" in n] if wishes.flags else []
    of_flag = {f: [c for c, i in enumerate(columns) if lower[i] == re.sub(r"_?(data_?)?flag_?", "", lower[f])] for f in flags}
    where = [lower.index(n) if n in lower else None for n in ("latitude", "longitude")]
    numbered: dict[str, int] = {}
    parts: list[tuple[np.ndarray, ...]] = []
    own = False
    for block in blocks(entry, head, wishes.encoding, wishes.ended):
        own |= block.own
        for i in bare:
            _refuse_numbers(entry, head.names[i], [row[i] for row in block.cells])
        which = np.array([numbered.setdefault("" if site is None else row[site], len(numbered)) for row in block.cells], np.int32)
        values = np.full((len(block.cells), len(columns)), np.nan, np.float32)
        place = np.full((len(block.cells), 2), np.nan)
        for c, i in enumerate(columns):
            values[:, c] = numbers(entry, head.names[i], [row[i] for row in block.cells], block.lines, codes[i])
        for c, at in enumerate(where):
            if at is not None:
                place[:, c] = numbers(entry, head.names[at], [row[at] for row in block.cells], block.lines, ("-9999",))
        for f, of in of_flag.items():
            bad = np.array([row[f] in wishes.flags for row in block.cells])
            values[np.ix_(bad, np.array(of or range(len(columns)), np.int64))] = np.nan
        parts.append((which, block.begins, values, place))
    if not parts or not columns:
        return None
    which, begins, values, place = (np.concatenate(p) for p in zip(*parts, strict=True))
    del parts
    days = bool((begins == begins.astype("datetime64[D]")).all())
    if not days and not own:
        if clock.offset is None:
            raise UserError(
                f"{entry.label}: nobody says where its clock hangs; expected an offset such as UTC-08:00 in the header of the time or as "
                "utc_offset in the file-level metadata, give utc_offset=-08:00"
            )
        begins = begins - np.timedelta64(clock.offset, "s")
    order = np.lexsort((begins, which))
    which, begins, values, place = which[order], begins[order], values[order], place[order]
    sites = tuple(numbered)
    step = _step(entry, begins, which, sites, days, wishes)
    if step == 0:
        return None
    stamp = "begin" if days and clock.stamp == "instant" and wishes.stamp is None else clock.stamp
    if step is not None:
        begins = _on_steps(entry, begins, step, wishes.tolerance) - np.timedelta64(step if stamp == "end" else 0, "s")
    places = np.stack([_place(entry, s, place[which == n]) for n, s in enumerate(sites)])
    return Record(entry, head, tuple(columns), sites, which, begins, values, places, step, stamp != "instant")


def _refuse_numbers(entry: Entry, name: str, cells: Sequence[str]) -> None:
    if any(number_of(cell) is not None for cell in cells):
        raise UserError(
            f"{entry.label}: the column {name} has no unit in the header or the data dictionary; state it there, give units={name}:UNIT, "
            f"or skip={name}"
        )


def _step(entry: Entry, begins: np.ndarray, which: np.ndarray, sites: Sequence[str], days: bool, wishes: Wishes) -> int | None:
    """Seconds between instants; None for months, 0 where no site has two."""
    same = which[1:] == which[:-1]
    steps = np.diff(begins).astype(np.int64)[same]
    if not steps.size:
        return 0
    if (steps == 0).any():
        i = int(np.flatnonzero(same)[np.argmax(steps == 0)])
        raise UserError(
            f"{entry.label} has two rows of {sites[which[i]] or 'one station'} at {begins[i]}; name the column that tells stations apart "
            "with site=, or correct the table"
        )
    usual = int(np.median(steps))
    months = days and wishes.step is None and 28 * DAY <= usual <= 31 * DAY and bool((begins == begins.astype("datetime64[M]")).all())
    return None if months else wishes.step or usual


def _on_steps(entry: Entry, begins: np.ndarray, step: int, tolerance: int) -> np.ndarray:
    """Instants on regular steps from the most common phase."""
    seconds = begins.astype(np.int64)
    phases, counts = np.unique(seconds % step, return_counts=True)
    beside = (seconds - phases[np.argmax(counts)] + step // 2) % step - step // 2
    far = np.abs(beside) > tolerance
    if far.any():
        i = int(np.argmax(far))
        raise UserError(
            f"{entry.label}: {begins[i]} (UTC) lies {beside[i]} s beside the steps of {step} s; expected regular steps, give step= in "
            "seconds, or tolerance= to move instants onto them"
        )
    return (seconds - beside).astype("datetime64[s]")


def _place(entry: Entry, site: str, rows: np.ndarray) -> np.ndarray:
    """Latitude and longitude in the rows of a site."""
    known = rows[np.isfinite(rows).all(axis=1)]
    if not len(known):
        return np.full(2, np.nan)
    if np.ptp(known, axis=0).max() > 0.01 or np.abs(known[0, 0]) > 90:
        raise UserError(
            f"{entry.label}: {site or 'the station'} lies at {known.min(0).tolist()} to {known.max(0).tolist()}; expected one place in "
            "decimal degrees, name the column that tells stations apart with site="
        )
    return known[0]
