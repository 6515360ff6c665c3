"""Sample: the one contract between data and model.

Axis letters are fixed everywhere: T time, C variable, Z Y X space. An axis that a domain lacks has length 1.
`docs/samples.md` holds the table of worked cases; `tests/data/test_sample.py` builds and checks each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from scigpt.errors import UserError

Role = Literal["state", "forcing", "static", "diagnostic"]
Geometry = Literal["plane", "sphere", "points"]
BoundaryKind = Literal["periodic", "wall", "open", "pole", "given"]
LevelKind = Literal["pressure", "height", "depth"]

SPACE_AXES = ("z", "y", "x")
CALENDARS = ("standard", "proleptic_gregorian", "julian", "noleap", "all_leap", "360_day", "none")
OTHER_NAMES: Mapping[str, str] = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
"""Of calendars."""
TIME_UNITS = "seconds since 2000-01-01"
"""Times are float64 seconds since this instant in the sample's own calendar."""

_GREGORIAN_START = -13165977600.0
"""1582-10-15, before which the standard calendar is the Julian one, in TIME_UNITS."""

LEVEL_UNITS: Mapping[str, str] = {"pressure": "hPa", "height": "m", "depth": "m"}


@dataclass(frozen=True, slots=True)
class Level:
    """The surface a two-dimensional variable lives on: 850 hPa, 2 m above ground, 10 m below the sea surface."""

    kind: LevelKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in LEVEL_UNITS:
            raise UserError(f"level kind {self.kind!r} is not one of {', '.join(LEVEL_UNITS)}")
        if not np.isfinite(self.value):
            raise UserError(f"level of kind {self.kind} has the value {self.value}; expected a finite number")

    def __str__(self) -> str:
        return f"{self.value:g}{LEVEL_UNITS[self.kind]}" + ("depth" if self.kind == "depth" else "")


