"""Stations: the records of many places on one clock become samples of points, or one series for each place.

What the sources share is here: stations are chosen and merged over files, put on the clock, cut into splits by blocks of time or by place,
and into samples. Gaps stay gaps: an instant without a value is invalid. A source says what stations a file holds and how they are read.
"""

from __future__ import annotations

import fnmatch
import re
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.blocks import SPLITS, pieces, time_blocks
from scigpt.data_prep.files import fingerprints, locate, members
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.neighbours import groups_of, homes
from scigpt.data_prep.source import Plan, SampleRef, Source, Split
from scigpt.data_prep.station_records import Clock, Record, Station, lay
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

SAMPLE_BYTES = 32 << 20
MIN_SAMPLE_FRAMES = 4
IN_MEMORY = 64 << 20
"""Bytes of the records of a group; what is larger lies in a temporary file."""


@dataclass(frozen=True)
class StationOptions:
    """Options of every source of stations.

    Args:
        variables: names of the registry; none means all that a file has.
        stations: ids, or patterns of them (`USW*`); none means all.
        box: only stations in it: south, north, west, east in degrees.
        period: years used, `1980-2010`.
        min_span: share of the period (or of the time from the first to the last value of all) that the record of a station must span.
        layout: `points` puts many stations side by side into one sample; `series` makes a sample of each.
        stations_per_sample: of points, the most; stations near each other come together.
        frames_per_sample: longest sample; shortened to keep a sample below 32 MiB.
        min_valid: samples of which a smaller share is valid are left out; those without any valid value always are.
        splits: shares for train, valid and test, in that order.
        split_by: `time` cuts blocks that are common to all stations; `station` keeps a station (or a basin) whole, and those within
            `apart` of each other together.
        gap: steps left out between blocks of time.
        apart: kilometres; of two stations nearer than that one may give the other away.
        split: put everything into this one split instead (`ood` marks it as out of distribution).
    """

    variables: tuple[str, ...] | None = None
    stations: tuple[str, ...] | None = None
    box: tuple[float, ...] | None = None
    period: str | None = None
    min_span: float = 0.0
    layout: Literal["points", "series"] = "points"
    stations_per_sample: int = 512
    frames_per_sample: int = 256
    min_valid: float = 0.0
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    split_by: Literal["time", "station"] = "time"
    gap: int = 7
    apart: float = 10.0
    split: str | None = None

    def __post_init__(self) -> None:
        for name in ("min_span", "min_valid"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name):g} must be a share from 0 to 1")
        if self.stations_per_sample < 1:
            raise UserError(f"stations_per_sample={self.stations_per_sample} must be 1 or more")
        if not self.apart >= 0:
            raise UserError(f"apart={self.apart:g} must be a distance in kilometres, 0 or more")
        if self.split not in (None, *SPLITS, "ood"):
            raise UserError(f"split={self.split} is none of train, valid, test and ood; shares are splits=0.8,0.1,0.1")
        if self.box is not None:
            given = ",".join(f"{b:g}" for b in self.box)
            if len(self.box) != 4 or not (-90 <= self.box[0] < self.box[1] <= 90) or not (-180 <= self.box[2] <= 360):
                raise UserError(f"box={given} must be south,north,west,east in degrees, such as 45,55,5,15")


@dataclass(frozen=True, eq=False)
class Network:
    """The chosen stations in the order of their ids, what they measure together, and the ticks that they span."""

    records: tuple[Record, ...]
    variables: tuple[Variable, ...]
    static: tuple[Variable, ...]
    start: int
    stop: int
    phase: int

    @cached_property
    def places(self) -> np.ndarray:
        """Latitude and longitude, `(N, 2)`."""
        return np.array([(r.station.latitude, r.station.longitude) for r in self.records])


Group = tuple[list[int], list[tuple[str, int, int]]]
"""Stations that share a sample, by their number in the network, and `(split, first tick, tick after the last)` of what is made of them."""


