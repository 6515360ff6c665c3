"""Earthquakes and shots: their catalogues (QuakeML, tables), picks, and first arrivals of a standard earth."""

from __future__ import annotations

import bisect
import functools
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scigpt.data_prep.datamap import TableFormat, TimeAxis
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.instants import instants
from scigpt.data_prep.seismic.waveforms import EPOCH, obspy
from scigpt.data_prep.tables import read_table
from scigpt.errors import UserError

LATE = 3600 * 10**9
"""Nanoseconds after an earthquake within which its first waves come everywhere, with room to spare."""
_FIRST_P = re.compile(r"[ei]?[Pp](n|g|b|\*|dif+|K(P|IKP)\w*)?")
_FIRST_S = re.compile(r"[ei]?[Ss](n|g|b|\*|dif+|K(S|IKS)\w*)?")


@dataclass(frozen=True)
class Pick:
    """The arrival of a phase (`P` or `S`, whichever branch) at a station; `manual` where a person made it."""

    phase: str
    time: int
    network: str
    station: str
    manual: bool


@dataclass(frozen=True)
class Event:
    """An earthquake or a shot.

    Args:
        time: nanoseconds since 1970.
        depth: km; None where it is not known.
        kind: as the catalogue says, `earthquake`, `explosion`.
    """

    id: str
    time: int
    latitude: float
    longitude: float
    depth: float | None = None
    magnitude: float | None = None
    magnitude_type: str = ""
    kind: str = ""
    picks: tuple[Pick, ...] = ()

    def about(self) -> dict[str, Any]:
        """As JSON; what is not known is left out."""
        told = {
            "id": self.id,
            "time": np.datetime_as_string(np.datetime64(self.time, "ns"), unit="us") + "Z",
            "latitude": self.latitude,
            "longitude": self.longitude,
            "depth_km": self.depth,
            "magnitude": self.magnitude,
            "magnitude_type": self.magnitude_type or None,
            "kind": self.kind or None,
        }
        return {k: v for k, v in told.items() if v is not None}


def is_quakeml(head: bytes) -> bool:
    return b"<" in head and b"quakeml" in head.lower()


def read_quakeml(path: Path, notes: list[str]) -> list[Event]:
    """The events of a QuakeML file with a preferred (else a first) origin, in its order.

    Raises:
        UserError: not QuakeML, or damaged.
    """
    return parse_quakeml(path.read_bytes(), path, notes)


def parse_quakeml(body: bytes, path: Path, notes: list[str]) -> list[Event]:
    """As `read_quakeml`; `path` is how messages call the body."""
    with one_sentence(path, "read as QuakeML"):
        catalogue = obspy().read_events(io.BytesIO(body), format="QUAKEML")
    found = []
    for number, event in enumerate(catalogue, 1):
        name = str(event.resource_id.id) if event.resource_id else f"{path.stem}-{number}"
        origin = event.preferred_origin() or (event.origins[0] if event.origins else None)
        if origin is None or origin.time is None or origin.latitude is None or origin.longitude is None:
            notes.append(f"{path.name}: event {name} is left out, it has no origin with a time and a place")
            continue
        magnitude = event.preferred_magnitude() or (event.magnitudes[0] if event.magnitudes else None)
        found.append(
            Event(
                name,
                origin.time.ns,
                float(origin.latitude),
                float(origin.longitude),
                None if origin.depth is None else float(origin.depth) / 1000,
                None if magnitude is None else float(magnitude.mag),
                "" if magnitude is None else str(magnitude.magnitude_type or ""),
                str(event.event_type or ""),
                tuple(_picks(event, origin)),
            )
        )
    return found


def _picks(event: Any, origin: Any) -> list[Pick]:
    """Those that are not rejected; what an arrival of the origin says of the phase counts more than the pick's own hint."""
    phases = {str(a.pick_id): str(a.phase) for o in (*event.origins, origin) for a in o.arrivals if a.pick_id and a.phase}
    found = []
    for pick in event.picks:
        where, name = pick.waveform_id, phases.get(str(pick.resource_id), str(pick.phase_hint or ""))
        phase = "P" if _FIRST_P.fullmatch(name) else "S" if _FIRST_S.fullmatch(name) else ""
        if phase and where is not None and where.station_code and pick.evaluation_status != "rejected":
            found.append(Pick(phase, pick.time.ns, where.network_code or "", where.station_code, pick.evaluation_mode == "manual"))
    return found


def is_shot_list(path: Path) -> bool:
    """Whether this is a table of shots, by the names of its columns."""
    if path.is_dir() or path.suffix.lower() not in (".csv", ".txt"):
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        line = next((li for li in file if li.strip() and not li.startswith("#")), "")
    return {"id", "time", "latitude", "longitude"} <= set(re.split(r"[,;\s]+", line.strip().lower()))


