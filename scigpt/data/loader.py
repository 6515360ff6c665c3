"""BatchLoader: the groups of a mixture as batches, read ahead in the background."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch, Ground, collate
from scigpt.data.corpus import Corpus
from scigpt.data.keyed import key, uniform
from scigpt.data.mixture import CorpusConfig, Group, Item, Mixture, Window, starts_of
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Sample
from scigpt.data.shard import part_of
from scigpt.data.tasks import Task
from scigpt.errors import UserError


class BatchLoader:
    """Iterates `(group, batches)` from group `start` on, without end; use it in a `with` block.

    The groups are a function of the mixture alone: after a restart at group g the same batches follow, whatever was read ahead.

    Args:
        scales: training statistics, one for each corpus of the mixture.
        start: first group.
        micro_batch: most windows in a batch (None: no limit). A group is cut into as few batches as that allows, as equal as they can be.
        rank, world: this process reads its part of each group.
        prefetch: groups read ahead, each by a thread of its own; so many of them are in memory besides the one in use.
        hide_coefficients: share of the windows whose coefficients are not told; which ones is keyed by their position in the order.
        tasks: one for each corpus, or None: forecasts.

    Attributes:
        wait_seconds: time the consumer has waited for data so far.

    Raises:
        UserError: a world size that does not divide the groups; while iterating, data that cannot be read.
    """

    def __init__(
        self,
        mixture: Mixture,
        scales: Sequence[Scales],
        start: int = 0,
        micro_batch: int | None = None,
        rank: int = 0,
        world: int = 1,
        prefetch: int = 2,
        hide_coefficients: float = 0.0,
        tasks: Sequence[Task | None] | None = None,
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise UserError(f"micro_batch is {micro_batch}; expected 1 or more windows")
        assert len(scales) == len(mixture.corpora)
        assert prefetch >= 1
        mixture.split(range(mixture.data_width), rank, world)  # refuses a world size that cannot share a group before anything starts
        self.mixture, self.scales, self.micro_batch, self.rank, self.world = mixture, tuple(scales), micro_batch, rank, world
        self.wait_seconds = 0.0
        self._next = itertools.count(start)
        self._ahead: deque[Future[tuple[Group, list[Batch]]]] = deque()
        self._pool = ThreadPoolExecutor(prefetch, thread_name_prefix="scigpt-read")
        self._prefetch = prefetch
        self._hide = hide_coefficients
        self._ground = tuple(Ground() for _ in mixture.corpora)
        self._tasks = tuple(tasks) if tasks is not None else (None,) * len(mixture.corpora)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; returns when no thread is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Group, list[Batch]]:
        while len(self._ahead) < self._prefetch:
            self._ahead.append(self._pool.submit(self._load, next(self._next)))
        began = time.perf_counter()
        try:
            loaded = self._ahead.popleft().result()
        finally:
            self.wait_seconds += time.perf_counter() - began
        self._ahead.append(self._pool.submit(self._load, next(self._next)))
        return loaded

    def _load(self, g: int) -> tuple[Group, list[Batch]]:
        group = self.mixture.group(g)
        c = group.corpus
        corpus, config, window = self.mixture.corpora[c], self.mixture.config.corpora[c], self.mixture.windows[c]
        share = len(group.items) // self.world
        parts = self.mixture.split(group.items, self.rank, self.world, math.ceil(share / (self.micro_batch or share)))
        of = corpus, config.train, window, self.scales[c], self.mixture.patches[c], self._ground[c]
        batches = [_batch(part, *of) for part in parts]
        batches = [_viewed(batch, part, self._tasks[c]) for batch, part in zip(batches, parts, strict=True)]
        if self._hide and batches[0].coefficient_names:  # what is left of them where a task asks for some
            batches = [self._hidden(batch, part) for batch, part in zip(batches, parts, strict=True)]
        return group, [b.pin_memory() for b in batches] if torch.cuda.is_available() else batches

    def _hidden(self, batch: Batch, items: Sequence[Item]) -> Batch:
        purpose = key(self.mixture.seed, "coefficients", batch.corpus)
        draws = uniform(np.array([item.position for item in items]), 1 << 30, purpose)
        told = torch.from_numpy(draws >= self._hide * (1 << 30)).repeat_interleave(len(batch) // len(items))
        return replace(batch, known=batch.known & told[:, None])


def scales_of(corpus: Corpus, config: CorpusConfig) -> Scales:
    """Training statistics of a corpus as a mixture sees it.

    Raises:
        UserError: a corpus without a training split, or one of a source that is for validation only.
    """
    if corpus.use == "validate":
        raise UserError(
            f"corpus {corpus.name} ({config.path}) is for validation only, as its source says: no model is trained on it; take it out of "
            f"data.corpora and give it to `scigpt evaluate RUN --corpus {config.path}`"
        )
    return Scales.from_stats(corpus.layout, corpus.stats.to_json(), config.stride)


def window_that_fits(corpus: Corpus, split: str, window: Window) -> int:
    """Frames of a window as in training, or fewer (2 at least) where no record of a split is that long."""
    longest = max((entry.frames for entry in corpus.entries(split)), default=0)
    return min(window.frames, max(2, (longest - 1) // window.stride + 1))


def windows(corpus: Corpus, config: CorpusConfig, frames: int, split: str, limit: int | None = None) -> list[Item]:
    """Windows that tile the records (and the grid, where the corpus is cropped) of a split without overlap, always the same.

    Args:
        limit: at most this many, evenly spread over all.

    Raises:
        UserError: an unknown or empty split, or a window that fits no record.
    """
    window = Window.of(corpus, config, frames)
    before = np.concatenate(([0], np.cumsum(-(-starts_of(corpus, split, window) // window.span))))  # windows in time, before each record
    _, *grid = corpus.layout.grid
    height, width = window.crop or grid
    tiles = [(y, x) for y in range(0, grid[0] - height + 1, height) for x in range(0, grid[1] - width + 1, width)]
    total = int(before[-1]) * len(tiles)
    count = total if limit is None else min(limit, total)
    times, places = np.divmod(np.arange(count) * total // max(count, 1), len(tiles))
    entries = np.searchsorted(before, times, "right") - 1
    starts = (times - before[entries]) * window.span
    return [
        Item(entry, start, tiles[place][0], tiles[place][1], 0, i)
        for i, (entry, start, place) in enumerate(zip(entries.tolist(), starts.tolist(), places.tolist(), strict=True))
    ]


def evaluation_batches(
    corpus: Corpus,
    scales: Scales,
    config: CorpusConfig,
    frames: int,
    split: str,
    batch_size: int,
    limit: int | None = None,
    patch: int = 8,
    rank: int = 0,
    world: int = 1,
    task: Task | None = None,
) -> Iterator[Batch]:
    """The `windows` of a split, `batch_size` at a time. `patch` is the preferred patch size where `config` states none.

    Of several processes each gets every `world`-th batch, and all of them equally many: what is missing in the last round is a batch in
    which nothing is valid.

    Raises:
        UserError: as `windows`, or data that cannot be read.
    """
    window = Window.of(corpus, config, frames)
    items = windows(corpus, config, frames, split, limit)
    of = corpus, split, window, scales, patch if config.patch is None else config.patch, Ground()
    starts = range(0, len(items), batch_size)
    for first in range(0, len(starts), world):
        start = starts[min(first + rank, len(starts) - 1)]
        chunk = items[start : start + batch_size]
        batch = _viewed(_batch(chunk, *of), chunk, task)
        yield batch if first + rank < len(starts) else replace(batch, valid=torch.zeros_like(batch.valid))


def _batch(items: Sequence[Item], corpus: Corpus, split: str, window: Window, scales: Scales, patch: int, ground: Ground) -> Batch:
    """The windows are decoded where they stay: in the batch, in pinned memory where there is a GPU."""
    depth, *grid = corpus.layout.grid
    shape = (len(items), window.frames, len(corpus.layout.variables), depth, *(window.crop or grid))
    values, valid = _empty(shape, torch.float32), _empty(shape, torch.bool)
    # windows of one batch share their boundary
    boundary = None if window.crop is None else corpus.layout.cropped(*window.crop).boundary
    places = zip(items, values.numpy(), valid.numpy(), strict=True)
    samples = [_read(corpus, split, item, window, boundary, (field, there)) for item, field, there in places]
    return collate(samples, scales, corpus.name, patch, (values, valid), ground)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if torch.cuda.is_available():
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    return torch.from_numpy(np.empty(shape, np.float32 if dtype == torch.float32 else np.bool_))  # NumPy asks for large pages


def _viewed(batch: Batch, items: Sequence[Item], task: Task | None) -> Batch:
    return batch if task is None else task.view(batch, [item.position for item in items])


def _read(corpus: Corpus, split: str, item: Item, window: Window, boundary: Boundary | None, out: tuple[np.ndarray, np.ndarray]) -> Sample:
    sample = corpus.read(split, item.entry, *window.slices(item), out)
    return sample if boundary is None else part_of(sample, boundary=boundary)
