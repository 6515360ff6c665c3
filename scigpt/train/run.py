"""The folder of a run: who may write it, and which configuration it belongs to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scigpt.data.files import write_bytes
from scigpt.errors import UserError
from scigpt.train.config import RunConfig, differences, load

CONFIG, CHECKPOINTS, METRICS, LEDGER, INCIDENTS = "config.yaml", "checkpoints", "metrics.jsonl", "ledger/groups.jsonl", "incidents"


@contextmanager
def open_run(config: RunConfig) -> Iterator[Path]:
    """Make or enter the run's folder, alone, with its resolved configuration in `config.yaml`.

    Raises:
        UserError: a folder that cannot be written, is in use, is something else, or was begun with another configuration.
    """
    run = Path(config.run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{run}: the run's folder cannot be made ({error.strerror}); choose another with run=FOLDER") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process, however it ends
        except BlockingIOError:
            raise UserError(
                f"{run}: another process is training this run; wait for it, stop it, or choose another folder with run=FOLDER"
            ) from None
        _settle(run, config)
        yield run
    finally:
        os.close(descriptor)


def _settle(run: Path, config: RunConfig) -> None:
    file = run / CONFIG
    if file.exists():
        changed = differences(load(file), config)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise UserError(
                f"{run}: was begun with another configuration ({'; '.join(changed[:3])}{more}); give the same one to go on, or choose "
                f"another folder with run=FOLDER"
            )
    elif any(p.suffix != ".tmp" for p in run.iterdir()):
        raise UserError(f"{run}: is not empty and has no {CONFIG}, so it is not a run; choose another folder with run=FOLDER")
    try:
        write_bytes(file, config.to_yaml().encode())
    except OSError as error:
        raise UserError(f"{run}: cannot be written ({error.strerror}); choose another folder with run=FOLDER") from None
