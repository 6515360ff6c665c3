"""PSNR, SSIM and RFNE against torchmetrics, hand-computed cases and a direct sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from scigpt.evaluate.images import psnr, rfne, ssim
from scigpt.evaluate.metrics import score


def fields(seed: int, shape: tuple[int, ...] = (2, 3, 2, 1, 14, 17), mean: float = 7.0) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and a mask without a gap."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(-1) + mean
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return truth + noise, truth, torch.ones(shape, dtype=torch.bool)


@pytest.mark.parametrize("mean", [0.0, 280.0])
def test_equal_to_torchmetrics(mean: float) -> None:
    prediction, truth, mask = fields(1, mean=mean)
    ratio, similarity = psnr(prediction, truth, mask), ssim(prediction, truth, mask)
    for b in range(2):
        for c in range(2):
            decibels, similarities = [], []
            for v, u in zip(prediction[b, :, c], truth[b, :, c], strict=True):
                extent = (u.max() - u.min()).item()
                decibels.append(peak_signal_noise_ratio(v, u, data_range=extent).item())
                _, full = structural_similarity_index_measure(v[None], u[None], data_range=extent, return_full_image=True)
                # theirs reflects the field at its sides; inside that makes no difference
                similarities.append(full[..., 5:-5, 5:-5].mean().item())
            # theirs takes the logarithms of the range and of the base in float32
            assert ratio[b, c].item() == pytest.approx(np.mean(decibels), rel=1e-6)
            assert similarity[b, c].item() == pytest.approx(np.mean(similarities), abs=1e-6)


def test_ssim_of_one_window_is_its_formula() -> None:
    """A field of 11 x 11 points has one place for the window."""
    prediction, truth, mask = fields(2, (1, 1, 1, 1, 11, 11))
    v, u = prediction.numpy().reshape(11, 11), truth.numpy().reshape(11, 11)
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    w = np.outer(line, line) / np.outer(line, line).sum()
    mean_u, mean_v = (w * u).sum(), (w * v).sum()
    var_u, var_v = (w * (u - mean_u) ** 2).sum(), (w * (v - mean_v) ** 2).sum()
    together = (w * (u - mean_u) * (v - mean_v)).sum()
    c1, c2 = (0.01 * np.ptp(u)) ** 2, (0.03 * np.ptp(u)) ** 2
    expected = (2 * mean_u * mean_v + c1) * (2 * together + c2) / ((mean_u**2 + mean_v**2 + c1) * (var_u + var_v + c2))
    assert ssim(prediction, truth, mask).item() == pytest.approx(expected, abs=1e-12)


def test_psnr_and_rfne_by_hand() -> None:
    # frames [0, 3, 4 | gap] and [1, 1, 3 | gap], errors [0, 0, 1] and [2, 0, 0]
    truth = torch.tensor([[0.0, 3.0, 4.0, 99.0], [1.0, 1.0, 3.0, 99.0]]).view(1, 2, 1, 1, 1, 4)
    prediction = torch.tensor([[0.0, 3.0, 5.0, -99.0], [3.0, 1.0, 3.0, -99.0]]).view(1, 2, 1, 1, 1, 4)
    mask = torch.tensor([True, True, True, False]).expand(truth.shape)
    first, second = 10 * math.log10(16 / (1 / 3)), 10 * math.log10(4 / (4 / 3))
    assert psnr(prediction, truth, mask).item() == pytest.approx((first + second) / 2, abs=1e-12)
    assert rfne(prediction, truth, mask).item() == pytest.approx((1 / 5 + 2 / math.sqrt(11)) / 2, abs=1e-12)
    assert ssim(prediction, truth, mask).isnan().all()


def test_rfne_is_the_relative_error_without_area_weights_and_that_of_numpy() -> None:
    prediction, truth, mask = fields(3)
    found = rfne(prediction, truth, mask)
    assert torch.allclose(found, score(prediction, truth, mask, torch.ones(1, 1, 1, 1, 1, 1)).relative_l2, rtol=1e-12)
    v, u = prediction[1, :, 0, 0].numpy(), truth[1, :, 0, 0].numpy()
    expected = [np.linalg.norm(a - b, "fro") / np.linalg.norm(b, "fro") for a, b in zip(v, u, strict=True)]
    assert found[1, 0].item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_perfect_prediction_and_the_same_in_another_unit() -> None:
    prediction, truth, mask = fields(4)
    assert bool((psnr(truth, truth, mask) == math.inf).all())
    assert bool((rfne(truth, truth, mask) == 0).all())
    assert torch.allclose(ssim(truth, truth, mask), torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    for metric in (psnr, rfne, ssim):
        assert torch.allclose(metric(1e4 * prediction, 1e4 * truth, mask), metric(prediction, truth, mask), rtol=1e-9)


def test_slices_of_a_volume_are_averaged_with_the_range_of_the_volume() -> None:
    prediction, truth, mask = fields(5, (1, 1, 1, 3, 12, 13))
    extent = (truth.max() - truth.min()).item()
    _, full = structural_similarity_index_measure(
        prediction[0, 0, 0][:, None], truth[0, 0, 0][:, None], data_range=extent, return_full_image=True
    )
    assert ssim(prediction, truth, mask).item() == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-6)
    mask[..., 1, 4, 4] = False
    assert ssim(prediction, truth, mask).item() == pytest.approx(full[[0, 2], :, 5:-5, 5:-5].mean().item(), abs=1e-6)


def test_undefined_is_nan() -> None:
    prediction, truth, mask = fields(6, (1, 2, 3, 1, 12, 12))
    truth[:, :, 1] = 280.15
    mask[:, 1, 0, :, 3, 3] = False
    mask[:, :, 2] = False
    for metric in (psnr, ssim):
        assert metric(prediction, truth, mask).isnan().tolist() == [[False, True, True]]
    assert rfne(prediction, truth, mask).isnan().tolist() == [[False, False, True]]
    # the frame with a gap has no SSIM, the other one has
    assert torch.equal(ssim(prediction, truth, mask)[:, 0], ssim(prediction[:, :1], truth[:, :1], mask[:, :1])[:, 0])
    zero = torch.zeros_like(truth)
    assert rfne(prediction, zero, mask).isnan().all()
    for shape in ((1, 1, 1, 1, 10, 40), (1, 1, 1, 1, 1, 40), (1, 1, 1, 12, 1, 12)):
        assert ssim(*fields(7, shape)).isnan().all()


@given(seed=st.integers(0, 1000), poison=st.sampled_from([math.nan, math.inf, -1e30]), depth=st.integers(1, 2), wide=st.integers(9, 13))
def test_what_lies_in_a_gap_changes_nothing(seed: int, poison: float, depth: int, wide: int) -> None:
    prediction, truth, mask = fields(seed, (2, 3, 2, depth, 12, wide))
    # gaps in the second frame, nothing valid in the third
    mask[:, 1] = torch.rand(mask[:, 1].shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    mask[:, 2] = False
    for metric in (psnr, rfne, ssim):
        found = metric(prediction, truth, mask)
        assert found.shape == (2, 2)
        assert found.dtype == torch.float64
        assert bool(found.isnan().all()) == (metric is ssim and wide < 11)
        other = metric(torch.where(mask, prediction, poison), torch.where(mask, truth, poison), mask)
        assert torch.equal(found.nan_to_num(-7), other.nan_to_num(-7))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_not_a_number_is_as_bad_as_can_be(broken: float) -> None:
    _, truth, mask = fields(8, (1, 2, 1, 1, 12, 40))
    prediction = truth.clone()
    prediction[0, 1, 0, 0, 0, 0] = broken
    assert psnr(prediction, truth, mask).item() == -math.inf
    assert rfne(prediction, truth, mask).item() == math.inf
    assert ssim(prediction, truth, mask).item() == pytest.approx(0, abs=1e-12)  # the mean of 1 and -1
