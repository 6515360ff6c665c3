"""What `scigpt bench data` measures: random windows by index beside a reader of whole members; the loader of training with one, two and
four readers; on a GPU, copies to it; and the simulators."""

from __future__ import annotations

import io
import json
import math
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from scigpt.data.corpus import TRAIN, Corpus
from scigpt.data.keyed import generator
from scigpt.data.loader import BatchLoader, scales_of, window_that_fits
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture, Window
from scigpt.data.normalize import Scales
from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.data.shard import ShardReader, write_shard
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Source
from scigpt.errors import UserError
from scigpt.launch.made_up import Weather, WeatherOptions
from scigpt.launch.output import table
from scigpt.launch.timing import Reading

if TYPE_CHECKING:
    from scigpt.data.batches import Batch

SHAPE = (48, 10, 1, 360, 720)
"""Frames, variables and grid of the synthetic record: 498 MB of float32 in one member."""
WINDOW = (2, 128, 128)
"""Frames, Y and X of a window; smaller where the record is."""
FEW, MANY = 3, 60
"""Windows that a round reads by member and by index."""
READERS = (1, 2, 4)
"""Threads that read ahead."""
ROUND = 0.3
"""CPU seconds of one reader in a round, about."""
FRAMES = 5
"""Of the loader's windows; fewer where the records are shorter."""
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


def synthetic(
    rounds: int, shape: tuple[int, int, int, int, int] = SHAPE, window: tuple[int, int, int] = WINDOW, weather: WeatherOptions | None = None
) -> dict[str, Any]:
    """`compare` on one record `(T, C, Z, Y, X)` stored as float32, small changes on values too large for int16, and `loading` on made-up
    `weather`; all in a temporary folder."""
    draw = generator("bench", "record")
    values = draw.standard_normal(shape, dtype=np.float32)
    values += 1e4 * draw.standard_normal(shape[1:], dtype=np.float32)
    variables = tuple(Variable(f"field_{c}", "1") for c in range(shape[1]))
    sample = Sample(values, np.ones(shape, bool), variables, Time.regular(0.0, 1.0, shape[0]), Origin("bench", "CC0-1.0"))
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        shard = Path(folder) / "train-000000.tar"
        write_shard(shard, [("000000", "train", sample)])
        found = compare([shard], shape[2:], rounds, window)
        corpus = convert(Weather(options=weather), Path(folder) / "weather", progress=False)
        return found | {"loader": loading(Corpus.open(corpus), rounds)}


def of_corpus(path: Path, rounds: int) -> dict[str, Any]:
    """`compare` on the shards of a corpus, and `loading` of its training split; None where there is nothing to train on."""
    corpus = Corpus.open(path)
    found = compare([corpus.path / s["file"] for s in corpus.manifest["shards"]], corpus.layout.grid, rounds, WINDOW)
    trained = corpus.entries(TRAIN) if corpus.use == "train" and TRAIN in corpus.splits else ()
    return found | {"loader": loading(corpus, rounds) if any(entry.frames > 1 for entry in trained) else None}


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


