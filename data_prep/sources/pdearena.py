"""PDEArena (Gupta and Brandstetter 2022, arXiv:2209.15616): HDF5 with a group for each split (`train`, `valid`, `test`).

- 2-D smoke in a closed box: `u`, `vx`, `vy` (N, T, x, y), `t` (N, T), `x`, `y` and the buoyancy `buo_y` (N).
- Kuramoto-Sivashinsky: `pde_*` (N, T, x), `dt`, `dx` and, where it varies, the viscosity `v` (N).

Its shallow water is NetCDF and Zarr on the sphere and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from scigpt.data.sample import Coordinate
from scigpt.data_prep.formats.hdf5 import dataset
from scigpt.data_prep.source import Description
from scigpt.data_prep.trajectories import Channel, Recording, TrajectorySource, along, on_axes
from scigpt.errors import UserError

SPLITS = ("train", "valid", "test")
FLOW = {"u": "concentration", "vx": "velocity_x", "vy": "velocity_y"}


class PdeArena(TrajectorySource):
    """Trajectories of PDEArena, in the splits of the files."""

    name = "pdearena"
    layout: ClassVar[str] = "a group train, valid or test with `u`, `vx`, `vy` (N, T, x, y), or with `pde_*` (N, T, x), `dt` and `dx`"

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics: 2-D smoke and 1-D Kuramoto-Sivashinsky of PDEArena",
            "HDF5",
            "MIT",
            "Gupta and Brandstetter 2022, PDEArena (arXiv:2209.15616)",
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return any(isinstance(file.get(s), h5py.Group) and ({"u", "vx"} <= set(file[s]) or _series(file[s])) for s in SPLITS)

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        groups = {s: file[s] for s in SPLITS if isinstance(file.get(s), h5py.Group)}
        return [_line(path, g, s) if _series(g) else _smoke(path, g, s) for s, g in groups.items()]


def _series(group: h5py.Group) -> list[str]:
    return [name for name in group if name.startswith("pde_")]


def _smoke(path: Path, group: h5py.Group, split: str) -> Recording:
    arrays = {name: dataset(group, name, 4) for name in FLOW}
    if len({a.shape for a in arrays.values()}) > 1:
        raise UserError(f"{path.name}, {group.name}: u, vx and vy have the shapes {[a.shape for a in arrays.values()]}; expected one shape")
    channels = tuple(Channel(name, array, "ntxy", variable=FLOW[name]) for name, array in arrays.items())
    t, x, y = (dataset(group, name, 2) for name in "txy")

    def coefficients(trajectory: int) -> Mapping[str, float]:
        return {"buoyancy_y": _one(group, "buo_y", trajectory)} if "buo_y" in group else {}

    def coordinates(trajectory: int) -> Mapping[str, Coordinate]:
        return along(y=y[trajectory], x=x[trajectory])

    count = len(arrays["u"])
    return Recording(
        path, count, channels, lambda i: t[i], on_axes("wall", "yx"), coordinates, coefficients, split=split, name=group.name.strip("/")
    )


def _line(path: Path, group: h5py.Group, split: str) -> Recording:
    name, *others = _series(group)
    if others:
        raise UserError(f"{path.name}, {group.name} has {name} and {', '.join(others)}; expected one array pde_*")
    series = dataset(group, name)
    if series.ndim not in (3, 4):
        raise UserError(f"{path.name}, {series.name} has the shape {series.shape}; expected (N, T, x)")
    # some files have an axis of variables, of length 1, before x
    channel = Channel(name, series, "ntx" if series.ndim == 3 else "ntcx", {"c": 0}, variable="velocity_x")

    def coefficients(trajectory: int) -> Mapping[str, float]:
        return {"viscosity": _one(group, "v", trajectory)} if "v" in group else {}

    return Recording(
        path,
        len(series),
        (channel,),
        lambda i: _one(group, "dt", i) * np.arange(series.shape[1]),
        on_axes("periodic", "x"),
        lambda i: along(x=_one(group, "dx", i) * np.arange(series.shape[-1])),
        coefficients,
        split=split,
        name=group.name.strip("/"),
    )


def _one(group: h5py.Group, name: str, trajectory: int) -> float:
    return float(np.ravel(dataset(group, name)[trajectory])[0])
