"""Fetching from data centres of the FDSN, against a server that obspy's own client can work with."""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("obspy")
import obspy
from obspy.clients.fdsn import Client
from obspy.clients.fdsn.header import FDSNBadRequestException, FDSNForbiddenException, FDSNNoDataException, FDSNRequestTooLargeException
from tests.data_prep.fdsn_server import BEGIN, Centre, network_catalogue, network_inventory, network_stream, serving

from scigpt.data_prep.fetch import Network, Patience, Report, fetch, look
from scigpt.data_prep.fetch.errors import Absent, TooLarge
from scigpt.data_prep.source import Remote, parse_options
from scigpt.data_prep.sources.earthscope import EarthScope
from scigpt.data_prep.sources.seismic_experiments import SeismicExperiments
from scigpt.errors import UserError

UTC = obspy.UTCDateTime
QUICK = Patience(attempts=2, first=0.001, longest=1.0, timeout=10.0)
WORDS = ("network=XA", "start=2024-03-01", "end=2024-03-02", "min_magnitude=1", "before=30", "after=60", "distance=0,5")


@pytest.fixture(scope="module")
def centre() -> Iterator[Centre]:
    with serving(Centre(network_stream(), network_inventory(), network_catalogue())) as made:
        yield made


@pytest.fixture(scope="module")
def client(centre: Centre) -> Client:
    return Client(centre.url)


def listed(source: Any, centre: Centre, *words: str) -> list[Remote]:
    options = parse_options(source.Fetch, [*words, f"provider={centre.url}"])
    return list(source.remotes(options, Network(QUICK).get))


def fetched(remotes: list[Remote], out: Path) -> Report:
    network = Network(QUICK)
    return fetch(look(remotes, out, EarthScope.describe(), network), network, bar=False)


@pytest.fixture(scope="module")
def folder(centre: Centre, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Remote], Report]:
    out = tmp_path_factory.mktemp("fetched")
    remotes = listed(EarthScope, centre, *WORDS)
    return out, remotes, fetched(remotes, out)


def test_the_server_speaks_to_obspys_client(centre: Centre, client: Client) -> None:
    assert set(client.services) >= {"dataselect", "station", "event"}
    assert client.get_webservice_version("dataselect") == [1, 2, 0]
    stream = client.get_waveforms("XA", "AA", "00", "BHZ", BEGIN + 10, BEGIN + 20)
    np.testing.assert_array_equal(stream[0].data, centre.stream.select(id="XA.AA.00.BHZ")[0].data[200:401])
    bulk = client.get_waveforms_bulk([("XA", "AA", "*", "BH?", BEGIN, BEGIN + 5), ("XA", "BB", "00", "BHZ", BEGIN + 5, BEGIN + 6)])
    assert sorted(t.id for t in bulk) == ["XA.AA.00.BH1", "XA.AA.00.BH2", "XA.AA.00.BHZ", "XA.BB.00.BHZ"]
    inventory = client.get_stations(network="XA", station="BB", level="response", starttime=BEGIN, endtime=BEGIN + 60)
    assert [c.azimuth for c in inventory[0][0] if c.code == "BH1"] == [30.0]
    assert inventory[0][0][0].response.response_stages
    assert len(client.get_stations_bulk([("XA", "A*", "*", "BHZ", BEGIN, BEGIN + 9)], level="channel").get_contents()["channels"]) == 1
    catalogue = client.get_events(starttime=BEGIN, endtime=BEGIN + 86400, minmagnitude=4.0, includearrivals=True, orderby="magnitude")
    assert [e.magnitudes[0].mag for e in catalogue] == [5.5, 5.0, 4.5, 4.0]
    assert len(catalogue[0].picks) == 4


def test_the_server_refuses_as_the_specification_says(centre: Centre, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FDSNNoDataException):
        client.get_waveforms("XA", "ZZ", "00", "BHZ", BEGIN, BEGIN + 10)
    with pytest.raises(FDSNRequestTooLargeException):
        client.get_waveforms("XA", "AA", "00", "BHZ", BEGIN, BEGIN + 7200)
    with pytest.raises(FDSNBadRequestException):
        client.get_waveforms("XA", "AA", "00", "BHZ", BEGIN + 10, BEGIN)
    monkeypatch.setattr(centre, "closed", ("XA",))
    with pytest.raises(FDSNForbiddenException):
        client.get_waveforms("XA", "AA", "00", "BHZ", BEGIN, BEGIN + 10)
    monkeypatch.undo()
    query = f"{centre.url}/fdsnws/dataselect/1/query?net=XA&sta=ZZ&start=2024-03-01&end=2024-03-01T00:01:00"
    assert urllib.request.urlopen(query).status == 204
    for wrong, status in ((f"{query}&nodata=404", 404), (f"{query}&colour=red", 400), (f"{query}&start=never", 400)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong)
        assert caught.value.code == status
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{query}&colour=red")
    assert b"Error 400" in caught.value.read()


