"""A Fourier neural operator (FNO, arXiv:2010.08895) trained beside the run: the same data, the same budget.

It sees the windows of one corpus that the run saw, in the same order and as often, in the run's normalisation: from the last two frames
(value and increment, and the coefficients) it predicts the normalised increment. Its width is the largest whose FLOPs for a window do not
exceed those of the run's model (`Shape.forward_flops`). So samples seen and FLOPs are those that the run spent on the corpus. It is
trained in float32 with Adam and a one-cycle learning rate, without tuning for the corpus.

In a transfer study its size and steps are stated instead (`FnoConfig`), and the windows are those of a run on the first records.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, load_json
from scigpt.data.keyed import key
from scigpt.data.loader import BatchLoader, scales_of
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture
from scigpt.data.normalize import Scales, normalize
from scigpt.data.sample import Layout
from scigpt.errors import UserError
from scigpt.train.objective import target_weight

NAME, STEM = "FNO", "fno-"
LAYERS = 4
RATE = 2e-3
MODES = {1: 32, 2: 32, 3: 12}
"""Modes kept along each axis, by the number of axes (fewer where the axis is short); half of them have a negative wavenumber."""
WIDTHS = range(4, 129, 4)
PARAMETERS = 1_000_000


@dataclass(frozen=True)
class FnoConfig:
    """An FNO of a size of its own; the defaults are the small one of arXiv:2306.00258.

    Args:
        steps: optimizer steps; None: as many as the model that it stands beside.
        rate: largest learning rate.
        modes: wavenumbers kept on either side of zero along each axis, fewer where the axis is short.
        width: channels; None: the widest of at most `PARAMETERS` parameters.
    """

    steps: int | None = None
    rate: float = 1e-3
    modes: int = 8
    width: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; expected a number above 0")

    def shape(self, layout: Layout, coefficients: int) -> Shape:
        """The network on a corpus."""
        if self.width is not None:
            return Shape.of(layout, coefficients, self.width, self.modes)
        fitting = [w for w in WIDTHS if parameters(Shape.of(layout, coefficients, w, self.modes)) <= PARAMETERS]
        return Shape.of(layout, coefficients, max(fitting, default=WIDTHS[0]), self.modes)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the network is made of: points and modes along each axis longer than 1, channels in and out, width."""

    axes: tuple[int, ...]
    modes: tuple[int, ...]
    inputs: int
    outputs: int
    width: int

    @classmethod
    def of(cls, layout: Layout, coefficients: int, width: int, half: int | None = None) -> Shape:
        """`half` of the modes along an axis; None: as `MODES` says."""
        axes = tuple(n for n in layout.grid if n > 1)
        modes = tuple(min(2 * half if half else MODES[len(axes)], n) for n in axes)
        channels = len(layout.variables)
        return cls(axes, modes, 2 * channels + coefficients, channels, width)

    def forward_flops(self) -> float:
        """FLOPs to predict one frame: pointwise layers as `neuralop.models.FNO` builds them, spectral products (8 for a complex
        multiply-add), and 5 N log2 N for a transform of N points."""
        points, w = math.prod(self.axes), self.width
        kept = math.prod(self.modes[:-1]) * (self.modes[-1] // 2 + 1)
        pointwise = 2 * points * ((self.inputs + len(self.axes)) * 2 * w + 2 * w * w + w * 2 * w + 2 * w * self.outputs)
        layer = 8 * kept * w * w + 2 * 5 * points * math.log2(points) * w + 2 * points * (w * w + 2 * w * (w // 2))
        return pointwise + LAYERS * layer


class Fno(nn.Module):
    """The network and what it needs to know of a corpus; called with a batch like the model.

    Args:
        center, spread: of the coefficients, in the order of their names.
    """

    def __init__(self, shape: Shape, center: tuple[float, ...], spread: tuple[float, ...]) -> None:
        super().__init__()
        self._axes, self._center, self._spread = shape.axes, center, spread
        self.net = _library()(
            n_modes=shape.modes, in_channels=shape.inputs, out_channels=shape.outputs, hidden_channels=shape.width, n_layers=LAYERS
        )

    def raw(self, batch: Batch, value: Tensor, increment: Tensor) -> Tensor:
        """In units of the target, `(B, T-1, C, Z, Y, X)`."""
        count, frames, channels, *grid = value.shape
        told = (batch.coefficients - batch.coefficients.new_tensor(self._center)) / batch.coefficients.new_tensor(self._spread)
        told = torch.where(batch.known, told, 0.0)[:, None, :, None, None, None].expand(-1, frames, -1, *grid)
        inputs = torch.cat([value, increment, told], 2).reshape(count * frames, -1, *self._axes)
        return self.net(inputs).reshape(count, frames, channels, *grid)

    def forward(self, batch: Batch) -> Forecast:
        fields = normalize(batch)
        return Forecast(batch.scales, fields.base + fields.unit * self.raw(batch, fields.value, fields.increment))

    def loss(self, batch: Batch) -> Tensor:
        """Mean square error over valid targets, weighted by area."""
        fields, weight = normalize(batch), target_weight(batch)
        error = (self.raw(batch, fields.value, fields.increment) - fields.target).square()
        return torch.where(weight > 0, error * weight, 0.0).sum() / weight.sum().clamp(min=1e-12)


@dataclass(frozen=True, slots=True)
class Forecast:
    """See `scigpt.model.backbone.Prediction`."""

    scales: Scales
    z: Tensor

    def physical(self) -> Tensor:
        return self.scales.inverse(self.z)


def applicable(layout: Layout) -> bool:
    """An FNO needs a grid."""
    return layout.geometry != "points" and any(n > 1 for n in layout.grid)


def require() -> None:
    """Raises:
    UserError: `neuraloperator` is not installed.
    """
    _library()


def train_beside(
    folder: Path,
    corpus: Corpus,
    settings: CorpusConfig,
    data: DataConfig,
    seed: int,
    groups: int,
    flops: Callable[[Batch], int],
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Fno, dict[str, Any]]:
    """Train on the first `groups` groups of windows that a run of this data and seed sees of the corpus, one step for each.

    Weights that `folder` holds of the very same training are taken instead.

    Args:
        flops: of the run's model in one forward pass of a batch.

    Returns:
        The network, and what is told about it: parameters, width, modes, windows, steps, FLOPs for a window of both.
    """
    scales = scales_of(corpus, settings)
    mixture = Mixture([corpus], replace(data, corpora=[settings]), seed)
    with BatchLoader(mixture, [scales], prefetch=1) as loader:
        first = next(loader)[1][0]
    frames = first.values.shape[1] - 1
    share = flops(first) / len(first) / frames
    told = len(first.coefficient_names)
    fitting = [w for w in WIDTHS if Shape.of(first.layout, told, w).forward_flops() <= share]
    shape = Shape.of(first.layout, told, max(fitting, default=WIDTHS[0]))
    more = {"model_flops_per_window": round(3 * share * frames)}
    return _trained(folder / f"{STEM}{corpus.name}", mixture, scales, shape, first.coefficient_names, groups, RATE, more, device, progress)


def train_few(
    folder: Path,
    corpus: Corpus,
    settings: CorpusConfig,
    data: DataConfig,
    seed: int,
    config: FnoConfig,
    steps: int,
    groups: int,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Fno, dict[str, Any]]:
    """Train on the windows that a run of this data and seed sees of the corpus in `steps` steps of `groups` groups.

    `settings.limit` says how many records that are. Weights that `folder` holds of the very same training are taken instead.

    Returns:
        As `train_beside`.
    """
    scales = scales_of(corpus, settings)
    mixture = Mixture([corpus], replace(data, corpora=[settings]), seed)
    names = tuple(sorted(corpus.stats.to_json()["coefficients"]))
    with BatchLoader(mixture, [scales], prefetch=1) as loader:
        layout = next(loader)[1][0].layout
    shape, more = config.shape(layout, len(names)), {"groups": groups}
    return _trained(folder / f"{STEM}{corpus.name}", mixture, scales, shape, names, steps, config.rate, more, device, progress, groups)


def _trained(
    stem: Path,
    mixture: Mixture,
    scales: Scales,
    shape: Shape,
    names: Sequence[str],
    steps: int,
    rate: float,
    more: dict[str, Any],
    device: str,
    progress: bool,
    groups: int = 1,
) -> tuple[Fno, dict[str, Any]]:
    """A network trained on the windows of a mixture of one corpus, `groups` of its groups a step, or as `stem` holds it."""
    (corpus,) = mixture.corpora
    moments = corpus.stats.to_json()["coefficients"]
    center = tuple(float(moments[n]["mean"]) for n in names)
    spread = tuple((moments[n]["m2"] / max(moments[n]["count"], 1)) ** 0.5 or 1.0 for n in names)
    about = {
        **asdict(shape),
        "corpus": corpus.fingerprint,
        "order": mixture.fingerprint,
        "layers": LAYERS,
        "rate": rate,
        "windows": steps * groups * mixture.sizes[0],
        "steps": steps,
        "flops_per_window": 3 * round(shape.forward_flops()) * (mixture.windows[0].frames - 1),
        **more,
    }
    with torch.random.fork_rng():
        torch.manual_seed(key(mixture.seed, "fno", corpus.name) >> 1)
        net = Fno(shape, center, spread).to(device)
    about["parameters"] = _count(net)
    about["key"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    if _load(net, stem, about["key"]):
        return net.eval(), about
    optimizer = torch.optim.Adam(net.parameters(), rate)
    # a rise of exactly one step is a division by zero in torch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 2), pct_start=0.2 if steps == 10 else 0.1)
    with (
        BatchLoader(mixture, [scales]) as loader,
        tqdm(total=steps, desc=f"FNO on {corpus.name}", unit="step", file=sys.stderr, mininterval=2.0, disable=not progress) as bar,
    ):
        for _ in range(steps):
            total = 0.0
            for _ in range(groups):
                loss = net.loss(next(loader)[1][0].to(device)) / groups
                loss.backward()
                total += float(loss.detach())
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            bar.set_postfix_str(f"loss {total:.4f}", refresh=False)
            bar.update()
    _save(net, stem, about)
    return net.eval(), about


def parameters(shape: Shape) -> int:
    """Real numbers in a network of this shape; no storage is taken."""
    with torch.device("meta"):
        return _count(Fno(shape, (), ()))


def _count(net: nn.Module) -> int:
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in net.parameters())


def _save(net: Fno, stem: Path, about: dict[str, Any]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: _real(p.detach()).contiguous().cpu() for n, p in net.named_parameters()}, stem.with_suffix(".safetensors"))
    stem.with_suffix(".json").write_bytes(dump_json(about, indent=1))  # last: it names the weights


def _load(net: Fno, stem: Path, name: str) -> bool:
    """Fill the network with the weights of an earlier evaluation, if they are of this very training."""
    file = stem.with_suffix(".json")
    if not file.exists() or load_json(file, "what is told about an FNO").get("key") != name:
        return False
    tensors = load_file(stem.with_suffix(".safetensors"))
    with torch.no_grad():
        for n, p in net.named_parameters():
            _real(p).copy_(tensors[n])
    return True


def _real(parameter: Tensor) -> Tensor:
    return torch.view_as_real(parameter) if parameter.is_complex() else parameter


def _library() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # neuralop imports wandb, which would report its errors to its makers
    try:
        from neuralop.models import FNO
    except ImportError as error:
        raise UserError(f"--fno needs the extra fno, which is not installed ({error}); pip install 'scigpt[fno]'") from None
    return FNO
