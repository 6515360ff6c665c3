"""Rasters: GeoTIFF, and EHdr grids (.bil beside .hdr), plain or inside a zip, read by window, with the place of every cell.

GDAL opens a truncated file without complaint and fails, or gives zeros, near its last lines; so whether a file is whole is checked
before anything is read of it. Files beside a GeoTIFF (statistics, overviews, masks) are not looked at: no hash covers them.
"""

from __future__ import annotations

import functools
import itertools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import xarray as xr

from scigpt.data_prep.files import fingerprints
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.formats.tiff import HEADS, Blocks, require_whole
from scigpt.data_prep.source import Plan, SampleRef
from scigpt.errors import UserError

MAX_MEMBERS, MAX_UNPACKED = 10_000, 8 << 30
"""Files, and bytes when unpacked, that a zip of grids may hold (a year of daily PRISM grids has 3,000 and 1.6 GB)."""


@dataclass(frozen=True)
class Raster:
    """A raster that is whole and has a place on the Earth; it is opened anew for each window.

    Args:
        path: the file given, named in messages.
        target: what GDAL opens.
        crs: coordinate reference system as WKT.
        transform: `(a, b, c, d, e, f)`; column and row to x = a column + b row + c, y = d column + e row + f (corners of cells).
        scales, offsets, descriptions: one for each band.
        blocks: of a GeoTIFF that is not in a zip, which has checksums of its own.
    """

    path: Path
    target: str
    driver: Literal["GTiff", "EHdr"]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    tags: Mapping[str, str]
    crs: str
    transform: tuple[float, ...]
    blocks: Blocks | None

    def read(self, band: int, y: slice, x: slice) -> np.ndarray:
        """Stored numbers of a band (from 1) in a window `(Y, X)`.

        Raises:
            UserError: the window cannot be decoded.
        """
        if self.blocks is not None:
            self.blocks.check(self.path, band, y, x)
        with one_sentence(self.path), _gdal(self.target, self.driver) as file:
            return np.asarray(file.read(band, window=((y.start, y.stop), (x.start, x.stop))))

    def same_grid(self, other: Raster) -> bool:
        return self.shape == other.shape and np.allclose(self.transform, other.transform, rtol=0, atol=1e-6) and self.crs == other.crs

    def coordinates(self) -> tuple[tuple[str, str], dict[str, xr.Variable]]:
        """The two dimensions, and latitude and longitude of the centres of cells in the raster's own datum.

        One-dimensional on a geographic grid, else 2-D and computed where they are asked for.

        Raises:
            UserError: the raster lies outside the Earth.
        """
        place = _place(self.crs)
        a, b, c, d, e, f = self.transform
        rows, columns = self.shape

        def read(window: tuple[slice, ...], longitude: bool) -> np.ndarray:
            y = np.arange(window[0].start, window[0].stop)[:, None] + 0.5
            x = np.arange(window[1].start, window[1].stop)[None, :] + 0.5
            east, north = place(a * x + b * y + c, d * x + e * y + f)
            return np.asarray(east if longitude else north)

        corners = [(slice(r, r + 1), slice(k, k + 1)) for r in (0, rows - 1) for k in (0, columns - 1)]
        if not all(abs(read(w, False)[0, 0]) <= 90.0 and abs(read(w, True)[0, 0]) <= 540.0 for w in corners):
            raise UserError(f"{self.path.name}: its coordinate reference system and transform place it outside the Earth; fetch it again")
        north = {"units": "degrees_north", "standard_name": "latitude"}
        east = {"units": "degrees_east", "standard_name": "longitude"}
        if place is _as_they_are and b == d == 0.0:
            y, x = f + e * (np.arange(rows) + 0.5), c + a * (np.arange(columns) + 0.5)
            return ("latitude", "longitude"), {
                "latitude": xr.Variable("latitude", y, north),
                "longitude": xr.Variable("longitude", x, east),
            }
        return ("y", "x"), {
            "latitude": lazy(("y", "x"), self.shape, np.float64, functools.partial(read, longitude=False), north),
            "longitude": lazy(("y", "x"), self.shape, np.float64, functools.partial(read, longitude=True), east),
        }


def number(text: Any) -> float | None:
    """The number in an attribute, which some products store as a string, even within quotation marks; None where there is none."""
    try:
        return float(str(text).strip().strip("'\""))
    except ValueError:
        return None


def is_tiff(path: Path) -> bool:
    return path.is_file() and _head(path) in HEADS