def read_shots(path: Path) -> list[Event]:
    """A table with the columns id, time (ISO 8601, UTC), latitude, longitude and, where known, depth in m and magnitude.

    Raises:
        UserError: a column that is not there, a cell that cannot be read, or a shot that stands there twice.
    """
    table = read_table(path, TableFormat(comment="#"))
    seconds, _ = instants(table, TimeAxis(column=("time",)))
    names = table.text("id", "the table of shots")
    numbers = {n: table.numbers(n, "the table of shots") for n in ("latitude", "longitude", "depth", "magnitude") if n in table.frame}
    for name in ("latitude", "longitude"):
        wrong = ~np.isfinite(numbers[name]) if name in numbers else None
        if wrong is None:
            table.text(name, "the table of shots")
        elif wrong.any():
            raise UserError(f"{table.at(int(np.argmax(wrong)))}: the shot has no {name}")
    again = names.duplicated().to_numpy()
    if again.any():
        row = int(np.argmax(again))
        raise UserError(f"{table.at(row)}: the shot {names.iloc[row]!r} stands there twice; ids must be unique")
    found = []
    for row, name in enumerate(names):
        depth, magnitude = (
            float(numbers[n][row]) if n in numbers and np.isfinite(numbers[n][row]) else None for n in ("depth", "magnitude")
        )
        time = EPOCH + round(float(seconds[row]) * 1e6) * 1000
        where = float(numbers["latitude"][row]), float(numbers["longitude"][row])
        found.append(Event(str(name), time, *where, None if depth is None else depth / 1000, magnitude, kind="shot"))
    return found


def distance_to(event: Event, place: Mapping[str, float]) -> tuple[float, float, float]:
    """Distance in km and in degrees, and back-azimuth (the direction of the event as seen from the station) in degrees."""
    obspy()
    from obspy.geodetics import gps2dist_azimuth, locations2degrees

    metres, _, back = gps2dist_azimuth(event.latitude, event.longitude, place["latitude"], place["longitude"])
    degrees = locations2degrees(event.latitude, event.longitude, place["latitude"], place["longitude"])
    return metres / 1000, float(degrees), float(back)


class Arrivals:
    """When the phases of all events arrive at one station: the pick of each, a person's before a program's, then the earliest.

    Args:
        picked: at any station, by that station's code: the numbers of events, and their picks.
    """

    def __init__(self, events: Sequence[Event], picked: Mapping[str, Sequence[tuple[int, Pick]]], network: str, station: str) -> None:
        self.events = events
        best: dict[str, dict[int, Pick]] = {"p": {}, "s": {}}
        for number, pick in picked.get(station, ()):
            known = best[pick.phase.lower()]
            if pick.network in (network, "") and (number not in known or _rank(pick) < _rank(known[number])):
                known[number] = pick
        self.picks = {phase: {n: p.time for n, p in found.items()} for phase, found in best.items()}
        """By phase (p or s) and number of the event, nanoseconds since 1970."""
        self._times = {phase: sorted(found.values()) for phase, found in self.picks.items()}
        self._order = sorted(range(len(events)), key=lambda n: events[n].time)
        self._origins = [events[n].time for n in self._order]

    def inside(self, phase: str, low: int, high: int) -> list[int]:
        """Picks of any event within a span."""
        times = self._times[phase]
        return times[bisect.bisect_left(times, low) : bisect.bisect_right(times, high)]

    def quiet(self, low: int, high: int, place: Mapping[str, float] | None) -> bool:
        """Whether no P and no S of any event comes within a span: by the picks, else by iasp91 for the station's place; unknown is no."""
        if any(self.inside(phase, low, high) for phase in "ps"):
            return False
        since = bisect.bisect_left(self._origins, low - LATE)
        for number in self._order[since : bisect.bisect_right(self._origins, high)]:
            event = self.events[number]
            if self.picks["p"].get(number, high) > high:
                continue  # S comes later still
            for phase in ("p", "s"):
                if number in self.picks[phase]:
                    continue
                if place is None:
                    return False
                after = travel_time(event.depth or 0.0, distance_to(event, place)[1], phase)
                if after is not None and low <= event.time + round(after * 1e9) <= high:
                    return False
        return True


def _rank(pick: Pick) -> tuple[bool, int]:
    return not pick.manual, pick.time


def by_station(events: Sequence[Event]) -> dict[str, list[tuple[int, Pick]]]:
    """The picks of events by the codes of stations, with the events' numbers."""
    found: dict[str, list[tuple[int, Pick]]] = {}
    for number, event in enumerate(events):
        for pick in event.picks:
            found.setdefault(pick.station, []).append((number, pick))
    return found


@functools.lru_cache(1 << 14)
def travel_time(depth: float, degrees: float, phase: Literal["p", "s"] = "p") -> float | None:
    """Seconds from the origin to the first wave of compression or shear of iasp91; depth in km. None where there is none."""
    found = _earth().get_travel_times(max(depth, 0.0), degrees, [f"tt{phase}"])
    return float(min(a.time for a in found)) if found else None


def first_arrival(depth: float, degrees: float) -> float:
    """As `travel_time`, of P.

    Raises:
        UserError: there is none.
    """
    found = travel_time(depth, degrees)
    if found is None:
        raise UserError(f"the model iasp91 has no first arrival for a depth of {depth:g} km at {degrees:g} degrees; give anchor=origin")
    return found


@functools.cache
def _earth() -> Any:
    obspy()
    from obspy.taup import TauPyModel

    return TauPyModel("iasp91")
