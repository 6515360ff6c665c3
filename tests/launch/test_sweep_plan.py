"""`scigpt sweep plan`: runs cost what was planned, lines bracket their minimum, and what cannot teach anything is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from runs import make_corpus, settings

from scigpt.data.mixture import Mixture
from scigpt.errors import UserError
from scigpt.launch.cli import main
from scigpt.launch.sweep.config import PriorConfig, load_sweep
from scigpt.launch.sweep.design import Design
from scigpt.launch.sweep.forecast import LEVEL, forecast
from scigpt.launch.sweep.ladder import Ladder
from scigpt.launch.sweep.table import Row, Table
from scigpt.model.backbone import ModelConfig, Vocabulary
from scigpt.train.account import parameters
from scigpt.train.engine import train


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sweep-plan")
    return [make_corpus(folder), make_corpus(folder, "wide", size=12, seed=100)]


ISOFLOP = {"top": 2e10, "ratio": 3.0, "count": 3, "sizes": 5, "span": 6.0}
TRUNKS = {"sizes": [6e4, 9e4, 2e5], "points": 3, "ratio": 2.0, "steps": 24}


@pytest.fixture
def asked(corpora: list[Path], tmp_path: Path) -> dict[str, Any]:
    """Plain data of a sweep without parts."""
    base = settings(corpora[:1], tmp_path / "base", validate_windows=2)
    budget = {"flops": 1e12, "peak": 0.1, "mfu": 0.5}
    return {"sweep": str(tmp_path / "sweep"), "base": base, "budget": budget, "min_steps": 6, "ladder": {"aspect": [8, 64]}}


def plan(data: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str, int]:
    """What it prints, what it says, and its exit code."""
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(SystemExit) as left:
        main(["sweep", "plan", str(file), *words, "--json"])
    out, err = capsys.readouterr()
    return json.loads(out) if out else {}, err, int(left.value.code or 0)


def design(data: dict[str, Any], folder: Path) -> Design:
    file = folder / "design.yaml"
    file.write_text(yaml.safe_dump(data))
    return Design(*load_sweep(file))


def test_runs_cost_what_was_planned(asked: dict[str, Any], corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked["base"]["data"]["corpora"].append({"path": str(corpora[1]), "weight": 2})
    found, _, code = plan(asked | {"trunks": TRUNKS}, tmp_path, capsys)
    assert code == 0
    assert not (tmp_path / "sweep" / "runs").exists()
    table = Table.read(tmp_path / "sweep")
    trunk = table.rows[0]
    branch = next(r for r in table.rows if r.parent == trunk.id)
    for row in (trunk, branch):
        train(table.config(row))
        result = json.loads((table.run(row.id) / "result.json").read_text())
        data = result["data"]
        assert (result["parameters"], result["flops"]["total"], result["own_flops"]) == (row.params, row.flops, row.own_flops)
        assert (result["step"], result["steps"], result["branch_step"]) == (row.steps, row.steps, row.branch_step)
        assert all(data[k] == getattr(row, k) for k in ("tokens", "samples", "values", "unique_samples", "epochs"))
    assert branch.own_flops < 0.5 * branch.flops
    saved = found["branches"]
    assert saved["flops"] == sum(r.own_flops for r in table.rows) == found["cost"]["flops"]
    assert saved["separate"] == sum(r.flops for r in table.rows)
    assert saved["points"] == 9


def test_a_plan_is_made_once(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked |= {"isoflop": ISOFLOP, "seeds": {"cells": 2, "repeats": 2}, "hold_out": {}}
    first, _, _ = plan(asked, tmp_path, capsys)
    table, resolved = (tmp_path / "sweep" / "table.json").read_bytes(), (tmp_path / "sweep" / "sweep.yaml").read_text()
    again, _, code = plan(asked, tmp_path, capsys)
    assert (first["written"], again["written"], code) == (True, False, 0)
    whole, _, _ = plan(yaml.safe_load(resolved), tmp_path, capsys)  # the resolved sweep is the whole sweep
    assert whole["order"] == first["order"]
    _, said, code = plan(asked, tmp_path, capsys, "isoflop.sizes=7")
    assert code == 2
    assert "the table is immutable: choose another sweep=FOLDER" in said
    assert (tmp_path / "sweep" / "table.json").read_bytes() == table
    other, _, _ = plan(asked, tmp_path, capsys, f"sweep={tmp_path / 'other'}")
    assert other["order"] == first["order"]  # an id does not depend on the folder


def test_lines_bracket_their_minimum_and_hold_outs_lie_beyond(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"isoflop": ISOFLOP, "seeds": {"cells": 2, "repeats": 2}, "hold_out": {"ratio": 2, "sizes": 3}, "lr": {"count": 1}}
    found, _, _ = plan(asked | parts | {"trunks": TRUNKS, "warmup": 0.1}, tmp_path, capsys)
    rows = Table.read(tmp_path / "sweep").rows
    for line in found["lines"]:
        sizes = [r["params"] for r in line["runs"]]
        assert sizes == sorted(set(sizes))
        assert sum(n < line["centre"] for n in sizes) >= 2 <= sum(n > line["centre"] for n in sizes)
    by_role: dict[str, list[Row]] = {}
    for r in rows:
        by_role.setdefault(r.role, []).append(r)
    for r in by_role["grid"]:
        assert r.budget
        assert abs(r.flops / r.budget - 1) <= 0.5 / r.steps + 1e-3  # a whole number of steps
        assert r.config["optim"]["warmup"] == round(0.1 * r.steps)
    fitted = [r.flops for r in rows if r.fitted]
    assert min(r.flops for r in by_role["hold-out"]) > 1.5 * max(fitted)
    assert [r.role for r in rows[-3:]] == ["hold-out"] * 3
    places = {r.id: i for i, r in enumerate(rows)}
    assert all(places[r.parent] < places[r.id] for r in by_role["anneal"] if r.parent)
    roots = [r.own_flops for r in rows if r.role not in ("anneal", "hold-out")]
    assert roots == sorted(roots)
    assert len(by_role["seed-repeat"]) == 4
    assert {r.config["seed"] for r in by_role["seed-repeat"]} == {1, 2}
    planned = {(r.params["total"], r.steps) for r in by_role["grid"] + by_role["trunk"] + by_role["anneal"]}
    assert {(r.params["total"], r.steps) for r in by_role["seed-repeat"]} <= planned
    assert sorted(r.axes["lr"] for r in by_role["lr-probe"]) == [0.0025, 0.005, 0.01, 0.02, 0.04]
    assert sum(p["flops"] for p in found["parts"]) == sum(r.own_flops for r in rows)
    assert found["cost"]["device_hours"] == pytest.approx(found["cost"]["flops"] / (0.1e12 * 0.5 * 3600))


def test_anneals_leave_their_trunk_before_its_rate_falls(asked: dict[str, Any], tmp_path: Path) -> None:
    made = design(asked | {"trunks": TRUNKS, "decay": 0.25, "warmup": 0.2}, tmp_path)
    for cell in made.cells:
        if cell.trunk is None:
            kept = cell.config.train.keep_steps
            continue
        step, trunk = cell.branch_step, cell.trunk.config
        assert step in kept
        assert step == cell.steps - round(0.25 * cell.steps)
        rates = [[c.optim.learning_rate(s, c.train.steps) for s in range(step)] for c in (trunk, cell.config)]
        assert rates[0] == rates[1]
        assert cell.config.optim.learning_rate(step + 1, cell.steps) < trunk.optim.learning_rate(step + 1, trunk.train.steps)
    assert {c.config.optim.warmup for c in made.cells} == {round(0.2 * 6)}


def test_axes_change_one_thing(asked: dict[str, Any], corpora: list[Path], tmp_path: Path) -> None:
    asked["base"]["data"]["corpora"].append({"path": str(corpora[1])})
    axis = {"budgets": 1, "sizes": 5}
    axes: dict[str, Any] = {
        "patch": {"values": [2], **axis},
        "frames": {"values": [3], **axis},
        "unique": {"values": [0.25], **axis},
        "mixture": {"values": [[3, 1]], **axis},
        "stride": {"values": [2], **axis},
    }
    made = design(asked | {"isoflop": ISOFLOP | {"top": 4e10}, "axes": axes}, tmp_path)
    base = Mixture(made.corpora, made.base.data, 0)
    first = made.cells[0]
    assert first.axes == {"patch": 4, "frames": 4, "unique": 1.0, "mixture": [1.0, 1.0], "stride": 1}
    for name in axes:
        cells = [c for c in made.cells if c.part == name]
        assert len(cells) >= 4
        data, here = cells[0].config.data, Mixture(made.corpora, cells[0].config.data, 0)
        assert all(c.axes == first.axes | {name: axes[name]["values"][0]} for c in cells)
        if name in ("patch", "frames"):
            assert getattr(data, name) == axes[name]["values"][0]
            assert np.allclose(here.sizes, base.sizes, atol=1)
        if name == "unique":
            assert [c.limit for c in data.corpora] == [round(0.25 * len(c.entries("train"))) for c in made.corpora]
            assert all(few < all_ for few, all_ in zip(here.epoch_windows, base.epoch_windows, strict=True))
        if name == "mixture":
            assert [c.weight for c in data.corpora] == [3, 1]
        if name == "stride":
            assert [w.stride for w in here.windows] == [2, 2]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "there is nothing to fit; add isoflop, grid or trunks"),
        ({"isoflp": {}}, "unknown key isoflp; did you mean isoflop?"),
        ({"isoflop": ISOFLOP | {"spann": 3}}, r"unknown key isoflop.spann; did you mean span\?"),
        ({"isoflop": ISOFLOP | {"count": 2, "ratio": 9.0}}, "isoflop has 2 budgets, and a power law of its minima needs 3"),
        ({"isoflop": ISOFLOP | {"ratio": 1.5}}, r"span a factor of 2.25; an exponent needs 8 or more"),
        ({"isoflop": ISOFLOP, "min_steps": 60}, "raise the budget"),
        ({"isoflop": ISOFLOP | {"span": 1.01}}, "all sizes are the same after rounding to the ladder"),
        ({"isoflop": ISOFLOP | {"sizes": 3}}, "a minimum needs 2 on each side"),
        ({"isoflop": ISOFLOP | {"tokens_per_param": 1e6}}, "smaller and . larger than the expected minimum"),
        ({"isoflop": ISOFLOP | {"budgets": [1e9]}}, "budgets and top both say"),
        ({"isoflop": ISOFLOP | {"top": 3e11}}, r"the budget is 1e\+12; raise budget, or lower isoflop.top .* cut isoflop to \d+% of it"),
        ({"isoflop": ISOFLOP, "hold_out": {"flops": [1e9]}}, "not more than the dearest run of the fit"),
        ({"isoflop": ISOFLOP, "axes": {"patch": {"values": [4]}}}, "axes.patch: 4 changes nothing"),
        ({"isoflop": ISOFLOP, "axes": {"mixture": {"values": [[1, 2]]}}}, r"\[1.0, 2.0\] has 2 weights for 1 corpora"),
        ({"isoflop": ISOFLOP, "axes": {"unique": {"values": [1.0]}}}, "expected shares above 0 and below 1"),
        ({"trunks": TRUNKS, "axes": {"patch": {"values": [2]}}}, "axes are varied at the budgets of isoflop"),
        ({"trunks": TRUNKS | {"sizes": [6e4, 6e4 + 1]}}, "trunks has 1 different sizes"),
        ({"grid": {"points": 1, "sizes": [6e4, 9e4, 2e5]}}, "3 runs enter the fit, and it has 5 parameters"),
        (
            {"grid": {"points": 1, "sizes": [6e4, 8e4, 2e5, 3e5, 4.3e5]}},
            "cannot tell E, A, B, alpha and beta apart: all have the same tokens",
        ),
        ({"grid": {}}, "set ladder.largest, or grid.sizes"),
        ({"trunks": TRUNKS, "budget": {"device_hours": 1}}, "device_hours says nothing of FLOPs without peak"),
        ({"trunks": TRUNKS, "budget": {}}, "expected one of flops and device_hours"),
        ({"trunks": TRUNKS, "warmup": 0.9}, "are more than the whole run"),
        ({"trunks": TRUNKS, "base": 3}, "expected the path of a config file"),
    ],
)
def test_what_cannot_teach_is_refused(
    asked: dict[str, Any], change: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, said, code = plan(asked | change, tmp_path, capsys)
    assert code == 2
    assert not out
    assert not (tmp_path / "sweep").exists()
    with pytest.raises(UserError, match=why):
        raise UserError(said)
    assert said.count("\n") == 1


def test_short_and_long_runs_are_left_out_with_the_reason(asked: dict[str, Any], tmp_path: Path) -> None:
    lengths = {"sizes": [6e4, 9e4, 2e5], "points": 4, "ratio": 2.0, "steps": 40}
    made = design(asked | {"grid": lengths, "max_steps": 30}, tmp_path)
    assert {c.steps for c in made.cells} == {20, 10}
    assert {d["reason"] for d in made.dropped} == {"more than max_steps 30", "fewer than min_steps 6"}


def test_a_budget_without_a_top_is_filled(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"isoflop": {"count": 3, "sizes": 5}, "hold_out": {}, "seeds": {}, "lr": {}, "axes": {"unique": {"values": [0.5]}}}
    found, _, code = plan(asked | parts, tmp_path, capsys)
    assert code == 0
    assert 0.8 < found["cost"]["share"] <= 1


def test_data_read_often_is_said(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked["base"]["data"]["corpora"][0]["limit"] = 1
    found, _, _ = plan(asked | {"isoflop": ISOFLOP}, tmp_path, capsys)
    assert any("passes its data" in w for w in found["warnings"])
    assert any("no run is repeated" in w for w in found["warnings"])
    assert any("no larger run is held out" in w for w in found["warnings"])


def test_the_forecast_is_the_fisher_information() -> None:
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e6, 1e9, 4)))
    prior = PriorConfig(alpha=0.34, beta=0.5, floor=0.4, sigma=0.01)
    n0, d0 = (np.exp(np.mean(np.log(x))) for x in (params, tokens))

    def log_loss(theta: np.ndarray) -> np.ndarray:
        e, a, b, alpha, beta = np.exp(theta)
        return np.log(e + a * (params / n0) ** -alpha + b * (tokens / d0) ** -beta)

    theta = np.log([0.4, 0.3, 0.3, 0.34, 0.5])
    steps = 1e-6 * np.eye(5)
    jacobian = np.stack([(log_loss(theta + s) - log_loss(theta - s)) / 2e-6 for s in steps], 1)
    widths = 2 * LEVEL * 0.01 * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    assert list(forecast(params, tokens, prior).widths.values()) == pytest.approx(widths.tolist(), rel=1e-5)
    with pytest.raises(UserError, match="hardly vary apart from each other"):
        forecast(params, 20 * params, PriorConfig())


def test_the_ladder_counts_what_the_model_has(corpora: list[Path], asked: dict[str, Any], tmp_path: Path) -> None:
    made = design(asked | {"trunks": TRUNKS}, tmp_path)
    ladder = Ladder(ModelConfig(), made.vocabulary, (12, 60))
    rungs = ladder.rungs(5e4, 5e7)
    assert [s.params for s in rungs] == sorted({s.params for s in rungs})
    for shape in rungs[::5]:
        assert parameters(shape.of(ModelConfig()), made.vocabulary)["total"] == shape.params
    for shape in rungs:
        assert shape.of(ModelConfig()).resolved() == (shape.depth, shape.width, shape.heads)
        assert shape.depth >= 2
        assert shape.width % 32 == 0
        assert 12 <= shape.width / shape.depth <= 60
    assert ladder.nearest(1) == ladder.nearest(rungs[0].params) == rungs[0]
    for target in (1e6, 2e7, 1e9):
        assert abs(np.log(ladder.nearest(target).params / target)) < 0.15
    with pytest.raises(UserError, match=r"widen ladder\.aspect"):
        Ladder(ModelConfig(), Vocabulary({}, {}), (20, 60))


def test_the_sweep_that_is_shipped_can_be_read() -> None:
    config, base = load_sweep(Path("configs/sweep.yaml"), ["isoflop.sizes=7"])
    assert config.isoflop
    assert config.isoflop.sizes == 7
    assert copy.deepcopy(config.base) == {k: v for k, v in base.to_json().items() if k != "run"}
