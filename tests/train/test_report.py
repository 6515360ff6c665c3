"""What a run tells MLflow, and that no MLflow can stop it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from runs import config, lines

from scigpt.train.config import RunConfig
from scigpt.train.engine import train
from scigpt.train.report import Mlflow, ReportConfig


def reported(made: RunConfig, uri: str | None = None) -> RunConfig:
    return dataclasses.replace(made, report=ReportConfig(mlflow=True, experiment="toys", tracking_uri=uri))


def test_the_store_holds_one_run_through_restarts(corpora: list[Path], tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    run = tmp_path / "run"
    first = train(reported(config(corpora, run, steps=10)))
    assert first["mlflow"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    train(reported(config(corpora, run, steps=20)))

    client = MlflowClient(first["mlflow"])
    experiment = client.get_experiment_by_name("toys")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.info.run_id == json.loads((run / "mlflow.json").read_text())["run_id"]
    assert found.data.params["optim.lr"] == "0.01"
    assert found.data.params["data.corpora.1.path"] == str(corpora[1])
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(m["step"], m["loss"]) for m in lines(run)]
    scores = client.get_metric_history(found.info.run_id, "validation/wide/vrmse")
    assert sorted(m.step for m in scores) == [10, 20]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/none/mlflow.db", "nonsense://x"])
def test_a_store_that_fails_warns_once_and_training_goes_on(
    corpora: list[Path], tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    summary = train(reported(config(corpora, tmp_path / "run", log_every=2), uri))
    assert summary["status"] == "finished"
    assert len(lines(tmp_path / "run")) == 20
    (warning,) = [r.getMessage() for r in caplog.records if "MLflow" in r.getMessage()]
    assert warning.startswith(f"MLflow at {uri} misses metrics of this run (")


def test_without_mlflow_nothing_is_written(tmp_path: Path) -> None:
    report = Mlflow(ReportConfig(mlflow=False), tmp_path / "run", {})
    report.flush()
    report.close("FINISHED")
    assert report.uri is None
    assert list(tmp_path.iterdir()) == []
