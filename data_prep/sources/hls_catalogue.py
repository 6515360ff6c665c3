"""HLS: what the names of its files and bands say, and which of them the search of NASA's archive finds at a place and time."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scigpt.data_prep import cmr
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

BANDS: Mapping[str, Mapping[str, str]] = {
    "L30": {
        "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "nir", "B06": "swir_1", "B07": "swir_2", "B09": "cirrus",
        "B10": "thermal_11um", "B11": "thermal_12um",
    },
    "S30": {
        "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "red_edge_1", "B06": "red_edge_2", "B07": "red_edge_3",
        "B08": "nir_broad", "B8A": "nir", "B09": "water_vapour", "B10": "cirrus", "B11": "swir_1", "B12": "swir_2",
    },
}  # fmt: skip
"""By product: band number in the files, common name."""
THERMAL = {"thermal_11um": "brightness_temperature_11um", "thermal_12um": "brightness_temperature_12um"}
NAMES = {n: THERMAL.get(n, f"surface_reflectance_{n}") for bands in BANDS.values() for n in bands.values()}
_NAME = re.compile(r"HLS\.([LS]30)\.(T(\d\d)[A-Z]{3})\.(\d{4})(\d{3}T\d{6})\.v2\.\d+\.([A-Za-z0-9]+)(?:\.\w+)?\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class Name:
    """What the name of a file says."""

    granule: str
    product: str
    tile: str
    zone: int
    time: np.datetime64
    band: str


def named(path: Path) -> Name | None:
    """What the name says; None for another file.

    Raises:
        UserError: a name whose time cannot be.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    product, tile, zone, year, instant, band = (part.upper() for part in match.groups())
    try:
        time = datetime.datetime.strptime(year + instant, "%Y%jT%H%M%S")
        if time.year != int(year):  # day 366 of a common year
            raise ValueError
    except ValueError:
        raise UserError(f"{path.name}: {year}{instant} in its name is no time; expected year, day of the year and time of day") from None
    granule = path.name[: match.start(6)].upper()
    return Name(granule, product, tile, int(zone), np.datetime64(time, "s"), band)


@dataclass(frozen=True)
class HlsFetch:
    """What to fetch; an Earthdata account is needed for the files.

    Args:
        products: L30 (Landsat), S30 (Sentinel-2).
        tile: MGRS tile, `T06WVS`; or `box`: west, south, east, north in degrees. One of them is needed.
        start, stop: first and last day, `2024-04-01`.
        bands: common names; the mask (Fmask) always comes with them.
        cloud: largest cloud cover of a granule in percent.
        limit: most granules of a product.
        server: the address of the search.
    """

    products: tuple[str, ...] = ("L30", "S30")
    tile: str = ""
    box: tuple[float, ...] = ()
    start: str = ""
    stop: str = ""
    bands: tuple[str, ...] = ("blue", "green", "red", "nir", "swir_1", "swir_2")
    cloud: int = 50
    limit: int = 10
    server: str = cmr.SERVER


def search(options: HlsFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """One file for each band of each granule found, oldest first.

    Raises:
        UserError: options that cannot be, an answer that is none, or nothing found.
    """
    if wrong := [p for p in options.products if p not in BANDS] + [b for b in options.bands if b not in NAMES]:
        raise UserError(f"{wrong[0]!r} is not known to HLS; products are {', '.join(BANDS)}, bands {', '.join(NAMES)}")
    if not options.start or bool(options.tile) == bool(options.box) or len(options.box) not in (0, 4):
        raise UserError("fetching HLS needs start=2024-04-01 and either tile=T06WVS or box=west,south,east,north in degrees")
    empty = True
    for product in options.products:
        endings = (*(f".{number}.tif" for number, name in BANDS[product].items() if name in options.bands), ".Fmask.tif")
        for files in cmr.granules(options.server, _query(options, product), get, options.limit):
            for remote in (f for f in files if f.file.endswith(endings)):
                empty = False
                yield replace(remote, file=f"{remote.file.rsplit('.', 2)[0]}/{remote.file}")
    if empty:
        where = options.tile or ",".join(map(str, options.box))
        days = f"{options.start} to {options.stop or options.start}"
        raise UserError(
            f"the search found no granule of {', '.join(options.products)} at {where} from {days} "
            f"with cloud up to {options.cloud} %; widen the time or raise cloud="
        )


def _query(options: HlsFetch, product: str) -> dict[str, str]:
    query = {
        "short_name": f"HLS{product}",
        "version": "2.0",
        "temporal": f"{options.start}T00:00:00Z,{options.stop or options.start}T23:59:59Z",
        "cloud_cover": f"0,{options.cloud}",
    }
    if not options.tile:
        return query | {"bounding_box": ",".join(map(str, options.box))}
    tile = options.tile.upper()
    pattern = f"HLS.{product}.{tile if tile.startswith('T') else 'T' + tile}.*"
    return query | {"granule_ur": pattern, "options[granule_ur][pattern]": "true"}
