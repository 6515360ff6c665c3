"""Real data that needs no network: files shipped inside the packages `iris-sample-data` and `obspy` (extra `scigpt[demo]`).

A name such as `embedded:A1B_north_america.nc` stands for such a file wherever an input path is expected.
"""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from scigpt.errors import UserError

PREFIX = "embedded:"

_OGL = "OGL-UK-3.0"
_MET_OFFICE = "Contains public sector information of the Met Office, licensed under the Open Government Licence (iris-sample-data)"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One file inside an installed package."""

    package: str
    path: str
    description: str
    licence: str
    attribution: str


EMBEDDED: dict[str, Embedded] = {
    "A1B_north_america.nc": Embedded(
        "iris_sample_data",
        "sample_data/A1B_north_america.nc",
        "yearly air temperature over North America, 1860-2099, scenario A1B, 360_day calendar",
        _OGL,
        _MET_OFFICE,
    ),
    "E1_north_america.nc": Embedded(
        "iris_sample_data",
        "sample_data/E1_north_america.nc",
        "the same model under scenario E1; identical to A1B before 2000",
        _OGL,
        _MET_OFFICE,
    ),
    "ostia_monthly.nc": Embedded(
        "iris_sample_data",
        "sample_data/ostia_monthly.nc",
        "monthly sea surface temperature of the equatorial belt, April 2006 to September 2010",
        _OGL,
        _MET_OFFICE,
    ),
    "CH.BALST.LH.mseed": Embedded(
        "obspy",
        "io/mseed/tests/data/CH.BALST..LH_two_channels",
        "one day of ground motion at Balsthal, Switzerland, 10 November 2025: east and up, 1 Hz, 172,890 samples",
        "LGPL-3.0 (bundled with obspy)",
        "Swiss Seismological Service at ETH Zurich, network CH, doi:10.12686/sed/networks/ch; bundled with obspy",
    ),
    "IU.ANMO.LH.seed": Embedded(
        "obspy",
        "signal/tests/data/IUANMO.seed",
        "one day of ground motion at Albuquerque, New Mexico, 1 January 2010: up, 1 Hz, 86,400 samples",
        "LGPL-3.0 (bundled with obspy)",
        "Albuquerque Seismological Laboratory/USGS, network IU, doi:10.7914/SN/IU; bundled with obspy",
    ),
    "AS.CTAO.LH.mseed": Embedded(
        "obspy",
        "io/mseed/tests/data/SRO_encoding.mseed",
        "half an hour at Charters Towers, Australia, 12 January 1982: east, north and up, 1 Hz, 6,048 samples",
        "LGPL-3.0 (bundled with obspy)",
        "Albuquerque Seismological Laboratory/USGS, network AS, doi:10.7914/SN/AS; bundled with obspy",
    ),
    "BW.BGLD.EHE.gaps.mseed": Embedded(
        "obspy",
        "io/mseed/tests/data/gaps.mseed",
        "four minutes at Berchtesgaden, Bavaria, 1 January 2008: east, 200 Hz, with three gaps, 52,728 samples",
        "LGPL-3.0 (bundled with obspy)",
        "BayernNetz, Ludwig-Maximilians-University Munich, network BW, doi:10.7914/SN/BW; bundled with obspy",
    ),
}


def is_embedded(path: Path | str) -> bool:
    return str(path).startswith(PREFIX)


def entry(path: Path | str) -> Embedded | None:
    """What `embedded:NAME` stands for; None for an ordinary path.

    Raises:
        UserError: no such name.
    """
    if not is_embedded(path):
        return None
    name = str(path).removeprefix(PREFIX)
    if name not in EMBEDDED:
        near = difflib.get_close_matches(name, EMBEDDED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known names: {', '.join(EMBEDDED)}"
        raise UserError(f"there is no embedded data file {name!r}; {hint}")
    return EMBEDDED[name]


def resolve(path: Path | str) -> Path:
    """The file behind `embedded:NAME`, or the path itself.

    Raises:
        UserError: no such name, or the package that carries it is not installed.
    """
    found = entry(path)
    if found is None:
        return Path(path)
    spec = importlib.util.find_spec(found.package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / found.path).is_file():
        raise UserError(f"{path} ships inside the package {found.package}, which is not installed; run: pip install 'scigpt[demo]'")
    return folder / found.path
