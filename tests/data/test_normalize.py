"""Normalisation: exact inverses, the frame of reference of the output, causality, amplitudes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import FLOOR, PRIOR_POINTS, Scales, normalize
from scigpt.data.sample import Origin, Role, Sample, Time, Variable
from scigpt.data.statistics import Statistics
from scigpt.errors import UserError


def make(values: np.ndarray, valid: np.ndarray | None = None, roles: tuple[Role, ...] = ("state",), steady: bool = False) -> Batch:
    """A batch of one window `(T, C, X)`, with statistics of its own values."""
    values = np.asarray(values, np.float32)[:, :, None, None, :]
    valid = np.ones(values.shape, bool) if valid is None else np.broadcast_to(valid[:, :, None, None, :], values.shape).copy()
    names = ("velocity_x", "source", "orography", "density")[: len(roles)]
    variables = tuple(Variable(n, "1", r) for n, r in zip(names, roles, strict=True))
    sample = Sample(values, valid, variables, Time.regular(0, 1, len(values)), Origin("test", "CC0-1.0"), steady=steady)
    statistics = Statistics()
    statistics.update(sample)
    return collate([sample], Scales.from_stats(sample.layout, statistics.to_json()))


def test_inverse_of_every_transform() -> None:
    scales = Scales((("identity", 1.0), ("log1p", 2.0), ("asinh", 1e-6)), (280.0, 0.5, 0.0), (15.0, 0.7, 2.0), (1.0,) * 3)
    values = torch.rand(2, 3, 3, 1, 4, 5) * torch.tensor([300.0, 40.0, 1e-4]).view(1, 1, 3, 1, 1, 1)
    back = scales.inverse(scales.forward(values))
    for c, atol in enumerate((1e-4, 1e-5, 1e-10)):  # float32 at 280 K is no finer than 3e-5
        torch.testing.assert_close(back[:, :, c], values[:, :, c], rtol=1e-5, atol=atol)
    assert Scales.from_json(scales.to_json()) == scales


def test_the_target_leads_back_to_the_truth() -> None:
    """base + unit * target, brought back to physical units, is the next frame, whatever the roles and gaps."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 4, 9)).cumsum(0) * 3 + 5
    valid = rng.random((6, 4, 9)) > 0.3
    batch = make(values, valid, ("state", "forcing", "static", "diagnostic"))
    fields = normalize(batch)
    truth = batch.scales.inverse(fields.base + fields.unit * fields.target)
    assert torch.allclose(truth[fields.mask], batch.values[:, 1:][fields.mask], atol=1e-4)
    assert fields.mask[:, :, 0].sum() == batch.valid[:, 1:, 0].sum()
    assert not fields.mask[:, :, 1:3].any()  # forcing and static variables are never targets
    assert (fields.base[:, :, 3] == 0).all()  # a diagnostic is never given
    assert (fields.value[:, :, 3] == 0).all()
    assert not fields.valid[:, :, 3].any()


def test_forcings_enter_one_frame_ahead() -> None:
    values = np.arange(5.0)[:, None, None] * np.ones((1, 2, 7))
    batch = make(values, roles=("state", "forcing"))
    fields = normalize(batch)
    z = batch.scales.forward(batch.values)
    amplitude = fields.log_amplitude.exp()[..., None, None, None]
    assert torch.allclose((fields.value * amplitude)[:, :, 0], z[:, :-1, 0], atol=1e-5)
    assert torch.allclose((fields.value * amplitude)[:, :, 1], z[:, 1:, 1], atol=1e-5)


def test_prefix_amplitudes_by_hand() -> None:
    rng = np.random.default_rng(1)
    batch = make(rng.standard_normal((5, 1, 50)))
    z = batch.scales.forward(batch.values)[0, :, 0, 0, 0].double()
    fields = normalize(batch)
    for t in range(4):
        squares, points = z[: t + 1].square().sum(), 50 * (t + 1)
        assert fields.log_amplitude[0, t, 0].exp().item() == pytest.approx(
            ((squares + PRIOR_POINTS) / (points + PRIOR_POINTS)).sqrt().item(), rel=1e-5
        )
    typical = batch.scales.increment[0]
    steps = z.diff(dim=0)
    assert fields.log_increment[0, 0, 0] == 0.0  # no increment is known at the first frame
    expected = ((steps[:2].square().sum() + PRIOR_POINTS * typical**2) / (100 + PRIOR_POINTS)).sqrt() / typical
    assert fields.log_increment[0, 2, 0].exp().item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_amplitude_of_a_trajectory_is_divided_out() -> None:
    """Twice the field gives the network nearly the same numbers (but for the prior) and twice the unit."""
    rng = np.random.default_rng(2)
    batch = make(rng.standard_normal((5, 1, 4000)))
    zero_mean = replace(batch, scales=replace(batch.scales, center=(0.0,)))
    one, two = normalize(zero_mean), normalize(replace(zero_mean, values=2 * batch.values))
    assert torch.allclose(one.value, two.value, rtol=2e-2)
    assert torch.allclose(2 * one.unit[:, 1:], two.unit[:, 1:], rtol=2e-2)


