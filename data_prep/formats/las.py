"""LAS 1.2 and 2.0, the text of well logs: lasio reads the header, the numbers are read here, because each row is to be checked.

lasio fills, drops and guesses where rows do not fit; here a row that has not one number for each curve ends the reading by its line.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.variables import convert
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

UNITS = {
    **dict.fromkeys(("M", "METER", "METRE", "METERS"), "m"),
    **dict.fromkeys(("F", "FT", "FEET", "FOOT"), "foot"),
    **dict.fromkeys((".1IN", "0.1IN", "1/10IN"), "0.1 inch"),
    **dict.fromkeys(("IN", "INCH", "INCHES"), "inch"),
    "MM": "mm",
    "CM": "cm",
    **dict.fromkeys(("OHMM", "OHM.M", "OHM-M", "OHM M", "OHM*M", "OHMS.M"), "ohm m"),
    **dict.fromkeys(("G/C3", "G/CM3", "G/CC", "GM/CC", "GM/C3", "GR/CC", "GRM/CC"), "g/cm**3"),
    **dict.fromkeys(("K/M3", "KG/M3"), "kg/m**3"),
    **dict.fromkeys(("US/F", "US/FT", "USEC/FT", "MUS/FT"), "microsecond/foot"),
    **dict.fromkeys(("US/M", "USEC/M"), "microsecond/m"),
    **dict.fromkeys(("V/V", "VOL/VOL", "CFCF", "FT3/FT3", "M3/M3", "DEC", "FRAC", "DECIMAL", "B/E", "BARN/E", "BARNS/E"), "1"),
    **dict.fromkeys(("%", "PU", "P.U.", "PERCENT"), "percent"),
    "MV": "millivolt",
    "V": "volt",
    **dict.fromkeys(("DEGC", "DEG C", "C"), "degC"),
    **dict.fromkeys(("DEGF", "DEG F"), "degF"),
    **dict.fromkeys(("CPS", "C/S"), "1/s"),
    "MS/M": "millisiemens/m",
    "MMHO/M": "millisiemens/m",
}
"""Units as tools and companies spell them, upper case, to pint's."""
API = ("GAPI", "API", "API UNITS")
"""Units of gamma rays (and of older neutron tools, whose counts are no porosity)."""
NULLS = (-999.25, -9999.25, -999.0, -9999.0, -99999.0, -999999.0)
"""Marks of a missing value that files use beside the one of their header."""
_LINES = 20_000
_HEADER = 4 << 20


@dataclass(frozen=True)
class Curve:
    """One column: what the header says of it."""

    mnemonic: str
    unit: str
    description: str


@dataclass(frozen=True)
class Item:
    """One line of the header: `LATI.DEG 45.2 : LATITUDE`."""

    unit: str
    value: str
    description: str


