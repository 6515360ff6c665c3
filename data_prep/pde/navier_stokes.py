"""Decaying two-dimensional turbulence: the incompressible Navier-Stokes equations on a periodic box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import fft

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.spectral import resample, wavenumbers
from scigpt.data_prep.pde.stepping import intervals_between
from scigpt.data_prep.source import Description

SIDE = 2 * np.pi
COURANT = 1.0
"""Below 4/3 the step is stable (Runge-Kutta 4 on the imaginary axis, dealiased); the margin is for speeds that grow. The error in
time then stays far below the error in space."""


def velocity(vorticity: np.ndarray) -> np.ndarray:
    """The velocity without divergence and mean whose curl is the vorticity `(..., n, n)`: `(..., 2, n, n)`, x component first."""
    n = vorticity.shape[-1]
    return fft.irfft2(_to_velocity(n) * fft.rfft2(vorticity)[..., None, :, :], s=(n, n))


def simulate(vorticity: np.ndarray, viscosity: float, times: Sequence[float] | np.ndarray, courant: float = COURANT) -> np.ndarray:
    """Solve `w_t + u w_x + v w_y = viscosity (w_xx + w_yy)`, `w = v_x - u_y`, `u_x + v_y = 0` on the periodic box [0, 2 pi)^2.

    Fourier-Galerkin in space: products are formed on the grid and every mode at or above n / 3 is removed (Orszag's 2/3 rule), which makes
    them exact: without viscosity only the step in time changes energy and enstrophy. The advection `u w_x + v w_y` is formed as
    `(d_xx - d_yy)(u v) + d_xy (v^2 - u^2)` (Basdevant 1983: four transforms instead of five). In time, fourth-order Runge-Kutta
    with viscosity by an exact integrating factor.

    Args:
        vorticity: float64 `(n, n)` at time 0, y first; n even.
        viscosity: 0 or more.
        times: when to return the field, increasing, the first 0 or later.
        courant: each interval between times is cut into equal steps no longer than courant * (2 pi / n) / max(|u| + |v|) at time 0.

    Returns:
        vorticity `(len(times), n, n)`.

    Raises:
        ValueError: a shape, viscosity or list of times that cannot be.
    """
    return advance(vorticity[None], np.array([viscosity]), times, courant)[:, 0]


def advance(fields: np.ndarray, diffusivity: np.ndarray, times: Sequence[float] | np.ndarray, courant: float = COURANT) -> np.ndarray:
    """`simulate` for the vorticity `fields[0]` and any number of scalars `fields[1:]` that the flow carries: `(len(times), *fields.shape)`.

    A scalar c follows `c_t + u c_x + v c_y = D (c_xx + c_yy)`, with `D` its entry of `diffusivity` (of the vorticity: the viscosity).

    Raises:
        ValueError: a shape, diffusivity or list of times that cannot be.
    """
    n = fields.shape[-1]
    if fields.ndim != 3 or fields.shape[1] != n or n % 2:
        raise ValueError(f"a field has the shape {fields.shape[1:]}; expected (n, n) with n even")
    if diffusivity.min() < 0:
        raise ValueError("viscosity and diffusivity must not be negative")

    kx, ky = wavenumbers(n)
    keep = (np.abs(kx) < n / 3) & (np.abs(ky) < n / 3)
    to_velocity = _to_velocity(n) * keep
    cross, straight = -kx * ky * keep, (kx**2 - ky**2) * keep
    divergence_x, divergence_y = -1j * kx * keep, -1j * ky * keep

    def rate(state: np.ndarray) -> np.ndarray:
        out = np.empty_like(state)
        u, v = fft.irfft2(to_velocity * state[0], s=(n, n))
        squares, product = fft.rfft2(np.stack([(u + v) * (u - v), u * v]))
        out[0] = cross * squares + straight * product
        for i, c in enumerate(fft.irfft2(state[1:], s=(n, n)), 1):
            flux_x, flux_y = fft.rfft2(np.stack([u * c, v * c]))
            out[i] = divergence_x * flux_x + divergence_y * flux_y
        return out

    w = fft.rfft2(fields) * keep
    speed = np.abs(fft.irfft2(to_velocity * w[0], s=(n, n))).sum(axis=0).max()
    frames = np.empty((len(times), *fields.shape))
    for i, interval in enumerate(intervals_between(times)):
        steps = max(1, math.ceil(interval * speed / (courant * SIDE / n)))
        dt = interval / steps
        half = np.exp(-diffusivity[:, None, None] * (kx**2 + ky**2) * dt / 2)
        full = half * half
        for _ in range(steps):
            r1 = rate(w)
            r2 = rate(half * (w + dt / 2 * r1))
            r3 = rate(half * w + dt / 2 * r2)
            r4 = rate(full * w + dt * half * r3)
            w = full * (w + dt / 6 * r1) + dt / 3 * half * (r2 + r3) + dt / 6 * r4
        frames[i] = fft.irfft2(w, s=(n, n))
    assert np.isfinite(frames).all(), "the time step was unstable"
    return frames


def random_vorticity(rng: np.random.Generator, n: int, peak: float, speed: float) -> np.ndarray:
    """A Gaussian random field of vorticity `(n, n)` with the energy spectrum `E(k) ~ k^4 exp(-2 (k / peak)^2)`, largest at k = peak.

    The same stream gives the same field on every grid that resolves it (wavenumbers up to three times the peak).

    Args:
        speed: root mean square of the velocity, exact.
    """
    m = 2 * math.ceil(3 * peak) + 2
    k = np.hypot(*wavenumbers(m))
    shape = k**2.5 * np.exp(-((k / peak) ** 2))
    vorticity = resample(fft.irfft2(shape * fft.rfft2(rng.standard_normal((m, m))), s=(m, m)), n)
    return vorticity * (speed / np.sqrt(2 * np.mean(velocity(vorticity) ** 2)))


def resolving_grid(vorticity: np.ndarray, viscosity: float, resolution: float) -> int:
    """The smallest fast even n whose largest wavenumber n / 3 is `resolution` times the dissipation wavenumber sqrt(rms(w) / viscosity)."""
    n = math.ceil(3 * resolution * np.sqrt(np.sqrt(np.mean(vorticity**2)) / viscosity))
    while n % 2 or fft.next_fast_len(n, real=True) != n:
        n += 1
    return n


def _to_velocity(n: int) -> np.ndarray:
    """Multiplier `(2, n, n // 2 + 1)` from the modes of vorticity to those of velocity; the Nyquist modes have no derivative."""
    kx, ky = wavenumbers(n)
    inverse = 1 / np.where(kx**2 + ky**2 == 0, 1, kx**2 + ky**2)
    inverse *= (np.abs(kx) < n / 2) & (np.abs(ky) < n / 2)
    return np.stack([1j * ky * inverse, -1j * kx * inverse])


def require_flow(options: Any) -> None:
    """The checks of what every decaying flow has: grid, peak, frames, step, resolution, warmup, spread."""
    require(options.grid >= 16 and options.grid % 2 == 0, f"option grid={options.grid}: expected an even number of at least 16")
    require(1 <= options.peak <= options.grid / 8, f"option peak={options.peak}: expected 1 to {options.grid / 8:g}, an eighth of the grid")
    require(options.frames >= 1, f"option frames={options.frames}: expected 1 or more")
    for name in ("step", "resolution"):
        require(0 < getattr(options, name) < np.inf, f"option {name}={getattr(options, name)}: expected a positive number")
    require(0 <= options.warmup < np.inf, f"option warmup={options.warmup}: expected 0 or more")
    require(1 <= options.spread < np.inf, f"option spread={options.spread}: expected 1 or more")


@dataclass(frozen=True)
class NavierStokesOptions(SimulatorOptions):
    """Options of the Navier-Stokes corpus. The unit of time is that in which the largest eddies turn about once.

    Precisely: the turnover time is that of crossing a wavelength of the spectrum's peak (a pair of eddies) at the root mean square of
    the initial velocity, `(2 pi / peak) / u_rms`. It is 1 / amplitude, the amplitude log-uniform in [1 / spread, spread].

    Args:
        grid: cells along x and y of what is stored, even. A trajectory with fine structure is solved on a finer grid, and its modes below
            the Nyquist wavenumber of this one are kept.
        frames, step: number of frames and the time between them.
        warmup: time between the random initial field and the first frame.
        peak: wavenumber at which the initial energy spectrum is largest.
        viscosity_low, viscosity_high: range of the log-uniform viscosity of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        fields: what the state is: two components of velocity, or the vorticity.
        resolution: largest wavenumber of the solver over the dissipation wavenumber; at 1.2 the velocity stays within
            4e-3 of that on a much finer grid. Cost grows as (resolution^2 / viscosity)^1.5.
    """

    grid: int = 64
    frames: int = 32
    step: float = 0.1
    warmup: float = 0.5
    peak: float = 3.0
    spread: float = 2.0
    viscosity_low: float = 1e-2
    viscosity_high: float = 4e-2
    ood_low: float = 5e-3
    ood_high: float = 1e-2
    fields: Literal["velocity", "vorticity"] = "velocity"
    resolution: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_flow(self)
        require_ranges(self, "viscosity")


class NavierStokes(Simulator):
    """Trajectories of decaying turbulence, each with its own initial field, amplitude and viscosity."""

    name = "navier-stokes"
    Options = NavierStokesOptions
    options: NavierStokesOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D incompressible turbulence, periodic, decaying", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"viscosity {o.viscosity_low:g} to {o.viscosity_high:g}", f"viscosity {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        o = self.options
        return o.frames * o.grid**2 * (8 if o.fields == "velocity" else 4) + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.viscosity_low, o.viscosity_high)
        viscosity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        amplitude = float(np.exp(rng.uniform(-np.log(o.spread), np.log(o.spread))))

        start = random_vorticity(rng, o.grid, o.peak, amplitude * SIDE / o.peak)
        start = resample(start, max(o.grid, resolving_grid(start, viscosity, o.resolution)))
        time = Time.regular(0.0, o.step, o.frames)
        vorticity = resample(simulate(start, viscosity, o.warmup + time.seconds), o.grid)

        names = ("velocity_x", "velocity_y") if o.fields == "velocity" else ("vorticity",)
        fields = velocity(vorticity) if o.fields == "velocity" else vorticity[:, None]
        values = fields[:, :, None].astype(np.float32)
        axis = SIDE / o.grid * np.arange(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=tuple(Variable(name, "1") for name in names),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, amplitude={amplitude:.4g}"),
            boundary=Boundary(y=("periodic", "periodic"), x=("periodic", "periodic")),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"viscosity": viscosity},
        )
