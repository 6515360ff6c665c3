"""Sound in a layered medium, in a square whose sides let waves out, throw them back, or are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.random_fields import centres, coarsen
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.stepping import runge_kutta
from scigpt.data_prep.source import Description

Side = Literal["open", "wall", "periodic"]
COURANT = 0.6
"""Runge-Kutta 4 is stable up to 0.857 with these differences; steps this long lose less than 1e-3 of the energy of a wave of 16 cells
in ten periods."""
LAYER = 16
"""Cells of the absorbing layer outside of each open side."""
REFLECTION = 1e-5
"""What the layer would throw back of a wave at normal incidence if cells were infinitely small."""
RIDGES = 3


def simulate(
    start: np.ndarray,
    sound_speed: np.ndarray,
    times: Sequence[float] | np.ndarray,
    side: Side,
    spacing: float,
    courant: float = COURANT,
    layer: int = LAYER,
) -> np.ndarray:
    """Solve `p_t = -c^2 div(v)`, `v_t = -grad(p)`: linear sound in a medium of density 1 and sound speed c.

    Fourth-order differences on a staggered grid (Levander 1988): pressure in the middles of the cells, velocities on their low sides.
    In time, fourth-order Runge-Kutta. Outside of open sides lies a perfectly matched layer (Berenger 1994: the pressure is split in two
    parts, each damped along its axis), into which the medium at the side continues. Energy is conserved between walls and on a
    periodic domain but for the loss in time.

    Args:
        start: `(3, ny, nx)` float64: pressure and velocity along x and y; the velocity on the walls must be zero.
        sound_speed: `(ny, nx)`; where cells hold two media, `1 / sqrt(mean(1 / c^2))` keeps travel times and reflections right.
        times: when to return the fields, increasing, the first 0 or later.
        side: kind of all four sides. The velocity on the low sides is part of the state; that on the high walls is zero.
        spacing: width of the cells.
        courant: steps are no longer than courant * spacing / (largest sound speed).
        layer: cells of the absorbing layer.

    Returns:
        `(len(times), 3, ny, nx)`, in the same places of the cells; `centred` brings the velocities to their middles.

    Raises:
        ValueError: a shape, speed or list of times that cannot be.
    """
    if start.shape != (3, *sound_speed.shape) or min(sound_speed.shape) < 4:
        raise ValueError(f"start and sound_speed have the shapes {start.shape} and {sound_speed.shape}; expected (3, ny, nx) and (ny, nx)")
    if not (sound_speed > 0).all():
        raise ValueError("the sound speed must be positive")
    wall = side == "wall"
    if wall and (start[1, :, 0].any() or start[2, 0].any()):
        raise ValueError("the velocity on a wall must be zero")

    fastest = sound_speed.max()
    width = layer if side == "open" else 0
    inside = (slice(width, -width or None),) * 2
    stiffness = np.pad(sound_speed, width, mode="edge") ** 2
    pressure, u, v = np.pad(start, ((0, 0), (width, width), (width, width)))
    damping = [_damping(n, width, fastest, spacing) for n in stiffness.shape]  # each at the middles and the low sides of the cells
    damp_y, damp_x = ([d[:, None] for d in damping[0]], [d[None, :] for d in damping[1]])

    def rate(s: np.ndarray) -> np.ndarray:
        px, py, u, v = s
        p = px + py
        out = np.empty_like(s)
        out[0] = -stiffness * _to_middles(u.T, wall, spacing).T
        out[1] = -stiffness * _to_middles(v, wall, spacing)
        out[2] = -_to_sides(p.T, wall, spacing).T
        out[3] = -_to_sides(p, wall, spacing)
        if width:
            out[0] -= damp_x[0] * px
            out[1] -= damp_y[0] * py
            out[2] -= damp_x[1] * u
            out[3] -= damp_y[1] * v
        return out

    # the two parts of the pressure begin equal: only their sum has a meaning
    frames = runge_kutta(rate, np.stack([pressure / 2, pressure / 2, u, v]), times, courant * spacing / fastest)
    frames = frames[:, :, *inside]
    return np.stack([frames[:, 0] + frames[:, 1], frames[:, 2], frames[:, 3]], axis=1)


def centred(frames: np.ndarray, side: Side) -> np.ndarray:
    """Frames `(..., 3, ny, nx)` with the velocities in the middles of the cells; at open high sides that of the last low side."""

    def middle(velocity: np.ndarray, axis: int) -> np.ndarray:
        after = np.roll(velocity, -1, axis)  # across walls that is the other wall: zero too
        if side == "open":
            np.moveaxis(after, axis, 0)[-1] = np.moveaxis(velocity, axis, 0)[-1]
        return (velocity + after) / 2

    pressure, u, v = np.moveaxis(frames, -3, 0)
    return np.stack([pressure, middle(u, -1), middle(v, -2)], axis=-3)


def _to_sides(p: np.ndarray, wall: bool, spacing: float) -> np.ndarray:
    """Derivative along the first axis from the middles of the cells to their low sides; even across walls."""
    low, high = (p[1::-1], p[-1:]) if wall else (p[-2:], p[:1])
    p = np.concatenate([low, p, high])
    return (p[2:-1] - p[1:-2]) * (27 / 24 / spacing) - (p[3:] - p[:-3]) * (1 / 24 / spacing)


def _to_middles(u: np.ndarray, wall: bool, spacing: float) -> np.ndarray:
    """Derivative along the first axis from the low sides of the cells to their middles; odd across walls."""
    low, high = (-u[1:2], np.stack([u[0], -u[-1]])) if wall else (u[-1:], u[:2])
    u = np.concatenate([low, u, high])
    return (u[2:-1] - u[1:-2]) * (27 / 24 / spacing) - (u[3:] - u[:-3]) * (1 / 24 / spacing)


def _damping(n: int, width: int, fastest: float, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Cubic profile of the absorbing layers at both ends of an axis of n cells: at their middles and their low sides."""
    if not width:
        return np.zeros(n), np.zeros(n)
    strongest = 2 * fastest * np.log(1 / REFLECTION) / (width * spacing)
    middles, sides = np.arange(n) + 0.5, np.arange(n)
    depth_middles, depth_sides = (np.maximum(np.maximum(width - x, x - (n - width)), 0) / width for x in (middles, sides))
    return strongest * depth_middles**3, strongest * depth_sides**3


