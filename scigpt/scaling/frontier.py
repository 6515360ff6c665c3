"""The compute frontier read off the runs: the lowest loss at each budget, without a law of N and D.

isoFLOP (approach 2 of Hoffmann et al. 2022, arXiv 2203.15556): of the runs of one budget, the size of lowest loss. The loss is
interpolated over log N by Akima's cubic (Akima 1970), which is local and does not overshoot beside a steep arm; over the whole span a
parabola is biased where the two arms differ, so it is fitted to three neighbours on each side only, and serves as a cross-check. A minimum
counts where two sizes lie on each side of the lowest run.

Envelope (approach 1): of curves of loss against compute, one a size, the lowest at each compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

SPREAD = 1.25
"""Runs whose FLOPs differ by less than this factor are of one budget: steps and sizes are whole numbers, so none is met exactly."""
ARM = 2
"""Sizes that must lie on each side of the lowest run."""
NEIGHBOURS = 3
"""Sizes on each side of the lowest run to which the parabola is fitted."""
RATES = np.geomspace(5e-3, 2.0, 240)
"""Exponents gamma that the fit of a frontier tries before it refines the best."""


def budgets(flops: np.ndarray) -> list[np.ndarray]:
    """Rows of each budget, cheapest budget first: see `SPREAD`."""
    order = np.argsort(flops, kind="stable")
    parts: list[list[int]] = []
    start = 0.0
    for row in order:
        if not parts or flops[row] > start * SPREAD:
            parts.append([])
            start = flops[row]
        parts[-1].append(int(row))
    return [np.array(part) for part in parts]


def largest_budget(flops: np.ndarray) -> np.ndarray:
    """Rows of the largest budget: within `SPREAD` of the most expensive run."""
    return np.flatnonzero(flops * SPREAD >= flops.max())


@dataclass(frozen=True, slots=True)
class Line:
    """The runs of one budget, by size.

    Args:
        flops: of the budget, the geometric mean of its runs.
        params: distinct sizes, ascending.
        log_tokens: `(n,)`, the mean of the runs of a size.
        rows: of the table, those of each size.
        reason: why it has no minimum; None where one is bracketed.
    """

    flops: float
    params: np.ndarray
    log_tokens: np.ndarray
    rows: tuple[np.ndarray, ...]
    reason: str | None

    def mean(self, log_loss: np.ndarray) -> np.ndarray:
        """Of `(R, rows of the table)`, the mean of each size: `(R, n)`."""
        return np.stack([log_loss[..., rows].mean(-1) for rows in self.rows], -1)

    def tokens(self, log_params: np.ndarray) -> np.ndarray:
        """log D of sizes between those of the line."""
        return np.interp(log_params, np.log(self.params), self.log_tokens)


def line(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, flops: np.ndarray, rows: np.ndarray) -> Line:
    """The runs `rows` of one budget."""
    sizes, place = np.unique(params[rows], return_inverse=True)
    of_size = tuple(rows[place == i] for i in range(sizes.size))
    mean = np.array([np.log(loss[r]).mean() for r in of_size])
    log_tokens = np.array([np.log(tokens[r]).mean() for r in of_size])
    return Line(float(np.exp(np.log(flops[rows]).mean())), sizes, log_tokens, of_size, unbracketed(mean))


def unbracketed(loss: np.ndarray) -> str | None:
    """Why losses by ascending size have no minimum with two sizes on each side; None where they have one."""
    if loss.size < 2 * ARM + 1:
        return f"{loss.size} sizes; a minimum needs {2 * ARM + 1} or more"
    lowest = int(loss.argmin())
    if lowest < ARM:
        return f"the lowest loss is at the {'smallest' if lowest == 0 else 'second smallest'} size; smaller ones are missing"
    if lowest > loss.size - 1 - ARM:
        return f"the lowest loss is at the {'largest' if lowest == loss.size - 1 else 'second largest'} size; larger ones are missing"
    return None


def akima_minimum(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place and value of the minimum of Akima's interpolant, exact up to rounding.

    Args:
        x: `(n,)` ascending. y: `(R, n)` values of R curves.
    Returns:
        `(R,)` each; an end of the range where the interpolant falls towards it.
    """
    pieces = Akima1DInterpolator(x, y.T).c  # (4, n - 1, R), highest power first, in x - x[i]
    a, b, c = 3 * pieces[0], 2 * pieces[1], pieces[2]
    width = np.diff(x)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -0.5 * (b + np.where(b < 0, -1.0, 1.0) * np.sqrt(b * b - 4 * a * c))  # the form without cancellation
        steps = np.stack([root / a, c / root, np.zeros_like(a), np.broadcast_to(width, a.shape)])
    steps = np.where((steps >= 0) & (steps <= width), steps, 0.0)  # also where there is no root; the knots are candidates anyhow
    values = ((pieces[0] * steps + pieces[1]) * steps + pieces[2]) * steps + pieces[3]
    places = (x[:-1, None] + steps).reshape(-1, y.shape[0])
    values = values.reshape(-1, y.shape[0])
    best = values.argmin(0)[None]
    return np.take_along_axis(places, best, 0)[0], np.take_along_axis(values, best, 0)[0]


