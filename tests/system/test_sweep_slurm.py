"""A sweep as an array of workers on a real SLURM of two nodes: to its end, through a lost worker, and not beyond a cancellation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slurm
from runs import make_corpus
from sweeps import assert_equal, attempts, row, said, write

from scigpt.launch.sweep.table import Role, Row, Table

pytestmark = [pytest.mark.drill, pytest.mark.skipif(slurm.missing() is not None, reason=slurm.missing() or "")]

CLI = [sys.executable, "-m", "scigpt.launch.cli"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("sweep"))


def plan(sweep: Path, corpus: Path, steps: int = 40, **more: Any) -> Table:
    """A trunk, an anneal, two others and a hold-out."""

    def one(name: str, role: Role, cost: int, decay: float = 0.2, **options: Any) -> Row:
        return row(sweep, [corpus], name, role, cost, decay=decay, data_width=4, **options, **more)

    trunk = one("trunk", "trunk", 40, 0.0, keep_steps=[20], steps=steps)
    anneal = one("anneal", "anneal", 5, parent=trunk.id, branch_step=20, steps=25)
    others = [one(f"grid-{n}", "grid", 20 + n, groups=n, steps=steps) for n in (1, 2)]
    return write(sweep, [trunk, anneal, *others, one("out", "hold-out", 1, steps=10)])


class Sweep:
    """A sweep that an array runs, as a user sees it."""

    def __init__(self, cluster: slurm.Cluster, table: Table) -> None:
        self.cluster, self.table = cluster, table

    def call(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*CLI, *words], env=self.cluster.environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr + self.said()
        return done

    def submit(self, *words: str, code: int = 0, cluster: str = "test") -> subprocess.CompletedProcess[str]:
        return self.call("sweep", "run", str(self.table.folder), "--on", "slurm", "--cluster", cluster, *words, code=code)

    def status(self) -> dict[str, Any]:
        return json.loads(self.call("sweep", "status", str(self.table.folder), "--json").stdout)

    def said(self) -> str:
        return said(self.table.folder)

    def over(self, job: str) -> bool:
        states = self.cluster.call("squeue", "-h", "--array", "-t", "all", "-j", job, "-o", "%T").split()
        return all(s in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL") for s in states)

    def wait(self, job: str) -> dict[str, Any]:
        slurm.eventually(lambda: self.over(job), f"the end of {job}", 400)
        return self.status()

    def row(self, name: str) -> Row:
        (found,) = [r for r in self.table.rows if r.name == name]
        return found

    def wait_for_step(self, name: str, step: int) -> None:
        metrics = self.table.run(self.row(name).id) / "metrics.jsonl"
        slurm.eventually(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") >= step, f"step {step} of {name}")

    def attempts(self, name: str) -> list[dict[str, Any]]:
        return attempts(self.table, self.row(name))


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The same sweep, run here by one worker."""
    table = plan(tmp_path_factory.mktemp("whole") / "sweep", corpus, 300)
    subprocess.run([*CLI, "sweep", "run", str(table.folder)], check=True, capture_output=True)
    return table


def test_two_workers_share_a_sweep(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    sweep = Sweep(cluster, plan(tmp_path / "sweep", corpus))
    script = sweep.submit("--nodes", "1", "--concurrent", "2", "--dry-run").stdout
    assert "#SBATCH --array=0-1%2" in script
    assert not (sweep.table.folder / "slurm").exists()
    job = sweep.submit("--nodes", "1", "--concurrent", "2").stdout.strip()
    assert job in sweep.submit("--nodes", "1", code=2).stderr  # it is in the queue
    assert {j["id"] for j in sweep.status()["jobs"]} == {f"{job}_0", f"{job}_1"}
    found = sweep.wait(job)
    assert found["counts"] == {"done": 5}, sweep.said()
    assert [len(attempts(sweep.table, r)) for r in sweep.table.rows] == [2] * 5
    workers = {a["worker"] for r in sweep.table.rows for a in attempts(sweep.table, r) if "begin" in a}
    assert len(workers) == 2
    assert "every row has its result" in sweep.submit("--nodes", "1").stdout


def test_a_row_on_two_nodes(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    """And what does not suit the nodes, or SLURM, is told before anything waits."""
    table = plan(tmp_path / "sweep", corpus, strategy="ddp")
    sweep = Sweep(cluster, table)
    assert "SLURM refuses" in sweep.submit("--partition", "nowhere", code=2).stderr
    single = Sweep(cluster, plan(tmp_path / "single", corpus))
    assert "row trunk" in single.submit(code=2).stderr
    found = sweep.wait(sweep.submit().stdout.strip())
    assert found["counts"] == {"done": 5}, sweep.said()
    assert json.loads((table.run(sweep.row("trunk").id) / "result.json").read_text())["processes"] == 2
    assert {a["devices"] for r in table.rows for a in attempts(sweep.table, r) if "begin" in a} == {2}


def warn(sweep: Sweep, job: str) -> None:
    """What SLURM sends before the time limit."""
    sweep.cluster.call("scancel", "--batch", "--signal=USR1", f"{job}_0")


def requeue(sweep: Sweep, job: str) -> None:
    sweep.cluster.call("scontrol", "requeue", f"{job}_0")


def lose_node(sweep: Sweep, job: str) -> None:
    node = sweep.cluster.call("squeue", "-h", "-j", f"{job}_0", "-o", "%N")
    sweep.cluster.lose_node(node)
    slurm.eventually(lambda: sweep.cluster.call("squeue", "-h", "-j", f"{job}_0", "-o", "%T") != "RUNNING", "SLURM notices the lost node")
    sweep.cluster.start_slurmd(node)


@pytest.mark.parametrize("strike", [warn, requeue, lose_node])
def test_a_preempted_worker_goes_on(
    cluster: slurm.Cluster, corpus: Path, whole: Table, tmp_path: Path, strike: Callable[[Sweep, str], None]
) -> None:
    sweep = Sweep(cluster, plan(tmp_path / "sweep", corpus, 300))
    job = sweep.submit("--nodes", "1").stdout.strip()
    sweep.wait_for_step("grid-1", 30)
    strike(sweep, job)
    found = sweep.wait(job)
    assert found["counts"] == {"done": 5}, sweep.said()
    assert sum("begin" in a for a in sweep.attempts("grid-1")) == 2
    assert_equal(sweep.table, whole)


def test_a_cancelled_array_does_not_come_back(cluster: slurm.Cluster, corpus: Path, tmp_path: Path) -> None:
    sweep = Sweep(cluster, plan(tmp_path / "sweep", corpus, 100_000))
    job = sweep.submit("--nodes", "1").stdout.strip()
    sweep.wait_for_step("grid-1", 30)
    sweep.call("cancel", str(sweep.table.folder))
    found = sweep.wait(job)
    assert {j["state"] for j in found["jobs"]} == {"CANCELLED"}
    (grid,) = [r for r in found["rows"] if r["name"] == "grid-1"]
    assert grid["state"] in ("ready", "stale")
