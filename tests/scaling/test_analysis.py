"""The whole analysis of a table: its JSON against the truth, against closed forms, and honest where it cannot know."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from surfaces import BUDGETS, EPOCH, isoflop, table

from scigpt.errors import UserError
from scigpt.scaling.analysis import analyse
from scigpt.scaling.cost import Cost
from scigpt.scaling.runs import Runs

WIDE = np.geomspace(1e17, 1e20, 6)


def optimal_loss(flops: float) -> float:
    best = Cost().optimum(EPOCH, flops)
    return float(EPOCH["E"] + EPOCH["A"] * best.params ** -EPOCH["alpha"] + EPOCH["B"] * best.tokens ** -EPOCH["beta"])


@pytest.fixture(scope="module")
def report() -> dict:
    columns = isoflop(WIDE)
    roles = ["grid"] * 40 + ["hold-out"] * 2
    return analyse(table(columns, noise=0.003, role=roles), resamples=300, budgets=[1e20, 3e21]).to_json()


def test_json_is_json_and_complete(report: dict) -> None:
    json.dumps(report, allow_nan=False)
    assert set(report) >= {
        *("source", "form", "delta", "objective", "reduction", "points", "dropped", "held_out_points", "count", "parameters", "level"),
        *("resamples", "clusters", "sigma", "cost", "optimum", "exponents", "isoflop", "frontier", "models", "held_out"),
        *("held_out_by_compute", "residuals", "diagnostics", "warnings", "saturation", "sensitivity"),
    }
    assert (report["points"], report["held_out_points"], report["reduction"]) == (40, 2, "sum")
    assert len(report["residuals"]) == 40


def test_parameters_and_optima_hold_the_truth(report: dict) -> None:
    assert report["form"] == "chinchilla"
    for name, value in EPOCH.items():
        span = report["parameters"][name]
        assert span["low"] < span["value"] < span["high"]
        assert span["value"] == pytest.approx(value, rel=0.5)
    for each in report["optimum"]:
        best = Cost().optimum(EPOCH, each["flops"])
        assert each["params"]["low"] < best.params < each["params"]["high"]
        assert each["tokens"]["low"] < best.tokens < each["tokens"]["high"]
        assert each["loss"]["value"] == pytest.approx(optimal_loss(each["flops"]), rel=0.01)
        assert each["params"]["value"] * each["tokens_per_param"]["value"] == pytest.approx(each["tokens"]["value"])
        assert 6 * each["params"]["value"] * each["tokens"]["value"] == pytest.approx(each["flops"], rel=1e-6)
    a = report["exponents"]["a"]
    assert a["low"] < EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"]) < a["high"]


def test_minima_hold_the_truth(report: dict) -> None:
    assert len(report["isoflop"]) == 6
    inside = 0
    for each in report["isoflop"]:
        assert (each["minimum"] is None) == (each["reason"] is not None)
        if each["minimum"] is not None:
            loss = each["minimum"]["loss"]
            inside += loss["low"] < optimal_loss(each["flops"]) < loss["high"]
            assert loss["value"] == pytest.approx(optimal_loss(each["flops"]), rel=0.01)
    assert inside >= 4


def test_held_out_runs_fall_inside_their_intervals() -> None:
    """12 runs; the intervals hold the noise of a run, not the fit's alone."""
    runs = table(isoflop(WIDE), noise=0.003, role=["hold-out" if i % 7 in (2, 4) else "grid" for i in range(42)])
    found = analyse(runs, resamples=200).to_json()["held_out"]
    assert len(found) == 12
    assert sum(each["inside"] for each in found) >= 10
    assert all(0.004 < (each["predicted"]["high"] - each["predicted"]["low"]) / each["loss"] < 0.03 for each in found)
    for each in found:
        assert each["inside"] == (each["predicted"]["low"] <= each["loss"] <= each["predicted"]["high"])


