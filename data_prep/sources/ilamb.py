"""ILAMB, benchmark data for land models, CF NetCDF of grids or sites: used to validate, never to train.

Every sample goes to the split `test` (or another that is not `train`), so a corpus of it has no training statistics. Sites that share one
dimension become points. The units of a quantity differ between products and are those of each file's `units` attribute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from scigpt.data.conventions import LATITUDE, LONGITUDE, is_coordinate
from scigpt.data.sample import Boundary, Coordinate, Origin, Sample
from scigpt.data.variables import Quantity
from scigpt.data_prep.fields import decode
from scigpt.data_prep.formats.lazy import Read, lazy
from scigpt.data_prep.formats.opening import glimpse, one_sentence, open_datasets
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description, Remote, SampleRef
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

ROW = "row_of_sites"
"""The dimension of length 1 that makes sites a grid of one row."""


@dataclass(frozen=True)
class IlambOptions(GriddedOptions):
    """As every gridded source; `split`: the one split all samples go to, any but `train`."""

    split: str | None = "test"


@dataclass(frozen=True)
class IlambFetch:
    """What to fetch from ilamb.org.

    Args:
        variables: the first folder of a file in the registry (`gpp`, `hfls`).
        products: the second (`FLUXNET2015`); none means all of a variable.
        registry: address of the list of files, `path sha1:...` a line.
        server: address below which the files are.
    """

    variables: tuple[str, ...] = ("gpp",)
    products: tuple[str, ...] | None = None
    registry: str = "https://raw.githubusercontent.com/rubisco-sfa/ilamb3/main/ilamb3/registry/ilamb.txt"
    server: str = "https://www.ilamb.org/ILAMB-Data/DATA"


class Ilamb(GriddedSource):
    """Benchmark data of the International Land Model Benchmarking project."""

    name = "ilamb"
    Options: ClassVar[type] = IlambOptions
    Fetch: ClassVar[type | None] = IlambFetch
    names: ClassVar[Mapping[str, str]] = {
        "le": "surface_upward_latent_heat_flux",
        "sh": "surface_upward_sensible_heat_flux",
        "et": "evapotranspiration_flux",
        "rhums": "relative_humidity",
        "soilc": "soil_carbon",
        "tasmax": "air_temperature_maximum",
        "tasmin": "air_temperature_minimum",
    }
    options: IlambOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if self.options.split in (None, "train"):
            raise UserError("the source ilamb is for validation only and nothing of it is trained on; give split=test, valid or ood")

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "ilamb",
            "land: benchmark data for carbon, water and energy, grids and sites",
            "CF NetCDF",
            "of each product (named in its file)",
            "ILAMB (Collier et al. 2018, doi:10.1029/2018MS001354) and the makers of each product",
            use="validate",
            redistributable=False,
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            attrs, variables = glimpse(path)
        except (UserError, OSError):
            return False
        return "ILAMB" in attrs and bool(variables)

    @classmethod
    def remotes(cls, options: IlambFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        listed: list[tuple[str, str]] = []
        for number, line in enumerate(get(options.registry).decode("utf-8", errors="replace").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not re.fullmatch(r"(sha1:)?[0-9a-f]{40}", words[1]) or ".." in words[0].split("/"):
                raise UserError(f"{options.registry}, line {number} is not of the form 'path sha1:...'; give another registry=")
            if words[0].endswith(".nc"):
                listed.append((words[0], "sha1:" + words[1].removeprefix("sha1:")))
        found = [
            (file, checksum)
            for file, checksum in listed
            if file.split("/")[0] in options.variables and (options.products is None or file.split("/")[1] in options.products)
        ]
        if not found:
            of_variables = [f for f, _ in listed if f.split("/")[0] in options.variables]
            word = (options.products or options.variables or ("",))[0] if of_variables else (options.variables or ("",))[0]
            known = sorted({f.split("/")[1] for f in of_variables} or {f.split("/")[0] for f, _ in listed})
            raise UserError(f"the registry of ILAMB has no {word!r}; {nearest(word, known) or 'it has ' + ', '.join(known)[:200]}")
        for file, checksum in found:
            yield Remote(f"{options.server.rstrip('/')}/{file}", file, checksum=checksum)

    # reading

    def open(self, path: Path) -> list[xr.Dataset]:
        (dataset,) = open_datasets(path)
        with ExitStack() as stack, one_sentence(path):
            stack.callback(dataset.close)
            result = _sites_in_a_row(dataset)
            result.set_close(stack.pop_all().close)
        return [result]

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        """Water as a depth (`mm day-1`, `m`) is its mass on an area."""
        depth = re.fullmatch(r"(mm|m)(\s+.*|/.*)?", unit)
        if depth is None or "kg m**-2" not in quantity.unit:
            return super().file_unit(quantity, unit)
        return {"mm": "kg m**-2", "m": "1000 * kg m**-2"}[depth[1]] + (depth[2] or "")

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin = super().origin(dataset, path)
        said = [" ".join(str(dataset.attrs.get(k, "")).split())[:200] for k in ("institution", "institutions", "title")]
        makers = "; ".join(dict.fromkeys(s for s in said if s))
        licence = " ".join(str(dataset.attrs.get("license") or dataset.attrs.get("licence") or "").split())[:200]
        return replace(
            origin, licence=licence or origin.licence, attribution=f"{makers}; {origin.attribution}" if makers else origin.attribution
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        for sample in super().samples(refs):
            yield sample if sample is None or sample.values.shape[3] > 1 else _points(sample)


def _sites_in_a_row(dataset: xr.Dataset) -> xr.Dataset:
    """A dataset whose latitude and longitude lie on one common dimension as a grid of one row; any other as it is."""
    found = [
        next((str(n) for n, v in dataset.variables.items() if v.ndim == 1 and is_coordinate(str(n), v, which)), None)
        for which in (LATITUDE, LONGITUDE)
    ]
    if found[0] is None or found[1] is None or dataset.variables[found[0]].dims != dataset.variables[found[1]].dims:
        return dataset.copy(deep=False)
    sites = str(dataset.variables[found[0]].dims[0])
    changed: dict[str, xr.Variable] = {}
    for name, variable in dataset.data_vars.items():
        if sites in variable.dims and variable.ndim > 1 and variable.dtype.kind in "iuf":
            moved = variable.variable.transpose(..., sites)
            dims, shape = [str(d) for d in moved.dims], list(moved.shape)
            changed[str(name)] = lazy([*dims[:-1], ROW, sites], [*shape[:-1], 1, shape[-1]], moved.dtype, _one_row(moved), moved.attrs)
    coordinates = {
        standard: xr.Variable((ROW, sites), _degrees(dataset.variables[name])[None], {"standard_name": standard, "units": units})
        for standard, name, units in (("latitude", found[0], "degrees_north"), ("longitude", found[1], "degrees_east"))
    }
    return dataset.drop_vars([found[0], found[1], *changed]).assign(changed).assign_coords(coordinates)


def _one_row(variable: xr.Variable) -> Read:
    return lambda window: variable[(*window[:-2], window[-1])].to_numpy()[..., None, :]


def _degrees(coordinate: xr.Variable) -> np.ndarray:
    return decode(coordinate.to_numpy(), coordinate.attrs, exact=True)


def _points(sample: Sample) -> Sample:
    """A grid of one row as sites along X."""
    places = {n: Coordinate(("x",), np.broadcast_to(c.values, sample.values.shape[3:])[0], c.unit) for n, c in sample.coordinates.items()}
    return replace(sample, geometry="points", boundary=Boundary(), coordinates=places)
