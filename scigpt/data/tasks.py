"""Tasks: what a model is asked to do with the windows of a corpus, as a view of a batch.

Every task is put as "predict the last frame from those before": a forecast is that by itself; in the other tasks the batch is rewritten so
that it is, and the network, its normalisation, the loss and the scores stay the same.

    forecast           as it is
    super-resolution   two frames: the coarse field, interpolated to the grid, and the field itself; what is predicted is their difference
    inverse            other roles: what was to be predicted is given, and `predict` (a source, a coefficient field) is predicted
    coefficients       numbers of the equation are hidden from the input and asked for
    classes            which of some values a coefficient has
    labels             `predict` are probabilities at every point; a series of single points is laid along X and seen as a whole
    reconstruction     some places (stations, or patches of a grid) are hidden in all frames, and predicted there from the others
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch, collate
from scigpt.data.corpus import Corpus
from scigpt.data.keyed import torch_generator
from scigpt.data.normalize import Scales
from scigpt.data.patching import choose_patch
from scigpt.data.reconstruction import Reconstruction
from scigpt.data.sample import SPACE_AXES, Layout, Role
from scigpt.errors import UserError

Name = Literal["forecast", "super-resolution", "inverse", "coefficients", "classes", "labels", "reconstruction"]
Degradation = Literal["bicubic", "subsample", "noisy", "paired"]
SCALE_SAMPLES = 16
"""Records that the size of what super-resolution has to add is measured on."""


@dataclass(frozen=True)
class TaskConfig:
    """What is asked of the model.

    Args:
        name: see the module.
        factor: of super-resolution, how many times fewer points the coarse field has along each axis.
        degrade: of super-resolution. `bicubic`: averaged by a cubic kernel; `subsample`: every so many points; `noisy`: the same, with
            noise; `paired`: the corpus has the coarse field itself, as the variable `coarse_NAME` on the fine grid (a coarse simulation).
        noise: standard deviation of the noise, as a share of that of the variable.
        predict: variables that are predicted, of inverse and labels.
        coefficients: asked for, of coefficients; of classes exactly one.
        values: of classes: the values that the coefficient has.
        hidden: of reconstruction, the share of the places that are hidden.
    """

    name: Name = "forecast"
    factor: int = 4
    degrade: Degradation = "bicubic"
    noise: float = 0.05
    predict: list[str] = field(default_factory=list)
    coefficients: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    hidden: float = 0.2

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise UserError(f"factor is {self.factor}; expected 2 or more")
        if not 0 <= self.noise < math.inf:
            raise UserError(f"noise is {self.noise}; expected a share of 0 or more")
        if not 0 < self.hidden < 1:
            raise UserError(f"hidden is {self.hidden}; expected a share above 0 and below 1")
        if self.name in ("inverse", "labels") and not self.predict:
            raise UserError(f"the task {self.name} needs predict, the variables that are to be predicted")
        if self.name in ("coefficients", "classes") and not self.coefficients:
            raise UserError(f"the task {self.name} needs coefficients, the names of what is asked for")
        if self.name == "classes" and (len(self.coefficients) != 1 or len(set(self.values)) < 2):
            raise UserError("the task classes needs one coefficient, and values, the two or more values it has")

    @property
    def head(self) -> str:
        """The head that suits the task where none is chosen."""
        return self.name if self.name in ("coefficients", "classes", "labels") else "point"


class Task(Protocol):
    """A task on one corpus."""

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        """What the model gets and is to predict. `positions` of the windows in the order of the data key whatever is random."""

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        """Layout, number of windows and frames of the view of a batch."""


def build_task(config: TaskConfig, corpus: Corpus, scales: Scales, seed: int = 0) -> Task | None:
    """The task on a corpus; None for a forecast, which needs no view.

    Raises:
        UserError: variables or coefficients that the corpus lacks, a grid that the factor does not divide.
    """
    if config.name == "forecast":
        return None
    where = f"corpus {corpus.name} ({corpus.path})"
    if config.name == "super-resolution":
        return SuperResolution.of(config, corpus, scales, seed)
    if config.name == "reconstruction":
        return Reconstruction.of(config.hidden, corpus, seed)
    if config.name in ("inverse", "labels"):
        names = [v.name for v in corpus.layout.variables]
        for name in config.predict:
            _require(name, names, f"{where}: has no variable", "task.predict")
        return Inverse(tuple(config.predict)) if config.name == "inverse" else Labelled(tuple(config.predict))
    statistics = corpus.stats.to_json()["coefficients"]
    for name in config.coefficients:
        _require(name, list(statistics), f"{where}: has no coefficient", "task.coefficients")
    moments = [(e["mean"], (e["m2"] / max(e["count"], 1)) ** 0.5) for e in (statistics[n] for n in config.coefficients)]
    center, spread = tuple(m for m, _ in moments), tuple(s or 1.0 for _, s in moments)
    return Asked(tuple(config.coefficients), center, spread, tuple(config.values) if config.name == "classes" else ())


def _require(name: str, there: Sequence[str], what: str, key: str) -> None:
    if name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(there) or 'none'}"
        raise UserError(f"{what} {name!r} of {key}; {hint}")


@dataclass(frozen=True)
class Asked:
    """Coefficients are hidden from the input and become answers: in units of their spread, or as the number of a class."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]
    values: tuple[float, ...] = ()

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        return layout, count, frames

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        columns = []
        known = batch.known.clone()
        for name, center, spread in zip(self.names, self.center, self.spread, strict=True):
            if name not in batch.coefficient_names:  # none of these windows tells it
                columns.append(torch.full((len(batch),), torch.nan))
                continue
            i = batch.coefficient_names.index(name)
            told = torch.where(batch.known[:, i], batch.coefficients[:, i], torch.nan)
            columns.append(self._classes(told) if self.values else (told - center) / spread)
            known[:, i] = False
        coefficients = torch.where(known, batch.coefficients, 0.0)
        return replace(batch, known=known, coefficients=coefficients, answers=torch.stack(columns, 1).float())

    def _classes(self, told: Tensor) -> Tensor:
        near = torch.isclose(told[:, None], torch.tensor(self.values, dtype=told.dtype), rtol=1e-4)
        return torch.where(near.any(1), near.float().argmax(1).float(), torch.nan)


