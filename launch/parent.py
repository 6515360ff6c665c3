"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dies_with_parent() -> Callable[[], None]:
    """What a new process does first (`preexec_fn`): if its parent, the caller, is killed, the kernel (of Linux) kills it too. Nobody trains
    a run that its user believes dead."""
    parent = os.getpid()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # now: after a fork a lock may be held for ever

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # killed before the kernel was told
                os._exit(1)

    return tie