def loading(corpus: Corpus, rounds: int) -> dict[str, Any]:
    """How fast the loader of training makes batches of a corpus with one reader and with several, in turn in each round; medians over the
    rounds. The cache of the system is warm, and nothing else is done meanwhile."""
    settings = CorpusConfig(str(corpus.path))
    frames = window_that_fits(corpus, settings.train, Window.of(corpus, settings, FRAMES))
    mixture, scales = Mixture([corpus], DataConfig([settings], frames=frames), 0), scales_of(corpus, settings)
    with _loader(mixture, scales, 1) as (loader, once):
        _, batches = next(loader)
    groups = max(4, round(ROUND / (once.cpu / max(1, once.windows // mixture.sizes[0]))))
    found: dict[int, list[dict[str, float | None]]] = {n: [] for n in READERS}
    for _ in range(rounds):
        for readers, rates in found.items():
            rates.append(_drain(mixture, scales, readers, groups))
    return {
        "corpus": corpus.name,
        "window": list(batches[0].values.shape[1:]),
        "windows_per_group": mixture.sizes[0],
        "mb_per_group": sum(b.values.nbytes for b in batches) / 1e6,
        "groups_per_round": groups,
        "readers": [{"readers": n, **{key: _median([r[key] for r in rates]) for key in rates[0]}} for n, rates in found.items()],
        "copies": copies(batches),
    }


@contextmanager
def _loader(mixture: Mixture, scales: Scales, readers: int) -> Iterator[tuple[BatchLoader, Reading]]:
    """A loader, and what its threads do."""
    with BatchLoader(mixture, [scales], prefetch=readers) as loader:
        yield loader, Reading.of(loader)


def _drain(mixture: Mixture, scales: Scales, readers: int, groups: int) -> dict[str, float | None]:
    began = time.perf_counter()
    with _loader(mixture, scales, readers) as (loader, reading):
        for _ in range(groups):
            next(loader)
    seconds = time.perf_counter() - began  # with the groups that were under way when the last was asked for
    blocked = max(0.0, reading.wall - reading.cpu - reading.queued) / reading.wall
    return {
        "windows_per_second": reading.windows / seconds,
        "mb_per_second": reading.bytes / seconds / 1e6,
        "windows_per_cpu_second": reading.windows / reading.cpu,
        "mb_per_cpu_second": reading.bytes / reading.cpu / 1e6,
        "cores_busy": reading.cpu / seconds,
        "blocked_share": None if math.isnan(reading.queued) else blocked,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def copies(batches: Sequence[Batch], repeats: int = 20) -> dict[str, float] | None:
    """Copies of the first batch to the GPU in GB/s: from ordinary memory, into pinned memory (warm), from there to the GPU; and how much
    of such a copy a second stream hides behind matrix products that take as long. None without a GPU."""
    if not torch.cuda.is_available():
        return None
    device, batch = torch.device("cuda"), batches[0]
    plain, pinned = batch.values.clone(), batch.values.pin_memory()
    factor = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    side = torch.cuda.Stream()

    def copy() -> None:
        pinned.to(device, non_blocking=True)

    def product() -> None:
        factor @ factor

    def seconds(work: Callable[[], Any]) -> float:
        work()
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / repeats

    copying, multiplying = seconds(copy), seconds(product)
    products = max(1, round(copying / multiplying))

    def beside(stream: torch.cuda.Stream) -> None:
        with torch.cuda.stream(stream):
            copy()
        for _ in range(products):
            product()

    after, hidden = seconds(lambda: beside(torch.cuda.current_stream())), seconds(lambda: beside(side))
    size = batch.values.nbytes / 1e9
    return {
        "mb_per_batch": 1e3 * size,
        "pageable_gb_per_second": size / seconds(lambda: plain.to(device)),
        "pinning_gb_per_second": size / seconds(plain.pin_memory),
        "pinned_gb_per_second": size / copying,
        "hidden_share": (after - hidden) / copying,
    }


def describe(result: dict[str, Any]) -> str:
    """A result of `synthetic` or `of_corpus` for people."""
    where = f"{result['shards']} shards of {result['mb_stored']:.0f} MB in all"
    lines = [f"random windows of {_shape(result['window'])} from {where}, warm cache, medians of {result['rounds']} rounds"]
    for name, what in (("index", "by index"), ("member", "whole members")):
        rate = result[name]
        lines.append(f"  {what:14}{rate['windows_per_second']:10.1f} windows/s{rate['mb_per_second']:10.1f} MB/s of float32")
    lines.append(f"  ratio         {result['ratio']:10.1f}")
    return "\n".join([*lines, *([] if result["loader"] is None else [describe_loader(result["loader"])])])


def describe_loader(found: dict[str, Any]) -> str:
    """What `loading` found for people."""
    rows = [
        (
            rate["readers"], f"{rate['windows_per_second']:.0f}", f"{rate['mb_per_second']:.0f}", f"{rate['windows_per_cpu_second']:.0f}",
            f"{rate['mb_per_cpu_second']:.0f}", f"{rate['cores_busy']:.2f}",
            "unknown" if rate["blocked_share"] is None else f"{100 * rate['blocked_share']:.0f} %",
        )
        for rate in found["readers"]
    ]  # fmt: skip
    header = ("readers", "windows/s", "MB/s", "windows/CPU s", "MB/CPU s", "cores busy", "blocked")
    groups = f"{found['mb_per_group']:.1f} MB ({found['windows_per_group']} windows of {_shape(found['window'])})"
    lines = [
        f"the loader on {found['corpus']}, groups of {groups}; MB are of float32",
        table(header, rows),
        "blocked: share of a reader's time in which it waits for the interpreter's lock or a disk",
    ]
    if found["copies"] is not None:
        rate = found["copies"]
        lines.append(
            f"copies of {rate['mb_per_batch']:.1f} MB to the GPU: {rate['pinned_gb_per_second']:.1f} GB/s from pinned memory, "
            f"{rate['pageable_gb_per_second']:.1f} from ordinary, {rate['pinning_gb_per_second']:.1f} into pinned; a second stream hides "
            f"{100 * rate['hidden_share']:.0f} % of one"
        )
    return "\n".join(lines)


def _shape(window: Sequence[int]) -> str:
    return " x ".join(map(str, window)) + " (T, C, Z, Y, X)"


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
