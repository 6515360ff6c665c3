"""GHCN-daily: weather of 120,000 stations a day, as .dly, by-year and by-station CSV, with the archive's flags and multi-day totals."""

from __future__ import annotations

import fnmatch
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.formats.ghcn_daily import form_of, read_daily, read_places
from scigpt.data_prep.formats.ghcn_days import FLAGGED, Days, Place, new_year
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.ghcn_routes import LIST, GhcnFetch, inside, remotes
from scigpt.data_prep.station_records import Clock, Readings, Station
from scigpt.data_prep.stations import Network, StationOptions, StationSource
from scigpt.errors import UserError

ELEMENTS: Mapping[str, tuple[str, float, float]] = {
    "TMAX": ("air_temperature_maximum", 0.1, 273.15),
    "TMIN": ("air_temperature_minimum", 0.1, 273.15),
    "TAVG": ("air_temperature", 0.1, 273.15),
    "PRCP": ("precipitation_amount", 0.1, 0.0),
    "SNOW": ("snowfall_thickness", 1e-3, 0.0),
    "SNWD": ("surface_snow_thickness", 1e-3, 0.0),
    "WESD": ("surface_snow_amount", 0.1, 0.0),
    "AWND": ("wind_speed", 0.1, 0.0),
    "WSFG": ("wind_speed_of_gust", 0.1, 0.0),
    "WSF5": ("wind_speed_of_gust", 0.1, 0.0),
    "ADPT": ("dew_point_temperature", 0.1, 273.15),
    "ASLP": ("air_pressure_at_mean_sea_level", 10.0, 0.0),
    "ASTP": ("surface_air_pressure", 10.0, 0.0),
    "RHAV": ("relative_humidity", 1.0, 0.0),
}
"""Quantity of the registry, and factor and offset from the unit of the archive to its unit. Of two for one quantity the first is used."""
TOTALS: Mapping[str, tuple[str, str]] = {"PRCP": ("MDPR", "DAPR"), "SNOW": ("MDSF", "DASF")}
"""What is measured of a day, the total of several days that end with it, and of how many."""
NETWORKS: Mapping[str, str] = {
    "0": "unspecified", "1": "CoCoRaHS", "C": "United States Cooperative Network", "E": "ECA&D", "M": "WMO",
    "N": "national meteorological or hydrological centre", "P": "before the Cooperative Network", "R": "RAWS", "S": "SNOTEL", "W": "WBAN",
}  # fmt: skip
_BESIDE = re.compile(r"ghcnd-\w+\.txt|readme[\w.-]*\.txt|status[\w.-]*\.txt", re.IGNORECASE)
_DAY = np.timedelta64(1, "D")
_KEPT = 64
Totals = list[tuple[int, int | None, int | None]]
"""Of several days: the last of them (since 1970), how many they are and the amount, None where not known or not good."""


@dataclass(frozen=True)
class GhcnOptions(StationOptions):
    """As every source of stations (`variables` may name elements, such as TMAX), and

    Args:
        places: the list ghcnd-stations.txt; looked for among the inputs and beside them where it is not given.
        multiday: days that a total of several days covers: `invalid`, or `spread`, which gives each of them its share.
        presumed_zero: whether a value that the archive marks as `missing presumed zero` is `invalid` or `zero`.
    """

    places: str | None = None
    multiday: Literal["invalid", "spread"] = "invalid"
    presumed_zero: Literal["invalid", "zero"] = "invalid"


