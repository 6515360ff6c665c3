"""SCEC Broadband Platform: broadband ground motion of simulated (and some recorded) earthquakes, one record for each station and run.

What the name of a file says (`.acc.bbp`) wins over its header. Station lists give places and vs30, source descriptions the earthquake;
both are known before a simulation and become coefficients. The step of a record is its own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.files import fingerprints, locate
from scigpt.data_prep.formats.bbp import (
    COLUMNS,
    UNITS,
    Site,
    is_bbp,
    quantity_of,
    read_bbp,
    read_header,
    read_rupture,
    read_sites,
    read_source,
)
from scigpt.data_prep.recordings import Along, Recorded, deal, files_of
from scigpt.data_prep.source import Description, Plan, Remote, SampleRef, Source
from scigpt.data_prep.sources.scec_bbp_events import Event, Events
from scigpt.errors import UserError

SPECTRA = (".rd50", ".rd100", ".rd50.vertical", ".rd100.vertical", ".rsp")
ABOUT = (".stl", ".src", ".srf")
STAGES = ("merged", "filtered", "bbp")
"""Words of file names that are no station."""
COEFFICIENTS = {
    "MAGNITUDE": "magnitude",
    "FAULT_LENGTH": "fault_length",
    "FAULT_WIDTH": "fault_width",
    "DEPTH_TO_TOP": "depth_to_top",
    "STRIKE": "strike",
    "RAKE": "rake",
    "DIP": "dip",
    "HYPO_ALONG_STK": "hypocentre_along_strike",
    "HYPO_DOWN_DIP": "hypocentre_down_dip",
}
"""Of a source description, in its units: kilometres and degrees."""
SHIPPED = (*(f"bbp/tests/ref_data/ucb/{n}.vel.bbp" for n in range(80001, 80006)), "bbp/tests/ref_data/ucb/rotd50.stl")


@dataclass(frozen=True)
class ScecBbpOptions:
    """Options of the Broadband Platform.

    Args:
        quantity: velocity, acceleration or displacement; files of another are left out, as they are the same motion again.
        duplicates: a component that repeats another in every row becomes invalid, or the file is refused.
        frames_per_sample: longest sample.
        split_by: what stays in one split: `event` (all runs of one source description), `station`, or `time` for blocks of each record, at
            the same times in all records of a station and event; by default the first of them of which there are several.
        splits, gap: shares of train, valid and test, and frames between blocks of time.
        split: put everything into this one split instead.
    """

    quantity: Literal["velocity", "acceleration", "displacement"] = "velocity"
    duplicates: Literal["invalid", "refuse"] = "invalid"
    frames_per_sample: int = 4096
    split_by: Literal["event", "station", "time"] | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 256
    split: str | None = None


@dataclass(frozen=True)
class ScecBbpFetch:
    """The platform publishes its code and the records of its tests; whole simulations are run by their users.

    Args:
        files: paths in the repository; by default five stations of one simulation and their list.
        ref: commit, tag or branch.
        server: address of the repository's files.
    """

    files: tuple[str, ...] = SHIPPED
    ref: str = "be71c83b108e1a4397943a31a0078e66e459798f"
    server: str = "https://raw.githubusercontent.com/SCECcode/bbp"


class ScecBbp(Source):
    """Time histories of the Broadband Platform."""

    name = "scec-bbp"
    Options: ClassVar[type] = ScecBbpOptions
    Fetch: ClassVar[type | None] = ScecBbpFetch
    options: ScecBbpOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "scec-bbp",
            "seismology: simulated ground motion",
            "text (.bbp with .stl, .src, .srf)",
            "BSD-3-Clause",
            "SCEC Broadband Platform, Southern California Earthquake Center (Maechling et al. 2015, doi:10.1785/0220140125)",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_dir():
            return False
        try:
            if path.name.lower().endswith(".src"):
                return bool(read_source(path))
            if path.name.lower().endswith(".stl"):
                return bool(read_sites(path))
            if path.name.lower().endswith(".srf"):
                return bool(read_rupture(path)["planes"])
            return is_bbp(path) or path.name.lower().endswith(SPECTRA)
        except UserError:
            return False

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        if not options.files:
            raise UserError("files= is empty; name paths of the repository SCECcode/bbp such as bbp/tests/ref_data/gp/s01.merged.bbp")
        for file in options.files:
            yield Remote(f"{options.server.rstrip('/')}/{options.ref}/{file}", file.removeprefix("bbp/tests/ref_data/"))

    def plan(self) -> Plan:
        o, notes = self.options, list[str]()
        files, digests = self._files, self._digests
        if files.spectra:
            notes.append(f"{files.spectra} response spectra (.rd50, .rd100) are left out: they are no time histories")
        chosen = list[tuple[int, Path, str, Event]]()
        others: dict[str, int] = {}
        for number, path in enumerate(files.histories):
            quantity, note = quantity_of(path, read_header(path))
            if quantity != o.quantity:
                others[quantity] = others.get(quantity, 0) + 1
                notes += [note] if note else []
                continue
            chosen.append((number, path, self.station(path), self.event(path)))
            notes += [note] if note else []
        if not chosen:
            held = " and ".join(f"{n} of {q}" for q, n in others.items()) or "no time history"
            raise UserError(f"{self.inputs[0].name} has no record of {o.quantity}; it has {held}, choose with quantity=")
        notes += [f"{n} files of {q} are left out; quantity={q} takes them instead" for q, n in others.items()]
        idle = self._events.idle([path for _, path, _, _ in chosen])
        if idle:
            notes.append(
                f"no record is of {', '.join(p.name for p in idle)[:150]}; expected it in the folder of the records or one above, or in a "
                "folder of the same name (indata/ID of outdata/ID)"
            )
        missing = sorted({station for _, path, station, _ in chosen if station not in self.sites(path)})
        if missing and self._files.lists:
            notes.append(f"no station list has {', '.join(missing)[:120]}; samples have no coordinates (Origin.about keeps those known)")
        events, stations = {e.key for *_, e in chosen}, {s for _, _, s, _ in chosen}
        by = o.split_by or ("event" if len(events) > 1 else "station" if len(stations) > 1 else "time")
        records = []
        for number, path, station, event in chosen:
            history = read_bbp(path)
            for kept, copy in history.duplicates():
                told = f"{path.name}: {COLUMNS[copy]} is identical to {COLUMNS[kept]} in every row"
                if o.duplicates == "refuse":
                    raise UserError(f"{told}; leave the file out, or take what is left of it with duplicates=invalid")
                notes.append(f"{told}; it is taken as invalid")
            spec = {"file": number, "places": not missing, "sha256": digests[path]}
            whole = event.key if by == "event" else station
            count, begin, step = len(history.values), history.begin, history.step
            along = Along(((0, count),), ((begin, begin + step * (count - 1)),), functools.partial(_times, begin, step, count))
            records.append(Recorded(f"{event.name}-{station}", whole, along, spec, f"{event.key}, {station}"))
        refs, splits = deal(records, o.splits, o.gap, o.frames_per_sample, o.split, None if by == "time" else by, notes)
        used = dict.fromkeys(p for _, path, _, event in chosen for p in (path, *event.files))
        inputs = tuple((p.name, digests[p]) for p in (*used, *files.lists))
        return Plan(refs, splits, inputs, 15 * o.frames_per_sample, tuple(notes))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        last: tuple[int, Any] | None = None
        for ref in refs:
            number = ref.spec["file"]
            if last is None or last[0] != number:
                last = number, read_bbp(self._files.histories[number])
            yield self._sample(self._files.histories[number], last[1], ref.spec)

    def _sample(self, path: Path, history: Any, spec: Mapping[str, Any]) -> Sample:
        quantity, start, stop = self.options.quantity, spec["start"], spec["stop"]
        variables = tuple(Variable(q.name, q.unit) for d in ("east", "north", "up") for q in [QUANTITIES[f"ground_{quantity}_{d}"]])
        columns = [1, 0, 2]
        values = convert(history.values[start:stop][:, columns], UNITS[quantity], variables[0].unit, path.name)
        valid = np.isfinite(values)
        for _, copy in history.duplicates():
            valid[:, columns.index(copy)] = False
        values = np.where(valid, values, 0.0).astype(np.float32)[:, :, None, None, None]
        station, event = self.station(path), self.event(path)
        site = self.sites(path).get(station)
        coefficients = {c: float(v) for k, c in COEFFICIENTS.items() if isinstance(v := event.source.get(k), float)}
        if site is not None and site.vs30 is not None:
            coefficients["vs30"] = site.vs30
        coordinates = {}
        if spec["places"] and site is not None:
            coordinates["latitude"] = Coordinate(("x",), np.array([site.latitude]), "degrees_north")
            coordinates["longitude"] = Coordinate(("x",), np.array([site.longitude]), "degrees_east")
        about = self.describe()
        files = [path, *event.files, *(self._files.lists if site is not None else ())]
        return Sample(
            values,
            valid[:, :, None, None, None],
            variables,
            Time.regular(history.begin + start * history.step, history.step, stop - start),
            Origin(
                self.name,
                about.licence,
                tuple(SourceFile(p.name, self._digests[p]) for p in files),
                about.attribution,
                f"{event.name}, {station}",
                _about(path, station, site, event, history.step),
            ),
            geometry="points" if coordinates else "plane",
            coordinates=coordinates,
            coefficients=coefficients,
        )

    # its parts

    @cached_property
    def _files(self) -> _Files:
        found = files_of(self.inputs, self.name, (".bbp", *SPECTRA, *ABOUT))
        spectra = [p for p in found if p.name.lower().endswith(SPECTRA)]
        given = {locate(p).resolve() for p in self.inputs}
        for path in spectra:
            if path.resolve() in given:
                raise UserError(f"{path.name} is a response spectrum, not a time history; expected files that end with .bbp")
        about = [p for p in found if p.suffix.lower() in ABOUT]
        histories = [p for p in found if p not in spectra and p not in about]
        return _Files(histories, [p for p in about if p.suffix.lower() == ".stl"], about, len(spectra))

    @cached_property
    def _digests(self) -> dict[Path, str]:
        return fingerprints([*self._files.histories, *self._files.about])

    def sites(self, path: Path) -> dict[str, Site]:
        """The stations of the nearest folder that has a list; of all lists where none lies above the file."""
        if path.parent not in self._sites:
            near = (lists for above in path.parents if (lists := [p for p in self._files.lists if p.parent == above]))
            self._sites[path.parent] = _merged(next(near, self._files.lists))
        return self._sites[path.parent]

    @cached_property
    def _sites(self) -> dict[Path, dict[str, Site]]:
        return {}

    def station(self, path: Path) -> str:
        """By the name of the file: `1096499.2001-SCE.vel.bbp`, `2001-SCE-lf.bbp`, `s01.merged.bbp`."""
        words = [w for w in path.name.lower().removesuffix(".bbp").split(".") if w]
        kept = path.name[: sum(len(w) + 1 for w in words)].split(".")[: len(words)]
        kept = [w for w in kept if w.lower() not in (*STAGES, "acc", "vel", "dis")] or kept
        names = [n for w in kept for n in (w, re.sub(r"-[lh]f$", "", w, flags=re.IGNORECASE))]
        known = next((n for n in names if n in self.sites(path)), None)
        if known is not None:
            return known
        if len(kept) > 1 and kept[0].isdigit():  # the number of a simulation
            kept = kept[1:]
        return re.sub(r"-[lh]f$", "", kept[0], flags=re.IGNORECASE)

    def event(self, path: Path) -> Event:
        """The earthquake of a record."""
        return self._events.of(path)

    @cached_property
    def _events(self) -> Events:
        return Events(self._files.about, self._files.histories)


@dataclass(frozen=True)
class _Files:
    """What the input holds: time histories, station lists, all files that tell about them, and how many spectra."""

    histories: list[Path]
    lists: list[Path]
    about: list[Path]
    spectra: int


def _times(begin: float, step: float, count: int) -> np.ndarray:
    return begin + step * np.arange(count)


def _merged(lists: Sequence[Path]) -> dict[str, Site]:
    found: dict[str, Site] = {}
    for path in lists:
        for name, site in read_sites(path).items():
            if (found.setdefault(name, site).longitude, found[name].latitude) != (site.longitude, site.latitude):
                raise UserError(f"{path.name}: the station {name} has another place than in another station list; give one list")
    return found


def _about(path: Path, station: str, site: Site | None, event: Event, step: float) -> dict[str, Any]:
    band = re.search(r"-([lh])f\.", path.name.lower())
    found: dict[str, Any] = {"station": station, "event": event.name, "step_s": step}
    if site is not None:
        found |= {"longitude": site.longitude, "latitude": site.latitude}
        found |= {"vs30": site.vs30} if site.vs30 is not None else {}
        found |= {"trusted_band_hz": list(site.band)} if site.band is not None else {}
    run = path.name.split(".")[0]
    found |= {"run": run} if run.isdigit() and run != station else {}
    found |= {"part": {"l": "low frequencies", "h": "high frequencies"}[band[1]]} if band else {}
    found |= {"source": dict(event.source)} if event.source else {}
    return found | ({"rupture": dict(event.rupture)} if event.rupture else {})
