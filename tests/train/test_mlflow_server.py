"""Reports to a real MLflow server: one run across restarts, and nothing that happens to the server reaches the training."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from jobs import finish, log, wait_for
from runs import config, history, ledger, lines, settings, write

from scigpt.train.engine import train

STEPS = 600
OPTIONS = {"steps": STEPS, "validate_every": STEPS, "checkpoint_every": 50}


class Server:
    """`mlflow server` on loopback, with its store in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", self.uri.rpartition(":")[2], "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
        with open(folder / "server.log", "wb") as out:
            environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, start_new_session=True, env=environment)
        while not self._answers():
            assert self.process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()

    def runs(self, experiment: str) -> list[Any]:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(experiment)
        return client.search_runs([found.experiment_id]) if found else []

    def losses(self, run_id: str) -> dict[int, float]:
        from mlflow.tracking import MlflowClient

        return {m.step: m.value for m in MlflowClient(self.uri).get_metric_history(run_id, "loss")}


def start(corpora: list[Path], run: Path, uri: str) -> subprocess.Popen[bytes]:
    report = {"mlflow": True, "tracking_uri": uri, "experiment": run.parent.name}
    file = write(settings(corpora, run, **OPTIONS) | {"report": report}, run.with_suffix(".yaml"))
    with open(run.with_suffix(".log"), "ab") as out:
        command = [sys.executable, "-m", "scigpt.launch.cli", "pretrain", str(file), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out)


@pytest.fixture(scope="module")
def whole(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without MLflow."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(config(corpora, run, **OPTIONS))
    return run


def reported(server: Server, run: Path) -> dict[int, float]:
    """Losses that have reached the server."""
    file = run / "mlflow.json"
    return server.losses(json.loads(file.read_text())["run_id"]) if file.exists() else {}


def test_one_run_across_a_restart_and_none_the_worse_for_a_killed_server(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    server, run = Server(tmp_path), tmp_path / "run"
    try:
        first = start(corpora, run, server.uri)
        wait_for(first, lambda: bool(reported(server, run)))
        first.send_signal(signal.SIGTERM)
        first.communicate()
        assert first.returncode == 75, log(run)
        (only,) = server.runs(tmp_path.name)
        assert only.info.status == "KILLED"
        stopped = len(lines(run))
        assert reported(server, run) == {line["step"]: line["loss"] for line in lines(run)}
        assert "misses metrics" not in log(run)
        second = start(corpora, run, server.uri)
        wait_for(second, lambda: len(reported(server, run)) > stopped)
        (again,) = server.runs(tmp_path.name)
        assert (again.info.run_id, again.info.status) == (only.info.run_id, "RUNNING")
        server.signal(signal.SIGKILL)
        assert finish(second, run)["status"] == "finished"
    finally:
        server.close()
    assert history(run) == history(whole)
    assert ledger(run) == ledger(whole)
    assert log(run).count(f"MLflow at {server.uri} misses metrics of this run") == 1


@pytest.mark.drill
def test_a_server_that_hangs_changes_nothing(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    server, run = Server(tmp_path), tmp_path / "run"
    try:
        job = start(corpora, run, server.uri)
        wait_for(job, lambda: bool(reported(server, run)))
        server.signal(signal.SIGSTOP)
        assert finish(job, run)["status"] == "finished"
    finally:
        server.close()
    assert history(run) == history(whole)
    assert log(run).count(f"MLflow at {server.uri} misses metrics of this run") == 1
