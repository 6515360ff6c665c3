"""CARD.md: what a corpus holds, where it is from and what may be done with it, for a person."""

from __future__ import annotations

from typing import Any

import numpy as np

from scigpt.data.statistics import Moments, Statistics

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 32


def card(manifest: dict[str, Any], stats: Statistics) -> str:
    """The card in Markdown; equal manifests and statistics give equal text."""
    layout, recipe = manifest["layout"], manifest["recipe"]
    z, y, x = layout["grid"]
    boundary = "; ".join(f"{a}: {' / '.join(layout['boundary'][a])}" for a in "zyx")
    unit = "" if manifest["calendar"] == "none" else " s"
    lines = [
        f"# {manifest['name']}",
        "",
        f"- source: {recipe['source']}, options {_options(recipe['options'])}",
        f"- licence: {', '.join(manifest['licences']) or 'none stated'}"
        + ("" if manifest["redistributable"] else " (not to be redistributed)"),
        f"- attribution: {'; '.join(manifest['attributions']) or 'none asked for'}",
        f"- grid (Z, Y, X): {z} x {y} x {x}, geometry {layout['geometry']}, boundary {boundary}",
        f"- time: calendar {manifest['calendar']}, "
        + ("steady problems" if layout["steady"] else f"step {_number(manifest['step'])}{unit}"),
        f"- made with scigpt {manifest['code_version']}",
        "",
        "## Splits",
        "",
        *_table(
            ("split", "distribution", "samples", "frames", "what"),
            [(n, s["distribution"], s["samples"], s["frames"], s["description"]) for n, s in manifest["splits"].items()],
        ),
        "",
        "## Variables",
        "",
        "Statistics of the training split, in the transform space of each variable; the increment is that from frame to frame. "
        f"The shape is a histogram of {_BINS} bins from min to max.",
        "",
        *_table(
            ("variable", "unit", "role", "valid", "mean", "deviation", "min", "median", "max", "increment RMS", "out of bounds", "shape"),
            [_variable_row(v, k, manifest, stats) for v, k in zip(layout["variables"], stats.channels, strict=False)],
        ),
    ]
    if manifest["coefficients"]:
        rows = [
            (n, _number(r["min"]), _number(r["max"]), _distribution(stats.coefficients.get(n, Moments())))
            for n, r in manifest["coefficients"].items()
        ]
        lines += ["", "## Coefficients", "", "The range is that of all splits, the distribution that of the training split.", ""]
        lines += _table(("name", "min", "max", "distribution"), rows)
    if recipe["inputs"]:
        lines += ["", "## Inputs", "", *_table(("file", "sha256"), [(i["name"], i["sha256"]) for i in recipe["inputs"]])]
    return "\n".join(lines) + "\n"


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
    return ", ".join(f"{k}={v}" for k, v in options.items()) or "none"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in (header, ("---",) * len(header), *rows)
    ]
