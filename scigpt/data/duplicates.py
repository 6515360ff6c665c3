"""Duplicates: samples that are the same in one corpus or in two, and files from which one corpus trains and another is tested."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scigpt.data.corpus import TRAIN, Corpus
from scigpt.data.files import dump_json, load_json
from scigpt.data.sample import Sample
from scigpt.data.shard import ShardReader, index_path
from scigpt.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """A sample: corpus (its folder), split, key."""

    corpus: Path
    split: str
    key: str

    def __str__(self) -> str:
        return f"{self.corpus}, split {self.split}, sample {self.key}"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two samples that are the same (`sample`), or that come from the same times of the same file (`file`, which is named).

    `leak`: one of them is trained on and the other is held out.
    """

    kind: Literal["sample", "file"]
    first: Place
    second: Place
    leak: bool
    file: str = ""


def describe(duplicate: Duplicate) -> str:
    """One sentence."""
    first, second = duplicate.first, duplicate.second
    if duplicate.kind == "file":
        return (
            f"{first.corpus}, split {first.split}, and {second.corpus}, split {second.split}, hold the same times of the file "
            f"{duplicate.file} (such as the samples {first.key} and {second.key}): what is tested there was trained on here"
        )
    where = f"sample {second.key} of the same split" if (first.corpus, first.split) == (second.corpus, second.split) else str(second)
    return f"{first} and {where} hold the same values" + (": what is tested was trained on" if duplicate.leak else "")


def duplicates(corpora: Sequence[Corpus]) -> list[Duplicate]:
    """Samples with equal values, of these corpora together, and files shared by a training split and the held-out one of another corpus.

    Samples collide by the hashes in the shards' indexes; only of those that do are metas read. They are the same if their values are
    scaled alike and their times (in their calendar) and coordinates agree; simulated samples, which have no date, by values alone.
    Fields that are constant (a dry day, a tile of sea) collide honestly and do not count. Of several samples that are the same each is
    told beside one of them, a training sample if there is any. Files count where the samples made from them overlap in time.

    Raises:
        UserError: an index or a meta that cannot be read.
    """
    seen: dict[tuple[str, str], list[_Held]] = {}
    for corpus in corpora:
        for held in _samples(corpus):
            seen.setdefault((held.members["values.npy"]["sha256"], held.members["valid.npy"]["sha256"]), []).append(held)
    found = []
    for group in seen.values():
        if len(group) > 1 and not group[0].constant():
            same: dict[tuple[Any, ...], list[_Held]] = {}
            for held in group:
                same.setdefault(held.identity(), []).append(held)
            for twins in same.values():
                anchor, *others = sorted(twins, key=lambda h: h.place.split != TRAIN)
                found += [_pair("sample", anchor, other) for other in others]
    for one, other in itertools.permutations(corpora, 2):
        found += _shared_files(one, other)
    return found


@dataclass(frozen=True, slots=True)
class _Held:
    """A sample as the index of its shard knows it."""

    place: Place
    shard: Path
    index: int
    members: Mapping[str, Any]

    def about(self) -> tuple[Sample, Any]:
        """The sample without its fields, and its packing."""
        with open(self.shard, "rb") as file:
            member = self.members["meta.json"]
            file.seek(member["offset"])
            payload = file.read(member["size"])
        if hashlib.sha256(payload).hexdigest() != member["sha256"]:
            raise UserError(f"{self.shard}: {self.place.key}.meta.json does not match its sha256; `scigpt data verify` lists the damage")
        meta, shape = json.loads(payload), tuple(self.members["values.npy"]["shape"])
        arrays = {n: self._array(f"{n}.npy") for n, c in meta["coordinates"].items() if c["values"] is None}
        fields = np.broadcast_to(np.float32(0), shape), np.broadcast_to(np.False_, shape)
        return Sample.from_parts(meta, *fields, arrays), meta["packing"]

    def _array(self, name: str) -> np.ndarray:
        about = self.members[name]
        return np.memmap(self.shard, about["dtype"], "r", about["data_offset"], tuple(about["shape"]))

    def constant(self) -> bool:
        """Whether no variable has two valid values that differ."""
        sample = ShardReader(self.shard).read(self.index)
        parts = [sample.values[:, c][sample.valid[:, c]] for c in range(len(sample.variables))]
        return all(p.size == 0 or p.min() == p.max() for p in parts)

    def identity(self) -> tuple[Any, ...]:
        """What must agree, beside the stored values, for two samples to be the same."""
        sample, packing = self.about()
        scaling = dump_json(packing)
        if sample.time.calendar == "none":
            return (scaling,)
        places = {n: (c.axes, np.round(c.values, 3).tobytes()) for n, c in sample.coordinates.items()}
        return scaling, sample.time.calendar, np.round(sample.time.seconds, 3).tobytes(), tuple(sorted(places.items()))


def _samples(corpus: Corpus) -> Iterator[_Held]:
    for about in corpus.manifest["shards"]:
        shard = corpus.path / about["file"]
        for i, entry in enumerate(load_json(index_path(shard), "the index of a shard")["samples"]):
            yield _Held(Place(corpus.path, about["split"], entry["key"]), shard, i, entry["members"])


def _pair(kind: Literal["sample", "file"], first: _Held, second: _Held, file: str = "") -> Duplicate:
    leak = (first.place.split == TRAIN) != (second.place.split == TRAIN)
    return Duplicate(kind, first.place, second.place, leak, file)


def _shared_files(trained: Corpus, tested: Corpus) -> Iterator[Duplicate]:
    """Files that samples for training of the one and held-out samples of the other are made from, once for each split."""
    inputs = [{i["sha256"] for i in c.manifest["recipe"]["inputs"]} for c in (trained, tested)]
    if not inputs[0] & inputs[1]:
        return
    ours, theirs = ([(h, h.about()[0]) for h in _samples(c)] for c in (trained, tested))
    for digest in sorted(inputs[0] & inputs[1]):
        train = [(h, s) for h, s in ours if h.place.split == TRAIN and _made_from(s, digest)]
        extents = np.array([_extent(s) for _, s in train]).reshape(len(train), 3, 2)
        told: set[str] = set()
        for held, sample in theirs:
            if not train or held.place.split in {TRAIN, *told} or not _made_from(sample, digest):
                continue
            extent = np.array(_extent(sample))
            alike = [
                s.time.calendar == sample.time.calendar and (s.time.calendar != "none" or s.origin.place == sample.origin.place)
                for _, s in train
            ]
            apart = (extents[:, :, 0] > extent[:, 1]) | (extents[:, :, 1] < extent[:, 0])
            overlap = np.array(alike) & ~np.any(apart, axis=1)
            if overlap.any():
                told.add(held.place.split)
                name = next(f.name for f in sample.origin.files if f.sha256 == digest)
                yield _pair("file", train[int(np.argmax(overlap))][0], held, name)


def _made_from(sample: Sample, digest: str) -> bool:
    return any(f.sha256 == digest for f in sample.origin.files)


def _extent(sample: Sample) -> list[tuple[float, float]]:
    """First and last time, and least and greatest latitude and longitude; all of space where there are none."""
    ends = [(float(sample.time.seconds[0]), float(sample.time.seconds[-1]))]
    for name in ("latitude", "longitude"):
        coordinate = sample.coordinates.get(name)
        known = np.array([]) if coordinate is None else coordinate.values[np.isfinite(coordinate.values)]
        known = known % 360.0 if name == "longitude" else known  # one corpus may count from -180, the other from 0
        ends.append((float(known.min()), float(known.max())) if known.size else (-np.inf, np.inf))
    return ends