def random_layers(rng: np.random.Generator, n: int, contrast: float) -> np.ndarray:
    """The sound speed `(n, n)` of 3 to 8 layers with tilted and wavy interfaces; the fastest over the slowest layer is `contrast`.

    The geometric mean of the two is 1. A cell cut by an interface has the mean of 1 / c^2 over 4 x 4 points.
    """
    count = int(rng.integers(3, 9))
    ranks = rng.random(count)
    ranks = (ranks - ranks.min()) / (ranks.max() - ranks.min())
    speeds = contrast ** (ranks - 0.5)
    x = centres(4 * n)
    depths = np.sort(rng.uniform(0.1, 0.9, count - 1))[:, None] + rng.uniform(-0.15, 0.15) * (x - 0.5)
    waves = np.arange(1, RIDGES + 1)
    size, phase = rng.normal(0, 0.03, (count - 1, RIDGES)) / waves, rng.uniform(0, 2 * np.pi, (count - 1, RIDGES))
    depths = depths + (size[:, :, None] * np.sin(2 * np.pi * waves[:, None] * x + phase[:, :, None])).sum(axis=1)
    depths = np.maximum.accumulate(depths, axis=0)  # layers thin out where they meet
    layer = (x[:, None] > depths[:, None, :]).sum(axis=0)
    return 1 / np.sqrt(coarsen((speeds**-2)[layer], n))


