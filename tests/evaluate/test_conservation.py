"""Drift of fields whose drift is known."""

from __future__ import annotations

import pytest
import torch

from scigpt.evaluate.conservation import drift

ONE = torch.ones(1, 1, 1, 1, 1)


def test_a_field_that_moves_conserves_and_one_that_decays_does_not() -> None:
    first = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double() + 1
    there = torch.ones(2, 1, 1, 8, 8, dtype=torch.bool)
    moved = torch.cat([first.roll(k, -1) for k in (1, 2, 3)], 1)
    found = drift(first, moved, there, there.expand_as(moved), ONE)
    assert found.mean.abs().max() < 1e-12
    assert found.mean_square.abs().max() < 1e-12
    decayed = torch.cat([first * 0.5**k for k in (1, 2)], 1)
    found = drift(first, decayed, there, there.expand_as(decayed), ONE)
    assert found.mean_square[0].tolist() == pytest.approx([0.25 - 1, 0.0625 - 1])
    share = (first.mean((-3, -2, -1)) / first.square().mean((-3, -2, -1)).sqrt())[0].item()
    assert found.mean[0].tolist() == pytest.approx([-0.5 * share, -0.75 * share])


def test_area_and_validity_count() -> None:
    """Points of weight 1 and 3, a third that is invalid later: (1, 2) becomes (3, 4)."""
    first, later = torch.tensor([1.0, 2.0, 9.0]).view(1, 1, 1, 1, 3), torch.tensor([3.0, 4.0, torch.nan]).view(1, 1, 1, 1, 3)
    weight = torch.tensor([1.0, 3.0, 1.0]).view(1, 1, 1, 1, 3)
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 1, 3)
    found = drift(first, later, torch.ones_like(valid), valid, weight)
    assert found.mean.item() == pytest.approx(2 / (13 / 4) ** 0.5)
    assert found.mean_square.item() == pytest.approx((57 / 4 - 13 / 4) / (13 / 4))


def test_what_cannot_be_told_is_nan_and_a_blown_up_forecast_infinite() -> None:
    first, there = torch.ones(1, 1, 1, 1, 4), torch.ones(1, 1, 1, 1, 4, dtype=torch.bool)
    assert drift(first, first, there, ~there, ONE).mean.isnan().all()
    assert drift(first * 0, first, there, there, ONE).mean.isnan().all()
    assert drift(first, first * torch.nan, there, there, ONE).mean_square.isinf().all()
