"""Temporary arrays: stations as points or as series, shots, SAC and miniSEED, gaps, places, rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("obspy")
import obspy
from obspy.core.event import Catalog, Event, Origin
from obspy.core.inventory import Channel, Inventory, Network, Station
from obspy.io.sac import SACTrace
from tests.data_prep.fdsn_server import response
from tests.readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.seismic.events import read_shots
from scigpt.data_prep.sources.seismic_experiments import SeismicExperiments

UTC = obspy.UTCDateTime
BEGIN = UTC(2023, 6, 1)
RATE = 100.0
STATIONS = ("1001", "1002", "1003", "1004")
SHOTS = [("s1", 10.0), ("s2", 40.0), ("s3", 70.5), ("s4", 100.0), ("s5", 130.0), ("s6", 160.0)]


def counts(station: int, size: int = 20000, component: int = 0) -> np.ndarray:
    return np.random.default_rng(10 * station + component).integers(-4000, 4000, size).astype(np.int32)


def inventory(stations: Sequence[str] = STATIONS, rate: float = RATE) -> Any:
    made = []
    for i, name in enumerate(stations):
        place = (45.0 + 0.001 * i, 7.0 + 0.002 * i, 300.0 + i)
        channels = [
            Channel(code, "", *place, 0.0, azimuth, dip, sample_rate=rate, response=response())
            for code, azimuth, dip in (("DPZ", 0.0, -90.0), ("DPN", 0.0, 0.0), ("DPE", 90.0, 0.0))
        ]
        made.append(Station(name, *place, channels))
    return Inventory(networks=[Network("YW", made)], source="test")


def header(station: str, channel: str = "DPZ", start: Any = BEGIN, rate: float = RATE) -> dict[str, Any]:
    return {"network": "YW", "station": station, "channel": channel, "sampling_rate": rate, "starttime": start}


def write_shots(path: Path) -> Path:
    rows = [f"{n},{BEGIN + t},{45.0 + t / 1e4:.5f},7.003,12" for n, t in SHOTS]
    path.write_text("\n".join(["# shots of the line", "id,time,latitude,longitude,depth", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four nodes of one component; 1003 has a gap from 41 to 44 s, 1004 ends at 90 s."""
    out = tmp_path_factory.mktemp("line")
    inventory().write(str(out / "stations.xml"), format="STATIONXML")
    for i, name in enumerate(STATIONS):
        whole = obspy.Trace(counts(i), header(name))
        parts = obspy.Stream([whole])
        if name == "1003":
            parts = obspy.Stream([whole.slice(BEGIN, BEGIN + 41), whole.slice(BEGIN + 44)])
        elif name == "1004":
            parts = obspy.Stream([whole.slice(BEGIN, BEGIN + 90)])
        parts.write(str(out / f"{name}.mseed"), format="MSEED")
    return out


def start_of(sample: Sample) -> float:
    return float(sample.time.seconds[0]) - (BEGIN - UTC(2000, 1, 1))


def test_stations_are_points_and_gaps_are_invalid(folder: Path) -> None:
    samples = samples_of(SeismicExperiments, folder, frames_per_sample=5000, split="train")
    assert [s.values.shape for s in samples] == [(5000, 1, 1, 1, 4)] * 4
    one = samples[0]
    assert one.geometry == "points"
    assert [(v.name, v.unit) for v in one.variables] == [("seismic_counts_up", "count")]
    np.testing.assert_allclose(one.coordinates["latitude"].values, [45.0, 45.001, 45.002, 45.003])
    np.testing.assert_allclose(one.coordinates["longitude"].values, [7.0, 7.002, 7.004, 7.006])
    np.testing.assert_allclose(one.coordinates["height"].values, [300, 301, 302, 303])
    values = np.concatenate([s.values[:, 0, 0, 0] for s in samples])
    valid = np.concatenate([s.valid[:, 0, 0, 0] for s in samples])
    time = np.arange(20000) / RATE
    expected = np.ones((20000, 4), bool)
    expected[(time > 41) & (time < 44), 2] = False
    expected[time > 90, 3] = False
    np.testing.assert_array_equal(valid, expected)
    for i in range(4):
        np.testing.assert_array_equal(values[expected[:, i], i], counts(i)[expected[:, i]].astype(np.float32))
    assert start_of(samples[1]) == pytest.approx(50.0, abs=1e-6)
    np.testing.assert_allclose(np.diff(one.time.seconds), 0.01, atol=2e-7)
    assert one.origin.about["stations"] == [f"YW.{s}..DP" for s in STATIONS]
    assert one.origin.about["network"] == ["YW"]


