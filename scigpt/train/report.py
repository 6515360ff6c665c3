"""Reports: a progress bar, and an MLflow run that is continued across restarts and can never stop or slow the training."""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.train.record import Step

FILE = "mlflow.json"
_PATIENCE = 15.0
"""Seconds that the end of a run waits for a slow store."""
_WAITING = 1000
"""Batches of metrics that wait for a slow store; later ones are dropped."""

NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_./ -]")
"""What MLflow does not take in a name."""
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where `--json` puts its object
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportConfig:
    """Where a run is told of.

    Args:
        mlflow: log to MLflow.
        experiment: name of the MLflow experiment.
        tracking_uri: of the MLflow store; None: an SQLite file `mlflow.db` beside the run's folder.
    """

    mlflow: bool = True
    experiment: str = "scigpt"
    tracking_uri: str | None = None


class Progress:
    """The bar on stderr: loss, tokens and FLOPs a second, share of the time spent waiting for data."""

    def __init__(self, name: str, done: int, steps: int) -> None:
        pause = 0.5 if sys.stderr.isatty() else 10.0  # a log file needs few lines
        self._bar = tqdm(total=steps, initial=done, desc=name, unit="step", file=sys.stderr, dynamic_ncols=True, mininterval=pause)
        self._mean: dict[str, float] = {}

    def step(self, done: Step) -> None:
        """One step is done; what is shown are running means."""
        for key in ("loss", "tokens", "flops", "seconds", "data_wait"):
            value = getattr(done, key)
            if math.isfinite(value):
                self._mean[key] = value if key not in self._mean else 0.95 * self._mean[key] + 0.05 * value
        m = self._mean
        self._bar.set_postfix_str(
            f"loss {m.get('loss', math.nan):.4f}, {m['tokens'] / m['seconds']:,.0f} tokens/s, "
            f"{m['flops'] / m['seconds'] / 1e9:.1f} GFLOP/s, data wait {m['data_wait'] / m['seconds']:.0%}",
            refresh=False,
        )
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


