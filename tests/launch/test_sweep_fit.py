"""`scigpt sweep fit`: a foreign CSV and a sweep of ours, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from known_sweep import TRUTH, isoflop_csv

from scigpt.errors import UserError
from scigpt.launch.sweep.fit import fit
from scigpt.launch.sweep.table import Table
from scigpt.scaling.cost import Cost

KEYS = {
    "source", "form", "delta", "objective", "reduction", "points", "dropped", "held_out_points", "count", "parameters", "level",
    "resamples", "clusters", "sigma", "cost", "optimum", "exponents", "isoflop", "frontier", "models", "held_out", "held_out_by_compute",
    "residuals", "diagnostics", "warnings", "saturation", "sensitivity",
}  # fmt: skip


def found(capsys: pytest.CaptureFixture[str], path: Path, **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    fit(path, json=True, resamples=50, **options)
    return json.loads(capsys.readouterr().out)


def test_a_foreign_csv_gives_the_law_and_what_budgets_should_buy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = isoflop_csv(tmp_path / "runs.csv")
    told = found(capsys, file, flops="1e20,1e21", form="chinchilla", delta=2e-3)
    assert told.keys() >= KEYS
    assert {name: p["value"] for name, p in told["parameters"].items()} == pytest.approx(TRUTH, rel=1e-4)
    assert (told["delta"], told["reduction"], told["points"], told["held_out_points"]) == (2e-3, "sum", 26, 1)
    assert [d["reason"] for d in told["dropped"]] == ["it has no loss"]
    assert [o["flops"] for o in told["optimum"]] == [1e20, 1e21]
    for o in told["optimum"]:
        best = Cost().optimum(TRUTH, o["flops"])
        assert o["params"]["value"] == pytest.approx(float(best.params), rel=1e-3)
        assert o["tokens"]["value"] == pytest.approx(float(best.tokens), rel=1e-3)


def test_the_text_holds_parameters_optima_and_what_was_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(isoflop_csv(tmp_path / "runs.csv", noise=0.003), flops="1e21", resamples=50, form="chinchilla")
    out = capsys.readouterr().out
    for name in TRUTH:
        assert any(line.split()[:1] == [name] for line in out.splitlines())
    assert "Huber's loss (delta 0.001)" in out
    assert "26 runs fitted, 1 held out, 1 dropped" in out
    assert any(line.startswith("1e+21") for line in out.splitlines())
    assert "it has no loss" in out
    assert "warning: compute spans" in out


def test_a_sweep_is_fitted_from_its_results(known_sweep: Table, capsys: pytest.CaptureFixture[str]) -> None:
    table = known_sweep
    whole = found(capsys, table.folder, form="chinchilla")
    assert whole["count"] == "total"
    assert whole["points"] == sum(r.fitted for r in table.rows) - 1
    assert whole["held_out_points"] == 1
    (dropped,) = whole["dropped"]
    assert dropped["row"] == table.rows[2].id
    assert "diverged" in dropped["reason"]
    backbone = found(capsys, table.folder, form="chinchilla", count="backbone")
    assert backbone["count"] == "backbone"
    assert backbone["optimum"][0]["params"]["value"] != whole["optimum"][0]["params"]["value"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("param,tokens,loss\n1e6,1e7,2\n", {}, "rename 'param'"),
        ("params,tokens,loss\n1e6,1e7,-2\n", {}, "loss is -2"),
        ("params,tokens,loss\n1e6,1e7,2\n2e6,1e7,1.9\n", {}, "2 usable runs"),
        ("params,tokens,loss\n1e6,1e7,2\n", {"flops": "1e20,many"}, "'many' is not a budget"),
        ("params,tokens,loss\n1e6,1e7,2\n", {"flops": "1e20,"}, "'nothing' is not a budget"),
        ("params,tokens,loss,role\n1e6,1e7,2,hold-out\n", {}, "no run to fit"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, options: dict[str, Any], says: str) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        fit(file, resamples=50, **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the form 'chinchila' is unknown"):
        fit(isoflop_csv(tmp_path / "runs.csv"), form="chinchila", resamples=50)