@dataclass(frozen=True, eq=False)
class Las:
    """The header of a file.

    Args:
        curves: one for each column; the first is the index (depth).
        well: items of the sections of the well and of its parameters, by upper-case mnemonic.
        null: the header's mark of a missing value.
        begin: byte of the first line of numbers, and `line` its number.
    """

    path: Path
    encoding: str
    wrapped: bool
    delimiter: str | None
    curves: tuple[Curve, ...]
    well: Mapping[str, Item]
    null: float | None
    begin: int
    line: int

    def depth_unit(self) -> str:
        """Of the index, as pint reads it.

        Raises:
            UserError: an index that is no depth, or without a unit.
        """
        own = self.curves[0].unit or next((i.unit for n in ("STRT", "STOP", "STEP") if (i := self.well.get(n)) and i.unit), "")
        unit = UNITS.get(own.upper(), own)
        if not own:
            raise UserError(f"{self.path.name}: the index {self.curves[0].mnemonic} has no unit; expected M or FT in its header")
        convert(np.zeros(1), unit, "m", f"{self.path.name}: the index {self.curves[0].mnemonic} (expected depth along the well)")
        return unit

    def number(self, name: str) -> float | None:
        """An item of the well as a number, None where it is none."""
        try:
            value = float(self.well[name].value)
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) else None

    def read(self, columns: Sequence[int], whole: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Depth `(N,)` in m, rising, and the columns asked for, float64 `(N, C)`, NaN where a value is missing.

        Args:
            whole: refuse a log that ends before the header's STOP.

        Raises:
            UserError: a row that does not fit, text where a number belongs, a file that is cut off.
        """
        wanted = [0, *columns]
        parts = [self._numbers(rows, numbers, wanted) for rows, numbers in self._chunks()]
        table = np.concatenate(parts) if parts else np.empty((0, len(wanted)))
        if not len(table):
            raise UserError(f"{self.path.name} has no row of numbers after its header; it is truncated, fetch it again")
        depth, values = table[:, 0], table[:, 1:]
        if not np.isfinite(depth).all():
            raise UserError(
                f"{self.path.name}: row {int(np.argmin(np.isfinite(depth))) + 1} has no depth; it may be damaged, fetch it again"
            )
        if whole:
            self._require_end(depth)
        missing = (*NULLS, self.null) if self.null is not None else NULLS
        values[np.isin(values, missing)] = np.nan
        depth = np.round(convert(depth, self.depth_unit(), "m", self.path.name), 9)
        return (depth[::-1], values[::-1]) if len(depth) > 1 and depth[-1] < depth[0] else (depth, values)

    def _require_end(self, depth: np.ndarray) -> None:
        stop = self.number("STOP")
        if stop is None or len(depth) < 2:
            return
        step = abs(float(np.median(np.diff(depth))))
        short = (stop - depth[-1]) * (1 if depth[-1] >= depth[0] else -1)
        if short > 1.5 * step:
            raise UserError(
                f"{self.path.name} ends at {depth[-1]:g} {self.curves[0].unit} and its header says that it stops at {stop:g}; it is "
                "truncated, fetch it again (whole=false takes what is there)"
            )

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Number and text of the lines of numbers; the last one must not be cut (Ctrl-Z, the end of old text files, ends it too)."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            before = last = b""
            for number, line in enumerate(file, self.line):
                if b"\0" in line or len(line) > 1 << 20:
                    raise UserError(f"{self.path.name}, line {number} is not text; the file is damaged, fetch it again")
                text = line.decode(self.encoding, errors="replace").strip(" \r\n\x1a" if self.delimiter == "\t" else None).strip("\x1a")
                if text.startswith("~"):
                    raise UserError(
                        f"{self.path.name}, line {number}: a section {text[:20]} follows the numbers; LAS 1.2 and 2.0 end with them"
                    )
                if text and not text.startswith("#"):
                    before, last = last, line
                    yield number, text
        if last and not last.endswith((b"\n", b"\r", b"\x1a")) and len(last) != len(before.rstrip(b"\r\n")):
            raise UserError(
                f"{self.path.name}: its last row ends without a new line and is not as long as the one before, so it may be cut off; "
                "fetch it again, or add a new line if it is whole"
            )

    def _chunks(self) -> Iterator[tuple[list[list[str]], list[int]]]:
        """Rows of words, one for each curve, and the lines where they begin."""
        count, rows, begins = len(self.curves), list[list[str]](), list[int]()
        open_row: list[str] = []
        for number, text in self._lines():
            words = [w.strip() for w in text.split(self.delimiter)]
            if open_row:
                open_row.extend(words)
            else:
                open_row = words
                begins.append(number)
            if len(open_row) == count:
                rows.append(open_row)
                open_row = []
            elif len(open_row) > count or not self.wrapped:
                raise UserError(
                    f"{self.path.name}, line {number}: {len(open_row)} values for {count} curves; the file may be damaged or truncated, "
                    "or its numbers run into each other"
                )
            if len(rows) >= _LINES:
                yield rows, begins
                rows, begins = [], []
        if open_row:
            raise UserError(f"{self.path.name}: the last row has {len(open_row)} of {count} values; it is truncated, fetch it again")
        if rows:
            yield rows, begins

    def _numbers(self, rows: list[list[str]], begins: list[int], columns: Sequence[int]) -> np.ndarray:
        table = np.empty((len(rows), len(columns)))
        for c, column in enumerate(columns):
            words = [row[column] for row in rows]
            if self.delimiter is not None:
                words = [word or "nan" for word in words]
            try:
                table[:, c] = np.array(words).astype(np.float64)
            except ValueError:
                at = next(i for i, word in enumerate(words) if not _is_number(word))
                raise UserError(
                    f"{self.path.name}, line {begins[at]}: {words[at][:40]!r} of {self.curves[column].mnemonic} is not a number; "
                    "the file may be damaged, or the curve holds text and is to be left out with curves="
                ) from None
        return table


def open_las(path: Path) -> Las:
    """The header of a file.

    Raises:
        UserError: not LAS, another version, damaged, or lasio is not installed.
    """
    head, begin, line, encoding = _head(path)
    parsed: Any = None
    with one_sentence(path, "read as LAS"):
        parsed = _lasio().read(io.StringIO(head), ignore_data=True)
    version = str(parsed.version["VERS"].value) if "VERS" in parsed.version else ""
    if version not in ("1.2", "2.0", "2", "1.20", "2.00", "2.1"):
        raise UserError(f"{path.name} is LAS {version or 'of no version'}; expected version 1.2 or 2.0, rewrite it with another program")
    curves = tuple(Curve(*_named(c), str(c.descr or "").strip()) for c in parsed.curves)
    if len(curves) < 2:
        raise UserError(f"{path.name} names {len(curves)} curves in its header; expected a depth and what was measured, it may be damaged")
    items = [i for section in (parsed.params, parsed.well) for i in section]
    well = {(n := _named(i))[0].upper(): Item(n[1], str(i.value).strip(), str(i.descr or "").strip()) for i in items}
    own = {n: str(parsed.version[n].value).strip().upper() if n in parsed.version else "" for n in ("WRAP", "DLM")}
    null = None
    if "NULL" in well:
        try:
            null = float(well["NULL"].value)
        except ValueError:
            null = None
    delimiter = {"COMMA": ",", "TAB": "\t"}.get(own["DLM"])
    return Las(path, encoding, own["WRAP"].startswith("Y"), delimiter, curves, well, null, begin, line)


def is_las(path: Path) -> bool:
    """Whether the first section is that of a version of LAS."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        text = file.read(8192).decode("latin-1")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(
        lines and re.match(r"~V", lines[0], re.IGNORECASE) and any(re.match(r"VERS\s*\.", line, re.IGNORECASE) for line in lines[:8])
    )


