"""A transfer study in MLflow: a parent run with the report, and a nested run for each cell."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.launch.transfer.cells import Study
from scigpt.train.report import FILE, NOT_IN_NAMES, ReportConfig, connect, experiment_of, log_metrics

PARENT = "mlflow.parentRunId"
PARAMETERS = ("id", "kind", "task", "mode", "examples", "seed", "pretraining", "test", "parameters", "trained_parameters", "steps")
METRICS = ("vrmse", "vrmse_median", "relative_l2", "windows", "flops", "seconds")

_log = logging.getLogger(__name__)


def log_study(study: Study, config: ReportConfig, found: Mapping[str, Any], report: Path) -> None:
    """Log scores and report. The ids are kept in STUDY/mlflow.json, so a second report updates the runs of the first. A failure is one
    warning."""
    if not config.mlflow:
        return
    uri = config.tracking_uri or f"sqlite:///{study.folder.resolve() / 'mlflow.db'}"
    try:
        _log_to(study, config, uri, found, report)
    except Exception as error:  # whatever a store does, the report is there
        why = " ".join(str(error).split())[:300]
        _log.warning("MLflow at %s misses the report of %s (%s); %s holds everything", uri, study.folder, why, report)


def _log_to(study: Study, config: ReportConfig, uri: str, found: Mapping[str, Any], report: Path) -> None:
    client, file = connect(uri), study.folder / FILE
    from mlflow.entities import Param

    before = load_json(file, "the MLflow runs of a study") if file.exists() else {}
    known: dict[str, str] = before["runs"] if before.get("tracking_uri") == uri else {}
    experiment = experiment_of(client, config, f"{config.experiment}/{study.folder.resolve().name}", study.folder)

    def run_of(key: str, name: str, tags: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
        if key not in known:
            known[key] = client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id
            write_bytes(file, dump_json({"tracking_uri": uri, "runs": known}))
            client.log_batch(known[key], params=[Param(k, str(v)[:500]) for k, v in parameters.items() if v is not None])
        return known[key]

    parent = run_of("study", study.folder.resolve().name, {"scigpt.transfer": str(study.folder.resolve())}, {})
    for cell in study.cells:
        score = study.score(cell)
        if cell.kind == "pretrain" or score is None or cell.id in known:
            continue
        run = run_of(cell.id, cell.name, {PARENT: parent}, {k: score.get(k) for k in PARAMETERS})
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
