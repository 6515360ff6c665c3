"""What `scigpt bench data` measures: random windows by index against a reader that loads whole members, and the simulators."""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scigpt.data.corpus import Corpus
from scigpt.data.keyed import generator
from scigpt.data.mixture import DataConfig
from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.data.shard import ShardReader, write_shard
from scigpt.data_prep.source import Source
from scigpt.errors import UserError
from scigpt.launch.output import table

SHAPE = (48, 10, 1, 360, 720)
"""Frames, variables and grid of the synthetic record: 498 MB of float32 in one member."""
WINDOW = (2, 128, 128)
"""Frames, Y and X of a window; smaller where the record is."""
FEW, MANY = 3, 60
"""Windows that a round reads by member and by index."""
Members = dict[str, tuple[int, int]]
"""Offset and size of each member of a tar."""


class Place(NamedTuple):
    """A window: shard, number and key of the sample, and what is cut out of it."""

    shard: Path
    sample: int
    key: str
    frames: slice
    y: slice
    x: slice


def synthetic(rounds: int, shape: tuple[int, int, int, int, int] = SHAPE, window: tuple[int, int, int] = WINDOW) -> dict[str, Any]:
    """`compare` on one record `(T, C, Z, Y, X)` in a temporary folder, stored as float32: small changes on values too large for int16."""
    draw = generator("bench", "record")
    values = draw.standard_normal(shape, dtype=np.float32)
    values += 1e4 * draw.standard_normal(shape[1:], dtype=np.float32)
    variables = tuple(Variable(f"field_{c}", "1") for c in range(shape[1]))
    sample = Sample(values, np.ones(shape, bool), variables, Time.regular(0.0, 1.0, shape[0]), Origin("bench", "CC0-1.0"))
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        shard = Path(folder) / "train-000000.tar"
        write_shard(shard, [("000000", "train", sample)])
        return compare([shard], shape[2:], rounds, window)


def of_corpus(path: Path, rounds: int) -> dict[str, Any]:
    """`compare` on the shards of a corpus."""
    corpus = Corpus.open(path)
    return compare([corpus.path / s["file"] for s in corpus.manifest["shards"]], corpus.layout.grid, rounds, WINDOW)


def compare(shards: Sequence[Path], grid: tuple[int, int, int], rounds: int, window: tuple[int, int, int]) -> dict[str, Any]:
    """Windows per second of both readers, in turn in each round; medians over the rounds. The cache of the system is warm.

    Raises:
        UserError: shards whose index and members do not say the same.
    """
    readers = {shard: ShardReader(shard) for shard in shards}
    members = {shard: _walk(shard) for shard in shards}
    samples = [(shard, i) for shard, reader in readers.items() for i in range(len(reader))]
    draw = generator("bench", "places")

    def places(count: int) -> list[Place]:
        chosen = [samples[k] for k in draw.integers(len(samples), size=count)]
        sizes = [(readers[shard].frames[i], *grid[1:]) for shard, i in chosen]
        return [
            Place(shard, i, readers[shard].keys[i], *(_some(draw, w, n) for w, n in zip(window, size, strict=True)))
            for (shard, i), size in zip(chosen, sizes, strict=True)
        ]

    def by_index(place: Place) -> np.ndarray:
        return readers[place.shard].read(place.sample, place.frames, place.y, place.x).values

    def by_member(place: Place) -> np.ndarray:
        return _by_member(place, members[place.shard])

    for place in places(FEW):  # warms the cache, and shows that both read the same
        if not np.array_equal(first := by_index(place), by_member(place)):
            raise UserError(f"{place.shard}: index and member of sample {place.key} differ; `scigpt data verify` lists the damage")
    rates = [(_rate(by_index, places(MANY)), _rate(by_member, places(FEW))) for _ in range(rounds)]
    return {
        "shards": len(shards),
        "mb_stored": sum(shard.stat().st_size for shard in shards) / 1e6,
        "window": list(first.shape),
        "rounds": rounds,
        **{
            name: {what: statistics.median(r[reader][k] for r in rates) for k, what in enumerate(("windows_per_second", "mb_per_second"))}
            for reader, name in enumerate(("index", "member"))
        },
        "ratio": statistics.median(index[0] / member[0] for index, member in rates),
    }


