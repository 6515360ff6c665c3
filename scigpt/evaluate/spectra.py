"""Power spectra of truth, forecast and error, and the error in three bands of wavenumber.

A spectrum says at which scales a forecast is right. Which one is taken depends on the grid:

- `isotropic`: planes and volumes; the power of all modes in the shell of unit width about k (axes are taken to be spaced alike);
- `line`: one axis;
- `zonal`: latitude-longitude grids; along each row, rows weighted by their area;
- `temporal`: series and stations, along the lead times of a rollout.

Wavenumbers count cycles over the longest axis, so `k = n / 2` is the Nyquist wavenumber of its n points. The power is that of the anomaly
from the mean along the transformed axes, invalid points entering as zero anomaly in truth and forecast alike; on an axis that is not
periodic a Hann window (scaled to a mean square of 1) is laid over it. The sum over all bins is the mean square of what was transformed
(Parseval).

Bands follow The Well (arXiv:2412.00568, binned spectral error, `the_well/benchmark/metrics/spectral.py`): from k = 1 to n / 2, cut into
three equal parts of log k. The error of a band is the root of the power of (forecast - truth) over that of the truth: 0 is perfect, 1 is as
bad as having nothing there. It sees a wrong phase; the ratio of the powers of forecast and truth beside it sees a wrong amplitude (below
1: smeared out).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scigpt.data.sample import SPACE_AXES, Layout

Kind = Literal["isotropic", "line", "zonal", "temporal"]

BANDS = ("low", "mid", "high")
LEAST = 8
"""Points along the longest axis below which there are no three bands."""
_TIME = -4


@dataclass(frozen=True, slots=True)
class Spectral:
    """How the spectrum of a field `(B, F, Z, Y, X)` is taken: along which axes (negative), which are periodic, points of the longest."""

    kind: Kind
    axes: tuple[int, ...]
    periodic: tuple[bool, ...]
    points: int

    @classmethod
    def of(cls, layout: Layout, frames: int) -> Spectral | None:
        """For `frames` consecutive frames; None where too few points lie along every axis."""
        kind: Kind
        grid = layout.grid
        wide = [i - 3 for i, n in enumerate(grid) if n > 1]
        if layout.geometry == "points" or not wide:
            return cls("temporal", (_TIME,), (False,), frames) if frames >= LEAST and not layout.steady else None
        if layout.geometry == "sphere":
            kind, axes = "zonal", [-1]
        else:
            kind, axes = ("line" if len(wide) == 1 else "isotropic"), wide
        points = max(grid[a] for a in axes)
        if points < LEAST:
            return None
        periodic = tuple(getattr(layout.boundary, SPACE_AXES[a])[0] == "periodic" for a in axes)
        return cls(kind, tuple(axes), periodic, points)

    def power(self, field: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Power in each bin of wavenumber, float64 `(B, K)`, summed over what is not transformed, and the weight `(B,)` of that sum.

        Args:
            field: `(B, F, Z, Y, X)`; mask: bool, the same shape. weight: area of the points, `(B, 1, 1, Y, X)`.
        """
        shares = mask.double()
        values = torch.where(mask, field.double(), 0.0)
        count = shares.sum(self.axes, keepdim=True)
        values = torch.where(mask, values - values.sum(self.axes, keepdim=True) / count.clamp(min=1), 0.0)
        for axis, periodic in zip(self.axes, self.periodic, strict=True):
            if not periodic:
                values = values * _hann(values.shape[axis], values).view([-1] + [1] * (-1 - axis))
        size = math.prod(values.shape[a] for a in self.axes)
        modes = torch.fft.fftn(values, dim=self.axes).abs().square() / size**2
        last = [modes.ndim + a for a in self.axes]
        rest = [i for i in range(1, modes.ndim) if i not in last]
        present = torch.where(count > 0, weight.double().mean(self.axes, keepdim=True) if self.kind == "zonal" else 1.0, 0.0)
        modes = (modes * present).sum(rest).flatten(1)
        bins = self._bins([values.shape[a] for a in self.axes]).to(modes.device)
        summed = torch.zeros(len(modes), int(bins.max()) + 1, dtype=torch.float64, device=modes.device).index_add_(1, bins, modes)
        return summed, present.sum((1, 2, 3, 4))

    def edges(self) -> list[float]:
        """The four edges of the three bands, in cycles over the longest axis."""
        return np.geomspace(1.0, self.points / 2, len(BANDS) + 1).round(9).tolist()

    def band_power(self, power: np.ndarray) -> np.ndarray:
        """Sum of the power in each band `(3,)`, from that in the bins k = 0, 1, 2, ...; each band begins at its lower edge."""
        edges, k = self.edges(), np.arange(len(power))
        band = np.searchsorted(edges[1:-1], k, side="right")
        inside = (k >= edges[0]) & (k <= edges[-1])
        return np.array([power[inside & (band == i)].sum() for i in range(len(BANDS))])

    def _bins(self, shape: list[int]) -> Tensor:
        """The bin of each mode, int64, flattened."""
        squares = torch.zeros(shape, dtype=torch.float64)
        for i, n in enumerate(shape):
            squares += torch.fft.fftfreq(n, dtype=torch.float64).square().view([-1] + [1] * (len(shape) - 1 - i))
        return (squares.sqrt() * self.points).round().to(torch.int64).flatten()


