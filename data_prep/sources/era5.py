"""ERA5 and its relatives from the ECMWF: GRIB, NetCDF of the old and the new data store, Zarr (ARCO, WeatherBench).

Accumulated energies (`ssrd`, `tisr` in J m-2) become mean fluxes by the hours they are accumulated over; total precipitation
in metres becomes kg m-2 per frame; turbulent heat fluxes, positive downward at the ECMWF, are turned upward; the geopotential of the
surface becomes its altitude. Files without a real time axis (a climatology by month number) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from scigpt.data.conventions import level_kind
from scigpt.data.variables import Quantity
from scigpt.data_prep.files import kind
from scigpt.data_prep.formats.opening import glimpse, one_sentence
from scigpt.data_prep.modelled import ModelledOptions, ModelledSource, dated
from scigpt.data_prep.source import Description, Remote
from scigpt.data_prep.sources import era5_routes
from scigpt.errors import UserError

GRAVITY = 9.80665
"""m s-2, by which the ECMWF divides a geopotential to get a height."""

OROGRAPHY = "geopotential_at_surface"
_LATENT = ("slhf", "mslhf", "avg_slhtf", "surface_latent_heat_flux", "mean_surface_latent_heat_flux")
_SENSIBLE = ("sshf", "msshf", "avg_ishf", "surface_sensible_heat_flux", "mean_surface_sensible_heat_flux")
DOWNWARD: Mapping[str, str] = {
    **dict.fromkeys(_LATENT, "surface_upward_latent_heat_flux"),
    **dict.fromkeys(_SENSIBLE, "surface_upward_sensible_heat_flux"),
}
"""Fluxes that count positive downward, though files call some of them by the CF name of the upward one."""
DERIVED = {"wind_speed": "m s**-1", "10m_wind_speed": "m s**-1", "relative_humidity": "1"}
"""Units of fields that WeatherBench computed, where it does not state them."""
FINAL = 1
"""The `expver` of final data; 5 is that of the first months, which may still change."""


@dataclass(frozen=True)
class Era5Options(ModelledOptions):
    """As every gridded source, and

    Args:
        accumulation_hours: length of the interval behind an accumulated energy in J m-2, and of the mean solar forcing.
        preliminary: keep recent months that are not final yet (ERA5T, `expver` 5).
        solar: add the forcing `toa_incident_solar_radiation`, computed as the mean over those hours before each frame.
    """

    accumulation_hours: float = 1.0
    preliminary: bool = True


class Era5(ModelledSource):
    """ERA5 reanalysis, single and pressure levels, ensemble members apart."""

    name = "era5"
    Options: ClassVar[type] = Era5Options
    Fetch: ClassVar[type] = era5_routes.Fetch
    names: ClassVar[Mapping[str, str]] = {OROGRAPHY: "surface_altitude", **DOWNWARD}
    options: Era5Options

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if self.options.accumulation_hours <= 0:
            raise UserError(f"accumulation_hours={self.options.accumulation_hours} must be a positive number of hours")

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "era5",
            "weather: global reanalysis",
            "GRIB, NetCDF, Zarr",
            "CC-BY-4.0",
            "Contains modified Copernicus Climate Change Service information (ERA5, Hersbach et al. 2020, doi:10.1002/qj.3803)",
            extra="grib, cloud",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        attrs, variables = glimpse(path)
        told = any(word in attrs for word in ("grib_to_netcdf", "ECMWF", "ERA5", "ERA-Interim", "valid_time_start"))
        return told or kind(path) == "grib" or not variables.keys().isdisjoint(("t2m", "u10", "2m_temperature", "geopotential"))

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        return era5_routes.remotes(options)

    @property
    def solar_hours(self) -> float:
        return self.options.accumulation_hours

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        if quantity.unit == "W m**-2" and re.fullmatch(r"J m(\*\*)?-2", unit):
            return f"J m**-2 / ({self.options.accumulation_hours!r} * hour)"
        if quantity.name == "surface_altitude" and re.fullmatch(r"m(\*\*)?2 s(\*\*)?-2", unit):
            return f"m**2 s**-2 / ({GRAVITY} * m * s**-2)"
        return super().file_unit(quantity, unit)

    def adapted(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        if kind(path) == "grib" and not self.options.preliminary:
            _refuse_preliminary(path)
        dataset = self._versions(path, self._within_validity(path, dataset))
        instants = max((dataset.variables[n].size for n in dated(dataset)), default=0)
        for name in map(str, dataset.data_vars):
            attrs = dataset[name].attrs
            attrs.update({"units": DERIVED[name]} if name in DERIVED and "units" not in attrs else {})
            short = str(attrs.get("GRIB_shortName", name))
            if name in DOWNWARD or short in DOWNWARD:
                attrs["standard_name"] = name if name in DOWNWARD else short
                attrs["scale_factor"] = -float(attrs.get("scale_factor", 1.0))
                attrs["add_offset"] = -float(attrs.get("add_offset", 0.0))
            elif name in ("z", "geopotential") and not _has_level(dataset, name):
                # a level of which a file says nothing is not taken for the ground, unless there is one instant of it alone
                if attrs.get("GRIB_typeOfLevel", "surface" if instants <= 1 else "") == "surface":
                    attrs["standard_name"] = OROGRAPHY
            elif name == "total_precipitation_6hr" and "total_precipitation" not in dataset:
                attrs["standard_name"] = "precipitation_amount"
        return dataset

    def _within_validity(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        """Without the years that the ARCO store reserves but does not hold: there all is NaN."""
        start, stop = (dataset.attrs.get(f"valid_time_{end}") for end in ("start", "stop"))
        if start is None or stop is None or "time" not in dataset.dims:
            return dataset
        if self.options.preliminary:
            stop = dataset.attrs.get("valid_time_stop_era5t", stop)
        with one_sentence(path, "cut to its valid times"):
            inside = dataset.sel(time=slice(str(start), str(stop)))
        if not inside.sizes["time"]:
            raise UserError(f"{path.name} holds no time between valid_time_start {start} and valid_time_stop {stop}; fetch those years")
        return inside

    def _versions(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        """Final months before preliminary ones, or the final ones alone."""
        stated = dataset.variables.get("expver")
        if stated is None or stated.ndim > 1 or not stated.size:
            return dataset
        numbers = np.array([_expver(v) for v in np.atleast_1d(stated.to_numpy())])
        if stated.dims == ("expver",):
            dataset = dataset.isel(expver=np.argsort(numbers, kind="stable"))
            numbers = np.sort(numbers)
        if self.options.preliminary or (numbers == FINAL).all():
            return dataset
        if not (numbers == FINAL).any():
            raise UserError(f"{path.name} holds only preliminary data (expver {numbers[0]}); leave out preliminary=false, or that file")
        final = numbers == FINAL
        if stated.dims != ("expver",):
            return dataset.isel({stated.dims[0]: np.flatnonzero(final)})
        return _filled(path, dataset.isel(expver=np.flatnonzero(final)))


def _expver(value: Any) -> int:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return int(float(text)) if re.fullmatch(r"\d+(\.0)?", text) else -1


def _filled(path: Path, dataset: xr.Dataset) -> xr.Dataset:
    """The frames up to the last that holds a value: preliminary months follow the final ones and are empty there."""
    name = next((str(n) for n, v in dataset.data_vars.items() if "expver" in v.dims and v.ndim >= 4), None)
    time = next((d for d in ("valid_time", "time") if d in dataset.dims), None)
    if name is None or time is None:
        return dataset
    variable = dataset[name]
    fills = np.ravel([*np.ravel(variable.attrs.get("_FillValue", [])), *np.ravel(variable.attrs.get("missing_value", []))])

    def empty(frame: int) -> bool:
        with one_sentence(path, f"read at variable {name}"):
            values = variable.isel({time: frame}).to_numpy()
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        return bool((missing | np.isin(values, fills[np.isfinite(fills)].astype(values.dtype))).all())

    low, high = 0, dataset.sizes[time]  # frames below `low` are full, from `high` on they are empty
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if empty(middle) else (middle + 1, high)
    if not low:
        raise UserError(f"{path.name} holds no final data; leave out preliminary=false, or that file")
    return dataset.isel({time: slice(low)})


def _has_level(dataset: xr.Dataset, name: str) -> bool:
    dims = set(dataset[name].dims)
    beside = {str(n): c for n, c in dataset.coords.items() if set(c.dims) <= dims}
    return any(level_kind(n, c.attrs) == "pressure" for n, c in beside.items())


def _refuse_preliminary(path: Path) -> None:
    """GRIB says of each message whether it is final."""
    try:
        import eccodes
    except (ImportError, RuntimeError):
        raise UserError("reading GRIB needs cfgrib, which is not installed; run: pip install 'scigpt[grib]'") from None
    with one_sentence(path), path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            version = eccodes.codes_get(message, "expver") if eccodes.codes_is_defined(message, "expver") else ""
            when = eccodes.codes_get(message, "validityDate")
            eccodes.codes_release(message)
            if _expver(version) == 5:
                raise UserError(
                    f"{path.name} holds preliminary data (expver 5) from {when} on; ask for earlier days or leave out preliminary=false"
                )
