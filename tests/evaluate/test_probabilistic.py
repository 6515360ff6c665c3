"""Probabilistic scores against integrals of their definitions, torchmetrics, closed forms and forecasts reliable by construction."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from torch import Tensor
from torchmetrics.functional.regression import continuous_ranked_probability_score

from scigpt.errors import UserError
from scigpt.evaluate.metrics import score
from scigpt.evaluate.probabilistic import (
    calibration,
    coverage,
    crps,
    crps_ensemble,
    crps_gaussian,
    crps_quantiles,
    pit_histogram,
    rank_histogram,
    spread_skill,
)
from scigpt.model.heads import Ensemble, Gaussian, Point, Quantiles

ONE = torch.ones(1, 1, 1, 1, 1, 1)
SHAPE = (2, 3, 2, 1, 4, 5)


def row(*values: float) -> Tensor:
    """One window, one frame, one variable along X."""
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 1, 1, -1)


def everywhere(truth: Tensor) -> Tensor:
    return torch.ones_like(truth, dtype=torch.bool)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standard(count: int) -> tuple[Gaussian, Tensor]:
    """A standard normal forecast of a truth that has its very quantiles."""
    truth = torch.from_numpy(stats.norm.ppf((np.arange(count) + 0.5) / count)).view(1, 1, 1, 1, 1, -1)
    return Gaussian(torch.zeros_like(truth), torch.zeros_like(truth)), truth


@pytest.mark.parametrize("truth", [-2.0, 0.0, 0.3, 1.7, 5.0])
def test_crps_of_an_ensemble_is_the_integral_over_its_distribution_function(truth: float) -> None:
    members = np.array([0.3, -1.0, 1.7, 0.3, 2.5])
    edges = np.sort(np.append(members, truth))
    # the integrand is constant between the edges
    steps = [(np.mean(members <= a) - (truth <= a)) ** 2 * (b - a) for a, b in pairwise(edges)]
    stacked = torch.from_numpy(members).view(-1, 1, 1, 1, 1, 1, 1)
    found = crps_ensemble(stacked, row(truth), everywhere(row(truth)), ONE, fair=False)
    assert found.item() == pytest.approx(sum(steps), abs=1e-12)


def test_crps_of_an_ensemble_is_that_of_torchmetrics_and_the_fair_one_that_of_its_pairs() -> None:
    members, truth = draw(1, 7, *SHAPE) * 2 + 280, draw(2, *SHAPE) + 280
    plain = crps_ensemble(members, truth, everywhere(truth), ONE, fair=False)
    fair = crps_ensemble(members, truth, everywhere(truth), ONE)
    for b in range(2):
        for c in range(2):
            x, y = members[:, b, :, c].flatten(1), truth[b, :, c].flatten()
            assert plain[b, c].item() == pytest.approx(continuous_ranked_probability_score(x.T, y).item(), abs=1e-9)
            pairs = sum((x[i] - x[j]).abs().mean() for i in range(7) for j in range(7)) / (2 * 7 * 6)
            assert fair[b, c].item() == pytest.approx(((x - y).abs().mean() - pairs).item(), abs=1e-9)


def test_the_fair_score_does_not_depend_on_the_number_of_members_and_the_plain_one_does() -> None:
    """In expectation: for members and truth alike standard normal it is that of the distribution, 1 / sqrt(pi)."""
    truth, expected = draw(3, 1, 1, 1, 1, 200, 200), 1 / math.sqrt(math.pi)
    for count in (2, 8):
        members = draw(count, count, *truth.shape)
        assert crps_ensemble(members, truth, everywhere(truth), ONE).item() == pytest.approx(expected, abs=0.01)
        plain = crps_ensemble(members, truth, everywhere(truth), ONE, fair=False).item()
        assert plain == pytest.approx(expected * (1 + 1 / count), abs=0.01)


@pytest.mark.parametrize(("mean", "scale", "truth"), [(0.0, 1.0, 0.0), (3.0, 0.5, 4.2), (-1.0, 20.0, 7.0), (280.0, 1.5, 276.0)])
def test_crps_of_a_normal_distribution_is_its_integral(mean: float, scale: float, truth: float) -> None:
    below, _ = quad(lambda x: stats.norm.cdf(x, mean, scale) ** 2, mean - 12 * scale, truth, epsabs=1e-11, limit=200)
    above, _ = quad(lambda x: stats.norm.sf(x, mean, scale) ** 2, truth, mean + 12 * scale, epsabs=1e-11, limit=200)
    found = crps_gaussian(row(mean), row(scale), row(truth), everywhere(row(truth)), ONE).item()
    assert found == pytest.approx(below + above, abs=1e-8)
    distribution = Gaussian(row(mean), row(scale).log())
    assert crps(distribution, row(truth), everywhere(row(truth)), ONE).item() == pytest.approx(found, rel=2e-3)
    many = [(k + 0.5) / 2000 for k in range(2000)]
    assert crps(distribution, row(truth), everywhere(row(truth)), ONE, many).item() == pytest.approx(found, rel=1e-4)


def test_crps_of_a_single_value_is_the_mean_absolute_error() -> None:
    forecast, truth = draw(4, *SHAPE), draw(5, *SHAPE)
    weight = draw(6, 2, 1, 1, 1, 4, 5).abs() + 0.1
    shares = weight.expand(SHAPE)
    expected = (shares * (forecast - truth).abs()).sum((1, 3, 4, 5)) / shares.sum((1, 3, 4, 5))
    mask = everywhere(truth)
    for found in (
        crps(Point(forecast), truth, mask, weight),
        crps_ensemble(forecast[None], truth, mask, weight, fair=False),
        crps_gaussian(forecast, torch.zeros_like(forecast), truth, mask, weight),
        crps_quantiles([forecast] * 3, [0.1, 0.5, 0.9], truth, mask, weight),
    ):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_crps_of_quantiles_by_hand() -> None:
    # truth 1 over quantiles 0, 2, 3 at .25, .5, .75: pinball losses .25 * 1, .5 * 1, .25 * 2
    found = crps_quantiles([row(0), row(2), row(3)], (0.25, 0.5, 0.75), row(1), everywhere(row(1)), ONE)
    assert found.item() == pytest.approx(2 * 1.25 / 3, abs=1e-12)


def test_spread_and_skill_by_hand_and_equal_for_a_reliable_ensemble() -> None:
    # points with members 0, 2 and 1, 5: variances 2 and 8, times 3 / 2; means 1 and 3 against 2 and 3
    found = spread_skill(torch.stack([row(0, 1), row(2, 5)]), row(2, 3), everywhere(row(2, 3)), ONE)
    assert found.spread.item() == pytest.approx(math.sqrt(1.5 * 5), abs=1e-12)
    assert found.skill.item() == pytest.approx(math.sqrt(0.5), abs=1e-12)
    assert found.ratio.item() == pytest.approx(math.sqrt(15), abs=1e-12)
    signal = 5 * draw(7, 1, 1, 1, 1, 200, 200)
    truth = signal + draw(8, *signal.shape)
    for count in (2, 5):
        members = signal + draw(count + 8, count, *signal.shape)
        assert spread_skill(members, truth, everywhere(truth), ONE).ratio.item() == pytest.approx(1, abs=0.02)
        skill = spread_skill(members, truth, everywhere(truth), ONE).skill
        assert skill.item() == pytest.approx(score(members.mean(0), truth, everywhere(truth), ONE).rmse.item(), rel=1e-12)


def test_coverage_and_calibration_of_a_reliable_forecast_are_the_levels_and_of_one_too_sure_what_the_normal_says() -> None:
    reliable, truth = standard(10000)
    mask, levels = everywhere(truth), (0.1, 0.5, 0.9)
    assert torch.allclose(coverage(reliable, truth, mask, ONE, levels).flatten(), torch.tensor(levels, dtype=torch.float64), atol=2e-4)
    assert torch.allclose(calibration(reliable, truth, mask, ONE, levels).flatten(), torch.tensor(levels, dtype=torch.float64), atol=2e-4)
    sure = Gaussian(reliable.mean, torch.full_like(truth, math.log(0.5)))
    expected = [1 - 2 * stats.norm.sf(0.5 * stats.norm.isf((1 - level) / 2)) for level in levels]
    assert coverage(sure, truth, mask, ONE, levels).flatten().tolist() == pytest.approx(expected, abs=2e-4)
    expected = [stats.norm.cdf(0.5 * stats.norm.ppf(level)) for level in levels]
    assert calibration(sure, truth, mask, ONE, levels).flatten().tolist() == pytest.approx(expected, abs=2e-4)


def test_the_ends_of_an_interval_belong_to_it() -> None:
    found = Quantiles(torch.stack([row(0, 0, 0), row(1, 1, 1), row(2, 2, 2)]), (0.25, 0.5, 0.75))
    truth = row(0, 2, 2.5)
    assert coverage(found, truth, everywhere(truth), ONE, [0.5]).item() == pytest.approx(2 / 3, abs=1e-12)
    assert calibration(found, truth, everywhere(truth), ONE, [0.25, 0.75]).flatten().tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-12)


def test_histograms_are_flat_for_a_reliable_forecast_and_a_u_for_one_too_sure() -> None:
    reliable, truth = standard(10000)
    mask = everywhere(truth)
    assert pit_histogram(reliable, truth, mask, ONE).flatten().tolist() == pytest.approx([0.1] * 10, abs=2e-4)
    sure = pit_histogram(Gaussian(reliable.mean, torch.full_like(truth, -1.0)), truth, mask, ONE, bins=4).flatten()
    expected = np.diff(stats.norm.cdf(math.exp(-1) * stats.norm.ppf([0, 0.25, 0.5, 0.75, 1])))
    assert sure.tolist() == pytest.approx(expected, abs=2e-4)
    truth = draw(11, 1, 1, 1, 1, 200, 200)
    members = draw(12, 4, *truth.shape)
    found = rank_histogram(members, truth, everywhere(truth), ONE).flatten()
    assert found.tolist() == pytest.approx([0.2] * 5, abs=0.01)
    narrow = rank_histogram(0.3 * members, truth, everywhere(truth), ONE).flatten()
    assert narrow[0] > 0.3 < narrow[4]


def test_ranks_by_hand_with_ties() -> None:
    # of members 0, 1, 1 the truth -1 has rank 0, 2 rank 3, 1 any of 1, 2, 3
    truth = row(-1, 2, 1)
    members = torch.stack([row(0, 0, 0), row(1, 1, 1), row(1, 1, 1)])
    found = rank_histogram(members, truth, everywhere(truth), ONE).flatten()
    assert found.tolist() == pytest.approx([3 / 9, 1 / 9, 1 / 9, 4 / 9], abs=1e-12)


@given(seed=st.integers(0, 1000), count=st.integers(2, 5), kept=st.floats(0.2, 0.9), poison=st.sampled_from([math.nan, math.inf, -1e30]))
def test_what_lies_in_a_gap_changes_nothing_and_shares_sum_to_one(seed: int, count: int, kept: float, poison: float) -> None:
    members, truth = draw(seed, count, *SHAPE), draw(seed + 1, *SHAPE)
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) < kept
    mask[0, :, 0] = False
    weight = draw(seed + 2, 2, 1, 1, 1, 4, 5).abs() + 0.1

    def everything(members: Tensor, truth: Tensor) -> dict[str, Tensor]:
        ensemble = Ensemble(members)
        spread = spread_skill(members, truth, mask, weight)
        return {
            "fair": crps_ensemble(members, truth, mask, weight),
            "plain": crps_ensemble(members, truth, mask, weight, fair=False),
            "gaussian": crps_gaussian(members[0], members[1].exp(), truth, mask, weight),
            "quantiles": crps(ensemble, truth, mask, weight, [0.25, 0.75]),
            "spread": spread.spread,
            "ratio": spread.ratio,
            "coverage": coverage(ensemble, truth, mask, weight, [0.5]),
            "calibration": calibration(ensemble, truth, mask, weight, [0.5]),
            "pit": pit_histogram(ensemble, truth, mask, weight, bins=3),
            "rank": rank_histogram(members, truth, mask, weight),
        }

    found = everything(members, truth)
    other = everything(torch.where(mask, members, poison), torch.where(mask, truth, poison))
    for name, values in found.items():
        assert values.shape[-2:] == (2, 2), name
        assert values.dtype == torch.float64, name
        assert torch.equal(values.nan_to_num(-7), other[name].nan_to_num(-7)), name
        defined = mask.any(-1).any(-1).any(-1).any(1)
        assert torch.equal(~values.isnan(), defined.expand_as(values)), name
    for name, bins in (("pit", 3), ("rank", count + 1)):
        assert found[name].shape == (bins, 2, 2)
        assert torch.allclose(found[name].sum(0).nan_to_num(1.0), torch.ones(2, 2, dtype=torch.float64))
    assert bool((found["plain"].nan_to_num(1.0) >= 0).all())


def test_weights_and_frames_give_the_weighted_mean_of_the_points() -> None:
    members, truth = draw(20, 4, *SHAPE), draw(21, *SHAPE)
    mask, weight = draw(22, *SHAPE) > -0.5, draw(23, 2, 1, 1, 1, 4, 5).abs()
    found = crps_ensemble(members, truth, mask, weight, fair=False)
    counts = rank_histogram(members, truth, mask, weight)
    for b in range(2):
        for c in range(2):
            kept = mask[b, :, c].numpy()
            x, y = members[:, b, :, c].numpy()[:, kept], truth[b, :, c].numpy()[kept]
            w = np.broadcast_to(weight[b, :, 0].numpy(), kept.shape)[kept]
            each = np.abs(x - y).mean(0) - np.abs(x[:, None] - x[None]).mean((0, 1)) / 2
            assert found[b, c].item() == pytest.approx(np.average(each, weights=w), abs=1e-12)
            expected = np.bincount((x < y).sum(0), w, minlength=5) / w.sum()
            assert counts[:, b, c].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_forecast_that_is_not_a_number_is_infinitely_wrong(broken: float) -> None:
    truth = row(1, 2)
    members = torch.stack([row(1, 2), row(1, broken)])
    mask = everywhere(truth)
    assert crps_ensemble(members, truth, mask, ONE).item() == math.inf
    assert crps_gaussian(row(1, broken), row(1, 1), truth, mask, ONE).item() == math.inf
    assert crps_gaussian(row(1, 1), row(1, broken), truth, mask, ONE).item() == math.inf
    assert crps(Point(row(1, broken)), truth, mask, ONE).item() == math.inf
    assert spread_skill(members, truth, mask, ONE).skill.item() == math.inf
    assert coverage(Point(row(1, broken)), truth, mask, ONE, [0.5]).item() == 0.5


def test_what_has_no_score_is_refused() -> None:
    truth = row(1, 2)
    mask = everywhere(truth)
    for wrong in (crps_ensemble, spread_skill):
        with pytest.raises(UserError, match="2 or more members"):
            wrong(truth[None], truth, mask, ONE)
    for levels in ([], [0.0, 0.5], [1.5]):
        with pytest.raises(UserError, match="between 0 and 1"):
            coverage(Point(truth), truth, mask, ONE, levels)
    with pytest.raises(UserError, match="2 or more"):
        pit_histogram(Point(truth), truth, mask, ONE, bins=1)
