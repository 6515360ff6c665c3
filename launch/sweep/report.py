"""`scigpt sweep report`: one page that says what a budget should buy, what to scale next, and how far one may trust it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.launch.output import Json, show
from scigpt.launch.sweep.fit import Count, Delta, Form, Resamples, largest

if TYPE_CHECKING:
    import numpy as np

    from scigpt.launch.sweep.figures import Surface
    from scigpt.scaling.analysis import Analysis

FOLDER, PAGE, ANALYSIS = "report", "index.html", "analysis.json"
AHEAD = (1.0, 3.0, 10.0, 30.0)
"""Budgets that are told, in units of the largest one that was fitted."""
POINTS = 24
"""Budgets of the bands in the pictures."""

RunsOf = Annotated[Path, typer.Argument(metavar="SWEEP|RUNS", help="A sweep's folder, or a .csv or .parquet file as `sweep fit` reads it.")]


def report(
    runs: RunsOf,
    form: Form = "auto",
    delta: Delta = 1e-3,
    resamples: Resamples = 4000,
    count: Count = "total",
    json: Json = False,
) -> None:
    """Draw and write all that a sweep says into SWEEP/report (of a file: into NAME-report beside it), and log it to the sweep's MLflow
    store."""
    import numpy as np

    from scigpt.data.files import dump_json, write_bytes
    from scigpt.launch.sweep.figures import draw
    from scigpt.launch.sweep.mlflow import log_sweep
    from scigpt.launch.sweep.spent import spent
    from scigpt.launch.sweep.table import FILE, Table
    from scigpt.scaling.analysis import analyse
    from scigpt.scaling.runs import Runs
    from scigpt.scaling.select import flops

    source = runs.parent if runs.name == FILE else runs
    found, sweep = Runs.read(source, count), Table.read(source) if source.is_dir() else None
    top, low = largest(found), float(flops(found).min())
    told = [top * ahead for ahead in AHEAD]
    budgets = sorted({*told, *np.geomspace(low, told[-1], POINTS).tolist()})
    other = Runs.read(source, "backbone" if count == "total" else "total") if sweep else None
    result = analyse(found, form, delta, resamples, budgets, other=other)
    analysis = result.to_json()
    folder = source / FOLDER if sweep else source.with_name(f"{source.stem}-report")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(analysis, surface(result), folder)
    write_bytes(folder / ANALYSIS, dump_json(analysis, indent=1))
    cost = spent(sweep) if sweep else None
    images = {name: base64.b64encode((folder / p.file).read_bytes()).decode() for name, p in pictures.items()}
    lines = list(summary(analysis))
    write_bytes(folder / PAGE, render(analysis, lines, told, pictures, images, cost).encode())
    if sweep:
        log_sweep(sweep, analysis, folder)
    made = {"report": str(folder / PAGE), "analysis": str(folder / ANALYSIS), "pictures": [str(folder / p.file) for p in pictures.values()]}
    show(made | {"summary": lines}, json, lambda r: "\n".join([*r["summary"], "", f"The report is {r['report']}"]))


def surface(analysis: Analysis) -> Surface:
    """The fitted loss over N and tokens, all of them different; patch and context as in the best run."""
    report, law = analysis.report, analysis.fit.law

    def loss(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        best = next(o for o in report["optimum"] if o["params"]["value"])
        per_unit = best["tokens"]["value"] / best[report["data"]]["value"]
        data = tokens.ravel() / per_unit
        columns = {"params": params.ravel(), report["data"]: data, "unique_tokens": data, **report["cost"]["at"]}
        return analysis.fit.predict({name: columns[name] for name in law.columns}).reshape(params.shape)

    return loss


def summary(analysis: Mapping[str, Any]) -> Iterator[str]:
    """Sentences for one who reads nothing else: what a budget should buy, what is saturated, what to scale next, how far to trust it."""
    from scigpt.launch.sweep.words import amount, figure, flops, interval

    top = max(r["flops"] for r in analysis["residuals"])
    known = [o for o in analysis["optimum"] if o["params"]["value"]]
    for ahead in (1.0, 10.0) if known else ():
        o = min(known, key=lambda o: abs(o["flops"] / (ahead * top) - 1))
        what = "the largest budget that was fitted" if ahead == 1 else f"{ahead:.3g} times that"
        size, data = interval(o["params"], amount), interval(o["tokens"], amount)
        yield (
            f"{flops(o['flops'])} FLOPs ({what}) are best spent on {size} parameters and {data} "
            f"tokens, {figure(o['tokens_per_param']['value'])} a parameter; that gives a loss of {interval(o['loss'])}."
        )
    yield from (_sentence(analysis["saturation"][key]) for key in ("sentence", "scale_next"))
    yield _sentence(trust(analysis))


def trust(analysis: Mapping[str, Any]) -> str:
    """How far the numbers may be trusted, in one sentence."""
    from scigpt.launch.sweep.words import percent

    held = analysis["held_out"]
    if held:
        inside = sum(bool(r["inside"]) for r in held)
        worst = max(abs(r["loss"] / r["predicted"]["value"] - 1) for r in held)
        lie = "lies" if len(held) == 1 else "lie"
        told = f"{inside} of {len(held)} held-out runs {lie} within the predicted interval (largest miss {percent(worst)})"
    else:
        told = "no run was held out, so nothing shows how well the law extrapolates"
    sigma = analysis["sigma"]
    noise = f"seeds differ by {percent(sigma['seed'])}" if sigma["seed"] else "no seed was repeated"
    warned = (
        f"; {len(analysis['warnings'])} warnings below"
        if len(analysis["warnings"]) > 1
        else "; see the warning below"
        if analysis["warnings"]
        else ""
    )
    return f"trust: {told}; residuals are {percent(sigma['residual'])}, {noise}{warned}"


def render(
    analysis: Mapping[str, Any],
    lines: list[str],
    told: list[float],
    pictures: Mapping[str, Any],
    images: Mapping[str, str],
    cost: Mapping[str, Any] | None,
) -> str:
    """The page. `told` are the budgets of the table, `images` the pictures in base64."""
    from scigpt.evaluate.card import page
    from scigpt.launch.sweep import words

    filters = {"figure": words.figure, "amount": words.amount, "flops": words.flops, "percent": words.percent, "interval": words.interval}
    budgets = [o for o in analysis["optimum"] if any(abs(o["flops"] / t - 1) < 1e-9 for t in told)]
    forms = {"amount": words.amount, "percent": words.percent}
    values = {"summary": lines, "budgets": budgets, "pictures": pictures, "images": images, "cost": cost, "form": forms}
    return page("scigpt.launch.sweep", "report.html", filters, a=analysis, **values)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."
