"""Sweeps whose truth is known, as files: a CSV, and a folder planned by `scigpt sweep plan` with results written beside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import yaml
from runs import make_corpus, settings

from scigpt.launch.sweep.plan import plan
from scigpt.launch.sweep.table import Row, Table
from scigpt.scaling.cost import Cost
from scigpt.scaling.laws import CHINCHILLA

TRUTH = {"E": 1.8, "A": 480.0, "B": 2080.0, "alpha": 0.35, "beta": 0.37}
SMALL = {"E": 0.2, "A": 99.0, "B": 29.0, "alpha": 0.4, "beta": 0.4}
"""A surface for models of a million parameters."""
FAULT = "worker n1:7 ended with code 139"


def isoflop_csv(path: Path, noise: float = 0.0, budgets: int = 4, hold_out: bool = True) -> Path:
    """Budgets from 1e18 on, each three times the one before, 6 sizes; two runs of the smallest budget are repeated, the largest is held
    out."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(budgets + hold_out):
        budget = 1e18 * 3.0**i
        best = float(Cost().optimum(TRUTH, budget).params)
        last = i == budgets
        for n in best * (np.ones(1) if last else np.geomspace(1 / 6, 6, 6)):
            rows.append((n, budget / (6 * n), budget, "hold-out" if last else "grid"))
    rows += [(*rows[2][:3], "seed-repeat"), (*rows[3][:3], "seed-repeat")]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("params", "tokens", "flops", "role", "loss"))
        for n, d, c, role in rows:
            loss = CHINCHILLA.loss(TRUTH, {"params": np.array(n), "tokens": np.array(d)})[0, 0] * np.exp(noise * random.normal())
            out.writerow((repr(float(n)), repr(float(d)), repr(c), role, repr(float(loss))))
        out.writerow((1e8, 1e9, 6e17, "grid", ""))
    return path


def planned(folder: Path, noise: float = 0.003) -> Table:
    """A sweep of 3 isoFLOP lines, with seeds and a hold-out, whose runs have results; the third has diverged, the fourth was begun
    twice."""
    base = settings([make_corpus(folder)], folder / "x") | {"report": {"mlflow": True, "experiment": "laws"}}
    del base["run"]
    config = {
        "sweep": str(folder / "sweep"),
        "base": base,
        "budget": {"flops": 1e14},
        "isoflop": {"budgets": [3e11, 9e11, 2.7e12], "sizes": 6, "span": 6.0},
        "seeds": {},
        "hold_out": {},
        "min_span": 2.0,
        "min_steps": 50,
        "max_steps": 10**6,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    plan(folder / "sweep.yaml", json=True)
    table = Table.read(folder / "sweep")
    random = np.random.default_rng(1)
    for i, row in enumerate(table.rows):
        place = {"params": np.array(float(row.params["total"])), "tokens": np.array(float(row.tokens))}
        loss = float(CHINCHILLA.loss(SMALL, place)[0, 0] * np.exp(noise * random.normal()))
        _write_result(table, row, loss, diverged=i == 2)
        if i in (3, 4):
            _write_attempts(table.folder / "rows" / row.id, ["fault", "finished"] if i == 3 else ["finished"])
    return table


def _write_result(table: Table, row: Row, loss: float, diverged: bool) -> None:
    run = table.run(row.id)
    run.mkdir(parents=True)
    data = {"samples": row.samples, "tokens": row.tokens, "values": row.values, "unique_samples": row.unique_samples, "epochs": row.epochs}
    result = {
        "schema_version": 1,
        "status": "diverged" if diverged else "finished",
        "step": row.steps // 2 if diverged else row.steps,
        "steps": row.steps,
        "loss": loss,
        "validation": {"toys": {"loss": loss, "vrmse": 2 * loss, "windows": 4}},
        "score": loss,
        "parameters": row.params,
        "data": data | {"corpora": {"toys": data}},
        "flops": {"total": row.flops},
        "own_flops": row.own_flops,
        "seconds": row.own_flops / 1e9,
        "processes": 1,
        "branch_from": None,
        "branch_step": None,
        "skipped_steps": 0,
    }
    (run / "result.json").write_text(json.dumps(result))


def _write_attempts(folder: Path, outcomes: list[str]) -> None:
    folder.mkdir(parents=True)
    lines = []
    for i, outcome in enumerate(outcomes):
        lines.append({"begin": 100.0 * i, "worker": "n1:7", "token": str(i), "devices": 1, "checkpoint": None})
        lines.append({"token": str(i), "end": 100.0 * i + 36, "outcome": outcome, "reason": FAULT if outcome == "fault" else None})
    (folder / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
