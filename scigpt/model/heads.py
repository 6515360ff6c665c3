"""Heads: what is predicted, and the loss that goes with it. A head owns its loss and returns a distribution.

To add one, write a class with the four methods of `Head` in a module of your own (derive from `FieldHead` for anything that is predicted at
every point) and name it in the configuration: `model.head=my_heads:Student`, with `model.head_options` as its keyword arguments.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.data.batches import target_weight
from scigpt.errors import UserError
from scigpt.model.tokenizer import Detokenizer

if TYPE_CHECKING:
    from scigpt.data.batches import Batch
    from scigpt.data.normalize import Normalized

LARGEST_LOG_SCALE = 6.0
"""The logarithm of a predicted standard deviation stays within this, in units of the target."""


class Distribution(Protocol):
    """What evaluation and export ask of any forecast. A dataclass; its fields that are tensors are what the network has put out.

    `relative`: in units of the target (see `scigpt.data.normalize`); otherwise in normalised units themselves, as labels are.
    """

    relative: bool

    @property
    def mean(self) -> Tensor: ...

    def sample(self, generator: torch.Generator) -> Tensor: ...

    def quantile(self, level: float) -> Tensor: ...


class Head(Protocol):
    """A head is a module with these methods. `F` frames are predicted, `T - 1` of a batch of T; a head that says one thing of a window
    has the shape `(B, 1, K, 1, 1, 1)` where others have `(B, F, C, Z, Y, X)`."""

    def __call__(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Distribution:
        """`tokens` `(B, F, N, D)`; `rows`, the row of each channel in the vocabulary."""

    def target(self, fields: Normalized, batch: Batch) -> Tensor:
        """What would be right."""

    def weight(self, batch: Batch) -> Tensor:
        """What each target counts, 0 where there is none. It must depend on the batch alone."""

    def error(self, distribution: Any, target: Tensor) -> Tensor:
        """Elementwise loss, of the shape of the weight."""


@dataclass(frozen=True, slots=True)
class Point:
    """All mass at one value."""

    mean: Tensor
    relative: bool = True

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.mean

    def quantile(self, level: float) -> Tensor:
        return self.mean


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Independent normal distributions."""

    mean: Tensor
    log_scale: Tensor
    relative: bool = True

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.mean + self.scale * torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)

    def quantile(self, level: float) -> Tensor:
        return self.mean + self.scale * math.sqrt(2) * torch.erfinv(torch.tensor(2 * level - 1, dtype=torch.float64)).item()


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Values at some levels, `(Q, ...)`, increasing; straight lines between them, and the outermost beyond."""

    values: Tensor
    levels: tuple[float, ...]
    relative: bool = True

    @property
    def mean(self) -> Tensor:
        """The median stands for the mean."""
        return self.values[self.levels.index(0.5)].float()

    def sample(self, generator: torch.Generator) -> Tensor:
        one = self.values[0]
        return self._at(torch.rand(one.shape, generator=generator, dtype=torch.float32, device=one.device))

    def quantile(self, level: float) -> Tensor:
        return self._at(torch.full_like(self.values[0], level, dtype=torch.float32))

    def _at(self, levels: Tensor) -> Tensor:
        known = torch.tensor(self.levels, device=levels.device)
        after = torch.searchsorted(known, levels.contiguous()).clamp(1, len(self.levels) - 1)
        low, high = known[after - 1], known[after]
        share = ((levels - low) / (high - low)).clamp(0.0, 1.0)
        below, above = (self.values.gather(0, i[None])[0] for i in (after - 1, after))
        return torch.lerp(below.float(), above.float(), share)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A few equally likely members, `(M, ...)`."""

    members: Tensor
    relative: bool = True

    @property
    def mean(self) -> Tensor:
        return self.members.mean(0)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One member, the same at all points: fields stay whole."""
        device = generator.device
        return self.members[int(torch.randint(len(self.members), (1,), generator=generator, device=device))]

    def quantile(self, level: float) -> Tensor:
        return self.members.float().quantile(level, 0)


@dataclass(frozen=True, slots=True)
class Labels:
    """Independent probabilities of labels, each yes or no."""

    logits: Tensor
    relative: bool = False

    @property
    def mean(self) -> Tensor:
        """Probabilities."""
        return torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(self.mean, generator=generator)

    def quantile(self, level: float) -> Tensor:
        return (self.mean > 1 - level).to(self.logits.dtype)


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of K classes, `(B, 1, K, 1, 1, 1)`."""

    logits: Tensor
    relative: bool = False

    @property
    def mean(self) -> Tensor:
        """Probabilities."""
        return torch.softmax(self.logits, 2)

    def sample(self, generator: torch.Generator) -> Tensor:
        flat = self.mean.flatten(1)
        drawn = torch.multinomial(flat, 1, generator=generator)
        return F.one_hot(drawn[:, 0], flat.shape[1]).to(flat.dtype).view_as(self.logits)

    def quantile(self, level: float) -> Tensor:
        """Classes have no order: the most likely one."""
        flat = self.logits.flatten(1)
        return F.one_hot(flat.argmax(1), flat.shape[1]).to(flat.dtype).view_as(self.logits)


