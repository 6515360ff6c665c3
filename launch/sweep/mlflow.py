"""A sweep in MLflow: one experiment, a parent run with the report, and a nested run for each row."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.launch.sweep.table import CONFIG, RUNS, Row, Table
from scigpt.train.report import FILE, NOT_IN_NAMES, ReportConfig, connect, experiment_of, log_metrics

PARENT = "scigpt.sweep"
_PARENT_RUN = "mlflow.parentRunId"

_log = logging.getLogger(__name__)


def log_sweep(table: Table, analysis: Mapping[str, Any], report: Path) -> None:
    """Log the rows, the parameters of the fit and the report. The ids are kept in SWEEP/mlflow.json, so a second report updates the
    runs of the first. A failure is one warning."""
    config = _report_config(table)
    if not config.mlflow:
        return
    uri = config.tracking_uri or f"sqlite:///{table.folder.resolve() / 'mlflow.db'}"
    try:
        _Store(table, config, uri).log(analysis, report)
    except Exception as error:  # whatever a store does, the report is there
        why = " ".join(str(error).split())[:300]
        _log.warning("MLflow at %s misses the report of %s (%s); %s holds everything", uri, table.folder, why, report)


def _report_config(table: Table) -> ReportConfig:
    from scigpt.launch.sweep.config import load_sweep

    file = table.folder / CONFIG
    return load_sweep(file)[1].report if file.is_file() else ReportConfig()


class _Store:
    """An experiment of the sweep's name in a tracking store, and the MLflow runs of its rows."""

    def __init__(self, table: Table, config: ReportConfig, uri: str) -> None:
        self.table, self.uri, self.client = table, uri, connect(uri)
        self.file = table.folder / FILE
        known = load_json(self.file, "the MLflow runs of a sweep") if self.file.exists() else {}
        self.known: dict[str, str] = known["runs"] if known.get("tracking_uri") == uri else {}
        name = f"{config.experiment}/{table.folder.resolve().name}"
        self.experiment = experiment_of(self.client, config, name, table.folder)

    def log(self, analysis: Mapping[str, Any], report: Path) -> None:
        from mlflow.entities import Param, RunTag

        tags = [RunTag(PARENT, str(self.table.folder.resolve()))]
        parent, new = self._run("sweep", self.table.folder.resolve().name)
        if new:
            self.client.log_batch(parent, tags=tags)
        for row in self.table.rows:
            file = self.table.folder / RUNS / row.id / "result.json"
            if not file.is_file():
                continue
            result = load_json(file, "the result of a run")
            run, new = self._run(row.id, row.name, parent)
            if new:
                parameters = [Param(NOT_IN_NAMES.sub("_", k), str(v)[:500]) for k, v in _parameters(row).items()]
                self.client.log_batch(run, params=parameters, tags=tags)
            self._metrics(run, _scores(result), result["step"])
            self.client.set_terminated(run, "FINISHED" if result["status"] == "finished" else "FAILED")
        self._metrics(parent, _laws(analysis), 0)
        self.client.log_artifacts(parent, str(report), report.name)
        self.client.set_terminated(parent, "FINISHED")

    def _run(self, key: str, name: str, parent: str | None = None) -> tuple[str, bool]:
        """Id of the MLflow run of a row, and whether it was made now."""
        if key in self.known:
            return self.known[key], False
        run = self.client.create_run(self.experiment, run_name=name, tags={_PARENT_RUN: parent} if parent else {}).info.run_id
        self.known[key] = run
        write_bytes(self.file, dump_json({"tracking_uri": self.uri, "runs": self.known}))
        return run, True

    def _metrics(self, run: str, values: Mapping[str, Any], step: int) -> None:
        log_metrics(self.client, run, {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}, step)


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
