"""When the values of ARM files are: their times, which part of an interval a time is, and the step of a datastream."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import netCDF4
import numpy as np

from scigpt.data_prep.sources.arm_layouts import attribute, scalar, stream_of
from scigpt.errors import UserError

Stamp = Literal["begin", "middle", "end", "instant"]

_BEGINS = ("30ecor", "ecor")
_MIDDLES = ("armbe", "cmbe")


@dataclass(frozen=True, eq=False)
class Times:
    """The times of a file as they stand there.

    Args:
        seconds: since 1970 (UTC), float64 `(n,)`, rising.
        stamp: which part of its interval a time is; of no meaning where there are bounds.
        width: seconds of the intervals, where the file has bounds.
        lead: seconds `(n,)` by which a time comes after the beginning of its interval, where the file has bounds.
    """

    seconds: np.ndarray
    stamp: Stamp
    width: int | None = None
    lead: np.ndarray | None = None


def times_of(file: netCDF4.Dataset, path: Path, stamp: Stamp | None) -> Times:
    """The times of a file.

    Raises:
        UserError: the file does not say which part of an interval its times are, and `stamp` does not either.
    """
    seconds = _instants_of(file, path)
    if stamp is not None or (bounds := _bounds(file, path, seconds)) is None:
        return Times(seconds, stamp or _said(file, path))
    widths = np.unique(np.round(bounds[:, 1] - bounds[:, 0]))
    if widths.size > 1 or widths[0] < 1:
        raise UserError(f"{path.name}: intervals of {widths[0]:g} to {widths[-1]:g} s; expected intervals of one length")
    return Times(seconds, "begin", int(widths[0]), seconds - bounds[:, 0])


def usual_step(files: Iterable[Times]) -> int | None:
    """The commonest step in the files of a datastream (of two as common ones the longer); None where all have a single time."""
    steps = np.concatenate([np.empty(0), *(np.full(t.seconds.size, t.width) if t.width else np.diff(t.seconds) for t in files)])
    found, counts = np.unique(steps, return_counts=True)
    return int(found[counts == counts.max()][-1]) if found.size else None


def begins_of(times: Times, path: Path, stream: str, usual: int | None) -> tuple[np.ndarray, int | None, bool]:
    """Beginnings of the intervals (or instants), datetime64[s]; the step in seconds, None of a single instant; whether they are intervals.

    Args:
        usual: the step of the datastream, which a file of a few values may not show itself.
    """
    steps = np.diff(times.seconds)
    step = times.width or (int(steps.min()) if steps.size else None)
    if times.width is None and usual is not None and (step is None or step % usual == 0):
        step = usual
    if step is None and times.stamp != "instant":
        raise UserError(f"{path.name} has a single time and no bounds, its interval is not known; give longer files of {stream} beside it")
    lead = times.lead
    if lead is None:
        lead = np.array({"begin": 0.0, "instant": 0.0, "end": float(step or 0), "middle": (step or 0) / 2}[times.stamp])
    if step is not None and (np.abs(steps / step - np.round(steps / step)) > 1e-6).any():
        what = f"{steps.min():g} s" if steps.min() == steps.max() else f"{steps.min():g} to {steps.max():g} s"
        raise UserError(f"{path.name}: its times follow each other after {what}; expected {step} s, or whole multiples of it over gaps")
    return np.round(times.seconds - lead).astype("datetime64[s]"), step, times.stamp != "instant"


def _instants_of(file: netCDF4.Dataset, path: Path) -> np.ndarray:
    """Seconds since 1970 (UTC), float64, from base_time and time_offset; the copy `time` must agree."""
    if {"base_time", "time_offset"} <= set(file.variables):
        base = scalar(file, "base_time", path)
        seconds = base + np.asarray(file["time_offset"][:], np.float64)
        if "time" in file.variables:
            copy = _decoded(file["time"], path)
            if copy.shape != seconds.shape or (np.abs(copy - seconds) > 0.5).any():
                raise UserError(f"{path.name}: time and base_time + time_offset do not agree; the file is damaged or was edited")
    elif "time" in file.variables:
        seconds = _decoded(file["time"], path)
    else:
        raise UserError(f"{path.name} has neither time nor base_time and time_offset; expected a file of ARM")
    if seconds.ndim != 1 or not seconds.size or not np.isfinite(seconds).all() or (np.diff(np.round(seconds)) < 1).any():
        raise UserError(f"{path.name}: its times do not increase by a second or more; the file is damaged or of a faster instrument")
    return np.round(seconds)


def _decoded(variable: Any, path: Path) -> np.ndarray:
    """The calendars that ARM names are one for its years; any other would mean other days."""
    units, calendar = str(attribute(variable, "units", "")), str(attribute(variable, "calendar", "standard")).lower()
    if calendar not in ("standard", "gregorian", "proleptic_gregorian"):
        raise UserError(
            f"{path.name}: the calendar of {variable.name} is {calendar!r}; expected gregorian, standard or proleptic_gregorian"
        )
    match = re.match(r"(seconds|minutes|hours|days) since (\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?", units)
    if match is None:
        raise UserError(
            f"{path.name}: the unit of {variable.name} is {units[:60]!r}; expected such as 'seconds since 2019-01-01 00:00:00 0:00'"
        )
    year, month, day, hour, minute, second = (int(v or 0) for v in match.groups()[1:])
    start = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}", "s").astype(np.int64)
    return float(start) + np.asarray(variable[:], np.float64) * {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}[match[1]]


def _bounds(file: netCDF4.Dataset, path: Path, seconds: np.ndarray) -> np.ndarray | None:
    name = attribute(file["time"], "bounds", "time_bounds") if "time" in file.variables else "time_bounds"
    if name not in file.variables:
        return None
    source = file["time"] if "time" in file.variables else file["time_offset"]
    found = np.asarray(file[name][:], np.float64) + (seconds - np.asarray(source[:], np.float64))[:, None]
    if found.shape != (seconds.size, 2) or (found[:, 0] > seconds + 0.5).any() or (found[:, 1] < seconds - 0.5).any():
        raise UserError(f"{path.name}: {name} does not enclose its times; the file is damaged")
    return found


def _said(file: netCDF4.Dataset, path: Path) -> Stamp:
    comment = str(attribute(file, "averaging_interval_comment", "")).lower()
    for word, stamp in (
        ("end of the averaging", "end"),
        ("beginning of the averaging", "begin"),
        ("start of the averaging", "begin"),
        ("middle of the averaging", "middle"),
    ):
        if word in comment:
            return stamp  # type: ignore[return-value]
    product = stream_of(file, path)["product"]
    if product.startswith(_MIDDLES):
        return "middle"
    if product in _BEGINS:
        return "begin"
    raise UserError(f"{path.name} does not say whether its times are the begin, middle or end of the intervals; state it with stamp=")
