"""PDEgym, the data of Poseidon (Herde et al. 2024, arXiv:2405.19101): HDF5 under the name `.nc`.

- `velocity` (N, T, 2 or 3, x, y): incompressible flow, a tracer third;
- `data` or `solution` (N, T, 4 or more, x, y): compressible flow (density, velocity, pressure; the gravitational potential sixth where
  there are six); `solution` (N, T, 2, x, y): forced incompressible flow;
- `solution` (N, T[, 1], x, y): waves, with the static wave speed `c` (N, x, y), and Allen-Cahn;
- `source` and `solution` (N, x, y): Poisson, steady; `solution` (N, 2, x, y) of `SE-AF`: the shape of an airfoil and the density around it.

Files have no times, scalars or boundaries: times are fractions of the last one, as upstream, and boundaries those of the paper. The axes
of incompressible files are not all in one order (`NS-SL` is transposed), so it is read off the divergence, which vanishes in the right one.
The last trajectories are the test data, those before them the validation data, as many as upstream takes where all are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import h5py
import numpy as np

from scigpt.data_prep.blocks import shares
from scigpt.data_prep.formats.hdf5 import dataset
from scigpt.data_prep.source import Description
from scigpt.data_prep.trajectories import Channel, Recording, TrajectoryOptions, TrajectorySource, along, on_axes
from scigpt.errors import UserError

FLUID = ("density", "velocity_x", "velocity_y", "pressure_field")
HELD_OUT = {"Wave": (60, 240), "ACE": (60, 240), "CE-RM": (100, 130), "GCE-RT": (100, 130)}
"""Validation and test trajectories upstream, by the beginning of the file name; (120, 240) for the others."""
OPEN = ("Wave", "SE", "GCE")


@dataclass(frozen=True)
class PdeGymOptions(TrajectoryOptions):
    """As every source of simulations.

    Args:
        order: of the space axes, `xy` (x first) or `yx`; by default `xy`, or for incompressible flow the one free of divergence.
    """

    order: Literal["xy", "yx"] | None = None


class PdeGym(TrajectorySource):
    """Trajectories of PDEgym, assembled or in parts."""

    name = "pdegym"
    Options: ClassVar[type] = PdeGymOptions
    layout: ClassVar[str] = "`velocity`, `data` or `solution` (N, T[, C], x, y), or `source` and `solution` (N, x, y)"

    options: PdeGymOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics: flows, waves, Allen-Cahn and Poisson of PDEgym (Poseidon), 2-D",
            "HDF5 named .nc",
            "CC-BY-NC-4.0",
            "Herde et al. 2024, Poseidon (arXiv:2405.19101)",
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        main = _main(file)
        return main is not None and (main.ndim in (4, 5) or (main.ndim == 3 and "source" in file))

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        main = _main(file)
        assert main is not None
        array = dataset(file, main.name)
        name = array.name.strip("/")
        order = self.options.order or (_free_of_divergence(array) if name == "velocity" else "xy")
        still = _still(path, file, array, order)
        if still:
            channels, times = still, None
        else:
            channels, times = _moving(path, file, array, order), np.linspace(0.0, 1.0, array.shape[1])
        n = dict(zip(order, array.shape[-2:], strict=True))
        axes = along(**{a: np.arange(n[a]) / n[a] for a in "yx"})
        kind: Literal["wall", "open", "periodic"] = "wall" if "source" in file else "open" if path.stem.startswith(OPEN) else "periodic"
        return [Recording(path, len(array), channels, None if times is None else lambda _: times, on_axes(kind, "yx"), lambda _: axes)]

    def deal(self, recordings: Sequence[Recording]) -> list[str]:
        count = sum(r.count for r in recordings)
        stem = recordings[0].path.stem if recordings else ""
        valid, test = next((sizes for start, sizes in HELD_OUT.items() if stem.startswith(start)), (120, 240))
        if count >= 5 * (valid + test):
            return ["train"] * (count - valid - test) + ["valid"] * valid + ["test"] * test
        splits = [name for name, start, stop in shares(count, self.options.splits) for _ in range(stop - start)]
        return splits if "train" in splits else ["train", *splits[1:]]


def _main(file: h5py.File) -> h5py.Dataset | None:
    """The array of the state; others of that name in other corpora come with coordinates."""
    if "x-coordinate" in file:
        return None
    return next((file[n] for n in ("velocity", "data", "solution") if isinstance(file.get(n), h5py.Dataset)), None)


def _still(path: Path, file: h5py.File, array: h5py.Dataset, order: str) -> tuple[Channel, ...] | None:
    """The channels of a steady problem."""
    if "source" in file and array.ndim == 3:
        source = dataset(file, "source", 3)
        return Channel("source", source, f"n{order}", role="forcing"), Channel("solution", array, f"n{order}")
    if array.ndim == 4 and array.shape[1] == 2 and path.stem.startswith("SE"):
        shape = Channel("solution_0", array, f"nc{order}", {"c": 0}, "static", "obstacle")
        return shape, Channel("solution_1", array, f"nc{order}", {"c": 1}, variable="density")
    return None


def _moving(path: Path, file: h5py.File, array: h5py.Dataset, order: str) -> tuple[Channel, ...]:
    name = array.name.strip("/")
    if array.ndim == 4:
        channels = [Channel(name, array, f"nt{order}", variable="solution")]
    elif array.ndim == 5:
        count = array.shape[2]
        if count == 1:
            names: tuple[str, ...] = ("solution",)
        elif count <= 3:
            names = ("velocity_x", "velocity_y", "concentration")[:count]
        else:
            # the fifth of compressible files is not read upstream either; the sixth is the gravitational potential
            names = FLUID
        channels = [Channel(f"{name}_{c}", array, f"ntc{order}", {"c": c}, variable=v) for c, v in enumerate(names)]
        if count >= 6:
            channels.append(Channel(f"{name}_5", array, f"ntc{order}", {"c": 5}, "forcing", "gravitational_potential"))
    else:
        raise UserError(f"{path.name}, {array.name} has the shape {array.shape}; expected (N, T[, C], x, y)")
    if "c" in file:
        speed = dataset(file, "c")
        channels.append(Channel("c", speed, f"n{'c' * (speed.ndim - 3)}{order}", {"c": 0}, "static", "sound_speed"))
    return tuple(channels)


def _free_of_divergence(velocity: h5py.Dataset) -> Literal["xy", "yx"]:
    """The order of the last two axes in which the first trajectory, at its last frame, has the smaller divergence."""
    u, v = np.asarray(velocity[0, -1, :2], np.float64)

    def slope(values: np.ndarray, axis: int) -> np.ndarray:
        return np.roll(values, -1, axis) - np.roll(values, 1, axis)

    xy, yx = (np.square(slope(u, a) * n + slope(v, b) * m).sum() for a, b, n, m in ((0, 1, *u.shape), (1, 0, *u.shape[::-1])))
    return "yx" if yx < xy else "xy"
