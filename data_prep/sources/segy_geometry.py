"""Which traces of a SEG-Y file lie side by side (volume, line, shot records), and where on the ground they are.

A panel is a grid of trace numbers, inlines by crosslines; a line and a shot record have one row. The bytes of inline and crossline are the
standard's unless options name others; a bin of the grid without a trace is a hole, -1, and never a trace of zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.sample import Coordinate
from scigpt.data_prep.formats.segy import SegyFile
from scigpt.errors import UserError

Kind = Literal["volume", "line", "shots"]
FOOT = 0.3048
CDP, CODE, OFFSET, SCALAR, UNITS = 21, 29, 37, 71, 89
DEAD = (2, 3)
"""Identification codes of dead and dummy traces."""
AUXILIARY = (*range(4, 11), *range(18, 23))
"""Time breaks, upholes, sweeps, signatures, vibrator references: no recording of the ground."""
SPARSE = 20
"""Bins for each trace, above which the bytes read are no inline and crossline."""
_PLACES: Mapping[Kind, tuple[tuple[int, int], ...]] = {
    "volume": ((181, 185), (73, 77), (81, 85)),
    "line": ((181, 185), (73, 77), (81, 85)),
    "shots": ((81, 85),),
}
"""Bytes of coordinates, in the order of preference: ensemble, source, receiver group; not where the survey keeps its numbers."""
_LOOKED_AT = 4096


@dataclass(frozen=True)
class Bytes:
    """Where header words begin; None: the standard's choice."""

    inline: int = 189
    crossline: int = 193
    record: int = 9
    x: int | None = None
    y: int | None = None
    scalar: int = SCALAR


@dataclass(frozen=True, eq=False)
class Panel:
    """Traces side by side.

    Args:
        index: `(rows, columns)`, the trace in each bin, -1 where there is none.
        rows, columns: inline and crossline numbers; of a line CDP numbers (or traces counted from 1), of a record its number and channels.
        numbered: false of a line whose traces are counted.
    """

    kind: Kind
    index: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    numbered: bool = True


@dataclass(frozen=True)
class Places:
    """Header words with coordinates: `names` are x and y, or longitude and latitude, then offset; empty where nothing is known."""

    names: tuple[str, ...] = ()
    x: int = 181
    y: int = 185
    scalar: int = SCALAR
    code: int = 1


def find_panels(file: SegyFile, dims: str, at: Bytes, notes: list[str], only: Sequence[int] | None = None) -> list[Panel]:
    """The panels of a file, in the order of its records.

    Args:
        dims: `volume`, `line`, `shots`, or `auto`.
        notes: gets what is to be told of this file.
        only: identification codes of traces to use; by default all but auxiliary ones.

    Raises:
        UserError: dims that the headers do not bear out.
    """
    codes = file.header(CODE)
    used = np.flatnonzero(np.isin(codes, only) if only is not None else ~np.isin(codes, AUXILIARY))
    used = used.astype(np.int32 if file.traces < 1 << 31 else np.int64)
    if not used.size:
        found = ", ".join(map(str, np.unique(codes)[:8]))
        raise UserError(f"{file.path.name} has no trace to use; its traces have the identification codes {found}, choose with trace_id=")
    if used.size < file.traces:
        notes.append(f"{file.traces - used.size} of {file.traces} traces are left out by their identification code")
    chosen: slice | np.ndarray = used if used.size < file.traces else slice(None)
    why = ""
    if dims in ("auto", "volume"):
        volume = _volume(file, chosen, used, at)
        if isinstance(volume, Panel):
            return [volume]
        if dims == "volume":
            raise UserError(f"{file.path.name} is no volume by inline (byte {at.inline}) and crossline (byte {at.crossline}): {volume}")
        why = f"as it is no volume by inline (byte {at.inline}) and crossline (byte {at.crossline}): {volume}"
    record = file.header(at.record, chosen) if dims != "line" else np.zeros(used.size, np.int32)
    cdp = file.header(CDP, chosen)
    records, counts = np.unique(record, return_counts=True)
    alone = np.unique(cdp).size == cdp.size
    if dims == "shots" or (dims == "auto" and 1 < records.size < used.size and not alone):
        order = used[np.argsort(record, kind="stable")]
        ends = np.cumsum(counts)
        notes += [f"read as shot records, {why}"] if why else []
        return [
            Panel("shots", order[end - n : end][None], np.array([r]), np.arange(1, n + 1))
            for r, n, end in zip(records.tolist(), counts.tolist(), ends.tolist(), strict=True)
        ]
    notes += [f"read as a line, {why}"] if why else []
    if alone and cdp.min() > 0 and used.size > 1:
        bins = _axis(cdp)
        if len(bins) <= 2 * cdp.size:
            index = np.full((1, len(bins)), -1, used.dtype)
            index[0, _bin(cdp, bins)] = used
            return [Panel("line", index, np.zeros(1, np.int64), np.array(bins))]
        order = np.argsort(cdp)
        return [Panel("line", used[order][None], np.zeros(1, np.int64), cdp[order].astype(np.int64))]
    return [Panel("line", used[None], np.zeros(1, np.int64), used + 1, numbered=False)]


