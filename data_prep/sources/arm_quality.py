"""The values of ARM files that are there and good: two layouts of quality, and what counts as missing."""

from __future__ import annotations

import re
from typing import Any, Literal

import netCDF4
import numpy as np

from scigpt.data_prep.sources.arm_layouts import Channel, attribute, numbers_of
from scigpt.errors import UserError

Quality = Literal["good", "indeterminate", "any"]


def values_of(file: netCDF4.Dataset, channel: Channel, quality: Quality, cache: dict[str, np.ndarray]) -> np.ndarray:
    """A column in the unit of the registry, float32, NaN where it is missing or not good enough.

    Args:
        cache: what was read before, by name.
    """
    variable = file[channel.name]
    if channel.name not in cache:
        numbers = numbers_of(variable)
        if quality != "any" and f"qc_{channel.name}" in file.variables:
            numbers[~_good(file, f"qc_{channel.name}", quality, numbers.shape)] = np.nan
        cache[channel.name] = numbers
    numbers = cache[channel.name] if channel.index is None else cache[channel.name][:, channel.index]
    return (numbers * channel.scale + channel.offset).astype(np.float32)


def _good(file: netCDF4.Dataset, name: str, quality: Quality, shape: tuple[int, ...]) -> np.ndarray:
    """By a number with a sign (old layout: 0, -1, -2) or by bits or numbers of tests, each assessed as Bad or Indeterminate."""
    variable = file[name]
    flags = np.asarray(variable[...])
    if flags.shape != shape:
        raise UserError(f"{name} has the shape {flags.shape} and its variable {shape}; the file is damaged")
    if flags.dtype.kind == "f":
        return (flags == 0) | ((flags == -1) if quality == "indeterminate" else False)
    lenient, bits = _assessments(file, variable)
    if not bits:
        allowed = [0, *(lenient if quality == "indeterminate" else ())]
        return np.isin(flags, allowed)
    mask = sum(1 << (n - 1) for n in lenient) if quality == "indeterminate" else 0
    return (flags.astype(np.int64) & ~np.int64(mask)) == 0


def _assessments(file: netCDF4.Dataset, variable: Any) -> tuple[set[int], bool]:
    """Numbers of the tests that leave a value merely indeterminate, and whether they are bits."""
    told: dict[int, str] = {}
    bits = str(attribute(variable, "flag_method", "bit")).lower() != "integer"
    for holder, prefix in ((file, "qc_"), (variable, "")):  # what the variable says of itself counts more
        for key in holder.ncattrs():
            if match := re.fullmatch(rf"{prefix}(?:bit|flag)_(\d+)_assessment", key):
                told[int(match[1])] = str(holder.getncattr(key)).strip().lower()
    return {n for n, word in told.items() if word == "indeterminate"}, bits
