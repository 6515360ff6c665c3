"""PRISM, daily, monthly and annual climate grids of the United States: zips of BIL grids or GeoTIFF, as they were and as they are served.

A PRISM day is the 24 hours that end at 12 UTC of its date, and months and years are made of such days; the bounds of time say so and the
instant is their middle. Recent grids are revised for half a year: which release each one is goes into the attribution.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data.sample import Origin
from scigpt.data_prep.formats import rasters
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.errors import UserError

NODATA = -9999.0
VARIABLES: Mapping[str, tuple[str, str, str]] = {
    "ppt": ("precipitation_amount", "mm", "time: sum"),
    "tmin": ("air_temperature_minimum", "degC", "time: minimum"),
    "tmean": ("air_temperature", "degC", "time: mean"),
    "tmax": ("air_temperature_maximum", "degC", "time: maximum"),
    "tdmean": ("dew_point_temperature", "degC", "time: mean"),
    "vpdmin": ("vapour_pressure_deficit_minimum", "hPa", "time: minimum"),
    "vpdmax": ("vapour_pressure_deficit_maximum", "hPa", "time: maximum"),
}
"""Name in the files: registry name, unit in the files, CF cell method."""
FREQUENCIES = {8: "daily", 6: "monthly", 4: "annual"}
RESOLUTIONS = {150: "4km", 30: "800m", 15: "400m"}
"""By the size of a cell in arc seconds."""
FILE_RESOLUTIONS = {"4km": "25m", "800m": "30s", "400m": "15s"}
_NAME = re.compile(
    r"prism_(?P<variable>[a-z]+)_(?:(?P<word>stable|provisional|early)_)?(?:(?P<region>us|hi|pr|ak)_)?\w+?_(?P<date>\d{4}(?:\d\d){0,2})(?:_bil)?"
)
_SUFFIXES = (".zip", ".bil", ".tif", ".tiff")
_FINAL = {"daily": 8, "monthly": 7}
"""The release after which a grid is not revised any more."""


@dataclass(frozen=True)
class PrismOptions(GriddedOptions):
    """As every gridded source; `frequency`: which grids are used where the input holds more than one."""

    frequency: Literal["daily", "monthly", "annual"] | None = None


@dataclass(frozen=True)
class PrismFetch:
    """What to fetch from the web service of PRISM.

    Args:
        start, stop: first and last date, `2024-01-01` for daily, `2024-01` for monthly, `2024` for annual grids.
        format: GeoTIFF (as it is kept) or the former BIL.
        server: the address of the service.
    """

    variables: tuple[str, ...] = ("ppt", "tmean")
    start: str = ""
    stop: str = ""
    region: Literal["us", "hi", "pr", "ak"] = "us"
    resolution: Literal["4km", "800m", "400m"] = "4km"
    format: Literal["geotiff", "bil"] = "geotiff"
    server: str = "https://services.nacse.org/prism/data/get"


@dataclass(frozen=True)
class _Grid:
    """One grid and what its name and metadata say."""

    raster: rasters.Raster
    variable: str
    date: str
    region: str
    release: Mapping[str, str]

    @property
    def frequency(self) -> str:
        return FREQUENCIES[len(self.date)]

    def bounds(self) -> tuple[np.datetime64, np.datetime64]:
        """The PRISM days of the date: each ends at 12 UTC."""
        first = np.datetime64("-".join(filter(None, (self.date[:4], self.date[4:6], self.date[6:]))))  # of a day, month or year
        start, stop = (d.astype("datetime64[D]").astype("datetime64[ns]") - np.timedelta64(12, "h") for d in (first, first + 1))
        return start, stop

    def dataset(self) -> xr.Dataset:
        dims, coordinates = self.raster.coordinates()
        _, unit, method = VARIABLES[self.variable]

        def read(window: tuple[slice, ...]) -> np.ndarray:
            values = self.raster.read(1, window[1], window[2])[None].astype(np.float32)
            values[(values == np.float32(NODATA)) | (values == self.raster.nodata)] = np.nan
            return values

        start, stop = self.bounds()
        shape = (1, *self.raster.shape)
        seconds = round(abs(self.raster.transform[0]) * 3600)
        place = f"{self.region} {RESOLUTIONS.get(seconds, f'{seconds} arc seconds')} {self.frequency}"
        return xr.Dataset(
            {self.variable: lazy(("time", *dims), shape, np.float32, read, {"units": unit, "cell_methods": method})},
            {
                "time": xr.Variable("time", [start + (stop - start) // 2], {"standard_name": "time", "bounds": "time_bounds"}),
                "time_bounds": xr.Variable(("time", "bound"), [[start, stop]]),
                **coordinates,
            },
            {"record": place},
        )


class Prism(GriddedSource):
    """Precipitation, temperatures and vapour pressure deficits interpolated from stations by terrain."""

    name = "prism"
    Options: ClassVar[type] = PrismOptions
    Fetch: ClassVar[type | None] = PrismFetch
    names: ClassVar[Mapping[str, str]] = {name: own for name, (own, _, _) in VARIABLES.items()}
    options: PrismOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__([file for given in inputs for file in _files(Path(given))], options)
        self._opened: dict[tuple[str, str], _Grid] = {}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "prism",
            "climate: grids of the United States from stations and terrain",
            "GeoTIFF, BIL, zips of them",
            "PRISM terms of use",
            "PRISM Group, Oregon State University, https://prism.oregonstate.edu (Daly et al. 2008, doi:10.1002/joc.1688)",
            extra="raster",
            redistributable=False,
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if path.is_dir():
                return any(cls.recognises(p) for p in rasters.glance(path, ("[Pp][Rr][Ii][Ss][Mm]_*.*", "*/[Pp][Rr][Ii][Ss][Mm]_*.*")))
            if rasters.is_zip(path):
                return any(_named(m) for m in rasters.listed(path) if m.lower().endswith(_SUFFIXES[1:]))
            grid = rasters.is_tiff(path) or (path.suffix.lower() == ".bil" and path.with_suffix(".hdr").is_file())
            return bool(grid and _named(path.name))
        except (OSError, UserError):
            return False

    def plan(self) -> Plan:
        return rasters.with_companions(super().plan(), {p.name: found for p in self.inputs if (found := _beside(p))})

    def open(self, path: Path) -> list[xr.Dataset]:
        found = [g for g in _grids(path) if self.options.frequency in (None, g.frequency)]
        for grid in found:
            twin = self._opened.setdefault((grid.variable, grid.date), grid)
            if twin.raster.target != grid.raster.target:
                a, b = (f"{g.raster.path.name} ({_told([g])})" for g in (twin, grid))
                raise UserError(
                    f"{grid.variable} of {grid.date} is given twice, in {a} and in {b}; keep the later release and leave the other out"
                )
            other = next(iter(self._opened.values()))
            if other.frequency != grid.frequency:
                raise UserError(
                    f"{other.raster.path.name} is {other.frequency} and {grid.raster.path.name} holds a grid that is {grid.frequency}; "
                    f"choose one with frequency="
                )
        return [grid.dataset() for grid in found]

    def record_name(self, dataset: xr.Dataset) -> str:
        return str(dataset.attrs["record"])

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin = super().origin(dataset, path)
        return replace(origin, attribution=f"{origin.attribution}; releases: {_told(list(self._opened.values()))}")

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        assert isinstance(options, PrismFetch)
        for variable in options.variables:
            _require_known(variable, f"variables={variable}")
        for date in _dates(options.start, options.stop or options.start):
            for variable in options.variables:
                grid = f"{options.region}/{options.resolution}/{variable}/{date}"
                stem = f"prism_{variable}_{options.region}_{FILE_RESOLUTIONS[options.resolution]}_{date}"
                query = "" if options.format == "geotiff" else f"?format={options.format}"
                yield Remote(f"{options.server.rstrip('/')}/{grid}{query}", f"{variable}/{stem}.zip")


def _files(path: Path) -> list[Path]:
    """The grids of a folder, and anything else as it is."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and p.name.lower().startswith("prism_"))
    if not found:
        raise UserError(f"the folder {path.name} holds no PRISM grid; expected files such as prism_ppt_us_25m_20240101.zip in it")
    return found


