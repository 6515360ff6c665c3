"""Which variables of a dataset are the inputs of a domain: by CF standard name, by name, by alias, and by level."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from scigpt.data.conventions import MILLIBAR, extreme, level_kind
from scigpt.data.domain import Domain
from scigpt.data.sample import LEVEL_UNITS, Level, LevelKind, Variable
from scigpt.data.variables import QUANTITIES, WATER_DEPTH, convert
from scigpt.errors import UserError

HEIGHTS = ("height", "altitude", "surface_altitude", "elevation", "station_height", "alt")
"""What the height of a station is called."""
NEAR_SURFACE = 10.0
"""Metres: what is said to be this low is often not said to be at a level at all."""
_SUFFIX = re.compile(r"(?P<name>.+)[@_](?P<value>\d+(?:\.\d+)?)(?P<unit>hPa|mdepth|m)")
_KINDS: dict[str, LevelKind] = {"hPa": "pressure", "m": "height", "mdepth": "depth"}


@dataclass(frozen=True, slots=True)
class Match:
    """Channel number `channel` of a domain and the variable of a dataset, or level of it, that holds it.

    Args:
        name: in the dataset.
        unit: that its values have.
        level: dimension of levels and the position on it, None without one.
    """

    channel: int
    variable: Variable
    name: str
    unit: str
    level: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    standard: str | None
    names: tuple[str, ...]
    """What it calls itself, without a level in it."""
    extreme: str | None
    levels: tuple[tuple[Level | None, tuple[str, int] | None], ...]


def inputs(domain: Domain) -> list[tuple[int, Variable]]:
    """The channels that have to be given. A diagnostic is predicted only, and so is the solution of a steady problem."""
    steady = domain.layout.steady
    return [(c, v) for c, v in enumerate(domain.layout.variables) if v.role != "diagnostic" and not (steady and v.role == "state")]


def match(dataset: xr.Dataset, domain: Domain) -> tuple[list[Match], list[Variable]]:
    """The inputs of a domain that a dataset holds, and those that it lacks.

    Raises:
        UserError: two variables that could equally be one input, or a level without a usable unit.
    """
    candidates = list(_candidates(dataset, domain))
    names = {v.name for v in domain.layout.variables}
    found, missing = [], []
    for channel, variable in inputs(domain):
        ranked = sorted(_ranked(candidates, variable, names), key=lambda r: r[0])
        best = [r for r in ranked if r[0] == ranked[0][0]]
        if not best:
            missing.append(variable)
            continue
        if len(best) > 1:
            raise UserError(
                f"the dataset's variables {', '.join(c.name for _, c, _ in best)} could each be {variable.key} of {domain.name}; "
                f"keep one of them, or call the right one {variable.key}"
            )
        _, one, level = best[0]
        found.append(Match(channel, variable, one.name, _unit(dataset, one.name, variable), level))
    return found, missing


def lacking(dataset: xr.Dataset, domain: Domain, missing: Sequence[Variable]) -> str:
    """What a dataset lacks to be used, as a part of a sentence."""
    wanted = ", ".join(f"{v.key} [{v.unit}]{' (a forcing)' if v.role == 'forcing' else ''}" for v in missing)
    near = []
    for candidate in _candidates(dataset, domain):
        levels = [str(level) for level, _ in candidate.levels if level is not None]
        near.append(candidate.name + (f" at {', '.join(levels)}" if levels else ""))
    return f"{wanted}, looked for by standard_name, name and level; the dataset has {', '.join(near) or 'no variables'}"


def _ranked(
    candidates: Sequence[_Candidate], wanted: Variable, names: set[str]
) -> Iterator[tuple[tuple[int, int], _Candidate, tuple[str, int] | None]]:
    for candidate in candidates:
        tier = 0 if candidate.name == wanted.key else _tier(candidate, wanted.name, names)
        if tier is None:
            continue
        fits = [(_fit(level, wanted, len(candidate.levels)), where) for level, where in candidate.levels]
        for fit, where in fits:
            if fit is not None:
                yield (tier, fit), candidate, where


def _tier(candidate: _Candidate, wanted: str, names: set[str]) -> int | None:
    """How surely a variable is a quantity: 1 by standard name, 2 by name, 3 by an alias; one more where it is a maximum or minimum."""
    quantity = QUANTITIES.find(candidate.standard, *candidate.names)
    own = f"{quantity.name}_{candidate.extreme}" if quantity is not None and candidate.extreme else None
    if own in names:
        return 1 if wanted == own else None
    late = 10 * (candidate.extreme is not None)
    told = QUANTITIES.find(candidate.standard)
    if candidate.standard == wanted or (told is not None and told.name == wanted):
        return 1 + late
    if wanted in candidate.names:
        return 2 + late
    return 3 + late if quantity is not None and quantity.name == wanted else None


def _fit(level: Level | None, wanted: Variable, count: int) -> int | None:
    """How well a level fits: 0 exactly, 1 by the habit of near-surface variables not to name theirs; None not at all."""
    if wanted.level is None or level is None:
        if wanted.level is level:
            return 0
        named = level or wanted.level
        habit = count == 1 and named is not None and named.kind == "height" and named.value <= NEAR_SURFACE
        return 1 if habit else None
    return 0 if level.kind == wanted.level.kind and np.isclose(level.value, wanted.level.value, rtol=1e-3) else None


def _candidates(dataset: xr.Dataset, domain: Domain) -> Iterator[_Candidate]:
    edges = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in dataset.variables.values()}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind not in "iufb" or name in edges or name in dataset.dims:
            continue
        if name in dataset.coords and variable.ndim == 0:
            continue
        told = variable.attrs.get("standard_name")
        standard = told.split()[0] if isinstance(told, str) and told.strip() else None
        own, level = str(name), None
        if (suffix := _SUFFIX.fullmatch(own)) is not None:
            own, level = suffix["name"], Level(_KINDS[suffix["unit"]], float(suffix["value"]))
        short = variable.attrs.get("GRIB_shortName")
        names = tuple(dict.fromkeys([own, str(name), *([short] if isinstance(short, str) else [])]))
        levels = ((level, None),) if level is not None else tuple(_levels(dataset, str(name), domain))
        yield _Candidate(str(name), standard, names, extreme(own, variable.attrs), levels)


def _levels(dataset: xr.Dataset, name: str, domain: Domain) -> Iterator[tuple[Level | None, tuple[str, int] | None]]:
    own, claimed = _told(dataset.variables[name]), {n for v in dataset.variables.values() for n in _told(v)}
    scalars = []
    for other, coordinate in dataset[name].coords.items():
        kind = level_kind(str(other), coordinate.attrs) if coordinate.ndim < 2 and coordinate.dtype.kind in "iuf" else None
        # how high a station stands is a place and no level
        place = str(other).lower() in HEIGHTS and domain.layout.geometry == "points" and coordinate.dims != (other,)
        if kind is None or place or (coordinate.ndim == 1 and coordinate.dims != (other,)):
            continue
        if coordinate.ndim == 1:
            dim = str(other)
            yield from ((level, (dim, i)) for i, level in enumerate(_values(coordinate.variable, kind, dim)))
            return
        # a dataset shows a scalar coordinate with all variables, a file names it with those that it belongs to
        if str(other) in own or str(other) not in claimed:
            scalars += _values(coordinate.variable, kind, str(other))
    if len(scalars) == 1:
        yield scalars[0], None
        return
    implied = re.search(r"\d+", name) if name in QUANTITIES else None  # t2m, 10m_u_component_of_wind
    yield (Level("height", float(implied[0])) if implied else None), None


def _told(variable: xr.Variable) -> list[str]:
    """The coordinates that a variable of a file names."""
    return str(variable.encoding.get("coordinates", variable.attrs.get("coordinates", ""))).split()


def _values(coordinate: xr.Variable, kind: LevelKind, name: str) -> list[Level]:
    unit = str(coordinate.attrs.get("units") or LEVEL_UNITS[kind])
    numbers = np.atleast_1d(coordinate.to_numpy()).astype(np.float64)
    numbers = np.round(convert(numbers, MILLIBAR.get(unit, unit), LEVEL_UNITS[kind], f"the dataset's coordinate {name}"), 6)
    return [Level(kind, float(v)) for v in numbers]


def _unit(dataset: xr.Dataset, name: str, wanted: Variable) -> str:
    told = dataset.variables[name].attrs.get("units")
    if told is None and wanted.unit == "1":
        return "1"
    if not isinstance(told, str):
        raise UserError(f"the dataset's variable {name} has no units attribute; expected one that converts to {wanted.unit!r}")
    unit = told.strip()
    if wanted.name.startswith("precipitation"):
        unit = WATER_DEPTH.get(unit, unit)
    convert(np.zeros(1), unit, wanted.unit, f"the dataset's variable {name}")
    return unit
