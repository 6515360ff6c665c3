"""The Gray-Scott model of two reacting and diffusing substances on a periodic square: spots, worms, mazes and spirals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require
from scigpt.data_prep.pde.spectral import resample, wavenumbers
from scigpt.data_prep.pde.stepping import intervals_between
from scigpt.data_prep.source import Description

DIFFUSION = (2e-5, 1e-5)
"""Of the fed and the reacting substance: Pearson, Science 261, 189 (1993)."""
REGIMES: Mapping[str, tuple[float, float]] = {
    "spirals": (0.018, 0.051),
    "maze": (0.029, 0.057),
    "spots": (0.03, 0.062),
    "worms": (0.058, 0.065),
    "gliders": (0.014, 0.054),
}
"""Feed and kill rate of kinds of patterns, as in The Well (Ohana et al. 2024)."""
LONGEST = 2.0
"""Step at which the error in time stays below 1e-3 of the spread of the fields after 665 in all regimes that go on."""


def simulate(
    start: np.ndarray,
    feed: float,
    kill: float,
    times: Sequence[float] | np.ndarray,
    diffusion: tuple[float, float] = DIFFUSION,
    side: float = 1.0,
    longest: float = LONGEST,
) -> np.ndarray:
    """Solve `a_t = D_a lap(a) - a b^2 + F (1 - a)`, `b_t = D_b lap(b) + a b^2 - (F + k) b` on a periodic square.

    Fourier collocation in space; in time the exponential Runge-Kutta method of order four of Cox & Matthews (2002, eqs. 26-29): what is
    linear, diffusion above all, is solved exactly. The product is formed on the grid and its modes at or above n / 3 are removed.

    Args:
        start: `(2, n, n)` float64, n even: a and b.
        feed, kill: F and k, 0 or more.
        times: when to return the fields, increasing, the first 0 or later.
        longest: each interval between times is cut into equal steps no longer than this.

    Returns:
        `(len(times), 2, n, n)`.

    Raises:
        ValueError: a shape, rate or list of times that cannot be.
    """
    n = start.shape[-1]
    if start.shape != (2, n, n) or n % 2:
        raise ValueError(f"start has the shape {start.shape}; expected (2, n, n) with n even")
    if feed < 0 or kill < 0 or min(diffusion) < 0:
        raise ValueError("rates and diffusivities must not be negative")

    kx, ky = wavenumbers(n)
    keep = (np.abs(kx) < n / 3) & (np.abs(ky) < n / 3)
    decay = (2 * np.pi / side) ** 2 * (kx**2 + ky**2)
    linear = -np.stack([diffusion[0] * decay + feed, diffusion[1] * decay + feed + kill])

    def reaction(spectrum: np.ndarray) -> np.ndarray:
        a, b = fft.irfft2(spectrum, s=(n, n))
        product = keep * fft.rfft2(a * b * b)
        out = np.stack([-product, product])
        out[0, 0, 0] += feed * n * n
        return out

    spectrum = fft.rfft2(start) * keep
    frames = np.empty((len(times), 2, n, n))
    weights: dict[float, tuple[np.ndarray, ...]] = {}
    for i, interval in enumerate(intervals_between(times)):
        steps = max(1, math.ceil(interval / longest - 1e-9))
        dt = interval / steps
        if dt not in weights:
            weights[dt] = _weights(linear * dt)
        half, full, middle, first, second, last = weights[dt]
        for _ in range(steps if interval else 0):
            n1 = reaction(spectrum)
            s2 = half * spectrum + dt * middle * n1
            n2 = reaction(s2)
            n3 = reaction(half * spectrum + dt * middle * n2)
            n4 = reaction(half * s2 + dt * middle * (2 * n3 - n1))
            spectrum = full * spectrum + dt * (first * n1 + second * (n2 + n3) + last * n4)
        frames[i] = fft.irfft2(spectrum, s=(n, n))
    assert np.isfinite(frames).all(), "the time step was unstable"
    return frames


def fixed_points(feed: float, kill: float) -> list[tuple[float, float]]:
    """Uniform states (a, b) that do not change: (1, 0), and two more where `feed >= 4 (feed + kill)^2`."""
    root = 1 - 4 * (feed + kill) ** 2 / feed
    more = [] if root < 0 else [(1 + math.sqrt(root)) / 2, (1 - math.sqrt(root)) / 2]
    return [(1.0, 0.0), *((a, feed * (1 - a) / (feed + kill)) for a in more)]


def random_start(rng: np.random.Generator, n: int, side: float) -> np.ndarray:
    """4 to 12 seeds of the reacting substance in the fed one at random places: `(2, n, n)`, the same on every grid that resolves them."""
    x = np.arange(n) / n
    seeds = np.zeros((n, n))
    for _ in range(rng.integers(4, 13)):
        width, place = rng.uniform(0.03, 0.06) / side, rng.random(2)
        distance = (x - place[:, None] + 0.5) % 1 - 0.5
        seeds = np.maximum(seeds, np.exp(-(((distance[0][:, None] ** 2 + distance[1] ** 2) / width**2) ** 2)))
    return np.stack([1 - 0.5 * seeds, 0.3 * seeds])


def _weights(z: np.ndarray) -> tuple[np.ndarray, ...]:
    """The scheme's functions of z = linear rate x step, by their mean over a circle around z: no cancellation (Kassam & Trefethen 2005)."""
    circle = np.exp(1j * np.pi * (np.arange(16) + 0.5) / 16)
    shape = (-1,) + (1,) * z.ndim
    r = z + circle.reshape(shape)
    e = np.exp(r)
    half, cube = np.exp(r / 2), r**3
    middle = (half - 1) / r
    first = (-4 - r + e * (4 - 3 * r + r**2)) / cube
    second = 2 * (2 + r + e * (r - 2)) / cube
    last = (-4 - 3 * r - r**2 + e * (4 - r)) / cube
    return np.exp(z / 2), np.exp(z), *(f.real.mean(axis=0) for f in (middle, first, second, last))


