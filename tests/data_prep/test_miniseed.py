"""miniSEED: equal to obspy's own reading, gaps invalid, components named by direction, response and filters on request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scigpt.data.sample import Sample
from scigpt.data_prep.embedded import resolve
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.errors import UserError

obspy = pytest.importorskip("obspy")
BUNDLED = Path(obspy.__file__).parent


def read(*paths: Path | str, **options: Any) -> list[Sample]:
    source = Miniseed([Path(p) for p in paths], Miniseed.Options(**options))
    return list(source.samples(source.plan().refs))


def write(path: Path, *pieces: tuple[str, float, np.ndarray], rate: float = 10.0) -> Path:
    """Traces `(channel, seconds after the start, samples)` of the station XX.ABC, written by obspy."""
    stream = obspy.Stream()
    for channel, after, data in pieces:
        header = {"network": "XX", "station": "ABC", "channel": channel, "sampling_rate": rate}
        stream += obspy.Trace(data, {**header, "starttime": obspy.UTCDateTime(2020, 1, 1) + after})
    stream.write(str(path), format="MSEED")
    return path


def counts(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-5000, 5000, size).astype(np.int32)


def test_three_components_with_a_gap_in_one(tmp_path: Path) -> None:
    e, n, z = (counts(1000, s) for s in range(3))
    path = write(tmp_path / "a.mseed", ("BHZ", 0, z), ("BHN", 0, n), ("BHE", 0, e[:300]), ("BHE", 50.0, e[500:]))
    (sample,) = read(path, split="train")
    assert [v.name for v in sample.variables] == ["seismic_counts_east", "seismic_counts_north", "seismic_counts_up"]
    assert sample.values.shape == (1000, 3, 1, 1, 1)
    expected = np.ones(1000, bool)
    expected[300:500] = False
    np.testing.assert_array_equal(sample.valid[:, 0, 0, 0, 0], expected)
    assert sample.valid[:, 1:].all()
    for channel, data in enumerate((e, n, z)):
        known = sample.valid[:, channel, 0, 0, 0]
        np.testing.assert_array_equal(sample.values[known, channel, 0, 0, 0], data[known].astype(np.float32))
    assert sample.time.calendar == "standard"
    assert sample.time.labels()[0] == "2020-01-01T00:00:00"
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.1, atol=1e-7)
    assert sample.origin.place == "XX.ABC..BH"


def test_a_gap_longer_than_a_sample_begins_a_new_record(tmp_path: Path) -> None:
    a, b = counts(200, 1), counts(150, 2)
    path = write(tmp_path / "a.mseed", ("BHZ", 0, a), ("BHZ", 3600.0, b))
    samples = read(path, split="train", frames_per_sample=100)
    assert [s.valid.all() for s in samples] == [True] * 4
    np.testing.assert_array_equal(np.concatenate([s.values.ravel() for s in samples]), np.concatenate([a, b]))
    assert samples[2].time.labels()[0] == "2020-01-01T01:00:00"


def test_samples_do_not_depend_on_which_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mseed", ("BHZ", 0, counts(900)), ("BHZ", 100.0, counts(800, 1)))
    source = Miniseed([path], Miniseed.Options(split="train", frames_per_sample=256, decimate=3))
    refs = source.plan().refs
    together = list(source.samples(refs))
    for ref, sample in zip(refs, together, strict=True):
        (alone,) = Miniseed([path], source.options).samples([ref])
        np.testing.assert_array_equal(alone.values, sample.values)
        np.testing.assert_array_equal(alone.valid, sample.valid)


def test_traces_between_two_samples_move_to_the_nearest_and_it_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mseed", ("BHZ", 0, counts(500)), ("BHE", 0.03, counts(500, 1)))
    source = Miniseed([path], Miniseed.Options(split="train"))
    plan = source.plan()
    assert any("XX.ABC..BHE" in note and "moved by -0.30" in note for note in plan.notes)
    (sample,) = source.samples(plan.refs)
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, 0], counts(500, 1))


def test_overlaps_must_agree(tmp_path: Path) -> None:
    data = counts(600)
    same = write(tmp_path / "same.mseed", ("BHZ", 0, data[:400]))
    more = write(tmp_path / "more.mseed", ("BHZ", 30.0, data[300:]))
    (sample,) = read(same, more, split="train")
    np.testing.assert_array_equal(sample.values.ravel(), data)
    assert [f.name for f in sample.origin.files] == ["same.mseed", "more.mseed"]
    other = write(tmp_path / "other.mseed", ("BHZ", 30.0, data[300:] + 1))
    with pytest.raises(UserError, match=r"other\.mseed: XX\.ABC\.\.BHZ overlaps other samples of the same time that differ"):
        read(same, other, split="train")


def test_stations_without_a_component_have_it_invalid(tmp_path: Path) -> None:
    a = write(tmp_path / "a.mseed", ("BHZ", 0, counts(100)), ("BHE", 0, counts(100)))
    b = write(tmp_path / "b.mseed", ("HHZ", 0, counts(100)))
    samples = read(a, b, split="train")
    assert samples[0].layout == samples[1].layout
    assert not samples[1].valid[:, 0].any()
    assert samples[1].valid[:, 1].all()


def test_blocks_of_time_with_a_gap(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mseed", ("BHZ", 0, counts(10_000)))
    source = Miniseed([path], Miniseed.Options(frames_per_sample=1000, gap=100))
    plan = source.plan()
    spans: dict[str, list[tuple[int, int]]] = {}
    for ref in plan.refs:
        spans.setdefault(ref.split, []).append((ref.spec["start"], ref.spec["stop"]))
    assert (spans["train"][0][0], spans["train"][-1][1]) == (0, 8000)
    assert spans["valid"] == [(8100, 9000)]
    assert spans["test"] == [(9100, 10_000)]


def test_decimation_equals_obspy_on_a_contiguous_stretch(tmp_path: Path) -> None:
    t = np.arange(4000) / 10.0
    data = (1000 * np.sin(2 * np.pi * 0.2 * t) + 400).astype(np.int32)
    path = write(tmp_path / "a.mseed", ("BHZ", 0, data))
    (sample,) = read(path, split="train", decimate=4)
    assert sample.values.shape[0] == 1000
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.4, atol=1e-6)
    assert abs(float(sample.values[0, 0, 0, 0, 0]) - data[0]) < 5  # the filter does not ring from the offset
    trace = obspy.read(str(path))[0]
    trace.data = trace.data.astype(np.float64) - float(data[0])
    trace.decimate(4)
    np.testing.assert_allclose(sample.values.ravel(), trace.data + float(data[0]), rtol=1e-6, atol=1e-3)


def test_horizontals_1_and_2_need_azimuths_and_are_turned_by_them() -> None:
    path, stations = BUNDLED / "core/tests/data/ffbx_unrotated_gaps.mseed", BUNDLED / "core/tests/data/ffbx.stationxml"
    with pytest.raises(UserError, match=r"BW\.FFB2\.\.HH1 does not say which way it points; expected E, N or Z"):
        read(path, channels="BW.FFB2..HH?")
    inventory = obspy.read_inventory(str(stations))
    (sample,) = read(path, channels="BW.FFB2..HH?", stationxml=str(stations), split="train")
    assert [v.name.rsplit("_", 1)[1] for v in sample.variables] == ["east", "north", "up"]
    stream = obspy.read(str(path)).select(station="FFB2", channel="HH?")
    for trace in stream:
        trace.data = trace.data.astype(np.float64)
    stream.rotate("->ZNE", inventory=inventory)
    for channel, letter in enumerate("EN"):
        for trace in stream.select(component=letter):
            at = round((trace.stats.starttime - stream[0].stats.starttime) * 200)
            begin = round((stream[0].stats.starttime.timestamp - 946684800 - sample.time.seconds[0]) * 200) + at
            part = sample.values[begin : begin + trace.stats.npts, channel, 0, 0, 0]
            assert sample.valid[begin : begin + trace.stats.npts, channel].all()
            np.testing.assert_allclose(part, trace.data, rtol=1e-4, atol=0.5)
    assert {"latitude", "longitude", "height"} == set(sample.coordinates)


def test_response_removal_equals_obspy() -> None:
    path = BUNDLED / "core/tests/data/IU_ULN_00_LH1_2015-07-18T02.mseed"
    stations = str(BUNDLED / "core/tests/data/IU_ULN_00_LH1.xml")
    corners = (0.001, 0.002, 0.2, 0.4)
    samples = read(path, stationxml=stations, response=True, pre_filt=corners, split="train")
    assert [(v.name, v.unit) for v in samples[0].variables] == [("ground_velocity_north", "m s**-1")]
    trace = obspy.read(str(path))[0]
    trace.remove_response(obspy.read_inventory(stations), output="VEL", pre_filt=corners, water_level=60)
    np.testing.assert_allclose(np.concatenate([s.values.ravel() for s in samples]), trace.data, rtol=1e-5, atol=1e-12)
    with pytest.raises(UserError, match="response=true needs the instrument's response: give stationxml=PATH"):
        Miniseed([path], Miniseed.Options(response=True))


def test_one_sampling_rate_in_a_corpus(tmp_path: Path) -> None:
    a = write(tmp_path / "a.mseed", ("BHZ", 0, counts(100)))
    b = write(tmp_path / "b.mseed", ("HHZ", 0, counts(100)), rate=100.0)
    with pytest.raises(UserError, match=r"XX\.ABC\.\.BH\? has 10 samples per second and XX\.ABC\.\.HH\? has 100; expected one rate"):
        read(a, b)
    assert len(read(a, b, channels="*.HH?")) == 1


def test_embedded_default_is_a_corpus_of_one_rate_and_layout() -> None:
    source = Miniseed()
    plan = source.plan()
    assert [s.name for s in plan.splits] == ["train", "valid", "test"]
    layouts, frames = set(), 0
    by_station: dict[str, list[Sample]] = {}
    for sample in source.samples(plan.refs):
        layouts.add(str(sample.layout))
        frames += len(sample.time)
        assert np.allclose(np.diff(sample.time.seconds), 1.0, atol=1e-6)
        by_station.setdefault(sample.origin.place, []).append(sample)
    assert len(layouts) == 1
    assert frames > 150_000
    trace = obspy.read(str(resolve("embedded:IU.ANMO.LH.seed")))[0]
    for sample in by_station["IU.ANMO.00.LH"]:
        begin = round(sample.time.seconds[0] + 946684800 - trace.stats.starttime.timestamp)
        np.testing.assert_array_equal(sample.values[:, 1, 0, 0, 0], trace.data[begin : begin + len(sample.time)])


def test_real_gaps_are_where_obspy_finds_them() -> None:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    path = Path(os.environ["SCIGPT_REALDATA"]) / "earthscope/gaps.mseed"
    merged = obspy.read(str(path)).merge()[0]
    samples = read(path, split="train")
    values, valid = (np.concatenate([getattr(s, a).ravel() for s in samples]) for a in ("values", "valid"))
    np.testing.assert_array_equal(valid, ~np.ma.getmaskarray(merged.data))
    np.testing.assert_array_equal(values[valid], merged.data.compressed())
    assert int((~valid).sum()) == merged.stats.npts - 52728
