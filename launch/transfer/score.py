"""The score of a transfer study: one function for the model and for the FNO, over every record of a split."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.evaluate.metrics import score, scored
from scigpt.evaluate.plan import Options, Subject, plan, scored_windows
from scigpt.evaluate.rollout import Model
from scigpt.train.journal import number


@torch.no_grad()
def score_model(
    model: Model, corpus: Corpus, settings: CorpusConfig, data: DataConfig, split: str, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """One-step scores of all windows that tile the records of a split (`scigpt.evaluate.metrics`).

    Returns:
        `vrmse` and `relative_l2`: means over windows, then over the predicted variables; `vrmse_median`; the same by variable; `windows`;
        `diverged`, windows whose forecast is not finite. None where nothing is defined.
    """
    work = plan(Subject.of(corpus, settings, data), split, Options())
    items, batches = scored_windows(work, work.frames, sys.maxsize, device, False, "score")
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for _, batch in batches:
        scores = score(model(batch).physical(), batch.target_values(), scored(batch), batch.weight)
        for c, v in enumerate(batch.layout.variables):
            if v.predicted:
                for name in ("vrmse", "relative_l2", "rmse"):
                    found[v.key][name].append(getattr(scores, name)[:, c].cpu().numpy())
    columns = {v: {name: np.concatenate(parts) for name, parts in row.items()} for v, row in found.items()}
    variables = {
        v: {
            "vrmse": _over(np.mean, row["vrmse"]),
            "vrmse_median": _over(np.median, row["vrmse"]),
            "relative_l2": _over(np.mean, row["relative_l2"]),
        }
        for v, row in columns.items()
    }
    names = ("vrmse", "vrmse_median", "relative_l2")
    whole = {name: number(_over(np.mean, np.array([row[name] for row in variables.values()]))) for name in names}
    told = {v: {name: number(value) for name, value in row.items()} for v, row in variables.items()}
    diverged = sum(int(np.isinf(row["rmse"]).sum()) for row in columns.values())
    return {**whole, "variables": told, "windows": len(items), "diverged": diverged}


def _over(what: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Of what is defined; NaN where nothing is, infinite where a window diverged."""
    defined = values[~np.isnan(values)]
    return float(what(defined)) if defined.size else np.nan
