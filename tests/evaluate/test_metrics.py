"""Metrics against hand-computed cases, independent implementations and integrals on the sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.regression import (
    mean_squared_error,
    minkowski_distance,
    normalized_root_mean_squared_error,
    relative_squared_error,
)

from scigpt.data.batches import collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Coordinate, Origin, Sample, Time, Variable
from scigpt.evaluate.metrics import score, scored, survival, vrmse_by_frame

ONE = torch.ones(1, 1, 1, 1, 1, 1)


def row(*values: float) -> Tensor:
    """One window, one frame, one variable along X."""
    return torch.tensor(values).view(1, 1, 1, 1, 1, -1)


def fields(seed: int, shape: tuple[int, ...] = (3, 4, 2, 2, 5, 6)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(shape, generator=generator) * 3 + 7
    return truth + torch.randn(shape, generator=generator), truth


def test_by_hand() -> None:
    # errors 1, -1, 2, 0: MSE 1.5; truth has mean 3, variance 5, mean square 14
    truth, forecast = row(0, 2, 4, 6), row(1, 1, 6, 6)
    found = score(forecast, truth, torch.ones_like(truth, dtype=torch.bool), ONE)
    assert found.rmse.item() == pytest.approx(math.sqrt(1.5), abs=1e-12)
    assert found.vrmse.item() == pytest.approx(math.sqrt(1.5 / 5), abs=1e-12)
    assert found.nrmse.item() == pytest.approx(math.sqrt(1.5 / 14), abs=1e-12)
    assert found.relative_l2.item() == pytest.approx(math.sqrt(6 / 56), abs=1e-12)
    assert found.maximum.item() == 2


def test_relative_l2_is_the_mean_over_frames_and_the_maximum_that_of_the_window() -> None:
    # frames [3, 4] and [0, 2] with errors [0, 1] and [-4, 0]; a frame of zeros has no relative error
    truth = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]).view(1, 3, 1, 1, 1, 2)
    forecast = torch.tensor([[3.0, 5.0], [-4.0, 2.0], [9.0, 9.0]]).view(1, 3, 1, 1, 1, 2)
    mask = torch.ones_like(truth, dtype=torch.bool)
    mask[:, 2, ..., 0] = False
    found = score(forecast, truth, mask, ONE)
    assert found.relative_l2.item() == pytest.approx((1 / 5 + 4 / 2) / 2, abs=1e-12)
    assert found.maximum.item() == 9


def test_the_mean_of_the_window_scores_one_and_zero_scores_one_in_nrmse() -> None:
    _, truth = fields(1)
    mask = torch.ones_like(truth, dtype=torch.bool)
    mean = truth.double().mean((1, 3, 4, 5), keepdim=True).expand(truth.shape)
    assert torch.allclose(score(mean, truth, mask, ONE).vrmse, torch.ones(3, 2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(score(torch.zeros_like(truth), truth, mask, ONE).nrmse, torch.ones(3, 2, dtype=torch.float64), atol=1e-12)


def test_equal_to_torchmetrics_where_every_point_counts_alike() -> None:
    forecast, truth = fields(2)
    found = score(forecast, truth, torch.ones_like(truth, dtype=torch.bool), ONE)
    for b in range(3):
        for c in range(2):
            f, t = forecast[b, :, c].double().reshape(-1), truth[b, :, c].double().reshape(-1)
            assert found.vrmse[b, c].item() == pytest.approx(relative_squared_error(f, t, squared=False).item(), abs=1e-6)
            assert found.rmse[b, c].item() == pytest.approx(mean_squared_error(f, t, squared=False).item(), abs=1e-6)
            expected = normalized_root_mean_squared_error(f, t, normalization="l2").item() * f.numel() ** 0.5
            assert found.nrmse[b, c].item() == pytest.approx(expected, abs=1e-6)
            frames = [
                normalized_root_mean_squared_error(f_, t_, normalization="l2").item() * f_.numel() ** 0.5
                for f_, t_ in zip(forecast[b, :, c].double().flatten(1), truth[b, :, c].double().flatten(1), strict=True)
            ]
            assert found.relative_l2[b, c].item() == pytest.approx(np.mean(frames), abs=1e-6)
            assert found.maximum[b, c].item() == pytest.approx(minkowski_distance(f, t, p=200).item(), rel=0.05)
            assert found.maximum[b, c].item() == (f - t).abs().max().item()


def test_equal_to_numpy_with_gaps_and_weights_and_blind_to_what_lies_in_a_gap() -> None:
    forecast, truth = fields(3)
    mask = torch.rand(truth.shape, generator=torch.Generator().manual_seed(4)) > 0.3
    weight = torch.rand(3, 1, 1, 1, 5, 6, generator=torch.Generator().manual_seed(5)) + 0.1
    found = score(forecast, truth, mask, weight)
    curve = vrmse_by_frame(forecast, truth, mask, weight)
    for b in range(3):
        for c in range(2):
            kept = mask[b, :, c].numpy()
            w = np.broadcast_to(weight[b, :, 0].double().numpy(), kept.shape)
            f, t = forecast[b, :, c].double().numpy(), truth[b, :, c].double().numpy()
            mean = np.average(t[kept], weights=w[kept])
            variance = np.average((t[kept] - mean) ** 2, weights=w[kept])
            mse = np.average((f - t)[kept] ** 2, weights=w[kept])
            assert found.rmse[b, c].item() == pytest.approx(mse**0.5, rel=1e-9)
            assert found.vrmse[b, c].item() == pytest.approx((mse / variance) ** 0.5, rel=1e-9)
            assert found.nrmse[b, c].item() == pytest.approx((mse / np.average(t[kept] ** 2, weights=w[kept])) ** 0.5, rel=1e-9)
            for k in range(4):
                part = np.average((f - t)[k][kept[k]] ** 2, weights=w[k][kept[k]])
                assert curve[b, k, c].item() == pytest.approx((part / variance) ** 0.5, rel=1e-9)
    for poison in (torch.nan, torch.inf, -1e30):
        other = score(torch.where(mask, forecast, poison), torch.where(mask, truth, poison), mask, weight)
        assert all(torch.equal(getattr(other, n), getattr(found, n)) for n in ("rmse", "nrmse", "vrmse", "relative_l2", "maximum"))


def test_area_weights_give_the_integrals_over_the_sphere() -> None:
    """Truth sin(latitude) has mean 0 and variance 1/3 over the sphere; the error cos(latitude) has the mean square 2/3."""
    latitude = (np.arange(720) + 0.5) / 4 - 90
    values = np.broadcast_to(np.sin(np.radians(latitude))[:, None], (2, 1, 1, 720, 2)).astype(np.float32)
    sample = Sample(
        values.copy(),
        np.ones(values.shape, bool),
        (Variable("vorticity", "1"),),
        Time.regular(0, 1, 2),
        Origin("test", "CC0-1.0"),
        geometry="sphere",
        coordinates={
            "latitude": Coordinate(("y",), latitude, "degrees_north"),
            "longitude": Coordinate(("x",), np.array([0.0, 180.0]), "degrees_east"),
        },
    )
    batch = collate([sample], Scales((("identity", 1.0),), (0.0,), (1.0,), (0.0,)))
    truth = batch.values[:, 1:]
    forecast = truth + torch.cos(torch.deg2rad(batch.latitude)).view(1, 1, 1, 1, 720, 2)
    found = score(forecast, truth, batch.valid[:, 1:], batch.weight)
    assert found.rmse.item() == pytest.approx((2 / 3) ** 0.5, rel=1e-5)
    assert found.vrmse.item() == pytest.approx(2**0.5, rel=1e-5)
    plain = score(forecast, truth, batch.valid[:, 1:], ONE)
    assert plain.rmse.item() == pytest.approx(0.5**0.5, rel=1e-5)


def test_undefined_is_nan_and_a_forecast_that_is_not_a_number_is_infinitely_wrong() -> None:
    truth = row(1, 2, 3)
    everything, nothing = torch.ones_like(truth, dtype=torch.bool), torch.zeros_like(truth, dtype=torch.bool)
    assert score(truth, truth, nothing, ONE).rmse.isnan().all()
    constant = row(280.15, 280.15, 280.15)
    found = score(constant + 1, constant, everything, ONE)
    assert found.vrmse.isnan().all()
    assert found.rmse.item() == pytest.approx(1, rel=1e-5)
    for broken in (torch.nan, torch.inf):
        found = score(row(1, 2, broken), truth, everything, ONE)
        assert found.rmse.isinf().all()
        assert found.vrmse.isinf().all()
        assert found.relative_l2.isinf().all()
        assert found.maximum.isinf().all()


def test_a_series_of_one_point_is_scored_against_its_variation_in_time() -> None:
    truth = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1, 1, 1)
    mask = torch.ones_like(truth, dtype=torch.bool)
    assert score(truth + 1, truth, mask, ONE).vrmse.item() == pytest.approx((1 / (2 / 3)) ** 0.5)
    assert vrmse_by_frame(truth + 1, truth, mask, ONE).squeeze().tolist() == pytest.approx([(3 / 2) ** 0.5] * 3)


def test_what_is_scored() -> None:
    def batch_of(steady: bool, frames: int) -> tuple[torch.Tensor, ...]:
        values = np.zeros((frames, 4, 1, 1, 2), np.float32)
        valid = np.ones(values.shape, bool)
        valid[-1, 0, ..., 1] = False
        roles = ("state", "forcing", "static", "diagnostic")
        variables = tuple(Variable(n, "1", r) for n, r in zip("abcd", roles, strict=True))
        sample = Sample(values, valid, variables, Time.regular(0, 1, frames), Origin("t", "CC0-1.0"), steady=steady)
        return (scored(collate([sample], Scales((("identity", 1.0),) * 4, (0.0,) * 4, (1.0,) * 4, (1.0,) * 4))),)

    (mask,) = batch_of(False, 4)
    assert not mask[:, 0].any()
    assert mask[0, 1:, :, 0, 0].any(-1).tolist() == [[True, False, False, True]] * 2
    assert mask[0, -1, 0].squeeze().tolist() == [True, False]
    (mask,) = batch_of(True, 2)
    assert mask[0, 0, :, 0, 0].any(-1).tolist() == [True, False, False, True]


def test_survival_counts_steps_until_the_limit_is_passed() -> None:
    nan, inf = math.nan, math.inf
    curves = torch.tensor([[0.1, 0.5, 0.9], [0.1, 1.0, 1.1], [2.0, 0.1, 0.1], [0.1, nan, 1.5], [nan, nan, nan], [0.2, inf, inf]]).double()
    found = survival(curves[:, :, None])[:, 0].tolist()
    assert found[:4] == [3, 2, 0, 2]
    assert math.isnan(found[4])
    assert found[5] == 1
