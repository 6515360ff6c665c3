"""The order of the data: which windows of which corpus make up group g, a pure function of (seed, g).

A group is what one optimiser step reads: windows of one corpus, as many as the token budget allows. Nothing here knows of
processes, workers or what was read before; ranks and micro-batches split a group afterwards.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from scigpt.data.keyed import key, permute, uniform
from scigpt.data.patching import choose_patch, token_count
from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.data.corpus import Corpus

T = TypeVar("T")

ORDER_VERSION = 1
"""Raised whenever the same seed and corpora would give another order."""
BLOCK = 64
"""Groups over which the shares of the corpora are exact (up to one group each, and that error does not grow)."""
MIXED_SHARDS = 16
"""Shards whose windows are mixed with each other: reading stays within this many files at a time."""


@dataclass
class CorpusConfig:
    """One corpus of a mixture.

    Args:
        path: its folder.
        weight: share of the groups, relative to the other corpora.
        frames: length of a window, instead of that of the mixture.
        stride: distance between the frames of a window, in frames of the record.
        crop: `[y, x]` size of a part of the grid, placed at random for each window.
        patch: preferred patch size, instead of that of the mixture.
        limit: records of the training split that are used, the first ones; None uses all.
        train: split to train on.
        valid: splits to validate on.
    """

    path: str
    weight: float = 1.0
    frames: int | None = None
    stride: int = 1
    crop: list[int] | None = None
    patch: int | None = None
    limit: int | None = None
    train: str = "train"
    valid: list[str] = field(default_factory=lambda: ["valid"])


@dataclass
class DataConfig:
    """A mixture of corpora and how it is cut into groups.

    Args:
        frames: length of a window. Steady corpora have windows of 2 frames.
        tokens: budget of a group: windows x (frames - 1) x tokens of a frame.
        patch: preferred patch size.
        data_width: group sizes are multiples of it, and only data-parallel sizes that divide it can run. None: the number of data-parallel
            processes that the run begins with; state a multiple to be able to go on with more.
        every: distance between the starts of windows in a record, in frames; None: `frames`, so that windows tile the record. The
            starts shift from epoch to epoch, and all have occurred after `every` epochs.
        prefetch: groups that each process reads ahead, each by a thread of its own; the order of the data is the same with any. So many
            groups are in memory besides the one in use, at 5 bytes a value (pinned memory where there is a GPU, rounded up to a power of
            two). More are of use where `data_wait` in the metrics stays above zero and cores are idle.
    """

    corpora: list[CorpusConfig] = field(default_factory=list)
    frames: int = 8
    tokens: int = 4096
    patch: int = 8
    data_width: int | None = None
    every: int | None = None
    prefetch: int = 2


class Item(NamedTuple):
    """A window: sample `entry` of the split from frame `start` on, from cell `(y, x)` on where the corpus is cropped. `position` counts the
    windows of the corpus from the start of training, through all epochs; it keys whatever else is random about the window."""

    entry: int
    start: int
    y: int
    x: int
    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class Group:
    """What one step reads: windows of corpus number `corpus` of the mixture."""

    index: int
    corpus: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The shape of a window of one corpus: frames, the distance between them, and the `(y, x)` size of a crop (None: the whole grid)."""

    frames: int
    stride: int = 1
    crop: tuple[int, int] | None = None

    @classmethod
    def of(cls, corpus: Corpus, config: CorpusConfig, frames: int) -> Window:
        """As configured; a steady corpus has two frames whatever is asked.

        Raises:
            UserError: fewer than two frames, a stride below 1, or a crop that does not fit the grid.
        """
        where = f"corpus {corpus.name} ({config.path})"
        frames, stride = (2, 1) if corpus.layout.steady else (frames, config.stride)
        if frames < 2:
            raise UserError(f"{where}: a window of {frames} frame has nothing to predict; set frames to 2 or more")
        if stride < 1:
            raise UserError(f"{where}: stride is {stride}; expected 1 or more")
        if config.crop is None:
            return cls(frames, stride)
        _, y, x = corpus.layout.grid
        crop = tuple(config.crop)
        if len(crop) != 2 or not (1 <= crop[0] <= y and 1 <= crop[1] <= x):
            raise UserError(f"{where}: crop {list(crop)} does not fit the grid; expected [y, x] within [{y}, {x}]")
        return cls(frames, stride, None if crop == (y, x) else crop)

    @property
    def span(self) -> int:
        """Frames of the record from the first frame of the window to the last, both counted."""
        return (self.frames - 1) * self.stride + 1

    def slices(self, item: Item) -> tuple[slice, slice | None, slice | None]:
        """Frames, y and x to read for an item."""
        frames = slice(item.start, item.start + self.span, self.stride)
        if self.crop is None:
            return frames, None, None
        return frames, slice(item.y, item.y + self.crop[0]), slice(item.x, item.x + self.crop[1])


