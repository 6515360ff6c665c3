"""The map of a user's own data: a small YAML file that says what columns and variables mean. `docs/own-data.md` shows it at work."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from scigpt.data.sample import CALENDARS, BoundaryKind, Geometry, Role
from scigpt.data_prep.blocks import shares
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError


@dataclass(frozen=True)
class Channel:
    """What one column of a table or one variable of a file means.

    Args:
        name: of the registry (aliases are understood) or your own; the column's name by default.
        unit: the unit the numbers are in; a file's `units` attribute by default. A name of the registry is converted to its unit there, a
            name of your own keeps its unit.
        role: state, forcing, static or diagnostic.
        level: `850 hPa`, `2 m`, `10 m depth`, or the dimension of a file along which the levels lie.
        bounds: plausible low and high in `unit`, which must be stated then; values outside become invalid and are counted. By default those
            of the registry.
    """

    name: str | None = None
    unit: str | None = None
    role: Role = "state"
    level: str | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bounds is not None and (self.unit is None or not self.bounds[0] < self.bounds[1]):
            raise UserError("bounds are a low and a higher number in the unit, which must be stated beside them")


@dataclass(frozen=True)
class TimeAxis:
    """When each row or frame is.

    Args:
        column: the column (several are joined by a blank: `[date, hour]`), or the coordinate or dimension of a file.
        format: of the text, as in strptime; ISO 8601 by default.
        unit: of numbers: `s`, `hours since 1970-01-01`; with `1` they stay as they are (dimensionless simulated time).
        zone: where the clock hangs: `Europe/Berlin`, `+01:00`. Cells that state an offset need none.
        calendar: a CF calendar; with a plain unit there is none.
        step: the regular step in `unit` (seconds by default). Without a column, rows follow each other by it; with a column of a table,
            instants without a row become frames without values.
        start: instant of the first row where there is no column.
    """

    column: tuple[str, ...] = ()
    format: str | None = None
    unit: str | None = None
    zone: str = "UTC"
    calendar: str = "proleptic_gregorian"
    step: float | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if self.calendar not in CALENDARS or self.calendar == "none":
            raise UserError(f"calendar {self.calendar!r} is not one of {', '.join(CALENDARS[:-1])}; simulated time has a plain unit")


@dataclass(frozen=True)
class Place:
    """A coordinate: the name of a column, coordinate or dimension, or one number; and its unit where the file does not say."""

    name: str | float = ""
    unit: str | None = None


@dataclass(frozen=True)
class Axes:
    """Where things stand. In files of arrays `x`, `y`, `z` are dimensions; those of latitude and longitude follow from these.

    Args:
        station: the column that tells stations apart in a long table.
        trajectory: the dimension along which independent runs (or ensemble members) lie.
    """

    time: TimeAxis = field(default_factory=TimeAxis)
    station: str | None = None
    trajectory: str | None = None
    latitude: Place | None = None
    longitude: Place | None = None
    height: Place | None = None
    x: Place | None = None
    y: Place | None = None
    z: Place | None = None


@dataclass(frozen=True)
class TableFormat:
    """How a table is written.

    Args:
        separator: found by itself by default; `whitespace` for any blanks.
        header: line of the column names, counted from 0 among the lines that are neither blank nor comments.
        skip: lines below it that are no data (a row of units).
        missing: codes of missing values, beside empty cells, NA, NaN, null, None and -.
        decimal: the decimal mark.
        comment: what a comment line begins with.
    """

    separator: str | None = None
    header: int = 0
    skip: int = 0
    missing: tuple[str, ...] = ()
    decimal: str = "."
    comment: str | None = None
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Sides:
    """Kind of boundary of each axis: one word for both sides, or two (low, high)."""

    z: tuple[BoundaryKind, ...] | None = None
    y: tuple[BoundaryKind, ...] | None = None
    x: tuple[BoundaryKind, ...] | None = None


@dataclass(frozen=True)
class SplitRule:
    """How samples fall into train, valid and test.

    Args:
        by: `time` cuts blocks that are common to all records, `gap` frames left out between them; the others keep a station, file or
            trajectory whole.
        fractions: train, valid, test.
        valid, test, ood: names of stations, files or trajectories that go there; the rest is train. `ood` is out of distribution.
    """

    by: Literal["time", "station", "file", "trajectory"] = "time"
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 2
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    ood: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shares(0, self.fractions)
        if self.by == "time" and (self.valid or self.test or self.ood):
            raise UserError("valid, test and ood list names, which by: time has not; set by to station, file or trajectory")


@dataclass(frozen=True)
class DataMap:
    """The whole map.

    Args:
        variables: by column or name in the file.
        layout: stations of a table as one-dimensional `series` each, or as one sample of `points` over common times.
        geometry: plane, sphere or points; by default what latitude and longitude say.
        coefficients: named numbers of the equation or experiment, or the name of a column or variable that is constant in a record.
        steady: no time passes: forcing and static variables are the problem, the state is its solution.
        redistributable: whether what is made from the data may be passed on.
    """

    variables: dict[str, Channel] = field(default_factory=dict)
    axes: Axes = field(default_factory=Axes)
    format: TableFormat = field(default_factory=TableFormat)
    layout: Literal["series", "points"] = "series"
    geometry: Geometry | None = None
    boundary: Sides = field(default_factory=Sides)
    coefficients: dict[str, str | float] = field(default_factory=dict)
    steady: bool = False
    split: SplitRule = field(default_factory=SplitRule)
    licence: str = ""
    attribution: str = ""
    redistributable: bool = False


def load_map(path: Path) -> DataMap:
    """The map in a YAML file.

    Raises:
        UserError: a file that cannot be read, an unknown key (with its path and the nearest name), a value of another type.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the map {path} cannot be read ({error}); give the path of a YAML file as --map") from None
    except yaml.YAMLError as error:
        raise UserError(f"the map {path} is not valid YAML: {' '.join(str(error).split())}") from None
    made: DataMap = _build(DataMap, data or {}, str(path), "")
    if not made.variables:
        raise UserError(f"{path}: variables is empty; name at least one column or variable, as in variables: {{t: {{unit: degC}}}}")
    if not made.licence:
        raise UserError(f"{path}: licence is missing; state the licence of the data, as in licence: CC-BY-4.0")
    return made


