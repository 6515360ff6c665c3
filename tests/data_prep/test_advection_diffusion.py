from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_poisson import differentiation, digest

from scigpt.data.sample import Sample
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.advection_diffusion import (
    MEAN_RATIOS,
    SHARES,
    AdvectionDiffusion,
    AdvectionDiffusionOptions,
    mean_ratios,
    random_problem,
    ratio,
    solve,
)
from scigpt.data_prep.pde.poisson import solve as solve_poisson
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

SMALL = AdvectionDiffusionOptions(train=4, valid=1, test=1, ood=3, grid=32)


def parts(n: int, u: np.ndarray, diffusion: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`-div(K grad u)` and `v . grad u` by dense matrices."""
    (first, second), (xx, yy, xy) = differentiation(n), diffusion
    gradient = u @ first.T, first @ u
    return -(xx * u @ second.T + yy * second @ u + 2 * xy * first @ u @ first.T), velocity[0] * gradient[0] + velocity[1] * gradient[1]


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_residual_vanishes_under_an_independent_operator(share: float, rough: bool) -> None:
    n = 64
    for i in range(4):
        rng = np.random.default_rng(i)
        diffusion, velocity, f = random_problem(rng, n)
        if rough:  # energy in every mode, the Nyquist modes among them
            f = rng.standard_normal((n, n))
            f -= f.mean()
        diffusion, velocity = (1 - share) * diffusion, share * velocity
        u = solve(f, diffusion, velocity)
        spread, drift = parts(n, u, diffusion, velocity)
        assert np.linalg.norm(spread + drift - f) < 1e-10 * np.linalg.norm(f)
        assert abs(u.mean()) < 1e-14 * np.abs(u).max()
        assert ratio(u, diffusion, velocity) == pytest.approx(np.linalg.norm(drift) / np.linalg.norm(spread), rel=1e-10)


def test_one_fourier_mode_has_its_analytic_solution() -> None:
    n, (p, q), diffusion, velocity = 32, (2, -3), np.array([0.013, 0.037, -0.011]), np.array([0.3, -0.2])
    y, x = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    phase = 2 * np.pi * (p * x + q * y)
    spread = 4 * np.pi**2 * (diffusion[0] * p * p + diffusion[1] * q * q + 2 * diffusion[2] * p * q)
    drift = 2 * np.pi * (velocity[0] * p + velocity[1] * q)
    expected = (spread * np.cos(phase) + drift * np.sin(phase)) / (spread**2 + drift**2)
    u = solve(np.cos(phase) + 3.0, diffusion, velocity)  # a mean is removed
    np.testing.assert_allclose(u, expected, atol=1e-14)
    assert ratio(u, diffusion, velocity) == pytest.approx(abs(drift) / spread)
    f = random_problem(np.random.default_rng(0), n)[2]
    np.testing.assert_allclose(solve(f, diffusion, np.zeros(2)), solve_poisson(f, diffusion), atol=1e-14)


def test_table_is_what_its_code_makes_and_what_was_published() -> None:
    np.testing.assert_allclose(MEAN_RATIOS, mean_ratios(SHARES, 400), rtol=1e-4)
    assert (np.diff(MEAN_RATIOS) > 0).all()
    assert (np.diff(SHARES) > 0).all()
    published = {0.1: 0.3745, 0.34: 0.996, 0.7: 2.389, 0.9: 5.356}
    table = dict(zip(SHARES, MEAN_RATIOS, strict=True))
    for share, expected in published.items():
        assert table[share] == pytest.approx(expected, rel=0.05)
    more = mean_ratios((0.0483, 0.14, 0.5, 0.66, 0.82), 400)
    np.testing.assert_allclose(more, [0.197, 0.489, 1.461, 2.070, 3.519], rtol=0.05)
    np.testing.assert_allclose(mean_ratios((0.1, 0.9), 40, 64), mean_ratios((0.1, 0.9), 40, 128), rtol=1e-3)  # whatever the grid


def test_realised_ratios_scatter_about_what_was_aimed_at() -> None:
    for low, high in ((0.2, 1.0), (2.0, 5.0)):
        source = AdvectionDiffusion((), replace(SMALL, train=300, psi_low=low, psi_high=high, ood=0))
        samples = source.samples([r for r in source.plan().refs if r.split == "train"])
        psi = np.array([float(s.origin.place.partition("psi=")[2]) for s in samples])
        assert psi.mean() == pytest.approx((low + high) / 2, rel=0.06)
        assert 0.02 < np.mean(psi > high) < 0.25  # the range is that of the aim; a sample may lie outside
        assert psi.min() > 0.4 * low
        assert psi.max() < 3 * high


def test_bytes_depend_on_the_sample_alone() -> None:
    source = AdvectionDiffusion((), SMALL)
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(together)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]


def check(sample: Sample, outside: bool) -> None:
    c = sample.coefficients
    assert sample.steady
    assert [(v.name, v.role) for v in sample.variables] == [("source", "forcing"), ("solution", "state")]
    assert [sample.boundary.periodic(a) for a in "zyx"] == [False, True, True]
    assert not sample.valid[0, 1].any()
    assert sample.valid[1].all()
    words = dict(w.split("=") for w in sample.origin.place.split(", ") if "=" in w)
    share, psi = float(words["lambda"]), float(words["psi"])
    assert np.hypot(c["advection_x"], c["advection_y"]) == pytest.approx(share, rel=1e-3)
    diffusion = np.array([c[f"diffusion_{k}"] for k in ("xx", "yy", "xy")])
    low, high = np.linalg.eigvalsh([[diffusion[0], diffusion[2]], [diffusion[2], diffusion[1]]]) / (1 - share)
    assert low == pytest.approx(0.01, rel=1e-3)
    assert 0.0099 < high < 0.0501
    aimed = MEAN_RATIOS[int(np.abs(np.array(SHARES) - share).argmin())]
    assert (1.9 < aimed < 5.2) if outside else (0.19 < aimed < 1.05)
    spread, drift = parts(32, sample.values[1, 1, 0].astype(float), diffusion, np.array([c["advection_x"], c["advection_y"]]))
    f = sample.values[1, 0, 0]
    assert np.linalg.norm(spread + drift - f) < 1e-4 * np.linalg.norm(f)  # float32
    assert np.linalg.norm(drift) / np.linalg.norm(spread) == pytest.approx(psi, rel=1e-3)


def test_samples_say_what_they_are() -> None:
    source = EQUATIONS["advection-diffusion"]((), SMALL)
    plan = source.plan()
    assert [(s.distribution, s.description) for s in plan.splits] == [("in", "psi 0.2 to 1")] * 3 + [("out", "psi 2 to 5")]
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        check(sample, ref.split == "ood")
        assert plan.bytes_per_sample > sample.values.nbytes


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["psi_low=0.01", "psi_high=0.02"], "psi_low=0.01: expected 0.04"),
        (["ood_high=100"], "ood_high=100"),
        (["ood_low=0.5"], "overlap"),
        (["grid=33"], "grid=33"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(AdvectionDiffusion.Options, words)
