"""A worker of a sweep: takes the next row that can be run, trains it in a process of its own, notes how it ended, takes the next.

    python -m scigpt.launch.sweep.worker SWEEP [--patience SECONDS] [--devices N] [-- COMMAND...]

Workers know nothing of each other but what is on disk. This one stays small: what is heavy is imported by what it starts.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scigpt.data.files import write_bytes
from scigpt.errors import UserError
from scigpt.launch import slurm
from scigpt.launch.parent import dies_with_parent
from scigpt.launch.sweep import rows
from scigpt.launch.sweep.lease import Lease, now
from scigpt.launch.sweep.rows import Attempt, Standing
from scigpt.launch.sweep.table import Row, Table
from scigpt.train.preempt import EXIT_REQUEUE, Preemption

PRETRAIN = (sys.executable, "-m", "scigpt.launch.cli", "pretrain")
POLL = 0.1
"""Seconds between two looks at the process that trains."""
IDLE = 0.5
"""Seconds between two looks at a sweep in which nothing can be begun now; one more for every hundred rows."""
LOCK_PATIENCE = 60.0
"""Seconds in which a process of a lost worker must let go of its run."""
USER_ERROR = 2
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class Worker:
    """One worker.

    Args:
        command: what trains; the row's configuration is appended.
        devices: processes that it trains with; None: as the row says.
        patience: seconds without work after which it leaves; None: it stays while others work, as one of them may be lost.
        budget: FLOPs of the whole sweep, None: no limit.
    """

    def __init__(
        self, table: Table, stop: Preemption, command: Sequence[str], devices: int | None, patience: float | None, budget: float | None
    ) -> None:
        self.table, self.stop, self.command, self.devices = table, stop, command, devices
        self.patience, self.budget = patience, budget

    def work(self) -> int:
        """Run rows until there is nothing left to begin, or a signal comes; returns 0, or 75 after a signal."""
        idle = time.monotonic()
        while self.stop.signal is None:
            found = rows.standings(self.table)
            free_checkpoints(self.table, found)
            outcome = self._next(found)
            if outcome == "stopped":
                return EXIT_REQUEUE
            if outcome is None and self._leaves(found, time.monotonic() - idle):
                return 0
            if outcome in (None, "passed"):
                time.sleep((IDLE + len(found) / 100) * random.uniform(0.5, 1.5))
            else:
                idle = time.monotonic()
        return EXIT_REQUEUE

    def _next(self, found: Mapping[str, Standing]) -> str | None:
        """Run the first row that nobody else takes; its outcome, `passed` when others were faster, or None when there is none."""
        passed = None
        for standing in rows.order(found.values()):
            if self.stop.signal is not None:
                return "stopped"
            if rows.overrun(standing, found.values(), self.budget):
                continue
            lease = Lease.take(rows.folder_of(self.table, standing.row) / rows.LEASE)
            if lease is None:
                passed = "passed"
                continue
            try:
                return self._run(standing.row, lease)
            finally:
                lease.release()
        return passed

    def _leaves(self, found: Mapping[str, Standing], idle: float) -> bool:
        """Whether there is nothing to wait for."""
        running = any(s.state == "running" for s in found.values())
        pending = any(s.state == "pending" for s in found.values())
        if self.patience is None:
            return not running
        return not running or not pending or idle > self.patience

    # ---------------------------------------------------------------- a row

    def _run(self, row: Row, lease: Lease) -> str:
        """Train a row whose lease is ours; returns the outcome, `passed` when it needs nothing any more."""
        folder = rows.folder_of(self.table, row)
        if (lost := lease.before) is not None and lost.owner.token:
            rows.note(folder, {"token": lost.owner.token, "end": lost.touched, "outcome": "lost", "reason": f"{lost.owner.name} is lost"})
        found = rows.standings(self.table)
        # it is ours, so it looks as if it was running; what it would be without the lease counts
        attempts = [a for a in rows.attempts(folder) if a.token != lease.owner.token]
        others = [s for s in found.values() if s.row.id != row.id]
        standing = found[row.id]
        if standing.over or rows.verdict(attempts, slurm.newest(self.table.run(row.id))) or rows.overrun(standing, others, self.budget):
            return "passed"
        devices = self.devices or _processes(row)
        begin = Attempt(now(folder), lease.owner.name, lease.owner.token, devices, slurm.newest(self.table.run(row.id)))
        told = {k: getattr(begin, k) for k in ("begin", "worker", "token", "devices", "checkpoint")}
        rows.note(folder, told)
        code = self._train(row, folder, lease)
        outcome, reason = self._judge(row, folder, code)
        if outcome == "displaced":  # another has the row, and these are its attempts now
            return outcome
        rows.note(folder, {"token": lease.owner.token, "end": now(folder), "outcome": outcome, "reason": reason})
        return outcome

    def _train(self, row: Row, folder: Path, lease: Lease) -> int | str:
        """Exit code of the training, or why there was none."""
        config = write_config(self.table, row)
        if not _free(self.table.run(row.id) / "lock", lease, self.stop):
            return "another process is training this run, and its worker is gone"
        (folder / rows.MISTAKE).unlink(missing_ok=True)
        environment = {k: v for k, v in os.environ.items() if k not in _LAUNCHER}
        environment |= {"SCIGPT_MISTAKE": str(folder / rows.MISTAKE), "PYTHONUNBUFFERED": "1"}
        with open(folder / rows.LOG, "ab") as log:
            process = subprocess.Popen(
                [*self.command, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # or Ctrl-C would reach it twice: from the terminal and from us
                preexec_fn=dies_with_parent(),
            )
        try:
            return self._watch(process, lease)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _watch(self, process: subprocess.Popen[bytes], lease: Lease) -> int | str:
        told = False
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                pass
            if not lease.beat():
                return "displaced"
            if self.stop.signal is not None and not told:
                told = True
                process.send_signal(signal.Signals[self.stop.signal])

    def _judge(self, row: Row, folder: Path, code: int | str) -> tuple[str, str | None]:
        """Outcome of an attempt and the reason. A result on disk is what counts, whatever the exit code."""
        if code == "displaced":
            return "displaced", None
        result = rows.result_of(self.table, row)
        if result is not None:
            return result["status"], None if result["status"] == "finished" else f"diverged at step {result['step']}"
        if code == EXIT_REQUEUE or self.stop.signal is not None:
            return "stopped", None
        if isinstance(code, str):
            return "fault", code
        mistake = folder / rows.MISTAKE
        if code == USER_ERROR or mistake.exists():
            return "mistake", mistake.read_text().strip() if mistake.exists() else _last_words(folder / rows.LOG)
        signals = {s.value: s.name for s in signal.Signals}
        number = -code if code < 0 else code - 128
        if number in signals:
            return "fault", f"ended by {signals[number]}"
        if code == 0:
            return "fault", "ended without a result"
        return "fault", f"ended with code {code}: {_last_words(folder / rows.LOG)}"


def write_config(table: Table, row: Row) -> Path:
    """What `scigpt pretrain` is given for a row, with the folders where the sweep lies now: `Table.config` without its imports."""
    branch = table.branch(row)
    train = row.config["train"] | {"branch_from": None if branch is None else str(branch.absolute())}
    config = row.config | {"run": str(table.run(row.id).absolute()), "train": train}
    file = rows.folder_of(table, row) / rows.CONFIG
    write_bytes(file, yaml.safe_dump(config, sort_keys=False).encode())
    return file


def free_checkpoints(table: Table, found: Mapping[str, Standing]) -> None:
    """Remove the checkpoints that were kept for branches, of trunks that are done and whose branches have all come to a result."""
    branches: dict[str, list[Standing]] = {}
    for standing in found.values():
        if standing.row.parent is not None:
            branches.setdefault(standing.row.parent, []).append(standing)
    for trunk, some in branches.items():
        if found[trunk].state != "done" or any(s.state not in ("done", "diverged") for s in some):
            continue
        newest = slurm.newest(table.run(trunk))
        for point in {table.branch(s.row) for s in some}:
            if point is not None and point.name != newest and point.exists():
                (point / "manifest.json").unlink(missing_ok=True)  # incomplete from the first removed byte on
                shutil.rmtree(point, ignore_errors=True)


def _processes(row: Row) -> int:
    strategy: dict[str, Any] = row.config.get("strategy") or {}
    return 1 if strategy.get("name", "single") == "single" else strategy.get("processes") or 1


def _free(lock: Path, lease: Lease, stop: Preemption) -> bool:
    """Wait until nobody trains the run: what a lost worker has started dies after it, and perhaps not at once."""
    limit = time.monotonic() + LOCK_PATIENCE
    while lock.exists() and stop.signal is None:
        with open(lock, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            except OSError:  # a file system without locks; the lease must do
                return True
        if time.monotonic() > limit or not lease.beat():
            return False
        time.sleep(POLL)
    return True


def _last_words(log: Path) -> str:
    """The last line that a program has written."""
    with open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").replace("\r", "\n").splitlines()]
    return next((line.removeprefix("scigpt: ") for line in reversed(lines) if line), "it said nothing")[:500]


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a worker; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped by a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, command = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, list(PRETRAIN))
    parser = argparse.ArgumentParser(description="A worker of a sweep, started by `scigpt sweep run`.")
    parser.add_argument("sweep", type=Path, help="the folder of the sweep")
    parser.add_argument("--patience", type=float, help="seconds without work after which it leaves")
    parser.add_argument("--devices", type=int, help="processes that the command trains with")
    options = parser.parse_args(own)
    try:
        table = Table.read(options.sweep)
        with Preemption() as stop:
            return Worker(table, stop, command, options.devices, options.patience, rows.budget_of(table)).work()
    except UserError as error:
        sys.stderr.write(f"scigpt: {error}\n")
    except OSError as error:
        sys.stderr.write(f"scigpt: {error.filename}: {error.strerror}\n")
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