def test_stations_are_series_on_request(folder: Path) -> None:
    samples = samples_of(SeismicExperiments, folder, layout="series", frames_per_sample=5000, split="train")
    assert len(samples) == 4 * 3 + 2  # 1004 ends in the second window
    by_station: dict[str, list[Sample]] = {}
    for sample in samples:
        assert sample.values.shape[2:] == (1, 1, 1)
        by_station.setdefault(sample.origin.place, []).append(sample)
    np.testing.assert_array_equal(np.concatenate([s.values.ravel() for s in by_station["YW.1002..DP"]]), counts(1).astype(np.float32))
    assert float(by_station["YW.1003..DP"][0].coordinates["longitude"].values[0]) == 7.004


def test_shots_make_windows_and_stay_in_one_split(folder: Path, tmp_path: Path) -> None:
    shots = write_shots(tmp_path / "shots.csv")
    options = SeismicExperiments.Options(shots=str(shots), before=2, after=8, splits=(0.5, 0.25, 0.25))
    source = SeismicExperiments([folder], options)
    plan = source.plan()
    samples = [s for s in source.samples(plan.refs) if s is not None]
    assert len(samples) == 6
    assert {s.name for s in plan.splits} == {"train", "valid", "test"}
    assert (shots.name in dict(plan.inputs)) is True
    for sample in samples:
        shot = dict(SHOTS)[sample.origin.about["shot"]["id"]]
        first = round((shot - 2) * RATE)
        assert start_of(sample) == pytest.approx(shot - 2, abs=1e-6)
        assert sample.values.shape == (1000, 1, 1, 1, 4)
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0, 0], counts(0)[first : first + 1000].astype(np.float32))
        assert sample.coefficients["shot_latitude"] == pytest.approx(45.0 + shot / 1e4)
        assert sample.origin.about["shot"]["depth_km"] == 0.012
    together = [r.split for r in SeismicExperiments([folder], SeismicExperiments.Options(shots=str(shots), before=2, after=40)).plan().refs]
    assert together == sorted(together, key=["train", "valid", "test"].index)
    dense = SeismicExperiments([folder], SeismicExperiments.Options(shots=str(shots), before=2, after=40, splits=(0.5, 0.0, 0.5)))
    plan = dense.plan()
    assert any("windows of the shots overlap" in n for n in plan.notes)
    last = max(r.spec["first"] for r in plan.refs if r.split == "train")
    assert min(r.spec["first"] for r in plan.refs if r.split == "test") - last >= 42e9


def test_shots_come_from_quakeml_too(folder: Path, tmp_path: Path) -> None:
    events = [Event(origins=[Origin(time=BEGIN + t, latitude=45, longitude=7, depth=0)], event_type="explosion") for _, t in SHOTS]
    Catalog(events).write(str(tmp_path / "shots.xml"), format="QUAKEML")
    samples = samples_of(SeismicExperiments, [folder, tmp_path / "shots.xml"], before=2, after=8, split="test")
    assert len(samples) == 6
    assert samples[0].origin.about["shot"]["kind"] == "explosion"


def sac(path: Path, data: np.ndarray, station: str, place: tuple[float, float, float] | None, channel: str = "DPZ", **more: Any) -> Path:
    trace = SACTrace(data=data.astype(np.float32), delta=1 / RATE, kstnm=station, knetwk="YW", kcmpnm=channel)
    trace.reftime, trace.b = BEGIN, 0.0
    if place is not None:
        trace.stla, trace.stlo, trace.stel = place
    for key, value in more.items():
        setattr(trace, key, value)
    trace.write(str(path), byteorder=more.get("byteorder", "little"))
    return path