def _walk(shard: Path) -> Members:
    with tarfile.open(shard, "r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def _by_member(place: Place, members: Members) -> np.ndarray:
    """What a reader of plain WebDataset tars does: load the members of the sample, then cut. It is spared looking for them in the tar."""
    with open(place.shard, "rb") as tar:

        def load(name: str) -> bytes:
            offset, size = members[f"{place.key}.{name}"]
            tar.seek(offset)
            return tar.read(size)

        stored, valid = (np.load(io.BytesIO(load(f"{name}.npy")), allow_pickle=False) for name in ("values", "valid"))
        packing = json.loads(load("meta.json"))["packing"]
    cut = (place.frames, slice(None), slice(None), place.y, place.x)
    if packing is None:
        return stored[cut].copy()
    scale, offset = (np.asarray(packing[k])[:, None, None, None] for k in ("scale", "offset"))
    return np.where(np.broadcast_to(valid, stored.shape)[cut], (stored[cut] * scale + offset).astype(np.float32), np.float32(0))


def _some(draw: np.random.Generator, wanted: int, available: int) -> slice:
    size = min(wanted, available)
    start = int(draw.integers(available - size + 1))
    return slice(start, start + size)


def _rate(read: Callable[[Place], np.ndarray], places: Sequence[Place]) -> tuple[float, float]:
    """Windows and MB of float32 per second."""
    began = time.perf_counter()
    size = sum(read(place).nbytes for place in places)
    seconds = time.perf_counter() - began
    return len(places) / seconds, size / seconds / 1e6


def describe(result: dict[str, Any]) -> str:
    """A result of `compare` for people."""
    shape = " x ".join(map(str, result["window"]))
    where = f"{result['shards']} shards of {result['mb_stored']:.0f} MB in all"
    lines = [f"random windows of {shape} (T, C, Z, Y, X) from {where}, warm cache, medians of {result['rounds']} rounds"]
    for name, what in (("index", "by index"), ("member", "whole members")):
        rate = result[name]
        lines.append(f"  {what:14}{rate['windows_per_second']:10.1f} windows/s{rate['mb_per_second']:10.1f} MB/s of float32")
    return "\n".join([*lines, f"  ratio         {result['ratio']:10.1f}"])


def of_simulators(sources: Sequence[Source], trajectories: int) -> dict[str, Any]:
    """How fast simulators make trajectories and windows that tile them, by CPU time of all threads: so per core.

    The first `trajectories` of each are timed, after one that is not. A steady problem is one window.
    """
    length = DataConfig().frames
    rates = []
    for source in sources:
        refs = source.plan().refs[:trajectories]
        next(iter(source.samples(refs[:1])))
        began = time.process_time()
        samples = [s for s in source.samples(refs) if s is not None]
        seconds = (time.process_time() - began) / len(samples)
        windows = sum(1 if s.steady else len(s.time) // min(length, len(s.time)) for s in samples) / len(samples)
        rates.append(
            {
                "equation": source.name,
                "shape": list(samples[0].values.shape),
                "trajectories": len(samples),
                "trajectories_per_cpu_second": 1 / seconds,
                "windows_per_cpu_second": windows / seconds,
                "mb_per_cpu_second": samples[0].values.nbytes / seconds / 1e6,
            }
        )
    return {"window_frames": length, "simulators": rates}


def describe_simulators(result: dict[str, Any]) -> str:
    """A result of `of_simulators` for people."""
    rows = [
        (
            rate["equation"],
            " x ".join(map(str, rate["shape"])),
            *(f"{rate[f'{what}_per_cpu_second']:.2f}" for what in ("trajectories", "windows", "mb")),
        )
        for rate in result["simulators"]
    ]
    header = ("equation", "T x C x Z x Y x X", "trajectories/s", "windows/s", "MB/s of float32")
    return f"per CPU second of one core; windows of {result['window_frames']} frames\n" + table(header, rows)
