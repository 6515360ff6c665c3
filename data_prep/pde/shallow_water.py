"""The rotating shallow-water equations over an uneven bed, in a periodic or a walled square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.random_fields import centres, coarsen, random_field
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.stepping import runge_kutta
from scigpt.data_prep.source import Description

COURANT = 0.9


def simulate(
    state: np.ndarray,
    bed: np.ndarray,
    times: Sequence[float] | np.ndarray,
    spacing: float,
    gravity: float = 1.0,
    coriolis: float = 0.0,
    viscosity: float = 0.0,
    wall: bool = False,
    courant: float = COURANT,
) -> np.ndarray:
    """Solve, with depth h, bed b and velocity (u, v) = U,

        h_t + div(h U) = 0,    U_t + U . grad U + f (-v, u) = -g grad(h + b) + (1 / h) div(viscosity h grad U).

    Second-order differences on the C grid: u on the low x side of each cell, v on its low y side, h in its middle. The vector-invariant
    form of Sadourny (1975, J. Atmos. Sci. 32, 680, the first of his two schemes) conserves mass and, without viscosity, energy;
    the viscous term only takes energy. Water at rest stays at rest over any bed. In time, fourth-order Runge-Kutta.

    Args:
        state: `(3, ny, nx)` float64: h > 0, u, v.
        bed: `(ny, nx)`.
        times: when to return the state, increasing, the first 0 or later.
        spacing: width of the cells.
        wall: free-slip walls all around instead of periodic sides.
        courant: steps are no longer than courant times the cell over the fastest signal; above 1.4 the linear waves are unstable.

    Returns:
        `(len(times), 3, ny, nx)`, in the same places of the cells; `centred` brings the velocities to their middles.

    Raises:
        ValueError: a shape, depth, coefficient or list of times that cannot be.
    """
    if bed.ndim != 2 or state.shape != (3, *bed.shape):
        raise ValueError(f"state and bed have the shapes {state.shape} and {bed.shape}; expected (3, ny, nx) and (ny, nx)")
    if not (state[0] > 0).all() or gravity < 0 or viscosity < 0:
        raise ValueError("depth must be positive; gravity and viscosity must not be negative")
    if wall and (state[1, :, 0].any() or state[2, 0].any()):
        raise ValueError("water flows through a wall: u[:, 0] and v[0] must be zero")

    dx = spacing
    padded_bed = np.pad(bed, 1, mode="wrap")[:-1, :-1]
    padded = np.empty((3, bed.shape[0] + 2, bed.shape[1] + 2))

    def rate(s: np.ndarray) -> np.ndarray:
        padded[:, 1:-1, 1:-1] = s
        padded[:, 1:-1, 0], padded[:, 1:-1, -1] = s[:, :, -1], s[:, :, 0]
        padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
        h, u, v = padded
        hx, hy = (h[:, 1:] + h[:, :-1]) * 0.5, (h[1:] + h[:-1]) * 0.5  # on the sides of the cells
        hc = (hx[1:] + hx[:-1]) * 0.5  # at their corners
        flux_x, flux_y = hx * u[:, 1:], hy * v[1:]
        shear_u, shear_v = u[1:, 1:] - u[:-1, 1:], v[1:, 1:] - v[1:, :-1]
        rotation = (coriolis + (shear_v - shear_u) / dx) / (4 * hc)
        turn_u = rotation * (flux_y[:, 1:] + flux_y[:, :-1])
        turn_v = rotation * (flux_x[1:] + flux_x[:-1])
        uu, vv = u * u, v * v
        head = (uu[:-1, :-1] + uu[:-1, 1:] + vv[:-1, :-1] + vv[1:, :-1]) * 0.25 + gravity * (h[:-1, :-1] + padded_bed)

        out = np.empty_like(s)
        out[0] = (flux_x[1:-1, :-1] - flux_x[1:-1, 1:] + flux_y[:-1, 1:-1] - flux_y[1:, 1:-1]) / dx
        out[1] = (head[1:, :-1] - head[1:, 1:]) / dx + turn_u[1:, :-1] + turn_u[:-1, :-1]
        out[2] = (head[:-1, 1:] - head[1:, 1:]) / dx - turn_v[:-1, 1:] - turn_v[:-1, :-1]
        if viscosity:
            xx, yy = h[:-1, :-1] * (u[:-1, 1:] - u[:-1, :-1]), h[:-1, :-1] * (v[1:, :-1] - v[:-1, :-1])
            xy, yx = hc * shear_u, hc * shear_v
            if wall:  # no friction along it
                xy[[0, -1]] = 0
                yx[:, [0, -1]] = 0
            scale = viscosity / dx**2
            out[1] += scale / hx[1:-1, :-1] * (xx[1:, 1:] - xx[1:, :-1] + xy[1:, :-1] - xy[:-1, :-1])
            out[2] += scale / hy[:-1, 1:-1] * (yy[1:, 1:] - yy[:-1, 1:] + yx[:-1, 1:] - yx[:-1, :-1])
        if wall:
            out[1, :, 0] = 0
            out[2, 0] = 0
        return out

    # twice this speed over the cell bounds the frequency of gravity waves, advection and rotation together
    speed = np.sqrt(2 * gravity * state[0].max()) + np.abs(state[1]).max() + np.abs(state[2]).max() + abs(coriolis) * dx / 2
    longest = courant * min(dx / max(speed, 1e-300), dx**2 / max(4 * viscosity, 1e-300))
    frames = runge_kutta(rate, state, times, longest)
    assert (frames[:, 0] > 0).all(), "the bed fell dry"
    return frames


def centred(frames: np.ndarray, wall: bool) -> np.ndarray:
    """Frames `(..., 3, ny, nx)` with the velocities in the middles of the cells."""
    u, v = frames[..., 1, :, :], frames[..., 2, :, :]
    # across a wall the wrapped neighbour is the other wall, where the velocity is zero too
    return np.stack([frames[..., 0, :, :], (u + np.roll(u, -1, -1)) / 2, (v + np.roll(v, -1, -2)) / 2], axis=-3)


def random_state(
    rng: np.random.Generator, n: int, peak: float, height: float, speed: float, relief: float, wall: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A random state `(3, n, n)` and bed `(n, n)`, the same flow on every grid; the depth of water at rest over bed 0 is 1.

    Args:
        peak: waves per side at which surface and flow have most power; the bed is twice as smooth.
        height: root mean square of the surface's departure from rest.
        speed: of the flow without divergence that goes with it, about.
        relief: highest bed; it lies between 0 and that.
    """
    middle, side = centres(n), np.arange(n) / n
    surface = height * random_field(rng, peak, middle, middle, "cosine" if wall else "periodic")
    stream = random_field(rng, peak, side, side, "sine" if wall else "periodic") * speed / (2 * np.pi * peak)
    bed = relief / 2 * (1 + np.tanh(random_field(rng, peak / 2, middle, middle, "cosine" if wall else "periodic")))
    u, v = (np.roll(stream, -1, 0) - stream) * n, (stream - np.roll(stream, -1, 1)) * n
    if wall:
        u[:, 0] = v[0] = 0  # the sine functions leave rounding
    return np.stack([1 + surface - surface.mean() - bed, u, v]), bed


