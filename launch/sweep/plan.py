"""`scigpt sweep plan`: from a budget to an immutable table of runs, with the cost of each part and what a fit will be able to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show, si, table
from scigpt.launch.pretrain import Overrides

if TYPE_CHECKING:
    from scigpt.launch.sweep.config import BudgetConfig, SweepConfig
    from scigpt.launch.sweep.design import Cell
    from scigpt.launch.sweep.table import Row

DECADES = 1.5
"""Tokens per parameter should span so many powers of ten."""
EPOCHS = 4.0
"""Up to about so many passes repeated data is worth as much as fresh (Muennighoff et al., arXiv:2305.16264)."""
WIDE = 1.0
"""A forecast interval wider than its value says that the parameter will not be known."""

Sweep = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of a sweep; paths in it are relative to the current folder.")]


def plan(config: Sweep, overrides: Overrides = None, json: Json = False) -> None:
    """Plan the runs of a sweep: SWEEP/table.json, which never changes, and what it costs. Nothing is trained. Planning the same again
    changes nothing; a sweep that could not find a minimum, or that costs more than its budget, is refused."""
    from scigpt.data.files import write_bytes
    from scigpt.launch.sweep.config import load_sweep
    from scigpt.launch.sweep.design import Design
    from scigpt.launch.sweep.forecast import forecast
    from scigpt.launch.sweep.table import CONFIG

    settings, base = load_sweep(config, overrides or ())
    folder = Path(settings.sweep)
    try:
        design = Design(settings, base)
        planned = design.rows(folder)
        plain = [r for c, r in planned if r.fitted and not _is_varied(c, settings)]
        known = forecast([r.params["total"] for r in plain], [r.tokens for r in plain], settings.prior)
        parts = _parts(planned, settings.budget)
        _affordable(parts, settings)
    except UserError as error:
        raise UserError(f"{config}: {error}") from None
    rows = design.table(folder, [r for _, r in planned])
    written = rows.write()
    if written or not (folder / CONFIG).exists():
        write_bytes(folder / CONFIG, settings.to_yaml().encode())
    spans = {
        "params": _span([r.params["total"] for r in plain]),
        "tokens": _span([r.tokens for r in plain]),
        "tokens_per_param": _span([r.tokens / r.params["total"] for r in plain]),
    }
    cost = sum(p["flops"] for p in parts)
    result = {
        "sweep": settings.sweep,
        "written": written,
        "code_version": rows.code_version,
        "rows": len(rows.rows),
        "budget": {"flops": settings.budget.total, "device_hours": settings.budget.hours(settings.budget.total)},
        "cost": {"flops": cost, "device_hours": settings.budget.hours(cost), "share": cost / settings.budget.total},
        "parts": parts,
        "order": [r.id for r in rows.rows],
        "lines": _lines(planned),
        "spans": spans,
        "branches": _saving([r for _, r in planned]),
        "forecast": asdict(known) | {"prior": asdict(settings.prior)},
        "dropped": design.dropped,
        "warnings": [*design.warnings, *_warnings(spans, known.widths, [r for _, r in planned])],
    }
    show(result, json, _text)


def _is_varied(cell: Cell, settings: SweepConfig) -> bool:
    return cell.part in settings.axes.given


def _parts(planned: Sequence[tuple[Cell, Row]], budget: BudgetConfig) -> list[dict[str, Any]]:
    """The cost of each part, in the order of the design."""
    found: dict[str, dict[str, Any]] = {}
    for cell, row in planned:
        part = found.setdefault(cell.part, {"part": cell.part, "runs": 0, "flops": 0, "largest": 0})
        part["runs"] += 1
        part["flops"] += row.own_flops
        part["largest"] = max(part["largest"], row.own_flops)
    more = ({"device_hours": budget.hours(p["flops"]), "share": p["flops"] / budget.total} for p in found.values())
    return [p | m for p, m in zip(found.values(), more, strict=True)]


def _affordable(parts: Sequence[dict[str, Any]], settings: SweepConfig) -> None:
    cost, total = sum(p["flops"] for p in parts), settings.budget.total
    if cost <= total:
        return
    dearest = max(parts, key=lambda p: p["flops"])
    name, others = dearest["part"], cost - dearest["flops"]
    factor = dearest["flops"] / (total - others) if others < total else math.inf
    knobs = {
        "isoflop": "isoflop.top (or budgets), sizes or count",
        "grid": "grid.tokens_per_param (or steps), points, or the sizes",
        "trunks": "trunks.tokens_per_param (or steps), points, or the sizes",
        "lr": "lr.steps, rates or count",
        "seeds": "seeds.cells or repeats",
        "hold_out": "hold_out.ratio (or flops) or sizes",
    }
    lower = knobs.get(name, f"axes.{name}: values, budgets or sizes")
    by = f" to {1 / factor:.0%} of it" if factor < math.inf else ""
    spent = ", ".join(f"{p['part']} {p['flops']:.3g}" for p in parts)
    raise UserError(
        f"the runs cost {cost:.3g} FLOP ({spent}) and the budget is {total:.3g}; raise budget, or lower {lower}: cut {name}{by}"
    )


def _lines(planned: Sequence[tuple[Cell, Row]]) -> list[dict[str, Any]]:
    """The isoFLOP lines: sizes and steps of each."""
    found: dict[tuple[str, float, str], dict[str, Any]] = {}
    for cell, row in planned:
        if cell.role == "grid" and cell.budget:
            varied = row.axes.get(cell.part)
            key = cell.part, cell.budget, str(varied)
            line = found.setdefault(key, {"part": cell.part, "value": varied, "flops": cell.budget, "centre": cell.centre, "runs": []})
            line["runs"].append({"id": row.id, "params": row.params["total"], "steps": row.steps, "tokens": row.tokens})
    return list(found.values())


def _saving(rows: Sequence[Row]) -> dict[str, Any] | None:
    """What branches cost, beside a run of its own for each of their points."""
    branches = [r for r in rows if r.role in ("trunk", "anneal")]
    if not branches:
        return None
    own, separate = sum(r.own_flops for r in branches), sum(r.flops for r in branches)
    return {"points": len(branches), "flops": own, "separate": separate, "share": own / separate}


def _span(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "high": max(values), "decades": math.log10(max(values) / min(values))}


def _warnings(spans: dict[str, dict[str, float]], widths: dict[str, float], rows: Sequence[Row]) -> list[str]:
    found = []
    if spans["tokens_per_param"]["decades"] < DECADES:
        found.append(
            f"tokens per parameter span {spans['tokens_per_param']['decades']:.2f} decades; {DECADES} or more tell alpha from beta: widen "
            f"isoflop.span, or the lengths of grid or trunks"
        )
    if vague := [f"{n} ({widths[n]:.0%})" for n in ("E", "alpha", "beta") if widths[n] > WIDE]:
        found.append(f"the fit will hardly know {', '.join(vague)}; spend more budget, more sizes or a wider span")
    far = max(rows, key=lambda r: r.epochs if "unique" not in r.axes or r.axes["unique"] == 1 else 0)
    if far.epochs > EPOCHS:
        found.append(
            f"{far.name} passes its data {far.epochs:.1f} times; repeated data counts for less than fresh beyond about {EPOCHS:g} passes, "
            f"so the law will see repetition as a floor: make larger corpora"
        )
    if not any(r.role == "seed-repeat" for r in rows):
        found.append("no run is repeated with another seed, so the noise is not measured; add seeds (`seeds: {}` takes the defaults)")
    if not any(r.role == "hold-out" for r in rows):
        found.append("no larger run is held out, so nothing judges the extrapolation; add hold_out (`hold_out: {}` takes the defaults)")
    return found


def _text(result: dict[str, Any]) -> str:
    def hours(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}"

    rows = [
        [p["part"], p["runs"], f"{p['flops']:.3g}", hours(p["device_hours"]), f"{p['share']:.1%}", f"{p['largest']:.3g}"]
        for p in result["parts"]
    ]
    cost, budget = result["cost"], result["budget"]
    rows.append(["in all", result["rows"], f"{cost['flops']:.3g}", hours(cost["device_hours"]), f"{cost['share']:.1%}", ""])
    state = "is written" if result["written"] else "is there already, and stays as it is"
    lines = [
        f"{result['sweep']}/table.json {state}: {result['rows']} runs, cheapest first, hold-outs last",
        f"budget {budget['flops']:.3g} FLOP, {hours(budget['device_hours'])} device-hours",
        "",
        table(["part", "runs", "FLOP", "device-hours", "of budget", "largest run"], rows),
    ]
    if result["lines"]:
        iso = [
            [
                line["part"] + ("" if line["value"] is None else f"={line['value']}"),
                f"{line['flops']:.3g}",
                si(line["centre"]),
                " ".join(si(r["params"]).replace(" ", "") for r in line["runs"]),
                f"{line['runs'][-1]['steps']:,} to {line['runs'][0]['steps']:,}",
            ]
            for line in result["lines"]
        ]
        lines += ["", table(["line", "FLOP", "expected minimum", "parameters", "steps"], iso)]
    spans = ", ".join(
        f"{n.replace('_', ' ')} {s['low']:.3g} to {s['high']:.3g} ({s['decades']:.2f} decades)" for n, s in result["spans"].items()
    )
    lines += ["", f"the fit spans {spans}"]
    if saved := result["branches"]:
        lines.append(
            f"branches: {saved['points']} points for {saved['flops']:.3g} FLOP, {saved['share']:.0%} of what runs of their own cost "
            f"({saved['separate']:.3g})"
        )
    known, prior = result["forecast"], result["forecast"]["prior"]
    widths = ", ".join(f"{n} {known['widths'][n]:.1%}" for n in ("E", "alpha", "beta"))
    lines.append(
        f"forecast for {known['points']} runs with {prior['sigma']:.2%} noise, if alpha = {prior['alpha']:g}, beta = {prior['beta']:g} and "
        f"E is {prior['floor']:.0%} of the loss: 95 % intervals as wide as {widths} of the value"
    )
    if result["dropped"]:
        lines += ["", "left out:", *(f"  {d['part']}: {d['run']}: {d['reason']}" for d in result["dropped"])]
    lines += [f"warning: {w}" for w in result["warnings"]]
    return "\n".join(lines)
