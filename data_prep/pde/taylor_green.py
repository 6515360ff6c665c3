"""The Taylor-Green vortex: incompressible Navier-Stokes equations in a periodic cube, from large vortices to small ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde import box
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.stepping import intervals_between
from scigpt.data_prep.source import Description

SIDE = 2 * np.pi
COURANT = 1.0
"""Below 4/3 the step is stable (Runge-Kutta 4 on the imaginary axis, dealiased); the margin is for speeds that grow."""


def simulate(velocity: np.ndarray, viscosity: float, times: Sequence[float] | np.ndarray, courant: float = COURANT) -> np.ndarray:
    """Solve `u_t + (u . grad) u = -grad p + viscosity lap u`, `div u = 0` on the periodic cube [0, 2 pi)^3.

    Fourier-Galerkin in space: the rotational form `u x curl u` is formed on the grid, every mode with a wavenumber at or above n / 3 is
    removed (Orszag's 2/3 rule), which makes the product exact, and the gradient in it is projected out, which stands for the pressure.
    Without viscosity only the step in time changes the energy. In time, fourth-order Runge-Kutta with viscosity by an exact integrating
    factor.

    Args:
        velocity: components along x, y and z at time 0, float64 `(3, n, n, n)`; n even. Its divergence is projected out.
        viscosity: 0 or more.
        times: when to return the field, increasing, the first 0 or later.
        courant: each interval between times is cut into equal steps no longer than courant * (2 pi / n) / max(|u| + |v| + |w|) at the
            start of it.

    Returns:
        velocity `(len(times), 3, n, n, n)`.

    Raises:
        ValueError: a shape, viscosity or list of times that cannot be.
    """
    n = velocity.shape[-1]
    intervals = intervals_between(times)
    if velocity.shape != (3, n, n, n) or n % 2:
        raise ValueError(f"velocity has the shape {velocity.shape}; expected (3, n, n, n) with n even")
    if viscosity < 0:
        raise ValueError("viscosity must not be negative")

    k = box.wavenumbers(n)
    squared = (k**2).sum(axis=0)
    keep = (np.abs(k) < n / 3).all(axis=0)
    along = k * keep / np.where(squared == 0, 1, squared)

    def solenoidal(modes: np.ndarray) -> np.ndarray:
        modes = modes * keep
        return modes - along * (k * modes).sum(axis=0)

    def rate(modes: np.ndarray) -> np.ndarray:
        return solenoidal(box.forward(_cross(box.backward(modes), box.backward(1j * _cross(k, modes)))))

    modes = solenoidal(box.forward(velocity))
    frames = np.empty((len(times), 3, n, n, n))
    present = box.backward(modes)
    for i, interval in enumerate(intervals):
        steps = max(1, math.ceil(interval * np.abs(present).sum(axis=0).max() / (courant * SIDE / n)))
        dt = interval / steps
        half = np.exp(-viscosity * squared * dt / 2)
        full = half * half
        for _ in range(steps if interval else 0):
            r1 = rate(modes)
            r2 = rate(half * (modes + dt / 2 * r1))
            r3 = rate(half * modes + dt / 2 * r2)
            r4 = rate(full * modes + dt * half * r3)
            modes = full * (modes + dt / 6 * r1) + dt / 3 * half * (r2 + r3) + dt / 6 * r4
        frames[i] = present = box.backward(modes)
    assert np.isfinite(frames).all(), "the time step was unstable"
    return frames


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product over the first axis; `np.cross` takes several times as long."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def vortices(n: int, angle: float, amplitude: float = 1.0, phases: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """The velocity `(3, n, n, n)` of the generalised Taylor-Green vortex (Brachet et al. 1983, equation 1.1).

    `(2 / sqrt 3) amplitude (sin(a + 2 pi / 3) sin x cos y cos z, sin(a - 2 pi / 3) cos x sin y cos z, sin(a) cos x cos y sin z)`, each of
    x, y and z moved by its phase. Angle 0 is the vortex of Taylor & Green (1937), without vertical velocity, of largest speed `amplitude`.
    """
    grid = SIDE / n * np.arange(n)
    x, y, z = grid + phases[0], grid[:, None] + phases[1], grid[:, None, None] + phases[2]
    u, v, w = 2 / np.sqrt(3) * amplitude * np.sin(angle + np.array([2, -2, 0]) * np.pi / 3)
    return np.stack([u * np.sin(x) * np.cos(y) * np.cos(z), v * np.cos(x) * np.sin(y) * np.cos(z), w * np.cos(x) * np.cos(y) * np.sin(z)])


def resolving_grid(amplitude: float, viscosity: float, resolution: float) -> int:
    """The smallest fast even n whose largest wavenumber n / 3 is `resolution` times sqrt(amplitude / viscosity).

    The enstrophy of the vortex stays of the order of amplitude^2 / 2, so this is about the dissipation wavenumber.
    """
    n = math.ceil(3 * resolution * np.sqrt(amplitude / viscosity))
    while n % 2 or fft.next_fast_len(n, real=True) != n:
        n += 1
    return n


@dataclass(frozen=True)
class TaylorGreenOptions(SimulatorOptions):
    """Options of the Taylor-Green corpus. The cube has the side 2 pi, so a vortex of amplitude 1 has the Reynolds number 1 / viscosity.

    The amplitude is log-uniform in [1 / spread, spread], the angle between the components and the place of the vortices uniform.

    Args:
        grid: cells along x, y and z of what is stored, even. A trajectory with fine structure is solved on a finer grid, and its modes
            below the Nyquist wavenumber of this one are kept.
        frames, step: number of frames and the time between them.
        viscosity_low, viscosity_high: range of the log-uniform viscosity of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        resolution: largest wavenumber of the solver over sqrt(amplitude / viscosity). Cost grows as its fourth power.
    """

    grid: int = 24
    frames: int = 16
    step: float = 1.25
    spread: float = 1.5
    viscosity_low: float = 1e-2
    viscosity_high: float = 4e-2
    ood_low: float = 7e-3
    ood_high: float = 1e-2
    resolution: float = 1.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 8 and self.grid % 2 == 0, f"option grid={self.grid}: expected an even number of at least 8")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        for name in ("step", "resolution"):
            require(0 < getattr(self, name) < np.inf, f"option {name}={getattr(self, name)}: expected a positive number")
        require(1 <= self.spread < np.inf, f"option spread={self.spread}: expected 1 or more")
        require_ranges(self, "viscosity")


class TaylorGreen(Simulator):
    """Trajectories of vortices that stretch one another into smaller ones, each with its own start and viscosity."""

    name = "taylor-green"
    Options = TaylorGreenOptions
    options: TaylorGreenOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "3-D incompressible flow from the Taylor-Green vortex, periodic", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"viscosity {o.viscosity_low:g} to {o.viscosity_high:g}", f"viscosity {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return 12 * self.options.frames * self.options.grid**3 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.viscosity_low, o.viscosity_high)
        viscosity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        amplitude = float(np.exp(rng.uniform(-np.log(o.spread), np.log(o.spread))))
        angle, *phases = rng.uniform(0, 2 * np.pi, 4)

        n = max(o.grid, resolving_grid(amplitude, viscosity, o.resolution))
        time = Time.regular(0.0, o.step, o.frames)
        values = box.resample(simulate(vortices(n, angle, amplitude, phases), viscosity, time.seconds), o.grid).astype(np.float32)
        axis = SIDE / o.grid * np.arange(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=tuple(Variable(f"velocity_{a}", "1") for a in "xyz"),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, amplitude={amplitude:.4g}, angle={angle:.4g}"),
            boundary=Boundary(z=("periodic", "periodic"), y=("periodic", "periodic"), x=("periodic", "periodic")),
            coordinates={a: Coordinate((a,), axis, "1") for a in "zyx"},
            coefficients={"viscosity": viscosity},
        )
