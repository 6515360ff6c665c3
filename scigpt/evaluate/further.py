"""What is scored of a split besides the errors of its fields: uncertainty, super-resolution as images, picks of labelled arrivals.

Each collector takes in batches and gives `{variable: {method: {score: number}}}`, means over windows of what is defined:

    uncertainty  of heads with a distribution: crps, spread, skill and spread_skill (their ratio), coverage_50 and coverage_90 (of central
                 intervals), all in the variable's unit or shares; `reliability` has the observed share at or below each quantile
    images       of super-resolution: psnr (dB), ssim, rfne
    picks        of labels on lines, for each tolerance: precision, recall, f1, bias and mae (samples), within (share of the traces whose
                 arrivals are all met)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.keyed import torch_generator
from scigpt.evaluate import images, picking, probabilistic
from scigpt.evaluate.metrics import scored
from scigpt.model.backbone import Prediction
from scigpt.model.heads import Ensemble, Labels, Point

DRAWS = 16
"""Samples of a distribution that spread and skill are taken of, where it has no members."""
COVERAGES = (0.5, 0.9)
LEVELS = tuple(k / 10 for k in range(1, 10))
TOLERANCES = (2, 10)
"""Samples; the second is the tenth of a second at 100 Hz that papers on pickers use."""
THRESHOLD = 0.3
DISTANCE = 50
"""Samples between two picks of one phase."""


class _InUnits:
    """A distribution in the variables' units."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def quantile(self, level: float) -> Tensor:
        return self.prediction.physical(self.prediction.distribution.quantile(level))

    def members(self, seed: str) -> Tensor:
        found = self.prediction.distribution
        if isinstance(found, Ensemble):
            return torch.stack([self.prediction.physical(m) for m in found.members])
        generator = torch_generator(0, "draws", seed)
        device = found.mean.device
        if device.type != "cpu":
            generator = torch.Generator(device).manual_seed(generator.initial_seed())
        return torch.stack([self.prediction.physical(found.sample(generator)) for _ in range(DRAWS)])


class Uncertainty:
    """Of heads whose distribution is more than a point."""

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))

    def add(self, batch: Batch, prediction: Any) -> None:
        if not isinstance(prediction, Prediction) or isinstance(prediction.distribution, (Point, Labels)) or batch.answers is not None:
            return
        found, truth, mask, weight = _InUnits(prediction), batch.target_values(), scored(batch), batch.weight
        members = found.members(batch.corpus)
        pair = probabilistic.spread_skill(members, truth, mask, weight)
        own = isinstance(prediction.distribution, Ensemble)
        score = probabilistic.crps_ensemble(members, truth, mask, weight) if own else probabilistic.crps(found, truth, mask, weight)
        covered = probabilistic.coverage(found, truth, mask, weight, COVERAGES)
        below = probabilistic.calibration(found, truth, mask, weight, LEVELS)
        columns = {"crps": score, "spread": pair.spread, "skill": pair.skill, "spread_skill": pair.ratio}
        columns |= {f"coverage_{100 * level:.0f}": c for level, c in zip(COVERAGES, covered, strict=True)}
        columns |= {f"below_{level:g}": b for level, b in zip(LEVELS, below, strict=True)}
        for c, variable in enumerate(batch.layout.variables):
            if variable.predicted:
                for name, values in columns.items():
                    self._scores[variable.key][name].append(values[:, c])

    def numbers(self) -> dict[str, Any]:
        means = {v: {n: _mean(torch.cat(parts)) for n, parts in scores.items()} for v, scores in self._scores.items()}
        return {
            "uncertainty": {v: {"model": {n: x for n, x in row.items() if not n.startswith("below_")}} for v, row in means.items()},
            "reliability": {v: {"levels": list(LEVELS), "observed": [row[f"below_{x:g}"] for x in LEVELS]} for v, row in means.items()},
        }


class Images:
    """Of super-resolution."""

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, dict[str, list[Tensor]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, batch: Batch, forecasts: Mapping[str, Tensor]) -> None:
        """`forecasts` `(B, F, 1, Z, Y, X)` of one channel by method; `batch` holds that channel alone."""
        if batch.truth is None:
            return
        mask, truth = scored(batch), batch.target_values()
        for method, forecast in forecasts.items():
            for name, function in (("psnr", images.psnr), ("ssim", images.ssim), ("rfne", images.rfne)):
                self._scores[batch.layout.variables[0].key][method][name].append(function(forecast, truth, mask)[:, 0])

    def numbers(self) -> dict[str, Any]:
        found = {
            v: {m: {n: _mean(torch.cat(parts)) for n, parts in scores.items()} for m, scores in methods.items()}
            for v, methods in self._scores.items()
        }
        return {"images": found}


class PickTally:
    """Of labels on lines: peaks of the probability against peaks of the label. A trace whose label nobody knows counts for nothing."""

    def __init__(self) -> None:
        self._said: dict[str, list[np.ndarray]] = defaultdict(list)
        self._true: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, batch: Batch, prediction: Any) -> None:
        if not isinstance(prediction, Prediction) or not isinstance(prediction.distribution, Labels):
            return
        z, y, x = batch.layout.grid
        if z * y > 1 or x == 1:
            return
        said, true = prediction.distribution.mean, batch.target_values()
        for c, variable in enumerate(batch.layout.variables):
            if variable.predicted:
                known = batch.valid[:, -1, c, 0, 0].any(-1)
                self._said[variable.key].append(said[known, -1, c, 0, 0].double().cpu().numpy())
                self._true[variable.key].append(true[known, -1, c, 0, 0].double().cpu().numpy())

    def numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variable, parts in self._said.items():
            if not sum(len(p) for p in parts):
                continue
            picks = picking.pick(np.concatenate(parts), THRESHOLD, DISTANCE)
            arrivals = [p.samples for p in picking.pick(np.concatenate(self._true[variable]), 0.5, DISTANCE)]
            found[variable] = {}
            for tolerance in TOLERANCES:
                s = picking.score_picks(picks, arrivals, tolerance)
                found[variable][f"within {tolerance} samples"] = {
                    "precision": s.precision,
                    "recall": s.recall,
                    "f1": s.f1,
                    "bias": s.residual_mean,
                    "mae": s.residual_mae,
                    "within": s.within,
                }
        return {"picks": found}


def _mean(values: Tensor) -> float:
    defined = values[~values.isnan()]
    return float(defined.mean()) if defined.numel() else math.nan
