"""NARR, the North American Regional Reanalysis on its Lambert grid: NetCDF of PSL, GRIB of NCEP (and of its sibling NAM).

Winds along the grid are turned to east and north, both components read together. Amounts that fall over three hours are stamped at their
end, so that no frame holds rain of its future; their interval is kept. A variable is what its name and its surface say (`air` at 2 m is the
temperature of the air, at the surface that of the ground); on surfaces that the registry has no quantity for it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data.conventions import LONGITUDE, is_coordinate, level_kind
from scigpt.data.variables import QUANTITIES, Quantity
from scigpt.data_prep.fields import Field, decode
from scigpt.data_prep.files import kind, locate
from scigpt.data_prep.formats import lambert_grib
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.formats.opening import glimpse, one_sentence, open_datasets
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.lambert import Lambert, earth_relative, placed
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError

ALOFT: Mapping[str, str] = {
    **dict.fromkeys(("air", "t", "t2m"), "air_temperature"),
    **dict.fromkeys(("dpt", "d2m"), "dew_point_temperature"),
    **dict.fromkeys(("shum", "q", "sh2", "q2m"), "specific_humidity"),
    **dict.fromkeys(("rhum", "r", "r2"), "relative_humidity"),
    **dict.fromkeys(("uwnd", "u", "u10"), "eastward_wind"),
    **dict.fromkeys(("vwnd", "v", "v10"), "northward_wind"),
    **dict.fromkeys(("hgt", "gh"), "geopotential_height"),
    **dict.fromkeys(("omega", "w"), "vertical_velocity"),
}
"""On pressure levels and at heights above the ground."""
ON_SURFACE: Mapping[str, str] = {
    **dict.fromkeys(("air", "t"), "surface_temperature"),
    **dict.fromkeys(("pres", "sp"), "surface_air_pressure"),
    **dict.fromkeys(("hgt", "gh", "orog"), "surface_altitude"),
    **dict.fromkeys(("apcp", "tp"), "precipitation_amount"),
    **dict.fromkeys(("weasd", "sdwe"), "surface_snow_amount"),
    **dict.fromkeys(("dswrf", "sdswrf"), "surface_downwelling_shortwave_flux"),
}
ANYWHERE: Mapping[str, str] = {
    **dict.fromkeys(("prmsl",), "air_pressure_at_mean_sea_level"),
    **dict.fromkeys(("tcdc", "tcc"), "total_cloud_cover"),
    **dict.fromkeys(("pr_wtr", "pwat"), "total_column_water_vapour"),
}
"""Names that say their surface themselves."""
HABIT: Mapping[str, float] = {**dict.fromkeys(("eastward_wind", "northward_wind"), 10.0)}
"""Metres at which a near-surface variable is given by habit; 2 for the others."""
_UNITS = {"gpm": "m", "Pascals": "Pa", "Pascal/s": "Pa s-1", "Pascals/s": "Pa s-1"}


@dataclass(frozen=True)
class NarrOptions(GriddedOptions):
    """As every gridded source.

    Args:
        winds: what the components in the files are along: as the `file` says (GRIB does; PSL's NetCDF says nothing and is taken to hold
            the components of the GRIB files, along the grid), or the `grid`, or the `earth`, whatever the file says.
    """

    winds: Literal["file", "grid", "earth"] = "file"


@dataclass(frozen=True)
class NarrFetch:
    """What to fetch from NOAA's Physical Sciences Laboratory.

    Args:
        variables: PSL's names of files, with their surface (`air.2m`, `uwnd.10m`, `apcp`) where there is one.
        years: `2019` or `1979-2019`.
        months: of those years, for groups that are stored by month (`pressure`, `subsurface`); none means all.
        group: folder of the data set.
        server: address of the data set.
    """

    variables: tuple[str, ...] = ("air.2m", "uwnd.10m", "vwnd.10m")
    years: str = "2019"
    months: tuple[int, ...] | None = None
    group: Literal["monolevel", "pressure", "subsurface", "Dailies/monolevel", "Dailies/pressure", "Dailies/subsurface"] = "monolevel"
    server: str = "https://downloads.psl.noaa.gov/Datasets/NARR"


class Narr(GriddedSource):
    """North American Regional Reanalysis, and other NCEP fields on a Lambert grid."""

    name = "narr"
    Options: ClassVar[type] = NarrOptions
    Fetch: ClassVar[type | None] = NarrFetch
    options: NarrOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "narr",
            "weather: regional reanalysis of North America",
            "NetCDF (Lambert grid), GRIB",
            "public domain (NOAA)",
            "NCEP North American Regional Reanalysis (Mesinger et al. 2006, doi:10.1175/BAMS-87-3-343), data by NOAA PSL, Boulder, USA",
            extra="grib, raster",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if kind(path) == "grib":
                return lambert_grib.is_lambert(path)
            attrs, variables = glimpse(path)
        except (UserError, OSError):
            return False
        told = bool(re.search(r"\bNARR\b", attrs)) or any("NARR" in str(v.get("dataset", "")) for v in variables.values())
        return told and any(v.get("grid_mapping_name") == "lambert_conformal_conic" for v in variables.values())

    @classmethod
    def remotes(cls, options: NarrFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", options.years.strip())
        years = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not years or not options.variables:
            raise UserError(f"years={options.years} must be 2019 or 1979-2019, and variables= name at least one file such as air.2m")
        by_month = not options.group.endswith("monolevel")
        if not by_month and options.months is not None:
            raise UserError(f"group={options.group} is stored by year; leave months= out")
        if any(not 1 <= m <= 12 for m in options.months or ()):
            raise UserError(f"months={','.join(map(str, options.months or ()))} must be numbers from 1 to 12")
        for variable in options.variables:
            for year in years:
                for month in (options.months or range(1, 13)) if by_month else (None,):
                    name = f"{variable}.{year}{'' if month is None else f'{month:02d}'}.nc"
                    yield Remote(f"{options.server.rstrip('/')}/{options.group}/{name}", f"{options.group}/{name}")

    # reading

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        return super().file_unit(quantity, _UNITS.get(unit, unit))

    def quantity(self, name: str, attrs: Mapping[str, Any]) -> Quantity | None:
        return QUANTITIES[attrs["quantity"]] if "quantity" in attrs else None

    def open(self, path: Path) -> list[xr.Dataset]:
        if kind(path) == "grib":
            return [self._presented(path, dataset) for dataset in lambert_grib.read(path)]
        return [self._presented(path, dataset) for dataset in open_datasets(path)]

    def _presented(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        with ExitStack() as stack, one_sentence(path):
            stack.callback(dataset.close)
            result = self._turned(path, _stamped(placed(path, _named(path, dataset))), stack)
            result.set_close(stack.pop_all().close)
        return result

    def fields(self, path: Path, dataset: xr.Dataset, skipped: dict[str, str], wanted: set[str] | None = None) -> list[Field]:
        left_out = {str(n): v.attrs["left_out"] for n, v in dataset.data_vars.items() if "left_out" in v.attrs}
        for name, reason in left_out.items():
            if wanted is None:
                skipped[name] = reason
            elif name in wanted:
                raise UserError(f"{path.name}: variable {name} cannot be used: {reason}")
        for name, variable in ((str(n), v) for n, v in dataset.data_vars.items()):
            other, file = variable.attrs.get("turned_with", ("", ""))
            if wanted is not None and name in wanted and other and other not in wanted:
                raise UserError(f"{path.name}: variable {name} is turned together with {other} of {file}; ask for both in variables=")
        return super().fields(path, dataset.drop_vars(left_out), skipped, wanted)

    def _turned(self, path: Path, dataset: xr.Dataset, stack: ExitStack) -> xr.Dataset:
        """The dataset with its winds to the east and north; those that cannot be turned are marked as left out."""
        changed: dict[str, xr.Variable] = {}
        for name in map(str, dataset.data_vars):
            variable = dataset.variables[name]
            along_grid = self.options.winds == "grid" or (self.options.winds == "file" and variable.attrs.get("along_grid", 1) == 1)
            if variable.attrs.get("quantity") not in ("eastward_wind", "northward_wind") or not along_grid or name in changed:
                continue
            other = {"u": "v", "v": "u"}[name[0]] + name[1:]
            beside, file = (dataset, path) if other in dataset else self._partner(path, name, other, stack)
            mapping = dataset.variables.get(variable.attrs.get("grid_mapping"))
            longitude = next((v for n, v in dataset.variables.items() if v.ndim == 2 and is_coordinate(str(n), v, LONGITUDE)), None)
            if beside is None or mapping is None or longitude is None:
                lacks = f"{other} (of {file.name}) among the inputs" if beside is None else "a grid mapping and a 2-D longitude"
                why = f"it is a wind along the grid and cannot be turned without {lacks}; winds=earth takes it as it is"
                changed[name] = _with(variable, left_out=why)
                continue
            angle = Lambert.from_cf(mapping.attrs, path.name).convergence(decode(longitude.to_numpy(), longitude.attrs, exact=True))
            parts = {name: (variable, path), other: (beside.variables[other], file)}
            u, v = sorted(parts)
            units = str(parts[u][0].attrs.get("units")), str(parts[v][0].attrs.get("units"))
            pair = earth_relative(parts[u][0], parts[v][0], angle, (parts[u][1], parts[v][1]), units)
            if beside is dataset:
                changed |= {u: pair[0], v: pair[1]}
                continue
            changed[name] = _with(pair[(u, v).index(name)], turned_with=(other, file.name))
            if not np.array_equal(beside.variables["time"].to_numpy(), dataset.variables["time"].to_numpy()):
                raise UserError(f"{path.name} and {file.name} are both components of a wind and have other times; expected the same")
        return dataset.assign(changed)

    def _partner(self, path: Path, name: str, other: str, stack: ExitStack) -> tuple[xr.Dataset | None, Path]:
        """The dataset among the inputs that holds the other component, by PSL's name of its file, and that name."""
        wanted = path.with_name(re.sub(rf"(?<![a-zA-Z]){name}(?![a-zA-Z])", other, path.name))
        inputs = [*self.inputs, *([Path(self.options.ood_input)] if self.options.ood_input else [])]
        found = next((p for p in inputs if p.name == wanted.name and p.name != path.name), None)
        if found is None:
            return None, wanted
        opened = open_datasets(locate(found))[0]
        stack.callback(opened.close)
        dataset = _named(found, opened)
        return (dataset, found) if other in dataset else (None, wanted)


