"""A user's own data: tables and files of arrays become a corpus by a small YAML map of names, units, roles and axes.

`docs/own-data.md` is the guide, `datamap` the map, `tables` and `array_files` the readers.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from scigpt.data.sample import Origin, Sample, SourceFile, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.array_files import ArrayFile
from scigpt.data_prep.blocks import SPLITS, pieces, shares, time_blocks
from scigpt.data_prep.datamap import DataMap, load_map
from scigpt.data_prep.files import kind, locate, sha256
from scigpt.data_prep.formats.opening import open_datasets
from scigpt.data_prep.gridded import SAMPLE_BYTES
from scigpt.data_prep.sniff import is_table
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split
from scigpt.data_prep.suggest import nearest
from scigpt.data_prep.tables import table_tracks
from scigpt.data_prep.tracks import Track, convert_channel, long_enough, make_variable
from scigpt.errors import UserError


@dataclass(frozen=True)
class GenericOptions:
    """Options of a user's own data.

    Args:
        map: path of the map; `--map` on the command line. `scigpt data inspect FILE --draft map.yaml` writes a first one.
        frames_per_sample: longest sample; shortened to keep a sample below 32 MiB (but not below 4 frames).
        split: put everything into this one split instead of following the map (`ood` marks it as out of distribution).
    """

    map: str = ""
    frames_per_sample: int = 256
    split: str | None = None


class Generic(Source):
    """Tables and arrays with a map."""

    name = "generic"
    Options: ClassVar[type] = GenericOptions
    options: GenericOptions

    @classmethod
    def describe(cls) -> Description:
        return Description("generic", "your own data, by a map", "CSV, NetCDF, Zarr, GRIB", "as the map states", redistributable=False)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return is_table(path)

    @property
    def redistributable(self) -> bool:
        return self.map.redistributable

    @cached_property
    def map_path(self) -> Path:
        if not self.options.map:
            raise UserError("the source generic needs a map: give --map map.yaml (`scigpt data inspect FILE --draft map.yaml` writes one)")
        return locate(self.options.map)

    @cached_property
    def map(self) -> DataMap:
        return load_map(self.map_path)

    def bounds(self, variable: Variable) -> tuple[float, float]:
        return self._bounds.get(variable.name) or super().bounds(variable)

    @cached_property
    def _bounds(self) -> dict[str, tuple[float, float]]:
        """Bounds that the map states, by the name of the variable, in the unit it is stored in."""
        bounds: dict[str, tuple[float, float]] = {}
        for column, channel in self.map.variables.items():
            if channel.bounds is not None and channel.unit is not None:
                where = f"{self.map_path}: variables.{column}.bounds"
                made = make_variable(column, channel, channel.unit, None, where)
                low, high = convert_channel(np.array(channel.bounds), channel.unit, made.name, made.unit, where)
                if bounds.setdefault(made.name, (float(low), float(high))) != (float(low), float(high)):
                    raise UserError(f"{where} differ from those of another column of {made.name}; state the same for all of its levels")
        return bounds

    def plan(self) -> Plan:
        if not self.inputs:
            raise UserError("the source generic needs your data: give --input PATH")
        paths = [locate(p) for p in self.inputs]
        digests = [sha256(p) for p in paths]
        found: list[tuple[int, int, Track]] = []
        with ExitStack() as stack:
            for number, path in enumerate(paths):
                found += [(number, i, t) for i, t in enumerate(self._tracks(path, stack))]
            tracks = [t for _, _, t in found]
            notes = self._notes(tracks)
            splits, parts = self._parts(tracks, notes)
            refs: dict[str, list[SampleRef]] = {}
            dropped = 0
            for index, ((number, inside, track), own) in enumerate(zip(found, parts, strict=True)):
                size = min(self.options.frames_per_sample, max(4, SAMPLE_BYTES // track.frame_bytes))
                slug = re.sub(r"[^a-z0-9]+", "-", track.place.lower()).strip("-")[:60] or "record"
                for name, low, high in own:
                    for start, stop in pieces(low, high, size):
                        if track.filled and track.empty(start, stop):
                            dropped += stop - start
                            continue
                        spec = {"file": number, "track": inside, "start": start, "stop": stop, "sha256": digests[number]}
                        refs.setdefault(name, []).append(SampleRef(f"{slug}-{index:04d}-{start:08d}", name, spec))
            if dropped:
                notes.append(f"{dropped} frames are left out because they hold no value to predict")
            largest = max(t.frame_bytes * min(self.options.frames_per_sample, len(t.time)) for t in tracks)
        used = [s for s in splits if s.name in refs]
        inputs = [(p.name, d) for p, d in zip(paths, digests, strict=True)]
        return Plan(
            tuple(ref for s in used for ref in refs[s.name]),
            tuple(used),
            (*inputs, (self.map_path.name, sha256(self.map_path))),
            largest,
            tuple(notes),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for number, wanted in itertools.groupby(refs, key=lambda r: int(r.spec["file"])):
            path = locate(self.inputs[number])
            with ExitStack() as stack:
                tracks = self._tracks(path, stack)
                for ref in wanted:
                    track, files = tracks[ref.spec["track"]], (SourceFile(path.name, ref.spec["sha256"]),)
                    origin = Origin(self.name, self.map.licence, files, self.map.attribution, track.place)
                    yield track.sample(ref.spec["start"], ref.spec["stop"], origin)

    def _tracks(self, path: Path, stack: ExitStack) -> list[Track]:
        """The records of one file, open until the stack is left."""
        if kind(path) == "other":
            if path.is_dir():
                raise UserError(f"{path} is a folder and no Zarr store; give the files in it as --input")
            return table_tracks(path, self.map)
        datasets = open_datasets(path)
        for dataset in datasets:
            stack.callback(dataset.close)
        return ArrayFile(path, datasets, self.map).tracks()

    def _notes(self, tracks: Sequence[Track]) -> list[str]:
        """A name that is nearly one of the registry may be a slip."""
        registered = [q.name for q in QUANTITIES]
        return [
            f"{v.name} is not in the registry and is kept as your own variable in {v.unit}; {near}"
            for v in tracks[0].variables
            if v.name not in registered and (near := nearest(v.name, registered))
        ]

    def _parts(self, tracks: Sequence[Track], notes: list[str]) -> tuple[list[Split], list[list[tuple[str, int, int]]]]:
        """The splits, and for each track `(split, start, stop)` of frames without a hole."""
        rule, segments = self.map.split, [t.segments() for t in tracks]
        if self.options.split is not None:
            name = self.options.split
            return [Split(name, "out" if name == "ood" else "in")], [[(name, *s) for s in long_enough(own)] for own in segments]
        if rule.by == "time":
            blocks = self._blocks(tracks, notes)
            parts = []
            for track, own in zip(tracks, segments, strict=True):
                cut = []
                for name, first, last in blocks:
                    inside = (track.time.seconds >= first) & (track.time.seconds <= last)
                    low, high = (int(inside.argmax()), int(inside.argmax() + inside.sum())) if inside.any() else (0, 0)
                    cut += [(name, max(a, low), min(b, high)) for a, b in own if min(b, high) > max(a, low)]
                keep = set(long_enough([(a, b) for _, a, b in cut]))
                parts.append([c for c in cut if c[1:] in keep])
            return [Split(s) for s in SPLITS], parts
        homes = self._homes(tracks, notes)
        splits = [*(Split(s) for s in SPLITS), Split("ood", "out", f"{rule.by}: {', '.join(rule.ood)}")]
        return splits, [[(homes[self._whole(t)], *s) for s in long_enough(own)] for t, own in zip(tracks, segments, strict=True)]

    def _blocks(self, tracks: Sequence[Track], notes: list[str]) -> list[tuple[str, float, float]]:
        """`(split, first second, last second)`: blocks of time common to all records, so that none leaks into another's past."""
        rule, seconds = self.map.split, np.unique(np.concatenate([t.time.seconds for t in tracks]))
        longest = max(tracks, key=lambda t: len(t.time)).time.seconds
        # records whose clocks are shifted against each other have several instants in one step
        dense = 1 if len(longest) < 2 else max(1, round(float(np.median(np.diff(longest)) / np.median(np.diff(seconds)))))
        blocks = time_blocks(seconds.size, rule.fractions, rule.gap * dense)
        if len(blocks) < sum(f > 0 for f in rule.fractions):
            notes.append(f"{seconds.size} frames are too few to be split; all go to train")
        return [(name, seconds[a], seconds[b - 1]) for name, a, b in blocks]

    def _whole(self, track: Track) -> str:
        return track.path.stem if self.map.split.by == "file" else track.whole

    def _homes(self, tracks: Sequence[Track], notes: list[str]) -> dict[str, str]:
        """The split of each station, file or trajectory: as listed, or drawn by the hash of its name."""
        rule, axes = self.map.split, self.map.axes
        stations = axes.station if self.map.layout == "series" else None
        if rule.by != "file" and not (stations if rule.by == "station" else axes.trajectory):
            raise UserError(f"{self.map_path}: split.by is {rule.by} and records are not told apart by axes.{rule.by}; use time or file")
        names = list(dict.fromkeys(self._whole(t) for t in tracks))
        listed = {name: split for split in ("valid", "test", "ood") for name in getattr(rule, split)}
        for name in listed:
            if name not in names:
                near = nearest(name, names) or f"there are {', '.join(names[:10])}"
                raise UserError(f"{self.map_path}: split.{listed[name]} lists {name!r}, which is no {rule.by} of the input; {near}")
        if listed:
            return {name: listed.get(name, "train") for name in names}
        drawn = sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())
        parts = shares(len(names), rule.fractions)
        if any(start == stop for _, start, stop in parts):
            notes.append(f"{len(names)} of split.by {rule.by} are too few to be split; all go to train")
            return dict.fromkeys(names, "train")
        return {name: split for split, start, stop in parts for name in drawn[start:stop]}
