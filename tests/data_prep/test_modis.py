"""MODIS: HDF4-EOS tiles equal to pyhdf, NumPy and PROJ; scales that divide, bit fields, dates, empty corners and damage told as such."""

from __future__ import annotations

import json
import sys
import urllib.parse
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earth import MODIS_RADIUS, MODIS_SIDE, REFLECTANCE, modis_tile
from readings import real, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.formats.hdf_eos import EosField, require_whole
from scigpt.data_prep.source import Remote
from scigpt.data_prep.sources.modis import Modis
from scigpt.data_prep.sources.modis_tiles import divisor
from scigpt.errors import UserError

hdf = pytest.importorskip("pyhdf.SD")
pyproj = pytest.importorskip("pyproj")

SINUSOIDAL = f"+proj=sinu +lon_0=0 +R={MODIS_RADIUS} +units=m +type=crs"
REAL = "MOD09GA.A2008296.h14v17.006.2015181011753.hdf"
TILE = (24, 24)


def read(path: Path | list[Path], **options: Any) -> list[Sample]:
    return samples_of(Modis, path, **{"tile": None, **options})


def daily(
    path: Path, changes: Mapping[str, Any] | None = None, attrs: Mapping[str, Any] | None = None, seed: int = 0, **where: Any
) -> Path:
    """MOD09GA with seven bands on 24 x 24, quality on the same grid and state on 12 x 12; `changes` are assigned to the stored numbers."""
    rng = np.random.default_rng(seed)
    fine, coarse = "MODIS_Grid_500m_2D", "MODIS_Grid_1km_2D"
    made: dict[str, tuple[str, np.ndarray, Mapping[str, Any]]] = {
        "state_1km_1": (coarse, np.zeros((12, 12), np.uint16), {"units": "bit field", "_FillValue": 65535}),
        **{
            f"sur_refl_b{b:02d}_1": (fine, rng.integers(0, 3000, TILE).astype(np.int16), {**REFLECTANCE, **(attrs or {})})
            for b in range(1, 8)
        },
        "QC_500m_1": (fine, np.full(TILE, 1 << 30, np.uint32), {"units": "bit field", "_FillValue": 787410671}),
    }
    for name, (index, value) in (changes or {}).items():
        made[name][1][index] = value
    return modis_tile(path, made, **where)


def stored(path: Path, name: str) -> np.ndarray:
    file = hdf.SD(str(path))
    values = file.select(name).get()
    file.end()
    return values


