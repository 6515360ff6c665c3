"""The five one-dimensional equations: exact solutions against independent finite volumes, masses, fronts, and their samples."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import erf
from test_poisson import digest

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS, advection, burgers, diffusion, porous_medium, stefan
from scigpt.data_prep.pde.line import Line
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

CASES: dict[str, tuple[ModuleType, type[Any], tuple[float, ...]]] = {
    "diffusion": (diffusion, diffusion.Diffusion, (1.0, 2.5, 5.0)),
    "porous-medium": (porous_medium, porous_medium.PorousMedium, (1.0, 2.2, 6.0)),
    "stefan": (stefan, stefan.Stefan, (0.5, 0.6, 0.7)),
    "advection": (advection, advection.Advection, (1.0, 5.0, 10.0)),
    "burgers": (burgers, burgers.Burgers, (1.0, 2.5, 5.0)),
}
every_case = pytest.mark.parametrize("name", CASES)


def averages(equation: type[Line], knob: float, times: np.ndarray, cells: int) -> np.ndarray:
    """Cell averages `(times, cells)`."""
    edges = np.linspace(*equation.domain, cells + 1)
    return np.diff(equation.primitive(edges, times[:, None], knob)) / np.diff(edges)


def small(name: str, **options: Any) -> Line:
    equation = EQUATIONS[name]
    return equation((), equation.Options(**{"train": 3, "valid": 1, "test": 1, "ood": 2, "grid": 32, "frames": 9, **options}))  # type: ignore[return-value]


@every_case
def test_averages_are_those_of_the_solution(name: str) -> None:
    """Against adaptive quadrature of the point values, cell by cell, with the front as a break point."""
    module, equation, knobs = CASES[name]
    fronts: dict[str, Callable[[float, float], float]] = {
        "diffusion": lambda t, k: 1.0,
        "porous-medium": lambda t, m: t,
        "stefan": lambda t, u: stefan.constants(u)[0] * np.sqrt(t),
        "advection": lambda t, a: 0.5 + a * t,
        "burgers": lambda t, a: max((a * t - 1) / 2, 0.0) if a * t >= 1 else a * t - 1,
    }
    times = equation.end * np.array([0.13, 0.37, 0.81, 1.0])
    edges = np.linspace(*equation.domain, 12)
    for knob in knobs:
        for t, row in zip(times, averages(equation, knob, times, 11), strict=True):
            front = fronts[name](t, knob)
            expected = []
            for a, b in itertools.pairwise(edges):
                cuts = sorted([a, *(c for c in (front, 0.0) if a < c < b), b])
                pieces = [
                    quad(lambda x: float(module.solution(x, t, knob)), *p, epsabs=1e-12)[0]  # noqa: B023
                    for p in itertools.pairwise(cuts)
                ]
                expected.append(sum(pieces) / (b - a))
            np.testing.assert_allclose(row, expected, atol=2e-8 * max(1, knob))


@every_case
@pytest.mark.parametrize("cells", [16, 101])
def test_mass_is_exact_on_every_grid(name: str, cells: int) -> None:
    module, equation, knobs = CASES[name]
    times = np.linspace(0, equation.end, 25)
    for knob in knobs:
        total = averages(equation, knob, times, cells).mean(axis=1) * (equation.domain[1] - equation.domain[0])
        np.testing.assert_allclose(total, module.mass(times, knob), atol=1e-12)


@every_case
def test_mass_changes_by_the_flux_through_the_sides(name: str) -> None:
    """The conservation law itself: d mass / dt is what enters less what leaves."""
    module, equation, knobs = CASES[name]
    times = equation.end * np.linspace(0.2, 0.95, 40)
    h = 1e-6 * equation.end
    for knob in knobs:
        rate = (module.mass(times + h, knob) - module.mass(times - h, knob)) / (2 * h)
        dx = 1e-5
        low = module.solution(np.array(dx), times, knob), module.solution(np.array(2 * dx), times, knob)
        leaving: np.ndarray | float = 0.0
        if name == "diffusion":
            entering: np.ndarray | float = 0.0
        elif name == "porous-medium":  # -(u^(m+1) / (m+1))_x
            entering = (low[0] ** (knob + 1) - low[1] ** (knob + 1)) / (knob + 1) / dx
        elif name == "stefan":
            entering = (low[0] - low[1]) / dx
        elif name == "advection":
            entering, leaving = knob, knob * module.solution(np.array(1.0), times, knob)
        else:
            entering, leaving = knob**2 / 2, module.solution(np.array(1.0), times, knob) ** 2 / 2
        clear = np.abs(rate - np.roll(rate, 1)) < 1e-3 * (1 + np.abs(rate))  # not at the instant a front leaves
        np.testing.assert_allclose(rate[clear], np.broadcast_to(entering - leaving, times.shape)[clear], rtol=2e-3, atol=1e-8)


def finite_volumes(name: str, knob: float, cells: int) -> float:
    """Mean error of a plain finite-volume solution at the end, relative to the exact solution's mean size. Knows fluxes and data alone."""
    _, equation, _ = CASES[name]
    low, high = equation.domain
    dx, end = (high - low) / cells, 0.8 * equation.end
    x = low + dx * (np.arange(cells) + 0.5)
    u = {"diffusion": np.sin(x), "advection": 1.0 * (x < 0.5), "burgers": np.clip(-knob * x, 0, knob)}.get(name, np.zeros(cells))

    if name in ("advection", "burgers"):  # upwind (u is never negative), explicit
        flux = (lambda u: knob * u) if name == "advection" else (lambda u: u**2 / 2)
        inside = 1.0 if name == "advection" else knob
        steps = int(np.ceil(end * knob / (0.5 * dx)))
        for _ in range(steps):
            u = u - end / steps / dx * np.diff(flux(np.concatenate([[inside], u])))
    else:
        potential: Callable[[np.ndarray], np.ndarray] = {  # the flux is -(potential)_x
            "diffusion": lambda u: knob * u,
            "porous-medium": lambda u: np.maximum(u, 0) ** (knob + 1) / (knob + 1),
            "stefan": lambda u: np.maximum(u - knob, 0),
        }[name]

        def rate(t: float, u: np.ndarray) -> np.ndarray:
            inside = potential(u)
            if name == "diffusion":
                return (np.roll(inside, 1) - 2 * inside + np.roll(inside, -1)) / dx**2
            side = potential(np.array([(knob * t) ** (1 / knob) if name == "porous-medium" else 1.0]))
            slope = np.concatenate([(inside[:1] - side) / (dx / 2), np.diff(inside) / dx, [0.0]])
            return np.diff(slope) / dx

        band = {} if name == "diffusion" else {"lband": 1, "uband": 1}
        u = solve_ivp(rate, (0, end), u, method="LSODA", rtol=1e-8, atol=1e-10, **band).y[:, -1]
    exact = averages(equation, knob, np.array([end]), cells)[0]
    return float(np.abs(u - exact).mean() / np.abs(exact).mean())


