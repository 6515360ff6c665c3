"""`scigpt sweep run` on this machine: real processes, killed, crowded, stopped and misled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from runs import make_corpus
from sweeps import assert_equal, attempts, begun, finish, result, row, said, start, write

from scigpt.launch.sweep import rows
from scigpt.launch.sweep.lease import EXPIRY, Owner
from scigpt.launch.sweep.table import Row, Table


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("sweep"))


def until(process: subprocess.Popen[str], condition: Callable[[], bool], sweep: Path) -> None:
    while not condition():
        assert process.poll() is None, said(sweep)
        time.sleep(0.005)


def steps(table: Table, one: Row) -> int:
    file = table.run(one.id) / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def tree(sweep: Path, corpora: list[Path], more: int, length: int = 20) -> Table:
    """A trunk, two anneals, a hold-out and `more` other runs."""
    keep = {"keep_steps": [8, 12], "keep": 1, "steps": length}
    trunk = row(sweep, corpora, "trunk", "trunk", 30, decay=0.0, **keep)
    early = row(sweep, corpora, "early", "anneal", 4, trunk.id, 8, decay=0.2, steps=10)
    late = row(sweep, corpora, "late", "anneal", 5, trunk.id, 12, decay=0.2, steps=15)
    others = [row(sweep, corpora, f"g{i}", own_flops=40 + i, steps=length, groups=1 + i % 2) for i in range(more)]
    return write(sweep, [trunk, early, late, *others, row(sweep, corpora, "out", "hold-out", 1, steps=8)])


def test_two_workers_kill_the_launcher_and_go_on(corpus: Path, tmp_path: Path) -> None:
    """A trunk and its anneals beside a row that diverges and one that is a mistake."""
    sweep = tmp_path / "sweep"
    trunk = row(sweep, [corpus], "trunk", "trunk", 50, decay=0.0, keep_steps=[8], keep=1, steps=3000, checkpoint_every=4)
    anneal = row(sweep, [corpus], "early", "anneal", 4, trunk.id, 8, decay=0.2, steps=10)
    orphan = row(sweep, [corpus], "orphan", "anneal", 5, b"wrong".hex().ljust(12, "0"), 8, steps=10)
    wild = row(sweep, [corpus], "wild", own_flops=3, optim={"lr": 1e30, "warmup": 1}, steps=60)
    wrong = row(sweep, [tmp_path / "nothing"], "wrong", "trunk", 2, keep_steps=[8], steps=20)
    table = write(sweep, [trunk, anneal, orphan, wild, wrong])

    process = start(sweep, "--workers", "2")
    until(process, lambda: (table.run(anneal.id) / "result.json").exists(), sweep)
    assert not (table.run(trunk.id) / "result.json").exists()  # its branch did not wait for it
    process.kill()
    process.wait()
    before = steps(table, trunk)
    limit = time.monotonic() + 30
    while (found := rows.standings(table)[trunk.id]).state == "running" and time.monotonic() < limit:
        time.sleep(0.01)
    assert found.state == "stale"
    # its workers and what they train are gone too, and a lease of a dead process is no obstacle
    assert before <= steps(table, trunk) < 3000
    process = start(sweep)
    until(process, lambda: begun(table, trunk) == 2 and steps(table, trunk) > before, sweep)
    process.send_signal(signal.SIGTERM)
    told = finish(process, sweep, 75)
    assert (told["status"], told["signal"]) == ("stopped", "SIGTERM")
    standing = rows.standings(table)
    assert standing[trunk.id].state == "ready"
    assert [a.get("outcome") for a in attempts(table, trunk) if "end" in a] == ["lost", "stopped"]
    assert not (sweep / "rows" / trunk.id / "lease.json").exists()

    assert result(table, anneal)["status"] == "finished"
    assert (begun(table, wild), standing[wild.id].state) == (1, "diverged")  # a result, and not tried again
    assert result(table, wild)["status"] == "diverged"
    assert (standing[wrong.id].state, standing[orphan.id].state) == ("failed", "failed")
    assert "nothing" in (standing[wrong.id].reason or "")
    assert "trunk wrong" in (standing[orphan.id].reason or "")
    assert begun(table, orphan) == 0
    assert begun(table, wrong) == 2  # by each launch once: the user may have mended it
    assert {f["name"] for f in told["failures"]} == {"wild", "wrong", "orphan"}


def work(table: Table, *command: str) -> int:
    """One worker that trains by a program of ours."""
    words = [sys.executable, "-m", "scigpt.launch.sweep.worker", str(table.folder), "--", *command]
    return subprocess.run(words, stderr=subprocess.DEVNULL).returncode


SHELL = """
run=$(sed -n 's/^run: //p' "$1")
mkdir -p "$run/checkpoints"
echo "$(basename $run)" >> "$run/../order"
"""


def finished(own_flops: int = 1, **more: object) -> str:
    told = {"status": "finished", "step": 20, "loss": 1.0, "own_flops": own_flops, "score": 1.0} | more
    return SHELL + f"echo '{json.dumps(told)}' > \"$run/result.json\""


def test_branch_points_are_freed_when_no_branch_needs_them(corpus: Path, tmp_path: Path) -> None:
    """And a sweep that is done is left as it is."""
    sweep = tmp_path / "sweep"
    trunk = row(sweep, [corpus], "trunk", "trunk", 50)
    table = write(sweep, [trunk, *(row(sweep, [corpus], f"at-{n}", "anneal", n, trunk.id, n) for n in (8, 20))])
    script = f"""{finished()}
        case "$run" in *{trunk.id}) steps="08 20" ;; *) ls "$run/../{trunk.id}/checkpoints" >> "$run/../seen"; steps=20 ;; esac
        for n in $steps; do
          mkdir "$run/checkpoints/step-000000$n"; touch "$run/checkpoints/step-000000$n/manifest.json"
        done"""
    assert work(table, "bash", "-c", script, "train") == 0
    assert (sweep / "runs" / "seen").read_text().split() == ["step-00000008", "step-00000020"] * 2
    assert [p.name for p in (table.run(trunk.id) / "checkpoints").iterdir()] == ["step-00000020"]  # the newest stays
    before = {p: p.stat().st_mtime_ns for p in sweep.rglob("*") if p.is_file()}
    assert finish(start(sweep, "--workers", "2"), sweep)["counts"] == {"done": 3}
    assert before == {p: p.stat().st_mtime_ns for p in sweep.rglob("*") if p.is_file()}


def test_rows_go_by_cost_and_hold_outs_last(corpus: Path, tmp_path: Path) -> None:
    """A budget that does not cover the last one leaves it."""
    sweep = tmp_path / "sweep"
    made = [row(sweep, [corpus], n, r, c) for n, r, c in (("b", "grid", 20), ("out", "hold-out", 1), ("a", "lr-probe", 10))]
    big = row(sweep, [corpus], "big", own_flops=1000)
    table = write(sweep, [*made, big])
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({"budget": {"flops": 1003.0}}))
    assert work(table, "bash", "-c", finished(), "train") == 0
    by_id = {r.id: r.name for r in table.rows}
    assert [by_id[i] for i in (sweep / "runs" / "order").read_text().split()] == ["a", "b", "big", "out"]
    other = write(tmp_path / "tight", table.rows)
    (tmp_path / "tight" / "sweep.yaml").write_text(yaml.safe_dump({"budget": {"flops": 1001.0}}))
    assert work(other, "bash", "-c", finished(), "train") == 0
    found = rows.standings(other)
    assert [found[r.id].state for r in (*made, big)] == ["done", "done", "done", "ready"]
    assert "998 of the budget" in (rows.overrun(found[big.id], found.values(), 1001.0) or "")


def test_faults_are_tried_three_times_unless_there_is_progress(corpus: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    bad, slow = row(sweep, [corpus], "bad", own_flops=1), row(sweep, [corpus], "slow", own_flops=2)
    table = write(sweep, [bad, slow])
    # `slow` is killed four times, each time one checkpoint further on
    script = f"""{SHELL}
        case "$run" in *{bad.id}) echo out of memory; exit 1;; esac
        n=$(ls "$run/checkpoints" | wc -l)
        [ "$n" -lt 4 ] || {{ {finished()}; exit 0; }}
        mkdir "$run/checkpoints/step-0000000$n"; touch "$run/checkpoints/step-0000000$n/manifest.json"
        kill -9 $$"""
    assert work(table, "bash", "-c", script, "train") == 0
    found = rows.standings(table)
    assert (found[bad.id].state, begun(table, bad)) == ("failed", 3)
    assert found[bad.id].reason == "3 attempts without a new checkpoint, the last one ended with code 1: out of memory"
    assert (found[slow.id].state, begun(table, slow)) == ("done", 5)
    assert [a["reason"] for a in attempts(table, slow) if "end" in a][:4] == ["ended by SIGKILL"] * 4
    rows.forgive(table, found[bad.id])
    assert rows.standings(table)[bad.id].state == "ready"


def test_a_row_that_another_takes_is_let_go(corpus: Path, tmp_path: Path) -> None:
    """As after a machine slept: another has the row now, and what this one trains is ended at once."""
    sweep = tmp_path / "sweep"
    table = write(sweep, [row(sweep, [corpus], "a")])
    folder = sweep / "rows" / table.rows[0].id
    words = [
        sys.executable,
        "-c",
        "import scigpt.launch.sweep.lease as l; l.HEARTBEAT = 0.0; import sys, scigpt.launch.sweep.worker as w; sys.exit(w.main())",
    ]
    process = subprocess.Popen(
        [*words, str(sweep), "--", "bash", "-c", f"{SHELL} echo $$ > {sweep}/pid; sleep 100; true", "train"], text=True
    )
    until(process, lambda: (sweep / "pid").exists() and bool((sweep / "pid").read_text()), sweep)
    trainer = int((sweep / "pid").read_text())
    other = Owner("elsewhere", 12, "another boot", "7", "feed")
    (folder / "new").write_text(json.dumps({k: getattr(other, k) for k in ("host", "pid", "place", "started", "token", "job")}))
    os.replace(folder / "new", folder / "lease.json")
    until(process, lambda: not Path(f"/proc/{trainer}").exists(), sweep)
    assert rows.standings(table)[table.rows[0].id].worker == "elsewhere:12"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    assert json.loads((folder / "lease.json").read_text())["token"] == "feed"
    assert len(attempts(table, table.rows[0])) == 1


def test_a_lost_machine_is_noted_with_its_last_sign(corpus: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    table = write(sweep, [row(sweep, [corpus], "a")])
    folder = sweep / "rows" / table.rows[0].id
    folder.mkdir(parents=True)
    rows.note(folder, {"begin": time.time() - 1000, "worker": "elsewhere:12", "token": "feed", "devices": 4, "checkpoint": None})
    (folder / "lease.json").write_text('{"host": "elsewhere", "pid": 12, "place": "another boot", "token": "feed"}')
    assert rows.standings(table)[table.rows[0].id].state == "running"
    seen = time.time() - EXPIRY - 1
    os.utime(folder / "lease.json", (seen, seen))
    found = rows.standings(table)[table.rows[0].id]
    assert (found.state, found.worker) == ("stale", "elsewhere:12")
    assert found.device_seconds == pytest.approx(4 * (1000 - EXPIRY - 1), abs=2)
    assert work(table, "bash", "-c", finished(), "train") == 0
    told = attempts(table, table.rows[0])
    assert [t.get("outcome") for t in told] == [None, "lost", None, "finished"]
    assert told[1]["end"] == pytest.approx(seen, abs=1)


@pytest.mark.drill
def test_a_sweep_killed_again_and_again_is_the_undisturbed_one(corpus: Path, tmp_path: Path) -> None:
    whole, table = (tree(tmp_path / name, [corpus], 5, 60) for name in ("whole", "sweep"))
    finish(start(whole.folder, "--workers", "2"), whole.folder)
    for kill in range(8):
        process = start(table.folder, "--workers", "2")
        time.sleep(2 + 1.3 * kill)
        process.send_signal((signal.SIGKILL, signal.SIGTERM)[kill % 4 == 3])
        process.communicate()
    told = finish(start(table.folder, "--workers", "2"), table.folder)
    assert told["counts"] == {"done": 9}
    assert_equal(table, whole)


@pytest.mark.drill
def test_two_launchers_share_the_rows(corpus: Path, tmp_path: Path) -> None:
    table = tree(tmp_path / "sweep", [corpus], 5)
    jobs = [start(table.folder, "--workers", "2") for _ in range(2)]
    told = [finish(job, table.folder) for job in jobs]
    assert [t["counts"] for t in told] == [{"done": 9}, {"done": 9}]
    assert [begun(table, r) for r in table.rows] == [1] * 9


@pytest.mark.drill
def test_a_worker_that_is_killed_is_replaced(corpus: Path, tmp_path: Path) -> None:
    table = tree(tmp_path / "sweep", [corpus], 1)
    process = start(table.folder)
    until(process, lambda: steps(table, table.rows[-2]) > 3, table.folder)
    (lease,) = table.folder.glob("rows/*/lease.json")
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)
    assert finish(process, table.folder)["counts"] == {"done": 5}
    assert sum(begun(table, r) for r in table.rows) == 6
