"""What the columns of ESS-DIVE's tables become: quantities of the registry where their names are sure, else variables of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from scigpt.data.sample import Level, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.datamap import Channel
from scigpt.data_prep.formats.data_package import Column, Place
from scigpt.data_prep.formats.package_files import Entry
from scigpt.data_prep.formats.package_table import Head, unit_of
from scigpt.data_prep.tracks import make_variable

NAMES: Mapping[str, str] = {
    "barometric_pressure": "air_pressure",
    "atmospheric_pressure": "air_pressure",
    "rainfall": "precipitation",
    "precipitation": "precipitation",
    "streamflow": "river_discharge",
    "volumetric_water_content": "soil_water_content",
    "soil_moisture": "soil_water_content",
    "snow_depth": "surface_snow_thickness",
    "water_surface_elevation": "water_surface_height",
    "photosynthetically_active_radiation": "photosynthetic_photon_flux",
    "incoming_shortwave_radiation": "surface_downwelling_shortwave_flux",
    "incoming_longwave_radiation": "surface_downwelling_longwave_flux",
}
"""Names of columns that are sure, beside those of the registry. `Temperature` is not: it may be of water, soil or air."""


def variables_of(
    entry: Entry,
    head: Head,
    dictionary: Mapping[str, Column],
    columns: Sequence[tuple[int, Place | None]],
    given: Mapping[str, str],
) -> tuple[tuple[Variable, ...], list[str]]:
    """What columns become, and the unit each is in; two columns that would become the same keep their own names."""
    made, units = [], []
    for i, place in columns:
        name, unit = head.names[i], unit_of(entry, head.names[i], head, dictionary, given) or ""
        level = None
        if place is not None and place.depth is not None:
            level = Level("height" if re.search(r"\babove\b", place.depth_reference, re.IGNORECASE) else "depth", round(place.depth, 6))
        made.append(_variable(entry, name, unit, level))
        units.append(unit)
    keys = [v.key for v in made]
    for c, (i, _) in enumerate(columns):
        if keys.count(made[c].key) > 1 and made[c].name != _own(head.names[i]):
            made[c] = Variable(_own(head.names[i]), units[c], "state", made[c].level)
    return tuple(made), units


def _variable(entry: Entry, column: str, unit: str, level: Level | None) -> Variable:
    own = _own(column)
    name = NAMES.get(own, own)
    if name == "precipitation":
        name = "precipitation_flux" if re.search(r"/|-1|\bper\b", unit) else "precipitation_amount"
    quantity = QUANTITIES.find(name)
    where = f"{entry.label}, column {column}"
    if quantity is None or quantity.name != name:  # an alias such as t may mean anything here
        return Variable(own, unit, "state", level)
    return make_variable(column, Channel(name), unit, level, where)


def _own(column: str) -> str:
    """A column's name as a variable's."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_").lower()
    return name if re.match(r"[a-z]", name) else f"v_{name}"
