"""Public simulations: files of arrays, many trajectories in each, become Samples.

A source of this kind says, for each file, which array is which variable and what its axes mean (`Recording`, `Channel`); splits, names,
boundaries and lazy reading, one trajectory at a time, are here.
"""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import h5py
import numpy as np

from scigpt.data.sample import (
    SPACE_AXES,
    Boundary,
    BoundaryKind,
    Coordinate,
    Geometry,
    Level,
    Origin,
    Role,
    Sample,
    SourceFile,
    Time,
    Variable,
)
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.blocks import SPLITS, pieces, shares
from scigpt.data_prep.files import locate, sha256
from scigpt.data_prep.formats.hdf5 import contents, is_hdf5, open_hdf5
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.gridded import SAMPLE_BYTES
from scigpt.data_prep.source import Plan, SampleRef, Source, Split
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

STEADY_FRAMES = 2
_SPLIT_WORDS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class TrajectoryOptions:
    """Options of every source of simulations.

    Args:
        variables: the variables to keep, each `NAME`, `NAME:VARIABLE` or `NAME:VARIABLE:UNIT` (name in the file, in the corpus, unit in the
            file); all, under their known names, by default. A name that the registry does not know is kept as given, with the unit 1.
        boundary: instead of the known one: `periodic`, `wall` or `open` for all axes, or `x:periodic,y:wall`.
        licence: of these files, if it is not the usual one of the source.
        splits: shares of the trajectories for train, valid and test, where the files do not say.
        seed: of the order in which trajectories are dealt to the splits.
        split: put the whole input into this one split instead (`ood` marks it as out of distribution).
        frames_per_sample: cut longer trajectories; by default only those above 32 MiB are cut (not below 4 frames).
    """

    variables: tuple[str, ...] | None = None
    boundary: tuple[str, ...] | None = None
    licence: str | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 0
    split: str | None = None
    frames_per_sample: int | None = None


@dataclass(frozen=True)
class Channel:
    """One variable of a file.

    Args:
        name: in the file, with the component (`velocity_x`).
        array: HDF5 dataset or array; only what is asked for is read.
        axes: a letter for each axis: n trajectory, t time, z y x space, c and d components. What is left out does not vary.
        at: the index on axes that are not to be kept (`{"c": 1}`).
        variable: name in the corpus; the one in the file if empty.
        unit: in the file; that of the registry, or 1, if empty.
    """

    name: str
    array: Any
    axes: str
    at: Mapping[str, int] = field(default_factory=dict)
    role: Role = "state"
    variable: str = ""
    unit: str = ""
    level: Level | None = None

    def size(self, letter: str) -> int:
        """Length of an axis, 1 where the channel does not have it."""
        return int(self.array.shape[self.axes.index(letter)]) if letter in self.axes and letter not in self.at else 1

    def described(self) -> Variable:
        name = self.variable or self.name
        quantity = QUANTITIES.find(name)
        known = quantity is not None and quantity.name == name
        return Variable(name, quantity.unit if known and quantity else self.unit or "1", self.role, self.level)

    def read(self, trajectory: int, frames: slice) -> np.ndarray:
        """`(T, Z, Y, X)` in the unit of `described`, any of them 1 where the channel does not vary."""
        at: dict[str, Any] = {"n": trajectory, "t": frames, **self.at}
        values = np.asarray(self.array[tuple(at.get(a, slice(None)) for a in self.axes)])
        left = [a for a in self.axes if not isinstance(at.get(a, slice(None)), int)]
        values = values.transpose([left.index(a) for a in "tzyx" if a in left])
        sizes = iter(values.shape)
        values = values.reshape([next(sizes) if a in left else 1 for a in "tzyx"])
        return convert(values, self.unit, self.described().unit, self.name) if self.unit else values