def _with(variable: xr.Variable, **attrs: Any) -> xr.Variable:
    """The same lazy values with more attributes."""
    changed = variable.copy(deep=False)
    changed.attrs = {**variable.attrs, **attrs}
    return changed


def _named(path: Path, dataset: xr.Dataset) -> xr.Dataset:
    """Each variable with the `quantity` it is on its surface, or `left_out` with the reason."""
    result, renamed = dataset, dict[str, str]()
    for name in map(str, dataset.data_vars):
        variable, surface = dataset.variables[name], _surface(path, dataset, name)
        quantity = _quantity(name, surface)
        if quantity is None and any(name in table for table in (ALOFT, ON_SURFACE)):
            renamed[name] = f"{name}_{re.sub(r'[^A-Za-z0-9]+', '_', str(surface))}"
            variable = _with(variable, left_out=f"the registry has no quantity for it on the surface {surface}")
        elif quantity is not None and variable.attrs.get("step_type", "instant") != "instant" and "time_bounds" not in dataset.variables:
            variable = _with(variable, left_out="it is an amount or a mean over no time (a forecast of 0 hours)")
        elif quantity is not None:
            variable = _with(variable, quantity=quantity)
        if quantity is not None and isinstance(surface, float):
            variable = _at_height(variable, surface, HABIT.get(quantity, 2.0))
            if "height" in variable.dims:
                height = xr.Variable("height", [surface], dict(lambert_grib.LEVELS["heightAboveGround"]))
                result = result.assign_coords(height=height)
        result = result.assign({name: variable})
    return result.rename(renamed)


