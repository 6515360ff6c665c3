"""`scigpt bench rollout`: what the key-value cache saves in a free-running forecast, and what it costs in accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.metrics import vrmse_by_frame
from scigpt.evaluate.plan import Options, Subject, plan, scored_windows
from scigpt.evaluate.rollout import Method, rollout
from scigpt.launch.bench_model import synthetic_batch
from scigpt.launch.output import table
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary

WAYS: Mapping[str, tuple[Method, bool]] = {
    "recompute, jitter": ("recompute", True),
    "recompute": ("recompute", False),
    "cache, jitter": ("cache", True),
    "cache": ("cache", False),
    "sliding": ("sliding", False),
}
"""Method, and whether the field is moved by parts of a patch; see `scigpt.evaluate.rollout.forecasts`."""


def speed(
    config: ModelConfig, context: int, steps: int, window: int, side: int, patch: int, batch: int, threads: int, rounds: int
) -> dict[str, Any]:
    """CPU time of forecasts of random maps of `side` x `side` points; the methods take turns in every round."""
    torch.set_num_threads(threads)
    data = synthetic_batch(batch, context + steps, side, patch)
    model = SciGPT(config, Vocabulary({v.name: v.unit for v in data.layout.variables}, {})).eval()
    ways = {name: way for name, way in WAYS.items() if not way[1]}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for part in range(rounds + 1):
        for name, (method, jitter) in ways.items():
            begun = time.process_time()
            rollout(model, data, context, steps if part else 2, window, jitter, method)
            if part:  # the first time warms up
                seconds[name].append(time.process_time() - begun)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": model.width,
        "depth": len(model.blocks),
        "tokens_per_frame": model.tokens(data) // (batch * (context + steps - 1)),
        "batch": batch,
        "context": context,
        "steps": steps,
        "window": window,
        "reach": config.reach,
        "threads": threads,
        "cpu_seconds": {name: statistics.median(found) for name, found in seconds.items()},
        "times_faster": {
            name: statistics.median(a / b for a, b in zip(seconds["recompute"], found, strict=True)) for name, found in seconds.items()
        },
    }


def accuracy(run: Path, corpus: str | None, split: str, records: int, steps: int) -> dict[str, Any]:
    """CPU time and errors of a trained model's forecasts of held-out records, by method.

    Raises:
        UserError: no run, no such corpus or split, records too short to be forecast.
    """
    trained = TrainedRun.open(run)
    subject = _subject(trained, corpus)
    work = plan(subject, split, Options(rollouts=records, steps=steps))
    if not work.steps:
        raise UserError(f"{subject.corpus.path}: nothing can be forecast in the split {split}: it is steady, or its records are too short")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, window = trained.model.to(device), subject.frames - 1
    errors: dict[str, list[torch.Tensor]] = {name: [] for name in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    _, batches = scored_windows(work, work.context + work.steps, records, device, True, "rollouts")
    for _, batch in batches:
        for name, (method, jitter) in WAYS.items():
            begun = time.process_time()
            found = rollout(model, batch, work.context, work.steps, window, jitter, method)
            seconds[name] += time.process_time() - begun
            errors[name].append(_errors(batch, found, work.context))
    curves = {name: torch.cat(found).nanmean((0, 2)).tolist() for name, found in errors.items()}
    return {
        "run": str(run),
        "corpus": subject.corpus.name,
        "split": split,
        "records": len(torch.cat(errors["cache"])),
        "context": work.context,
        "steps": work.steps,
        "window": window,
        "reach": model.config.reach,
        "cpu_seconds": seconds,
        "times_faster": {name: seconds["recompute"] / s for name, s in seconds.items()},
        "vrmse": curves,
        "vrmse_mean": {name: statistics.fmean(curve) for name, curve in curves.items()},
    }


def _subject(trained: TrainedRun, corpus: str | None) -> Subject:
    from scigpt.data.corpus import Corpus

    opened = {c.name: (c, s) for s in trained.config.data.corpora for c in [Corpus.open(s.path)]}
    name = corpus if corpus is not None else next(iter(opened))
    if name not in opened:
        raise UserError(f"--corpus {name}: {trained.path} was trained on {', '.join(opened)}; name one of these")
    return Subject.of(*opened[name], trained.config.data, trained.config.task, trained.config.seed)


def _errors(batch: Batch, found: torch.Tensor, context: int) -> torch.Tensor:
    """VRMSE `(B, S, C)`, NaN of variables that are not predicted."""
    later = batch.frames(slice(context, context + found.shape[1]))
    predicted = torch.tensor([v.predicted for v in batch.layout.variables], device=found.device).view(1, 1, -1, 1, 1, 1)
    return vrmse_by_frame(found, later.values, later.valid & predicted, later.weight)


def describe(result: dict[str, Any]) -> str:
    """The result for a person."""
    rows = [
        [
            name,
            f"{seconds:.2f}",
            f"{result['times_faster'][name]:.2f}",
            *(f"{v:.4f}" for v in [result.get("vrmse_mean", {}).get(name)] if v),
        ]
        for name, seconds in result["cpu_seconds"].items()
    ]
    what = f"{result['records']} records of {result['corpus']}/{result['split']}" if "run" in result else (
        f"{result['parameters'] / 1e6:.2f}M parameters, {result['tokens_per_frame']} tokens a frame, batch {result['batch']}"
    )  # fmt: skip
    head = f"{what}: {result['steps']} steps after {result['context']} frames, window {result['window']}, reach {result['reach']}"
    return head + "\n" + table(("method", "CPU s", "times faster", *(["mean VRMSE"] if "run" in result else [])), rows)
