"""Processes of one job that run a script of the tests, with what torchrun would tell them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def spawn(script: str, arguments: Sequence[str], folder: Path, world: int = 2, environment: Mapping[str, str] | None = None) -> list[str]:
    """Run a script of this folder in `world` processes; returns what each has said on stdout and stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    logs = [folder / f"rank-{rank}.log" for rank in range(world)]
    processes = []
    for rank, said in enumerate(logs):
        own = {**os.environ, **job, **(environment or {}), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with open(said, "wb") as out:
            processes.append(subprocess.Popen(command, env=own, stdout=out, stderr=subprocess.STDOUT))
    codes = [p.wait() for p in processes]
    said = [file.read_text() for file in logs]
    assert codes == [0] * world, "\n".join(said)[-5000:]
    return said