def _nothing(trajectory: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Recording:
    """Trajectories of one file that share their shape.

    Args:
        path: the file.
        count: trajectories.
        channels: their variables; of a steady problem those of the role `state` are the solution.
        times: float `(T,)` of a trajectory; None for steady problems.
        coordinates, coefficients: of a trajectory.
        split: the split that the file says they belong to, None if it does not.
        name: what tells recordings of one file apart (a group of the file).
    """

    path: Path
    count: int
    channels: tuple[Channel, ...]
    times: Callable[[int], np.ndarray] | None
    boundary: Boundary
    coordinates: Callable[[int], Mapping[str, Coordinate]] = _nothing
    coefficients: Callable[[int], Mapping[str, float]] = _nothing
    geometry: Geometry = "plane"
    split: str | None = None
    name: str = ""

    @property
    def steady(self) -> bool:
        return self.times is None

    @property
    def frames(self) -> int:
        return STEADY_FRAMES if self.times is None else max(c.size("t") for c in self.channels)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(max(c.size(a) for c in self.channels) for a in SPACE_AXES)

    @property
    def frame_bytes(self) -> int:
        return 4 * len(self.channels) * int(np.prod(self.grid))

    def read(self, trajectory: int, start: int, stop: int, origin: Origin) -> Sample:
        """Frames start..stop of a trajectory."""
        place = f"{self.path.name}, {f'{self.name}, ' if self.name else ''}trajectory {trajectory}"
        frames = slice(0, 1) if self.times is None else slice(start, stop)
        variables = tuple(c.described() for c in self.channels)
        values = np.empty((stop - start, len(variables), *self.grid), np.float32)
        with one_sentence(self.path):
            for c, channel in enumerate(self.channels):
                values[:, c] = channel.read(trajectory, frames)
            seconds = np.arange(stop - start, dtype=float) if self.times is None else self.seconds(trajectory)[frames]
            coordinates, coefficients = self.coordinates(trajectory), self.coefficients(trajectory)
        valid = np.isfinite(values)
        state = [c for c, v in enumerate(variables) if v.predicted]
        if not valid[:, state].any():
            raise UserError(f"{place} has no finite value in frames {start} to {stop - 1}; the file is incomplete, fetch it again")
        if self.steady:
            valid[0, state] = False
        values[~valid] = 0.0
        return Sample(
            values,
            valid,
            variables,
            Time(seconds),
            replace(origin, place=place),
            self.geometry,
            self.boundary,
            coordinates,
            {name: float(v) for name, v in coefficients.items()},
            self.steady,
        )

    def seconds(self, trajectory: int) -> np.ndarray:
        """Time of each frame; a file may give more times than it has frames."""
        assert self.times is not None
        seconds = np.asarray(self.times(trajectory), np.float64).ravel()
        if seconds.size < self.frames:
            raise UserError(f"{self.path.name} has {seconds.size} times for {self.frames} frames; expected one time for each frame or more")
        return seconds


class TrajectorySource(Source):
    """A source of simulations; a subclass says how one file is laid out."""

    Options: ClassVar[type] = TrajectoryOptions
    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5", ".nc")
    """Files to take from a folder that is given as input."""
    layout: ClassVar[str]
    """What `fits` asks for, in words."""
    splits_by_name: ClassVar[bool] = False
    """Whether the name of a file or of its folder says the split (`split_word`)."""

    options: TrajectoryOptions

    # what a source says

    @classmethod
    @abstractmethod
    def fits(cls, file: h5py.File) -> bool:
        """Whether the file is laid out as this source expects."""

    @abstractmethod
    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        """What the file holds, without reading values."""

    def deal(self, recordings: Sequence[Recording]) -> list[str]:
        """The split of every trajectory, for recordings whose files do not say: dealt by `splits` in an order keyed by `seed`."""
        count = sum(r.count for r in recordings)
        splits = np.empty(count, object)
        order = np.random.default_rng(self.options.seed).permutation(count)
        for name, start, stop in shares(count, self.options.splits):
            splits[order[start:stop]] = name
        if count and "train" not in splits:
            splits[order[0]] = "train"
        return list(splits)

    # Source

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file:
            return cls.fits(file)

    def plan(self) -> Plan:
        files = self._files()
        digests = [sha256(path) for path in files]
        flat: list[tuple[dict[str, Any], Recording, int, int]] = []
        for k, path in enumerate(files):
            with self.open(path) as recordings:
                for j, r in enumerate(recordings):
                    flat.append(({"file": k, "recording": j, "sha256": digests[k]}, r, r.frames, r.frame_bytes))
        found: dict[str, list[SampleRef]] = {}
        largest = 0
        for (where, recording, frames, frame_bytes), own in zip(flat, self._splits([r for _, r, _, _ in flat]), strict=True):
            asked = self.options.frames_per_sample
            size = frames if recording.steady else max(4, SAMPLE_BYTES // frame_bytes) if asked is None else asked
            slug = re.sub(r"[^a-z0-9]+", "-", recording.path.stem.lower()).strip("-")[:60]
            largest = max(largest, frame_bytes * min(size, frames))
            for i, split in enumerate(own):
                for start, stop in pieces(0, frames, size):
                    key = f"{slug}-{where['file']:03d}-{where['recording']:04d}-{i:06d}-{start:06d}"
                    found.setdefault(split, []).append(SampleRef(key, split, where | {"trajectory": i, "start": start, "stop": stop}))
        names = sorted(found, key=lambda s: ([s.startswith(known) for known in SPLITS].index(True) if s.startswith(SPLITS) else 3, s))
        inputs = tuple((path.name, digest) for path, digest in zip(files, digests, strict=True))
        return Plan(tuple(ref for s in names for ref in found[s]), tuple(map(self.split, names)), inputs, largest + (1 << 13))

    def split(self, name: str) -> Split:
        return Split(name, "out" if name == "ood" else "in")

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        files, about = self._files(), self.describe()
        for k, group in itertools.groupby(refs, lambda ref: ref.spec["file"]):  # one file open at a time
            with self.open(files[k]) as recordings:
                for spec in (ref.spec for ref in group):
                    source_file = SourceFile(files[k].name, spec["sha256"])
                    origin = Origin(self.name, self.options.licence or about.licence, (source_file,), about.attribution)
                    yield recordings[spec["recording"]].read(spec["trajectory"], spec["start"], spec["stop"], origin)

    # its parts

    @contextmanager
    def open(self, path: Path) -> Iterator[list[Recording]]:
        """The recordings of a file, with the options applied, while the file is open."""
        with self.opened(path) as file:
            with one_sentence(path):
                recordings = [self._as_asked(r) for r in self.recordings(path, file)]
            if not recordings:
                raise UserError(f"{path.name} holds no trajectory; expected {self.layout}")
            yield recordings

    @contextmanager
    def opened(self, path: Path) -> Iterator[Any]:
        with open_hdf5(path) as file:
            with one_sentence(path):
                fits, there = self.fits(file), contents(file)
            if not fits:
                held = ", ".join(there) or "no array"
                why = "; particles are on no grid and are not read" if any(n.endswith("position") for n in there) else ""
                raise UserError(f"{path.name} is not laid out as {self.name} files are: it holds {held}; expected {self.layout}{why}")
            yield file

    def _files(self) -> list[Path]:
        if not self.inputs:
            raise UserError(f"the source {self.name} needs a file: give --input PATH")
        files: list[Path] = []
        for given in self.inputs:
            path = locate(given)
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in self.suffixes) if path.is_dir() else [path]
            if not inside:
                raise UserError(f"the folder {path} has no file that ends with {', '.join(self.suffixes)}; check the path given as --input")
            files.extend(locate(p) for p in inside)
        return files

    def _splits(self, recordings: Sequence[Recording]) -> list[list[str]]:
        """For each recording the split of each of its trajectories."""
        if (name := self.options.split) is not None:
            return [[name] * r.count for r in recordings]
        said = [r.split or (self.split_word(r.path) if self.splits_by_name else None) for r in recordings]
        dealt = iter(self.deal([r for r, s in zip(recordings, said, strict=True) if s is None]))
        splits = [[s or next(dealt) for _ in range(r.count)] for r, s in zip(recordings, said, strict=True)]
        if all(s != "train" for own in splits for s in own):
            raise UserError(
                f"{recordings[0].path.name}: the input holds the split {splits[0][0]} and no training data, which normalise a corpus; "
                "add the training files to --input, or put all into one split with split=train"
            )
        return splits

    def split_word(self, path: Path) -> str | None:
        """The split that is a word of the file's name, or else the name of its folder."""
        words = [*re.split(r"[^a-z0-9]+", path.stem.lower()), path.parent.name.lower()]
        return next((_SPLIT_WORDS[w] for w in words if w in _SPLIT_WORDS), None)

    def _as_asked(self, recording: Recording) -> Recording:
        """With the variables and the boundary of the options."""
        channels = recording.channels
        if self.options.variables is not None:
            channels = tuple(_chosen(word, recording) for word in self.options.variables)
            if not any(c.described().predicted for c in channels):
                asked = ",".join(self.options.variables)
                raise UserError(f"{recording.path.name}: variables={asked} leaves nothing to predict; add a state")
        return replace(recording, channels=channels, boundary=boundary(self.options.boundary, recording))


def _chosen(word: str, recording: Recording) -> Channel:
    name, _, rest = word.partition(":")
    variable, _, unit = rest.partition(":")
    for channel in recording.channels:
        if name in (channel.name, channel.variable):
            return replace(channel, variable=variable or channel.variable, unit=unit or channel.unit)
    near = nearest(name, [n for c in recording.channels for n in (c.name, c.variable)])
    raise UserError(f"{recording.path.name} has no variable {name!r}; {near or 'it has ' + ', '.join(c.name for c in recording.channels)}")


def boundary(words: Sequence[str] | None, recording: Recording) -> Boundary:
    """The recording's own boundary, or what the option `boundary` says instead."""
    if words is None:
        return recording.boundary
    present = [a for a, size in zip(SPACE_AXES, recording.grid, strict=True) if size > 1]
    sides = {a: getattr(recording.boundary, a) for a in SPACE_AXES}
    for word in words:
        axis, _, kind = word.rpartition(":")
        if kind not in get_args(BoundaryKind) or axis not in ("", *present):
            kinds, axes = ", ".join(get_args(BoundaryKind)), ", ".join(present)
            raise UserError(f"option boundary={word}: expected one of {kinds}, alone or after an axis ({axes}), as in x:periodic")
        sides |= dict.fromkeys([axis] if axis else present, (kind, kind))
    return Boundary(**sides)


def on_axes(kind: BoundaryKind | tuple[BoundaryKind, BoundaryKind], axes: str) -> Boundary:
    """The same boundary on the space axes among the letters."""
    sides = (kind, kind) if isinstance(kind, str) else kind
    return Boundary(**{a: sides for a in SPACE_AXES if a in axes})


def along(**axes: Any) -> dict[str, Coordinate]:
    """Coordinates `x=..., y=...` of one axis each, in the simulation's own unit of length."""
    return {name: Coordinate((name,), np.asarray(values, np.float64), "1") for name, values in axes.items()}
