"""What the corpora of shallow water, Gray-Scott, acoustic waves and the passive scalar promise: splits, coefficients, boundaries."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from test_simulated_bytes import SMALL

from scigpt.data.sample import Sample
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.random_fields import centres, random_field

EXPECTED: dict[str, tuple[list[str], list[str], str, str]] = {
    "acoustic-waves": (["pressure_field", "velocity_x", "velocity_y"], ["sound_speed"], "open", "contrast"),
    "gray-scott": (["fed_concentration", "concentration"], [], "periodic", ""),
    "passive-scalar": (["velocity_x", "velocity_y", "concentration"], [], "periodic", "diffusivity"),
    "shallow-water": (["surface_height", "velocity_x", "velocity_y"], ["bed_height"], "wall", "gravity"),
}


@pytest.mark.parametrize("name", EXPECTED)
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


@pytest.mark.parametrize("name", EXPECTED)
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
