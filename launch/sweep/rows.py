"""Where the rows of a sweep stand, from the files alone: leases, attempts, results.

Nobody is asked and no log is read. Beside the runs in SWEEP/runs there are:

    rows/ID/lease.json        while a worker has the row
            attempts.jsonl    of each attempt a line when it begins and one when it is known to have ended
            config.yaml       what `scigpt pretrain` is given
            log.txt           what it said, of all attempts
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from scigpt.data.files import dump_json, load_json
from scigpt.launch import slurm
from scigpt.launch.sweep import lease
from scigpt.launch.sweep.table import CONFIG as SETTINGS
from scigpt.launch.sweep.table import ROWS, Row, Table

LEASE, ATTEMPTS, CONFIG, LOG, MISTAKE, RESULT = "lease.json", "attempts.jsonl", "config.yaml", "log.txt", "mistake.txt", "result.json"
MOST = 3
"""Attempts in a row that were lost or ended by a fault without a new checkpoint, after which a row has failed."""

State = Literal["pending", "ready", "running", "stale", "done", "diverged", "failed"]
STATES: tuple[State, ...] = ("done", "diverged", "running", "stale", "ready", "pending", "failed")
OVER = ("done", "diverged", "failed")
"""States of a row on which nothing will be spent."""
FAULTS = ("fault", "lost")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a worker had a row.

    Args:
        begin, end: seconds since 1970; `end` is None while it runs, and that of its last sign of life where the worker was lost.
        worker: host and process.
        devices: processes that trained.
        checkpoint: name of the newest checkpoint when it began.
        outcome: finished, diverged, stopped (asked to, and saved), fault, lost (the worker is gone), mistake (of the user).
    """

    begin: float
    worker: str
    token: str
    devices: int
    checkpoint: str | None
    end: float | None = None
    outcome: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands.

    Args:
        reason: why it failed, waits or is stale.
        step: steps done of `row.steps`, the trunk's included.
        loss: of training, the last one.
        attempts: how often it was begun.
        worker: who has it.
        flops: what was spent on it; as measured once there is a result.
        devices: processes that train it now.
        device_seconds: what its attempts took, all processes counted.
    """

    row: Row
    state: State
    reason: str | None
    step: int
    loss: float | None
    attempts: int
    worker: str | None
    flops: float
    device_seconds: float
    devices: int
    result: Mapping[str, Any] | None

    @property
    def over(self) -> bool:
        return self.state in OVER


def budget_of(table: Table) -> float | None:
    """FLOPs that the sweep may cost; None for a table without a sweep.yaml beside it."""
    file = table.folder / SETTINGS
    if not file.exists():
        return None
    budget = yaml.safe_load(file.read_text(encoding="utf-8"))["budget"]
    if budget.get("flops") is not None:
        return float(budget["flops"])
    from scigpt.launch.sweep.config import BudgetConfig

    return BudgetConfig(**budget).total


def folder_of(table: Table, row: Row) -> Path:
    return table.folder / ROWS / row.id


def result_of(table: Table, row: Row) -> dict[str, Any] | None:
    """What the run of a row has come to, when it is complete: finished at the last step of the row, or diverged. Nothing else counts."""
    file = table.run(row.id) / RESULT
    if not file.exists():
        return None
    found = load_json(file, "the result of a run")
    whole = found["status"] == "finished" and found["step"] == row.steps
    return found if whole or found["status"] == "diverged" else None


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is whole, by its manifest; the hashes are left to who loads it."""
    return (checkpoint / "manifest.json").exists()


# ---------------------------------------------------------------- attempts


