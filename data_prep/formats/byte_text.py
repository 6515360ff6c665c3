"""Text of many millions of lines as arrays of bytes: fields of CSV and of fixed columns, every character of them checked."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from scigpt.errors import UserError

BLOCK = 16 << 20
"""Bytes read at once."""
SPACE, MINUS, ZERO, NEWLINE, COMMA = b" -0\n,"


class Fields:
    """The fields of some lines of a CSV.

    Args:
        first: number of the first line of the block.
        columns: how many fields every line must have.
    """

    def __init__(self, path: Path, first: int, block: bytes, columns: int, separator: int = COMMA) -> None:
        if b'"' in block:  # a comma within quotes separates nothing
            block = re.sub(rb'"[^"\n]*"', lambda quoted: quoted.group()[1:-1].replace(b",", b" "), block)
        self.path, self.block = path, np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(self.block == NEWLINE)
        commas = np.flatnonzero(self.block == separator)
        self.count = ends.size
        self.lines = first + np.arange(self.count)
        has = np.diff(np.searchsorted(commas, ends), prepend=0)
        require(path, self.lines, has == columns - 1, f"{columns} fields")
        starts = np.append(0, ends[:-1] + 1)[: self.count]
        inner = commas.reshape(self.count, columns - 1)
        self.starts = np.column_stack([starts, inner + 1])
        self.ends = np.column_stack([inner, ends])

    def text(self, column: int, width: int) -> np.ndarray:
        """uint8 `(n, width)`, blanks before what is shorter."""
        start, end = self.starts[:, column], self.ends[:, column]
        require(self.path, self.lines, end - start <= width, f"at most {width} characters in field {column + 1}")
        found = np.empty((width, self.count), np.uint8)
        for letter, before in zip(found, range(width, 0, -1), strict=True):
            at = end - before
            np.take(self.block, at, out=letter, mode="clip")
            letter[at < start] = SPACE
        return found.T

    def word(self, row: int, column: int) -> str:
        return bytes(self.block[self.starts[row, column] : self.ends[row, column]]).decode("utf-8", "replace").strip()


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines, and the number of the first of them."""
    with open_text(path) as file:
        rest, line = b"", 1
        while read := file.read(BLOCK):
            head, newline, rest = (rest + read).replace(b"\r\n", b"\n").rpartition(b"\n")
            if newline:
                yield line, head + newline
                line += head.count(b"\n") + 1
        if rest.strip():
            raise UserError(f"{path.name} ends within its last line; it is truncated, fetch it again")


def open_text(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where it is packed by gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def numbers(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, right-aligned in bytes `(..., width)`: int64 values, and which of them are numbers and nothing else."""
    size = np.zeros(text.shape[:-1], np.int64)
    good, begun, minus = (np.full(size.shape, b) for b in (True, False, False))
    for place in range(text.shape[-1]):
        letter = text[..., place]
        digit = letter - np.uint8(ZERO)  # wraps around below it
        is_digit, is_space, is_minus = digit < 10, letter == SPACE, letter == MINUS
        good &= is_digit | ((is_space | is_minus) & ~begun)
        size = size * 10 + np.where(is_digit, digit, 0)
        begun |= ~is_space
        minus |= is_minus
    return np.where(minus, -size, size), good & is_digit


def require(path: Path, lines: np.ndarray, good: np.ndarray, expected: str) -> None:
    """Raises UserError naming the first line that is not good."""
    if not good.all():
        raise UserError(f"{path.name}, line {lines[int(np.argmin(good))]}: expected {expected}; the file may be damaged, fetch it again")
