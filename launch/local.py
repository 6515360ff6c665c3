"""Several processes on this machine: start them, pass signals on, take all down when one is lost, and end with the code they agree on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import torch

from scigpt.launch.parent import dies_with_parent
from scigpt.train.preempt import EXIT_REQUEUE, SIGNALS
from scigpt.train.strategies import StrategyConfig

GRACE = 30.0
"""Seconds that processes have to end by themselves after one of them was lost, before they are killed."""
USER_ERROR = 2
_POLL = 0.05


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
    # in a session of its own, or Ctrl-C would reach it twice: from the terminal and from us
    out = None if rank == 0 else sys.stderr
    return subprocess.Popen(command, env=environment, stdout=out, start_new_session=True, preexec_fn=dies_with_parent())


def _pass_on(job: Sequence[subprocess.Popen[bytes]], number: int, frame: FrameType | None) -> None:
    for process in job:
        if process.poll() is None:
            process.send_signal(number)


def _watch(job: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended; once one has failed, the others have `GRACE` seconds."""
    code: int | None = None
    deadline = float("inf")
    while True:
        codes = [p.poll() for p in job]
        failed = [c for c in codes if c not in (None, 0, EXIT_REQUEUE)]
        if code is None and failed:
            code, deadline = min(failed, key=_blame), time.monotonic() + GRACE
            for process in job if code != USER_ERROR else ():
                process.terminate()
        if None not in codes:
            break
        if time.monotonic() > deadline:
            for process in job:
                process.kill()
        time.sleep(_POLL)
    if code is None:
        return max(p.returncode for p in job)
    return 128 - code if code < 0 else code


def _blame(code: int) -> int:
    """Of several that have failed, the one that was killed has taken the others along, then the one that has told a mistake. An abort
    is how torch's threads may end a process that has lost a peer."""
    if code == -signal.SIGABRT:
        return 3
    return 0 if code < 0 else 1 if code == USER_ERROR else 2


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
