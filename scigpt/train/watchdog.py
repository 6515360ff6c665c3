"""Watchdog: a process in which no step is finished in time writes down where all its threads stand, and ends."""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

FOLDER = "stacks"

_log = logging.getLogger(__name__)


class Watchdog:
    """Context that ends the process with code 1 when `beat` is not called for `seconds`; the stacks stand in `RUN/stacks/rank-00000.txt`.

    The clock is a thread of the interpreter's fault handler, below Python: neither a collective that never returns nor a library that holds
    the interpreter's lock can stop it. In the file of a rank that waits for others the top of the main thread is a collective; the rank
    to blame shows something else.
    """

    def __init__(self, run: Path, rank: int, seconds: float) -> None:
        self.seconds = seconds
        self.path = run / FOLDER / f"rank-{rank:05d}.txt"
        if self.path.exists():
            kept = self.path.with_suffix(".last.txt")
            os.replace(self.path, kept)
            if "Timeout" in kept.read_text(errors="replace"):
                _log.warning("%s: the last launch was ended by the watchdog; where its threads stood is there", kept)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(exist_ok=True)
        self._file = open(self.path, "w", encoding="utf-8")
        self._file.write(f"host {socket.gethostname()}, process {os.getpid()}; no step within {self.seconds:g} s would be written here\n")
        self._file.flush()
        self.beat()
        return self

    def beat(self) -> None:
        """A step is finished: the clock starts again."""
        faulthandler.dump_traceback_later(self.seconds, file=self._file, exit=True)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """However the block ends, the clock starts again for what is still to be done: an error that comes late in the time of a step, as
        the loss of another process does, is not a hang of this one."""
        try:
            yield
        finally:
            self.beat()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.parent.rmdir()