class Mlflow:
    """One MLflow run, fed by a thread of its own: importing MLflow takes seconds, a server may take minutes, training waits for neither.

    The run's id is kept in the run's folder, so a restart goes on with the same MLflow run. The first failure is a warning, later ones are
    silent.
    """

    def __init__(self, config: ReportConfig, run: Path, parameters: Mapping[str, Any]) -> None:
        self._config, self._run, self._parameters = config, run, parameters
        self.uri: str | None = _uri(config, run) if config.mlflow else None
        self._batches: queue.Queue[list[tuple[int, int, dict[str, float]]] | str] = queue.Queue(_WAITING)
        self._pending: list[tuple[int, int, dict[str, float]]] = []
        self._client: Any = None
        self._id = ""
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        if config.mlflow:
            self._thread.start()

    def log(self, line: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`: its numbers, rates per second, and what validation found."""
        seconds = max(line["seconds"], 1e-9)
        metrics = {name: line[name] for name in ("loss", "grad_norm", "lr")}
        metrics |= {"tokens_per_second": line["tokens"] / seconds, "flops_per_second": line["flops"] / seconds}
        metrics |= {"data_wait_share": line["data_wait"] / seconds, "skipped": float(line["skipped"])}
        metrics |= {f"validation/{c}/{name}": v for c, scores in line.get("validation", {}).items() for name, v in scores.items()}
        metrics |= {f"loss/{c}/{name}": v for c, losses in line.get("variables", {}).items() for name, v in losses.items()}
        known = {NOT_IN_NAMES.sub("_", name): value for name, value in metrics.items() if value is not None}
        self._pending.append((line["step"], int(time.time() * 1000), known))

    def flush(self) -> None:
        """Hand what was logged to the thread."""
        self._put(self._pending)
        self._pending = []

    def close(self, status: str) -> None:
        """End the MLflow run as FINISHED, KILLED or FAILED; waits a little for what is still on its way."""
        if not self._thread.is_alive():
            return
        self.flush()
        self._put(status)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._warn("it did not answer in time")

    def _put(self, what: list[tuple[int, int, dict[str, float]]] | str) -> None:
        try:
            self._batches.put_nowait(what)
        except queue.Full:
            self._warn("it is too slow")

    def _work(self) -> None:
        while True:
            batch = self._batches.get()
            try:
                self._connect()
                if isinstance(batch, str):
                    self._client.set_terminated(self._id, batch)
                else:
                    self._send(batch)
            except Exception as error:  # whatever a store does, training goes on
                self._warn(" ".join(str(error).split())[:300])
            if isinstance(batch, str):
                return

    def _warn(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            _log.warning("MLflow at %s misses metrics of this run (%s); training goes on, metrics.jsonl holds everything", self.uri, why)

    def _connect(self) -> None:
        """Find or make the run; tried again with every batch until it works."""
        if self._client is not None:
            return
        client = connect(self.uri)
        from mlflow.entities import Param, RunTag

        file = self._run / FILE
        known = load_json(file, "the MLflow run of a run") if file.exists() else {}
        if known.get("tracking_uri") == self.uri:
            self._id = known["run_id"]
            client.update_run(self._id, "RUNNING")
        else:
            number = experiment_of(client, self._config, self._config.experiment, self._run.parent)
            self._id = client.create_run(number, run_name=self._run.name).info.run_id
            parameters = [Param(NOT_IN_NAMES.sub("_", k), str(v)[:500]) for k, v in self._parameters.items()]
            for i in range(0, len(parameters), 100):
                client.log_batch(self._id, params=parameters[i : i + 100], tags=[RunTag("scigpt.run", str(self._run.resolve()))])
            write_bytes(file, dump_json({"tracking_uri": self.uri, "experiment": self._config.experiment, "run_id": self._id}))
        self._client = client

    def _send(self, batch: list[tuple[int, int, dict[str, float]]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, when, step) for step, when, values in batch for name, value in values.items()]
        for i in range(0, len(metrics), 1000):
            self._client.log_batch(self._id, metrics=metrics[i : i + 1000])


def log_evaluation(config: ReportConfig, run: Path, scores: Mapping[str, float], step: int, card: Path) -> None:
    """Add the scores of an evaluation and its folder to the run's MLflow run, whose status stays. A failure is one warning."""
    if not config.mlflow:
        return
    uri, file = _uri(config, run), run / FILE
    try:
        known = load_json(file, "the MLflow run of a run") if file.exists() else {}
        if known.get("tracking_uri") != uri:
            raise LookupError("it has no run that belongs to this one")
        client = connect(uri)
        log_metrics(client, known["run_id"], scores, step)
        client.log_artifacts(known["run_id"], str(card), card.name)
    except Exception as error:  # whatever a store does, the card is there
        why = " ".join(str(error).split())[:300]
        _log.warning("MLflow at %s misses the evaluation of %s (%s); %s holds everything", uri, run, why, card)


def log_metrics(client: Any, run: str, values: Mapping[str, float], step: int) -> None:
    """Numbers of one step, of this moment, in batches that MLflow takes."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()]
    for i in range(0, len(metrics), 1000):
        client.log_batch(run, metrics=metrics[i : i + 1000])


def experiment_of(client: Any, config: ReportConfig, name: str, folder: Path) -> str:
    """Id of the experiment of that name, made where there is none. Without a server its artifacts lie in the folder."""
    found = client.get_experiment_by_name(name)
    artifacts = (folder.resolve() / "mlartifacts").as_uri() if config.tracking_uri is None else None
    return str(found.experiment_id if found else client.create_experiment(name, artifacts))


def _uri(config: ReportConfig, run: Path) -> str:
    return config.tracking_uri or f"sqlite:///{run.resolve().parent / 'mlflow.db'}"


def connect(uri: str | None) -> Any:
    """A client, with MLflow kept quiet and impatient; importing it takes seconds."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(uri)
