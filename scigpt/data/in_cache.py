"""Going through a large array in blocks that stay in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

SIZE = 1 << 15
"""Numbers of a block; as float64 they take 256 KiB."""

Block = tuple[slice, slice]


def table(values: np.ndarray) -> np.ndarray:
    """`(frames, everything else)`, a view wherever NumPy can give one, as of one channel of a sample."""
    return values.reshape(values.shape[0], math.prod(values.shape[1:]))


def blocks(rows: int, columns: int) -> Iterator[Block]:
    """Several rows, or a part of one, at a time; row by row."""
    if columns >= SIZE:
        for row in range(rows):
            for start in range(0, columns, SIZE):
                yield slice(row, row + 1), slice(start, min(start + SIZE, columns))
    else:
        each = SIZE // max(1, columns)
        for start in range(0, rows, each):
            yield slice(start, min(start + each, rows)), slice(0, columns)
