"""River discharge: GRDC-Caravan and every other part of Caravan (NetCDF, unpacked or in its zip), and the text files of the GRDC portal."""

from __future__ import annotations

import fnmatch
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Variable
from scigpt.data_prep.doubles import without_doubles
from scigpt.data_prep.files import kind, locate, members
from scigpt.data_prep.formats import caravan, grdc_text
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.grdc_routes import GrdcFetch, remotes
from scigpt.data_prep.station_records import Clock, Readings, Record, Station
from scigpt.data_prep.stations import StationOptions, StationSource
from scigpt.errors import UserError

DISCHARGE = Variable("river_discharge", "m**3 s**-1")
CARAVAN = "Caravan (Kratzert et al. 2023, doi:10.1038/s41597-023-01975-w)"
GRDC_CARAVAN = "GRDC-Caravan (Färber et al. 2025, doi:10.5194/essd-17-4613-2025)"
LICENCES: Mapping[str, str] = {"lamahice": "CC-BY-NC-4.0"}
"""Of parts of Caravan, by the first word of their ids, where it is another than that of the whole."""
PORTAL = "GRDC data policy (use for the registered purpose, no redistribution)"
_COMPANIONS = (".md", ".pdf", ".xlsx", ".shp", ".shx", ".dbf", ".prj", ".cpg", ".qmd")


@dataclass(frozen=True)
class GrdcOptions(StationOptions):
    """As every source of stations, and

    Args:
        places: attributes_other_*.csv of Caravan; looked for among the inputs and where it lies in the unpacked archive.
        duplicates: of gauges that are there twice (within 5 km, with the same values) `drop` leaves one out.
        column: of text files with two, `calculated` by the centre, or `original` as the provider gave them.
        min_days: per cent of a month's days that a calculated mean must rest on.
    """

    places: str | None = None
    duplicates: Literal["drop", "keep"] = "drop"
    column: Literal["calculated", "original"] = "calculated"
    min_days: float = 90.0