def test_sac_of_nodes_with_their_places(tmp_path: Path) -> None:
    for i, name in enumerate(STATIONS[:2]):
        sac(tmp_path / f"{name}.sac", counts(i, 3000), name, (45.0 + i, 7.0, 250.0))
    samples = samples_of(SeismicExperiments, tmp_path, frames_per_sample=3000, split="train")
    (sample,) = samples
    assert sample.values.shape == (3000, 1, 1, 1, 2)
    for i in range(2):
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0, i], counts(i, 3000).astype(np.float32))
    np.testing.assert_allclose(sample.coordinates["latitude"].values, [45.0, 46.0])
    np.testing.assert_allclose(sample.coordinates["height"].values, [250.0, 250.0])
    assert start_of(sample) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.01, atol=2e-7)  # its interval is a float32
    assert SeismicExperiments.recognises(tmp_path / "1001.sac")
    assert SeismicExperiments.recognises(tmp_path)


def test_sac_directions_units_and_what_is_refused(tmp_path: Path) -> None:
    place = (45.0, 7.0, 1.0)
    one = sac(tmp_path / "1.sac", counts(0, 3000), "1001", place, "DP1", cmpaz=40.0, cmpinc=90.0)
    two = sac(tmp_path / "2.sac", counts(1, 3000), "1001", place, "DP2", cmpaz=130.0, cmpinc=90.0)
    (sample,) = samples_of(SeismicExperiments, [one, two], frames_per_sample=3000, split="train")
    a = np.deg2rad(40.0)
    north = np.cos(a) * counts(0, 3000) - np.sin(a) * counts(1, 3000)
    np.testing.assert_allclose(sample.values[:, 1, 0, 0, 0], north, rtol=1e-5, atol=1e-2)
    assert [v.name for v in sample.variables] == ["seismic_counts_east", "seismic_counts_north"]
    moving = sac(tmp_path / "v.sac", counts(0, 3000), "1001", place, idep="ivel")
    assert "v.sac says that it holds velocity; give its unit" in refusal_of(SeismicExperiments, moving)
    (sample,) = samples_of(SeismicExperiments, moving, sac_unit="nm/s", frames_per_sample=3000, split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [("ground_velocity_up", "m s**-1")]
    np.testing.assert_allclose(sample.values.ravel(), counts(0, 3000) * 1e-9, rtol=1e-6)
    assert "sac_unit=kelvin is no unit" in refusal_of(SeismicExperiments, moving, sac_unit="kelvin")
    whole = one.read_bytes()
    one.write_bytes(whole[:-3])
    assert "1.sac has 12629 bytes and its header promises 12632; it is truncated or damaged" in refusal_of(SeismicExperiments, one)
    one.write_bytes(whole[:200])
    assert "1.sac is neither miniSEED nor SAC" in refusal_of(SeismicExperiments, one)
    undated = bytearray(whole)
    undated[280:284] = (-12345).to_bytes(4, "little", signed=True)
    one.write_bytes(undated)
    assert "1.sac has no date in its header" in refusal_of(SeismicExperiments, one)


def test_one_rate_and_one_grid(folder: Path, tmp_path: Path) -> None:
    inventory((*STATIONS, "1005")).write(str(tmp_path / "stations.xml"), format="STATIONXML")
    t = np.arange(10000) / 50
    wave = (3000 * np.sin(2 * np.pi * 2 * t)).astype(np.int32)
    obspy.Trace(wave, header("1005", rate=50.0)).write(str(tmp_path / "slow.mseed"), format="MSEED")
    inputs = [*sorted(folder.glob("*.mseed")), tmp_path]
    told = refusal_of(SeismicExperiments, inputs)
    assert "YW.1001..DP? has 100 samples per second and YW.1005..DP? has 50; expected one rate" in told
    (sample,) = samples_of(SeismicExperiments, inputs, rate=50.0, frames_per_sample=10000, split="train", pad=2.0)
    assert sample.values.shape == (10000, 1, 1, 1, 5)
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, 4], wave, rtol=1e-6)
    obspy.Trace(counts(4, 10000), header("1005", start=BEGIN + 0.003)).write(str(tmp_path / "slow.mseed"), format="MSEED")
    source = SeismicExperiments(inputs, SeismicExperiments.Options(frames_per_sample=10000, split="train"))
    plan = source.plan()
    assert any("YW.1005..DPZ in slow.mseed is moved by -0.30 sample intervals" in n for n in plan.notes)
    sample = next(s for s in source.samples(plan.refs) if s is not None)
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, 4], counts(4, 10000).astype(np.float32))


