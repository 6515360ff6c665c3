"""Samples and forecasts as `xarray.Dataset`s that follow the CF conventions 1.11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

import scigpt
from scigpt.data.sample import LEVEL_UNITS, SPACE_AXES, TIME_UNITS, Coordinate, Level, Sample, Time, Variable
from scigpt.data.variables import QUANTITIES, same_unit, spelled
from scigpt.errors import UserError
from scigpt.export.times import DAY, MONTH

Levels = tuple[str, tuple[Level, ...]]
"""The coordinate of levels and what lies along it."""

Encoded = tuple[tuple[str, ...], np.ndarray, dict[str, Any]]
"""Dimensions, values and attributes of a variable as it is written."""

REFERENCE, PERIOD, RECORD, LABEL = "forecast_reference_time", "forecast_period", "record", "record_name"
_LEVELS = {"pressure": ("air_pressure", "down"), "height": ("height", "up"), "depth": ("depth", "down")}
_PLACES: dict[str, dict[str, Any]] = {
    "latitude": {"standard_name": "latitude", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "axis": "X"},
    "height": {"standard_name": "altitude", "positive": "up"},
}


def to_dataset(sample: Sample) -> xr.Dataset:
    """A sample as a dataset with decoded times, which `Given.of` understands: NaN is a gap, coefficients are attributes.

    Of a steady problem the second frame, which holds both the problem and its solution; statics have no time.
    """
    values = np.where(sample.valid, sample.values, np.float32(np.nan))
    moving = {v.name for v in sample.variables if v.role != "static"}  # levels of one variable have the same dimensions
    fixed = [sample.steady or v.name not in moving for v in sample.variables]
    variables = {} if sample.steady else _instants(sample.time)
    space, dims = _space(sample, ())
    variables |= space
    for c, (name, variable, level) in enumerate(_named(sample.variables, variables)):
        lead = () if fixed[c] else ("time",)
        # the second frame of a steady problem; of a static whatever is known in any frame
        field = values[:, c] if lead else values[1, c] if sample.steady else _first_valid(values[:, c])
        _add(variables, name, variable, level, lead, field, dims, sample.time if lead else None)
    return xr.decode_cf(_dataset(variables, {n: float(v) for n, v in sample.coefficients.items()}))


def result(
    samples: Sequence[Sample],
    values: np.ndarray,
    *,
    context: int,
    first: int,
    dim: str | None,
    labels: Sequence[str] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Forecasts as a dataset as it is written: numeric times with units and calendar, which `xarray.decode_cf` decodes.

    Args:
        samples: one for each initial condition, of the frames that are known and all that are forecast.
        values: float32 `(M, I, S, C, Z, Y, X)`: members, initial conditions, steps, the predicted variables of the layout. NaN is a gap.
        context: frames of the samples that are known.
        first: number of the first step of `values`, from 0.
        dim: None of a single initial condition: `([realization,] time, ...)`. forecast_reference_time:
            `(forecast_reference_time, [realization,] forecast_period, ...)` with the auxiliary coordinate time. record: the same with
            `labels` along the first dimension, as the auxiliary coordinate record_name. Steady problems have neither time nor
            forecast_period.
        labels: of the records.
        attrs: global attributes.

    Raises:
        UserError: records on different grids.
    """
    sample, steps = samples[0], values.shape[2]
    frames = slice(context + first, context + first + steps)
    lead: tuple[str, ...] = ("realization",) if values.shape[0] > 1 else ()
    variables: dict[str, Encoded] = {}
    if lead:
        about = {"standard_name": "realization", "units": "1"}
        variables["realization"] = (lead, np.arange(values.shape[0], dtype=np.int32), about)
    if not sample.steady:
        variables |= _clock(samples, context, frames, dim)
        lead += ("time" if dim is None else PERIOD,)
    if dim is None:
        block = values[:, 0]
    else:
        lead = (dim, *lead)
        block = np.moveaxis(values, 1, 0)
        if dim == RECORD:
            names = np.asarray(labels, dtype=object)
            variables[LABEL] = ((RECORD,), names, {"long_name": "name of the record"})
    members = 0 if dim is None else 1
    if sample.steady:
        block = block.take(0, axis=members + 1)
    if "realization" not in lead:
        block = block.take(0, axis=members)
    places, dims = _space(sample, [s.coordinates for s in samples] if dim == RECORD else ())
    variables |= places
    predicted = [v for v in sample.variables if v.predicted]
    for c, (name, variable, level) in enumerate(_named(predicted, variables)):
        time = None if sample.steady else sample.time
        _add(variables, name, variable, level, lead, block[(slice(None),) * len(lead) + (c,)], dims, time)
    told = {
        "title": f"Forecast of {', '.join(dict.fromkeys(v.name.replace('_', ' ') for v in predicted))}",
        "source": "SciGPT",
        "history": f"forecast by scigpt {scigpt.__version__}",
    }
    return _dataset(variables, told | dict(attrs or {}))


# time


