"""Opening HDF5 files, and what is missing in them told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, for reading.

    Raises:
        UserError: a folder, not HDF5 (whatever its name says), damaged or truncated.
    """
    if not is_hdf5(path):
        what = "is a folder" if path.is_dir() else "is not HDF5 by its first bytes"
        raise UserError(f"{path.name} {what}; expected an HDF5 file (`scigpt data inspect` says what it is)")
    with one_sentence(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def is_hdf5(path: Path) -> bool:
    """Whether the first bytes are those of HDF5, at once or after the 512 bytes of text that MATLAB puts before them."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(520)
    return SIGNATURE in (head[:8], head[512:])


def contents(group: h5py.Group) -> list[str]:
    """Paths of the first datasets below the group, for messages."""
    found: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            found.append(name)
        return True if len(found) >= 6 else None

    group.visititems(visit)
    return found


def member(group: h5py.Group, name: str) -> Any:
    """A dataset or group; a `UserError` that names what is there instead if it is missing."""
    if name not in group:
        file = Path(group.file.filename).name
        there = ", ".join(list(group)[:8]) or "nothing"
        raise UserError(f"{file} has no {f'{group.name}/{name}'.replace('//', '/')}, which its layout needs; it has {there}")
    return group[name]


def dataset(group: h5py.Group, name: str, ndim: int | None = None) -> h5py.Dataset:
    """A dataset of plain numbers with `ndim` axes."""
    found = member(group, name)
    where = f"{Path(group.file.filename).name}, {found.name}"
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf":
        raise UserError(f"{where} is not an array of real numbers; this layout needs one there")
    if ndim is not None and found.ndim != ndim:
        raise UserError(f"{where} has the shape {found.shape}; expected {ndim} axes")
    if 0 in found.shape:
        raise UserError(f"{where} has the shape {found.shape}, so it holds no values; the file is incomplete, fetch it again")
    return found


def texts(value: Any) -> list[str]:
    """A text or an array of texts among the attributes, whatever its kind."""
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(np.asarray(value, object))]
