"""Files of the SCEC Broadband Platform: time histories (`.bbp`), station lists (`.stl`), source descriptions (`.src`), ruptures (`.srf`).

All are text. A time history has comment lines (`#` or `%`, 1 to 21 of them) and four columns: seconds, north-south, east-west, up-down,
or the order that its comments name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.errors import UserError

COLUMNS = ("N-S", "E-W", "U-D")
UNITS = {"acceleration": "cm s**-2", "velocity": "cm s**-1", "displacement": "cm"}
_EXTENSIONS = {".acc": "acceleration", ".vel": "velocity", ".dis": "displacement"}
_SAID = ((r"cm/s(ec)?/s(ec)?|cm/s(ec)?\^?\*{0,2}2", "acceleration"), (r"cm/s(ec)?", "velocity"), (r"cm", "displacement"))
_NAMES = (r"N-?S|NORTH|000", r"E-?W|EAST|090", r"U-?D|UP|VER\w*")
"""Of the components in the order of COLUMNS, as headers name them."""
_ONE_FILE = 256 << 20
"""Bytes: a time history of hours at 100 Hz is far below."""


@dataclass(frozen=True, eq=False)
class TimeHistory:
    """One `.bbp` file.

    Args:
        header: its comment lines without their marks.
        begin, step: seconds of the first row and from row to row.
        values: float64 `(N, 3)` in the order of the columns: north, east, up.
    """

    header: tuple[str, ...]
    begin: float
    step: float
    values: np.ndarray

    def duplicates(self) -> list[tuple[int, int]]:
        """Columns `(kept, copy)` that are identical in every row and do not rest at one value."""
        found = []
        for copy in range(1, 3):
            own = self.values[:, copy]
            kept = next((c for c in range(copy) if np.array_equal(self.values[:, c], own)), None)
            if kept is not None and np.ptp(own) > 0:
                found.append((kept, copy))
        return found


@dataclass(frozen=True)
class Site:
    """One line of a station list; degrees, m s**-1, and the band in Hz within which its recordings are trusted."""

    id: str
    longitude: float
    latitude: float
    vs30: float | None = None
    band: tuple[float, float] | None = None


def quantity_of(path: Path, header: Sequence[str]) -> tuple[str, str]:
    """What a file holds, and what is to be noted about it (nothing, mostly).

    The extension decides (`.acc.bbp`, `.vel.bbp`, `.dis.bbp`), because headers are copied from step to step of a simulation. A plain
    `.bbp` says nothing by its name: there the unit of the header decides, and velocity is taken without one.

    Raises:
        UserError: a plain name and a unit that is none of the platform's.
    """
    by_name = _EXTENSIONS.get(Path(path.stem).suffix.lower())
    unit = _unit(header)
    said = next((quantity for pattern, quantity in _SAID if re.fullmatch(pattern, unit)), None)
    order = _order(header)
    notes = [] if order == (0, 1, 2) else [f"its columns are {', '.join(COLUMNS[i] for i in order)} by its header"]
    if by_name is not None:
        if unit and said != by_name:
            notes.append(f"its header says {said or unit}, its name {by_name}; the name is believed ({UNITS[by_name]})")
    elif unit and said is None:
        raise UserError(
            f"{path.name}: its header states the unit ({unit[:20]}) and its name none; expected cm, cm/s or cm/s/s: convert the values, or "
            "say by the name (.acc.bbp, .vel.bbp, .dis.bbp) what it holds in these units"
        )
    elif said is None:
        notes.append("it says nowhere what it holds; it is taken for velocity in cm s**-1")
    return by_name or said or "velocity", f"{path.name}: {'; '.join(notes)}" if notes else ""


def _components(header: Sequence[str]) -> str:
    """The last line that names components."""
    return next((line for line in reversed(header) if all(_find(name, line) for name in _NAMES[:2])), "")


def _find(name: str, line: str) -> re.Match[str] | None:
    return re.search(rf"(?<![A-Z0-9])(?:{name})(?![A-Z0-9])", line, re.IGNORECASE)


def _unit(header: Sequence[str]) -> str:
    """In lower case without blanks, what stands in brackets beside the components, or in the last brackets with centimetres."""
    own = _components(header)
    units = re.findall(r"[(\[]([^)\]]*)[)\]]", re.sub(r"(?i)\b(time|t)\s*[(\[][^)\]]*[)\]]", "", own))
    if not units:
        units = next((u for line in reversed(header) if (u := re.findall(r"\(\s*(cm[^)]*)\)", line, re.IGNORECASE))), [])
    return re.sub(r"\s", "", units[-1]).lower() if units else ""


def _order(header: Sequence[str]) -> tuple[int, ...]:
    """Which of COLUMNS the columns of the file are, as its header names them."""
    line = _components(header)
    north, east, up = (found.start() if (found := _find(name, line)) else len(line) for name in _NAMES)
    return tuple(sorted(range(3), key=(north, east, up).__getitem__))


def read_header(path: Path) -> tuple[str, ...]:
    """The comment lines at the top."""
    with path.open(encoding="latin-1") as file:
        found = []
        for line in file:
            if line.strip() and line.lstrip()[0] not in "#%":
                break
            found.append(line.strip().lstrip("#%").strip())
    return tuple(found)


def read_bbp(path: Path) -> TimeHistory:
    """A time history, every row checked.

    Raises:
        UserError: not text, a row that is not four numbers, fewer rows than the header counts, a cut last row, irregular times.
    """
    header, numbers, lines = _rows(path)
    if len(lines) < 2:
        raise UserError(f"{path.name} has {len(lines)} rows of numbers; expected a time history of four columns, fetch it again")
    try:
        table = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        table = np.empty((0, 0))
    if table.shape != (len(lines), 4) or not np.isfinite(table[:, 0]).all():
        bad = next((i for i, line in enumerate(lines) if not _is_row(line)), 0)
        raise UserError(
            f"{path.name}, line {numbers[bad]}: {lines[bad].strip()[:60]!r} is not four numbers (time, N-S, E-W, U-D); "
            "the file may be damaged or truncated, fetch it again"
        )
    count, step = _promised(header)
    if count is not None and count != len(table):
        raise UserError(f"{path.name} has {len(table)} rows and its header promises {count}; it is truncated, fetch it again")
    seconds = table[:, 0]
    step = step or round(float(seconds[-1] - seconds[0]) / (len(seconds) - 1), 9)
    off = np.abs(seconds - (seconds[0] + step * np.arange(len(seconds))))
    if step <= 0 or off.max() > 0.1 * step:
        row = int(np.argmax(np.abs(np.diff(seconds) - np.median(np.diff(seconds))))) + 1
        raise UserError(
            f"{path.name}, line {numbers[row]}: the time {seconds[row]:g} s does not follow {seconds[row - 1]:g} s at the step of the file "
            f"({step:g} s); expected a regular time column, a row may be missing or doubled"
        )
    return TimeHistory(header, float(seconds[0]), step, table[:, 1:][:, np.argsort(_order(header))])


def _rows(path: Path) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Comments, and number and text of the lines of numbers."""
    if path.stat().st_size > _ONE_FILE:
        raise UserError(f"{path.name} has {path.stat().st_size / 1e6:.0f} MB; expected a time history below {_ONE_FILE >> 20} MiB")
    data = path.read_bytes()
    if not data.isascii() or b"\0" in data:
        raise UserError(f"{path.name} is not plain text; expected a time history of the Broadband Platform, it may be damaged")
    every = data.decode("ascii").splitlines()
    kept = [(i, line) for i, line in enumerate(every, 1) if line.strip()]
    header = [(i, line) for i, line in kept if line.lstrip()[0] in "#%"]
    first = next((i for i, line in kept if line.lstrip()[0] not in "#%"), len(every))
    if header and header[-1][0] > first:
        raise UserError(f"{path.name}, line {header[-1][0]}: a comment stands among the rows; expected comments at the top alone")
    rows = kept[len(header) :]
    if rows and not data.endswith((b"\n", b"\r")):
        raise UserError(f"{path.name}, line {rows[-1][0]}: the last row ends without a new line, so it may be cut off; fetch it again")
    return tuple(line.strip().lstrip("#%").strip() for _, line in header), [i for i, _ in rows], [line for _, line in rows]


