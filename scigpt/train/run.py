"""The folder of a run: who may write it, and which configuration it belongs to."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from scigpt.adapt.start import EXPORT, nothing_at
from scigpt.data.files import load_json, write_bytes
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Checkpoint
from scigpt.train.config import RunConfig, build, differences, load

CONFIG, CHECKPOINTS, METRICS, LEDGER, INCIDENTS = "config.yaml", "checkpoints", "metrics.jsonl", "ledger/groups.jsonl", "incidents"
RESULT = "result.json"
LOCK, SLURM = "lock", "slurm"
BRANCH_KEYS = tuple(f"{key}: " for key in ("train.steps", "optim.decay", "optim.shape"))
"""What a branch may change of its trunk, besides what any run may change."""

_log = logging.getLogger(__name__)


def settled(config: RunConfig, width: int) -> RunConfig:
    """The configuration with everything stated that follows from something else: the model of `init`, the head of the task, and
    `data.data_width`: as the run, or the trunk it branches from, was begun, or `width`, the number of data-parallel processes now."""
    return with_width(with_model(config), width)


def with_width(config: RunConfig, width: int) -> RunConfig:
    """The configuration with `data.data_width` stated."""
    if config.data.data_width is not None:
        return config
    file, begun = Path(config.run) / CONFIG, None
    if file.exists():
        begun = load(file).data.data_width
    elif config.train.branch_from is not None:
        begun = trunk_of(config)[1].data.data_width
    return replace(config, data=replace(config.data, data_width=begun or width))


def with_model(config: RunConfig) -> RunConfig:
    """The configuration with the head of its task and the shape of the model of `init`."""
    model, task, file = config.model, config.task, Path(config.run) / CONFIG
    if model.head == "point" and task.head != "point":
        counts = {"coefficients": len(task.coefficients), "classes": len(task.values)}
        options = {"count": counts[task.head], **model.head_options} if task.head in counts else model.head_options
        model = replace(model, head=task.head, head_options=options)
    if config.init is not None:
        # the run itself knows, so that it can go on where its beginning is gone
        shape = load(file).model if file.exists() else model_of(Path(config.init))
        model = replace(shape, head=model.head, head_options=model.head_options, attention=model.attention)
    return replace(config, model=model)


def model_of(init: Path) -> ModelConfig:
    """Size and shape of what `init` names: a run, a checkpoint or an export. No weights are read.

    Raises:
        UserError: none of these.
    """
    if (init / CONFIG).is_file():
        return load(init / CONFIG).model
    for name, key in ((checkpoint.STATE, ("config", "model")), (EXPORT, ("model",))):
        if (init / name).is_file():
            found: Any = load_json(init / name, "the description of a model")
            for part in key:
                found = found[part]
            return build(ModelConfig, found, str(init / name), "model")
    raise nothing_at(init)


def checkpoint_of(path: Path) -> Checkpoint | None:
    """The checkpoint that stands for a folder: of a run the best, where it keeps that, or the newest; or the folder itself. None: neither.

    Raises:
        UserError: a checkpoint that is broken.
    """
    if (path / checkpoint.MANIFEST).is_file() and (path / checkpoint.STATE).is_file():
        if problem := checkpoint.broken(path):
            raise UserError(f"{path}: {problem}; take another checkpoint")
        return checkpoint.opened(path)
    found = checkpoint.newest(path / CHECKPOINTS)
    if found is None or not found.state.get("best"):
        return found
    best = checkpoint.folder_of(path / CHECKPOINTS, int(found.state["best"]["step"]))
    if problem := checkpoint.broken(best):
        _log.warning("checkpoint %s, the best of its run, is passed over: %s", best, problem)
        return found
    return checkpoint.opened(best)


def trunk_of(config: RunConfig) -> tuple[Checkpoint, RunConfig]:
    """The checkpoint that a run branches from, its bytes not verified, and the configuration of the trunk.

    Raises:
        UserError: a folder that is no checkpoint; a trunk that was another run up to there.
    """
    assert config.train.branch_from is not None
    path = Path(config.train.branch_from)
    if not path.is_dir():
        raise UserError(f"train.branch_from: {path} is not a folder; give a checkpoint of a run, as RUN/checkpoints/step-00000400")
    found = checkpoint.opened(path)
    trunk = build(RunConfig, found.state["config"], str(path / checkpoint.STATE))
    other = [d for d in differences(trunk, config) if not d.startswith(BRANCH_KEYS) and not d.startswith("data.data_width: ")]
    if other:
        raise UserError(f"{path}: the trunk is another run ({'; '.join(other[:3])}); a branch differs in its steps and decay only")
    steps, step = config.train.steps, found.step
    early = next((s for s in range(step) if config.optim.learning_rate(s, steps) != trunk.optim.learning_rate(s, trunk.train.steps)), None)
    if early is not None or step > steps:
        what = f"its {steps} steps are fewer" if step > steps else f"the learning rates of step {early} differ"
        raise UserError(f"{path}: is of step {step}, and {what}; branch off before either of the two begins to decay")
    return found, trunk


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
