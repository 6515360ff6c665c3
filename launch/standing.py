"""Where a run stands: its steps, loss and speed, its newest checkpoint, what it has cost and when it will end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from scigpt.data.files import load_json
from scigpt.errors import UserError
from scigpt.launch import slurm

RECENT = 50
"""Steps whose mean time is the speed now."""


def tasks(run: Path) -> list[Path]:
    """The runs of a job array submitted from this folder; only `run` itself where there is none."""
    file = run / slurm.FOLDER / slurm.JOB
    job = load_json(file, "the job of a run") if file.exists() else {"runs": []}
    return [Path(r) for r in job["runs"]] if len(job["runs"]) > 1 else [run]


def job_of(run: Path) -> str | None:
    """Id of the run's newest job, None for one that was never submitted."""
    file = run / slurm.FOLDER / slurm.JOB
    return str(load_json(file, "the job of a run")["job"]) if file.exists() else None


def queued(run: Path) -> slurm.State | None:
    """What SLURM says of the run's job; None where there is none, or SLURM has forgotten it."""
    job = job_of(run)
    found = slurm.states(job) if job else []
    return next((s for s in found if not s.over), found[-1] if found else None)


def standing(run: Path) -> dict[str, Any]:
    """Everything `scigpt status` tells of a run; numbers that are not known are None. Times are ISO, in UTC.

    Raises:
        UserError: a folder that is no run.
    """
    config, metrics = _config(run), _metrics(run)
    state, launches, now = queued(run), slurm.launches(run), time.time()
    step, steps = (metrics[-1]["step"] if metrics else 0), int(config["train"]["steps"])
    devices = launches[-1]["tasks"] if launches else config["data"].get("data_width") or 1
    pace = mean(m["seconds"] for m in metrics[-RECENT:]) if metrics else None
    updated = (run / "metrics.jsonl").stat().st_mtime if metrics else None
    running = state.state == "RUNNING" if state else bool(updated and pace and step < steps and now - updated < max(60.0, 10 * pace))
    spent = _spent(launches, updated, now if running else None) if launches else devices * sum(m["seconds"] for m in metrics)
    left = pace * (steps - step) if pace is not None else None
    return {
        "run": str(run),
        "state": _word(state, running, step, steps),
        "job": None if state is None else {"id": state.job, "state": state.state, "reason": state.reason, "nodes": state.nodes},
        "starts": state.starts if state and state.state == "PENDING" else None,
        "said": launches[-1].get("said") if launches else None,
        "step": step,
        "steps": steps,
        "loss": metrics[-1]["loss"] if metrics else None,
        "tokens_per_second": sum(m["tokens"] for m in metrics[-RECENT:]) / (pace * len(metrics[-RECENT:])) if pace else None,
        "seconds_per_step": pace,
        "updated": iso(updated),
        "checkpoint": slurm.newest(run),
        "restarts": max(0, len(launches or _by_hand(run)) - 1),
        "expected_end": iso(now + left) if running and left else None,
        "devices": devices,
        "device_hours": spent / 3600,
        "device_hours_expected": (spent + devices * left) / 3600 if left is not None else None,
    }


def _config(run: Path) -> dict[str, Any]:
    for file in (run / "config.yaml", run / slurm.FOLDER / slurm.CONFIG):
        if file.exists():
            return yaml.safe_load(file.read_text(encoding="utf-8"))
    raise UserError(f"{run}: is not a run, it has no config.yaml; give the folder that was named with run=FOLDER")


def _metrics(run: Path) -> list[dict[str, Any]]:
    file, found = run / "metrics.jsonl", []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line, while it is being written
            break
    return found


def _by_hand(run: Path) -> list[Any]:
    file = run / "provenance.json"
    return load_json(file, "the provenance of a run")["launches"] if file.exists() else []


def _spent(launches: Sequence[dict[str, Any]], updated: float | None, now: float | None) -> float:
    """Device-seconds of all launches. One that ended without a word lasted to its last step, the newest one to `now` where it runs."""
    signs = [*(launch["last_step"] for launch in launches[1:]), now or updated]
    return sum(x["tasks"] * max(0.0, (x.get("end") or sign or 0.0) - x["begin"]) for x, sign in zip(launches, signs, strict=True))


def _word(state: slurm.State | None, running: bool, step: int, steps: int) -> str:
    """One word of where it stands."""
    if state is not None and not state.over:
        return {"RUNNING": "running", "PENDING": "queued"}.get(state.state, state.state.lower())
    if step >= steps:
        return "finished"
    return "running" if running else "stopped"


def iso(when: float | None) -> str | None:
    """Seconds since 1970 in words, in UTC."""
    return None if when is None else datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")
