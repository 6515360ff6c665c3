"""The two-dimensional compressible Euler equations of an ideal gas, with shocks, by finite volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.random_fields import Basis, centres, random_field
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.stepping import intervals_between
from scigpt.data_prep.source import Description

Side = Literal["periodic", "wall", "open"]
Start = Literal["riemann", "smooth", "mixed"]
FIELDS = ("density", "velocity_x", "velocity_y", "pressure_field")
SWAPPED = [0, 2, 1, 3]
"""The fields with x and y exchanged."""
COURANT = 0.5
"""Face values lie between those of the cells beside, so half the limit of the first-order scheme keeps density and pressure positive."""
SMOOTH_PEAK = 2.0
"""Wavenumber, in waves per side, at which the spectrum of smooth initial fields is largest."""
TINY = 1e-300
"""Makes 0 / 0 of a flat field 0 and changes no other number."""


def simulate(
    start: np.ndarray, gamma: float, times: Sequence[float] | np.ndarray, boundary: Side, spacing: float, courant: float = COURANT
) -> np.ndarray:
    """Solve the Euler equations of an ideal gas, `E = p / (gamma - 1) + rho (u^2 + v^2) / 2`, on square cells.

    Second-order finite volumes (MUSCL): density, velocity and pressure are extrapolated to the faces with the harmonic limiter of van Leer
    (1974), the flux between the two states of a face is HLLC (Toro, Spruce & Speares 1994) with the wave speeds of Einfeldt (1988), and
    time goes on by the two stages of Heun's strong-stability-preserving method. Mass and energy change only through open sides.

    Args:
        start: density, velocity along x and y, pressure at time 0: float64 `(4, ny, nx)`, density and pressure positive.
        gamma: ratio of the heat capacities, above 1.
        times: when to return the fields, increasing, the first 0 or later.
        boundary: of all four sides. At a wall the gas slips, through an open side waves leave.
        spacing: side of a cell.
        courant: the step times max((|u| + |v| + 2 c) / spacing), evaluated anew before each step.

    Returns:
        the fields, `(len(times), 4, ny, nx)`.

    Raises:
        ValueError: a shape, a state or a list of times that cannot be.
    """
    intervals = intervals_between(times)
    if start.ndim != 3 or start.shape[0] != 4 or min(start.shape[1:]) < 2:
        raise ValueError(f"start has the shape {start.shape}; expected (4, ny, nx) with ny and nx of 2 or more")
    if gamma <= 1 or not (start[[0, 3]] > 0).all():
        raise ValueError("gamma must be above 1, density and pressure positive")

    fields, state = start, conserved(start, gamma)
    frames = np.empty((len(times), *start.shape))
    for i, left in enumerate(intervals):
        while left > 0:
            longest = courant * spacing / _speed(fields, gamma)
            # the last two steps of an interval are equal, so that none is a sliver
            dt = left if left <= longest else min(longest, left / 2)
            first = state + dt / spacing * _rate(fields, gamma, boundary)
            state = (state + first + dt / spacing * _rate(primitive(first, gamma), gamma, boundary)) / 2
            fields = primitive(state, gamma)
            left -= dt
        frames[i] = fields
    assert (frames[:, [0, 3]] > 0).all(), "density or pressure is no longer positive"  # nor is NaN
    return frames


def conserved(fields: np.ndarray, gamma: float) -> np.ndarray:
    """Density, momentum along x and y, and energy `(4, ...)` from density, velocity and pressure."""
    rho, u, v, p = fields
    return np.stack([rho, rho * u, rho * v, p / (gamma - 1) + rho * (u * u + v * v) / 2])


def primitive(state: np.ndarray, gamma: float) -> np.ndarray:
    """Inverse of `conserved`."""
    rho, mx, my, energy = state
    u, v = mx / rho, my / rho
    return np.stack([rho, u, v, (gamma - 1) * (energy - (mx * u + my * v) / 2)])


def _speed(fields: np.ndarray, gamma: float) -> float:
    rho, u, v, p = fields
    return float((np.abs(u) + np.abs(v) + 2 * np.sqrt(gamma * p / rho)).max())


def _rate(fields: np.ndarray, gamma: float, boundary: Side) -> np.ndarray:
    """What flows into each cell through its four faces per unit of time and length, in conserved variables."""
    along_x = _inflow(fields, gamma, boundary)
    along_y = _inflow(fields[SWAPPED].transpose(0, 2, 1), gamma, boundary).transpose(0, 2, 1)[SWAPPED]
    return along_x + along_y


def _inflow(fields: np.ndarray, gamma: float, boundary: Side) -> np.ndarray:
    """Flux through the low face minus that through the high face along the last axis; velocity along it comes second."""
    padded = np.empty((*fields.shape[:-1], fields.shape[-1] + 4))
    padded[..., 2:-2] = fields
    if boundary == "periodic":
        padded[..., :2], padded[..., -2:] = fields[..., -2:], fields[..., :2]
    elif boundary == "open":
        padded[..., :2], padded[..., -2:] = fields[..., :1], fields[..., -1:]
    else:
        padded[..., :2], padded[..., -2:] = fields[..., 1::-1], fields[..., :-3:-1]
        padded[1, :, :2] *= -1
        padded[1, :, -2:] *= -1
    jump = np.diff(padded)
    low, high = jump[..., :-1], jump[..., 1:]
    to_face = np.maximum(low * high, 0) / (low + high + TINY)
    flux = hllc(padded[..., 1:-2] + to_face[..., :-1], padded[..., 2:-1] - to_face[..., 1:], gamma)
    return flux[..., :-1] - flux[..., 1:]


def hllc(left: np.ndarray, right: np.ndarray, gamma: float) -> np.ndarray:
    """Flux of mass, normal and transverse momentum and energy `(4, ...)` between states (density, normal and transverse velocity, p)."""
    (rho_l, u_l, _, p_l), (rho_r, u_r, _, p_r) = left, right
    c2_l, c2_r = gamma * p_l / rho_l, gamma * p_r / rho_r
    # Einfeldt's bounds of the fastest waves: those of the two states and of their Roe average
    root_l, root_r = np.sqrt(rho_l), np.sqrt(rho_r)
    share = root_l / (root_l + root_r)
    rest = 1 - share
    mean = share * u_l + rest * u_r
    jump = u_r - u_l
    c = np.sqrt(share * c2_l + rest * c2_r + 0.5 * share * rest * (jump * jump))
    slow, fast = np.minimum(u_l - np.sqrt(c2_l), mean - c), np.maximum(u_r + np.sqrt(c2_r), mean + c)

    mass_l, mass_r = rho_l * (slow - u_l), rho_r * (fast - u_r)
    contact = (p_r - p_l + mass_l * u_l - mass_r * u_r) / (mass_l - mass_r)
    from_left = contact >= 0
    rho, u, transverse, p = np.where(from_left, left, right)
    wave, mass = np.where(from_left, slow, fast), np.where(from_left, mass_l, mass_r)
    # the state between the outer wave and the contact, unless the outer wave runs to the same side: then the upwind state itself
    between = wave * contact <= 0
    speed = np.where(between, contact, u)
    density = np.where(between, mass / (wave - speed), rho)
    change = speed - u
    pressure = p + mass * change
    flux = density * speed
    energy = p / ((gamma - 1) * rho) + (u * u + transverse * transverse) / 2 + change * (speed + p / mass)
    return np.stack([flux, flux * speed + pressure, flux * transverse, flux * energy + pressure * speed])


def riemann_start(rng: np.random.Generator, n: int, contrast: float, speed: float) -> np.ndarray:
    """Four quadrants of constant state `(4, n, n)`; density and pressure log-uniform over a factor `contrast`, velocities up to `speed`.

    The two lines between them cross at a point uniform in the middle half of the unit square.
    """
    at_x, at_y = rng.uniform(0.25, 0.75, 2)
    states = _scaled(rng.uniform(-1, 1, (4, 2, 2)), contrast, speed)
    points = centres(n)
    return states[:, (points > at_y).astype(int)[:, None], (points > at_x).astype(int)]


def smooth_start(rng: np.random.Generator, n: int, contrast: float, speed: float, boundary: Side = "periodic") -> np.ndarray:
    """Smooth fields `(4, n, n)` that reach the extremes of `riemann_start` and suit the boundary: no flow through or along a wall."""
    points = centres(n)
    slopes: Basis = "periodic" if boundary == "periodic" else "cosine"
    flow: Basis = "sine" if boundary == "wall" else slopes
    fields = np.stack([random_field(rng, SMOOTH_PEAK, points, points, basis) for basis in (slopes, flow, flow, slopes)])
    return _scaled(fields / np.abs(fields).max(axis=(1, 2), keepdims=True), contrast, speed)


def _scaled(unit: np.ndarray, contrast: float, speed: float) -> np.ndarray:
    """Density, velocity and pressure from four fields in [-1, 1]."""
    rho, u, v, p = unit
    return np.stack([contrast ** (rho / 2), speed * u, speed * v, contrast ** (p / 2)])


@dataclass(frozen=True)
class EulerOptions(SimulatorOptions):
    """Options of the Euler corpus, on the unit square; the unit of time is that in which sound crosses about the unit square.

    Args:
        grid: cells along x and y, even.
        frames, step: number of frames and the time between them.
        boundary: of all four sides.
        initial: four quadrants of constant state with shocks from the start (`riemann`), smooth fields that steepen, or either (`mixed`).
        speed: bound of each component of the initial velocity.
        gamma_low, gamma_high: range of the uniform ratio of heat capacities, in all splits.
        contrast_low, contrast_high: range of the largest possible ratio of initial densities, and of pressures, of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    grid: int = 64
    frames: int = 32
    step: float = 0.02
    boundary: Side = "periodic"
    initial: Start = "mixed"
    speed: float = 0.5
    gamma_low: float = 1.2
    gamma_high: float = 1.67
    contrast_low: float = 2.0
    contrast_high: float = 5.0
    ood_low: float = 5.0
    ood_high: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 16 and self.grid % 2 == 0, f"option grid={self.grid}: expected an even number of at least 16")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        require(0 < self.step < np.inf, f"option step={self.step}: expected a positive number")
        require(0 <= self.speed <= 1, f"option speed={self.speed}: expected 0 to 1; faster gas may tear apart into a vacuum")
        require(
            1 < self.gamma_low <= self.gamma_high <= 1.67,
            f"options gamma_low={self.gamma_low} and gamma_high={self.gamma_high}: expected above 1 and at most 1.67 (a gas of single "
            "atoms), the first not above the second",
        )
        require_ranges(self, "contrast")
        lowest, highest = min(self.contrast_low, self.ood_low), max(self.contrast_high, self.ood_high)
        require(
            lowest >= 1 and highest <= 20,
            f"initial states with a contrast of {lowest:g} to {highest:g}: expected ratios of 1 to 20",
        )