def _instants(time: Time) -> dict[str, Encoded]:
    """The coordinate `time`, and its bounds where it has some."""
    about = _about_time(time, "time")
    if time.calendar != "none":
        about["axis"] = "T"
    found: dict[str, Encoded] = {"time": (("time",), time.seconds, about)}
    if time.bounds is not None:
        about["bounds"] = "time_bnds"
        found["time_bnds"] = (("time", "bnds"), time.bounds, {})
    return found


def _about_time(time: Time, name: str) -> dict[str, Any]:
    if time.calendar == "none":  # CF knows no time without a date
        return {"long_name": name.replace("_", " ") + " of the simulation", "units": "1"}
    leap = {"units_metadata": "leap_seconds: none"} if time.calendar in ("standard", "proleptic_gregorian", "julian") else {}
    return {"standard_name": name, "units": TIME_UNITS, "calendar": time.calendar, **leap}


def _clock(samples: Sequence[Sample], context: int, frames: slice, dim: str | None) -> dict[str, Encoded]:
    """Instants of the forecasts, of their starts, and what lies between."""
    whole = samples[0].time
    starts = np.array([s.time.seconds[context - 1] for s in samples])
    ahead = [s.time[frames].seconds for s in samples]
    unit, size = ("1", 1.0) if whole.calendar == "none" else ("hours", 3600.0)
    about: dict[str, Any] = {"units": unit}
    about |= {"long_name": "forecast period of the simulation"} if whole.calendar == "none" else {"standard_name": PERIOD}
    reference = _about_time(whole, REFERENCE)
    if dim is None:
        passed = _round(ahead[0] - starts[0]) / size
        return {
            **_instants(whole[frames]),
            REFERENCE: ((), starts[0], reference),
            PERIOD: (("time",), passed, about),
        }
    passed = _round(ahead[0] - starts[0]) / size
    step = (whole.seconds[-1] - whole.seconds[0]) / max(1, len(whole) - 1)
    months = round(step / MONTH)
    if whole.calendar not in ("none", "360_day") and months and abs(step - months * MONTH) < 3 * DAY:
        # months differ from start to start, and one axis serves all
        passed = np.arange(frames.start - context + 1, frames.stop - context + 1) * months * MONTH / size
        about["comment"] = "months of 30.436875 days; the coordinate time is exact"
    return {
        "time": ((dim, PERIOD), np.stack(ahead), _about_time(whole, "time")),
        REFERENCE: ((dim,), starts, reference),
        PERIOD: ((PERIOD,), passed, about),
    }


def _round(periods: np.ndarray) -> np.ndarray:
    """Without the noise of differences of large numbers, so that forecasts from all starts have the same periods."""
    return np.array([float(f"{p:.9g}") for p in periods])


# space


def _space(sample: Sample, records: Sequence[Mapping[str, Coordinate]]) -> tuple[dict[str, Encoded], dict[str, str]]:
    """Coordinates, and the name of the dimension of each space axis that is longer than 1.

    Args:
        records: coordinates of all records, where there are several; stations then have theirs for each record.
    """
    sizes = dict(zip(SPACE_AXES, sample.values.shape[2:], strict=True))
    dims = {a: a for a, n in sizes.items() if n > 1}
    if sample.geometry == "points":
        dims = dict.fromkeys(dims, "station")
    elif sample.geometry == "sphere":
        for name in ("latitude", "longitude"):
            axes = sample.coordinates[name].axes
            if len(axes) == 1 and axes[0] in dims:
                dims[axes[0]] = name
    found: dict[str, Encoded] = {}
    for name, coordinate in sample.coordinates.items():
        kept = tuple(dims[a] for a in coordinate.axes if a in dims)
        shape = tuple(sizes[a] for a in coordinate.axes if a in dims)
        about = _about_place(name, coordinate, sample.geometry)
        if len(kept) != 1 or kept[0] != name:
            about.pop("axis", None)
        each = [r[name].values.reshape(shape) for r in records]
        if each and sample.geometry == "points":
            found[name] = ((RECORD, *kept), np.stack(each), about)
            continue
        if any(not np.array_equal(e, each[0], equal_nan=True) for e in each):
            raise UserError(
                f"the records lie on different grids (their {name} differs), and one dataset holds one; forecast them one by one"
            )
        found[name] = (kept, coordinate.values.reshape(shape), about)
    return found, dims


def _about_place(name: str, coordinate: Coordinate, geometry: str) -> dict[str, Any]:
    about: dict[str, Any] = dict(_PLACES.get(name, {})) if geometry != "plane" else {}
    about["units"] = spelled(coordinate.unit)
    if name in SPACE_AXES:
        about["long_name"] = f"position along {name}"
        # only what lies somewhere on the Earth has axes by the conventions
        if geometry == "plane" and name in "xy" and coordinate.unit in ("m", "km"):
            about |= {"standard_name": f"projection_{name}_coordinate", "axis": name.upper()}
    elif not about.get("standard_name"):
        about["long_name"] = name.replace("_", " ")
    return about


# variables


