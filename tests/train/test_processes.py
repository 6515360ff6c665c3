"""What happens to one process of a job happens to the job: signals, losses, hangs, bad data, full disks."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from jobs import finish, log, pretrain, ranks, start, steps_done, wait_for
from runs import history, ledger, lines, make_corpus, make_poisoned, settings, write

from scigpt.launch import local

DDP = ("strategy=ddp", "strategy.processes=2")
FSDP2 = ("strategy=fsdp2", "strategy.processes=2")


def assert_equal_runs(a: Path, b: Path) -> None:
    assert history(a) == history(b)
    assert ledger(a) == ledger(b)
    assert checkpoint_bytes(a) == checkpoint_bytes(b)


def checkpoint_bytes(run: Path) -> dict[str, bytes]:
    last = max((run / "checkpoints").glob("step-*"))
    return {p.name: p.read_bytes() for p in last.glob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two processes, long enough to be hit, that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(corpora, run, FSDP2, steps=60)
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.drill)])
def test_a_signal_to_one_process_stops_all_at_the_same_step(corpora: list[Path], whole: Path, tmp_path: Path, number: int) -> None:
    run = tmp_path / "run"
    job = start(corpora, run, FSDP2, steps=60)
    hit = ranks(job, 2)[1]
    wait_for(job, lambda: steps_done(run) >= 7)
    os.kill(hit, number)
    seen = steps_done(run)
    job.communicate()
    assert job.returncode == 75, log(run)
    stopped = len(lines(run))
    assert seen <= stopped <= seen + 2, "at the next step boundary, or the one after if the signal fell on the exchange"
    assert finish(start(corpora, run, FSDP2, steps=60), run)["resumed_from_step"] == stopped
    assert_equal_runs(run, whole)


def test_a_killed_process_takes_the_job_down_and_the_job_goes_on(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(corpora, run, FSDP2, steps=60)
    hit = ranks(job, 2)[1]
    wait_for(job, lambda: steps_done(run) >= 12)
    os.kill(hit, signal.SIGKILL)
    job.communicate()
    assert job.returncode == 128 + signal.SIGKILL
    assert finish(start(corpora, run, FSDP2, steps=60), run)["resumed_from_step"] >= 10
    assert_equal_runs(run, whole)


def test_a_killed_launcher_leaves_nobody_behind(corpora: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(corpora, run, DDP, steps=5000)
    found = ranks(job, 2)
    wait_for(job, lambda: steps_done(run) >= 3)
    job.kill()
    job.communicate()
    deadline = time.monotonic() + 60
    while any(alive(p) for p in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(p) for p in found)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_hangs_is_reported_with_stacks(corpora: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = settings(corpora, run, watchdog=4.0)
    file = write(data, tmp_path / "c.yaml")
    program = [sys.executable, str(Path(__file__).parent / "hanging.py"), str(file), "strategy=ddp", "data.data_width=4"]
    before = time.monotonic()
    assert local.run(program, 2) == 1
    assert time.monotonic() - before < local.GRACE + 60, "a guard against a test that hangs; the limit itself is in the stacks"
    found = {p.name: p.read_text() for p in (run / "stacks").iterdir()}
    assert "Timeout (0:00:04)!" in found["rank-00001.txt"]
    assert re.search(r'hanging\.py", line \d+ in forever', found.pop("rank-00001.txt"))
    # process 0 waits in a collective: its watchdog ends it too, or the loss of process 1 does
    assert all("all_reduce" in text and "forever" not in text for text in found.values())
    assert len(lines(run)) == 6
    assert pretrain(corpora, run, DDP)["resumed_from_step"] == 5
    assert "was ended by the watchdog" in log(run)


def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    """Only one window in many is poisoned, so only one process sees it; both leave the step out and the ledger tells of it."""
    corpus = make_poisoned(tmp_path, samples=30)
    run = tmp_path / "run"
    pretrain([corpus], run, FSDP2, steps=30, hide_coefficients=0.0)
    pretrain([corpus], tmp_path / "alone", steps=30, hide_coefficients=0.0)
    skipped = [line["step"] for line in lines(run) if line["skipped"]]
    assert 0 < len(skipped) < 15
    assert skipped == [line["step"] for line in lines(tmp_path / "alone") if line["skipped"]]
    assert ledger(run) == ledger(tmp_path / "alone")
    good = [line["loss"] for line in lines(tmp_path / "alone") if not line["skipped"]]
    assert [line["loss"] for line in lines(run) if not line["skipped"]] == pytest.approx(good, rel=2e-6)
    for step in skipped:
        parts = [(run / "incidents" / f"step-{step}.rank-{rank}.json").read_text() for rank in (0, 1)]
        assert sum('"not_finite": 1.0' in part for part in parts) >= 1


def test_a_full_disk_of_one_process_stops_all_and_is_told_once(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    """The limit on the size of a file stands for the full disk; it is set on process 1 alone while the job runs."""
    run = tmp_path / "run"
    job = start(corpora, run, FSDP2, steps=60)
    hit = ranks(job, 2)[1]
    wait_for(job, lambda: steps_done(run) >= 12)
    resource.prlimit(hit, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    job.communicate()
    assert job.returncode == 2, log(run)
    assert log(run).count("no room to write the checkpoint") == 1
    assert "Traceback" not in log(run)
    assert not list((run / "checkpoints").glob("*.tmp"))
    assert finish(start(corpora, run, FSDP2, steps=60), run)["resumed_from_step"] >= 10
    assert_equal_runs(run, whole)


def test_data_that_one_process_cannot_read_is_told_once(tmp_path: Path) -> None:
    """A shard that is cut off while the job runs; process 0 or 1, whichever meets the window first."""
    corpus = make_corpus(tmp_path, samples=40)
    run = tmp_path / "run"
    job = start([corpus], run, DDP, steps=5000, validate_every=5000)
    ranks(job, 2)
    wait_for(job, lambda: steps_done(run) >= 5)
    shard = next(corpus.glob("train-*.tar"))
    moved = shard.read_bytes()
    with open(shard, "r+b") as file:  # in place: the open maps see it
        for start_ in range(0, len(moved), 512):
            file.seek(start_)
            file.write(b"\xff" * 64)
    job.communicate()
    assert job.returncode == 2, log(run)[-2000:]
    assert log(run).count("scigpt: ") == 1
    assert "Traceback" not in log(run)


@pytest.mark.parametrize("code", [0, 2, 75, pytest.param(1, marks=pytest.mark.drill), pytest.param(130, marks=pytest.mark.drill)])
def test_a_thread_of_the_group_that_is_still_at_work_does_not_change_the_exit_code(code: int) -> None:
    program = [sys.executable, str(Path(__file__).parent / "leaving.py"), str(code)]
    assert local.run(program, 2) == code
