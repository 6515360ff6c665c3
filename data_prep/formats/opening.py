"""Opening NetCDF, GRIB and Zarr with the engine always named, and every library's error as one sentence."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from scigpt.data_prep.files import kind
from scigpt.data_prep.formats import grib
from scigpt.data_prep.formats.netcdf3 import require_whole
from scigpt.data_prep.formats.zarr_store import METADATA, WholeChunks
from scigpt.errors import UserError


@contextmanager
def one_sentence(path: Path, doing: str = "read") -> Iterator[None]:
    """Whatever a format's library raises becomes one sentence naming the file; what it only warns of is not for the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path.name} cannot be {doing} ({detail}); it may be damaged or truncated, fetch it again") from None


def open_datasets(path: Path) -> list[xr.Dataset]:
    """The datasets of a file or store, lazily, values as stored (packed), dates as cftime or datetime64.

    GRIB files give one dataset for each hypercube; nothing is written beside the input.

    Raises:
        UserError: not NetCDF, GRIB or Zarr; damaged; or the extra `grib` is missing.
    """
    form = kind(path)
    if form == "other":
        what = "folder is not a Zarr store" if path.is_dir() else "file is neither NetCDF nor GRIB by its first bytes"
        raise UserError(f"{path.name}: this {what}; expected a NetCDF or GRIB file or a Zarr store (`scigpt data inspect` says what it is)")
    if form == "netcdf3":
        require_whole(path)
    if form == "grib":
        grib.require_whole(path)
    if form == "zarr":
        _refuse_pickle(path)
    with one_sentence(path):
        if form == "grib":
            return list(_cfgrib().open_datasets(str(path), backend_kwargs={"indexpath": "", "errors": "raise"}))
        found: Any = WholeChunks(path) if form == "zarr" else path
        return [
            xr.open_dataset(
                found,
                engine="zarr" if form == "zarr" else "netcdf4",
                mask_and_scale=False,
                decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
                decode_timedelta=False,
            )
        ]


def glimpse(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Global attributes as one text, and the attributes of each data variable; nothing for what is not NetCDF or Zarr."""
    if kind(path) not in ("netcdf3", "netcdf4", "zarr"):
        return "", {}
    with open_datasets(path)[0] as dataset:
        text = " ".join(f"{k}: {v}" for k, v in dataset.attrs.items())
        return text, {str(n): dict(v.attrs) for n, v in dataset.data_vars.items()}


def _cfgrib() -> Any:
    try:
        import cfgrib
    except (ImportError, RuntimeError):  # RuntimeError: the ecCodes library itself is not found
        raise UserError("reading GRIB needs cfgrib, which is not installed; run: pip install 'scigpt[grib]'") from None
    return cfgrib


def _refuse_pickle(store: Path) -> None:
    """A Zarr array packed by a pickle codec would run its author's code when read."""
    for folder, below, names in os.walk(store):
        for name in set(METADATA) & set(names):
            file = Path(folder, name)
            text = file.read_text(encoding="utf-8", errors="replace")
            if re.search(r'"(id|name)"\s*:\s*"[^"]*pickle[^"]*"', text, re.IGNORECASE):
                where = f"{store.name}/{file.relative_to(store)}"
                raise UserError(f"{where} asks for a pickle codec, which can run code and is never read; store plain numbers instead")
            if name == ".zarray" or re.search(r'"node_type"\s*:\s*"array"', text.partition('"consolidated_metadata"')[0]):
                below.clear()  # they hold chunks
