"""The study of one split: which windows are scored, and what the model and the baselines reach on them."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.loader import evaluation_batches, windows
from scigpt.data.mixture import CorpusConfig, DataConfig, Item, Window, starts_of
from scigpt.data.normalize import Scales
from scigpt.data.patching import choose_patch, token_count
from scigpt.data.sample import Sample
from scigpt.errors import UserError
from scigpt.evaluate.baselines import baselines_for
from scigpt.evaluate.metrics import Scores, score, scored, survival, vrmse_by_frame
from scigpt.evaluate.rollout import Model, rollout

MODEL = "model"
TOKENS_PER_BATCH = 16384
VALUES_PER_BATCH = 1 << 22
RANGES = ((1, 10), (11, 30))
"""Lead times that papers average over."""


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
    """A corpus as a run sees it: how its windows are cut, frames of a window, preferred patch size in points."""

    corpus: Corpus
    config: CorpusConfig
    frames: int
    patch: int
    scales: Scales

    @classmethod
    def of(cls, corpus: Corpus, config: CorpusConfig, data: DataConfig) -> Subject:
        """As the mixture `data` would train on it.

        Raises:
            UserError: a corpus without training statistics.
        """
        stats = corpus.stats.to_json()
        if not stats["samples"]:
            raise UserError(
                f"{corpus.path}: has no training split, so there are no statistics to normalise it by; make it with a train split"
            )
        frames = data.frames if config.frames is None else config.frames
        patch = data.patch if config.patch is None else config.patch
        return cls(corpus, config, frames, patch, Scales.from_stats(corpus.layout, stats))


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be scored on a split: one-step windows of `frames`; rollouts over `steps` after `context` frames (0 for none)."""

    subject: Subject
    split: str
    frames: int
    context: int
    steps: int
    options: Options


@dataclass(frozen=True, slots=True)
class Example:
    """A window to look at: the true frames, and predictions `(F, C, Z, Y, X)` of its last F frames."""

    sample: Sample
    prediction: np.ndarray


@dataclass(frozen=True, slots=True)
class Study:
    """Numbers of a split (JSON but for non-finite floats) and the first window of each kind, chosen before any score is known."""

    numbers: dict[str, Any]
    one_step: Example
    rollout: Example | None


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
    rolls = not steady and options.rollouts > 0 and steps > 1
    return Plan(subject, split, frames, context, steps if rolls else 0, options)


@torch.no_grad()
def study(model: Model, work: Plan, device: torch.device | str = "cpu", progress: bool = False) -> Study:
    """Score the model and every baseline on the windows of a plan.

    Returns:
        Numbers in the schema of `scigpt.evaluate.evaluate`: NaN where undefined, infinite where a forecast is not finite.
    """
    about = work.subject.corpus.manifest["splits"][work.split]
    one_step, windows, example = _one_step(model, work, device, progress)
    numbers: dict[str, Any] = {
        "split": work.split,
        "distribution": about["distribution"],
        "description": about["description"],
        "records": about["samples"],
        "windows": windows,
        "frames": work.frames,
        "one_step": one_step,
        "summary": _summary(one_step),
        "rollout": None,
    }
    forecast = None
    if work.steps:
        numbers["rollout"], forecast = _rollouts(model, work, device, progress)
    return Study(numbers, example, forecast)


def _one_step(model: Model, work: Plan, device: torch.device | str, progress: bool) -> tuple[dict[str, Any], int, Example]:
    found: dict[str, dict[str, list[Scores]]] = defaultdict(lambda: defaultdict(list))
    items, batches = _windows(work, work.frames, work.options.windows, device, progress, "one step")
    example = None
    for batch in batches:
        prediction = model(batch).physical()
        example = example or _example(work, work.frames, items[0], prediction)
        for c, variable in _predicted(batch):
            part = _only(batch, c)
            mask, truth = scored(part), part.values[:, 1:]
            forecasts = {MODEL: prediction[:, :, c : c + 1]} | {n: b.one_step(part) for n, b in baselines_for(part).items()}
            for name, forecast in forecasts.items():
                found[variable][name].append(score(forecast, truth, mask, part.weight))
    assert example is not None
    units = {v.key: v.unit for v in work.subject.corpus.layout.variables}
    table = {}
    for variable, methods in found.items():
        columns = {
            name: {what: _gather([getattr(s, what) for s in scores]) for what in ("vrmse", "nrmse", "rmse")}
            for name, scores in methods.items()
        }
        table[variable] = {
            "unit": units[variable],
            "windows": int(np.isfinite(columns[MODEL]["vrmse"]).sum() + np.isinf(columns[MODEL]["vrmse"]).sum()),
            "methods": {
                name: {
                    "vrmse": _mean(column["vrmse"]),
                    "vrmse_median": _median(column["vrmse"]),
                    "nrmse": _mean(column["nrmse"]),
                    "rmse": _mean(column["rmse"]),
                    "diverged": int(np.isinf(column["rmse"]).sum()),
                }
                for name, column in columns.items()
            },
        }
    return table, len(items), example


