"""CMIP6 model output (and other climate model fields by CF conventions): any calendar, regular and curvilinear grids, several experiments.

Without an input it takes the climate model fields that ship inside `iris-sample-data`: scenario A1B to train on, and of
scenario E1 the years 2000-2099 as the out-of-distribution split (before 2000 the two are the same run).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from scigpt.data.sample import Origin
from scigpt.data_prep.gridded import GriddedSource
from scigpt.data_prep.opening import glimpse
from scigpt.data_prep.source import Description

_FACETS = ("source_id", "experiment_id", "variant_label", "grid_label")


class Cmip6(GriddedSource):
    """Climate model output; files of one model, experiment, member and grid are one record."""

    name = "cmip6"

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if not self.inputs:
            self.inputs = (Path("embedded:A1B_north_america.nc"),)
            if self.options.ood_input is None:
                self.options = replace(self.options, ood_input="embedded:E1_north_america.nc", ood_period="2000-2099")

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "cmip6",
            "climate: model experiments",
            "NetCDF, Zarr",
            "CC-BY-4.0 (a few models NC or SA; each file says its own)",
            "World Climate Research Programme, CMIP6 and the modelling groups named in the files",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        attrs, variables = glimpse(path)
        return "source_id" in attrs or "CMIP" in attrs or any("Model scenario" in v for v in variables.values())

    def record_name(self, dataset: xr.Dataset) -> str:
        return "_".join(str(dataset.attrs[f]) for f in _FACETS if f in dataset.attrs)

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin, attrs = super().origin(dataset, path), dataset.attrs
        said = " ".join(str(attrs.get("license") or attrs.get("redistribution") or "").split())
        institution = str(attrs.get("institution", "")).strip()
        attribution = f"{institution}; {origin.attribution}" if institution else origin.attribution
        return replace(origin, licence=_licence(said) or origin.licence, attribution=attribution)


def _licence(said: str) -> str:
    """The Creative Commons name in a CMIP6 `license` attribute, or its first words."""
    if not re.search(r"Creative Commons|CC[ -]BY|Attribution", said):
        return said[:200]
    noncommercial = "-NC" if re.search(r"Non-?Commercial|BY-NC", said, re.IGNORECASE) else ""
    alike = "-SA" if re.search(r"Share-?Alike|BY(-NC)?-SA", said, re.IGNORECASE) else ""
    return f"CC-BY{noncommercial}{alike}-4.0"
