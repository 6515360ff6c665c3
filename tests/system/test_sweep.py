"""A real sweep from the command line: simulated physics, planned, run by two workers, killed and resumed, fitted, reported, asked for
more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.drill

SWEEP = {
    "sweep": "sweep",
    "base": "base.yaml",
    "budget": {"flops": 1.5e12},
    "min_steps": 20,
    "warmup": 0.1,
    "decay": 0.2,
    "ladder": {"aspect": [8, 64]},
    "isoflop": {"top": 8e10, "ratio": 3.0, "count": 3, "sizes": 5, "span": 4.0},
    "trunks": {"sizes": [7e4, 1.5e5, 3e5], "points": 5, "ratio": 1.6, "steps": 200},
    "seeds": {"cells": 1, "repeats": 2},
    "hold_out": {"ratio": 2.5},
}
BASE = {
    "run": "base",
    "data": {"frames": 6, "tokens": 160, "patch": 8, "corpora": [{"path": "corpora/ns"}]},
    "train": {"groups": 1, "validate_every": 100000, "validate_windows": 32, "checkpoint_every": 20, "keep": 1, "threads": 1},
    "optim": {"lr": 3e-3},
    "report": {"mlflow": False},
}


def scigpt(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scigpt.launch.cli", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def answer(folder: Path, *words: str) -> dict[str, Any]:
    process = scigpt(folder, *words, "--json")
    out, _ = process.communicate()
    assert process.returncode == 0, words
    return json.loads(out)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """By row, without what the clock says."""
    found = {file.parent.name: json.loads(file.read_text()) for file in folder.glob("sweep/runs/*/result.json")}
    return {name: {k: v for k, v in result.items() if k not in ("seconds", "branch_from")} for name, result in found.items()}


def test_a_sweep_from_plan_to_prediction(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    answer(tmp_path, "data", "make", "navier-stokes", "--out", "corpora/ns", "grid=32", "train=96", "valid=8", "test=2", "ood=1")
    plan = answer(tmp_path, "sweep", "plan", "sweep.yaml")
    assert plan["rows"] >= 20
    assert plan["branches"]["share"] <= 0.6

    process = scigpt(tmp_path, "sweep", "run", "sweep", "--workers", "2")
    while process.poll() is None and len(results(tmp_path)) < 6:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = results(tmp_path)
    time.sleep(2.0)  # its workers and their runs end with it
    assert results(tmp_path) == before
    told = answer(tmp_path, "sweep", "run", "sweep", "--workers", "2")
    after = results(tmp_path)
    assert len(after) == plan["rows"], told
    assert {name: after[name] for name in before} == before

    rows = {r["id"]: r for r in json.loads((tmp_path / "sweep" / "table.json").read_text())["rows"]}
    for name, row in rows.items():
        assert after[name]["status"] == "finished"
        assert after[name]["flops"]["total"] == row["flops"]
        assert after[name]["own_flops"] == row["own_flops"]
        assert after[name]["data"]["tokens"] == row["tokens"]

    branches = [r for r in rows.values() if r["role"] == "anneal"]
    alone = {}
    for row in branches[:2]:
        config = row["config"]
        config["run"] = f"alone/{row['id']}"
        config["train"]["branch_from"] = None
        (tmp_path / "alone.yaml").write_text(yaml.safe_dump(config))
        answer(tmp_path, "pretrain", "alone.yaml")
        alone[row["id"]] = json.loads((tmp_path / config["run"] / "result.json").read_text())["score"]
    assert alone == {name: after[name]["score"] for name in alone}  # to the last bit

    fitted = answer(tmp_path, "sweep", "fit", "sweep", "--flops", "1e12", "--resamples", "300")
    assert fitted["points"] + len(fitted["dropped"]) + fitted["held_out_points"] == plan["rows"]
    assert fitted["held_out_points"] == 1
    assert fitted["parameters"]["E"]["value"] >= 0
    report = answer(tmp_path, "sweep", "report", "sweep")
    page = (tmp_path / "sweep" / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64") >= 5, report
    predicted = answer(tmp_path, "sweep", "predict", "sweep", "--flops", "1e12", "--out", "next.yaml")
    assert predicted
    answer(tmp_path, "plan", "next.yaml")
    status = answer(tmp_path, "sweep", "status", "sweep")
    assert status
