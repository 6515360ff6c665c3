"""Fibre-optic recordings: equal to h5py's reading in every layout; phase stays phase, UTC, tiles, maps, impossible values, damage."""

from __future__ import annotations

import datetime
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.fibres import Fibres
from scigpt.data_prep.sources.gdr import Gdr
from scigpt.errors import UserError

BEGIN = datetime.datetime(2024, 4, 23, 23, 22, 32, 500000, tzinfo=datetime.UTC)
FIRST = (BEGIN - datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)).total_seconds()


def field(frames: int = 60, channels: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (frames, channels)).astype(np.float32)


def forge(path: Path, data: np.ndarray, unit: str | None = "micro-strain", step: float = 10.0, begin: datetime.datetime = BEGIN) -> Path:
    with h5py.File(path, "w") as file:
        array = file.create_dataset("data", data=data, chunks=(1, data.shape[1]), compression="gzip")
        array.attrs.update({"WellName": "16B", "TimeZoneFormat": "-06:00", "API": "NA"} | ({"DataUnitLabel": unit} if unit else {}))
        file["depth"] = (0.5 + 0.25 * np.arange(data.shape[1])).astype("f4")
        file["stamps_unix"] = (begin.timestamp() + step * np.arange(data.shape[0])) * 1e6
    return path


def standard(path: Path, data: np.ndarray, dims: tuple[str, str], unit: str = "nm/m/s") -> Path:
    times = data.shape[dims.index("time")]
    with h5py.File(path, "w") as file:
        file["DasRawData/RawData"] = data
        file["DasRawData/RawData"].attrs["DasDimensions"] = list(dims)
        file["DasRawData/DasTimeArray"] = int(BEGIN.timestamp()) * 10**9 + 500_000_000 + np.arange(times) * 2_000_000
        attrs = file.create_group("DasMetadata/Interrogator/Acquisition").attrs
        attrs.update({"SpatialSamplingInterval": 1.02, "GaugeLength": 10.0, "UnitOfMeasure": unit})
    return path


def prodml(path: Path, data: np.ndarray, dims: tuple[str, str], unit: str = "rad") -> Path:
    times, loci = (data.shape[dims.index(d)] for d in ("time", "locus"))
    with h5py.File(path, "w") as file:
        own = file.create_group("Acquisition")
        own.attrs.update({"SpatialSamplingInterval": 2.0, "StartLocusIndex": 5, "NumberOfLoci": loci, "GaugeLength": 8.0})
        raw = own.create_group("Raw[0]")
        raw.attrs["RawDataUnit"] = np.bytes_(unit)
        raw["RawData"] = data
        raw["RawData"].attrs["Dimensions"] = [np.bytes_(d) for d in dims]
        raw["RawDataTime"] = (int(BEGIN.timestamp()) * 1000 + 500 + np.arange(times)) * 1000
    return path