def test_a_fetch_brings_what_obspys_client_brings(client: Client, folder: tuple[Path, list[Remote], Report]) -> None:
    out, remotes, report = folder
    assert {r.file for r in remotes} >= {"events.xml", "stations.xml"}
    assert len(report.fetched) < len(remotes)  # CC has no data after ten hours
    catalogue = client.get_events(starttime=UTC(2024, 3, 1), endtime=UTC(2024, 3, 2), minmagnitude=1, includearrivals=True)
    ours = obspy.read_events(str(out / "events.xml"))
    assert [(e.resource_id, e.origins[0].time, len(e.picks)) for e in ours] == [
        (e.resource_id, e.origins[0].time, len(e.picks)) for e in catalogue
    ]
    inventory = client.get_stations(network="XA", channel="BH?", level="response", starttime=UTC(2024, 3, 1), endtime=UTC(2024, 3, 3))
    mine = obspy.read_inventory(str(out / "stations.xml"))
    assert mine.get_contents() == inventory.get_contents()
    assert mine.networks == inventory.networks
    files = sorted((out / "waveforms").glob("*.mseed"))
    assert len(files) == len(report.fetched) - 2
    for path in files:
        remote = next(r for r in remotes if r.file.endswith(path.name))
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(remote.url).query))
        station = asked["station"]
        theirs = client.get_waveforms("XA", station, "*", "BH?", UTC(asked["starttime"]), UTC(asked["endtime"]))
        own = obspy.read(str(path))
        assert [(t.id, t.stats.starttime, t.stats.npts) for t in own] == [(t.id, t.stats.starttime, t.stats.npts) for t in theirs]
        assert all(np.array_equal(a.data, b.data) for a, b in zip(own, theirs, strict=True))


def test_what_was_fetched_becomes_a_corpus_and_a_second_fetch_asks_only_for_what_was_absent(
    centre: Centre, folder: tuple[Path, list[Remote], Report]
) -> None:
    out, remotes, report = folder
    source = EarthScope([out], EarthScope.Options(before=10, after=30, splits=(0.6, 0.2, 0.2)))
    plan = source.plan()
    assert {s.name for s in plan.splits} == {"train", "valid", "test"}
    samples = list(source.samples(plan.refs))
    assert len(samples) == len(report.fetched) - 2
    assert {v.name for v in samples[0].variables} >= {"seismic_counts_east", "p_arrival"}
    before = len(centre.asked)
    again = fetched(remotes, out)
    assert again.fetched == ()
    assert len(again.kept) == len(report.fetched)
    assert len(centre.asked) - before == len(remotes) - len(report.fetched)


