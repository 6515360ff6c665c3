"""What is scored: how much, on which windows of which corpus."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.data.loader import evaluation_batches, windows
from scigpt.data.mixture import CorpusConfig, DataConfig, Item, Window, starts_of
from scigpt.data.normalize import Scales
from scigpt.data.patching import choose_patch, token_count
from scigpt.data.tasks import Task, TaskConfig, build_task
from scigpt.errors import UserError

TOKENS_PER_BATCH = 16384
VALUES_PER_BATCH = 1 << 22


@dataclass(frozen=True, slots=True)
class Options:
    """How much is evaluated.

    Args:
        windows: one-step windows per split, spread evenly over it.
        rollouts: free-running forecasts per split.
        steps: their longest lead, in frames; 0 for none.
    """

    windows: int = 64
    rollouts: int = 16
    steps: int = 30

    def __post_init__(self) -> None:
        if self.windows < 1 or self.rollouts < 0 or self.steps < 0:
            raise UserError(
                f"windows={self.windows}, rollouts={self.rollouts}, steps={self.steps}: expected at least 1 window and no negative number"
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """A corpus as a run sees it: how its windows are cut, frames of a window, preferred patch size in points, and what is asked of it
    (None: a forecast)."""

    corpus: Corpus
    config: CorpusConfig
    frames: int
    patch: int
    scales: Scales
    task: Task | None = None

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        config: CorpusConfig,
        data: DataConfig,
        task: TaskConfig | None = None,
        seed: int = 0,
        domains: Sequence[Domain] = (),
    ) -> Subject:
        """As the mixture `data` would train on it.

        Args:
            domains: what the model was trained on; a corpus without a training split is normalised as the one that knows its variables.

        Raises:
            UserError: a corpus without training statistics, and no domain in their place.
        """
        frames = data.frames if config.frames is None else config.frames
        patch = data.patch if config.patch is None else config.patch
        stats = corpus.stats.to_json()
        scales = Scales.from_stats(corpus.layout, stats, config.stride) if stats["samples"] else _scales_of_training(corpus, domains)
        return cls(corpus, config, frames, patch, scales, build_task(task or TaskConfig(), corpus, scales, seed))


def _scales_of_training(corpus: Corpus, domains: Sequence[Domain]) -> Scales:
    keys = [v.key for v in corpus.layout.variables]
    for domain in domains:
        known = [v.key for v in domain.layout.variables]
        if set(keys) <= set(known):
            return domain.scales.of([known.index(key) for key in keys])
    raise UserError(
        f"{corpus.path}: has no training split, so there are no statistics to normalise it by, and no corpus that the model was trained on "
        f"holds all of {', '.join(keys[:5])}; make it with a train split, or evaluate a model that knows them"
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be scored on a split: one-step windows of `frames`; rollouts over `steps` after `context` frames (0 for none)."""

    subject: Subject
    split: str
    frames: int
    context: int
    steps: int
    options: Options


def plan(subject: Subject, split: str, options: Options) -> Plan:
    """Choose what is scored on a split.

    Windows are as long as in training, at least 3 frames so that there is something to score, and shorter where no record holds
    that many. Rollouts start after as many frames as the model saw in training, fewer where the records are short (at least 2), and
    run over what is left of a record of median length, at most `options.steps`.

    Raises:
        UserError: a split that the corpus lacks or that is empty, or whose records are all shorter than the 3 frames that a score
            needs (2 of a steady problem).
    """
    corpus = subject.corpus
    steady = corpus.layout.steady
    least = 2 if steady else 3
    shortest = Window.of(corpus, subject.config, least)
    starts_of(corpus, split, shortest)
    lengths = [(entry.frames - 1) // shortest.stride + 1 for entry in corpus.entries(split)]
    frames = least if steady else max(least, min(subject.frames, max(lengths)))
    usable = sorted(n for n in lengths if n >= frames)
    usual = usable[len(usable) // 2]
    context = min(frames - 1, max(2, usual // 3))
    steps = min(options.steps, usual - context)
    rolls = not steady and subject.task is None and options.rollouts > 0 and steps > 1
    return Plan(subject, split, frames, context, steps if rolls else 0, options)


def scored_windows(
    work: Plan, frames: int, limit: int, device: torch.device | str, progress: bool, label: str
) -> tuple[list[Item], Iterator[tuple[Sequence[Item], Batch]]]:
    """The windows of a split, and their batches, of a size that fits into a few hundred megabytes, each with its own windows."""
    subject, corpus = work.subject, work.subject.corpus
    items = windows(corpus, subject.config, frames, work.split, limit)
    crop = Window.of(corpus, subject.config, frames).crop
    grid = corpus.layout.grid if crop is None else (corpus.layout.grid[0], *crop)
    tokens = frames * token_count(grid, choose_patch(grid, subject.patch, corpus.layout.geometry))
    size = max(1, min(TOKENS_PER_BATCH // tokens, VALUES_PER_BATCH // (frames * len(corpus.layout.variables) * math.prod(grid))))

    def batches() -> Iterator[tuple[Sequence[Item], Batch]]:
        title = f"{corpus.name}/{work.split} {label}"
        quiet = 0.5 if sys.stderr.isatty() else 10  # a log file needs fewer lines than a terminal
        with tqdm(total=len(items), desc=title, unit="window", file=sys.stderr, mininterval=quiet, disable=not progress) as bar:
            done = 0
            for batch in evaluation_batches(
                corpus, subject.scales, subject.config, frames, work.split, size, limit, subject.patch, task=subject.task
            ):
                here = items[done : done + size]
                yield here, batch.to(device)
                done += len(here)
                bar.update(len(here))

    return items, batches()