def neubrex(path: Path, data: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["Acoustic"] = data
        file["Acoustic"].attrs.update(
            {
                "GPSTimeStamp(UTC)": BEGIN.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000",
                "TimeSamplingInterval(seconds)": 0.0001,
                "SpatialSamplingInterval": 1.0,
                "StartPosition": -10.0,
                "StartStopPositionUnit": "m",
                "GaugeLength": 5.0,
                "DataPhysicalUnit": "nano-strain/s",
            }
        )
    return path


def porotomo(path: Path, data: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["das"] = data
        file["t"] = 1e12 + 1000.0 * np.arange(data.shape[0])
        for name, values in {"channel": 100 + np.arange(data.shape[1]), "trace": np.arange(data.shape[1])}.items():
            file[name] = values
        file["crs"] = "epsg:32611"
        for i, name in enumerate("xyz"):
            file[name] = 1000.0 * i + np.arange(data.shape[1])
    return path


def plain(path: Path, data: np.ndarray, unit: str | None = None, name: str = "data", **attrs: Any) -> Path:
    with h5py.File(path, "w") as file:
        file[name] = data
        file[name].attrs.update({"units": unit} if unit else {})
        file.attrs.update(attrs)
        file["timestamps"] = BEGIN.timestamp() + 0.01 * np.arange(data.shape[0])
        file["channels"] = np.arange(data.shape[1])
    return path


def test_strain_along_a_well(tmp_path: Path) -> None:
    data = field()
    (sample,) = samples_of(Fibres, forge(tmp_path / "a.h5", data), tile=40, split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [("strain", "1")]
    assert sample.values.shape == (60, 1, 1, 1, 40)
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], data * 1e-6, rtol=1e-6)
    np.testing.assert_allclose(sample.coordinates["x"].values, 0.3048 * (0.5 + 0.25 * np.arange(40)))
    assert sample.coordinates["x"].unit == "m"
    assert sample.origin.about["well"] == "16B"
    assert "api" not in sample.origin.about


def test_times_are_utc_and_not_the_clock_of_the_site(tmp_path: Path) -> None:
    (sample,) = samples_of(Fibres, forge(tmp_path / "a.h5", field()), tile=40, split="train")
    assert sample.time.calendar == "standard"
    assert sample.time.labels()[0] == "2024-04-23T23:22:32.500000"


@pytest.mark.parametrize(("unit", "kelvin"), [("F", lambda f: (f - 32) * 5 / 9 + 273.15), ("C", lambda c: c + 273.15)])
def test_temperature_and_impossible_values(tmp_path: Path, unit: str, kelvin: Any) -> None:
    data = 200 + field(60, 256)
    data[3, 7], data[:, 250:] = 40_000, -229_526.078125
    path = forge(tmp_path / "a.h5", data, unit)
    corpus = Corpus.open(convert(Gdr([path], Gdr.Options(tile=128, split="train")), tmp_path / "out", progress=False))
    assert corpus.manifest["out_of_bounds"] == {"borehole_temperature": 1 + 6 * 60}
    first, second = samples_of(Gdr, path, tile=128, split="train")
    np.testing.assert_allclose(first.values[5, 0, 0, 0, :], kelvin(data[5, :128].astype(np.float64)), rtol=1e-6)
    assert second.origin.licence == "CC-BY-4.0"


def test_a_wrong_unit_is_refused_by_its_bounds(tmp_path: Path) -> None:
    path = forge(tmp_path / "a.h5", 1e5 * field(60, 128), "micro-strain")
    with pytest.raises(UserError, match=r"of the values of strain lie outside -0\.1 to 0\.1 1"):
        convert(Gdr([path], Gdr.Options(split="train")), tmp_path / "out", progress=False)


@pytest.mark.parametrize("dims", [("time", "locus"), ("locus", "time")])
def test_either_order_of_axes_in_the_standards(tmp_path: Path, dims: tuple[str, str]) -> None:
    data = field(50, 50)  # square: the names of the axes decide
    stored = data if dims[0] == "time" else data.T
    (sample,) = samples_of(Fibres, standard(tmp_path / "a.h5", stored, dims), tile=50, split="train")
    assert sample.variables[0].name == "strain_rate"
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], data * 1e-9, rtol=1e-6)
    np.testing.assert_allclose(sample.time.seconds, FIRST + 0.002 * np.arange(50), atol=1e-6)
    np.testing.assert_allclose(sample.coordinates["x"].values, 1.02 * np.arange(50))
    (sample,) = samples_of(Fibres, prodml(tmp_path / "b.h5", stored, dims), tile=50, split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [("optical_phase", "radian")]
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, :], data)
    np.testing.assert_allclose(sample.time.seconds, FIRST + 0.001 * np.arange(50), atol=1e-6)
    np.testing.assert_allclose(sample.coordinates["x"].values, 2.0 * (5 + np.arange(50)))


