"""Pictures of a corpus: the histogram of a variable, a frame of it as map, slice, stations or line, its course in time, and a time line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import distance_transform_edt

from scigpt.data.sample import SPACE_AXES, Sample, Variable
from scigpt.data.statistics import Moments
from scigpt.data.variables import QUANTITIES

COLOURS = "viridis"
GREY, INK = "#c4c4c4", "#222222"
BINS = 64
SIDE = 500
"""Points along an axis of a map; a finer grid is thinned out."""
TRIED = 16
STATIONS = 3
"""Series drawn of a sample of points."""
DPI = 110


def title(variable: Variable) -> str:
    """`air temperature at 850 hPa`."""
    name = variable.name.replace("_", " ")
    if variable.level is None:
        return name
    unit = {"pressure": "hPa", "height": "m", "depth": "m depth"}[variable.level.kind]
    return f"{name} at {variable.level.value:g} {unit}"


def labelled(variable: Variable) -> str:
    """With the unit in brackets, powers raised; a pure number has none."""
    if variable.unit == "1":
        return variable.name.replace("_", " ")
    raised = re.sub(
        r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")), variable.unit
    )
    return f"{variable.name.replace('_', ' ')} ({raised})"


def histogram(values: Moments, variable: Variable) -> Figure:
    """Share of the training values in bins of equal width, in the transform space of the variable."""
    figure, axes = _figure(6.4, 2.6, title(variable))
    counts, edges = np.histogram(values.drawn, BINS, (values.low, values.high if values.high > values.low else values.low + 1))
    axes.bar(edges[:-1], counts / max(counts.sum(), 1), np.diff(edges), align="edge", color="#31688e", linewidth=0)
    quantity = QUANTITIES.find(variable.name)
    scaled = "" if quantity is None or quantity.transform == "identity" else f"{quantity.transform} of "
    axes.set_xlabel(scaled + labelled(variable), fontsize=8)
    axes.set_ylabel("share of values", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _telling(sample: Sample, c: int) -> int:
    """Of some frames spread over the sample the one that shows most: with the most valid values, and of these the largest spread."""
    some = sorted({round(t) for t in np.linspace(0, len(sample.time) - 1, TRIED)})
    fields = {t: sample.values[t, c][sample.valid[t, c]] for t in some}
    return max(some, key=lambda t: (fields[t].size, float(np.ptp(fields[t])) if fields[t].size else 0.0))


def portrait(sample: Sample, c: int) -> tuple[Figure, str]:
    """A picture of a channel that has valid values: a field, stations and their series, a line, or a series; and its caption."""
    variable = sample.variables[c]
    t = _telling(sample, c)
    when, place = sample.time.labels()[t], sample.origin.place
    text = ", ".join(p for p in (title(variable), when, place) if p)
    wide = [a for a in range(3) if sample.values.shape[2 + a] > 1]
    if sample.geometry == "points" and wide:
        return _stations(sample, c, t, text), text
    if not wide:
        text = ", ".join(p for p in (title(variable), f"from {sample.time.labels()[0]}", place) if p)
        figure, axes = _figure(7.2, 2.8, text)
        _series(axes, sample, c, 0)
        axes.set_ylabel(labelled(variable), fontsize=8)
        return figure, text
    if len(wide) == 1:
        return _line(sample, c, t, wide[0], text), text
    return _map(sample, c, t, wide, text)


def timeline(splits: Mapping[str, Any]) -> Figure:
    """A bar for each split from its first instant to its last, its longest holes left out (`Gaps.summary` of each split)."""
    figure, axes = _figure(7.2, 0.9 + 0.35 * len(splits), "")
    start = min(about["seconds"][0] for about in splits.values())
    span = max(about["seconds"][1] for about in splits.values()) - start
    size, unit = _unit(span)
    for row, about in enumerate(splits.values()):
        low, high = ((s - start) / size for s in about["seconds"])
        axes.barh(row, max(high - low, 0.004 * span / size), left=low, height=0.6, color="#31688e")
        for hole in about["longest_holes"]:
            begin, end = ((s - start) / size for s in hole["seconds"])
            axes.barh(row, end - begin, left=begin, height=0.62, color="white")
    first = next(about["first"] for about in splits.values() if about["seconds"][0] == start)
    axes.set_yticks(range(len(splits)), list(splits))
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit} since {first}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(width: float, height: float, text: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(text, fontsize=8.5, color=INK, loc="left", wrap=True)
    axes.tick_params(labelsize=7, length=2.5, width=0.5)
    return figure, axes


def _map(sample: Sample, c: int, t: int, wide: list[int], text: str) -> tuple[Figure, str]:
    """Two axes of the grid, through the middle of the third."""
    vertical, horizontal = wide[-2:]
    cut: list[Any] = [n // 2 for n in sample.values.shape[2:]]
    thin = [slice(None, None, max(1, -(-n // SIDE))) for n in sample.values.shape[2:]]
    cut[vertical], cut[horizontal] = thin[vertical], thin[horizontal]
    if len(wide) == 3:
        text += f", slice at z = {cut[0] + 1} of {sample.values.shape[2]}"
    field, valid = sample.values[t, c][tuple(cut)], sample.valid[t, c][tuple(cut)]
    x, y, labels, known = _places(sample, vertical, horizontal, thin)
    shown = np.ma.masked_where(~(valid & known), field)
    ratio = np.ptp(y) / np.ptp(x) if labels[0].startswith("longitude") else field.shape[0] / field.shape[1]
    height = float(np.clip(6.0 * ratio, 2.0, 7.0))
    figure, axes = _figure(7.2, height + 0.6, text)
    axes.set_facecolor(GREY)
    inside = field[valid]
    low, high = np.quantile(inside, (0.002, 0.998)) if inside.size else (0.0, 1.0)
    image = axes.pcolormesh(x, y, shown, cmap=COLOURS, vmin=low, vmax=high, rasterized=True)
    beyond = (bool(inside.size and inside.min() < low), bool(inside.size and inside.max() > high))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    bar = figure.colorbar(image, ax=axes, extend=extend, shrink=0.85)
    bar.set_label(labelled(sample.variables[c]), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.ticklabel_format(useOffset=False)
    axes.set_xlabel(labels[0], fontsize=8)
    axes.set_ylabel(labels[1], fontsize=8)
    return figure, text


def _places(
    sample: Sample, vertical: int, horizontal: int, thin: list[slice]
) -> tuple[np.ndarray, np.ndarray, tuple[str, str], np.ndarray]:
    """Edges of the cells of a map in x and y (both in one or both in two dimensions), names of the axes, and which cells can be placed."""
    shape = tuple(len(range(*thin[a].indices(sample.values.shape[2 + a]))) for a in (vertical, horizontal))
    latitude, longitude = (sample.coordinates.get(n) for n in ("latitude", "longitude"))
    if latitude is not None and longitude is not None and latitude.axes == longitude.axes == ("y", "x"):
        lat, lon = (k.values[thin[vertical], thin[horizontal]] for k in (latitude, longitude))
        known = np.isfinite(lat) & np.isfinite(lon)
        angles = np.deg2rad(lon[known])
        centre = float(np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())))
        lon = (lon - centre + 180.0) % 360.0 - 180.0 + centre
        for axis in (0, 1):  # a cell across the seam would be drawn over the whole width
            seam = np.abs(np.diff(lon, axis=axis)) > 180.0
            known &= ~np.pad(seam, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
            known &= ~np.pad(seam, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
        nearest = distance_transform_edt(~(np.isfinite(lat) & np.isfinite(lon)), return_distances=False, return_indices=True)
        return _corners(lon[tuple(nearest)]), _within_poles(_corners(lat[tuple(nearest)])), ("longitude (°)", "latitude (°)"), known
    y, y_name = _along(sample, vertical)
    x, x_name = _along(sample, horizontal)
    rows = _edges(y[thin[vertical]])
    rows = _within_poles(rows) if y_name.startswith("latitude") else rows
    return _edges(x[thin[horizontal]]), rows, (x_name, y_name), np.ones(shape, bool)


def _within_poles(latitude: np.ndarray) -> np.ndarray:
    return np.clip(latitude, -90.0, 90.0)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Half-way between centres along the first axis, one more than these; the outer ones lie as far out as their neighbours are apart."""
    low, high = (2 * centres[0] - centres[1], 2 * centres[-1] - centres[-2])
    padded = np.concatenate([[low], centres, [high]])
    return (padded[1:] + padded[:-1]) / 2


