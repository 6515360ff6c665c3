"""`scigpt submit`, `status`, `cancel`: a run as a job of SLURM that puts itself back into the queue until its steps are done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show, table
from scigpt.launch.pretrain import Config, Overrides

if TYPE_CHECKING:
    from scigpt.train.config import RunConfig
    from scigpt.train.processes import Place

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or of the runs of a job array.")]


def submit(
    config: Config,
    overrides: Overrides = None,
    cluster: Annotated[str, typer.Option(metavar="NAME|FILE.yaml", help="Profile of the cluster (docs/cluster.md).")] = "generic",
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes; the profile's by default.")] = None,
    time: Annotated[str | None, typer.Option(metavar="HH:MM:SS", help="Time limit of one turn; the job goes on after it.")] = None,
    account: Annotated[str | None, typer.Option(help="Project that pays.")] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of the cluster.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    array: Annotated[str | None, typer.Option(metavar="KEY=V1,V2,...", help="A run for each value, in a folder of its own.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Runs of an array at one time.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script; write and submit nothing.")] = False,
    json: Json = False,
) -> None:
    """Train on a SLURM cluster: write RUN/slurm/job.sbatch, submit it, print the job's id. The same command goes on with a stopped run."""
    from scigpt.data.files import dump_json, write_bytes
    from scigpt.launch import slurm, standing
    from scigpt.train.config import load
    from scigpt.train.processes import Place

    profile = slurm.profile(cluster, nodes=nodes, time=time, account=account, partition=partition, qos=qos)
    base = load(config, overrides or ())
    configs = [load(config, [*(overrides or ()), *more]) for more in _array(array, base.run)]
    if concurrent and len(configs) == 1:
        raise UserError(f"--concurrent {concurrent} needs several runs; give them with --array KEY=V1,V2")
    processes = profile.nodes * profile.tasks
    for c in configs:
        _fits(c, Place(0, processes, 0, profile.tasks))
    run, runs = Path(base.run), [Path(c.run).absolute() for c in configs]
    folder = run.absolute() / slurm.FOLDER
    output = str(folder / ("job-%A_%a.out" if len(runs) > 1 else "job-%j.out"))
    if bad := slurm.unfit(output, *map(str, runs)):
        raise UserError(f"{run}: SLURM does not take {bad!r} in the path of a run; choose another folder with run=FOLDER")
    script = slurm.render(cluster, profile, slurm.job_name(run), runs, output, Path.cwd(), concurrent)
    result = {"run": str(run), "runs": [c.run for c in configs], "cluster": cluster, "nodes": profile.nodes, "processes": processes}
    if dry_run:
        show(result | {"job": None, "script": script}, json, lambda _: script.rstrip())
        return
    for r in [run, *(r for r in runs if r != run.absolute())]:
        if (state := standing.queued(r)) and not state.over:
            raise UserError(f"{r}: job {state.job} is {state.state} and trains this run; wait for it, or end it with `scigpt cancel {r}`")
    for r, c in zip(runs, configs, strict=True):
        (r / slurm.FOLDER).mkdir(parents=True, exist_ok=True)
        write_bytes(r / slurm.FOLDER / slurm.CONFIG, c.to_yaml().encode())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / slurm.SCRIPT
    write_bytes(file, script.encode())
    job = slurm.sbatch(file)
    about = {"cluster": cluster, "submitted": datetime.now(UTC).isoformat(timespec="seconds"), "script": str(file)}
    for i, r in enumerate(runs if len(runs) > 1 else ()):
        write_bytes(r / slurm.FOLDER / slurm.JOB, dump_json(about | {"job": f"{job}_{i}", "runs": [str(r)]}, indent=1))
    write_bytes(folder / slurm.JOB, dump_json(about | {"job": job, "runs": [str(r) for r in runs]}, indent=1))
    show(result | {"job": job, "script": str(file)}, json, lambda _: job)