def _is_row(line: str) -> bool:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return False
    return len(numbers) == 4 and bool(np.isfinite(numbers[0]))


def _promised(header: Sequence[str]) -> tuple[int | None, float | None]:
    """Rows and seconds from row to row, of the line `NPTS, DT: 10922 0.009372998029`."""
    for line in header:
        match = re.match(r"NPTS\s*,\s*DT\s*:\s*(\d+)\s+([-+.\deE]+)\s*$", line, re.IGNORECASE)
        if match:
            try:
                return int(match[1]), float(match[2]) or None
            except ValueError:
                return int(match[1]), None
    return None, None


def is_bbp(path: Path) -> bool:
    """Whether the first line that is no comment holds four numbers, below comments that name components or with the name of a `.bbp`."""
    with path.open("rb") as file:
        head = file.read(8192)
    lines = [line.strip() for line in head.decode("latin-1").splitlines() if line.strip()]
    comments = [line for line in lines if line[0] in "#%"]
    rows = [line for line in lines if line[0] not in "#%"]
    named = path.suffix.lower() == ".bbp" or any(re.search(r"N-?S.*E-?W.*U", line, re.IGNORECASE) for line in comments)
    return bool(head.isascii() and rows and named and _is_row(rows[0]))


def read_sites(path: Path) -> dict[str, Site]:
    """A station list: longitude, latitude, name, and where known vs30 and the trusted band."""
    found: dict[str, Site] = {}
    for number, words in _words(path):
        where = f"{path.name}, line {number}"
        try:
            if len(words) < 3:
                raise ValueError
            longitude, latitude = float(words[0]), float(words[1])
            numbers = [float(w) for w in words[3:6]]
        except ValueError:
            raise UserError(f"{where}: expected longitude, latitude, station, and vs30 and a band where known; check the list") from None
        if not (abs(latitude) <= 90 and abs(longitude) <= 360):
            raise UserError(f"{where}: longitude {longitude:g} and latitude {latitude:g} are no place; longitude comes first")
        band = (numbers[1], numbers[2]) if len(numbers) == 3 else None
        site = Site(words[2], longitude, latitude, numbers[0] if numbers else None, band)
        if found.setdefault(site.id, site) != site:
            raise UserError(f"{where}: the station {site.id} stands there twice with two places; remove one of them")
    if not found:
        raise UserError(f"{path.name} lists no station; expected lines of longitude, latitude and station")
    return found


