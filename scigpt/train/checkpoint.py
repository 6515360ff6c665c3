"""Checkpoints: a folder of tensors by parameter name and JSON, complete only when its manifest is there and every hash agrees.

    checkpoints/step-00000200/
      model.safetensors       parameters by name
      optimizer.safetensors   exp_avg.NAME, exp_avg_sq.NAME, step.NAME
      state.json              step, next group, config, vocabulary, scales, fingerprints, guard
      manifest.json           written last: size and SHA-256 of the other three

No state of a random number generator is saved: every draw is keyed by its position.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scigpt.data.files import DiskFull, dump_json, load_json, sha256_of, sync_folder
from scigpt.errors import UserError

MODEL, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state["step"])

    def model(self) -> dict[str, Tensor]:
        return load_file(self.path / MODEL)

    def optimizer(self) -> dict[str, Tensor]:
        return load_file(self.path / OPTIMIZER)


def save(
    folder: Path, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/step-########` so that it is there whole or not at all, then remove all but the `keep` newest.

    Raises:
        DiskFull: no room; nothing of the new checkpoint stays and the older ones are untouched.
    """
    path = folder / f"step-{step:08d}"
    temporary = path.with_name(path.name + ".tmp")
    for left in folder.glob("*.tmp"):  # by a save that was killed
        shutil.rmtree(left, ignore_errors=True)
    with _whole_or_nothing(temporary, path):
        temporary.mkdir(parents=True)
        for name, tensors in ((MODEL, model), (OPTIMIZER, optimizer)):
            save_file({n: t.detach().contiguous() for n, t in tensors.items()}, temporary / name)
        (temporary / STATE).write_bytes(dump_json({**state, "step": step}, indent=1))
        files = [MODEL, OPTIMIZER, STATE]
        for name in files:
            _sync(temporary / name)
        sizes = {n: {"bytes": (temporary / n).stat().st_size, "sha256": sha256_of(temporary / n)} for n in files}
        (temporary / MANIFEST).write_bytes(dump_json({"schema_version": 1, "files": sizes}, indent=1))
        _sync(temporary / MANIFEST)
        sync_folder(temporary)
        if path.exists():  # one that was found broken, or it would have been resumed
            shutil.rmtree(path)
        os.replace(temporary, path)
        sync_folder(folder)
    # a broken one of a later step must not count among the newest
    for old in [p for p in _steps(folder) if p <= path][keep:]:
        (old / MANIFEST).unlink(missing_ok=True)  # incomplete from the first removed byte on
        shutil.rmtree(old, ignore_errors=True)
    return path


@contextmanager
def _whole_or_nothing(temporary: Path, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # safetensors tells the error of the system only in words
        told = isinstance(error, SafetensorError) and any(f"os error {e})" in str(error) for e in full)
        if told or (isinstance(error, OSError) and error.errno in full):
            raise DiskFull(
                f"{path}: no room to write the checkpoint; the older ones are whole, make room and run the same command again"
            ) from None
        raise


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _steps(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest first, whether complete or not."""
    return sorted((p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()), reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint, its hashes verified; broken ones are named in a warning and passed over."""
    for path in _steps(folder):
        problem = broken(path)
        if problem is None:
            return Checkpoint(path, load_json(path / STATE, "the state of a checkpoint"))
        _log.warning("checkpoint %s is passed over: %s", path, problem)
    return None


def broken(path: Path) -> str | None:
    """What is wrong with a checkpoint, None when every byte is as it was written."""
    try:
        files = load_json(path / MANIFEST, "the manifest of a checkpoint")["files"]
        for name in (MODEL, OPTIMIZER, STATE):
            size = (path / name).stat().st_size
            if size != files[name]["bytes"]:
                return f"{name} has {size} of {files[name]['bytes']} bytes"
            if sha256_of(path / name) != files[name]["sha256"]:
                return f"{name} does not match its sha256"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    except UserError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"{MANIFEST} is not the manifest of a checkpoint"
    return None


def load_parameters(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put tensors into a model that has exactly these parameters.

    Raises:
        UserError: names or shapes that differ.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "checkpoint" if name not in tensors else "model"
            raise UserError(f"{source}: the {side} lacks the parameter {name}; use the model configuration the checkpoint was trained with")
        if own[name].shape != tensors[name].shape:
            raise UserError(
                f"{source}: parameter {name} has the shape {tuple(tensors[name].shape)} in the checkpoint and {tuple(own[name].shape)} in "
                f"the model; use the model configuration the checkpoint was trained with"
            )
    model.load_state_dict(dict(tensors))
