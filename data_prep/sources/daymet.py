"""Daymet V4: daily weather of North America on 1 km (NetCDF, one variable and year a file), of single pixels, and basin means of CAMELS.

Every year has 365 days: leap years have a 29 February and lack 31 December. `srad` is the mean over the hours of daylight.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data.sample import Origin, Sample
from scigpt.data.variables import QUANTITIES, Quantity
from scigpt.data_prep.fields import decode
from scigpt.data_prep.files import fingerprints, kind, locate, members
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.formats.opening import glimpse, open_datasets
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description, Plan, Remote, SampleRef
from scigpt.data_prep.sources.daymet_points import Point, gauge_longitudes, point_kind, read_point
from scigpt.errors import UserError

DAY_SECONDS = 86400.0
VARIABLES = ("dayl", "prcp", "srad", "swe", "tmax", "tmin", "vp")


@dataclass(frozen=True)
class DaymetOptions(GriddedOptions):
    """As every gridded source, and

    Args:
        radiation: `daily` turns srad, the mean over daylight, into the mean over 24 hours, for which dayl must be among the inputs;
            `daylight` keeps it.
        gauges: camels_topo.txt of CAMELS, which knows the longitudes of its basins.
    """

    radiation: Literal["daily", "daylight"] = "daily"
    gauges: str | None = None


@dataclass(frozen=True)
class DaymetFetch:
    """What to fetch.

    Args:
        route: `ornl`, the grids of the ORNL archive (an Earthdata account is needed); `pixel`, one cell as a table (anonymous).
        region: `na` (North America, gigabytes a file), `hi` (Hawaii) or `pr` (Puerto Rico, megabytes a file).
        variables: dayl must be there for srad to become a 24 h mean.
        years: `2019` or `2015-2019`.
        latitude, longitude: of the pixel.
        server: another place with files of the same names, such as a mirror.
        anonymous: whether that place asks for no account.
    """

    route: Literal["ornl", "pixel"] = "ornl"
    region: Literal["na", "hi", "pr"] = "pr"
    variables: tuple[str, ...] = VARIABLES
    years: str = "2023"
    latitude: float | None = None
    longitude: float | None = None
    server: str = ""
    anonymous: bool = False


class Daymet(GriddedSource):
    """Grids and points of Daymet."""

    name = "daymet"
    Options: ClassVar[type] = DaymetOptions
    Fetch: ClassVar[type | None] = DaymetFetch
    one_grid: ClassVar[bool] = False
    names: ClassVar[Mapping[str, str]] = {
        "dayl": "day_length",
        "prcp": "precipitation_flux",
        "srad": "surface_downwelling_shortwave_flux",
        "swe": "surface_snow_amount",
        "tmax": "air_temperature_maximum",
        "tmin": "air_temperature_minimum",
        "vp": "vapour_pressure",
    }
    options: DaymetOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__([file for given in inputs for file in (members(Path(given)) if Path(given).is_dir() else [given])], options)
        self._points: dict[str, Point] = {}
        self._daylight: dict[Path, None] = {}
        """Files of dayl that others were multiplied by."""

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "daymet",
            "weather: daily surface weather of North America, 1 km",
            "NetCDF, CSV, text",
            "NASA open data (no restrictions on use)",
            "Daymet V4 R1 (Thornton et al. 2022, ORNL DAAC, doi:10.3334/ORNLDAAC/2129)",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            return point_kind(path) is not None or "Daymet" in glimpse(path)[0]
        except (UserError, OSError):
            return False

    @classmethod
    def remotes(cls, options: DaymetFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", options.years.strip())
        years = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not years or years.start < 1950:
            raise UserError(f"years={options.years} is not of the form 2019 or 2015-2019, from 1980 on (1950 for region=pr)")
        for name in options.variables:
            if name not in VARIABLES:
                raise UserError(f"variables={name} is not one of Daymet's: {', '.join(VARIABLES)}")
        if options.route == "pixel":
            if options.latitude is None or options.longitude is None:
                raise UserError("route=pixel needs latitude= and longitude= in degrees, such as latitude=36.01 longitude=-84.26")
            place = repr(options.latitude), repr(options.longitude)
            query = f"lat={place[0]}&lon={place[1]}&vars={','.join(options.variables)}&years={','.join(map(str, years))}"
            server = options.server or "https://daymet.ornl.gov/single-pixel/api/data"
            yield Remote(f"{server}?{query}", f"daymet_pixel_{'_'.join(place)}_{years[0]}-{years[-1]}.csv")
            return
        server = options.server or "https://data.ornldaac.earthdata.nasa.gov/protected/daymet/Daymet_Daily_V4R1/data"
        for name in options.variables:
            for year in years:
                file = f"daymet_v4_daily_{options.region}_{name}_{year}.nc"
                yield Remote(f"{server}/{file}", file, login=None if options.anonymous else "earthdata")

    # Source

    def plan(self) -> Plan:
        text = [point_kind(p) is not None for p in map(locate, self.inputs)]
        if any(text) and not all(text):
            grid, point = self.inputs[text.index(False)].name, self.inputs[text.index(True)].name
            raise UserError(f"{grid} is a grid and {point} a table of a point; prepare them as two corpora")
        if any(text) and self.options.regrid is not None:
            raise UserError(f"{self.inputs[0].name} is a table of a point, which cannot be averaged onto a grid; leave regrid= out")
        plan = super().plan()
        if len({p.longitude is None for p in self._points.values()}) > 1:
            lost = next(p.name for p in self._points.values() if p.longitude is None)
            raise UserError(f"{lost} has no longitude and other points have one; give gauges=camels_topo.txt, or prepare them apart")
        known = {name for name, _ in plan.inputs}
        files = [p for p in self._daylight if p.name not in known]
        if self.options.gauges is not None:
            files.append(locate(self.options.gauges))
        also = [[p.name, digest] for p, digest in fingerprints(files).items()]
        refs = (replace(r, spec={**r.spec, "files": [*r.spec["files"], *also]}) for r in plan.refs)
        return replace(plan, refs=tuple(refs), inputs=(*plan.inputs, *((name, digest) for name, digest in also)))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        for sample in super().samples(refs):
            point = None if sample is None else self._points.get(sample.origin.place)
            yield sample if sample is None or point is None else point.placed(sample)

    # GriddedSource

    def open(self, path: Path) -> list[xr.Dataset]:
        if kind(path) == "other" and path.is_file():
            point, opened = read_point(path, self._longitudes)
            self._points[point.name], dataset = point, opened
        else:
            opened = open_datasets(path)[0]
            _check_days(path, opened)
            region = re.search(r"daymet_v\d+_daily_(na|hi|pr)_", path.name)
            dataset = opened.assign_attrs(place=f"region {region[1]}" if region else "daymet", attribution="")
        open_files = ExitStack()
        open_files.callback(opened.close)
        if "srad" in dataset.data_vars and self.options.radiation == "daily" and self._wants_radiation:
            length = dataset if "dayl" in dataset.data_vars else self._length_of_day(path, dataset)
            open_files.callback(length.close)
            dataset = dataset.assign(srad=_daily_mean(dataset.variables["srad"], length.variables["dayl"]))
        if dataset is not opened:
            dataset.set_close(open_files.close)
        return [dataset]

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        if unit.lower() in ("degrees c", "deg c", "c"):
            return "degC"
        if quantity.name == "surface_snow_amount" and unit == "mm":
            return "kg m**-2"  # of water
        return super().file_unit(quantity, unit)

    def record_name(self, dataset: xr.Dataset) -> str:
        return str(dataset.attrs["place"])

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin, cited = super().origin(dataset, path), str(dataset.attrs["attribution"])
        return replace(origin, attribution=cited or origin.attribution)

    @cached_property
    def _longitudes(self) -> Mapping[str, float]:
        return {} if self.options.gauges is None else gauge_longitudes(locate(self.options.gauges))

    @property
    def _wants_radiation(self) -> bool:
        radiation, wanted = QUANTITIES[self.names["srad"]], self.options.variables
        return wanted is None or any(w == "srad" or QUANTITIES.find(w) is radiation for w in wanted)

    def _length_of_day(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset among the inputs that holds dayl for the same days and cells."""
        likely = path.name.replace("srad", "dayl")
        for other in sorted(map(locate, self.inputs), key=lambda p: p.name != likely):
            if other == path or kind(other) == "other" or "dayl" not in glimpse(other)[1]:
                continue
            found = open_datasets(other)[0]
            same = found["dayl"].sizes == dataset["srad"].sizes
            if same and all(np.array_equal(found[n].to_numpy(), dataset[n].to_numpy()) for n in ("time", "y", "x") if n in dataset.coords):
                self._daylight[other] = None
                return found
            found.close()
        raise UserError(
            f"{path.name}: srad is the mean over daylight; give the dayl file of the same region and year as a further input, for a mean "
            "over 24 hours, or keep it with radiation=daylight"
        )


