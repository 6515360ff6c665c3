"""SLURM: profiles of clusters, the batch script, what the queue says of a job, and whether a job that ends goes back into the queue.

The batch script calls this module as a program between its steps, so nothing heavy is imported at the top.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scigpt
from scigpt.data.files import dump_json
from scigpt.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(scigpt.__file__).parent / "slurm"
FOLDER, SCRIPT, CONFIG, JOB, LAUNCHES, MISTAKE = "slurm", "job.sbatch", "config.yaml", "job.json", "launches.jsonl", "mistake.txt"
"""In a run's folder `slurm`: the script, the configuration it trains, the job, its launches, and why the user must step in."""

OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
"""States of a job that will not run again by itself."""


@dataclass(frozen=True)
class Profile:
    """What differs from cluster to cluster.

    Args:
        description: one line for people.
        gpus_per_node: GPUs asked for on each node; 0 on a cluster without.
        tasks_per_node: processes on each node; None: one for each GPU, or one.
        cpus_per_task: CPU cores (as SLURM counts them) of a process, and its threads.
        nodes, time: nodes, and time limit of one turn as [DAYS-]HH:MM:SS, unless the command line says otherwise.
        account, partition, qos, constraint, mem: options of sbatch; None leaves the cluster's default.
        required: which of these options a user must give here.
        sbatch: more options of sbatch, one a line (`--exclusive`).
        srun: more options of the srun that trains (`--cpu-bind=cores`).
        setup: lines of shell before anything runs: modules, an environment.
        environment: variables; set last, so they win. The shell expands `$NAME` and `$(command)` on the first node.
        warning: seconds before the time limit at which the run is told to save itself and make room.
        max_failures: ends in a row that brought no new checkpoint, after which the job is not put back into the queue.
        python: the interpreter that trains; None: the one that submits.
    """

    description: str = ""
    gpus_per_node: int = 0
    tasks_per_node: int | None = None
    cpus_per_task: int = 1
    nodes: int = 1
    time: str = "01:00:00"
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mem: str | None = None
    required: list[str] = field(default_factory=list)
    sbatch: list[str] = field(default_factory=list)
    srun: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    warning: int = 300
    max_failures: int = 3
    python: str | None = None

    def __post_init__(self) -> None:
        for name in ("gpus_per_node", "tasks_per_node", "cpus_per_task", "nodes", "warning", "max_failures"):
            value, least = getattr(self, name), int(name != "gpus_per_node")
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; expected {least} or more")
        if self.warning >= seconds(self.time):
            raise UserError(f"warning is {self.warning} s and the time limit {self.time}; expected a warning well before the limit")
        for name in ("account", "partition", "qos", "constraint", "mem"):
            if re.search(r"\s", getattr(self, name) or ""):
                raise UserError(f"{name} is {getattr(self, name)!r}; expected no spaces")
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise UserError(f"environment has {name!r}; expected the name of a variable")

    @property
    def tasks(self) -> int:
        """Processes on a node."""
        return self.tasks_per_node or self.gpus_per_node or 1


def seconds(limit: str) -> int:
    """Seconds of a time limit as sbatch writes it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.

    Raises:
        UserError: anything else, and zero.
    """
    days, dash, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", limit):
        raise UserError(f"the time limit {limit!r} is not one; expected HH:MM:SS or D-HH:MM:SS")
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    total = int(days or 0) * 86400 + sum(int(p) * u for p, u in zip(parts, units, strict=False))
    if not total:
        raise UserError(f"the time limit {limit!r} is zero; expected HH:MM:SS or D-HH:MM:SS")
    return total


def profile(cluster: str, **given: Any) -> Profile:
    """A profile by name or by its YAML file; what is given and not None replaces its values.

    Raises:
        UserError: an unknown name or file, an unknown key (with the nearest name), a wrong value, an option that is required and missing.
    """
    import yaml

    from scigpt.train.config import build

    file = Path(cluster) if cluster.endswith((".yaml", ".yml")) else TEMPLATES / "clusters" / f"{cluster}.yaml"
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        names = sorted(p.stem for p in (TEMPLATES / "clusters").glob("*.yaml"))
        near = difflib.get_close_matches(cluster, names, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}, or a file NAME.yaml"
        raise UserError(f"the cluster profile {cluster} cannot be read ({error.strerror}); {hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the cluster profile {file} is not valid YAML: {' '.join(str(error).split())}") from None
    read = build(Profile, data, str(file))
    found = dataclasses.replace(read, **{k: v for k, v in given.items() if v is not None})
    for name in found.required:
        if not getattr(found, name, None):
            raise UserError(f"the cluster {cluster} needs an {name}; give it with --{name}")
    return found


