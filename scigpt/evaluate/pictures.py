"""Pictures of forecasts: maps, slices of volumes, lines, series and stations.

Truth and prediction share one colour scale, changes and errors another, symmetric about zero. Where the truth is invalid all is grey.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scigpt.data.sample import SPACE_AXES, Sample
from scigpt.evaluate.drawing import COLOURS, GREY, INK, bracket, elapsed_time, label, new_figure, plain, pretty_unit, titled
from scigpt.evaluate.study import MODEL, Example

POINT = "(grid point)"
SNAPSHOTS = 4
STATIONS = 3


def wide_axes(sample: Sample) -> list[int]:
    return [i for i, n in enumerate(sample.values.shape[2:]) if n > 1]


def one_step(example: Example, c: int) -> Iterator[tuple[Figure, str]]:
    """The last frame of a window, predicted from all before it."""
    sample = example.sample
    if sample.geometry == "points" or not wide_axes(sample):
        if sample.values.shape[-1] > 1:
            yield _maps(example, c, _Stations(sample)), "stations, one step"
        yield _series(example, c, "one-step prediction"), "series, one step"
    elif len(wide_axes(sample)) == 1:
        yield _lines(example, c), "one step"
    else:
        for plane in planes(sample):
            yield _maps(example, c, plane), f"one step{plane.suffix}"


def rollout(example: Example, c: int) -> Iterator[tuple[Figure, str]]:
    sample = example.sample
    if sample.geometry == "points" or not wide_axes(sample):
        yield _series(example, c, "rollout"), "series, rollout"
    elif len(wide_axes(sample)) == 1:
        yield _space_time(example, c), "rollout"
    else:
        for plane in planes(sample)[:1]:
            yield _snapshots(example, c, plane), f"rollout{plane.suffix}"


# --- what a flat picture is drawn on


class Plane:
    """Two axes of the grid, a cut through the middle of the third."""

    def __init__(self, sample: Sample, vertical: int, horizontal: int) -> None:
        grid = sample.values.shape[2:]
        self._cut: list[Any] = [n // 2 for n in grid]
        self._cut[vertical] = self._cut[horizontal] = slice(None)
        cut = next((i for i in range(3) if i not in (vertical, horizontal) and grid[i] > 1), None)
        self.suffix = "" if cut is None else f", slice at {SPACE_AXES[cut]} = {grid[cut] // 2 + 1} of {grid[cut]}"
        self.x, self.x_label = _axis(sample, horizontal)
        self.y, self.y_label = _axis(sample, vertical)
        self._sphere = sample.geometry == "sphere" and self.y_label.startswith("latitude")
        self.shape = (grid[vertical], grid[horizontal])

    def aspect(self) -> float:
        """Height over width of the picture."""
        if self._sphere:
            stretch = 1.0 / max(math.cos(math.radians(float(np.mean(self.y)))), 0.3)
            ratio = abs(self.y[-1] - self.y[0]) * stretch / max(abs(self.x[-1] - self.x[0]), 1e-9)
        else:
            ratio = self.shape[0] / self.shape[1]
        return float(np.clip(ratio, 0.25, 2.0))

    def show(self, axes: Axes, field: np.ndarray, valid: np.ndarray, colours: str, norm: Normalize) -> Any:
        axes.set_facecolor(GREY)
        values = np.ma.masked_where(~valid[tuple(self._cut)] | ~np.isfinite(field[tuple(self._cut)]), field[tuple(self._cut)])
        image = axes.pcolormesh(self.x, self.y, values, cmap=colours, norm=norm, shading="nearest", rasterized=True)
        axes.set_box_aspect(self.aspect())
        return image


class _Stations:
    """Stations where they stand, or in a row where all stand in one place."""

    suffix = ""

    def __init__(self, sample: Sample) -> None:
        places = [sample.coordinates.get(n) for n in ("longitude", "latitude")]
        flat = [None if p is None or p.axes != ("x",) else p.values for p in places]
        if flat[0] is None or flat[1] is None:
            count = sample.values.shape[-1]
            self.x, self.y, self.x_label, self.y_label = np.arange(count), np.zeros(count), "station", ""
        else:
            self.x, self.y, self.x_label, self.y_label = flat[0], flat[1], "longitude (°)", "latitude (°)"

    def aspect(self) -> float:
        return 0.75

    def show(self, axes: Axes, field: np.ndarray, valid: np.ndarray, colours: str, norm: Normalize) -> Any:
        field, valid = field.reshape(-1), valid.reshape(-1) & np.isfinite(field.reshape(-1))
        size = float(np.clip(2000 / field.size, 8, 60))
        axes.scatter(self.x[~valid], self.y[~valid], s=size, color=GREY, linewidths=0)
        axes.set_box_aspect(self.aspect())
        axes.margins(0.08)
        return axes.scatter(self.x[valid], self.y[valid], s=size, c=field[valid], cmap=colours, norm=norm, edgecolors=INK, linewidths=0.3)


def _axis(sample: Sample, axis: int) -> tuple[np.ndarray, str]:
    """Centres of the points along an axis: a coordinate where there is a plain one, else their number."""
    name = SPACE_AXES[axis]
    count = sample.values.shape[2 + axis]
    for candidate in ("latitude", "longitude", "height", name):
        coordinate = sample.coordinates.get(candidate)
        if coordinate is None or coordinate.axes != (name,):
            continue
        values = np.unwrap(coordinate.values, period=360.0) if candidate == "longitude" else coordinate.values
        steps = np.diff(values)
        if np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all()):
            unit = "°" if candidate in ("latitude", "longitude") else pretty_unit(coordinate.unit)
            return values, f"{candidate} ({unit})" if unit else candidate
    return np.arange(count), f"{name} {POINT}"


def planes(sample: Sample) -> list[Plane]:
    wide = wide_axes(sample)
    if len(wide) == 2:
        return [Plane(sample, *wide)]
    return [Plane(sample, 1, 2), Plane(sample, 0, 2)]


# --- colour scales


def colour_scale(values: np.ndarray) -> tuple[str, Normalize]:
    """A diverging map for fields that swing about zero, else a sequential one; the scale leaves out half a percent at each end."""
    if not values.size:
        return "viridis", Normalize(0, 1)
    low, high = np.percentile(values, (0.5, 99.5))
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        return "RdBu_r", symmetric(values)
    if high <= low:
        high = low + max(abs(low) * 1e-6, 1e-12)
    return "viridis", Normalize(low, high)


def anomaly(values: np.ndarray) -> np.ndarray:
    """What a forecast of the mean would get wrong: the scale for the errors of a rollout."""
    return values - values.mean() if values.size else values


def symmetric(values: np.ndarray) -> Normalize:
    finite = np.abs(values[np.isfinite(values)])
    most = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    return Normalize(-(most or 1e-12), most or 1e-12)


def colourbar(figure: Figure, image: Any, axes: Any, text: str, shown: Sequence[np.ndarray], below: bool = False) -> None:
    """One bar for some panels, beside or below them, pointed where values go beyond the scale."""
    finite = np.concatenate([s[np.isfinite(s)].reshape(-1) for s in shown])
    low, high = bool(finite.size and finite.min() < image.norm.vmin), bool(finite.size and finite.max() > image.norm.vmax)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[low, high]
    bar = figure.colorbar(
        image, ax=axes, extend=extend, aspect=28, pad=0.015, fraction=0.05, shrink=0.9, location="bottom" if below else "right"
    )
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    for axis in (bar.ax.xaxis, bar.ax.yaxis):
        axis.get_offset_text().set_fontsize(7)
    bar.outline.set_linewidth(0.4)


def _note_gaps(figure: Figure, valid: np.ndarray) -> None:
    if not valid.all():
        figure.supxlabel("grey: no valid data", fontsize=7.5, color="#666666", x=0.01, ha="left")


# --- the figures


Panel = tuple[Axes, str, np.ndarray, np.ndarray]
"""Axes, title, values, valid."""


def _draw(figure: Figure, plane: Any, panels: Sequence[Panel], colours: str, norm: Normalize, text: str, below: bool) -> None:
    """Panels of one colour scale, and its bar."""
    for axes, title, values, valid in panels:
        image = plane.show(axes, values, valid, colours, norm)
        titled(axes, title)
    colourbar(figure, image, [p[0] for p in panels], text, [values[valid] for _, _, values, valid in panels], below)


def _grid(rows: int, columns: int, size: float, aspect: float, title: str) -> tuple[Figure, np.ndarray, bool]:
    """A figure and its axes `[row, column]`; where the panels are much wider than high, rows and columns change places on the paper."""
    below = aspect < 0.6
    if not below:
        figure = new_figure(size * columns + 1.3, size * rows * aspect + 1.4, title)
        return figure, figure.subplots(rows, columns, squeeze=False), below
    wide = 9.6 / rows
    figure = new_figure(9.6 + 0.6, columns * (wide * aspect + 0.3) + 1.6, title)
    return figure, figure.subplots(columns, rows, squeeze=False).T, below


def _maps(example: Example, c: int, plane: Any) -> Figure:
    """Last seen frame, truth, prediction; true change, predicted change, error."""
    sample, variable = example.sample, example.sample.variables[c]
    if sample.steady:
        return _steady_maps(example, c, plane)
    (before, truth), forecast = sample.values[-2:, c], example.prediction[-1, c]
    seen, valid = sample.valid[-2:, c]
    when = _times(sample)
    figure, grid, below = _grid(2, 3, 2.8, plane.aspect(), f"{label(variable)}: one step{plane.suffix}")
    field = [
        (grid[0, 0], f"last seen, {when[-2]}", before, seen),
        (grid[0, 1], f"truth, {when[-1]}", truth, valid),
        (grid[0, 2], "prediction", forecast, valid),
    ]
    both = valid & seen
    change = [
        (grid[1, 0], "true change", truth - before, both),
        (grid[1, 1], "predicted change", forecast - before, both),
        (grid[1, 2], "error (prediction - truth)", forecast - truth, valid),
    ]
    _draw(figure, plane, field, *colour_scale(np.concatenate([truth[valid], before[seen]])), label(variable, unit=True), below)
    _draw(figure, plane, change, "PuOr_r", symmetric((truth - before)[both]), f"change and error {bracket(variable)}", below)
    _outer_labels(grid.T if below else grid, plane)
    _note_gaps(figure, both)
    return figure


def _steady_maps(example: Example, c: int, plane: Any) -> Figure:
    """What is given and the solution; the error and the prediction."""
    sample, variable = example.sample, example.sample.variables[c]
    truth, forecast, valid = sample.values[-1, c], example.prediction[-1, c], sample.valid[-1, c]
    figure, grid, _ = _grid(2, 2, 3.1, max(plane.aspect(), 0.6), f"{label(variable)}: steady problem{plane.suffix}")
    given = next((i for i, v in enumerate(sample.variables) if not v.predicted), None)
    if given is None:
        grid[0, 0].set_visible(False)
    else:
        source = (grid[0, 0], "given", sample.values[-1, given], sample.valid[-1, given])
        _draw(figure, plane, [source], *colour_scale(source[2][source[3]]), label(sample.variables[given], unit=True), False)
    solution = [(grid[0, 1], "truth", truth, valid), (grid[1, 1], "prediction", forecast, valid)]
    error = (grid[1, 0], "error (prediction - truth)", forecast - truth, valid)
    _draw(figure, plane, solution, *colour_scale(truth[valid]), label(variable, unit=True), False)
    _draw(figure, plane, [error], "PuOr_r", symmetric(error[2][valid]), f"error {bracket(variable)}", False)
    _outer_labels(grid, plane)
    _note_gaps(figure, valid)
    return figure


def _snapshots(example: Example, c: int, plane: Any) -> Figure:
    """Truth, prediction and error at some lead times."""
    sample, variable = example.sample, example.sample.variables[c]
    steps = len(example.prediction)
    context = len(sample.time) - steps
    chosen = sorted({round(s) for s in np.geomspace(1, steps, min(SNAPSHOTS, steps))})
    leads, unit = elapsed_time(sample.time.seconds[context:] - sample.time.seconds[context - 1], sample.time.calendar == "none")
    figure, grid, below = _grid(3, len(chosen), 2.5, plane.aspect(), f"{label(variable)}: rollout from {context} frames{plane.suffix}")
    field: list[Panel] = []
    errors: list[Panel] = []
    for i, step in enumerate(chosen):
        truth, valid = sample.values[context + step - 1, c], sample.valid[context + step - 1, c]
        forecast = example.prediction[step - 1, c]
        field += [(grid[0, i], f"lead {step}: {leads[step - 1]:.4g} {unit}", truth, valid), (grid[1, i], "", forecast, valid)]
        errors.append((grid[2, i], "", forecast - truth, valid))
    truths = [values[valid] for _, _, values, valid in field[::2]]
    _draw(figure, plane, field, *colour_scale(np.concatenate(truths)), label(variable, unit=True), below)
    limits = symmetric(np.concatenate([anomaly(t) for t in truths]))
    _draw(figure, plane, errors, "PuOr_r", limits, f"error {bracket(variable)}", below)
    box = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1.5}
    for axes, name in zip(grid[:, 0], ("truth", "prediction", "error"), strict=True):
        axes.annotate(name, (0.03, 0.96), xycoords="axes fraction", va="top", fontsize=8, color=INK, bbox=box)
    _outer_labels(grid.T if below else grid, plane)
    _note_gaps(figure, np.stack([valid for _, _, _, valid in field]))
    return figure


def _lines(example: Example, c: int) -> Figure:
    """A field on a line: values above, changes (or the error) below."""
    sample, variable = example.sample, example.sample.variables[c]
    axis = wide_axes(sample)[0]
    x, x_label = _axis(sample, axis)
    valid = sample.valid[-1, c].reshape(-1)

    def line(values: np.ndarray, there: np.ndarray = valid) -> np.ndarray:
        return np.where(there, values.reshape(-1), np.nan)

    truth, forecast = line(sample.values[-1, c]), line(example.prediction[-1, c])
    before = line(sample.values[-2, c], sample.valid[-2, c].reshape(-1))
    when = _times(sample)
    figure = new_figure(8, 5, f"{label(variable)}: {'steady problem' if sample.steady else 'one step'}")
    upper, lower = figure.subplots(2, 1, sharex=True)
    if not sample.steady:
        upper.plot(x, before, color=GREY, lw=1.5, label=f"last seen, {when[-2]}")
        lower.plot(x, truth - before, color=INK, lw=1.6, label="true change")
        lower.plot(x, forecast - before, color=COLOURS[MODEL], lw=1.4, ls="--", label="predicted change")
    upper.plot(x, truth, color=INK, lw=1.6, label="truth" if sample.steady else f"truth, {when[-1]}")
    upper.plot(x, forecast, color=COLOURS[MODEL], lw=1.4, ls="--", label="prediction")
    lower.plot(x, forecast - truth, color=COLOURS["linear"], lw=1.2, label="error (prediction - truth)")
    for axes, text in (
        (upper, label(variable, unit=True)),
        (lower, f"{'error' if sample.steady else 'change and error'} {bracket(variable)}"),
    ):
        plain(axes, text)
        _shade(axes, x, valid)
        axes.margins(x=0.01)
        axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    lower.set_xlabel(x_label, fontsize=8)
    _note_gaps(figure, valid)
    return figure


def _space_time(example: Example, c: int) -> Figure:
    """A field on a line over the whole rollout: lead time upwards."""
    sample, variable = example.sample, example.sample.variables[c]
    x, x_label = _axis(sample, wide_axes(sample)[0])
    steps = len(example.prediction)
    truth, forecast = (a.reshape(steps, -1) for a in (sample.values[-steps:, c], example.prediction[:, c]))
    valid = sample.valid[-steps:, c].reshape(steps, -1)
    figure = new_figure(9.6, 3.9, f"{label(variable)}: rollout from {len(sample.time) - steps} frames")
    grid = figure.subplots(1, 3, sharey=True)
    colours, norm = colour_scale(truth[valid])
    limits = symmetric(anomaly(truth[valid]))
    panels = (
        ("truth", truth, colours, norm),
        ("prediction", forecast, colours, norm),
        ("error (prediction - truth)", forecast - truth, "PuOr_r", limits),
    )
    images = []
    for axes, (title, values, palette, scale) in zip(grid, panels, strict=True):
        axes.set_facecolor(GREY)
        shown = np.ma.masked_where(~valid | ~np.isfinite(values), values)
        images.append(axes.pcolormesh(x, np.arange(1, steps + 1), shown, cmap=palette, norm=scale, shading="nearest", rasterized=True))
        titled(axes, title)
        axes.set_xlabel(x_label, fontsize=8)
    grid[0].set_ylabel("lead (steps)", fontsize=8)
    grid[0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
    colourbar(figure, images[1], grid[:2], label(variable, unit=True), [truth[valid], forecast[valid]])
    colourbar(figure, images[2], grid[2:], f"error {bracket(variable)}", [(forecast - truth)[valid]])
    _note_gaps(figure, valid)
    return figure


def _series(example: Example, c: int, what: str) -> Figure:
    """Values against time: one row for a series, one for each of the first stations."""
    sample, variable = example.sample, example.sample.variables[c]
    count = min(STATIONS, sample.values.shape[-1])
    steps = len(example.prediction)
    elapsed, unit = elapsed_time(sample.time.seconds - sample.time.seconds[0], sample.time.calendar == "none")
    figure = new_figure(8, 1.0 + 1.9 * count, f"{label(variable)}: {what}")
    rows = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    marker = "." if steps <= 80 else ""
    for station, axes in enumerate(rows):
        there = sample.valid[:, c, 0, 0, station]
        truth = np.where(there, sample.values[:, c, 0, 0, station], np.nan)
        axes.plot(elapsed, truth, color=INK, lw=1.3, marker=marker, label="truth")
        axes.plot(
            elapsed[-steps:],
            example.prediction[:, c, 0, 0, station],
            color=COLOURS[MODEL],
            lw=1.2,
            ls="--",
            marker=marker,
            label="prediction",
        )
        if what == "rollout":
            axes.axvline(elapsed[-steps - 1], color="#888888", lw=0.8, label="last frame given")
        _shade(axes, elapsed, there)
        plain(axes, label(variable, unit=True) if count == 1 else f"station {station + 1} {bracket(variable)}")
        axes.margins(x=0.01)
    rows[0].legend(fontsize=7.5, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    rows[-1].set_xlabel(f"time since {_times(sample)[0]} ({unit})", fontsize=8)
    _note_gaps(figure, sample.valid[:, c, ..., :count])
    return figure


def _shade(axes: Axes, x: np.ndarray, valid: np.ndarray) -> None:
    """Grey behind the points that are invalid, each as wide as its share of the axis."""
    middle = (x[1:] + x[:-1]) / 2
    edges = np.concatenate(([x[0]], middle, [x[-1]]))
    for i in np.flatnonzero(~valid):
        axes.axvspan(edges[i], edges[i + 1], color=GREY, alpha=0.6, lw=0, zorder=0)


def _outer_labels(grid: np.ndarray, plane: Any) -> None:
    rows, columns = grid.shape
    for r in range(rows):
        for k in range(columns):
            axes = grid[r, k]
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=plane.x_label.endswith(POINT)))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=plane.y_label.endswith(POINT)))
            if r == rows - 1:
                axes.set_xlabel(plane.x_label, fontsize=8)
            else:
                axes.tick_params(labelbottom=False)
            if k == 0:
                axes.set_ylabel(plane.y_label, fontsize=8)
            else:
                axes.tick_params(labelleft=False)


def _times(sample: Sample) -> list[str]:
    """Labels of the frames, midnight and whole seconds left out."""
    return [re.sub(r"T00:00:00$", "", text) for text in sample.time.labels()]