class StationSource(Source):
    """A source of stations; see the module docstring."""

    Options: ClassVar[type] = StationOptions
    options: StationOptions
    _kept: tuple[int, int, np.ndarray] | None = None
    """Number, first tick and values of the group that was read last."""

    # what a source says

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """Of all inputs; may look at them."""

    @abstractmethod
    def open(self, path: Path) -> list[Station]:
        """The stations of a file, without their values. Files that hold none of their own (a list of places) give an empty list."""

    def distinct(self, records: list[Record], notes: list[str]) -> list[Record]:
        """Without those that are another under a second name; all of them by default."""
        return records

    # Source

    def plan(self) -> Plan:
        o = self.options
        network, groups, notes = self._laid_out
        splits = {name: Split(name) for name in SPLITS}
        if o.split is not None:
            splits[o.split] = Split(o.split, "out" if o.split == "ood" else "in")
        refs: dict[str, list[SampleRef]] = {}
        size, frame_bytes = self._size(network)
        digests = fingerprints(sorted({p for r in network.records for p in r.files} | set(self._beside)))
        for index, (members_, limits) in enumerate(groups):
            own = [network.records[i] for i in members_]
            low, high = self._span(own)
            named = own[0].station.id if o.layout == "series" else "points"
            slug = re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")[:60] or "station"
            files = [[p.name, digests[p]] for p in dict.fromkeys(p for r in own for p in r.files)]
            for name, first, last in limits:
                for start, stop in pieces(max(first, low), min(last, high), size) if min(last, high) > max(first, low) else ():
                    spec = {"group": index, "start": start, "stop": stop, "files": files}
                    refs.setdefault(name, []).append(SampleRef(f"{slug}-{index:05d}-{start:09d}", name, spec))
        used = [s for s in splits if s in refs]
        return Plan(
            tuple(ref for s in used for ref in refs[s]),
            tuple(splits[s] for s in used),
            tuple((p.name, d) for p, d in digests.items()),
            size * frame_bytes,
            tuple(dict.fromkeys(notes)),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        network, groups, _ = self._laid_out
        for ref in refs:
            yield self._sample(network, groups[ref.spec["group"]][0], ref)

    # its parts

    @cached_property
    def _opened(self) -> list[tuple[Path, list[Station]]]:
        if not self.inputs:
            raise UserError(f"the source {self.name} needs a file: give --input PATH")
        found = []
        for given in self.inputs:
            for path in members(locate(given)):
                with one_sentence(path):
                    found.append((path, self.open(path)))
        return found

    @cached_property
    def _laid_out(self) -> tuple[Network, list[Group], list[str]]:
        notes: list[str] = []
        network = self._network(notes)
        return network, self._groups(network, notes), notes

    @property
    def _beside(self) -> list[Path]:
        """Inputs without stations of their own."""
        return [path for path, stations in self._opened if not stations]

    def _network(self, notes: list[str]) -> Network:
        o = self.options
        parts: dict[str, list[tuple[Path, Station]]] = {}
        for path, stations in self._opened:
            for station in stations:
                parts.setdefault(station.id, []).append((path, station))
        if not parts:
            raise UserError(f"{self.inputs[0]} holds no station that the source {self.name} can use")
        every = {id_: Record(tuple(sorted(own, key=lambda p: (p[1].first, str(p[0]))))) for id_, own in sorted(parts.items())}
        for id_, record in every.items():
            _one_place(id_, record)
        chosen = self.distinct(self._chosen(every, notes), notes)
        variables = self._variables(chosen)
        kept = [r for r in chosen if any(v in variables for _, s in r.parts for v in s.variables)]
        if len(kept) < len(chosen):
            notes.append(f"{len(chosen) - len(kept)} stations are left out: they have none of the variables")
        ranges = np.array([(self.clock.ticks(r.first), self.clock.ticks(r.last) + 1) for r in kept])
        start, stop = self._period(int(ranges[:, 0].min()), int(ranges[:, 1].max()))
        spans = (np.minimum(ranges[:, 1], stop) - np.maximum(ranges[:, 0], start)) / (stop - start)
        long = (spans > 0) & (spans >= o.min_span)
        if not long.any():
            first, last = (str(f(kept, key=lambda r: r.first).first)[:10] for f in (min, max))
            raise UserError(
                f"no station of {len(kept)} spans {o.min_span:g} of the time asked for (records begin {first} to {last}, the longest has "
                f"{max(0.0, spans.max()):.0%}); change period= or min_span="
            )
        if not long.all():
            notes.append(
                f"{int((~long).sum())} stations are left out: their records span too little of the period (min_span={o.min_span:g})"
            )
        kept = [r for r, wanted in zip(kept, long, strict=True) if wanted]
        static = tuple(dict.fromkeys(v for r in kept for _, s in r.parts for v in s.static if o.variables is None or v.name in self._asked))
        return Network(tuple(kept), variables, static, start, stop, self._phase(kept))

    def _chosen(self, every: Mapping[str, Record], notes: list[str]) -> list[Record]:
        o = self.options
        ids = list(every)
        if o.stations is not None:
            ids = []
            for pattern in o.stations:
                found = fnmatch.filter(every, pattern)
                if not found:
                    near = nearest(pattern, every) or f"there are {len(every)}, such as {', '.join(list(every)[:3])}"
                    raise UserError(f"stations={pattern} matches no station of the input; {near}")
                ids += found
        chosen = [every[i] for i in dict.fromkeys(sorted(ids))]
        if o.box is not None:
            south, north, west, east = o.box
            wide = (east - west) % 360 or 360
            inside = [r for r in chosen if south <= r.station.latitude <= north and (r.station.longitude - west) % 360 <= wide]
            if not inside:
                raise UserError(f"box={','.join(f'{b:g}' for b in o.box)} (south,north,west,east) holds none of the {len(chosen)} stations")
            chosen = inside
        return chosen

    @property
    def _asked(self) -> set[str]:
        return {QUANTITIES[v].name if v in QUANTITIES else v for v in self.options.variables or ()}

    def _variables(self, chosen: Sequence[Record]) -> tuple[Variable, ...]:
        """What any of the stations measures, in the order in which it is first met."""
        found = tuple(dict.fromkeys(v for r in chosen for _, s in r.parts for v in s.variables))
        units = {v.key: v.unit for v in found}
        twice = next((v for v in found if units[v.key] != v.unit), None)
        if twice is not None:
            raise UserError(f"{twice.key} is in {twice.unit} at one station and in {units[twice.key]} at another; prepare them apart")
        if self.options.variables is None:
            return found
        static = {v.name for r in chosen for _, s in r.parts for v in s.static}
        for word in self._asked:
            if word not in {v.name for v in found} | static:
                near = nearest(word, (v.name for v in found)) or f"they have {', '.join(dict.fromkeys(v.name for v in found))}"
                raise UserError(f"variables={word}: no station of the input has it; {near}")
        return tuple(v for v in found if v.name in self._asked)

    def _period(self, start: int, stop: int) -> tuple[int, int]:
        if self.options.period is None:
            return start, stop
        match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", self.options.period)
        if match is None or (match[2] is not None and match[2] < match[1]):
            raise UserError(f"period={self.options.period} must be years, such as 1980-2010")
        first, after = np.datetime64(match[1], "Y"), np.datetime64(match[2] or match[1], "Y") + 1
        low, high = (int(self.clock.ticks(t.astype("datetime64[s]"))) for t in (first, after))
        if max(start, low) >= min(stop, high):
            raise UserError(f"period={self.options.period} lies outside the records of the input")
        return max(start, low), min(stop, high)

    def _phase(self, records: Sequence[Record]) -> int:
        """Seconds by which the values of all stations come after the ticks; of `series` each station has its own."""
        found: dict[int, Record] = {}
        for record in records:
            own = {int(self.clock.phase(station.first)): path for path, station in record.parts}
            if len(own) > 1:
                (one, a), (other, b), *_ = own.items()
                raise UserError(
                    f"{record.station.id}: values begin {one} s after a step of the clock in {a.name} and {other} s in {b.name}; prepare "
                    "these files apart"
                )
            found.setdefault(next(iter(own)), record)
        if len(found) > 1 and self.options.layout == "points":
            (one, first), (other, second), *_ = found.items()
            raise UserError(
                f"values of {first.station.id} begin {one} s after a step of the clock and those of {second.station.id} {other} s; "
                "expected one clock in a sample of points, choose with stations= or make layout=series"
            )
        return next(iter(found))

    def _size(self, network: Network) -> tuple[int, int]:
        """Frames of a sample, and bytes of a frame."""
        count = 1 if self.options.layout == "series" else min(self.options.stations_per_sample, len(network.records))
        frame_bytes = 5 * count * (len(network.variables) + len(network.static))
        return min(self.options.frames_per_sample, max(MIN_SAMPLE_FRAMES, SAMPLE_BYTES // frame_bytes)), frame_bytes

    def _span(self, own: Sequence[Record]) -> tuple[int, int]:
        return int(self.clock.ticks(min(r.first for r in own))), int(self.clock.ticks(max(r.last for r in own))) + 1

    def _groups(self, network: Network, notes: list[str]) -> list[Group]:
        o, whole = self.options, [("", network.start, network.stop)]
        if o.split is not None:
            parts, limits = {o.split: list(range(len(network.records)))}, {o.split: [(o.split, network.start, network.stop)]}
        elif o.split_by == "time":
            blocks = time_blocks(network.stop - network.start, o.splits, o.gap)
            if len(blocks) < sum(f > 0 for f in o.splits):
                notes.append(f"{network.stop - network.start} steps are too few to be split; all go to train")
            parts = {"": list(range(len(network.records)))}
            limits = {"": [(name, network.start + a, network.start + b) for name, a, b in blocks]}
        else:
            parts = homes([r.station.whole or r.station.id for r in network.records], network.places, o.apart, o.splits, notes)
            limits = {name: [(name, a, b) for _, a, b in whole] for name in parts}
        if o.layout == "series":
            return [([i], limits[name]) for name, own in parts.items() for i in own]
        size = min(o.stations_per_sample, *(len(own) for own in parts.values()))
        found = []
        for name, own in parts.items():
            made = groups_of(network.places[own], size)
            found += [([own[i] for i in group], limits[name]) for group in made]
        if size < o.stations_per_sample and len(parts) > 1:
            notes.append(f"samples have {size} stations, as many as the smallest split has")
        return found

    def _sample(self, network: Network, group: Sequence[int], ref: SampleRef) -> Sample | None:
        start, stop = ref.spec["start"], ref.spec["stop"]
        own = [network.records[i] for i in group]
        low, read = self._values_of(network, ref.spec["group"], own)
        steady = np.array([[r.station.static.get(v, np.nan) for r in own] for v in network.static], np.float64).reshape(-1, len(own))
        values = np.empty((stop - start, len(network.variables) + len(network.static), 1, 1, len(own)), np.float32)
        values[:, : len(network.variables), 0, 0] = read[:, start - low : stop - low].transpose(1, 2, 0)
        values[:, len(network.variables) :, 0, 0] = steady
        valid = np.isfinite(values)
        share = valid[:, [c for c, v in enumerate(network.variables) if v.predicted]].mean() if network.variables else 0.0
        if share == 0 or share < self.options.min_valid:
            return None
        variables = (*network.variables, *network.static)
        phase = network.phase if len(own) > 1 else int(self.clock.phase(own[0].first))
        time = self.clock.time(start, stop, phase)
        return Sample(
            np.where(valid, values, 0.0), valid, variables, time, self._origin(own, ref), "points", coordinates=_coordinates(network, own)
        )

    def _values_of(self, network: Network, group: int, own: Sequence[Record]) -> tuple[int, np.ndarray]:
        """The first tick of a group, and all that its stations measured `(N, T, C)`: kept until another group is asked for."""
        if self._kept is None or self._kept[0] != group:
            self._kept = None
            low, high = self._span(own)
            low, high = max(low, network.start), min(high, network.stop)
            values = _blank((len(own), high - low, len(network.variables)))
            for record, into in zip(own, values, strict=True):
                lay(record, self.clock, network.variables, low, into)
            self._kept = group, low, values
        return self._kept[1:]

    def _origin(self, own: Sequence[Record], ref: SampleRef) -> Origin:
        about = self.describe()
        stations = [r.station for r in own]
        files = tuple(SourceFile(name, digest) for name, digest in ref.spec["files"])
        licence = "; ".join(dict.fromkeys(s.licence or about.licence for s in stations))
        thanks = "; ".join(dict.fromkeys(filter(None, (about.attribution, *(s.attribution for s in stations)))))
        if self.options.layout == "series":
            return Origin(self.name, licence, files, thanks, stations[0].id, {"station": stations[0].id, **stations[0].about})
        told = sorted({k for s in stations for k in s.about})
        each = {k: [s.about.get(k) for s in stations] for k in told}
        return Origin(
            self.name, licence, files, thanks, f"stations {ref.spec['group']:05d}", {"stations": [s.id for s in stations], **each}
        )


def _blank(shape: tuple[int, ...]) -> np.ndarray:
    """NaN in memory, or in a file without a name where that is too much."""
    if 4 * int(np.prod(shape)) <= IN_MEMORY:
        return np.full(shape, np.nan, np.float32)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the handle
        values = np.memmap(file, np.float32, "w+", shape=shape)
    for part in values:
        part[:] = np.nan
    return values


def _one_place(id_: str, record: Record) -> None:
    """The same id in two files must be one station."""
    first_path, first = record.parts[0]
    for path, station in record.parts[1:]:
        if abs(station.latitude - first.latitude) > 0.01 or abs((station.longitude - first.longitude + 180) % 360 - 180) > 0.01:
            raise UserError(
                f"{id_} lies at {first.latitude:g} {first.longitude:g} in {first_path.name} and at {station.latitude:g} "
                f"{station.longitude:g} in {path.name}; leave one of them out"
            )


def _coordinates(network: Network, own: Sequence[Record]) -> dict[str, Coordinate]:
    stations = [r.station for r in own]
    found = {
        "latitude": Coordinate(("x",), np.array([s.latitude for s in stations]), "degrees_north"),
        "longitude": Coordinate(("x",), np.array([s.longitude for s in stations]), "degrees_east"),
    }
    if any(r.station.height is not None for r in network.records):
        heights = [np.nan if s.height is None else s.height for s in stations]
        found["height"] = Coordinate(("x",), np.array(heights, np.float64), "m")
    return found
