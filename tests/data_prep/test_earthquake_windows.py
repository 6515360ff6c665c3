"""Earthquakes that come close upon each other: labels, noise and splits where a window shows more than one; stations that lack a part."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("obspy")
import obspy
from obspy.core.event import Arrival, Catalog, Event, Magnitude, Origin, Pick, ResourceIdentifier, WaveformStreamID
from obspy.core.inventory import Channel, Inventory, Network, Site, Station
from obspy.geodetics import locations2degrees
from obspy.taup import TauPyModel
from tests.data_prep.test_earthscope import BEGIN, channel, counts, quakes, trace
from tests.readings import refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.inspect import format_report, inspect
from scigpt.data_prep.seismic.events import read_quakeml
from scigpt.data_prep.seismic.splits import joined
from scigpt.data_prep.sources.earthscope import EarthScope
from scigpt.data_prep.sources.seismic_experiments import SeismicExperiments
from scigpt.launch.data import _warn_of_others

PLACE = (40.0, 20.0, 500.0)
DAY = 86400


def stations(path: Path, *channels: tuple[str, float, float], place: tuple[float, float, float] = PLACE) -> Path:
    """XA.AA.00 with channels of a name, an azimuth and a dip."""
    made = [Channel(c, "00", *place, 0.0, azimuth, dip, sample_rate=1.0, start_date=BEGIN - DAY) for c, azimuth, dip in channels]
    inventory = Inventory([Network("XA", [Station("AA", *place, made, Site("made here"))])], source="test")
    inventory.write(str(path), format="STATIONXML")
    return path


def event(name: str, time: Any, picks: Sequence[tuple[str, float]] = (), place: tuple[float, float] = (40.2, 20.1)) -> Event:
    """With picks at XA.AA, in seconds after its time."""
    origin = Origin(time=time, latitude=place[0], longitude=place[1], depth=1e4)
    made = Event(resource_id=ResourceIdentifier(f"smi:test/{name}"), origins=[origin], magnitudes=[Magnitude(mag=4)])
    for phase, after in picks:
        pick = Pick(time=time + after, waveform_id=WaveformStreamID("XA", "AA", "00", "BHZ"), evaluation_mode="manual")
        made.picks.append(pick)
        origin.arrivals.append(Arrival(pick_id=pick.resource_id, phase=phase))
    return made


def write(folder: Path, events: Sequence[Event], seconds: int = 4000) -> Path:
    """A vertical at one sample a second from an hour before BEGIN."""
    Catalog(list(events)).write(str(folder / "events.xml"), format="QUAKEML")
    stations(folder / "stations.xml", ("LHZ", 0.0, -90.0))
    trace(counts(seconds + 3600), "LHZ", BEGIN - 3600, 1.0).write(str(folder / "a.mseed"), format="MSEED")
    return folder


def test_labels_show_the_picks_of_all_events_in_a_window(tmp_path: Path) -> None:
    write(
        tmp_path, [event("a", BEGIN, [("P", 20), ("S", 30)]), event("b", BEGIN + 70, [("P", 20.4)]), event("c", BEGIN + 190, [("P", 21)])]
    )
    one, two, _ = samples_of(EarthScope, tmp_path, split="train")
    at = np.arange(120)
    bells = [np.exp(-((at - (30 + more)) ** 2) / 18) for more in (0, 70.4)]
    values, valid = channel(one, "p_arrival")
    assert valid.all()
    np.testing.assert_allclose(values, np.maximum(*bells), atol=2e-5)
    assert channel(one, "s_arrival")[1].all()
    assert not channel(two, "s_arrival")[1].any()  # S of b is unknown


def test_noise_holds_no_wave_of_any_event(tmp_path: Path) -> None:
    far = (41.0, 23.0)
    first = min(a.time for a in TauPyModel("iasp91").get_travel_times(10.0, locations2degrees(*far, *PLACE[:2]), ["ttp"]))
    events = [
        event("a", BEGIN, [("P", 20)]),
        event("b", BEGIN + 70, [("P", 20)]),  # P of a comes within its noise
        event("c", BEGIN + 1500 - 60 - first, place=far),  # nobody picked it; it comes a minute before d
        event("d", BEGIN + 1480, [("P", 20), ("S", 24)]),
        event("e", BEGIN + 2980, [("P", 20), ("S", 24)]),
    ]
    plan = EarthScope([write(tmp_path, events)], EarthScope.Options(noise=1.0, split="train")).plan()
    quiet = {r.key.partition("-")[0] for r in plan.refs if r.key.endswith("-noise")}
    assert quiet == {"000000", "000002", "000004"}
    assert any("2 windows of noise are left out: waves of an earthquake come within them" in n for n in plan.notes)


def test_events_that_a_station_shows_in_one_window_stay_in_one_split(tmp_path: Path) -> None:
    """A distant earthquake and one nearby twelve minutes later arrive together."""
    events = []
    for i in range(8):
        time = BEGIN + 10000 * i
        events += [event(f"{i}a", time, [("P", 720)], place=(10.0, 100.0)), event(f"{i}b", time + 700, [("P", 25)])]
    Catalog(events).write(str(tmp_path / "events.xml"), format="QUAKEML")
    stations(tmp_path / "stations.xml", ("LHZ", 0.0, -90.0))
    trace(counts(80000), "LHZ", BEGIN, 1.0).write(str(tmp_path / "a.mseed"), format="MSEED")
    for how in ("event", "time"):
        plan = EarthScope([tmp_path], EarthScope.Options(gap=100, split_by=how, splits=(0.5, 0.25, 0.25))).plan()  # type: ignore[arg-type]
        home = {r.spec["about"]["event"]["id"][-2:]: r.split for r in plan.refs}
        assert len(home) == 16
        assert set(home.values()) == {"train", "valid", "test"}
        assert all(home[f"{i}a"] == home[f"{i}b"] for i in range(8))


def test_groups_join_where_windows_touch() -> None:
    spans = [("a", 0, 10), ("a", 10, 20), ("a", 21, 30), ("b", 5, 22), ("b", 40, 50), ("b", 22, 23)]
    assert joined([0, 1, 2, 3, 4, 5], spans) == [0, 0, 2, 3, 4, 3]
    assert joined([0, 1, 2, 0, 4, 2], spans) == [0, 0, 0, 0, 4, 0]
    assert joined([0, 3, 1, 2, 4, 5], spans, ordered=True) == [0] * 6
    assert joined([0, 2, 1], [("a", 0, 10), ("a", 5, 20), ("b", 0, 9)]) == [0, 0, 1]
    assert joined([0, 2, 1], [("a", 0, 10), ("a", 5, 20), ("b", 0, 9)], ordered=True) == [0, 0, 0]


def test_a_lone_horizontal_is_left_out_where_its_partner_is_missing(tmp_path: Path) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100, BEGIN + 400)
    stations(tmp_path / "stations.xml", ("BH1", 30.0, 0.0), ("BH2", 120.0, 0.0), ("BHZ", 0.0, -90.0))
    for code, size in (("BH1", 12000), ("BH2", 5000), ("BHZ", 12000)):
        trace(counts(size), code).write(str(tmp_path / f"{code}.mseed"), format="MSEED")
    source = EarthScope([tmp_path], EarthScope.Options(anchor="origin", before=20, after=30, split="train"))
    plan = source.plan()
    whole, half = source.samples(plan.refs)
    assert whole is not None
    assert half is not None
    assert whole.valid.all()
    assert [v.name for v in half.variables] == [f"seismic_counts_{d}" for d in ("east", "north", "up")]
    assert half.valid[:, :, 0, 0, 0].all(0).tolist() == [False, False, True]
    np.testing.assert_array_equal(channel(half, "seismic_counts_up")[0], counts(12000)[7600:8600])
    told = "XA.AA.00.BH1 points to azimuth 30 degrees; it is left out where its partner is missing"
    assert told in plan.notes
    (tmp_path / "events.xml").unlink()
    line = SeismicExperiments([tmp_path], SeismicExperiments.Options(frames_per_sample=4000, split="train"))
    assert told in line.plan().notes
    *_, last = line.samples(line.plan().refs)
    assert last is not None
    assert last.valid[:, :, 0, 0, 0].all(0).tolist() == [False, False, True]
    (tmp_path / "BH2.mseed").unlink()
    (tmp_path / "BHZ.mseed").unlink()
    assert "no component points east, north or up" in refusal_of(SeismicExperiments, tmp_path)


def test_the_order_of_inputs_changes_nothing(tmp_path: Path) -> None:
    times = [BEGIN + 100, BEGIN + 300, BEGIN + 500]
    files = [quakes(tmp_path / f"{i}.xml", time) for i, time in enumerate(times)]
    stations(tmp_path / "stations.xml", ("BHZ", 0.0, -90.0))
    trace(counts(12000), "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    files += [tmp_path / "a.mseed", tmp_path / "stations.xml"]
    options = EarthScope.Options(anchor="origin", before=20, after=30, gap=10)
    made = [EarthScope(given, options) for given in (files, files[::-1], [tmp_path], [tmp_path, files[0]])]
    plans = [m.plan() for m in made]
    assert plans[1] == plans[2] == plans[3] == plans[0]
    for one, two in zip(made[0].samples(plans[0].refs), made[1].samples(plans[0].refs), strict=True):
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one.values, two.values)


def test_diffracted_waves_are_first_arrivals_by_either_spelling(tmp_path: Path) -> None:
    made = event("a", BEGIN, [("Pdif", 1), ("Pdiff", 2), ("Sdif", 3), ("Sdiff", 4), ("PcP", 5), ("ScS", 6)])
    Catalog([made]).write(str(tmp_path / "a.xml"), format="QUAKEML")
    (found,) = read_quakeml(tmp_path / "a.xml", [])
    assert [(p.phase, (p.time - BEGIN.ns) / 1e9) for p in found.picks] == [("P", 1), ("P", 2), ("S", 3), ("S", 4)]


def sac(path: Path, station: str = "AA", code: str = "BHZ", **fields: Any) -> Path:
    made = obspy.Trace(counts(4000).astype(np.float32), {"station": station, "network": "XA", "channel": code, "sampling_rate": 20.0})
    made.stats.starttime, made.stats.sac = BEGIN, {"stla": 45.0, "stlo": 7.0, **fields}
    made.write(str(path), format="SAC")
    return path


def test_a_sac_file_without_a_height_says_none(tmp_path: Path) -> None:
    sac(tmp_path / "a.sac")
    (sample,) = samples_of(SeismicExperiments, tmp_path, frames_per_sample=4000, split="train")
    assert {n: float(c.values[0]) for n, c in sample.coordinates.items() if n != "height"} == {"latitude": 45.0, "longitude": 7.0}
    assert np.isnan(sample.coordinates["height"].values).all()
    quakes(tmp_path / "events.xml", BEGIN + 100, BEGIN + 150)
    source = EarthScope([tmp_path], EarthScope.Options(anchor="origin", before=20, after=30, split="train"))
    json.dumps([dict(r.spec) for r in source.plan().refs], allow_nan=False)
    one = next(source.samples(source.plan().refs))
    assert one is not None
    assert np.isnan(one.coordinates["height"].values).all()
    assert one.origin.about["station"] == {"id": "XA.AA..BH", "latitude": 45.0, "longitude": 7.0}
    corpus = Corpus.open(convert(source, tmp_path / "corpus", progress=False))
    assert corpus.manifest["layout"]["geometry"] == "points"


@pytest.mark.parametrize(("station", "code"), [("AA", ""), ("A.A", "BHZ")])
def test_a_sac_file_that_names_no_channel_is_one_sentence(tmp_path: Path, station: str, code: str) -> None:
    sac(tmp_path / "a.sac", station, code)
    assert "names no channel; expected network, station, location and channel" in refusal_of(SeismicExperiments, tmp_path)


def test_files_of_kin_sources_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace(counts(400), "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    quakes(tmp_path / "events.xml", BEGIN)
    sac(tmp_path / "a.sac")
    inputs = [tmp_path / n for n in ("a.mseed", "a.sac", "events.xml")]
    with caplog.at_level(logging.WARNING):
        for source in (EarthScope, SeismicExperiments):
            _warn_of_others(source, inputs)
    assert not caplog.records


def test_inspect_names_stationxml(tmp_path: Path) -> None:
    found = inspect(stations(tmp_path / "stations.xml", ("BHZ", 0.0, -90.0)))
    assert (found["format"], found["source"]) == ("StationXML", None)
    assert "goes beside their waveforms" in format_report(found)
