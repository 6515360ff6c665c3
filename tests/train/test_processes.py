"""What happens to one process of a job happens to the job: signals, losses, hangs, bad data, full disks."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs import finish, log, pretrain, ranks, start, steps_done, wait_for, written
from runs import history, ledger, lines, make_corpus, make_poisoned
from spawned import spawn

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


@dataclass(frozen=True)
class Hit:
    """A job of 60 steps that one process has ended: its code, and the steps it had done before and after that."""

    run: Path
    code: int | None
    seen: int
    stopped: int


def struck(corpora: list[Path], run: Path, step: int, strike: Callable[[int], object]) -> Hit:
    """The job once process 1 was struck after a step."""
    job = start(corpora, run, FSDP2, steps=60)
    one = ranks(job, 2)[1]
    wait_for(job, lambda: steps_done(run) >= step)
    strike(one)
    seen = steps_done(run)
    job.communicate()
    return Hit(run, job.returncode, seen, len(lines(run)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def signalled(corpora: list[Path], folder: Path) -> Hit:
    return struck(corpora, folder / "signalled", 7, lambda one: os.kill(one, signal.SIGTERM))


@pytest.fixture(scope="module")
def killed(corpora: list[Path], folder: Path) -> Hit:
    return struck(corpora, folder / "killed", 12, lambda one: os.kill(one, signal.SIGKILL))


@pytest.fixture(scope="module")
def full(corpora: list[Path], folder: Path) -> tuple[Hit, list[Path]]:
    """The limit on the size of a file stands for the full disk; it is set on process 1 alone. And what it left of checkpoints."""
    limit = (20_000, resource.RLIM_INFINITY)
    hit = struck(corpora, folder / "full", 12, lambda one: resource.prlimit(one, resource.RLIMIT_FSIZE, limit))
    return hit, list((hit.run / "checkpoints").glob("*.tmp"))


@pytest.fixture(scope="module")
def hung(corpora: list[Path], folder: Path) -> tuple[Path, dict[str, str], int]:
    """A run of which process 1 hangs after step 6, the stacks it left, and the steps it had done."""
    run = folder / "hung"
    program = [sys.executable, str(Path(__file__).parent / "hanging.py"), str(written(corpora, run, watchdog=4.0)), "strategy=ddp"]
    before = time.monotonic()
    assert local.run(program, 2) == 1
    assert time.monotonic() - before < local.GRACE + 60, "a guard against a test that hangs; the limit itself is in the stacks"
    return run, {p.name: p.read_text() for p in (run / "stacks").iterdir()}, len(lines(run))


@pytest.fixture(scope="module")
def poisoned(folder: Path) -> Path:
    """A corpus of which only one window in many is NaN, so that only one process sees it."""
    return make_poisoned(folder, samples=30)


@pytest.fixture(scope="module")
def whole(
    corpora: list[Path],
    folder: Path,
    poisoned: Path,
    signalled: Hit,
    killed: Hit,
    full: tuple[Hit, list[Path]],
    hung: tuple[Path, object, int],
) -> Path:
    """A job of two processes that nothing disturbed. After it, in the same job, those that were disturbed go on, and a run on the poisoned
    corpus."""
    runs = {signalled.run: "fsdp2", killed.run: "fsdp2", full[0].run: "fsdp2", hung[0]: "ddp", folder / "poisoned-run": "fsdp2"}
    written(corpora, folder / "whole", steps=60)
    written([poisoned], folder / "poisoned-run", steps=30, hide_coefficients=0.0)
    plan = [{"config": f"{run}.yaml", "overrides": [f"strategy={kind}"]} for run, kind in {folder / "whole": "fsdp2", **runs}.items()]
    (folder / "plan.json").write_text(json.dumps(plan))
    spawn("zero_worker.py", [str(folder / "plan.json")], folder)
    return folder / "whole"


def resumed_from(run: Path) -> int:
    return json.loads(Path(f"{run}.json").read_text())["resumed_from_step"]


def test_a_signal_to_one_process_stops_all_at_the_same_step(signalled: Hit, whole: Path) -> None:
    assert signalled.code == 75, log(signalled.run)
    assert signalled.seen <= signalled.stopped <= signalled.seen + 2, (
        "at the next step boundary, or the one after if it fell on the exchange"
    )
    assert resumed_from(signalled.run) == signalled.stopped
    assert_equal_runs(signalled.run, whole)


@pytest.mark.drill
def test_the_other_signal_does_the_same(corpora: list[Path], whole: Path, tmp_path: Path) -> None:
    hit = struck(corpora, tmp_path / "run", 7, lambda one: os.kill(one, signal.SIGUSR1))
    assert hit.code == 75, log(hit.run)
    assert hit.seen <= hit.stopped <= hit.seen + 2
    assert finish(start(corpora, hit.run, FSDP2, steps=60), hit.run)["resumed_from_step"] == hit.stopped
    assert_equal_runs(hit.run, whole)


def test_a_killed_process_takes_the_job_down_and_the_job_goes_on(killed: Hit, whole: Path) -> None:
    assert killed.code == 128 + signal.SIGKILL
    assert resumed_from(killed.run) >= 10
    assert_equal_runs(killed.run, whole)


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


def test_a_process_that_hangs_is_reported_with_stacks(hung: tuple[Path, dict[str, str], int], whole: Path) -> None:
    run, stacks, done = hung
    found = dict(stacks)
    assert "Timeout (0:00:04)!" in found["rank-00001.txt"]
    assert re.search(r'hanging\.py", line \d+ in forever', found.pop("rank-00001.txt"))
    # process 0 waits in a collective: its watchdog ends it too, or the loss of process 1 does
    assert all("all_reduce" in text and "forever" not in text for text in found.values())
    assert done == 6
    assert resumed_from(run) == 5
    assert any("was ended by the watchdog" in said.read_text() for said in whole.parent.glob("rank-*.log"))


def test_a_gradient_that_is_not_finite_on_one_process_is_skipped_by_all(whole: Path, poisoned: Path, tmp_path: Path) -> None:
    """Both processes leave the step out and the ledger tells of it."""
    run = whole.parent / "poisoned-run"
    pretrain([poisoned], tmp_path / "alone", steps=30, hide_coefficients=0.0)
    skipped = [line["step"] for line in lines(run) if line["skipped"]]
    assert 0 < len(skipped) < 15
    assert skipped == [line["step"] for line in lines(tmp_path / "alone") if line["skipped"]]
    assert ledger(run) == ledger(tmp_path / "alone")
    good = [line["loss"] for line in lines(tmp_path / "alone") if not line["skipped"]]
    assert [line["loss"] for line in lines(run) if not line["skipped"]] == pytest.approx(good, rel=2e-6)
    for step in skipped:
        parts = [(run / "incidents" / f"step-{step}.rank-{rank}.json").read_text() for rank in (0, 1)]
        assert sum('"not_finite": 1.0' in part for part in parts) >= 1


def test_a_full_disk_of_one_process_stops_all_and_is_told_once(full: tuple[Hit, list[Path]], whole: Path) -> None:
    hit, left = full
    assert hit.code == 2, log(hit.run)
    assert log(hit.run).count("no room to write the checkpoint") == 1
    assert "Traceback" not in log(hit.run)
    assert not left
    assert resumed_from(hit.run) >= 10
    assert_equal_runs(hit.run, whole)


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


@pytest.mark.parametrize("code", [0, 75, *(pytest.param(c, marks=pytest.mark.drill) for c in (1, 2, 130))])
def test_a_thread_of_the_group_that_is_still_at_work_does_not_change_the_exit_code(code: int) -> None:
    program = [sys.executable, str(Path(__file__).parent / "leaving.py"), str(code)]
    assert local.run(program, 2) == code
