"""The CSV files of FLUXNET and AmeriFlux, alone or in the archive of a site: what they hold, and their columns, every line checked."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pandas as pd

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

MISSING = -9999.0
STEPS: dict[str, int | None] = {"HH": 1800, "HR": 3600, "DD": 86400, "MM": None}
"""Seconds of each resolution that is read; None for months."""
DATES = {12: "%Y%m%d%H%M", 8: "%Y%m%d", 6: "%Y%m"}
_WITHOUT_STEP = {"WW": "weeks", "YY": "years"}
_BLOCK = 8 << 20
_HEAD = 1 << 16
_TAIL = 1 << 16
SITE = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}-[A-Za-z0-9]{3})(?![A-Za-z0-9])")
_YEARS = re.compile(r"_(\d{4})-(\d{4})(?=[_.])")
_AUXILIARY = re.compile(r"_(ERA\w*|AUX\w+|BIF\w*)_", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One table of a site.

    Args:
        member: its name in the archive; empty for a file of its own.
        resolution: HH, HR, DD, WW, MM or YY, as its time stamps say.
        skip: lines before the one with the names of the columns.
        first, last: datetime64[s], local standard time: the beginnings of its first and last row.
        base: AmeriFlux BASE: other names, not filled, no quality.
    """

    path: Path
    member: str
    site: str
    resolution: str
    columns: tuple[str, ...]
    skip: int
    first: np.datetime64
    last: np.datetime64
    base: bool

    @property
    def label(self) -> str:
        return f"{self.path.name}, {self.member}" if self.member else self.path.name

    @property
    def years(self) -> tuple[int, int] | None:
        """First and last year that the name promises."""
        found = _YEARS.search(PurePosixPath(self.member or self.path.name).name)
        return (int(found[1]), int(found[2])) if found and not self.base else None


def records(path: Path) -> list[Record]:
    """The tables of a CSV file or of the archive of a site; none where there are none.

    Raises:
        UserError: damaged, or an archive that reaches outside its folder.
    """
    if not path.is_file():
        return []
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(4)
        if head == b"PK\x03\x04":
            raise UserError(f"{path.name} is a truncated zip archive: its list of members is missing; fetch it again")
        found = _record(path, "")
        return [found] if found else []
    with one_sentence(path), zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
            raise UserError(f"{path.name} holds the member {name[:80]!r}, which reaches outside its folder; it is not read")
    tables = [n for n in names if n.lower().endswith(".csv") and not _AUXILIARY.search(n)]
    return [r for name in tables if (r := _record(path, name)) is not None]


def members(path: Path, pattern: str) -> list[str]:
    """Of an archive, the members whose name matches; none of any other file."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return []
    with one_sentence(path), zipfile.ZipFile(path) as archive:
        return [i.filename for i in archive.infolist() if re.search(pattern, i.filename)]


@contextmanager
def opened(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of a member as they are unpacked (never the whole at once)."""
    with one_sentence(path):
        if not member:
            with path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            yield file


def _record(path: Path, member: str) -> Record | None:
    with opened(path, member) as file:
        head = file.readline(_HEAD)
        comments: list[str] = []
        while head.startswith(b"#") and len(comments) < 20:
            comments.append(head.decode("utf-8", errors="replace"))
            head = file.readline(_HEAD)
        columns = tuple(c.strip() for c in head.decode("utf-8-sig", errors="replace").split(","))
        if columns[0] not in ("TIMESTAMP", "TIMESTAMP_START"):
            return None
        row = file.readline(_HEAD).decode("utf-8", errors="replace").rstrip("\r\n").split(",")
    name = PurePosixPath(member or path.name).name
    label = f"{path.name}, {member}" if member else path.name
    if len(row) != len(columns):
        raise UserError(f"{label}: its first row has {len(row)} cells and its header {len(columns)}; it is truncated, fetch it again")
    if len(set(columns)) < len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise UserError(f"{label} has two columns {twice!r}; expected one of each name")
    base = bool(comments) or "_BASE_" in name
    site = SITE.search(name) or SITE.search(" ".join(comments))
    if site is None:
        raise UserError(f"{label} does not name its site; expected a name such as FLX_FR-Pue_FLUXNET2015_FULLSET_DD_2000-2014_2-4.csv")
    resolution = _resolution(columns, row, label)
    if resolution in _WITHOUT_STEP:
        begin = np.datetime64("1970-01-01", "s")
        return Record(path, member, site[1], resolution, columns, len(comments), begin, begin, base)
    first = _instants(row[:1], resolution, [len(comments) + 2], label)[0]
    record = Record(path, member, site[1], resolution, columns, len(comments), first, first, base)
    return Record(path, member, site[1], resolution, columns, len(comments), first, _last(record), base)