def read_source(path: Path) -> dict[str, float | str]:
    """A source description: `KEY = value` lines, keys in upper case; numbers where they are numbers."""
    found: dict[str, float | str] = {}
    for number, words in _words(path):
        key, separator, value = " ".join(words).partition("=")
        if not separator or not key.strip() or not value.strip():
            raise UserError(f"{path.name}, line {number}: expected KEY = value; the source description may be damaged")
        try:
            found[key.strip().upper()] = float(value)
        except ValueError:
            found[key.strip().upper()] = value.strip()
    if not isinstance(found.get("MAGNITUDE"), float):
        raise UserError(f"{path.name} states no MAGNITUDE; expected the source description of an earthquake")
    return found


def read_rupture(path: Path) -> dict[str, Any]:
    """The header of a rupture in the Standard Rupture Format: its version and its planes; the points are not read."""
    names = ("longitude", "latitude", "along_strike", "down_dip", "length_km", "width_km")
    more = ("strike", "dip", "depth_to_top_km", "hypocentre_along_strike_km", "hypocentre_down_dip_km")
    lines = [words for _, words in _words(path, 64)]
    try:
        version = lines.pop(0)[0]
        planes = []
        if lines and lines[0][0].upper() == "PLANE":
            count = int(lines[0][1])
            for first, second in zip(lines[1 : 2 * count : 2], lines[2 : 2 * count + 1 : 2], strict=True):
                values = [*map(float, first[:6]), *map(float, second[:5])]
                planes.append(dict(zip((*names, *more), values, strict=True)))
        return {"version": version, "planes": planes}
    except (ValueError, IndexError):
        raise UserError(f"{path.name} is no rupture in the Standard Rupture Format by its first lines; it may be damaged") from None


def _words(path: Path, limit: int | None = None) -> list[tuple[int, list[str]]]:
    """Number and words of the lines that are neither blank nor comments."""
    with path.open("rb") as file:
        data = file.read(1 << 20)
    if b"\0" in data:
        raise UserError(f"{path.name} is not text; expected a file of the Broadband Platform, it may be damaged")
    lines = [(i, line.split("#")[0].split()) for i, line in enumerate(data.decode("latin-1").splitlines()[:limit], 1)]
    return [(i, words) for i, words in lines if words and not words[0].startswith("%")]
