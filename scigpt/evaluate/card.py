"""The card: one page that shows what a run can do and where a baseline is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jinja2

METHODS = ("model", "interpolation", "nearest three", "persistence", "linear", "mean", "trailing mean", "climatology", "FNO")
CLASSES = {"better": "win", "even": "even", "worse": "loss", "undefined": "none"}


def render(results: Mapping[str, Any]) -> str:
    """HTML of the results (see `scigpt.evaluate.evaluate`; before non-finite numbers become null). Pictures are files beside the page."""
    filters = {"figure": figure, "conclusion": conclusion, "interval": interval, "verdict": verdict, "best": best, "column": column}
    filters |= {"plain": "{:g}".format, "share": "{:.3g}".format, "scores": scores, "names": names}
    return page("scigpt.evaluate", "card.html", filters, methods=METHODS, classes=CLASSES, **results)


def page(package: str, template: str, filters: Mapping[str, Any], **values: Any) -> str:
    """HTML of a template that lies in a package, or is one of the parts of reports that lie here; a name that it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(p, "") for p in (package, "scigpt.evaluate")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**values)


def scores(part: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What a split has besides its errors, `{name: {method: {score: value}}}` each, under a title."""
    titles = {"images": "Super-resolution", "uncertainty": "Uncertainty", "picks": "Picks"}
    found = [(title, part[key]) for key, title in titles.items() if part[key]]
    return found + ([("Answers", part["answers"]["scores"])] if part["answers"] else [])


def names(found: Mapping[str, Any]) -> list[str]:
    """Every score that some method has, in order."""
    return list(dict.fromkeys(name for methods in found.values() for row in methods.values() for name in row))


def figure(value: float | None) -> str:
    """A score with three significant digits."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "diverged"
    if value == 0:
        return "0"
    return f"{value:.2e}" if not 1e-3 <= abs(value) < 1e4 else f"{value:#.3g}".rstrip(".")


def interval(difference: Mapping[str, Any] | None) -> str:
    """Model minus best baseline, with the interval where there is one."""
    if difference is None or difference["low"] is None or math.isnan(difference["low"]):
        return "one trajectory" if difference is not None and difference["trajectories"] == 1 else "-"
    return f"{figure(difference['low'])} to {figure(difference['high'])}"


def conclusion(summary: Mapping[str, Any]) -> str:
    """The verdict in words, with the error of the model over that of the best baseline."""
    ratio = summary["ratio"]
    if summary["verdict"] in ("even", "undefined"):
        return str(summary["verdict"])
    if ratio is None or not math.isfinite(ratio):
        return "diverged" if summary["verdict"] == "worse" else str(summary["verdict"])
    if ratio < 1:
        return f"{1 / ratio:.3g} times better" if ratio > 0 else "exact"
    return f"{ratio:.3g} times worse"


def verdict(score: float, other: float) -> str:
    """CSS class of a single score: `win` or `loss` where the model is better or worse by more than half a percent, `even` between."""
    if math.isnan(score) or math.isnan(other):
        return "none"
    if score < 0.995 * other:
        return "win"
    return "even" if score <= 1.005 * other else "loss"


def best(scores: Mapping[str, float]) -> float:
    """Least score of the baselines."""
    return min((v for m, v in scores.items() if m != METHODS[0] and not math.isnan(v)), default=math.nan)


def column(methods: Mapping[str, Any], *path: str) -> dict[str, float]:
    """One number of every method, found by its keys."""
    found = dict(methods)
    for step in path:
        found = {m: entry[step] for m, entry in found.items()}
    return found
