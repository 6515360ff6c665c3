"""The registry of physical quantities: canonical name, unit, plausible bounds and the transform before normalisation."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from scigpt.errors import UserError

Transform = Literal["identity", "log1p", "asinh"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One physical quantity.

    Args:
        name: canonical (CF standard name where there is one).
        unit: canonical unit, as pint reads it ("1" for dimensionless).
        low, high: plausible bounds in that unit; values outside become invalid and are counted.
        transform: applied to `value / transform_scale` before centring and scaling (heavy tails: log1p for amounts, asinh for signed).
        transform_scale: in the canonical unit.
        aliases: names used by file formats and sources (`t2m`, `tas`).
        standard_name: that of the CF conventions; empty where they have none.
    """

    name: str
    unit: str
    low: float = -np.inf
    high: float = np.inf
    transform: Transform = "identity"
    transform_scale: float = 1.0
    aliases: tuple[str, ...] = ()
    standard_name: str = ""


class Registry:
    """Quantities by canonical name or alias."""

    def __init__(self, quantities: Iterable[Quantity]) -> None:
        self._by_name: dict[str, Quantity] = {}
        self._by_alias: dict[str, Quantity] = {}
        for quantity in quantities:
            self.add(quantity)

    def add(self, quantity: Quantity) -> None:
        if quantity.name in self._by_name:
            raise UserError(f"variable {quantity.name} is registered twice")
        self._by_name[quantity.name] = quantity
        for alias in filter(None, (quantity.name, *quantity.aliases, quantity.standard_name)):
            self._by_alias.setdefault(alias.lower(), quantity)

    def __iter__(self) -> Iterator[Quantity]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_alias

    def __getitem__(self, name: str) -> Quantity:
        try:
            return self._by_alias[name.lower()]
        except KeyError:
            near = difflib.get_close_matches(name.lower(), self._by_alias, n=1)
            hint = f"; did you mean {self._by_alias[near[0]].name}?" if near else ""
            raise UserError(f"variable {name!r} is not in the registry{hint}") from None

    def find(self, *names: Any) -> Quantity | None:
        """The first quantity that one of the names (CF standard name, short name; anything but a string is passed over) stands for."""
        return next((self._by_alias[n.lower()] for n in names if isinstance(n, str) and n.lower() in self._by_alias), None)


SPECTRAL_BANDS: Mapping[str, tuple[float, float]] = {
    "coastal": (430, 450),
    "blue": (450, 520),
    "green": (520, 600),
    "red": (630, 690),
    "red_edge_1": (698, 713),
    "red_edge_2": (733, 748),
    "red_edge_3": (773, 793),
    "nir_broad": (780, 900),
    "nir": (850, 880),
    "water_vapour": (935, 955),
    "swir_1240": (1230, 1250),
    "cirrus": (1360, 1390),
    "swir_1": (1560, 1660),
    "swir_2": (2100, 2290),
}
"""Bands of optical images: common name, and about which wavelengths in nm."""

DIRECTIONS = ("east", "north", "up", "radial", "transverse", "horizontal_1", "horizontal_2", "horizontal_3")
"""Of ground motion: on the map, towards and across the way from the source, and of horizontals whose azimuth is not known."""

