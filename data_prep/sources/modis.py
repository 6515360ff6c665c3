"""MODIS land products in HDF4-EOS: daily surface reflectance (MOD09GA, MOD09GQ) and vegetation indices (MOD13Q1 and its relatives).

Tiles of the sinusoidal grid, each a record of its own. `scale_factor` is a divisor, quality flags are bit fields on a coarser grid of the
same file, `A2008296` is a year and a day of the year, and the corners of some tiles lie outside the globe: `modis_tiles` settles these.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data.sample import Origin
from scigpt.data_prep import cmr
from scigpt.data_prep.files import fingerprints, locate
from scigpt.data_prep.formats.hdf_eos import EosFile, EosGrid, is_hdf4, open_eos
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.modis_tiles import INDEX_STATE, STATE, Flags, Granule, Layer, check_tile, granule_of, place, values
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

BANDS = ("red", "nir", "blue", "green", "swir_1240", "swir_1", "swir_2")
INDICES = {
    "NDVI": "normalized_difference_vegetation_index",
    "EVI": "enhanced_vegetation_index",
    "red reflectance": "surface_reflectance_red",
    "NIR reflectance": "surface_reflectance_nir",
    "blue reflectance": "surface_reflectance_blue",
    "MIR reflectance": "surface_reflectance_swir_2",
}
NAMES: Mapping[str, str] = {
    **{f"sur_refl_b{i:02d}_1": f"surface_reflectance_{band}" for i, band in enumerate(BANDS, 1)},
    **{f"{size} 16 days {own}": name for size in ("250m", "500m", "1 km") for own, name in INDICES.items()},
}


@dataclass(frozen=True)
class ModisOptions(GriddedOptions):
    """As every gridded source, and which pixels count as missing.

    Args:
        tile: 240 pixels divide the tiles of all resolutions (1200, 2400 and 4800 pixels).
        mask: flags that make a pixel missing: cloud, shadow, aerosol (high), cirrus (high), internal_cloud, snow, adjacent (to a cloud);
            `none` keeps all.
        quality: `usable` drops what was not produced or comes from faulty input, `ideal` keeps only the highest quality, `any` keeps all.
    """

    tile: str | None = "240"
    mask: tuple[str, ...] = ("cloud", "shadow")
    quality: Literal["usable", "ideal", "any"] = "usable"


@dataclass(frozen=True)
class ModisFetch:
    """What to fetch from the Land Processes archive.

    Args:
        product, version: `MOD09GA` (Terra) or `MYD09GA` (Aqua), ...; `061` is the collection that is served.
        tiles: `h09v05,h10v05`.
        start, stop: ISO dates, both included.
        server: of the common metadata repository.
    """

    product: str = "MOD09GA"
    version: str = "061"
    tiles: tuple[str, ...] = ()
    start: str = ""
    stop: str = ""
    server: str = cmr.SERVER


class Modis(GriddedSource):
    """MODIS tiles."""

    name = "modis"
    Options: ClassVar[type] = ModisOptions
    Fetch: ClassVar[type | None] = ModisFetch
    names: ClassVar[Mapping[str, str]] = NAMES
    one_grid: ClassVar[bool] = False
    options: ModisOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._mask = tuple(w for w in self.options.mask if w != "none")
        for word in self._mask:
            if word not in STATE:
                raise UserError(f"mask={word} is no flag of MODIS; {nearest(word, STATE) or 'known: ' + ', '.join([*STATE, 'none'])}")
        self._states: dict[tuple[str, np.datetime64], Path] = {}
        """Files that give the cloud state to others, by tile and day."""

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "modis",
            "land: satellite surface reflectance and vegetation indices",
            "HDF4-EOS",
            "NASA open data (no restrictions on use)",
            "NASA EOSDIS Land Processes DAAC: MOD09GA (Vermote and Wolfe 2021, doi:10.5067/MODIS/MOD09GA.061), "
            "MOD13Q1 (Didan 2021, doi:10.5067/MODIS/MOD13Q1.061)",
            extra="hdf4",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if not is_hdf4(path):
                return False
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return data.find(b"MODIS_Grid") >= 0
        except OSError:
            return False

    @classmethod
    def remotes(cls, options: ModisFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        for day in (options.start, options.stop):
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
                raise UserError(f"fetching modis needs start= and stop=, dates such as 2020-06-01 (both included), not {day!r}")
        if not options.tiles:
            raise UserError("fetching modis needs tiles=, such as tiles=h09v05,h10v05")
        for tile in options.tiles:
            if not re.fullmatch(r"h\d\dv\d\d", tile):
                raise UserError(f"tiles={tile} is not of the form h09v05")
            query = {
                "short_name": options.product,
                "version": options.version,
                "temporal": f"{options.start}T00:00:00Z,{options.stop}T23:59:59Z",
                "readable_granule_name": f"*.{tile}.*",
                "options[readable_granule_name][pattern]": "true",
            }
            found = [f for files in cmr.granules(options.server, query, get) for f in files if f.file.endswith(".hdf")]
            if not found:
                what = f"{options.product} version {options.version} of {tile} from {options.start} to {options.stop}"
                raise UserError(f"the archive has no {what}; check product, version, tile and dates")
            yield from found

    def plan(self) -> Plan:
        if self.options.split_by == "tile" and len({p.name[:3] for p in self.inputs}) > 1:
            raise UserError("split_by=tile with Terra (MOD) and Aqua (MYD) could put one tile into two splits; prepare two corpora")
        plan = super().plan()
        digests = fingerprints(self._states.values())
        also: dict[str, list[list[str]]] = {}
        for (tile, _), path in sorted(self._states.items()):
            also.setdefault(tile, []).append([path.name, digests[path]])
        refs = (replace(r, spec={**r.spec, "files": [*r.spec["files"], *also.get(r.key.split("-")[0], [])]}) for r in plan.refs)
        return replace(plan, refs=tuple(refs), inputs=(*plan.inputs, *((p.name, d) for p, d in digests.items())))

    def open(self, path: Path) -> list[xr.Dataset]:
        file = open_eos(path)
        granule = granule_of(file)
        if re.fullmatch(r"M[OY]D09GA", granule.product) and any(re.match(r"M[OY]D09GQ\.", p.name) for p in self.inputs):
            return []  # it is here to give the state of the clouds to the files of 250 m
        grid = next((g for g in file.grids if any(n in NAMES for n in g.fields)), None)
        if grid is None:
            has = ", ".join(n for g in file.grids for n in g.fields)[:120]
            raise UserError(f"{path.name} is {granule.product} with {has}; expected MOD09GA, MOD09GQ or MOD13 (or MYD, those of Aqua)")
        check_tile(file, grid, granule)
        flags = self._flags(file, grid, granule)
        data: dict[str, xr.Variable] = {}
        for name in (n for n in grid.fields if n in NAMES):
            band = int(match[1]) - 1 if (match := re.fullmatch(r"sur_refl_b0(\d)_1", name)) else 0
            attrs = {"units": "1", "long_name": str(file.fields[name].attrs.get("long_name", name))}
            data[name] = lazy(("time", "y", "x"), (1, *grid.shape), np.float32, values(file, name, band, flags), attrs)
        first, end = (d.astype("datetime64[ns]") for d in (granule.first, granule.end))
        data["time_bounds"] = xr.Variable(("time", "edge"), [[first, end]])
        coordinates = {"time": xr.Variable("time", [first + (end - first) // 2], {"standard_name": "time", "bounds": "time_bounds"})}
        for which, (name, unit) in enumerate((("latitude", "degrees_north"), ("longitude", "degrees_east"))):
            attrs = {"units": unit, "standard_name": name}
            coordinates[name] = lazy(("y", "x"), grid.shape, np.float64, place(grid, which), attrs)
        doi = str(file.attrs.get("identifier_product_doi", ""))
        return [xr.Dataset(data, coordinates, {"place": f"{granule.place} {granule.product}", "doi": doi})]

    def record_name(self, dataset: xr.Dataset) -> str:
        return str(dataset.attrs["place"])

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        origin, doi = super().origin(dataset, path), dataset.attrs["doi"]
        return replace(origin, attribution=f"NASA EOSDIS Land Processes DAAC, doi:{doi}") if doi else origin

    def _flags(self, file: EosFile, grid: EosGrid, granule: Granule) -> Flags:
        """Which pixels of a band are missing by their bit fields."""
        index = "13" in granule.product
        name = next((n for n in grid.fields if re.fullmatch(r".* VI Quality" if index else r"QC_(250|500)m_1", n)), None)
        if name is None:
            raise UserError(f"{file.path.name}: the grid {grid.name} has no bit field of quality; it may be damaged, fetch it again")
        known, quality = (INDEX_STATE if index else STATE), (file, name, 1)
        for word in self._mask:
            if word not in known:
                raise UserError(f"{granule.product} has no flag {word!r}; it has {', '.join(known)}: choose with mask=")
        state = None if not self._mask else quality if index else self._state(file, grid, granule)
        shift = None if index else 2 if name == "QC_500m_1" else 4
        return Flags(state, {w: known[w] for w in self._mask}, quality, self.options.quality, shift)

    def _state(self, file: EosFile, grid: EosGrid, granule: Granule) -> Layer:
        """The layer of cloud states: of this file, or of the MOD09GA of the same tile and day among the inputs."""
        if not any("state_1km_1" in g.fields for g in file.grids):
            file = self._companion(file, granule)
        holder = next((g for g in file.grids if "state_1km_1" in g.fields), None)
        if holder is None or any(n % m for n, m in zip(grid.shape, holder.shape, strict=True)):
            raise UserError(f"{file.path.name} has no state_1km_1 that fits a grid of {grid.shape}; it may be damaged, fetch it again")
        return file, "state_1km_1", grid.shape[0] // holder.shape[0]

    def _companion(self, file: EosFile, granule: Granule) -> EosFile:
        product = granule.product.replace("GQ", "GA")
        for path in map(locate, self.inputs):
            if path.name.startswith(f"{product}."):
                other = open_eos(path)
                found = granule_of(other)
                if (found.product, found.tile, found.first) == (product, granule.tile, granule.first):
                    self._states[granule.place, granule.first] = path
                    return other
        raise UserError(
            f"{file.path.name} has no cloud state of its own; give the {product} of {granule.place} on {granule.first} as a further input, "
            "or keep cloudy pixels with mask=none"
        )
