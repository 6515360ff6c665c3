"""Long proofs of the promise that a run may be stopped anywhere and go on anywhere."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from jobs import finish, log, pretrain, ranks, start, steps_done, wait_for
from runs import history, ledger, lines, make_corpus

from scigpt.train.checkpoint import broken, step_of

KINDS = {
    "single": (),
    "ddp x2": ("strategy=ddp", "strategy.processes=2"),
    "ddp x4": ("strategy=ddp", "strategy.processes=4"),
    "fsdp2 x2": ("strategy=fsdp2", "strategy.processes=2"),
    "zero1 x2": ("strategy=deepspeed", "strategy.stage=1", "strategy.processes=2"),
    "zero3 x2": ("strategy=deepspeed", "strategy.stage=3", "strategy.processes=2"),
}
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- the table of resumes, written by `make drills` -->", "<!-- end of the table -->"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("elastic")
    return [make_corpus(folder), make_corpus(folder, "wide", size=12, seed=100)]


@pytest.mark.drill
def test_every_strategy_goes_on_where_every_other_stopped(corpora: list[Path], tmp_path: Path) -> None:
    """Each of them stops at step 10 of 20 and is taken up by each; samples are those of the run of one process, losses within 1e-5."""
    for kind, overrides in KINDS.items():
        pretrain(corpora, tmp_path / kind, overrides, checkpoint_every=10)
    expected = [line["loss"] for line in lines(tmp_path / "single")]
    rows = []
    for first in KINDS:
        cells = []
        for second, overrides in KINDS.items():
            run = tmp_path / f"{first} to {second}"
            shutil.copytree(tmp_path / first, run)
            shutil.rmtree(run / "checkpoints" / "step-00000020")
            assert pretrain(corpora, run, overrides, checkpoint_every=10)["resumed_from_step"] == 10
            assert ledger(run) == ledger(tmp_path / "single")
            cells.append(max(abs(line["loss"] - x) / x for line, x in zip(lines(run), expected, strict=True)))
            if first == second:
                assert history(run) == history(tmp_path / first), "at equal strategy and size: to the last bit"
        rows.append((first, cells))
    table = [f"| from \\ to | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    table += [f"| {first} | {' | '.join(f'{c:.1e}' for c in cells)} |" for first, cells in rows]
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    assert max(c for _, cells in rows for c in cells) <= 1e-5


def complete(run: Path) -> list[int]:
    return [step_of(p) for p in (run / "checkpoints").glob("step-*") if p.suffix != ".tmp" and broken(p) is None]


@pytest.mark.drill
def test_twenty_random_kills(corpora: list[Path], tmp_path: Path) -> None:
    """A process or the launcher, at a random step or while a checkpoint is written: nothing complete is lost, nothing goes on wrongly."""
    steps, overrides, chance = 400, KINDS["fsdp2 x2"], random.Random()
    whole, run = tmp_path / "whole", tmp_path / "run"
    pretrain(corpora, whole, overrides, steps=steps, checkpoint_every=4, validate_every=50)
    while_writing = 0
    for kill in range(20):
        began = time.time_ns()
        job = start(corpora, run, overrides, steps=steps, checkpoint_every=4, validate_every=50)
        victims = [job.pid, *ranks(job, 2)]
        wait_for(job, lambda since=began: steps_done(run, since) > 0)  # type: ignore[misc]
        after = steps_done(run) + chance.randint(0, 12)
        wait_for(job, lambda limit=after: steps_done(run) >= limit)  # type: ignore[misc]
        if kill % 2:
            while job.poll() is None and not any((run / "checkpoints").glob("*.tmp")):
                pass
        os.kill(chance.choice(victims), signal.SIGKILL)
        while_writing += any((run / "checkpoints").glob("*.tmp"))
        job.communicate()
        assert job.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), log(run)[-2000:]
        wait_until_over(victims)
        there = complete(run)
        again = start(corpora, run, overrides, steps=steps, checkpoint_every=4, validate_every=50)
        ranks(again, 2)
        seen = len(log(run))
        wait_for(again, lambda place=seen, there=there: "goes on from step" in log(run)[place:] or not there)  # type: ignore[misc]
        again.kill()
        again.communicate()
        wait_until_over([again.pid])
        if there:
            assert f"goes on from step {max(there)} of" in log(run)
            assert max(there) in complete(run)
    assert while_writing >= 5, f"only {while_writing} of the kills fell into the writing of a checkpoint"
    finish(start(corpora, run, overrides, steps=steps, checkpoint_every=4, validate_every=50), run)
    assert history(run) == history(whole)
    assert ledger(run) == ledger(whole)
    last = Path("checkpoints") / f"step-{steps:08d}"
    for file in (whole / last).glob("*.safetensors"):
        assert file.read_bytes() == (run / last / file.name).read_bytes()


def wait_until_over(processes: list[int]) -> None:
    for process in processes:
        while True:
            try:
                if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    break
            except OSError:
                break
            time.sleep(0.01)