class Ghcn(StationSource):
    """Daily weather stations of the world."""

    name = "ghcn"
    Options: ClassVar[type] = GhcnOptions
    Fetch: ClassVar[type | None] = GhcnFetch
    options: GhcnOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if self.options.variables is not None:
            named = tuple(ELEMENTS[v.upper()][0] if v.upper() in ELEMENTS else v for v in self.options.variables)
            self.options = replace(self.options, variables=named)
        self._days: dict[Path, Days] = {}
        self._covered: OrderedDict[tuple[str, str], Totals] = OrderedDict()
        self._lost: dict[str, None] = {}
        self._passed: set[str] = set()

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "ghcn",
            "stations: daily weather of the world",
            "fixed-width text (.dly), CSV",
            "CC0-1.0",
            "GHCN-Daily (Menne et al. 2012, NOAA NCEI, doi:10.7289/V5D21VHZ)",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            return any(form_of(p) in ("dly", "csv", "places") for p in (members(path)[:20] if path.is_dir() else [path]))
        except (UserError, OSError):
            return False

    @classmethod
    def remotes(cls, options: GhcnFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        return remotes(options, get)

    # StationSource

    @property
    def clock(self) -> Clock:
        return Clock()

    def open(self, path: Path) -> list[Station]:
        form = form_of(path)
        if form == "places" or (form == "other" and _BESIDE.fullmatch(path.name)):
            return []
        if form == "other":
            raise UserError(
                f"{path.name} is no file of GHCN-daily; expected records of 269 characters (.dly), or a CSV with the columns ID, DATE, "
                "ELEMENT, VALUE, M, Q, S, OBS-TIME, as in by_year and by_station"
            )
        own = path.resolve()
        if own not in self._days:
            self._days[own] = read_daily(path, self._elements, self._wanted, self.options.presumed_zero == "zero")
        days = self._days[own]
        found = [self._station(path, days, i) for i in range(len(days.stations))]
        epoch = np.datetime64("2000-01-01", "s")
        # of the rest only the id (and where it is) is asked, to say which of them were left out
        rest = {i: days.places.get(i) or self._places.get(i) or Place(0.0, 0.0, None) for i in days.others if i not in self._passed}
        self._passed.update(rest)
        return [s for s in found if s is not None] + [
            Station(
                i, p.latitude, p.longitude, (), epoch, epoch, lambda: Readings(np.empty(0, "datetime64[s]"), np.empty((0, 0), np.float32))
            )
            for i, p in rest.items()
        ]

    def plan(self) -> Plan:
        plan, notes = super().plan(), list[str]()
        unknown = sorted(
            set().union(*(d.unknown for d in self._days.values())) - set(ELEMENTS) - {e for pair in TOTALS.values() for e in pair}
        )
        if unknown:
            notes.append(f"elements left out, because the registry has no quantity for them: {', '.join(unknown)}")
        if self._lost:
            some = ", ".join(list(self._lost)[:3])
            notes.append(f"{len(self._lost)} stations are left out: the list of places does not have them ({some})")
        flagged = sum(d.flagged for d in self._days.values())
        if flagged:
            notes.append(f"{flagged} values that failed a check of the archive (QFLAG), or were presumed, are invalid")
        return replace(plan, notes=tuple(dict.fromkeys((*plan.notes, *notes))))

    def _network(self, notes: list[str]) -> Network:
        used = any(s.variables for _, found in self._opened for s in found)
        if not used and self.options.variables is not None and any(d.stations for d in self._days.values()):
            met = sorted(set().union(*(d.unknown for d in self._days.values())) & set(ELEMENTS))
            asked = ",".join(self.options.variables)
            raise UserError(
                f"variables={asked}: no station of the input has it; it has the elements {', '.join(met) or 'of nothing known'}"
            )
        return super()._network(notes)

    @property
    def _beside(self) -> list[Path]:
        return list(dict.fromkeys([*super()._beside, *([self._list] if self._list else [])]))

    # its parts

    @cached_property
    def _elements(self) -> list[str]:
        """Those read, in the order of their numbers."""
        asked = self.options.variables
        names = None if asked is None else {q.name for v in asked if (q := QUANTITIES.find(v)) is not None}
        used = [e for e, (name, _, _) in ELEMENTS.items() if names is None or name in names] or list(ELEMENTS)
        return used + [e for day, pair in TOTALS.items() if day in used for e in pair]

    @cached_property
    def _list(self) -> Path | None:
        """The list of places: given, among the inputs, or beside them."""
        if self.options.places is not None:
            found = Path(self.options.places)
            if not found.is_file():
                what = "a folder" if found.is_dir() else "not there"
                raise UserError(f"places={str(found)[-100:]} is {what}; expected the file {LIST}")
            return locate(found)
        for given in map(Path, self.inputs):
            for folder in (given, given.parent, given.parent.parent):
                if folder.is_dir() and (folder / LIST).is_file():
                    return folder / LIST
        return next((p for p in map(Path, self.inputs) if form_of(p) == "places"), None)

    @cached_property
    def _places(self) -> dict[str, Place]:
        if self._list is None:
            return {}
        with one_sentence(self._list):
            return read_places(self._list)

    def _wanted(self, id_: str, own: Place | None) -> bool:
        o = self.options
        if o.stations is not None and not any(fnmatch.fnmatchcase(id_, pattern) for pattern in o.stations):
            return False
        place = own or self._places.get(id_)
        return o.box is None or place is None or inside(place, o.box)

    def _station(self, path: Path, days: Days, number: int) -> Station | None:
        id_ = days.stations[number]
        place = days.places.get(id_) or self._places.get(id_)
        if place is None and self._list is None:
            raise UserError(
                f"{path.name} does not say where {id_} is; fetch {LIST} from https://www.ncei.noaa.gov/pub/data/ghcn/daily and give it as "
                "a further input, or by places=PATH"
            )
        if place is None:
            self._lost[id_] = None
            return None
        rows = days.rows(number)
        ranges = zip(days.keys[rows, 2].tolist(), days.first[rows].tolist(), days.last[rows].tolist(), strict=True)
        spans = [(self._elements[e], first, last) for e, first, last in ranges if first <= last]
        chosen = dict[str, str]()
        for element in self._elements:
            if element in ELEMENTS and any(e == element for e, _, _ in spans):
                chosen.setdefault(ELEMENTS[element][0], element)
        if not chosen:
            return None
        spread = self.options.multiday == "spread"
        totals = [t for element in chosen.values() if spread for t in self._totals([days], id_, element)]
        used = [s for s in spans if s[0] in chosen.values()]
        first = min([*(f for _, f, _ in used), *(end - (count or 1) + 1 for end, count, _ in totals)])
        last = max([*(f for _, _, f in used), *(end for end, _, _ in totals)])
        variables = tuple(Variable(QUANTITIES[n].name, QUANTITIES[n].unit) for n in chosen)
        about = {"name": place.name, "country": id_[:2], "network": NETWORKS.get(id_[2], id_[2])}
        if place.state:
            about["state"] = place.state
        hours = days.observed[rows][days.observed[rows] >= 0]
        if hours.size:
            about["observation_time"] = f"{np.bincount(hours).argmax():04d}"
        read = partial(self._read, days, number, tuple(chosen.values()), first, last)
        begin, end = (np.datetime64(d, "D").astype("datetime64[s]") for d in (first, last))
        return Station(id_, place.latitude, place.longitude, variables, begin, end, read, place.height, about=about)

    def _read(self, days: Days, number: int, elements: tuple[str, ...], first: int, last: int) -> Readings:
        columns = []
        for element in elements:
            raw = _series(days, number, self._elements.index(element), first, last)
            _, factor, offset = ELEMENTS[element]
            column = np.where(raw > FLAGGED, raw * factor + offset, np.nan)
            for end, count, amount in self._all_totals(days.stations[number], element):
                covered = slice(max(end - (count or 1) + 1 - first, 0), max(end + 1 - first, 0))
                spread = self.options.multiday == "spread" and count is not None and amount is not None
                column[covered] = amount * factor / count if spread else np.nan  # type: ignore[operator]
            columns.append(column)
        values = np.stack(columns, 1).astype(np.float32)
        there = np.isfinite(values).any(1)
        begins = (np.datetime64(first, "D") + np.arange(last - first + 1) * _DAY).astype("datetime64[s]")
        return Readings(begins[there], values[there])

    @cached_property
    def _with_totals(self) -> dict[str, list[Days]]:
        """The files that have totals of several days, by station."""
        kinds = [self._elements.index(e) for day, (e, _) in TOTALS.items() if day in self._elements]
        found: dict[str, list[Days]] = {}
        for days in self._days.values():
            for number in np.unique(days.keys[np.isin(days.keys[:, 2], kinds), 0]).tolist():
                found.setdefault(days.stations[number], []).append(days)
        return found

    def _all_totals(self, id_: str, element: str) -> Totals:
        """Of all files: put together once, though each file of the station asks for them."""
        if (id_, element) not in self._covered:
            self._covered[id_, element] = self._totals(self._with_totals.get(id_, ()), id_, element)
            while len(self._covered) > _KEPT:
                self._covered.popitem(last=False)
        return self._covered[id_, element]

    def _totals(self, tables: Iterable[Days], id_: str, element: str) -> Totals:
        found: Totals = []
        if element not in TOTALS:
            return found
        total, count = (self._elements.index(e) for e in TOTALS[element])
        for days in tables:
            rows = days.rows(days.numbers[id_])
            keys, values = days.keys[rows], days.values[rows]
            counts = {int(k[1]): v for k, v in zip(keys, values, strict=True) if k[2] == count}
            for (_, year, number), amounts in zip(keys.tolist(), values, strict=True):
                for doy in np.flatnonzero(amounts >= FLAGGED).tolist() if number == total else ():
                    over = int(counts[year][doy]) if year in counts and counts[year][doy] > 0 else None
                    found.append((int(new_year(np.array(year))) + doy, over, int(amounts[doy]) if amounts[doy] > FLAGGED else None))
        return found


def _series(days: Days, number: int, element: int, first: int, last: int) -> np.ndarray:
    """Values of an element from one day (since 1970) to another, int16."""
    found = np.full(last - first + 1, FLAGGED, np.int16)
    rows = days.rows(number)
    for (_, year, kind), values in zip(days.keys[rows].tolist(), days.values[rows], strict=True):
        if kind == element:
            start, after = new_year(np.array([year, year + 1])).tolist()
            low, high = max(start, first), min(after, last + 1)
            if low < high:
                found[low - first : high - first] = values[low - start : high - start]
    return found
