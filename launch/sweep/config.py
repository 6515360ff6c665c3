"""SweepConfig: everything a sweep is planned from, and how YAML and `key=value` fill it in."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from scigpt.errors import UserError
from scigpt.launch.plan import MFU
from scigpt.train.config import RunConfig, build, load, plain, read


@dataclass(frozen=True)
class BudgetConfig:
    """What the whole sweep may cost: `flops`, or `device_hours` on devices of a known speed.

    Args:
        flops: of training, hold-outs and everything else included.
        device_hours: hours of one device; needs `peak`.
        peak: TFLOP/s of a device, dense matrix products in the precision of the runs.
        mfu: share of the peak that training reaches.
    """

    flops: float | None = None
    device_hours: float | None = None
    peak: float | None = None
    mfu: float = MFU

    def __post_init__(self) -> None:
        _positive(self, "flops", "device_hours", "peak", "mfu")
        if (self.flops is None) == (self.device_hours is None):
            raise UserError("expected one of flops and device_hours, the whole cost of the sweep")
        if self.device_hours is not None and self.peak is None:
            raise UserError("device_hours says nothing of FLOPs without peak; give the TFLOP/s of a device (`scigpt plan` shows them)")
        if self.mfu > 1:
            raise UserError(f"mfu is {self.mfu}; expected a share of the peak, at most 1")

    @property
    def total(self) -> float:
        """FLOPs."""
        if self.flops is not None:
            return self.flops
        assert self.device_hours is not None
        assert self.peak is not None
        return self.device_hours * 3600 * self.peak * 1e12 * self.mfu

    def hours(self, flops: float) -> float | None:
        """Device-hours that FLOPs take; None without a peak."""
        return None if self.peak is None else flops / (self.peak * 1e12 * self.mfu) / 3600


@dataclass(frozen=True)
class LadderConfig:
    """The shapes a sweep may use.

    Args:
        smallest, largest: parameters in all; None: the smallest shape there is, and no upper end.
        aspect: lowest and highest width / depth. Of one width / depth everywhere, losses differ by size and not by shape.
    """

    smallest: float | None = None
    largest: float | None = None
    aspect: list[float] = field(default_factory=lambda: [16.0, 64.0])

    def __post_init__(self) -> None:
        _positive(self, "smallest", "largest")
        if len(self.aspect) != 2 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"aspect is {self.aspect}; expected the lowest and the highest width / depth, as [16, 64]")
        if self.aspect[1] < 16:
            raise UserError(f"aspect is {self.aspect}; a model of width 32 and depth 2 has 16, so let the highest be 16 or more")
        if self.smallest is not None and self.largest is not None and self.smallest > self.largest:
            raise UserError(f"smallest is {self.smallest:g} and largest {self.largest:g}; exchange them")


@dataclass(frozen=True)
class IsoflopConfig:
    """Sizes at equal compute, for several budgets: the loss has a minimum over the size in each.

    Args:
        budgets: FLOPs of a run, one line of runs each; None: `count` of them down from `top`, each `ratio` times less than the one before.
        top: None: as large as `SHARE` of the sweep's budget allows.
        sizes: runs of a line.
        span: a line reaches from centre / span to centre * span parameters, where the ladder and the limits of steps allow. Wide lines
            extrapolate better: 3 times less error at 8 than at 2.
        tokens_per_param: expected at the minimum, which makes the centre of each line; None: the middle of what the ladder and the limits
            of steps admit. It is not 20 outside of text: a first sweep measures it.
    """

    budgets: list[float] | None = None
    top: float | None = None
    ratio: float = 3.0
    count: int = 5
    sizes: int = 7
    span: float = 8.0
    tokens_per_param: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "top", "count", "sizes", "tokens_per_param")
        _above_one(self, "ratio", "span")
        if self.budgets is not None:
            if self.top is not None:
                raise UserError("budgets and top both say what the runs cost; leave one out")
            _different("budgets", self.budgets)


@dataclass(frozen=True)
class LengthsConfig:
    """Sizes, each trained for several lengths.

    Args:
        count: sizes, evenly between the ends of the ladder (which must then have a `largest`).
        sizes: parameters of each, instead.
        points: lengths of each size: the longest, divided by `ratio` again and again.
        tokens_per_param, steps: of the longest; None and None: so that the shortest has `min_steps`.
    """

    count: int = 5
    sizes: list[float] | None = None
    points: int = 5
    ratio: float = 2.0
    tokens_per_param: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        _positive(self, "count", "points", "tokens_per_param", "steps")
        _above_one(self, "ratio")
        if self.sizes is not None:
            _different("sizes", self.sizes)
        if self.tokens_per_param is not None and self.steps is not None:
            raise UserError("tokens_per_param and steps both say how long the longest run is; leave one out")


@dataclass(frozen=True)
class ProbesConfig:
    """Learning rates at a few sizes: whether the best rate moves with the width. Never in the fit.

    Args:
        rates: factors on `optim.lr` of the base.
        count: sizes, the smallest of the sweep.
        sizes: parameters of each, instead.
        steps: of a probe; None: `min_steps`.
    """

    rates: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0])
    count: int = 2
    sizes: list[float] | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        _positive(self, "count", "steps")
        _different("rates", self.rates)
        if self.sizes is not None:
            _different("sizes", self.sizes)


@dataclass(frozen=True)
class SeedsConfig:
    """The same runs from other seeds: the noise that every other number is held against.

    Args:
        cells: runs that are repeated: the cheapest line's middle one, and others up to the middle of the sweep.
        repeats: further seeds of each.
    """

    cells: int = 2
    repeats: int = 2

    def __post_init__(self) -> None:
        _positive(self, "cells", "repeats")


@dataclass(frozen=True)
class HoldOutConfig:
    """Runs larger than all others, never in the fit: what an extrapolation is judged by.

    Args:
        flops: of each; None: one of `ratio` times the dearest run of the fit.
        sizes: models at each, the expected best one first, others larger and smaller by `span`.
        tokens_per_param: of the best one; None: as the isoFLOP lines are centred, or the geometric mean of the other runs.
    """

    flops: list[float] | None = None
    ratio: float = 3.0
    sizes: int = 1
    span: float = 2.0
    tokens_per_param: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "sizes", "tokens_per_param")
        _above_one(self, "ratio", "span")
        if self.flops is not None:
            _different("flops", self.flops)


@dataclass(frozen=True)
class AxisConfig:
    """isoFLOP lines with one thing changed.

    Args:
        budgets: how many of the budgets of `isoflop`, the largest first.
        sizes: runs of a line.
    """

    budgets: int = 3
    sizes: int = 5

    def __post_init__(self) -> None:
        _positive(self, "budgets", "sizes")
        values = self.values  # type: ignore[attr-defined]  # every axis has them
        if not values or any(v == w for i, v in enumerate(values) for w in values[:i]):
            raise UserError(f"values is {values}; expected several different ones, that of the base left out")


@dataclass(frozen=True)
class WholeAxis(AxisConfig):
    """`values`: whole numbers."""

    values: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(v < 1 for v in self.values):
            raise UserError(f"values is {self.values}; expected numbers of 1 or more")


@dataclass(frozen=True)
class ShareAxis(AxisConfig):
    """`values`: shares above 0 and below 1."""

    values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < v < 1 for v in self.values):
            raise UserError(f"values is {self.values}; expected shares above 0 and below 1")


@dataclass(frozen=True)
class CropAxis(AxisConfig):
    """`values`: `[y, x]` sizes of the part of the grid that is cut out."""

    values: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class MixtureAxis(AxisConfig):
    """`values`: weights of the corpora, in their order."""

    values: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class AxesConfig:
    """What is varied beside size and length. A group keeps its number of windows, so that the batch does not change with the axis.

    Args:
        patch: patch sizes.
        frames: lengths of a window.
        crop, stride: coarser views of the corpora: a part of the grid, every n-th frame.
        unique: shares of the training records that are used; the runs are as long, so the data repeat.
        mixture: weights of the corpora.
    """

    patch: WholeAxis | None = None
    frames: WholeAxis | None = None
    crop: CropAxis | None = None
    stride: WholeAxis | None = None
    unique: ShareAxis | None = None
    mixture: MixtureAxis | None = None

    @property
    def given(self) -> dict[str, Any]:
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: axis for name, axis in found.items() if axis is not None}


@dataclass(frozen=True)
class PriorConfig:
    """The surface that the forecast of the fit supposes, `L = E + A N^-alpha + B D^-beta`, until the sweep has measured one.

    Args:
        alpha, beta: exponents; 0.34 and 0.28 in text (Hoffmann et al., arXiv:2203.15556), about 0.55 and 0.7 in weather (arXiv:2603.25687).
        floor: share that E has of the loss at the geometric mean of the runs; the terms of N and D share the rest equally.
        sigma: relative noise of a loss, one standard deviation.
    """

    alpha: float = 0.4
    beta: float = 0.4
    floor: float = 0.5
    sigma: float = 0.003

    def __post_init__(self) -> None:
        _positive(self, "alpha", "beta", "floor", "sigma")
        if self.floor >= 1:
            raise UserError(f"floor is {self.floor}; expected a share of the loss below 1")


@dataclass(frozen=True)
class SweepConfig:
    """A sweep.

    Args:
        sweep: its folder.
        base: what all runs share: a config file of `scigpt pretrain`, or the same keys inline.
        budget: of the whole sweep.
        overrides: `key=value` words over the base.
        min_steps, max_steps: shorter and longer runs are left out. 1,000 and 120,000 were the limits of the LBNL weather sweep.
        warmup: share of a run's steps in which its learning rate rises. In a fixed number of steps it would distort the exponents (Porian
            et al., arXiv:2406.19146).
        decay: share of the steps in which it falls; None: that of the base.
        min_span: the largest isoFLOP budget over the smallest, at least.
        isoflop, grid, trunks: what is fitted, at least one of them; `trunks` are the runs of a grid as branches of the longest of each
            size.
        lr, seeds, hold_out, axes: each may be left out.
    """

    sweep: str
    base: Any
    budget: BudgetConfig
    overrides: list[str] = field(default_factory=list)
    min_steps: int = 1000
    max_steps: int = 120_000
    warmup: float = 0.05
    decay: float | None = None
    min_span: float = 8.0
    ladder: LadderConfig = field(default_factory=LadderConfig)
    isoflop: IsoflopConfig | None = None
    grid: LengthsConfig | None = None
    trunks: LengthsConfig | None = None
    lr: ProbesConfig | None = None
    seeds: SeedsConfig | None = None
    hold_out: HoldOutConfig | None = None
    axes: AxesConfig = field(default_factory=AxesConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)

    def __post_init__(self) -> None:
        _positive(self, "min_steps", "max_steps")
        if self.min_steps > self.max_steps:
            raise UserError(f"min_steps is {self.min_steps} and max_steps {self.max_steps}; exchange them")
        if not self.sweep:
            raise UserError("sweep is empty; give the folder of the sweep")
        if not 0 <= self.warmup < 1 or (self.decay is not None and not 0 < self.decay <= 1):
            raise UserError(f"warmup is {self.warmup} and decay {self.decay}; expected shares of the steps, decay above 0")
        if self.warmup + (self.decay or 0) > 1:
            raise UserError(f"warmup {self.warmup} and decay {self.decay} are more than the whole run; lower one of them")
        _above_one(self, "min_span")
        if self.isoflop is None and self.grid is None and self.trunks is None:
            raise UserError("there is nothing to fit; add isoflop, grid or trunks (`isoflop: {}` takes the defaults)")
        if self.axes.given and self.isoflop is None:
            raise UserError("axes are varied at the budgets of isoflop; add isoflop (`isoflop: {}` takes the defaults)")

    def to_yaml(self) -> str:
        """As it can be read again."""
        return yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(self))), sort_keys=False)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> tuple[SweepConfig, RunConfig]:
    """A sweep and the configuration its runs share, which is then stated inline as `base`, without the overrides.

    Raises:
        UserError: a file that cannot be read, an unknown key (with the nearest name), a value of the wrong type.
    """
    given = read(path, "sweep")
    if not isinstance(given, DictConfig):
        raise UserError(f"the sweep {path} is not a list of keys with values; it needs sweep, base and budget")
    config = build(SweepConfig, plain(given, overrides, str(path)), str(path))
    base = _base(config, path)
    shared = base.to_json()
    del shared["run"]
    return replace(config, base=shared, overrides=[]), base


def _base(config: SweepConfig, path: Path) -> RunConfig:
    run = f"run={config.sweep}"
    if isinstance(config.base, str):
        return load(Path(config.base), [*config.overrides, run])
    if not isinstance(config.base, dict):
        raise UserError(f"{path}: base is {config.base!r}; expected the path of a config file, or its keys with values")
    return build(RunConfig, plain(OmegaConf.create(config.base), [*config.overrides, run], f"{path}: base"), f"{path}: base")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} is {value}; expected a number above 0")


def _above_one(config: Any, *names: str) -> None:
    for name in names:
        if not 1 < (value := getattr(config, name)) < math.inf:
            raise UserError(f"{name} is {value}; expected a factor above 1")


def _different(name: str, values: Sequence[float]) -> None:
    if not values or any(not 0 < v < math.inf for v in values) or len(set(values)) < len(values):
        raise UserError(f"{name} is {list(values)}; expected different numbers above 0")