def _volume(file: SegyFile, chosen: slice | np.ndarray, used: np.ndarray, at: Bytes) -> Panel | str:
    """The grid of inlines and crosslines, or why there is none."""
    inline, crossline = file.header(at.inline, chosen), file.header(at.crossline, chosen)
    for name, numbers in (("inline", inline), ("crossline", crossline)):
        if numbers.min() == numbers.max():
            return f"every trace has the {name} {numbers[0]}; expected the bytes of your survey, inline_byte= and crossline_byte="
    rows, columns = _axis(inline), _axis(crossline)
    if len(rows) * len(columns) > SPARSE * used.size:
        bins = f"its {used.size} traces would lie in {len(rows)} x {len(columns)} bins"
        return f"{bins}; expected the bytes of your survey, inline_byte= and crossline_byte="
    row, column = _bin(inline, rows), _bin(crossline, columns)
    index = np.full((len(rows), len(columns)), -1, used.dtype)
    index[row, column] = used
    twice = np.flatnonzero(index[row, column] != used)
    if twice.size:
        where = f"inline {inline[twice[0]]}, crossline {crossline[twice[0]]}"
        return f"{where} has several traces (before stack?); expected one in each bin, read it with dims=shots or stack it first"
    return Panel("volume", index, np.array(rows), np.array(columns))


def _axis(numbers: np.ndarray) -> range:
    """From the lowest to the highest number in their common step."""
    found = np.unique(numbers).astype(np.int64)
    step = int(np.gcd.reduce(np.diff(found))) if found.size > 1 else 1
    return range(int(found[0]), int(found[-1]) + 1, step)


