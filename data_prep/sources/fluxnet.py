"""FLUXNET: towers that measure what land and air exchange, as FLUXNET2015, as the product of the Shuttle, and as AmeriFlux BASE.

Half hours and hours are in the local standard time of a tower (no summer time) and become UTC; days and months keep their local date. The
units of carbon and rain, and the sense of the quality columns, change with the resolution of a file; see `fluxnet_columns`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.formats import fluxnet_csv
from scigpt.data_prep.formats.fluxnet_csv import Record, columns_of, records
from scigpt.data_prep.formats.fluxnet_sites import Site, is_sites, read_sites, sites_within
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.fluxnet_columns import Column, Quality, good, layout
from scigpt.data_prep.sources.fluxnet_routes import FluxnetFetch, remotes
from scigpt.data_prep.station_records import Clock, Readings, Station
from scigpt.data_prep.stations import StationOptions, StationSource
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

Resolution = Literal["HH", "HR", "DD", "MM"]


@dataclass(frozen=True)
class FluxnetOptions(StationOptions):
    """As every source of stations, and:

    Args:
        resolution: of the tables used: HH half hours, HR hours, DD days, MM months; needed where the input has several.
        quality: the least that is kept. Of half hours and hours: `measured` as such, `good` also what was filled well, `medium` what was
            filled fairly, `any` everything. Of days and months, where the files give the share of measured or well filled values in it:
            all of them, half, a quarter, or any.
        sites: list of sites (a snapshot of the Shuttle, the site list of AmeriFlux, a BIF file), where it is not among the inputs.
        latitude, longitude, height: of the tower, where no list has it and all inputs are of one site.
        utc_offset: hours by which local standard time is ahead of UTC, for all towers, in place of what lists or longitudes say.
        forcings: variables that are known in advance; all others are states.
    """

    resolution: Resolution | None = None
    quality: Quality = "good"
    sites: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    height: float | None = None
    utc_offset: float | None = None
    forcings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.latitude is None) != (self.longitude is None):
            raise UserError("latitude= and longitude= say together where the tower stands; give both")
        for name, low, high in (("latitude", -90, 90), ("longitude", -180, 360), ("utc_offset", -12, 14)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name}={value:g} must lie from {low} to {high}")
        known = {c.quantity for base in (False, True) for r in ("HH", "MM") for c in layout(r, base)}
        for name in self.forcings:
            if name not in QUANTITIES or QUANTITIES[name].name not in known:
                raise UserError(f"forcings={name} is no variable; {nearest(name, known) or 'they are ' + ', '.join(sorted(known))[:200]}")


class Fluxnet(StationSource):
    """Eddy covariance towers of the world."""

    name = "fluxnet"
    Options: ClassVar[type] = FluxnetOptions
    Fetch: ClassVar[type | None] = FluxnetFetch
    options: FluxnetOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._placed: dict[tuple[Path, str], Site] = {}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "fluxnet",
            "land: carbon, water and energy fluxes at towers",
            "CSV and zip (FLUXNET2015, FLUXNET Shuttle, AmeriFlux BASE)",
            "CC-BY-4.0",
            "FLUXNET (Pastorello et al. 2020, doi:10.1038/s41597-020-0534-3) and the teams of the sites",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if not path.is_file() or path.stat().st_size == 0:
                return False
            if names := fluxnet_csv.members(path, r"\.csv$"):
                return any(re.search(r"_(FLUXNET|FLUXNET2015|BASE)_", n) and fluxnet_csv.SITE.search(n) for n in names)
            with path.open("rb") as file:
                head = file.read(1 << 16)
            if b"\x00" in head:
                return False
            if b"fluxnet_product_name" in head.partition(b"\n")[0]:
                return is_sites(path)
            return any(layout(r.resolution, r.base, r.columns) for r in records(path))
        except (UserError, OSError):
            return False

    @classmethod
    def remotes(cls, options: FluxnetFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        return remotes(options, get)

    # stations

    @property
    def clock(self) -> Clock:
        return Clock(fluxnet_csv.STEPS[self._resolution])

    def open(self, path: Path) -> list[Station]:
        if path in self._lists:
            return []
        chosen = [r for r in self._tables[path] if r.resolution == self._resolution and self._columns(r)]
        return [self._station(r) for r in chosen]

    def plan(self) -> Plan:
        plan = super().plan()
        return replace(plan, notes=tuple(dict.fromkeys((*plan.notes, *self._notes()))))

    @property
    def _beside(self) -> list[Path]:
        return [*super()._beside, *self._given]

    @cached_property
    def _given(self) -> list[Path]:
        """The list that the options name."""
        if self.options.sites is None:
            return []
        found = Path(self.options.sites)
        if not found.is_file():
            what = "a folder" if found.is_dir() else "not there"
            raise UserError(f"sites={str(found)[-100:]} is {what}; expected a file, such as a snapshot of the Shuttle")
        return [locate(found)]

    @cached_property
    def _files(self) -> list[Path]:
        return [path for given in self.inputs for path in members(locate(given))]

    @cached_property
    def _lists(self) -> set[Path]:
        return {path for path in self._files if path.is_file() and is_sites(path)}

    @cached_property
    def _tables(self) -> dict[Path, list[Record]]:
        found = {path: records(path) for path in self._files if path not in self._lists}
        for path, own in found.items():
            if not own and len(found) == 1:
                raise UserError(f"{path.name} is no table of FLUXNET; expected a CSV that begins with TIMESTAMP or its zip")
        return found

    @cached_property
    def _resolution(self) -> str:
        o = self.options
        there = {r.resolution for own in self._tables.values() for r in own if self._columns(r)}
        steady = [name for name in fluxnet_csv.STEPS if name in there]
        if o.resolution is not None:
            if o.resolution not in steady:
                told = f"it has {', '.join(sorted(there))}" if there else "it has no table of FLUXNET"
                raise UserError(f"resolution={o.resolution}: the input has none; {told}")
            return o.resolution
        if len(steady) != 1:
            if steady:
                raise UserError(f"the input has tables of the resolutions {', '.join(steady)}; choose one with resolution=")
            if there:
                raise UserError("weeks and years of FLUXNET are not read, weeks begin anew each year; give the table of HH, HR, DD or MM")
            raise UserError(f"{self.inputs[0]} holds no table of FLUXNET; expected such as FLX_..._FULLSET_DD_....csv")
        return steady[0]

    @cached_property
    def _listed(self) -> dict[str, Site]:
        """All sites that lists among the inputs, or that of the options, know."""
        found: dict[str, Site] = {}
        for path in (*self._given, *sorted(self._lists)):
            for id_, site in read_sites(path).items():
                found[id_] = found.get(id_, Site()).or_else(site)
        return found

    @cached_property
    def _forcings(self) -> set[str]:
        """Those asked for, each of which some tower has at this resolution."""
        there = {c.quantity for own in self._tables.values() for r in own if r.resolution == self._resolution for c in self._columns(r)}
        for name in self.options.forcings:
            if QUANTITIES[name].name not in there:
                near = "rain is precipitation_flux there" if "precipitation_flux" in there and "precip" in name else None
                told = near or nearest(name, there) or f"they have {', '.join(sorted(there))[:200]}"
                raise UserError(f"forcings={name}: no table of {self._resolution} has it; {told}")
        return {QUANTITIES[name].name for name in self.options.forcings}

    def _columns(self, record: Record) -> list[Column]:
        return layout(record.resolution, record.base, record.columns, self.options.quality)

    def _site(self, record: Record) -> Site:
        if (record.path, record.site) not in self._placed:
            self._placed[record.path, record.site] = self._look_up(record)
        return self._placed[record.path, record.site]

    def _look_up(self, record: Record) -> Site:
        o = self.options
        site = self._listed.get(record.site, Site())
        if o.latitude is not None:
            others = {r.site for own in self._tables.values() for r in own} - {record.site}
            if others:
                more = ", ".join(sorted(others)[:3])
                raise UserError(f"latitude= and longitude= are of one tower, and the input has {record.site} and {more}; give sites=LIST")
            site = replace(site, latitude=o.latitude, longitude=o.longitude)
        site = replace(site, height=o.height if o.height is not None else site.height)
        if None in (site.latitude, site.longitude, site.height, site.utc_offset):
            site = site.or_else(sites_within(record.path).get(record.site, Site()))
        if site.latitude is None or site.longitude is None:
            raise UserError(
                f"{record.label}: no list says where {record.site} stands; give sites=LIST (a snapshot of the Shuttle), "
                "or latitude= and longitude="
            )
        return site

    def _station(self, record: Record) -> Station:
        site = self._site(record)
        assert site.latitude is not None
        assert site.longitude is not None
        shift = self._shift(site)
        told = {"name": site.name, "igbp": site.igbp, "network": site.network, "doi": site.doi, "product": Path(record.label).stem}
        columns = self._columns(record)
        return Station(
            record.site,
            site.latitude,
            _east(site.longitude),
            tuple(Variable(c.quantity, c.unit, "forcing" if c.quantity in self._forcings else "state") for c in columns),
            record.first - shift,
            record.last - shift,
            partial(_readings, record, columns, shift, self.options.quality),
            site.height,
            about={**{k: v for k, v in told.items() if v}, "country": record.site[:2]},
            attribution=site.citation or (f"{record.site}, {site.doi}" if site.doi else ""),
        )

    def _shift(self, site: Site) -> np.timedelta64:
        """By which local standard time is ahead of UTC; nothing for days and months, which keep their local date."""
        if fluxnet_csv.STEPS[self._resolution] in (86400, None):
            return np.timedelta64(0, "s")
        offset = self.options.utc_offset if self.options.utc_offset is not None else site.utc_offset
        assert site.longitude is not None
        hours = round(_east(site.longitude) / 15) if offset is None else offset
        return np.timedelta64(round(hours * 3600), "s")

    def _notes(self) -> Iterator[str]:
        chosen = [r for own in self._tables.values() for r in own if r.resolution == self._resolution and self._columns(r)]
        sub_daily = fluxnet_csv.STEPS[self._resolution] in (1800, 3600)
        guessed = sorted({r.site for r in chosen if sub_daily and self.options.utc_offset is None and self._site(r).utc_offset is None})
        if guessed:
            yield (
                f"no list gives the UTC offset of {', '.join(guessed[:8])}{' and others' if len(guessed) > 8 else ''}: it is taken from "
                "the longitude (15 degrees an hour), give utc_offset= where that is wrong"
            )
        other = sorted({r.resolution for own in self._tables.values() for r in own} - {self._resolution})
        if other:
            yield f"tables of the resolutions {', '.join(other)} are left out"
        unplaced = [p.name for p, own in self._tables.items() if not any(self._columns(r) for r in own)]
        if unplaced:
            yield f"{len(unplaced)} files have no column that is known, such as {unplaced[0]}; they are left out"
        if self.options.quality != "any":
            bare = {c for r in chosen for c in layout(r.resolution, r.base, r.columns)} - {c for r in chosen for c in self._columns(r)}
            if bare:
                yield f"filled columns without quality are left out: {', '.join(sorted(c.column for c in bare))}; quality=any keeps them"


def _east(longitude: float) -> float:
    return longitude - 360 if longitude > 180 else longitude


def _readings(record: Record, columns: Sequence[Column], shift: np.timedelta64, quality: Quality) -> Readings:
    wanted = list(dict.fromkeys(name for c in columns for name in (c.column, c.qc) if name))
    begins, table = columns_of(record, wanted)
    values = np.full((begins.size, len(columns)), np.nan, np.float32)
    for i, column in enumerate(columns):
        own = convert(table[column.column], column.file_unit, column.unit, f"{record.label}, {column.column}")
        if column.qc and quality != "any":
            own = np.where(good(table[column.qc], record, column.qc, quality), own, np.nan)
        values[:, i] = own
    return Readings(begins - shift, values)