def _corners(centres: np.ndarray) -> np.ndarray:
    return _edges(_edges(centres).T).T


def _along(sample: Sample, axis: int) -> tuple[np.ndarray, str]:
    """The coordinate along an axis where there is one that increases or decreases, else the number of the point."""
    letter = SPACE_AXES[axis]
    for name in ("latitude", "longitude", "height", letter):
        coordinate = sample.coordinates.get(name)
        if coordinate is not None and coordinate.axes == (letter,):
            values = np.unwrap(coordinate.values, period=360.0) if name == "longitude" else coordinate.values
            steps = np.diff(values)
            if np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()):
                return values, f"{name} (°)" if name in ("latitude", "longitude") else f"{name} ({coordinate.unit})"
    return np.arange(sample.values.shape[2 + axis]), f"{letter} (grid point)"


def _stations(sample: Sample, c: int, t: int, text: str) -> Figure:
    """Stations where they stand, and the series of the first ones that have values."""
    variable = sample.variables[c]
    figure = Figure(figsize=(7.2, 6.4), dpi=DPI, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, height_ratios=(2, 1))
    field, valid = sample.values[t, c, 0, 0], sample.valid[t, c, 0, 0]
    longitude, latitude = (sample.coordinates[n].values for n in ("longitude", "latitude"))
    size = float(np.clip(2000 / field.size, 8, 60))
    upper.scatter(longitude[~valid], latitude[~valid], s=size, color=GREY, linewidths=0)
    points = upper.scatter(longitude[valid], latitude[valid], s=size, c=field[valid], cmap=COLOURS, edgecolors=INK, linewidths=0.3)
    figure.colorbar(points, ax=upper).set_label(labelled(variable), fontsize=8)
    upper.set_title(text, fontsize=8.5, color=INK, loc="left", wrap=True)
    upper.set_xlabel("longitude (°)", fontsize=8)
    upper.set_ylabel("latitude (°)", fontsize=8)
    for station in np.argsort(~sample.valid[:, c, 0, 0].any(0), kind="stable")[:STATIONS]:
        _series(lower, sample, c, int(station))
    lower.set_ylabel(labelled(variable), fontsize=8)
    for axes in (upper, lower):
        axes.tick_params(labelsize=7, length=2.5, width=0.5)
    return figure


