"""ESS-DIVE: packages of tables about ecosystems and water, read as their data dictionaries and file-level metadata say.

Units, header rows, codes of missing values, the offset from UTC and places come from the package; a table without units is refused. Columns
whose names are sure (the names of the registry, and those of the reporting formats) become quantities of the registry, others keep their
names and units. Other files (NetCDF, HDF5, images, reports) and tables without a time are named in a note and left out.
"""

from __future__ import annotations

import fnmatch
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data_prep.files import locate, members
from scigpt.data_prep.formats.data_package import NOTHING, Package, Place, gather
from scigpt.data_prep.formats.package_files import Entry, entries_of
from scigpt.data_prep.formats.package_record import Record, Wishes, read_record
from scigpt.data_prep.formats.package_table import Head, read_head, site_column, unit_of
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.ess_dive_columns import variables_of
from scigpt.data_prep.sources.ess_dive_routes import EssDiveFetch, attribution_of, licence_of, package_remotes, stated_bytes
from scigpt.data_prep.station_records import DAY, Clock, Readings, Station
from scigpt.data_prep.stations import StationOptions, StationSource
from scigpt.data_prep.tracks import convert_channel
from scigpt.errors import UserError

KEPT = 256 << 20
"""Bytes of tables that are kept in memory."""
_PAPERS = (".pdf", ".md", ".txt", ".docx", ".xml", ".xlsx", ".json", ".html", ".jpg", ".png")


@dataclass(frozen=True)
class EssDiveOptions(StationOptions):
    """Options of ESS-DIVE.

    Args:
        files: names, or patterns of them, of the tables used; all by default.
        skip: names, or patterns of them, of columns that are left out.
        units: of columns that have none (`pH:1`), or in place of what the package says.
        site: the column that tells stations apart; by default Site_ID and its like.
        time: the columns of the time, joined by a blank; by default DateTime and its like.
        utc_offset: of the clock, `-08:00`, where the package does not say it, or in its place.
        stamp: whether a value is of the `instant`, or of the step that it stands at the `begin` or the `end` of.
        step: seconds; by default the median step of each table.
        tolerance: seconds by which an instant may lie beside the steps; it is moved onto them.
        missing: codes of missing values beside -9999, N/A and those of the package.
        flags: codes of a flag column (DataFlag) whose values are left out; by default flagged values stay.
        latitude, longitude: of all stations that have no place, in degrees.
        encoding: of the text.
    """

    files: tuple[str, ...] | None = None
    skip: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    site: str | None = None
    time: tuple[str, ...] = ()
    utc_offset: str | None = None
    stamp: Literal["instant", "begin", "end"] | None = None
    step: int | None = None
    tolerance: int = 0
    missing: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    latitude: float | None = None
    longitude: float | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := next((u for u in self.units if not re.fullmatch(r"[^:]+:.+", u)), None):
            raise UserError(f"units={wrong} is not of the form column:unit, such as pH:1")
        if self.step is not None and self.step < 1:
            raise UserError(f"step={self.step} must be 1 second or more")