class Accumulator:
    """Mean spectra over many windows: of the truth, and for each method of its forecast and its error."""

    def __init__(self, spectral: Spectral) -> None:
        self.spectral = spectral
        self._truth: list[np.ndarray] = []
        self._weight: list[np.ndarray] = []
        self._methods: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}

    def add(self, forecasts: Mapping[str, Tensor], truth: Tensor, mask: Tensor, weight: Tensor) -> None:
        """One batch of a variable; arguments `(B, F, Z, Y, X)` as in `Spectral.power`."""
        power, share = self.spectral.power(truth, mask, weight)
        self._truth.append(power.cpu().numpy())
        self._weight.append(share.cpu().numpy())
        for name, forecast in forecasts.items():
            into = self._methods.setdefault(name, ([], []))
            for collected, field in zip(into, (forecast, forecast.double() - truth.double()), strict=True):
                # what is not a number has no spectrum, and is infinitely wrong
                found = self.spectral.power(field, mask, weight)[0].cpu().numpy()
                collected.append(np.where(np.isnan(found), np.inf, found))

    def result(self, drawn: Collection[str]) -> dict[str, Any] | None:
        """Numbers for `results.json`, curves of the methods `drawn` only; None where nothing was valid."""
        total = np.concatenate(self._weight).sum()
        if total == 0:
            return None

        def mean(parts: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(parts).sum(0) / total

        truth, shown = mean(self._truth), self.spectral.points // 2 + 1  # beyond lie the corners of the square of modes
        below = self.spectral.band_power(truth)
        methods: dict[str, Any] = {}
        for name, (forecast, error) in self._methods.items():
            curves = [mean(forecast), mean(error)]
            above = [self.spectral.band_power(c) for c in curves]
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.where(below > 0, np.array(above) / below, np.nan)
            bands = {b: {"error": float(np.sqrt(shares[1, i])), "power_ratio": float(shares[0, i])} for i, b in enumerate(BANDS)}
            whole = {"power": curves[0][:shown].tolist(), "error": curves[1][:shown].tolist()} if name in drawn else {}
            methods[name] = {"bands": bands, **whole}
        return {"truth": truth[:shown].tolist(), "methods": methods}


def _hann(n: int, like: Tensor) -> Tensor:
    window = torch.hann_window(n, periodic=True, dtype=like.dtype, device=like.device)
    return window / window.square().mean().sqrt()
