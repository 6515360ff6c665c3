"""One shard: an independent task that can be done anywhere and again, and what is counted while it is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.corpus import TRAIN
from scigpt.data.files import dump_json, load_json, sha256_of, write_bytes
from scigpt.data.gaps import Gaps
from scigpt.data.sample import Sample
from scigpt.data.shard import index_path, write_shard
from scigpt.data.statistics import Statistics
from scigpt.data_prep.source import SampleRef, Source
from scigpt.errors import UserError


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: all that a worker process needs."""

    source: type[Source]
    inputs: tuple[Path, ...]
    options: Any
    file: Path
    split: str
    refs: tuple[SampleRef, ...]
    fingerprint: str

    @property
    def result_file(self) -> Path:
        return self.file.with_suffix(".result.json")

    def result(self) -> dict[str, Any] | None:
        """What `run` wrote, if this shard was finished by the same recipe."""
        if not self.result_file.is_file():
            return None
        try:
            result = load_json(self.result_file, "the result of a shard")
        except UserError:  # torn by a fault of the disk
            return None
        if result["fingerprint"] != self.fingerprint:
            return None
        if (record := result["record"]) is None:  # not one of its samples holds a value
            return result
        there = self.file.is_file() and index_path(self.file).is_file() and self.file.stat().st_size == record["bytes"]
        return result if there and sha256_of(index_path(self.file)) == record["index_sha256"] else None

    def run(self, tick: Callable[[], object] = lambda: None, source: Source | None = None) -> None:
        """Write shard, sidecar and, last, the result: record, statistics, what was out of bounds. Repeatable.

        Args:
            tick: called after each sample.
            source: one of this class, inputs and options, whose inputs are open already.
        """
        self.result_file.unlink(missing_ok=True)
        source = source or self.source(self.inputs, self.options)
        tally = Tally(self.split, source)
        samples = self._samples(source, tally, tick)
        first = next(samples, None)
        record = None if first is None else asdict(write_shard(self.file, itertools.chain([first], samples)))
        write_bytes(self.result_file, dump_json({"fingerprint": self.fingerprint, "record": record, **tally.to_json()}))

    def _samples(self, source: Source, tally: Tally, tick: Callable[[], object]) -> Iterator[tuple[str, str, Sample]]:
        made = source.samples(self.refs)
        for ref in self.refs:
            try:
                sample = next(made)
            except StopIteration:
                raise UserError(f"source {source.name} planned sample {ref.key} and did not yield it; report this with the input") from None
            if sample is None:
                tally.left_out += 1
            else:
                yield ref.key, self.split, tally.take(ref.key, sample)
            tick()


class Tally:
    """What is counted while a shard is written."""

    def __init__(self, split: str, source: Source) -> None:
        self.train, self.source = split == TRAIN, source
        self.stats = Statistics()
        self.shape: dict[str, Any] | None = None
        self.first = ""
        self.limits: dict[str, tuple[float, float]] = {}
        self.bounds: dict[str, dict[str, Any]] = {}
        self.coefficients: dict[str, list[float]] = {}
        self.licences: set[str] = set()
        self.attributions: set[str] = set()
        self.left_out = 0
        self.gaps = Gaps()

    def take(self, key: str, sample: Sample) -> Sample:
        """Count a sample and return it with implausible values marked invalid."""
        where = where_of(key, sample)
        shape = {**sample.layout.to_json(), "calendar": sample.time.calendar, "coordinates": sorted(sample.coordinates)}
        if self.shape is None:
            self.shape, self.first = shape, where
        same_shape(self.first, self.shape, where, shape)
        sample = self._bound(where, sample)
        for name, value in sample.coefficients.items():
            low, high = self.coefficients.get(name, (value, value))
            self.coefficients[name] = [min(low, value), max(high, value)]
        self.licences.add(sample.origin.licence)
        self.attributions.add(sample.origin.attribution)
        self.gaps.take(sample)
        if self.train:
            self.stats.update(sample)
        return sample

    def _bound(self, where: str, sample: Sample) -> Sample:
        valid = sample.valid
        files = ", ".join(f.name for f in sample.origin.files)
        for c, variable in enumerate(sample.variables):
            if variable.key not in self.limits:
                self.limits[variable.key] = self.source.bounds(variable)
            low, high = self.limits[variable.key]
            about = self.bounds.setdefault(variable.key, {"plausible": f"{low:g} to {high:g} {variable.unit}", "files": {}})
            count = about["files"].setdefault(files, {"outside": 0, "valid": 0, "worst": 0, "where": where})
            count["valid"] += int(np.count_nonzero(valid[:, c]))
            field = sample.values[:, c]
            if low <= field.min() and field.max() <= high:
                continue
            # infinity is not implausible but wrong; it stays valid and the writer refuses it
            outside = valid[:, c] & np.isfinite(field) & ((field < low) | (field > high))
            found = int(np.count_nonzero(outside))
            if not found:
                continue
            count["outside"] += found
            if found > count["worst"]:
                count |= {"worst": found, "where": where}
            if valid is sample.valid:
                valid = valid.copy()
            valid[:, c] &= ~outside
        return replace(sample, valid=valid)

    def to_json(self) -> dict[str, Any]:
        return {
            "stats": self.stats.to_json(quantiles=False) if self.train else None,
            "shape": self.shape,
            "first": self.first,
            "bounds": self.bounds,
            "coefficients": self.coefficients,
            "licences": sorted(self.licences - {""}),
            "attributions": sorted(self.attributions - {""}),
            "left_out": self.left_out,
            "gaps": self.gaps.to_json(),
        }


def where_of(key: str, sample: Sample) -> str:
    files = ", ".join(f.name for f in sample.origin.files[:2])
    return f"sample {key}" + (f" ({files})" if files else "")


def same_shape(first: str, one: dict[str, Any], second: str, other: dict[str, Any]) -> None:
    for what, value in one.items():
        if other[what] != value:
            told = [", ".join(v["name"] for v in s) if what == "variables" else s for s in (value, other[what])]
            raise UserError(
                f"{first} and {second} differ in {what}: {told[0]} and {told[1]}; all samples of a corpus share one layout, "
                f"so put them into two corpora or choose options that make them alike"
            )
