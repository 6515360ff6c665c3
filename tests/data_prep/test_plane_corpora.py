"""What the corpora of shallow water, Gray-Scott, acoustic waves and the passive scalar promise: bytes, splits, coefficients, boundaries."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scigpt.data.sample import Sample
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.acoustic_waves import AcousticWavesOptions
from scigpt.data_prep.pde.gray_scott import GrayScottOptions
from scigpt.data_prep.pde.passive_scalar import PassiveScalarOptions
from scigpt.data_prep.pde.random_fields import centres, random_field
from scigpt.data_prep.pde.shallow_water import ShallowWaterOptions

FEW: dict[str, Any] = {"train": 3, "valid": 1, "test": 1, "ood": 2, "frames": 3, "grid": 16}
SMALL: dict[str, Any] = {
    "acoustic-waves": AcousticWavesOptions(**FEW, width_low=0.1, width_high=0.2),
    "gray-scott": GrayScottOptions(**FEW),
    "passive-scalar": PassiveScalarOptions(**FEW, peak=2.0, resolution=0.5),
    "shallow-water": ShallowWaterOptions(**FEW, peak=1.0, boundary="wall"),
}
EXPECTED: dict[str, tuple[list[str], list[str], str, str]] = {
    "acoustic-waves": (["pressure_field", "velocity_x", "velocity_y"], ["sound_speed"], "open", "contrast"),
    "gray-scott": (["fed_concentration", "concentration"], [], "periodic", ""),
    "passive-scalar": (["velocity_x", "velocity_y", "concentration"], [], "periodic", "diffusivity"),
    "shallow-water": (["surface_height", "velocity_x", "velocity_y"], ["bed_height"], "wall", "gravity"),
}


def digest(samples: list[Sample]) -> list[str]:
    parts = [(s.values.tobytes(), s.valid.tobytes(), json.dumps(s.meta(), sort_keys=True).encode()) for s in samples]
    return [hashlib.sha256(b"".join(p)).hexdigest() for p in parts]


def all_digests() -> list[str]:
    sources = [EQUATIONS[name]((), options) for name, options in SMALL.items()]
    return [d for source in sources for d in digest(list(source.samples(source.plan().refs)))]


@pytest.mark.parametrize("name", SMALL)
def test_bytes_depend_on_the_sample_alone(name: str) -> None:
    source = EQUATIONS[name]((), SMALL[name])
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(refs)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]
    larger = EQUATIONS[name]((), replace(SMALL[name], train=5, valid=2))
    wanted = {r.key: r for r in larger.plan().refs}
    assert digest(list(larger.samples([wanted[r.key] for r in refs]))) == together
    reseeded = EQUATIONS[name]((), replace(SMALL[name], seed=1))
    assert digest(list(reseeded.samples(reseeded.plan().refs[:1]))) != together[:1]


def test_bytes_are_those_of_another_process() -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_plane_corpora as t; print(*t.all_digests())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == all_digests()


@pytest.mark.parametrize("name", SMALL)
def test_the_same_corpus_from_one_process_and_from_two(name: str, tmp_path: Path) -> None:
    source = EQUATIONS[name]((), SMALL[name])
    out = [tmp_path / str(workers) / "corpus" for workers in (1, 2)]
    folders = [convert(source, o, workers=w, shard_bytes=1 << 16, progress=False) for w, o in enumerate(out, 1)]
    one, two = ({p.name: p.read_bytes() for p in sorted(f.glob("*")) if p.suffix in (".tar", ".json")} for f in folders)
    assert len(one) > 6
    assert one == two


@pytest.mark.parametrize("name", SMALL)
def test_samples_say_what_they_are(name: str) -> None:
    state, static, boundary, knob = EXPECTED[name]
    options = SMALL[name]
    source = EQUATIONS[name]((), options)
    plan = source.plan()
    assert [(s.name, s.distribution) for s in plan.splits] == [("train", "in"), ("valid", "in"), ("test", "in"), ("ood", "out")]
    assert plan.splits[0].description != plan.splits[3].description
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample.values.shape == (3, len(state + static), 1, 16, 16)
        assert plan.bytes_per_sample > sample.values.nbytes
        assert sample.valid.all()
        assert np.isfinite(sample.values).all()
        assert [(v.name, v.role) for v in sample.variables] == [(n, "state") for n in state] + [(n, "static") for n in static]
        assert all(v.name in QUANTITIES and v.unit == "1" for v in sample.variables)
        assert sample.boundary.y == sample.boundary.x == (boundary, boundary)
        assert sorted(sample.coordinates) == ["x", "y"]
        np.testing.assert_allclose(sample.time.seconds, options.step * np.arange(3))
        if knob:
            edges = ("ood_low", "ood_high") if ref.split == "ood" else (f"{knob}_low", f"{knob}_high")
            assert getattr(options, edges[0]) <= sample.coefficients[knob] <= getattr(options, edges[1])
        again = Sample.from_parts(json.loads(json.dumps(sample.meta())), sample.values, sample.valid)
        assert again.meta() == sample.meta()


@pytest.mark.parametrize("name", SMALL)
def test_one_step_of_the_default_corpus_is_a_real_task(name: str) -> None:
    """Neither persistence nor linear extrapolation is nearly perfect, and neither is hopeless."""
    source = EQUATIONS[name]((), type(SMALL[name])(frames=12, train=2, valid=0, test=0, ood=0))
    still, straight = [], []
    for sample in source.samples(source.plan().refs):
        fields = sample.values[:, [v.role == "state" for v in sample.variables], 0].astype(float)
        spread = fields[2:].std(axis=(2, 3))
        still.append((np.sqrt(((fields[2:] - fields[1:-1]) ** 2).mean(axis=(2, 3))) / spread).mean())
        straight.append((np.sqrt(((fields[2:] - 2 * fields[1:-1] + fields[:-2]) ** 2).mean(axis=(2, 3))) / spread).mean())
    assert 0.05 < np.mean(still) < 0.4
    assert 0.02 < np.mean(straight) < 0.4


@pytest.mark.parametrize("basis", ["periodic", "cosine", "sine"])
def test_random_fields_are_the_same_on_every_grid(basis: Any) -> None:
    coarse, fine = (random_field(np.random.default_rng(0), 3.0, centres(n), centres(3 * n), basis) for n in (20, 60))
    np.testing.assert_allclose(fine[1::3, 1::3], coarse, atol=1e-12)
    assert np.sqrt((fine**2).mean()) == pytest.approx(1, rel=1e-12)
    edge = random_field(np.random.default_rng(0), 3.0, np.array([0.0, 1e-6, 1 - 1e-6, 1.0]), centres(20), basis)
    if basis == "periodic":
        np.testing.assert_allclose(edge[0], edge[-1], atol=1e-12)
    if basis == "sine":
        assert np.abs(edge[[0, -1]]).max() < 1e-12
    if basis == "cosine":
        assert np.abs(edge[[0, -1]] - edge[[1, -2]]).max() < 1e-8
