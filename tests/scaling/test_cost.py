"""FLOPs and the best division of a budget, against a search."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from surfaces import EPOCH, isoflop, table

from scigpt.scaling.cost import Cost
from scigpt.scaling.laws import CHINCHILLA
from scigpt.scaling.runs import Runs


@pytest.mark.parametrize("cost", [Cost(), Cost(2.9, 1.06)], ids=["6ND", "measured"])
@pytest.mark.parametrize("flops", [1e19, 3e22])
def test_no_other_size_is_better(cost: Cost, flops: float) -> None:
    def loss(log_n: float) -> float:
        n = np.exp(np.array([log_n]))
        return float(CHINCHILLA.loss(EPOCH, {"params": n, "tokens": cost.tokens(n, flops)})[0, 0])

    found = minimize_scalar(loss, bounds=(np.log(1e6), np.log(1e13)), method="bounded", options={"xatol": 1e-10})
    best = cost.optimum(EPOCH, flops)
    assert float(best.params) == pytest.approx(float(np.exp(found.x)), rel=1e-4)
    assert float(cost.flops(best.params, best.tokens)) == pytest.approx(flops)


def test_exponents_are_those_of_the_optima() -> None:
    cost = Cost(3.0, 1.1)
    small, large = cost.optimum(EPOCH, 1e19), cost.optimum(EPOCH, 1e21)
    told = cost.exponents(EPOCH)
    assert float(told["a"]) == pytest.approx(float(np.log(large.params / small.params) / np.log(100)))
    assert float(told["b"]) == pytest.approx(float(np.log(large.tokens / small.tokens) / np.log(100)))
    ahead = [float(CHINCHILLA.loss(EPOCH, {"params": o.params, "tokens": o.tokens})[0, 0]) - EPOCH["E"] for o in (small, large)]
    assert float(told["gamma"]) == pytest.approx(-np.log(ahead[1] / ahead[0]) / np.log(100))


def test_the_formula_is_fitted_to_what_the_runs_say() -> None:
    x = isoflop()
    x["tokens"] = x["flops"] / (2.9 * x["params"] ** 1.06)
    found = Cost.of(table(x))
    assert (found.k, found.s) == pytest.approx((2.9, 1.06))
    assert found.worst < 1e-9
    x["flops"][3] *= 1.1
    assert 0.05 < Cost.of(table(x)).worst < 0.15
    assert Cost.of(Runs.of(loss=np.ones(3), params=x["params"][:3], tokens=x["tokens"][:3])) == Cost(6.0, 1.0, 0.0)


def test_sets_of_parameters_and_budgets() -> None:
    many = {name: np.array([value, value * 1.01]) for name, value in EPOCH.items()}
    found = Cost().optimum(many, np.array([1e19, 1e20, 1e21]))
    assert found.params.shape == found.tokens.shape == (2, 3)
    assert found.params[0, 2] == pytest.approx(float(Cost().optimum(EPOCH, 1e21).params))
    assert np.isnan(Cost().optimum(EPOCH | {"A": 0.0}, 1e20).params)
