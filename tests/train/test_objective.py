"""The gradient is that of the mean over a group's valid targets, however the group is cut."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ORIGIN, smooth_sample

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales, normalize
from scigpt.data.sample import Coordinate, Sample, Time, Variable
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.objective import group_weight, share_of_loss, target_weight

NAMES = ("concentration", "density")
SCALES = Scales((("identity", 1.0),) * 2, (0.0, 0.1), (2.0, 1.5), (0.6, 0.7))


@pytest.fixture(scope="module")
def model() -> SciGPT:
    torch.manual_seed(0)
    made = SciGPT(ModelConfig(depth=2, width=32, heads=1), Vocabulary(dict.fromkeys(NAMES, "1"), {"viscosity": (0.5, 0.3)}))
    for parameter in made.parameters():  # the zeros of the first step would hide most gradients
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def batch_of(count: int, gaps: float, seed: int = 0) -> Batch:
    samples = [smooth_sample(seed + i, 4, (1, 8, 6), NAMES, gaps * (i + 1) / count) for i in range(count)]
    return collate(samples, SCALES, "toys", 4)


def gradients(model: SciGPT, parts: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = group_weight(parts)
    loss = 0.0
    for part in parts:
        share = share_of_loss(model(part), model.head, total)
        share.loss.backward()
        loss += float(share.loss.detach())
    return loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@settings(max_examples=12)
@given(st.integers(2, 6), st.sets(st.integers(1, 5)), st.sampled_from([0.0, 0.3, 0.9]), st.integers(0, 99))
def test_no_split_into_micro_batches_changes_the_gradient(model: SciGPT, count: int, cuts: set[int], gaps: float, seed: int) -> None:
    batch = batch_of(count, gaps, seed)
    edges = [0, *sorted(c for c in cuts if c < count), count]
    loss, whole = gradients(model, [batch])
    split_loss, split = gradients(model, [batch.select(slice(a, b)) for a, b in itertools.pairwise(edges)])
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert split.keys() == whole.keys()
    norm = torch.cat([g.flatten() for g in whole.values()]).norm()
    difference = torch.cat([(split[n] - whole[n]).flatten() for n in whole]).norm()
    assert difference <= 2e-6 * norm


def test_the_loss_is_the_mean_over_valid_targets_by_area(model: SciGPT) -> None:
    """Against plain NumPy over the targets one by one, on a sphere with gaps, a forcing and a static variable."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 1, 6, 8)).astype(np.float32)
    valid = rng.random(values.shape) > 0.3
    latitude = np.linspace(-80, 80, 6)
    sample = Sample(
        values,
        valid,
        (Variable("concentration", "1"), Variable("density", "1", "forcing")),
        Time.regular(0.0, 1.0, 3),
        ORIGIN,
        geometry="sphere",
        coordinates={
            "latitude": Coordinate(("y",), latitude, "degrees_north"),
            "longitude": Coordinate(("x",), np.arange(8.0), "degrees_east"),
        },
    )
    batch = collate([sample], SCALES, "maps", 4)
    prediction = model(batch)
    error = model.head.error(prediction.distribution, prediction.normalized.target).detach().numpy()[0]
    above, below = 0.0, 0.0
    for t in range(2):
        for y in range(6):
            for x in range(8):
                if valid[t + 1, 0, 0, y, x]:
                    above += np.cos(np.deg2rad(latitude[y])) * error[t, 0, 0, y, x]
                    below += np.cos(np.deg2rad(latitude[y]))
    share = share_of_loss(model(batch), model.head, group_weight([batch]))
    assert float(share.loss.detach()) == pytest.approx(above / below, rel=1e-5)
    assert share.weights[1] == 0
    assert float(share.errors[0] / share.weights[0]) == pytest.approx(above / below, rel=1e-5)


def test_targets_are_those_of_the_normalisation() -> None:
    batch = batch_of(3, 0.5)
    assert torch.equal(target_weight(batch) > 0, normalize(batch).mask)


def test_what_stands_where_no_target_is_has_no_influence(model: SciGPT) -> None:
    batch = batch_of(3, 0.5)
    wild = torch.where(batch.valid, batch.values, torch.nan)
    a, b = gradients(model, [batch]), gradients(model, [dataclasses.replace(batch, values=wild)])
    assert a[0] == b[0]
    assert all(torch.equal(a[1][n], b[1][n]) for n in a[1])
