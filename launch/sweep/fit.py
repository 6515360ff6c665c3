"""`scigpt sweep fit`: the scaling law of a table of runs, of a sweep of ours or of anybody's CSV."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show, table

Table = Annotated[
    Path,
    typer.Argument(
        metavar="RUNS",
        help="A sweep's folder, or a .csv or .parquet file with columns params, tokens, loss, and if it has them flops, unique_tokens, "
        "patch, context, samples, group (runs that are not independent), role (hold-out is kept out of the fit), id.",
    ),
]
Form = Annotated[
    str, typer.Option("--form", metavar="NAME", help="The law: auto, chinchilla, tied, repetition, patch, context or patch+context.")
]
Delta = Annotated[float, typer.Option("--delta", help="Threshold of Huber's loss on log residuals, from square to straight.")]
Resamples = Annotated[int, typer.Option("--resamples", min=50, help="Of the bootstrap that gives the 95 % intervals.")]
Count = Annotated[
    Literal["total", "backbone"],
    typer.Option("--count", help="Of a sweep, which parameters N counts: all that are trained, or the backbone's."),
]


def fit(
    runs: Table,
    form: Form = "auto",
    delta: Delta = 1e-3,
    flops: Annotated[
        str | None,
        typer.Option("--flops", metavar="X,Y,...", help="Budgets to divide; the largest one of the table and 10 times it by default."),
    ] = None,
    resamples: Resamples = 4000,
    count: Count = "total",
    json: Json = False,
) -> None:
    """Fit L = E + A/N^alpha + B/D^beta, or another law, and say what a budget should buy: N*, D*, L* with 95 % intervals, what was left out
    and what the table cannot tell."""
    from scigpt.scaling.analysis import analyse
    from scigpt.scaling.runs import Runs

    found = Runs.read(runs, count)
    result = analyse(
        found, form=form, delta=delta, resamples=resamples, budgets=budgets(flops) or [m * largest(found) for m in (1.0, 10.0)]
    )
    show(result.to_json(), json, _text)


def budgets(text: str | None) -> list[float]:
    """Budgets of a command line, in FLOPs.

    Raises:
        UserError: something that is not positive numbers with commas between.
    """
    found = []
    for word in (text or "").split(","):
        try:
            value = float(word) if word.strip() else math.nan
        except ValueError:
            value = -1.0
        if text is not None and not 0 < value < math.inf:
            raise UserError(
                f"--flops {text}: {word.strip() or 'nothing'!r} is not a budget; expected positive numbers with commas, as 1e20,1e21"
            )
        found += [] if math.isnan(value) else [value]
    return found


def largest(runs: Any) -> float:
    """Compute of the largest run that is fitted; 6 N D where the table does not state it."""
    from scigpt.scaling.select import flops

    fitted = runs.fitted()
    if len(fitted) == 0:
        raise UserError(f"{runs.source} has no run to fit: all are held out or dropped; finish more runs, or give them another role")
    return float(flops(fitted).max())


def _text(found: dict[str, Any]) -> str:
    from scigpt.launch.sweep.words import amount, figure, flops, interval, percent

    level = f"{found['level']:.0%}".replace("%", " %")
    used = f"{found['points']} runs fitted, {found['held_out_points']} held out, {len(found['dropped'])} dropped"
    head = f"{found['source']}: {found['form']}, {used}"
    how = f"Huber's loss (delta {found['delta']:g}) of log residuals, {found['reduction']} {found['objective']:.4g}"
    noise = f"residuals {percent(found['sigma']['residual'])}, seeds {percent(found['sigma']['seed'])}"
    drawn = f"{found['resamples']} resamples of {found['clusters']} independent groups; standard deviation: {noise}"
    lines = [head, how, drawn, ""]
    values = [[name, figure(p["value"]), figure(p["low"]), figure(p["high"])] for name, p in found["parameters"].items()]
    values += [
        [f"{n} of {of}", *(figure(found["exponents"][n][e]) for e in ("value", "low", "high"))]
        for n, of in _EXPONENTS.items()
        if n in found["exponents"]
    ]
    lines += [table(["parameter", "value", f"{level} from", "to"], values), ""]
    rows = [
        [
            flops(o["flops"]),
            interval(o["params"], amount),
            interval(o["tokens"], amount),
            interval(o["tokens_per_param"]),
            interval(o["loss"]),
        ]
        for o in found["optimum"]
    ]
    lines += [table(["FLOPs", "N*", "D*", "tokens per parameter", "loss"], rows)]
    cost = found["cost"]
    rule = f"FLOPs = {cost['k']:.4g} N^{cost['s']:.4g} D, at worst off by {percent(cost['worst'])}"
    lines += [f"N counts {found['count'] or 'what the file says'}; {rule}"]
    if found["frontier"]:
        lines += ["", found["frontier"]["sentence"]]
    if found["saturation"]:
        lines += [found["saturation"]["sentence"], found["saturation"]["scale_next"]]
    lines += ["", *(f"dropped {d['row']}: {d['reason']}" for d in found["dropped"])] if found["dropped"] else []
    lines += ["", *(f"warning: {w}" for w in found["warnings"])] if found["warnings"] else []
    return "\n".join(lines)


_EXPONENTS = {"a": "N* ~ C^a", "b": "D* ~ C^b", "gamma": "L* - E ~ C^-gamma"}
