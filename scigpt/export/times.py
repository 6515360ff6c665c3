"""The instants of a dataset as a domain counts them: found, compared with training, continued, looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import xarray as xr

from scigpt.data.domain import Domain
from scigpt.data.sample import OTHER_NAMES, Time, month_starts
from scigpt.errors import UserError

GREGORIAN = ("standard", "proleptic_gregorian")
DAY = 86400.0
MONTH = 365.2425 / 12 * DAY
STEP_TOLERANCE, VARYING_TOLERANCE = 0.01, 0.1
_INSTANT = re.compile(r"(\d{1,5})(?:-(\d\d?)(?:-(\d\d?)(?:[T ](\d\d?)(?::?(\d\d)(?::?(\d\d(?:\.\d+)?))?)?)?)?)?Z?")


def find(dataset: xr.Dataset, dims: Collection[str]) -> tuple[str, str | None] | None:
    """Name and dimension of the coordinate that says when: by CF attributes, or by name; None where no variable has one.

    Args:
        dims: dimensions of the variables that are used.
    """
    usable = {str(n): v for n, v in dataset.variables.items() if v.ndim <= 1 and set(v.dims) <= set(dims) and v.dtype.kind in "iufMmO"}
    for test in (
        lambda n, v: v.attrs.get("standard_name") == "time",
        lambda n, v: v.attrs.get("axis") == "T",
        lambda n, v: n in ("time", "valid_time", "t") and n in dataset.coords,
    ):
        found = [(n, v) for n, v in usable.items() if test(n, v)]
        if found:
            name, variable = max(found, key=lambda nv: nv[1].ndim)
            return name, (str(variable.dims[0]) if variable.ndim else None)
    return None


def read(dataset: xr.Dataset, name: str, domain: Domain) -> Time:
    """The instants in the calendar of the domain.

    Raises:
        UserError: another calendar, dates where time is simulated or the other way round, dates that are not decoded or not in order.
    """
    variable = dataset.variables[name]
    values = np.atleast_1d(variable.to_numpy())
    where, simulated = f"the dataset's time {name}", domain.calendar == "none"
    kind = "numbers, in the time of its simulation" if simulated else f"dates in the calendar {domain.calendar}"
    expected = f"the domain {domain.name} expects {kind}"
    if values.dtype.kind in "iuf":
        if " since " in str(variable.attrs.get("units", "")):
            raise UserError(f"{where} holds numbers with the units {variable.attrs['units']!r}; decode them with xarray.decode_cf(dataset)")
        if not simulated:
            raise UserError(f"{where} holds numbers without a calendar date, and {expected}")
        return _ordered(Time, values.astype(np.float64), "none", None, where)
    dates = values.dtype.kind == "M" or hasattr(values[0], "calendar")
    if simulated or not dates:
        held = "dates" if dates else "differences of time (open it with decode_timedelta=False)" if values.dtype.kind == "m" else "no dates"
        raise UserError(f"{where} holds {held}, and {expected}")
    if values.dtype.kind == "M" and np.isnat(values).any():
        raise UserError(f"{where} has no date at frame {int(np.argmax(np.isnat(values)))}; expected one for each frame")
    told = values[0].calendar if values.dtype.kind == "O" else variable.encoding.get("calendar", "proleptic_gregorian")
    calendar = OTHER_NAMES.get(str(told).lower(), str(told).lower())
    edges = dataset.variables.get(variable.attrs.get("bounds", variable.encoding.get("bounds")))
    usable = edges is not None and edges.shape == (values.size, 2) and edges.dtype.kind == values.dtype.kind
    time = _ordered(Time.from_dates, values, calendar, edges.to_numpy() if edges is not None and usable else None, where)
    both = calendar in GREGORIAN and domain.calendar in GREGORIAN and time.months()[0] > 1582 * 12 + 9
    if calendar != domain.calendar and not both:
        raise UserError(
            f"{where} has the calendar {calendar}, and {expected}; use data in that calendar (Dataset.convert_calendar changes it)"
        )
    return Time(time.seconds, domain.calendar, time.bounds)


def _ordered(make: Callable[..., Time], values: np.ndarray, calendar: str, bounds: np.ndarray | None, where: str) -> Time:
    try:
        return make(values, calendar, bounds)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check_step(time: Time, domain: Domain, complain: Callable[[str], None]) -> None:
    """Compare the time step with that of training; `complain` refuses or warns."""
    steps, wanted = np.diff(time.seconds), domain.step
    if not steps.size or wanted is None:
        return
    low, high = wanted * (1 - STEP_TOLERANCE), wanted * (1 + STEP_TOLERANCE)
    if domain.varying:
        low, high = wanted * (1 - VARYING_TOLERANCE), wanted * (1 + VARYING_TOLERANCE)
        if time.calendar != "none" and 25 * DAY <= wanted <= 32 * DAY:
            low, high = 25 * DAY, 32 * DAY
    wrong = (steps < low) | (steps > high)
    if not wrong.any():
        return
    own, dated = float(np.median(steps)), time.calendar != "none"
    expected = f"the domain {domain.name} was learned with {_span(wanted, dated)}"
    if low <= own <= high:
        at = int(np.argmax(wrong))
        a, b = time[at : at + 2].labels()
        hint = "fill the hole with Dataset.reindex, gaps are allowed" if steps[at] > high else "leave out what is between"
        complain(f"the dataset's frames are not regular in time: after {a} comes {b}, and {expected}; {hint}")
        return
    every = wanted / own
    hint = "give data with that step"
    if every > 1.5 and abs(every - round(every)) < STEP_TOLERANCE * every:
        hint = f"take every {round(every)}th frame, dataset.isel(time=slice(None, None, {round(every)}))"
    complain(f"the dataset's frames are {_span(own, dated)} apart, and {expected}; {hint}")


def _span(seconds: float, dated: bool) -> str:
    if not dated:
        return f"{seconds:.6g}"
    for unit, size in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            number = f"{seconds / size:.6g}"
            return f"{number} {unit if number != '1' else unit[:-1]}"
    return f"{seconds:.6g} s"


def extended(time: Time, count: int, domain: Domain) -> Time:
    """The time with `count` frames more: a step apart, or, where frames are months or years, the same part of the months that follow.

    Raises:
        UserError: a single frame of a domain without a step.
    """
    if count == 0:
        return time
    steps = np.diff(time.seconds)
    step = float(np.median(steps)) if steps.size else domain.step
    if step is None:
        raise UserError(
            f"the dataset has a single frame, and the domain {domain.name} has no time step to continue it with; give two frames"
        )
    varies = domain.varying or (steps.size > 0 and float(np.ptp(steps)) > STEP_TOLERANCE * step)
    months = round(step / MONTH) if time.calendar != "none" and varies and step >= 25 * DAY else 0

    def later(series: np.ndarray) -> np.ndarray:
        ahead = np.arange(1, count + 1)
        if not months:
            return np.concatenate([series, series[-1] + step * ahead])
        begun = Time(series, time.calendar).months()
        starts, ends = month_starts(begun, time.calendar), month_starts(begun + 1, time.calendar)
        inside = series - starts
        following = begun[-1] + months * ahead
        low, high = month_starts(following, time.calendar), month_starts(following + 1, time.calendar)
        same_day = np.ptp(inside) < 1.0 and inside[-1] < 28 * DAY
        return np.concatenate([series, low + (inside[-1] if same_day else inside[-1] / (ends[-1] - starts[-1]) * (high - low))])

    bounds = None if time.bounds is None else np.stack([later(time.bounds[:, 0]), later(time.bounds[:, 1])], 1)
    return Time(later(time.seconds), time.calendar, bounds)


def index(time: Time, instant: str) -> int:
    """The frame of an instant: a date as exact as one likes (`2020-01-01T06`, `2020-01`), or a number in simulated time.

    Raises:
        UserError: not such a date or number, or no frame there.
    """
    labels = time.labels()
    text = instant.strip()
    if time.calendar == "none":
        try:
            low = high = float(text)
        except ValueError:
            raise UserError(f"{instant!r} is not a number, as time in a simulation is; frames run from {_ends(time)}") from None
        near = 1e-6 * float(np.ptp(time.seconds)) + 1e-12
        low, high = low - near, high + near
    else:
        low, high = _interval(text, time.calendar)
    found = np.flatnonzero((time.seconds > low - 1e-6) & (time.seconds < high - 1e-6 * (time.calendar != "none")))
    exact = found[np.abs(time.seconds[found] - low) < 1e-3] if found.size > 1 else found
    if exact.size == 1:
        return int(exact[0])
    if found.size > 1:
        raise UserError(f"{instant} stands for {found.size} frames, from {labels[found[0]]} to {labels[found[-1]]}; say which")
    raise UserError(f"the dataset has no frame at {instant}; frames run from {_ends(time)}")


def _ends(time: Time) -> str:
    if time.calendar == "none":
        return f"{time.seconds[0]:.9g} to {time.seconds[-1]:.9g}"
    labels = time.labels()
    return f"{labels[0]} to {labels[-1]}"


def _interval(text: str, calendar: str) -> tuple[float, float]:
    """First instant of what a date names, and first after it."""
    parts = _INSTANT.fullmatch(text)
    numbers: list[Any] = [None if p is None else float(p) for p in parts.groups()] if parts else []
    year, month, day, hour, minute, second = numbers or [None] * 6
    if year is None or not (1 <= (month or 1) <= 12):
        raise UserError(f"{text!r} is not a date such as 2020-01-31T06 or 2020-01-31T06:30:00")
    begun = int(12 * year + (month or 1) - 1)
    low, high = month_starts(np.array([begun, begun + (1 if month else 12)]), calendar)
    start = low + ((day or 1) - 1) * DAY
    if not low <= start < high or (hour or 0) >= 24 or (minute or 0) >= 60 or (second or 0) >= 60:
        raise UserError(f"{text!r} is not a date in the calendar {calendar}")
    start += 3600 * (hour or 0) + 60 * (minute or 0) + (second or 0)
    if day is None:
        return float(start), float(high)
    size = DAY if hour is None else 3600.0 if minute is None else 60.0 if second is None else 1.0
    return float(start), float(start + size)