def outputs(distribution: Any) -> tuple[Tensor, ...]:
    """The tensors of a distribution."""
    return tuple(v for f in fields(distribution) if isinstance(v := getattr(distribution, f.name), Tensor))


def with_outputs(distribution: Any, tensors: Sequence[Tensor]) -> Distribution:
    """The same distribution of other tensors."""
    names = (f.name for f in fields(distribution) if isinstance(getattr(distribution, f.name), Tensor))
    return cast("Distribution", replace(distribution, **dict(zip(names, tensors, strict=True))))


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What a head is built for: width of the tokens, variables known from the start and added later, and the loss's `huber_delta`."""

    width: int
    variables: int
    added: int
    delta: float

    def detokenizer(self) -> Detokenizer:
        return Detokenizer(self.variables, self.width, self.added)


class FieldHead(nn.Module):
    """What heads share that say something of every point of the next frame."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.delta = shape.delta
        self.detokenizer = shape.detokenizer()

    def field(self, detokenizer: nn.Module, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Tensor:
        """`(B, F, N, D)` to `(B, F, C, Z, Y, X)`; channels that are not predicted are zero."""
        return cast("Tensor", detokenizer(tokens, batch.layout, rows, batch.patch))

    def target(self, fields: Normalized, batch: Batch) -> Tensor:
        return fields.target

    def weight(self, batch: Batch) -> Tensor:
        return target_weight(batch)


class Forecast(FieldHead):
    """One value per point; Huber loss, quadratic within `delta` units of the target and linear beyond."""

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Point:
        return Point(self.field(self.detokenizer, tokens, batch, rows))

    def error(self, distribution: Distribution, target: Tensor) -> Tensor:
        return F.huber_loss(distribution.mean.float(), target, reduction="none", delta=self.delta)


class GaussianForecast(FieldHead):
    """Mean and standard deviation; the loss is the negative log likelihood (less its constant), linear in the deviation beyond `delta`
    standard deviations."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(shape)
        self.scale = shape.detokenizer()

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Gaussian:
        mean, raw = (self.field(d, tokens, batch, rows) for d in (self.detokenizer, self.scale))
        return Gaussian(mean, bounded(raw))

    def error(self, distribution: Gaussian, target: Tensor) -> Tensor:
        return negative_log_likelihood(distribution, target, self.delta)