_CONVENTIONAL = [
    Quantity(
        "air_temperature", "K", 150, 350, aliases=("t", "t2m", "2t", "2m_temperature", "tas", "tasmax", "tasmin", "ta", "temperature")
    ),
    Quantity("air_temperature_maximum", "K", 150, 350, standard_name="air_temperature"),
    Quantity("air_temperature_minimum", "K", 150, 350, standard_name="air_temperature"),
    Quantity("dew_point_temperature", "K", 120, 330, aliases=("d2m", "2d", "2m_dewpoint_temperature")),
    Quantity("surface_temperature", "K", 150, 370, aliases=("skt", "ts", "skin_temperature")),
    Quantity("sea_surface_temperature", "K", 250, 320, aliases=("sst", "tos")),
    Quantity("geopotential", "m**2 s**-2", -1e4, 6e5, aliases=("z",)),
    Quantity("surface_altitude", "m", -500, 9000, aliases=("orog", "orography")),
    Quantity(
        "eastward_wind",
        "m s**-1",
        -200,
        200,
        aliases=("u", "u10", "10u", "ua", "uas", "10m_u_component_of_wind", "u_component_of_wind"),
    ),
    Quantity(
        "northward_wind",
        "m s**-1",
        -200,
        200,
        aliases=("v", "v10", "10v", "va", "vas", "10m_v_component_of_wind", "v_component_of_wind"),
    ),
    Quantity("wind_speed", "m s**-1", -0.1, 200),
    Quantity("specific_humidity", "kg kg**-1", -1e-3, 0.1, aliases=("q", "hus", "huss")),
    Quantity("relative_humidity", "percent", -1, 130, aliases=("r", "hur", "hurs")),
    Quantity("surface_air_pressure", "Pa", 4e4, 1.15e5, aliases=("sp", "ps", "surface_pressure")),
    Quantity("air_pressure_at_mean_sea_level", "Pa", 8e4, 1.15e5, aliases=("msl", "psl", "mean_sea_level_pressure")),
    Quantity("precipitation_amount", "kg m**-2", -1e-3, 3000, "log1p", 1.0, aliases=("tp", "total_precipitation")),
    Quantity("precipitation_flux", "kg m**-2 s**-1", -1e-8, 0.1, "log1p", 1e-5, aliases=("pr",)),
    Quantity(
        "surface_downwelling_shortwave_flux",
        "W m**-2",
        -5,
        1600,
        aliases=("rsds", "ssrd"),
        standard_name="surface_downwelling_shortwave_flux_in_air",
    ),
    Quantity("toa_incident_solar_radiation", "W m**-2", -1, 1600, aliases=("rsdt", "tisr"), standard_name="toa_incoming_shortwave_flux"),
    Quantity("land_area_fraction", "1", -0.01, 1.01, aliases=("lsm", "sftlf", "land_sea_mask")),
    Quantity(
        "total_column_water_vapour", "kg m**-2", -1, 150, aliases=("tcwv", "prw"), standard_name="atmosphere_mass_content_of_water_vapor"
    ),
    Quantity("total_cloud_cover", "1", -0.01, 1.01, aliases=("tcc",), standard_name="cloud_area_fraction"),
    Quantity("geopotential_height", "m", -2000, 7e4, aliases=("gh", "hgt", "zg")),
    Quantity("vertical_velocity", "Pa s**-1", -100, 100, aliases=("omega", "wap"), standard_name="lagrangian_tendency_of_air_pressure"),
    Quantity("sea_ice_area_fraction", "1", -0.01, 1.01, aliases=("siconc", "ci", "sea_ice_cover")),
    Quantity("sea_water_potential_temperature", "K", 265, 320, aliases=("thetao",)),
    Quantity("sea_water_salinity", "1e-3", -0.1, 50, aliases=("so", "sos")),
    Quantity("sea_surface_height_above_geoid", "m", -10, 10, aliases=("zos",)),
    Quantity("sea_water_x_velocity", "m s**-1", -10, 10, aliases=("uo",)),
    Quantity("sea_water_y_velocity", "m s**-1", -10, 10, aliases=("vo",)),
    Quantity("sea_area_fraction", "1", -0.01, 1.01, aliases=("sftof",)),
    Quantity("sea_floor_depth", "m", -100, 12000, aliases=("deptho",), standard_name="sea_floor_depth_below_geoid"),
    Quantity("cell_area", "m**2", 0, 1e13, aliases=("areacella", "areacello")),
    Quantity("surface_snow_amount", "kg m**-2", -1e-3, 3e4, "log1p", 1.0, aliases=("swe", "snw")),
    Quantity("day_length", "s", -1, 86401, standard_name="duration_of_sunshine"),
    Quantity("vapour_pressure", "Pa", -1, 1e4, standard_name="water_vapor_partial_pressure_in_air"),
    Quantity("vapour_pressure_deficit", "Pa", -10, 3e4, standard_name="water_vapor_saturation_deficit_in_air"),
    Quantity("vapour_pressure_deficit_minimum", "Pa", -10, 3e4, aliases=("vpdmin",), standard_name="water_vapor_saturation_deficit_in_air"),
    Quantity("vapour_pressure_deficit_maximum", "Pa", -10, 3e4, aliases=("vpdmax",), standard_name="water_vapor_saturation_deficit_in_air"),
    Quantity("surface_upward_latent_heat_flux", "W m**-2", -1000, 2000, aliases=("hfls",)),
    Quantity("surface_upward_sensible_heat_flux", "W m**-2", -1000, 2000, aliases=("hfss",)),
    Quantity("evapotranspiration_flux", "kg m**-2 s**-1", -1e-3, 1e-2, aliases=("evspsbl",), standard_name="water_evapotranspiration_flux"),
    Quantity("runoff_flux", "kg m**-2 s**-1", -1e-3, 0.1, "log1p", 1e-5, aliases=("mrro",)),
    Quantity(
        "gross_primary_productivity",
        "kg m**-2 s**-1",
        -1e-6,
        1e-6,
        aliases=("gpp",),
        standard_name="gross_primary_productivity_of_biomass_expressed_as_carbon",
    ),
    Quantity(
        "net_ecosystem_exchange",
        "kg m**-2 s**-1",
        -1e-6,
        1e-6,
        aliases=("nee",),
        standard_name="surface_net_upward_mass_flux_of_carbon_dioxide_expressed_as_carbon_due_to_all_land_processes",
    ),
    Quantity(
        "ecosystem_respiration",
        "kg m**-2 s**-1",
        -1e-6,
        1e-6,
        aliases=("reco",),
        standard_name="surface_upward_mass_flux_of_carbon_dioxide_expressed_as_carbon_due_to_respiration",
    ),
    Quantity("leaf_area_index", "1", -0.1, 15, aliases=("lai",)),
    Quantity("surface_albedo", "1", -0.05, 1.05, aliases=("albedo",)),
    Quantity("vegetation_carbon", "kg m**-2", -0.1, 100, aliases=("cveg",), standard_name="vegetation_carbon_content"),
    Quantity("soil_carbon", "kg m**-2", -0.1, 500, aliases=("csoil",), standard_name="soil_mass_content_of_carbon"),
    # stations
    Quantity("air_pressure", "Pa", 0, 1.15e5),
    Quantity("wind_speed_of_gust", "m s**-1", -0.1, 200),
    Quantity("snowfall_thickness", "m", -1e-3, 5, "log1p", 0.01, standard_name="thickness_of_snowfall_amount"),
    Quantity("surface_snow_thickness", "m", -1e-3, 20, "log1p", 0.1, aliases=("snd", "snow_depth")),
    Quantity(
        "river_discharge",
        "m**3 s**-1",
        -1e3,
        5e5,
        "log1p",
        1.0,
        aliases=("discharge",),
        standard_name="water_volume_transport_in_river_channel",
    ),
    Quantity("surface_downwelling_longwave_flux", "W m**-2", 0, 700, standard_name="surface_downwelling_longwave_flux_in_air"),
    Quantity("surface_upwelling_shortwave_flux", "W m**-2", -5, 1400, standard_name="surface_upwelling_shortwave_flux_in_air"),
    Quantity("surface_upwelling_longwave_flux", "W m**-2", 0, 1000, standard_name="surface_upwelling_longwave_flux_in_air"),
    Quantity("surface_net_downward_radiative_flux", "W m**-2", -500, 1500),
    Quantity("surface_net_downward_shortwave_flux", "W m**-2", -5, 1500),
    Quantity("surface_net_downward_longwave_flux", "W m**-2", -500, 300),
    Quantity("water_potential_evaporation_amount", "kg m**-2", -50, 100),
    Quantity("soil_heat_flux", "W m**-2", -500, 800, standard_name="downward_heat_flux_in_soil"),
    Quantity(
        "photosynthetic_photon_flux",
        "mol m**-2 s**-1",
        -1e-4,
        3.5e-3,
        standard_name="surface_downwelling_photosynthetic_photon_flux_in_air",
    ),
    Quantity("carbon_dioxide_mole_fraction", "1e-6", 150, 2000, standard_name="mole_fraction_of_carbon_dioxide_in_air"),
    Quantity("soil_temperature", "K", 200, 350),
    Quantity("soil_water_content", "1", -0.01, 1.01, standard_name="volume_fraction_of_condensed_water_in_soil"),
    Quantity("cloud_area_fraction_in_layer", "1", -0.01, 1.01, standard_name="cloud_area_fraction_in_atmosphere_layer"),
    Quantity("surface_upward_mole_flux_of_carbon_dioxide", "mol m**-2 s**-1", -2e-4, 2e-4),
    Quantity("water_table_depth", "m", -10, 1000),
    Quantity("water_surface_height", "m", -500, 9000, standard_name="water_surface_height_above_reference_datum"),
]
"""Atmosphere, land and ocean: quantities that the CF conventions name, mostly as here."""