def status(run: Run, json: Json = False) -> None:
    """Where a run stands: its job, steps, loss, speed, newest checkpoint, restarts, what it has cost and will cost, and when it ends."""
    from scigpt.launch import standing

    runs = standing.tasks(run)
    if len(runs) == 1:
        show(standing.standing(runs[0]), json, _text)
    else:
        show({"run": str(run), "runs": [standing.standing(r) for r in runs]}, json, lambda found: _table(found["runs"]))


def cancel(run: Run, json: Json = False) -> None:
    """End a run's job, or all jobs of an array. The run stays, and `scigpt submit` goes on with it."""
    from scigpt.launch import slurm, standing

    if not run.is_dir():
        raise UserError(f"{run}: there is no such folder; give the folder of a run")
    job = standing.job_of(run)
    states = [s for s in slurm.states(job) if not s.over] if job else []
    if job and states:
        slurm.cancel(job)
    done = {"run": str(run), "job": job, "cancelled": [s.job for s in states]}
    was = ", ".join(sorted({s.state for s in states}))
    told = f"job {job} was {was} and is cancelled; `scigpt submit` goes on with the run" if states else "no job of it is in the queue"
    show(done, json, lambda _: f"{run}: {told}")


def _array(array: str | None, run: str) -> list[list[str]]:
    """Overrides of each run of an array; one empty list where there is none."""
    if array is None:
        return [[]]
    key, equals, values = array.partition("=")
    given = [v for v in values.split(",") if v]
    if not (key and equals and given):
        raise UserError(f"--array {array!r} is not KEY=V1,V2,...; expected as in --array optim.lr=1e-3,2e-3")
    if len(given) < 2 or len(set(given)) < len(given):
        raise UserError(f"--array {array!r} does not name several different values; each is a run of its own")
    return [[f"{key}={v}", f"run={run}/{re.sub(r'[^A-Za-z0-9._+-]', '_', f'{key}-{v}')}"] for v in given]


def _fits(config: RunConfig, place: Place) -> None:
    """What can be known of a run and its job now, and not after hours in the queue; `place` is that of the first process.

    Raises:
        UserError: a strategy that the processes do not suit, a folder that belongs to another configuration.
    """
    from scigpt.train.run import compare, settled

    compare(Path(config.run), settled(config, config.strategy.mesh(place).data_world))


def _text(found: dict[str, Any]) -> str:
    job, loss, speed = found["job"], found["loss"], found["tokens_per_second"]
    head = f"{found['run']}: {found['state']}"
    if job:
        head += f", job {job['id']} {job['state']}" + (f" ({job['reason']})" if job["reason"] else "")
        head += f" on {job['nodes']}" if job["nodes"] else ""
    lines = [head, f"  step {found['step']} of {found['steps']}" + (f", loss {loss:.4g}" if loss is not None else "")]
    if speed:
        lines[-1] += f", {speed:,.0f} tokens/s, {found['seconds_per_step']:.3g} s a step, last step at {found['updated']}"
    lines.append(f"  newest checkpoint {found['checkpoint'] or 'none'}, {found['restarts']} restarts")
    hours = f"  {found['device_hours']:.2f} device-hours on {found['devices']} devices"
    if found["device_hours_expected"] is not None:
        hours += f", {found['device_hours_expected']:.2f} expected in all"
    lines.append(hours)
    for name, what in (("starts", "starts"), ("expected_end", "expected end"), ("said", "last turn:")):
        if found[name]:
            lines.append(f"  {what} {found[name]}")
    return "\n".join(lines)


def _table(runs: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            r["run"],
            r["state"],
            r["job"]["id"] if r["job"] else "-",
            f"{r['step']} of {r['steps']}",
            "-" if r["loss"] is None else f"{r['loss']:.4g}",
            r["checkpoint"] or "-",
            r["restarts"],
            f"{r['device_hours']:.2f}",
            r["expected_end"] or "-",
        ]
        for r in runs
    ]
    return table(("run", "state", "job", "step", "loss", "checkpoint", "restarts", "device-hours", "expected end"), rows)