@dataclass(frozen=True)
class Inverse:
    """What was predicted is given at all times, and `predict` is predicted and never an input."""

    predict: tuple[str, ...]

    def layout(self, layout: Layout) -> Layout:
        roles: dict[Role, Role] = {"state": "forcing", "diagnostic": "forcing"}
        variables = (replace(v, role="diagnostic" if v.name in self.predict else roles.get(v.role, v.role)) for v in layout.variables)
        return replace(layout, variables=tuple(variables))

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        return self.layout(layout), count, frames

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        ratio = batch.scales.steady_ratio
        return replace(batch, layout=self.layout(batch.layout), scales=replace(batch.scales, steady_ratio=1 / ratio if ratio > 0 else 1.0))


@dataclass(frozen=True)
class Labelled(Inverse):
    """As inverse, and `predict` are probabilities: not normalised. A series of single points becomes two frames of a line."""

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        layout = self.layout(layout)
        return (replace(layout, grid=(1, 1, frames), steady=True), count, 2) if math.prod(layout.grid) == 1 else (layout, count, frames)

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        batch = replace(batch, layout=self.layout(batch.layout))
        plain = [v.name in self.predict for v in batch.layout.variables]
        s = batch.scales

        def put(numbers: tuple[float, ...], instead: float) -> tuple[float, ...]:
            return tuple(instead if p else n for n, p in zip(numbers, plain, strict=True))

        transform = tuple(("identity", 1.0) if p else t for t, p in zip(s.transform, plain, strict=True))
        scales = replace(s, transform=transform, center=put(s.center, 0.0), scale=put(s.scale, 1.0), increment=put(s.increment, 0.0))
        batch = replace(batch, scales=scales)
        return batch if math.prod(batch.layout.grid) > 1 else _along_x(batch)


def _along_x(batch: Batch) -> Batch:
    """A series `(B, T, C, 1, 1, 1)` as the two frames of a steady line of T points."""
    frames = batch.values.shape[1]
    layout = replace(batch.layout, grid=(1, 1, frames), steady=True, geometry="plane")
    scales = replace(batch.scales, increment=(0.0,) * len(layout.variables))

    def line(t: Tensor) -> Tensor:
        return t[:, :, :, 0, 0, 0].transpose(1, 2)[:, None, :, None, None, :].expand(-1, 2, -1, -1, -1, -1)

    preferred = batch.patch[2] if batch.patch[2] > 1 else 8
    ends = [0, 0]
    return replace(
        batch,
        values=line(batch.values),
        valid=line(batch.valid),
        seconds=torch.stack([batch.seconds[:, 0], batch.seconds[:, 0] + 1.0], 1),
        step=torch.ones_like(batch.step[:, :1]),
        season=batch.season[:, ends],
        hour=batch.hour[:, ends],
        weight=torch.ones(len(batch), 1, 1, 1, 1, frames),
        latitude=None,
        longitude=None,
        height=None,
        layout=layout,
        scales=scales,
        patch=choose_patch(layout.grid, preferred),
    )


