"""The days of many stations in little memory: a row of two-byte values for each station, year and element, and how it is filled."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from scigpt.data_prep.formats.byte_text import SPACE
from scigpt.errors import UserError

FLAGGED = np.int16(-32767)
"""A value that failed a check of the archive, or that is no observation; below it, there is none at all."""
ABSENT = np.int16(-32768)
DAYS = 366
FIRST_YEAR, LAST_YEAR = 1600, 2200
IN_MEMORY = 32 << 20
"""Bytes of a file's values; more lie in a temporary file that is mapped."""
_MONTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_BEFORE = np.cumsum(_MONTHS)  # days before the month that follows
_ALPHABET = b"\0ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_LETTERS = np.zeros(256, np.int64)
_LETTERS[list(_ALPHABET)] = np.arange(len(_ALPHABET))


@dataclass(frozen=True)
class Place:
    """Where a station is. `height` in metres, None where it is not known."""

    latitude: float
    longitude: float
    height: float | None
    name: str = ""
    state: str = ""


@dataclass(eq=False)
class Days:
    """The values of a file.

    Args:
        stations: those wanted, in the order of `keys`.
        others: ids that were met and not wanted.
        keys: int64 `(R, 3)`, station, year and element (their numbers in `stations` and in the elements asked for), rising.
        values: int16 `(R, 366)` from 1 January on, in the units of the archive; FLAGGED or ABSENT where there is no good one.
        observed: int16 `(R,)`, hours and minutes (0700) of an observation of the row, -1 where none is stated.
        first, last: int64 `(R,)`, days since 1970 of the first and last good value of the row; first is after last where there is none.
        places: of the stations, where the file says them.
        unknown: elements that were not asked for.
        flagged: how many values are FLAGGED.
    """

    stations: list[str]
    others: list[str]
    keys: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    first: np.ndarray
    last: np.ndarray
    places: dict[str, Place] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    flagged: int = 0

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {id_: i for i, id_ in enumerate(self.stations)}

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.searchsorted(self.keys[:, 0], np.arange(len(self.stations) + 1))

    def rows(self, station: int) -> slice:
        return slice(int(self._edges[station]), int(self._edges[station + 1]))


