"""What the corpora of Euler, Taylor-Green and 3-D advection-diffusion promise: splits, coefficients, boundaries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_simulated_bytes import SMALL

from scigpt.data.sample import Sample
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.euler import EulerOptions

EXPECTED: dict[str, tuple[list[str], tuple[int, int, int], str, str]] = {
    "euler": (["density", "velocity_x", "velocity_y", "pressure_field"], (1, 16, 16), "yx", "gamma"),
    "taylor-green": (["velocity_x", "velocity_y", "velocity_z"], (16, 16, 16), "zyx", "viscosity"),
    "advection-diffusion-3d": (["concentration"], (16, 16, 16), "zyx", "diffusivity"),
}


@pytest.mark.parametrize("name", EXPECTED)
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