def note(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a line to the attempts of a row; for the holder of its lease only."""
    with open(folder / ATTEMPTS, "ab") as file:
        file.write(dump_json(record))
        file.flush()
        os.fsync(file.fileno())


def attempts(folder: Path) -> list[Attempt]:
    """The attempts at a row since it was last given another chance (`forgive`), the oldest first."""
    return _history(folder)[1]


def forgive(table: Table, standing: Standing) -> None:
    """Give a row that has failed another chance, unless somebody has it."""
    folder = folder_of(table, standing.row)
    if standing.state == "failed" and (held := lease.Lease.take(folder / LEASE)):
        try:
            note(folder, {"forgiven": lease.now(folder)})
        finally:
            held.release()


def _history(folder: Path) -> tuple[list[Attempt], list[Attempt]]:
    """All attempts, and those since the last pardon."""
    file, pardoned = folder / ATTEMPTS, 0
    found: list[Attempt] = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # its writer was killed in the middle of it
            continue
        if "forgiven" in record:
            pardoned = len(found)
        elif "begin" in record:
            found.append(Attempt(**record))
        else:
            ended = [i for i, a in enumerate(found) if a.token == record["token"]]
            for i in ended[-1:]:
                found[i] = replace(found[i], **record)
    return found, found[pardoned:]


def verdict(found: list[Attempt], checkpoint: str | None) -> str | None:
    """Why a row is not tried again, None when it may be: a mistake of the user, or `MOST` attempts lost since the last new checkpoint.

    Args:
        found: attempts, none of them under way.
        checkpoint: name of the newest one now.
    """
    if found and found[-1].outcome == "mistake":
        return found[-1].reason
    idle, why = 0, None
    for attempt in reversed(found):
        if attempt.checkpoint != checkpoint:
            break
        if (attempt.outcome or "lost") in FAULTS:
            idle, why = idle + 1, why or attempt.reason
    if idle < MOST:
        return None
    return f"{idle} attempts without a new checkpoint, the last one {why or 'lost with its worker'}"


# ---------------------------------------------------------------- states


def standings(table: Table) -> dict[str, Standing]:
    """Where every row stands, by id and in the order of the table."""
    now = lease.now(table.folder)
    own = {row.id: _own(table, row, now) for row in table.rows}
    return {row.id: own[row.id] if row.parent is None else _branch(table, own[row.id], own[row.parent]) for row in table.rows}


def _own(table: Table, row: Row, now: float) -> Standing:
    """Where a row stands, its trunk left aside."""
    folder, run = folder_of(table, row), table.run(row.id)
    everything, since = _history(folder)
    first, result, held = row.branch_step or 0, result_of(table, row), lease.held(folder / LEASE)
    step, loss = (result["step"], result["loss"]) if result else _last(run / "metrics.jsonl", first)
    spent = result["own_flops"] if result else row.own_flops * (step - first) / max(1, row.steps - first)
    state: State = "ready"
    reason = None
    if result:
        state, reason = ("done", None) if result["status"] == "finished" else ("diverged", f"diverged at step {step} of {row.steps}")
    elif held and not held.stale(now):
        state = "running"
    elif (end := verdict(since, slurm.newest(run))) is not None:
        state, reason = "failed", end
    elif held:
        state, reason = "stale", f"{held.owner.name} is lost"
    busy = sum(a.devices * max(0.0, (a.end or _sign(a, held, now)) - a.begin) for a in everything)
    worker = held.owner.name if held and state in ("running", "stale") else None
    devices = everything[-1].devices if everything and state == "running" else 0
    return Standing(row, state, reason, step, loss, len(everything), worker, spent, busy, devices, result)


def _sign(attempt: Attempt, held: lease.Held | None, now: float) -> float:
    """When an attempt that has no end was last heard of."""
    if held is None or held.owner.token != attempt.token:
        return attempt.begin
    return held.touched if held.stale(now) else now


def _branch(table: Table, own: Standing, trunk: Standing) -> Standing:
    """Where an anneal stands: nowhere before its trunk's checkpoint is there, unless it has one of its own."""
    start = table.branch(own.row)
    if own.state not in ("ready", "stale") or start is None or complete(start) or slurm.newest(table.run(own.row.id)):
        return own
    label = f"trunk {trunk.row.name} ({trunk.row.id})"
    if trunk.state == "done":
        return replace(own, state="failed", reason=f"its {label} is done and has no checkpoint of step {own.row.branch_step}")
    if trunk.over:
        return replace(own, state="failed", reason=f"its {label} {trunk.state}: {trunk.reason}")
    return replace(own, state="pending", reason=f"waits for step {own.row.branch_step} of its {label}")


def _last(metrics: Path, first: int) -> tuple[int, float | None]:
    """Step and loss of the last whole line of a run's metrics."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 16)))
            lines = file.read().splitlines()
    except OSError:
        return first, None
    for line in reversed(lines[-2:]):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        return int(found["step"]), found["loss"]
    return first, None


def order(found: Iterable[Standing]) -> list[Standing]:
    """What can be begun now, the cheapest first, hold-outs last."""
    able = (s for s in found if s.state in ("ready", "stale"))
    return sorted(able, key=lambda s: (s.row.role == "hold-out", s.row.own_flops))


def committed(found: Iterable[Standing]) -> float:
    """FLOPs spent, and to be spent on rows that run now."""
    return sum(max(s.flops, s.row.own_flops) if s.state == "running" else s.flops for s in found)


def overrun(standing: Standing, found: Iterable[Standing], budget: float | None) -> str | None:
    """Why a row is not begun: it would cost more than is left of the budget of the sweep. None where there is enough, or no budget."""
    if budget is None:
        return None
    left, cost = budget - committed(found), standing.row.own_flops - standing.flops
    if cost <= left + 1e-6 * budget:
        return None
    return f"needs {cost:.3g} FLOPs, and {max(left, 0.0):.3g} of the budget of {budget:.3g} are left"
