"""Solutions saved as plain arrays: `.npz`, `.mat` (v5 and v7.3) and `.pt` (tensors only), with options for what the file does not say.

    scigpt data prepare arrays --input Burgers.npz --out DIR field=usol axes=x,t x=x t=t variable=velocity_x boundary=x:wall
    scigpt data prepare arrays --input darcy_test_16.pt --out DIR field=y given=x axes=n,y,x variable=solution given_variable=permeability

Options left out are found where there is no doubt: the field is the only array that is neither a coordinate nor a number; vectors named `t`
(`tt`, `time`), `x`, `y`, `z` are coordinates, and an axis belongs to the one coordinate of its length; a file of two arrays `x` and `y` of
one shape (N, ..., ...) holds steady pairs, `x` given and `y` the solution. Single numbers are coefficients. Several files are read alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import scipy.io

from scigpt.data.sample import Boundary, Role
from scigpt.data_prep.formats.hdf5 import is_hdf5, open_hdf5
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.source import Description
from scigpt.data_prep.suggest import nearest
from scigpt.data_prep.trajectories import Channel, Recording, TrajectoryOptions, TrajectorySource, along
from scigpt.errors import UserError

COORDINATES: Mapping[str, tuple[str, ...]] = {"t": ("t", "tt", "time"), "x": ("x", "xx"), "y": ("y", "yy"), "z": ("z", "zz")}


@dataclass(frozen=True)
class ArraysOptions(TrajectoryOptions):
    """As every source of simulations, and what the arrays are.

    Args:
        field: names of the arrays to predict.
        axes: a letter for each axis of the field: n (trajectory), t, c (component), z, y, x, as in `axes=x,t`.
        x, y, z, t: names of the arrays with the coordinates.
        variable: names in the corpus, one for each array or component.
        unit: of the field, one for all or one for each variable.
        given: array known in advance of a steady problem (its source, its permeability), with the axes of the field.
        given_variable, given_role: its name in the corpus; `forcing` or `static`.
        step: time between frames where there is no array of times.
    """

    field: tuple[str, ...] | None = None
    axes: tuple[str, ...] | None = None
    x: str | None = None
    y: str | None = None
    z: str | None = None
    t: str | None = None
    variable: tuple[str, ...] | None = None
    unit: tuple[str, ...] = ()
    given: str | None = None
    given_variable: str = "source"
    given_role: Role = "forcing"
    step: float = 1.0


@dataclass
class _Content:
    """The numeric arrays of a file, and what they were found to be."""

    path: Path
    arrays: dict[str, np.ndarray]
    coordinates: dict[str, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            told = nearest(name, self.arrays) or f"it has {self.listed()}"
            raise UserError(f"{self.path.name} has no array {name!r}; {told}")
        return self.arrays[name]

    def listed(self) -> str:
        return ", ".join(f"{n} {a.shape}" for n, a in self.arrays.items()) or "no array"


class Arrays(TrajectorySource):
    """Trajectories, or steady pairs, in plain arrays; dealt to the splits at random."""

    name = "arrays"
    Options: ClassVar[type] = ArraysOptions
    suffixes = (".npz", ".mat", ".pt", ".pth")
    layout: ClassVar[str] = "a .npz, .mat or .pt file of numeric arrays"

    options: ArraysOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            cls.name, "any: solutions in plain arrays", "NPZ, MATLAB v5 and v7.3, PyTorch tensors", "unstated", redistributable=False
        )

    @classmethod
    def fits(cls, file: h5py.File) -> bool:
        return True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix.lower() in cls.suffixes and path.is_file()

    @contextmanager
    def opened(self, path: Path) -> Iterator[Any]:
        if path.suffix.lower() not in self.suffixes:
            raise UserError(f"{path.name} does not end with {', '.join(self.suffixes)}; expected {self.layout}")
        with one_sentence(path):
            arrays = {name: np.asarray(a) for name, a in _load(path).items()}
        yield _Content(path, {name: a for name, a in arrays.items() if a.dtype.kind in "biufc" and a.size})

    def recordings(self, path: Path, file: Any) -> list[Recording]:
        options, content = self.options, file
        for letter, names in COORDINATES.items():
            asked = getattr(options, letter)
            found = asked or next((n for n in names if n in content.arrays and _vector(content.arrays[n])), None)
            if found is not None and found not in (options.given, *(options.field or ())):
                content.coordinates[letter] = _as_vector(content, found)
        names, given = self._field(content)
        axes = self._axes(content, names[0], given)
        arrays = {n: _real(content, n) for n in (*names, *([given] if given else []))}
        for name, array in arrays.items():
            if array.ndim != len(axes):
                raise UserError(f"{path.name}: {name} has the shape {array.shape} and axes={','.join(axes)} names {len(axes)} axes")
        channels = self._channels(content, names, arrays, axes)
        if given:
            channels.insert(0, Channel(given, arrays[given], axes, {"c": 0}, options.given_role, options.given_variable))
        size = {a: arrays[names[0]].shape[axes.index(a)] for a in axes}
        for letter, values in content.coordinates.items():
            if letter in size and values.size != size[letter]:
                raise UserError(f"{path.name}: the axis {letter} of {names[0]} has {size[letter]} values and its coordinate {values.size}")
        if "t" not in axes and not given:
            raise UserError(
                f"{path.name}: {names[0]} {arrays[names[0]].shape} has no axis of time; name it in axes= (as in axes=t,y,x), "
                "or say with given=NAME which array a steady problem starts from"
            )
        seconds = content.coordinates.get("t", options.step * np.arange(size.get("t", 1)))
        coordinates = along(**{a: content.coordinates[a] for a in "zyx" if a in size and a in content.coordinates})
        constants = {n: float(a.ravel()[0]) for n, a in content.arrays.items() if a.size == 1 and a.dtype.kind in "iuf"}
        times = (lambda _: seconds) if "t" in axes else None
        return [Recording(path, size.get("n", 1), tuple(channels), times, Boundary(), lambda _: coordinates, lambda _: constants)]

    def _field(self, content: _Content) -> tuple[tuple[str, ...], str | None]:
        """The arrays to predict, and the one given in a steady problem."""
        options = self.options
        if options.field is not None:
            for name in (*options.field, *([options.given] if options.given else [])):
                content[name]
            return options.field, options.given
        blocks = [n for n, a in content.arrays.items() if a.size > 1 and not _vector(a) and n != options.given]
        if set(blocks) == {"x", "y"} and content["x"].shape == content["y"].shape:
            return ("y",), "x"
        if len(blocks) != 1:
            raise UserError(f"{content.path.name} holds {content.listed()}; say with field=NAME which is the solution, with axes= its axes")
        if options.given is not None:
            content[options.given]
        return (blocks[0],), options.given

    def _axes(self, content: _Content, name: str, given: str | None) -> str:
        """A letter for each axis, by the option or by the lengths of the coordinates."""
        shape = content[name].shape
        if self.options.axes is not None:
            axes = "".join(self.options.axes)
            if len(set(axes)) != len(axes) or not set(axes) <= set("ntczyx") or not set(axes) & set("zyx"):
                raise UserError(f"option axes={','.join(axes)}: expected letters among n, t, c, z, y, x, each once, and one of space")
            return axes
        fitting = [[a for a, v in content.coordinates.items() if v.size == length] for length in shape]
        if all(len(letters) == 1 for letters in fitting) and len({f[0] for f in fitting}) == len(shape):
            return "".join(f[0] for f in fitting)
        if given and not content.coordinates and len(shape) in (2, 3):
            return ("nx", "nyx")[len(shape) - 2]
        raise UserError(
            f"{content.path.name}: the axes of {name} {shape} are not told by coordinates of these lengths; name them, as in axes=n,t,y,x"
        )

    def _channels(self, content: _Content, names: tuple[str, ...], arrays: Mapping[str, np.ndarray], axes: str) -> list[Channel]:
        count = {n: arrays[n].shape[axes.index("c")] if "c" in axes else 1 for n in names}
        parts = [(f"{n}_{c}" if "c" in axes else n, arrays[n], c) for n in names for c in range(count[n])]
        options = self.options
        called = options.variable or (("solution",) if len(parts) == 1 else tuple(name for name, _, _ in parts))
        if len(called) != len(parts):
            told = ", ".join(name for name, _, _ in parts)
            raise UserError(
                f"{content.path.name}: variable={','.join(called)} gives {len(called)} names; expected {len(parts)}, for {told}"
            )
        if len(options.unit) not in (0, 1, len(parts)):
            raise UserError(f"{content.path.name}: unit= names {len(options.unit)} units; expected one, or {len(parts)}")
        units = options.unit * (len(parts) if len(options.unit) == 1 else 1) or ("",) * len(parts)
        return [
            Channel(name, array, axes, {"c": c}, variable=variable, unit=unit)
            for (name, array, c), variable, unit in zip(parts, called, units, strict=True)
        ]


def _vector(array: np.ndarray) -> bool:
    return array.size > 1 and array.size == max(array.shape)


def _as_vector(content: _Content, name: str) -> np.ndarray:
    array = _real(content, name)
    if not _vector(array):
        raise UserError(f"{content.path.name}: the coordinate {name} has the shape {array.shape}; expected a vector")
    return array.ravel()


def _real(content: _Content, name: str) -> np.ndarray:
    array = content[name]
    if array.dtype.kind == "c":
        raise UserError(f"{content.path.name}: {name} is complex; save its real and imaginary parts as two arrays, field= takes both")
    return array


def _load(path: Path) -> dict[str, Any]:
    """Arrays by name; nothing is unpickled but the tensors of a `.pt` file, by a reader that refuses all else."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    if suffix == ".mat":
        if not is_hdf5(path):
            return {n: a for n, a in scipy.io.loadmat(path).items() if isinstance(a, np.ndarray)}
        with open_hdf5(path) as file:  # MATLAB stores the first axis fastest: its order of axes is the reverse of HDF5's
            return {n: d[()].T for n, d in file.items() if isinstance(d, h5py.Dataset) and d.dtype.kind in "biuf"}
    return _tensors(path)


def _tensors(path: Path) -> dict[str, np.ndarray]:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  weights_only builds tensors and plain containers, runs nothing
    except Exception as error:
        detail = " ".join(str(error).split())[:100]
        raise UserError(f"{path.name} cannot be read as tensors alone ({detail}); save a dict of tensors with torch.save") from None
    if isinstance(held, torch.Tensor):
        held = {"values": held}
    if isinstance(held, list | tuple):
        held = {f"values_{i}": v for i, v in enumerate(held)}
    tensors = {str(n): t for n, t in held.items() if isinstance(t, torch.Tensor)} if isinstance(held, dict) else {}
    return {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy(force=True) for n, t in tensors.items()}