def test_transposed_arrays_are_found_by_their_axes(tmp_path: Path) -> None:
    data = field()
    path = forge(tmp_path / "a.h5", data)
    with h5py.File(path, "a") as file:
        attrs = dict(file["data"].attrs)
        del file["data"]
        file["data"] = data.T
        file["data"].attrs.update(attrs)
    (sample,) = samples_of(Fibres, path, tile=40, split="train")
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], data * 1e-6, rtol=1e-6)


def test_neubrex_strain_rate(tmp_path: Path) -> None:
    data = field()
    (sample,) = samples_of(Fibres, neubrex(tmp_path / "a.h5", data), tile=40, split="train")
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], data * 1e-9, rtol=1e-6)
    np.testing.assert_allclose(sample.time.seconds, FIRST + 1e-4 * np.arange(60), atol=1e-7)
    assert sample.coordinates["x"].values[0] == -10.0
    assert sample.origin.about["gauge_length_m"] == 5.0


def test_raw_phase_is_never_a_strain_rate(tmp_path: Path) -> None:
    data = field()
    path = porotomo(tmp_path / "a.h5", data)
    (sample,) = samples_of(Fibres, path, tile=40, split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [("optical_phase", "radian")]
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, :], data)
    assert sample.time.calendar == "none"
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.001, atol=1e-6)
    assert set(sample.coordinates) == {"x", "y", "z"}
    assert sample.coordinates["z"].values[3] == 2003.0
    assert sample.origin.about["crs"] == "epsg:32611"
    told = refusal_of(Fibres, path, quantity="strain_rate", unit="1/s")
    assert "holds optical phase (radian), which is no strain_rate" in told
    assert "needs gauge_length= (m) and wavelength= (nm)" in refusal_of(Fibres, path, strain_rate=True)
    options = {"strain_rate": True, "gauge_length": 10.0, "wavelength": 1550.0, "refractive_index": 1.5, "photoelastic": 0.8}
    (sample,) = samples_of(Fibres, path, tile=40, split="train", **options)
    assert [(v.name, v.unit) for v in sample.variables] == [("strain_rate", "s**-1")]
    expected = data * 1550e-9 / (4 * np.pi * 1.5 * 10 * 0.8) / 0.001
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], expected, rtol=1e-5)


def test_a_recording_without_a_unit_is_refused_until_it_is_stated(tmp_path: Path) -> None:
    data = field()
    for path in (plain(tmp_path / "a.h5", data), plain(tmp_path / "b.h5", data, "counts"), forge(tmp_path / "c.h5", data, None)):
        assert "does not say what it measures" in refusal_of(Fibres, path)
        (sample,) = samples_of(Fibres, path, tile=40, split="train", quantity="strain", unit="1e-9")
        np.testing.assert_allclose(sample.values[:, 0, 0, 0, :], data * 1e-9, rtol=1e-6)
    (sample,) = samples_of(Fibres, plain(tmp_path / "a.h5", data, "nm/m/s", "strain_rate"), tile=40, split="train")
    np.testing.assert_allclose(sample.time.seconds, FIRST + 0.01 * np.arange(60), atol=1e-5)
    assert sample.coordinates["x"].unit == "1"


def test_a_square_array_needs_its_axis_stated(tmp_path: Path) -> None:
    data = field(40, 40)
    path = plain(tmp_path / "a.h5", data, "strain")
    assert "is square, (40, 40), and the file does not say which axis is time" in refusal_of(Fibres, path)
    for axis, expected in ((0, data), (1, data.T)):
        (sample,) = samples_of(Fibres, path, tile=40, time_axis=axis, split="train")
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0, :], expected)


