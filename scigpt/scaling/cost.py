"""What training costs, and how a budget is best divided between parameters and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scigpt.scaling.runs import Runs

FLOPS_PER_PARAMETER = 6.0
"""Forward 2 and backward 4 FLOPs per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""

Value = np.ndarray | float


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best division of a budget: `(R, m)` for R sets of parameters and m budgets, or the shape both broadcast to."""

    params: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of a training run, `C = k N^s D`.

    Attributes:
        k, s: 6 and 1 where a table does not state its FLOPs.
        worst: largest relative error of the formula over the table.
    """

    k: float = FLOPS_PER_PARAMETER
    s: float = 1.0
    worst: float = 0.0

    @classmethod
    def of(cls, runs: Runs) -> Cost:
        """Fitted to the table's `flops` by least squares in logs: attention and patch layers make s differ from 1. 6 N D without them."""
        if "flops" not in runs:
            return cls()
        log_n, log_c = np.log(runs["params"]), np.log(runs["flops"] / runs["tokens"])
        centred = log_n - log_n.mean()
        spread = float(centred @ centred)
        s = float(centred @ log_c / spread) if spread > 1e-6 * len(runs) else 1.0
        log_k = float(np.mean(log_c - s * log_n))
        return cls(float(np.exp(log_k)), s, float(np.max(np.abs(np.expm1(log_k + s * log_n - log_c)))))

    def flops(self, params: Value, tokens: Value) -> np.ndarray:
        return np.asarray(self.k * np.asarray(params, np.float64) ** self.s * tokens)

    def tokens(self, params: Value, flops: Value) -> np.ndarray:
        """How many tokens the budget buys for a model of that size."""
        return np.asarray(flops / (self.k * np.asarray(params, np.float64) ** self.s))

    def optimum(self, parameters: Mapping[str, Value], flops: Value) -> Optimum:
        """N* and D* of `L = E + A N^-alpha + B D^-beta` (and whatever else does not depend on them) on `C = k N^s D`, in closed form.

        There `alpha A N^-alpha = s beta B D^-beta` (Hoffmann et al. 2022, equation 4, is the case s = 1). For parameters `(R,)` and budgets
        `(m,)` the result is `(R, m)`; a number in either place drops its axis. A law without a term of N or D has no optimum: NaN.
        """
        values = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
        a, b, alpha = values["A"], values["B"], values["alpha"]
        beta = values.get("beta", alpha)
        budget = np.asarray(flops, np.float64)
        if budget.ndim:
            a, b, alpha, beta = (np.expand_dims(v, -1) for v in (a, b, alpha, beta))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.where((a > 0) & (b > 0), np.log(alpha * a) - np.log(self.s * beta * b), np.nan)
        log_n = (log_ratio + beta * np.log(budget / self.k)) / (alpha + self.s * beta)
        params = np.exp(log_n)
        return Optimum(params, self.tokens(params, budget))

    def exponents(self, parameters: Mapping[str, Value]) -> dict[str, np.ndarray]:
        """`a`, `b`, `gamma` of N* ~ C^a, D* ~ C^b and L* - E ~ C^-gamma."""
        alpha = np.asarray(parameters["alpha"], np.float64)
        beta = np.asarray(parameters.get("beta", alpha), np.float64)
        total = alpha + self.s * beta
        return {"a": beta / total, "b": alpha / total, "gamma": alpha * beta / total}
