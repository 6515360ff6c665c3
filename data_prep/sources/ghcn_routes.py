"""Where GHCN-daily is fetched from: the public bucket of NOAA, or the archive of NCEI; by year or by station."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from scigpt.data_prep.formats.ghcn_daily import places_of
from scigpt.data_prep.formats.ghcn_days import Place
from scigpt.data_prep.source import Remote
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

LIST = "ghcnd-stations.txt"
AWS = "https://noaa-ghcn-pds.s3.amazonaws.com"
NCEI = "https://www.ncei.noaa.gov/pub/data/ghcn/daily"


@dataclass(frozen=True)
class GhcnFetch:
    """What to fetch.

    Args:
        by: `year`, all stations of a year in one CSV (up to 1.3 GB), or `station`, all years of a station.
        years: of `by=year`, `2023` or `2015-2020`.
        stations: of `by=station`, ids or patterns of them (`GME*`).
        box: of `by=station`, those in it: south, north, west, east in degrees.
        route: `aws` (the bucket noaa-ghcn-pds) or `ncei`.
        server: another place with the same folders, such as a mirror.
    """

    by: Literal["year", "station"] = "station"
    years: str = "2023"
    stations: tuple[str, ...] = ()
    box: tuple[float, ...] | None = None
    route: Literal["aws", "ncei"] = "aws"
    server: str = ""


def remotes(options: GhcnFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """The list of stations, then the files of years or of stations."""
    aws = options.route == "aws"
    server = (options.server or (AWS if aws else NCEI)).rstrip("/")
    yield Remote(f"{server}/{LIST}", LIST)
    if options.by == "year":
        match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", options.years.strip())
        years = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
        if not years or years.start < 1750:
            raise UserError(f"years={options.years} is not of the form 2019 or 2015-2019, from 1750 on")
        for year in years:
            name = f"{year}.csv" if aws else f"{year}.csv.gz"
            yield Remote(f"{server}/{'csv/' if aws else ''}by_year/{name}", f"by_year/{name}")
        return
    if not options.stations and options.box is None:
        raise UserError(
            "by=station needs stations= (ids or patterns, such as USW00094728,GME*) or box=south,north,west,east; by=year fetches all"
        )
    for id_ in _chosen(options, partial(get, f"{server}/{LIST}")):
        path = f"csv/by_station/{id_}.csv" if aws else f"all/{id_}.dly"
        yield Remote(f"{server}/{path}", f"by_station/{path.rpartition('/')[2]}")


def inside(place: Place, box: Sequence[float]) -> bool:
    south, north, west, east = box
    return south <= place.latitude <= north and (place.longitude - west) % 360 <= ((east - west) % 360 or 360)


def _chosen(options: GhcnFetch, listed: Callable[[], bytes]) -> Iterator[str]:
    """Ids of the stations to fetch; the list is asked only where a pattern or a box needs it."""
    if options.box is None and not any(set(s) & set("*?[") for s in options.stations):
        yield from dict.fromkeys(options.stations)
        return
    if options.box is not None and len(options.box) != 4:
        raise UserError("box= must be south,north,west,east in degrees, such as 45,55,5,15")
    places = places_of(LIST, listed())
    for pattern in options.stations:
        if not fnmatch.filter(places, pattern):
            raise UserError(f"stations={pattern} matches none of the {len(places)} stations; {nearest(pattern, places) or 'check the ids'}")
    patterns = options.stations or ("*",)
    named = list(dict.fromkeys(i for p in patterns for i in fnmatch.filter(places, p)))
    found = [i for i in named if options.box is None or inside(places[i], options.box)]
    if not found:
        raise UserError(f"box={','.join(f'{b:g}' for b in options.box or ())} holds none of the stations asked for")
    yield from found
