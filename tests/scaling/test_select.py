"""Choosing a law: AICc by hand, held-out error, correlations and warnings."""

from __future__ import annotations

import numpy as np
import pytest
from surfaces import EPOCH, isoflop, table

from scigpt.scaling.fit import bootstrap, fit
from scigpt.scaling.laws import CHINCHILLA, PASSES, PATCH, TIED
from scigpt.scaling.runs import Runs
from scigpt.scaling.select import aicc, best, by_compute, candidates, compare, correlations, huber_deviance, identifiability


def test_aicc_of_a_wide_huber_is_that_of_least_squares() -> None:
    runs = table(isoflop(), noise=0.003)
    found = fit(CHINCHILLA, runs, delta=1.0)
    n, k = 35, 6
    squares = float(np.sum(found.residuals**2))
    by_hand = n * (np.log(2 * np.pi * squares / n) + 1) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert aicc(found) == pytest.approx(by_hand, abs=1e-3)


def test_deviance_of_a_narrow_huber_is_that_of_laplace() -> None:
    residuals = np.array([0.3, -0.2, 0.5, -0.1])
    delta = 1e-6
    objective = float(np.sum(delta * (np.abs(residuals) - delta / 2)))
    by_hand = 2 * 4 * (np.log(2 * np.abs(residuals).mean()) + 1)
    assert huber_deviance(objective, 4, delta) == pytest.approx(by_hand, abs=1e-3)


def test_too_few_runs_have_no_aicc() -> None:
    runs = table(isoflop(np.array([1e18, 1e19]), 3), noise=0.003)
    assert aicc(fit(TIED, runs)) is None


def test_candidates_follow_the_columns() -> None:
    columns = isoflop()
    names = lambda runs: [law.name for law in candidates(runs)]  # noqa: E731
    assert names(table(columns)) == ["tied", "chinchilla"]
    assert names(table(isoflop(np.array([1e18, 1e19]), 6))) == ["tied"]
    assert names(table(columns | {"unique_tokens": columns["tokens"]})) == ["tied", "chinchilla"]
    assert names(table(columns | {"unique_tokens": columns["tokens"] / 3})) == ["tied", "chinchilla", "passes", "repetition"]
    patch = np.resize([4.0, 8.0, 16.0], 35)
    assert names(table(columns | {"patch": np.full(35, 4.0)})) == ["tied", "chinchilla"]
    assert names(table(columns | {"patch": patch})) == ["tied", "chinchilla", "patch"]
    both = candidates(table(columns | {"patch": patch, "context": np.resize([2.0, 4.0], 35), "samples": columns["tokens"] / 64}))
    assert [law.name for law in both] == ["tied", "chinchilla", "patch", "context", "patch+context"]
    assert all("samples" in law.columns and "tokens" not in law.columns for law in both)


def test_law_that_made_the_runs_is_chosen() -> None:
    columns = isoflop() | {"patch": np.resize([4.0, 8.0, 16.0], 35)}
    truth = EPOCH | {"K": 0.1, "kappa": 0.8}
    chosen = best(compare(candidates(table(columns)), table(columns, truth, PATCH, noise=0.003), 1e-3))
    assert chosen is not None
    assert chosen.law.name == "patch"
    plain = best(compare(candidates(table(columns)), table(columns, noise=0.003, seed=1), 1e-3))
    assert plain is not None
    assert plain.law.name == "chinchilla"
    assert "lowest AICc" in chosen.reason


def test_held_out_by_compute_fits_below_and_measures_above() -> None:
    runs = table(isoflop(), noise=0.003)
    found = by_compute(CHINCHILLA, runs, 1e-3)
    assert [(a.points, a.above) for a in found] == [(7, 28), (14, 21), (21, 14), (28, 7)]
    below = fit(CHINCHILLA, runs.select(np.arange(28)))
    ratio = np.log(runs["loss"][28:] / below.predict({name: runs[name][28:] for name in ("params", "tokens")}))
    assert found[-1].error == pytest.approx(np.sqrt(np.mean(ratio**2)), rel=1e-9)
    assert found[-1].fitted_up_to == pytest.approx(runs["flops"][27])


def test_hold_outs_take_no_part_in_the_study() -> None:
    columns = isoflop()
    runs = table(columns, noise=0.003, role=["grid"] * 34 + ["hold-out"])
    assert by_compute(CHINCHILLA, runs, 1e-3)[-1].above == 6


def test_an_interaction_shows_in_the_residuals() -> None:
    columns = isoflop()
    n, d = (np.log(columns[name]) for name in ("params", "tokens"))
    bent = CHINCHILLA.loss(EPOCH, columns)[0] * np.exp(0.01 * (n - n.mean()) * (d - d.mean()))
    bent = bent * np.exp(0.001 * np.random.default_rng(0).standard_normal(35))
    runs = Runs.of(loss=bent, **columns)
    found = fit(CHINCHILLA, runs)
    straight = correlations(fit(CHINCHILLA, table(columns, noise=0.003)), "tokens")
    assert all(test["p"] > 0.01 for test in straight.values())
    assert any(test["p"] < 0.01 for test in correlations(found, "tokens").values())


def test_a_narrow_table_is_told() -> None:
    n, d = (m.ravel() for m in np.meshgrid([1e8, 1.5e8, 2e8, 2.5e8], [1e9, 1.5e9, 2e9, 3e9]))
    found = fit(CHINCHILLA, table({"params": n, "tokens": d}, noise=0.003))
    said = " | ".join(identifiability(found, bootstrap(found, 100), "tokens"))
    assert "N spans a factor of 2.5 only" in said
    assert "compute spans 0.9 decades" in said
    wide = fit(CHINCHILLA, table(isoflop(np.geomspace(1e17, 1e20, 6)), noise=0.001))
    assert identifiability(wide, bootstrap(wide, 100), "tokens") == []


def test_passes_law_by_hand_and_its_slopes() -> None:
    columns = {"params": np.array([1e8, 2e8]), "tokens": np.array([4e9, 5e9]), "unique_tokens": np.array([1e9, 9e9])}
    truth = EPOCH | {"R_D": 10.0}
    worth = 1e9 + 1e9 * 10 * (1 - np.exp(-3 / 10))
    by_hand = EPOCH["E"] + EPOCH["A"] * columns["params"] ** -EPOCH["alpha"] + EPOCH["B"] * np.array([worth, 5e9]) ** -EPOCH["beta"]
    assert PASSES.loss(truth, columns)[0] == pytest.approx(by_hand, rel=1e-12)
    reference = PASSES.reference(columns) | {"loss": 3.0}
    theta, logs = PASSES.theta(truth, reference), PASSES.logs(columns, reference)
    slopes = PASSES.evaluate(theta, logs)[1][0]
    for j in range(6):
        step = np.zeros(6)
        step[j] = 1e-6
        difference = (PASSES.evaluate(theta + step, logs)[0] - PASSES.evaluate(theta - step, logs)[0]) / 2e-6
        assert slopes[j] == pytest.approx(difference[0], rel=1e-6, abs=1e-9)
