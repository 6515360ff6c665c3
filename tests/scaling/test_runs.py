"""Tables of runs: what is read from CSV, Parquet and a sweep's folder, and one sentence for whatever cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scigpt.errors import UserError
from scigpt.scaling.runs import Runs

ROWS = {"params": [1e6, 2e6, 4e6], "tokens": [1e8, 2e8, 1e8], "loss": [3.0, 2.5, 2.4]}


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_and_parquet_are_the_same_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS | {"flops": [1e15, 2e15, 3e15], "group": ["a", "a", "b"], "machine": ["x", "y", "z"]})
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_parquet(tmp_path / "runs.parquet")
    one, two = Runs.read(tmp_path / "runs.csv"), Runs.read(tmp_path / "runs.parquet")
    for runs in (one, two):
        assert {name: values.tolist() for name, values in runs.columns.items()} == {n: list(frame[n]) for n in (*ROWS, "flops")}
        assert runs.clusters[0] == runs.clusters[1] != runs.clusters[2]
        assert runs.ignored == ("machine",)
        assert runs.count is None
    assert one.ids == ("line 2", "line 3", "line 4")


def test_roles(tmp_path: Path) -> None:
    """A hold-out is kept out of the fit, a probe out of the table, a run without a loss is dropped with its reason."""
    text = "id,params,tokens,loss,role\na,1e6,1e8,3,grid\nb,2e6,1e8,2.8,hold-out\nc,1e6,1e8,9,lr-probe\nd,3e6,1e8,,\ne,3e6,1e8,2.7,\n"
    runs = Runs.read(csv(tmp_path / "runs.csv", text))
    assert runs.ids == ("a", "b", "e")
    assert (runs.fitted().ids, runs.held_out().ids) == (("a", "e"), ("b",))
    reasons = {d["row"]: d["reason"] for d in runs.dropped}
    assert reasons == {"c": "a learning-rate probe is not trained at the rate of the sweep", "d": "it has no loss"}


def test_seeds_give_the_noise(tmp_path: Path) -> None:
    losses = [2.0, 2.02, 1.98, 3.0, 3.03]
    runs = Runs.of(loss=losses, params=[1e6] * 3 + [2e6] * 2, tokens=[1e8] * 5)
    logs = np.log(losses)
    pooled = math.sqrt((np.var(logs[:3]) * 3 + np.var(logs[3:]) * 2) / 3)
    assert runs.seed_sigma() == pytest.approx(pooled)
    assert Runs.of(**ROWS).seed_sigma() is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("parameters,tokens,loss\n1,1,1\n", "has no column 'params'; rename 'parameters' if that is it"),
        ("params,tokens,loss\n1e6,1e8,-2\n", r"loss is -2 in run line 2; expected a positive number"),
        ("params,tokens,loss\n1e6,1e8,nan\n", r"loss is nan in run line 2; expected a positive number"),
        ("params,tokens,loss\n1e6,1e8,0\n1e6,1e8,0\n", r"loss is 0 in run line 2 \(and in 1 more\); expected a positive number"),
        ("params,tokens,loss\n1e6,1e8,much\n", "loss is 'much' in line 2; expected a positive number in every run"),
        ("params,tokens,loss\n,1e8,2\n", "params is empty in line 2; expected a positive number in every run"),
        ("params,tokens,loss,role\n1e6,1e8,2,holdout\n", "the role 'holdout' of run line 2 is unknown; did you mean hold-out?"),
        ("params,tokens,loss\n1e6,1e8,\n", "has no run with a loss; line 2: it has no loss"),
        ("", "cannot be read as csv"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Runs.read(csv(tmp_path / "runs.csv", text))


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no table.json; expected a sweep folder, a .csv or a .parquet file"):
        Runs.read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        Runs.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"ends with .txt; expected a sweep folder"):
        Runs.read(csv(tmp_path / "runs.txt", "params,tokens,loss\n"))
    with pytest.raises(UserError, match="cannot be read as parquet"):
        Runs.read(csv(tmp_path / "runs.parquet", "no parquet"))


def row(name: str, role: str, **more: object) -> dict[str, object]:
    config = {"data": {"patch": 8, "frames": 6}, "optim": {"decay": 0.2}}
    return {"id": name, "role": role, "group": more.pop("group", name), "axes": {}, "steps": 100, "config": config, **more}


def result(score: float, step: int = 100, status: str = "finished") -> dict[str, object]:
    data = {"samples": 400, "tokens": 8000, "values": 1, "unique_samples": 100, "epochs": 4.0}
    return {
        "status": status, "step": step, "score": score, "data": data, "flops": {"total": 1e12, "backbone": 9e11},
        "parameters": {"backbone": 700, "embedding": 200, "head": 100, "total": 1000},
    }  # fmt: skip


def test_a_sweep_is_its_table_and_its_results(tmp_path: Path) -> None:
    rows = [
        row("a", "trunk"), row("b", "anneal", group="a"), row("c", "hold-out"), row("d", "lr-probe"), row("e", "grid"), row("f", "grid"),
        row("g", "grid", axes={"patch": 4}),
    ]  # fmt: skip
    (tmp_path / "table.json").write_text(json.dumps({"rows": rows}))
    for name, found in {
        "a": result(0.5), "b": result(0.4), "c": result(0.2), "d": result(9.0), "e": result(0.1, 40, "diverged"), "g": result(0.3),
    }.items():  # fmt: skip
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(found))
    runs = Runs.read(tmp_path, "backbone")
    assert runs.ids == ("a", "b", "c", "g")
    assert runs.clusters[0] == runs.clusters[1] != runs.clusters[2]
    assert runs["params"].tolist() == [700.0] * 4
    assert Runs.read(tmp_path / "table.json")["params"].tolist() == [1000.0] * 4
    assert runs["unique_tokens"].tolist() == [2000.0] * 4
    assert runs["patch"].tolist() == [8, 8, 8, 4]
    reasons = {d["row"]: d["reason"] for d in runs.dropped}
    assert reasons["e"] == "it diverged at step 40"
    assert reasons["f"] == "it is not finished"
    assert "learning-rate probe" in reasons["d"]
