"""The folder of a run: who may write it, and which configuration it belongs to."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from scigpt.data.files import write_bytes
from scigpt.errors import UserError
from scigpt.train.config import RunConfig, differences, load

CONFIG, CHECKPOINTS, METRICS, LEDGER, INCIDENTS = "config.yaml", "checkpoints", "metrics.jsonl", "ledger/groups.jsonl", "incidents"
LOCK, SLURM = "lock", "slurm"

_log = logging.getLogger(__name__)


def settled(config: RunConfig, width: int) -> RunConfig:
    """The configuration with `data.data_width` stated: as the run was begun, or `width`, the number of data-parallel processes now."""
    if config.data.data_width is not None:
        return config
    file = Path(config.run) / CONFIG
    begun = load(file).data.data_width if file.exists() else None
    return replace(config, data=replace(config.data, data_width=begun or width))


@contextmanager
def open_run(config: RunConfig) -> Iterator[Path]:
    """Make or enter the run's folder, alone. A folder in which nothing was begun (see `begin`) is removed again.

    Raises:
        UserError: a folder that cannot be written, is in use, is something else, or was begun with another configuration.
    """
    run = Path(config.run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        if not (run / CONFIG).exists() and any(p.name not in (LOCK, SLURM) and p.suffix != ".tmp" for p in run.iterdir()):
            raise UserError(f"{run}: is not empty and has no {CONFIG}, so it is not a run; choose another folder with run=FOLDER")
        lock = open(run / LOCK, "ab")  # noqa: SIM115  closed below, when the run is over
    except OSError as error:
        raise UserError(f"{run}: the run's folder cannot be written ({error.strerror}); choose another with run=FOLDER") from None
    with lock:
        _take(lock, run)
        try:
            compare(run, config)
            yield run
        finally:
            if not (run / CONFIG).exists():
                (run / LOCK).unlink()
                with suppress(OSError):
                    run.rmdir()


def begin(run: Path, config: RunConfig) -> None:
    """From here on the folder belongs to this configuration, which `config.yaml` holds with all defaults."""
    write_bytes(run / CONFIG, config.to_yaml().encode())


def _take(lock: IO[bytes], run: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process, however it ends
    except BlockingIOError:
        raise UserError(
            f"{run}: another process is training this run; wait for it, stop it, or choose another folder with run=FOLDER"
        ) from None
    except OSError as error:
        _log.warning("%s: this file system has no locks (%s); see to it that only one job trains this run", run, error.strerror)


def compare(run: Path, config: RunConfig) -> None:
    """Refuse a configuration that is not the run's.

    Raises:
        UserError: what differs and may not.
    """
    file = run / CONFIG
    changed = differences(load(file), config) if file.exists() else []
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{run}: was begun with another configuration ({'; '.join(changed[:3])}{more}); give the same one to go on, or choose "
            f"another folder with run=FOLDER"
        )
