"""Pictures of what heads say besides fields: predicted against true coefficients, the confusion of classes, reliability."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from scigpt.evaluate.drawing import COLOURS, DPI, INK
from scigpt.evaluate.study import MODEL

MOST = 6


def answers_figure(answers: dict[str, Any]) -> Figure:
    """The pairs under `points`, or the counts under `confusion`, of `scigpt.evaluate.answers`."""
    return _confusion(answers) if answers["kind"] == "classes" else _scatter(answers["points"])


def reliability_figure(reliability: dict[str, Any]) -> Figure:
    """Observed against nominal levels of each variable."""
    figure = Figure((3.6, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
    for name, curve in list(reliability.items())[:MOST]:
        axes.plot(curve["levels"], curve["observed"], "o-", markersize=3, label=name.replace("_", " "))
    axes.set_xlabel("level of the quantile")
    axes.set_ylabel("share of the truth at or below")
    axes.legend(fontsize=7)
    return figure


def _scatter(points: dict[str, Any]) -> Figure:
    shown = list(points.items())[:MOST]
    figure = Figure((3.4 * len(shown), 3.4), dpi=DPI, layout="constrained")
    for axes, (name, pairs) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.plot(pairs["true"], pairs["predicted"], ".", color=COLOURS[MODEL], markersize=4)
        ends = [f(pairs["true"]) for f in (min, max)]
        axes.plot(ends, ends, color=INK, linewidth=0.8)
        axes.set_xlabel(f"{name.replace('_', ' ')}, true")
        axes.set_ylabel("predicted")
    return figure


def _confusion(answers: dict[str, Any]) -> Figure:
    counts, values = np.array(answers["confusion"]), [f"{v:g}" for v in answers["values"]]
    figure = Figure((1.4 + 0.5 * len(values), 1.4 + 0.5 * len(values)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Reds", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, str(count), ha="center", va="center", color=INK, fontsize=8)
    axes.set_xticks(range(len(values)), values)
    axes.set_yticks(range(len(values)), values)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure
