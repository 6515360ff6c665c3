"""Instruments: the components of a station with one band and one sensor; what they measure, which way they point, where they stand."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scigpt.data.variables import convert
from scigpt.data_prep.formats import sac
from scigpt.data_prep.seismic import orientation
from scigpt.data_prep.seismic.stationxml import Metadata
from scigpt.data_prep.seismic.waveforms import Header, Timeline
from scigpt.data_prep.seismic.windows import Grid
from scigpt.errors import UserError

UNITS: Mapping[str, str] = {
    "ground_velocity": "m s**-1",
    "ground_acceleration": "m s**-2",
    "ground_displacement": "m",
    "seismic_counts": "count",
    "acoustic_pressure": "Pa",
    "pressure_counts": "count",
}
"""Of each kind of measurement; the name of a variable is this and a direction."""
OUTPUTS = {"velocity": "VEL", "displacement": "DISP", "acceleration": "ACC"}
_ORDER = ("east", "north", "up", "radial", "transverse", "horizontal_1", "horizontal_2", "horizontal_3")


def order_of(name: str) -> tuple[int, int]:
    """Where a variable stands among the others."""
    prefix = prefix_of(name)
    direction = name[len(prefix) + 1 :]
    return list(UNITS).index(prefix), _ORDER.index(direction) if direction in _ORDER else -1


def prefix_of(name: str) -> str:
    return next(p for p in UNITS if name.startswith(p))


def motion(header: Header, options: Any) -> tuple[str, float]:
    """What a channel measures and by which factor its numbers become that quantity's unit.

    Raises:
        UserError: SAC values that are not counts, in a unit that nobody states.
    """
    pressure = header.id.split(".")[3][1:2] == "D"
    if options.response:
        return ("acoustic_pressure" if pressure else f"ground_{options.motion}"), 1.0
    stated = sac.MOTION.get(header.sac.get("idep", 0)) if header.sac else None
    if options.sac_unit in (None, "count") or not header.sac:
        if stated is not None and options.sac_unit is None:
            raise UserError(
                f"{header.path.name} says that it holds {stated}; give its unit (sac_unit=nm/s for velocity as the SAC manual has it, "
                "m/s, m/s**2), or sac_unit=count if these are raw counts"
            )
        return ("pressure_counts" if pressure else "seismic_counts"), 1.0
    for prefix in ("acoustic_pressure",) if pressure else ("ground_velocity", "ground_acceleration", "ground_displacement"):
        try:
            return prefix, float(convert(np.ones(1), options.sac_unit, UNITS[prefix], "sac_unit")[0])
        except UserError:
            continue
    raise UserError(f"sac_unit={options.sac_unit} is no unit of velocity, acceleration or displacement (nm/s, m/s, m/s**2), nor count")


def named(found: orientation.Weights, prefix: str) -> dict[str, dict[str, float]]:
    """Weights by the names of variables."""
    return {f"{prefix}_{direction}": parts for direction, parts in found.items()}


def instruments_of(headers: Sequence[Header], options: Any) -> dict[str, Timeline]:
    """Headers by instrument (`NET.STA.LOC.BI`), in time order; of each station the preferred one, or every one.

    Raises:
        UserError: no channel that matches.
    """
    found: dict[str, list[Header]] = {}
    for header in headers:
        if options.channels is None or fnmatch.fnmatchcase(header.id, options.channels):
            found.setdefault(header.id[:-1], []).append(header)
    if not found:
        channels = ", ".join(sorted({h.id for h in headers})[:8])
        raise UserError(f"no seismogram matches channels={options.channels}; there are {channels}")
    if options.every:
        return {name: Timeline(found[name]) for name in sorted(found)}
    best: dict[str, list[tuple[int, str]]] = {}
    for name in found:
        network, station, _, code = name.split(".")
        rank = options.prefer.index(code) if code in options.prefer else len(options.prefer)
        best.setdefault(f"{network}.{station}", []).append((rank, name))
    return {name: Timeline(found[name]) for name in sorted(min(names)[1] for names in best.values())}


def weights_of(
    headers: Sequence[Header], name: str, at: int, options: Any, metadata: Metadata, back_azimuth: float | None, note: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """How each variable is put together from the components of an instrument; none where responses, directions or partners are lacking.

    Raises:
        UserError: a direction that is not known.
    """
    ids, prefix = {h.id[-1]: h.id for h in headers}, motion(headers[0], options)[0]
    where, rotate = headers[0].path.name, options.rotate
    if options.response:
        for letter, channel in list(ids.items()):
            if not metadata.has_response(channel, at):
                note(f"{channel} is left out: no StationXML gives its response")
                del ids[letter]
    if not ids:
        return {}
    if prefix in ("acoustic_pressure", "pressure_counts"):
        if len(ids) > 1:
            raise UserError(f"{name} has {len(ids)} channels of pressure; choose one with channels=")
        return {prefix: dict.fromkeys(ids, 1.0)}
    if rotate == "none":
        directions = {**orientation.LETTERS, **{d: f"horizontal_{d}" for d in "123"}}
        if odd := sorted(set(ids) - set(directions)):
            raise UserError(f"{where}: the component {ids[odd[0]]} has no name of a direction; leave it out with channels=")
        return named({directions[c]: {c: 1.0} for c in sorted(ids)}, prefix)
    by_sac = orientation.by_header({h.id: h for h in headers})
    found = orientation.weights(ids, lambda c: metadata.orientation(c, at) or by_sac(c), where, name, note)
    if rotate == "zrt":
        if back_azimuth is None:
            raise UserError(f"{where}: rotate=zrt needs the place of {name}; give a StationXML as --input too")
        found = orientation.along(found, back_azimuth)
    return named(found, prefix)


def place_of(header: Header, at: int, metadata: Metadata) -> dict[str, float] | None:
    """By the StationXML, else by the SAC header."""
    return metadata.place(header.id, at) or orientation.place_by_header(header)


def told(place: Mapping[str, float] | None) -> dict[str, float]:
    """What is known of a place."""
    return {n: v for n, v in (place or {}).items() if not np.isnan(v)}


def off_grid(headers: Sequence[Header], grid: Grid, note: Callable[[str], None]) -> None:
    """Note the traces that begin between two samples of the grid."""
    for header in headers:
        exact = (header.start - grid.begin) / 1e9 * header.rate
        if abs(exact - round(exact)) > 0.01:
            moved = f"{header.id} in {header.path.name} is moved by {round(exact) - exact:+.2f} sample intervals"
            note(f"{moved} to the grid of its window")


def covered(headers: Sequence[Header], low: int, high: int) -> int:
    """Nanoseconds of a span in which anything was recorded."""
    total, reached = 0, low
    for header in sorted(headers, key=lambda h: h.start):
        start, stop = max(header.start, reached), min(header.stop, high)
        if stop > start:
            total, reached = total + stop - start, stop
    return total
