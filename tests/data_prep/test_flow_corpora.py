"""What the corpora of Euler, Taylor-Green and 3-D advection-diffusion promise: bytes of their own, splits, coefficients, boundaries."""

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
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.advection_diffusion_3d import AdvectionDiffusion3DOptions
from scigpt.data_prep.pde.euler import EulerOptions
from scigpt.data_prep.pde.taylor_green import TaylorGreenOptions

FEW: dict[str, Any] = {"train": 3, "valid": 1, "test": 1, "ood": 2, "frames": 3, "grid": 16}
SMALL: dict[str, Any] = {
    "euler": EulerOptions(**FEW),
    "taylor-green": TaylorGreenOptions(**FEW, resolution=0.5),
    "advection-diffusion-3d": AdvectionDiffusion3DOptions(**FEW, peak=2),
}
EXPECTED: dict[str, tuple[list[str], tuple[int, int, int], str, str]] = {
    "euler": (["density", "velocity_x", "velocity_y", "pressure_field"], (1, 16, 16), "yx", "gamma"),
    "taylor-green": (["velocity_x", "velocity_y", "velocity_z"], (16, 16, 16), "zyx", "viscosity"),
    "advection-diffusion-3d": (["concentration"], (16, 16, 16), "zyx", "diffusivity"),
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
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_flow_corpora as t; print(*t.all_digests())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == all_digests()


@pytest.mark.parametrize("name", SMALL)
def test_samples_say_what_they_are(name: str) -> None:
    names, grid, periodic, coefficient = EXPECTED[name]
    options = SMALL[name]
    source = EQUATIONS[name]((), options)
    plan = source.plan()
    assert [(s.name, s.distribution) for s in plan.splits] == [("train", "in"), ("valid", "in"), ("test", "in"), ("ood", "out")]
    assert plan.splits[0].description != plan.splits[3].description
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample.values.shape == (3, len(names), *grid)
        assert plan.bytes_per_sample > sample.values.nbytes
        assert sample.valid.all()
        assert np.isfinite(sample.values).all()
        assert [(v.name, v.unit, v.role) for v in sample.variables] == [(n, "1", "state") for n in names]
        assert [a for a in "zyx" if sample.boundary.periodic(a)] == list(periodic)
        assert sorted(sample.coordinates) == sorted(periodic)
        np.testing.assert_allclose(sample.time.seconds, options.step * np.arange(3))
        value = sample.coefficients[coefficient]
        if name == "euler":
            assert options.gamma_low <= value <= options.gamma_high
        else:
            edges = ("ood_low", "ood_high") if ref.split == "ood" else (f"{coefficient}_low", f"{coefficient}_high")
            assert getattr(options, edges[0]) <= value <= getattr(options, edges[1])
        again = Sample.from_parts(json.loads(json.dumps(sample.meta())), sample.values, sample.valid)
        assert again.meta() == sample.meta()


def test_contrast_of_the_euler_starts_is_that_of_their_split() -> None:
    source = EQUATIONS["euler"]((), EulerOptions(train=20, valid=0, test=0, ood=20, grid=16, frames=1, initial="smooth"))
    plan = source.plan()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        ratio = max(np.exp(2 * np.abs(np.log(sample.values[0, c])).max()) for c in (0, 3))
        low, high = (5, 10) if ref.split == "ood" else (2, 5)
        assert low * 0.999 <= ratio <= high * 1.001


def test_the_same_corpus_from_one_process_and_from_two(tmp_path: Path) -> None:
    source = EQUATIONS["euler"]((), SMALL["euler"])
    folders = [convert(source, tmp_path / str(workers), workers=workers, progress=False) for workers in (1, 2)]
    one, two = ({p.name: p.read_bytes() for p in sorted(f.glob("*.tar"))} for f in folders)
    assert one == two
