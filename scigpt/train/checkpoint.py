"""Checkpoints: tensors by parameter name, the same form whatever strategy and number of processes wrote or will read them.

    checkpoints/step-00000200/
      model.safetensors       parameters by name; of several writers model-00002-of-00008.safetensors and so on
      optimizer.safetensors   exp_avg.NAME, exp_avg_sq.NAME, step.NAME; likewise
      state.json              step, next group, config, vocabulary, scales, fingerprints, guard
      manifest.json           written last: size and SHA-256 of every file, shape and pieces of every tensor

A tensor that one process wrote is stored as it is. One that several share is stored as contiguous pieces of its flattened elements; the
manifest says which file holds which. No state of a random number generator is saved: every draw is keyed by its position.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scigpt.data.files import DiskFull, dump_json, load_json, sha256_of, sync_folder
from scigpt.errors import UserError

MODEL, OPTIMIZER, STATE, MANIFEST = "model", "optimizer", "state.json", "manifest.json"
SCHEMA_VERSION = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """A contiguous part of a tensor: its flattened elements from `start` on.

    Args:
        kind: the file it belongs to, `model` or `optimizer`.
        name: of a parameter, or `exp_avg.NAME` and the like.
        shape: of the whole tensor.
        values: flat.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    start: int
    values: Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    state: Mapping[str, Any]
    index: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state["step"])

    def model(self) -> Tensors:
        return Tensors(self.path, self.index[MODEL])

    def optimizer(self) -> Tensors:
        return Tensors(self.path, self.index[OPTIMIZER])


