"""The pictures of a sweep's report, drawn from the JSON of an analysis (`scigpt.scaling.analysis`).

A colour means the same in all of them: budgets run from dark to light, the fitted law is red, what was measured is dark, held-out runs are
blue stars. Where it is grey behind, the law is beyond the largest budget that was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.interpolate import Akima1DInterpolator

from scigpt.evaluate.drawing import GREY, INK, new_figure, plain, titled

RED, BLUE, GREEN, AMBER, PURPLE = "#c8102e", "#1f6fb2", "#2e8b57", "#e0a100", "#7a3fa0"
ROLES = {"grid": INK, "trunk": GREEN, "anneal": GREEN, "seed-repeat": AMBER, "hold-out": BLUE}
SMALL = 7.5

CAPTIONS = {
    "isoflop": "Loss against parameters, a line for each budget (Akima interpolation). Diamonds: minima with 95 % intervals; a line has "
    "none where too few sizes stand on a side of its lowest run.",
    "frontier": "What a budget should buy: the law (red, with its band) and the isoFLOP minima (diamonds); grey: beyond the runs that were "
    "fitted. Beside the loss: the frontier of the minima, fitted with and without a floor.",
    "contour": "Loss of the law over parameters and data, the runs on it, lines of equal compute (dotted) and the best division (red).",
    "residuals": "Residuals: measured over fitted loss. The band is two standard deviations between seeds (of the residuals, where no seed "
    "was repeated). A trend is something that the law does not know.",
    "held-out": "Left: held-out runs over their prediction, with its interval. Right: the law fitted to the runs up to a budget, and its "
    "error above.",
    "saturation": "How much the loss falls when one axis alone is doubled (the patch: halved) at the largest budget, with 95 % intervals; "
    "dotted: two standard deviations of the loss between runs.",
    "sensitivity": "N* and L* at the largest budget, by choices that the fit could have made otherwise.",
}

Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Loss of the fitted law at N and D, whatever else it depends on as in the run of largest budget."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG, by its name within the report's folder."""

    file: str
    caption: str

    @property
    def stem(self) -> str:
        return Path(self.file).stem


def draw(analysis: Mapping[str, Any], surface: Surface, folder: Path) -> dict[str, Picture]:
    """Draw all that the analysis has numbers for into `folder`; pictures by name."""
    made = {}
    for figure, name, caption in _figures(analysis, surface):
        FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata={"Software": None})
        made[name] = Picture(f"{name}.png", caption)
    return made


def _figures(analysis: Mapping[str, Any], surface: Surface) -> Iterator[tuple[Figure, str, str]]:
    """Figure, name, caption."""
    if analysis["isoflop"]:
        yield isoflop_figure(analysis["isoflop"]), "isoflop", CAPTIONS["isoflop"]
    if any(o["params"]["value"] for o in analysis["optimum"]):
        yield frontier_figure(analysis), "frontier", CAPTIONS["frontier"]
        yield contour_figure(analysis, surface), "contour", CAPTIONS["contour"]
    if analysis["residuals"]:
        yield residual_figure(analysis), "residuals", CAPTIONS["residuals"]
    if analysis["held_out"] or analysis["held_out_by_compute"]:
        yield held_out_figure(analysis), "held-out", CAPTIONS["held-out"]
    if analysis["saturation"]["axes"]:
        yield saturation_figure(analysis), "saturation", CAPTIONS["saturation"]
    if any(s["N*"] and s["L*"] for s in analysis["sensitivity"]):
        yield sensitivity_figure(analysis), "sensitivity", CAPTIONS["sensitivity"]


# --- the frontier


