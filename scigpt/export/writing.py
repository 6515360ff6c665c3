"""Forecasts on disk: NetCDF-4 or Zarr, written block by block, whole or not there."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr

from scigpt.data.files import DiskFull, sync_folder
from scigpt.errors import UserError

FORMS = {".nc": "NetCDF file", ".zarr": "Zarr store"}
CHUNK, SMALL = 4 << 20, 64 << 10
"""Bytes: a chunk holds one entry of the dimension that grows and at most CHUNK; of small entries as many as fit in SMALL."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check(out: Path, inputs: Sequence[Path] = ()) -> None:
    """Refuse a place that `write` would refuse, before anything is computed.

    Args:
        inputs: what the forecast is made from, which must stay.

    Raises:
        UserError: another suffix than .nc and .zarr, a folder that is not there, something else in the place, or an input.
    """
    if out.suffix not in FORMS:
        raise UserError(f"{out}: a forecast is written as NetCDF or Zarr; give a name that ends in {' or '.join(FORMS)}")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it, or choose another place")
    place = out.resolve()
    for path in inputs:
        given = path.resolve()
        if place == given or place in given.parents or given in place.parents:
            raise UserError(f"{out}: the forecast would be written over or into {path}, which it is made from; choose another place")
    if os.path.lexists(out) and not _replaceable(out):
        raise UserError(f"{out}: is there and is not a {FORMS[out.suffix]}; choose another place, or remove it yourself")


def write(blocks: Iterable[xr.Dataset], dim: str, out: Path) -> None:
    """Put blocks behind one another along `dim`, in a file or store that appears when all of it is on the disk.

    Args:
        blocks: CF-encoded, equal but for what varies along `dim`. A single one may lack `dim`.
        out: ends in .nc (NetCDF-4, compressed) or .zarr (Zarr 2, consolidated). An older one is replaced, and stays as it is after any
            error. What a killed process has left beside it is removed.

    Raises:
        DiskFull: no room left.
        UserError: a place that `check` refuses or that cannot be written; whatever making a block raises.
    """
    check(out)
    temporary, old = (out.with_name(f".{out.name}.{end}") for end in ("tmp", "old"))
    _tidy(out, temporary, old)
    sink: _NetCDF | _Zarr = (_NetCDF if out.suffix == ".nc" else _Zarr)(temporary, dim)
    try:
        for block in blocks:
            with _told(out, temporary, block.nbytes):
                sink.append(_prepared(block))
        with _told(out, temporary, CHUNK):
            sink.close(whole=True)
            _to_disk(temporary)
            if out.is_dir():  # a folder cannot be replaced in one step
                os.replace(out, old)
            os.replace(temporary, out)
            sync_folder(out.parent)
    finally:
        with suppress(OSError, RuntimeError):  # a file that could not be written cannot be closed either
            sink.close(whole=False)
        _tidy(out, temporary, old)


class _NetCDF:
    def __init__(self, path: Path, dim: str) -> None:
        self.path, self.dim = path, dim
        self.file: Any = None

    def append(self, block: xr.Dataset) -> None:
        if self.file is None:
            self._define(block)
            return
        size = len(self.file.dimensions[self.dim])
        for name, variable in block.variables.items():
            if self.dim in variable.dims:
                at = slice(size, size + block.sizes[self.dim])
                self.file[str(name)][tuple(at if d == self.dim else slice(None) for d in variable.dims)] = variable.values

    def _define(self, block: xr.Dataset) -> None:
        import netCDF4

        encoding: dict[Any, dict[str, Any]] = {}
        for name, variable in block.variables.items():
            shape = {"chunksizes": chunks(variable, self.dim)} if variable.ndim else {}
            packing = {"zlib": True, "complevel": 4, "shuffle": True} if variable.ndim and variable.dtype != object else {}
            encoding[name] = {**variable.encoding, **shape, **packing}
        unlimited = [d for d in block.dims if d == self.dim]
        block.to_netcdf(self.path, format="NETCDF4", engine="netcdf4", encoding=encoding, unlimited_dims=unlimited)
        self.file = netCDF4.Dataset(self.path, "a")
        self.file.set_auto_maskandscale(False)

    def close(self, whole: bool) -> None:
        if self.file is not None and self.file.isopen():
            self.file.close()


class _Zarr:
    def __init__(self, path: Path, dim: str) -> None:
        self.path, self.dim = path, dim

    def append(self, block: xr.Dataset) -> None:
        if self.path.exists():
            fixed = [n for n, v in block.variables.items() if self.dim not in v.dims]
            block.drop_vars(fixed).to_zarr(self.path, append_dim=self.dim, consolidated=False)
        else:
            encoding = {n: {**v.encoding, "chunks": chunks(v, self.dim)} for n, v in block.variables.items() if v.ndim}
            # of Zarr 3 neither strings nor consolidated metadata are settled
            block.to_zarr(self.path, mode="w-", zarr_format=2, consolidated=False, encoding=encoding)

    def close(self, whole: bool) -> None:
        import zarr

        if whole:
            zarr.consolidate_metadata(self.path, zarr_format=2)


def chunks(variable: xr.Variable, dim: str) -> tuple[int, ...]:
    """Shape of a chunk: whole fields of one entry along `dim` as far as they are neither too large nor too small."""
    shape = [1 if d == dim else n for d, n in variable.sizes.items()]
    while (size := variable.dtype.itemsize * math.prod(shape)) > CHUNK and max(shape) > 1:
        outer = next(axis for axis, n in enumerate(shape) if n > 1)
        shape[outer] = -(-shape[outer] // 2)
    return tuple(max(1, SMALL // max(1, size)) if d == dim else n for d, n in zip(variable.dims, shape, strict=True))


def _prepared(block: xr.Dataset) -> xr.Dataset:
    """As xarray wants to encode it: fill values said once, and none where a block has none; strings of any length."""
    block = block.copy()
    for name, variable in block.variables.items():
        variable.encoding = {"_FillValue": variable.attrs.pop("_FillValue", None)}
        if variable.dtype.kind == "U":
            block[name] = variable.astype(object)
    return block


@contextmanager
def _told(out: Path, temporary: Path, room: int) -> Iterator[None]:
    """What goes wrong in writing as one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in FULL or _is_full(temporary, room):
            raise DiskFull(f"{out}: no room left to write the forecast; make room, or choose another place") from None
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{out}: the forecast cannot be written ({reason}); choose another place") from None


def _is_full(temporary: Path, room: int) -> bool:
    """Whether a file that failed cannot grow by `room` bytes: HDF5 does not tell why it fails. The file is lost anyway."""
    try:
        if temporary.is_file():
            with open(temporary, "ab") as file:
                file.write(bytes(room))
    except OSError as error:
        return error.errno in FULL
    return False


def _to_disk(path: Path) -> None:
    for file in [path, *path.rglob("*")]:
        if file.is_dir():
            sync_folder(file)
        else:
            with open(file, "rb") as content:
                os.fsync(content.fileno())


def _tidy(out: Path, temporary: Path, old: Path) -> None:
    """Back to `out` alone; an older one that had to make room for a new one that never came stands there again."""
    if os.path.lexists(old) and not os.path.lexists(out):
        os.replace(old, out)
    for path in (temporary, old):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _replaceable(out: Path) -> bool:
    """Whether there is something of the kind that `out` will be, by its content."""
    if out.suffix == ".zarr":
        return any((out / name).is_file() for name in (".zgroup", ".zmetadata", "zarr.json"))
    if not out.is_file():
        return False
    with open(out, "rb") as file:
        return file.read(8).startswith((b"CDF", b"\x89HDF\r\n\x1a\n"))