def _bin(numbers: np.ndarray, axis: range) -> np.ndarray:
    return ((numbers.astype(np.int64) - axis.start) // axis.step).astype(np.int32)


# --- places


def find_places(file: SegyFile, panels: Sequence[Panel], at: Bytes) -> Places:
    """Which header words vary from trace to trace and so say where the traces are."""
    kind = panels[0].kind
    every = np.concatenate([p.index[p.index >= 0] for p in panels[:64]])
    some = np.sort(every[:: max(1, every.size // _LOOKED_AT)])
    offset = ("offset",) if kind == "shots" and np.ptp(file.header(OFFSET, some)) > 0 else ()
    numbers = (at.inline, at.crossline, at.record)
    free = tuple(pair for pair in _PLACES[kind] if not any(abs(byte - n) < 4 for byte in pair for n in numbers))
    candidates = ((at.x, at.y),) if at.x is not None and at.y is not None else free
    for x, y in candidates:
        if any(np.ptp(file.header(byte, some).astype(np.int64)) > 0 for byte in (x, y)):
            codes = np.unique(file.header(UNITS, some))
            code = int(codes[0]) if codes.size == 1 else 1
            angles = code == 2 or (code in (3, 4) and file.revision[0] >= 1)
            places = Places(("longitude", "latitude") if angles else ("x", "y"), x, y, at.scalar, code if angles else 1)
            longitude, latitude = positions(file, places, some)
            if angles and (np.abs(latitude).max() > 90 or np.abs(longitude).max() > 360):
                break  # no angles, whatever the code says, and lengths neither
            return Places(places.names + offset, x, y, at.scalar, places.code)
    return Places(offset)


def positions(file: SegyFile, places: Places, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y in metres, or longitude and latitude in degrees, float64 `(n,)`."""
    factor = scale(file.header(places.scalar, traces))
    x, y = (file.header(byte, traces).astype(np.float64) * factor for byte in (places.x, places.y))
    if places.code == 2:
        return x / 3600, y / 3600
    if places.code == 4:
        return _degrees(x), _degrees(y)
    return (x * FOOT, y * FOOT) if places.code == 1 and file.feet else (x, y)


def scale(scalar: np.ndarray) -> np.ndarray:
    """A factor: positive numbers multiply, negative ones divide, 0 is none."""
    number = scalar.astype(np.float64)
    return np.where(number < 0, -1 / np.where(number == 0, 1, number), np.where(number == 0, 1, number))


def _degrees(packed: np.ndarray) -> np.ndarray:
    """+-DDDMMSS.ss in degrees."""
    size = np.abs(packed)
    return np.sign(packed) * (size // 10000 + size // 100 % 100 / 60 + size % 100 / 3600)


class Ground:
    """Coordinates of the panels of one file."""

    def __init__(self, file: SegyFile, places: Places, names: Sequence[str]) -> None:
        self.file, self.places, self.names = file, places, names
        self._plane = functools.lru_cache(maxsize=4)(self._fit)

    def coordinates(self, panel: Panel, rows: slice, columns: slice) -> dict[str, Coordinate]:
        """Of a window: on one axis where they depend on one alone, else on both; holes lie where the plane through all bins says."""
        found: dict[str, Coordinate] = {}
        index = panel.index[rows, columns]
        known = index >= 0
        if self.names and known.any():
            if len(flat := [n for n in self.names if n != "offset"]):
                for name, values in zip(flat, positions(self.file, self.places, index[known]), strict=True):
                    found[name] = self._spread(panel, name, rows, columns, known, values)
            if "offset" in self.names:
                factor = FOOT if self.file.feet else 1.0
                values = self.file.header(OFFSET, index[known]).astype(np.float64) * factor
                found["offset"] = Coordinate(("x",), _filled(known[0], values), "m")
        return found

    def _spread(self, panel: Panel, name: str, rows: slice, columns: slice, known: np.ndarray, values: np.ndarray) -> Coordinate:
        unit = "m" if name in "xy" else "degrees"
        if panel.rows.size == 1:
            return Coordinate(("x",), _filled(known[0], values), unit)
        origin, by_row, by_column, regular = self._plane(panel)[name]
        r, c = np.arange(panel.rows.size)[rows], np.arange(panel.columns.size)[columns]
        if regular and abs(by_row) * panel.rows.size < 1e-3 * abs(by_column):
            return Coordinate(("x",), origin + by_column * c, unit)
        if regular and abs(by_column) * panel.columns.size < 1e-3 * abs(by_row):
            return Coordinate(("y",), origin + by_row * r, unit)
        grid = origin + by_row * r[:, None] + by_column * c
        grid[known] = values
        return Coordinate(("y", "x"), grid, unit)

    def _fit(self, panel: Panel) -> dict[str, tuple[float, float, float, bool]]:
        """The plane through the coordinates over rows and columns, and whether they lie on it to a tenth of a bin."""
        row, column = np.nonzero(panel.index >= 0)
        each = max(1, row.size // _LOOKED_AT)
        row, column = row[::each], column[::each]
        design = np.stack([np.ones(row.size), row, column], 1)
        fitted = {}
        values = positions(self.file, self.places, panel.index[row, column])
        slopes = [np.linalg.lstsq(design, v, rcond=None)[0] for v in values]
        spacing = min(np.hypot(*(s[i] for s in slopes)) for i in (1, 2))
        for name, value, plane in zip(self.names, values, slopes, strict=False):
            regular = bool(np.abs(design @ plane - value).max() <= 0.1 * spacing)
            fitted[name] = float(plane[0]), float(plane[1]), float(plane[2]), regular
        return fitted


def _filled(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Along a line: holes between their neighbours."""
    return np.interp(np.arange(known.size), np.flatnonzero(known), values)
