from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scigpt.data.sample import Sample
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.navier_stokes import NavierStokes, NavierStokesOptions, random_vorticity, resolving_grid, simulate, velocity
from scigpt.data_prep.pde.spectral import resample
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

SMALL = NavierStokesOptions(train=3, valid=1, test=1, ood=2, grid=32, frames=3, warmup=0.1, viscosity_low=0.02, ood_low=0.01, ood_high=0.02)


def turbulence(n: int, peak: float = 3.0, seed: int = 0) -> np.ndarray:
    return random_vorticity(np.random.default_rng(seed), n, peak, 2 * np.pi / peak)


def differentiation(n: int) -> np.ndarray:
    """Dense Fourier differentiation matrix of period 2 pi (Trefethen 2000, eq. 3.10): shares nothing with the solver's transforms."""
    gap = np.arange(n)[:, None] - np.arange(n)
    half_angle = np.where(gap == 0, 1.0, gap * np.pi / n)
    return np.where(gap == 0, 0.0, 0.5 * (-1.0) ** gap / np.tan(half_angle))


def energy(vorticity: np.ndarray) -> np.ndarray:
    return (velocity(vorticity) ** 2).sum(axis=-3).mean(axis=(-2, -1)) / 2


def enstrophy(vorticity: np.ndarray) -> np.ndarray:
    return (vorticity**2).mean(axis=(-2, -1)) / 2


def error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def digest(samples: list[Sample]) -> list[str]:
    parts = [(s.values.tobytes(), s.valid.tobytes(), json.dumps(s.meta(), sort_keys=True).encode()) for s in samples]
    return [hashlib.sha256(b"".join(p)).hexdigest() for p in parts]


@pytest.mark.parametrize("k", [1, 3])
def test_taylor_green_vortex_decays_exactly(k: int) -> None:
    viscosity, times = 0.05, np.array([0.0, 0.3, 1.0, 2.5])
    x = 2 * np.pi / 32 * np.arange(32)
    start = 2 * k * np.cos(k * x)[None, :] * np.cos(k * x)[:, None]
    exact = start * np.exp(-2 * viscosity * k**2 * times)[:, None, None]
    np.testing.assert_allclose(simulate(start, viscosity, times), exact, atol=1e-12)
    u, v = velocity(start)
    np.testing.assert_allclose(u, -np.cos(k * x)[None, :] * np.sin(k * x)[:, None], atol=1e-12)
    np.testing.assert_allclose(v, np.sin(k * x)[None, :] * np.cos(k * x)[:, None], atol=1e-12)


def test_velocity_has_no_divergence_and_the_right_curl() -> None:
    w = simulate(turbulence(64), 0.02, [0.5])[0]
    u, v = velocity(w)
    d = differentiation(64)
    assert np.abs(u @ d.T + d @ v).max() < 1e-11 * np.abs(w).max()
    np.testing.assert_allclose(v @ d.T - d @ u, w, atol=1e-11 * np.abs(w).max())


def test_trajectory_fulfils_the_equation() -> None:
    """Time derivative by central differences, space derivatives by dense matrices, advection as written in the textbook."""
    viscosity, h, d = 0.1, 0.004, differentiation(128)
    w = simulate(turbulence(128, peak=2.0), viscosity, 0.6 + h * np.arange(-2, 3), courant=0.1)
    rate = (w[0] - 8 * w[1] + 8 * w[3] - w[4]) / (12 * h)
    u, v = velocity(w[2])
    diffusion = viscosity * (w[2] @ d.T @ d.T + d @ d @ w[2])
    advection = u * (w[2] @ d.T) + v * (d @ w[2])
    assert np.linalg.norm(diffusion) > 0.1 * np.linalg.norm(advection)
    assert np.linalg.norm(rate + advection - diffusion) < 1e-5 * np.linalg.norm(advection)


def test_order_in_time_is_four() -> None:
    start, end = turbulence(64), 0.5
    speed = np.abs(velocity(start)).sum(axis=0).max()

    def solve(steps: int) -> np.ndarray:
        return simulate(start, 0.01, [end], courant=end * speed / (2 * np.pi / 64) / steps * (1 + 1e-9))[0]

    reference = solve(1280)
    errors = [error(solve(steps), reference) for steps in (80, 160, 320)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.8).all(), (errors, orders)


def test_energy_and_enstrophy_are_conserved_without_viscosity() -> None:
    start, times = turbulence(64), [0.0, 0.5, 1.0]
    w = simulate(start, 0.0, times, courant=0.25)
    assert error(w[2], w[0]) > 0.5  # the flow has changed a lot
    assert np.abs(energy(w) / energy(w)[0] - 1).max() < 1e-8
    assert np.abs(enstrophy(w) / enstrophy(w)[0] - 1).max() < 1e-6
    # and the nearly inviscid flow loses what viscosity takes, no more
    w = simulate(start, 1e-6, times, courant=0.25)
    assert np.abs(energy(w) / energy(w)[0] - 1).max() < 1e-4


