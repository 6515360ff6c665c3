"""What a fit of a sweep will know, before anything is run: the Fisher information of its runs about a surface that is supposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scigpt.errors import UserError
from scigpt.launch.sweep.config import PriorConfig
from scigpt.scaling.laws import CHINCHILLA

LEVEL = 1.96
"""Standard deviations on each side of a 95 % interval."""
WORST = 1e6
"""Condition number of the scaled Jacobian beyond which the runs do not tell the parameters apart."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected relative widths of 95 % intervals, upper minus lower end over the value; the Cramer-Rao bound to first order.

    Args:
        widths: of E, A, B (as shares of the loss in the middle of the runs), alpha and beta.
        condition: of the Jacobian with columns of equal length.
        points: runs that enter the fit.
    """

    widths: dict[str, float]
    condition: float
    points: int


def forecast(params: Sequence[float] | np.ndarray, tokens: Sequence[float] | np.ndarray, prior: PriorConfig) -> Forecast:
    """The Jacobian of the log losses of runs of so many parameters and tokens gives the covariance `sigma^2 (J^T J)^-1`.

    Raises:
        UserError: runs that do not determine the five parameters.
    """
    columns = {"params": np.asarray(params, float), "tokens": np.asarray(tokens, float)}
    if len(params) < len(CHINCHILLA.parameters):
        raise UserError(
            f"{len(params)} runs enter the fit, and it has {len(CHINCHILLA.parameters)} parameters (E, A, B, alpha, beta); plan more sizes "
            f"or budgets"
        )
    term = (1 - prior.floor) / 2
    theta = np.array([[prior.floor, term, term, prior.alpha, prior.beta]])
    _, jacobian = CHINCHILLA.evaluate(theta, CHINCHILLA.logs(columns, CHINCHILLA.reference(columns)))
    scaled = jacobian[0].T * theta  # of the logs of the parameters
    lengths = np.linalg.norm(scaled, axis=0)
    condition = float(np.linalg.cond(scaled / np.maximum(lengths, 1e-300)))
    if not condition < WORST:
        same = [what for what, x in columns.items() if np.ptp(np.log(x)) < 1e-6]
        why = f"all have the same {' and '.join(same)}" if same else "parameters and tokens hardly vary apart from each other"
        raise UserError(f"the runs cannot tell E, A, B, alpha and beta apart: {why}; plan several sizes, each at several lengths")
    covariance = prior.sigma**2 * np.linalg.inv(scaled.T @ scaled)
    widths = 2 * LEVEL * np.sqrt(np.diag(covariance))
    return Forecast(dict(zip(CHINCHILLA.parameters, widths.tolist(), strict=True)), condition, len(params))