class QuantileForecast(FieldHead):
    """Quantiles that cannot cross; pinball loss (Koenker and Bassett 1978), the mean over levels, twice: an estimate of the CRPS.

    Args:
        levels: increasing, within 0 and 1, with 0.5 among them.
    """

    def __init__(self, shape: HeadShape, levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> None:
        super().__init__(shape)
        self.levels = tuple(float(level) for level in levels)
        if not all(0 < a < b < 1 for a, b in zip(self.levels, self.levels[1:], strict=False)) or 0.5 not in self.levels:
            raise UserError(f"model.head_options.levels is {list(levels)}; expected increasing numbers within 0 and 1, 0.5 among them")
        self.middle = self.levels.index(0.5)
        self.gaps = nn.ModuleList(shape.detokenizer() for _ in self.levels[1:])

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Quantiles:
        median = self.field(self.detokenizer, tokens, batch, rows)
        gaps = [F.softplus(self.field(gap, tokens, batch, rows)) for gap in self.gaps]
        values = [median]
        for gap in gaps[self.middle :]:
            values.append(values[-1] + gap)
        for gap in reversed(gaps[: self.middle]):
            values.insert(0, values[0] - gap)
        return Quantiles(torch.stack(values), self.levels)

    def error(self, distribution: Quantiles, target: Tensor) -> Tensor:
        total = torch.zeros_like(target)
        for level, value in zip(distribution.levels, distribution.values.float(), strict=True):
            short = target - value
            total = total + torch.maximum(level * short, (level - 1) * short)
        return 2 * total / len(distribution.levels)


class EnsembleForecast(FieldHead):
    """A few members, each a whole field; the loss is the fair CRPS (Ferro 2014, doi:10.1002/qj.2270): `mean |x_i - y|` less half the mean
    distance of two different members.

    Args:
        members: 2 or more.
    """

    def __init__(self, shape: HeadShape, members: int = 4) -> None:
        super().__init__(shape)
        if members < 2:
            raise UserError(f"model.head_options.members is {members}; expected 2 or more")
        self.members = nn.ModuleList(shape.detokenizer() for _ in range(members))
        # unequal from the start, or their gradients would be equal for ever
        names = ("kernel", "kernel_added") if shape.added else ("kernel",)
        self.spread = {f"members.{i}.{name}": 0.1 * shape.width**-0.5 for i in range(members) for name in names}

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Ensemble:
        shared = self.field(self.detokenizer, tokens, batch, rows)
        return Ensemble(torch.stack([shared + self.field(member, tokens, batch, rows) for member in self.members]))

    def error(self, distribution: Ensemble, target: Tensor) -> Tensor:
        members = distribution.members.float()
        count = len(members)
        apart = torch.zeros_like(target)
        for i in range(count):
            for j in range(i):
                apart = apart + (members[i] - members[j]).abs()
        return (members - target).abs().mean(0) - apart / (count * (count - 1))


class PointLabels(FieldHead):
    """Probabilities of labels at every point, as the phases of a seismogram at every sample; binary cross entropy.

    Args:
        bias: logit at the start, so that rare labels do not begin at one half.
        positive: factor on the loss of what the label says is there, where labels are rare.
    """

    def __init__(self, shape: HeadShape, bias: float = -4.0, positive: float = 1.0) -> None:
        super().__init__(shape)
        self.bias, self.positive = float(bias), float(positive)

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Labels:
        return Labels(self.field(self.detokenizer, tokens, batch, rows) + self.bias)

    def target(self, fields: Normalized, batch: Batch) -> Tensor:
        return batch.values[:, 1:]

    def error(self, distribution: Labels, target: Tensor) -> Tensor:
        weight = torch.tensor(self.positive, device=target.device)
        return F.binary_cross_entropy_with_logits(distribution.logits.float(), target, reduction="none", pos_weight=weight)


class WindowHead(nn.Module):
    """What heads share that say something of a whole window: the mean over the tokens of the last frame, which has seen all others, through
    one linear map; `answers` of the batch are what would be right."""

    def __init__(self, shape: HeadShape, count: int) -> None:
        super().__init__()
        self.pool = nn.Linear(shape.width, count)

    def pooled(self, tokens: Tensor) -> Tensor:
        """`(B, F, N, D)` to `(B, 1, K, 1, 1, 1)`."""
        return self.pool(tokens[:, -1].mean(1))[:, None, :, None, None, None]

    def target(self, fields: Normalized, batch: Batch) -> Tensor:
        return torch.nan_to_num(answers_of(batch))

    def weight(self, batch: Batch) -> Tensor:
        return (~answers_of(batch).isnan()).float()


class Coefficients(WindowHead):
    """Mean and standard deviation of the coefficients of a window, in units of their spread over the training data.

    Args:
        count: number of coefficients.
    """

    def __init__(self, shape: HeadShape, count: int) -> None:
        super().__init__(shape, 2 * count)
        self.delta = shape.delta

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Gaussian:
        mean, raw = self.pooled(tokens).chunk(2, 2)
        return Gaussian(mean, bounded(raw), relative=False)

    def error(self, distribution: Gaussian, target: Tensor) -> Tensor:
        return negative_log_likelihood(distribution, target, self.delta)


class Classes(WindowHead):
    """Probabilities of the classes of a window; cross entropy.

    Args:
        count: number of classes.
    """

    def __init__(self, shape: HeadShape, count: int) -> None:
        super().__init__(shape, count)

    def forward(self, tokens: Tensor, batch: Batch, rows: tuple[int, ...]) -> Categorical:
        return Categorical(self.pooled(tokens))

    def error(self, distribution: Categorical, target: Tensor) -> Tensor:
        logits = distribution.logits.float().flatten(1)
        return F.cross_entropy(logits, target.flatten().long(), reduction="none").view_as(target)


def bounded(raw: Tensor) -> Tensor:
    """A logarithm of a scale that cannot run away."""
    return LARGEST_LOG_SCALE * torch.tanh(raw.float() / LARGEST_LOG_SCALE)


def negative_log_likelihood(distribution: Gaussian, target: Tensor, delta: float) -> Tensor:
    deviation = (target - distribution.mean.float()) / distribution.scale.float()
    return F.huber_loss(deviation, torch.zeros_like(deviation), reduction="none", delta=delta) + distribution.log_scale.float()


def answers_of(batch: Batch) -> Tensor:
    """`(B, 1, K, 1, 1, 1)`.

    Raises:
        UserError: a batch without answers.
    """
    if batch.answers is None:
        raise UserError("this head answers questions about whole windows and the task asks none; set task.name to coefficients or classes")
    return batch.answers[:, None, :, None, None, None]


HEADS: Mapping[str, Callable[..., nn.Module]] = {
    "point": Forecast,
    "gaussian": GaussianForecast,
    "quantile": QuantileForecast,
    "ensemble": EnsembleForecast,
    "labels": PointLabels,
    "coefficients": Coefficients,
    "classes": Classes,
}


def build_head(name: str, shape: HeadShape, options: Mapping[str, Any]) -> Head:
    """A head by name, or by `module:Class`.

    Raises:
        UserError: an unknown name, a module or class that is not there, options that it does not take.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"model.head={name!r} cannot be imported ({error}); give module:Class of a module on PYTHONPATH") from None
    elif name in HEADS:
        make = HEADS[name]
    else:
        near = difflib.get_close_matches(name, HEADS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(HEADS)} or module:Class"
        raise UserError(f"model.head={name!r} is unknown; {hint}")
    try:
        made = make(shape, **options)
    except TypeError as error:
        raise UserError(f"model.head_options do not fit the head {name}: {error}") from None
    missing = [m for m in ("forward", "target", "weight", "error") if not hasattr(made, m)]
    if missing:
        raise UserError(f"model.head={name!r} lacks {', '.join(missing)}; see scigpt.model.heads.Head for what a head has")
    return cast("Head", made)
