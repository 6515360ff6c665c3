"""A transfer study in MLflow: a parent run with the report, and a nested run for each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scigpt.launch.nested_runs import PARENT_RUN, NestedRuns, tell
from scigpt.launch.transfer.cells import Study
from scigpt.train.report import NOT_IN_NAMES, ReportConfig, log_metrics

PARAMETERS = ("id", "kind", "task", "mode", "examples", "seed", "pretraining", "test", "parameters", "trained_parameters", "steps")
METRICS = ("vrmse", "vrmse_median", "relative_l2", "windows", "flops", "seconds")


def log_study(study: Study, config: ReportConfig, found: Mapping[str, Any], report: Path) -> None:
    """Log scores and report."""
    tell(study.folder, config, report, lambda runs: _log_to(runs, study, found, report))


def _log_to(runs: NestedRuns, study: Study, found: Mapping[str, Any], report: Path) -> None:
    from mlflow.entities import Param

    client = runs.client
    parent, _ = runs.run("study", study.folder.resolve().name, {"scigpt.transfer": str(study.folder.resolve())})
    for cell in study.cells:
        score = study.score(cell)
        if cell.kind == "pretrain" or score is None or cell.id in runs.known:
            continue
        run, _ = runs.run(cell.id, cell.name, {PARENT_RUN: parent})
        client.log_batch(run, params=[Param(k, str(score[k])[:500]) for k in PARAMETERS if score.get(k) is not None])
        log_metrics(client, run, {k: float(score[k]) for k in METRICS if score.get(k) is not None}, 0)
        client.set_terminated(run, "FINISHED" if score["status"] == "finished" else "FAILED")
    log_metrics(client, parent, dict(_numbers(found)), 0)
    client.log_artifacts(parent, str(report), report.name)
    client.set_terminated(parent, "FINISHED")


def _numbers(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    numbers: dict[str, float | None] = {}
    for task in found["tasks"]:
        where = task["name"]
        if task["zero_shot"] is not None:
            numbers[f"{where}/zero-shot/vrmse"] = task["zero_shot"]["vrmse"]
        for name, points in task["curves"].items():
            numbers |= {f"{where}/{name}/{p['examples']}/vrmse": p["vrmse"]["value"] for p in points if p["vrmse"]}
        for name, rows in task["ratios"].items():
            numbers |= {f"{where}/{name}/{r['examples']}/ratio": r["value"] for r in rows}
        for name, worth in task["transfer"].items():
            if "crossing" in worth:
                numbers[f"{where}/{name}/crossing"] = worth["crossing"]["value"]
                numbers |= {f"{where}/{name}/{w['examples']:g}/multiplier": w["multiplier"]["value"] for w in worth["effective"]}
    return [(NOT_IN_NAMES.sub("_", k), v) for k, v in numbers.items() if v is not None and math.isfinite(v)]
