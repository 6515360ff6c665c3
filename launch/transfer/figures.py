"""The pictures of a transfer study, drawn from its outcome (`scigpt.launch.transfer.outcome`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from scigpt.evaluate.drawing import COLOURS, GREY, INK, new_figure, plain, titled
from scigpt.launch.sweep.figures import AMBER, BLUE, GREEN, PURPLE, RED, Picture
from scigpt.launch.transfer.outcome import FNO, FROM_SCRATCH

TUNED = (RED, AMBER, GREEN)
TASKS = (RED, BLUE, GREEN, AMBER, PURPLE, INK)
MOST = 1e6
"""Larger multipliers are the extrapolation of a curve that has met its floor."""
CAPTIONS = {
    "curves": "Error on the test split against the number of examples: medians over seeds, with a band from the smallest to the largest. "
    "Dashed: the pretrained model as it is.",
    "ratios": "Error of fine-tuning over that of training from scratch at equal examples and steps; above 1 (grey) pretraining does not "
    "help. Bands: the smallest and largest of a seed.",
    "distance": "Zero-shot error of each task, and that of fine-tuning with more and more examples.",
    "worth": "How many times as many examples training from scratch needs for the error of fine-tuning, by fitted curves, with 95 % "
    "intervals; above what is drawn where scratch never gets there. Hollow: beyond what was trained from scratch.",
}


def draw(found: Mapping[str, Any], folder: Path) -> dict[str, Picture]:
    """Draw all that there are numbers for into `folder`; pictures by name."""
    made = {}
    for figure, name in _figures(found):
        FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata={"Software": None})
        made[name] = Picture(f"{name}.png", CAPTIONS[name])
    return made


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[Figure, str]]:
    tasks = [t for t in found["tasks"] if any(p["vrmse"] for rows in t["curves"].values() for p in rows)]
    if tasks:
        yield curves_figure(tasks), "curves"
    if any(rows for t in tasks for rows in t["ratios"].values()):
        yield ratios_figure(tasks), "ratios"
    if sum(t["zero_shot"] is not None and t["zero_shot"]["vrmse"] is not None for t in found["tasks"]) > 1:
        yield distance_figure(found["tasks"]), "distance"
    if any(w["multiplier"]["value"] for t in tasks for f in t["transfer"].values() for w in f.get("effective", ())):
        yield worth_figure(tasks), "worth"


def curves_figure(tasks: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each task."""
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = new_figure(max(6.4, 3.3 * columns), 3.0 * rows + 0.9, "Error against examples of the task")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1)
    for axes in grid[len(tasks) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for i, (axes, task) in enumerate(zip(grid, tasks, strict=False)):
        for (name, points), colour in zip(task["curves"].items(), _colours(task["curves"]), strict=True):
            known = [p for p in points if p["vrmse"]]
            x = [p["examples"] for p in known]
            value, low, high = ([p["vrmse"][end] for p in known] for end in ("value", "low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
            (handles[name],) = axes.plot(x, value, "o-", color=colour, lw=1.6, ms=3.8)
        if task["zero_shot"] and task["zero_shot"]["vrmse"]:
            handles["zero-shot"] = axes.axhline(task["zero_shot"]["vrmse"], color=RED, lw=1.1, ls="--")
        plain(axes, "VRMSE" if i % columns == 0 else "")
        titled(axes, _label(task))
        axes.set_xlabel("examples", fontsize=8)
    _log(grid[0], sorted({p["examples"] for t in tasks for points in t["curves"].values() for p in points}))
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, ncols=6, loc="outside lower center")
    return figure


def ratios_figure(tasks: Sequence[Mapping[str, Any]]) -> Figure:
    """A line for each task and way of fine-tuning."""
    figure = new_figure(7.2, 4.2, "What pretraining saves")
    axes = figure.subplots()
    for colour, task in zip(_cycle(len(tasks)), tasks, strict=True):
        for style, (name, rows) in zip(("-", "--", ":"), task["ratios"].items(), strict=False):
            x = [r["examples"] for r in rows]
            axes.fill_between(x, [r["low"] for r in rows], [r["high"] for r in rows], color=colour, alpha=0.13, lw=0)
            label = _label(task) + (f", {name}" if len(task["ratios"]) > 1 else "")
            axes.plot(x, [r["value"] for r in rows], "o", ls=style, color=colour, lw=1.5, ms=3.8, label=label)
    plain(axes, "error, fine-tuned over scratch")
    axes.set_xlabel("examples", fontsize=8)
    _log(axes, sorted({r["examples"] for t in tasks for rows in t["ratios"].values() for r in rows}))
    low, high = axes.get_ylim()
    axes.axhline(1, color=INK, lw=0.8)
    axes.axhspan(1, max(high, 1.3), color=GREY, alpha=0.25, lw=0, zorder=0)
    axes.set_ylim(low, max(high, 1.3))
    figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    return figure


def distance_figure(tasks: Sequence[Mapping[str, Any]]) -> Figure:
    """Tasks side by side, in the order of the study."""
    figure = new_figure(max(6.4, 1.3 * len(tasks) + 2), 4.0, "Error against the distance from pretraining")
    axes = figure.subplots()
    places = [i for i, t in enumerate(tasks) if t["zero_shot"] and t["zero_shot"]["vrmse"]]
    axes.plot(places, [tasks[i]["zero_shot"]["vrmse"] for i in places], "D--", color=INK, ms=5, lw=1, label="zero-shot")
    first: list[Any] = [next((rows for name, rows in t["curves"].items() if name not in (FNO, FROM_SCRATCH)), []) for t in tasks]
    examples = sorted({p["examples"] for rows in first for p in rows})
    for k, n in enumerate(examples):
        known = {i: p["vrmse"]["value"] for i, rows in enumerate(first) for p in rows if p["examples"] == n and p["vrmse"]}
        shade = 0.3 + 0.7 * (k + 1) / len(examples)
        axes.plot(list(known), list(known.values()), "o-", color=RED, alpha=shade, ms=4, lw=1.2, label=f"{n:,} examples")
    plain(axes, "VRMSE")
    axes.set_xticks(range(len(tasks)), [_label(t) for t in tasks])
    axes.set_yscale("log")
    _y(axes)
    figure.legend(fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    return figure


def worth_figure(tasks: Sequence[Mapping[str, Any]]) -> Figure:
    """The effective data multiplier, a line for each task and way of fine-tuning."""
    figure = new_figure(7.2, 4.2, "What an example is worth after pretraining")
    axes = figure.subplots()
    for colour, task in zip(_cycle(len(tasks)), tasks, strict=True):
        for style, (name, found) in zip(("-", "--", ":"), task["transfer"].items(), strict=False):
            known = [w for w in found.get("effective", ()) if 0 < (w["multiplier"]["value"] or 0) < MOST]
            label = _label(task) + (f", {name}" if len(task["transfer"]) > 1 else "")
            axes.plot(
                [w["examples"] for w in known], [w["multiplier"]["value"] for w in known], ls=style, color=colour, lw=1.4, label=label
            )
            for w in known:
                m = w["multiplier"]
                face = "white" if w["extrapolated"] else colour
                axes.plot(w["examples"], m["value"], "o", color=colour, mfc=face, ms=4.5, zorder=3)
                if m["low"]:
                    axes.plot([w["examples"]] * 2, [m["low"], min(m["high"] or MOST, MOST)], color=colour, lw=1.0, alpha=0.7)
    axes.axhline(1, color=INK, lw=0.8)
    plain(axes, "times as many examples from scratch")
    axes.set_xlabel("examples", fontsize=8)
    _log(axes, sorted({w["examples"] for t in tasks for f in t["transfer"].values() for w in f.get("effective", ())}))
    figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    return figure


def _label(task: Mapping[str, Any]) -> str:
    return str(task["name"]) + (f" ({task['distance']})" if task["distance"] else "")


def _colours(curves: Mapping[str, Any]) -> list[str]:
    """Of methods, the ways of fine-tuning first, as the outcome orders them."""
    fixed = {FNO: COLOURS["FNO"], FROM_SCRATCH: BLUE}
    return [fixed.get(name, TUNED[i % len(TUNED)]) for i, name in enumerate(curves)]


def _cycle(count: int) -> list[str]:
    return [TASKS[i % len(TASKS)] for i in range(count)]


def _log(axes: Axes, examples: Sequence[float]) -> None:
    """Both axes, with a tick at each number of examples."""
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(list(examples), [f"{n:g}" for n in examples])
    axes.xaxis.set_minor_locator(NullLocator())
    _y(axes)


def _y(axes: Axes) -> None:
    low, high = axes.get_ylim()
    narrow = MaxNLocator(5) if high < 4 * low else None
    axes.yaxis.set_major_locator(narrow or LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
