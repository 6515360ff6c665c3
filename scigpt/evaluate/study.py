"""The study of one split: what the model and everything beside it reach on its windows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.mixture import Item, Window
from scigpt.data.reconstruction import seen_as
from scigpt.data.sample import Sample, Time
from scigpt.data.tasks import Asked
from scigpt.evaluate.answers import Answers
from scigpt.evaluate.baselines import baselines_for, filled_in
from scigpt.evaluate.breakdown import ranges, regions
from scigpt.evaluate.climatology import Climatology
from scigpt.evaluate.conservation import Drift, drift
from scigpt.evaluate.further import Images, PickTally, Uncertainty
from scigpt.evaluate.intervals import paired
from scigpt.evaluate.metrics import Scores, score, scored, survival, vrmse_by_frame
from scigpt.evaluate.plan import Options, Plan, Subject, plan, scored_windows
from scigpt.evaluate.rollout import Model, rollout
from scigpt.evaluate.spectra import BANDS, Accumulator, Spectral
from scigpt.model.backbone import Prediction

__all__ = ["CLIMATOLOGY", "MODEL", "Beside", "Example", "Options", "Plan", "Study", "Subject", "plan", "study"]

MODEL, CLIMATOLOGY = "model", "climatology"
RANGES = ((1, 10), (11, 30))
"""Lead times that papers average over."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the model and the baselines that need nothing: other models by name, and a climatology where there is one."""

    models: Mapping[str, Model] = field(default_factory=dict)
    climatology: Climatology | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A window to look at: the true frames, and predictions `(F, C, Z, Y, X)` of its last F frames."""

    sample: Sample
    prediction: np.ndarray


@dataclass(frozen=True, slots=True)
class Study:
    """Numbers of a split (JSON but for non-finite floats) and the first window of each kind, chosen before any score is known; None where
    no field is predicted."""

    numbers: dict[str, Any]
    one_step: Example | None
    rollout: Example | None


Table = dict[str, dict[str, np.ndarray]]
"""A number for each window, by variable and method."""


@torch.no_grad()
def study(model: Model, work: Plan, device: torch.device | str = "cpu", progress: bool = False, beside: Beside | None = None) -> Study:
    """Score the model and everything beside it on the windows of a plan.

    Returns:
        Numbers in the schema of `scigpt.evaluate.evaluate`: NaN where undefined, infinite where a forecast is not finite.
    """
    beside = beside or Beside()
    models = {MODEL: model, **beside.models}
    if isinstance(work.subject.task, Asked):
        return _answered(model, work, work.subject.task, device, progress)
    first, records = _OneStep(work), []
    items, batches = scored_windows(work, work.frames, work.options.windows, device, progress, "one step")
    for chunk, batch in batches:
        forecasts = {name: each(batch) for name, each in models.items()}
        predictions = {name: forecast.physical() for name, forecast in forecasts.items()}
        first.uncertainty.add(batch, forecasts[MODEL])
        first.picks.add(batch, forecasts[MODEL])
        first.add(batch, predictions, _climatology(beside, work, batch, chunk, work.frames))
        records += [item.entry for item in chunk for _ in range(len(batch) // len(chunk))]
        if first.example is None:
            first.example = _example(work, work.frames, chunk[0], predictions[MODEL], batch)
    assert first.example is not None
    numbers: dict[str, Any] = {
        **_about(work, len(items)),
        **first.numbers(records),
        "rollout": None,
        "answers": None,
    }
    if not work.steps:
        return Study(numbers, first.example, None)
    later = _Rollouts(work)
    items, batches = scored_windows(work, work.context + work.steps, work.options.rollouts, device, progress, "rollout")
    for chunk, batch in batches:
        predictions = {n: rollout(each, batch, work.context, work.steps, work.frames - 1, jitter=True) for n, each in models.items()}
        later.add(batch, predictions, _climatology(beside, work, batch, chunk, work.context + work.steps))
        if later.example is None:
            later.example = _example(work, work.context + work.steps, chunk[0], predictions[MODEL], batch)
    assert later.example is not None
    numbers["rollout"] = later.numbers([item.entry for item in items], later.example.sample.time.calendar)
    return Study(numbers, first.example, later.example)


def _answered(model: Model, work: Plan, task: Asked, device: torch.device | str, progress: bool) -> Study:
    """Of a head that says one thing of a whole window."""
    answers = Answers(task)
    items, batches = scored_windows(work, work.frames, work.options.windows, device, progress, "answers")
    for _, batch in batches:
        answers.add(batch, cast("Prediction", model(batch)))
    errors = answers.errors()
    numbers = {
        **_about(work, len(items)),
        "one_step": {},
        "summary": summarise(errors, [item.entry for item in items], work, "answers"),
        "regions": {},
        "coefficients": {},
        "spectra": None,
        "rollout": None,
        "answers": answers.numbers(),
        "images": {},
        "uncertainty": {},
        "reliability": {},
        "picks": {},
    }
    return Study(numbers, None, None)


def _about(work: Plan, windows: int) -> dict[str, Any]:
    """What a split is, and how much of it is scored."""
    about = work.subject.corpus.manifest["splits"][work.split]
    described = {"distribution": about["distribution"], "description": about["description"], "records": about["samples"]}
    return {"split": work.split, **described, "windows": windows, "frames": work.frames}


class _OneStep:
    """Collects one-step scores over batches."""

    def __init__(self, work: Plan) -> None:
        self.example: Example | None = None
        self.uncertainty, self.images, self.picks = Uncertainty(), Images(), PickTally()
        self._work = work
        self._scores: dict[str, dict[str, dict[str, list[np.ndarray]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        self._regions: dict[str, dict[str, dict[str, list[np.ndarray]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        self._coefficients: dict[str, list[float]] = defaultdict(list)
        self._spectral: Spectral | None = None
        self._spectra: dict[str, Accumulator] = {}

    def add(self, batch: Batch, predictions: Mapping[str, Tensor], climate: Tensor | None) -> None:
        self._spectral = None if _timeless(batch) else Spectral.of(batch.layout, 1)
        parts = regions(batch)
        for name in batch.coefficient_names:
            i = batch.coefficient_names.index(name)
            self._coefficients[name] += torch.where(batch.known[:, i], batch.coefficients[:, i], torch.nan).tolist()
        for c, variable in _predicted(batch):
            part = _only(batch, c)
            mask, truth = scored(part), part.target_values()
            forecasts = {n: p[:, :, c : c + 1] for n, p in predictions.items()}
            seen = seen_as(batch.layout, c)
            if seen is None:
                forecasts |= {n: b.one_step(part) for n, b in baselines_for(part).items()}
            else:
                forecasts |= filled_in(batch, c, seen)
            if climate is not None:
                own = c if seen is None else seen
                forecasts[CLIMATOLOGY] = climate[:, 1:, own : own + 1]
            self.images.add(part, forecasts)
            for name, forecast in forecasts.items():
                for f, values in _columns(score(forecast, truth, mask, part.weight)).items():
                    self._scores[variable][name][f].append(values)
                for region, inside in parts.items():
                    found = score(forecast, truth, mask & inside, part.weight).vrmse[:, 0].cpu().numpy()
                    self._regions[region][variable][name].append(found)
            if self._spectral is not None:
                _add_spectra(self._spectra.setdefault(variable, Accumulator(self._spectral)), forecasts, truth, mask, part.weight)

    def numbers(self, records: Sequence[int]) -> dict[str, Any]:
        columns = {v: {m: _joined(f) for m, f in methods.items()} for v, methods in self._scores.items()}
        units = {v.key: v.unit for v in self._work.subject.corpus.layout.variables}
        vrmse: Table = {v: {m: f["vrmse"] for m, f in methods.items()} for v, methods in columns.items()}
        summary = summarise(vrmse, records, self._work, "one step")
        return {
            "one_step": {
                variable: {
                    "unit": units[variable],
                    "windows": int((~np.isnan(methods[MODEL]["vrmse"])).sum()),
                    "methods": {
                        name: {
                            **{what: _mean(values) for what, values in scores.items()},
                            "vrmse_median": _median(scores["vrmse"]),
                            "diverged": int(np.isinf(scores["rmse"]).sum()),
                        }
                        for name, scores in methods.items()
                    },
                }
                for variable, methods in columns.items()
            },
            "summary": summary,
            "regions": {region: _group(_joined_table(table)) for region, table in self._regions.items()},
            "coefficients": self._by_coefficient(vrmse),
            "spectra": _spectra(self._spectral, self._spectra),
            **self.uncertainty.numbers(),
            **self.images.numbers(),
            **self.picks.numbers(),
        }

    def _by_coefficient(self, vrmse: Table) -> dict[str, Any]:
        found = {}
        for name, values in self._coefficients.items():
            bins = ranges(np.array(values))
            if bins:
                found[name] = {
                    label: _group({v: {m: s[mask] for m, s in methods.items()} for v, methods in vrmse.items()})
                    for label, mask in bins.items()
                }
        return found


class _Rollouts:
    """Collects the scores of free-running forecasts over batches."""

    def __init__(self, work: Plan) -> None:
        self.example: Example | None = None
        self._work = work
        self._curves: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self._drifts: dict[str, dict[str, list[Drift]]] = defaultdict(lambda: defaultdict(list))
        self._leads: list[Tensor] = []
        self._spectral: Spectral | None = None
        self._spectra: dict[str, dict[str, Accumulator]] = defaultdict(dict)

    def add(self, batch: Batch, predictions: Mapping[str, Tensor], climate: Tensor | None) -> None:
        context = self._work.context
        self._leads.append((batch.seconds[:, context:] - batch.seconds[:, context - 1 : context]).cpu())
        self._spectral = Spectral.of(batch.layout, self._work.steps)
        for c, variable in _predicted(batch):
            part = _only(batch, c)
            truth, mask = part.values[:, context:], part.valid[:, context:]
            forecasts = {n: p[:, :, c : c + 1] for n, p in predictions.items()}
            models = dict(forecasts)
            forecasts |= {n: b.rollout(part, context) for n, b in baselines_for(part).items()}
            if climate is not None:
                forecasts[CLIMATOLOGY] = climate[:, context:, c : c + 1]
            for name, forecast in forecasts.items():
                self._curves[variable][name].append(vrmse_by_frame(forecast, truth, mask, part.weight).cpu())
            if batch.layout.variables[c].role == "state" and not _timeless(batch):
                given = part.values[:, context - 1 : context, 0], part.valid[:, context - 1 : context, 0]
                for name, field_ in {"truth": truth, **models}.items():
                    found = drift(given[0], field_[:, :, 0], given[1], mask[:, :, 0], part.weight[:, 0])
                    self._drifts[variable][name].append(found)
            if self._spectral is not None:
                for span, frames in self._spans().items():
                    cut = {n: f[:, frames] for n, f in forecasts.items()}
                    into = self._spectra[span].setdefault(variable, Accumulator(self._spectral))
                    _add_spectra(into, cut, truth[:, frames], mask[:, frames], part.weight)

    def numbers(self, records: Sequence[int], calendar: str) -> dict[str, Any]:
        work = self._work
        curves = {v: {m: torch.cat(c)[..., 0] for m, c in methods.items()} for v, methods in self._curves.items()}
        summaries = {}
        for low, high in _ranges(work.steps):
            means = {v: {m: _row_mean(c[:, low - 1 : high].numpy()) for m, c in methods.items()} for v, methods in curves.items()}
            summaries[f"{low}-{high}"] = summarise(means, records, work, f"leads {low}-{high}")
        return {
            "windows": len(records),
            "context": work.context,
            "steps": work.steps,
            "lead_times": torch.cat(self._leads).mean(0).tolist(),
            "lead_unit": "1" if calendar == "none" else "s",
            "variables": {v: {m: _curve(c) for m, c in methods.items()} for v, methods in curves.items()},
            "summary": summaries,
            "drift": {v: {m: _drifts(parts) for m, parts in methods.items()} for v, methods in self._drifts.items()},
            "spectra": {span: _spectra(self._spectral, accumulators) for span, accumulators in self._spectra.items()},
        }

    def _spans(self) -> dict[str, slice]:
        """Leads whose spectra are taken together; a spectrum along time needs them all."""
        if self._spectral is not None and self._spectral.kind == "temporal":
            return {f"1-{self._work.steps}": slice(None)}
        return {f"{low}-{high}": slice(low - 1, high) for low, high in _ranges(self._work.steps)}


def summarise(table: Table, records: Sequence[int], work: Plan, label: str) -> dict[str, Any]:
    """VRMSE of each method, the mean over the variables for which it is defined, who is best, and whether that is more than chance.

    The best baseline is chosen by the same windows, which favours it: the verdict on the model is on the safe side.
    """
    methods = list(next(iter(table.values()))) if table else [MODEL]
    means = {m: _mean(np.array([_mean(row[m]) for row in table.values()])) for m in methods}
    baselines = {m: v for m, v in means.items() if m != MODEL and math.isfinite(v)}
    best = min(baselines, key=lambda m: baselines[m]) if baselines else None
    if best is None:
        return {"vrmse": means, "best_baseline": None, "ratio": math.nan, "difference": None, "verdict": "undefined"}
    # a perfect baseline cannot be divided by
    ratio = means[MODEL] / means[best] if means[best] > 0 else math.nan
    ours, theirs = (np.stack([row[m] for row in table.values()], 1) for m in (MODEL, best))
    found = paired(ours, theirs, np.asarray(records), work.subject.corpus.name, work.split, label)
    difference = {"mean": found.mean, "low": found.low, "high": found.high, "trajectories": found.trajectories}
    return {"vrmse": means, "best_baseline": best, "ratio": ratio, "difference": difference, "verdict": found.verdict}


def _timeless(batch: Batch) -> bool:
    """Single points and stations have no field in space."""
    return batch.layout.geometry == "points" or math.prod(batch.layout.grid) == 1


def _ranges(steps: int) -> list[tuple[int, int]]:
    return [(low, min(high, steps)) for low, high in RANGES if low <= steps]


def _climatology(beside: Beside, work: Plan, batch: Batch, items: Sequence[Item], frames: int) -> Tensor | None:
    if beside.climatology is None:
        return None
    return beside.climatology.at(batch, items, Window.of(work.subject.corpus, work.subject.config, frames))


def _columns(scores: Scores) -> dict[str, np.ndarray]:
    """Of one variable: each number of each window."""
    return {f.name: getattr(scores, f.name)[:, 0].cpu().numpy() for f in fields(scores)}


def _joined(parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(values) for name, values in parts.items()}


def _joined_table(table: Mapping[str, Mapping[str, Sequence[np.ndarray]]]) -> Table:
    return {variable: _joined(methods) for variable, methods in table.items()}


def _group(table: Table) -> dict[str, Any]:
    """Some windows or points: how many windows have a score, and VRMSE of each method, the mean over variables."""
    rows = list(table.values())
    defined = np.stack([~np.isnan(row[MODEL]) for row in rows]).any(0)
    return {"windows": int(defined.sum()), "vrmse": {m: _mean(np.array([_mean(row[m]) for row in rows])) for m in rows[0]}}


def _add_spectra(into: Accumulator, forecasts: Mapping[str, Tensor], truth: Tensor, mask: Tensor, weight: Tensor) -> None:
    into.add({n: f[:, :, 0] for n, f in forecasts.items()}, truth[:, :, 0], mask[:, :, 0], weight[:, 0])


def _spectra(spectral: Spectral | None, accumulators: Mapping[str, Accumulator]) -> dict[str, Any] | None:
    found = {v: result for v, a in accumulators.items() if (result := a.result((MODEL,))) is not None}
    if spectral is None or not found:
        return None
    edges = spectral.edges()
    return {
        "kind": spectral.kind,
        "bands": {name: [edges[i], edges[i + 1]] for i, name in enumerate(BANDS)},
        "variables": found,
    }


def _drifts(parts: Sequence[Drift]) -> dict[str, list[float]]:
    """The mean over rollouts of the size of the drift at each lead."""
    joined = {f.name: torch.cat([getattr(p, f.name) for p in parts]).abs().cpu().numpy() for f in fields(Drift)}
    return {name: [_mean(column) for column in values.T] for name, values in joined.items()}


def _curve(curve: Tensor) -> dict[str, Any]:
    """Of `(windows, F)`: the mean at each lead, averages over ranges of leads, and the steps until VRMSE exceeds 1."""
    values = curve.numpy()
    return {
        "vrmse": [_mean(column) for column in values.T],
        "ranges": {f"{low}-{high}": _mean(values[:, low - 1 : high]) for low, high in _ranges(curve.shape[1])},
        "survival": _median(survival(curve[..., None])[:, 0].numpy()),
    }


def _example(work: Plan, frames: int, item: Item, prediction: Tensor, batch: Batch) -> Example:
    corpus = work.subject.corpus
    sample = corpus.read(work.split, item.entry, *Window.of(corpus, work.subject.config, frames).slices(item))
    kept = slice(None) if work.subject.task is None else _told_once(batch)
    if work.subject.task is not None:
        sample = _as_viewed(sample, batch)
    return Example(sample, prediction[0][:, kept].float().cpu().numpy())


def _as_viewed(sample: Sample, batch: Batch) -> Sample:
    """The first window of a batch as a task shows it: what the model is given, then what is to be predicted."""
    layout, kept = batch.layout, _told_once(batch)
    same = sample.layout.grid == layout.grid and sample.geometry == layout.geometry
    return replace(
        sample,
        values=torch.cat([batch.values[0, :1], batch.target_values()[0]])[:, kept].cpu().numpy(),
        valid=batch.valid[0][:, kept].cpu().numpy(),
        variables=tuple(layout.variables[c] for c in kept),
        time=Time(batch.seconds[0].cpu().numpy(), batch.calendar),
        geometry=layout.geometry,
        coordinates=sample.coordinates if same else {},
        steady=layout.steady,
    )


def _told_once(batch: Batch) -> list[int]:
    """All channels, without those that show the other places of one that is asked for."""
    layout = batch.layout
    return [c for c, v in enumerate(layout.variables) if v.predicted or seen_as(layout, c) is None]


def _predicted(batch: Batch) -> list[tuple[int, str]]:
    return [(c, v.key) for c, v in enumerate(batch.layout.variables) if v.predicted]


def _only(batch: Batch, c: int) -> Batch:
    """The batch with one variable: what baselines hold in memory is then one channel."""
    s = batch.scales
    scales = replace(
        s, transform=s.transform[c : c + 1], center=s.center[c : c + 1], scale=s.scale[c : c + 1], increment=s.increment[c : c + 1]
    )
    layout = replace(batch.layout, variables=batch.layout.variables[c : c + 1])
    truth = None if batch.truth is None else batch.truth[:, :, c : c + 1]
    return replace(
        batch, values=batch.values[:, :, c : c + 1], valid=batch.valid[:, :, c : c + 1], truth=truth, layout=layout, scales=scales
    )


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each row over what is defined."""
    return np.array([_mean(row) for row in values])


def _mean(values: np.ndarray) -> float:
    """Mean over what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _median(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else math.nan
