"""The program itself, killed at any moment: the same command again, and losses and ledger are those of a run never stopped."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import history, ledger, make_corpus, settings, tensors, write

from scigpt.train.config import load
from scigpt.train.engine import train

STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    make_corpus(folder, "toys")
    make_corpus(folder, "wide", size=12, seed=100)
    return folder


def configuration(folder: Path, run: Path, mlflow: bool = False) -> Path:
    data = settings([folder / "toys", folder / "wide"], run, steps=STEPS, checkpoint_every=4, keep=2)
    return write(data | {"report": {"mlflow": mlflow}}, run.with_suffix(".yaml"))


def start(folder: Path, run: Path) -> subprocess.Popen[bytes]:
    """The command as a user gives it."""
    file = configuration(folder, run, mlflow=True)
    command = [sys.executable, "-m", "scigpt.launch.cli", "pretrain", str(file), "--json"]
    with open(run.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)


def finish(folder: Path, run: Path) -> dict[str, object]:
    process = start(folder, run)
    out, _ = process.communicate()
    assert process.returncode == 0, run.with_suffix(".log").read_text()[-2000:]
    return json.loads(out)


def strike(folder: Path, run: Path, step: int, delay: float, number: signal.Signals) -> int:
    """Start, wait until this launch has done step `step` and `delay` seconds more, send the signal; returns the exit code."""
    began, metrics = time.time_ns(), run / "metrics.jsonl"
    process = start(folder, run)
    while process.poll() is None:
        # lines of an earlier launch do not count: they are cut back when this one resumes
        if step == 0 or (metrics.exists() and metrics.stat().st_mtime_ns > began and metrics.read_bytes().count(b"\n") >= step):
            break
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    process.communicate()
    return process.returncode


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run that nothing disturbed."""
    summary = train(load(configuration(folder, folder / "whole")))
    assert (summary["status"], summary["step"], summary["resumed_from_step"]) == ("finished", STEPS, None)
    return folder / "whole"


def assert_equal_runs(a: Path, b: Path) -> None:
    assert history(a) == history(b)
    assert ledger(a) == ledger(b)
    assert tensors(a) == tensors(b)


def test_kill_and_terminate(folder: Path, whole: Path) -> None:
    run, chance = folder / "run", random.Random()
    assert strike(folder, run, chance.randint(5, 25), 0.02 * chance.random(), signal.SIGKILL) == -signal.SIGKILL
    assert strike(folder, run, 30, 0.0, signal.SIGTERM) == 75
    stopped = json.loads((max((run / "checkpoints").iterdir()) / "state.json").read_text())["step"]
    assert 30 <= stopped < STEPS
    assert finish(folder, run)["resumed_from_step"] == stopped
    assert_equal_runs(run, whole)


@pytest.mark.drill
def test_ten_random_kills(folder: Path, whole: Path) -> None:
    run, chance = folder / "drill", random.Random()
    for step in sorted(chance.randint(1, STEPS - 5) for _ in range(7)):
        assert strike(folder, run, step, 0.05 * chance.random(), signal.SIGKILL) == -signal.SIGKILL
    for _ in range(3):  # while it starts, loads or resumes
        assert strike(folder, run, 0, 4 * chance.random(), signal.SIGKILL) in (-signal.SIGKILL, 0)
    finish(folder, run)
    assert_equal_runs(run, whole)