def _resolution(columns: Sequence[str], row: Sequence[str], label: str) -> str:
    width = len(row[0])
    if columns[0] == "TIMESTAMP":
        if width in (8, 6, 4):
            return {8: "DD", 6: "MM", 4: "YY"}[width]
    elif columns[1:2] == ("TIMESTAMP_END",) and width == len(row[1]):
        if width == 8:
            return "WW"
        if width == 12:
            start, end = (_dates([v], DATES[12]) for v in row[:2])
            step = None if start is None or end is None else int((end - start)[0] / np.timedelta64(1, "s"))
            if step in (1800, 3600):
                return "HH" if step == 1800 else "HR"
    raise UserError(f"{label}: its first time stamps are {', '.join(row[:2])[:60]}; expected half hours, hours, days or months of FLUXNET")


def _last(record: Record) -> np.datetime64:
    """From the end of a file; of a member from the years of its name, because a member has to be unpacked to get there."""
    if record.member and record.years is not None:
        return _whole_years(record)[1]
    with opened(record.path, record.member) as file:
        if record.member:
            tail = b""
            while piece := file.read(_BLOCK):
                tail = (tail + piece)[-_TAIL:]
        else:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    stamp = tail.rstrip(b"\r\n").rpartition(b"\n")[2].partition(b",")[0].decode("utf-8", errors="replace")
    return _instants([stamp], record.resolution, None, record.label)[0]


def _whole_years(record: Record) -> tuple[np.datetime64, np.datetime64]:
    """Beginnings of the first and last row of a file that holds the years of its name."""
    assert record.years is not None
    first, after = (np.datetime64(f"{year:04d}", "Y") for year in (record.years[0], record.years[1] + 1))
    step = STEPS[record.resolution]
    last = (after.astype("datetime64[M]") - 1).astype("datetime64[s]") if step is None else after.astype("datetime64[s]") - step
    return first.astype("datetime64[s]"), last


