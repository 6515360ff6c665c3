"""A sweep in MLflow: one experiment, a parent run with the report, and a nested run for each row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scigpt.data.files import load_json
from scigpt.launch.nested_runs import PARENT_RUN, NestedRuns, tell
from scigpt.launch.sweep.table import CONFIG, RUNS, Row, Table
from scigpt.train.report import NOT_IN_NAMES, ReportConfig, log_metrics

PARENT = "scigpt.sweep"


def log_sweep(table: Table, analysis: Mapping[str, Any], report: Path) -> None:
    """Log the rows, the parameters of the fit and the report."""
    tell(table.folder, _report_config(table), report, lambda runs: _log_to(runs, table, analysis, report))


def _report_config(table: Table) -> ReportConfig:
    from scigpt.launch.sweep.config import load_sweep

    file = table.folder / CONFIG
    return load_sweep(file)[1].report if file.is_file() else ReportConfig()


def _log_to(runs: NestedRuns, table: Table, analysis: Mapping[str, Any], report: Path) -> None:
    from mlflow.entities import Param, RunTag

    client, tags = runs.client, [RunTag(PARENT, str(table.folder.resolve()))]
    parent, new = runs.run("sweep", table.folder.resolve().name, {})
    if new:
        client.log_batch(parent, tags=tags)
    for row in table.rows:
        file = table.folder / RUNS / row.id / "result.json"
        if not file.is_file():
            continue
        result = load_json(file, "the result of a run")
        run, new = runs.run(row.id, row.name, {PARENT_RUN: parent})
        if new:
            parameters = [Param(NOT_IN_NAMES.sub("_", k), str(v)[:500]) for k, v in _parameters(row).items()]
            client.log_batch(run, params=parameters, tags=tags)
        log_metrics(client, run, _known(_scores(result)), result["step"])
        client.set_terminated(run, "FINISHED" if result["status"] == "finished" else "FAILED")
    log_metrics(client, parent, _known(_laws(analysis)), 0)
    client.log_artifacts(parent, str(report), report.name)
    client.set_terminated(parent, "FINISHED")


def _known(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}


def _parameters(row: Row) -> dict[str, Any]:
    about = {"id": row.id, "role": row.role, "group": row.group, "parent": row.parent, "branch_step": row.branch_step, "budget": row.budget}
    model, train, optim = (row.config.get(part, {}) for part in ("model", "train", "optim"))
    shape = {f"model.{k}": model.get(k) for k in ("depth", "width", "heads")}
    schedule = {
        "train.steps": train.get("steps"),
        "optim.lr": optim.get("lr"),
        "optim.warmup": optim.get("warmup"),
        "seed": row.config.get("seed"),
    }
    return about | shape | schedule | {f"axes.{k}": v for k, v in row.axes.items()} | {f"params.{k}": v for k, v in row.params.items()}


def _scores(result: Mapping[str, Any]) -> dict[str, Any]:
    data = {k: v for k, v in result["data"].items() if k != "corpora"}
    scores = {f"validation/{corpus}/{k}": v for corpus, found in (result["validation"] or {}).items() for k, v in found.items()}
    own = {k: result[k] for k in ("loss", "score", "own_flops", "seconds")}
    return own | {"flops": result["flops"]["total"]} | data | scores


def _laws(analysis: Mapping[str, Any]) -> dict[str, Any]:
    found = {f"law/{name}/{end}": p[end] for name, p in analysis["parameters"].items() for end in ("value", "low", "high")}
    found |= {f"exponent/{name}/{end}": p[end] for name, p in analysis["exponents"].items() for end in ("value", "low", "high")}
    return found | {"law/objective": analysis["objective"], "law/points": analysis["points"], "law/sigma": analysis["sigma"]["residual"]}
