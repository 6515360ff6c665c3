"""Preemption: a signal only sets a flag; the loop looks at it between two steps."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_REQUEUE = 75
"""Exit code of a run that was asked to stop, saved itself and can go on: EX_TEMPFAIL, "the same command again"."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Preemption:
    """Context in which SIGTERM, SIGINT and SIGUSR1 ask for a stop; a second SIGINT (Ctrl-C) interrupts at once.

    Python runs handlers in the main thread only, so it must be entered there.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
