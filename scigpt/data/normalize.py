"""Causal normalisation: corpus statistics first, then the amplitude of each trajectory by running prefix RMS.

Let `z` be the values in the transform space of their variable, centred and scaled by the corpus's training statistics. The
amplitude `a_t` is the RMS of `z` over the frames up to `t`, and `b_t` that of its increments `z_s - z_(s-1)`, `s <= t`. The network sees
`z_t / a_t` and `(z_t - z_(t-1)) / b_t` and predicts `z_(t+1)` as `z_t + b_t * output`, or as `a_t * output` at points that were invalid
at `t`. Nothing at frame `t` depends on a later frame, except forcings, which are known in advance and enter one frame ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scigpt.data.constant import vector
from scigpt.data.sample import Layout
from scigpt.data.variables import QUANTITIES, Quantity
from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.data.batches import Batch

PRIOR_POINTS = 32.0
"""Weight of the corpus's own value in a prefix RMS, in points: it steadies series of a single station and is nothing beside a map."""
FLOOR = 0.05
"""Least amplitude, as a share of the corpus's: a quiet trajectory is not blown up without limit."""


@dataclass(frozen=True, slots=True)
class Scales:
    """Training statistics of one corpus, one entry per variable of its layout.

    Args:
        transform: name of the transform and its scale in the variable's unit.
        center, scale: mean and standard deviation in transform space.
        increment: RMS increment from frame to frame, in units of `scale`; 0 for static variables.
        steady_ratio: RMS of the normalised state over RMS of the normalised forcing and static inputs, for steady corpora.
    """

    transform: tuple[tuple[str, float], ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    increment: tuple[float, ...]
    steady_ratio: float = 1.0

    @classmethod
    def from_stats(cls, layout: Layout, stats: Mapping[str, Any], stride: int = 1) -> Scales:
        """From the layout and the JSON of `Statistics` (the content of `stats.json`).

        Args:
            stride: distance of the frames of a window, in frames of the record. The statistics are of neighbouring frames; an increment
                over a longer step is taken to grow with it, until the frames have nothing in common (sqrt 2).

        Raises:
            UserError: statistics of no variable at all: there is no training split.
        """
        if not stats["variables"]:
            raise UserError("the corpus has no statistics, because it has no split named train; prepare one that has")
        transform, center, scale, increment = [], [], [], []
        for variable in layout.variables:
            quantity = QUANTITIES.find(variable.name)
            entry = stats["variables"].get(variable.key)
            if not entry or not entry["count"]:  # never seen in training: its plausible range must do
                entry = _plausible(quantity)
            transform.append((quantity.transform, quantity.transform_scale) if quantity else ("identity", 1.0))
            spread = (entry["m2"] / entry["count"]) ** 0.5
            # a constant field (a land mask of one region) has no spread: its size, or 1, then sets the scale
            spread = spread if spread > 1e-6 * abs(entry["mean"]) else abs(entry["mean"]) or 1.0
            steps = entry.get("increment") or {"count": 0}
            rms = (steps["m2"] / steps["count"] + steps["mean"] ** 2) ** 0.5 if steps["count"] else 0.0
            center.append(entry["mean"])
            scale.append(spread)
            increment.append(max(rms / spread, min(stride * rms / spread, 2**0.5)))
        return cls(tuple(transform), tuple(center), tuple(scale), tuple(increment), float(stats.get("steady_ratio") or 1.0))

    def of(self, channels: Sequence[int]) -> Scales:
        """Those of some of the variables."""
        center, scale, increment = (tuple(t[c] for c in channels) for t in (self.center, self.scale, self.increment))
        return Scales(tuple(self.transform[c] for c in channels), center, scale, increment, self.steady_ratio)

    def to_json(self) -> dict[str, Any]:
        return {
            "transform": [list(t) for t in self.transform],
            "center": list(self.center),
            "scale": list(self.scale),
            "increment": list(self.increment),
            "steady_ratio": self.steady_ratio,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scales:
        return cls(
            tuple((str(n), float(s)) for n, s in data["transform"]),
            tuple(data["center"]),
            tuple(data["scale"]),
            tuple(data["increment"]),
            float(data["steady_ratio"]),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Physical `(B, T, C, Z, Y, X)` to normalised `z`."""
        return (_per_channel(values, self.transform, _TRANSFORMS) - _channels(self.center, values)) / _channels(self.scale, values)

    def inverse(self, z: Tensor) -> Tensor:
        """Normalised `z` to physical values, an exact inverse up to rounding."""
        return _per_channel(z * _channels(self.scale, z) + _channels(self.center, z), self.transform, _INVERSES)


def _plausible(quantity: Quantity | None) -> dict[str, float]:
    """Moments as wide as the bounds of an untransformed quantity, else 0 and 1."""
    if quantity is None or quantity.transform != "identity" or not math.isfinite(quantity.high - quantity.low):
        return {"count": 1, "mean": 0.0, "m2": 1.0}
    return {"count": 1, "mean": (quantity.low + quantity.high) / 2, "m2": ((quantity.high - quantity.low) / 4) ** 2}


_TRANSFORMS = {
    "log1p": lambda u, s: torch.log1p((u / s).clamp(min=-0.999)),
    "asinh": lambda u, s: torch.asinh(u / s),
}
_INVERSES = {"log1p": lambda v, s: torch.expm1(v) * s, "asinh": lambda v, s: torch.sinh(v) * s}


def _channels(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    return vector(numbers, like.dtype, like.device).view(1, 1, -1, 1, 1, 1)


def which(channels: Iterable[bool], like: Tensor) -> Tensor:
    """Yes or no by channel, to be spread over a field `(B, T, C, Z, Y, X)`."""
    return vector(channels, torch.bool, like.device).view(1, 1, -1, 1, 1, 1)


def _per_channel(values: Tensor, transform: tuple[tuple[str, float], ...], functions: Mapping[str, Any]) -> Tensor:
    if all(name == "identity" for name, _ in transform):
        return values
    parts = [
        values[:, :, c] if name == "identity" else functions[name](values[:, :, c], scale) for c, (name, scale) in enumerate(transform)
    ]
    return torch.stack(parts, dim=2)


Sums = tuple[Tensor, Tensor]
"""Squares and points so far, `(B, C)` each."""


@dataclass(frozen=True, slots=True)
class Past:
    """What normalisation has to know of the frames that went before: the last of them, `(B, C, Z, Y, X)`, and the sums of values and of
    increments."""

    z: Tensor
    valid: Tensor
    values: Sums
    steps: Sums


@dataclass(frozen=True, slots=True)
class Normalized:
    """What the network sees for the frames `0 .. T-2` of a batch, and the frame of reference of its output.

    Shapes: fields `(B, T-1, C, Z, Y, X)`, amplitudes `(B, T-1, C)`. `value` and `increment` are zero where invalid. `log_amplitude` and
    `log_increment` tell the network what was divided out. The prediction of frame `t + 1` is `base + unit * output`; `target` is the
    output that would be right, `mask` (bool) where it counts: valid points of predicted variables. `past` is for the frames that follow.
    """

    value: Tensor
    increment: Tensor
    valid: Tensor
    log_amplitude: Tensor
    log_increment: Tensor
    base: Tensor
    unit: Tensor
    target: Tensor
    mask: Tensor
    past: Past


def normalize(batch: Batch, past: Past | None = None) -> Normalized:
    """Normalise a batch of T frames for the prediction of its frames `1 .. T-1`; `past` is of the frames before them."""
    layout, scales = batch.layout, batch.scales
    roles = [v.role for v in layout.variables]
    given = which((r != "diagnostic" for r in roles), batch.values)
    ahead = [r == "forcing" for r in roles]
    valid = batch.valid & given
    everything = torch.where(batch.valid, scales.forward(torch.where(batch.valid, batch.values, 0.0)), 0.0)
    z = torch.where(valid, everything, 0.0)
    truth = everything if batch.truth is None else torch.where(batch.valid, scales.forward(torch.where(batch.valid, batch.truth, 0.0)), 0.0)

    now, known = _ahead(z, valid, ahead)
    both = valid[:, 1:] & valid[:, :-1]
    steps = torch.where(both, z[:, 1:] - z[:, :-1], 0.0)  # (B, T-1): from frame s to s + 1
    if past is None:
        earlier, there = torch.zeros_like(steps[:, :1]), torch.zeros_like(both[:, :1])
    else:
        there = (valid[:, 0] & past.valid)[:, None]
        earlier = torch.where(there, (z[:, 0] - past.z)[:, None], 0.0)
    before, paired = torch.cat([earlier, steps[:, :-1]], 1), torch.cat([there, both[:, :-1]], 1)
    if any(ahead):
        select = which(ahead, z)
        before, paired = torch.where(select, steps, before), torch.where(select, both, paired)

    sums = (None, None) if past is None else (past.values, past.steps)
    amplitude, values = _prefix_rms(now, known, batch.weight, torch.ones(len(roles), device=z.device), sums[0])
    if layout.steady:
        amplitude = _steady_amplitude(amplitude, roles, scales.steady_ratio, known.flatten(3).any(-1))
    typical = vector(scales.increment, z.dtype, z.device)
    moving = typical > 0
    typical = torch.where(moving, typical, 1.0)
    size, increments = _prefix_rms(before, paired, batch.weight, typical, sums[1])

    def wide(t: Tensor) -> Tensor:
        return t[..., None, None, None]

    # a diagnostic variable is never given, so it is predicted directly in units of the corpus
    base, unit = z[:, :-1], torch.where(valid[:, :-1], wide(size), wide(amplitude))
    predicted = which((v.predicted for v in layout.variables), z)
    mask = batch.valid[:, 1:] & predicted
    return Normalized(
        value=now / wide(amplitude),
        increment=torch.where(moving.view(1, 1, -1, 1, 1, 1), before / wide(size), 0.0),
        valid=known,
        log_amplitude=torch.log(amplitude),
        log_increment=torch.log(size / typical),
        base=base,
        unit=unit,
        target=torch.where(mask, (truth[:, 1:] - base) / unit, 0.0),
        mask=mask,
        past=Past(z[:, -2], valid[:, -2], values, increments),
    )


def _ahead(z: Tensor, valid: Tensor, ahead: list[bool]) -> tuple[Tensor, Tensor]:
    """Frames 0..T-2, for forcings frames 1..T-1."""
    if not any(ahead):
        return z[:, :-1], valid[:, :-1]
    select = which(ahead, z)
    return torch.where(select, z[:, 1:], z[:, :-1]), torch.where(select, valid[:, 1:], valid[:, :-1])


def _prefix_rms(field: Tensor, valid: Tensor, weight: Tensor, typical: Tensor, before: Sums | None) -> tuple[Tensor, Sums]:
    """Area-weighted RMS over the frames up to each frame, `(B, T, C)`, with the corpus's value as a prior and a floor; and the sums it is
    of, which go on from those of the frames before."""
    squares = (weight * field.square()).sum((-3, -2, -1)).cumsum(1)
    points = (weight * valid).sum((-3, -2, -1)).cumsum(1)
    if before is not None:
        squares, points = squares + before[0][:, None], points + before[1][:, None]
    mean = (squares + PRIOR_POINTS * typical.square()) / (points + PRIOR_POINTS)
    return mean.sqrt().maximum(FLOOR * typical), (squares[:, -1], points[:, -1])


def _steady_amplitude(amplitude: Tensor, roles: Sequence[str], ratio: float, seen: Tensor) -> Tensor:
    """The unknown solution of a steady problem is as large as its inputs, times what the corpus says. `seen` `(B, T-1, C)`: which channels
    are given at all; one that is not is as if it were absent."""
    given = [c for c, r in enumerate(roles) if r in ("forcing", "static")]
    if not given:
        return amplitude
    squares, count = torch.zeros_like(amplitude[..., 0]), torch.zeros_like(amplitude[..., 0])
    for c in given:  # one by one: a channel of zeros then leaves the sum as it is, to the last bit
        squares = squares + torch.where(seen[..., c], amplitude[..., c].square(), 0.0)
        count = count + seen[..., c]
    size = (squares / count.clamp(min=1.0)).sqrt()[..., None]
    inputs = vector((c in given for c in range(len(roles))), torch.bool, amplitude.device)
    return torch.where(inputs | seen | (count == 0)[..., None], amplitude, ratio * size)