def test_energy_decays_at_the_rate_of_viscous_dissipation() -> None:
    viscosity, times = 0.02, np.linspace(0, 1, 101)
    w = simulate(turbulence(64), viscosity, times)
    e, z = energy(w), enstrophy(w)
    assert (np.diff(e) < 0).all()
    assert (np.diff(z) < 0).all()
    lost = 2 * viscosity * (z[0] + z[-1] + 4 * z[1:-1:2].sum() + 2 * z[2:-1:2].sum()) * 0.01 / 3
    assert e[0] - e[-1] == pytest.approx(lost, rel=1e-6)


def test_finer_grids_converge_to_the_same_flow() -> None:
    start, viscosity, times = turbulence(64), 0.03, [0.5, 2.0]
    coarse, fine, finest = (velocity(resample(simulate(resample(start, n), viscosity, times), 64)) for n in (64, 128, 192))
    assert error(coarse, finest) < 3e-3
    assert error(fine, finest) < 1e-5


@pytest.mark.parametrize(("split", "index"), [("train", 1), ("test", 0), ("ood", 2)])
def test_default_samples_are_resolved(split: str, index: int) -> None:
    """A stored trajectory beside the same one solved at twice the resolution and so half the step."""
    options = NavierStokesOptions(frames=2, step=1.0)
    source = NavierStokes((), options)
    ref = next(r for r in source.plan().refs if r.key == f"{split}-{index:06d}")
    (stored,) = source.samples([ref])
    (better,) = NavierStokes((), replace(options, resolution=2.4)).samples([ref])
    assert stored.coefficients == better.coefficients
    assert error(stored.values, better.values) < 4e-3


def test_resampling_is_exact_for_resolved_modes() -> None:
    coarse = turbulence(48)
    fine = resample(coarse, 96)
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=1e-12)
    np.testing.assert_allclose(resample(fine, 48), coarse, atol=1e-12)
    np.testing.assert_allclose(turbulence(96), fine, atol=1e-12)


def test_largest_eddies_turn_in_about_one() -> None:
    options = NavierStokesOptions()
    k = np.hypot(np.fft.fftfreq(64, 1 / 64)[:, None], np.fft.fftfreq(64, 1 / 64))
    spectrum, crossing, rotation = np.zeros(20), [], []
    for seed in range(20):
        start = turbulence(64, options.peak, seed)
        for w, total in ((start, True), (simulate(start, 0.02, [options.warmup])[0], False)):
            modes = (np.abs(np.fft.fft2(velocity(w))) ** 2).sum(axis=0)
            if total:
                spectrum += [modes[np.rint(k) == shell].sum() for shell in range(20)]
            largest = modes.sum() / (modes[k > 0] / k[k > 0]).sum()  # integral wavenumber
            crossing.append(2 * np.pi / largest / np.sqrt(2 * energy(w)))
            rotation.append(4 * np.pi / np.sqrt(2 * enstrophy(w)))  # rigid rotation turns at half its vorticity
        assert np.sqrt(2 * energy(start)) * options.peak / (2 * np.pi) == pytest.approx(1, rel=1e-12)
    assert np.argmax(spectrum) == 3
    assert min(crossing) > 0.75
    assert max(crossing) < 1.6
    assert np.median(crossing) == pytest.approx(1.1, abs=0.15)
    assert 1 < np.median(rotation) < 2.5


def test_amplitude_and_viscosity_span_their_ranges() -> None:
    options = NavierStokesOptions(train=60, ood=30, grid=16, peak=2, frames=1, warmup=0, resolution=0.01)
    source = NavierStokes((), options)
    plan = source.plan()
    samples = dict(zip((r.key for r in plan.refs), source.samples(plan.refs), strict=True))
    speeds = np.array([np.sqrt((s.values.astype(float) ** 2).sum(axis=1).mean()) for s in samples.values()]) * 2 / (2 * np.pi)
    assert 0.5 <= speeds.min() < 0.6
    assert 1.7 < speeds.max() <= 2.0
    inside = [s.coefficients["viscosity"] for key, s in samples.items() if not key.startswith("ood")]
    outside = [s.coefficients["viscosity"] for key, s in samples.items() if key.startswith("ood")]
    assert 0.01 <= min(inside) < 0.012
    assert 0.036 < max(inside) <= 0.04
    assert 0.005 <= min(outside) < 0.006
    assert 0.009 < max(outside) <= 0.01
    assert len({s.values.tobytes() for s in samples.values()}) == len(samples)


