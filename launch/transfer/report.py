"""The report of a transfer study: STUDY/report/index.html, pictures and outcome.json, and what MLflow is told."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from typing import Any

from scigpt.data.files import dump_json, write_bytes
from scigpt.evaluate.card import page
from scigpt.launch.sweep import words
from scigpt.launch.transfer.cells import Study
from scigpt.launch.transfer.figures import draw
from scigpt.launch.transfer.mlflow import log_study
from scigpt.launch.transfer.outcome import outcome
from scigpt.scaling.fit import RESAMPLES
from scigpt.train.report import ReportConfig

FOLDER, PAGE, OUTCOME = "report", "index.html", "outcome.json"


def report(
    study: Study,
    tasks: list[dict[str, str]],
    facts: Mapping[str, Any],
    notes: list[str],
    config: ReportConfig,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Write the report of what is done; the outcome, with the paths of page and pictures.

    Args:
        facts: of the study, for the reader: name to value.
    """
    found = outcome(study, tasks, resamples) | {"notes": notes, "facts": dict(facts)}
    folder = study.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pictures = draw(found, folder)
    write_bytes(folder / OUTCOME, dump_json(found, indent=1))
    images = {name: base64.b64encode((folder / p.file).read_bytes()).decode() for name, p in pictures.items()}
    write_bytes(folder / PAGE, render(found, pictures, images).encode())
    log_study(study, config, found, folder)
    return found | {"report": str(folder / PAGE), "pictures": [str(folder / p.file) for p in pictures.values()]}


def render(found: Mapping[str, Any], pictures: Mapping[str, Any], images: Mapping[str, str]) -> str:
    """The page; `images` are the pictures in base64."""
    filters = {n: getattr(words, n) for n in ("figure", "amount", "flops", "percent", "interval")}
    return page("scigpt.launch.transfer", "report.html", filters, a=found, pictures=pictures, images=images, rows=_rows(found))


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of scores: a row for each task and number of examples."""
    rows = []
    for task in found["tasks"]:
        examples = sorted({p["examples"] for points in task["curves"].values() for p in points})
        by = {name: {p["examples"]: p for p in points} for name, points in task["curves"].items()}
        ratios = {name: {r["examples"]: r for r in some} for name, some in task["ratios"].items()}
        for n in examples:
            scores = {name: points.get(n) for name, points in by.items()}
            known = {name: p["vrmse"]["value"] for name, p in scores.items() if p and p["vrmse"]}
            best = min(known, key=lambda m: known[m]) if known else None
            rows.append({"task": task, "examples": n, "scores": scores, "best": best, "ratios": {m: r.get(n) for m, r in ratios.items()}})
    return rows
