"""A data centre of the test's own: the web services of the FDSN (specification 1.2) for events, stations and waveforms over real objects of
obspy, and a small network with earthquakes for it to serve. Importing it needs obspy."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import obspy
from obspy.core.event import Arrival, Catalog, Event, Magnitude, Origin, Pick, WaveformStreamID
from obspy.core.inventory import Channel, Inventory, Network, Response, Site, Station
from obspy.geodetics import locations2degrees

UTC = obspy.UTCDateTime
SHORT = {
    "net": "network", "sta": "station", "loc": "location", "cha": "channel", "start": "starttime", "end": "endtime",
    "minlat": "minlatitude", "maxlat": "maxlatitude", "minlon": "minlongitude", "maxlon": "maxlongitude", "lat": "latitude",
    "lon": "longitude", "minmag": "minmagnitude", "maxmag": "maxmagnitude", "magtype": "magnitudetype",
}  # fmt: skip
CODES = {"network": str, "station": str, "location": str, "channel": str}
TIMES = {"starttime": UTC, "endtime": UTC}
BOX = {f"{m}{n}": float for m in ("min", "max") for n in ("latitude", "longitude")}
CIRCLE = {"latitude": float, "longitude": float, "minradius": float, "maxradius": float}
PARAMETERS: dict[str, dict[str, Any]] = {
    "dataselect": {**CODES, **TIMES, "quality": str, "minimumlength": float, "longestonly": bool, "format": str, "nodata": int},
    "station": {
        **CODES, **TIMES, **BOX, **CIRCLE, "startbefore": UTC, "startafter": UTC, "endbefore": UTC, "endafter": UTC, "level": str,
        "includerestricted": bool, "includeavailability": bool, "updatedafter": UTC, "matchtimeseries": bool, "format": str, "nodata": int,
    },
    "event": {
        **TIMES, **BOX, **CIRCLE, "mindepth": float, "maxdepth": float, "minmagnitude": float, "maxmagnitude": float, "orderby": str,
        "magnitudetype": str, "eventtype": str, "includeallorigins": bool, "includeallmagnitudes": bool, "includearrivals": bool,
        "eventid": str, "limit": int, "offset": int, "catalog": str, "contributor": str, "updatedafter": UTC, "format": str, "nodata": int,
    },
}  # fmt: skip
NAMES = {str: "xs:string", float: "xs:double", int: "xs:int", bool: "xs:boolean", UTC: "xs:date"}


class Refusal(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Centre:
    """What the services serve, what they were asked, and their limits.

    Args:
        longest: seconds of data, of all lines of a request, above which dataselect answers 413; `most_days` likewise of the event service.
        closed: networks whose waveforms need a login (403).
    """

    stream: Any
    inventory: Any
    catalogue: Any
    longest: float = 3600.0
    most_days: float = 400.0
    closed: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def answer(self, method: str, target: str, body: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        parts = urlsplit(target)
        _, root, service, version, resource = (parts.path.split("/") + [""] * 5)[:5]
        if root != "fdsnws" or service not in PARAMETERS or version != "1":
            return 404, "text/plain", b"no such service"
        if resource == "version":
            return 200, "text/plain", b"1.2.0"
        if resource == "application.wadl":
            return 200, "application/xml", self._wadl(service)
        if service == "event" and resource in ("catalogs", "contributors"):
            return (
                200,
                "application/xml",
                f"<{resource.title()}><{resource.title()[:-1]}>TEST</{resource.title()[:-1]}></{resource.title()}>".encode(),
            )
        if resource != "query":
            return 404, "text/plain", b"no such resource"
        try:
            lines = body.splitlines() if method == "POST" else []
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            pairs += [tuple(li.split("=", 1)) for li in lines if "=" in li]  # type: ignore[misc]
            query = self._parsed(service, pairs)
            boxes = [self._line(li) for li in lines if li.strip() and "=" not in li] or [query]
            found = getattr(self, f"_{service}")(query, boxes)
            if found is None:
                return int(query.get("nodata", 204)), "text/plain", b""
            return 200, found[0], found[1]
        except Refusal as error:
            text = f"Error {error.status}: {error}\n\nUsage details are available from /fdsnws/{service}/1/\n\nRequest:\n{target}\n"
            return error.status, "text/plain", text.encode()

    def _parsed(self, service: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        query: dict[str, Any] = {}
        for key, text in pairs:
            name = SHORT.get(key, key)
            if name not in PARAMETERS[service]:
                raise Refusal(400, f"Bad Request: unrecognized parameter '{key}'")
            kind = PARAMETERS[service][name]
            try:
                query[name] = text.lower() == "true" if kind is bool else kind(text)
            except (ValueError, TypeError):
                raise Refusal(400, f"Bad Request: invalid value for '{key}': {text}") from None
        if query.get("nodata", 204) not in (204, 404):
            raise Refusal(400, "Bad Request: nodata must be 204 or 404")
        if "starttime" in query and "endtime" in query and query["endtime"] < query["starttime"]:
            raise Refusal(400, "Bad Request: endtime before starttime")
        return query

    @staticmethod
    def _line(text: str) -> dict[str, Any]:
        words = text.split()
        if len(words) != 6:
            raise Refusal(400, f"Bad Request: line '{text}'")
        return dict(zip(("network", "station", "location", "channel"), words, strict=False)) | {
            "starttime": UTC(words[4]),
            "endtime": UTC(words[5]),
        }

    def _dataselect(self, query: dict[str, Any], boxes: list[dict[str, Any]]) -> tuple[str, bytes] | None:
        found = obspy.Stream()
        for box in boxes:
            if "starttime" not in box or "endtime" not in box:
                raise Refusal(400, "Bad Request: starttime and endtime are required")
        chosen = [(t, b) for b in boxes for t in self.stream if chosen_by(b, *t.id.split("."))]
        if sum(b["endtime"] - b["starttime"] for b in boxes) > self.longest:
            raise Refusal(413, "Request Entity Too Large: too much data requested")
        for trace, box in chosen:
            part = trace.slice(box["starttime"], box["endtime"])
            if part.stats.npts:
                if trace.stats.network in self.closed:
                    raise Refusal(403, "Forbidden: restricted data")
                found += part
        if not found:
            return None
        body = io.BytesIO()
        found.write(body, format="MSEED", reclen=512)
        return "application/vnd.fdsn.mseed", body.getvalue()

    def _station(self, query: dict[str, Any], boxes: list[dict[str, Any]]) -> tuple[str, bytes] | None:
        level = query.get("level", "station")
        if level not in ("network", "station", "channel", "response"):
            raise Refusal(400, f"Bad Request: level '{level}'")
        found = Inventory(networks=[], source="test")
        for net in self.inventory:
            for sta in net:
                kept = [c for c in sta if any(chosen_by(b, net.code, sta.code, c.location_code, c.code) and _lives(c, b) for b in boxes)]
                if kept and _near(query, sta.latitude, sta.longitude):
                    station = Station(sta.code, sta.latitude, sta.longitude, sta.elevation, site=sta.site, creation_date=sta.creation_date)
                    station.start_date, station.end_date = sta.start_date, sta.end_date
                    for channel in kept if level in ("channel", "response") else ():
                        new = Channel(
                            channel.code, channel.location_code, channel.latitude, channel.longitude, channel.elevation, channel.depth,
                            channel.azimuth, channel.dip, sample_rate=channel.sample_rate, start_date=channel.start_date,
                            end_date=channel.end_date, response=channel.response if level == "response" else None,
                        )  # fmt: skip
                        station.channels.append(new)
                    found.networks.append(Network(net.code, [station]))
        if not found.networks:
            return None
        body = io.BytesIO()
        if query.get("format", "xml") == "text":
            if level == "response":
                raise Refusal(400, "Bad Request: format=text has no level=response")
            text = io.StringIO()
            found.write(text, format="STATIONTXT", level=level)
            return "text/plain", text.getvalue().encode()
        found.write(body, format="STATIONXML")
        return "application/xml", body.getvalue()

    def _event(self, query: dict[str, Any], boxes: list[dict[str, Any]]) -> tuple[str, bytes] | None:
        if query.get("endtime", UTC()) - query.get("starttime", UTC(0)) > self.most_days * 86400:
            raise Refusal(413, "Request Entity Too Large: too many events")
        found = []
        for event in self.catalogue:
            origin, magnitude = event.origins[0], event.magnitudes[0].mag
            inside = query.get("starttime", UTC(0)) <= origin.time <= query.get("endtime", UTC(2100, 1, 1))
            inside = inside and query.get("minmagnitude", -9) <= magnitude <= query.get("maxmagnitude", 99)
            inside = inside and query.get("mindepth", -99) <= origin.depth / 1000 <= query.get("maxdepth", 9999)
            if inside and _near(query, origin.latitude, origin.longitude):
                new = event.copy()
                if not query.get("includearrivals", False):
                    new.picks, new.origins[0].arrivals = [], []
                found.append(new)
        found.sort(key=lambda e: -e.origins[0].time.timestamp)
        if query.get("orderby") == "magnitude":
            found.sort(key=lambda e: -e.magnitudes[0].mag)
        found = found[query.get("offset", 1) - 1 :][: query.get("limit")]
        if not found:
            return None
        body = io.BytesIO()
        Catalog(found).write(body, format="QUAKEML")
        return "application/xml", body.getvalue()

    def _wadl(self, service: str) -> bytes:
        rows = "".join(f'<param name="{n}" style="query" type="{NAMES[k]}"/>' for n, k in PARAMETERS[service].items())
        return (
            '<?xml version="1.0"?><application xmlns="http://wadl.dev.java.net/2009/02" xmlns:xs="http://www.w3.org/2001/XMLSchema">'
            f'<resources base="{self.url}/fdsnws/{service}/1/"><resource path="query"><method id="query" name="GET"><request>{rows}'
            "</request></method></resource></resources></application>"
        ).encode()


def chosen_by(box: dict[str, Any], network: str, station: str, location: str, channel: str) -> bool:
    """Whether the codes match lists of patterns; two dashes are the blank location."""
    for key, code in (("network", network), ("station", station), ("location", location), ("channel", channel)):
        patterns = [p.replace("--", "") for p in str(box.get(key, "*")).split(",")]
        if not any(fnmatchcase(code, p) for p in patterns):
            return False
    return True


def _lives(channel: Any, box: dict[str, Any]) -> bool:
    begun = channel.start_date is None or channel.start_date <= box.get("endtime", UTC(2100, 1, 1))
    return begun and (channel.end_date is None or channel.end_date >= box.get("starttime", UTC(0)))


def _near(query: dict[str, Any], latitude: float, longitude: float) -> bool:
    if not query.get("minlatitude", -90) <= latitude <= query.get("maxlatitude", 90):
        return False
    if not query.get("minlongitude", -180) <= longitude <= query.get("maxlongitude", 180):
        return False
    if "latitude" not in query:
        return True
    distance = locations2degrees(query["latitude"], query["longitude"], latitude, longitude)
    return bool(query.get("minradius", 0) <= distance <= query.get("maxradius", 180))


@contextmanager
def serving(centre: Centre) -> Iterator[Centre]:
    """The centre on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._respond("")

        def do_POST(self) -> None:
            self._respond(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _respond(self, body: str) -> None:
            centre.asked.append(self.path)
            status, kind, data = centre.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(b"" if status == 204 else data)

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    centre.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield centre
    finally:
        server.shutdown()
        server.server_close()


BEGIN = UTC(2024, 3, 1)
AZIMUTHS = {"BH1": 30.0, "BH2": 120.0, "BHZ": 0.0}
PLACES = {"AA": (40.0, 20.0), "BB": (40.5, 20.4), "CC": (41.0, 19.5)}


def response() -> Any:
    """A seismometer of 120 s and a digitiser, in counts."""
    poles = [-0.037 + 0.037j, -0.037 - 0.037j]
    return Response.from_paz([0j, 0j], poles, 1500.0 * 400000, stage_gain_frequency=1.0, input_units="M/S", output_units="COUNTS")


def network_inventory(rate: float = 20.0) -> Any:
    """Three stations; BB's horizontals point elsewhere since noon of the first day."""
    stations = []
    for name, (latitude, longitude) in PLACES.items():
        channels = []
        for code, azimuth in AZIMUTHS.items():
            noon = BEGIN + 43200
            epochs = [(BEGIN - 86400, noon, azimuth), (noon, None, azimuth + 45)] if name == "BB" else [(BEGIN - 86400, None, azimuth)]
            for first, last, angle in epochs:
                channels.append(
                    Channel(
                        code,
                        "00",
                        latitude,
                        longitude,
                        500.0,
                        0.0,
                        0.0 if code == "BHZ" else angle % 360,
                        -90.0 if code == "BHZ" else 0.0,
                        sample_rate=rate,
                        start_date=first,
                        end_date=last,
                        response=response(),
                    )
                )
        site = Site(name=name)
        stations.append(Station(name, latitude, longitude, 500.0, channels, site, start_date=BEGIN - 86400, creation_date=BEGIN - 86400))
    return Inventory(networks=[Network("XA", stations)], source="test")


def network_catalogue(count: int = 6, every: float = 14400.0, picked: bool = True) -> Any:
    """Earthquakes below the network; S is picked at AA alone, P at AA and BB; a wild pick was rejected."""
    events = []
    for i in range(count):
        time = BEGIN + 3600 + every * i
        origin = Origin(time=time, latitude=40.2 + 0.05 * i, longitude=20.1, depth=8000.0 + 100 * i)
        event = Event(event_type="earthquake", origins=[origin], magnitudes=[Magnitude(mag=3.0 + 0.5 * i, magnitude_type="Mw")])
        for station, phase, after in (("AA", "Pg", 5.0 + 0.0123 * i), ("AA", "Sg", 8.6), ("BB", "P", 7.3), ("AA", "P", 1.0)):
            pick = Pick(
                time=time + after,
                waveform_id=WaveformStreamID("XA", station, "00", "BHZ"),
                evaluation_mode="manual",
                evaluation_status="rejected" if after == 1.0 else "reviewed",
            )
            if picked:
                event.picks.append(pick)
                origin.arrivals.append(Arrival(pick_id=pick.resource_id, phase=phase))
        event.preferred_origin_id = origin.resource_id
        events.append(event)
    return Catalog(events)


def network_stream(rate: float = 20.0, hours: float = 22.0, offset: float = 0.0) -> Any:
    """Counts of three components at each station; CC has a gap of 20 s in all around the first earthquake, and nothing after 10 hours."""
    stream = obspy.Stream()
    for s, station in enumerate(PLACES):
        for c, channel in enumerate(AZIMUTHS):
            data = np.random.default_rng(10 * s + c).integers(-2000, 2000, round(hours * 3600 * rate)).astype(np.int32)
            header = {"network": "XA", "station": station, "location": "00", "channel": channel, "sampling_rate": rate}
            trace = obspy.Trace(data, {**header, "starttime": BEGIN + offset})
            if station == "CC":
                hole = BEGIN + 3600 + 20
                stream += obspy.Stream([trace.slice(BEGIN, hole), trace.slice(hole + 20, BEGIN + 36000)])
            else:
                stream += trace
    return stream
