"""What all pictures share: colours, axes, names of variables and units."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scigpt.data.sample import Sample, Variable
from scigpt.evaluate.fno import NAME as FNO
from scigpt.evaluate.study import CLIMATOLOGY, MODEL

GREY, INK = "#c4c4c4", "#222222"
COLOURS = {
    MODEL: "#c8102e",
    "interpolation": "#5b6770",
    "nearest three": "#5b6770",
    "persistence": "#5b6770",
    "linear": "#1f6fb2",
    "mean": "#b5bac0",
    "trailing mean": "#e0a100",
    CLIMATOLOGY: "#2e8b57",
    FNO: "#7a3fa0",
    "truth": "#222222",
}
STYLES = {
    MODEL: "-",
    "interpolation": "--",
    "nearest three": "--",
    "persistence": "--",
    "linear": "-.",
    "mean": ":",
    "trailing mean": (0, (6, 2)),
    CLIMATOLOGY: (0, (3, 1, 1, 1)),
    FNO: (0, (8, 2)),
    "truth": "-",
}
DPI = 120
MOST_VARIABLES = 6


def label(variable: Variable, unit: bool = False) -> str:
    """`air temperature at 850 hPa`, with the unit in brackets if asked for."""
    name = variable.name.replace("_", " ")
    if variable.level is not None:
        kind = {"pressure": "hPa", "height": "m", "depth": "m depth"}[variable.level.kind]
        name += f" at {variable.level.value:g} {kind}"
    symbol = pretty_unit(variable.unit)
    return f"{name} ({symbol})" if unit and symbol else name


def pretty_unit(unit: str) -> str:
    """`m s**-1` as `m s⁻¹`; empty for dimensionless numbers."""
    if unit.startswith("degrees"):
        return {"degrees_north": "°N", "degrees_east": "°E"}.get(unit, "°")
    raised = re.sub(r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")), unit)
    return "" if unit == "1" else raised.replace("percent", "%")


def shown_variables(sample: Sample) -> list[tuple[int, Variable]]:
    return [(c, v) for c, v in enumerate(sample.variables) if v.predicted][:MOST_VARIABLES]


def new_figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left", fontweight="bold")
    return figure


def elapsed_time(seconds: np.ndarray, simulated: bool) -> tuple[np.ndarray, str]:
    """Seconds in the unit that suits their range."""
    if simulated:
        return seconds, "time units"
    span = float(np.max(np.abs(seconds)))
    for name, size in (("years", 365.25 * 86400), ("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if span >= 3 * size:
            return seconds / size, name
    return seconds, "s"


def titled(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", pad=4)
    axes.tick_params(labelsize=7, length=2.5, width=0.5)
    for side in axes.spines.values():
        side.set_linewidth(0.5)
        side.set_color("#888888")


def plain(axes: Axes, y_label: str) -> None:
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=7, length=2.5, width=0.5)
    axes.yaxis.get_offset_text().set_fontsize(7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)


def bracket(variable: Variable) -> str:
    symbol = pretty_unit(variable.unit)
    return f"({symbol})" if symbol else ""
