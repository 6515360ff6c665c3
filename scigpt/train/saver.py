"""Saver: checkpoints written behind the training's back, one at a time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scigpt.errors import ToldElsewhere, UserError
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Piece
from scigpt.train.processes import Processes

_POLL = 0.02
"""Seconds between two looks at what the other writers have posted."""


class Saver:
    """Every process copies its pieces to buffers on the host and a thread writes them; the first process completes the checkpoint.

    The buffers are kept from save to save and a save waits for the one before: a checkpoint under way costs the memory of one copy of what
    this process writes, never more.

    Args:
        folder: of the checkpoints.
        writer: number of this process among those that hold different parts, and how many those are.
        keep: newest checkpoints that stay.
        pinned: whether the checkpoint of a step stays for good.
    """

    def __init__(self, folder: Path, processes: Processes, writer: tuple[int, int], keep: int, pinned: Callable[[int], bool]) -> None:
        self.folder, self.processes, self.writer, self.keep, self.pinned = folder, processes, writer, keep, pinned
        self.error: UserError | None = None
        self.saved: int | None = None
        self._crash: BaseException | None = None
        self._buffers: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._abandoned = threading.Event()

    def save(self, step: int, pieces: Iterable[Piece], state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint; `state` counts on the first process only. Waits for the one before."""
        self.wait()
        copies = [Piece(p.kind, p.name, p.shape, p.start, self._copy(p)) for p in pieces]
        self._thread = threading.Thread(target=self._work, args=(step, copies, {**state, "step": step}), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when this process's part of the save under way is done; on the first process, when the checkpoint is."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._crash is not None:
            raise self._crash

    def abandon(self) -> None:
        """Stop waiting for processes that are gone."""
        self._abandoned.set()
        if self._thread is not None:
            self._thread.join()

    def _copy(self, piece: Piece) -> Tensor:
        key = (piece.kind, piece.name)
        if key not in self._buffers:
            self._buffers[key] = piece.values.to("cpu", copy=True)
        else:
            self._buffers[key].copy_(piece.values)
        return self._buffers[key]

    def _work(self, step: int, pieces: list[Piece], state: Mapping[str, Any]) -> None:
        path = checkpoint.folder_of(self.folder, step)
        temporary = path.with_name(path.name + ".tmp")
        try:
            self._write(step, path, temporary, pieces, state)
        except UserError as error:
            self.error = error
        except BaseException as error:  # told by the thread that trains
            self._crash = error
        if self.processes.first and self.saved != step:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write(self, step: int, path: Path, temporary: Path, pieces: list[Piece], state: Mapping[str, Any]) -> None:
        rank, world = self.processes.rank, self.processes.world
        part, error = {}, None
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            part = checkpoint.write_pieces(temporary, pieces, *self.writer) if pieces else {"files": {}, "tensors": {}}
        except OSError as raised:
            error = UserError(
                f"{path}: the checkpoint cannot be written ({raised.strerror}); mend the folder and run the same command again"
            )
        except UserError as raised:
            error = raised
        self.processes.post(f"checkpoint/{step}/{rank}", {"part": part, "failed": error is not None})
        if error is not None:
            raise error
        if not self.processes.first:
            return
        keys = [f"checkpoint/{step}/{r}" for r in range(world)]
        while (parts := self.processes.posted(keys)) is None:
            if self._abandoned.wait(_POLL):
                return
        if any(p["failed"] for p in parts):
            raise ToldElsewhere(f"{path}: another process could not write its part")
        checkpoint.complete(temporary, path, [p["part"] for p in parts], state)
        self.saved = step
        checkpoint.prune(self.folder, path, self.keep, self.pinned)
