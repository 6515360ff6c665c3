"""Earthquakes and shots: their catalogues (QuakeML, tables), picks, first arrivals of a standard earth, and how they fall into splits."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data_prep.blocks import SPLITS, shares
from scigpt.data_prep.datamap import TableFormat, TimeAxis
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.instants import instants
from scigpt.data_prep.seismic.waveforms import EPOCH, obspy
from scigpt.data_prep.tables import read_table
from scigpt.errors import UserError

_FIRST_P = re.compile(r"[ei]?[Pp](n|g|b|\*|diff|K(P|IKP)\w*)?")
_FIRST_S = re.compile(r"[ei]?[Ss](n|g|b|\*|diff|K(S|IKS)\w*)?")


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

    def first(self, phase: str, network: str, station: str) -> int | None:
        """The earliest pick of a phase at a station, a person's before a program's; None where there is none."""
        found = [p for p in self.picks if p.phase == phase and p.station == station and p.network in (network, "")]
        return min(found, key=lambda p: (not p.manual, p.time)).time if found else None

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


@functools.lru_cache(1 << 14)
def first_arrival(depth: float, degrees: float) -> float:
    """Seconds from the origin to the first wave of compression of iasp91; depth in km."""
    found = _earth().get_travel_times(max(depth, 0.0), degrees, ["ttp"])
    if not found:
        raise UserError(f"the model iasp91 has no first arrival for a depth of {depth:g} km at {degrees:g} degrees; give anchor=origin")
    return float(min(a.time for a in found))


@functools.cache
def _earth() -> Any:
    obspy()
    from obspy.taup import TauPyModel

    return TauPyModel("iasp91")


def clusters(times: Sequence[int], gap: float) -> list[int]:
    """For each instant (ns) the number of its cluster in time order; two that are less than `gap` seconds apart belong together."""
    order = np.argsort(np.asarray(times, np.int64), kind="stable")
    sorted_times = np.asarray(times, np.int64)[order]
    numbers = np.concatenate([[0], np.cumsum(np.diff(sorted_times) >= gap * 1e9)]) if len(times) else np.zeros(0, np.int64)
    found = np.empty(len(times), np.int64)
    found[order] = numbers
    return [int(n) for n in found]


def homes(sizes: Mapping[str, int], fractions: Sequence[float], seed: int | None, notes: list[str]) -> dict[str, str]:
    """The split of each group of samples: groups are never divided, and every wanted split gets one if there are enough.

    Args:
        sizes: samples of each group; in the order of time.
        seed: draws the groups; None keeps their order (train first, test last).
    """
    shares(1, fractions)
    wanted = [(name, f) for name, f in zip(SPLITS, fractions, strict=True) if f > 0]
    names, total = list(sizes), sum(sizes.values())
    if len(names) < len(wanted):
        notes.append(f"{len(names)} groups of events are too few for {len(wanted)} splits; all go to train")
        return dict.fromkeys(names, "train")
    if seed is not None:  # a sequence of aftershocks larger than what is to be held out comes first, where train is
        limit = 1.5 * total * min(f for _, f in wanted)
        names.sort(key=lambda n: (sizes[n] <= limit, hashlib.sha256(f"{seed}\0{n}".encode()).digest()))
    found: dict[str, str] = {}
    for position in range(len(wanted) - 1, 0, -1):
        split, fraction = wanted[position]
        tail = np.cumsum([sizes[n] for n in reversed(names)])[: len(names) - position]
        taken = int(np.argmin(np.abs(tail - fraction * total))) + 1
        found |= dict.fromkeys(names[-taken:], split)
        del names[-taken:]
    return found | dict.fromkeys(names, wanted[0][0])