def _beside(path: Path) -> list[Path]:
    """What is read with an unpacked grid."""
    suffixes = (".hdr", ".prj", ".info.txt") if path.suffix.lower() == ".bil" else (".info.txt",)
    return [p for s in suffixes if (p := path.with_suffix(s)).is_file()] if path.suffix.lower() in _SUFFIXES[1:] else []


def _grids(path: Path) -> list[_Grid]:
    """All grids of a file.

    Raises:
        UserError: no PRISM grid, a climatology, or a damaged file.
    """
    if rasters.is_zip(path):
        held = rasters.members(path)
        inside = sorted(m for m in held if m.lower().endswith(_SUFFIXES[1:]) and not m.startswith("__MACOSX"))
        if not inside:
            raise UserError(
                f"{path.name} holds no grid that can be read; expected a .tif or .bil file in it (format=geotiff or bil of the service)"
            )
        texts = {m: m for m in held if m.lower().endswith(".info.txt")}
        grids = []
        for member in inside:
            stem = PurePosixPath(member).stem
            about = texts.get(next((t for t in texts if PurePosixPath(t).name.startswith(stem + ".")), ""), "")
            grids.append(_grid(path, member, rasters.member_text(path, about) if about else ""))
        return grids
    if rasters.is_tiff(path) or path.suffix.lower() == ".bil":
        text = next((p for p in _beside(path) if p.suffix == ".txt"), None)
        return [_grid(path, None, "" if text is None else text.read_text(encoding="utf-8", errors="replace"))]
    raise UserError(f"{path.name} is neither a zip nor a GeoTIFF by its first bytes, nor a .bil grid; fetch it again")


