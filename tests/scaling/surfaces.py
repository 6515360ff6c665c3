"""Tables of runs with a known truth."""

from __future__ import annotations

import numpy as np

from scigpt.scaling.cost import Cost
from scigpt.scaling.laws import CHINCHILLA, LAWS, Law
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


def crossed(columns: dict[str, np.ndarray], **axis: list[float]) -> dict[str, np.ndarray]:
    """Every run of `columns` at every value of one more column."""
    ((name, values),) = axis.items()
    many = next(iter(columns.values())).size
    return {key: np.tile(column, len(values)) for key, column in columns.items()} | {name: np.repeat(values, many)}


def repeated(sizes: tuple[float, ...] = (1e7, 4e7, 1.6e8, 6.4e8), unique: tuple[float, ...] = (1e8, 1e9, 1e10)) -> dict[str, np.ndarray]:
    """`params`, `tokens`, `unique_tokens`: every size on a quarter of, once, 4, 16 and 64 times each amount of data."""
    grid = np.array([(n, u * t, min(u, u * t)) for n in sizes for u in unique for t in (0.25, 1.0, 4.0, 16.0, 64.0)])
    return dict(zip(("params", "tokens", "unique_tokens"), grid.T, strict=True))


TRUTHS: dict[str, dict[str, float]] = {
    "chinchilla": EPOCH,
    "tied": {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.36},
    "repetition": {"E": 1.87, "A": 521.0, "B": 1488.0, "alpha": 0.34, "beta": 0.36, "R_D": 15.39, "R_N": 5.31},
    "patch": EPOCH | {"K": 0.02, "kappa": 1.3},
    "context": EPOCH | {"K": 0.3, "kappa": 0.8},
    "frontier": {"E": 1.8172, "K": 1500.0, "gamma": 0.178},
    "power": {"K": 40.0, "gamma": 0.05},
    "broken": {"E": 0.4, "K": 3e4, "c0": 0.22, "c1": 0.17, "d": 3e19, "f": 0.4},
    "transfer": {"E": 0.02, "A": 30.0, "G": 2.5, "alpha": 0.3, "beta": 0.4},
}


def design(name: str) -> dict[str, np.ndarray]:
    """Columns at which every parameter of a law can be told."""
    if name == "repetition":
        return repeated()
    if name == "patch":
        return crossed(isoflop(), patch=[2.0, 4.0, 8.0, 16.0])
    if name == "context":
        return crossed(isoflop(), context=[1.0, 2.0, 4.0, 8.0])
    if name in ("frontier", "power"):
        return {"flops": np.geomspace(1e17, 1e21, 12)}
    if name == "broken":
        return {"flops": np.geomspace(1e16, 1e23, 40)}
    if name == "transfer":
        return crossed({"examples": np.geomspace(10, 1e5, 9)}, pretraining=[1e3, 1e4, 1e5, 1e6])
    return isoflop()


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


__all__ = ["BUDGETS", "EPOCH", "LAWS", "TRUTHS", "crossed", "design", "isoflop", "repeated", "table"]
