"""How the CF conventions, and files that nearly follow them, say that a variable is a latitude, a longitude or a level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from scigpt.data.sample import LevelKind

LATITUDE = ("latitude", ("degrees_north", "degree_north", "degrees_n", "degreesn"), ("latitude", "lat", "nav_lat"))
LONGITUDE = ("longitude", ("degrees_east", "degree_east", "degrees_e", "degreese"), ("longitude", "lon", "nav_lon"))
MILLIBAR = {"millibars": "hPa", "millibar": "hPa", "mbar": "hPa", "mb": "hPa"}


class Described(Protocol):
    """A variable of xarray, which is not imported for it."""

    @property
    def attrs(self) -> Any: ...


def is_coordinate(name: str, variable: Described, wanted: tuple[str, tuple[str, ...], tuple[str, ...]]) -> bool:
    standard, units, names = wanted
    attrs = variable.attrs
    return (
        attrs.get("standard_name") == standard
        or str(attrs.get("units", "")).lower() in units
        or (name.lower() in names and "standard_name" not in attrs)
    )


def level_kind(name: str, attrs: Mapping[str, Any]) -> LevelKind | None:
    unit, standard = str(attrs.get("units", "")), attrs.get("standard_name")
    pressure_unit = MILLIBAR.get(unit, unit) in ("hPa", "Pa", "")
    if standard == "air_pressure" or (name in ("level", "lev", "plev", "pressure_level", "isobaricInhPa") and pressure_unit):
        return "pressure"
    if standard == "depth" or (unit == "m" and attrs.get("positive") == "down"):
        return "depth"
    if standard in ("height", "altitude") or (unit == "m" and attrs.get("positive") == "up"):
        return "height"
    return None


def extreme(name: str, attrs: Mapping[str, Any]) -> str | None:
    """`maximum` or `minimum` of a variable that is one over an interval, by `cell_methods` or a name such as tasmax."""
    methods = str(attrs.get("cell_methods", ""))
    return next((e for e in ("maximum", "minimum") if e in methods or name.endswith(e[:3])), None)
