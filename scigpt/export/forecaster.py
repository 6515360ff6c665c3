"""Forecaster: an exported model, asked with an `xarray.Dataset` and answering with one.

model = scigpt.load("exports/demo")
model.forecast(dataset, steps=12)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scigpt.adapt.start import EXPORT
from scigpt.data.batches import Batch, collate
from scigpt.data.domain import Domain
from scigpt.data.keyed import torch_generator
from scigpt.data.sample import Sample
from scigpt.errors import UserError
from scigpt.evaluate.rollout import Method, forecasts
from scigpt.export import datasets
from scigpt.export.folder import Exported
from scigpt.model.backbone import Prediction, SciGPT
from scigpt.model.heads import Distribution, Point, outputs, with_outputs

if TYPE_CHECKING:
    import xarray as xr

Ensemble = Literal["none", "head", "perturbed"]
BLOCK_STEPS = 8
"""Steps of a single forecast that are written together."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A forecast in parts, each an `xarray.Dataset` with CF-encoded times, to be put behind one another along `dim`; `total` steps of
    members are computed on the way."""

    dim: str
    total: int
    domain: Domain
    blocks: Iterator[xr.Dataset]

    def __iter__(self) -> Iterator[xr.Dataset]:
        return self.blocks


@dataclass(frozen=True, slots=True)
class Ways:
    """How a forecast is made; a UserError where it cannot be."""

    steps: int
    context: int | None
    members: int
    ensemble: Ensemble
    spread: float
    seed: int
    method: Method
    jitter: bool
    batch: int

    def __post_init__(self) -> None:
        for name in ("steps", "members", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.context is not None and self.context < 1:
            raise UserError(f"context is {self.context}; expected 1 frame or more")
        if self.ensemble not in ("none", "head", "perturbed"):
            raise UserError(f"ensemble is {self.ensemble!r}; expected none, head or perturbed")
        if self.method not in ("cache", "recompute", "sliding"):
            raise UserError(f"method is {self.method!r}; expected cache, recompute or sliding")
        if self.members > 1 and self.ensemble == "none":
            raise UserError(f"{self.members} members would be equal; say what makes them differ: ensemble=head or ensemble=perturbed")
        if not 0 <= self.spread < math.inf:
            raise UserError(f"spread is {self.spread}; expected 0 or more typical increments")


class Forecaster:
    """A model with what it knows of its data.

    Args:
        model: in evaluation mode, on the device that is to be used.
        domains: what it was trained on.
        name: for messages.
        exported: the export it comes from, None of a run.
    """

    def __init__(self, model: SciGPT, domains: Sequence[Domain], name: str, exported: Exported | None = None) -> None:
        self.model, self.domains, self.name, self.exported = model, tuple(domains), name, exported

    @classmethod
    def open(cls, path: Path | str, device: str | None = None) -> Forecaster:
        """
        Args:
            path: an export, or, in a full installation, a run (its best checkpoint, or its newest) or a checkpoint.
            device: by default a GPU where there is one.

        Raises:
            UserError: nothing that can be read, files that were changed, a model of another task than forecasting.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder; give an export, a run or a checkpoint")
        exported: Exported | None = None
        if (path / EXPORT).is_file():
            exported = Exported.open(path)
            model, domains, task = exported.model(), exported.domains, exported.facts["task"]["name"]
        else:
            model, domains, task = _of_run(path)
        if task != "forecast":
            raise UserError(f"{path}: its task is {task}, and a forecast is asked for; `scigpt evaluate` shows what it answers")
        return cls(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), domains, path.name, exported)

    @classmethod
    def from_pretrained(cls, name_or_path: Path | str, revision: str | None = None, device: str | None = None) -> Forecaster:
        """An export in a folder or in a repository OWNER/NAME of the Hugging Face hub; see `scigpt.export.hub`."""
        from scigpt.export import hub

        return cls.open(hub.from_pretrained(name_or_path, revision), device)

    def save_pretrained(self, folder: Path | str) -> Path:
        """Copy the export this comes from."""
        from scigpt.export import hub

        return hub.save_pretrained(self._export(), folder)

    def push_to_hub(self, repository: str, private: bool = False, message: str | None = None) -> str:
        """Send the export this comes from to the hub, unless it has learned from data that may not be redistributed."""
        from scigpt.export import hub

        return hub.push_to_hub(self._export(), repository, private, message)

    def _export(self) -> Exported:
        if self.exported is None:
            raise UserError(f"{self.name} is a run; make an export of it with `scigpt export` and load that")
        return self.exported

    def __repr__(self) -> str:
        return f"Forecaster({self.name}: {', '.join(f'{d.name} ({_variables(d)})' for d in self.domains)})"

    def forecast(
        self,
        dataset: xr.Dataset | Sequence[Sample],
        steps: int,
        **options: Any,
    ) -> xr.Dataset:
        """Forecast a dataset.

        Args:
            dataset: states of `context` frames or more, forcings of the forecast's frames too. Variables are found by CF standard name or
                by name, and level; other units are converted; NaN is a gap.
            steps: frames to forecast.
            options: see `stream`.

        Returns:
            The forecast, with times decoded: dimensions `(realization,) time, ...` after one initial condition, `forecast_reference_time,
            (realization,) forecast_period, ...` after several. Names and units are those the model was trained with.

        Raises:
            UserError: whatever does not fit: a variable, unit, calendar, step, spacing, forcing or option.
        """
        import xarray as xr

        found = self.stream(dataset, steps, **options)
        parts = list(found)
        whole = (
            parts[0]
            if len(parts) == 1
            else xr.concat(parts, found.dim, data_vars="minimal", coords="minimal", compat="override", join="exact")
        )
        return xr.decode_cf(whole, decode_timedelta=False)

    def stream(
        self,
        dataset: xr.Dataset | Sequence[Sample],
        steps: int,
        *,
        domain: str | None = None,
        starts: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        context: int | None = None,
        members: int = 1,
        ensemble: Ensemble = "none",
        spread: float = 0.1,
        also: Sequence[Forecaster] = (),
        seed: int = 0,
        method: Method = "cache",
        jitter: bool = False,
        batch: int = 8,
        strict: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> Blocks:
        """Forecast in parts, for what does not fit in memory; see `forecast`.

        Args:
            dataset: or samples of a domain, each an initial condition with its own frames after the context.
            domain: by name, where the dataset fits several.
            starts: instants of the last known frame of several forecasts; by default one forecast from the last state there is.
            labels: names of the samples.
            context: frames that the model is shown, by default as many as in training.
            members: of an ensemble, by each model.
            ensemble: head: every member follows samples of the distribution that the head predicts. perturbed: members but the first start
                from a state to which `spread` typical increments of smooth noise are added.
            also: other models (of other checkpoints or seeds), whose members follow.
            seed: of the ensemble. Equal seeds give equal members, whatever the batch.
            method, jitter: see `scigpt.evaluate.rollout.forecasts`.
            batch: forecasts that are computed at once.
            strict: refuse another time step or spacing than in training; otherwise warn.
            progress: called with the number of steps just computed.

        Raises:
            UserError: as `forecast`, before anything is computed.
        """
        ways = Ways(steps, context, members, ensemble, spread, seed, method, jitter, batch)
        if isinstance(dataset, Sequence):
            found = self._named(domain)
            samples: Sequence[Sample] | _Starts = dataset
            dim, names = "record", list(labels or (s.origin.place or str(i) for i, s in enumerate(dataset)))
        else:
            found = datasets.choose(dataset, self.domains, domain)
            given = datasets.Given.of(dataset, found, strict)
            indices = [given.index(s) for s in starts] if starts else [None]
            shown = 1 if found.layout.steady else context or found.frames - 1
            samples = _Starts(given, indices, shown, steps)
            dim, names = ("forecast_reference_time" if len(indices) > 1 else "time"), None
        if found.layout.steady and steps != 1:
            raise UserError(f"{found.name} is a steady problem, which has one solution; ask for steps=1 instead of {steps}")
        models = (self, *also)
        for each in also:
            each._same(found)
        for each in models:
            each._can(ways)
        total = len(samples) * steps * members * len(models)
        return Blocks(dim, total, found, _blocks(models, found, samples, names, dim, ways, progress or (lambda n: None)))

    def _named(self, name: str | None) -> Domain:
        if name is None and len(self.domains) == 1:
            return self.domains[0]
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise UserError(f"{self.name} has the domains {', '.join(d.name for d in self.domains)}; name one of them instead of {name}")

    def _same(self, domain: Domain) -> Domain:
        """This model's own domain of the name."""
        mine = self._named(domain.name)
        if mine.layout.variables != domain.layout.variables:
            raise UserError(
                f"{self.name} knows {domain.name} with the variables {_variables(mine)}, the first model with {_variables(domain)}"
            )
        return mine

    def _can(self, ways: Ways) -> None:
        if ways.ensemble == "head" and self.model.config.head == "point":
            raise UserError(
                f"{self.name}: its head is point, which has nothing to sample; use ensemble=perturbed, or a head that is a distribution"
            )


class _Starts(Sequence[Sample]):
    """Initial conditions from a dataset, each read when it is asked for."""

    def __init__(self, given: datasets.Given, indices: Sequence[int | None], context: int, steps: int) -> None:
        self.given, self.indices, self.context, self.steps = given, indices, context, steps

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        return self.given.sample(self.indices[i], self.context, self.steps)


def _variables(domain: Domain) -> str:
    return ", ".join(v.key for v in domain.layout.variables)


def _of_run(path: Path) -> tuple[SciGPT, tuple[Domain, ...], str]:
    from scigpt.export.weights import opened

    return opened(path)


def _blocks(
    models: Sequence[Forecaster],
    domain: Domain,
    samples: Sequence[Sample],
    labels: Sequence[str] | None,
    dim: str,
    ways: Ways,
    progress: Callable[[int], None],
) -> Iterator[xr.Dataset]:
    attributes = _attributes(models, domain, ways)
    for numbers, chunk in _chunks(samples, max(1, ways.batch // ways.members)):
        context = len(chunk[0].time) - ways.steps
        given = None if labels is None else [labels[i] for i in numbers]
        keys = given or [repr(sample.time.seconds[context - 1]) for sample in chunk]
        runs = [_members(m, m._same(domain), chunk, keys, context, ways, progress, j) for j, m in enumerate(models)]
        held: list[np.ndarray] = []
        for step, parts in enumerate(zip(*runs, strict=True)):
            held.append(np.concatenate(parts))  # (M, I, C, Z, Y, X)
            if step == ways.steps - 1 or (dim == "time" and len(held) == BLOCK_STEPS):
                values, first = np.stack(held, 2), step + 1 - len(held)
                many = None if dim == "time" else dim
                yield datasets.result(chunk, values, context=context, first=first, dim=many, labels=given, attrs=attributes)
                held = []


def _chunks(samples: Sequence[Sample], size: int) -> Iterator[tuple[list[int], list[Sample]]]:
    """Initial conditions in order, at most `size` together, those together equally long."""
    numbers: list[int] = []
    chunk: list[Sample] = []
    for i in range(len(samples)):
        sample = samples[i]
        if chunk and (len(chunk) == size or len(sample.time) != len(chunk[0].time)):
            yield numbers, chunk
            numbers, chunk = [], []
        numbers, chunk = [*numbers, i], [*chunk, sample]
    yield numbers, chunk


def _attributes(models: Sequence[Forecaster], domain: Domain, ways: Ways) -> dict[str, Any]:
    about: dict[str, Any] = {"source": f"SciGPT: {', '.join(m.name for m in models)}; domain {domain.name}", "scigpt_method": ways.method}
    if ways.ensemble != "none":
        about |= {"scigpt_ensemble": ways.ensemble, "scigpt_seed": ways.seed}
    if ways.ensemble == "perturbed":
        about["scigpt_spread"] = ways.spread
    return about


def _members(
    forecaster: Forecaster,
    domain: Domain,
    samples: Sequence[Sample],
    labels: Sequence[str],
    context: int,
    ways: Ways,
    progress: Callable[[int], None],
    number: int,
) -> Iterator[np.ndarray]:
    """One model's members `(M, I, C, Z, Y, X)`, step after step, of the predicted channels; NaN where nothing is predicted."""
    model, device = forecaster.model, next(forecaster.model.parameters()).device
    predicted = [c for c, v in enumerate(domain.layout.variables) if v.predicted]
    pairs = [(m, i) for m in range(ways.members) for i in range(len(samples))]
    parts = [pairs[start : start + ways.batch] for start in range(0, len(pairs), ways.batch)]
    window = 1 if domain.layout.steady else domain.frames - 1
    method: Method = "recompute" if domain.layout.steady else ways.method
    runs, domains = [], []
    for part in parts:
        batch = collate([samples[i] for _, i in part], domain.scales, domain.name, domain.patch)
        keys = [(ways.seed, number, labels[i], m) for m, i in part]
        if ways.ensemble == "perturbed":
            batch = _perturbed(batch, keys, context, ways.spread)
        batch = batch.to(device)
        domains.append(_there(batch, context, predicted))

        def choose(prediction: Prediction, step: int, keys: Sequence[Any] = keys) -> Tensor:
            if ways.ensemble != "head":
                return prediction.physical()[:, -1]
            return _sampled(prediction, [(*k, step) for k in keys])

        runs.append(forecasts(model, batch, context, ways.steps, window, jitter=ways.jitter, method=method, choose=choose))
    for frames in zip(*runs, strict=True):
        found = [torch.where(there, f[:, predicted], torch.nan) for f, there in zip(frames, domains, strict=True)]
        values = torch.cat([f.float().cpu() for f in found]).numpy()
        progress(len(pairs))
        yield values.reshape(ways.members, len(samples), *values.shape[1:])


def _there(batch: Batch, context: int, predicted: Sequence[int]) -> Tensor:
    """`(B, C, Z, Y, X)`: where a forecast has a meaning: points valid at some time of the context, of a diagnostic variable and of a steady
    solution, which are never given, all."""
    seen = batch.valid[:, :context, list(predicted)].any(1)
    free = [batch.layout.steady or batch.layout.variables[c].role == "diagnostic" for c in predicted]
    return seen | torch.tensor(free, device=seen.device).view(1, -1, 1, 1, 1)


def _sampled(prediction: Prediction, keys: Sequence[tuple[Any, ...]]) -> Tensor:
    """A sample of the last frame `(B, C, Z, Y, X)` in the variables' units, each window with a generator of its own."""
    whole = prediction.distribution
    found = []
    for i, key in enumerate(keys):
        one = [t[(slice(None),) * (t.ndim - 6) + (slice(i, i + 1), slice(-1, None))].float().cpu() for t in outputs(whole)]
        found.append(with_outputs(whole, one).sample(torch_generator("forecast", *key)))
    raw = torch.cat(found).to(prediction.normalized.base.device)
    normalized = replace(prediction.normalized, base=prediction.normalized.base[:, -1:], unit=prediction.normalized.unit[:, -1:])
    last = replace(prediction, normalized=normalized, distribution=cast("Distribution", Point(raw, whole.relative)))
    return last.physical()[:, 0]


def _perturbed(batch: Batch, keys: Sequence[tuple[Any, ...]], context: int, spread: float) -> Batch:
    """The states of the context moved by smooth noise, the same in all frames, of `spread` increments; member 0 stays as it is."""
    noise = torch.stack([torch.zeros_like(batch.values[0, 0]) if key[-1] == 0 else _smooth(batch, key) for key in keys])[:, None]
    size = torch.tensor([s if v.role == "state" else 0.0 for v, s in zip(batch.layout.variables, batch.scales.increment, strict=True)])
    z = batch.scales.forward(batch.values) + spread * size.view(1, 1, -1, 1, 1, 1) * noise
    early = torch.arange(batch.values.shape[1]).view(1, -1, 1, 1, 1, 1) < context
    moved = batch.valid & early & (noise != 0) & (size.view(1, 1, -1, 1, 1, 1) > 0)
    return replace(batch, values=torch.where(moved, batch.scales.inverse(z), batch.values))


def _smooth(batch: Batch, key: tuple[Any, ...]) -> Tensor:
    """`(C, Z, Y, X)`: noise of unit variance that varies from token to token and not within; of points, from point to point."""
    grid = batch.layout.grid
    coarse = tuple(math.ceil(side / p) for side, p in zip(grid, batch.patch, strict=True))
    drawn = torch.randn(1, len(batch.layout.variables), *coarse, generator=torch_generator("perturbation", *key))
    field = F.interpolate(drawn, size=grid, mode="trilinear")[0]
    return field / field.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp(min=1e-6)