class Euler(Simulator):
    """Trajectories of gas with shocks, contacts and rarefactions, each with its own initial state and ratio of heat capacities."""

    name = "euler"
    Options = EulerOptions
    options: EulerOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D compressible gas with shocks; periodic, wall or open", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        gamma = f"gamma {o.gamma_low:g} to {o.gamma_high:g}"
        return f"contrast {o.contrast_low:g} to {o.contrast_high:g}, {gamma}", f"contrast {o.ood_low:g} to {o.ood_high:g}, {gamma}"

    def bytes_per_sample(self) -> int:
        return 16 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        gamma = float(rng.uniform(o.gamma_low, o.gamma_high))
        contrast = float(rng.uniform(*((o.ood_low, o.ood_high) if outside else (o.contrast_low, o.contrast_high))))
        initial = o.initial if o.initial != "mixed" else ("riemann", "smooth")[rng.integers(2)]
        if initial == "riemann":
            start = riemann_start(rng, o.grid, contrast, o.speed)
        else:
            start = smooth_start(rng, o.grid, contrast, o.speed, o.boundary)
        time = Time.regular(0.0, o.step, o.frames)
        values = simulate(start, gamma, time.seconds, o.boundary, 1 / o.grid)[:, :, None].astype(np.float32)
        axis = centres(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=tuple(Variable(name, "1") for name in FIELDS),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, {initial}, contrast={contrast:.4g}"),
            boundary=Boundary(y=(o.boundary, o.boundary), x=(o.boundary, o.boundary)),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"gamma": gamma},
        )