def test_long_fibres_are_tiled_and_the_last_tile_is_filled_with_invalid_channels(tmp_path: Path) -> None:
    data = field(60, 100)
    source = Fibres([forge(tmp_path / "a.h5", data)], Fibres.Options(tile=32, frames_per_sample=30, split="train"))
    plan = source.plan()
    assert any("100 channels are no whole number of tiles of 32" in note for note in plan.notes)
    samples = [s for s in source.samples(plan.refs) if s is not None]
    assert len(samples) == 8
    assert len({str(s.layout) for s in samples}) == 1
    for s in samples:
        low, high = s.origin.about["channels"]
        assert s.valid[..., : high - low + 1].all()
        assert not s.valid[..., high - low + 1 :].any()
        begin = round((s.time.seconds[0] - FIRST) / 10)
        np.testing.assert_allclose(s.values[:, 0, 0, 0, : high - low + 1], data[begin : begin + 30, low : high + 1] * 1e-6, rtol=1e-6)
        np.testing.assert_allclose(np.diff(s.coordinates["x"].values), 0.25 * 0.3048)
    (only,) = samples_of(Fibres, tmp_path / "a.h5", tile=8, channels=(10, 17), split="train")
    np.testing.assert_allclose(only.values[:, 0, 0, 0, :], data[:, 10:18] * 1e-6, rtol=1e-6)
    assert "a.h5 has 100" in refusal_of(Fibres, tmp_path / "a.h5", channels=(10, 100))