def _rollouts(model: Model, work: Plan, device: torch.device | str, progress: bool) -> tuple[dict[str, Any], Example]:
    context, steps = work.context, work.steps
    items, batches = _windows(work, context + steps, work.options.rollouts, device, progress, "rollout")
    found: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    leads, example = [], None
    for batch in batches:
        prediction = rollout(model, batch, context, steps, work.frames - 1)
        example = example or _example(work, context + steps, items[0], prediction)
        leads.append((batch.seconds[:, context:] - batch.seconds[:, context - 1 : context]).cpu())
        for c, variable in _predicted(batch):
            part = _only(batch, c)
            truth, mask = part.values[:, context:], part.valid[:, context:]
            forecasts = {MODEL: prediction[:, :, c : c + 1]} | {n: b.rollout(part, context) for n, b in baselines_for(part).items()}
            for name, forecast in forecasts.items():
                found[variable][name].append(vrmse_by_frame(forecast, truth, mask, part.weight).cpu())
    assert example is not None
    table = {variable: {name: _curve(torch.cat(curves)) for name, curves in methods.items()} for variable, methods in found.items()}
    return {
        "windows": len(items),
        "context": context,
        "steps": steps,
        "lead_times": torch.cat(leads).mean(0).tolist(),
        "lead_unit": "1" if example.sample.time.calendar == "none" else "s",
        "variables": table,
    }, example


def _curve(curve: Tensor) -> dict[str, Any]:
    """Of `(windows, F, 1)`: the mean at each lead, averages over ranges of leads, and the steps until VRMSE exceeds 1."""
    steps = curve.shape[1]
    values = curve[..., 0].numpy()
    lasting = survival(curve)[:, 0].numpy()
    ranges = [(low, min(high, steps)) for low, high in RANGES if low <= steps]
    return {
        "vrmse": [_mean(column) for column in values.T],
        "ranges": {f"{low}-{high}": _mean(values[:, low - 1 : high]) for low, high in ranges},
        "survival": _median(lasting),
    }


def _summary(table: Mapping[str, Any]) -> dict[str, Any]:
    """VRMSE of each method, the mean over the variables for which it is defined, and who is best."""
    methods = list(next(iter(table.values()))["methods"]) if table else [MODEL]
    means = {m: _mean(np.array([row["methods"][m]["vrmse"] for row in table.values()])) for m in methods}
    baselines = {m: v for m, v in means.items() if m != MODEL and math.isfinite(v)}
    best = min(baselines, key=lambda m: baselines[m]) if baselines else None
    ratio = means[MODEL] / means[best] if best is not None and means[best] > 0 else math.nan
    # a perfect baseline cannot be divided by, and cannot be beaten
    wins = best is not None and means[MODEL] < means[best]
    return {"vrmse": means, "best_baseline": best, "ratio": ratio, "model_wins": wins}


def _windows(
    work: Plan, frames: int, limit: int, device: torch.device | str, progress: bool, label: str
) -> tuple[list[Item], Iterator[Batch]]:
    """The windows of a split and their batches, of a size that fits into a few hundred megabytes."""
    subject, corpus = work.subject, work.subject.corpus
    items = windows(corpus, subject.config, frames, work.split, limit)
    crop = Window.of(corpus, subject.config, frames).crop
    grid = corpus.layout.grid if crop is None else (corpus.layout.grid[0], *crop)
    tokens = frames * token_count(grid, choose_patch(grid, subject.patch, corpus.layout.geometry))
    size = max(1, min(TOKENS_PER_BATCH // tokens, VALUES_PER_BATCH // (frames * len(corpus.layout.variables) * math.prod(grid))))

    def batches() -> Iterator[Batch]:
        title = f"{corpus.name}/{work.split} {label}"
        quiet = 0.5 if sys.stderr.isatty() else 10  # a log file needs fewer lines than a terminal
        with tqdm(total=len(items), desc=title, unit="window", file=sys.stderr, mininterval=quiet, disable=not progress) as bar:
            for batch in evaluation_batches(corpus, subject.scales, subject.config, frames, work.split, size, limit, subject.patch):
                yield batch.to(device)
                bar.update(len(batch))

    return items, batches()


def _example(work: Plan, frames: int, item: Item, prediction: Tensor) -> Example:
    corpus = work.subject.corpus
    sample = corpus.read(work.split, item.entry, *Window.of(corpus, work.subject.config, frames).slices(item))
    return Example(sample, prediction[0].float().cpu().numpy())


def _predicted(batch: Batch) -> list[tuple[int, str]]:
    return [(c, v.key) for c, v in enumerate(batch.layout.variables) if v.predicted]


def _only(batch: Batch, c: int) -> Batch:
    """The batch with one variable: what baselines hold in memory is then one channel."""
    s = batch.scales
    scales = replace(
        s, transform=s.transform[c : c + 1], center=s.center[c : c + 1], scale=s.scale[c : c + 1], increment=s.increment[c : c + 1]
    )
    layout = replace(batch.layout, variables=batch.layout.variables[c : c + 1])
    return replace(batch, values=batch.values[:, :, c : c + 1], valid=batch.valid[:, :, c : c + 1], layout=layout, scales=scales)


def _gather(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([p[:, 0].cpu() for p in parts]).numpy()


def _mean(values: np.ndarray) -> float:
    """Mean over what is defined; NaN where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _median(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if defined.size else math.nan