def parabola_minimum(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Place and value of the minimum of the least-squares parabola through the lowest of `y` and its neighbours; None where it has none."""
    lowest = int(y.argmin())
    near = slice(max(lowest - NEIGHBOURS, 0), lowest + NEIGHBOURS + 1)
    if x[near].size < 3:
        return None
    centre = x[near].mean()
    a, b, c = np.polyfit(x[near] - centre, y[near], 2)
    return (float(centre - b / (2 * a)), float(c - b * b / (4 * a))) if a > 0 else None


def envelope(params: np.ndarray, flops: np.ndarray, loss: np.ndarray, points: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Approach 1: FLOPs, size and loss along the lower envelope of the curves of loss against compute, one a size.

    A curve is the runs of a size, two or more, interpolated monotonically in the logs. Where the lowest curve is that of the smallest or
    the largest size of all, the frontier lies outside the table and the point is left out: fewer than `points` come back, or none.
    """
    sizes = np.unique(params)
    curves = []
    for size in sizes:
        mine = params == size
        at, place = np.unique(np.log(flops[mine]), return_inverse=True)
        mean = np.bincount(place, np.log(loss[mine])) / np.bincount(place)
        curves.append(PchipInterpolator(at, mean, extrapolate=False) if at.size > 1 else None)
    grid = np.linspace(np.log(flops.min()), np.log(flops.max()), points)
    heights = np.stack([np.full(points, np.inf) if c is None else np.nan_to_num(c(grid), nan=np.inf) for c in curves])
    lowest, seen = heights.argmin(0), np.isfinite(heights).sum(0) >= 2
    inside = seen & (lowest > 0) & (lowest < sizes.size - 1)
    return np.exp(grid[inside]), sizes[lowest[inside]], np.exp(heights.min(0)[inside])


def power(log_x: np.ndarray, log_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and log coefficient of y ~ x^exponent by least squares in the logs; `log_y` is `(..., n)`."""
    centred = log_x - log_x.mean()
    exponent = log_y @ centred / (centred @ centred)
    return exponent, log_y.mean(-1) - exponent * log_x.mean()


@dataclass(frozen=True, slots=True)
class Frontier:
    """L*(C) = E + K (C/C0)^-gamma of R curves at once; E is 0 without a floor. `reference` is C0, the geometric mean of the budgets."""

    floor: np.ndarray
    coefficient: np.ndarray
    gamma: np.ndarray
    reference: float
    squares: np.ndarray
    """Sum of squares of the relative residuals, `(R,)`."""

    def loss(self, flops: float | np.ndarray) -> np.ndarray:
        """`(R,)` at one compute, `(R, n)` at several."""
        ratio = np.log(np.asarray(flops) / self.reference)
        parts = (p.reshape(p.shape + (1,) * ratio.ndim) for p in (self.floor, self.coefficient, self.gamma))
        floor, coefficient, gamma = parts
        return floor + coefficient * np.exp(-gamma * ratio)


def fit_frontier(flops: np.ndarray, loss: np.ndarray, floor: bool) -> Frontier:
    """Least squares of the relative residuals, batched over the curves `loss` `(R, n)`.

    Given gamma the law is linear in (E, K), both non-negative; gamma is searched on a grid that is then narrowed around the best (variable
    projection).
    """
    reference = float(np.exp(np.log(flops).mean()))
    ratio = np.log(flops / reference)
    inverse = 1.0 / loss

    def solve(gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of exponents `(R, g)`: E, K and the sum of squares."""
        fall = np.exp(-gamma[..., None] * ratio) * inverse[:, None, :]
        level = np.broadcast_to(inverse[:, None, :], fall.shape)
        kk, ee, ke = (fall * fall).sum(-1), (level * level).sum(-1), (fall * level).sum(-1)
        k, e = fall.sum(-1), level.sum(-1)
        if floor:
            determinant = kk * ee - ke * ke
            with np.errstate(divide="ignore", invalid="ignore"):
                base = (e * kk - k * ke) / determinant
            base = np.where((base > 0) & (determinant > 0), base, 0.0)
        else:
            base = np.zeros_like(k)
        top = np.maximum((k - base * ke) / kk, 0.0)
        rest = 1.0 - base[..., None] * level - top[..., None] * fall
        return base, top, (rest * rest).sum(-1)

    low, high = np.full(loss.shape[0], np.log(RATES[0])), np.full(loss.shape[0], np.log(RATES[-1]))
    for points in (RATES.size, 9, 9, 9, 9, 9, 9):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points)
        base, top, squares = solve(np.exp(grid))
        best = squares.argmin(1)
        row = np.arange(best.size)
        low, high = grid[row, np.maximum(best - 1, 0)], grid[row, np.minimum(best + 1, points - 1)]
    return Frontier(base[row, best], top[row, best], np.exp(grid[row, best]), reference, squares[row, best])


def lines(
    params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, flops: np.ndarray, cells: Sequence[np.ndarray] = (), least: int = 3
) -> list[Line]:
    """The isoFLOP lines of a table, cheapest first.

    Args:
        cells: further columns (patch, context): runs that differ in one are of different lines.
        least: sizes that make a line; fewer are scattered runs.
    """
    found = []
    for rows in budgets(flops):
        keys = np.stack([np.zeros(rows.size), *(c[rows] for c in cells)], 1)
        for key in np.unique(keys, axis=0):
            found.append(line(params, tokens, loss, flops, rows[(keys == key).all(1)]))
    return [f for f in found if f.params.size >= least]
