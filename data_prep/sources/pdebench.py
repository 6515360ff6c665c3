"""PDEBench (Takamoto et al. 2022, arXiv:2210.07182): HDF5 in three layouts.

- `tensor` (N, T, x[, y[, z]]) with `x-coordinate`, `t-coordinate` (one more time than frames, at the end): advection, Burgers,
  reaction-diffusion; and Darcy flow, steady: `tensor` (N, 1, x, y) and the permeability `nu` (N, x, y).
- `density`, `pressure`, `Vx`, `Vy`, `Vz`, each (N, T, x[, y[, z]]): compressible flow.
- a group for each seed, `0000/data` (t, x[, y], c) with `grid` and the configuration as YAML: diffusion-reaction, diffusion-sorption,
  shallow water (radial dam break).

Files do not say their equation: variables and boundaries follow from layout and file name, and the options `variables` and `boundary`
correct them. Coefficients are the attributes, the numbers in the file name (`beta0.4`) or those of the configuration, under their names.
`Train` in a file name is no split: upstream takes its test data out of the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import yaml

from scigpt.data.sample import Boundary, BoundaryKind
from scigpt.data_prep.formats.hdf5 import dataset, member, texts
from scigpt.data_prep.source import Description
from scigpt.data_prep.trajectories import Channel, Recording, TrajectorySource, along, on_axes
from scigpt.errors import UserError

FLOW = {"density": "density", "pressure": "pressure_field", "Vx": "velocity_x", "Vy": "velocity_y", "Vz": "velocity_z"}
IN_NAMES = {"advection": "concentration", "burgers": "velocity_x", "reacdiff": "concentration"}
"""What `tensor` is, by a word in the file name."""
_NUMERICS = re.compile(r"n|seed|t|tdim|[xyz]dim|[xy]_(left|right|bottom|top)|T_end|n_.*|.*_steps")
_NAMED = re.compile(r"(beta|nu|rho|eta|zeta|M)(\d+(?:\.\d+)?(?:e-?\d+)?)(?=[_.]|$)", re.IGNORECASE)


class PdeBench(TrajectorySource):
    """Trajectories of PDEBench, dealt to the splits at random."""

    name = "pdebench"
    layout: ClassVar[str] = (
        "`tensor` or `density`, `pressure`, `Vx` with `x-coordinate`, or a group for each seed (`0000/data`, `0000/grid/x`)"
    )

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics: simulations of PDEBench, 1-D to 3-D",
            "HDF5",
            "CC-BY-4.0",
            "Takamoto et al. 2022, PDEBench (doi:10.18419/darus-2986)",
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return ("x-coordinate" in file and ("tensor" in file or "density" in file)) or bool(_seeds(file))

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        if "x-coordinate" not in file:
            return [_seed(path, file[name]) for name in _seeds(file)]
        if "density" in file:
            named = {name: dataset(file, name) for name in FLOW if name in file}
            kind: BoundaryKind = "periodic" if "periodic" in path.stem.lower() else "open"
        else:
            named, kind = {"tensor": dataset(file, "tensor")}, "periodic"
        shapes = {name: array.shape for name, array in named.items()}
        if len(set(shapes.values())) > 1 or not 3 <= len(next(iter(shapes.values()))) <= 5:
            raise UserError(f"{path.name} has the arrays {shapes}; expected one shape (N, T, x[, y[, z]])")
        first = next(iter(named.values()))
        space = "xyz"[: first.ndim - 2]
        if "nu" in file and first.shape[1] == 1:
            return [_darcy(path, file, first)]
        word = next((w for w in IN_NAMES if w in path.stem.lower()), "")
        known = FLOW | {"tensor": IN_NAMES.get(word, "solution")}
        axes = along(**{a: dataset(file, f"{a}-coordinate", 1)[:] for a in space})
        times, constants = dataset(file, "t-coordinate", 1), _constants(path, file)
        return [
            Recording(
                path,
                len(first),
                tuple(Channel(name, array, "nt" + space, variable=known[name]) for name, array in named.items()),
                lambda _: times[:],
                on_axes(kind, space),
                lambda _: axes,
                lambda _: constants,
            )
        ]


def _seeds(file: h5py.File) -> list[str]:
    return [name for name in file if isinstance(file[name], h5py.Group) and "data" in file[name] and "grid" in file[name]]


def _darcy(path: Path, file: h5py.File, tensor: h5py.Dataset) -> Recording:
    permeability = Channel("nu", dataset(file, "nu", 3), "nxy", role="static", variable="permeability")
    pressure = Channel("tensor", tensor, "ntxy", {"t": 0}, variable="solution")
    axes = along(**{a: dataset(file, f"{a}-coordinate", 1)[:] for a in "xy"})
    constants = _constants(path, file)
    return Recording(path, len(tensor), (permeability, pressure), None, on_axes("wall", "yx"), lambda _: axes, lambda _: constants)


def _seed(path: Path, group: h5py.Group) -> Recording:
    data, grid = dataset(group, "data"), member(group, "grid")
    space = "xyz"[: data.ndim - 2]
    if not space:
        raise UserError(f"{path.name}, {data.name} has the shape {data.shape}; expected (t, x[, y], c)")
    sides: Boundary = on_axes("open", space)  # radial dam break
    names = ["surface_height"] if data.ndim == 4 else ["concentration"]
    if data.ndim == 3:  # diffusion-sorption: the concentration at the low side is prescribed
        sides = on_axes(("given", "open"), space)
    if data.shape[-1] == 2:  # diffusion-reaction: no flux through the sides
        names, sides = ["activator", "inhibitor"], on_axes("wall", space)
    channels = [
        Channel(f"data_{c}", data, f"t{space}c", {"c": c}, variable=names[c] if c < len(names) else "") for c in range(data.shape[-1])
    ]
    return Recording(
        path,
        1,
        tuple(channels),
        lambda _: dataset(grid, "t", 1)[:],
        sides,
        lambda _: along(**{a: dataset(grid, a, 1)[:] for a in space}),
        lambda _: _configured(group),
        name=group.name.strip("/"),
    )


def _configured(group: h5py.Group) -> Mapping[str, float]:
    """The numbers of the simulation's configuration, without those of its discretisation."""
    if "config" not in group.attrs:
        return {}
    settings: Any = yaml.safe_load(texts(group.attrs["config"])[0])
    found = settings.get("sim", {}) if isinstance(settings, dict) else {}
    numbers = {str(k): float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {k: v for k, v in numbers.items() if not _NUMERICS.fullmatch(k)}


def _constants(path: Path, file: h5py.File) -> Mapping[str, float]:
    said = {k.lower(): float(v) for k, v in file.attrs.items() if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "iuf"}
    return said or {name.lower(): float(value) for name, value in _NAMED.findall(path.stem)}
