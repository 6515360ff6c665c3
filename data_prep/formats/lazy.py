"""Variables whose values are read when they are asked for, window by window, by a function of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

Read = Callable[[tuple[slice, ...]], np.ndarray]
"""The values in a window: one slice for each dimension, start and stop known, steps of 1."""


class _Lazy(BackendArray):
    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Read) -> None:
        self.shape, self.dtype, self.read = shape, np.dtype(dtype), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._window)

    def _window(self, key: tuple[int | slice, ...]) -> np.ndarray:
        ranges = [range(*k.indices(n)) if isinstance(k, slice) else range(int(k), int(k) + 1) for k, n in zip(key, self.shape, strict=True)]
        values = self.read(tuple(slice(min(r, default=0), max(r, default=-1) + 1) for r in ranges))
        return values[tuple(slice(None, None, r.step) if isinstance(k, slice) else 0 for k, r in zip(key, ranges, strict=True))]


def lazy(dims: Sequence[str], shape: Sequence[int], dtype: Any, read: Read, attrs: Mapping[str, Any]) -> xr.Variable:
    """A variable of this shape whose values `read` gives.

    Args:
        read: called with one slice for each dimension; it opens what it needs and returns an array of exactly that window.
    """
    return xr.Variable(tuple(dims), indexing.LazilyIndexedArray(_Lazy(tuple(shape), dtype, read)), dict(attrs))