@dataclass(frozen=True)
class SuperResolution:
    """Frame 0 is the coarse field, interpolated, frame 1 the field; every frame of a window makes one such pair. Variables that are not
    predicted (orography, forcings) stay fine.

    Args:
        coarse: of `paired`: the channel of the coarse field of each predicted channel.
        residual: RMS of what is to be added, by channel, in normalised units; what the output is measured in.
        size: standard deviation of each variable, in its unit, which the noise is a share of.
    """

    factor: int
    degrade: Degradation
    noise: float
    coarse: dict[int, int]
    residual: tuple[float, ...]
    size: tuple[float, ...]
    seed: int = 0

    @classmethod
    def of(cls, config: TaskConfig, corpus: Corpus, scales: Scales, seed: int) -> SuperResolution:
        layout, where = corpus.layout, f"corpus {corpus.name} ({corpus.path})"
        if layout.geometry == "points":
            raise UserError(f"{where}: holds stations, which have no resolution; super-resolution needs a grid")
        short = [a for a, n in zip(SPACE_AXES, layout.grid, strict=True) if n > 1 and n % config.factor]
        if short and config.degrade != "paired":
            raise UserError(f"{where}: task.factor={config.factor} does not divide the grid {list(layout.grid)} along {', '.join(short)}")
        index = {v.key: c for c, v in enumerate(layout.variables)}
        coarse: dict[int, int] = {}
        if config.degrade == "paired":
            for key, c in [(k, c) for k, c in index.items() if not k.startswith("coarse_") and layout.variables[c].predicted]:
                _require(f"coarse_{key}", list(index), f"{where}: has no variable", "task.degrade=paired")
                coarse[c] = index[f"coarse_{key}"]
        statistics = corpus.stats.to_json()["variables"]
        entries = [statistics.get(v.key) for v in layout.variables]
        # in the variable's unit where it is not transformed, else near enough for noise
        size = tuple((e["m2"] / e["count"]) ** 0.5 if e and e["count"] else 1.0 for e in entries)
        task = cls(config.factor, config.degrade, config.noise, coarse, (1.0,) * len(layout.variables), size, seed)
        return replace(task, residual=task._measure(corpus, scales))

    def _measure(self, corpus: Corpus, scales: Scales) -> tuple[float, ...]:
        split = "train" if "train" in corpus.splits else next(iter(corpus.splits))
        entries = corpus.entries(split)
        total, count = np.zeros(len(corpus.layout.variables)), np.zeros(len(corpus.layout.variables))
        for i in range(0, len(entries), max(1, len(entries) // SCALE_SAMPLES)):
            sample = corpus.read(split, i, slice(max(0, entries[i].frames - 2), entries[i].frames))
            batch = collate([sample], scales, corpus.name)
            view = self.view(batch, [i])
            apart = scales.forward(view.target_values()) - scales.forward(view.values[:, :1])
            apart = torch.where(view.valid[:, 1:] & view.valid[:, :1], apart, 0.0)
            total += apart.double().square().sum((0, 1, 3, 4, 5)).numpy()
            count += (view.valid[:, 1:] & view.valid[:, :1]).double().sum((0, 1, 3, 4, 5)).numpy()
        rms = np.sqrt(total / np.maximum(count, 1))
        return tuple(float(r) if v.predicted and r > 0 else 0.0 for r, v in zip(rms, corpus.layout.variables, strict=True))

    def layout(self, layout: Layout) -> Layout:
        """A pair takes no time. The channels that bring the coarse fields are never seen under their own names."""
        kept = (v for c, v in enumerate(layout.variables) if c not in self.coarse.values())
        return replace(layout, variables=tuple(kept), steady=True)

    def shape(self, layout: Layout, count: int, frames: int) -> tuple[Layout, int, int]:
        return self.layout(layout), count * (1 if layout.steady else frames), 2

    def view(self, batch: Batch, positions: Sequence[int]) -> Batch:
        steady = batch.layout.steady
        frames = [1] if steady else list(range(batch.values.shape[1]))
        fine = batch.values[:, frames].flatten(0, 1)  # (B F, C, Z, Y, X)
        valid = batch.valid[:, frames].flatten(0, 1)
        given = fine.clone()
        for c, v in enumerate(batch.layout.variables):
            if v.predicted and c not in self.coarse.values():
                given[:, c] = fine[:, self.coarse[c]] if self.coarse else self._blurred(fine[:, c], valid[:, c], batch, c, positions)
        kept = [c for c in range(fine.shape[1]) if c not in self.coarse.values()]
        each = len(frames)

        def repeated(t: Tensor) -> Tensor:
            return t.repeat_interleave(each, 0)

        s = batch.scales

        def some(numbers: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(numbers[c] for c in kept)

        scales = Scales(tuple(s.transform[c] for c in kept), some(s.center), some(s.scale), some(self.residual), s.steady_ratio)
        both = torch.stack([fine[:, kept], fine[:, kept]], 1)
        seconds = batch.seconds[:, frames].reshape(-1, 1)

        def twice(t: Tensor) -> Tensor:
            return t[:, frames].reshape(-1, 1).expand(-1, 2)

        return replace(
            batch,
            values=torch.stack([given[:, kept], fine[:, kept]], 1),
            truth=both,
            valid=torch.stack([valid[:, kept], valid[:, kept]], 1),
            seconds=torch.cat([seconds, seconds + 1.0], 1),
            step=torch.ones(len(seconds), 1),
            season=twice(batch.season),
            hour=twice(batch.hour),
            coefficients=repeated(batch.coefficients),
            known=repeated(batch.known),
            weight=repeated(batch.weight),
            latitude=None if batch.latitude is None else repeated(batch.latitude),
            longitude=None if batch.longitude is None else repeated(batch.longitude),
            height=None if batch.height is None else repeated(batch.height),
            layout=self.layout(batch.layout),
            scales=scales,
        )

    def _blurred(self, field_: Tensor, valid: Tensor, batch: Batch, channel: int, positions: Sequence[int]) -> Tensor:
        """`(F, Z, Y, X)`, made coarse and interpolated back; gaps take the mean of what is there, so that they do not bleed."""
        there = valid.flatten(1).sum(1).clamp(min=1)
        mean = (torch.where(valid, field_, 0.0).flatten(1).sum(1) / there).view(-1, 1, 1, 1)
        coarse = torch.where(valid, field_, mean)
        averaged = self.degrade == "bicubic"
        for axis, name in enumerate(SPACE_AXES):
            side = field_.shape[axis + 1]
            if side > 1:
                down = torch.from_numpy(_coarsening(side, self.factor, batch.layout.boundary.periodic(name), averaged))
                coarse = _along(coarse, down, axis + 1)
        if self.degrade == "noisy":
            count = len(coarse) // len(positions)
            draws = [
                torch.randn(count, *coarse.shape[1:], generator=torch_generator(self.seed, "noise", batch.corpus, channel, p))
                for p in positions
            ]
            coarse = coarse + self.noise * self.size[channel] * torch.cat(draws)
        for axis, name in enumerate(SPACE_AXES):
            side = field_.shape[axis + 1]
            if side > 1:
                up = torch.from_numpy(_interpolation(side, self.factor, batch.layout.boundary.periodic(name), averaged))
                coarse = _along(coarse, up, axis + 1)
        return coarse


def _along(values: Tensor, matrix: Tensor, axis: int) -> Tensor:
    return torch.movedim(torch.movedim(values, axis, -1) @ matrix.T.to(values.dtype), -1, axis)


def _cubic(t: np.ndarray) -> np.ndarray:
    """Cubic convolution with a = -1/2 (Keys 1981, doi:10.1109/TASSP.1981.1163711, equation 15)."""
    t = np.abs(t)
    inner, outer = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def _weights(places: np.ndarray, side: int, width: float, periodic: bool) -> np.ndarray:
    """Rows of cubic weights on `side` points for values at `places` (in points); the kernel is `width` points wide. Around periodic axes,
    else with the first and last point repeated."""
    matrix = np.zeros((places.size, side))
    reach = math.ceil(2 * width) + 1
    for row, place in enumerate(places):
        points = np.arange(math.floor(place) - reach, math.floor(place) + reach + 1)
        weight = _cubic((points - place) / width)
        index = points % side if periodic else np.clip(points, 0, side - 1)
        np.add.at(matrix[row], index, weight / weight.sum())
    return matrix


@lru_cache(maxsize=32)
def _coarsening(side: int, factor: int, periodic: bool, averaged: bool) -> np.ndarray:
    """`(side / factor, side)`: a cubic kernel as wide as the coarse cells around their middles, or every `factor`-th point."""
    if not averaged:
        return np.eye(side)[::factor]
    middles = (np.arange(side // factor) + 0.5) * factor - 0.5
    return _weights(middles, side, float(factor), periodic)


@lru_cache(maxsize=32)
def _interpolation(side: int, factor: int, periodic: bool, averaged: bool) -> np.ndarray:
    """`(side, side / factor)`: back to the fine points by cubic convolution."""
    fine = np.arange(side)
    places = (fine + 0.5) / factor - 0.5 if averaged else fine / factor
    return _weights(places, side // factor, 1.0, periodic)