@pytest.mark.parametrize(
    ("name", "knob", "order", "largest"),
    [
        ("diffusion", 1.0, 1.9, 5e-4),
        ("porous-medium", 1.0, 0.8, 5e-3),
        ("porous-medium", 3.0, 0.8, 2e-2),
        ("stefan", 0.6, 0.6, 4e-2),
        ("advection", 3.0, 0.4, 4e-2),
        ("burgers", 1.0, 0.8, 2e-2),
        ("burgers", 2.0, 0.8, 1e-2),
    ],
)
def test_finite_volumes_converge_to_the_solution(name: str, knob: float, order: float, largest: float) -> None:
    """At the order the scheme has there: 2 where it is smooth, 1 at a kink or a shock, 1/2 at a contact."""
    errors = [finite_volumes(name, knob, cells) for cells in (32, 64, 128)]
    assert np.log2(errors[0] / errors[2]) / 2 > order, errors
    assert errors[2] < largest, errors


def test_stefan_constants() -> None:
    alpha, c1 = stefan.constants(0.6)
    assert alpha == pytest.approx(1.0513396, abs=5e-8)
    assert alpha * np.sqrt(0.05) == pytest.approx(0.2350867, abs=5e-8)
    assert stefan.mass(np.array(0.05), 0.6) == pytest.approx(0.1859462, abs=5e-8)
    for threshold in (0.05, 0.45, 0.5, 0.7, 0.95):
        alpha, c1 = stefan.constants(threshold)
        assert 1 - c1 * erf(alpha / 2) == pytest.approx(threshold, rel=1e-13)  # the value behind the front
        speed, slope = alpha / 2, -c1 / np.sqrt(np.pi) * np.exp(-(alpha**2) / 4)  # both over sqrt(t)
        assert threshold * speed == pytest.approx(-slope, rel=1e-11)  # Rankine-Hugoniot: what it takes up is the flux that arrives
        assert alpha * np.sqrt(stefan.Stefan.end) < 1


def test_fronts_move_at_their_speeds() -> None:
    """Read off the cells: how far the last cell above half the jump has come."""
    cells, times = 4000, np.linspace(0.1, 0.9, 17)
    reached = averages(porous_medium.PorousMedium, 3.0, times, cells) > 0
    np.testing.assert_allclose(reached.sum(axis=1) / cells, times, atol=1 / cells)
    for a in (3.0, 5.0):
        after = times[(a * times > 1) & (a * times < 3)]
        front = (averages(burgers.Burgers, a, after, cells) > a / 2).sum(axis=1) * 2 / cells - 1
        np.testing.assert_allclose(np.polyfit(after, front, 1), [a / 2, -0.5], atol=2e-3)  # speed (a + 0) / 2, from t = 1 / a
    early = np.linspace(0, 0.04, 9)
    front = (averages(advection.Advection, 10.0, early, cells) > 0.5).sum(axis=1) / cells
    np.testing.assert_allclose(np.polyfit(early, front, 1), [10, 0.5], atol=2e-2)


