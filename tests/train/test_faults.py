"""A disk that cannot be written, at the start or while a run is under way: it stops with one sentence, and goes on once there is room."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobs import log, pretrain, start, steps_done, wait_for
from runs import history, ledger, settings, tensors, write

from scigpt.errors import UserError
from scigpt.train.config import load
from scigpt.train.engine import train

STEPS = 200
NO_ROOM = "((?i:no room)|No space left on device)"


@pytest.fixture(scope="module")
def whole(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(corpora, run, steps=STEPS)
    return run


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own: 4 MB, 200 files."""
    if os.geteuid():
        pytest.skip("a small disk is mounted by root only")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def all_bytes(disk: Path) -> None:
    """Take what room is left, to the last byte."""
    with open(disk / "other", "wb", buffering=0) as other:
        for size in (1 << 16, 1):
            try:
                while other.write(bytes(size)):
                    pass
            except OSError:
                continue


def all_files(disk: Path) -> None:
    """Take every file that can still be made; those there are may grow."""
    (disk / "others").mkdir()
    try:
        for i in range(1000):
            (disk / "others" / str(i)).touch()
    except OSError:
        return


def make_room(disk: Path) -> None:
    for other in (disk / "other", *(disk / "others").glob("*")):
        other.unlink(missing_ok=True)


def told(run: Path) -> str:
    """The one sentence of a run that stopped."""
    text = log(run)
    (sentence,) = [line for line in text.splitlines() if line.startswith("scigpt: ")]
    assert "Traceback" not in text
    return sentence


@pytest.mark.parametrize("fill", [all_bytes, all_files])
def test_a_disk_that_fills_while_a_run_writes_to_it(corpora: list[Path], whole: Path, disk: Path, fill: Callable[[Path], None]) -> None:
    run = disk / "run"
    job = start(corpora, run, steps=STEPS, keep=2)
    wait_for(job, lambda: steps_done(run) >= 12)
    fill(disk)
    job.communicate()
    assert job.returncode == 2, log(run)
    assert re.search(NO_ROOM, told(run))
    newest, kept = max((run / "checkpoints").iterdir()), tensors(run)
    assert not list((run / "checkpoints").glob("*.tmp"))

    with pytest.raises(UserError, match=NO_ROOM):  # still
        pretrain(corpora, run, steps=STEPS, keep=2)
    assert (max((run / "checkpoints").iterdir()), tensors(run)) == (newest, kept)

    make_room(disk)
    assert pretrain(corpora, run, steps=STEPS, keep=2)["resumed_from_step"] == int(newest.name[5:]) >= 10
    assert history(run) == history(whole)
    assert ledger(run) == ledger(whole)
    assert tensors(run) == tensors(whole)


@pytest.mark.parametrize("fill", [all_bytes, all_files])
def test_a_disk_that_is_full_from_the_beginning(corpora: list[Path], disk: Path, tmp_path: Path, fill: Callable[[Path], None]) -> None:
    run = disk / "run"
    file = config_beside(corpora, run, tmp_path)
    fill(disk)
    done = command(file)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"scigpt: .*{NO_ROOM}.*\n", done.stderr), done.stderr
    make_room(disk)
    assert train(load(file))["status"] == "finished"


def test_a_folder_that_is_read_only(corpora: list[Path], disk: Path, tmp_path: Path) -> None:
    run = disk / "run"
    file = config_beside(corpora, run, tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = command(file)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"scigpt: {run}: the run's folder cannot be written (Read-only file system); choose another with run=FOLDER\n"
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert train(load(file))["status"] == "finished"


def config_beside(corpora: list[Path], run: Path, folder: Path) -> Path:
    return write(settings(corpora, run, steps=6), folder / "config.yaml")


def command(file: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "scigpt.launch.cli", "pretrain", str(file)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