def test_no_data_at_all_is_one_sentence(centre: Centre, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no event under these options; widen them"):
        listed(EarthScope, centre, *WORDS, "min_magnitude=9")
    with pytest.raises(UserError, match=r"has no channel under these options; check network="):
        listed(EarthScope, centre, *WORDS[1:], "network=ZZ")
    with pytest.raises(Absent, match=r"no data for this request \(204\)"):
        Network(QUICK).get(f"{centre.url}/fdsnws/event/1/query?minmag=9&start=2024-03-01&end=2024-03-02")
    lost = Remote(f"{centre.url}/fdsnws/dataselect/1/query?net=XA&sta=ZZ&start=2024-03-01&end=2024-03-01T00:01:00", "a.mseed")
    with pytest.raises(Absent):
        fetched([lost], tmp_path)


def test_requests_that_are_too_large(centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listed(EarthScope, centre, *WORDS)
    monkeypatch.setattr(centre, "most_days", 0.3)
    cut = listed(EarthScope, centre, *WORDS)
    catalogues = [r for r in cut if r.file.startswith("events-")]
    assert len(catalogues) > 1
    assert {r.file for r in cut if r.file.startswith("waveforms")} == {r.file for r in whole if r.file.startswith("waveforms")}
    found = [e for r in catalogues for e in obspy.read_events(io.BytesIO(Network(QUICK).get(r.url)))]
    assert len({e.resource_id for e in found}) == len(found) == 6
    few = listed(EarthScope, centre, *WORDS, "limit=3")  # the latest, not the first half's
    monkeypatch.undo()
    latest = listed(EarthScope, centre, *WORDS, "limit=3")
    assert {r.file for r in few if r.file.startswith("waveforms")} == {r.file for r in latest if r.file.startswith("waveforms")}
    found = [e for r in few if r.file.startswith("events") for e in obspy.read_events(io.BytesIO(Network(QUICK).get(r.url)))]
    assert sorted(e.origins[0].time for e in found) == [BEGIN + 3600 + 14400 * i for i in (3, 4, 5)]
    monkeypatch.setattr(centre, "longest", 50.0)
    with pytest.raises(UserError, match=r"the request is too large for the service \(413\); ask for less at once"):
        fetched([r for r in whole if r.file.startswith("waveforms")][:1], tmp_path)
    with pytest.raises(TooLarge):
        Network(QUICK).get(next(r for r in whole if r.file.startswith("waveforms")).url)


def test_restricted_data_are_one_sentence(centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = listed(EarthScope, centre, *WORDS)[2:3]
    monkeypatch.setattr(centre, "closed", ("XA",))
    with pytest.raises(UserError, match=r"access is refused \(403\)") as caught:
        fetched(remotes, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_options_reach_the_services(centre: Centre) -> None:
    found = listed(EarthScope, centre, *WORDS, "box=40.2,40.32,19,21", "limit=2", "anchor=origin", "station=AA,BB", "arrivals=false")
    events = urllib.parse.parse_qs(urllib.parse.urlsplit(found[0].url).query)
    assert (events["minlatitude"], events["maxlongitude"], events["limit"]) == (["40.2"], ["21.0"], ["2"])
    assert "includearrivals" not in events
    waveforms = [r for r in found if r.file.startswith("waveforms")]
    assert len(waveforms) == 4
    times = [urllib.parse.parse_qs(urllib.parse.urlsplit(r.url).query) for r in waveforms]
    assert all(UTC(t["endtime"][0]) - UTC(t["starttime"][0]) == 90 for t in times)
    assert UTC(times[0]["starttime"][0]) in [BEGIN + 3600 + 14400 * i - 30 for i in range(6)]
    near = listed(EarthScope, centre, *WORDS, "distance=0.5,2")
    assert 0 < sum(r.file.startswith("waveforms") for r in near) < 18


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("start=2024-01-01", "end=2024-01-02"), "network= is missing; expected the codes of networks"),
        (("network=XA",), "start= is missing; expected a date such as 2024-01-01"),
        (("network=XA", "start=soon", "end=2024-01-02"), "start='soon' is no date or instant"),
        (("network=XA", "start=2024-01-03", "end=2024-01-02"), "does not come after start="),
        (("network=XA", "start=2024-01-01", "end=2024-01-02", "box=1,2"), "box=1,2 has 2 numbers; expected 4"),
        (("network=XA", "start=2024-01-01", "end=2024-01-02", "distance=5"), "distance= is the least and the most"),
    ],
)
def test_options_that_cannot_be(centre: Centre, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        listed(EarthScope, centre, *words)
    assert sentence in str(caught.value)


def test_an_experiment_is_fetched_by_time_and_by_shot(centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("network=XA", "channel=BH?", "start=2024-03-01", "end=2024-03-01T00:20:00", "hours=0.25")
    remotes = listed(SeismicExperiments, centre, *words)
    assert [r.file for r in remotes][:2] == ["stations.xml", "waveforms/20240301T000000.000.XA.AA.mseed"]
    assert len(remotes) == 1 + 2 * 3
    shots = tmp_path / "shots.csv"
    shots.write_text("id,time,latitude,longitude\n1,2024-03-01T00:05:00Z,40.1,20.1\n2,2024-03-01T00:08:00Z,40.2,20.1\n")
    remotes = listed(SeismicExperiments, centre, "network=XA", "channel=BHZ", f"shots={shots}", "before=5", "after=20")
    fetched(remotes, tmp_path / "out")
    (sample,) = [
        s
        for s in SeismicExperiments(
            [tmp_path / "out"], SeismicExperiments.Options(shots=str(shots), before=2, after=10, split="test")
        ).samples(
            SeismicExperiments([tmp_path / "out"], SeismicExperiments.Options(shots=str(shots), before=2, after=10, split="test"))
            .plan()
            .refs
        )
        if s is not None and s.origin.about["shot"]["id"] == "2"
    ]
    assert sample.values.shape == (240, 1, 1, 1, 3)
    first = (480 - 2) * 20
    for x, station in enumerate(("AA", "BB", "CC")):
        theirs = centre.stream.select(id=f"XA.{station}.00.BHZ")[0].data[first : first + 240]
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0, x], theirs.astype(np.float32))
    with pytest.raises(UserError, match="network= is missing"):
        listed(SeismicExperiments, centre, "start=2024-03-01", "end=2024-03-02")