def test_a_clock_that_drifts_is_refused(folder: Path, tmp_path: Path) -> None:
    inventory((*STATIONS, "1005")).write(str(tmp_path / "stations.xml"), format="STATIONXML")
    obspy.Trace(counts(4), header("1005", rate=100.004)).write(str(tmp_path / "fast.mseed"), format="MSEED")
    told = refusal_of(SeismicExperiments, [*sorted(folder.glob("*.mseed")), tmp_path])
    assert "fast.mseed: YW.1005..DPZ has 100.00" in told
    assert "resample one of them" in told


def test_the_recipe_fits_the_options() -> None:
    recipe = yaml.safe_load((Path(__file__).parents[2] / "configs/data/seismic-experiments.yaml").read_text(encoding="ascii"))
    assert recipe["source"] == SeismicExperiments.name
    assert SeismicExperiments.Options(**recipe["options"]).layout == "points"
    assert SeismicExperiments.Fetch is not None
    assert SeismicExperiments.Fetch(**recipe["fetch"]).network == "YW"


def test_response_on_request(folder: Path) -> None:
    options: dict[str, Any] = {
        "response": True,
        "pre_filt": (0.5, 1.0, 40.0, 48.0),
        "frames_per_sample": 5000,
        "split": "train",
        "pad": 10.0,
    }
    samples = samples_of(SeismicExperiments, folder, **options)
    assert [(v.name, v.unit) for v in samples[1].variables] == [("ground_velocity_up", "m s**-1")]
    part = obspy.Trace(counts(1)[4000:11000].astype(float), header("1002", start=BEGIN + 40))
    part.remove_response(inventory(), output="VEL", pre_filt=(0.5, 1.0, 40.0, 48.0), water_level=60)
    np.testing.assert_allclose(samples[1].values[:, 0, 0, 0, 1], part.data[1000:6000], rtol=1e-4, atol=1e-13)
    assert "give a StationXML of level response" in refusal_of(SeismicExperiments, sorted(folder.glob("*.mseed")), **options)


def test_splits_follow_each_other_in_time_and_a_corpus_is_made(folder: Path, tmp_path: Path) -> None:
    source = SeismicExperiments([folder], SeismicExperiments.Options(frames_per_sample=1000, gap=5.0))
    plan = source.plan()
    spans = {
        s: [(r.spec["first"], r.spec["first"] + r.spec["frames"] * 10**7) for r in plan.refs if r.split == s]
        for s in ("train", "valid", "test")
    }
    assert min(spans["valid"])[0] - max(b for _, b in spans["train"]) == pytest.approx(5e9, abs=1e3)
    out = convert(source, tmp_path / "corpus", progress=False)
    corpus = Corpus.open(out)
    assert corpus.manifest["layout"]["geometry"] == "points"
    assert corpus.manifest["layout"]["grid"] == [1, 1, 4]
    assert corpus.manifest["redistributable"] is True


