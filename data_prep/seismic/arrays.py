"""What the inputs of a seismic experiment hold: stations, places, shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scigpt.data.sample import Variable
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.seismic.events import Event, is_quakeml, is_shot_list, read_quakeml, read_shots
from scigpt.data_prep.seismic.instruments import UNITS, instruments_of, order_of, place_of, prefix_of, weights_of
from scigpt.data_prep.seismic.orientation import coordinates
from scigpt.data_prep.seismic.stationxml import is_stationxml, read_metadata
from scigpt.data_prep.seismic.waveforms import Header, form_of, headers_of
from scigpt.data_prep.seismic.windows import ALIKE, Processing
from scigpt.errors import UserError


def coordinates_of(places: Sequence[Mapping[str, float] | None]) -> dict[str, Any]:
    """Of stations side by side; none where they are not known."""
    known = [p for p in places if p is not None]
    if len(known) < len(places):
        return {}
    return coordinates({n: [p[n] for p in known] for n in ("latitude", "longitude", "height")})


class SeismicArray:
    """What the inputs hold: stations and their headers, places, shots; all at one rate, or brought to one."""

    def __init__(self, inputs: Sequence[Path], o: Any) -> None:
        self.notes: list[str] = []
        if not inputs:
            raise UserError("seismic-experiments reads miniSEED or SAC with StationXML; give their folder as --input")
        given_files = {p for given in inputs for p in members(locate(given)) if not p.name.endswith((".part", ".part.json"))}
        self.files = sorted(given_files | ({locate(o.shots)} if o.shots is not None else set()))  # whatever the order of the inputs
        headers: list[Header] = []
        metadata: list[Path] = []
        self.shots: list[Event] = []
        for path in self.files:
            with path.open("rb") as file:
                head = file.read(4096)
            if form_of(path) is not None:
                headers += headers_of(path, self.notes)
            elif is_stationxml(head):
                metadata.append(path)
            elif is_quakeml(head):
                self.shots += read_quakeml(path, self.notes)
            elif is_shot_list(path) or (o.shots is not None and path == locate(o.shots)):
                self.shots += read_shots(path)
            else:
                what = "is empty (0 bytes)" if not head else "is neither miniSEED nor SAC, StationXML, QuakeML or a table of shots"
                raise UserError(f"{path.name} {what}; leave it out, or fetch it again")
        if not headers:
            raise UserError(f"{inputs[0].name} holds no waveforms (miniSEED or SAC); fetch them too")
        if o.response and not metadata:
            raise UserError("response=true needs the instruments' responses; give a StationXML of level response as --input too")
        self.metadata = read_metadata(metadata)
        self.stations = instruments_of(headers, o)
        if o.layout == "points":
            self._require_places()
        rates = {name: line.headers[0].rate for name, line in self.stations.items()}
        (one, rate), *others = rates.items()
        for name, other in others:
            if o.rate is None and abs(other / rate - 1) > ALIKE:
                raise UserError(
                    f"{one}? has {rate:g} samples per second and {name}? has {other:g}; expected one rate, bring them to one with rate=, "
                    "or choose with channels="
                )
        self.rates = {name: rate if abs(other / rate - 1) <= ALIKE else other for name, other in rates.items()}
        up, down = Processing(rate=o.rate).ratio(rate)
        self.step = down / (up * rate)
        self.begin = min(line.headers[0].start for line in self.stations.values())
        found: set[str] = set()
        for name, line in self.stations.items():
            found |= set(weights_of(line.headers, name, line.headers[0].start, o, self.metadata, None, self.note))
        if not found:
            raise UserError(
                "no channel has a response in the StationXML; fetch it with level=response"
                if o.response
                else f"no component points east, north or up ({'; '.join(self.notes[:2])}); choose rotate=none to keep them as they are"
            )
        self.variables = tuple(Variable(n, UNITS[prefix_of(n)]) for n in sorted(found, key=order_of))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _require_places(self) -> None:
        """Points lie somewhere: stations without a place are left out."""
        lost = [n for n, line in self.stations.items() if place_of(line.headers[0], line.headers[0].start, self.metadata) is None]
        if len(lost) == len(self.stations):
            raise UserError(
                f"nothing says where {lost[0]} and the other stations are; give a StationXML as --input too, or choose layout=series"
            )
        for name in lost:
            self.notes.append(f"{name} is left out: no StationXML or SAC header says where it is")
            del self.stations[name]
