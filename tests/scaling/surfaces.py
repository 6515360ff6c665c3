"""Tables of runs with a known truth."""

from __future__ import annotations

import numpy as np

from scigpt.scaling.cost import Cost
from scigpt.scaling.laws import CHINCHILLA, Law
from scigpt.scaling.runs import Runs

EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
"""Hoffmann et al.'s runs as fitted again by Besiroglu et al. 2024 (arXiv 2404.10102)."""
BUDGETS = 1e18 * 2.15 ** np.arange(5)


def isoflop(budgets: np.ndarray = BUDGETS, sizes: int = 7, span: float = 6.0, truth: dict[str, float] = EPOCH) -> dict[str, np.ndarray]:
    """`params`, `tokens`, `flops`: for each budget, sizes from the best one over `span` to the best one times `span`; C = 6 N D."""
    best = Cost().optimum(truth, budgets).params
    params = (best[:, None] * np.geomspace(1 / span, span, sizes)).ravel()
    flops = np.repeat(budgets, sizes)
    return {"params": params, "tokens": flops / (6 * params), "flops": flops}


def table(
    columns: dict[str, np.ndarray],
    truth: dict[str, float] = EPOCH,
    law: Law = CHINCHILLA,
    noise: float = 0.0,
    seed: int = 0,
    **more: object,
) -> Runs:
    """Runs whose loss is that of the law, times lognormal noise."""
    loss = law.loss(truth, columns)[0]
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(loss.size))
    return Runs.of(loss=loss, **columns, **more)  # type: ignore[arg-type]