def places(rows: int, columns: int, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of pixel centres by PROJ."""
    x = (tile[0] - 18) * MODIS_SIDE + (np.arange(columns) + 0.5) * MODIS_SIDE / columns
    y = (9 - tile[1]) * MODIS_SIDE - (np.arange(rows) + 0.5) * MODIS_SIDE / rows
    longitude, latitude = pyproj.Transformer.from_crs(SINUSOIDAL, "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))
    return latitude, longitude


def test_a_day_equals_pyhdf_and_places_equal_proj(tmp_path: Path) -> None:
    path = daily(tmp_path / "a.hdf")
    (sample,) = read(path, mask=("none",), quality="any")
    names = ["red", "nir", "blue", "green", "swir_1240", "swir_1", "swir_2"]
    assert [v.key for v in sample.variables] == [f"surface_reflectance_{n}" for n in names]
    assert {v.unit for v in sample.variables} == {"1"}
    for band in range(7):
        expected = (stored(path, f"sur_refl_b{band + 1:02d}_1").astype(np.float64) / 10000).astype(np.float32)
        np.testing.assert_array_equal(sample.values[0, band, 0], expected)
    assert sample.valid.all()
    latitude, longitude = places(*TILE, (9, 5))
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-9)
    np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude, atol=1e-9)
    assert sample.geometry == "sphere"
    assert sample.origin.place == "h09v05 MOD09GA"
    assert sample.origin.attribution.endswith("doi:10.5067/MODIS/MOD09GA.061")


@pytest.mark.parametrize("scale", [10000.0, 0.0001])
def test_scale_factor_of_ten_thousand_divides(tmp_path: Path, scale: float) -> None:
    path = daily(tmp_path / "a.hdf", {"sur_refl_b01_1": ((slice(None), slice(None)), 1234)}, {"scale_factor": scale})
    (sample,) = read(path)
    np.testing.assert_array_equal(sample.values[0, 0, 0], np.float32(0.1234))


def test_a_scale_that_fits_neither_way_is_refused() -> None:
    attrs = {"scale_factor": 10000.0, "valid_range": [-100, 16000], "add_offset": 0.0}
    assert divisor(EosField("b", (1, 1), attrs), "a") == 10000.0
    for wrong in ({"scale_factor": 25.0}, {"scale_factor": 0.0}, {"add_offset": 3.0}, {"valid_range": [0, 65535]}, {"scale_factor": "x"}):
        with pytest.raises(UserError, match="fetch it again"):
            divisor(EosField("b", (1, 1), {**attrs, **wrong}), "a")


def test_fill_and_what_lies_outside_the_valid_range_are_missing_and_zero_is_not(tmp_path: Path) -> None:
    values = np.array([-28672, -101, -100, 0, 16000, 16001], np.int16)
    path = daily(tmp_path / "a.hdf", {"sur_refl_b02_1": ((0, slice(0, 6)), values)})
    (sample,) = read(path)
    np.testing.assert_array_equal(sample.valid[0, 1, 0, 0, :6], [False, False, True, True, True, False])
    np.testing.assert_allclose(sample.values[0, 1, 0, 0, 2:5], [-0.01, 0.0, 1.6], rtol=1e-6)
    assert sample.valid[0, 0].all()


def test_a2008296_is_a_year_and_a_day_of_the_year(tmp_path: Path) -> None:
    (sample,) = read(daily(tmp_path / "renamed.hdf"))
    assert sample.time.labels() == ["2008-10-22T12:00:00"]
    assert sample.time.bounds is not None
    days = np.datetime64("2000-01-01", "s") + sample.time.bounds.astype("timedelta64[s]")
    np.testing.assert_array_equal(days, np.array([["2008-10-22", "2008-10-23"]], "datetime64[s]"))
    with pytest.raises(UserError, match="A2008296 is 2008-10-22"):
        read(daily(tmp_path / "other.hdf", dates=("2008-10-23", "2008-10-23")))


@pytest.mark.parametrize(
    ("word", "state"),
    [("cloud", 1), ("cloud", 2), ("shadow", 4), ("aerosol", 0b11000000), ("cirrus", 0b1100000000), ("internal_cloud", 1 << 10),
     ("snow", 1 << 12), ("adjacent", 1 << 13)],
)  # fmt: skip
def test_state_bits_mask_the_four_fine_pixels_below_a_coarse_one(tmp_path: Path, word: str, state: int) -> None:
    path = daily(tmp_path / "a.hdf", {"state_1km_1": ((3, 5), state)})
    (sample,) = read(path, mask=(word,))
    expected = np.ones(TILE, bool)
    expected[6:8, 10:12] = False
    np.testing.assert_array_equal(sample.valid[0, :, 0], np.broadcast_to(expected, (7, *TILE)))
    (sample,) = read(path, mask=("none",))
    assert sample.valid.all()
    others = tuple({"cloud", "shadow", "aerosol", "cirrus", "internal_cloud", "snow", "adjacent"} - {word})
    (sample,) = read(path, mask=others)
    assert sample.valid.all()


def test_clear_and_assumed_clear_stay_and_an_unknown_state_does_not(tmp_path: Path) -> None:
    land, assumed, low_aerosol = 1 << 3, 3, 1 << 6
    path = daily(tmp_path / "a.hdf", {"state_1km_1": ((0, slice(0, 4)), [land, assumed, low_aerosol, 65535])})
    (sample,) = read(path)
    np.testing.assert_array_equal(sample.valid[0, 0, 0, 0, :8], [True] * 6 + [False] * 2)


def test_quality_bits_belong_to_their_band(tmp_path: Path) -> None:
    dead, low_sun, constant = 0b1000, 0b1010, 0b1100
    words = [dead << 10, low_sun << 2, constant << 26, 0b11, 0b10, 787410671]
    path = daily(tmp_path / "a.hdf", {"QC_500m_1": ((0, slice(0, 6)), np.array(words, np.uint32))})
    (usable,) = read(path)
    expected = np.ones((7, 6), bool)
    expected[2, 0] = False
    expected[:, 3:] = False
    np.testing.assert_array_equal(usable.valid[0, :, 0, 0, :6], expected)
    (ideal,) = read(path, quality="ideal")
    assert not ideal.valid[0, 0, 0, 0, 1]
    assert ideal.valid[0, 1, 0, 0, 1]
    assert not ideal.valid[0, 6, 0, 0, 2]
    (every,) = read(path, quality="any")
    assert every.valid.all()


def quarter(path: Path, **where: Any) -> Path:
    """MOD09GQ: two bands on 48 x 48, without a state of the clouds."""
    rng = np.random.default_rng(5)
    made: dict[str, tuple[str, np.ndarray, Mapping[str, Any]]] = {
        f"sur_refl_b{b:02d}_1": ("MODIS_Grid_2D", rng.integers(0, 3000, (48, 48)).astype(np.int16), REFLECTANCE) for b in (1, 2)
    }
    quality = np.zeros((48, 48), np.uint16)
    quality[7, 7] = 0b1000 << 8  # dead detector of band 2
    made["QC_250m_1"] = ("MODIS_Grid_2D", quality, {"_FillValue": 2995})
    return modis_tile(path, made, "MOD09GQ", **where)


def test_bands_of_250_m_take_the_state_of_the_clouds_from_the_file_of_500_m(tmp_path: Path) -> None:
    fine = quarter(tmp_path / "MOD09GQ.A2008296.h09v05.061.1.hdf")
    with pytest.raises(
        UserError, match=r"give the MOD09GA of h09v05 on 2008-10-22 as a further input, or keep cloudy pixels with mask=none"
    ):
        read(fine)
    wrong = daily(tmp_path / "MOD09GA.A2008296.h10v05.061.1.hdf", tile=(10, 5))
    with pytest.raises(UserError, match="give the MOD09GA of h09v05"):
        read([fine, wrong])
    coarse = daily(tmp_path / "MOD09GA.A2008296.h09v05.061.1.hdf", {"state_1km_1": ((3, 5), 1)})
    (sample,) = read([wrong, fine, coarse])
    expected = np.ones((2, 48, 48), bool)
    expected[:, 12:16, 20:24] = False
    expected[1, 7, 7] = False
    np.testing.assert_array_equal(sample.valid[0, :, 0], expected)
    np.testing.assert_array_equal(sample.values[0, 0, 0][expected[0]], (stored(fine, "sur_refl_b01_1")[expected[0]] / 1e4).astype("f4"))
    assert [f.name for f in sample.origin.files] == [fine.name, coarse.name]
    plan = Modis([wrong, fine, coarse], Modis.Options(tile=None)).plan()
    assert {name for name, _ in plan.inputs} == {fine.name, coarse.name}


def vegetation(path: Path, **where: Any) -> Path:
    rng = np.random.default_rng(7)
    index = {"units": "NDVI", "valid_range": [-2000, 10000], "_FillValue": -3000, "scale_factor": 10000.0}
    band = {"units": "reflectance", "valid_range": [0, 10000], "_FillValue": -1000, "scale_factor": 10000.0}
    grid, name = "MODIS_Grid_16DAY_250m_500m_VI", "250m 16 days "
    quality = np.zeros(TILE, np.uint16)
    quality[0, :6] = [2, 3, 1, 1 << 15, 65535, 0b11000000]
    ndvi = rng.integers(-2000, 10000, TILE).astype(np.int16)
    ndvi[1, 0] = -3000
    made: dict[str, tuple[str, np.ndarray, Mapping[str, Any]]] = {
        name + "NDVI": (grid, ndvi, index),
        name + "EVI": (grid, rng.integers(-2000, 10000, TILE).astype(np.int16), index),
        name + "VI Quality": (grid, quality, {"_FillValue": 65535}),
        name + "MIR reflectance": (grid, rng.integers(0, 10000, TILE).astype(np.int16), band),
    }
    return modis_tile(path, made, "MOD13Q1", "2008289", ("2008-10-15", "2008-10-30"), **where)


def test_vegetation_indices_are_of_sixteen_days_and_have_a_quality_of_their_own(tmp_path: Path) -> None:
    path = vegetation(tmp_path / "a.hdf")
    (sample,) = read(path)
    assert [v.key for v in sample.variables] == [
        "normalized_difference_vegetation_index", "enhanced_vegetation_index", "surface_reflectance_swir_2",
    ]  # fmt: skip
    expected = np.ones((3, *TILE), bool)
    expected[:, 0, :6] = [False, False, True, False, False, True]
    expected[0, 1, 0] = False
    np.testing.assert_array_equal(sample.valid[0, :, 0], expected)
    np.testing.assert_array_equal(
        sample.values[0, 0, 0][expected[0]], (stored(path, "250m 16 days NDVI")[expected[0]] / 1e4).astype(np.float32)
    )
    days = np.datetime64("2000-01-01", "s") + np.asarray(sample.time.bounds).astype("timedelta64[s]")
    np.testing.assert_array_equal(days, np.array([["2008-10-15", "2008-10-31"]], "datetime64[s]"))
    with pytest.raises(UserError, match="MOD13Q1 has no flag 'cirrus'"):
        read(path, mask=("cirrus",))


def test_days_of_a_tile_are_one_record_and_tiles_are_apart(tmp_path: Path) -> None:
    days = [("2008297", "2008-10-23"), ("2008296", "2008-10-22"), ("2008298", "2008-10-24")]
    paths = [daily(tmp_path / f"{i}.hdf", seed=i, day=d, dates=(t, t)) for i, (d, t) in enumerate(days)]
    paths.append(daily(tmp_path / "3.hdf", seed=3, tile=(10, 5)))
    one, other = read(paths, split="train")
    assert one.time.labels() == [f"2008-10-{d}T12:00:00" for d in (22, 23, 24)]
    np.testing.assert_array_equal(one.values[0, 0, 0], (stored(paths[1], "sur_refl_b01_1") / 1e4).astype("f4"))
    assert (one.origin.place, other.origin.place) == ("h09v05 MOD09GA", "h10v05 MOD09GA")
    assert not np.array_equal(one.coordinates["longitude"].values, other.coordinates["longitude"].values)
    aqua = daily(tmp_path / "MYD09GA.hdf", product="MYD09GA")
    with pytest.raises(UserError, match=r"Terra .* and Aqua"):
        read([paths[0], aqua], split_by="tile")


def test_pieces_of_a_tile_hold_the_same_numbers(tmp_path: Path) -> None:
    path = daily(tmp_path / "a.hdf", {"state_1km_1": ((slice(2, 5), slice(1, 9)), 1)})
    (whole,) = read(path)
    pieces = read(path, tile="8")
    assert len(pieces) == 9
    for i, piece in enumerate(pieces):
        y, x = (slice(8 * n, 8 * n + 8) for n in divmod(i, 3))
        np.testing.assert_array_equal(piece.valid, whole.valid[..., y, x])
        np.testing.assert_array_equal(piece.values[piece.valid], whole.values[..., y, x][piece.valid])
        np.testing.assert_array_equal(piece.coordinates["longitude"].values, whole.coordinates["longitude"].values[y, x])


def test_pixels_whose_centre_lies_outside_the_globe_are_on_its_edge(tmp_path: Path) -> None:
    x = (14 - 18) * MODIS_SIDE + (np.arange(24) + 0.5) * MODIS_SIDE / 24
    y = (9 - 17) * MODIS_SIDE - (np.arange(24) + 0.5) * MODIS_SIDE / 24
    inside = np.abs(x[None]) <= np.pi * MODIS_RADIUS * np.cos(y[:, None] / MODIS_RADIUS)
    assert 0 < inside.sum() < 24 * 24
    (sample,) = read(daily(tmp_path / "a.hdf", {"sur_refl_b01_1": (~inside, -28672)}, tile=(14, 17)))
    np.testing.assert_array_equal(sample.valid[0, 0, 0], inside)
    latitude, longitude = places(24, 24, (14, 17))
    np.testing.assert_allclose(sample.coordinates["longitude"].values[inside], longitude[inside], atol=1e-8)
    np.testing.assert_allclose(sample.coordinates["latitude"].values[inside], latitude[inside], atol=1e-9)
    np.testing.assert_array_equal(sample.coordinates["longitude"].values[~inside], -180.0)


def test_a_tile_over_sea_without_any_value_is_told_in_one_sentence(tmp_path: Path) -> None:
    everywhere = (slice(None), slice(None))
    path = daily(tmp_path / "a.hdf", {f"sur_refl_b{b:02d}_1": (everywhere, -28672) for b in range(1, 8)})
    with pytest.raises(UserError, match="no valid value"):
        read(path)
    assert read(path, tile="8") == []
    with pytest.raises(UserError) as error:
        convert(Modis([path], Modis.Options(tile="8")), tmp_path / "corpus", progress=False)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "corpus").exists()


def test_a_corpus(tmp_path: Path) -> None:
    days = [f"2008-10-{d}" for d in range(22, 32)]
    paths = [
        daily(tmp_path / f"{i}.hdf", {"state_1km_1": ((0, i), 1)}, seed=i, day=f"2008{296 + i}", dates=(d, d)) for i, d in enumerate(days)
    ]
    out = convert(Modis(paths, Modis.Options(tile="12", split="train")), tmp_path / "corpus", progress=False)
    corpus = Corpus.open(out)
    samples = [corpus.read("train", i) for i in range(len(corpus.entries("train")))]
    assert len(samples) == 4
    assert {s.values.shape for s in samples} == {(10, 7, 1, 12, 12)}
    assert [(~s.valid[:, 0]).sum() for s in samples] == [24, 16, 0, 0]


def damaged(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read(path)
    text = str(error.value)
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_truncated_files_are_refused_before_the_library_reads_them(tmp_path: Path) -> None:
    data = daily(tmp_path / "a.hdf").read_bytes()
    for size in (1, 4, 9, 200, len(data) // 3, len(data) // 2, len(data) - 2):
        text = damaged(tmp_path / "b.hdf", data[:size])
        assert "truncated" in text or "HDF4" in text
    assert "empty" in damaged(tmp_path / "b.hdf", b"")


def deflated(data: bytes) -> int:
    """Length of the zlib stream of a whole variable that begins here, or 0."""
    engine = zlib.decompressobj()
    try:
        return len(data) - len(engine.unused_data) if len(engine.decompress(data)) >= 12 * 12 and engine.eof else 0
    except zlib.error:
        return 0


def test_a_flipped_bit_in_any_deflated_element_is_found(tmp_path: Path) -> None:
    path = daily(tmp_path / "a.hdf")
    data, rng = path.read_bytes(), np.random.default_rng(0)
    streams = [(i, n) for i in range(len(data) - 1) if data[i] == 0x78 and (n := deflated(data[i:]))]
    assert len(streams) == 9
    for start, length in streams:
        for where in rng.integers(start + 2, start + length, 3):
            broken = bytearray(data)
            broken[where] ^= 1 << int(rng.integers(8))
            assert "damaged" in damaged(tmp_path / "b.hdf", bytes(broken))
    require_whole(path)


def test_other_files_and_contradictions_are_told(tmp_path: Path) -> None:
    assert "not HDF4 by its first bytes" in damaged(tmp_path / "b.hdf", b"GRIB" + bytes(2000))
    path = daily(tmp_path / "a.hdf")
    data = path.read_bytes()
    assert "corners are not those of the tile h08v05" in damaged(tmp_path / "b.hdf", data.replace(b".h09v05.", b".h08v05."))
    assert "projection is GCTP_GEO" in damaged(tmp_path / "b.hdf", data.replace(b"GCTP_SNSOID", b"GCTP_GEO   "))
    assert "XDim is missing" in damaged(tmp_path / "b.hdf", data.replace(b"XDim=24", b"XDam=24"))
    assert "has the shape (24, 24)" in damaged(tmp_path / "b.hdf", data.replace(b"YDim=24", b"YDim=28"))
    assert "no whole number as _FillValue" in damaged(tmp_path / "b.hdf", data.replace(b"_FillValue", b"_FillVa1ue"))
    assert "lacks scale_factor" in damaged(tmp_path / "b.hdf", data.replace(b"scale_factor", b"scale_fac7or"))
    assert "no MODIS tile" in damaged(tmp_path / "b.hdf", data.replace(b"MOD09GA.A", b"XXX09GA.A"))
    plain = hdf.SD(str(tmp_path / "plain.hdf"), hdf.SDC.WRITE | hdf.SDC.CREATE)
    plain.create("a", hdf.SDC.INT16, (2, 2))[:] = np.ones((2, 2), np.int16)
    plain.end()
    with pytest.raises(UserError, match="not HDF-EOS"):
        read(tmp_path / "plain.hdf")
    grid = ("MODIS_Grid_1km_2D", np.zeros(TILE, np.uint16), {"_FillValue": 0})
    with pytest.raises(UserError, match="is MOD11A1 with LST_Day_1km; expected MOD09GA"):
        read(modis_tile(tmp_path / "c.hdf", {"LST_Day_1km": grid}, "MOD11A1"))
    with pytest.raises(UserError, match="no bit field of quality"):
        read(modis_tile(tmp_path / "d.hdf", {"sur_refl_b01_1": ("MODIS_Grid_500m_2D", np.zeros(TILE, np.int16), REFLECTANCE)}))
    with pytest.raises(UserError, match="did you mean cloud"):
        Modis([path], Modis.Options(mask=("clouds",)))


def test_without_pyhdf_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = daily(tmp_path / "a.hdf")
    monkeypatch.setitem(sys.modules, "pyhdf.SD", None)
    with pytest.raises(UserError, match=r"pip install 'scigpt\[hdf4\]'"):
        read(path)


def test_recognises_by_content(tmp_path: Path) -> None:
    assert Modis.recognises(daily(tmp_path / "a.bin"))
    (tmp_path / "MOD09GA.hdf").write_bytes(b"nothing")
    assert not Modis.recognises(tmp_path / "MOD09GA.hdf")
    assert not Modis.recognises(tmp_path)
    assert not Modis.recognises(tmp_path / "absent.hdf")


def granule(number: int, checksum: bool = True) -> dict[str, Any]:
    """As the common metadata repository answers (UMM-G)."""
    name = f"MOD09GA.A202015{number}.h09v05.061.2020000000000"
    base = f"lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/MOD09GA.061/{name}/{name}"
    archive: dict[str, Any] = {
        "Name": f"{name}.hdf",
        "SizeInBytes": 1000 + number,
        "Checksum": {"Value": f"AB{number}", "Algorithm": "MD5"},
    }
    return {
        "meta": {"native-id": name},
        "umm": {
            "GranuleUR": name,
            "RelatedUrls": [
                {"URL": f"https://data.{base}.hdf", "Type": "GET DATA"},
                {"URL": f"s3://lp-prod-protected/{name}.hdf", "Type": "GET DATA VIA DIRECT ACCESS"},
                {"URL": f"https://data.{base}.cmr.xml", "Type": "EXTENDED METADATA"},
            ],
            "DataGranule": {"ArchiveAndDistributionInformation": [archive if checksum else {"Name": "Not provided", "Size": 80.5}]},
        },
    }


def test_remotes_follow_the_pages_of_the_search() -> None:
    asked: list[dict[str, str]] = []

    def get(url: str) -> bytes:
        server, _, query = url.partition("?")
        assert server == "http://localhost/search/granules.umm_json"
        asked.append(dict(urllib.parse.parse_qsl(query)))
        pages = {"1": [granule(2), granule(3)], "2": [granule(4, checksum=False)]}
        return json.dumps({"hits": 3, "took": 5, "items": pages[asked[-1]["page_num"]]}).encode()

    options = Modis.Fetch(tiles=("h09v05",), start="2020-05-31", stop="2020-06-02", server="http://localhost/search")  # type: ignore[misc]
    found = list(Modis.remotes(options, get))
    name = "MOD09GA.A2020152.h09v05.061.2020000000000"
    url = f"https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/MOD09GA.061/{name}/{name}.hdf"
    assert found[0] == Remote(url, f"{name}.hdf", bytes=1002, checksum="md5:ab2", login="earthdata")
    assert [(r.bytes, r.checksum) for r in found] == [(1002, "md5:ab2"), (1003, "md5:ab3"), (None, None)]
    assert asked[0] | {"page_num": ""} == {
        "short_name": "MOD09GA", "version": "061", "temporal": "2020-05-31T00:00:00Z,2020-06-02T23:59:59Z",
        "readable_granule_name": "*.h09v05.*", "options[readable_granule_name][pattern]": "true", "sort_key": "start_date",
        "page_size": "500", "page_num": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "answer", "said"),
    [
        ({"tiles": ()}, b"", "needs tiles="),
        ({"tiles": ("9,5",)}, b"", "not of the form h09v05"),
        ({"start": ""}, b"", "needs start= and stop="),
        ({}, b'{"hits": 0, "items": []}', "the archive has no MOD09GA version 061 of h09v05"),
        ({}, b"<html>busy</html>", "not a list of granules"),
        ({}, b'{"hits": 1, "items": [{"umm": {}}]}', "the archive has no MOD09GA version 061 of h09v05"),
        ({}, b'{"hits": 1, "items": [{"meta": {}}]}', "not a list of granules"),
        ({}, b'{"hits": 1, "items": [{"umm": {"RelatedUrls": [{}]}}]}', "not a list of granules"),
        ({}, b'{"items": []}', "not a list of granules"),
    ],
)
def test_a_search_that_cannot_be_or_finds_nothing(options: dict[str, Any], answer: bytes, said: str) -> None:
    fetch = Modis.Fetch(**{"tiles": ("h09v05",), "start": "2020-06-01", "stop": "2020-06-02", **options})  # type: ignore[misc]
    with pytest.raises(UserError, match=said):
        list(Modis.remotes(fetch, lambda url: answer))


def first_row(path: Path, **options: Any) -> list[Sample]:
    """The pieces of the first 240 rows of a tile."""
    source = Modis([path], Modis.Options(**options))
    refs = [r for r in source.plan().refs if r.spec["window"][0] == 0]
    assert len(refs) == 10
    return [s for s in source.samples(refs) if s is not None]


def test_real_tile_equals_pyhdf_numpy_and_proj() -> None:
    path = real(f"modis/{REAL}")
    pieces = first_row(path, mask=("none",))
    assert [p.origin.place for p in pieces] == ["h14v17 MOD09GA row 0 column 1920", "h14v17 MOD09GA row 0 column 2160"]
    assert not (stored(path, "sur_refl_b01_1")[240:] != -28672).any()
    quality = stored(path, "QC_500m_1").astype(np.int64)
    latitude, longitude = places(2400, 2400, (14, 17))
    seen = 0
    for piece, left in zip(pieces, (1920, 2160), strict=True):
        window = (slice(0, 240), slice(left, left + 240))
        for band in range(7):
            raw = stored(path, f"sur_refl_b{band + 1:02d}_1")[window]
            own = (quality[window] // 2 ** (2 + 4 * band)) % 16
            good = (raw != -28672) & (raw >= -100) & (raw <= 16000) & (quality[window] % 4 < 2) & (own < 8)
            np.testing.assert_array_equal(piece.valid[0, band, 0], good)
            np.testing.assert_array_equal(piece.values[0, band, 0][good], (raw[good] / 10000.0).astype(np.float32))
            seen += int(good.sum())
        columns = (14 - 18) * MODIS_SIDE + (left + np.arange(240) + 0.5) * MODIS_SIDE / 2400
        edge = np.pi * MODIS_RADIUS * np.cos(np.radians(latitude[window][:, :1]))
        some = piece.valid[0, 0, 0] & (np.abs(columns) <= edge)  # the centres of a few pixels with values lie outside the globe
        assert piece.valid[0, 0, 0].sum() - some.sum() < 10
        np.testing.assert_allclose(piece.coordinates["latitude"].values[some], latitude[window][some], atol=1e-8)
        np.testing.assert_allclose(piece.coordinates["longitude"].values[some], longitude[window][some], atol=1e-6)
        assert piece.time.labels() == ["2008-10-22T12:00:00"]
    assert seen > 7 * 14000
    assert 0.5 < float(np.mean([p.values[p.valid].mean() for p in pieces])) < 0.9
    clear = (stored(path, "state_1km_1").astype(np.int64) % 4 == 0).repeat(2, 0).repeat(2, 1)
    masked = first_row(path, mask=("cloud",))
    for piece in masked:
        left = int(piece.origin.place.split()[-1])
        assert not (piece.valid[0, 0, 0] & ~clear[:240, left : left + 240]).any()
    assert sum(int(p.valid.sum()) for p in masked) < seen / 10
    assert Modis.recognises(path)


def test_real_tile_damaged(tmp_path: Path) -> None:
    data = real(f"modis/{REAL}").read_bytes()
    for size in (len(data) // 2, len(data) - 100):
        assert "truncated" in damaged(tmp_path / REAL, data[:size])
    broken = bytearray(data)
    broken[len(data) // 2] ^= 16
    assert "damaged" in damaged(tmp_path / REAL, bytes(broken))