def is_zip(path: Path) -> bool:
    return path.is_file() and _head(path) == b"PK\x03\x04"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def glance(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Some files of a folder."""
    return itertools.islice((p for pattern in patterns for p in folder.glob(pattern) if p.is_file()), 100)


def listed(path: Path) -> list[str]:
    """Names in a zip as its directory says them, unchecked; none where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # whatever a damaged directory makes zipfile raise
        return []


def with_companions(plan: Plan, beside: Mapping[str, Sequence[Path]]) -> Plan:
    """The plan with files that are read along with others, and their hashes, among the inputs and those of the samples.

    Args:
        beside: by the name of an input what is read with it.
    """
    if not beside:
        return plan
    told = {path: (path.name, digest) for path, digest in fingerprints(p for paths in beside.values() for p in paths).items()}

    def extended(ref: SampleRef) -> SampleRef:
        extra = dict.fromkeys(told[p] for name, _ in ref.spec["files"] for p in beside.get(name, ()))
        known = {name for name, _ in ref.spec["files"]}
        return replace(ref, spec={**ref.spec, "files": [*ref.spec["files"], *([n, h] for n, h in extra if n not in known)]})

    inputs = dict.fromkeys([*plan.inputs, *told.values()])
    return replace(plan, refs=tuple(extended(r) for r in plan.refs), inputs=tuple(inputs))


def open_raster(path: Path, member: str | None = None) -> Raster:
    """A GeoTIFF or EHdr grid, or such a member of a zip; its whole file is checked.

    Raises:
        UserError: not such a file, damaged or truncated, without a place on the Earth, or rasterio is not installed.
    """
    status = path.stat()
    return _opened(path, member, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _opened(path: Path, member: str | None, size: int, changed: int) -> Raster:
    """Cached by what a changed file would change, since every process opens its inputs more than once."""
    if member is not None:
        size = members(path)[member]
        target, name = f"/vsizip/{{{path.resolve()}}}/{member}", f"{path.name}, {member}"
    else:
        target, name = str(path.resolve()), path.name
    driver: Literal["GTiff", "EHdr"] = "EHdr" if target.lower().endswith(".bil") else "GTiff"
    blocks = None
    if driver == "GTiff":
        blocks = require_whole(path, member, size)
    with one_sentence(path), _gdal(target, driver) as file:
        raster = Raster(
            path,
            target,
            driver,
            (file.height, file.width),
            np.dtype(file.dtypes[0]),
            file.nodata,
            tuple(file.scales),
            tuple(file.offsets),
            tuple(file.descriptions),
            dict(file.tags()) | dict(file.tags(1)),
            "" if file.crs is None else file.crs.to_wkt(),
            tuple(file.transform)[:6],
            blocks if member is None else None,
        )
    if driver == "EHdr":
        expected = raster.shape[0] * raster.shape[1] * len(raster.scales) * raster.dtype.itemsize
        if size != expected:
            raise UserError(f"{name} holds {size} bytes and its header asks for {expected}; it is damaged or truncated, fetch it again")
    if not raster.crs or raster.transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        raise UserError(
            f"{name} has no coordinate reference system, so its cells have no place on the Earth; expected a georeferenced raster"
        )
    return raster


def members(path: Path) -> dict[str, int]:
    """Names and bytes of the files in a zip, all of which were read and agree with their checksums.

    Raises:
        UserError: not a zip, damaged, or with members that no zip of grids has: outside its folder, encrypted, or far too large.
    """
    status = path.stat()
    return dict(_members(path, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _members(path: Path, size: int, changed: int) -> tuple[tuple[str, int], ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [i for i in archive.infolist() if not i.is_dir()]
            if len(found) > MAX_MEMBERS:
                raise UserError(f"{path.name} holds {len(found)} files; expected a zip of grids, with at most {MAX_MEMBERS}")
            if (unpacked := sum(i.file_size for i in found)) > MAX_UNPACKED:
                raise UserError(
                    f"{path.name} holds {unpacked >> 20} MiB when unpacked; expected a zip of grids, of {MAX_UNPACKED >> 20} MiB at most"
                )
            for info in found:
                place = PurePosixPath(info.filename)
                if place.is_absolute() or ".." in place.parts or re.search(r"[\\:{}]", info.filename):
                    raise UserError(
                        f"{path.name} holds {info.filename[:60]!r}, a path outside its own folder; fetch it again from its source"
                    )
                if info.flag_bits & 1:
                    raise UserError(
                        f"{path.name}: the file {info.filename[:60]} in it is encrypted; expected a zip of grids without a password"
                    )
                with archive.open(info) as file:  # the checksum is compared at the end
                    while file.read(1 << 20):
                        pass
    except UserError:
        raise
    except Exception as error:  # zipfile lets through what zlib, struct and its own text decoding raise
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path.name} is not a whole zip file ({detail}); it is damaged or truncated, fetch it again") from None
    return tuple((i.filename, i.file_size) for i in found)


def member_text(path: Path, member: str) -> str:
    """A small text in a zip that `members` has checked."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        return file.read(1 << 16).decode("utf-8", errors="replace")


@contextmanager
def _gdal(target: str, driver: str) -> Iterator[Any]:
    try:
        import rasterio.errors
    except ImportError:
        raise UserError("reading GeoTIFF needs rasterio, which is not installed; run: pip install 'scigpt[raster]'") from None
    beside = "EMPTY_DIR" if driver == "GTiff" else "FALSE"
    with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=beside, GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore")  # no georeference: told by a sentence of ours
        try:
            with rasterio.open(target, driver=driver) as file:
                yield file
        except rasterio.errors.RasterioError as error:
            raise (error.__cause__ or error) from None  # GDAL's own words, where rasterio only points to them


def _as_they_are(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.broadcast_arrays(x, y)  # type: ignore[return-value]


@functools.lru_cache(maxsize=64)
def _place(crs: str) -> Any:
    """A function from x and y to longitude and latitude."""
    try:
        import pyproj
    except ImportError:
        raise UserError("reading map projections needs pyproj, which is not installed; run: pip install 'scigpt[raster]'") from None
    system = pyproj.CRS.from_wkt(crs)
    if system.is_geographic:
        return _as_they_are
    return pyproj.Transformer.from_crs(system, system.geodetic_crs, always_xy=True).transform


@functools.lru_cache(maxsize=64)
def utm_zone(crs: str) -> int | None:
    """The number of the UTM zone, the same for its northern and southern half; None for another projection."""
    import pyproj

    zone = pyproj.CRS.from_wkt(crs).utm_zone
    return None if zone is None else int(zone[:-1])
