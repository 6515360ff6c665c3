"""How an unknown table is written: encoding, comments, header, separator, a row of units, the decimal mark, codes of missing values."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from scigpt.data_prep.blocks import MIN_FRAMES
from scigpt.data_prep.datamap import TableFormat
from scigpt.data_prep.files import kind
from scigpt.data_prep.tables import SEPARATORS, Table, content, read_table
from scigpt.errors import UserError

LOOK = 4000
"""Lines looked at."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
CODES = ("-9999", "-999", "-99", "-99.9", "-999.9", "-9999.9", "-6999", "-7777", "-8888", "-99999", "9999", "999.9", "99999", "1e20")


def is_table(path: Path) -> bool:
    """Whether a file begins as text in two columns or more, one of them numbers, with a line of names and three rows at least."""
    if not path.is_file() or kind(path) != "other":
        return False
    try:
        table = read_table(path, sniff(path), 100)
    except UserError:
        return False
    return len(table.frame) >= MIN_FRAMES and table.frame.shape[1] > 1 and any(is_numeric(table, c) for c in table.frame)


def is_numeric(table: Table, column: str) -> bool:
    """Whether nearly all cells that are not missing are numbers (the rest may be codes nobody has listed yet)."""
    text = table.frame[column][~table.missing(table.frame[column])].str.replace(table.format.decimal, ".", regex=False)
    return bool(len(text)) and text.map(lambda c: NUMBER.fullmatch(c) is not None).mean() > 0.8


def sniff(path: Path) -> TableFormat:
    """The format of a table, from its first lines.

    Raises:
        UserError: not text, or no columns.
    """
    encoding = "utf-8"
    try:
        content(path, TableFormat(encoding=encoding), LOOK)
    except UserError:
        encoding = "latin-1"
    _, lines = content(path, TableFormat(encoding=encoding), LOOK)
    if not lines or any("\0" in line for line in lines[:100]):
        raise UserError(f"{path.name} is not a table: it is not text")
    mark = lines[0].lstrip()[0]
    comment = mark if mark in "#%!" and not all(line.lstrip().startswith(mark) for line in lines) else None
    lines = [line for line in lines if not (comment and line.lstrip().startswith(comment))][:200]
    separator, width = _columns(lines)
    rows = _rows(lines, separator)
    header = next((i for i, row in enumerate(rows) if len(row) == width), 0)
    skip = 0
    while header + 1 + skip < len(rows) - MIN_FRAMES and not any(NUMBER.fullmatch(c.strip()) for c in rows[header + 1 + skip]) and skip < 3:
        skip += 1
    below = rows[header + 1 + skip :]
    if not any(re.search(r"\d", c) for row in below[:50] for c in row):
        skip = 0
    commas = separator != "," and any(re.fullmatch(r"\s*-?\d+,\d+\s*", c) for row in below for c in row)
    form = TableFormat(
        separator="whitespace" if separator is None else separator,
        header=header,
        skip=skip,
        decimal="," if commas else ".",
        comment=comment,
        encoding=encoding,
    )
    return TableFormat(form.separator, header, skip, _codes(read_table(path, form, LOOK)), form.decimal, comment, encoding)


def _rows(lines: list[str], separator: str | None) -> list[list[str]]:
    return [line.split() for line in lines] if separator is None else list(csv.reader(lines, delimiter=separator, skipinitialspace=True))


def _columns(lines: list[str]) -> tuple[str | None, int]:
    """The separator under which most lines have one number of columns, and that number."""
    best: tuple[float, int, str | None] = (0.0, 1, None)
    for separator in (*SEPARATORS, None):
        width, often = Counter(len(r) for r in _rows(lines[-100:], separator)).most_common(1)[0]
        if width > 1 and often / len(lines[-100:]) > best[0] + 0.05:
            best = (often / len(lines[-100:]), width, separator)
    return best[2], best[1]


def _codes(table: Table) -> tuple[str, ...]:
    """Cells that stand for a missing value: a usual code far outside the other numbers, or a word in a column of numbers."""
    found: dict[str, None] = {}
    for column in table.frame:
        if not is_numeric(table, column):
            continue
        text = table.frame[column][~table.missing(table.frame[column])]
        values = pd.to_numeric(text.str.replace(table.format.decimal, ".", regex=False), errors="coerce").to_numpy(np.float64)
        found |= dict.fromkeys(text[np.isnan(values)].unique())
        for code in CODES:
            others = values[np.isfinite(values) & (values != float(code))]
            if (values == float(code)).any() and others.size:
                middle, spread = float(np.median(others)), float(np.ptp(others))
                if abs(float(code) - middle) > 2 * spread + 1:
                    found[code] = None
    return tuple(found)
