"""The columns of FLUXNET and AmeriFlux that become variables: their units at each resolution, and what their quality means there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.formats.fluxnet_csv import Record
from scigpt.errors import UserError

Quality = Literal["measured", "good", "medium", "any"]

WORST = {"measured": 0, "good": 1, "medium": 2}
"""Of half hours and hours: 0 measured, 1 filled well, 2 fairly, 3 poorly (of meteorology 2 comes from a reanalysis)."""
LEAST = {"measured": 1.0, "good": 0.5, "medium": 0.25}
"""Of days and months: the share of measured or well filled values."""

CARBON_MOLES = "12.011e-9 * kg / m**2 / s"
"""A micromole of CO2 holds 12.011 micrograms of carbon."""
CARBON_DAYS = "1e-3 * kg / m**2 / day"


@dataclass(frozen=True)
class Column:
    """A column of one resolution: what it is, in which unit it stands there, and the column that judges it."""

    column: str
    quantity: str
    file_unit: str
    unit: str
    qc: str = ""


_METEOROLOGY = {
    "air_temperature": ("TA_F", "degC"),
    "surface_downwelling_shortwave_flux": ("SW_IN_F", "W m**-2"),
    "surface_downwelling_longwave_flux": ("LW_IN_F", "W m**-2"),
    "vapour_pressure_deficit": ("VPD_F", "hPa"),
    "surface_air_pressure": ("PA_F", "kPa"),
    "precipitation_amount": ("P_F", "kg m**-2"),
    "wind_speed": ("WS_F", "m s**-1"),
    "relative_humidity": ("RH", "percent"),
    "friction_velocity": ("USTAR", "m s**-1"),
    "surface_net_downward_radiative_flux": ("NETRAD", "W m**-2"),
    "surface_upwelling_shortwave_flux": ("SW_OUT", "W m**-2"),
    "surface_upwelling_longwave_flux": ("LW_OUT", "W m**-2"),
    "photosynthetic_photon_flux": ("PPFD_IN", "1e-6 * mol / m**2 / s"),
    "carbon_dioxide_mole_fraction": ("CO2_F_MDS", "1e-6"),
    "soil_temperature": ("TS_F_MDS_1", "degC"),
    "soil_water_content": ("SWC_F_MDS_1", "percent"),
    "soil_heat_flux": ("G_F_MDS", "W m**-2"),
    "surface_upward_latent_heat_flux": ("LE_F_MDS", "W m**-2"),
    "surface_upward_sensible_heat_flux": ("H_F_MDS", "W m**-2"),
}
_CARBON = {
    "net_ecosystem_exchange": "NEE_VUT_REF",
    "ecosystem_respiration": "RECO_NT_VUT_REF",
    "gross_primary_productivity": "GPP_NT_VUT_REF",
}
_JUDGE_OF_CARBON = "NEE_VUT_REF_QC"
_FILLED = re.compile(r"_F(_|$)|^(NEE|RECO|GPP)_")

_BASE = {
    **{q: (re.sub(r"_F(_MDS)?(_1)?$", "", column), unit) for q, (column, unit) in _METEOROLOGY.items()},
    "vapour_pressure_deficit": ("VPD_PI", "hPa"),
    "surface_upward_mole_flux_of_carbon_dioxide": ("FC", "1e-6 * mol / m**2 / s"),
    "net_ecosystem_exchange": ("NEE_PI", CARBON_MOLES),
    "ecosystem_respiration": ("RECO_PI", CARBON_MOLES),
    "gross_primary_productivity": ("GPP_PI", CARBON_MOLES),
}


def layout(resolution: str, base: bool, columns: Sequence[str] | None = None, quality: Quality = "any") -> list[Column]:
    """The known columns among these (all of them by default), in a fixed order.

    A filled column without a quality column is left out unless `quality` is `any`.
    """
    if resolution not in ("HH", "HR", "DD", "MM"):
        resolution = "DD"
    found = []
    for quantity, (name, unit) in _of(resolution, base).items():
        column = name if columns is None else _positioned(name, columns) if base else (name if name in columns else None)
        if column is None:
            continue
        if quantity == "precipitation_amount" and resolution == "MM":  # a mean rate in mm a day, not the total of the month
            quantity, unit = "precipitation_flux", "kg m**-2 day**-1"
        qc = "" if base else _JUDGE_OF_CARBON if quantity in _CARBON else f"{column}_QC"
        qc = qc if columns is None or qc in columns else ""
        if not qc and not base and quality != "any" and columns is not None and _FILLED.search(column):
            continue
        found.append(Column(column, quantity, unit, QUANTITIES[quantity].unit, qc))
    return found


def good(qc: np.ndarray, record: Record, column: str, quality: Quality) -> np.ndarray:
    """Where the quality is good enough; nowhere where it is missing.

    Raises:
        UserError: numbers that are no quality of this resolution, such as shares in a file of half hours.
    """
    if quality == "any":
        return np.ones(qc.shape, bool)
    known = np.isfinite(qc)
    codes = record.resolution in ("HH", "HR")
    right = np.isin(qc, (0, 1, 2, 3)) if codes else (qc >= 0) & (qc <= 1)
    if (known & ~right).any():
        row = int(np.argmax(known & ~right))
        expected = "0, 1, 2 or 3, as in a table of half hours or hours" if codes else "a share from 0 to 1, as in a table of days or longer"
        raise UserError(f"{record.label}, row {row + 1}: {column} is {qc[row]:g}; expected {expected}")
    with np.errstate(invalid="ignore"):
        return qc <= WORST[quality] if codes else qc >= LEAST[quality]


def _of(resolution: str, base: bool) -> dict[str, tuple[str, str]]:
    if base:
        return _BASE
    carbon = CARBON_MOLES if resolution in ("HH", "HR") else CARBON_DAYS
    return {**_METEOROLOGY, **{q: (column, carbon) for q, column in _CARBON.items()}}


def _positioned(name: str, columns: Sequence[str]) -> str | None:
    """The column itself, or that of the first sensor (`TS_1_1_1` before `TS_1_2_1`, `TS_1` before `TS_2`)."""
    places = {tuple(int(n) for n in m[1].split("_")[1:]): c for c in columns if (m := re.fullmatch(rf"{name}((?:_\d+){{0,3}})", c))}
    return places[min(places)] if places else None
