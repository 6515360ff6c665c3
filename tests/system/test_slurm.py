"""`scigpt submit` on a real SLURM of two nodes: to the end, through every preemption, and not beyond a mistake or a cancellation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import pytest
import slurm
import yaml
from runs import history, ledger, lines, make_corpus, settings, tensors, write

from scigpt.launch.slurm import OVER

pytestmark = pytest.mark.skipif(slurm.missing() is not None, reason=slurm.missing() or "")

STEPS = 300
CLI = [sys.executable, "-m", "scigpt.launch.cli"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("slurm"))


class Job:
    """A run that is trained by a job, as a user sees it."""

    def __init__(self, cluster: slurm.Cluster, run: Path) -> None:
        self.cluster, self.run = cluster, run

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*CLI, *arguments], env=self.cluster.environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr + self.log()
        return done

    def submit(self, corpus: Path, *arguments: str, cluster: str = "test", **train: Any) -> str:
        data = settings([corpus], self.run, **train)
        data["data"]["data_width"] = 4
        self.config = write(data, self.run.with_suffix(".yaml"))
        return self.call("submit", str(self.config), "--cluster", cluster, *arguments).stdout.strip()

    def status(self) -> dict[str, Any]:
        return json.loads(self.call("status", str(self.run), "--json").stdout)

    def log(self) -> str:
        return "".join(f.read_text() for f in (self.run / "slurm").glob("*.out"))

    def launches(self) -> list[dict[str, Any]]:
        file = self.run / "slurm" / "launches.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [r for r in records if "begin" in r]

    def over(self) -> bool:
        job = json.loads((self.run / "slurm" / "job.json").read_text())["job"]
        return self.cluster.call("squeue", "-h", "-t", "all", "-j", job, "-o", "%T") in OVER

    def wait(self) -> dict[str, Any]:
        """To the end of the job."""
        slurm.eventually(self.over, f"the end of {self.run.name}", 400)
        return self.status()

    def wait_for_step(self, step: int, launch: int = 1) -> None:
        """Until this launch has done the step."""

        def reached() -> bool:
            assert not self.over(), self.log()
            found = self.launches()
            return len(found) >= launch and jobs.steps_done(self.run, int(found[launch - 1]["begin"] * 1e9)) >= step

        slurm.eventually(reached, f"step {step} of launch {launch} of {self.run.name}")


def assert_equal_runs(a: Path, b: Path) -> None:
    assert history(a) == history(b)
    assert ledger(a) == ledger(b)
    assert tensors(a) == tensors(b)


def test_a_job_of_two_nodes_trains_to_its_end(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    """And its numbers are those of two processes started by hand."""
    job = Job(cluster, tmp_path / "run")
    number = job.submit(corpus, "strategy=ddp", steps=20)
    found = job.wait()
    assert (found["state"], found["step"], found["checkpoint"]) == ("finished", 20, "step-00000020")
    assert (found["restarts"], found["devices"]) == (0, 2)
    assert (found["said"], found["job"]["id"], found["job"]["state"]) == ("finished", number, "COMPLETED")
    assert 0 < found["device_hours"] == found["device_hours_expected"] < 1
    jobs.pretrain([corpus], tmp_path / "hand", ["strategy=ddp", "strategy.processes=2"], steps=20)
    assert_equal_runs(job.run, tmp_path / "hand")
    assert "no job of it" in job.call("cancel", str(job.run)).stdout


def test_a_mistake_ends_the_job_and_is_told(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path / "run")
    job.submit(tmp_path / "nothing", "strategy=ddp")
    found = job.wait()
    assert found["state"] == "stopped"
    assert "nothing" in found["said"]
    assert len(job.launches()) == 1


def test_a_cancelled_job_does_not_come_back(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    """An array, of which every task is cancelled. While it trains it is not submitted again."""
    job = Job(cluster, tmp_path / "runs")
    array = ("--array", "optim.lr=0.01,0.02", "--nodes", "1", "--concurrent", "2")
    number = job.submit(corpus, *array, steps=100_000)
    one, two = (Job(cluster, job.run / f"optim.lr-{rate}") for rate in ("0.01", "0.02"))
    one.wait_for_step(3)
    two.wait_for_step(3)
    again = job.call("submit", str(job.config), *array, "--cluster", "test", code=2)
    assert number in again.stderr
    shown = job.status()["runs"]
    assert [(r["state"], r["job"]["id"], r["devices"]) for r in shown] == [("running", f"{number}_{i}", 1) for i in (0, 1)]
    assert "cancelled" in job.call("cancel", str(job.run)).stdout
    assert [r.wait()["job"]["state"] for r in (one, two)] == ["CANCELLED", "CANCELLED"]
    assert [len(r.launches()) for r in (one, two)] == [1, 1]
    rates = [yaml.safe_load((r.run / "config.yaml").read_text())["optim"]["lr"] for r in (one, two)]
    assert rates == [0.01, 0.02]


def test_preflight_names_the_bad_node(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """The second node has another folder, as where a file system is not mounted."""
    (tmp_path / "mounted").mkdir()
    (tmp_path / "bare").mkdir()
    script = tmp_path / "check.sh"
    folder = f"{tmp_path}/$([ $SLURM_PROCID = 0 ] && echo mounted || echo bare)"
    check = f"exec {sys.executable} -m scigpt.launch.preflight {folder} --patience 5"
    script.write_text(f"#!/bin/bash\nexport MASTER_ADDR=127.0.0.1 MASTER_PORT=29400\nsrun bash -c '{check}'\n")
    out = tmp_path / "out"
    done = subprocess.run(["sbatch", "--wait", "-N2", f"-o{out}", str(script)], env=cluster.environment, capture_output=True)
    assert done.returncode == 1
    said = out.read_text()
    assert "node n2 does not see in" in said
    assert "node n1 does not see in" in said


@pytest.mark.drill
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "deepspeed strategy.stage=1", "deepspeed strategy.stage=3"])
def test_every_strategy_trains_to_its_end(cluster: slurm.Cluster, corpus: Path, tmp_path: Path, strategy: str) -> None:
    job = Job(cluster, tmp_path / "run")
    job.submit(corpus, *f"strategy={strategy}".split())
    found = job.wait()
    assert (found["state"], found["step"], found["restarts"]) == ("finished", 20, 0), job.log()


@pytest.fixture(scope="module")
def whole(cluster: slurm.Cluster, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that nothing disturbed."""
    job = Job(cluster, tmp_path_factory.mktemp("whole") / "run")
    job.submit(corpus, "strategy=ddp", steps=STEPS)
    assert job.wait()["restarts"] == 0
    return job.run


