from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scigpt.data.sample import Sample
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.poisson import BUMPS, WIDTH, Poisson, PoissonOptions, random_diffusion, random_source, solve
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

SMALL = PoissonOptions(train=4, valid=1, test=1, ood=2, grid=32)


def differentiation(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense first and second Fourier derivatives of period 1 (Trefethen 2000, eqs. 3.10 and 3.12), free of any transform."""
    gap = np.arange(n)[:, None] - np.arange(n)
    half_angle = np.where(gap == 0, 1.0, gap * np.pi / n)
    first = np.where(gap == 0, 0.0, 0.5 * (-1.0) ** gap / np.tan(half_angle))
    second = np.where(gap == 0, -(n**2) / 12 - 1 / 6, -0.5 * (-1.0) ** gap / np.sin(half_angle) ** 2)
    return 2 * np.pi * first, 4 * np.pi**2 * second


def draws(count: int, grid: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    rngs = [np.random.default_rng([7, i]) for i in range(count)]
    sources = np.stack([random_source(rng, grid) for rng in rngs])
    return sources, np.stack([random_diffusion(rng, low, high)[1] for rng in rngs])


def digest(samples: list[Sample]) -> list[str]:
    parts = [(s.values.tobytes(), s.valid.tobytes(), json.dumps(s.meta(), sort_keys=True).encode()) for s in samples]
    return [hashlib.sha256(b"".join(p)).hexdigest() for p in parts]


@pytest.mark.parametrize("rough", [False, True])
def test_residual_vanishes_under_an_independent_operator(rough: bool) -> None:
    n = 64
    sources, diffusions = draws(5, n, 1, 10)
    if rough:  # energy in every mode, the Nyquist modes among them
        sources = np.random.default_rng(0).standard_normal(sources.shape)
        sources -= sources.mean(axis=(1, 2), keepdims=True)
    first, second = differentiation(n)
    for f, (xx, yy, xy), u in zip(sources, diffusions, solve(sources, diffusions), strict=True):
        applied = -(xx * u @ second.T + yy * second @ u + 2 * xy * first @ u @ first.T)
        assert np.linalg.norm(applied - f) < 1e-10 * np.linalg.norm(f)
        assert abs(u.mean()) < 1e-14 * np.abs(u).max()


def test_one_fourier_mode_has_its_analytic_solution() -> None:
    n, (p, q), diffusion = 32, (2, -3), np.array([0.013, 0.037, -0.011])
    y, x = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    f = np.cos(2 * np.pi * (p * x + q * y) + 0.4)
    symbol = 4 * np.pi**2 * (diffusion[0] * p * p + diffusion[1] * q * q + 2 * diffusion[2] * p * q)
    np.testing.assert_allclose(solve(f, diffusion), f / symbol, atol=1e-14)
    np.testing.assert_allclose(solve(f + 5.0, diffusion), f / symbol, atol=1e-13)  # a mean is removed


def test_source_is_the_sum_of_bumps_of_the_paper() -> None:
    """The field written out bump by bump, with the amplitudes found by least squares."""
    n = 64
    y, x = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    centres = np.linspace(5 / 32, 27 / 32, BUMPS)
    lattice = [(cx, cy) for cy in centres for cx in centres]
    bumps = np.stack([np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * WIDTH**2)).ravel() for cx, cy in lattice] + [np.ones(n * n)], axis=1)
    shares = []
    for i in range(60):
        f = random_source(np.random.default_rng(i), n)
        assert f.max() - f.min() == pytest.approx(1, abs=1e-4)  # divided by its maximum; the corners are (almost) empty
        assert abs(f.mean()) < 1e-15
        amplitudes, *_ = np.linalg.lstsq(bumps, f.ravel(), rcond=None)
        assert np.abs(bumps @ amplitudes - f.ravel()).max() < 1e-12
        present = amplitudes[:-1] > 1e-9
        assert (np.abs(amplitudes[:-1][~present]) < 1e-9).all()
        assert amplitudes[:-1].max() / amplitudes[:-1][present].min() < 1e3
        shares.append(1 - present.mean())
    levels = np.abs(np.subtract.outer(shares, [0.2, 0.4, 0.6, 0.8])).argmin(axis=1)
    assert (np.bincount(levels, minlength=4) >= 8).all()  # all four levels, in no order
    assert (np.diff(levels) < 0).any()
    assert np.abs(np.array(shares) - np.array([0.2, 0.4, 0.6, 0.8])[levels]).mean() < 0.04


def test_diffusion_has_the_stated_eigenvalues_and_any_direction() -> None:
    angles = []
    for i in range(400):
        e, (xx, yy, xy) = random_diffusion(np.random.default_rng(i), 2, 5)
        values, vectors = np.linalg.eigh([[xx, xy], [xy, yy]])
        np.testing.assert_allclose(values, [0.01, 0.01 * e], rtol=1e-12)
        assert 2 <= e <= 5
        angles.append(np.arctan2(vectors[1, 1], vectors[0, 1]) % np.pi)
    assert np.abs(np.sort(angles) / np.pi - np.arange(400) / 400).max() < 0.08


def test_medians_are_those_of_the_paper_family() -> None:
    """Independently measured medians of this family at 128 x 128: source norm 0.00171, largest solution 0.369 and 0.224."""
    for low, high, expected in ((1, 5, 0.369), (5, 10, 0.224)):
        sources, diffusions = draws(600, 128, low, high)
        norms = np.linalg.norm(sources, axis=(1, 2)) / 128**2
        largest = np.abs(solve(sources, diffusions)).max(axis=(1, 2))
        assert np.median(norms) == pytest.approx(0.00171, rel=0.05)
        assert np.median(largest) == pytest.approx(expected, rel=0.08)


def test_bytes_depend_on_the_sample_alone() -> None:
    source = Poisson((), SMALL)
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(together)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]
    larger = Poisson((), replace(SMALL, train=9, test=2))
    wanted = {r.key: r for r in larger.plan().refs}
    assert digest(list(larger.samples([wanted[r.key] for r in refs]))) == together

    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_poisson import *; "
        "source = Poisson((), SMALL); print(*digest(list(source.samples(source.plan().refs))))"
    )
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=threads)
    assert other.stdout.split() == together


def test_samples_say_what_they_are() -> None:
    source = EQUATIONS["poisson"]((), SMALL)
    plan = source.plan()
    assert [(s.name, s.distribution) for s in plan.splits] == [("train", "in"), ("valid", "in"), ("test", "in"), ("ood", "out")]
    samples = dict(zip((r.key for r in plan.refs), source.samples(plan.refs), strict=True))
    for key, sample in samples.items():
        assert sample.steady
        assert sample.values.shape == (2, 2, 1, 32, 32)
        assert [(v.name, v.role) for v in sample.variables] == [("source", "forcing"), ("solution", "state")]
        np.testing.assert_array_equal(sample.valid.all(axis=(2, 3, 4)), [[True, False], [True, True]])
        assert not sample.valid[0, 1].any()
        np.testing.assert_array_equal(sample.values[0, 0], sample.values[1, 0])
        assert [sample.boundary.periodic(a) for a in "zyx"] == [False, True, True]
        tensor = np.array([sample.coefficients[f"diffusion_{k}"] for k in ("xx", "yy", "xy")])
        e = float(sample.origin.place.partition("e=")[2])
        assert (5 <= e <= 10) if key.startswith("ood") else (1 <= e <= 5)
        assert tensor[0] + tensor[1] == pytest.approx(0.01 * (1 + e), rel=1e-3)
        solution = solve(sample.values[1, 0, 0].astype(float), tensor)
        np.testing.assert_allclose(sample.values[1, 1, 0], solution, atol=1e-6 * np.abs(solution).max())
        again = Sample.from_parts(json.loads(json.dumps(sample.meta())), sample.values, sample.valid)
        assert again.meta() == sample.meta()


def test_solution_agrees_with_the_generator_of_the_paper() -> None:
    """Eight samples written by the paper's own program (64 x 64, e in [1, 5]); its tensor is stored as xx, yy, xy."""
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    import netCDF4

    with netCDF4.Dataset(Path(os.environ["SCIGPT_REALDATA"]) / "pde" / "tlscaling_poisson_k1_5_n64.h5") as file:
        fields, tensors = (np.asarray(file[name][:], np.float64) for name in ("fields", "tensor"))
    assert fields.shape == (8, 2, 64, 64)
    for solution, expected in zip(solve(fields[:, 0], tensors), fields[:, 1], strict=True):
        assert np.linalg.norm(solution - expected) < 1e-6 * np.linalg.norm(expected)
    # its sources, too, are made of our bumps
    n, centres = 64, np.linspace(5 / 32, 27 / 32, BUMPS)
    rows = np.exp(-((np.arange(n)[:, None] / n - centres) ** 2) / (2 * WIDTH**2))
    basis = np.concatenate([np.einsum("yi,xj->yxij", rows, rows).reshape(n * n, -1), np.ones((n * n, 1))], axis=1)
    flat = fields[:, 0].reshape(8, -1).T
    amplitudes, *_ = np.linalg.lstsq(basis, flat, rcond=None)
    assert np.abs(basis @ amplitudes - flat).max() < 1e-6


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=33"], "grid=33"),
        (["grid=16"], "grid=16"),
        (["e_low=0"], "e_low=0"),
        (["e_low=6"], "e_low=6"),
        (["ood_low=4"], "overlap"),
        (["e_high=nan"], "e_high=nan"),
        (["seed=-1"], "seed=-1"),
        (["e_hgih=4"], "did you mean e_high"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(Poisson.Options, words)
    assert parse_options(Poisson.Options, ["e_high=8", "ood_low=8"]).ood_low == 8