@dataclass(frozen=True, slots=True)
class Variable:
    """One channel of a sample: a physical quantity, its unit, what it is for, and the level it lives on.

    Roles: `state` is given and predicted; `forcing` is known in advance and given also for the frame to predict; `static`
    does not change with time (orography, velocity model); `diagnostic` is predicted and never an input.
    """

    name: str
    unit: str
    role: Role = "state"
    level: Level | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise UserError(f"variable {self.name!r} has the role {self.role!r}; expected one of {', '.join(get_args(Role))}")

    @property
    def key(self) -> str:
        """Name and level in one string, unique within a sample: `air_temperature@850hPa`."""
        return self.name if self.level is None else f"{self.name}@{self.level}"

    @property
    def predicted(self) -> bool:
        return self.role in ("state", "diagnostic")


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """The instant of each frame.

    Args:
        seconds: float64 `(T,)`, since 2000-01-01 in `calendar`, strictly increasing. With calendar "none" the time of a
            simulation in its own unit (there is no season and no hour).
        calendar: a CF calendar name or "none".
        bounds: float64 `(T, 2)` where a value is a mean or an accumulation over an interval, else None.
    """

    seconds: np.ndarray
    calendar: str = "none"
    bounds: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", np.ascontiguousarray(self.seconds, dtype=np.float64))
        if self.calendar not in CALENDARS:
            raise UserError(f"calendar {self.calendar!r} is not one of {', '.join(CALENDARS)}")
        if self.seconds.ndim != 1 or self.seconds.size == 0 or not np.isfinite(self.seconds).all():
            raise UserError("time must be a non-empty list of finite numbers, one for each frame")
        if (np.diff(self.seconds) <= 0).any():
            where = int(np.argmax(np.diff(self.seconds) <= 0)) + 1
            raise UserError(f"time must increase from frame to frame; frame {where} does not come after frame {where - 1}")
        if self.bounds is not None:
            object.__setattr__(self, "bounds", np.ascontiguousarray(self.bounds, dtype=np.float64))
            if self.bounds.shape != (self.seconds.size, 2):
                raise UserError(f"time bounds have the shape {self.bounds.shape}; expected {(self.seconds.size, 2)}")

    @classmethod
    def regular(cls, start: float, step: float, count: int, calendar: str = "none") -> Time:
        """`count` frames, `step` apart; stored as three numbers."""
        return cls(start + step * np.arange(count), calendar)

    @classmethod
    def from_dates(cls, dates: Sequence[Any] | np.ndarray, calendar: str | None = None, bounds: Any = None) -> Time:
        """From cftime objects (which bring their calendar) or numpy datetime64 (proleptic Gregorian)."""
        array = np.asarray(dates)
        if np.issubdtype(array.dtype, np.datetime64):
            calendar = calendar or "proleptic_gregorian"
        else:
            calendar = calendar or array.ravel()[0].calendar
        calendar = OTHER_NAMES.get(calendar, calendar)
        return cls(_to_seconds(array, calendar), calendar, None if bounds is None else _to_seconds(np.asarray(bounds), calendar))

    def dates(self) -> np.ndarray:
        """The instants as cftime objects `(T,)`; an error for simulated time."""
        if self.calendar == "none":
            raise UserError("simulated time has no calendar dates")
        return np.atleast_1d(_cftime(self.calendar).num2date(self.seconds, TIME_UNITS, calendar=self.calendar))

    def labels(self) -> list[str]:
        """ISO strings, or `t=...` for simulated time."""
        if self.calendar == "none":
            return [f"t={s:.6g}" for s in self.seconds]
        if not self._gregorian:
            return [d.isoformat() for d in self.dates()]
        dates = self._datetimes()
        whole = dates == dates.astype("datetime64[s]")
        return [str(d.astype("datetime64[s]") if w else d) for d, w in zip(dates, whole, strict=True)]

    def months(self) -> np.ndarray:
        """Months since January of year 0 that have begun at each frame, int64 `(T,)`; an error for simulated time."""
        if self.calendar != "none" and self._gregorian:
            return self._datetimes().astype("datetime64[M]").astype(np.int64) + 1970 * 12
        return np.array([12 * d.year + d.month - 1 for d in self.dates()])

    def season(self) -> np.ndarray:
        """Fraction of the year gone, float32 `(T,)` in [0, 1); NaN for simulated time."""
        if self.calendar == "none":
            return np.full(self.seconds.shape, np.nan, np.float32)
        # the dates of the first and last frame are enough; one for every frame would take longer than reading it
        first, last = self[:: max(1, len(self) - 1)].months()[[0, -1]] // 12
        starts = month_starts(12 * np.arange(first, last + 2), self.calendar)
        year = np.searchsorted(starts[1:-1], self.seconds, "right")
        return ((self.seconds - starts[year]) / np.diff(starts)[year]).astype(np.float32)

    @property
    def _gregorian(self) -> bool:
        """Whether NumPy's calendar is that of every frame."""
        return self.calendar == "proleptic_gregorian" or (self.calendar == "standard" and bool(self.seconds[0] >= _GREGORIAN_START))

    def _datetimes(self) -> np.ndarray:
        whole = np.floor(self.seconds)  # apart from the rest, so that no digit is lost
        parts = np.rint((self.seconds - whole) * 1e6)
        return np.datetime64("2000-01-01", "us") + whole.astype("timedelta64[s]") + parts.astype("timedelta64[us]")

    def hour(self) -> np.ndarray:
        """Fraction of the (universal) day gone, float32 `(T,)` in [0, 1); NaN for simulated time."""
        if self.calendar == "none":
            return np.full(self.seconds.shape, np.nan, np.float32)
        return ((self.seconds % 86400.0) / 86400.0).astype(np.float32)

    def __len__(self) -> int:
        return int(self.seconds.size)

    def __getitem__(self, frames: slice) -> Time:
        return Time(self.seconds[frames], self.calendar, None if self.bounds is None else self.bounds[frames])


