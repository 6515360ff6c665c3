"""Small files of stations, earthquakes and surveys, made by each format's own library or layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

EARTH_RADIUS = 6371.0


@dataclass(frozen=True)
class Network:
    """Daily temperatures `(days, stations)` in degrees Celsius, NaN in gaps; latitude and longitude of the stations, `(stations, 2)`."""

    places: np.ndarray
    values: np.ndarray
    first: np.datetime64
    length: float
    noise: float
    spread: float

    @property
    def distances(self) -> np.ndarray:
        """Great circles in kilometres, `(stations, stations)`."""
        phi, lam = np.deg2rad(self.places).T
        point = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)
        return EARTH_RADIUS * np.arccos(np.clip(point @ point.T, -1, 1))

    @property
    def covariance(self) -> np.ndarray:
        """Of the field without noise, in units of its variance: a Matern function of smoothness 3/2."""
        scaled = np.sqrt(3) * self.distances / self.length
        return (1 + scaled) * np.exp(-scaled)


def network(
    stations: int,
    days: int,
    seed: int = 0,
    first: str = "2001-01-01",
    box: tuple[float, float, float, float] = (35.0, 55.0, -5.0, 25.0),
    length: float = 600.0,
    noise: float = 0.3,
    memory: float = 0.8,
    spread: float = 5.0,
) -> Network:
    """A Gaussian field of known covariance that forgets a fifth of itself every day, measured with noise, with the gaps that networks have.

    Records begin late (30 %) or end early (20 %), instruments fail for a month on average six times in a record, and 3 % of the days are
    missing.

    Args:
        box: south, north, west, east.
        length: of the covariance, in km.
        noise: variance of the measurement, in units of that of the field.
        memory: correlation from day to day.
        spread: standard deviation of the field.
    """
    rng = np.random.default_rng(seed)
    south, north, west, east = box
    places = np.stack([rng.uniform(south, north, stations), rng.uniform(west, east, stations)], 1).round(4)
    found = Network(places, np.empty((days, stations)), np.datetime64(first, "D"), length, noise, spread)
    root = np.linalg.cholesky(found.covariance + 1e-8 * np.eye(stations))
    state = root @ rng.standard_normal(stations)
    for day in range(days):
        state = memory * state + np.sqrt(1 - memory**2) * (root @ rng.standard_normal(stations))
        found.values[day] = 10 + spread * (state + np.sqrt(noise) * rng.standard_normal(stations))
    for i in range(stations):
        gone = rng.random(days) < 0.03
        if rng.random() < 0.3:
            gone[: rng.integers(0, days // 2)] = True
        if rng.random() < 0.2:
            gone[rng.integers(days // 2, days) :] = True
        for _ in range(rng.poisson(6 * days / 3650)):
            begin = rng.integers(days)
            gone[begin : begin + int(rng.exponential(30)) + 1] = True
        found.values[gone, i] = np.nan
    return found


def ghcn(folder: Path, made: Network) -> list[Path]:
    """The network as GHCN-daily publishes it: a CSV of each year, and the list of stations."""
    folder.mkdir(parents=True)
    ids = [f"XX{'M'}{i:08d}" for i in range(made.places.shape[0])]
    listed = folder / "ghcnd-stations.txt"
    listed.write_text(
        "".join(
            f"{n} {p[0]:8.4f} {p[1]:9.4f} {100.0:6.1f} {'':2} {'MADE HERE':30} {'':3} {'':3} {'':5}\n"
            for n, p in zip(ids, made.places, strict=True)
        )
    )
    days = made.first + np.arange(len(made.values))
    files = [listed]
    for year in np.unique(days.astype("datetime64[Y]")):
        rows = np.flatnonzero(days.astype("datetime64[Y]") == year)
        files.append(folder / f"{year}.csv")
        with files[-1].open("w") as file:
            for i, name in enumerate(ids):
                for row in rows[np.isfinite(made.values[rows, i])]:
                    day = str(days[row]).replace("-", "")
                    file.write(f"{name},{day},TAVG,{round(10 * made.values[row, i])},,,S,\n")
    return files


def earthquakes(folder: Path, events: int = 12, stations: int = 3, rate: float = 20.0, seed: int = 0) -> Path:
    """A folder as `scigpt data fetch earthscope` leaves it: QuakeML with picks, StationXML, miniSEED of pulses that arrive as P and S."""
    import obspy
    from obspy.core.event import Catalog, Event, Magnitude, Origin, Pick, ResourceIdentifier, WaveformStreamID
    from obspy.core.inventory import Channel, Inventory, Site, Station
    from obspy.core.inventory import Network as Net

    rng = np.random.default_rng(seed)
    waveforms = folder / "waveforms"
    waveforms.mkdir(parents=True)
    places = [(40.0 + rng.uniform(-1, 1), 10.0 + rng.uniform(-1, 1)) for _ in range(stations)]
    channels = [
        [
            Channel(c, "", lat, lon, 100.0, 0.0, azimuth=az, dip=dip, sample_rate=rate)
            for c, az, dip in (("BHE", 90, 0), ("BHN", 0, 0), ("BHZ", 0, -90))
        ]
        for lat, lon in places
    ]
    listed = [
        Station(f"S{i:02d}", lat, lon, 100.0, channels=own, site=Site("made here"))
        for i, ((lat, lon), own) in enumerate(zip(places, channels, strict=True))
    ]
    Inventory([Net("XX", stations=listed)], source="made here").write(str(folder / "stations.xml"), "STATIONXML")
    catalog = Catalog()
    for e in range(events):
        at = obspy.UTCDateTime(2020, 1, 1) + 86400.0 * e
        event = Event(resource_id=ResourceIdentifier(f"smi:local/event/{e}"))
        event.origins = [Origin(time=at, latitude=40.0 + rng.uniform(-1, 1), longitude=10.0 + rng.uniform(-1, 1), depth=10e3)]
        event.magnitudes = [Magnitude(mag=3.0, magnitude_type="ML")]
        for i in range(stations):
            seconds = np.arange(int(150 * rate)) / rate - 30
            p, s = 8.0 + 4 * rng.random(), 16.0 + 8 * rng.random()
            stream = obspy.Stream()
            for channel in "ENZ":
                wave = 20 * rng.standard_normal(seconds.size)
                for onset, size in ((p, 3000.0), (s, 8000.0)):
                    late = np.maximum(seconds - onset, 0)
                    wave += rng.uniform(0.3, 1) * size * np.exp(-late / 8) * np.sin(2 * np.pi * 1.5 * late)
                header = {"network": "XX", "station": f"S{i:02d}", "channel": f"BH{channel}", "sampling_rate": rate, "starttime": at - 30}
                stream.append(obspy.Trace(wave.astype(np.int32), header))
            stream.write(str(waveforms / f"{e:03d}_S{i:02d}.mseed"), "MSEED")
            for phase, onset in (("P", p), ("S", s)):
                code = WaveformStreamID("XX", f"S{i:02d}", channel_code="BHZ")
                event.picks.append(Pick(time=at + onset, phase_hint=phase, waveform_id=code))
        catalog.append(event)
    catalog.write(str(folder / "events.xml"), "QUAKEML")
    return folder


def survey(path: Path, inlines: int = 64, crosslines: int = 40, samples: int = 128, seed: int = 0) -> Path:
    """A volume after stack: dipping layers seen by a Ricker pulse, IEEE floats, 4 ms."""
    import segyio

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:inlines, :crosslines]
    depth = np.arange(samples)[:, None, None]
    volume = np.zeros((samples, inlines, crosslines), np.float32)
    for top in range(8, samples + 40, 9):
        place = top + 0.25 * x - 0.15 * y + 2 * np.sin(2 * np.pi * (x / 20 + rng.random()))
        u = (np.pi * 0.06 * (depth - place)) ** 2
        volume += rng.normal() * (1 - 2 * u) * np.exp(-u)
    spec = segyio.spec()
    spec.format, spec.sorting = 5, 2
    spec.samples, spec.ilines, spec.xlines = np.arange(samples) * 4.0, np.arange(inlines) + 1, np.arange(crosslines) + 1
    with segyio.create(str(path), spec) as file:
        file.text[0] = segyio.tools.create_text_header({1: "MADE HERE"})
        file.bin.update(hdt=4000)
        for i in range(inlines):
            for j in range(crosslines):
                trace = i * crosslines + j
                file.header[trace] = {segyio.su.iline: i + 1, segyio.su.xline: j + 1, segyio.su.cdpx: 25 * j, segyio.su.cdpy: 25 * i}
                file.header[trace].update({segyio.su.scalco: 1, segyio.su.ns: samples, segyio.su.dt: 4000})
                file.trace[trace] = np.ascontiguousarray(volume[:, i, j])
    return path
