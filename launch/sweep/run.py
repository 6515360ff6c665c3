"""`scigpt sweep run`: the rows of a sweep by workers, here or on a SLURM cluster. The same command goes on where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show

if TYPE_CHECKING:
    from scigpt.launch.sweep.table import Table
    from scigpt.train.preempt import Preemption

Sweep = Annotated[Path, typer.Argument(metavar="TABLE", help="The folder of a sweep, or the table.json in it.")]
Where = Literal["local", "slurm"]

POLL = 0.1
"""Seconds between two looks at the workers."""
LOST = 3
"""Workers that may be lost, of each asked for, before the command gives up."""
INCOMPLETE = 1
"""Exit code of a sweep that ended with rows that have failed or were not begun."""


def run(
    table: Sweep,
    on: Annotated[Where, typer.Option("--on", help="Train on this machine, or submit the workers as a job array.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers, each with one row at a time; on SLURM --concurrent by default, else 1.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(metavar="NAME|FILE.yaml", help="Profile of the cluster (docs/cluster.md).")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Workers of the array at one time.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of a worker; the profile's by default.")] = None,
    time: Annotated[str | None, typer.Option(metavar="HH:MM:SS", help="Time limit of one turn; a worker goes on after it.")] = None,
    account: Annotated[str | None, typer.Option(help="Project that pays.")] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of the cluster.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script of the array; write and submit nothing.")] = False,
    json: Json = False,
) -> None:
    """Run what is left of a sweep, the cheapest rows first and hold-outs last. A row is done when its result is on disk, and a divergence
    is a result; rows that were lost or crashed are tried again, and every start tries those again that have failed. Several of these
    commands, on several machines, share the rows. Ends with code 0, with 1 when rows have failed or the budget does not cover them, with
    75 when it was stopped by a signal and has saved everything."""
    from scigpt.launch.sweep.table import Table

    found = Table.read(table)
    options = {"nodes": nodes, "time": time, "account": account, "partition": partition, "qos": qos}
    given = options | {"cluster": cluster, "concurrent": concurrent}
    if on == "local":
        foreign = [f"--{name}" for name, value in given.items() if value is not None] + ["--dry-run"] * dry_run
        if foreign:
            raise UserError(f"{foreign[0]} is for a cluster; add --on slurm, or leave it out")
        raise typer.Exit(_here(found, workers or 1, json))
    from scigpt.launch import slurm
    from scigpt.launch.sweep import array

    profile = slurm.profile(cluster or "generic", **options)
    told = array.submit(found, cluster or "generic", profile, workers or concurrent or 1, concurrent, dry_run)
    show(told, json, lambda t: t["script"].rstrip() if dry_run else t["job"] or f"{t['sweep']}: every row has its result")


def _here(table: Table, workers: int, json: bool) -> int:
    """Run the sweep by processes of this machine; returns the exit code."""
    from scigpt.launch.sweep import rows
    from scigpt.launch.sweep.status import summary, text
    from scigpt.train.preempt import EXIT_REQUEUE, Preemption

    for standing in rows.standings(table).values():
        rows.forgive(table, standing)
    with Preemption() as stop:
        trouble = Launcher(table, workers, stop).run()
    found = summary(table)
    stopped = stop.signal is not None and any(r["state"] not in rows.OVER for r in found["rows"])
    show(found | {"status": "stopped" if stopped else "ended", "signal": stop.signal}, json, text)
    if stopped:
        typer.echo(f"scigpt: stopped by {stop.signal}, and all rows are saved; run the same command to go on", err=True)
        return EXIT_REQUEUE
    if trouble is not None:
        raise UserError(trouble) if trouble else typer.Exit(2)
    return 0 if all(r["state"] in ("done", "diverged") for r in found["rows"]) else INCOMPLETE


class Launcher:
    """The workers of one command: started, told to stop, replaced when one is lost. They end with it, however it ends."""

    def __init__(self, table: Table, workers: int, stop: Preemption) -> None:
        self.table, self.stop = table, stop
        self.left = LOST * workers
        self.told: str | None = None
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        self.environment = {"OMP_NUM_THREADS": threads, **os.environ}
        self.job = [self._start() for _ in range(workers)]

    def _start(self) -> subprocess.Popen[bytes]:
        from scigpt.launch.parent import dies_with_parent

        command = [sys.executable, "-m", "scigpt.launch.sweep.worker", str(self.table.folder)]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,  # or Ctrl-C would reach it twice: from the terminal and from us
            preexec_fn=dies_with_parent(),
        )

    def run(self) -> str | None:
        """Wait for the workers; what went wrong with them in a sentence, None when nothing did, empty when a worker has told it."""
        bar = Bar(self.table)
        try:
            return self._watch(bar)
        finally:
            for process in self.job:
                if process.poll() is None:
                    process.kill()
                process.wait()
            bar.close()

    def _watch(self, bar: Bar) -> str | None:
        while any(p.poll() is None for p in self.job):
            clock.sleep(POLL)
            bar.look()
            if self.stop.signal != self.told:
                self.told = self.stop.signal
                self._signal()
            for i, process in enumerate(self.job):
                code = process.poll()
                if code == 2:
                    return ""
                if code not in (None, 0, 75) and self.stop.signal is None:
                    if self.left == 0:
                        return f"{self.table.folder}: too many workers were lost, the last one with code {code}; look above for the reason"
                    self.left -= 1
                    self.job[i] = self._start()
        return None

    def _signal(self) -> None:
        for process in self.job:
            if process.poll() is None and self.told is not None:
                process.send_signal(signal.Signals[self.told])


class Bar:
    """On standard error: share of the FLOPs of the sweep, rows done, rows under way."""

    def __init__(self, table: Table) -> None:
        from tqdm import tqdm

        self.table = table
        self.pause = 1.0 if sys.stderr.isatty() else 30.0
        total = sum(row.own_flops for row in table.rows)
        self._bar = tqdm(total=total, desc=table.folder.name, unit="FLOP", unit_scale=True, file=sys.stderr, dynamic_ncols=True)
        self._seen = clock.monotonic() - self.pause
        self.look()

    def look(self) -> None:
        """Look at the rows again when that is due."""
        if clock.monotonic() - self._seen >= self.pause:
            self._show()

    def _show(self) -> None:
        from scigpt.launch.sweep import rows

        found = rows.standings(self.table).values()
        by_state = {state: sum(s.state == state for s in found) for state in rows.STATES}
        self._bar.n = round(sum(s.flops for s in found))
        over = [f"{by_state['done'] + by_state['diverged']} of {len(found)} rows", f"{by_state['running']} running"]
        self._bar.set_postfix_str(", ".join(over + ([f"{by_state['failed']} failed"] if by_state["failed"] else [])))
        self._seen = clock.monotonic()

    def close(self) -> None:
        self._show()
        self._bar.close()