def test_stations_without_a_place_are_no_points(folder: Path, tmp_path: Path) -> None:
    waves = sorted(folder.glob("*.mseed"))
    told = refusal_of(SeismicExperiments, waves)
    assert "nothing says where YW.1001..DP and the other stations are" in told
    assert len(samples_of(SeismicExperiments, waves, layout="series", frames_per_sample=10000, split="train")) > 4
    inventory(STATIONS[:3]).write(str(tmp_path / "stations.xml"), format="STATIONXML")
    source = SeismicExperiments([*waves, tmp_path], SeismicExperiments.Options(split="train"))
    assert any("YW.1004..DP is left out: no StationXML or SAC header says where it is" in n for n in source.plan().notes)


def test_inputs_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x00\x01hello")
    assert "a.bin is neither miniSEED nor SAC, StationXML, QuakeML or a table of shots" in refusal_of(
        SeismicExperiments, [folder, tmp_path / "a.bin"]
    )
    (tmp_path / "a.bin").write_bytes(b"")
    assert "a.bin is empty (0 bytes)" in refusal_of(SeismicExperiments, [folder, tmp_path / "a.bin"])
    assert "holds no waveforms" in refusal_of(SeismicExperiments, folder / "stations.xml")
    whole = (folder / "1001.mseed").read_bytes()
    (tmp_path / "a.bin").write_bytes(whole[: len(whole) - 700])
    assert "a.bin" in refusal_of(SeismicExperiments, [folder, tmp_path / "a.bin"])
    for text, told in (
        ("id,time,latitude,longitude\n1,noon,1,2\n", "'noon' is not a time"),
        ("id,time,latitude,longitude\n1,2023-06-01,1,\n", "the shot has no longitude"),
        ("id,time,latitude,longitude\n1,2023-06-01,1,2\n1,2023-06-02,1,2\n", "stands there twice"),
        ("id,time,latitude\n1,2023-06-01,1\n", "has no column 'longitude'"),
    ):
        (tmp_path / "shots.csv").write_text(text)
        assert told in refusal_of(SeismicExperiments, folder, shots=str(tmp_path / "shots.csv"))
    for words, told in (
        ({"frames_per_sample": 1}, "frames_per_sample=1 must be 2 or more"),
        ({"rate": -1.0}, "rate=-1 must be a number above 0"),
        ({"min_valid": 2.0}, "min_valid=2 must be a share"),
        ({"after": 0.0}, "before, gap and pad are seconds"),
    ):
        assert told in refusal_of(SeismicExperiments, folder, **words)  # type: ignore[arg-type]
    assert not SeismicExperiments.recognises(folder / "1001.mseed")
    assert SeismicExperiments.describe().extra == "seismic"


def test_shots_are_read_to_the_microsecond(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").write_text("id,time,latitude,longitude\na,2023-06-01T01:02:03.456789Z,1.5,-2.5\n")
    (shot,) = read_shots(tmp_path / "shots.csv")
    assert shot.time == UTC(2023, 6, 1, 1, 2, 3, 456789).ns
    assert (shot.id, shot.latitude, shot.longitude, shot.depth) == ("a", 1.5, -2.5, None)


def test_real_records_as_a_line_of_stations() -> None:
    """Two real records at their real rate; the place of one is in its StationXML, so the other is left out."""
    record, stations = real("earthscope/IU_ULN_00_LH1_2015-07-18T02.mseed"), real("earthscope/IU_ULN_00_LH1.xml")
    (sample,) = samples_of(SeismicExperiments, [record, stations], frames_per_sample=10800, split="train")
    np.testing.assert_array_equal(sample.values.ravel(), obspy.read(str(record))[0].data.astype(np.float32))
    assert sample.geometry == "points"
    samples = samples_of(
        SeismicExperiments, real("earthscope/gaps.mseed"), layout="series", frames_per_sample=100000, min_valid=0.1, split="train"
    )
    merged = obspy.read(str(real("earthscope/gaps.mseed"))).merge()[0]
    (sample,) = samples
    gone = np.ma.getmaskarray(merged.data)
    np.testing.assert_array_equal(sample.valid.ravel(), ~gone)
    np.testing.assert_array_equal(sample.values.ravel()[~gone], merged.data.compressed().astype(np.float32))
