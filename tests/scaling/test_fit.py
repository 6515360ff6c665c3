"""The fit finds the truth, no worse than SciPy's optimisers, and its intervals hold what they promise."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import least_squares
from surfaces import BUDGETS, EPOCH, isoflop, table
from test_laws import TRUTH, columns

from scigpt.errors import UserError
from scigpt.scaling.cost import Cost
from scigpt.scaling.fit import bootstrap, fit, interval, minimise
from scigpt.scaling.laws import CHINCHILLA, FRONTIER, LAWS, REPETITION, TIED, Law
from scigpt.scaling.runs import Runs

NOISE = 0.003


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_noise_free_runs_give_every_parameter(law: Law) -> None:
    truth = TRUTH[law.name]
    found = fit(law, table(columns(law, count=80), truth, law))
    assert found.converged
    assert found.parameters == pytest.approx(truth, rel=1e-4)


@pytest.mark.parametrize("shift", [1e-3, 1e3])
def test_units_do_not_matter(shift: float) -> None:
    """The same losses in thousandths, and data counted in thousands."""
    x = isoflop()
    found = fit(CHINCHILLA, table(x | {"tokens": x["tokens"] / shift}, EPOCH | {"B": EPOCH["B"] * shift ** -EPOCH["beta"]}))
    assert found.parameters == pytest.approx(EPOCH | {"B": EPOCH["B"] * shift ** -EPOCH["beta"]}, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-3, 1e-1])
@pytest.mark.parametrize("seed", range(3))
def test_no_optimiser_of_scipy_finds_less(seed: int, delta: float) -> None:
    """`least_squares` minimises the sum of Huber losses itself; it begins at the truth and at 20 other points."""
    runs = table(isoflop(), noise=0.01, seed=seed)
    found = fit(CHINCHILLA, runs, delta)
    logs, target = CHINCHILLA.logs(runs.columns, found.reference), np.log(runs["loss"] / found.reference["loss"])
    random = np.random.default_rng(seed)
    begin = [CHINCHILLA.theta(EPOCH, found.reference)[0]]
    begin += [np.concatenate([random.uniform(0.05, 0.8, 3), random.uniform(0.1, 1.0, 2)]) for _ in range(20)]
    low, high = CHINCHILLA.bounds
    answers = [
        least_squares(
            lambda t: CHINCHILLA.evaluate(t[None], logs)[0][0] - target,
            b,
            jac=lambda t: CHINCHILLA.evaluate(t[None], logs)[1][0].T,
            bounds=(low - 1e-9, high),
            loss="huber",
            f_scale=delta,
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
        )
        for b in begin
    ]
    least = min(a.cost for a in answers)
    assert found.objective <= least * (1 + 1e-6)
    assert found.objective == pytest.approx(least, rel=1e-4)


def test_a_resample_is_the_table_of_its_runs() -> None:
    """Weights are multiplicities: the same solver on the repeated rows gives the same numbers."""
    runs = table(isoflop(), noise=NOISE)
    found = fit(CHINCHILLA, runs)
    drawn = np.random.default_rng(1).integers(0, len(runs), len(runs))
    logs, target = CHINCHILLA.logs(runs.columns, found.reference), np.log(runs["loss"] / found.reference["loss"])
    weighted = minimise(CHINCHILLA, logs, target, np.bincount(drawn, minlength=len(runs))[None].astype(float), found.theta[None], 1e-3)
    rows = {name: values[drawn] for name, values in logs.items()}
    repeated = minimise(CHINCHILLA, rows, target[drawn], np.ones((1, len(runs))), found.theta[None], 1e-3)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)
    assert weighted.theta == pytest.approx(repeated.theta, rel=1e-5)


def test_whole_trunks_are_drawn() -> None:
    """Branches of a trunk share its luck, so five points of one are no more than one: the intervals are wider."""
    x = isoflop()
    random = np.random.default_rng(0)
    trunk = np.repeat(np.arange(7), 5).reshape(7, 5).T.ravel()  # a size over all budgets
    luck = 1 + 0.01 * random.standard_normal(7)[trunk]
    loss = CHINCHILLA.loss(EPOCH, x)[0] * luck
    apart, together = Runs.of(loss=loss, **x), Runs.of(loss=loss, group=[f"t{i}" for i in trunk], **x)
    wide = {}
    for name, runs in (("apart", apart), ("together", together)):
        boot = bootstrap(fit(CHINCHILLA, runs), 400)
        low, high = boot.intervals()["alpha"]
        wide[name] = high - low
    assert bootstrap(fit(CHINCHILLA, together), 10).clusters == 7
    assert wide["together"] > 1.2 * wide["apart"]


def test_one_group_has_no_interval() -> None:
    runs = table(isoflop(), noise=NOISE, group=["trunk"] * 35)
    with pytest.raises(UserError, match="all 35 runs are of one group"):
        bootstrap(fit(CHINCHILLA, runs), 10)


def test_a_fit_that_creeps_says_so() -> None:
    """With a scatter of 10 % a steeper N term and a higher floor are as good as any."""
    found = fit(CHINCHILLA, table(isoflop(), noise=0.1, seed=3))
    assert not found.converged
    assert "creeping" in found.warnings[-1]
    low, high = bootstrap(found, 200).intervals()["alpha"]
    assert high > 3 * low


def test_the_same_draws_every_time() -> None:
    found = fit(CHINCHILLA, table(isoflop(), noise=NOISE))
    assert (bootstrap(found, 50).theta == bootstrap(found, 50).theta).all()
    assert (bootstrap(found, 50, seed=1).theta != bootstrap(found, 50).theta).any()


def test_a_surface_without_a_floor_says_so() -> None:
    found = fit(CHINCHILLA, table(isoflop(), EPOCH | {"E": 0.0}, noise=NOISE))
    assert found.parameters["E"] < 0.05
    assert "no floor found" in " ".join(found.warnings) or found.parameters["E"] > 0


def test_what_cannot_be_fitted() -> None:
    x = isoflop()
    few = {name: values[:5] for name, values in x.items()}
    with pytest.raises(UserError, match=r"has 5 usable runs; the law chinchilla has 5 parameters and needs 6 or more"):
        fit(CHINCHILLA, table(few))
    one = table(x | {"params": np.full(35, 1e8)})
    with pytest.raises(UserError, match="params is 1e\\+08 in every run, so the law chinchilla cannot tell what it does"):
        fit(CHINCHILLA, one)
    with pytest.raises(UserError, match="has no column unique_tokens; the law repetition needs"):
        fit(REPETITION, table(x))
    with pytest.raises(UserError, match="delta is 0"):
        fit(TIED, table(x), 0.0)


def standard_errors(names: tuple[str, ...]) -> dict[str, float]:
    """Cramer-Rao bounds of E, alpha, beta and the loss at 30 times the largest budget, for independent log-normal noise."""
    x = isoflop()

    def slopes(of: object) -> np.ndarray:
        found = []
        for name in EPOCH:
            step = 1e-5 * EPOCH[name]
            found.append((of(EPOCH | {name: EPOCH[name] + step}) - of(EPOCH | {name: EPOCH[name] - step})) / (2 * step))  # type: ignore[operator]
        return np.array(found)

    jacobian = slopes(lambda p: np.log(CHINCHILLA.loss(p, x)[0]))
    covariance = NOISE**2 * np.linalg.inv(jacobian @ jacobian.T)
    bounds = dict(zip(EPOCH, np.sqrt(np.diag(covariance)), strict=True))
    ahead = slopes(lambda p: far(p)[0])
    return {name: bounds[name] if name in bounds else float(np.sqrt(ahead @ covariance @ ahead)) for name in names}


def far(parameters: dict[str, np.ndarray] | dict[str, float]) -> np.ndarray:
    """Loss at the best division of 30 times the largest budget, of each set of parameters."""
    best = Cost().optimum(parameters, BUDGETS[-1] * 30)
    p = {name: np.atleast_1d(value) for name, value in parameters.items()}
    return p["E"] + p["A"] * np.atleast_1d(best.params) ** -p["alpha"] + p["B"] * np.atleast_1d(best.tokens) ** -p["beta"]


def coverage(repeats: int, resamples: int) -> tuple[dict[str, float], dict[str, float]]:
    """Share of tables whose 95 % interval holds the truth, and the median width of the intervals over the bound's."""
    names = ("E", "alpha", "beta", "far")
    truth, bounds = EPOCH | {"far": float(far(EPOCH)[0])}, standard_errors(names)
    held: dict[str, list[bool]] = {name: [] for name in names}
    width: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(repeats):
        boot = bootstrap(fit(CHINCHILLA, table(isoflop(), noise=NOISE, seed=seed)), resamples, seed)
        for name in names:
            low, high = interval(far(boot.parameters)) if name == "far" else boot.intervals()[name]
            held[name].append(bool(low <= truth[name] <= high))
            width[name].append(float(high - low) / (2 * 1.96 * bounds[name]))
    return {n: float(np.mean(held[n])) for n in names}, {n: float(np.median(width[n])) for n in names}


def test_intervals_hold_the_truth() -> None:
    held, width = coverage(25, 200)
    assert min(held.values()) >= 0.8, held
    assert max(width.values()) <= 1.5, width


@pytest.mark.drill
def test_intervals_hold_the_truth_in_a_hundred_tables() -> None:
    held, width = coverage(100, 1000)
    assert min(held.values()) >= 0.85, held
    assert max(width.values()) <= 1.5, width


@pytest.mark.drill
def test_how_long_a_fit_takes() -> None:
    runs = table(isoflop(np.geomspace(1e18, 1e21, 25), 10), noise=NOISE)
    assert len(runs) == 250
    began = time.process_time()
    found = fit(CHINCHILLA, runs)
    point = time.process_time()
    bootstrap(found, 4000)
    assert point - began < 1.0
    assert time.process_time() - point < 60.0


def test_a_frontier_is_fitted_by_the_same_solver() -> None:
    found = fit(FRONTIER, table({"flops": BUDGETS}, TRUTH["frontier"], FRONTIER))
    assert found.parameters == pytest.approx(TRUTH["frontier"], rel=1e-4)
