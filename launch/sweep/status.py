"""`scigpt sweep status`: where a sweep stands, what it has cost and will cost, and when it ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.launch.output import Json, show
from scigpt.launch.output import table as columns

if TYPE_CHECKING:
    from scigpt.launch.sweep.table import Table

Sweep = Annotated[Path, typer.Argument(metavar="SWEEP", help="The folder of a sweep, or the table.json in it.")]


def status(sweep: Sweep, json: Json = False) -> None:
    """Where a sweep stands: its rows, workers and job, the FLOPs and device-hours spent and left, the expected end, and what went wrong."""
    from scigpt.launch.sweep.table import Table

    show(summary(Table.read(sweep)), json, text)


def summary(table: Table) -> dict[str, Any]:
    """Everything `sweep status` tells; what is not known is None. Times are ISO, in UTC."""
    from scigpt.launch.standing import iso
    from scigpt.launch.sweep import lease, rows

    found, budget, now = list(rows.standings(table).values()), rows.budget_of(table), lease.now(table.folder)
    spent, busy = sum(s.flops for s in found), sum(s.device_seconds for s in found)
    left = sum(max(0.0, s.row.own_flops - s.flops) for s in found if not s.over)
    rate = spent / busy if spent and busy else None
    running = [s for s in found if s.state == "running"]
    devices = sum(s.devices for s in running)
    refused = {s.row.id: why for s in found if not s.over and (why := _refused(s, found, budget))}
    counts = Counter(s.state for s in found)
    return {
        "sweep": str(table.folder),
        "counts": {state: counts[state] for state in rows.STATES if counts[state]},
        "rows": [
            {
                "id": s.row.id,
                "name": s.row.name,
                "role": s.row.role,
                "state": s.state,
                "reason": s.reason or refused.get(s.row.id),
                "step": s.step,
                "steps": s.row.steps,
                "loss": s.loss,
                "score": s.result.get("score") if s.result else None,
                "attempts": s.attempts,
                "worker": s.worker,
                "flops": {"planned": s.row.own_flops, "spent": s.flops},
                "device_hours": s.device_seconds / 3600,
            }
            for s in found
        ],
        "workers": len(running),
        "flops": {"planned": sum(s.row.own_flops for s in found), "spent": spent, "remaining": left, "budget": budget},
        "device_hours": {"spent": busy / 3600, "remaining": left / rate / 3600 if rate else None},
        "flops_per_device_second": rate,
        "expected_end": iso(now + left / (rate * devices) if rate and devices else None),
        "jobs": _jobs(table.folder),
        "failures": [
            {"id": s.row.id, "name": s.row.name, "state": s.state, "reason": s.reason} for s in found if s.state in ("failed", "diverged")
        ],
        "refused": [{"id": s.row.id, "name": s.row.name, "reason": refused[s.row.id]} for s in found if s.row.id in refused],
    }


def _refused(standing: Any, found: Any, budget: float | None) -> str | None:
    from scigpt.launch.sweep import rows

    return None if standing.state == "running" else rows.overrun(standing, found, budget)


def _jobs(sweep: Path) -> list[dict[str, Any]]:
    """What SLURM says of the workers that were submitted last; of none where it has forgotten them, or is not on this machine."""
    from scigpt.errors import UserError
    from scigpt.launch import standing
    from scigpt.launch.sweep import array

    try:
        found = array.job_states(sweep)
    except UserError as error:
        return [{"id": standing.job_of(sweep), "state": None, "reason": str(error), "nodes": ""}]
    return [{"id": s.job, "state": s.state, "reason": s.reason, "nodes": s.nodes} for s in found]


def text(found: dict[str, Any]) -> str:
    """For people: the rows, then the sums."""
    lines = [
        [
            r["id"],
            r["name"],
            r["role"],
            r["state"],
            f"{r['step']} of {r['steps']}",
            "-" if r["loss"] is None else f"{r['loss']:.4g}",
            f"{r['flops']['spent']:.3g}",
            r["attempts"],
            r["worker"] or "",
        ]
        for r in found["rows"]
    ]
    flops, hours = found["flops"], found["device_hours"]
    cost = f"{flops['spent']:.3g} FLOPs spent in {hours['spent']:.3g} device-hours, {flops['remaining']:.3g} FLOPs left"
    if hours["remaining"] is not None:
        cost += f" ({hours['remaining']:.3g} device-hours)"
    if flops["budget"] is not None:
        cost += f", of a budget of {flops['budget']:.3g}"
    said = [f"{found['sweep']}: " + ", ".join(f"{n} {state}" for state, n in found["counts"].items()), cost]
    if found["expected_end"]:
        workers = "1 worker" if found["workers"] == 1 else f"{found['workers']} workers"
        said.append(f"expected end {found['expected_end']}, with {workers}")
    said += [
        f"job {j['id']}: {j['state'] or 'unknown'}"
        + (f" ({j['reason']})" if j["reason"] else "")
        + (f" on {j['nodes']}" if j["nodes"] else "")
        for j in found["jobs"]
    ]
    said += [f"{f['state']}: {f['name']} ({f['id']}): {f['reason']}" for f in found["failures"]]
    said += [f"not begun: {r['name']} ({r['id']}): {r['reason']}" for r in found["refused"]]
    header = ("id", "name", "role", "state", "step", "loss", "FLOPs", "attempts", "worker")
    return "\n".join([columns(header, lines), "", *said])