def _daily_mean(srad: xr.Variable, dayl: xr.Variable) -> xr.Variable:
    """The mean over daylight times dayl / 86400 s, computed when it is read."""
    dayl = dayl.transpose(*srad.dims)

    def read(window: tuple[slice, ...]) -> np.ndarray:
        radiation, length = (decode(v[window].to_numpy(), v.attrs, exact=True) for v in (srad, dayl))
        return (radiation * (length / DAY_SECONDS)).astype(np.float32)

    return lazy(list(map(str, srad.dims)), srad.shape, np.float32, read, {"units": srad.attrs.get("units")})


def _check_days(path: Path, dataset: xr.Dataset) -> None:
    """`time` says what `yearday` says, counted with 29 February: a file that was relabelled as noleap does not."""
    if "yearday" not in dataset.variables or "time" not in dataset.variables or dataset.variables["yearday"].dims != ("time",):
        return
    times, days = dataset.variables["time"].to_numpy(), dataset.variables["yearday"].to_numpy()
    for time, day in zip(times, days.tolist(), strict=True):
        expected = datetime.date(time.year, 1, 1) + datetime.timedelta(int(day) - 1)
        if not 1 <= day <= 366 or (time.month, time.day) != (expected.month, expected.day):
            raise UserError(
                f"{path.name}: its time {time.isoformat()[:10]} is not day {day} of the year, as its yearday says; years of Daymet have a "
                "29 February and lack 31 December in leap years, fetch the original file"
            )