QUANTITIES = Registry(
    [
        *(q if q.standard_name else replace(q, standard_name=q.name) for q in _CONVENTIONAL),
        Quantity("surface_reflectance", "1", -0.3, 1.7),
        # images: one name for each band of the spectrum, whatever number an instrument gives it
        *(Quantity(f"surface_reflectance_{band}", "1", -0.3, 1.7) for band in SPECTRAL_BANDS),
        Quantity("brightness_temperature_11um", "K", 150, 400, standard_name="brightness_temperature"),
        Quantity("brightness_temperature_12um", "K", 150, 400, standard_name="brightness_temperature"),
        Quantity("normalized_difference_vegetation_index", "1", -0.4, 1.01, standard_name="normalized_difference_vegetation_index"),
        Quantity("enhanced_vegetation_index", "1", -0.4, 1.01),
        Quantity("cloud_mask", "1", -0.01, 1.01),
        Quantity("snow_mask", "1", -0.01, 1.01),
        Quantity("water_mask", "1", -0.01, 1.01),
        # stations
        Quantity("friction_velocity", "m s**-1", -0.01, 10),
        Quantity("water_potential_evaporation_amount_penman_monteith", "kg m**-2", -50, 100),
        Quantity("catchment_area", "m**2", 0, 1e13, "log1p", 1e6),
        # seismology
        *(Quantity(f"ground_velocity_{d}", "m s**-1", -10, 10, "asinh", 1e-6) for d in DIRECTIONS),
        *(Quantity(f"ground_acceleration_{d}", "m s**-2", -100, 100, "asinh", 1e-3) for d in DIRECTIONS),
        *(Quantity(f"ground_displacement_{d}", "m", -100, 100, "asinh", 1e-6) for d in DIRECTIONS),
        *(Quantity(f"seismic_counts_{d}", "count", -(2.0**31), 2.0**31) for d in DIRECTIONS),
        Quantity("pressure_counts", "count", -(2.0**31), 2.0**31),
        Quantity("acoustic_pressure", "Pa", -1e4, 1e4, "asinh", 0.1),
        Quantity("seismic_velocity_model", "m s**-1", 0, 15000),
        Quantity("shear_wave_velocity_30m", "m s**-1", 50, 5000),
        Quantity("seismic_amplitude", "1"),
        # boreholes and fibres
        Quantity("strain", "1", -0.1, 0.1),
        Quantity("strain_rate", "s**-1", -1, 1, "asinh", 1e-9),
        Quantity("optical_phase", "radian"),
        Quantity("borehole_temperature", "K", 250, 700),
        Quantity("electrical_resistivity", "ohm m", -1e-3, 1e6, "log1p", 1.0),
        Quantity("bulk_density", "kg m**-3", 500, 8000),
        Quantity("neutron_porosity", "1", -0.3, 1.5),
        Quantity("sonic_slowness", "s m**-1", 1e-5, 3e-3),
        Quantity("shear_sonic_slowness", "s m**-1", 1e-5, 1e-2),
        Quantity("spontaneous_potential", "V", -5, 5),
        Quantity("borehole_diameter", "m", 0, 5),
        Quantity("gamma_ray_index", "1", -1, 2000),
        Quantity("photoelectric_factor", "1", -5, 50),
        # simulated physics: dimensionless
        Quantity("velocity_x", "1"),
        Quantity("velocity_y", "1"),
        Quantity("velocity_z", "1"),
        Quantity("vorticity", "1"),
        Quantity("pressure_field", "1"),
        Quantity("density", "1"),
        Quantity("concentration", "1"),
        Quantity("source", "1"),
        Quantity("fed_concentration", "1"),
        Quantity("surface_height", "1"),
        Quantity("bed_height", "1"),
        Quantity("sound_speed", "1"),
        Quantity("activator", "1"),
        Quantity("inhibitor", "1"),
        Quantity("temperature_field", "1"),
        Quantity("permeability", "1"),
        Quantity("gravitational_potential", "1"),
        Quantity("solution", "1"),
        Quantity("inflow", "1"),
        Quantity("signal", "1"),
    ]
)