def _build(cls: Any, data: Any, source: str, where: str) -> Any:
    """A dataclass from plain data; a bare value stands for its first field (`latitude: lat`)."""
    hints = get_type_hints(cls)
    if not isinstance(data, Mapping):
        if not where or dataclasses.is_dataclass(hints[next(iter(hints))]) or cls in (Sides, SplitRule, TableFormat, Axes):
            raise UserError(f"{source}: {where or 'the map'} is {data!r}; expected the keys {', '.join(hints)}")
        data = {next(iter(hints)): data}
    values = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise UserError(f"{source}: unknown key {path}; {nearest(str(key), hints) or 'expected one of ' + ', '.join(hints)}")
        values[key] = _value(hints[key], value, source, path)
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{source}: {where}: {error}") from None


def _value(hint: Any, value: Any, source: str, path: str) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) in kinds:
            return None
        raise UserError(f"{source}: {path} is empty; give a value or leave the key out")
    wanted = [k for k in kinds if k is not type(None)]
    kind, arguments = wanted[0], get_args(wanted[0])
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, source, path)
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{source}: {path} is {value!r}; expected names with values")
        return {str(k): _value(arguments[1], v, source, f"{path}.{k}") for k, v in value.items()}
    if get_origin(kind) is tuple:
        items = value if isinstance(value, list) else [value]
        if arguments[-1] is not Ellipsis and len(items) != len(arguments):
            raise UserError(f"{source}: {path} is {value!r}; expected {len(arguments)} values")
        return tuple(_value(arguments[0], v, source, f"{path}[{i}]") for i, v in enumerate(items))
    if get_origin(kind) is Literal:
        if value not in arguments:
            near = nearest(str(value), arguments)
            raise UserError(f"{source}: {path} is {value!r}; expected one of {', '.join(arguments)}" + (f", {near}" if near else ""))
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in wanted and number:
        return float(value)
    if str in wanted and not isinstance(value, Mapping | list):
        return str(value)
    if kind in (bool, int) and type(value) is kind:
        return value
    raise UserError(f"{source}: {path} is {value!r}; expected {' or '.join(k.__name__ for k in wanted)}")
