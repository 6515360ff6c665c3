"""Several processes on this machine: what the launcher passes on, and the code it ends with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scigpt.launch import local
from scigpt.train.strategies import StrategyConfig


def job(program: str, processes: int = 2) -> int:
    return local.run([sys.executable, "-c", f"import os, sys, time\nrank = int(os.environ['RANK'])\n{program}"], processes)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2)", 2),
        ("sys.exit(2) if rank == 1 else time.sleep(3)", 2),
        ("os.kill(os.getpid(), 9) if rank == 1 else time.sleep(600)", 137),
        ("sys.exit(3) if rank == 0 else time.sleep(600)", 3),
    ],
)
def test_the_code_is_that_of_the_process_to_blame(program: str, code: int) -> None:
    assert job(program) == code


@pytest.mark.parametrize(("codes", "blamed"), [([1, -9], -9), ([-6, -9], -9), ([-6, 2], 2), ([1, 2], 2), ([-6, 1], 1)])
def test_of_codes_seen_together_one_is_to_blame(codes: list[int], blamed: int) -> None:
    assert min(codes, key=local._blame) == blamed


def test_processes_know_their_place(tmp_path: Path) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    assert job(f"open(r'{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in {names}))", 3) == 0
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // 3))
    assert [(tmp_path / str(r)).read_text() for r in range(3)] == [f"{r} 3 {r} 3 127.0.0.1 {threads}" for r in range(3)]


def test_a_process_that_ignores_everything_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "GRACE", 1.0)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    assert job(f"{ignore}sys.exit(1) if rank == 0 else time.sleep(600)") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    """To each process once: Ctrl-C in a terminal would otherwise reach them twice, and the second interrupts at once."""
    child = (
        "import os, signal, sys, time\nfrom pathlib import Path\nseen = []\n"
        f"signal.signal({int(number)}, lambda n, f: seen.append(n))\n"
        f"place = Path(r'{tmp_path}') / os.environ['RANK']\nplace.write_text('')\n"
        "while not seen: time.sleep(0.01)\ntime.sleep(0.5)\nplace.write_text(str(len(seen)))\nsys.exit(75)\n"
    )
    program = f"import sys\nfrom scigpt.launch import local\nsys.exit(local.run([sys.executable, '-c', {child!r}], 2))"
    launcher = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    while not all((tmp_path / str(r)).exists() for r in range(2)):
        assert launcher.poll() is None
        time.sleep(0.01)
    os.killpg(launcher.pid, number)  # as a terminal does
    assert launcher.wait() == 75
    assert [(tmp_path / str(r)).read_text() for r in range(2)] == ["1", "1"]


def test_how_many_processes_are_wanted() -> None:
    assert local.wanted(StrategyConfig()) == 1
    assert local.wanted(StrategyConfig("ddp", processes=3)) == 3
    assert local.wanted(StrategyConfig("fsdp2")) == max(1, torch.cuda.device_count())