def render(
    cluster: str, profile: Profile, name: str, runs: Sequence[Path], output: str, folder: Path, concurrent: int | None = None
) -> str:
    """The batch script.

    Args:
        cluster: name of the profile, for the reader.
        name: of the job.
        runs: absolute folders of the runs; several make a job array.
        output: file of what the job prints; sbatch replaces its %j.
        folder: where relative paths of the configuration begin.
        concurrent: tasks of an array at one time; None leaves it to SLURM.
    """
    return template(SCRIPT).render(
        cluster=cluster,
        profile=profile,
        tasks=profile.tasks,
        nodes=profile.nodes,
        name=name,
        runs=[str(r) for r in runs],
        output=output,
        folder=folder,
        concurrent=concurrent,
        python=profile.python or sys.executable,
    )


def job_name(folder: Path) -> str:
    """A name for the queue."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", folder.absolute().name)


def unfit(*paths: str) -> str | None:
    """A character in one of the paths that would not survive the batch script; None when all would."""
    return next((c for c in "".join(paths) if c in "\"'`$\\\n"), None)


def template(name: str) -> Template:
    """A batch script to be filled in; `quote` makes a word for the shell of a value."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template(name)


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not on this machine; go to a login node of the cluster") from None


def sbatch(script: Path) -> str:
    """Submit a script; returns the id of the job.

    Raises:
        UserError: SLURM refuses it, in SLURM's words.
    """
    answer = _call("sbatch", "--parsable", str(script))
    if answer.returncode:
        raise UserError(f"SLURM refuses {script}: {_words(answer.stderr)}")
    return answer.stdout.strip().partition(";")[0]


def cancel(job: str) -> None:
    """End a job, or all tasks of an array.

    Raises:
        UserError: SLURM refuses, in its words.
    """
    answer = _call("scancel", job)
    if answer.returncode:
        raise UserError(f"SLURM does not cancel job {job}: {_words(answer.stderr)}")


def _words(text: str) -> str:
    return "; ".join(line.partition("error: ")[2] or line for line in text.strip().splitlines())


@dataclass(frozen=True, slots=True)
class State:
    """What SLURM says of a job or of one task of an array. `nodes` is empty until it has some; `starts` is SLURM's guess, in local time."""

    job: str
    state: str
    reason: str = ""
    nodes: str = ""
    starts: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


def states(job: str) -> list[State]:
    """Every task of a job: of the queue, else of the accounting where there is one; empty when SLURM has forgotten it.

    Raises:
        UserError: no SLURM here, or one that does not answer.
    """
    answer = _call("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r|%N|%S")
    if answer.returncode and "Invalid job id" not in answer.stderr:
        raise UserError(f"SLURM does not say where job {job} is: {_words(answer.stderr)}")
    found = [_state(line) for line in answer.stdout.splitlines() if line]
    return found or _accounted(job)


def _state(line: str) -> State:
    job, state, reason, nodes, starts = line.split("|")
    return State(job, state, "" if reason == "None" else reason, nodes, None if starts == "N/A" else starts)


