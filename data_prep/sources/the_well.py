"""The Well (Ohana et al. 2024, arXiv:2412.00568): HDF5 files of trajectories that describe themselves.

Fields of order 0, 1 and 2 become one variable for each component (`velocity_x`, `conformation_xy`), constant fields become static
variables, constant scalars coefficients, and scalars that vary in time forcings that are the same everywhere. A mask of walls inside the
domain is no side of it and is left to the constant fields. On the sphere (`theta` the colatitude, `phi`) there are latitude and longitude.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from scigpt.data.sample import Boundary, BoundaryKind, Coordinate, Geometry
from scigpt.data_prep.formats.hdf5 import dataset, member, texts
from scigpt.data_prep.source import Description
from scigpt.data_prep.trajectories import Channel, Recording, TrajectorySource, along
from scigpt.errors import UserError

KNOWN = {"pressure": "pressure_field", "temperature": "temperature_field", "tracer": "concentration"}


class TheWell(TrajectorySource):
    """Trajectories of The Well; the split is that of the folder (`train`, `valid`, `test`) a file lies in."""

    name = "the-well"
    splits_by_name = True
    layout: ClassVar[str] = "the groups dimensions, boundary_conditions, scalars and t0_fields, t1_fields, t2_fields"

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name,
            "physics: simulations of The Well, 2-D and 3-D",
            "HDF5",
            "CC-BY-4.0",
            "Polymathic AI, The Well (Ohana et al. 2024, arXiv:2412.00568)",
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return "dimensions" in file and "t0_fields" in file

    def recordings(self, path: Path, file: h5py.File) -> list[Recording]:
        dimensions = member(file, "dimensions")
        if "spatial_dims" not in dimensions.attrs:
            raise UserError(f"{path.name}, /dimensions has no attribute spatial_dims; expected the names of the space axes there")
        names = texts(dimensions.attrs["spatial_dims"])
        letters = _letters(path, names)
        time = dataset(dimensions, "time")
        channels = [c for order in range(3) for c in _channels(member(file, f"t{order}_fields"), order, letters)]
        scalars = file.get("scalars", {})
        constants: dict[str, h5py.Dataset] = {}
        for name in _names(scalars):
            scalar = dataset(scalars, name)
            if scalar.attrs["time_varying"]:
                axes = ("n" if scalar.attrs["sample_varying"] else "") + "t"
                channels.append(Channel(name, scalar, axes, role="forcing"))
            else:
                constants[name] = scalar
        if not any(c.role == "state" for c in channels):
            raise UserError(f"{path.name} has no field that varies in time; expected one in t0_fields, t1_fields or t2_fields")

        def times(trajectory: int) -> np.ndarray:
            return time[trajectory] if time.attrs["sample_varying"] else time[:]

        def axis(name: str, trajectory: int) -> np.ndarray:
            values = dataset(dimensions, name)
            return values[trajectory] if values.attrs["sample_varying"] else values[:]

        def coordinates(trajectory: int) -> Mapping[str, Coordinate]:
            if _spherical(names):
                latitude, longitude = 90.0 - np.degrees(axis("theta", trajectory)), np.degrees(axis("phi", trajectory))
                return {
                    "latitude": Coordinate((letters["theta"],), latitude, "degrees_north"),
                    "longitude": Coordinate((letters["phi"],), longitude, "degrees_east"),
                }
            return along(**{letter: axis(name, trajectory) for name, letter in letters.items()})

        def coefficients(trajectory: int) -> Mapping[str, float]:
            return {n: float(np.ravel(s[trajectory] if s.attrs["sample_varying"] else s[()])[0]) for n, s in constants.items()}

        count = int(file.attrs.get("n_trajectories", max(c.size("n") for c in channels)))
        sides = _boundary(file.get("boundary_conditions", {}), letters)
        if _spherical(names):
            sides = Boundary(y=("pole", "pole"), x=("periodic", "periodic"))
        geometry: Geometry = "sphere" if _spherical(names) else "plane"
        return [Recording(path, count, tuple(channels), times, sides, coordinates, coefficients, geometry)]


def _spherical(names: list[str]) -> bool:
    return names == ["theta", "phi"]


def _letters(path: Path, names: list[str]) -> dict[str, str]:
    """Which axis of a sample each dimension of the file is: x, y and z by name, others in their order, the last along x."""
    if not 1 <= len(names) <= 3:
        raise UserError(f"{path.name} has the space axes {', '.join(names) or 'none'}; expected one to three")
    if set(names) <= set("xyz"):
        return {n: n for n in names}
    return dict(zip(names, "zyx"[-len(names) :], strict=True))


def _names(group: Any) -> list[str]:
    return texts(group.attrs["field_names"]) if group and "field_names" in group.attrs else []


def _channels(group: h5py.Group, order: int, letters: Mapping[str, str]) -> list[Channel]:
    channels = []
    for name in _names(group):
        field = dataset(group, name)
        trajectory, time, space = (field.attrs[f"{what}_varying"] for what in ("sample", "time", "dim"))
        leading = ("n" if trajectory else "") + ("t" if time else "")
        axes = leading + "".join(letters.values())
        if field.ndim != len(axes) + order:  # axes along which it does not vary may have length 1 or be left out
            axes = leading + "".join(a for a, varies in zip(letters.values(), space, strict=True) if varies)
        if field.ndim != len(axes) + order:
            where = f"{Path(group.file.filename).name}, {field.name}"
            raise UserError(f"{where} has the shape {field.shape}; expected {len(axes) + order} axes")
        for component in itertools.product(range(len(letters)), repeat=order):
            if field.attrs.get("symmetric", False) and list(component) != sorted(component):
                continue
            parts = [list(letters)[c] for c in component]
            suffix = f"_{('' if max(map(len, letters)) == 1 else '_').join(parts)}" if order else ""
            channels.append(
                Channel(
                    f"{name}{suffix}",
                    field,
                    axes + "cd"[:order],
                    dict(zip("cd", component, strict=False)),
                    "state" if time else "static",
                    KNOWN.get(name, name) + suffix,
                )
            )
    return channels


def _boundary(conditions: Any, letters: Mapping[str, str]) -> Boundary:
    """Sides from the masks: periodic axes as declared, a wall where all of a side is one, open else."""
    sides: dict[str, list[BoundaryKind]] = {a: ["open", "open"] for a in letters.values()}
    for condition in (conditions[name] for name in conditions):
        kind = str(texts(condition.attrs["bc_type"])[0]).lower()
        dims = texts(condition.attrs["associated_dims"])
        mask = np.asarray(condition["mask"][()], bool)
        for i, dim in enumerate(dims):
            axis = letters[dim]
            if kind == "periodic":
                sides[axis] = ["periodic", "periodic"]
            elif kind == "wall" and sides[axis][0] != "periodic":
                # one axis and no cell marked: the condition holds on both of its sides
                everywhere = len(dims) == 1 and not mask.any()
                for side in (0, 1):
                    if everywhere or mask.take(-side, axis=i).all():
                        sides[axis][side] = "wall"
    return Boundary(**{a: (low, high) for a, (low, high) in sides.items()})
