"""The workers of a sweep as a job array of SLURM: the script, its submission, and what becomes of a task that ends.

The batch script calls this module as a program between its steps, so nothing heavy is imported at the top.

    SWEEP/slurm/sweep.sbatch, job.json     the script, the job submitted last
                worker-0/launches.jsonl    of each turn of a task its begin, its end, and what was said of it
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scigpt.data.files import dump_json, write_bytes
from scigpt.errors import UserError
from scigpt.launch import slurm, standing
from scigpt.launch.slurm import Profile, Verdict
from scigpt.launch.sweep import rows
from scigpt.launch.sweep.table import Table

SCRIPT = "sweep.sbatch"
PATIENCE = 600
"""Seconds that a worker waits on its nodes for work that a row under way will bring."""


def submit(table: Table, cluster: str, profile: Profile, workers: int, concurrent: int | None, dry_run: bool) -> dict[str, Any]:
    """Submit `workers` workers, `concurrent` of them at one time; returns what `sweep run` tells.

    Raises:
        UserError: workers of this sweep that are in the queue, a row that the nodes do not suit, a path that SLURM does not take, and
            whatever SLURM refuses, in its words.
    """
    folder = table.folder.absolute()
    if bad := slurm.unfit(str(folder)):
        raise UserError(f"{table.folder}: SLURM does not take {bad!r} in the path of a sweep; move the sweep to another folder")
    open_rows = [s for s in rows.standings(table).values() if s.state not in ("done", "diverged")]
    workers = max(1, min(workers, len(open_rows)))
    _fits(table, [s.row.id for s in open_rows], profile)
    script = render(cluster, profile, folder, workers, concurrent)
    told = {"sweep": str(table.folder), "cluster": cluster, "nodes": profile.nodes, "workers": workers, "rows": len(open_rows)}
    if dry_run:
        return told | {"job": None, "script": script}
    if queued := [s for s in job_states(table.folder) if not s.over]:
        job, state = queued[0].job.partition("_")[0], queued[0].state
        raise UserError(
            f"{table.folder}: {len(queued)} workers of job {job} are in the queue ({state}); wait for them, or end them with "
            f"`scigpt cancel {table.folder}`"
        )
    if not open_rows:
        return told | {"job": None, "script": None, "workers": 0}
    for row in open_rows:
        rows.forgive(table, row)
    file = folder / slurm.FOLDER / SCRIPT
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, script.encode())
    job = slurm.sbatch(file)
    about = {"cluster": cluster, "submitted": datetime.now(UTC).isoformat(timespec="seconds"), "script": str(file), "runs": []}
    write_bytes(file.with_name(slurm.JOB), dump_json(about | {"job": job, "workers": workers}, indent=1))
    return told | {"job": job, "script": str(file)}


def job_states(sweep: Path) -> list[slurm.State]:
    """What SLURM says of the workers that were submitted last; empty where there are none, or it has forgotten them.

    Raises:
        UserError: no SLURM here, or one that does not answer.
    """
    job = standing.job_of(sweep)
    return slurm.states(job) if job else []


def _fits(table: Table, ids: Sequence[str], profile: Profile) -> None:
    """What can be known of the rows and the nodes of a worker now, and not after hours in the queue."""
    from scigpt.train.processes import Place
    from scigpt.train.run import settled

    place = Place(0, profile.nodes * profile.tasks, 0, profile.tasks)
    for row in map(table.row, ids):
        config = table.config(row)
        try:
            settled(config, config.strategy.mesh(place).data_world)
        except UserError as error:
            raise UserError(f"{table.folder}: row {row.name} ({row.id}): {error}") from None


def render(cluster: str, profile: Profile, folder: Path, workers: int, concurrent: int | None) -> str:
    """The batch script of a sweep in this (absolute) folder."""
    return slurm.template(SCRIPT).render(
        cluster=cluster,
        profile=profile,
        tasks=profile.tasks,
        name=slurm.job_name(folder),
        sweep=folder,
        output=folder / slurm.FOLDER / "worker-%a.out",
        folder=Path.cwd(),
        workers=workers,
        concurrent=concurrent,
        patience=PATIENCE,
        python=profile.python or sys.executable,
    )


# ---------------------------------------------------------------- what the batch script calls


def task_folder(sweep: Path) -> Path:
    """Of the task of the array that this process belongs to."""
    return sweep / slurm.FOLDER / f"worker-{os.environ['SLURM_ARRAY_TASK_ID']}"


def progress(table: Table) -> str:
    """Changes with every new result and every new checkpoint of the sweep."""
    return " ".join(f"{row.id}:{slurm.newest(table.run(row.id))}:{rows.result_of(table, row) is not None}" for row in table.rows)


def judge(code: int, turns: Sequence[dict[str, Any]], now: str, most: int) -> Verdict:
    """What becomes of a task whose worker ended with `code`: 0 is done, a mistake of the user (2) ends it, and everything else is tried
    again, but not after `most` ends in a row that have brought nothing.

    Args:
        turns: of this task of this job, the last one ended now.
        now: the mark of `progress`.
    """
    if code == 0:
        return Verdict(False, 0, "there is nothing left for this worker")
    if code == 2:
        return Verdict(False, 2, "what was asked for is at fault; look above for the reason")
    idle = slurm.idle(turns, "progress", now)
    what = "stopped, its row is saved" if code == 75 else f"ended with code {code}"
    if idle >= most:
        return Verdict(
            False, code, f"{what}; {idle} ends in a row without a new checkpoint, so the worker gives up: look above for the reason"
        )
    return Verdict(True, code, f"{what}; back into the queue")


def main(arguments: Sequence[str]) -> int:
    """`begin|stopped|end SWEEP MOST CODE`, for the batch script only."""
    event, sweep, most, code = arguments[0], Path(arguments[1]), int(arguments[2]), int(arguments[3])
    table, folder, job = Table.read(sweep), task_folder(sweep), os.environ["SLURM_JOB_ID"]
    if event == "stopped":  # what SLURM requeues itself or what a user has cancelled is left alone
        return slurm.stopped(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    if event == "begin":
        slurm.note(folder, {"job": job, "begin": time.time(), "progress": progress(table)})
        return 0
    slurm.note(folder, {"end": time.time(), "code": code})
    found = judge(code, [t for t in slurm.records(folder) if t["job"] == job], progress(table), most)
    slurm.note(folder, {"said": found.sentence})
    return slurm.leave(sweep, job, found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
