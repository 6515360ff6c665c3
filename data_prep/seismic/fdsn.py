"""What data centres of the FDSN offer, by their web services for events, stations and waveforms (www.fdsn.org/webservices).

Catalogues are asked first; then every pair of an event and a station that was running becomes one request for waveforms around the P wave.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from scigpt.data_prep.fetch.errors import Absent, TooLarge
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic.events import Event, distance_to, first_arrival, parse_quakeml, read_shots
from scigpt.data_prep.seismic.waveforms import obspy
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

SHORTEST = 60 * 10**9
"""Nanoseconds below which a request that is too large is not cut in two any more."""

Get = Callable[[str], bytes]


@dataclass(frozen=True)
class EarthScopeFetch:
    """What to fetch from a data centre of the FDSN.

    Args:
        network, station, location, channel: codes as the services take them, `IU,II`, `AN*`, `*`, `BH?`; `--` is the blank location.
        start, end: dates or instants of the earthquakes, `2024-01-01`.
        min_magnitude, max_magnitude: of the earthquakes.
        depth: least and most, km.
        box: south, north, west, east, in degrees, of the earthquakes.
        circle: latitude, longitude, radius in degrees, of the earthquakes.
        limit: most earthquakes: the latest.
        distance: least and most from earthquake to station, degrees.
        anchor, before, after: seconds of data before and after the P wave by iasp91 (`p`), or after the time of the earthquake (`origin`);
            longer than the windows of the corpus, so that filters have room.
        arrivals: ask the catalogue for picks too.
        provider: address of the data centre; `event_provider` that of the catalogue where it is another.
    """

    network: str = ""
    station: str = "*"
    location: str = "*"
    channel: str = "BH?"
    start: str = ""
    end: str = ""
    min_magnitude: float | None = 5.5
    max_magnitude: float | None = None
    depth: tuple[float, ...] = ()
    box: tuple[float, ...] = ()
    circle: tuple[float, ...] = ()
    limit: int | None = 20
    distance: tuple[float, ...] = (0.0, 90.0)
    anchor: Literal["p", "origin"] = "p"
    before: float = 120.0
    after: float = 300.0
    arrivals: bool = True
    provider: str = "https://service.earthscope.org"
    event_provider: str | None = None


@dataclass(frozen=True)
class ExperimentFetch:
    """What to fetch of a temporary network from a data centre of the FDSN.

    Args:
        network, station, location, channel: codes as the services take them.
        start, end: instants of the records; each station's are cut into files of `hours` hours. Not needed where there are shots.
        shots: table of shots (id, time, latitude, longitude); then only `before` and `after` seconds around each.
        provider: address of the data centre.
    """

    network: str = ""
    station: str = "*"
    location: str = "*"
    channel: str = "DP?,GP?,HH?,EH?"
    start: str = ""
    end: str = ""
    hours: float = 24.0
    shots: str | None = None
    before: float = 10.0
    after: float = 60.0
    provider: str = "https://service.earthscope.org"


def remotes(options: EarthScopeFetch, get: Get) -> Iterator[Remote]:
    """Catalogues and, for every event and every station that was running then, its waveforms."""
    _require(options.network, "network", "the codes of networks, such as IU,II")
    start, end = _instant(options.start, "start"), _instant(options.end, "end")
    _require_order(start, end)
    for name, value, count in (("depth", options.depth, 2), ("box", options.box, 4), ("circle", options.circle, 3)):
        if value and len(value) != count:
            raise UserError(f"{name}={','.join(f'{v:g}' for v in value)} has {len(value)} numbers; expected {count}")
    if len(options.distance) != 2:
        raise UserError("distance= is the least and the most from earthquake to station in degrees, such as 30,90")
    asked = _catalogues(options, start, end, options.limit, get)
    events = sorted((e for _, found in asked for e in found), key=lambda e: -e.time)
    if not events:
        raise UserError(f"{_service(options.event_provider or options.provider, 'event')} has no event under these options; widen them")
    for number, (url, _) in enumerate(asked):
        yield Remote(url, "events.xml" if len(asked) == 1 else f"events-{number:03d}.xml")
    stations = _stations(options, start, end + 86400 * 10**9, get)
    yield Remote(stations.url("response"), "stations.xml")
    for event in events[: options.limit]:
        for name, place in stations.running(event.time, event.time):
            _, degrees, _ = distance_to(event, place)
            if not options.distance[0] <= degrees <= options.distance[1]:
                continue
            travel = first_arrival(event.depth or 0.0, degrees) if options.anchor == "p" else 0.0
            first = event.time + round((travel - options.before) * 1e9)
            stamp = _stamp(event.time)
            yield _waveforms(options, name, first, first + round((options.before + options.after) * 1e9), f"{stamp}.{name}")


def experiment_remotes(options: ExperimentFetch, get: Get) -> Iterator[Remote]:
    """Station metadata, and of every station its waveforms, by shot or by stretches of time."""
    _require(options.network, "network", "the code of the temporary network, such as YW")
    if options.shots is None:
        start, end = _instant(options.start, "start"), _instant(options.end, "end")
        _require_order(start, end)
        if options.hours <= 0:
            raise UserError(f"hours={options.hours:g} must be above 0")
        step = round(options.hours * 3600e9)
        spans = [(t, min(t + step, end)) for t in range(start, end, step)]
    else:
        around = round(options.before * 1e9), round(options.after * 1e9)
        spans = [(e.time - around[0], e.time + around[1]) for e in read_shots(Path(options.shots))]
    stations = _stations(options, min(a for a, _ in spans), max(b for _, b in spans), get)
    yield Remote(stations.url("response"), "stations.xml")
    for first, last in spans:
        for name, _ in stations.running(first, last):
            yield _waveforms(options, name, first, last, f"{_stamp(first)}.{name}")


@dataclass(frozen=True)
class _Stations:
    """The channels that a query finds, and the query."""

    address: str
    query: Mapping[str, str]
    inventory: Any

    def url(self, level: str) -> str:
        return f"{self.address}?{urlencode({**self.query, 'level': level})}"

    def running(self, first: int, last: int) -> list[tuple[str, dict[str, float]]]:
        """`NET.STA` and place of the stations with a channel at some time of a span."""
        begin, end = (obspy().UTCDateTime(ns=t) for t in (first, last))
        found: dict[str, dict[str, float]] = {}
        for network in self.inventory:
            for station in network:
                for channel in station:
                    begun = channel.start_date is None or channel.start_date <= end
                    if begun and (channel.end_date is None or begin <= channel.end_date):
                        place = {"latitude": float(channel.latitude), "longitude": float(channel.longitude)}
                        found.setdefault(f"{network.code}.{station.code}", place)
        return sorted(found.items())


def _stations(options: EarthScopeFetch | ExperimentFetch, start: int, end: int, get: Get) -> _Stations:
    address = _service(options.provider, "station")
    query = {**_codes(options), "starttime": _text(start), "endtime": _text(end)}
    try:
        body = get(f"{address}?{urlencode({**query, 'level': 'channel', 'format': 'text'})}")
    except Absent:
        raise UserError(f"{address} has no channel under these options; check network=, station=, location= and channel=") from None
    except TooLarge:
        raise UserError(f"{address} finds the list of channels too large (413); name fewer with network=, station= or channel=") from None
    with one_sentence(Path("the list of stations"), "read"):
        inventory = obspy().read_inventory(io.BytesIO(body), format="STATIONTXT")
    return _Stations(address, query, inventory)


def _catalogues(options: EarthScopeFetch, start: int, end: int, limit: int | None, get: Get) -> list[tuple[str, list[Event]]]:
    """Addresses of the event queries and what they find, the latest first; one that is too large for the service is cut in two in time."""
    address = _service(options.event_provider or options.provider, "event")
    south, north, west, east = options.box or (None,) * 4
    latitude, longitude, radius = options.circle or (None,) * 3
    least, most = options.depth or (None,) * 2
    query = {
        "starttime": _text(start),
        "endtime": _text(end),
        "minmagnitude": options.min_magnitude,
        "maxmagnitude": options.max_magnitude,
        "mindepth": least,
        "maxdepth": most,
        "minlatitude": south,
        "maxlatitude": north,
        "minlongitude": west,
        "maxlongitude": east,
        "latitude": latitude,
        "longitude": longitude,
        "maxradius": radius,
        "limit": limit,
        "orderby": "time",
        "includearrivals": "true" if options.arrivals else None,
    }
    url = f"{address}?{urlencode({k: v for k, v in query.items() if v is not None})}"
    try:
        return [(url, parse_quakeml(get(url), Path("the event catalogue"), []))]
    except Absent:
        return []
    except TooLarge:
        if end - start < SHORTEST:
            raise UserError(f"{address} finds even a minute of events too large (413); raise min_magnitude=") from None
    middle = (start + end) // 2 // 10**9 * 10**9
    later = _catalogues(options, middle + 1000, end, limit, get)
    left = None if limit is None else limit - sum(len(events) for _, events in later)
    return later if left is not None and left <= 0 else later + _catalogues(options, start, middle, left, get)


def _waveforms(options: EarthScopeFetch | ExperimentFetch, name: str, first: int, last: int, stem: str) -> Remote:
    network, station = name.split(".")
    query = {**_codes(options), "network": network, "station": station, "starttime": _text(first), "endtime": _text(last)}
    return Remote(f"{_service(options.provider, 'dataselect')}?{urlencode(query)}", f"waveforms/{stem}.mseed")


def _codes(options: EarthScopeFetch | ExperimentFetch) -> dict[str, str]:
    return {n: getattr(options, n) for n in ("network", "station", "location", "channel")}


def _service(provider: str, service: str) -> str:
    return f"{provider.rstrip('/')}/fdsnws/{service}/1/query"


def _require(value: str, key: str, expected: str) -> None:
    if not value.strip():
        raise UserError(f"{key}= is missing; expected {expected}")


def _require_order(start: int, end: int) -> None:
    if end <= start:
        raise UserError(f"end={_text(end)} does not come after start={_text(start)}")


def _instant(text: str, key: str) -> int:
    if not text.strip():
        raise UserError(f"{key}= is missing; expected a date such as 2024-01-01")
    try:
        return int(obspy().UTCDateTime(text).ns)
    except (ValueError, TypeError):
        raise UserError(f"{key}={text[:40]!r} is no date or instant; expected 2024-01-01 or 2024-01-01T12:00:00") from None


def _text(at: int) -> str:
    return str(obspy().UTCDateTime(ns=at).strftime("%Y-%m-%dT%H:%M:%S.%f"))


def _stamp(at: int) -> str:
    return str(obspy().UTCDateTime(ns=at).strftime("%Y%m%dT%H%M%S.%f"))[:19]