class Tensors(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name, each read from its pieces when it is asked for: no more than one need be in memory."""

    def __init__(self, path: Path, index: Mapping[str, Any]) -> None:
        self._path, self._index = path, index
        self._files: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._index[name]["shape"])

    def __getitem__(self, name: str) -> Tensor:
        parts = [self._file(file).get_tensor(name).reshape(-1) for file, _ in self._index[name]["pieces"]]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(self.shape(name))

    def _file(self, name: str) -> Any:
        if name not in self._files:
            self._files[name] = safe_open(self._path / name, "pt")
        return self._files[name]


def write_pieces(folder: Path, pieces: Iterable[Piece], writer: int, writers: int) -> dict[str, Any]:
    """Write the files of one of several writers and put them on the disk; returns its part of the manifest.

    Raises:
        DiskFull: no room; what was written is left for the caller to remove.
    """
    suffix = "" if writers == 1 else f"-{writer + 1:05d}-of-{writers:05d}"
    by_kind: dict[str, list[Piece]] = {MODEL: [], OPTIMIZER: []}
    for piece in pieces:
        by_kind[piece.kind].append(piece)
    part: dict[str, Any] = {"files": {}, "tensors": {}}
    for kind, found in by_kind.items():
        file = f"{kind}{suffix}.safetensors"
        found = [p for p in found if p.values.numel()]
        part["tensors"][kind] = {p.name: {"shape": list(p.shape), "pieces": [[file, p.start]]} for p in found}
        tensors = {p.name: p.values.reshape(p.shape) if p.values.numel() == math.prod(p.shape) else p.values for p in found}
        with _told(folder):
            save_file(tensors, folder / file)
            part["files"][file] = sealed(folder / file)
    return part


def sealed(path: Path) -> dict[str, Any]:
    """Put a file on the disk; returns its size and hash."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def complete(temporary: Path, path: Path, parts: Iterable[Mapping[str, Any]], state: Mapping[str, Any]) -> None:
    """Make a checkpoint of what all writers have written: state, manifest, and the name.

    Raises:
        DiskFull: no room.
    """
    files: dict[str, Any] = {}
    tensors: dict[str, dict[str, Any]] = {MODEL: {}, OPTIMIZER: {}}
    for part in parts:
        files |= part["files"]
        for kind, found in part["tensors"].items():
            for name, entry in found.items():
                tensors[kind].setdefault(name, {"shape": entry["shape"], "pieces": []})["pieces"] += entry["pieces"]
    for entry in (e for found in tensors.values() for e in found.values()):
        entry["pieces"].sort(key=lambda piece: piece[1])
    with _told(path):
        (temporary / STATE).write_bytes(dump_json(state, indent=1))
        files[STATE] = sealed(temporary / STATE)
        (temporary / MANIFEST).write_bytes(dump_json({"schema_version": SCHEMA_VERSION, "files": files, "tensors": tensors}, indent=1))
        sealed(temporary / MANIFEST)
        sync_folder(temporary)
        if path.exists():  # one that was found broken, or it would have been resumed
            shutil.rmtree(path)
        os.replace(temporary, path)
        sync_folder(path.parent)


def prune(folder: Path, newest: Path, keep: int, pinned: Callable[[int], bool]) -> None:
    """Remove all but the `keep` newest up to `newest` and those whose step is pinned."""
    # a broken one of a later step must not count among the newest
    for old in [p for p in _steps(folder) if p <= newest][keep:]:
        if not pinned(step_of(old)):
            (old / MANIFEST).unlink(missing_ok=True)  # incomplete from the first removed byte on
            shutil.rmtree(old, ignore_errors=True)


def folder_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def sweep(folder: Path) -> None:
    """Remove what saves that were killed have left."""
    for left in folder.glob("*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # safetensors tells the error of the system only in words
        told = isinstance(error, SafetensorError) and any(f"os error {e})" in str(error) for e in full)
        if told or (isinstance(error, OSError) and error.errno in full):
            raise DiskFull(
                f"{place.with_suffix('')}: no room to write the checkpoint; the older ones are whole, make room and run the same command "
                f"again"
            ) from None
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"{place.with_suffix('')}: the checkpoint cannot be written ({reason}); the older ones are whole, mend the folder and run the "
            f"same command again"
        ) from None


def _steps(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest first, whether complete or not."""
    return sorted((p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()), key=step_of, reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint, its hashes verified; broken ones are named in a warning and passed over."""
    for path in _steps(folder):
        problem = broken(path)
        if problem is None:
            return opened(path)
        _log.warning("checkpoint %s is passed over: %s", path, problem)
    return None


def opened(path: Path) -> Checkpoint:
    """A checkpoint that is known to be complete."""
    index = load_json(path / MANIFEST, "the manifest of a checkpoint")["tensors"]
    return Checkpoint(path, load_json(path / STATE, "the state of a checkpoint"), index)


def broken(path: Path) -> str | None:
    """What is wrong with a checkpoint, None when every byte is as it was written."""
    try:
        manifest = load_json(path / MANIFEST, "the manifest of a checkpoint")
        if manifest["schema_version"] != SCHEMA_VERSION:
            return f"{MANIFEST} has schema version {manifest['schema_version']}, this scigpt reads {SCHEMA_VERSION}"
        named = {file for found in manifest["tensors"].values() for entry in found.values() for file, _ in entry["pieces"]}
        for name in sorted(named | {STATE}):
            size = (path / name).stat().st_size
            if size != manifest["files"][name]["bytes"]:
                return f"{name} has {size} of {manifest['files'][name]['bytes']} bytes"
            if sha256_of(path / name) != manifest["files"][name]["sha256"]:
                return f"{name} does not match its sha256"
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    except UserError as error:
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{MANIFEST} is not the manifest of a checkpoint"
    return None


def check_parameters(model: nn.Module, tensors: Tensors, source: Path) -> None:
    """
    Raises:
        UserError: names or shapes that differ from those of the model's parameters.
    """
    own = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            side = "checkpoint" if name not in tensors else "model"
            raise UserError(f"{source}: the {side} lacks the parameter {name}; use the model configuration the checkpoint was trained with")
        if own[name] != tensors.shape(name):
            raise UserError(
                f"{source}: parameter {name} has the shape {tensors.shape(name)} in the checkpoint and {own[name]} in "
                f"the model; use the model configuration the checkpoint was trained with"
            )