@dataclass(frozen=True)
class ShallowWaterOptions(SimulatorOptions):
    """Options of the shallow-water corpus. Lengths are in sides of the square, depths in that of water at rest over bed 0.

    Args:
        grid: cells along x and y of what is stored; the solver's cells are `refine` times smaller.
        frames, step: number of frames and the time between them; long waves cross the square in 1 / sqrt(gravity).
        boundary: all four sides.
        peak: waves per side of the initial surface and flow.
        height_low, height_high: range of the log-uniform root mean square of the initial surface and of its flow's speed.
        relief: highest bed, 0 (flat, and no such variable) to 0.5.
        gravity_low, gravity_high: range of the log-uniform gravity of train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        coriolis_low, coriolis_high: range of the uniform Coriolis parameter of all splits; 0 and 0 for no rotation.
        viscosity: wide enough that steep fronts are resolved.
    """

    grid: int = 64
    refine: int = 2
    frames: int = 32
    step: float = 0.015
    boundary: Literal["periodic", "wall"] = "periodic"
    peak: float = 3.0
    height_low: float = 0.02
    height_high: float = 0.08
    relief: float = 0.3
    gravity_low: float = 0.5
    gravity_high: float = 2.0
    ood_low: float = 2.0
    ood_high: float = 4.0
    coriolis_low: float = 0.0
    coriolis_high: float = 5.0
    viscosity: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 16, f"option grid={self.grid}: expected at least 16")
        require(1 <= self.refine <= 8, f"option refine={self.refine}: expected 1 to 8")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        require(0 < self.step < np.inf, f"option step={self.step}: expected a positive number")
        require(1 <= self.peak <= self.grid / 12, f"option peak={self.peak}: expected 1 to {self.grid / 12:g}, a twelfth of the grid")
        low, high = self.height_low, self.height_high
        require(0 < low <= high <= 0.1, f"options height_low={low} and height_high={high}: expected 0 < low <= high <= 0.1 (no dry bed)")
        require(0 <= self.relief <= 0.5, f"option relief={self.relief}: expected 0 to 0.5")
        low, high = self.coriolis_low, self.coriolis_high
        require(-np.inf < low <= high < np.inf, f"options coriolis_low={low} and coriolis_high={high}: expected low <= high")
        require(0 <= self.viscosity < np.inf, f"option viscosity={self.viscosity}: expected 0 or more")
        require_ranges(self, "gravity")


