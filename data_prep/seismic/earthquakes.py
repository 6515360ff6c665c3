"""Which windows of which recordings show which events: the plan of an earthquake corpus, from headers and catalogues alone."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data_prep.seismic.events import LATE, Arrivals, Event, by_station, distance_to, first_arrival, is_quakeml, read_quakeml
from scigpt.data_prep.seismic.instruments import OUTPUTS, covered, instruments_of, motion, off_grid, place_of, told, weights_of
from scigpt.data_prep.seismic.stationxml import is_stationxml, read_metadata
from scigpt.data_prep.seismic.waveforms import Header, form_of, headers_of
from scigpt.data_prep.seismic.windows import Grid, Processing, margin_of
from scigpt.errors import UserError

_TAIL = 6
"""Standard deviations of the bell of a label beyond which nothing is left of it."""


@dataclass(frozen=True, slots=True)
class Window:
    """A record of an event (or of noise before it) at a station; a sample to be.

    Args:
        name: `NET.STA.LOC.BI` of the instrument; `station`: `NET.STA`.
        event, time: its id, and its instant in nanoseconds since 1970.
        given: the split that a dataset states.
        measured: the variables.
        located: whether its place is known.
        picked: phases of which a pick is known.
        files: numbers of the files it is made from.
        first, step, frames: instant of the first sample (nanoseconds since 1970), seconds from one to the next, and how many there are.
        spec: what else its reading needs, JSON.
    """

    key: str
    name: str
    station: str
    event: str
    time: int
    given: str | None
    measured: tuple[str, ...]
    located: bool
    picked: tuple[str, ...]
    files: tuple[int, ...]
    first: int
    step: float
    frames: int
    spec: Mapping[str, Any]

    @property
    def span(self) -> tuple[str, int, int]:
        """Station, first instant and end."""
        return self.station, self.first, self.first + round(self.frames * self.step * 1e9)


class Recordings:
    """Event catalogues, station metadata and waveforms, sorted by what their first bytes say."""

    def __init__(self, files: Sequence[Path], options: Any, notes: list[str]) -> None:
        self.files, self.options, self.notes = files, options, notes
        self.events: list[Event] = []
        self.inventories: list[int] = []
        headers: list[Header] = []
        for number, path in enumerate(files):
            with path.open("rb") as file:
                head = file.read(4096)
            if form_of(path) is not None:
                headers += headers_of(path, notes)
            elif is_stationxml(head):
                self.inventories.append(number)
            elif is_quakeml(head):
                self.events += read_quakeml(path, notes)
            elif not head:
                raise UserError(f"{path.name} is empty (0 bytes); fetch it again")
            else:
                raise UserError(
                    f"{path.name} is neither miniSEED nor SAC, QuakeML or StationXML by its first bytes; leave it out, or fetch it again"
                )
        self.metadata = read_metadata([files[i] for i in self.inventories])
        self.number = {path: i for i, path in enumerate(files)}
        self._require(headers)
        self.instruments = instruments_of(headers, options)

    def _require(self, headers: Sequence[Header]) -> None:
        where = self.files[0].parent.name
        if not headers:
            raise UserError(f"{where} holds no waveforms (miniSEED or SAC); fetch them too, or give them as --input")
        if not self.events:
            raise UserError(
                f"{where} holds no event (QuakeML); for records without events use the source miniseed, or give the catalogue as --input"
            )
        (name, number), *_ = Counter(e.id for e in self.events).most_common(1)
        if number > 1:
            raise UserError(f"the event {name} stands in the catalogues twice; give one catalogue")
        if self.options.response and not self.inventories:
            raise UserError("response=true needs the instruments' responses; give a StationXML of level response as --input too")

    def windows(self) -> list[Window]:
        o, found = self.options, list[Window]()
        self._unquiet = 0
        picked = by_station(self.events)
        for name, timeline in self.instruments.items():
            arrivals = Arrivals(self.events, picked, *name.split(".")[:2])
            more = margin_of(o, min(h.rate for h in timeline.headers))
            early, late = round((o.before + o.after + o.quiet) * 1e9) + more, LATE + round(o.after * 1e9) + more
            for number, event in enumerate(self.events):
                near = timeline.touching(event.time - early, event.time + late)
                if near:
                    found += self._of_event(name, near, number, event, arrivals)
        if self._unquiet:
            self.notes.append(f"{self._unquiet} windows of noise are left out: waves of an earthquake come within them, or may do so")
        return found

    def _of_event(self, name: str, headers: Sequence[Header], number: int, event: Event, arrivals: Arrivals) -> Iterator[Window]:
        o = self.options
        place = place_of(headers[0], event.time, self.metadata)
        own = {phase: arrivals.picks[phase].get(number) for phase in "ps"}
        p = own["p"]
        about: dict[str, Any] = {"event": event.about(), "station": {"id": name, **told(place)}}
        distance = None
        if place is not None:
            kilometres, degrees, back = distance_to(event, place)
            about |= {"distance_km": round(kilometres, 3), "distance_degrees": round(degrees, 5), "back_azimuth": round(back, 3)}
            distance = degrees, back
        predicted = None
        if distance is not None and (p is None and o.anchor == "p"):
            predicted = event.time + round(first_arrival(event.depth or 0.0, distance[0]) * 1e9)
        if o.anchor == "origin":
            anchor, about["anchor"] = event.time, "origin"
        elif p is not None:
            anchor, about["anchor"] = p, "pick"
        elif predicted is not None:
            anchor, about["anchor"] = predicted, "iasp91"
        else:
            self.notes.append(
                f"{name}: {event.id} is left out, there is neither a pick of P nor a StationXML to predict it (anchor=origin)"
            )
            return
        back_azimuth = None if distance is None else distance[1]
        first = anchor - round(o.before * 1e9)
        made = self._window(name, headers, number, event, first, place, back_azimuth, about, arrivals, own)
        if made is None:
            return
        yield made
        draw = int.from_bytes(hashlib.sha256(f"{o.seed}\0{made.key}".encode()).digest()[:7]) / 2**56
        if draw < o.noise and o.anchor == "p":
            first = anchor - round((o.quiet + o.before + o.after) * 1e9)
            if not arrivals.quiet(first, first + round((o.before + o.after) * 1e9), place):
                self._unquiet += 1
                return
            quiet = self._window(name, headers, number, event, first, place, back_azimuth, about | {"noise": True}, arrivals, None)
            if quiet is not None:
                yield quiet

    def _window(
        self,
        name: str,
        headers: Sequence[Header],
        number: int,
        event: Event,
        first: int,
        place: Mapping[str, float] | None,
        back_azimuth: float | None,
        about: Mapping[str, Any],
        arrivals: Arrivals,
        own: Mapping[str, int | None] | None,
    ) -> Window | None:
        """The samples that begin at an instant; None where too little of them was recorded.

        Args:
            own: the event's own picks; None of noise, of which it is known what begins in it.
        """
        o = self.options
        length = round((o.before + o.after) * 1e9)
        inside = [h for h in headers if h.touches(first, first + length)]
        if covered(inside, first, first + length) < max(o.min_valid, 1e-9) * length:
            return None
        reference = min(inside, key=lambda h: (h.start, h.id))
        grid = Grid(reference.start, reference.rate, *Processing(rate=o.rate).ratio(reference.rate))
        start = int(np.ceil(grid.index(first) - 1e-6))
        frames = max(round((o.before + o.after) / grid.step), 2)
        prefix, factor = motion(reference, o)
        margin = margin_of(o, reference.rate)
        used = [h for h in headers if h.touches(first - margin, first + length + margin)]
        weights = weights_of(used, name, grid.instant(start), o, self.metadata, back_azimuth, self._note_once)
        if not weights:
            return None
        off_grid(inside, grid, self._note_once)
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        key = f"{number:06d}-{slug}" + ("-noise" if about.get("noise") else "")
        quality = "".join(sorted({h.quality for h in inside}))
        tail = round(_TAIL * o.label_width * grid.step * 1e9)
        labels: dict[str, list[float] | None] = {}
        for phase in "ps":
            mine = None if own is None else own[phase]
            if own is not None and mine is None:
                labels[phase] = None
                continue
            others = arrivals.inside(phase, first - tail, first + length + tail)  # of other events too
            labels[phase] = [grid.index(t) - start for t in sorted({*others, *([] if mine is None else [mine])})]
        files = sorted({self.number[h.path] for h in used})
        spec = {
            "traces": [[self.number[h.path], h.id, h.start, h.rate, h.count] for h in used],
            "grid": [grid.begin, grid.rate, grid.up, grid.down],
            "start": start,
            "weights": weights,
            "factor": factor,
            "output": "DEF" if prefix == "acoustic_pressure" else OUTPUTS[o.motion],
            "inventories": self.inventories,
            "labels": labels,
            "place": told(place) or None,
            "about": {**about, **({"quality": quality} if quality else {}), "sampling_rate": 1 / grid.step},
            "name": name,
        }
        return Window(
            key,
            name,
            ".".join(name.split(".")[:2]),
            event.id,
            event.time,
            None,
            tuple(weights),
            place is not None,
            tuple(phase for phase, at in labels.items() if at),
            tuple(files),
            grid.instant(start),
            grid.step,
            frames,
            spec,
        )

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
