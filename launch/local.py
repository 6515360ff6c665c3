"""Several processes on this machine: start them, pass signals on, take all down when one is lost, and end with the code they agree on."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import torch

from scigpt.train.preempt import EXIT_REQUEUE, SIGNALS
from scigpt.train.strategies import StrategyConfig

GRACE = 30.0
"""Seconds that processes have to end by themselves after one of them was lost, before they are killed."""
_POLL = 0.05
_PR_SET_PDEATHSIG = 1


def wanted(config: StrategyConfig) -> int:
    """Processes that a run started by hand should have here."""
    if config.name == "single":
        return 1
    return config.processes or max(1, torch.cuda.device_count())


def run(command: Sequence[str], processes: int) -> int:
    """Start a command `processes` times as one job and wait for it; the first one's standard output is ours.

    Returns:
        0, 75 when the job was asked to stop and has saved, 2 for a mistake of the user, else the code of the process that was lost (128 + n
        for signal n).
    """
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    job = [_start(command, rank, processes, address) for rank in range(processes)]
    before = {s: signal.signal(s, lambda number, frame: _pass_on(job, number, frame)) for s in SIGNALS}
    try:
        return _watch(job)
    finally:
        for process in job:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(command: Sequence[str], rank: int, world: int, address: Mapping[str, str]) -> subprocess.Popen[bytes]:
    number, count = str(rank), str(world)
    environment = {**os.environ, **address, "RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": count}
    # without this every process would use all cores
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // world)))
    return subprocess.Popen(command, env=environment, stdout=None if rank == 0 else sys.stderr, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    """If this launcher is killed, the kernel (of Linux) kills its processes: nobody trains a run that its user believes dead."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pass_on(job: Sequence[subprocess.Popen[bytes]], number: int, frame: FrameType | None) -> None:
    for process in job:
        if process.poll() is None:
            process.send_signal(number)


def _watch(job: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended; once one has failed, the others have `GRACE` seconds."""
    first: int | None = None
    deadline = float("inf")
    while any(p.poll() is None for p in job):
        failed = [p.returncode for p in job if p.returncode not in (None, 0, EXIT_REQUEUE)]
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + GRACE
            for process in job:
                if process.poll() is None and failed[0] != 2:
                    process.terminate()
        if time.monotonic() > deadline:
            for process in job:
                process.kill()
        time.sleep(_POLL)
    codes = [p.returncode for p in job]
    if first is None:
        first = next((c for c in codes if c not in (0, EXIT_REQUEUE)), max(codes))
    return 128 - first if first < 0 else first


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
