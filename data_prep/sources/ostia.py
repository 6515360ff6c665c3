"""OSTIA, the Met Office's analysis of sea surface temperature (and what is derived from it); land and ice are invalid, never zero.

Without an input it takes the monthly fields of the equatorial belt that ship inside `iris-sample-data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scigpt.data_prep.formats.opening import glimpse
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description


@dataclass(frozen=True)
class OstiaOptions(GriddedOptions):
    """As every gridded source, with shares that leave the short embedded record (54 months) a test worth scoring."""

    splits: tuple[float, ...] = (0.7, 0.1, 0.2)
    gap: int = 1


class Ostia(GriddedSource):
    """Sea surface temperature analysis."""

    name = "ostia"
    Options: ClassVar[type] = OstiaOptions
    names: ClassVar[Mapping[str, str]] = {
        "surface_temperature": "sea_surface_temperature",
        "analysed_sst": "sea_surface_temperature",
        "sea_surface_foundation_temperature": "sea_surface_temperature",
    }

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs or (Path("embedded:ostia_monthly.nc"),), options)

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "ostia",
            "ocean: sea surface temperature analysis",
            "NetCDF",
            "OGL-UK-3.0 or Copernicus Marine licence",
            "Met Office and Copernicus Marine Service, OSTIA (Good et al. 2020, doi:10.3390/rs12040720)",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        attrs, variables = glimpse(path)
        return "OSTIA" in attrs or "analysed_sst" in variables or (bool(variables) and "ostia" in path.name.lower())
