"""`scigpt sweep report`: a page that needs no other file, true to the runs, and told to MLflow once."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from known_sweep import FAULT, isoflop_csv
from PIL import Image

from scigpt.launch.sweep.mlflow import log_sweep
from scigpt.launch.sweep.report import report
from scigpt.launch.sweep.table import Table

PICTURES = {"isoflop", "frontier", "contour", "residuals", "held-out", "saturation", "sensitivity"}


def told(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    capsys.readouterr()
    report(path, form="chinchilla", resamples=50, json=True)
    return json.loads(capsys.readouterr().out)


def test_the_page_of_a_csv_needs_no_other_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, isoflop_csv(tmp_path / "runs.csv", noise=0.003))
    folder = tmp_path / "runs-report"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs-report", "runs.csv"]  # no MLflow store of a file
    assert {Path(p).stem for p in found["pictures"]} == PICTURES
    page = (folder / "index.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == len(PICTURES)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for encoded in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
        assert (pixels != 255).any(-1).mean() > 0.005  # something is drawn
    for line in found["summary"]:
        assert line in page
    assert page.index(found["summary"][0]) < page.index("<h2>")
    assert found["summary"][0].startswith("2.7e+19 FLOPs (the largest budget that was fitted) are best spent on")
    assert "1 of 1 held-out runs lies" in found["summary"][-1]
    assert "it has no loss" in page
    analysis = json.loads((folder / "analysis.json").read_text())
    assert f"{analysis['parameters']['alpha']['value']:.4g}" in page
    assert "Cost and failures" not in page


@pytest.fixture(scope="module")
def sweep(known_sweep: Table) -> Table:
    """With a report, told to MLflow."""
    report(known_sweep.folder, form="chinchilla", resamples=50, json=True)
    return known_sweep


def retold(table: Table) -> None:
    """To MLflow, as a second report would."""
    log_sweep(table, json.loads((table.folder / "report" / "analysis.json").read_text()), table.folder / "report")


def test_a_sweep_tells_cost_failures_and_exclusions(sweep: Table) -> None:
    page = (sweep.folder / "report" / "index.html").read_text()
    part = page[page.index("<h2>Cost and failures") : page.index("<h2>Excluded")]
    failures = part[: part.index("<details>")]
    diverged, retried, plain = (sweep.rows[i] for i in (2, 3, 4))
    assert diverged.id in failures
    assert "diverged at step" in failures
    assert retried.id in failures
    assert FAULT in failures
    assert plain.id not in failures
    assert f"{sum(r.own_flops for r in sweep.rows):.3g}" in failures
    assert diverged.id in page[page.index("<h2>Excluded") :]


def test_mlflow_holds_one_experiment_with_a_nested_run_a_row(sweep: Table) -> None:
    from mlflow.tracking import MlflowClient

    retold(sweep)
    client = MlflowClient(f"sqlite:///{sweep.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("laws/sweep")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    assert len(runs) == len(sweep.rows) + 1  # the second report has made none
    (parent,) = (r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    rows = {r.data.params["id"]: r for r in runs if r is not parent}
    assert rows.keys() == {r.id for r in sweep.rows}
    assert {r.data.tags["mlflow.parentRunId"] for r in rows.values()} == {parent.info.run_id}
    first = sweep.rows[0]
    result = json.loads((sweep.run(first.id) / "result.json").read_text())
    assert rows[first.id].data.metrics["score"] == result["score"]
    assert rows[first.id].data.metrics["validation/toys/vrmse"] == result["validation"]["toys"]["vrmse"]
    assert rows[sweep.rows[2].id].info.status == "FAILED"
    assert rows[first.id].info.status == parent.info.status == "FINISHED"
    analysis = json.loads((sweep.folder / "report" / "analysis.json").read_text())
    assert parent.data.metrics["law/alpha/value"] == analysis["parameters"]["alpha"]["value"]
    assert "report/index.html" in {a.path for a in client.list_artifacts(parent.info.run_id, "report")}


@pytest.mark.parametrize("settings", [{"tracking_uri": "http://127.0.0.1:9"}, {"tracking_uri": "nonsense://x"}, {"mlflow": False}])
def test_a_store_that_fails_is_one_warning(
    sweep: Table, settings: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    file = sweep.folder / "sweep.yaml"
    before = file.read_text()
    config = yaml.safe_load(before)
    config["base"]["report"] |= settings
    file.write_text(yaml.safe_dump(config))
    try:
        retold(sweep)
    finally:
        file.write_text(before)
    told = [r.getMessage() for r in caplog.records if "MLflow" in r.getMessage()]
    assert len(told) == ("mlflow" not in settings)
    for warning in told:
        assert warning.startswith(f"MLflow at {settings['tracking_uri']} misses the report of {sweep.folder} (")
