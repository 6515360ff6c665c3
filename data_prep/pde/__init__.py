"""Simulators: one file per equation, each with a documented float64 solver and a source that yields Samples."""

from __future__ import annotations

from scigpt.data_prep.pde.acoustic_waves import AcousticWaves
from scigpt.data_prep.pde.advection import Advection
from scigpt.data_prep.pde.advection_diffusion import AdvectionDiffusion
from scigpt.data_prep.pde.advection_diffusion_3d import AdvectionDiffusion3D
from scigpt.data_prep.pde.burgers import Burgers
from scigpt.data_prep.pde.diffusion import Diffusion
from scigpt.data_prep.pde.euler import Euler
from scigpt.data_prep.pde.gray_scott import GrayScott
from scigpt.data_prep.pde.helmholtz import Helmholtz
from scigpt.data_prep.pde.navier_stokes import NavierStokes
from scigpt.data_prep.pde.noise import Noise
from scigpt.data_prep.pde.passive_scalar import PassiveScalar
from scigpt.data_prep.pde.poisson import Poisson
from scigpt.data_prep.pde.porous_medium import PorousMedium
from scigpt.data_prep.pde.seismograms import Seismograms
from scigpt.data_prep.pde.shallow_water import ShallowWater
from scigpt.data_prep.pde.stefan import Stefan
from scigpt.data_prep.pde.taylor_green import TaylorGreen
from scigpt.data_prep.source import Source

EQUATIONS: dict[str, type[Source]] = {
    "acoustic-waves": AcousticWaves,
    "advection": Advection,
    "advection-diffusion": AdvectionDiffusion,
    "advection-diffusion-3d": AdvectionDiffusion3D,
    "burgers": Burgers,
    "diffusion": Diffusion,
    "euler": Euler,
    "gray-scott": GrayScott,
    "helmholtz": Helmholtz,
    "navier-stokes": NavierStokes,
    "noise": Noise,
    "passive-scalar": PassiveScalar,
    "poisson": Poisson,
    "porous-medium": PorousMedium,
    "seismograms": Seismograms,
    "shallow-water": ShallowWater,
    "stefan": Stefan,
    "taylor-green": TaylorGreen,
}