def warn(job: Job, number: str) -> None:
    job.cluster.call("scancel", "--signal=USR1", number)


def requeue(job: Job, number: str) -> None:
    job.cluster.call("scontrol", "requeue", number)


def kill_process(job: Job, number: str) -> None:
    os.kill(job.cluster.trainer(number, 1), signal.SIGKILL)


def lose_node(job: Job, number: str) -> None:
    """A node is gone with all that ran there; it comes back when SLURM has noticed."""
    job.cluster.lose_node("n2")
    slurm.eventually(lambda: job.cluster.call("squeue", "-h", "-j", number, "-o", "%T") != "RUNNING", "SLURM notices the lost node")
    job.cluster.start_slurmd("n2")


@pytest.mark.drill
@pytest.mark.parametrize("strike", [warn, requeue, kill_process, lose_node])
def test_a_preempted_job_finishes_by_itself(
    cluster: slurm.Cluster, corpus: Path, whole: Path, tmp_path: Path, strike: Callable[[Job, str], None]
) -> None:
    job = Job(cluster, tmp_path / "run")
    number = job.submit(corpus, "strategy=ddp", steps=STEPS)
    job.wait_for_step(30)
    strike(job, number)
    found = job.wait()
    assert (found["state"], found["step"], found["restarts"]) == ("finished", STEPS, 1), job.log()
    assert_equal_runs(job.run, whole)


@pytest.mark.drill
def test_a_job_outlives_its_daemons(cluster: slurm.Cluster, corpus: Path, whole: Path, tmp_path: Path) -> None:
    job = Job(cluster, tmp_path / "run")
    job.submit(corpus, "strategy=ddp", steps=STEPS)
    job.wait_for_step(30)
    for node in slurm.NODES:
        cluster.kill_slurmd(node)
    job.wait_for_step(60)
    for node in slurm.NODES:
        cluster.start_slurmd(node)
    found = job.wait()
    assert (found["state"], found["step"], found["restarts"]) == ("finished", STEPS, 0), job.log()
    assert_equal_runs(job.run, whole)


@pytest.mark.drill
def test_the_time_limit_is_not_the_end(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    """The warning before it makes the run save itself, and the next turn goes on from there."""
    profile = tmp_path / "short.yaml"
    profile.write_text(yaml.safe_dump({"nodes": 2, "time": "00:01:00", "warning": 20, "environment": {"MASTER_ADDR": "127.0.0.1"}}))
    job = Job(cluster, tmp_path / "run")
    job.submit(corpus, "strategy=ddp", cluster=str(profile), steps=1_000_000, checkpoint_every=100_000)
    job.wait_for_step(0, launch=2)
    saved = job.launches()[1]["checkpoint"]
    job.wait_for_step(int(saved.removeprefix("step-")) + 10, launch=2)
    job.call("cancel", str(job.run))
    job.wait()
    ends = [json.loads(line).get("code") for line in (job.run / "slurm" / "launches.jsonl").read_text().splitlines()]
    assert ends[0] is None
    assert ends[1] in (75, 128 + signal.SIGTERM)  # of the slower process, which srun may end while it leaves
    assert [line["step"] for line in lines(job.run)] == list(range(1, len(lines(job.run)) + 1))


@pytest.mark.drill
def test_a_job_that_gets_nowhere_gives_up(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    """The interpreter of the profile ends every training with code 7."""
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/bash\ncase "$*" in *pretrain*) exit 7;; esac\nexec {sys.executable} "$@"\n')
    broken.chmod(0o755)
    profile = tmp_path / "broken.yaml"
    values = {"nodes": 2, "max_failures": 2, "python": str(broken), "environment": {"MASTER_ADDR": "127.0.0.1"}}
    profile.write_text(yaml.safe_dump(values))
    job = Job(cluster, tmp_path / "run")
    job.submit(corpus, "strategy=ddp", cluster=str(profile))
    found = job.wait()
    assert (found["state"], found["job"]["state"], len(job.launches())) == ("stopped", "FAILED", 2)
    assert "code 7" in found["said"]
    assert "gives up" in found["said"]