@functools.cache
def _unit_registry() -> Any:
    try:
        import pint
    except ImportError:
        raise UserError("converting units needs pint, which is not installed; run: pip install pint") from None
    return pint.UnitRegistry(autoconvert_offset_to_baseunit=True)


_SPELLINGS = {
    **dict.fromkeys(("", "unitless", "fraction", "(0 - 1)"), "1"),
    **dict.fromkeys(("Celsius", "degree_C", "deg_C", "degrees_C", "C"), "degC"),
    **dict.fromkeys(("kelvin", "degK", "deg K", "deg. K"), "K"),
    **dict.fromkeys(("Fahrenheit", "degree_F", "deg_F", "degrees_F", "deg F"), "degF"),
    **dict.fromkeys(("deg C", "deg. C"), "degC"),
    **dict.fromkeys(("mb", "millibars"), "mbar"),
    "cfs": "foot**3 / s",
    "%": "percent",
    "counts": "count",
    "m of water equivalent": "1000 * kg / m**2",
}

WATER_DEPTH = {"m": "m of water equivalent", "mm": "kg m**-2", "mm day-1": "kg m**-2 day**-1", "mm/day": "kg m**-2 day**-1"}
"""Precipitation: files call the mass of water on an area a depth, and this is how `convert` reads it."""