def test_sensitivity_covers_delta_and_each_budget(report: dict) -> None:
    choices = [each["choice"] for each in report["sensitivity"]]
    assert choices[:4] == ["delta 0.0001", "delta 0.001", "delta 0.01", "delta 0.1"]
    assert sum(choice.startswith("without the budget") for choice in choices) == 6
    same = report["sensitivity"][1]
    assert same["parameters"] == pytest.approx({name: span["value"] for name, span in report["parameters"].items()})


def test_unknown_is_null_with_a_reason() -> None:
    n, d = (m.ravel() for m in np.meshgrid(1e7 * 2.0 ** np.arange(4), 1e9 * 3.0 ** np.arange(4)))
    found = analyse(table({"params": n, "tokens": d}, noise=0.003), resamples=100).to_json()
    assert found["frontier"]["floor"] is None
    assert found["frontier"]["preferred"] == "undecided"
    assert found["sigma"]["seed"] is None
    assert any("another seed" in said for said in found["warnings"])
    assert any("no column flops" in said for said in found["warnings"])


def test_floor_of_the_frontier() -> None:
    floored = analyse(table(isoflop(np.geomspace(1e16, 1e22, 7)), noise=0.0005), resamples=100).to_json()["frontier"]
    assert floored["preferred"] == "floor"
    assert floored["floor"]["E"]["low"] < EPOCH["E"] < floored["floor"]["E"]["high"]
    bare = {**EPOCH, "E": 0.0, "beta": EPOCH["alpha"]}  # tied and without a floor, L* is a power law exactly
    power = analyse(table(isoflop(np.geomspace(1e16, 1e22, 7), truth=bare), bare, noise=0.003), resamples=100).to_json()["frontier"]
    assert power["preferred"] != "floor"
    assert power["power"]["gamma"]["value"] == pytest.approx(EPOCH["alpha"] / 2, rel=0.02)


def test_patches_share_samples() -> None:
    """Optima are told in tokens of the best run's patch, and cost what the formula says."""
    random = np.random.default_rng(0)
    patch = np.repeat([4.0, 8.0, 16.0], 15)
    params = np.tile(np.repeat([1e7, 3e7, 1e8], 5) * np.tile(np.geomspace(0.3, 3, 5), 3), 3)
    samples = np.tile(np.repeat([1e6, 3e6, 1e7], 5) / np.tile(np.geomspace(0.3, 3, 5), 3), 3)
    tokens = samples * (64 / patch) ** 2
    loss = 0.2 + 30 * params**-0.3 + 60 * samples**-0.35 + 0.02 * patch**0.8
    runs = Runs.of(loss=loss * np.exp(0.002 * random.standard_normal(45)), params=params, samples=samples, tokens=tokens, patch=patch)
    found = analyse(runs, resamples=100).to_json()
    assert (found["form"], found["data"]) == ("patch", "samples")
    assert found["cost"]["at"] == {"patch": 4.0}
    top = found["optimum"][0]
    assert top["tokens"]["value"] == pytest.approx(256 * top["samples"]["value"])
    assert 6 * top["params"]["value"] * top["tokens"]["value"] == pytest.approx(top["flops"], rel=1e-3)
    assert {line["patch"] for line in found["isoflop"]} <= {4.0, 8.0, 16.0}


def test_mistakes_are_told() -> None:
    runs = table(isoflop(), noise=0.003)
    with pytest.raises(UserError, match="form 'chinchila' is unknown"):
        analyse(runs, "chinchila")
    with pytest.raises(UserError, match="expected FLOPs above 0"):
        analyse(runs, budgets=[-1.0], resamples=20)
    with pytest.raises(UserError, match="usable run"):
        analyse(runs.select(np.arange(4)))


def test_a_form_may_be_asked_for() -> None:
    found = analyse(table(isoflop(BUDGETS), noise=0.003), "tied", resamples=50).to_json()
    assert found["form"] == "tied"
    assert [model["form"] for model in found["models"] if model["preferred"]] == ["tied"]
    assert found["exponents"]["a"]["value"] == pytest.approx(0.5)


def test_forty_runs_take_seconds() -> None:
    runs = table(isoflop(np.geomspace(1e17, 1e20, 8), 5), noise=0.003)
    begin = time.process_time()
    analyse(runs)
    assert time.process_time() - begin < 15
