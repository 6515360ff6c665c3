"""Scores of heads that say one thing of a whole window: coefficients with their uncertainty, or classes.

Of coefficients, over all windows of a split, in their own units: `rmse`; `vrmse`, the RMSE over the standard deviation of the truth in
the split; `mae`; and of the 90 % interval the share of windows whose truth lies within (`coverage_90`) and its mean width over the
standard deviation of the truth (`width_90`). The baseline is the training mean. Of classes: `accuracy` and, of a class, `precision`,
`recall` and `f1`; the baseline is the most frequent class of the split, which favours it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.tasks import Asked
from scigpt.model.backbone import Prediction

MEAN, FREQUENT = "mean", "most frequent"
INTERVAL = (0.05, 0.95)


class Answers:
    """Collects what was said and what was true over batches."""

    def __init__(self, task: Asked) -> None:
        self.task = task
        self._said: list[np.ndarray] = []
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._true: list[np.ndarray] = []

    def add(self, batch: Batch, prediction: Prediction) -> None:
        assert batch.answers is not None
        self._true.append(batch.answers.double().cpu().numpy())
        self._said.append(_flat(prediction.distribution.mean))
        if not self.task.values:
            low, high = (_flat(prediction.distribution.quantile(level)) for level in INTERVAL)
            self._low.append(low)
            self._high.append(high)

    def numbers(self) -> dict[str, Any]:
        """`{name: {method: {score: value}}}`, and the pairs that a picture shows under `points`."""
        true, said = np.concatenate(self._true), np.concatenate(self._said)
        return self._classes(true[:, 0], said) if self.task.values else self._coefficients(true, said)

    def errors(self) -> dict[str, dict[str, np.ndarray]]:
        """A number for each window by name and method, 0 for what is right: the error over the standard deviation of the truth, or whether
        the class is wrong."""
        true, said = np.concatenate(self._true), np.concatenate(self._said)
        if self.task.values:
            known = true[:, 0]
            usual = _most_frequent(known)
            wrong = {"model": said.argmax(1) != known, FREQUENT: usual != known}
            return {self.task.names[0]: {m: np.where(np.isnan(known), np.nan, w.astype(float)) for m, w in wrong.items()}}
        found = {}
        for k, name in enumerate(self.task.names):
            size = np.nanstd(true[:, k]) or math.nan
            found[name] = {"model": np.abs(said[:, k] - true[:, k]) / size, MEAN: np.abs(true[:, k]) / size}
        return found

    def _coefficients(self, true: np.ndarray, said: np.ndarray) -> dict[str, Any]:
        low, high = np.concatenate(self._low), np.concatenate(self._high)
        found: dict[str, Any] = {}
        points: dict[str, Any] = {}
        for k, name in enumerate(self.task.names):
            there = ~np.isnan(true[:, k])
            unit, center, t = self.task.spread[k], self.task.center[k], true[there, k]
            size = t.std() if t.size else math.nan
            inside = (low[there, k] <= t) & (t <= high[there, k])
            width = (high - low)[there, k].mean() / size if size else math.nan
            own = _regression(said[there, k], t, unit, size) | {"coverage_90": float(inside.mean()), "width_90": float(width)}
            found[name] = {"model": own, MEAN: _regression(np.zeros_like(t), t, unit, size)}
            points[name] = {"true": (t * unit + center).tolist(), "predicted": (said[there, k] * unit + center).tolist()}
        return {"kind": "coefficients", "scores": found, "points": points}

    def _classes(self, true: np.ndarray, said: np.ndarray) -> dict[str, Any]:
        there = ~np.isnan(true)
        t, p = true[there].astype(int), said[there].argmax(1)
        confusion = np.zeros((len(self.task.values),) * 2, int)
        np.add.at(confusion, (t, p), 1)
        name = self.task.names[0]
        usual = _most_frequent(true)
        found: dict[str, Any] = {name: {"model": {"accuracy": float((p == t).mean())}, FREQUENT: {"accuracy": float((t == usual).mean())}}}
        for k, value in enumerate(self.task.values):
            hit = confusion[k, k]
            precision, recall = (hit / total if total else math.nan for total in (confusion[:, k].sum(), confusion[k].sum()))
            f1 = 2 * hit / total if (total := confusion[:, k].sum() + confusion[k].sum()) else math.nan
            found[f"{name}={value:g}"] = {"model": {"precision": float(precision), "recall": float(recall), "f1": float(f1)}}
        return {"kind": "classes", "scores": found, "confusion": confusion.tolist(), "values": list(self.task.values)}


def _regression(said: np.ndarray, true: np.ndarray, unit: float, size: float) -> dict[str, float]:
    rmse = float(np.sqrt(np.mean((said - true) ** 2))) if true.size else math.nan
    mae = float(np.abs(said - true).mean()) if true.size else math.nan
    return {"vrmse": rmse / size if size else math.nan, "rmse": rmse * unit, "mae": mae * unit}


def _most_frequent(true: np.ndarray) -> int:
    known = true[~np.isnan(true)].astype(int)
    return int(np.bincount(known).argmax()) if known.size else 0


def _flat(values: Tensor) -> np.ndarray:
    return values.flatten(1).double().cpu().numpy()