class Grdc(StationSource):
    """Gauges of rivers."""

    name = "grdc"
    Options: ClassVar[type] = GrdcOptions
    Fetch: ClassVar[type | None] = GrdcFetch
    options: GrdcOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._forms: dict[str, Path] = {}
        self._monthly: dict[bool, Path] = {}
        self._tables: dict[Path, dict[str, caravan.Basin]] = {}
        self._uncalculated: list[str] = []
        self._archives: dict[Path, caravan.Archive] = {}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "grdc",
            "stations: discharge of rivers, and the weather over their basins",
            "NetCDF (Caravan), zip of them, text",
            "CC-BY-4.0",
            "Global Runoff Data Centre, 56068 Koblenz, Germany (https://grdc.bafg.de)",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            return any(_form(p) in ("text", "netcdf", "zip") for p in (members(path)[:20] if path.is_dir() else [path]))
        except Exception:  # whatever a library makes of a file that is none of its own
            return False

    @classmethod
    def remotes(cls, options: GrdcFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        return remotes(options, get)

    @property
    def redistributable(self) -> bool:
        return bool(self._opened) and "text" not in self._forms

    # StationSource

    @property
    def clock(self) -> Clock:
        return Clock(None if self._opened and True in self._monthly else 86400)

    def open(self, path: Path) -> list[Station]:
        form = _form(path)
        if form == "other":
            if path.suffix.lower() in _COMPANIONS or re.fullmatch(r"attributes_\w+\.csv", path.name):
                return []
            raise UserError(
                f"{path.name} is neither a text file of GRDC (*_Q_Day.Cmd.txt, *_Q_Month.txt) nor NetCDF of Caravan (a file of a basin, or "
                "a zip of timeseries/netcdf; unpack a .tar.gz first)"
            )
        kept = self._forms.setdefault("text" if form == "text" else "caravan", path)
        if len(self._forms) > 1:
            other = next(p for p in self._forms.values() if p != kept)
            raise UserError(
                f"{path.name} and {other.name}: discharge of the portal (m3/s, not redistributable) and flow of Caravan (mm/d) are two "
                "corpora; prepare them apart"
            )
        return {"text": self._gauge, "netcdf": self._file, "zip": self._archive}[form](path)

    def plan(self) -> Plan:
        if self.options.places is not None and not Path(self.options.places).is_file():
            raise UserError(f"places={self.options.places} is no file; expected attributes_other_*.csv of Caravan, check the path")
        plan, notes = super().plan(), list[str]()
        if self.options.places is not None and "text" in self._forms:
            notes.append("places= is not used: text of the portal says itself where its gauges are")
        if self._uncalculated:
            some = ", ".join(self._uncalculated[:3])
            notes.append(f"{len(self._uncalculated)} stations have no calculated value ({some}); column=original takes their providers'")
        if "caravan" in self._forms:
            notes.append(
                "daily minima and maxima of the weather other than temperature, and climate indices, are left out: the registry has no "
                "quantity for them, and the indices are means over years to be predicted"
            )
        return replace(plan, notes=tuple(dict.fromkeys((*plan.notes, *notes))))

    def distinct(self, records: list[Record], notes: list[str]) -> list[Record]:
        chosen = _rivers(records)
        if self.options.duplicates == "keep":
            return chosen
        names = {v.name for r in chosen for _, s in r.parts for v in s.variables}
        flow = "runoff_flux" if "runoff_flux" in names else DISCHARGE.name
        return without_doubles(chosen, self.clock, flow, notes, scaled=flow == "runoff_flux")

    # its parts

    def _gauge(self, path: Path) -> list[Station]:
        gauge = self._text(path)
        kept = self._monthly.setdefault(gauge.monthly, path)
        if len(self._monthly) > 1:
            other = next(p for p in self._monthly.values() if p != kept)
            raise UserError(f"{path.name} and {other.name}: one has days, the other months; prepare them as two corpora")
        id_ = gauge.facts.get("grdc-no.") or path.name.partition("_")[0]
        good = np.flatnonzero(np.isfinite(gauge.values))
        if not good.size:
            self._uncalculated.append(id_)
            return []
        about = {
            name: gauge.facts[key]
            for name, key in (
                ("name", "station"), ("river", "river"), ("country", "country"), ("downstream", "next downstream station"),
                ("last_update", "last update"),
            )
            if gauge.facts.get(key, "-") not in ("", "-", "-999")
        }  # fmt: skip
        owner = gauge.facts.get("owner of original data", "")
        first, last = (gauge.begins[i].astype("datetime64[s]") for i in good[[0, -1]])
        static = {} if gauge.area is None else {caravan.AREA: gauge.area}
        read = partial(self._read_text, path)
        return [
            Station(
                id_, gauge.latitude, gauge.longitude, (DISCHARGE,), first, last, read, gauge.height, static=static, about=about,
                attribution=owner, licence=PORTAL,
            )
        ]  # fmt: skip

    def _text(self, path: Path) -> grdc_text.Gauge:
        return grdc_text.read_gauge(path, self.options.column, self.options.min_days)

    def _read_text(self, path: Path) -> Readings:
        gauge = self._text(path)
        good = np.isfinite(gauge.values)
        return Readings(gauge.begins[good].astype("datetime64[s]"), gauge.values[good, None].astype(np.float32))

    def _file(self, path: Path) -> list[Station]:
        id_ = path.name.removesuffix(".nc")
        basins = self._basins(path)
        if not self._wanted(id_, basins.get(id_)) and not self._many(path):
            return [_passed(id_, basins.get(id_))]
        with caravan.opened(path.name, path) as dataset:
            found = caravan.series_of(path.name, dataset)
        return [self._station(path.name, s, basins, partial(self._read, path.name, path, s)) for s in found]

    def _archive(self, path: Path) -> list[Station]:
        archive = self._zips(path)
        basins = self._given or caravan.basins_of({n.rpartition("/")[2]: archive.read(n) for n in archive.tables})
        found = []
        for id_, member in archive.series.items():
            if not self._wanted(id_, basins.get(id_)):
                found.append(_passed(id_, basins.get(id_)))
                continue
            name = f"{path.name}/{member.rpartition('/')[2]}"
            with one_sentence(path), caravan.opened(member, archive.read(member)) as dataset:
                (series,) = caravan.series_of(name, dataset)
            series = replace(series, id=id_)
            found.append(self._station(name, series, basins, partial(self._read_member, archive, member, name, series)))
        return found

    def _station(self, name: str, series: caravan.Series, basins: Mapping[str, caravan.Basin], read: Callable[[], Readings]) -> Station:
        basin = basins.get(series.id) or series.basin
        if basin is None:
            raise UserError(
                f"{name} does not say where {series.id} is; give attributes_other_*.csv of Caravan (in attributes/PART of its archive) as "
                "a further input, or by places=PATH"
            )
        part = series.id.partition("_")[0].lower()
        told = {"name": basin.name, "country": basin.country, "timezone": series.timezone}
        return Station(
            series.id,
            basin.latitude,
            basin.longitude,
            tuple(caravan.CHANNELS[c][0] for c in series.channels),
            series.first.astype("datetime64[s]"),
            series.last.astype("datetime64[s]"),
            read,
            basin.height,
            static={} if basin.area is None else {caravan.AREA: basin.area},
            about={k: v for k, v in told.items() if v},
            attribution=GRDC_CARAVAN if part == "grdc" else CARAVAN,
            licence=LICENCES.get(part, ""),
        )

    def _read(self, name: str, data: Path | bytes, series: caravan.Series) -> Readings:
        with caravan.opened(name, data) as dataset:
            days, values = caravan.read_series(name, dataset, series)
        return Readings(days.astype("datetime64[s]"), values)

    def _read_member(self, archive: caravan.Archive, member: str, name: str, series: caravan.Series) -> Readings:
        with one_sentence(archive.path):
            return self._read(name, archive.read(member), series)

    def _wanted(self, id_: str, basin: caravan.Basin | None) -> bool:
        o = self.options
        if o.stations is not None and not any(fnmatch.fnmatchcase(id_, pattern) for pattern in o.stations):
            return False
        if o.box is None or basin is None:
            return True
        south, north, west, east = o.box
        return south <= basin.latitude <= north and (basin.longitude - west) % 360 <= ((east - west) % 360 or 360)

    def _many(self, path: Path) -> bool:
        with caravan.opened(path.name, path) as dataset:
            return "basin_id" in dataset.variables

    def _basins(self, path: Path) -> Mapping[str, caravan.Basin]:
        if self._given:
            return self._given
        if path.parent not in self._tables:
            self._tables[path.parent] = _read_tables(caravan.beside(path))
        return self._tables[path.parent]

    @cached_property
    def _given(self) -> dict[str, caravan.Basin]:
        """Of the option, or of tables among the inputs."""
        if self.options.places is not None:
            return _read_tables([locate(self.options.places)])
        return _read_tables([locate(p) for p in self.inputs if caravan.is_attributes(Path(p).name)])

    def _zips(self, path: Path) -> caravan.Archive:
        if path not in self._archives:
            self._archives[path] = caravan.Archive(path)
        return self._archives[path]


def _form(path: Path) -> Literal["text", "netcdf", "zip", "other"]:
    if not path.is_file():
        return "other"
    if grdc_text.is_grdc(path):
        return "text"
    if zipfile.is_zipfile(path) and path.suffix.lower() == ".zip":
        return "zip" if caravan.Archive(path).series else "other"
    if kind(path) in ("netcdf3", "netcdf4"):
        with caravan.opened(path.name, path) as dataset:
            return "netcdf" if caravan.is_caravan(dataset) else "other"
    return "other"


def _read_tables(paths: Sequence[Path]) -> dict[str, caravan.Basin]:
    return caravan.basins_of({p.name: p.read_bytes() for p in paths})


def _passed(id_: str, basin: caravan.Basin | None) -> Station:
    """One that is not wanted: its id is all that is asked of it."""
    place, epoch = basin or caravan.Basin(0.0, 0.0), np.datetime64("2000-01-01", "s")
    none = Readings(np.empty(0, "datetime64[s]"), np.empty((0, 0), np.float32))
    return Station(id_, place.latitude, place.longitude, (), epoch, epoch, lambda: none)


def _rivers(records: Sequence[Record]) -> list[Record]:
    """Gauges of which one drains into the other, near or far, are one whole: water of a split that trains must not reach one that tests."""
    leader: dict[str, str] = {}

    def root(id_: str) -> str:
        while leader.get(id_, id_) != id_:
            id_ = leader[id_]
        return id_

    for record in records:
        below = record.station.about.get("downstream")
        if below is not None and root(below) != root(record.station.id):
            leader[root(record.station.id)] = root(below)
    return [
        Record(tuple((path, replace(s, whole=root(s.id))) for path, s in r.parts)) if r.station.about.get("downstream") else r
        for r in records
    ]