def test_diffusion_decays_mode_by_mode() -> None:
    u = averages(diffusion.Diffusion, 2.0, np.array([0.0, 0.5]), 64)
    modes = np.abs(np.fft.rfft(u)) / 32
    np.testing.assert_allclose(modes[1], modes[0] * np.exp(-1.0), atol=1e-14)
    assert modes[0, 1] == pytest.approx(np.sinc(1 / 64), rel=1e-12)  # the average of a sine over a cell
    assert np.delete(modes[0], 1).max() < 1e-14


RANGES = {
    "diffusion": ("diffusivity", (1, 5), (5, 8)),
    "porous-medium": ("exponent", (1, 6), (6, 8)),
    "stefan": ("threshold", (0.55, 0.7), (0.45, 0.55)),
    "advection": ("advection_x", (1, 10), (10, 15)),
    "burgers": ("amplitude", (1, 5), (5, 7)),
}


@every_case
def test_samples_say_what_they_are(name: str) -> None:
    module, equation, _ = CASES[name]
    source = small(name)
    plan = source.plan()
    coefficient, inside, outside = RANGES[name]
    told = [f"{coefficient} {low:g} to {high:g}" for low, high in (inside, outside)]
    assert [(s.distribution, s.description) for s in plan.splits] == [("in", told[0])] * 3 + [("out", told[1])]
    times = np.linspace(0, equation.end, 9)
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        (knob,) = sample.coefficients.values()
        low, high = outside if ref.split == "ood" else inside
        assert list(sample.coefficients) == [coefficient]
        assert low <= knob <= high
        np.testing.assert_allclose(sample.time.seconds, times, atol=1e-15)
        state = sample.values[:, 0, 0, 0].astype(float)
        np.testing.assert_allclose(state, averages(equation, knob, times, 32), atol=1e-6 * knob)
        width = equation.domain[1] - equation.domain[0]
        np.testing.assert_allclose(state.mean(axis=1) * width, module.mass(times, knob), atol=1e-6 * knob)
        assert sample.valid[:, 0].all()
        assert sample.variables[0].role == "state"
        assert plan.bytes_per_sample > sample.values.nbytes + sample.valid.nbytes
        if name == "diffusion":
            assert sample.boundary.x == ("periodic", "periodic")
            assert len(sample.variables) == 1
        else:  # the value at the side, in the cell beside it, of every frame
            assert sample.boundary.x == ("given", "open")
            assert [(v.name, v.role) for v in sample.variables[1:]] == [("inflow", "forcing")]
            assert sample.valid[:, 1, 0, 0, 0].all()
            assert sample.valid[:, 1].sum() == 9
            side = {"porous-medium": (knob * times) ** (1 / knob), "burgers": np.full(9, knob)}.get(name, np.ones(9))
            np.testing.assert_allclose(sample.values[:, 1, 0, 0, 0], side, rtol=1e-6)
        again = Sample.from_parts(json.loads(json.dumps(sample.meta())), sample.values, sample.valid)
        assert again.meta() == sample.meta()


@every_case
def test_bytes_depend_on_the_sample_alone(name: str) -> None:
    source = small(name)
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(together)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]
    larger = type(source)((), replace(source.options, train=6))
    wanted = {r.key: r for r in larger.plan().refs}
    assert digest(list(larger.samples([wanted[r.key] for r in refs]))) == together


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    for workers in (1, 2):
        convert(small("stefan"), tmp_path / str(workers) / "fronts", workers=workers, shard_bytes=40_000, progress=False)
    one, two = ({f.name: f.read_bytes() for f in (tmp_path / w / "fronts").iterdir()} for w in "12")
    assert len(one) > 8
    assert one == two


def test_card_shows_how_the_knob_is_spread(tmp_path: Path) -> None:
    out = convert(small("burgers", train=40), tmp_path / "ramps", progress=False)
    samples = Corpus.open(out)
    knobs = [samples.read("train", i).coefficients["amplitude"] for i in range(40)]
    row = next(line for line in (out / "CARD.md").read_text().splitlines() if line.startswith("| amplitude |"))
    assert f"{min(knobs):.5g} `" in row
    assert f"` {max(knobs):.5g}" in row
    bars = row.split("`")[1]
    empty = np.histogram(knobs, 32, (min(knobs), max(knobs)))[0] == 0
    assert [bar == " " for bar in bars] == empty.tolist()


@pytest.mark.parametrize(
    ("name", "words", "part"),
    [
        ("diffusion", ["k_low=0"], "k_low=0"),
        ("porous-medium", ["m_high=7"], "overlap"),
        ("stefan", ["threshold_high=1.2"], "threshold_high=1.2"),
        ("stefan", ["ood_low=0.01"], "ood_low=0.01"),
        ("advection", ["a_low=4", "a_high=3"], "a_high=3"),
        ("burgers", ["frames=1"], "frames=1"),
        ("burgers", ["grid=4"], "grid=4"),
    ],
)
def test_bad_options_are_refused(name: str, words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(EQUATIONS[name].Options, words)