def columns_of(record: Record, wanted: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Local beginnings of the rows, datetime64[s], and columns, float64 with NaN for -9999.

    The last cell of a file that ends without a line feed may be cut off and is not believed.

    Raises:
        UserError: a line of another length, a cell that is no number, rows that are missing or out of order, years that are not there.
    """
    label, width = record.label, len(record.columns)
    times = [0, 1] if record.columns[0] == "TIMESTAMP_START" else [0]
    indices = [record.columns.index(c) for c in wanted]
    stamps: list[np.ndarray] = []
    values: list[np.ndarray] = []
    whole = True
    for first_line, block in _blocks(record):
        whole = block.endswith(b"\n")
        counts = np.array([line.count(b",") for line in block.removesuffix(b"\n").split(b"\n")]) + 1
        if (counts != width).any():
            row = int(np.argmax(counts != width))
            raise UserError(
                f"{label}, line {first_line + row}: {counts[row]} cells and {width} columns; it is damaged or truncated, fetch it again"
            )
        frame = _frame(block, times, indices)
        lines = range(first_line, first_line + len(frame))
        begins = _instants(frame[0], record.resolution, lines, label)
        if len(times) > 1:
            wrong = _instants(frame[1], record.resolution, lines, label) - begins != np.timedelta64(STEPS[record.resolution] or 0, "s")
            if wrong.any():
                row = int(np.argmax(wrong))
                raise UserError(
                    f"{label}, line {lines[row]}: from {frame[0][row]} to {frame[1][row]}; expected {record.resolution} throughout"
                )
        stamps.append(begins)
        values.append(np.stack([_numbers(frame[i], lines, record.columns[i], label) for i in indices], 1))
    if not stamps:
        raise UserError(f"{label} has no rows below its header; fetch it again")
    every, table = np.concatenate(stamps), np.concatenate(values)
    if not whole and width - 1 in indices:
        table[-1, indices.index(width - 1)] = np.nan
    _complete(record, every)
    return every, {c: table[:, i] for i, c in enumerate(wanted)}


def _blocks(record: Record) -> Iterator[tuple[int, bytes]]:
    """Whole lines below the header, and the number of the first of them."""
    with opened(record.path, record.member) as file:
        for _ in range(record.skip + 1):
            file.readline(_HEAD)
        line, rest = record.skip + 2, b""
        while piece := file.read(_BLOCK):
            whole, feed, rest = (rest + piece).rpartition(b"\n")
            if feed:
                yield line, whole + feed
                line += whole.count(b"\n") + 1
        if rest:
            yield line, rest


def _frame(block: bytes, times: Sequence[int], indices: Sequence[int]) -> pd.DataFrame:
    """Time stamps as text; numbers at once where all cells are, else text too."""
    read = partial(
        pd.read_csv, header=None, usecols=sorted({*times, *indices}), keep_default_na=False, na_filter=False, quoting=3,
        skip_blank_lines=False, float_precision="round_trip",
    )  # fmt: skip
    try:
        return read(io.BytesIO(block), dtype={**dict.fromkeys(indices, np.float64), **dict.fromkeys(times, str)})
    except ValueError:
        return read(io.BytesIO(block), dtype=str, encoding="latin-1")  # any byte, to be told by its cell


def _numbers(cells: pd.Series, lines: Sequence[int], column: str, label: str) -> np.ndarray:
    if cells.dtype != np.float64:
        text = cells.str.strip()
        cells = pd.to_numeric(text.where(~text.isin(["NA", "NaN"]), "-9999"), errors="coerce").where(text != "", np.nan)
    else:
        text = cells.astype(object)
    numbers = cells.to_numpy(np.float64)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{label}, line {lines[row]}, column {column}: {str(text.iloc[row])[:30]!r} is not a number; fetch the file again")
    return np.where(numbers == MISSING, np.nan, numbers)


def _dates(cells: Any, form: str) -> np.ndarray | None:
    text = pd.Series(cells).str.strip()
    found = pd.to_datetime(text, format=form, errors="coerce")
    return None if found.isna().any() else found.to_numpy().astype("datetime64[s]")


def _instants(cells: Any, resolution: str, lines: Sequence[int] | None, label: str) -> np.ndarray:
    """Time stamps of one resolution, datetime64[s]."""
    width = {"DD": 8, "MM": 6}.get(resolution, 12)
    text = pd.Series(cells).str.strip()
    right = text.str.fullmatch(rf"\d{{{width}}}")
    found = pd.to_datetime(text.where(right), format=DATES[width], errors="coerce")
    if found.isna().any():
        row = int(np.argmax(found.isna().to_numpy()))
        where = "its last line" if lines is None else f"line {lines[row]}"
        raise UserError(f"{label}, {where}: {text.iloc[row][:30]!r} is not a time stamp such as the others; it is damaged or truncated")
    return found.to_numpy().astype("datetime64[s]")


def _complete(record: Record, begins: np.ndarray) -> None:
    """Rows follow each other step by step, and cover the years of the name; the files of AmeriFlux BASE may have holes."""
    step = STEPS[record.resolution]
    ticks = begins.astype("datetime64[M]").astype(np.int64) if step is None else begins.astype(np.int64) // step
    steps = np.diff(ticks)
    wrong = steps <= 0 if record.base else steps != 1
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{record.label}, line {record.skip + 3 + row}: {begins[row + 1]} comes after {begins[row]}; expected the next step, rows are "
            "missing or out of order, fetch it again"
        )
    if record.years is not None and (begins[0], begins[-1]) != _whole_years(record):
        raise UserError(
            f"{record.label}: its rows reach from {begins[0]} to {begins[-1]} and its name says {record.years[0]}-{record.years[1]}; it is "
            "truncated, fetch it again"
        )