@dataclass(frozen=True)
class GrayScottOptions(SimulatorOptions):
    """Options of the Gray-Scott corpus.

    Args:
        grid: points along x and y of what is stored, even; the solver's grid is `refine` times finer.
        side: of the square, in Pearson's unit.
        frames, step: number of frames and the time between them.
        warmup: time between the random seeds and the first frame, uniform in [warmup / 2, warmup].
        regimes: kinds of patterns in train, valid and test.
        ood_regimes: those of the split outside the training distribution.
        jitter: feed and kill rate are uniform within this share of the regime's; at 0.02 one trajectory of gliders in eight dies out.
    """

    grid: int = 64
    refine: float = 2.0
    side: float = 0.75
    frames: int = 32
    step: float = 20.0
    warmup: float = 200.0
    regimes: tuple[str, ...] = ("spirals", "maze", "spots")
    ood_regimes: tuple[str, ...] = ("gliders",)
    jitter: float = 0.015

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.grid >= 16 and self.grid % 2 == 0, f"option grid={self.grid}: expected an even number of at least 16")
        for name in ("side", "step"):
            require(0 < getattr(self, name) < np.inf, f"option {name}={getattr(self, name)}: expected a positive number")
        require(1 <= self.refine <= 8, f"option refine={self.refine}: expected 1 to 8")
        require(self.frames >= 1, f"option frames={self.frames}: expected 1 or more")
        require(0 <= self.warmup < np.inf, f"option warmup={self.warmup}: expected 0 or more")
        require(0 <= self.jitter <= 0.1, f"option jitter={self.jitter}: expected 0 to 0.1")
        for name in ("regimes", "ood_regimes"):
            chosen = getattr(self, name)
            known = bool(chosen) and set(chosen) <= set(REGIMES)
            require(known, f"option {name}={','.join(chosen)}: expected some of {', '.join(REGIMES)}")
        both = ", ".join(sorted(set(self.regimes) & set(self.ood_regimes)))
        require(not (self.ood and both), f"options regimes and ood_regimes both hold {both}; leave it out of one, or set ood=0")


class GrayScott(Simulator):
    """Patterns growing from random seeds, each trajectory with its own feed and kill rate."""

    name = "gray-scott"
    Options = GrayScottOptions
    options: GrayScottOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D reaction and diffusion of two substances, periodic", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        def words(names: tuple[str, ...]) -> str:
            kinds = "; ".join(f"{name}: feed {REGIMES[name][0]:g}, kill {REGIMES[name][1]:g}" for name in names)
            return f"{kinds}; each within {self.options.jitter:.1%}"

        return words(self.options.regimes), words(self.options.ood_regimes)

    def bytes_per_sample(self) -> int:
        return 8 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        regimes = o.ood_regimes if outside else o.regimes
        regime = regimes[rng.integers(len(regimes))]
        feed, kill = (float(r * (1 + o.jitter * rng.uniform(-1, 1))) for r in REGIMES[regime])
        warmup = float(rng.uniform(0.5, 1) * o.warmup)
        start = random_start(rng, 2 * round(o.grid * o.refine / 2), o.side)

        time = Time.regular(0.0, o.step, o.frames)
        fields = resample(simulate(start, feed, kill, warmup + time.seconds, side=o.side), o.grid)
        values = fields[:, :, None].astype(np.float32)
        axis = o.side / o.grid * np.arange(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=(Variable("fed_concentration", "1"), Variable("concentration", "1")),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, {regime}"),
            boundary=Boundary(y=("periodic", "periodic"), x=("periodic", "periodic")),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"feed": feed, "kill": kill, "diffusion_fed": DIFFUSION[0], "diffusion": DIFFUSION[1]},
        )
