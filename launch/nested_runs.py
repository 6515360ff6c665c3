"""MLflow runs of the parts of one thing (rows of a sweep, cells of a study), each known again when it is told once more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.train.report import FILE, ReportConfig, connect, experiment_of

PARENT_RUN = "mlflow.parentRunId"

_log = logging.getLogger(__name__)


class NestedRuns:
    """An experiment of the folder's name in a tracking store. The ids of its runs are kept in FOLDER/mlflow.json, so a second report
    updates the runs of the first."""

    def __init__(self, folder: Path, config: ReportConfig, uri: str) -> None:
        self.uri, self.client, self.file = uri, connect(uri), folder / FILE
        before = load_json(self.file, "the MLflow runs of a report") if self.file.exists() else {}
        self.known: dict[str, str] = before["runs"] if before.get("tracking_uri") == uri else {}
        self.experiment = experiment_of(self.client, config, f"{config.experiment}/{folder.resolve().name}", folder)

    def run(self, key: str, name: str, tags: Mapping[str, str]) -> tuple[str, bool]:
        """Id of the run of a part, and whether it was made now."""
        if key in self.known:
            return self.known[key], False
        self.known[key] = self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id
        write_bytes(self.file, dump_json({"tracking_uri": self.uri, "runs": self.known}))
        return self.known[key], True


def tell(folder: Path, config: ReportConfig, report: Path, log: Callable[[NestedRuns], None]) -> None:
    """Log to the store of the configuration, or to FOLDER/mlflow.db. A failure is one warning: whatever a store does, the report is
    there."""
    if not config.mlflow:
        return
    uri = config.tracking_uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    try:
        log(NestedRuns(folder, config, uri))
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        _log.warning("MLflow at %s misses the report of %s (%s); %s holds everything", uri, folder, why, report)