def _at_height(variable: xr.Variable, metres: float, habit: float) -> xr.Variable:
    """Without a level at the height of habit, else with that one level."""
    if "heightAboveGround" in variable.dims:
        return variable.isel(heightAboveGround=0) if metres == habit else variable
    if metres == habit:
        return variable
    dims, shape = list(map(str, variable.dims)), list(variable.shape)
    return lazy(
        [dims[0], "height", *dims[1:]],
        [shape[0], 1, *shape[1:]],
        variable.dtype,
        lambda window: variable[(window[0], *window[2:])].to_numpy()[:, None],
        variable.attrs,
    )


def _surface(path: Path, dataset: xr.Dataset, name: str) -> str | float | None:
    """`levels`, `surface`, metres above the ground, another surface in the file's words, or None where nothing is said."""
    variable = dataset[name]
    if (kind_of := variable.attrs.get("surface")) is not None:  # of a GRIB message
        if kind_of == "heightAboveGround":
            return float(dataset.variables[kind_of].to_numpy()[0])
        return "levels" if kind_of == "isobaricInhPa" else str(kind_of)
    if any(level_kind(str(n), c.attrs) == "pressure" for n, c in variable.coords.items()):
        return "levels"
    in_name = re.search(rf"{name}\.([0-9]+m|[a-z]+[0-9]*)\.", path.name)
    for text in (variable.attrs.get("level_desc"), variable.attrs.get("long_name"), in_name and in_name[1]):
        if match := re.search(r"(?<![\w.])(\d+(?:\.\d+)?)\s*m(?:eters?|etres?)?(?!\w)", str(text or "")):
            return float(match[1])
    told = str(variable.attrs.get("level_desc") or (in_name and in_name[1] not in ("mon", "day", "nc") and in_name[1]) or "").strip()
    return {"": None, "sfc": "surface"}.get(told.lower(), told.lower())


