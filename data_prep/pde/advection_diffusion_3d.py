"""Advection and diffusion of a substance by a steady uniform wind in a periodic cube, solved exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde import box
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.source import Description


def solve(start: np.ndarray, wind: Sequence[float] | np.ndarray, diffusivity: float, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """`c_t + wind . grad c = diffusivity lap c` on the periodic unit cube, exact for the modes below the grid's Nyquist wavenumber.

    `c_hat(t) = c_hat(0) exp(-(4 pi^2 diffusivity |k|^2 + 2 pi i k . wind) t)`; the modes at Nyquist, which cannot move, are removed.

    Args:
        start: float64 `(n, n, n)`, axes z, y, x; n even.
        wind: components along x, y and z.
        times: any.

    Returns:
        concentration `(len(times), n, n, n)`.
    """
    n = start.shape[-1]
    k = box.wavenumbers(n)
    decay = 4 * np.pi**2 * diffusivity * (k**2).sum(axis=0) + 2j * np.pi * np.tensordot(np.asarray(wind, np.float64), k, 1)
    modes = box.forward(start) * box.below_nyquist(n)
    return np.stack([box.backward(modes * np.exp(-decay * t)) for t in times])


def random_cloud(rng: np.random.Generator, n: int, peak: float) -> np.ndarray:
    """A Gaussian random field `(n, n, n)` without mean and of unit standard deviation, of spectrum `k^4 exp(-2 (k / peak)^2)`.

    The same stream gives the same field on every grid that resolves it (wavenumbers up to three times the peak).
    """
    m = 2 * math.ceil(3 * peak) + 2
    k = np.sqrt((box.wavenumbers(m) ** 2).sum(axis=0))
    modes = k * np.exp(-((k / peak) ** 2)) * box.below_nyquist(m) * box.forward(rng.standard_normal((m, m, m)))
    field = box.backward(modes)
    return box.resample(field / field.std(), n)


@dataclass(frozen=True)
class AdvectionDiffusion3DOptions(SimulatorOptions):
    """Options of the corpus, on the unit cube.

    The wind has a uniform direction and a speed uniform in [0, speed]; the concentration starts with unit standard deviation about a mean
    uniform in [-1, 1].

    Args:
        grid: cells along x, y and z, even.
        frames, step: number of frames and the time between them.
        peak: wavenumber at which the initial spectrum is largest.
        speed: largest speed of the wind.
        diffusivity_low, diffusivity_high: range of the log-uniform diffusivity of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    grid: int = 32
    frames: int = 16
    step: float = 0.1
    peak: float = 3.0
    speed: float = 1.0
    diffusivity_low: float = 2.5e-4
    diffusivity_high: float = 2e-3
    ood_low: float = 2e-3
    ood_high: float = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 8 and self.grid % 2 == 0, f"option grid={self.grid}: expected an even number of at least 8")
        require(1 <= self.peak <= self.grid / 8, f"option peak={self.peak}: expected 1 to {self.grid / 8:g}, an eighth of the grid")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        require(0 < self.step < np.inf, f"option step={self.step}: expected a positive number")
        require(0 <= self.speed < np.inf, f"option speed={self.speed}: expected 0 or more")
        require_ranges(self, "diffusivity")


class AdvectionDiffusion3D(Simulator):
    """Trajectories of a cloud that drifts and spreads, each with its own start, wind and diffusivity."""

    name = "advection-diffusion-3d"
    Options = AdvectionDiffusion3DOptions
    options: AdvectionDiffusion3DOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "3-D advection and diffusion in a box, periodic, exact", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"diffusivity {o.diffusivity_low:g} to {o.diffusivity_high:g}", f"diffusivity {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return 4 * self.options.frames * self.options.grid**3 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.diffusivity_low, o.diffusivity_high)
        diffusivity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        direction = rng.standard_normal(3)
        wind = rng.uniform(0, o.speed) * direction / np.linalg.norm(direction)
        mean = rng.uniform(-1, 1)

        time = Time.regular(0.0, o.step, o.frames)
        values = solve(mean + random_cloud(rng, o.grid, o.peak), wind, diffusivity, time.seconds)[:, None].astype(np.float32)
        axis = np.arange(o.grid) / o.grid
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=(Variable("concentration", "1"),),
            time=time,
            origin=Origin(self.name, LICENCE, place=place),
            boundary=Boundary(z=("periodic", "periodic"), y=("periodic", "periodic"), x=("periodic", "periodic")),
            coordinates={a: Coordinate((a,), axis, "1") for a in "zyx"},
            coefficients={"diffusivity": diffusivity, **{f"advection_{a}": float(w) for a, w in zip("xyz", wind, strict=True)}},
        )