def test_a_file_larger_than_memory_is_read_by_window(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:  # 1 GB of values that were never written
        file.create_dataset("das", shape=(30_000, 8721), dtype="f4", chunks=(1000, 64), fillvalue=0.5)
        file["t"] = 1000.0 * np.arange(30_000)
        file["channel"] = np.arange(8721)
    source = Fibres([path], Fibres.Options(frames_per_sample=1000))
    tracemalloc.start()
    try:
        plan = source.plan()
        sample = next(source.samples(plan.refs[-1:]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plan.refs) > 30 * 68
    assert sample is not None
    assert (sample.values[sample.valid] == 0.5).all()
    assert peak < 64 << 20


def test_holes_in_time_and_blocks_over_files(tmp_path: Path) -> None:
    for n in (1, 0):
        forge(tmp_path / f"{'ba'[n]}.h5", field(100, 8, n), begin=BEGIN + datetime.timedelta(days=n))
    source = Fibres([tmp_path], Fibres.Options(tile=8, gap=5))
    spans = [(r.split, r.spec["file"], r.spec["start"], r.spec["stop"]) for r in source.plan().refs]
    assert spans == [("train", 1, 0, 100), ("train", 0, 0, 60), ("valid", 0, 65, 80), ("test", 0, 85, 100)]
    path = forge(tmp_path / "a.h5", field(9, 8))
    with h5py.File(path, "a") as file:
        stamps = file["stamps_unix"][...]
        stamps[4:] += 5 * 86400e6
        file["stamps_unix"][...] = stamps
    assert [len(s.time) for s in samples_of(Fibres, path, tile=8, split="train")] == [4, 5]


def test_a_map_from_channel_to_depth(tmp_path: Path) -> None:
    data = field(60, 16)
    path = plain(tmp_path / "a.h5", data, "strain")
    table = tmp_path / "map.csv"
    table.write_text("channel,depth\n" + "".join(f"{c},{100 + 2 * c}\n" for c in range(4, 14)))
    (sample,) = samples_of(Fibres, path, tile=16, channel_map=str(table), split="train")
    np.testing.assert_array_equal(sample.valid[0, 0, 0, 0], [4 <= c < 14 for c in range(16)])
    np.testing.assert_array_equal(sample.coordinates["x"].values[4:14], 100 + 2 * np.arange(4, 14))
    table.write_text("channel,latitude,longitude\n" + "".join(f"{c},{40 + c / 100},-119\n" for c in range(16)))
    (sample,) = samples_of(Fibres, path, tile=16, channel_map=str(table), split="train")
    assert sample.geometry == "points"
    assert sample.coordinates["latitude"].values[5] == 40.05
    table.write_text("number,depth\n1,2\n2,3\n")
    assert "map.csv has no column channel" in refusal_of(Fibres, path, channel_map=str(table))


def numbered(path: Path, data: np.ndarray, first: int, begin: float = 0.0, step: float = 1000.0) -> Path:
    """PoroTomo without places, channels from a number on, begun so many microseconds into the survey."""
    with h5py.File(path, "w") as file:
        file["das"] = data
        file["t"] = begin + step * np.arange(data.shape[0])
        file["channel"] = first + np.arange(data.shape[1])
    return path


def test_a_map_means_the_numbers_of_the_channels_where_the_file_has_them(tmp_path: Path) -> None:
    data = field(60, 16)
    table = tmp_path / "map.csv"
    table.write_text("channel,depth\n" + "".join(f"{c},{2 * c}\n" for c in range(101, 117)))
    path = numbered(tmp_path / "a.h5", data, 101)
    samples = samples_of(Fibres, path, tile=6, channels=(2, 15), channel_map=str(table), split="train")
    assert [s.origin.about["channel_numbers"] for s in samples] == [[103, 108], [109, 114], [115, 116]]
    np.testing.assert_array_equal(samples[0].coordinates["x"].values, 2 * np.arange(103, 109))
    np.testing.assert_array_equal(samples[2].valid[0].ravel(), [True, True, *[False] * 4])
    np.testing.assert_array_equal(samples[0].values[:, 0, 0, 0], data[:, 2:8])
    told = refusal_of(Fibres, numbered(tmp_path / "b.h5", data, 301), channel_map=str(table))
    assert "b.h5: channel_map= has none of its channels, which are 301 to 316; expected their numbers in the file" in told
    placed = forge(tmp_path / "c.h5", data)  # depths, no numbers: channels are positions
    table.write_text("channel,depth\n" + "".join(f"{c},{7 * c}\n" for c in range(16)))
    (sample,) = samples_of(Fibres, placed, tile=16, channel_map=str(table), split="train")
    np.testing.assert_array_equal(sample.coordinates["x"].values, 7 * np.arange(16))


def test_depths_without_a_unit(tmp_path: Path) -> None:
    path = forge(tmp_path / "a.h5", field())
    for unit, metres in (("m", 1.0), ("km", 1000.0)):
        (sample,) = samples_of(Fibres, path, tile=40, split="train", depth_unit=unit)
        np.testing.assert_allclose(sample.coordinates["x"].values, metres * (0.5 + 0.25 * np.arange(40)))
    assert "the unit 'ell' cannot be converted to 'm'" in refusal_of(Fibres, path, depth_unit="ell")
    with h5py.File(path, "a") as file:
        file["depth"].attrs["units"] = "m"
    (sample,) = samples_of(Fibres, path, tile=40, split="train")
    np.testing.assert_allclose(sample.coordinates["x"].values, 0.5 + 0.25 * np.arange(40))
    assert "leave depth_unit= out" in refusal_of(Fibres, path, depth_unit="ft")


def of_ones_own(path: Path, times: np.ndarray, clock: str = "", places: np.ndarray | None = None, unit: str = "") -> Path:
    with h5py.File(path, "w") as file:
        file["data"] = field(len(times), 8)
        file["data"].attrs["units"] = "strain"
        file["time"], file["distance"] = times, np.arange(8.0) if places is None else places
        for name, words in (("time", clock), ("distance", unit)):
            file[name].attrs.update({"units": words} if words else {})
    return path


@pytest.mark.parametrize(
    ("clock", "step", "begin"),
    [
        ("milliseconds", 1e-3, None),
        ("Minutes", 60.0, None),
        ("us", 1e-6, None),
        ("", 1.0, None),
        ("seconds since 2021-04-05T00:00:00", 1.0, 670_896_000.0),
        ("ms since 2021/04/05 00:00:00 UTC", 1e-3, 670_896_000.0),
        ("seconds since 1970-01-01", 1.0, -946_684_800.0),
    ],
)
def test_units_of_time_in_a_file_of_ones_own(tmp_path: Path, clock: str, step: float, begin: float | None) -> None:
    (sample,) = samples_of(Fibres, of_ones_own(tmp_path / "a.h5", np.arange(50.0), clock), tile=8, split="train")
    assert sample.time.calendar == ("none" if begin is None else "standard")
    np.testing.assert_allclose(sample.time.seconds, (begin or 0.0) + step * np.arange(50), rtol=0, atol=1e-6)


def test_units_that_are_none_and_places_that_are_no_numbers(tmp_path: Path) -> None:
    times, path = np.arange(50.0), tmp_path / "a.h5"
    for unit, metres in (("km", 1000.0), ("feet", 0.3048), ("F", 0.3048)):
        (sample,) = samples_of(Fibres, of_ones_own(path, times, "s", unit=unit), tile=8, split="train")
        np.testing.assert_allclose(sample.coordinates["x"].values, metres * np.arange(8))
    assert "a.h5, times: the unit 'moons' cannot be converted" in refusal_of(Fibres, of_ones_own(path, times, "moons"))
    assert "a.h5, distance: the unit 'kelvin' cannot be converted" in refusal_of(Fibres, of_ones_own(path, times, unit="kelvin"))
    assert "a.h5: its first instant 'once' cannot be read" in refusal_of(Fibres, of_ones_own(path, times, "s since once"))
    late = np.where(times == 7, np.nan, times)
    assert "a.h5, times: frame 8 has the position nan" in refusal_of(Fibres, of_ones_own(path, late))
    own = of_ones_own(path, times, places=np.where(np.arange(8) == 3, np.nan, np.arange(8.0)))
    assert "a.h5: channel 3 (counted from 0) has the place nan" in refusal_of(Fibres, own)
    assert len(samples_of(Fibres, own, channels=(4, 7), tile=4, split="train")) == 1


def test_a_gauge_length_in_feet(tmp_path: Path) -> None:
    path = neubrex(tmp_path / "a.h5", field())
    with h5py.File(path, "a") as file:
        file["Acoustic"].attrs["GaugeLengthUnits"] = "ft"
        file["Acoustic"].attrs["StartStopPositionUnit"] = "ft"
    (sample,) = samples_of(Fibres, path, tile=40, split="train")
    assert sample.origin.about["gauge_length_m"] == pytest.approx(5 * 0.3048)
    np.testing.assert_allclose(sample.coordinates["x"].values, 0.3048 * (-10 + np.arange(40)))


def test_what_cannot_be_in_strain_rate_is_refused(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.h5", field(5, 4), 1)
    for name in ("gauge_length", "wavelength", "refractive_index", "photoelastic"):
        for value in (0.0, -10.0, float("nan")):
            options = {"gauge_length": 10.0, "wavelength": 1550.0} | {name: value}
            assert f"needs a positive {name}=, it is" in refusal_of(Fibres, path, tile=4, strain_rate=True, **options)


def test_an_axis_that_an_array_does_not_have_is_refused(tmp_path: Path) -> None:
    assert "time_axis=3 must be 0 or 1" in refusal_of(Fibres, numbered(tmp_path / "a.h5", field(4, 4), 1), time_axis=3)


def test_files_that_overlap_in_time_are_cut_at_the_same_instants(tmp_path: Path) -> None:
    for n, begin in enumerate((0, 0, 100, 250)):  # two fibres at once, and two that begin while another records
        numbered(tmp_path / f"{n}.h5", field(200, 4, n), 1, 1000.0 * begin)
    source = Fibres([tmp_path], Fibres.Options(tile=4, gap=10, splits=(0.5, 0.25, 0.25)))
    spans: dict[str, list[float]] = {}
    plan = source.plan()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        spans.setdefault(ref.split, []).extend(1000 * sample.time.seconds[[0, -1]])
    # 450 instants in all; 10 frames of each file that goes on are left out behind a cut
    assert {split: (round(min(own)), round(max(own))) for split, own in spans.items()} == {
        "train": (0, 224),
        "valid": (235, 337),
        "test": (348, 449),
    }


def test_files_that_overlap_in_time_stay_together(tmp_path: Path) -> None:
    for n in range(6):
        for k in range(2):
            numbered(tmp_path / f"{n}{'ab'[k]}.h5", field(20, 4, n), 1, 1e6 * n + 5000 * k)
    refs = Fibres([tmp_path], Fibres.Options(tile=4, split_by="file", splits=(0.5, 0.25, 0.25))).plan().refs
    homes = {r.spec["file"]: r.split for r in refs}
    assert set(homes.values()) == {"train", "valid", "test"}
    assert all(homes[2 * n] == homes[2 * n + 1] for n in range(6))


def test_recognised_by_layout(tmp_path: Path) -> None:
    assert Fibres.recognises(forge(tmp_path / "a.bin", field()))
    assert Fibres.recognises(porotomo(tmp_path / "b.h5", field()))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["data"] = field()
    assert not Fibres.recognises(tmp_path / "c.h5")
    (tmp_path / "d.h5").write_bytes((tmp_path / "a.bin").read_bytes()[:900])
    assert not Fibres.recognises(tmp_path / "d.h5")
    assert not Fibres.recognises(tmp_path)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = forge(tmp_path / "a.h5", field(60, 4000))
    whole = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(30)
    flipped = bytearray(whole)
    flipped[chunk.byte_offset + chunk.size // 2] ^= 16
    for name, data in {"half": whole[: len(whole) // 2], "short": whole[:-50], "html": b"<html>", "flip": bytes(flipped)}.items():
        path.write_bytes(data)
        assert "a.h5" in refusal_of(Fibres, path, tile=4000, split="train"), name
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["depth"]
        file["depth"] = np.arange(77.0)
    assert "has the shape (60, 4000) for 60 times and 77 channels" in refusal_of(Fibres, path)
    with h5py.File(path, "w") as file:
        file["other"] = field()
    assert "is laid out as no fibre recording that is known: it holds other" in refusal_of(Fibres, path)


def test_a_real_recording_of_strain() -> None:
    path = real("edx_gdr/neubrex_dss_forge.h5")
    assert Fibres.recognises(path)
    with h5py.File(path) as file:
        data, depth, stamps = file["data"][...], file["depth"][...], file["stamps_unix"][...]
    source = Fibres([path], Fibres.Options(tile=8192, split="train"))
    plan = source.plan()
    made = list(source.samples(plan.refs))
    samples = [s for s in made if s is not None]
    assert len(made) == 2 * 10  # a hole of five days, 75367 channels
    assert {len(s.time) for s in samples} == {3}
    for s in samples:
        low, high = s.origin.about["channels"]
        frames = [int(np.argmin(np.abs(stamps / 1e6 - 946684800 - t))) for t in s.time.seconds]
        np.testing.assert_allclose(s.values[:, 0, 0, 0, : high - low + 1], data[frames, low : high + 1] * 1e-6, rtol=1e-6)
        np.testing.assert_allclose(s.time.seconds, stamps[frames] / 1e6 - 946684800, atol=1e-5)
        np.testing.assert_allclose(s.coordinates["x"].values[: high - low + 1], 0.3048 * depth[low : high + 1], rtol=1e-6)
    assert any("states no unit of its depths; they are taken for ft" in note for note in plan.notes)
    # the well is some 11000 ft deep; light ends at 10110 of 12635, which could not be metres
    noise = int(np.argmax(np.abs(data).max(axis=0) > 1e5))
    assert 9_000 < depth[noise] < 11_000 < depth[-1]
    assert samples[0].time.labels()[0].startswith("2023-07-15T16:52:09")  # 10:52 at the site
    assert samples[0].origin.about["well"] == "Utah Forge 16B(78)-32"