class EssDive(StationSource):
    """Packages of the Environmental System Science Data Infrastructure for a Virtual Ecosystem."""

    name = "ess-dive"
    Options: ClassVar[type] = EssDiveOptions
    Fetch: ClassVar[type | None] = EssDiveFetch
    options: EssDiveOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._tables: OrderedDict[Entry, Record] = OrderedDict()
        self._clocks: dict[str, tuple[int | None, bool]] = {}
        self._left: list[str] = []

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "ess-dive",
            "ecosystems and hydrology: sensor records",
            "packages of CSV with file-level metadata and data dictionaries; zips of them",
            "by package: CC-BY-4.0 or CC0-1.0",
            "ESS-DIVE (https://ess-dive.lbl.gov) and the authors of each package, by its DOI",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if path.is_dir():
                names = [p.name.lower() for p in path.iterdir()]
            elif path.suffix.lower() == ".zip":
                names = [e.name.lower() for e in entries_of(path)]
            else:
                with path.open("rb") as file:
                    head = file.read(2000).lower()
                return path.suffix.lower() == ".csv" and (
                    b"# headerrows_" in head or b"file_name,file_description" in head or b"installationmethod_description" in head
                )
            return any(re.fullmatch(r"(.*_)?(flmd|installationmethods)\.csv|.*_dd\.csv|dd\.csv|package\.jsonld", n) for n in names)
        except (OSError, UserError):
            return False

    @classmethod
    def remotes(cls, options: EssDiveFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        yield from package_remotes(options, get)

    def plan(self) -> Plan:
        made = super().plan()
        return replace(made, notes=(*made.notes, *dict.fromkeys(self._left)))

    # StationSource

    @property
    def clock(self) -> Clock:
        assert self._opened
        found = dict.fromkeys(self._clocks.values())
        if len(found) > 1:
            (one, a), (other, b) = list({v: k for k, v in self._clocks.items()}.items())[:2]
            told = [f"{'months' if s is None else f'{s} s'}{' (intervals)' if i else ''} in {n}" for (s, i), n in ((one, a), (other, b))]
            raise UserError(f"the tables have different clocks: {' and '.join(told)}; choose with files=, or state step= and stamp=")
        step, interval = next(iter(found), (DAY, True))
        return Clock(step, interval)

    def open(self, path: Path) -> list[Station]:
        package = self._packages[path]
        found: list[Station] = []
        for entry in entries_of(path):
            if entry in package.other and not entry.name.lower().endswith(_PAPERS):
                self._left.append(f"{entry.label} is left out: it is no CSV; `scigpt data inspect` says what reads it")
            if entry not in package.data or ((o := self.options.files) and not any(fnmatch.fnmatch(entry.name, p) for p in o)):
                continue
            table = self._table(entry, package)
            if table is not None:
                self._clocks[entry.label] = (table.step, table.interval)
                found += self._stations(table, package)
        return found

    # its parts

    @cached_property
    def _packages(self) -> dict[Path, Package]:
        """Of each file. A folder is a package, so is each folder in it with a `package.jsonld`; files given one by one are one together."""
        groups: dict[Path | None, list[Path]] = {}
        for given in self.inputs:
            root = locate(given)
            for path in members(root):
                above = [p for p in path.parents if p == root or root in p.parents]
                home = next((p for p in above if (p / "package.jsonld").is_file()), root if root.is_dir() else None)
                groups.setdefault(home, []).append(path)
        found = {}
        for paths in groups.values():
            package = gather([e for p in paths for e in entries_of(p)], self.options.encoding)
            for path in paths:
                found[path] = package
                said = stated_bytes(package.described, path.name)
                if said is not None and said != path.stat().st_size:
                    raise UserError(
                        f"{path.name} has {path.stat().st_size} bytes, and package.jsonld says {said}; it is truncated or changed, fetch "
                        "it again (or leave package.jsonld out)"
                    )
        return found

    @property
    def _given(self) -> dict[str, str]:
        return {c.strip().lower(): u.strip() for c, _, u in (word.partition(":") for word in self.options.units)}

    def _table(self, entry: Entry, package: Package) -> Record | None:
        """None, with a note, for a table that is no record over time."""
        if entry in self._tables:
            self._tables.move_to_end(entry)
            return self._tables[entry]
        o, note, dictionary = self.options, package.note(entry.name), package.columns(entry)
        head = read_head(entry, note, dictionary, o.encoding, o.time, o.utc_offset, o.stamp)
        if head.clock is None:
            self._left.append(f"{entry.label} is left out: it has no column of time such as DateTime (time= names another one)")
            return None
        units = {i: unit_of(entry, n, head, dictionary, self._given) for i, n in enumerate(head.names) if n and i not in head.clock.columns}
        asked = {i for i, n in enumerate(head.names) if any(fnmatch.fnmatch(n.lower(), s.lower()) for s in o.skip)}
        site = site_column(head.names, o.site)
        measured = tuple(i for i, u in units.items() if u is not None and i not in asked and i != site)
        if not (head.told or dictionary or self._given):
            raise UserError(
                f"{entry.label} has no units: neither a data dictionary (*_dd.csv) of its columns nor a block of headers is there; give "
                "the folder with it as --input, or units=column:unit"
            )
        unapplied = [n for i, n in enumerate(head.names) if i in units and units[i] is None and self._says_none(n, head, package, entry)]
        if unapplied:
            self._left.append(f"{entry.label}: columns without a unit (N/A) are left out: {', '.join(unapplied)[:200]}")
        table = read_record(
            entry, head, note, dictionary, measured, [i for i in measured if not units[i]], site, self._wishes(entry, package)
        )
        if table is None:
            self._left.append(f"{entry.label} is left out: it has no two instants of one site, or no column that is measured")
            return None
        self._tables[entry] = table
        while sum(t.values.nbytes for t in self._tables.values()) > KEPT and len(self._tables) > 1:
            self._tables.popitem(last=False)
        return table

    def _wishes(self, entry: Entry, package: Package) -> Wishes:
        o = self.options
        sized = stated_bytes(package.described, entry.path.name) is not None
        return Wishes(o.step, o.stamp, o.tolerance, o.missing, o.flags, o.encoding, not sized)

    def _says_none(self, name: str, head: Head, package: Package, entry: Entry) -> bool:
        column = package.columns(entry).get(name.lower())
        return (
            column is not None
            and column.unit.lower() in NOTHING
            and column.type.lower() in ("numeric", "number", "integer", "float", "double")
        )

    def _stations(self, table: Record, package: Package) -> list[Station]:
        """One for each site; without a column of sites one for each place that columns were measured at."""
        made = []
        head, dictionary = table.head, package.columns(table.entry)
        for number, site in enumerate(table.sites):
            rows = np.flatnonzero(table.site == number)
            homes: dict[str, list[tuple[int, Place | None]]] = {}
            for c, i in enumerate(table.columns):
                told = head.told.get(head.names[i].lower())
                place = package.installations.get(site) or (package.installations.get(told.installation) if told else None)
                own = place is not None and place.latitude is not None
                at = site or (place.site or place.id if place is not None and own else place.site if place is not None else "")
                homes.setdefault(at, []).append((c, place))
            for at, columns in homes.items():
                made.append(self._station(table, package, dictionary, at, number, rows, columns))
        return made

    def _station(
        self, table: Record, package: Package, dictionary: Mapping[str, Any], at: str, number: int, rows: np.ndarray,
        columns: Sequence[tuple[int, Place | None]],
    ) -> Station:  # fmt: skip
        o, entry, head, note = self.options, table.entry, table.head, package.note(table.entry.name)
        id_ = at or entry.name.rpartition(".")[0]
        known = [
            p
            for p in (*(p for _, p in columns), package.sites.get(at), *(q for q in package.installations.values() if at and q.site == at))
            if p
        ]
        placed = next((p for p in known if p.latitude is not None and p.longitude is not None), None)
        spots = (
            tuple(table.places[number]),
            (placed.latitude, placed.longitude) if placed else (None, None),
            (note.latitude, note.longitude),
            (o.latitude, o.longitude),
        )
        spot = next(((a, b) for a, b in spots if a is not None and b is not None and np.isfinite([a, b]).all()), None)
        if spot is None:
            raise UserError(
                f"{entry.label}: where {id_} lies is not said; expected Latitude and Longitude in the table, in the installation methods "
                "or in a list of sites (Site_ID, Latitude, Longitude), give that list as --input too, or latitude= and longitude="
            )
        variables, factors = variables_of(entry, head, dictionary, [(table.columns[c], p) for c, p in columns], self._given)
        about = {k: v for p in known for k, v in p.about.items()}
        told = {
            head.names[table.columns[c]]: t.instrument for c, _ in columns if (t := head.told.get(head.names[table.columns[c]].lower()))
        }
        about |= {"package": package.described.get("@id", "")} if package.described else {}
        about |= {"instruments": "; ".join(f"{k}: {v}" for k, v in told.items() if v.lower() not in NOTHING)} if any(told.values()) else {}
        begins = table.begins[rows]

        def read() -> Readings:
            again = self._table(entry, package)
            assert again is not None
            values = [
                convert_channel(again.values[rows, c], u, v.name, v.unit, entry.label)
                for (c, _), v, u in zip(columns, variables, factors, strict=True)
            ]
            return Readings(begins, np.stack(values, 1).astype(np.float32))

        return Station(
            id_, float(spot[0]), float(spot[1]), variables, begins[0], begins[-1], read, placed.height if placed else None, about=about,
            attribution=attribution_of(package.described), licence=licence_of(package.described),
        )  # fmt: skip
