"""The lines of the table of a SeisBench dataset, all in turn or one by where it begins: a plan keeps no more of a line than that."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scigpt.errors import UserError

_NOTHING = ("", "nan", "none")


@dataclass(frozen=True)
class Row:
    """One line of the table; `where` names it, and it begins at the byte `at`."""

    where: str
    at: int
    cells: Mapping[str, str]

    def text(self, *columns: str) -> str:
        """Of the first of these columns that says something; empty where none does."""
        return next((t for c in columns if (t := self.cells.get(c, "").strip()).lower() not in _NOTHING), "")

    def number(self, column: str) -> float | None:
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{self.where}, column {column!r}: {text[:40]!r} is not a number; correct it or empty the cell") from None
        return value if np.isfinite(value) else None


def rows_of(table: Path) -> Iterator[Row]:
    """The lines below the header, one at a time: these tables have a hundred columns and may have a million rows.

    Raises:
        UserError: no text, a line with another number of cells than the header, or a last line that is cut.
    """
    with table.open("rb") as file:
        file.seek(-1, 2)
        if file.read() != b"\n":
            raise UserError(f"{table.name} ends within its last line; it is truncated, fetch it again")
        file.seek(0)
        yield from _rows(table, file, _header(table, file))


def row_at(table: Path, at: int) -> Row:
    """The one whose line begins at a byte, as `rows_of` gives it."""
    with table.open("rb") as file:
        header = _header(table, file)
        file.seek(at)
        return replace(next(_rows(table, file, header)), where=f"{table.name}, byte {at}")


def _header(table: Path, file: BinaryIO) -> list[str]:
    with _readable(table):
        return [c.strip() for c in next(csv.reader([file.readline().decode("utf-8-sig")], strict=True))]


def _rows(table: Path, file: BinaryIO, header: Sequence[str]) -> Iterator[Row]:
    """From where the file stands, the first line below the header being number 2; a cell in quotes may go over several lines."""
    begins = [file.tell()]

    def lines() -> Iterator[str]:
        for line in file:
            begins[0] += len(line)
            yield line.decode("utf-8")

    reader = csv.reader(lines(), strict=True)
    while True:
        at = begins[0]
        with _readable(table, reader):
            cells = next(reader, None)
        if cells is None:
            return
        where = f"{table.name}, line {reader.line_num + 1}"
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells under {len(header)} columns; it is damaged")
        yield Row(where, at, dict(zip(header, cells, strict=True)))


@contextmanager
def _readable(table: Path, reader: Any = None) -> Iterator[None]:
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        line, detail = 1 if reader is None else reader.line_num + 2, " ".join(str(error).split())[:100]
        raise UserError(f"{table.name}, line {line} cannot be read ({detail}); the file is damaged") from None