def _accounted(job: str) -> list[State]:
    try:
        answer = _call("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=JobID,State,NodeList")
    except UserError:
        return []
    rows = [line.split("|") for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
    return [State(row[0], row[1].split()[0], nodes=row[2]) for row in rows if len(row) == 3 and row[1]]


# ---------------------------------------------------------------- what the batch script calls


def newest(run: Path) -> str | None:
    """Name of the newest complete checkpoint of a run, by its manifest; the hashes are left to who loads it."""
    return max((p.parent.name for p in (run / "checkpoints").glob("step-*/manifest.json")), default=None)


def launches(run: Path) -> list[dict[str, Any]]:
    """The launches of a run's jobs, the oldest first: job, begin, nodes, tasks, the checkpoint at begin and the time of the last step
    before it; and once its steps have ended by themselves, end, code, and what was said of it."""
    return records(run / FOLDER)


def records(folder: Path) -> list[dict[str, Any]]:
    """What was noted in a folder, the oldest first: a record for each `begin`, with all that was noted after it."""
    found: list[dict[str, Any]] = []
    file = folder / LAUNCHES
    for line in file.read_text().splitlines() if file.exists() else ():
        record = json.loads(line)
        if "begin" in record:
            found.append(record)
        else:
            found[-1] |= record
    return found


def note(folder: Path, record: dict[str, Any]) -> None:
    """Add to the records of a folder."""
    with open(folder / LAUNCHES, "ab") as file:
        file.write(dump_json(record))


def idle(found: Sequence[dict[str, Any]], mark: str, now: str | None) -> int:
    """How many of the last launches ended and brought nothing: what stands under `mark` is as it is now."""
    return sum("end" in launch for launch in itertools.takewhile(lambda launch: launch[mark] == now, reversed(found)))


def begin(run: Path) -> None:
    """The batch script has started: once more, or for the first time."""
    (run / FOLDER / MISTAKE).unlink(missing_ok=True)
    metrics, e = run / "metrics.jsonl", os.environ
    seen = metrics.stat().st_mtime if metrics.exists() else None
    about = {"job": e["SLURM_JOB_ID"], "nodes": int(e["SLURM_JOB_NUM_NODES"]), "tasks": int(e["SLURM_NTASKS"])}
    note(run / FOLDER, {**about, "begin": time.time(), "checkpoint": newest(run), "last_step": seen})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a job whose steps have ended: back into the queue, or an end with `code`. `sentence` says why."""

    requeue: bool
    code: int
    sentence: str


def judge(code: int, run: Path, job: str, most: int) -> Verdict:
    """What becomes of a job after its steps ended with `code`.

    0 is done. A mistake of the user (2, or told by any process: when one ends SLURM kills the others, and srun reports the largest
    code) stops the job. Every other end is tried again; but `most` ends of this job in a row without a new checkpoint stop it, those
    by a signal (75) included: a time limit too short for the first checkpoint would otherwise go round for ever.
    """
    mistake = run / FOLDER / MISTAKE
    if code == 0:
        return Verdict(False, 0, "finished")
    if mistake.exists() or code == 2:
        told = mistake.read_text().strip() if mistake.exists() else "what was asked for is at fault; look above for the reason"
        return Verdict(False, 2, told)
    now = newest(run)
    vain = idle([launch for launch in launches(run) if launch["job"] == job], "checkpoint", now)
    killed = {128 + s: f"ended by {s.name}" for s in signal.Signals}
    what = "stopped and saved" if code == 75 else killed.get(code, f"ended with code {code}")
    if vain >= most:
        why = f"{vain} ends in a row without a new checkpoint, so the job gives up: look above for the reason, then submit it again"
        return Verdict(False, code, f"{what}; {why}")
    count = f" ({vain} of at most {most} ends in a row without a new checkpoint)" if vain else ""
    return Verdict(True, code, f"{what}; back into the queue, to go on from {now or 'the beginning'}{count}")


def end(run: Path, most: int, code: int) -> int:
    """The steps of the job have ended: requeue it or not; returns the exit code of the script."""
    job = os.environ["SLURM_JOB_ID"]
    note(run / FOLDER, {"end": time.time(), "code": code})
    verdict = judge(code, run, job, most)
    note(run / FOLDER, {"said": verdict.sentence})
    return leave(run, job, verdict)


def leave(place: Path, job: str, verdict: Verdict) -> int:
    """Say what becomes of a job, put it back into the queue if that is it, and return the exit code of its script."""
    _say(place, verdict.sentence)
    if not verdict.requeue:
        return verdict.code
    state = _show(job).get("JobState")
    if state != "RUNNING":  # cancelled while its steps were saving
        _say(place, f"not requeued: SLURM has the job as {state}")
        return verdict.code
    return _requeue(place, job, verdict.code)


def stopped(run: Path) -> int:
    """SLURM ends the job. What it requeues itself or what a user has cancelled is left alone; the time limit is not the end of a run."""
    job = os.environ["SLURM_JOB_ID"]
    if _show(job).get("Reason") != "TimeLimit":
        return 143
    _say(run, "the time limit came before the run had saved itself; back into the queue (a longer warning in the profile avoids this)")
    return _requeue(run, job, 143)


def _requeue(run: Path, job: str, code: int) -> int:
    answer = _call("scontrol", "requeue", job)
    if answer.returncode:
        _say(run, f"SLURM does not requeue job {job}: {_words(answer.stderr)}; submit it again")
    return code


def _show(job: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", _call("scontrol", "show", "job", job).stdout))


def _say(run: Path, sentence: str) -> None:
    sys.stderr.write(f"scigpt: {run}: {sentence}\n")


def main(arguments: Sequence[str]) -> int:
    """`begin|stopped|end RUN MOST CODE`, for the batch script only."""
    event, run, most, code = arguments[0], Path(arguments[1]), int(arguments[2]), int(arguments[3])
    if event == "end":
        return end(run, most, code)
    if event == "stopped":
        return stopped(run)
    begin(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
