"""A dye carried and spread by decaying two-dimensional turbulence on a periodic box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.pde.navier_stokes import SIDE, advance, random_vorticity, require_flow, resolving_grid, velocity
from scigpt.data_prep.pde.random_fields import random_field
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.pde.spectral import resample
from scigpt.data_prep.source import Description


def random_concentration(rng: np.random.Generator, n: int, peak: float) -> np.ndarray:
    """Smooth patches of dye between 0 and 1 `(n, n)`, peak waves per side; the same on every grid that resolves them."""
    x = np.arange(n) / n
    return 0.5 + 0.5 * np.tanh(random_field(rng, peak, x, x))


@dataclass(frozen=True)
class PassiveScalarOptions(SimulatorOptions):
    """Options of the passive-scalar corpus. The unit of time is that in which the largest eddies turn about once.

    Args:
        grid: cells along x and y of what is stored, even; fine structure is solved on a finer grid, as for `navier-stokes`.
        frames, step: number of frames and the time between them.
        warmup: time between the random initial fields and the first frame.
        peak: waves per side at which the initial flow and dye have most power.
        spread: the flow's amplitude is log-uniform in [1 / spread, spread].
        viscosity_low, viscosity_high: range of the log-uniform viscosity of all splits.
        diffusivity_low, diffusivity_high: range of the log-uniform diffusivity of the dye in train, valid and test.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        resolution: largest wavenumber of the solver over that at which the smaller of viscosity and diffusivity ends the cascade.
    """

    grid: int = 64
    frames: int = 32
    step: float = 0.1
    warmup: float = 0.2
    peak: float = 3.0
    spread: float = 2.0
    viscosity_low: float = 2e-2
    viscosity_high: float = 5e-2
    diffusivity_low: float = 2e-2
    diffusivity_high: float = 5e-2
    ood_low: float = 1e-2
    ood_high: float = 2e-2
    resolution: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_flow(self)
        low, high = self.viscosity_low, self.viscosity_high
        require(0 < low <= high < np.inf, f"options viscosity_low={low} and viscosity_high={high}: expected 0 < low <= high")
        require_ranges(self, "diffusivity")


class PassiveScalar(Simulator):
    """Trajectories of a decaying flow and the dye in it, each with its own viscosity and diffusivity."""

    name = "passive-scalar"
    Options = PassiveScalarOptions
    options: PassiveScalarOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "2-D incompressible flow carrying a dye, periodic", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        flow = f"viscosity {o.viscosity_low:g} to {o.viscosity_high:g}"
        inside, outside = f"{o.diffusivity_low:g} to {o.diffusivity_high:g}", f"{o.ood_low:g} to {o.ood_high:g}"
        return f"diffusivity {inside}, {flow}", f"diffusivity {outside}, {flow}"

    def bytes_per_sample(self) -> int:
        return 12 * self.options.frames * self.options.grid**2 + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        low, high = (o.ood_low, o.ood_high) if outside else (o.diffusivity_low, o.diffusivity_high)
        diffusivity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        viscosity = float(np.exp(rng.uniform(np.log(o.viscosity_low), np.log(o.viscosity_high))))
        amplitude = float(np.exp(rng.uniform(-np.log(o.spread), np.log(o.spread))))

        vorticity = random_vorticity(rng, o.grid, o.peak, amplitude * SIDE / o.peak)
        n = max(o.grid, resolving_grid(vorticity, min(viscosity, diffusivity), o.resolution))
        start = np.stack([resample(vorticity, n), random_concentration(rng, n, o.peak)])
        time = Time.regular(0.0, o.step, o.frames)
        fields = resample(advance(start, np.array([viscosity, diffusivity]), o.warmup + time.seconds), o.grid)
        fields = np.concatenate([velocity(fields[:, 0]), fields[:, 1:]], axis=1)
        values = fields[:, :, None].astype(np.float32)
        axis = SIDE / o.grid * np.arange(o.grid)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=tuple(Variable(name, "1") for name in ("velocity_x", "velocity_y", "concentration")),
            time=time,
            origin=Origin(self.name, LICENCE, place=f"{place}, amplitude={amplitude:.4g}"),
            boundary=Boundary(y=("periodic", "periodic"), x=("periodic", "periodic")),
            coordinates={"y": Coordinate(("y",), axis, "1"), "x": Coordinate(("x",), axis, "1")},
            coefficients={"viscosity": viscosity, "diffusivity": diffusivity},
        )