def random_pulses(rng: np.random.Generator, n: int, width_low: float, width_high: float) -> np.ndarray:
    """2 to 6 bumps of pressure `(n, n)`, Gaussian, each with its own place, sign, height and width."""
    x, pressure = centres(n), np.zeros((n, n))
    for _ in range(rng.integers(2, 7)):
        height, width, place = rng.choice([-1, 1]) * rng.uniform(0.5, 1), rng.uniform(width_low, width_high), rng.uniform(0.2, 0.8, 2)
        bump = np.exp(-((x - place[:, None]) ** 2) / (2 * width**2))
        pressure += height * bump[0][:, None] * bump[1]
    return pressure


@dataclass(frozen=True)
class AcousticWavesOptions(SimulatorOptions):
    """Options of the acoustic corpus. Lengths are in sides of the square; sound of the mean speed, 1, crosses it in time 1.

    Args:
        grid: cells along x and y of what is stored; the solver's cells are `refine` times smaller.
        frames, step: number of frames and the time between them.
        warmup: time between the pulses and the first frame.
        boundary: all four sides.
        width_low, width_high: range of the uniform width of the initial pulses.
        contrast_low, contrast_high: range of the log-uniform ratio of the fastest to the slowest layer in train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
    """

    grid: int = 64
    refine: int = 2
    frames: int = 32
    step: float = 0.015
    warmup: float = 0.05
    boundary: Side = "open"
    width_low: float = 0.03
    width_high: float = 0.06
    contrast_low: float = 1.2
    contrast_high: float = 2.5
    ood_low: float = 2.5
    ood_high: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 16, f"option grid={self.grid}: expected at least 16")
        require(1 <= self.refine <= 8, f"option refine={self.refine}: expected 1 to 8")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        require(0 < self.step < np.inf, f"option step={self.step}: expected a positive number")
        require(0 <= self.warmup < np.inf, f"option warmup={self.warmup}: expected 0 or more")
        low, high, cell = self.width_low, self.width_high, 1 / (self.grid * self.refine)
        require(
            2 * cell <= low <= high <= 0.5,
            f"options width_low={low} and width_high={high}: expected {2 * cell:g} (two cells) <= low <= high <= 0.5",
        )
        require_ranges(self, "contrast")
        require(min(self.contrast_low, self.ood_low) > 1, "options contrast_low and ood_low: expected more than 1, the ratio of two speeds")


class AcousticWaves(Simulator):
    """Pulses of sound in a random layered medium, given as a static map of its sound speed."""

    name = "acoustic-waves"
    Options = AcousticWavesOptions
    options: AcousticWavesOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D sound in a random layered medium, open sides", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"contrast {o.contrast_low:g} to {o.contrast_high:g}", f"contrast {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return 16 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.contrast_low, o.contrast_high)
        contrast = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        n = o.grid * o.refine
        sound_speed = random_layers(rng, n, contrast)
        start = np.stack([random_pulses(rng, n, o.width_low, o.width_high), np.zeros((n, n)), np.zeros((n, n))])

        time = Time.regular(0.0, o.step, o.frames)
        frames = simulate(start, sound_speed, o.warmup + time.seconds, o.boundary, 1 / n)
        fields = coarsen(centred(frames, o.boundary), o.grid)
        stored_speed = 1 / np.sqrt(coarsen(sound_speed**-2, o.grid))
        fields = np.concatenate([fields, np.broadcast_to(stored_speed, (o.frames, 1, o.grid, o.grid))], axis=1)
        values = fields[:, :, None].astype(np.float32)
        state = tuple(Variable(name, "1") for name in ("pressure_field", "velocity_x", "velocity_y"))
        sides, axis = (o.boundary, o.boundary), centres(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=(*state, Variable("sound_speed", "1", "static")),
            time=time,
            origin=Origin(self.name, LICENCE, place=place),
            boundary=Boundary(y=sides, x=sides),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"contrast": contrast},
        )
