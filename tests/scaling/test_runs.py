"""A table of runs is read from a sweep and from files, and what is wrong with it is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scigpt.errors import UserError
from scigpt.scaling.runs import Runs

HEADER = "params,tokens,loss"


def csv(folder: Path, *lines: str) -> Path:
    file = folder / "runs.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_csv_and_parquet_are_the_same_table(tmp_path: Path) -> None:
    lines = ["id,params,tokens,loss,flops,group,role,width", "a,1e6,2e7,3.5,1.2e14,t1,grid,64", "b,2e6,2e7,3.25,2.4e14,t1,hold-out,128"]
    text = Runs.read(csv(tmp_path, *lines))
    frame = pd.DataFrame({
        "id": ["a", "b"], "params": [1_000_000, 2_000_000], "tokens": [2e7, 2e7], "loss": [3.5, 3.25],
        "flops": [1.2e14, 2.4e14], "group": ["t1", "t1"], "role": ["grid", "hold-out"], "width": [64, 128],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "runs.parquet")
    binary = Runs.read(tmp_path / "runs.parquet")
    for runs in (text, binary):
        assert (runs.ids, runs.roles, runs.ignored, runs.groups) == (("a", "b"), ("grid", "hold-out"), ("width",), 1)
        assert {name: list(values) for name, values in runs.columns.items()} == {
            "params": [1e6, 2e6], "tokens": [2e7, 2e7], "loss": [3.5, 3.25], "flops": [1.2e14, 2.4e14],
        }  # fmt: skip
        assert runs.fitted().ids == ("a",)
        assert runs.held_out().ids == ("b",)


def test_runs_without_a_loss_and_probes_are_dropped_with_a_reason(tmp_path: Path) -> None:
    lines = [HEADER + ",role", "1e6,2e7,3.5,", "2e6,2e7,,grid", "3e6,2e7,3.1,lr-probe"]
    for file in (csv(tmp_path, *lines), tmp_path / "runs.parquet"):
        if file.suffix == ".parquet":
            frame = {"params": [1e6, 2e6, 3e6], "tokens": [2e7] * 3, "loss": [3.5, None, 3.1], "role": [None, "grid", "lr-probe"]}
            pd.DataFrame(frame).convert_dtypes().to_parquet(file)
        runs = Runs.read(file)
        assert len(runs) == 1
        assert runs.roles == ("grid",)
        first, second = runs.dropped
        assert first["reason"] == "it has no loss"
        assert "learning-rate probe" in second["reason"]
    assert Runs.read(csv(tmp_path, *lines)).dropped[0]["row"] == "line 3"


def test_runs_without_a_group_stand_alone(tmp_path: Path) -> None:
    runs = Runs.read(csv(tmp_path, HEADER + ",group", "1,1,1,t1", "1,1,1,", "1,1,1,t1", "1,1,1,"))
    assert runs.groups == 3
    assert runs.clusters[0] == runs.clusters[2]
    assert runs.select(np.array([0, 2])).groups == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["params,tokens,val_loss", "1,1,1"], "has no column 'loss'; rename 'val_loss' if that is it"),
        (["Params,tokens,loss", "1,1,1"], "has no column 'params'; rename 'Params' if that is it"),
        (["a,tokens,loss", "1,1,1"], "has no column 'params'; it has 'a', 'tokens', 'loss'"),
        ([HEADER, "1,1,2", "1,1,0", "1,1,-1"], r"loss is 0 in run line 3 \(and in 1 more\); expected a positive number; leave the cell"),
        ([HEADER, "1,1,nan"], "loss is nan in run line 2"),
        ([HEADER, "1,inf,2"], "tokens is inf in run line 2; expected a positive number$"),
        ([HEADER, "-7,1,2"], "params is -7 in run line 2"),
        ([HEADER, "7M,1,2"], "params is '7M' in line 2; expected a positive number in every run"),
        ([HEADER, ",1,2"], "params is empty in line 2"),
        ([HEADER + ",flops", "1,1,2,5", "1,1,2,"], "flops is empty in line 3"),
        ([HEADER + ",role", "1,1,2,holdout"], "the role 'holdout' of run line 2 is unknown; did you mean hold-out?"),
        ([HEADER], "has no run with a loss$"),
        ([HEADER, "1,1,", "1,2,"], r"has no run with a loss; line 2: it has no loss \(and in 1 more\)"),
        ([HEADER, "1,1,2,3,4"], "cannot be read as csv"),
        ([""], "cannot be read as csv"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Runs.read(csv(tmp_path, *lines))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; expected a sweep folder"):
        Runs.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"has no table\.json"):
        Runs.read(tmp_path)
    (tmp_path / "runs.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"ends with .xlsx; expected"):
        Runs.read(tmp_path / "runs.xlsx")
    for name in ("runs.parquet", "runs.csv"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00 no table\n\x80")
        with pytest.raises(UserError, match=r"cannot be read as|has no column"):
            Runs.read(tmp_path / name)
    (tmp_path / "table.json").write_text("{")
    with pytest.raises(UserError, match=r"table.json cannot be read"):
        Runs.read(tmp_path)


def test_columns_of_other_lengths() -> None:
    with pytest.raises(UserError, match="column params has 2 rows and loss has 3"):
        Runs.of(loss=[1, 2, 3], params=[1, 2])


def test_seed_sigma_is_pooled_over_cells() -> None:
    assert Runs.of(loss=[1, 2, 3], params=[1, 2, 3], tokens=[1, 1, 1]).seed_sigma() is None
    first, second = np.array([1.0, 1.01, 0.99]), np.array([2.0, 2.02])
    tokens = [5e6, 5e6 * 1.001, 5e6 * 0.999, 7e6, 7e6, 7e6]  # other seeds draw other windows
    runs = Runs.of(loss=[*first, *second, 4.0], params=[1e5] * 3 + [2e5] * 2 + [4e5], tokens=tokens)
    by_hand = np.sqrt((2 * np.log(first).var(ddof=1) + np.log(second).var(ddof=1)) / 3)
    assert runs.seed_sigma() == pytest.approx(by_hand, rel=1e-12)


def sweep(folder: Path) -> None:
    """Seven rows: finished, diverged, under way, not begun, a probe, a trunk at constant rate, a hold-out."""
    rows: list[dict[str, Any]] = []
    roles = ["grid", "grid", "grid", "grid", "lr-probe", "trunk", "hold-out"]
    for number, role in enumerate(roles):
        config = {"data": {"patch": 8, "frames": 4}, "optim": {"decay": 0.0 if role == "trunk" else 0.2}}
        axes = {"patch": 4} if number == 0 else {}
        rows.append({"id": f"row{number}", "role": role, "group": f"g{number // 2}", "steps": 10, "config": config, "axes": axes})
        if number == 3:
            continue
        result = {
            "status": "diverged" if number == 1 else "finished",
            "step": 6 if number in (1, 2) else 10,
            "score": None if number == 1 else 0.5 + number,
            "parameters": {"total": 1000, "backbone": 700},
            "data": {"samples": 20, "tokens": 640, "unique_samples": 5},
            "flops": {"total": 4_000_000, "backbone": 3_000_000},
        }
        run = folder / "runs" / f"row{number}"
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps(result))
    (folder / "table.json").write_text(json.dumps({"rows": rows}))


@pytest.mark.parametrize("name", ["", "table.json"])
def test_a_sweep_joins_its_table_with_the_results(tmp_path: Path, name: str) -> None:
    sweep(tmp_path)
    runs = Runs.read(tmp_path / name)
    assert (runs.ids, runs.roles, runs.count) == (("row0", "row6"), ("grid", "hold-out"), "total")
    assert {key: list(values) for key, values in runs.columns.items()} == {
        "params": [1000, 1000], "tokens": [640, 640], "loss": [0.5, 6.5], "flops": [4e6, 4e6], "unique_tokens": [160, 160],
        "patch": [4, 8], "context": [4, 4], "samples": [20, 20],
    }  # fmt: skip
    assert {d["row"]: d["reason"] for d in runs.dropped} == {
        "row1": "it diverged at step 6",
        "row2": "it is not finished: step 6 of 10",
        "row3": "it is not finished",
        "row4": "a learning-rate probe is not trained at the rate of the sweep",
        "row5": "a trunk ends before its learning rate falls: its loss is not comparable with that of its branches",
    }
    assert list(Runs.read(tmp_path, "backbone")["params"]) == [700, 700]
