"""Statistics of a training split that can be merged: moments, a uniform sample for quantiles, increments, the steady ratio.

Moments follow Chan, Golub and LeVeque (1979), updating formulas for the pairwise mean and sum of squares, in float64.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scigpt.data.in_cache import SIZE, blocks, table
from scigpt.data.sample import Sample
from scigpt.data.variables import transform

SCHEMA_VERSION = 1
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
DRAWN = 4096
"""Values kept for quantiles, and steady problems kept for their ratio."""


@dataclass(slots=True)
class Moments:
    """Count, mean, sum of squared deviations, range, and a uniform sample of a stream of numbers.

    The sample is the `DRAWN` values of least priority, where every value of the stream has an independent exponential priority:
    merging two of them and cutting again gives a uniform sample of both streams, whatever their lengths.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    drawn: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    priority: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @classmethod
    def of(cls, values: np.ndarray, valid: np.ndarray | None = None, name: str = "") -> Moments:
        """Of these numbers, of any shape.

        Args:
            valid: of the same shape: which of them; None for all.
            name: of a variable, in whose transform space they are taken.
        """
        rows = table(values)
        known = None if valid is None else table(valid)
        found = cls._of(rows.shape, known, lambda part, out: np.copyto(out, transform(rows[part], name)), extremes=known is not None)
        if known is None and found.count:  # no transform changes the order
            ends = np.array([values.min(), values.max()])
            found.low, found.high = (float(v) for v in transform(ends, name).astype(np.float64))
        return found

    @classmethod
    def of_increments(cls, values: np.ndarray, valid: np.ndarray | None = None, name: str = "") -> Moments:
        """Of `values[t + 1] - values[t]` along the first axis, where both are valid, in float64."""
        rows = table(values)
        after, before = rows[1:], rows[:-1]
        known = None if valid is None else table(valid[1:] & valid[:-1])

        def fill(part: Any, out: np.ndarray) -> None:
            np.subtract(transform(after[part], name), transform(before[part], name), out=out, dtype=np.float64)

        return cls._of(after.shape, known, fill)

    @classmethod
    def _of(
        cls, shape: tuple[int, ...], known: np.ndarray | None, fill: Callable[[Any, np.ndarray], object], extremes: bool = True
    ) -> Moments:
        """Block by block; `fill` writes the numbers of a block, or at places, as float64. Least and largest on request."""
        found, (rows, columns) = cls(), shape
        buffer = np.empty(min(SIZE, rows * columns))
        counts = []
        with np.errstate(invalid="ignore"):  # what stands where nothing is valid
            for part in blocks(rows, columns):
                size = part[0].stop - part[0].start, part[1].stop - part[1].start
                numbers = buffer[: size[0] * size[1]]
                fill(part, numbers.reshape(size))
                if known is not None:
                    numbers = numbers.reshape(size)[known[part]]
                counts.append(numbers.size)
                if not numbers.size:
                    continue
                # the ufuncs themselves: methods such as `mean` cost as much again for a block
                mean = float(np.add.reduce(numbers)) / numbers.size
                low, high = (float(np.minimum.reduce(numbers)), float(np.maximum.reduce(numbers))) if extremes else (np.inf, -np.inf)
                numbers -= mean
                found._join(numbers.size, mean, float(np.add.reduce(np.square(numbers, out=numbers))), low, high)
        if found.count:
            found.drawn, found.priority = _draw(found.count, lambda ranks: _at(ranks, shape, known, counts, fill))
        return found

    def _join(self, count: int, mean: float, m2: float, low: float, high: float) -> None:
        both = self.count + count
        delta = mean - self.mean
        self.m2 += m2 + delta**2 * self.count * count / both
        self.mean += delta * count / both
        self.count, self.low, self.high = both, min(self.low, low), max(self.high, high)

    def merge(self, other: Moments) -> None:
        """Take in another stream. Equal orders of merging give equal bits."""
        if not other.count:
            return
        self._join(other.count, other.mean, other.m2, other.low, other.high)
        drawn, priority = np.concatenate([self.drawn, other.drawn]), np.concatenate([self.priority, other.priority])
        keep = np.argsort(priority, kind="stable")[:DRAWN]
        self.drawn, self.priority = drawn[keep], priority[keep]

    @property
    def std(self) -> float:
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0

    @property
    def rms(self) -> float:
        return float(np.hypot(self.std, self.mean))

    def quantile(self, share: float) -> float:
        """Estimated from the drawn values; exact where the stream was no longer than `DRAWN`, up to float32."""
        return float(np.quantile(self.drawn.astype(np.float64), share)) if self.count else float("nan")

    def to_json(self, quantiles: bool = True) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean,
            "m2": self.m2,
            "min": self.low if self.count else None,
            "max": self.high if self.count else None,
            "quantiles": {str(q): self.quantile(q) for q in QUANTILES} if self.count and quantiles else {},
            "sample": {"values": _encode(self.drawn), "priority": _encode(self.priority)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Moments:
        if not data["count"]:
            return cls()
        drawn, priority = (_decode(data["sample"][k]) for k in ("values", "priority"))
        return cls(int(data["count"]), float(data["mean"]), float(data["m2"]), float(data["min"]), float(data["max"]), drawn, priority)


def _draw(n: int, at: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The values of least priority, and their priorities: the first order statistics of as many exponentials, at places drawn at random.

    The seed is a hash of some of the values, so that equal data gives equal draws in any process.
    """
    k = min(n, DRAWN)
    some = at(np.arange(0, n, max(1, n // 1024)))
    generator = np.random.default_rng([zlib.crc32(some.tobytes()), n])
    priority = np.cumsum(generator.standard_exponential(k) / (n - np.arange(k)))
    return at(generator.choice(n, k, replace=False)).astype(np.float32), priority.astype(np.float32)


def _at(
    ranks: np.ndarray, shape: tuple[int, ...], known: np.ndarray | None, counts: list[int], fill: Callable[[Any, np.ndarray], object]
) -> np.ndarray:
    """The numbers of these ranks among those that are known; `counts` says how many each block has."""
    rows, columns = shape
    y, x = np.divmod(ranks, columns)
    if known is not None:
        before = np.concatenate(([0], np.cumsum(counts)))
        block = np.searchsorted(before, ranks, "right") - 1
        for n, part in enumerate(blocks(rows, columns)):
            if (here := block == n).any():
                j, i = np.nonzero(known[part])
                place = ranks[here] - before[n]
                y[here], x[here] = part[0].start + j[place], part[1].start + i[place]
    found = np.empty(ranks.size)
    fill((y, x), found)
    return found


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _decode(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


@dataclass(slots=True)
class Channel:
    """One variable: its valid values and its increments in transform space, and how many values there were."""

    values: Moments = field(default_factory=Moments)
    increments: Moments = field(default_factory=Moments)
    total: int = 0


@dataclass(slots=True)
class Statistics:
    """Statistics of a split, in the transform space of each variable, keyed by `Variable.key`.

    `update` takes in a sample, `merge` the statistics of other samples; the same samples in the same order and grouping give the
    same bits. Increments are those of one frame where both frames are valid, of every variable that is not static. `steps` are
    the times between frames, `coefficients` those of the samples.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    steps: Moments = field(default_factory=Moments)
    coefficients: dict[str, Moments] = field(default_factory=dict)
    steady: dict[str, np.ndarray] = field(default_factory=dict)
    samples: int = 0

    def update(self, sample: Sample) -> None:
        one = Statistics(samples=1)
        for c, variable in enumerate(sample.variables):
            values, valid = sample.values[:, c], sample.valid[:, c]
            known = None if valid.all() else valid
            channel = Channel(Moments.of(values, known, variable.name), total=valid.size)
            if variable.role != "static":
                channel.increments = Moments.of_increments(values, known, variable.name)
            one.channels[variable.key] = channel
            one.roles[variable.key] = variable.role
        if sample.steady:
            means, spreads = ([getattr(c.values, k) if c.values.count else np.nan for c in one.channels.values()] for k in ("mean", "std"))
            one.steady = {"mean": np.array([means]), "std": np.array([spreads])}
        else:
            one.steps = Moments.of(np.diff(sample.time.seconds))
        one.coefficients = {name: Moments.of(np.array([v])) for name, v in sorted(sample.coefficients.items())}
        self.merge(one)

    def merge(self, other: Statistics) -> None:
        for key, channel in other.channels.items():
            mine = self.channels.setdefault(key, Channel())
            mine.values.merge(channel.values)
            mine.increments.merge(channel.increments)
            mine.total += channel.total
        self.roles |= other.roles
        self.steps.merge(other.steps)
        for name, moments in other.coefficients.items():
            self.coefficients.setdefault(name, Moments()).merge(moments)
        for name, rows in other.steady.items():  # the first problems stand for all: their order is no matter of their content
            self.steady[name] = np.concatenate([self.steady[name], rows])[:DRAWN] if name in self.steady else rows
        self.samples += other.samples

    def valid_share(self, key: str) -> float:
        channel = self.channels[key]
        return channel.values.count / channel.total if channel.total else 0.0

    @property
    def step(self) -> float | None:
        """Median time between frames; None where there is none (steady problems, single frames)."""
        if not self.steps.count:
            return None
        regular = self.steps.high - self.steps.low <= 1e-6 * self.steps.high
        return float(f"{self.steps.mean:.9g}") if regular else self.steps.quantile(0.5)

    @property
    def steady_ratio(self) -> float | None:
        """RMS over steady problems of RMS(state) / RMS(forcing and static), each variable centred and scaled by the corpus.

        Over the whole corpus both are 1 by construction; what counts is the ratio within a problem, because a model that guesses
        the size of the solution from the size of the source meets one problem at a time. None where nothing is steady.
        """
        if not self.steady:
            return None
        moments = [channel.values for channel in self.channels.values()]
        centre, scale = np.array([m.mean for m in moments]), np.array([m.std for m in moments])
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = (self.steady["std"] ** 2 + (self.steady["mean"] - centre) ** 2) / scale**2
        squares[:, scale == 0] = np.nan
        inputs = np.array([role in ("forcing", "static") for role in self.roles.values()])
        states = np.array([role == "state" for role in self.roles.values()])
        above, below = _row_means(squares[:, states]), _row_means(squares[:, inputs])
        usable = np.isfinite(above) & np.isfinite(below) & (below > 0)
        return float(np.sqrt(np.mean(above[usable] / below[usable]))) if usable.any() else None

    def to_json(self, quantiles: bool = True) -> dict[str, Any]:
        """`from_json` is the inverse, with or without quantiles, which follow from the drawn values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "samples": self.samples,
            "variables": {
                key: {
                    **channel.values.to_json(quantiles),
                    "role": self.roles[key],
                    "total": channel.total,
                    "valid_share": self.valid_share(key),
                    "increment": channel.increments.to_json(quantiles),
                }
                for key, channel in self.channels.items()
            },
            "order": list(self.channels),
            "step": self.step,
            "steps": self.steps.to_json(),
            "coefficients": {name: moments.to_json() for name, moments in self.coefficients.items()},
            "steady_ratio": self.steady_ratio,
            "steady": {name: [[None if np.isnan(v) else float(v) for v in row] for row in rows] for name, rows in self.steady.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Statistics:
        entries = {key: data["variables"][key] for key in data["order"]}
        return cls(
            channels={key: Channel(Moments.from_json(e), Moments.from_json(e["increment"]), int(e["total"])) for key, e in entries.items()},
            roles={key: e["role"] for key, e in entries.items()},
            steps=Moments.from_json(data["steps"]),
            coefficients={name: Moments.from_json(m) for name, m in data["coefficients"].items()},
            steady={name: np.array(rows, np.float64) for name, rows in data["steady"].items()},
            samples=int(data["samples"]),
        )


def _row_means(squares: np.ndarray) -> np.ndarray:
    """Mean of each row over its numbers; NaN where a row has none."""
    known = np.isfinite(squares)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, squares, 0.0).sum(1) / np.maximum(count, 1), np.nan)