def test_bytes_depend_on_the_sample_alone() -> None:
    source = NavierStokes((), SMALL)
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]
    larger = NavierStokes((), replace(SMALL, train=5, valid=2))
    wanted = {r.key: r for r in larger.plan().refs}
    assert digest(list(larger.samples([wanted[r.key] for r in refs]))) == together
    reseeded = NavierStokes((), replace(SMALL, seed=1))
    assert digest(list(reseeded.samples(reseeded.plan().refs[:1]))) != together[:1]

    program = (
        f"import sys; sys.path.insert(0, {str(str(Path(__file__).parent))!r}); from test_navier_stokes import *; "
        "source = NavierStokes((), SMALL); print(*digest(list(source.samples(source.plan().refs))))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == together


@pytest.mark.parametrize(("fields", "names"), [("velocity", ["velocity_x", "velocity_y"]), ("vorticity", ["vorticity"])])
def test_samples_say_what_they_are(fields: str, names: list[str]) -> None:
    source = EQUATIONS["navier-stokes"]((), replace(SMALL, fields=fields))
    plan = source.plan()
    expected = {"train": 3, "valid": 1, "test": 1, "ood": 2}
    assert [r.key for r in plan.refs] == [f"{split}-{i:06d}" for split, size in expected.items() for i in range(size)]
    assert [(s.name, s.distribution) for s in plan.splits] == [("train", "in"), ("valid", "in"), ("test", "in"), ("ood", "out")]
    assert all(json.loads(json.dumps(r.spec)) == r.spec for r in plan.refs)
    sample = next(iter(source.samples(plan.refs)))
    assert sample.values.shape == (3, len(names), 1, 32, 32)
    assert sample.valid.all()
    assert [(v.name, v.role, v.unit) for v in sample.variables] == [(n, "state", "1") for n in names]
    assert [sample.boundary.periodic(a) for a in "zyx"] == [False, True, True]
    np.testing.assert_allclose(sample.time.seconds, [0, 0.1, 0.2])
    np.testing.assert_allclose(sample.coordinates["x"].values, 2 * np.pi / 32 * np.arange(32))
    assert list(sample.coefficients) == ["viscosity"]
    assert plan.bytes_per_sample > sample.values.nbytes
    again = Sample.from_parts(json.loads(json.dumps(sample.meta())), sample.values, sample.valid)
    assert again.meta() == sample.meta()


def test_vorticity_and_velocity_corpora_hold_the_same_flow() -> None:
    flow, curl = (NavierStokes((), replace(SMALL, fields=f)) for f in ("velocity", "vorticity"))
    (a,), (b,) = (s.samples(s.plan().refs[:1]) for s in (flow, curl))
    d = differentiation(32)
    u, v = np.moveaxis(a.values[:, :, 0].astype(float), 1, 0)
    np.testing.assert_allclose(v @ d.T - d @ u, b.values[:, 0, 0], atol=1e-4)


def test_dissipative_scales_choose_the_grid() -> None:
    w = turbulence(64)
    sizes = [resolving_grid(w, viscosity, 1.2) for viscosity in (0.08, 0.02, 0.005)]
    assert all(n % 2 == 0 for n in sizes)
    wavenumber = np.sqrt(np.sqrt((w**2).mean()) / 0.005)
    assert 1.2 * wavenumber <= sizes[2] / 3 < 1.3 * wavenumber
    np.testing.assert_allclose(np.array(sizes[1:]) / sizes[:-1], 2, atol=0.25)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["grid=63"], "grid=63"),
        (["peak=20"], "peak=20"),
        (["step=0"], "step=0"),
        (["step=nan"], "step=nan"),
        (["warmup=-1"], "warmup=-1"),
        (["frames=0"], "frames=0"),
        (["spread=0.5"], "spread=0.5"),
        (["viscosity_low=0"], "viscosity_low=0"),
        (["viscosity_low=0.1", "viscosity_high=0.01"], "viscosity_high=0.01"),
        (["ood_high=0.02"], "overlap"),
        (["train=-1"], "train=-1"),
        (["train=0", "valid=0", "test=0", "ood=0"], "every split is empty"),
        (["fields=pressure"], "pressure"),
        (["viscosty_low=1"], "did you mean"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(NavierStokes.Options, words)


def test_inputs_are_refused(tmp_path: object) -> None:
    with pytest.raises(UserError, match="reads no files"):
        NavierStokes([tmp_path])  # type: ignore[list-item]


def test_impossible_problems_are_refused() -> None:
    w = turbulence(32)
    for arguments in ((w[:, :16], 0.1, [1.0]), (w, -0.1, [1.0]), (w, 0.1, [1.0, 0.5]), (w, 0.1, [-1.0])):
        with pytest.raises(ValueError):
            simulate(*arguments)
    assert not simulate(np.zeros((32, 32)), 0.1, [1.0]).any()
