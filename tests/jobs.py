"""Runs of several processes as a user starts them, watched and disturbed from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runs import settings, write

from scigpt.train.config import load
from scigpt.train.engine import train as run_here


def written(corpora: list[Path], run: Path, **train: Any) -> Path:
    """The file of a configuration whose groups can be shared by 1, 2 and 4 processes."""
    run.parent.mkdir(parents=True, exist_ok=True)
    data = settings(corpora, run, **train)
    data["data"]["data_width"] = 4
    return write(data, run.with_suffix(".yaml"))


def start(corpora: list[Path], run: Path, overrides: Sequence[str] = (), **train: Any) -> subprocess.Popen[bytes]:
    """`scigpt pretrain` with these overrides; what it says goes to RUN.log."""
    file = written(corpora, run, **train)
    command = [sys.executable, "-m", "scigpt.launch.cli", "pretrain", str(file), *overrides, "--json"]
    with open(run.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def log(run: Path) -> str:
    return run.with_suffix(".log").read_text()


def finish(process: subprocess.Popen[bytes], run: Path) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0, log(run)[-3000:]
    return json.loads(out)


def pretrain(corpora: list[Path], run: Path, overrides: Sequence[str] = (), **train: Any) -> dict[str, Any]:
    """The summary of a run. One process does in this one what it does in its own, to the bit (`test_faults.py` compares the two);
    several, DeepSpeed and the compiler are started as a user does."""
    if any(o.startswith(("strategy.processes=", "strategy=deepspeed")) for o in overrides) or "compile" in train:
        return finish(start(corpora, run, overrides, **train), run)
    return run_here(load(written(corpora, run, **train), overrides))


def ranks(process: subprocess.Popen[bytes], world: int) -> list[int]:
    """Process ids of a job's processes by rank, once all have started."""
    while process.poll() is None:
        found = {}
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            try:
                variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            found |= {int(v.removeprefix(b"RANK=")): int(child) for v in variables if v.startswith(b"RANK=")}
        if len(found) == world:
            return [found[rank] for rank in range(world)]
        time.sleep(0.01)
    raise AssertionError(f"the job ended with code {process.returncode} before its processes were there")


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Return when the condition holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.001)


def steps_done(run: Path, since: int = 0) -> int:
    """Lines of metrics that were written after the time `since` (ns)."""
    metrics = run / "metrics.jsonl"
    try:
        return metrics.read_bytes().count(b"\n") if metrics.stat().st_mtime_ns > since else 0
    except OSError:
        return 0
