"""The steady families of Subramanian et al. (arXiv:2306.00258): `fields` `(N, 2, y, x)`, source and solution, and `tensor`, coefficients.

The samples are those of our own `poisson`, `advection-diffusion` and `helmholtz` corpora. The source of every file is in the order of its
sparsity, so splits that the names of the files do not say are dealt at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import h5py
import numpy as np

from scigpt.data_prep.formats.hdf5 import dataset
from scigpt.data_prep.source import Description
from scigpt.data_prep.trajectories import Channel, Recording, TrajectoryOptions, TrajectorySource, along, on_axes
from scigpt.errors import UserError

Equation = Literal["poisson", "advection-diffusion", "helmholtz"]

DIFFUSION = ("diffusion_xx", "diffusion_yy", "diffusion_xy")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "poisson": DIFFUSION,
    "advection-diffusion": (*DIFFUSION, "advection_x", "advection_y"),
    "helmholtz": ("diffusion", "omega"),
}


@dataclass(frozen=True)
class OperatorScalingOptions(TrajectoryOptions):
    """As every source of simulations.

    Args:
        equation: `poisson`, `advection-diffusion` or `helmholtz`; by default the one whose coefficients are as many as the file has.
    """

    equation: Equation | None = None


class OperatorScaling(TrajectorySource):
    """Steady pairs; the split is the word `train`, `val` or `test` in the name of a file."""

    name = "operator-scaling"
    Options: ClassVar[type] = OperatorScalingOptions
    splits_by_name = True
    layout: ClassVar[str] = "`fields` (N, 2, y, x) and `tensor` (N, coefficients)"

    options: OperatorScalingOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics: steady Poisson, advection-diffusion and Helmholtz, 2-D periodic",
            "HDF5",
            "MIT",
            "Subramanian et al. 2023, neuraloperators-TL-scaling (arXiv:2306.00258)",
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return "fields" in file and "tensor" in file

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        fields, tensor = dataset(file, "fields", 4), dataset(file, "tensor", 2)
        if fields.shape[1] != 2 or len(fields) != len(tensor):
            raise UserError(f"{path.name} has fields {fields.shape} and tensor {tensor.shape}; expected {self.layout}")
        names = self._columns(path, tensor.shape[1])

        def coefficients(trajectory: int) -> Mapping[str, float]:
            known = dict(zip(names, map(float, tensor[trajectory]), strict=True))
            if "diffusion" in known:  # the same in every direction, told as in our own corpus
                size = known.pop("diffusion")
                return {**dict(zip(DIFFUSION, (size, size, 0.0), strict=True)), **known}
            return known

        axes = along(y=np.arange(fields.shape[2]) / fields.shape[2], x=np.arange(fields.shape[3]) / fields.shape[3])
        channels = (
            Channel("source", fields, "ncyx", {"c": 0}, "forcing", "source"),
            Channel("solution", fields, "ncyx", {"c": 1}, "state", "solution"),
        )
        return [Recording(path, len(fields), channels, None, on_axes("periodic", "yx"), lambda _: axes, coefficients)]

    def _columns(self, path: Path, count: int) -> tuple[str, ...]:
        asked = self.options.equation
        names = next((columns for name, columns in COLUMNS.items() if len(columns) == count and asked in (None, name)), None)
        if names is None:
            told = ", ".join(f"{name} {len(columns)}" for name, columns in COLUMNS.items())
            option = f", and the option says equation={asked}" if asked else ""
            raise UserError(f"{path.name} has {count} coefficients for each sample{option}; the equations have {told}")
        return names