def starts_of(corpus: Corpus, split: str, window: Window, limit: int | None = None) -> np.ndarray:
    """Number of possible first frames of a window in each record of a split (the first `limit` of them), int64; 0 where the record is too
    short.

    Raises:
        UserError: a split that the corpus lacks or that is empty, or a window longer than every record.
    """
    frames = np.array([entry.frames for entry in corpus.entries(split)], np.int64)[:limit]
    if not frames.size:
        raise UserError(f"corpus {corpus.name} ({corpus.path}): the split {split!r} is empty; choose another")
    starts = np.maximum(frames - window.span + 1, 0)
    if not starts.any():
        if frames.max() == 1:
            raise UserError(
                f"corpus {corpus.name} ({corpus.path}): no record of split {split!r} has more than 1 frame, so there is nothing to "
                f"forecast; leave the corpus out, or make it of longer records"
            )
        stride = f" at stride {window.stride}" if window.stride > 1 else ""
        fits = int(frames.max() - 1) // window.stride + 1
        remedy = f"frames to at most {fits}" if fits > 1 else f"stride to at most {frames.max() - 1}"
        raise UserError(
            f"corpus {corpus.name} ({corpus.path}): a window of {window.frames} frames{stride} spans {window.span}, and the longest "
            f"record of split {split!r} has {frames.max()}; set {remedy}"
        )
    return starts


