"""CARD.md: what a corpus holds, where it is from and what may be done with it, for a person."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np

from scigpt.data.statistics import Moments, Statistics

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 32
_INPUTS = 8
"""That a command spells out."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the card, under its title, with what there is to know before reading it."""

    title: str
    text: str
    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def card(manifest: dict[str, Any], stats: Statistics) -> str:
    """The card in Markdown; equal manifests and statistics give equal text."""
    lines = [f"# {manifest['name']}", "", *(f"- {term}: {text}" for term, text in facts(manifest))]
    for table in tables(manifest, stats):
        lines += ["", f"## {table.title}", "", *([table.text, ""] if table.text else []), *_markdown(table.header, table.rows)]
    return "\n".join(lines) + "\n"


def facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Provenance, licence and shape of a corpus, `(term, text)`."""
    layout, recipe = manifest["layout"], manifest["recipe"]
    z, y, x = layout["grid"]
    boundary = "; ".join(f"{a}: {' / '.join(layout['boundary'][a])}" for a in "zyx")
    unit = "" if manifest["calendar"] == "none" else " s"
    passed_on = "" if manifest["redistributable"] else " (not to be redistributed)"
    steps = "steady problems" if layout["steady"] else f"step {_number(manifest['step'])}{unit}"
    return [
        ("source", f"{recipe['source']}, options {_options(recipe['options'])}"),
        ("licence", f"{', '.join(manifest['licences']) or 'none stated'}{passed_on}"),
        *([("licence accepted", recipe["accepted_licence"])] if recipe["accepted_licence"] else []),
        ("attribution", "; ".join(manifest["attributions"]) or "none asked for"),
        ("grid (Z, Y, X)", f"{z} x {y} x {x}, geometry {layout['geometry']}, boundary {boundary}"),
        ("time", f"calendar {manifest['calendar']}, {steps}"),
        ("made with", f"scigpt {manifest['code_version']}"),
        ("command", command(manifest)),
    ]


def tables(manifest: dict[str, Any], stats: Statistics) -> list[Table]:
    """Splits, variables, gaps, coefficients and inputs; the same for a manifest just made and one that was read back."""
    splits = {n: manifest["splits"][n] for n in dict.fromkeys(s["split"] for s in manifest["shards"])}
    found = [
        Table(
            "Splits",
            "",
            ("split", "distribution", "samples", "frames", "what"),
            [(n, s["distribution"], s["samples"], s["frames"], s["description"]) for n, s in splits.items()],
        ),
        Table(
            "Variables",
            "Statistics of the training split, in the transform space of each variable; the increment is that from frame to frame. "
            f"The shape is a histogram of {_BINS} bins from min to max.",
            ("variable", "unit", "role", "valid", "mean", "deviation", "min", "median", "max", "increment RMS", "out of bounds", "shape"),
            [_variable_row(v, k, manifest, stats) for v, k in zip(manifest["layout"]["variables"], stats.channels, strict=False)],
        ),
    ]
    found += _gaps({n: s for n, s in splits.items() if "invalid" in s}, list(stats.channels))
    if manifest["coefficients"]:
        rows = [
            (n, _number(r["min"]), _number(r["max"]), _distribution(stats.coefficients.get(n, Moments())))
            for n, r in sorted(manifest["coefficients"].items())
        ]
        text = "The range is that of all splits, the distribution that of the training split."
        found.append(Table("Coefficients", text, ("name", "min", "max", "distribution"), rows))
    if manifest["recipe"]["inputs"]:
        found.append(Table("Inputs", "", ("file", "sha256"), [(i["name"], i["sha256"]) for i in manifest["recipe"]["inputs"]]))
    return found


def command(manifest: dict[str, Any]) -> str:
    """The command that makes this corpus again, with every option spelt out; many files are INPUTS."""
    recipe = manifest["recipe"]
    names = [i["name"] for i in recipe["inputs"]]
    inputs = ["--input", *(names if len(names) <= _INPUTS else ["INPUTS"])] if names else []
    words = [f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in sorted(recipe["options"].items()) if v is not None]
    accepted = ["--accept-licence", recipe["accepted_licence"]] if recipe["accepted_licence"] else []
    start = ["scigpt", "data", "prepare" if inputs else "make", recipe["source"]]
    return shlex.join([*start, *inputs, "--out", manifest["name"], *accepted, *words])


def _gaps(splits: dict[str, Any], keys: list[str]) -> list[Table]:
    """When each split begins, ends and has holes, and what is invalid in it; none for a corpus of an earlier version."""
    times = []
    for name, about in splits.items():
        hole = next((f"{h['after']} to {h['before']} {h['place']}".strip() for h in about.get("longest_holes", ())), "-")
        if "first" in about:
            times.append((name, about["first"], about["last"], about.get("holes", "-"), hole))
    missing = [(k, *(_missing(about, k) for about in splits.values())) for k in keys]
    found = []
    if times:
        text = "A hole is time between two samples of one place in which samples are missing."
        found.append(Table("Time", text, ("split", "first", "last", "holes", "longest hole"), times))
    if missing:
        text = "Share of the values that are invalid, and frames in which a variable has no valid value."
        found.append(Table("Gaps", text, ("variable", *splits), missing))
    return found


def _missing(about: dict[str, Any], key: str) -> str:
    if key not in about["invalid"]:
        return "-"
    frames = about.get("missing_frames", {}).get(key, 0)
    return f"{about['invalid'][key]:.2%}" + (f", {frames} frames" if frames else "")


def _variable_row(variable: dict[str, Any], key: str, manifest: dict[str, Any], stats: Statistics) -> tuple[Any, ...]:
    values, increments = stats.channels[key].values, stats.channels[key].increments
    numbers = [_number(n) for n in (values.mean, values.std, values.low, values.quantile(0.5), values.high)] if values.count else ["-"] * 5
    moving = _number(increments.rms) if increments.count else "-"
    share = f"{stats.valid_share(key):.2%}"
    return (key, variable["unit"], variable["role"], share, *numbers, moving, manifest["out_of_bounds"].get(key, 0), _histogram(values))


def _histogram(values: Moments) -> str:
    if not values.high > values.low:
        return ""
    counts, _ = np.histogram(values.drawn, _BINS, (values.low, values.high))
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "`" + "".join(_BARS[h] for h in heights) + "`"


def _distribution(values: Moments) -> str:
    """The share of each value of a coefficient that takes whole numbers, few of them; else a histogram and its range."""
    levels, counts = np.unique(values.drawn, return_counts=True)
    if 1 < levels.size <= _BINS and np.array_equal(levels, np.round(levels)):
        return ", ".join(f"{level:g}: {count / counts.sum():.1%}" for level, count in zip(levels, counts, strict=True))
    return f"{_number(values.low)} {_histogram(values)} {_number(values.high)}" if levels.size > 1 else ""


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in sorted(options.items())) or "none"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _markdown(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in (header, ("---",) * len(header), *rows)
    ]
