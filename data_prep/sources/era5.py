"""ERA5 and its relatives from the ECMWF: GRIB, NetCDF of the old and the new data store, Zarr.

Accumulated energies (`ssrd`, `tisr` in J m-2) become mean fluxes by the hours they are accumulated over; total precipitation
in metres becomes kg m-2 per frame. Files without a real time axis (a climatology by month number) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scigpt.data.variables import Quantity
from scigpt.data_prep.files import kind
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.opening import glimpse
from scigpt.data_prep.source import Description
from scigpt.errors import UserError


@dataclass(frozen=True)
class Era5Options(GriddedOptions):
    """As every gridded source; `accumulation_hours`: length of the interval behind an accumulated energy in J m-2."""

    accumulation_hours: float = 1.0


class Era5(GriddedSource):
    """ERA5 reanalysis, single and pressure levels, ensemble members apart."""

    name = "era5"
    Options: ClassVar[type] = Era5Options
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
            extra="grib",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        attrs, variables = glimpse(path)
        told = any(word in attrs for word in ("grib_to_netcdf", "ECMWF", "ERA5", "ERA-Interim"))
        return told or kind(path) == "grib" or not variables.keys().isdisjoint(("t2m", "u10", "2m_temperature", "geopotential"))

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        if quantity.unit == "W m**-2" and re.fullmatch(r"J m(\*\*)?-2", unit):
            return f"J m**-2 / ({self.options.accumulation_hours!r} * hour)"
        return super().file_unit(quantity, unit)
