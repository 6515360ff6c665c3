"""Tracks: the records of a user's own file, of a table or of arrays alike, and what the columns and variables of its map become."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scigpt.data.gaps import HOLE
from scigpt.data.sample import LEVEL_UNITS, Boundary, Coordinate, Geometry, Level, Origin, Sample, Time, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.blocks import MIN_FRAMES
from scigpt.data_prep.datamap import Channel, Sides
from scigpt.errors import UserError


@dataclass(frozen=True, eq=False)
class Track:
    """The frames of one station, file or trajectory (or of all stations of a file, as points).

    Args:
        place: names the record to people; `whole` is what a split by station, file or trajectory keeps together.
        grid: `(Z, Y, X)`.
        read: frames start..stop as float32 `(T, C, Z, Y, X)`, NaN where there is no value.
        known: false where the grid itself has no place (land of an ocean grid).
        where: place of a frame in the file, for messages.
        filled: whether all values are in memory, so that looking at them costs nothing.
    """

    place: str
    whole: str
    path: Path
    variables: tuple[Variable, ...]
    time: Time
    grid: tuple[int, int, int]
    read: Callable[[int, int], np.ndarray]
    where: Callable[[int], str]
    geometry: Geometry
    boundary: Boundary
    coordinates: Mapping[str, Coordinate] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)
    steady: bool = False
    known: np.ndarray | bool = True
    filled: bool = False

    @property
    def frame_bytes(self) -> int:
        return 5 * len(self.variables) * int(np.prod(self.grid))

    def segments(self) -> list[tuple[int, int]]:
        """Ranges of frames without a hole in time.

        Raises:
            UserError: two different steps in one record.
        """
        steps = np.diff(self.time.seconds)
        if self.steady or not steps.size:
            return [(0, len(self.time))]
        usual = float(np.median(steps))
        holes = steps > HOLE * usual
        again = holes[1:] & holes[:-1] & np.isclose(steps[1:], steps[:-1], rtol=0.01)
        mixed = steps < usual / HOLE
        mixed[2:] |= again[1:] & again[:-1]  # three long steps of one length in a row are another step, not holes
        if mixed.any():
            frame, unit = int(np.argmax(mixed)), "" if self.time.calendar == "none" else " seconds"
            raise UserError(
                f"{self.path.name}, {self.where(frame + 1)}: a step of {steps[frame]:g} stands beside the usual {usual:g}{unit}; expected "
                "one step in a record, resample it or split the file (axes.time.step fills what lies between the rows of a table)"
            )
        cuts = (np.flatnonzero(holes) + 1).tolist()
        return list(itertools.pairwise([0, *cuts, len(self.time)]))

    def empty(self, start: int, stop: int) -> bool:
        """Whether no variable to predict has a value in these frames."""
        predicted = [c for c, v in enumerate(self.variables) if v.predicted]
        return not np.isfinite(self.read(start, stop)[:, predicted]).any()

    def sample(self, start: int, stop: int, origin: Origin) -> Sample:
        """Frames start..stop."""
        values = self.read(start, stop)
        valid = np.isfinite(values) & self.known
        if self.steady:
            valid[0, [v.predicted for v in self.variables]] = False
        values[~valid] = 0.0
        if not valid[:, [v.predicted for v in self.variables]].any():
            raise UserError(f"{self.path.name}, {self.where(start)}: no variable to predict has a value up to {self.where(stop - 1)}")
        return Sample(
            values, valid, self.variables, self.time[start:stop], origin, self.geometry, self.boundary, self.coordinates,
            self.coefficients, self.steady,
        )  # fmt: skip


def long_enough(segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without those too short to be scored, unless all are."""
    return [s for s in segments if s[1] - s[0] >= MIN_FRAMES] or segments


def make_variable(column: str, channel: Channel, unit: str | None, level: Level | None, where: str) -> Variable:
    """What a column becomes: a quantity of the registry in its unit there, or one of the user's own.

    Raises:
        UserError: no unit, or one that cannot be converted, or a name that is none.
    """
    name = channel.name or column
    quantity = QUANTITIES.find(name)
    if unit is None or not unit.strip():
        raise UserError(f"{where} has no unit; state variables.{column}.unit in the map ('1' for a pure number)")
    if quantity is not None:
        convert_channel(np.zeros(1), unit, quantity.name, quantity.unit, where)
        return Variable(quantity.name, quantity.unit, channel.role, level)
    own = name if channel.name else re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", own):
        raise UserError(f"{where}: {own!r} cannot be the name of a variable; give variables.{column}.name, letters, digits and _")
    return Variable(own, unit, channel.role, level)


def convert_channel(values: np.ndarray, unit: str, name: str, target: str, where: str) -> np.ndarray:
    """As `convert`; a depth of water (`in/day`) counts as its mass where the quantity is precipitation."""
    try:
        return convert(values, unit, target, where)
    except UserError:
        if name.startswith("precipitation"):
            return convert(values, f"({unit}) * 1000 * kg / m**3", target, f"{where}, water of unit {unit}")
        raise


def parse_level(text: str | None, where: str) -> Level | None:
    """`850 hPa`, `2 m`, `10 m depth` as a Level.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([-+\d.eE]+)\s*([A-Za-z]+)\s*(depth|height)?\s*", text)
    if match is None:
        raise UserError(f"{where}: the level {text!r} is not of the form '850 hPa', '2 m' or '10 m depth'")
    number, unit, word = match.groups()
    try:
        if word is None:
            try:
                value, kind = convert(np.array([float(number)]), unit, LEVEL_UNITS["pressure"]), "pressure"
            except UserError:
                value, kind = convert(np.array([float(number)]), unit, "m"), "height"
        else:
            value, kind = convert(np.array([float(number)]), unit, "m"), word
    except ValueError:
        raise UserError(f"{where}: the level {text!r} is not of the form '850 hPa', '2 m' or '10 m depth'") from None
    return Level(kind, round(float(value[0]), 6))  # type: ignore[arg-type]


def boundary(sides: Sides, found: Boundary) -> Boundary:
    """The boundary of the map where it states one, else what the coordinates say."""
    stated = {}
    for axis in "zyx":
        kinds = getattr(sides, axis)
        if kinds is not None:
            if len(kinds) not in (1, 2):
                raise UserError(f"boundary.{axis} names {len(kinds)} kinds; expected one for both sides, or two (low, high)")
            stated[axis] = (kinds[0], kinds[-1])
    return Boundary(**{a: stated.get(a, getattr(found, a)) for a in "zyx"})
