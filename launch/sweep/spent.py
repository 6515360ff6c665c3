"""What a sweep has cost, by role and by run, and what went wrong: for its report."""

from __future__ import annotations

import statistics
from typing import Any

from scigpt.launch.sweep.rows import Standing, attempts, folder_of, standings
from scigpt.launch.sweep.table import Table

SLOW = 0.5
"""A run below this share of the median rate is marked: a slow node, or one that was shared."""
SHOWN = ("planned_flops", "flops", "device_hours")


def spent(table: Table) -> dict[str, Any]:
    """Plain data: `roles` and `runs` with planned and spent FLOPs, device-hours and rates (FLOP/s of a device), `failures` with reasons."""
    runs = [_run(table, standing) for standing in standings(table).values()]
    rates = [r["rate"] for r in runs if r["rate"]]
    usual = statistics.median(rates) if rates else None
    for run in runs:
        run["slow"] = bool(usual and run["rate"] and run["rate"] < SLOW * usual)
    roles = []
    for role in dict.fromkeys(r["role"] for r in runs):
        some = [r for r in runs if r["role"] == role]
        about = {"role": role, "rows": len(some), "finished": sum(r["state"] == "done" for r in some)}
        roles.append(about | {key: sum(r[key] for r in some) for key in SHOWN})
    total = {key: sum(r[key] for r in roles) for key in ("rows", "finished", *SHOWN)}
    failures = [r for r in runs if r["state"] in ("diverged", "failed", "stale") or r["attempts"] > 1 or r["skipped_steps"]]
    return {"roles": roles, "total": total, "runs": runs, "failures": failures, "rate": usual}


def _run(table: Table, standing: Standing) -> dict[str, Any]:
    row, result = standing.row, standing.result
    seconds = result["seconds"] * result["processes"] if result else 0.0
    reasons = [f"{a.outcome}: {a.reason}" if a.reason else a.outcome for a in attempts(folder_of(table, row)) if a.outcome != "finished"]
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "state": standing.state,
        "planned_flops": row.own_flops,
        "flops": standing.flops,
        "device_hours": (standing.device_seconds or seconds) / 3600,
        "rate": result["own_flops"] / seconds if result and seconds else None,
        "skipped_steps": result["skipped_steps"] if result else 0,
        "attempts": standing.attempts,
        "reasons": list(dict.fromkeys(r for r in [standing.reason, *reasons] if r)),
    }