class Builder:
    """Rows of days that grow while blocks of values come in."""

    def __init__(self, path: Path, elements: list[str], wanted: Callable[[str, Place | None], bool], presumed: bool) -> None:
        self.path, self.wanted, self.presumed = path, wanted, presumed
        self.elements = {e.encode(): i for i, e in enumerate(elements)}
        self.numbers: dict[bytes, int] = {}
        self.row_of: dict[int, int] = {}
        self.values = np.full((64, DAYS), ABSENT, np.int16)
        self.observed = np.full(64, -1, np.int16)
        self.found = Days([], [], *np.empty((5, 0), np.int64))

    def add(
        self,
        line: np.ndarray,
        ids: np.ndarray,
        dates: tuple[np.ndarray, np.ndarray, np.ndarray],
        element: np.ndarray,
        value: np.ndarray,
        flags: tuple[np.ndarray, np.ndarray],
        observed: np.ndarray | None = None,
        place: Callable[[int], Place | None] = lambda row: None,
    ) -> None:
        """Values by line: ids (S11), year, month and day, elements (S4), MFLAG and QFLAG as bytes, hours and minutes."""
        if not ids.size:
            return
        which, first = _groups(_packed(ids))
        station = np.array([self._station(bytes(ids[row]), int(row), place) for row in first], np.int64)[which]
        which, first = _groups(_packed(element))
        kinds = [bytes(element[row]) for row in first]
        self.found.unknown |= {k.decode("ascii", "replace") for k in kinds if k not in self.elements}
        number = np.array([self.elements.get(k, -1) for k in kinds], np.int64)[which]
        use = np.flatnonzero((station >= 0) & (number >= 0))
        if not use.size:
            return
        year, month, day = (d[use] for d in dates)
        doy = _BEFORE[month - 1] + day - 1 + ((month > 2) & _leap(year))
        keys = (station[use] * 4096 + year - FIRST_YEAR) * 64 + number[use]
        which, first = _groups(keys)
        rows = np.array([self._row(int(k)) for k in keys[first]])[which]
        m, q = (f[use] for f in flags)
        bad = (q != SPACE) | (m == ord("A")) | ((m == ord("P")) & (not self.presumed))
        kept = np.where(m == ord("T"), 0, np.clip(value[use], -32766, 32766)).astype(np.int16)
        kept[bad] = FLAGGED
        cells = rows * DAYS + doy
        order = np.argsort(cells, kind="stable")
        twice = (self.values.reshape(-1)[cells] != ABSENT) | np.isin(np.arange(use.size), order[1:][np.diff(cells[order]) == 0])
        if twice.any():
            i = int(np.argmax(twice))
            what = f"{bytes(element[use[i]]).decode()} of {bytes(ids[use[i]]).decode()} on {year[i]}-{month[i]:02d}-{day[i]:02d}"
            raise UserError(f"{self.path.name}, line {line[use[i]]}: {what} for the second time; the file may be damaged, fetch it again")
        self.values.reshape(-1)[cells] = kept
        self.found.flagged += int(bad.sum())
        if observed is not None:
            stated = observed[use] >= 0
            self.observed[rows[stated]] = observed[use][stated]

    def done(self) -> Days:
        keys = np.fromiter(self.row_of, np.int64, len(self.row_of))
        order = np.argsort(keys)
        station, rest = np.divmod(keys[order], 4096 * 64)
        self.found.keys = np.stack([station, rest // 64 + FIRST_YEAR, rest % 64], 1).reshape(-1, 3)
        self.found.values = values = _stored(self.values[order])
        self.found.observed = self.observed[order]
        starts = new_year(self.found.keys[:, 1])
        self.found.first, self.found.last = starts + DAYS, starts - 1
        for low in range(0, len(values), 8192):
            good = values[low : low + 8192] > FLAGGED
            rows = low + np.flatnonzero(good.any(1))
            self.found.first[rows] = starts[rows] + good[rows - low].argmax(1)
            self.found.last[rows] = starts[rows] + DAYS - 1 - good[rows - low, ::-1].argmax(1)
        return self.found

    def _station(self, id_: bytes, row: int, place: Callable[[int], Place | None]) -> int:
        if id_ not in self.numbers:
            name, own = id_.decode("ascii", "replace"), place(row)
            wanted = self.wanted(name, own)
            self.numbers[id_] = len(self.found.stations) if wanted else -1
            (self.found.stations if wanted else self.found.others).append(name)
            if own is not None:
                self.found.places[name] = own
        return self.numbers[id_]

    def _row(self, key: int) -> int:
        row = self.row_of.setdefault(key, len(self.row_of))
        if row == len(self.values):
            self.values = np.concatenate([self.values, np.full_like(self.values, ABSENT)])
            self.observed = np.concatenate([self.observed, np.full_like(self.observed, -1)])
        return row


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The group of each of these whole numbers, in the order in which they are first met, and where each is first met."""
    which, distinct = pd.factorize(values)
    first = np.full(len(distinct), values.size)
    np.minimum.at(first, which, np.arange(values.size))
    return which, first


def _packed(words: np.ndarray) -> np.ndarray:
    """Words of up to 11 of A-Z, 0-9, _ and - (bytes) as one whole number each."""
    letters = np.ascontiguousarray(words).view(np.uint8).reshape(words.size, -1)
    return _LETTERS[letters] @ len(_ALPHABET) ** np.arange(letters.shape[1])


def _leap(year: np.ndarray) -> np.ndarray:
    return (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))


def length(year: np.ndarray, month: np.ndarray) -> np.ndarray:
    """Days of a month."""
    return _MONTHS[month] + ((month == 2) & _leap(year))


def new_year(year: np.ndarray) -> np.ndarray:
    """Days since 1970 of 1 January."""
    return (year - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)


def _stored(values: np.ndarray) -> np.ndarray:
    if values.nbytes <= IN_MEMORY:
        return values
    with tempfile.TemporaryFile() as file:  # the mapping outlives the handle
        mapped = np.memmap(file, np.int16, "w+", shape=values.shape)
    mapped[:] = values
    return mapped
