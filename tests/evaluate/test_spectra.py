"""Spectra: single modes land where they belong, the sum is the mean square, and scipy finds the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from scigpt.data.sample import Boundary, BoundaryKind, Geometry, Layout, Variable
from scigpt.evaluate.spectra import Accumulator, Spectral


def layout(grid: tuple[int, int, int], geometry: Geometry = "plane", side: BoundaryKind = "periodic") -> Layout:
    return Layout((Variable("density", "1"),), grid, geometry, Boundary(x=(side, side), y=(side, side), z=(side, side)))


def spectral(*arguments: object, frames: int = 1) -> Spectral:
    found = Spectral.of(layout(*arguments), frames)  # type: ignore[arg-type]
    assert found is not None
    return found


def power(how: Spectral, field: Tensor, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Mean power of each bin, of a field `(B, F, Z, Y, X)`."""
    mask = torch.ones_like(field, dtype=torch.bool) if mask is None else mask
    weight = torch.ones(len(field), 1, 1, *field.shape[-2:]) if weight is None else weight
    summed, share = how.power(field, mask, weight)
    return summed.sum(0) / share.sum()


@pytest.mark.parametrize(("ky", "kx", "bin_"), [(0, 1, 1), (3, 4, 5), (5, 0, 5), (7, 7, 10), (0, 16, 16)])
def test_a_single_mode_of_a_plane_lies_in_its_shell(ky: int, kx: int, bin_: int) -> None:
    y, x = np.meshgrid(np.arange(32) / 32, np.arange(32) / 32, indexing="ij")
    field = torch.from_numpy(7 + 3 * np.cos(2 * np.pi * (ky * y + kx * x)))[None, None, None]
    found = power(spectral((1, 32, 32)), field)
    assert found[bin_].item() == pytest.approx(9.0 if kx == 16 else 4.5, rel=1e-12)
    assert found.sum().item() == pytest.approx(found[bin_].item(), rel=1e-12)


def test_axes_of_other_lengths_have_wavenumbers_over_the_longest() -> None:
    y = np.arange(16) / 16
    field = torch.from_numpy(np.repeat(np.cos(2 * np.pi * 3 * y)[:, None], 64, 1))[None, None, None]
    assert power(spectral((1, 16, 64)), field).argmax() == 12


@pytest.mark.parametrize(("grid", "geometry"), [((1, 1, 40), "plane"), ((1, 24, 32), "plane"), ((6, 8, 9), "plane"), ((1, 9, 9), "sphere")])
def test_parseval(grid: tuple[int, int, int], geometry: Geometry) -> None:
    field = torch.randn(2, 3, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    how = spectral(grid, geometry)
    anomaly = field - field.mean(how.axes, keepdim=True)
    assert power(how, field).sum().item() == pytest.approx(anomaly.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("side", ["periodic", "open"])
def test_a_line_is_the_periodogram_of_scipy(side: BoundaryKind) -> None:
    field = torch.randn(2, 3, 1, 1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    window = "boxcar" if side == "periodic" else "hann"
    _, expected = signal.periodogram(field.numpy(), window=window, detrend="constant", scaling="density")
    assert power(spectral((1, 1, 64), "plane", side), field).numpy() == pytest.approx(expected.mean((0, 1, 2, 3)) / 64, rel=1e-9, abs=1e-12)


def test_a_series_is_transformed_along_the_lead_times() -> None:
    t = np.arange(40) / 40
    field = torch.from_numpy(np.cos(2 * np.pi * 10 * t) + 100)[None, :, None, None, None].expand(1, 40, 1, 1, 3)
    how = spectral((1, 1, 3), "points", frames=40)
    assert how.kind == "temporal"
    assert power(how, field).argmax() == 10
    assert Spectral.of(layout((1, 1, 3), "points"), 5) is None
    assert Spectral.of(layout((1, 4, 4)), 40) is None


def test_rows_of_a_sphere_count_by_area_and_rows_without_data_not_at_all() -> None:
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(16) / 16)
    field = torch.stack([wave * 1, wave * 3, wave * 100])[None, None, None].double()
    mask = torch.ones_like(field, dtype=torch.bool)
    mask[..., 2, :] = False
    weight = torch.tensor([1.0, 3.0, 50.0]).view(1, 1, 1, 3, 1).expand(1, 1, 1, 3, 16)
    assert power(spectral((1, 3, 16), "sphere"), field, mask, weight)[2].item() == pytest.approx((0.5 * 1 + 4.5 * 3) / 4, rel=1e-6)


def test_errors_in_bands() -> None:
    """Three modes, one in each band: one right, one too small by half, one shifted by half a wave."""
    x = 2 * torch.pi * torch.arange(64).double() / 64
    truth = (torch.cos(x) + torch.cos(5 * x) + torch.cos(20 * x)).view(1, 1, 1, 1, -1)
    forecast = (torch.cos(x) + 0.5 * torch.cos(5 * x) - torch.cos(20 * x)).view(1, 1, 1, 1, -1)
    how = spectral((1, 1, 64))
    assert how.edges() == pytest.approx([1, 32 ** (1 / 3), 32 ** (2 / 3), 32])
    collected = Accumulator(how)
    collected.add({"model": forecast, "flat": truth * 0}, truth, torch.ones_like(truth, dtype=torch.bool), torch.ones(1, 1, 1, 1, 64))
    found = collected.result(("model",))
    assert found is not None
    bands = found["methods"]["model"]["bands"]
    assert [bands[b]["error"] for b in ("low", "mid", "high")] == pytest.approx([0, 0.5, 2], abs=1e-6)
    assert [bands[b]["power_ratio"] for b in ("low", "mid", "high")] == pytest.approx([1, 0.25, 1], abs=1e-6)
    assert [b["error"] for b in found["methods"]["flat"]["bands"].values()] == pytest.approx([1, 1, 1])
    assert "power" not in found["methods"]["flat"]
    assert len(found["truth"]) == 33
