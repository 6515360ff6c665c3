"""Earthquakes: windows, arrivals, gaps, directions, response and rates, each against obspy's own reading or plain arithmetic."""

from __future__ import annotations

import contextlib
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("obspy")
import obspy
from obspy.core.event import Catalog, Event, Magnitude, Origin
from obspy.geodetics import gps2dist_azimuth, locations2degrees
from obspy.taup import TauPyModel
from tests.data_prep.fdsn_server import BEGIN, PLACES, network_catalogue, network_inventory, network_stream
from tests.readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.seismic import waveforms, windows
from scigpt.data_prep.seismic.events import read_quakeml
from scigpt.data_prep.seismic.splits import clusters, homes
from scigpt.data_prep.source import SampleRef
from scigpt.data_prep.sources.earthscope import EarthScope
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.errors import UserError

UTC = obspy.UTCDateTime
BUNDLED = Path(obspy.__file__).parent
EVENTS = [BEGIN + 3600 + 14400 * i for i in range(6)]


@pytest.fixture(scope="module")
def stream() -> Any:
    return network_stream()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stream: Any) -> Path:
    """As a fetch leaves it: catalogue, stations, and a file for each event and station."""
    out = tmp_path_factory.mktemp("quakes")
    network_catalogue().write(str(out / "events.xml"), format="QUAKEML")
    network_inventory().write(str(out / "stations.xml"), format="STATIONXML")
    (out / "waveforms").mkdir()
    for i, time in enumerate(EVENTS):
        for station in PLACES:
            part = stream.select(station=station).slice(time - 100, time + 160)
            if part:
                part.write(str(out / "waveforms" / f"{i}.{station}.mseed"), format="MSEED", reclen=512)
    return out


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Sample]:
    source = EarthScope([folder], EarthScope.Options(before=10, after=40))
    plan = source.plan()
    return {ref.key: s for ref, s in zip(plan.refs, source.samples(plan.refs), strict=True) if s is not None}


def quakes(path: Path, *times: Any, place: tuple[float, float] = (40.2, 20.1)) -> Path:
    events = []
    for time in times:
        origin = Origin(time=time, latitude=place[0], longitude=place[1], depth=1e4)
        events.append(Event(origins=[origin], magnitudes=[Magnitude(mag=5)]))
    Catalog(events).write(str(path), format="QUAKEML")
    return path


def trace(data: np.ndarray, channel: str, start: Any = BEGIN, rate: float = 20.0, station: str = "AA", location: str = "00") -> Any:
    header = {"network": "XA", "station": station, "location": location, "channel": channel, "sampling_rate": rate}
    return obspy.Trace(data, {**header, "starttime": start})


def counts(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-5000, 5000, size).astype(np.int32)


def channel(sample: Sample, name: str) -> tuple[np.ndarray, np.ndarray]:
    at = [v.name for v in sample.variables].index(name)
    return sample.values[:, at, 0, 0, 0], sample.valid[:, at, 0, 0, 0]


def start_of(sample: Sample) -> Any:
    return UTC(2000, 1, 1) + float(sample.time.seconds[0])


