"""`scigpt sweep status`, from files alone: what each state looks like, and what is summed up of them."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import row, write

from scigpt.launch.cli import main
from scigpt.launch.sweep import lease, rows
from scigpt.launch.sweep.lease import Lease
from scigpt.launch.sweep.table import Row, Table


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(["sweep", *arguments])
    return left.value.code


def result(table: Table, one: Row, **more: Any) -> None:
    told = {"status": "finished", "step": one.steps, "loss": 0.25, "score": 0.5, "own_flops": one.own_flops, "branch_step": None} | more
    table.run(one.id).mkdir(parents=True)
    (table.run(one.id) / "result.json").write_text(json.dumps(told))


def attempt(table: Table, one: Row, begin: float, end: float | None = None, token: str = "t", **more: Any) -> None:
    folder = rows.folder_of(table, one)
    folder.mkdir(parents=True, exist_ok=True)
    rows.note(folder, {"begin": begin, "worker": "w:1", "token": token, "devices": 2, "checkpoint": None})
    if end is not None:
        rows.note(folder, {"token": token, "end": end, "outcome": "finished", "reason": None} | more)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A row in each state. Begun 100 s ago on two devices each: 1000 + 250 + 250 FLOPs in 200 + 200 + 200 device-seconds."""
    sweep, data, now = tmp_path / "sweep", [tmp_path / "none"], time.time()
    done, wild, half, gone = (row(sweep, data, name) for name in ("done", "wild", "half", "gone"))
    trunk = row(sweep, data, "trunk", "trunk", 3000, steps=40)
    anneal, fresh = row(sweep, data, "anneal", "anneal", 500, trunk.id, 8), row(sweep, data, "fresh", own_flops=4000)
    bad = row(sweep, data, "bad")
    table = write(sweep, [done, wild, half, gone, trunk, anneal, fresh, bad])
    result(table, done)
    attempt(table, done, now - 100, now)
    result(table, wild, status="diverged", step=5, loss=None, own_flops=250)
    attempt(table, wild, now - 100, now)
    table.run(half.id).mkdir(parents=True)
    (table.run(half.id) / "metrics.jsonl").write_text('{"step":4,"loss":2.0}\n{"step":5,"loss":1.5}\n{"step":6,"lo')
    held = Lease.take(rows.folder_of(table, half) / rows.LEASE)
    assert held is not None
    attempt(table, half, now - 100, token=held.owner.token)
    folder = rows.folder_of(table, gone)
    folder.mkdir(parents=True)
    (folder / rows.LEASE).write_text('{"host": "elsewhere", "pid": 7, "place": "x", "token": "u"}')
    os.utime(folder / rows.LEASE, (now - lease.EXPIRY - 1, now - lease.EXPIRY - 1))
    attempt(table, bad, now, now, outcome="mistake", reason="there is no such corpus")
    return table


def test_every_state_and_the_sums(table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    (table.folder / "sweep.yaml").write_text(yaml.safe_dump({"budget": {"flops": 8000}}))
    assert code_of("status", str(table.folder / "table.json"), "--json") in (0, None)
    found = json.loads(capsys.readouterr().out)
    by_name = {r["name"]: r for r in found["rows"]}
    states = {name: r["state"] for name, r in by_name.items()}
    assert states == {
        "done": "done",
        "wild": "diverged",
        "half": "running",
        "gone": "stale",
        "trunk": "ready",
        "anneal": "pending",
        "fresh": "ready",
        "bad": "failed",
    }
    assert found["counts"] == {"done": 1, "diverged": 1, "running": 1, "stale": 1, "ready": 2, "pending": 1, "failed": 1}
    assert (by_name["half"]["step"], by_name["half"]["steps"], by_name["half"]["loss"]) == (5, 20, 1.5)
    assert by_name["half"]["worker"].endswith(f":{os.getpid()}")
    assert (by_name["gone"]["worker"], by_name["done"]["score"], by_name["done"]["attempts"]) == ("elsewhere:7", 0.5, 1)
    assert by_name["anneal"]["step"] == 8
    assert by_name["anneal"]["reason"] == f"waits for step 8 of its trunk trunk ({by_name['trunk']['id']})"
    spent, left = 1000 + 250 + 250, 750 + 1000 + 3000 + 500 + 4000
    assert found["flops"] == {"planned": 12500, "spent": spent, "remaining": left, "budget": 8000}
    assert found["device_hours"]["spent"] == pytest.approx(600 / 3600, abs=0.01)
    assert found["flops_per_device_second"] == pytest.approx(spent / 600, rel=0.05)
    end = datetime.fromisoformat(found["expected_end"])
    assert (end - datetime.now(UTC)).total_seconds() == pytest.approx(left / (2 * spent / 600), rel=0.1)
    assert [(f["name"], f["reason"]) for f in found["failures"]] == [
        ("wild", "diverged at step 5 of 20"),
        ("bad", "there is no such corpus"),
    ]
    # 2250 are spent or promised; the trunk's 3000 fit into 8000, and 4000 too, each for itself
    assert found["refused"] == []


def test_a_row_beyond_the_budget_is_told(table: Table, capsys: pytest.CaptureFixture[str]) -> None:
    (table.folder / "sweep.yaml").write_text(yaml.safe_dump({"budget": {"flops": 6000, "device_hours": None}}))
    assert code_of("status", str(table.folder)) in (0, None)
    out = capsys.readouterr().out
    assert "not begun: fresh" in out
    assert "needs 4e+03 FLOPs, and 3.75e+03 of the budget of 6e+03 are left" in out
    assert "failed: bad" in out
    assert "of a budget of 6e+03" in out


def test_an_anneal_follows_its_trunk(table: Table) -> None:
    trunk, anneal = table.rows[4], table.rows[5]
    point = table.branch(anneal)
    assert point is not None
    point.mkdir(parents=True)
    assert rows.standings(table)[anneal.id].state == "pending"  # not whole yet
    (point / "manifest.json").touch()
    assert rows.standings(table)[anneal.id].state == "ready"
    (point / "manifest.json").unlink()
    (table.run(trunk.id) / "result.json").write_text(json.dumps({"status": "diverged", "step": 5, "loss": None, "own_flops": 1}))
    found = rows.standings(table)[anneal.id]
    assert (found.state, found.reason) == ("failed", f"its trunk trunk ({trunk.id}) diverged: diverged at step 5 of 40")


def test_a_result_of_another_length_is_not_this_row(table: Table) -> None:
    done = table.rows[0]
    (table.run(done.id) / "result.json").write_text(json.dumps({"status": "finished", "step": 19, "loss": 1, "own_flops": 1}))
    assert rows.standings(table)[done.id].state == "ready"


def test_mistakes_are_one_sentence(table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["status", str(tmp_path)], "there is no table.json"),
        (["run", str(table.folder), "--cluster", "test"], "--cluster is for a cluster; add --on slurm"),
        (["run", str(table.folder), "--on", "slurm", "--cluster", "tset"], "did you mean test?"),
    ):
        assert code_of(*words) == 2
        err = capsys.readouterr().err
        assert told in err
        assert "Traceback" not in err