def isoflop_figure(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each patch and context that the lines have."""
    budgets = sorted({line["flops"] for line in lines})
    shades = dict(zip(budgets, _shades(len(budgets)), strict=True))
    cells: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        cells.setdefault(", ".join(f"{name} {line[name]:g}" for name in ("patch", "context") if name in line), []).append(line)
    columns = min(3, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure = new_figure(max(7.2, 3.6 * columns), 4.4 if rows == 1 else 3.2 * rows + 0.6, "Loss at equal compute")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1)
    for axes in grid[len(cells) :]:
        axes.set_visible(False)
    for i, (axes, (cell, some)) in enumerate(zip(grid, cells.items(), strict=False)):
        for line in some:
            _isoflop_line(axes, line, shades[line["flops"]])
        plain(axes, "loss" if i % columns == 0 else "")
        axes.set_xlabel("parameters N", fontsize=8)
        if cell:
            titled(axes, cell)
    _log(grid[0].xaxis, engineering=True)
    _maybe_log(grid[0].yaxis)
    low, high = grid[0].get_xlim()
    grid[0].set_xlim(low / (high / low) ** (0.12 * columns), high)  # room for the budgets
    handles = [Line2D([], [], marker="o", color=INK, lw=1.3, ms=3.8), Line2D([], [], marker="D", color=RED, lw=1, ms=5)]
    figure.legend(handles, ["runs, FLOPs beside", "minimum, 95 %"], fontsize=8, frameon=False, ncols=2, loc="outside lower center")
    return figure


def _isoflop_line(axes: Axes, line: Mapping[str, Any], colour: Any) -> None:
    points = np.array(sorted(line["points"]), np.float64)
    x, y = _means(np.log(points[:, 0]), points[:, 1])
    axes.plot(points[:, 0], points[:, 1], "o", color=colour, ms=3.8, zorder=3)
    if x.size > 2:
        fine = np.linspace(x[0], x[-1], 200)
        axes.plot(np.exp(fine), Akima1DInterpolator(x, y)(fine), color=colour, lw=1.3, zorder=2)
    if line["minimum"] is not None:
        _cross(axes, line["minimum"]["params"], line["minimum"]["loss"], RED, zorder=4)
    beside = {"textcoords": "offset points", "fontsize": SMALL, "color": colour, "ha": "right", "va": "center"}
    axes.annotate(_power_of_ten(line["flops"]), (points[0, 0], points[0, 1]), (-6, 0), **beside)


def frontier_figure(analysis: Mapping[str, Any]) -> Figure:
    """N*, D*, D*/N* and L* against compute."""
    optimum = sorted(analysis["optimum"], key=lambda o: o["flops"])
    flops = np.array([o["flops"] for o in optimum])
    figure = new_figure(8.4, 6.2, "What a budget should buy")
    grid = figure.subplots(2, 2, sharex=True).reshape(-1)
    at = analysis["cost"]["at"]
    minima = [m | m["minimum"] for m in analysis["isoflop"] if m["minimum"] is not None and all(m[k] == at[k] for k in at if k in m)]
    for axes, key, title in zip(
        grid,
        ("params", "tokens", "tokens_per_param", "loss"),
        ("parameters N*", "tokens D*", "tokens per parameter", "loss L*"),
        strict=True,
    ):
        value, low, high = (_column(optimum, key, end) for end in ("value", "low", "high"))
        axes.fill_between(flops, low, high, color=RED, alpha=0.18, lw=0, label="95 %")
        axes.plot(flops, value, color=RED, lw=1.6, label=f"law ({analysis['form']})")
        for m in minima:
            if key in m and m[key] is not None:
                _cross(axes, {"value": m["flops"], "low": None, "high": None}, m[key], INK)
            elif key == "tokens_per_param":  # at a fixed budget both follow from the size
                _cross(axes, {"value": m["flops"], "low": None, "high": None}, _ratio(m["tokens"], m["params"]), INK)
        plain(axes, title)
        _log(axes.xaxis)
    _log(grid[0].yaxis, engineering=True)
    _log(grid[1].yaxis, engineering=True)
    _maybe_log(grid[2].yaxis)
    loss = grid[3]
    for name, style, colour in (("floor", "--", BLUE), ("power", ":", PURPLE)):
        curve = _frontier_curve(analysis["frontier"][name], flops)
        if curve is not None:
            loss.plot(
                flops, curve, color=colour, ls=style, lw=1.3, label="frontier with a floor" if name == "floor" else "frontier without"
            )
    for run in analysis["held_out"]:
        if run["flops"]:
            loss.plot(run["flops"], run["loss"], "*", color=BLUE, ms=8, label="held out")
    _maybe_log(loss.yaxis)
    most = _largest(analysis)
    for axes in grid:
        axes.set_xlim(flops[0] / 1.25, flops[-1])
        if most is not None and most < flops[-1]:
            axes.axvspan(most, flops[-1], color=GREY, alpha=0.25, lw=0, zorder=0)
    for axes in grid[2:]:
        axes.set_xlabel("compute C (FLOPs)", fontsize=8)
    handles = dict(zip(*reversed(loss.get_legend_handles_labels()), strict=True))
    if minima:
        handles["isoFLOP minima"] = Line2D([], [], marker="D", color=INK, lw=1, ms=4)
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    return figure


def contour_figure(analysis: Mapping[str, Any], surface: Surface) -> Figure:
    runs = [r for r in analysis["residuals"] if r["params"] and r["tokens"]] + list(analysis["held_out"])
    optimum = [o for o in sorted(analysis["optimum"], key=lambda o: o["flops"]) if o["params"]["value"]]
    log_n, log_d = np.log([r["params"] for r in runs]), np.log([r["tokens"] for r in runs])
    pad_n, pad_d = 0.15 * np.ptp(log_n) + 0.3, 0.15 * np.ptp(log_d) + 0.3
    n = np.exp(np.linspace(log_n.min() - pad_n, log_n.max() + pad_n, 120))
    d = np.exp(np.linspace(log_d.min() - pad_d, log_d.max() + pad_d, 120))
    loss = surface(*np.meshgrid(n, d))
    figure = new_figure(7.2, 5.0, "The fitted loss over parameters and data")
    axes = figure.subplots()
    levels = np.geomspace(loss.min(), loss.max(), 16)
    shown = axes.contourf(n, d, loss, levels=levels, cmap=_pale(), norm=matplotlib.colors.LogNorm(levels[0], levels[-1]))
    axes.contour(n, d, loss, levels=levels, colors="white", linewidths=0.5)
    cost, first = analysis["cost"], optimum[0]
    for budget in {line["flops"] for line in analysis["isoflop"]}:
        equal = first["tokens"]["value"] * (n / first["params"]["value"]) ** -cost["s"] * (budget / first["flops"])
        axes.plot(n, equal, color=INK, lw=0.7, ls=":")
    for role in dict.fromkeys(r.get("role", "hold-out") for r in runs):
        some = [r for r in runs if r.get("role", "hold-out") == role]
        marker, size = ("*", 70) if role == "hold-out" else ("o", 18)
        x, y = [r["params"] for r in some], [r["tokens"] for r in some]
        axes.scatter(x, y, s=size, marker=marker, color=ROLES[role], edgecolors="white", linewidths=0.5, zorder=3, label=role)
    axes.plot(
        [o["params"]["value"] for o in optimum], [o["tokens"]["value"] for o in optimum], color=RED, lw=2, label="best N and D", zorder=2
    )
    plain(axes, "tokens D")
    axes.grid(visible=False)
    axes.set_xlabel("parameters N", fontsize=8)
    _log(axes.xaxis, engineering=True)
    _log(axes.yaxis, engineering=True)
    axes.set(xlim=(n[0], n[-1]), ylim=(d[0], d[-1]))
    bar = figure.colorbar(shown, ax=axes, pad=0.02, aspect=30, ticks=levels[::3])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.3g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=7, length=2.5, width=0.5)
    bar.set_label("loss", fontsize=8)
    figure.legend(fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    return figure


# --- how far it can be trusted


def residual_figure(analysis: Mapping[str, Any]) -> Figure:
    """Residuals in percent against what the law should have explained."""
    rows = analysis["residuals"]
    axes_of = {"params": "parameters N", "tokens": "tokens D", "flops": "compute C (FLOPs)", "epochs": "epochs"}
    shown = {k: label for k, label in axes_of.items() if any(r[k] for r in rows)}
    columns = 3 if len(shown) == 3 else 2
    figure = new_figure(8.4, 5.4 if len(shown) > columns else 3.0, "Residuals: measured over fitted loss")
    grid = figure.subplots(math.ceil(len(shown) / columns), columns, sharey=True, squeeze=False).reshape(-1)
    sigma = analysis["sigma"]["seed"] or analysis["sigma"]["residual"]
    whose = "seeds" if analysis["sigma"]["seed"] else "residuals"
    for i, (axes, (key, label)) in enumerate(zip(grid, shown.items(), strict=False)):
        if sigma:
            axes.axhspan(-200 * sigma, 200 * sigma, color=GREY, alpha=0.35, lw=0, label=f"2 standard deviations of {whose}")
        axes.axhline(0, color=INK, lw=0.7)
        for role in dict.fromkeys(r["role"] for r in rows):
            some = [r for r in rows if r["role"] == role and r[key]]
            axes.plot([r[key] for r in some], [100 * r["residual"] for r in some], "o", ms=4, color=ROLES.get(role, INK), label=role)
        plain(axes, "residual (%)" if i % columns == 0 else "")
        axes.set_xlabel(label, fontsize=8)
        if key == "epochs":
            _maybe_log(axes.xaxis)
        else:
            _log(axes.xaxis, engineering=key != "flops")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    return figure


def held_out_figure(analysis: Mapping[str, Any]) -> Figure:
    runs, steps = analysis["held_out"], [s for s in analysis["held_out_by_compute"] if s["error"] is not None]
    figure = new_figure(8.4, max(3.0, 1.6 + 0.28 * len(runs)), "Runs that the fit has not seen")
    grid = figure.subplots(1, 2, width_ratios=(1.2, 1), squeeze=False)[0]
    axes = grid[0]
    for i, run in enumerate(runs):
        told = run["predicted"]
        low, high = (100 * (told[end] / told["value"] - 1) if told[end] else 0.0 for end in ("low", "high"))
        axes.plot([low, high], [i, i], color=RED, lw=4, alpha=0.35, solid_capstyle="butt")
        axes.plot(100 * (run["loss"] / told["value"] - 1), i, "*", color=BLUE, ms=9)
    axes.axvline(0, color=RED, lw=1)
    axes.set_yticks(range(len(runs)), [str(r["id"])[:12] for r in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    plain(axes, "")
    titled(axes, "measured over predicted (star), interval (band)")
    axes.set_xlabel("relative difference (%)", fontsize=8)
    if not runs:
        axes.text(0.5, 0.5, "no run was held out", transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xticks([])
    axes = grid[1]
    axes.plot([s["fitted_up_to"] for s in steps], [100 * s["error"] for s in steps], "o-", color=RED, lw=1.4, ms=4)
    plain(axes, "rms error above (%)")
    titled(axes, "error above, by what was fitted")
    axes.set_xlabel("fitted up to (FLOPs)", fontsize=8)
    if steps:
        _log(axes.xaxis)
        axes.set_ylim(bottom=0)
    else:
        axes.text(0.5, 0.5, "too few budgets", transform=axes.transAxes, ha="center", fontsize=8)
    return figure


def saturation_figure(analysis: Mapping[str, Any]) -> Figure:
    """How much each axis would still give."""
    found = analysis["saturation"]
    names = list(found["axes"])
    figure = new_figure(7.2, 1.3 + 0.34 * len(names), "What doubling an axis would give")
    axes = figure.subplots()
    for i, name in enumerate(names):
        gain = found["axes"][name]["doubling"]
        colour = RED if name == found["saturated"] else INK
        axes.barh(i, 100 * (gain["value"] or 0.0), color=colour, alpha=0.75, height=0.55)
        if gain["low"] is not None and gain["high"] is not None:
            axes.plot([100 * gain["low"], 100 * gain["high"]], [i, i], color=colour, lw=1.2)
    axes.axvline(100 * found["noise"], color=INK, lw=0.9, ls=":")
    axes.axvline(0, color=INK, lw=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    plain(axes, "")
    axes.set_xlabel("fall of the loss (%)", fontsize=8)
    return figure


def sensitivity_figure(analysis: Mapping[str, Any]) -> Figure:
    rows = [s for s in analysis["sensitivity"] if s["N*"] and s["L*"]]
    most = _largest(analysis)
    at = min(analysis["optimum"], key=lambda o: abs(math.log(o["flops"] / most))) if most and analysis["optimum"] else None
    figure = new_figure(8.4, 1.5 + 0.24 * len(rows), "Sensitivity to choices")
    grid = figure.subplots(1, 2, sharey=True)
    for axes, star, key, label in zip(
        grid, ("N*", "L*"), ("params", "loss"), ("N* at the largest budget", "L* at the largest budget"), strict=True
    ):
        if at is not None and at[key]["low"]:
            axes.axvspan(at[key]["low"], at[key]["high"], color=RED, alpha=0.15, lw=0)
            axes.axvline(at[key]["value"], color=RED, lw=1)
        axes.plot([r[star] for r in rows], range(len(rows)), "o", color=INK, ms=4.5)
        plain(axes, "")
        axes.set_xlabel(f"{label} (band: the fit, 95 %)", fontsize=8)
        axes.set_yticks(range(len(rows)), [r["choice"] for r in rows])
    grid[0].invert_yaxis()
    _log(grid[0].xaxis, engineering=True)
    grid[1].xaxis.set_major_locator(MaxNLocator(5))
    return figure


# --- axes and colours


def _shades(count: int) -> list[Any]:
    """Dark to light, none too pale for white paper."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.0, 0.82, max(count, 1))]


def _pale() -> Any:
    """Viridis with white mixed in, so that runs stand out on it; low loss is dark."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 64))
    return matplotlib.colors.ListedColormap(1 - 0.6 * (1 - colours[:, :3]))


def _log(axis: Axis, engineering: bool = False) -> None:
    """A log scale with as many labels as fit its span; `engineering`: 20 k, 3 M."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1, 3) if decades < 3.2 else (1,)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(EngFormatter(sep=" ") if engineering else FuncFormatter(lambda v, _: _power_of_ten(v)))


def _maybe_log(axis: Axis) -> None:
    """A log scale where the values span a factor of three, else a plain one."""
    low, high = axis.get_data_interval()
    if low > 0 and high > 3 * low:
        _log(axis)
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}"))


