"""Which way the components of a seismometer point, and how east, north, up, radial and transverse are put together from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scigpt.data.sample import Coordinate
from scigpt.data_prep.seismic.waveforms import Header
from scigpt.errors import UserError

DIRECTIONS = ("east", "north", "up")
LETTERS = {"E": "east", "N": "north", "Z": "up"}
ALIGNED = 2.0
"""Degrees within which a lone component counts as pointing along an axis."""
NAMED = 5.0
"""Degrees by which E, N and Z may point elsewhere and still be named so, by the SEED manual."""

Weights = dict[str, dict[str, float]]
"""How each direction is put together from the components: `{"north": {"1": 0.9, "2": -0.4}}`."""
Orient = Callable[[str], tuple[float, float] | None]
"""Azimuth and dip in degrees of the component of an id; None where they are not known."""


def unit_vector(azimuth: float, dip: float) -> np.ndarray:
    """`(3,)`, east, north, up, of a component; a dip is counted down from the horizontal (SEED manual, blockette 52)."""
    a, d = np.deg2rad(azimuth), np.deg2rad(dip)
    return np.array([np.sin(a) * np.cos(d), np.cos(a) * np.cos(d), -np.sin(d)])


def weights(ids: Mapping[str, str], orient: Orient, where: str, name: str, note: Callable[[str], None] | None = None) -> Weights:
    """How each direction is put together from the components.

    Args:
        ids: of each component, by its letter.
        where: the file, for messages; `name`: the instrument.
        note: takes the note that a component is left out because those that it needs as partners are not there; None refuses it.

    Raises:
        UserError: a component whose direction is not known, or components that do not determine a direction.
    """
    result: Weights = {}
    turned: dict[str, np.ndarray] = {}
    for letter in sorted(ids):
        known = orient(ids[letter])
        nominal = np.array([float(LETTERS.get(letter) == d) for d in DIRECTIONS])
        if known is None and letter not in LETTERS:
            raise UserError(
                f"{where}: the component {ids[letter]} does not say which way it points; "
                "expected E, N or Z, or 1 and 2 with the azimuths of a StationXML"
            )
        if known is None or (letter in LETTERS and float(unit_vector(*known) @ nominal) > np.cos(np.deg2rad(NAMED))):
            result[LETTERS[letter]] = {letter: 1.0}
        else:
            turned[letter] = unit_vector(*known)
    if not turned:
        return result
    if len(turned) == 3:
        inverse = np.linalg.pinv(np.array(list(turned.values())))
        if result or np.linalg.matrix_rank(inverse, tol=0.1) < 3:
            raise UserError(f"{name} has the components {''.join(sorted(ids))}; choose three that span space with channels=")
        return {d: dict(zip(turned, map(float, row), strict=True)) for d, row in zip(DIRECTIONS, inverse, strict=True)}
    steep = {c: float(np.rad2deg(np.arcsin(np.clip(-v[2], -1, 1)))) for c, v in turned.items()}
    alone = [c for c in turned if 90 - abs(steep[c]) <= ALIGNED]
    for letter in alone:
        if "up" not in result:
            result["up"] = {letter: float(np.sign(turned.pop(letter)[2]))}
    for letter in [c for c in turned if abs(steep[c]) > ALIGNED]:
        dip = f"{where}: the component {ids[letter]} dips by {steep[letter]:g} degrees"
        if note is None:
            raise UserError(f"{dip}; expected a horizontal, leave it out with channels=")
        note(f"{ids[letter]} dips by {steep[letter]:g} degrees; it is left out where the components are not three")
        del turned[letter]
    if len(turned) == 2:
        if "north" in result or "east" in result:
            raise UserError(f"{name} has the components {''.join(sorted(ids))}; choose one set of horizontals with channels=")
        flat = np.array([v[[1, 0]] for v in turned.values()])
        if abs(np.linalg.det(flat)) < 0.1:
            raise UserError(f"{name}: its horizontals {' and '.join(turned)} point almost the same way; leave one out with channels=")
        for row, direction in zip(np.linalg.pinv(flat), ("north", "east"), strict=True):
            result[direction] = {c: float(w) for c, w in zip(turned, row, strict=True)}
        return result
    for letter, vector in turned.items():
        result |= _lone(letter, vector, result, name, note)
    return result


def _lone(letter: str, vector: np.ndarray, result: Weights, name: str, note: Callable[[str], None] | None) -> Weights:
    for direction, weight in (("north", vector[1]), ("east", vector[0])):
        if abs(weight) > np.cos(np.deg2rad(ALIGNED)) and direction not in result:
            return {direction: {letter: float(np.sign(weight))}}
    points = f"{name}{letter} points to azimuth {np.rad2deg(np.arctan2(vector[0], vector[1])) % 360:.4g} degrees"
    if note is None:
        raise UserError(f"{points}; a lone horizontal must point north or east, give its partner too or leave it out with channels=")
    note(f"{points}; it is left out where its partner is missing")
    return {}


def along(found: Weights, back_azimuth: float) -> Weights:
    """Radial (away from the source) and transverse (to the right of it) in the place of north and east, and up."""
    kept = {d: w for d, w in found.items() if d == "up"}
    if "north" not in found or "east" not in found:
        return kept
    angle = np.deg2rad(back_azimuth)
    turns = {"radial": (-np.cos(angle), -np.sin(angle)), "transverse": (np.sin(angle), -np.cos(angle))}
    for direction, (north, east) in turns.items():
        parts: dict[str, float] = {}
        for share, old in ((north, found["north"]), (east, found["east"])):
            for letter, weight in old.items():
                parts[letter] = parts.get(letter, 0.0) + float(share) * weight
        kept[direction] = parts
    return kept


def by_header(headers: Mapping[str, Header]) -> Orient:
    """From the SAC headers of the components, by id."""

    def orient(channel: str) -> tuple[float, float] | None:
        fields = headers[channel].sac if channel in headers else {}
        if "cmpaz" not in fields or "cmpinc" not in fields:
            return None
        return float(fields["cmpaz"]), float(fields["cmpinc"]) - 90.0

    return orient


def coordinates(place: Mapping[str, float | Sequence[float]]) -> dict[str, Coordinate]:
    """Of one station, or of several side by side along X; a height that is not known is NaN."""
    units = {"latitude": "degrees_north", "longitude": "degrees_east", "height": "m"}
    return {n: Coordinate(("x",), np.atleast_1d(place.get(n, np.nan)), unit) for n, unit in units.items()}


def place_by_header(header: Header) -> dict[str, float] | None:
    """From a SAC header; None where it does not say, and a height of NaN where it says no height."""
    fields = header.sac
    if "stla" not in fields or "stlo" not in fields:
        return None
    return {"latitude": float(fields["stla"]), "longitude": float(fields["stlo"]), "height": float(fields.get("stel", np.nan))}
