"""SuperBench (Ren et al. 2023, arXiv:2306.14070): HDF5 `fields` (N, C, y, x), snapshots in order, without names, units or times.

What the variables are follows from the words `nskt`, `cosmo` or `era5` in the path, or else from the number of variables; the option
`variables` corrects it (`field_0:air_temperature:K`). The step between snapshots is the option `step`. Folders are the splits:
`train`, `valid_1`, `test_1` (interpolation) and `valid_2`, `test_2` (extrapolation, out of distribution).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from scigpt.data.sample import Boundary, Coordinate, Level
from scigpt.data_prep.formats.hdf5 import dataset
from scigpt.data_prep.source import Description, Split
from scigpt.data_prep.trajectories import Channel, Recording, TrajectoryOptions, TrajectorySource, along, on_axes
from scigpt.errors import UserError

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "nskt": ("velocity_x", "velocity_y", "vorticity"),
    "cosmo": ("log_temperature", "log_density"),
    "era5": ("kinetic_energy", "air_temperature", "total_column_water_vapour"),
}
LEVELS = {"kinetic_energy": Level("height", 10.0), "air_temperature": Level("height", 2.0)}


@dataclass(frozen=True)
class SuperBenchOptions(TrajectoryOptions):
    """As every source of simulations.

    Args:
        step: time between two snapshots, in the simulation's own unit (seconds for `era5`).
    """

    step: float = 1.0


class SuperBench(TrajectorySource):
    """Snapshots of SuperBench; each file is one trajectory."""

    name = "superbench"
    Options: ClassVar[type] = SuperBenchOptions
    splits_by_name = True
    layout: ClassVar[str] = "`fields` (N, C, y, x) and no `tensor`"

    options: SuperBenchOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics and weather: Kraichnan turbulence, cosmology and ERA5 of SuperBench",
            "HDF5",
            "unstated",
            "Ren et al. 2023, SuperBench (arXiv:2306.14070)",
            redistributable=False,
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return isinstance(file.get("fields"), h5py.Dataset) and "tensor" not in file and file["fields"].ndim == 4

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        fields = dataset(file, "fields", 4)
        if not self.options.step > 0:
            raise UserError(f"option step={self.options.step:g} must be above 0")
        count, height, width = fields.shape[1:]
        family = _family(path, count, width)
        names = FAMILIES.get(family, ())
        channels = tuple(
            Channel(f"field_{c}", fields, "tcyx", {"c": c}, variable=name, level=LEVELS.get(name))
            for c, name in enumerate(names if len(names) == count else [f"field_{c}" for c in range(count)])
        )
        seconds = self.options.step * np.arange(len(fields))
        if family == "era5":
            # 721 rows hold both poles; 720 leave out the last
            axes = {
                "latitude": Coordinate(("y",), 90.0 - 180.0 * np.arange(height) / (height - height % 2), "degrees_north"),
                "longitude": Coordinate(("x",), 360.0 * np.arange(width) / width, "degrees_east"),
            }
            sides = Boundary(y=("pole", "pole" if height % 2 else "open"), x=("periodic", "periodic"))
            return [Recording(path, 1, channels, lambda _: seconds, sides, lambda _: axes, geometry="sphere")]
        axes = along(y=np.arange(height) / height, x=np.arange(width) / width)
        return [Recording(path, 1, channels, lambda _: seconds, on_axes("periodic", "yx"), lambda _: axes)]

    def split_word(self, path: Path) -> str | None:
        form = r"(train|val|valid|test)((?:_[12])?)"
        found = re.search(rf"(?<![a-z]){form}(?![a-z])", path.stem.lower()) or re.fullmatch(form, path.parent.name.lower())
        return None if found is None else found[1].replace("valid", "val").replace("val", "valid") + found[2]

    def split(self, name: str) -> Split:
        if name.endswith("_2"):
            return Split(name, "out", "extrapolation")
        return Split(name, "in", "interpolation") if name.endswith("_1") else super().split(name)


def _family(path: Path, count: int, width: int) -> str:
    told = next((word for word in FAMILIES if any(word in part.lower() for part in path.parts[-4:])), None)
    return told or {2: "cosmo", 3: "era5" if width == 1440 else "nskt"}.get(count, "")