def _cross(axes: Axes, x: Mapping[str, Any], y: Mapping[str, Any], colour: str, zorder: float = 3) -> None:
    """A diamond with its intervals, as far as they are known."""
    axes.plot(x["value"], y["value"], "D", color=colour, ms=4.5, zorder=zorder, mec="white", mew=0.6)
    if x["low"] is not None and x["high"] is not None:
        axes.plot([x["low"], x["high"]], [y["value"]] * 2, color=colour, lw=1.2, zorder=zorder)
    if y["low"] is not None and y["high"] is not None:
        axes.plot([x["value"]] * 2, [y["low"], y["high"]], color=colour, lw=1.2, zorder=zorder)


def _ratio(over: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """Of two numbers of which one falls as the other rises."""
    known = over["low"] is not None and under["low"] is not None
    ends = {"low": over["low"] / under["high"], "high": over["high"] / under["low"]} if known else {"low": None, "high": None}
    return {"value": over["value"] / under["value"], **ends}


def _column(optimum: Sequence[Mapping[str, Any]], key: str, end: str) -> np.ndarray:
    return np.array([o[key][end] if o[key][end] is not None else np.nan for o in optimum], np.float64)


def _means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of y at each different x, as seeds repeat a size."""
    places, which = np.unique(x, return_inverse=True)
    return places, np.bincount(which, y) / np.bincount(which)


def _largest(analysis: Mapping[str, Any]) -> float | None:
    """Largest compute of a run that was fitted."""
    return max((r["flops"] for r in analysis["residuals"] if r["flops"]), default=None)


def _frontier_curve(found: Mapping[str, Any] | None, flops: np.ndarray) -> np.ndarray | None:
    """`E + K C^-gamma` of the JSON's parameters."""
    if found is None or found["K"]["value"] is None:
        return None
    floor = found["E"]["value"] if "E" in found else 0.0
    return floor + found["K"]["value"] * flops ** -found["gamma"]["value"]


def _power_of_ten(number: float) -> str:
    digits, exponent = f"{number:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"