def _named(name: str) -> re.Match[str] | None:
    return _NAME.fullmatch(PurePosixPath(name).stem.lower())


def _grid(path: Path, member: str | None, about: str) -> _Grid:
    where = path.name if member is None else f"{path.name}, {member}"
    if re.search(r"30yr_normal|_avg_30y|normal", PurePosixPath(member or path.name).name.lower()):
        raise UserError(f"{where} is a climatology over 30 years and has no time; expected daily, monthly or annual grids")
    raster = rasters.open_raster(path, member)
    release = {k.removeprefix("PRISM_DATASET_").lower(): v for k, v in raster.tags.items() if k.startswith("PRISM_DATASET_")}
    release |= {m[1].lower(): m[2].strip() for m in re.finditer(r"^PRISM_DATASET_(\w+):(.*)$", about, re.MULTILINE)}
    name = _named(member or path.name)
    if name is None:
        raise UserError(f"{where}: its name is not that of a PRISM grid; expected one such as prism_ppt_us_25m_20240101.tif")
    _require_known(name["variable"], where)
    grid = _Grid(raster, name["variable"], name["date"], name["region"] or "us", release | ({"word": name["word"]} if name["word"] else {}))
    try:
        grid.bounds()
    except ValueError:
        raise UserError(f"{where}: {name['date']} in its name is no date; expected yyyymmdd, yyyymm or yyyy") from None
    return grid


def _require_known(variable: str, where: str) -> None:
    if variable not in VARIABLES:
        raise UserError(f"{where}: PRISM variable {variable!r} is not known; expected one of {', '.join(VARIABLES)}")


def _told(grids: Sequence[_Grid]) -> str:
    """The releases of grids in words: how final, which version, created when."""
    groups: dict[str, list[str]] = {}
    for grid in grids:
        about = grid.release
        releases = about.get("release_number", "")
        final = releases.isdigit() and int(releases) >= _FINAL.get(grid.frequency, 1)
        word = about.get("word") or ("stable" if final else f"release {releases}" if releases else "release not stated")
        groups.setdefault(" ".join(filter(None, (word, about.get("type"), about.get("version")))), []).append(about.get("create_date", ""))
    told = []
    for group, dates in sorted(groups.items()):
        first, last = min(dates), max(dates)
        told.append(group + (f", created {first}" if first else "") + (f" to {last}" if last != first else ""))
    return "; ".join(told[:6]) + (f"; and {len(told) - 6} more" if len(told) > 6 else "")


def _dates(start: str, stop: str) -> list[str]:
    """`20240131` for each day, `202401` for each month, or `2024` for each year from start to stop."""
    try:
        if re.fullmatch(r"\d{4}(-\d\d){0,2}", start) is None or len(stop) != len(start):
            raise ValueError
        first, last = np.datetime64(start), np.datetime64(stop)
    except ValueError:
        raise UserError(
            f"start={start} stop={stop} do not name a period; expected days such as 2024-01-31, months such as 2024-01, or years"
        ) from None
    if first > last:
        raise UserError(f"start={start} comes after stop={stop}; expected the first and the last date")
    return [str(d).replace("-", "") for d in np.arange(first, last + 1)]
