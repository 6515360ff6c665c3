"""The law of repeated data without that of excess parameters: a parameter fewer, for tables too small or too narrow to tell R_N."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from scigpt.scaling.laws import CHINCHILLA, TINY, Columns, Parameters, Repetition


@dataclass(frozen=True, slots=True)
class Passes(Repetition):
    """`L = E + A N^-alpha + B D'^-beta`, `D' = U + U R_D (1 - exp(-(D/U - 1)/R_D))` (Muennighoff et al. 2023, arXiv 2305.16264,
    equation 5; the limit of large R_N). Internally R_D is a log."""

    name: str = "passes"
    parameters = ("E", "A", "B", "alpha", "beta", "R_D")  # type: ignore[assignment]
    assumed = 0

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = Repetition(data=self.data, unique=self.unique).bounds
        return low[:6], high[:6]

    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        e, a, b, alpha, beta, log_d = (theta[:, j, None] for j in range(6))
        data, by_r = self._data(log_d, logs)
        of_n, of_d = np.exp(-alpha * logs["params"]), np.exp(-beta * data)
        loss = np.maximum(e + a * of_n + b * of_d, TINY)
        slopes = [np.ones_like(loss), of_n, of_d, -logs["params"] * a * of_n, -data * b * of_d, -beta * b * of_d * by_r]
        return np.log(loss), np.stack(slopes, 1) / loss[:, None]

    def grid(self, logs: Columns) -> np.ndarray:
        exponents = np.geomspace(0.05, 1.5, 11)
        return np.array(list(product(exponents, exponents, np.log([0.5, 2.0, 8.0, 30.0, 120.0]))))

    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        alpha, beta, log_d = (shape[:, j, None] for j in range(3))
        data, _ = self._data(log_d, logs)
        return np.stack([np.ones_like(data), np.exp(-alpha * logs["params"]), np.exp(-beta * data)], 1)

    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        return CHINCHILLA.on({"tokens": self.data}).report(theta[:, :5], reference) | {"R_D": np.exp(theta[:, 5])}

    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        first = CHINCHILLA.on({"tokens": self.data}).theta(parameters, reference)
        last = np.broadcast_to(np.log(np.asarray(parameters["R_D"], np.float64)), len(first))
        return np.concatenate([first, last[:, None]], 1)

    def _data(self, log_r: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        """log D' and its derivative by log R_D."""
        fresh = np.minimum(logs[self.data], logs[self.unique])
        again, r = np.expm1(logs[self.data] - fresh), np.exp(log_r)
        fade = np.exp(-again / r)
        worth = 1.0 + r * (1.0 - fade)
        return fresh + np.log(worth), (r * (1.0 - fade) - again * fade) / worth


PASSES = Passes()