def test_a_quiet_series_is_not_blown_up() -> None:
    values = np.random.default_rng(3).standard_normal((200, 1, 1))
    values[100:] *= 1e-9
    batch = make(values)
    quiet = normalize(replace(batch, values=batch.values * 1e-9))
    assert (quiet.unit >= FLOOR * batch.scales.increment[0] * 0.99).all()


def test_static_and_constant_fields_stay_finite() -> None:
    values = np.stack([np.random.default_rng(4).standard_normal((4, 6)), np.full((4, 6), 7.0), np.zeros((4, 6))], 1)
    batch = make(values, roles=("state", "forcing", "static"))
    fields = normalize(batch)
    assert all(torch.isfinite(getattr(fields, n)).all() for n in ("value", "increment", "base", "unit", "target"))
    assert (fields.increment[:, :, 2] == 0).all()


def test_a_steady_problem_starts_from_the_size_of_its_source() -> None:
    rng = np.random.default_rng(5)
    source = rng.standard_normal(40)
    values = np.stack([np.stack([np.zeros(40), source]), np.stack([0.5 * source, source])])
    valid = np.ones(values.shape, bool)
    valid[0, 0] = False
    batch = make(values, valid, ("state", "forcing"), steady=True)
    fields = normalize(batch)
    z = batch.scales.forward(batch.values)
    assert (fields.base[:, :, 0] == 0).all()
    expected = batch.scales.steady_ratio * ((z[0, 1, 1].square().sum() + PRIOR_POINTS) / (40 + PRIOR_POINTS)).sqrt()
    assert torch.allclose(fields.unit[:, :, 0], expected)
    scaled = replace(batch, values=10 * batch.values, scales=replace(batch.scales, center=(0.0, 0.0)))
    assert normalize(scaled).unit[0, 0, 0].mean() > 5 * fields.unit[0, 0, 0].mean()  # ten times the source, about ten times the unit


def test_a_corpus_without_training_split_is_refused() -> None:
    layout = make(np.ones((2, 1, 2))).layout
    with pytest.raises(UserError, match="no split named train"):
        Scales.from_stats(layout, Statistics().to_json())


def test_polar_rows_do_not_set_the_amplitude() -> None:
    """The prefix RMS is weighted by area, as the loss is."""
    batch = make(np.random.default_rng(6).standard_normal((4, 1, 1000)))
    loud = batch.values.clone()
    loud[..., :500] *= 100
    weight = torch.ones_like(batch.weight)
    weight[..., :500] = 1e-6
    quiet, shouted = (normalize(replace(batch, values=v, weight=2 * weight)) for v in (batch.values, loud))
    assert torch.allclose(quiet.unit[..., 500:], shouted.unit[..., 500:], rtol=2e-2)


def test_a_variable_never_seen_in_training_is_scaled_by_its_plausible_range() -> None:
    variables = (Variable("air_temperature", "K"), Variable("velocity_x", "1"))
    layout = replace(make(np.ones((2, 1, 2))).layout, variables=variables)
    seen = {"count": 4, "mean": 1.0, "m2": 4.0}
    scales = Scales.from_stats(layout, {"variables": {"velocity_x": seen, "air_temperature": {"count": 0}}})
    assert (scales.center[0], scales.scale[0]) == (250.0, 50.0)
    assert (scales.center[1], scales.scale[1]) == (1.0, 1.0)


def test_a_stride_lengthens_the_increment() -> None:
    stats = {"variables": {"velocity_x": {"count": 4, "mean": 0.0, "m2": 4.0, "increment": {"count": 4, "mean": 0.0, "m2": 0.36}}}}
    layout = make(np.ones((2, 1, 2))).layout
    assert [Scales.from_stats(layout, stats, stride).increment[0] for stride in (1, 2, 10)] == pytest.approx([0.3, 0.6, 2**0.5])