def _quantity(name: str, surface: str | float | None) -> str | None:
    if name in ANYWHERE:
        return ANYWHERE[name]
    if surface is None:
        return ALOFT.get(name) or ON_SURFACE.get(name)
    if surface == "surface":
        return ON_SURFACE.get(name)
    return ALOFT.get(name) if surface == "levels" or isinstance(surface, float) else None


def _stamped(dataset: xr.Dataset) -> xr.Dataset:
    """The interval of accumulations and means as time bounds, and accumulations of less than a day stamped at its end.

    PSL stamps both at the start (`coordinate_defines`); means have a length (`avg_period`), 3-hourly accumulations only a step (`delta_t`).
    """
    time = dataset.variables.get("time")
    if time is None or not time.size or time.ndim != 1 or time.dtype.kind == "M":  # GRIB's valid times are the ends already
        return dataset
    amounts = any(v.attrs.get("quantity") == "precipitation_amount" for v in dataset.data_vars.values())
    mean = _length(time.attrs.get("avg_period"))
    step = mean or (_length(time.attrs.get("delta_t")) or timedelta(hours=3) if amounts else None)
    known = dataset.variables.get(time.attrs.get("bounds"))
    dates = time.to_numpy()
    if known is not None and known.dtype.kind in "MO" and known.shape == (time.size, 2):
        edges = known.to_numpy()
    elif step is not None:
        ends = time.attrs.get("coordinate_defines") == "end"
        edges = np.stack([dates - step, dates] if ends else [dates, dates + step], axis=1)
    else:
        return dataset
    if amounts and edges[0, 1] - edges[0, 0] < timedelta(days=1):
        dates = edges[:, 1]
    result = dataset.assign_coords(time=xr.Variable("time", dates, {**time.attrs, "bounds": "time_bounds"}))
    return result.assign(time_bounds=xr.Variable(("time", "nv"), edges))


def _length(text: Any) -> timedelta | None:
    """PSL's `0000-00-00 03:00:00`; None for months and years, which have no one length."""
    match = re.fullmatch(r"0000-00-(\d+) (\d+):(\d+):(\d+)", str(text).strip())
    days, hours, minutes, seconds = map(int, match.groups()) if match else (0, 0, 0, 0)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds) or None