def _readable(unit: str) -> str:
    """CF spellings to pint's: `kg m-2 s-1`, `m s**-1`, `m2 s-2`, `degrees_north`, `Celsius`."""
    text = unit.strip()
    text = _SPELLINGS.get(text, text)
    # the e of a factor such as 1e-3 is no unit
    return re.sub(r"(\d[eE][+-]?\d+)|([A-Za-z])\^?(-?\d+)", lambda m: m[1] or f"{m[2]}**{m[3]}", text)


def convert(values: np.ndarray, unit: str, target: str, where: str = "values") -> np.ndarray:
    """Values from one unit to another, float32 kept as float32.

    Raises:
        UserError: a unit that is unknown or of another dimension, naming `where`.
    """
    if same_unit(unit, target):
        return values
    registry = _unit_registry()
    try:
        given = registry.Quantity(registry.parse_expression(_readable(unit)))  # may hold a number: 1000 * kg / m**2
        factor = registry.Quantity(np.asarray([0.0, 1.0]) * given.magnitude, given.units).to(_readable(target)).magnitude
    except Exception as error:
        raise UserError(f"{where}: the unit {unit!r} cannot be converted to {target!r} ({type(error).__name__})") from None
    offset, scale = float(factor[0]), float(factor[1] - factor[0])
    return (values.astype(np.float64) * scale + offset).astype(values.dtype)


def spelled(unit: str) -> str:
    """A unit as the CF conventions spell it: `m s-1` for `m s**-1`, `%` for percent."""
    return "%" if unit == "percent" else unit.replace("**", "")


def same_unit(one: str, other: str) -> bool:
    """Whether two spellings are read alike; `m` and `metre` are not."""
    return _readable(one) == _readable(other)


def transform(values: np.ndarray, name: str) -> np.ndarray:
    """Values of the named variable in its transform space: float64, or as they are where it is the identity (of unregistered names too)."""
    quantity = QUANTITIES.find(name)
    if quantity is None or quantity.transform == "identity":
        return values
    scaled = values.astype(np.float64) / quantity.transform_scale
    return np.arcsinh(scaled) if quantity.transform == "asinh" else np.log1p(np.maximum(scaled, -0.999))