def degrees(item: Item | None, limit: float) -> float | None:
    """Latitude or longitude of a header: `45.2`, `45 12 33.5 N`, `W 104 30' 15"`, `45.2 NAD27`; None for anything else."""
    if item is None:
        return None
    plain = re.sub(r"(?i)deg(rees?)?|min(utes?)?|sec(onds?)?", " ", item.value)
    plain = re.sub(r"(?i)\b(NAD|WGS|ED|GDA|AGD|ITRF)[\s-]*\d+|[a-z]{2,}\d\w*", " ", plain)  # a datum
    plain = re.sub(r"^([^,]*\d),(\d[^,]*)$", r"\1.\2", plain)
    words = re.findall(r"\d+(?:\.\d*)?", plain)
    numbers = [float(n) for n in words]
    if not 1 <= len(numbers) <= 3 or any(n >= 60 for n in numbers[1:]) or any("." in n for n in words[:-1]):
        return None
    value = sum(n / 60**i for i, n in enumerate(numbers))
    letters = re.search(r"(?<![A-Z])(S|W|SOUTH|WEST)(?![A-Z])", plain.upper())
    south = plain.lstrip().startswith("-") or letters is not None
    return round(-value if south else value, 9) if value <= limit else None


def _head(path: Path) -> tuple[str, int, int, str]:
    """The header with the line that begins the numbers, the byte and the line after it, and the encoding."""
    if not is_las(path):
        raise UserError(f"{path.name} does not begin as LAS does (~Version); expected a well log, `scigpt data inspect` says what it is")
    with path.open("rb") as file:
        lines: list[bytes] = []
        size = 0
        for raw in file:
            lines.append(raw)
            size += len(raw)
            if raw.lstrip().upper().startswith(b"~A"):
                break
            if size > _HEADER:
                raise UserError(f"{path.name} has no section of numbers (~A) in its first {_HEADER >> 20} MiB; the file is damaged")
        else:
            raise UserError(f"{path.name} has no section of numbers (~A); it is truncated, fetch it again")
    data = b"".join(lines)
    if b"\0" in data:
        raise UserError(f"{path.name} is not text; the file is damaged, fetch it again")
    try:
        return data.decode("utf-8-sig"), size, len(lines) + 1, "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), size, len(lines) + 1, "latin-1"


def _named(item: Any) -> tuple[str, str]:
    """Mnemonic and unit; lasio gives the point of `DEPT..1IN` to the mnemonic."""
    mnemonic, unit = str(item.original_mnemonic).strip(), str(item.unit or "").strip()
    return (mnemonic[:-1], f".{unit}") if mnemonic.endswith(".") and unit[:1].isdigit() else (mnemonic, unit)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _lasio() -> Any:
    try:
        import lasio
    except ImportError:
        raise UserError("reading LAS needs lasio, which is not installed; run: pip install 'scigpt[wells]'") from None
    return lasio
