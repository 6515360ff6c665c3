"""CMIP6 model output (and other climate model fields by CF conventions): any calendar, regular and curvilinear grids, several experiments.

Fields of the table `fx` (orography, land fraction) belong to every experiment and member of their model on the same grid.

Without an input it takes the climate model fields that ship inside `iris-sample-data`: scenario A1B to train on, and of
scenario E1 the years 2000-2099 as the out-of-distribution split (before 2000 the two are the same run).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

from scigpt.data.sample import Origin
from scigpt.data_prep.fields import Field
from scigpt.data_prep.formats.opening import glimpse
from scigpt.data_prep.modelled import ModelledSource, dated
from scigpt.data_prep.records import Record
from scigpt.data_prep.source import Description, Remote
from scigpt.data_prep.sources import esgf

_FACETS = ("source_id", "experiment_id", "variant_label", "grid_label")
_NAMED = 4
"""So many versions are named in an attribution."""


class Cmip6(ModelledSource):
    """Climate model output; files of one model, experiment, member and grid are one record."""

    name = "cmip6"
    Fetch: ClassVar[type] = esgf.Fetch
    names: ClassVar[Mapping[str, str]] = {"tasmax": "air_temperature_maximum", "tasmin": "air_temperature_minimum"}

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._versions: dict[Path, str] = {}
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

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        return esgf.remotes(options, get)

    def record_name(self, dataset: xr.Dataset) -> str:
        return "_".join(str(dataset.attrs[f]) for f in _FACETS if f in dataset.attrs)

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin, attrs = super().origin(dataset, path), dataset.attrs
        said = " ".join(str(attrs.get("license") or attrs.get("redistribution") or "").split())
        institution = str(attrs.get("institution", "")).strip()
        attribution = f"{institution}; {origin.attribution}" if institution else origin.attribution
        return replace(origin, licence=_licence(said) or origin.licence, attribution=attribution)

    def is_static(self, dataset: xr.Dataset) -> bool:
        fixed = dataset.attrs.get("frequency") == "fx" or str(dataset.attrs.get("table_id", "")).endswith("fx")
        return (fixed and not dated(dataset)) or super().is_static(dataset)

    def adapted(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        self._versions[path] = _version(path, dataset)
        return dataset

    def belongs(self, static: Field, field: Field, beside: xr.Dataset, dataset: xr.Dataset) -> bool:
        # "gn" is the name of the atmosphere's grid and of the ocean's
        same = all(beside.attrs[f] == dataset.attrs[f] for f in ("source_id", "grid_label") if f in beside.attrs and f in dataset.attrs)
        return same and static.lattice.same_as(field.lattice)

    def finished(self, record: Record) -> Record:
        """Which edition of its datasets a record holds goes with it: some are retracted later."""
        record = super().finished(record)
        versions = sorted({v for p in record.files if (v := self._versions.get(p, ""))})
        if not versions:
            return record
        more = f" and {len(versions) - _NAMED} more" if len(versions) > _NAMED else ""
        attribution = f"{record.origin.attribution}; {', '.join(versions[:_NAMED])}{more}"
        return replace(record, origin=replace(record.origin, attribution=attribution))


def _version(path: Path, dataset: xr.Dataset) -> str:
    """`tas v20190227` by the folder that the file was published in, else its tracking identifier; empty where a file says neither."""
    stated = [str(dataset.attrs.get("version_id", "")), *path.parts[::-1], *re.split(r"[._]", path.stem)]
    version = next((m[0] for part in stated if (m := re.fullmatch(r"v\d{8}", part))), "")
    found = version or str(dataset.attrs.get("tracking_id", "")).split("\n")[0].strip()
    return f"{dataset.attrs.get('variable_id', '')} {found}".strip() if found else ""


def _licence(said: str) -> str:
    """The Creative Commons name in a CMIP6 `license` attribute, or its first words."""
    if not re.search(r"Creative Commons|CC[ -]BY|Attribution", said):
        return said[:200]
    noncommercial = "-NC" if re.search(r"Non-?Commercial|BY-NC", said, re.IGNORECASE) else ""
    alike = "-SA" if re.search(r"Share-?Alike|BY(-NC)?-SA", said, re.IGNORECASE) else ""
    return f"CC-BY{noncommercial}{alike}-4.0"