def _named(variables: Sequence[Variable], taken: Mapping[str, Encoded]) -> list[tuple[str, Variable, Levels | None]]:
    """For each variable its name in the dataset and, where it has a level, the coordinate of levels and all of these."""
    levels: dict[tuple[str, str | None], list[Level]] = {}
    for v in variables:
        levels.setdefault((v.name, None if v.level is None else v.level.kind), []).extend([] if v.level is None else [v.level])
    kinds = [name for name, _ in levels]
    axes: dict[str, tuple[Level, ...]] = {}
    found: list[tuple[str, Variable, Levels | None]] = []
    for v in variables:
        if v.level is None:
            found.append((v.name, v, None))
            continue
        kind, held = v.level.kind, tuple(levels[v.name, v.level.kind])
        name = v.name if kinds.count(v.name) == 1 else f"{v.name}_at_{kind}"
        base = kind if len(held) > 1 else f"{kind}_{held[0].value:g}{LEVEL_UNITS[kind]}".replace(".", "_").replace("-", "minus_")
        axis, number = base, 1
        while axes.get(axis, held) != held or (axis in taken and axis not in axes):
            number += 1
            axis = f"{base}_{number}"
        axes[axis] = held
        found.append((name, v, (axis, held)))
    return found


def _add(
    variables: dict[str, Encoded],
    name: str,
    variable: Variable,
    level: Levels | None,
    lead: tuple[str, ...],
    field: np.ndarray,
    dims: Mapping[str, str],
    time: Time | None,
) -> None:
    """Put a channel `(lead, Z, Y, X)` in, or into the variable of all its levels."""
    sides = tuple(n for a, n in zip(SPACE_AXES, field.shape[len(lead) :], strict=True) if a in dims)
    field = field.reshape(field.shape[: len(lead)] + sides).astype(np.float32, copy=False)
    if level is not None and level[0] not in variables:
        kind, axis = level[1][0].kind, level[0]
        standard, positive = _LEVELS[kind]
        numbers = np.array([each.value for each in level[1]])
        about = {"standard_name": standard, "units": LEVEL_UNITS[kind], "positive": positive}
        if numbers.size > 1:
            about["axis"] = "Z"
        variables[axis] = ((axis,), numbers, about) if numbers.size > 1 else ((), numbers[0], about)
    if level is None or len(level[1]) == 1:
        shown = {"coordinates": level[0]} if level is not None else {}
        variables[name] = ((*lead, *dims.values()), field, _about(variable, time) | shown)
        return
    at = len(lead)
    if name not in variables:
        whole = np.full((*field.shape[:at], len(level[1]), *field.shape[at:]), np.nan, np.float32)
        variables[name] = ((*lead, level[0], *dims.values()), whole, _about(variable, time))
    position = [each == variable.level for each in level[1]].index(True)
    variables[name][1][(slice(None),) * at + (position,)] = field


def _about(variable: Variable, time: Time | None) -> dict[str, Any]:
    quantity = QUANTITIES.find(variable.name)
    about: dict[str, Any] = {"units": spelled(variable.unit), "_FillValue": np.float32(np.nan)}
    if quantity is not None and quantity.name == variable.name and quantity.standard_name and same_unit(quantity.unit, variable.unit):
        about["standard_name"] = quantity.standard_name
    if "temperature" in variable.name and about["units"] in ("K", "degC"):
        about["units_metadata"] = "temperature: on_scale"
    if about.get("standard_name") != variable.name:
        about["long_name"] = variable.name.replace("_", " ")
    method = None if time is None else _method(variable.name, time)
    return about | ({"cell_methods": f"time: {method}"} if method else {})


def _method(name: str, time: Time) -> str | None:
    """How a value stands for its interval, as far as that can be told: an instant at an end of an interval may be that of a neighbour."""
    if time.bounds is None:
        return None
    for end in ("maximum", "minimum"):
        if name.endswith(end):
            return end
    if name == "precipitation_amount":
        return "sum"
    inside = (time.bounds[:, 0] < time.seconds) & (time.seconds < time.bounds[:, 1])
    return "mean" if inside.all() else None


def _first_valid(frames: np.ndarray) -> np.ndarray:
    """`(Z, Y, X)`: for each point the first value in time that is none of the gaps."""
    at = np.argmax(~np.isnan(frames), axis=0)
    return np.take_along_axis(frames, at[None], 0)[0]


def _dataset(variables: Mapping[str, Encoded], attrs: Mapping[str, Any]) -> xr.Dataset:
    """As it is written: data variables name the coordinates that are not dimensions."""
    edges = {about["bounds"] for _, _, about in variables.values() if "bounds" in about}
    fields = {n for n, (_, _, about) in variables.items() if "_FillValue" in about}
    own = {variables[n][2].get("coordinates") for n in fields}  # a single level belongs to the variables that name it alone
    beside = [n for n, (dims, _, _) in variables.items() if n not in fields | edges | own and dims != (n,)]
    for name in fields:
        dims, _, about = variables[name]
        shown = [n for n in beside if set(variables[n][0]) <= set(dims)] + about.get("coordinates", "").split()
        if shown:
            about["coordinates"] = " ".join(shown)
    return xr.Dataset({n: xr.Variable(dims, v, a) for n, (dims, v, a) in variables.items()}, attrs={"Conventions": "CF-1.11", **attrs})