class Mixture:
    """The groups of a training run.

    Args:
        corpora: opened, in the order of `config.corpora`.
        config: see `DataConfig`.
        seed: of the order.

    Attributes:
        fingerprint: of everything that decides the order; a run goes on only with an equal one.
        windows: shape of the windows, per corpus.
        patches: preferred patch size, per corpus.
        sizes: windows in a group, per corpus.
        notes: what the user should know (records too short for a window).

    Raises:
        UserError: no corpora, two of one name, weights that are not positive, unknown splits, windows that fit no record.
    """

    def __init__(self, corpora: Sequence[Corpus], config: DataConfig, seed: int) -> None:
        _check(corpora, config)
        self.corpora, self.config, self.seed = tuple(corpora), config, seed
        self.data_width = config.data_width or 1
        self.patches = tuple(config.patch if s.patch is None else s.patch for s in config.corpora)
        lengths = (config.frames if s.frames is None else s.frames for s in config.corpora)
        self.windows = tuple(Window.of(*args) for args in zip(corpora, config.corpora, lengths, strict=True))
        self.sizes = tuple(self._size(i) for i in range(len(corpora)))
        self._orders = tuple(
            _Order(c, s, w, config.every or w.frames, seed) for c, s, w in zip(corpora, config.corpora, self.windows, strict=True)
        )
        weights = [Fraction(str(s.weight)) for s in config.corpora]
        self._shares = [w / sum(weights) for w in weights]
        self._block = functools.lru_cache(maxsize=8)(self._make_block)
        self.notes = tuple(note for order in self._orders for note in order.notes)
        self.fingerprint = self._fingerprint()

    @property
    def epoch_windows(self) -> tuple[int, ...]:
        """Windows in an epoch, per corpus."""
        return tuple(order.total for order in self._orders)

    def seen(self, groups: int) -> tuple[int, ...]:
        """Windows of each corpus in the first `groups` groups."""
        b = self._block_of(groups)
        corpora, _ = self._block(b)
        here = np.bincount(corpora[: groups - self._start(b)], minlength=len(self.corpora))
        return tuple((self._quota(c, b) + int(here[c])) * size for c, size in enumerate(self.sizes))

    def group(self, g: int) -> Group:
        """Group number `g`, from 0."""
        b = self._block_of(g)
        corpora, ordinals = self._block(b)
        corpus, ordinal = int(corpora[g - self._start(b)]), int(ordinals[g - self._start(b)])
        return Group(g, corpus, self._orders[corpus].items(ordinal * self.sizes[corpus], self.sizes[corpus]))

    def split(self, items: Sequence[T], rank: int, world: int, accumulation: int = 1) -> list[Sequence[T]]:
        """The contiguous part of `rank` of `world`, in `accumulation` contiguous parts whose sizes differ by one at most.

        Raises:
            UserError: a world size that does not divide `data_width`, or more parts than windows.
        """
        if self.data_width % world:
            sizes = ", ".join(str(w) for w in range(1, self.data_width + 1) if self.data_width % w == 0)
            raise UserError(
                f"{world} data-parallel processes cannot share groups made for data_width={self.data_width}; sizes that work: {sizes} "
                f"(data_width={world * self.data_width} works too, and is another order of the data)"
            )
        share = len(items) // world
        if not 1 <= accumulation <= share:
            raise UserError(f"the {share} windows of one process cannot be accumulated over {accumulation} steps; choose 1 to {share}")
        edges = [rank * share + share * i // accumulation for i in range(accumulation + 1)]
        return [items[a:b] for a, b in itertools.pairwise(edges)]

    def _size(self, i: int) -> int:
        """Windows in a group: what the token budget allows, a multiple of `data_width`, at least one for each."""
        layout, window = self.corpora[i].layout, self.windows[i]
        grid = layout.grid if window.crop is None else (layout.grid[0], *window.crop)
        patch = choose_patch(grid, self.patches[i], layout.geometry)
        tokens = (window.frames - 1) * token_count(grid, patch)
        return max(1, self.config.tokens // tokens // self.data_width) * self.data_width

    def _quota(self, corpus: int, block: int) -> int:
        """Groups of a corpus before a block. The cumulative share is rounded, so errors do not add up."""
        share = self._shares[corpus]
        return share.numerator * BLOCK * block // share.denominator

    def _block_of(self, g: int) -> int:
        b = g // BLOCK
        while g >= self._start(b + 1):
            b += 1
        return b

    def _start(self, block: int) -> int:
        """First group of a block: at most `BLOCK * block`, and less by fewer than there are corpora."""
        return sum(self._quota(c, block) for c in range(len(self.corpora)))

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Corpus and ordinal within the corpus of each group of a block. The corpora are shuffled, not the groups of a corpus."""
        before = np.array([self._quota(c, block) for c in range(len(self.corpora))])
        quotas = np.array([self._quota(c, block + 1) for c in range(len(self.corpora))]) - before
        corpora = np.repeat(np.arange(len(self.corpora)), quotas)
        corpora = corpora[permute(np.arange(corpora.size), corpora.size, key(self.seed, "block", block))]
        ordinals = np.empty_like(corpora)
        for c in range(len(self.corpora)):
            ordinals[corpora == c] = before[c] + np.arange(quotas[c])
        return corpora, ordinals

    def _fingerprint(self) -> str:
        about = {
            "order": [ORDER_VERSION, BLOCK, MIXED_SHARDS],
            "seed": self.seed,
            "data_width": self.data_width,
            "corpora": [
                [c.name, c.fingerprint, s.train, str(share), size, w.frames, w.stride, w.crop, order.every, *([s.limit] if s.limit else [])]
                for c, s, share, size, w, order in zip(
                    self.corpora, self.config.corpora, self._shares, self.sizes, self.windows, self._orders, strict=True
                )
            ],
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class _Order:
    """The windows of one corpus, epoch after epoch, at any position.

    Records lie in shards. Each epoch permutes the shards, takes them `MIXED_SHARDS` at a time, and permutes the windows of those.
    Window k of a record with S possible starts begins at frame `(phase + k * every) mod S`, where the phase shifts from epoch to
    epoch: each epoch has the same number of windows, no two alike.
    """

    def __init__(self, corpus: Corpus, config: CorpusConfig, window: Window, every: int, seed: int) -> None:
        split = config.train
        self.starts, self.every = starts_of(corpus, split, window, config.limit), every
        shards = np.array([entry.shard for entry in corpus.entries(split)], np.int64)[: config.limit]
        assert (np.diff(shards) >= 0).all(), "entries are listed shard by shard"
        counts = -(-self.starts // every)
        self._before = np.concatenate(([0], np.cumsum(counts)))  # windows before each record
        self.total = int(self._before[-1])
        first = np.searchsorted(shards, np.arange(shards[-1] + 2))  # record at which each shard begins
        self._shard_start = self._before[first]
        self._room = (0, 0) if window.crop is None else tuple(s - c + 1 for s, c in zip(corpus.layout.grid[1:], window.crop, strict=True))
        self._parts = (seed, corpus.name)
        self._phase = key(*self._parts, "phase")
        self._crop = key(*self._parts, "crop")
        self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)
        short, all_ = int((self.starts == 0).sum()), self.starts.size
        note = f"corpus {corpus.name}: {short} of {all_} records of split {split!r} are shorter than the {window.span} frames of a window"
        self.notes = (f"{note} and left out",) if short else ()

    def items(self, position: int, count: int) -> tuple[Item, ...]:
        """The windows at `position .. position + count - 1`."""
        out: list[Item] = []
        while count:
            epoch, place = divmod(position, self.total)
            _, _, edges, _ = self._epoch(epoch)
            chunk = int(np.searchsorted(edges, place, "right")) - 1
            here = min(count, int(edges[chunk + 1]) - place)
            out += self._within(epoch, chunk, place + np.arange(here), position + np.arange(here))
            position, count = position + here, count - here
        return tuple(out)

    def _within(self, epoch: int, chunk: int, places: np.ndarray, positions: np.ndarray) -> list[Item]:
        """Items at places of one chunk of shards of one epoch."""
        shards, slots, edges, phase = self._epoch(epoch)
        low, high = int(edges[chunk]), int(edges[chunk + 1])
        mixed = low + permute(places - low, high - low, key(*self._parts, "windows", epoch, chunk))
        slot = np.searchsorted(slots, mixed, "right") - 1
        window = self._shard_start[shards[slot]] + mixed - slots[slot]
        entry = np.searchsorted(self._before, window, "right") - 1
        shift = (phase + uniform(entry, self.every, self._phase)) % self.every
        start = (shift + (window - self._before[entry]) * self.every) % self.starts[entry]
        y, x = (uniform(positions, n, self._crop + axis) if n else np.zeros_like(start) for axis, n in enumerate(self._room))
        columns = (entry.tolist(), start.tolist(), y.tolist(), x.tolist(), positions.tolist())
        return [Item(e, s, y_, x_, epoch, p) for e, s, y_, x_, p in zip(*columns, strict=True)]

    def _make_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Shards in the order of this epoch, the place where each begins, the places where chunks begin (and the end), and the phase."""
        count = self._shard_start.size - 1
        shards = permute(np.arange(count), count, key(*self._parts, "shards", epoch))
        slots = np.concatenate(([0], np.cumsum(np.diff(self._shard_start)[shards])))
        edges = np.append(slots[:-1:MIXED_SHARDS], slots[-1])
        turn, place = divmod(epoch, self.every)
        phase = int(permute(np.array(place), self.every, key(*self._parts, "phases", turn))[0])
        return shards, slots[:-1], edges, phase


def _check(corpora: Sequence[Corpus], config: DataConfig) -> None:
    if not config.corpora:
        raise UserError("the mixture has no corpora; list at least one under data.corpora")
    for name in ("tokens", "patch", "data_width", "every", "prefetch"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"data.{name} is {value}; expected 1 or more")
    for corpus, settings in zip(corpora, config.corpora, strict=True):
        if not 0 < settings.weight < float("inf"):
            raise UserError(f"corpus {corpus.name} ({settings.path}): weight is {settings.weight}; expected a number above 0")
        for name in ("patch", "limit"):
            value = getattr(settings, name)
            if value is not None and value < 1:
                raise UserError(f"corpus {corpus.name} ({settings.path}): {name} is {value}; expected 1 or more")
    for i, corpus in enumerate(corpora):
        for other in corpora[:i]:
            if corpus.name == other.name:
                raise UserError(
                    f"two corpora of the mixture are named {corpus.name} ({other.path}, {corpus.path}); "
                    f"list one once, with a larger weight if need be, or make the other under another name"
                )