class ShallowWater(Simulator):
    """Gravity waves and eddies, each trajectory with its own bed, gravity and rotation."""

    name = "shallow-water"
    Options = ShallowWaterOptions
    options: ShallowWaterOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D rotating shallow water over a bed, periodic or walled", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        rotation = f"coriolis {o.coriolis_low:g} to {o.coriolis_high:g}"
        return f"gravity {o.gravity_low:g} to {o.gravity_high:g}, {rotation}", f"gravity {o.ood_low:g} to {o.ood_high:g}, {rotation}"

    def bytes_per_sample(self) -> int:
        return 16 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        wall = o.boundary == "wall"
        low, high = (o.ood_low, o.ood_high) if outside else (o.gravity_low, o.gravity_high)
        gravity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        coriolis = float(rng.uniform(o.coriolis_low, o.coriolis_high))
        height = float(np.exp(rng.uniform(np.log(o.height_low), np.log(o.height_high))))
        state, bed = random_state(rng, o.grid * o.refine, o.peak, height, height * np.sqrt(gravity), o.relief, wall)

        time = Time.regular(0.0, o.step, o.frames)
        frames = simulate(state, bed, time.seconds, 1 / bed.shape[0], gravity, coriolis, o.viscosity, wall)
        frames[:, 0] += bed - 1  # the surface, 0 at rest
        fields = coarsen(centred(frames, wall), o.grid)
        variables = [Variable("surface_height", "1"), Variable("velocity_x", "1"), Variable("velocity_y", "1")]
        if o.relief:
            variables.append(Variable("bed_height", "1", "static"))
            fields = np.concatenate([fields, np.broadcast_to(coarsen(bed, o.grid), (o.frames, 1, o.grid, o.grid))], axis=1)
        values = fields[:, :, None].astype(np.float32)
        sides, axis = (o.boundary, o.boundary), centres(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=tuple(variables),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, height={height:.4g}"),
            boundary=Boundary(y=sides, x=sides),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"gravity": gravity, "coriolis": coriolis, "viscosity": o.viscosity},
        )
