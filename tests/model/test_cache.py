"""A step from the cache gives the numbers of a step that is shown all frames again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import ORIGIN

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Sample, Time, Variable
from scigpt.evaluate.rollout import rollout
from scigpt.model.backbone import Cache, ModelConfig, SciGPT, Vocabulary

FRAMES, CONTEXT, REACH = 59, 8, 12
VARIABLES = (
    Variable("air_temperature", "K"),
    Variable("toa_incident_solar_radiation", "W m**-2", "forcing"),
    Variable("surface_altitude", "m", "static"),
    Variable("precipitation_flux", "kg m**-2 s**-1", "diagnostic"),
)


def sample(kind: str, seed: int) -> Sample:
    generator = np.random.default_rng(seed)
    grid = {"series": (1, 1, 24), "map": (1, 12, 10), "volume": (6, 4, 8), "points": (1, 1, 9), "sphere": (1, 8, 16)}[kind]
    shape = (FRAMES, len(VARIABLES), *grid)
    values = (generator.normal(size=shape).cumsum(0) + 280).astype(np.float32)
    values[:, 2] = values[0, 2]
    values[:, 3] = np.abs(generator.normal(size=values[:, 3].shape)) * 1e-5
    valid = generator.random(shape) > 0.1
    values[~valid] = np.nan
    coordinates = {}
    if kind == "points":
        coordinates = {n: Coordinate(("x",), generator.uniform(-60, 60, grid[2]), "degrees") for n in ("latitude", "longitude")}
    if kind == "sphere":
        latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(16) * 22.5
        coordinates = {
            "latitude": Coordinate(("y",), latitude, "degrees_north"),
            "longitude": Coordinate(("x",), longitude, "degrees_east"),
        }
    boundary = {
        "sphere": Boundary(y=("pole", "pole"), x=("periodic", "periodic")),
        "map": Boundary(y=("wall", "open"), x=("open", "given")),
    }
    geometry = kind if kind in ("points", "sphere") else "plane"
    time = Time.regular(6.0e8, 21600.0, FRAMES, "noleap")
    return Sample(
        values,
        valid,
        VARIABLES,
        time,
        ORIGIN,
        geometry,
        boundary.get(kind, Boundary.all("periodic")),
        coordinates,
        {"viscosity": 0.1 * seed},
    )


def batch(kind: str) -> Batch:
    transforms = (("identity", 1.0), ("identity", 1.0), ("identity", 1.0), ("log1p", 1e-5))
    scales = Scales(transforms, (280.0, 280.0, 280.0, 0.5), (5.0, 5.0, 5.0, 0.5), (0.2, 0.2, 0.0, 1.0))
    return collate([sample(kind, 1), sample(kind, 2)], scales, "toy", 4)


@pytest.fixture(scope="module")
def model() -> SciGPT:
    """Of which every part speaks: an untrained head predicts persistence."""
    vocabulary = Vocabulary({v.name: v.unit for v in sorted(VARIABLES, key=lambda v: v.name)}, {"viscosity": (0.1, 0.1)})
    made = SciGPT(ModelConfig(depth=3, width=64, heads=2, reach=REACH, window_tokens=4), vocabulary)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.startswith("head") or "modulate" in name:
                p += 0.05 * torch.randn(p.shape, generator=generator)
    return made.eval()


KINDS = ("series", "map", "volume", "points", "sphere")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cached_step_is_an_uncached_step(model: SciGPT, kind: str) -> None:
    """From 8 frames, 50 steps under the time mask of 12 frames: one forward pass over all frames makes every uncached step at once."""
    data = batch(kind)
    whole, cache = model(data), Cache()
    filled = model(data.frames(slice(0, CONTEXT + 1)), cache)
    found = [filled.z()[:, -1]]
    for target in range(CONTEXT + 1, FRAMES):
        assert cache.frames == target - 1
        found.append(model(data.frames(slice(target - 1, target + 1)), cache).z()[:, -1])
    expected = whole.z()[:, CONTEXT - 1 :]
    wanted = [c for c, v in enumerate(VARIABLES) if v.predicted]
    errors = (torch.stack(found, 1) - expected)[:, :, wanted].abs().amax((0, 2, 3, 4, 5))
    assert len(errors) == 51
    assert float(errors.max()) < 1e-5
    moved = (expected - whole.normalized.base[:, CONTEXT - 1 :])[:, :, 0].abs().mean()
    assert float(moved) > 0.01  # it is no persistence that is compared
    assert [len(m) for m in cache.blocks] == [REACH] * 3


@torch.no_grad()
def test_the_mask_reaches_no_further_than_it_says(model: SciGPT) -> None:
    """The first frame is out of sight of frame 40, but for normalisation, which has seen it."""
    data = batch("map")
    blind = replace(model.config, reach=FRAMES)
    farther = SciGPT(blind, model.vocabulary)
    farther.load_state_dict(model.state_dict())
    assert float((model(data).z() - farther(data).z())[:, :REACH].abs().max()) == 0.0
    assert float((model(data).z() - farther(data).z())[:, REACH:].abs().max()) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_from_the_cache(model: SciGPT, kind: str) -> None:
    """Within the window a free-running forecast with the cache is the recomputed one; later it begins anew from half a window."""
    data = batch(kind).frames(slice(0, 30))
    wanted = [c for c, v in enumerate(VARIABLES) if v.predicted]
    runs = {m: data.scales.forward(rollout(model, data, 5, 20, 11, method=m))[:, :, wanted] for m in ("recompute", "cache", "sliding")}  # type: ignore[arg-type]
    # 280 K in float32 is a few 1e-6 of the unit in each step
    assert float((runs["cache"] - runs["recompute"])[:, :7].abs().max()) < 1e-4
    assert float((runs["sliding"] - runs["recompute"])[:, :7].abs().max()) < 1e-4
    assert float((runs["cache"] - runs["recompute"])[:, 7:].abs().max()) > 1e-3
    # the eighth step is the first after a whole window: as a model would say that is shown six frames and nothing else
    first = rollout(model, data, 5, 7, 11)
    values, valid = data.values.clone(), data.valid.clone()
    there = data.valid[:, :5, wanted].any(1, keepdim=True).expand(-1, 7, -1, -1, -1, -1)
    values[:, 5:12, wanted], valid[:, 5:12, wanted] = torch.where(there, first[:, :, wanted], 0.0), there
    again = rollout(model, replace(data, values=values, valid=valid).frames(slice(6, 30)), 6, 6, 11)
    assert float((data.scales.forward(again)[:, :, wanted] - runs["cache"][:, 7:13]).abs().max()) < 1e-4
