"""Curves: error against lead time, power against wavenumber, drift against lead time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from scigpt.data.sample import Sample
from scigpt.evaluate.drawing import COLOURS, INK, STYLES, elapsed_time, label, new_figure, plain, shown_variables, titled
from scigpt.evaluate.study import MODEL


def lead_time_figure(rollout: Mapping[str, Any], sample: Sample) -> Figure:
    """VRMSE of the model and of every baseline against lead time, one panel for each variable."""
    shown = [v for _, v in shown_variables(sample)]
    columns = min(3, len(shown))
    count = math.ceil(len(shown) / columns)
    leads, unit = elapsed_time(np.asarray(rollout["lead_times"]), rollout["lead_unit"] == "1")
    figure = new_figure(max(6.0, 3.3 * columns), 2.9 * count + 0.9, "VRMSE against lead time")
    grid = figure.subplots(count, columns, squeeze=False)
    for axes in grid.reshape(-1)[len(shown) :]:
        axes.set_visible(False)
    for axes, variable in zip(grid.reshape(-1), shown, strict=False):
        curves = {m: np.array(e["vrmse"], np.float64) for m, e in rollout["variables"][variable.key].items()}
        for name in sorted(curves, key=lambda m: m == MODEL):
            values = np.where(np.isfinite(curves[name]), curves[name], np.nan)
            axes.plot(leads, values, color=COLOURS[name], ls=STYLES[name], lw=2.0 if name == MODEL else 1.3, label=name)
        axes.axhline(1.0, color=INK, lw=0.6)
        plain(axes, "VRMSE")
        titled(axes, label(variable))
        axes.set_xlabel(f"lead time ({unit})", fontsize=8)
        finite = np.concatenate([c[np.isfinite(c) & (c > 0)] for c in curves.values()])
        if finite.size and finite.max() > 20 * finite.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    return figure


def spectra_figure(parts: Mapping[str, Any], sample: Sample) -> Figure:
    """Power of truth, prediction and error in each wavenumber: a row for each variable, a column for one step and each range of leads."""
    shown = [v for _, v in shown_variables(sample)]
    kind = next(iter(parts.values()))["kind"]
    figure = new_figure(max(4.5, 3.1 * len(parts) + 0.5), 2.6 * len(shown) + 0.9, f"Spectra ({kind})")
    grid = figure.subplots(len(shown), len(parts), squeeze=False, sharex=True, sharey="row")
    for row, variable in zip(grid, shown, strict=True):
        for axes, (name, part) in zip(row, parts.items(), strict=True):
            found = part["variables"].get(variable.key)
            titled(axes, f"{label(variable)}, {name}")
            plain(axes, "power" if axes is row[0] else "")
            axes.set_xlabel(f"wavenumber (cycles over the {'rollout' if kind == 'temporal' else 'longest axis'})", fontsize=8)
            if found is None:
                continue
            model = found["methods"][MODEL]
            _loglog(axes, {"truth": found["truth"], "prediction": model["power"], "error": model["error"]})
            for low, _ in list(part["bands"].values())[1:]:
                axes.axvline(low, color="#999999", lw=0.7, ls=":")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    return figure


def drift_figure(rollout: Mapping[str, Any], sample: Sample) -> Figure:
    """Drift of the mean and of the mean square, of the truth and of every model."""
    shown = [v for _, v in shown_variables(sample) if v.key in rollout["drift"]]
    leads, unit = elapsed_time(np.asarray(rollout["lead_times"]), rollout["lead_unit"] == "1")
    figure = new_figure(7.5, 2.3 * len(shown) + 0.9, "Drift of conserved quantities")
    grid = figure.subplots(len(shown), 2, squeeze=False, sharex=True)
    for row, variable in zip(grid, shown, strict=True):
        for axes, what, name in zip(row, ("mean", "mean_square"), ("mean over RMS", "mean square, relative"), strict=True):
            for method, entry in rollout["drift"][variable.key].items():
                values = np.array(entry[what], np.float64)
                values = np.where(np.isfinite(values), values, np.nan)
                axes.plot(leads, values, color=COLOURS[method], ls=STYLES[method], lw=1.6, label=method)
            plain(axes, "size of the change")
            titled(axes, f"{label(variable)}: {name}")
            axes.set_ylim(bottom=0)
    for axes in grid[-1]:
        axes.set_xlabel(f"lead time ({unit})", fontsize=8)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    return figure


def _loglog(axes: Axes, curves: Mapping[str, Any]) -> None:
    """Power against wavenumber 1, 2, ...; nothing where it is zero or not finite, and no more than ten decades below the truth."""
    looks = {"truth": (INK, "-"), "prediction": (COLOURS[MODEL], "-"), "error": (COLOURS[MODEL], ":")}
    top = float(np.max(curves["truth"][1:], initial=0.0))
    for name, curve in curves.items():
        power = np.array(curve[1:], np.float64)
        power = np.where(np.isfinite(power) & (power > 1e-10 * top), power, np.nan)
        colour, style = looks[name]
        axes.plot(np.arange(1, power.size + 1), power, color=colour, ls=style, lw=1.4, label=name)
    if top > 0:
        axes.set_xscale("log")
        axes.set_yscale("log")