def _line(sample: Sample, c: int, t: int, axis: int, text: str) -> Figure:
    figure, axes = _figure(7.2, 2.8, text)
    x, name = _along(sample, axis)
    axes.plot(x, np.where(sample.valid[t, c], sample.values[t, c], np.nan).reshape(-1), color="#31688e", lw=1.4)
    axes.set_xlabel(name, fontsize=8)
    axes.set_ylabel(labelled(sample.variables[c]), fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _series(axes: Axes, sample: Sample, c: int, station: int) -> None:
    """Values of one point against time, broken and shaded where they are missing."""
    valid = sample.valid[:, c, 0, 0, station]
    elapsed = sample.time.seconds - sample.time.seconds[0]
    size, unit = (1.0, "time units") if sample.time.calendar == "none" else _unit(float(elapsed[-1]))
    elapsed = elapsed / size
    values = np.where(valid, sample.values[:, c, 0, 0, station], np.nan)
    axes.plot(elapsed, values, lw=1.2, marker="." if len(elapsed) <= 80 else "")
    edges = np.concatenate(([elapsed[0]], (elapsed[1:] + elapsed[:-1]) / 2, [elapsed[-1]]))
    change = np.flatnonzero(np.diff(np.concatenate(([False], ~valid, [False])).astype(int)))
    for start, stop in change.reshape(-1, 2):
        axes.axvspan(edges[start], edges[stop], color=GREY, alpha=0.5, lw=0, zorder=0)
    axes.set_xlabel(f"{unit} since {sample.time.labels()[0]}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _unit(seconds: float) -> tuple[float, str]:
    """Seconds in the unit that suits a span, and its name."""
    for name, size in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * size:
            return size, name
    return 1.0, "seconds"
