"""Minima, envelopes and frontiers against closed forms and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator
from scipy.optimize import curve_fit, minimize_scalar
from surfaces import EPOCH, isoflop, table

from scigpt.scaling.cost import Cost
from scigpt.scaling.frontier import akima_minimum, budgets, envelope, fit_frontier, line, lines, parabola_minimum, power, unbracketed


def test_minimum_is_that_of_scipys_interpolant() -> None:
    random = np.random.default_rng(0)
    x = np.cumsum(random.uniform(0.3, 1.0, 7))
    y = (x - x[3]) ** 2 + random.normal(0, 0.1, (20, 7))
    places, values = akima_minimum(x, y)
    for row, place, value in zip(y, places, values, strict=True):
        curve = Akima1DInterpolator(x, row)
        knot = int(np.argmin(curve(np.linspace(x[0], x[-1], 4001))))
        at = np.linspace(x[0], x[-1], 4001)
        found = minimize_scalar(curve, bounds=(at[max(knot - 1, 0)], at[min(knot + 1, 4000)]), method="bounded", options={"xatol": 1e-12})
        assert value == pytest.approx(min(found.fun, curve(x[0]), curve(x[-1])), abs=1e-9)
        assert curve(place) == pytest.approx(value, abs=1e-12)


def test_parabola_with_a_known_minimum() -> None:
    x = np.linspace(-2, 3, 9)
    y = 0.4 * (x - 0.3) ** 2 + 1.7
    assert parabola_minimum(x, y) == pytest.approx((0.3, 1.7), abs=1e-12)
    place, value = akima_minimum(np.linspace(-1.7, 2.3, 9), 0.4 * (np.linspace(-1.7, 2.3, 9)[None] - 0.3) ** 2 + 1.7)
    assert (place[0], value[0]) == pytest.approx((0.3, 1.7), abs=1e-9)  # a knot lies there, and the neighbours are even
    assert parabola_minimum(x, -y) is None


def test_minima_of_isoflop_lines_follow_the_closed_form() -> None:
    columns = isoflop(sizes=11, span=8.0)
    runs = table(columns)
    found = lines(runs["params"], runs["tokens"], runs["loss"], runs["flops"])
    assert [f.reason for f in found] == [None] * 5
    spent = np.array([f.flops for f in found])
    best = Cost().optimum(EPOCH, spent)
    places, tokens = [], []
    for each in found:
        place, _ = akima_minimum(np.log(each.params), each.mean(np.log(runs["loss"]))[None])
        places.append(place[0])
        tokens.append(each.tokens(place)[0])
    assert np.exp(places) == pytest.approx(best.params, rel=0.04)
    assert np.exp(tokens) == pytest.approx(best.tokens, rel=0.04)
    a, _ = power(np.log(spent), np.array(places))
    assert a == pytest.approx(EPOCH["beta"] / (EPOCH["alpha"] + EPOCH["beta"]), abs=0.01)


def test_runs_are_of_one_budget_within_a_quarter() -> None:
    spent = np.array([1e18, 3e18, 1.1e18, 3.2e18, 0.95e18])
    assert [sorted(part.tolist()) for part in budgets(spent)] == [[0, 2, 4], [1, 3]]


def test_patches_make_lines_of_their_own() -> None:
    columns = {name: np.tile(v, 2) for name, v in isoflop(np.array([1e18, 4e18])).items()}
    patch = np.repeat([4.0, 8.0], 14)
    loss = np.ones(28)
    found = lines(columns["params"], columns["tokens"], loss, columns["flops"], [patch])
    assert len(found) == 4
    assert all(len({patch[r] for rows in f.rows for r in rows}) == 1 for f in found)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ([3, 2, 2.5, 4], "4 sizes"),
        ([1, 2, 3, 4, 5], "at the smallest size"),
        ([2, 1, 3, 4, 5], "second smallest"),
        ([5, 4, 3, 1, 2], "second largest"),
        ([5, 4, 3, 2, 1], "at the largest size"),
    ],
)
def test_a_minimum_needs_two_sizes_on_each_side(loss: list[float], said: str) -> None:
    assert said in (unbracketed(np.array(loss)) or "")
    assert unbracketed(np.array([5.0, 4.0, 3.0, 4.0, 5.0])) is None


def test_seeds_of_a_size_are_averaged() -> None:
    rows = np.arange(6)
    params = np.array([1.0, 2.0, 3.0, 3.0, 4.0, 5.0])
    loss = np.array([3.0, 2.0, 1.0, 4.0, 2.0, 3.0])
    each = line(params, np.full(6, 10.0), loss, np.full(6, 1e18), rows)
    assert np.exp(each.mean(np.log(loss))) == pytest.approx([3, 2, 2, 2, 3])  # geometric mean of 1 and 4


def test_envelope_of_curves_of_many_sizes() -> None:
    """Of L = A/N^alpha + B/D^beta the lower envelope over sizes is the optimum."""
    n, d = (m.ravel() for m in np.meshgrid(1e7 * 1.25 ** np.arange(24), 1e8 * 1.5 ** np.arange(24)))
    runs = table({"params": n, "tokens": d})
    spent = 6 * n * d
    at, params, loss = envelope(n, spent, runs["loss"])
    best = Cost().optimum(EPOCH, at)
    assert at.size > 10
    assert params == pytest.approx(best.params, rel=0.15)
    lowest = EPOCH["E"] + EPOCH["A"] * best.params ** -EPOCH["alpha"] + EPOCH["B"] * best.tokens ** -EPOCH["beta"]
    assert loss == pytest.approx(lowest, rel=2e-3)


def test_frontier_recovers_a_known_floor_and_agrees_with_scipy() -> None:
    spent = 10.0 ** np.arange(16, 22)
    truth = 1.7 + 30 * spent**-0.1
    found = fit_frontier(spent, np.stack([truth, 5 * spent**-0.03]), floor=True)
    assert found.floor == pytest.approx([1.7, 0.0], abs=1e-5)
    assert found.gamma == pytest.approx([0.1, 0.03], rel=1e-4)
    assert found.loss(1e24)[0] == pytest.approx(1.7 + 30 * 1e24**-0.1, rel=1e-6)
    noisy = truth * np.exp(0.003 * np.random.default_rng(0).standard_normal(6))
    ours = fit_frontier(spent, noisy[None], floor=True)
    x = np.log(spent / ours.reference)
    (e, k, g), _ = curve_fit(lambda x, e, k, g: (e + k * np.exp(-g * x)) / noisy, x, np.ones(6), p0=(1.5, 0.5, 0.1))
    assert [ours.floor[0], ours.coefficient[0], ours.gamma[0]] == pytest.approx([e, k, g], rel=2e-3)