def month_starts(months: np.ndarray, calendar: str) -> np.ndarray:
    """The first instants of months, counted since January of year 0: float64 seconds in TIME_UNITS."""
    if calendar == "proleptic_gregorian" or (calendar == "standard" and months.min() > 1582 * 12 + 9):
        days = (months - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]")
        return (days - np.datetime64("2000-01-01", "D")).astype(np.float64) * 86400.0
    cftime = _cftime(calendar)
    dates = [cftime.datetime(m // 12, m % 12 + 1, 1, calendar=calendar) for m in months.tolist()]
    return np.asarray(cftime.date2num(dates, TIME_UNITS, calendar), np.float64)


def _to_seconds(dates: np.ndarray, calendar: str) -> np.ndarray:
    if np.issubdtype(dates.dtype, np.datetime64):
        fine = dates.astype("datetime64[ns]")
        if (fine.astype(dates.dtype) != dates).any():  # years that 64 bits of nanoseconds cannot count
            return (dates.astype("datetime64[us]") - np.datetime64("2000-01-01", "us")).astype(np.float64) / 1e6
        return (fine - np.datetime64("2000-01-01", "ns")).astype(np.float64) / 1e9
    flat = _cftime(calendar).date2num(list(dates.ravel()), TIME_UNITS, calendar=calendar)
    return np.asarray(flat, np.float64).reshape(dates.shape)


def _cftime(calendar: str) -> Any:
    """Imported where NumPy does not know the calendar, so that an installation for forecasts can do without it."""
    try:
        import cftime
    except ImportError:
        raise UserError(f"dates in the calendar {calendar} need cftime, which is not installed; run: pip install cftime") from None
    return cftime


@dataclass(frozen=True, slots=True, eq=False)
class Coordinate:
    """Values along some of the space axes: `latitude` on `("y",)`, on `("y", "x")` of a curvilinear grid, on `("x",)` of points."""

    axes: tuple[str, ...]
    values: np.ndarray
    unit: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.ascontiguousarray(self.values, dtype=np.float64))
        if any(a not in SPACE_AXES for a in self.axes) or self.values.ndim != len(self.axes):
            raise UserError(f"a coordinate on axes {self.axes} has {self.values.ndim} dimensions; expected axes among z, y, x")


@dataclass(frozen=True, slots=True)
class Boundary:
    """The kind of each side, `(low, high)` per axis. `given`: values at that side are prescribed (by a forcing variable)."""

    z: tuple[BoundaryKind, BoundaryKind] = ("open", "open")
    y: tuple[BoundaryKind, BoundaryKind] = ("open", "open")
    x: tuple[BoundaryKind, BoundaryKind] = ("open", "open")

    def __post_init__(self) -> None:
        for axis in SPACE_AXES:
            sides = getattr(self, axis)
            if len(sides) != 2 or any(s not in get_args(BoundaryKind) for s in sides):
                raise UserError(f"boundary of axis {axis} is {sides}; expected two of {', '.join(get_args(BoundaryKind))}")
            if ("periodic" in sides) and sides != ("periodic", "periodic"):
                raise UserError(f"boundary of axis {axis} is {sides}; an axis is periodic on both sides or on none")

    @classmethod
    def all(cls, kind: BoundaryKind) -> Boundary:
        return cls((kind, kind), (kind, kind), (kind, kind))

    def periodic(self, axis: str) -> bool:
        return getattr(self, axis)[0] == "periodic"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file a sample was made from; `sha256` of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample comes from: source, files, licence, who to thank, place (station, tile, region, trajectory seed).

    Args:
        about: what people and studies ask for and the model is not given, as JSON: event, magnitude, instrument, ids of stations.
    """

    source: str
    licence: str
    files: tuple[SourceFile, ...] = ()
    attribution: str = ""
    place: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """What all samples of a corpus share, so that one batch is one tensor: variables, grid, geometry, boundary, steadiness."""

    variables: tuple[Variable, ...]
    grid: tuple[int, int, int]
    geometry: Geometry
    boundary: Boundary
    steady: bool = False

    def cropped(self, y: int, x: int) -> Layout:
        """Of a part of the grid: open where it was cut, whether or not it happens to lie at an edge."""
        depth, rows, columns = self.grid
        boundary = replace(self.boundary, **{a: ("open", "open") for a, cut in (("y", y < rows), ("x", x < columns)) if cut})
        return replace(self, grid=(depth, y, x), boundary=boundary)

    def to_json(self) -> dict[str, Any]:
        return {
            "variables": [_variable_to_json(v) for v in self.variables],
            "grid": list(self.grid),
            "geometry": self.geometry,
            "boundary": {a: list(getattr(self.boundary, a)) for a in SPACE_AXES},
            "steady": self.steady,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        z, y, x = data["grid"]
        return cls(
            tuple(_variable_from_json(v) for v in data["variables"]),
            (int(z), int(y), int(x)),
            data["geometry"],
            Boundary(**{a: tuple(data["boundary"][a]) for a in SPACE_AXES}),
            bool(data["steady"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some frames of some variables on one grid, with everything needed to understand them.

    Args:
        values: float32 `(T, C, Z, Y, X)` in the variables' units.
        valid: bool, the same shape. A gap is never a zero: it is `False` here, and what stands in `values` there is
            unspecified (never read).
        variables: one per channel, keys unique.
        time: one instant per frame.
        geometry: `plane`; `sphere` (needs coordinates latitude and longitude); `points` (N stations along X, coordinates
            latitude and longitude on `("x",)`, height where known).
        boundary: kind of each side.
        coordinates: by name (`latitude`, `longitude`, `height`, `x`, `y`, `z`).
        coefficients: named floats of the equation or experiment (viscosity, wavenumber).
        steady: two frames, of which only the second holds the state (the solution); no time passes between them.
        origin: provenance.

    Raises:
        UserError: a shape, name or coordinate that does not fit, said in one sentence.
    """

    values: np.ndarray
    valid: np.ndarray
    variables: tuple[Variable, ...]
    time: Time
    origin: Origin
    geometry: Geometry = "plane"
    boundary: Boundary = field(default_factory=Boundary)
    coordinates: Mapping[str, Coordinate] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    steady: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim != 5 or self.values.dtype != np.float32:
            raise UserError(f"values are {self.values.dtype} {self.values.shape}; expected float32 (T, C, Z, Y, X)")
        if 0 in self.values.shape:
            raise UserError(f"values have the shape {self.values.shape}; an axis that a domain lacks has length 1, never 0")
        if self.valid.shape != self.values.shape or self.valid.dtype != np.bool_:
            raise UserError(f"valid is {self.valid.dtype} {self.valid.shape}; expected bool {self.values.shape}")
        t, c, *grid = self.values.shape
        if len(self.variables) != c:
            raise UserError(f"values have {c} channels and there are {len(self.variables)} variables; expected one variable per channel")
        keys = [v.key for v in self.variables]
        if len(set(keys)) != len(keys):
            raise UserError(f"variables {', '.join(keys)} are not unique; tell them apart by name or level")
        if len(self.time) != t:
            raise UserError(f"there are {t} frames and {len(self.time)} times; expected one time per frame")
        if self.geometry not in get_args(Geometry):
            raise UserError(f"geometry is {self.geometry!r}; expected one of {', '.join(get_args(Geometry))}")
        sizes = dict(zip(SPACE_AXES, grid, strict=True))
        for name, coordinate in self.coordinates.items():
            expected = tuple(sizes[a] for a in coordinate.axes)
            if coordinate.values.shape != expected:
                raise UserError(f"coordinate {name} has the shape {coordinate.values.shape} on axes {coordinate.axes}; expected {expected}")
        if self.geometry in ("sphere", "points"):
            missing = [n for n in ("latitude", "longitude") if n not in self.coordinates]
            if missing:
                raise UserError(f"a sample of geometry {self.geometry} lacks the coordinate {' and '.join(missing)}")
            if (np.abs(self.coordinates["latitude"].values) > 90.0 + 1e-6).any():
                raise UserError("a latitude lies outside -90 to 90 degrees")
        if self.geometry == "points" and grid[:2] != [1, 1]:
            raise UserError(f"points lie along X, so Z and Y have length 1; the grid is {tuple(grid)}")
        if self.steady and t != 2:
            raise UserError(f"a steady problem has two frames (the problem, the solution), not {t}")
        for name, value in self.coefficients.items():
            if not np.isfinite(value):
                raise UserError(f"coefficient {name} is {value}; expected a finite number")

    @property
    def layout(self) -> Layout:
        z, y, x = self.values.shape[2:]
        return Layout(self.variables, (z, y, x), self.geometry, self.boundary, self.steady)

    def window(self, frames: slice) -> Sample:
        """The same sample with fewer frames."""
        return replace(self, values=self.values[frames], valid=self.valid[frames], time=self.time[frames])

    def meta(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON; `from_parts` is its inverse. Coordinates on two or more axes are left to `arrays`."""
        return {
            **self.layout.to_json(),
            "time": {
                "units": "1" if self.time.calendar == "none" else TIME_UNITS,
                "calendar": self.time.calendar,
                "seconds": _compact(self.time.seconds),
                "bounds": None if self.time.bounds is None else self.time.bounds.tolist(),
                "first": self.time.labels()[0],
            },
            "coordinates": {
                name: {"axes": list(c.axes), "unit": c.unit, "values": c.values.tolist() if len(c.axes) < 2 else None}
                for name, c in self.coordinates.items()
            },
            "coefficients": {name: float(v) for name, v in self.coefficients.items()},
            "origin": {
                "source": self.origin.source,
                "licence": self.origin.licence,
                "attribution": self.origin.attribution,
                "place": self.origin.place,
                "files": [{"name": f.name, "sha256": f.sha256} for f in self.origin.files],
                **({"about": dict(self.origin.about)} if self.origin.about else {}),
            },
        }

    def coordinate_arrays(self) -> dict[str, np.ndarray]:
        """Coordinates on two or more axes, too large for JSON: name to float64 array."""
        return {name: c.values for name, c in self.coordinates.items() if len(c.axes) > 1}

    @classmethod
    def from_parts(
        cls, meta: Mapping[str, Any], values: np.ndarray, valid: np.ndarray, arrays: Mapping[str, np.ndarray] | None = None
    ) -> Sample:
        """Inverse of `meta` and `coordinate_arrays`."""
        layout = Layout.from_json(meta)
        time, origin = meta["time"], meta["origin"]
        coordinates = {
            name: Coordinate(
                tuple(c["axes"]), np.asarray(c["values"] if c["values"] is not None else (arrays or {})[name], np.float64), c["unit"]
            )
            for name, c in meta["coordinates"].items()
        }
        return cls(
            values=values,
            valid=valid,
            variables=layout.variables,
            time=Time(_expand(time["seconds"]), time["calendar"], None if time["bounds"] is None else np.asarray(time["bounds"])),
            origin=Origin(
                origin["source"],
                origin["licence"],
                tuple(SourceFile(f["name"], f["sha256"]) for f in origin["files"]),
                origin["attribution"],
                origin["place"],
                origin.get("about", {}),
            ),
            geometry=layout.geometry,
            boundary=layout.boundary,
            coordinates=coordinates,
            coefficients=dict(meta["coefficients"]),
            steady=layout.steady,
        )


def _variable_to_json(v: Variable) -> dict[str, Any]:
    level = None if v.level is None else {"kind": v.level.kind, "value": v.level.value}
    return {"name": v.name, "unit": v.unit, "role": v.role, "level": level}


def _variable_from_json(data: Mapping[str, Any]) -> Variable:
    level = data["level"]
    return Variable(data["name"], data["unit"], data["role"], None if level is None else Level(level["kind"], float(level["value"])))


def _compact(seconds: np.ndarray) -> Any:
    """A long regular axis as three numbers where that gives back the same bits, else the list."""
    if seconds.size > 8:
        start, step = float(seconds[0]), float(np.round((seconds[-1] - seconds[0]) / (seconds.size - 1), 9))
        if np.array_equal(start + step * np.arange(seconds.size), seconds):
            return {"start": start, "step": step, "count": int(seconds.size)}
    return seconds.tolist()


def _expand(seconds: Any) -> np.ndarray:
    if isinstance(seconds, Mapping):
        return seconds["start"] + seconds["step"] * np.arange(int(seconds["count"]))
    return np.asarray(seconds, np.float64)