def test_a_window_holds_the_samples_around_the_pick(made: dict[str, Sample], stream: Any) -> None:
    assert len(made) == 6 + 6 + 3  # CC stops after ten hours
    sample = made["000000-xa-aa-00-bh"]
    assert [v.name for v in sample.variables] == [*(f"seismic_counts_{d}" for d in ("east", "north", "up")), "p_arrival", "s_arrival"]
    assert [v.role for v in sample.variables] == ["state"] * 3 + ["diagnostic"] * 2
    assert sample.values.shape == (1000, 5, 1, 1, 1)
    pick = EVENTS[0] + 5.0
    assert 0 <= start_of(sample) - (pick - 10) < 0.05
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.05, atol=1e-7)
    own = stream.select(station="AA").slice(start_of(sample), start_of(sample) + 49.95)
    np.testing.assert_array_equal(channel(sample, "seismic_counts_up")[0], own.select(channel="BHZ")[0].data)
    one, two = (own.select(channel=c)[0].data.astype(float) for c in ("BH1", "BH2"))
    north, east = np.cos(np.pi / 6) * one - np.sin(np.pi / 6) * two, np.sin(np.pi / 6) * one + np.cos(np.pi / 6) * two
    np.testing.assert_allclose(channel(sample, "seismic_counts_north")[0], north, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(channel(sample, "seismic_counts_east")[0], east, rtol=1e-5, atol=1e-3)
    assert {n: float(c.values[0]) for n, c in sample.coordinates.items()} == {"latitude": 40.0, "longitude": 20.0, "height": 500.0}
    about = sample.origin.about
    metres, _, back = gps2dist_azimuth(40.2, 20.1, 40.0, 20.0)
    assert (about["distance_km"], about["back_azimuth"]) == (round(metres / 1000, 3), round(back, 3))
    assert (about["event"]["magnitude"], about["event"]["magnitude_type"], about["event"]["depth_km"]) == (3.0, "Mw", 8.0)
    assert (about["event"]["kind"], about["anchor"], about["quality"]) == ("earthquake", "pick", "D")
    assert sample.origin.place == "XA.AA.00.BH"
    assert {f.name for f in sample.origin.files} == {"0.AA.mseed"}


def test_labels_are_bells_at_the_picks_and_unknown_where_nobody_picked(made: dict[str, Sample]) -> None:
    for i in range(6):
        sample = made[f"{i:06d}-xa-aa-00-bh"]
        for name, after in (("p_arrival", 5.0 + 0.0123 * i), ("s_arrival", 8.6)):
            values, valid = channel(sample, name)
            index = (EVENTS[i] + after - start_of(sample)) * 20
            assert valid.all()
            np.testing.assert_allclose(values, np.exp(-((np.arange(1000) - index) ** 2) / 18), atol=2e-5)
        values, valid = channel(made[f"{i:06d}-xa-bb-00-bh"], "s_arrival")
        assert not valid.any()  # not picked there: unknown, never zero
        assert channel(made[f"{i:06d}-xa-bb-00-bh"], "p_arrival")[1].all()
    assert not channel(made["000000-xa-cc-00-bh"], "p_arrival")[1].any()


def test_without_a_pick_the_window_follows_the_standard_earth(made: dict[str, Sample]) -> None:
    sample = made["000001-xa-cc-00-bh"]
    degrees = locations2degrees(40.25, 20.1, 41.0, 19.5)
    first = min(a.time for a in TauPyModel("iasp91").get_travel_times(8.1, degrees, ["ttp"]))
    assert abs(start_of(sample) - (EVENTS[1] + first - 10)) < 0.06
    assert sample.origin.about["anchor"] == "iasp91"


def test_gaps_are_invalid_and_never_zero(made: dict[str, Sample]) -> None:
    sample = made["000000-xa-cc-00-bh"]
    time = start_of(sample)
    gone = np.array([EVENTS[0] + 20.001 < time + 0.05 * k < EVENTS[0] + 39.999 for k in range(1000)])
    np.testing.assert_array_equal(sample.valid[:, 2, 0, 0, 0], ~gone)
    assert 300 < gone.sum() < 400


def test_horizontals_are_turned_by_the_azimuths_of_their_time(made: dict[str, Sample], stream: Any) -> None:
    """BB was turned at noon: event 2 comes before, event 3 after."""
    for event, angle in ((2, 30.0), (3, 75.0)):
        sample = made[f"{event:06d}-xa-bb-00-bh"]
        own = stream.select(station="BB").slice(start_of(sample), start_of(sample) + 49.95)
        one, two = (own.select(channel=c)[0].data.astype(float) for c in ("BH1", "BH2"))
        a = np.deg2rad(angle)
        np.testing.assert_allclose(channel(sample, "seismic_counts_north")[0], np.cos(a) * one - np.sin(a) * two, rtol=1e-5, atol=1e-3)


def test_radial_and_transverse_as_obspy_turns_them(folder: Path, made: dict[str, Sample]) -> None:
    turned = samples_of(EarthScope, folder, before=10, after=40, rotate="zrt", split="train", labels="none")
    one = next(s for s in turned if s.origin.place == "XA.AA.00.BH" and s.origin.about["event"]["magnitude"] == 3.0)
    assert [v.name for v in one.variables] == ["seismic_counts_up", "seismic_counts_radial", "seismic_counts_transverse"]
    plain = made["000000-xa-aa-00-bh"]
    stream = obspy.Stream(
        [trace(channel(plain, f"seismic_counts_{d}")[0].astype(float), f"BH{c}") for d, c in (("north", "N"), ("east", "E"))]
    )
    stream.rotate("NE->RT", back_azimuth=plain.origin.about["back_azimuth"])
    for name, letter in (("radial", "R"), ("transverse", "T")):
        np.testing.assert_allclose(channel(one, f"seismic_counts_{name}")[0], stream.select(component=letter)[0].data, rtol=1e-3, atol=0.5)


def test_unturned_components_keep_names_of_their_own(folder: Path, stream: Any) -> None:
    samples = samples_of(EarthScope, folder, before=10, after=40, rotate="none", split="train", labels="none", channels="XA.AA.*")
    assert [v.name for v in samples[0].variables] == ["seismic_counts_up", "seismic_counts_horizontal_1", "seismic_counts_horizontal_2"]
    own = stream.select(station="AA", channel="BH2").slice(start_of(samples[0]), start_of(samples[0]) + 49.95)[0].data
    np.testing.assert_array_equal(channel(samples[0], "seismic_counts_horizontal_2")[0], own)


def test_events_and_their_aftershocks_stay_in_one_split(folder: Path) -> None:
    plan = EarthScope([folder], EarthScope.Options(before=10, after=40, splits=(0.4, 0.3, 0.3))).plan()
    homes_of: dict[str, set[str]] = {}
    for ref in plan.refs:
        homes_of.setdefault(ref.spec["about"]["event"]["id"], set()).add(ref.split)
    assert all(len(h) == 1 for h in homes_of.values())
    assert {s.name for s in plan.splits} == {"train", "valid", "test"}
    plan = EarthScope([folder], EarthScope.Options(before=10, after=40, split_by="time", splits=(0.5, 0.25, 0.25))).plan()
    last = {s: max(r.spec["first"] for r in plan.refs if r.split == s) for s in ("train", "valid", "test")}
    first = {s: min(r.spec["first"] for r in plan.refs if r.split == s) for s in ("train", "valid", "test")}
    assert last["train"] < first["valid"] <= last["valid"] < first["test"]
    plan = EarthScope([folder], EarthScope.Options(before=10, after=40, split_by="station", splits=(0.34, 0.33, 0.33))).plan()
    stations = {(r.spec["name"], r.split) for r in plan.refs}
    assert len(stations) == 3
    plan = EarthScope([folder], EarthScope.Options(before=10, after=40, gap=20000)).plan()
    assert {r.split for r in plan.refs} == {"train"}
    assert any("1 groups of events are too few for 3 splits" in n for n in plan.notes)
    assert clusters([10**9, 90 * 10**9, 15 * 10**9], 20) == [0, 1, 0]
    sizes = {f"e{i}": 1 for i in range(20)} | {"swarm": 30}
    for seed in range(5):
        found = homes(sizes, (0.8, 0.1, 0.1), seed, [])
        assert found["swarm"] == "train"
        assert [sum(sizes[n] for n, s in found.items() if s == split) for split in ("valid", "test")] == [5, 5]
    assert homes(sizes, (0.8, 0.1, 0.1), 1, []) != homes(sizes, (0.8, 0.1, 0.1), 2, [])


def test_windows_of_noise_have_no_arrival(folder: Path) -> None:
    source = EarthScope([folder], EarthScope.Options(before=10, after=40, noise=1.0, quiet=5, split="train"))
    plan = source.plan()
    quiet = [(r, s) for r, s in zip(plan.refs, source.samples(plan.refs), strict=True) if r.key.endswith("-noise")]
    assert len(quiet) == 15
    ref, sample = quiet[0]
    assert sample is not None
    assert sample.valid[:, 3:].all()
    assert not sample.values[:, 3:].any()
    assert ref.spec["about"]["noise"] is True
    record = next(r for r in plan.refs if f"{r.key}-noise" == ref.key)
    assert record.spec["first"] - ref.spec["first"] == pytest.approx((40 + 5) * 1e9, abs=0.06e9)


def test_overlaps_must_agree_and_files_of_neighbours_are_put_together(tmp_path: Path) -> None:
    data = counts(4000)
    quakes(tmp_path / "events.xml", BEGIN + 100)
    trace(data[:2200], "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    trace(data[2000:], "BHZ", BEGIN + 100).write(str(tmp_path / "b.mseed"), format="MSEED")
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    np.testing.assert_array_equal(channel(sample, "seismic_counts_up")[0], data[1600:2600])
    assert [f.name for f in sample.origin.files] == ["a.mseed", "b.mseed"]
    trace(data[2000:] + 1, "BHZ", BEGIN + 100).write(str(tmp_path / "b.mseed"), format="MSEED")
    told = refusal_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    assert "b.mseed: XA.AA.00.BHZ overlaps other samples of the same time that differ" in told


def test_traces_off_the_grid_are_noted_and_a_clock_of_another_rate_is_refused(tmp_path: Path) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    trace(counts(4000), "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    trace(counts(4000, 1), "BHN", BEGIN + 0.02).write(str(tmp_path / "b.mseed"), format="MSEED")
    source = EarthScope([tmp_path], EarthScope.Options(anchor="origin", before=20, after=30))
    plan = source.plan()
    assert any("XA.AA.00.BHN in b.mseed is moved by -0.40 sample intervals" in n for n in plan.notes)
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    np.testing.assert_array_equal(channel(sample, "seismic_counts_north")[0], counts(4000, 1)[1600:2600])
    drifting = trace(counts(4000, 1), "BHN", rate=20.004)
    drifting.write(str(tmp_path / "b.mseed"), format="MSEED")
    told = refusal_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    assert "a.mseed: XA.AA.00.BHZ has 20 samples per second and its window 20.004" in told
    assert "resample one of them" in told


def test_each_sample_keeps_the_rate_of_its_instrument_or_all_are_brought_to_one(tmp_path: Path) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    times = {rate: np.arange(200 * rate) / rate for rate in (20, 50)}
    wave = {rate: (5000 * np.sin(2 * np.pi * 1.3 * t) + 700).astype(np.int32) for rate, t in times.items()}
    fast = (4000 * np.sin(2 * np.pi * 17 * times[50])).astype(np.int32)
    trace(wave[20], "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    trace(wave[50] + fast, "HHZ", station="BB", rate=50.0).write(str(tmp_path / "b.mseed"), format="MSEED")
    slow, quick = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30, split="train")
    assert [len(s.time) for s in (slow, quick)] == [1000, 2500]
    assert [s.origin.about["sampling_rate"] for s in (slow, quick)] == [20.0, 50.0]
    one, two = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30, split="train", rate=20.0)
    assert len(one.time) == len(two.time) == 1000
    at = one.time.seconds - (BEGIN - UTC(2000, 1, 1))
    for sample in (one, two):  # 17 Hz would fold to 3 Hz
        np.testing.assert_allclose(channel(sample, "seismic_counts_up")[0], 5000 * np.sin(2 * np.pi * 1.3 * at) + 700, atol=1.5)


@pytest.mark.parametrize(("up", "down"), [(1, 5), (2, 5), (1, 2), (2, 1), (3, 2), (5, 4)])
def test_resampling_is_exact_within_and_unknown_where_the_filter_reaches_beyond(up: int, down: int) -> None:
    """A trend, and waves up to four fifths of the lower Nyquist frequency."""

    def signal(t: np.ndarray) -> np.ndarray:
        waves = sum(40 * np.sin(2 * np.pi * share * 50 * min(up / down, 1) * t + share) for share in (0.02, 0.4, 0.8))
        return np.asarray(1e4 + 300 * t + waves)

    at = 7
    first, made = windows.resampled(signal((at + np.arange(4000)) / 100), at, up, down)
    time = (first + np.arange(made.size)) * down / up / 100
    assert (first - 1) * down < at * up <= first * down
    known = np.isfinite(made)
    reach = windows.REACH * max(up, down) / up / 100
    np.testing.assert_array_equal(known, (time - reach > at / 100 - 1e-9) & (time + reach < (at + 3999) / 100 + 1e-9))
    np.testing.assert_allclose(made[known], signal(time[known]), atol=0.02)


def test_resampled_windows_have_no_wrong_ends(tmp_path: Path) -> None:
    """Where the record begins and ends within a window; elsewhere samples around it are read for the filter, however short pad= is."""
    quakes(tmp_path / "events.xml", BEGIN + 20, BEGIN + 100)
    wave = np.round(5000 * np.sin(2 * np.pi * 0.7 * np.arange(4000) / 20) + 30 * np.arange(4000)).astype(np.int32)
    trace(wave, "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    start, middle = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30, rate=5.0, pad=0.0, split="train")
    known = channel(start, "seismic_counts_up")[1]
    np.testing.assert_array_equal(known, np.arange(250) >= 32)
    assert middle.valid.all()
    for sample in (start, middle):
        values, valid = channel(sample, "seismic_counts_up")
        at = round((start_of(sample) - BEGIN) * 20)
        np.testing.assert_allclose(values[valid], wave[at : at + 1000 : 4][valid], atol=2)


def test_response_removal_equals_obspy(folder: Path, stream: Any) -> None:
    options: dict[str, Any] = {
        "before": 10,
        "after": 40,
        "response": True,
        "pad": 60.0,
        "pre_filt": (0.05, 0.1, 8.0, 9.5),
        "labels": "none",
    }
    samples = samples_of(EarthScope, folder, split="train", channels="XA.AA.*", **options)
    one = samples[0]
    assert [(v.name, v.unit) for v in one.variables] == [(f"ground_velocity_{d}", "m s**-1") for d in ("east", "north", "up")]
    first = round((start_of(one) - BEGIN) * 20)
    own = stream.select(station="AA", channel="BHZ")[0]
    window = trace(own.data[first - 1200 : first + 1000 + 1200].astype(float), "BHZ", BEGIN + (first - 1200) / 20)
    window.remove_response(network_inventory(), output="VEL", pre_filt=(0.05, 0.1, 8.0, 9.5), water_level=60)
    np.testing.assert_allclose(channel(one, "ground_velocity_up")[0], window.data[1200:2200], rtol=1e-4, atol=1e-12)
    assert one.valid.all()
    told = refusal_of(EarthScope, [folder / "events.xml", *sorted((folder / "waveforms").iterdir())], **options)
    assert "response=true needs the instruments' responses" in told


def test_what_the_taper_touches_is_invalid(tmp_path: Path) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    network_inventory().write(str(tmp_path / "stations.xml"), format="STATIONXML")
    trace(counts(2000), "BHZ", BEGIN + 80).write(str(tmp_path / "a.mseed"), format="MSEED")
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=80, response=True, labels="none")
    known = channel(sample, "ground_velocity_up")[1]
    np.testing.assert_array_equal(np.flatnonzero(~known), np.concatenate([np.arange(100), np.arange(1900, 2000)]))


def test_infrasound_is_a_pressure_in_pascal(tmp_path: Path) -> None:
    stations = BUNDLED / "core/tests/data/IM_I53H1_BDF.xml"
    shutil.copyfile(stations, tmp_path / "stations.xml")
    found = obspy.read_inventory(str(stations))[0][0]
    data, rate = counts(4000), found[0].sample_rate
    start = found[0].start_date + 86400
    sound = obspy.Trace(data, {"network": "IM", "station": "I53H1", "channel": "BDF", "sampling_rate": rate, "starttime": start})
    sound.write(str(tmp_path / "a.mseed"), format="MSEED")
    quakes(tmp_path / "events.xml", start + 100, place=(64.0, -147.0))
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    assert [(v.name, v.unit) for v in sample.variables] == [("pressure_counts", "count")]
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30, response=True, pre_filt=(0.1, 0.2, 8, 9), pad=40.0)
    assert [(v.name, v.unit) for v in sample.variables] == [("acoustic_pressure", "Pa")]
    first = round((start_of(sample) - start) * rate)
    window = sound.slice(start_of(sample) - 40, start_of(sample) + 90 - 1 / rate)
    window.data = window.data.astype(float)
    window.remove_response(obspy.read_inventory(str(stations)), output="DEF", pre_filt=(0.1, 0.2, 8, 9), water_level=60)
    np.testing.assert_allclose(sample.values.ravel(), window.data[round(40 * rate) :][: sample.values.size], rtol=1e-4, atol=1e-9)
    assert np.abs(sample.values).max() < np.abs(data).max() / 1e4
    assert first > 0


@pytest.mark.parametrize("quality", ["D", "R", "Q", "M"])
def test_every_quality_code_is_read_and_kept(tmp_path: Path, quality: str) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    data = trace(counts(4000), "BHZ")
    data.stats.mseed = {"dataquality": quality}
    data.write(str(tmp_path / "a.mseed"), format="MSEED")
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    np.testing.assert_array_equal(sample.values.ravel(), counts(4000)[1600:2600])
    assert sample.origin.about["quality"] == quality
    assert (tmp_path / "a.mseed").read_bytes()[6:7] == quality.encode()


@pytest.mark.parametrize(("encoding", "kind"), [("STEIM1", np.int32), ("STEIM2", np.int32), ("INT32", np.int32), ("FLOAT32", np.float32)])
def test_encodings_and_record_lengths(tmp_path: Path, encoding: str, kind: Any) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    for length, letter in ((512, "Z"), (4096, "N")):
        trace(counts(4000).astype(kind), f"BH{letter}").write(
            str(tmp_path / f"{length}.mseed"), format="MSEED", reclen=length, encoding=encoding
        )
    (sample,) = samples_of(EarthScope, tmp_path, anchor="origin", before=20, after=30)
    for name in ("north", "up"):
        np.testing.assert_array_equal(channel(sample, f"seismic_counts_{name}")[0], counts(4000)[1600:2600])


def test_large_files_are_read_by_window(folder: Path, made: dict[str, Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveforms, "WHOLE", 0)
    source = EarthScope([folder], EarthScope.Options(before=10, after=40))
    plan = source.plan()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        np.testing.assert_array_equal(sample.values, made[ref.key].values)
        np.testing.assert_array_equal(sample.valid, made[ref.key].valid)


def test_one_instrument_of_a_station_unless_all_are_wanted(tmp_path: Path) -> None:
    quakes(tmp_path / "events.xml", BEGIN + 100)
    for code in ("LHZ", "BHZ", "HNZ"):
        trace(counts(4000), code).write(str(tmp_path / f"{code}.mseed"), format="MSEED")
    words: dict[str, Any] = {"anchor": "origin", "before": 20, "after": 30, "split": "train"}
    assert [s.origin.place for s in samples_of(EarthScope, tmp_path, **words)] == ["XA.AA.00.BH"]
    assert len(samples_of(EarthScope, tmp_path, every=True, **words)) == 3
    assert [s.origin.place for s in samples_of(EarthScope, tmp_path, prefer=("HN",), **words)] == ["XA.AA.00.HN"]
    assert "no seismogram matches channels=*.XX?; there are XA.AA.00.BHZ" in refusal_of(EarthScope, tmp_path, channels="*.XX?", **words)


def test_a_corpus_and_a_sample_alone(folder: Path, made: dict[str, Sample], tmp_path: Path) -> None:
    source = EarthScope([folder], EarthScope.Options(before=10, after=40))
    out = convert(source, tmp_path / "corpus", progress=False)
    corpus = Corpus.open(out)
    assert corpus.manifest["use"] == "train"
    assert corpus.manifest["layout"]["variables"][-1]["name"] == "s_arrival"
    assert sum(s["samples"] for s in corpus.manifest["splits"].values()) == len(made)
    for ref in source.plan().refs[::5]:  # alone, in a process of its own
        through_json = SampleRef(ref.key, ref.split, json.loads(json.dumps(dict(ref.spec))))
        (alone,) = EarthScope([folder], source.options).samples([through_json])
        assert alone is not None
        np.testing.assert_array_equal(alone.values, made[ref.key].values)


def test_recognises_and_describes(folder: Path, tmp_path: Path) -> None:
    assert EarthScope.recognises(folder)
    assert EarthScope.recognises(folder / "events.xml")
    assert not EarthScope.recognises(folder / "waveforms" / "0.AA.mseed")
    assert not EarthScope.recognises(tmp_path)
    assert not EarthScope.recognises(tmp_path / "nothing")
    recipe = yaml.safe_load((Path(__file__).parents[2] / "configs/data/earthscope.yaml").read_text(encoding="ascii"))
    assert EarthScope.Options(**recipe["options"]).split_by == "event"
    assert EarthScope.Fetch is not None
    assert EarthScope.Fetch(**recipe["fetch"]).network == "IU"
    about = EarthScope.describe()
    assert (about.name, about.extra, about.use) == ("earthscope", "seismic", "train")


def test_inputs_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    waves = sorted((folder / "waveforms").iterdir())
    assert "holds no event (QuakeML)" in refusal_of(EarthScope, waves)
    assert "holds no waveforms (miniSEED or SAC)" in refusal_of(EarthScope, folder / "events.xml")
    (tmp_path / "a.txt").write_text("hello\n")
    assert "a.txt is neither miniSEED nor SAC, QuakeML or StationXML" in refusal_of(EarthScope, [folder, tmp_path / "a.txt"])
    (tmp_path / "empty.mseed").write_bytes(b"")
    assert "empty.mseed is empty (0 bytes)" in refusal_of(EarthScope, [folder, tmp_path / "empty.mseed"])
    assert "twice" in refusal_of(EarthScope, [folder, shutil.copyfile(folder / "events.xml", tmp_path / "more.xml")])
    for name in ("events.xml", "stations.xml", "waveforms/0.AA.mseed"):
        whole = (folder / name).read_bytes()
        for share in (0.3, 0.9):
            cut = tmp_path / f"{share}-{Path(name).name}"
            cut.write_bytes(whole[: int(share * len(whole)) - 7])
            others = [p for p in (folder / "events.xml", folder / "stations.xml", *waves) if p != folder / name]
            assert cut.name in refusal_of(EarthScope, [cut, *others], response=True), (name, share)
    for words, told in (
        ({"before": -1.0}, "before=-1 and after=90"),
        ({"pre_filt": (1.0, 2.0)}, "pre_filt=1,2 must be four rising frequencies"),
        ({"noise": 2.0}, "noise=2 must be a share"),
        ({"rate": 0.0}, "rate=0 must be a number above 0"),
        ({"rate": 7.123456}, "have no ratio of small whole numbers"),
        ({"split_by": "given"}, "split_by=given needs a dataset"),
    ):
        assert told in refusal_of(EarthScope, folder, **words)  # type: ignore[arg-type]


def test_flipped_bits_of_steim_are_seen(folder: Path, tmp_path: Path) -> None:
    """The difference frames of a record end on a value that it states; headers and the flags between records have no such check."""
    whole = bytearray((folder / "waveforms" / "0.AA.mseed").read_bytes())
    seen = 0
    for at in range(700, len(whole), len(whole) // 12):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        (tmp_path / "a.mseed").write_bytes(damaged)
        inputs = [folder / "events.xml", folder / "stations.xml", tmp_path / "a.mseed"]
        with contextlib.suppress(UserError):
            samples_of(EarthScope, inputs, before=10, after=40, split="train")
            continue
        seen += 1
        assert "a.mseed" in refusal_of(EarthScope, inputs, before=10, after=40, split="train")
    assert seen >= 9


# real files


def test_real_events_as_a_plain_parser_reads_them() -> None:
    path = real("earthscope/iris_events.xml")
    events = read_quakeml(path, [])
    names = {"q": "http://quakeml.org/xmlns/bed/1.2"}
    for event, node in zip(events, ET.parse(path).getroot().iterfind(".//q:event", names), strict=True):

        def number(tag: str, node: Any = node) -> float:
            return float(node.find(f".//q:{tag}/q:value", names).text)

        assert event.id == node.attrib["publicID"]
        assert (event.latitude, event.longitude, event.magnitude) == (number("latitude"), number("longitude"), number("mag"))
        assert event.depth == number("depth") / 1000  # QuakeML counts in metres
        time = node.find(".//q:time/q:value", names).text
        assert event.time == int(np.datetime64(time, "ns").astype(np.int64))
        assert event.magnitude_type == node.find(".//q:magnitude/q:type", names).text


def test_real_station_and_record_with_response(tmp_path: Path) -> None:
    record, stations = real("earthscope/IU_ULN_00_LH1_2015-07-18T02.mseed"), real("earthscope/IU_ULN_00_LH1.xml")
    whole = obspy.read(str(record))[0]
    corners = (0.002, 0.004, 0.2, 0.4)
    time = whole.stats.starttime + 5000
    quakes(tmp_path / "events.xml", time, place=(-10.4, 165.1))
    inputs = [tmp_path / "events.xml", record, stations]
    words: dict[str, Any] = {"anchor": "origin", "before": 600, "after": 2000}
    (raw,) = samples_of(EarthScope, inputs, **words)
    assert [v.name for v in raw.variables] == ["seismic_counts_north"]
    np.testing.assert_array_equal(raw.values.ravel(), whole.data[4400:7000].astype(np.float32))
    (sample,) = samples_of(EarthScope, inputs, response=True, pre_filt=corners, pad=1000.0, **words)
    part = whole.slice(whole.stats.starttime + 3400, whole.stats.starttime + 7999)
    part.data = part.data.astype(float)
    part.remove_response(obspy.read_inventory(str(stations)), output="VEL", pre_filt=corners, water_level=60)
    np.testing.assert_allclose(sample.values.ravel(), part.data[1000:3600], rtol=1e-5, atol=1e-13)
    place = obspy.read_inventory(str(stations)).get_coordinates("IU.ULN.00.LH1", time)
    assert {n: float(c.values[0]) for n, c in sample.coordinates.items()} == {
        "latitude": place["latitude"], "longitude": place["longitude"], "height": place["elevation"],
    }  # fmt: skip


def test_real_gaps(tmp_path: Path) -> None:
    path = real("earthscope/gaps.mseed")
    merged = obspy.read(str(path)).merge()[0]
    quakes(tmp_path / "events.xml", merged.stats.starttime)
    length = merged.stats.npts / 200
    (sample,) = samples_of(EarthScope, [path, tmp_path / "events.xml"], anchor="origin", before=0, after=length, min_valid=0.1)
    gone = np.ma.getmaskarray(merged.data)
    np.testing.assert_array_equal(sample.valid.ravel(), ~gone)
    np.testing.assert_array_equal(sample.values.ravel()[~gone], merged.data.compressed().astype(np.float32))


def test_miniseed_turns_a_vertical_that_points_down(tmp_path: Path) -> None:
    inventory = network_inventory()
    for found in inventory[0][0]:
        found.dip = 90.0 if found.code == "BHZ" else found.dip
    inventory.write(str(tmp_path / "stations.xml"), format="STATIONXML")
    trace(counts(400), "BHZ").write(str(tmp_path / "a.mseed"), format="MSEED")
    (sample,) = samples_of(Miniseed, tmp_path / "a.mseed", stationxml=str(tmp_path / "stations.xml"), split="train")
    np.testing.assert_array_equal(sample.values.ravel(), -counts(400).astype(np.float32))
