"""Simulators: one file per equation, each with a documented float64 solver and a source that yields Samples."""

from __future__ import annotations

from scigpt.data_prep.pde.navier_stokes import NavierStokes
from scigpt.data_prep.pde.poisson import Poisson
from scigpt.data_prep.source import Source

EQUATIONS: dict[str, type[Source]] = {"navier-stokes": NavierStokes, "poisson": Poisson}
