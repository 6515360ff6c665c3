"""The laws: derivatives, what their formulas say where they can be worked out by hand, and their names in other units."""

from __future__ import annotations

import numpy as np
import pytest

from scigpt.scaling.laws import CHINCHILLA, LAWS, PATCH, REPETITION, Law

TRUTH = {
    "chinchilla": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37},
    "tied": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.36},
    "patch": {"E": 0.8, "A": 480.0, "B": 2100.0, "K": 0.05, "alpha": 0.35, "beta": 0.37, "kappa": 1.2},
    "context": {"E": 0.8, "A": 480.0, "B": 2100.0, "K": 2.0, "alpha": 0.35, "beta": 0.37, "kappa": 0.7},
    "repetition": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_D": 12.0, "R_N": 5.0},
    "passes": {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R_D": 12.0},
    "patch+context": {"E": 0.5, "A": 480.0, "B": 2100.0, "K": 0.05, "K_T": 2.0, "alpha": 0.35, "beta": 0.37, "kappa": 1.2, "kappa_T": 0.7},
    "frontier": {"E": 0.3, "K": 400.0, "gamma": 0.15},
    "power": {"K": 400.0, "gamma": 0.15},
    "broken": {"E": 0.2, "K": 3000.0, "c0": 0.2, "c1": 0.25, "d": 3e19, "f": 0.4},
    "transfer": {"E": 0.1, "A": 60.0, "G": 1.5, "alpha": 0.3, "beta": 0.45},
}


def columns(law: Law, seed: int = 0, count: int = 60) -> dict[str, np.ndarray]:
    """Every column that any law reads, spread evenly in its logarithm; a fifth of the data is unique in the half of the runs."""
    random = np.random.default_rng(seed)
    ends = {
        "params": (1e7, 3e9), "tokens": (3e8, 1e11), "patch": (2, 16), "context": (2, 32),
        "flops": (1e18, 1e21), "pretraining": (1e5, 1e8), "examples": (50, 5000),
    }  # fmt: skip
    found = {name: np.exp(random.uniform(*np.log(end), count)) for name, end in ends.items()}
    found["unique_tokens"] = np.where(np.arange(count) % 2, found["tokens"], found["tokens"] / random.uniform(2, 40, count))
    return {name: found[name] for name in law.columns}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_derivatives_are_those_of_finite_differences(law: Law) -> None:
    x = columns(law)
    reference = law.reference(x) | {"loss": 2.0}
    logs, theta = law.logs(x, reference), law.theta(TRUTH[law.name], reference)
    _, jacobian = law.evaluate(theta, logs)
    for j in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, j] = 1e-6 * max(1.0, abs(theta[0, j]))
        slope = (law.evaluate(theta + step, logs)[0] - law.evaluate(theta - step, logs)[0]) / (2 * step[0, j])
        assert jacobian[0, j] == pytest.approx(slope[0], rel=1e-5, abs=1e-7), law.parameters[j]


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_parameters_do_not_depend_on_the_reference(law: Law) -> None:
    x = columns(law)
    for reference in (law.reference(x) | {"loss": 2.0}, dict.fromkeys((*law.columns, "loss"), 1.0)):
        told = law.report(law.theta(TRUTH[law.name], reference), reference)
        assert {name: float(value[0]) for name, value in told.items()} == pytest.approx(TRUTH[law.name], rel=1e-9)


def test_the_loss_is_the_published_formula() -> None:
    t = TRUTH["patch"]
    n, d, p = np.array([1e8, 2e9]), np.array([1e9, 7e10]), np.array([4.0, 8.0])
    by_hand = t["E"] + t["A"] * n ** -t["alpha"] + t["B"] * d ** -t["beta"] + t["K"] * p ** t["kappa"]
    assert PATCH.loss(t, {"params": n, "tokens": d, "patch": p})[0] == pytest.approx(by_hand)


def test_repetition_is_the_published_formula() -> None:
    """Equations 5 and 6 of Muennighoff et al., worked out for one run."""
    t, n, d, u = TRUTH["repetition"], 3e9, 4e10, 2e9
    v = (t["alpha"] * t["A"] / (t["beta"] * t["B"]) * u ** t["beta"]) ** (1 / t["alpha"])
    assert v < n
    more_d = u + u * t["R_D"] * (1 - np.exp(-(d / u - 1) / t["R_D"]))
    more_n = v + v * t["R_N"] * (1 - np.exp(-(n / v - 1) / t["R_N"]))
    by_hand = t["E"] + t["A"] * more_n ** -t["alpha"] + t["B"] * more_d ** -t["beta"]
    assert REPETITION.loss(t, {"params": np.array([n]), "tokens": np.array([d]), "unique_tokens": np.array([u])})[0, 0] == pytest.approx(
        by_hand
    )


def test_data_seen_once_is_fresh_data() -> None:
    x = columns(CHINCHILLA)
    once = REPETITION.loss(TRUTH["repetition"] | {"R_N": 1e12}, x | {"unique_tokens": x["tokens"]})
    assert once == pytest.approx(CHINCHILLA.loss(TRUTH["chinchilla"], x), rel=1e-5)
