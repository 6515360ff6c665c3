"""HLS: bands by common name, scale, Fmask bits, times and places equal to rasterio, NumPy and pyproj; damage found."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.sources.hls import Hls
from scigpt.data_prep.sources.hls_catalogue import HlsFetch
from scigpt.errors import UserError

rasterio = pytest.importorskip("rasterio")
pyproj = pytest.importorskip("pyproj")

SIDE = 96
L30 = "HLS.L30.T06WVS.2024120T211159.v2.0"
S30 = "HLS.S30.T06WVS.2024120T213529.v2.0"
CHIP = ("coastal", "blue", "green", "red", "nir", "swir_1", "swir_2", "cirrus", "thermal_11um", "thermal_12um")


def write(path: Path, values: np.ndarray, crs: str = "EPSG:32606", north: float = 7200000.0, **profile: Any) -> Path:
    """A GeoTIFF such as HLS has: tiled, deflated, 30 m."""
    tags = profile.pop("tags", {})
    scale = profile.pop("scale", None)
    values = values if values.ndim == 3 else values[None]
    profile = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype, "crs": crs,
        "transform": rasterio.Affine(30, 0, 399960, 0, -30, north), "tiled": True, "blockxsize": 32, "blockysize": 32,
        "compress": "deflate",
    } | profile  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
        file.update_tags(**tags)
        if scale:
            file.scales = (scale,)
    return path


def counts(seed: int, low: int = 0, high: int = 6000) -> np.ndarray:
    values = np.random.default_rng(seed).integers(low, high, (SIDE, SIDE)).astype(np.int16)
    values[:4, :6] = -9999
    return values


def granule(folder: Path, stem: str, bands: dict[str, np.ndarray], fmask: np.ndarray | None = None, **profile: Any) -> list[Path]:
    """The bands of a granule and its Fmask, clear (average aerosol) unless given."""
    made = [write(folder / f"{stem}.{band}.tif", values, nodata=-9999, **profile) for band, values in bands.items()]
    flags = np.full((SIDE, SIDE), 128, np.uint8) if fmask is None else fmask
    profile.pop("tags", None)
    profile.pop("scale", None)
    return [*made, write(folder / f"{stem}.Fmask.tif", flags, nodata=255, **profile)]


read = functools.partial(samples_of, Hls)
refused = functools.partial(refusal_of, Hls)


def by_name(sample: Sample) -> dict[str, np.ndarray]:
    """Values `(T, Y, X)` with NaN where invalid."""
    return {v.key: np.where(sample.valid[:, c, 0], sample.values[:, c, 0], np.nan) for c, v in enumerate(sample.variables)}


def masked(stored: np.ndarray, scale: float = 0.0001, offset: float = 0.0) -> np.ndarray:
    return np.where(stored == -9999, np.nan, stored.astype(np.float64) * scale + offset).astype(np.float32)


def test_bands_go_by_common_name_and_never_by_number(tmp_path: Path) -> None:
    meaning = {
        "L30": {"B04": "red", "B05": "nir", "B06": "swir_1", "B10": "11um"},
        "S30": {"B04": "red", "B05": "red_edge_1", "B06": "red_edge_2", "B08": "nir_broad", "B11": "swir_1", "B8A": "nir"},
    }
    for product, stem in (("L30", L30), ("S30", S30)):
        stored = {band: counts(i) for i, band in enumerate(meaning[product])}
        granule(tmp_path / product, stem, stored)
        found = by_name(read(tmp_path / product)[0])
        assert len(found) == len(stored)
        for band, name in meaning[product].items():
            if name == "11um":
                np.testing.assert_allclose(found["brightness_temperature_11um"][0], masked(stored[band], 0.01, 273.15), rtol=1e-6)
            else:
                np.testing.assert_array_equal(found[f"surface_reflectance_{name}"][0], masked(stored[band]))


@pytest.mark.parametrize(
    ("scale", "tags"),
    [(None, {}), (0.0001, {}), (None, {"scale_factor": "0.0001"}), (None, {"scale_factor": "'0.0001'", "add_offset": "'0.0'"})],
)
def test_the_scale_is_that_of_the_file_or_of_the_product(tmp_path: Path, scale: float | None, tags: dict[str, str]) -> None:
    stored = counts(0)
    granule(tmp_path, L30, {"B04": stored}, scale=scale, tags=tags)
    np.testing.assert_array_equal(by_name(read(tmp_path)[0])["surface_reflectance_red"][0], masked(stored))


def test_another_scale_of_the_file_is_used(tmp_path: Path) -> None:
    stored = counts(0)
    granule(tmp_path / "a", L30, {"B04": stored}, scale=0.0002)
    granule(tmp_path / "b", L30, {"B04": stored}, tags={"scale_factor": "0.0002", "add_offset": "0.1"})
    for folder, offset in (("a", 0.0), ("b", 0.1)):
        found = by_name(read(tmp_path / folder)[0])["surface_reflectance_red"][0]
        np.testing.assert_allclose(found, masked(stored, 0.0002, offset), rtol=1e-6)


def test_attributes_that_are_strings_in_quotation_marks_are_numbers(tmp_path: Path) -> None:
    stored = counts(0)
    stored[stored == -9999] = -1000
    write(tmp_path / f"{L30}.B04.tif", stored, tags={"_FillValue": "'-1000'", "scale_factor": "'0.0001'"})
    found = by_name(read(tmp_path / f"{L30}.B04.tif", mask=())[0])["surface_reflectance_red"][0]
    np.testing.assert_array_equal(np.isnan(found), stored == -1000)


def test_reflectance_below_0_and_above_1_is_kept(tmp_path: Path) -> None:
    stored = counts(0)
    stored[10, 10], stored[11, 11] = -1500, 13000
    granule(tmp_path, S30, {"B02": stored})
    found = by_name(read(tmp_path)[0])["surface_reflectance_blue"][0]
    assert (found[10, 10], found[11, 11]) == (np.float32(-0.15), np.float32(1.3))
    convert(Hls([tmp_path], Hls.Options(split="train")), tmp_path / "out")
    assert Corpus.open(tmp_path / "out").read("train", 0).valid[0, 0, 0, 10, 10]


CLEAR = 0b10000000
BITS = {
    "cirrus": CLEAR | 1, "cloud": CLEAR | 2, "adjacent": CLEAR | 4, "shadow": CLEAR | 8, "snow": CLEAR | 16, "water": CLEAR | 32,
    "aerosol": 0b11000000, "low aerosol": 0b01000000, "average aerosol": 0b10000000, "nothing": 0, "no mask": 255,
}  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "gone"),
    [
        (None, {"cloud", "adjacent", "shadow", "aerosol", "no mask"}),
        (("cloud", "snow"), {"cloud", "snow", "no mask"}),
        (("aerosol",), {"aerosol", "no mask"}),
        (("water", "cirrus"), {"cirrus", "water", "no mask"}),
        ((), set()),
    ],
)
def test_what_fmask_says_is_made_invalid_and_water_is_kept(tmp_path: Path, mask: tuple[str, ...] | None, gone: set[str]) -> None:
    stored, flags = counts(0), np.full((SIDE, SIDE), CLEAR, np.uint8)
    for row, value in enumerate(BITS.values()):
        flags[20 + row, 40:50] = value
    granule(tmp_path, L30, {"B04": stored}, flags)
    found = by_name(read(tmp_path, **({} if mask is None else {"mask": mask}))[0])["surface_reflectance_red"][0]
    expected = masked(stored)
    for row, name in enumerate(BITS):
        if name in gone:
            expected[20 + row, 40:50] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_clouds_are_never_left_in_unsaid(tmp_path: Path) -> None:
    *_, fmask = granule(tmp_path, L30, {"B04": counts(0)})
    fmask.rename(tmp_path / "elsewhere.tif")
    assert f"there is no {L30}.Fmask.tif beside it" in refused(tmp_path / f"{L30}.B04.tif")
    assert read(tmp_path / f"{L30}.B04.tif", mask=())[0].valid[0, 0, 0, 4:].all()
    write(fmask, np.zeros((SIDE, SIDE), np.uint8), north=7200030.0)
    assert "is on another grid than" in refused(tmp_path / f"{L30}.B04.tif")
    assert "mask=clouds is not known; did you mean cloud?" in refused(tmp_path, mask=("clouds",))


def test_the_mask_is_among_the_files_of_a_sample_wherever_it_lies(tmp_path: Path) -> None:
    band, fmask = granule(tmp_path / "a", L30, {"B04": counts(0)})
    (tmp_path / "b").mkdir()
    moved = fmask.rename(tmp_path / "b" / fmask.name)
    source = Hls([band, moved])
    plan = source.plan()
    assert [name for name, _ in plan.inputs] == [band.name, moved.name]
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert [(f.name, f.sha256) for f in sample.origin.files] == list(plan.inputs)
    assert [name for name, _ in Hls([band, moved], Hls.Options(mask=())).plan().inputs] == [band.name]


@pytest.mark.parametrize(
    ("when", "expected"),
    [("2024120T211159", "2024-04-29T21:11:59"), ("2023120T000001", "2023-04-30T00:00:01"), ("2024366T235959", "2024-12-31T23:59:59")],
)
def test_the_time_is_year_and_day_of_the_year(tmp_path: Path, when: str, expected: str) -> None:
    granule(tmp_path, f"HLS.L30.T06WVS.{when}.v2.0", {"B04": counts(0)})
    (sample,) = read(tmp_path)
    assert sample.time.labels() == [expected]
    assert sample.time.bounds is None


@pytest.mark.parametrize("when", ["2023366T000000", "2024000T000000", "2024120T240000", "2024400T000000"])
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, when: str) -> None:
    assert "in its name is no time" in refused(write(tmp_path / f"HLS.L30.T06WVS.{when}.v2.0.B04.tif", counts(0)))


def test_both_products_on_one_day_are_one_record_of_the_bands_they_share(tmp_path: Path) -> None:
    landsat = {"B04": counts(1), "B05": counts(2), "B10": counts(3)}
    sentinel = {"B04": counts(4), "B05": counts(5), "B8A": counts(6)}
    granule(tmp_path, L30, landsat)
    granule(tmp_path, S30, sentinel)
    source = Hls([tmp_path])
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert sample.time.labels() == ["2024-04-29T21:11:59", "2024-04-29T21:35:29"]
    found = by_name(sample)
    assert set(found) == {"surface_reflectance_red", "surface_reflectance_nir"}
    np.testing.assert_array_equal(found["surface_reflectance_nir"], np.stack([masked(landsat["B05"]), masked(sentinel["B8A"])]))
    assert any("bands that only one of L30 and S30 has" in note and "red_edge_1" in note for note in plan.notes)
    assert set(by_name(read(tmp_path, variables=("red",))[0])) == {"surface_reflectance_red"}


def test_tiles_are_places_and_one_in_two_zones_is_two(tmp_path: Path) -> None:
    granule(tmp_path, "HLS.L30.T06WVS.2024120T211159.v2.0", {"B04": counts(0)})
    granule(tmp_path, "HLS.L30.T07VCL.2024120T211159.v2.0", {"B04": counts(1)}, crs="EPSG:32607", north=6700000.0)
    granule(tmp_path, "HLS.S30.T06WVS.2024121T211159.v2.0", {"B04": counts(2)}, crs="EPSG:32605")
    samples = {s.origin.place: s for s in read(tmp_path)}
    assert set(samples) == {"T06WVS", "T07VCL", "T06WVS in UTM zone 5"}
    for place, zone, north in (("T06WVS", 6, 7200000.0), ("T07VCL", 7, 6700000.0), ("T06WVS in UTM zone 5", 5, 7200000.0)):
        to_degrees = pyproj.Transformer.from_crs(f"EPSG:{32600 + zone}", "EPSG:4326", always_xy=True)
        x, y = 399960 + 30 * (np.arange(SIDE) + 0.5), north - 30 * (np.arange(SIDE) + 0.5)
        longitude, latitude = to_degrees.transform(*np.meshgrid(x, y))
        np.testing.assert_allclose(samples[place].coordinates["latitude"].values, latitude, atol=1e-6)
        np.testing.assert_allclose(samples[place].coordinates["longitude"].values, longitude, atol=1e-6)


def test_the_southern_half_in_either_numbering_of_its_northings_is_one_place(tmp_path: Path) -> None:
    granule(tmp_path, "HLS.L30.T34HBH.2024120T083000.v2.0", {"B04": counts(0)}, crs="EPSG:32634", north=-3700000.0)
    granule(tmp_path, "HLS.S30.T34HBH.2024121T083000.v2.0", {"B04": counts(1)}, crs="EPSG:32734", north=6300000.0)
    (sample,) = read(tmp_path)
    assert len(sample.time) == 2
    assert sample.origin.place == "T34HBH"
    assert -34 < sample.coordinates["latitude"].values.mean() < -33


def test_irregular_overpasses_are_no_holes(tmp_path: Path) -> None:
    for day in (100, 103, 148, 149, 300):
        granule(tmp_path, f"HLS.S30.T06WVS.2024{day}T211159.v2.0", {"B04": counts(day)})
    (sample,) = read(tmp_path, split="train")
    assert len(sample.time) == 5


def test_fmask_alone_is_masks_of_0_and_1(tmp_path: Path) -> None:
    flags = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    path = write(tmp_path / f"{L30}.Fmask.tif", flags, nodata=255)
    found = by_name(read(path)[0])
    for name, bit in (("cloud_mask", 1), ("snow_mask", 4), ("water_mask", 5)):
        np.testing.assert_array_equal(found[name][0], np.where(flags == 255, np.nan, (flags >> bit) & 1))
    granule(tmp_path, L30, {"B04": counts(0)}, flags)
    assert set(by_name(read(tmp_path)[0])) == {"surface_reflectance_red"}
    assert set(by_name(read(tmp_path, variables=("red", "water_mask"))[0])) == {"surface_reflectance_red", "water_mask"}


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("compress", ["lzw", "deflate", "none"])
def test_a_stacked_image_is_read_by_options(tmp_path: Path, interleave: str, compress: str) -> None:
    stored = np.stack([counts(i) for i in range(3)]).astype(np.float32)
    path = write(tmp_path / "chip.tif", stored, nodata=-9999, interleave=interleave, compress=compress, tiled=False, blockysize=7)
    options: dict[str, Any] = {"bands": ("red", "nir", "thermal_11um"), "date": "2024-04-29T21:11:59", "stack_scale": "hls"}
    (sample,) = read(path, **options)
    found = by_name(sample)
    np.testing.assert_array_equal(found["surface_reflectance_nir"][0], masked(stored[1]))
    np.testing.assert_allclose(found["brightness_temperature_11um"][0], masked(stored[2], 0.01, 273.15), rtol=1e-6)
    assert sample.time.labels() == ["2024-04-29T21:11:59"]
    assert sample.origin.place == "chip"
    (sample,) = read(path, **options | {"stack_scale": "unit", "bands": ("red", "nir", "blue")})
    np.testing.assert_array_equal(by_name(sample)["surface_reflectance_blue"][0], masked(stored[2], 1.0))


def test_a_stacked_image_that_does_not_say_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "chip.tif", np.stack([counts(0), counts(1)]))
    assert "give the common name of each in order" in refused(path)
    assert "give the common name of each in order" in refused(path, bands=("red",), date="2024-04-29")
    assert "bands=rad is not known; did you mean red?" in refused(path, bands=("rad", "nir"))
    assert "does not say when it was sensed; give date=" in refused(path, bands=("red", "nir"))
    assert "cannot be read; expected one such as 2024-04-29" in refused(path, bands=("red", "nir"), date="29.4.2024")
    tagged = write(tmp_path / "b.tif", np.stack([counts(0), counts(1)]), tags={"TIFFTAG_DATETIME": "2024:04:29 21:11:59"})
    assert read(tagged, bands=("red", "nir"))[0].time.labels() == ["2024-04-29T21:11:59"]
    fractions = write(tmp_path / "c.tif", np.random.default_rng(0).uniform(0, 1, (2, SIDE, SIDE)).astype(np.float32))
    assert "does not say in what unit" in refused(fractions, bands=("red", "nir"), date="2024-04-29")


def test_what_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "HLS.L30.T17SLU.2017005.v1.5.hdf").write_bytes(b"\x0e\x03\x13\x01")
    assert "is HDF4, the form of HLS up to v1.5, which is withdrawn" in refused(tmp_path / "HLS.L30.T17SLU.2017005.v1.5.hdf")
    assert "SZA is no band that can be used" in refused(write(tmp_path / f"{L30}.SZA.tif", counts(0)))
    (tmp_path / f"{L30}.B04.tif").write_text("<html>log in first</html>")
    assert "is not a GeoTIFF by its first bytes" in refused(tmp_path / f"{L30}.B04.tif", mask=())
    assert not Hls.recognises(tmp_path / f"{L30}.B04.tif")
    (tmp_path / "a.txt").write_text("a")
    assert "is not a GeoTIFF by its first bytes" in refused(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    assert "holds no HLS band" in refused(tmp_path / "empty")
    bare = write(tmp_path / f"{L30}.B03.tif", counts(0), crs=None)
    assert "has no coordinate reference system" in refused(bare, mask=())
    far = write(tmp_path / f"{L30}.B02.tif", counts(0), crs="EPSG:4326")
    assert "outside the Earth" in refused(far, mask=())


def test_recognised_by_content_and_name(tmp_path: Path) -> None:
    band, _ = granule(tmp_path / "a", L30, {"B04": counts(0)})
    assert Hls.recognises(band)
    assert Hls.recognises(tmp_path / "a")
    assert Hls.recognises(tmp_path)
    assert not Hls.recognises(tmp_path / "missing.tif")
    assert not Hls.recognises(write(tmp_path / "b" / "other.tif", counts(0)))
    assert not Hls.recognises(tmp_path / "b")


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_a_truncated_image_is_found_before_it_is_read(tmp_path: Path, driver: str) -> None:
    path = write(tmp_path / "whole.tif", counts(0), nodata=-9999)
    if driver == "COG":
        shutil.move(path, tmp_path / "plain.tif")
        from rasterio.shutil import copy

        copy(tmp_path / "plain.tif", path, driver="COG", blocksize=128, compress="deflate")
    whole, cut = path.read_bytes(), tmp_path / f"{L30}.B04.tif"
    for length in (4, 200, len(whole) // 3, len(whole) - 200, len(whole) - 1):
        cut.write_bytes(whole[:length])
        assert f"{L30}.B04.tif" in refused(cut, mask=())
        with pytest.raises(UserError, match="is not a whole GeoTIFF"):
            Hls([cut], Hls.Options(mask=())).plan()


def test_damaged_values_that_gdal_passes_over_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / f"{L30}.B04.tif", counts(0), nodata=-9999)
    whole = path.read_bytes()
    (good,) = read(path, mask=())
    silent = 0
    for at in np.linspace(2000, len(whole) - 200, 24).astype(int):
        damaged = bytearray(whole)
        damaged[at : at + 8] = bytes(8)
        path.write_bytes(damaged)
        with contextlib.suppress(rasterio.errors.RasterioError), rasterio.open(path) as file:
            silent += not np.array_equal(file.read(1), counts(0))
        with contextlib.suppress(UserError):
            np.testing.assert_array_equal(read(path, mask=())[0].values, good.values)
    assert silent > 0  # GDAL alone would have let some of it through


def test_blocks_that_are_left_out_are_no_zeros(tmp_path: Path) -> None:
    values = counts(0)
    values[32:64, 32:64] = 0
    path = write(tmp_path / f"{L30}.B04.tif", values, sparse_ok="TRUE")
    assert "blocks are left out and would read as zeros" in refused(path, mask=())


def test_pieces_of_a_tile_equal_the_whole(tmp_path: Path) -> None:
    flags = np.random.default_rng(0).choice(np.array([128, 130, 192], np.uint8), (SIDE, SIDE))
    granule(tmp_path, L30, {"B04": counts(0), "B05": counts(1)}, flags)
    (whole,) = read(tmp_path)
    for piece, (y, x) in zip(read(tmp_path, tile="48"), [(y, x) for y in (0, 48) for x in (0, 48)], strict=True):
        np.testing.assert_array_equal(piece.values, whole.values[..., y : y + 48, x : x + 48])
        np.testing.assert_array_equal(piece.valid, whole.valid[..., y : y + 48, x : x + 48])
        np.testing.assert_array_equal(piece.coordinates["latitude"].values, whole.coordinates["latitude"].values[y : y + 48, x : x + 48])


def umm(product: str, name: str) -> dict[str, Any]:
    """A granule as NASA's common metadata repository lists it (UMM-G)."""
    bucket = f"lp-prod-protected/HLS{product}.020/{name}/{name}"
    server, files = "https://data.lpdaac.earthdatacloud.nasa.gov", [f"{b}.tif" for b in ("B02", "B04", "B05", "B8A", "Fmask", "SZA")]
    return {
        "meta": {"native-id": name},
        "umm": {
            "GranuleUR": name,
            "RelatedUrls": [
                *({"URL": f"{server}/{bucket}.{f}", "Type": "GET DATA"} for f in files),
                *({"URL": f"s3://{bucket}.{f}", "Type": "GET DATA VIA DIRECT ACCESS"} for f in files),
                {"URL": f"{server}/{bucket}.jpg", "Type": "GET RELATED VISUALIZATION"},
                {"URL": f"{server}/{bucket}.cmr.xml", "Type": "EXTENDED METADATA"},
                {"URL": "https://search.earthdata.nasa.gov/search?q=C2021957657", "Type": "GET DATA"},
            ],
            "DataGranule": {
                "ArchiveAndDistributionInformation": [
                    {"Name": f"{name}.B04.tif", "SizeInBytes": 77, "Checksum": {"Value": "AB" * 32, "Algorithm": "SHA-256"}},
                    {"Name": "Not provided", "Size": 80.5, "SizeUnit": "MB"},
                ]
            },
        },
    }


def test_what_is_fetched_from_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scigpt.data_prep.cmr.PAGE", 2)
    asked: list[dict[str, list[str]]] = []
    names = {"L30": [L30, L30.replace("2024120", "2024128"), L30.replace("2024120", "2024136")], "S30": [S30]}

    def get(url: str) -> bytes:
        query = parse_qs(urlsplit(url).query)
        assert url.startswith("http://localhost:1/search/granules.umm_json?")
        asked.append(query)
        product, page, size = (query[k][0] for k in ("short_name", "page_num", "page_size"))
        product, first = product.removeprefix("HLS"), (int(page) - 1) * int(size)
        found = [umm(product, name) for name in names[product]]
        return json.dumps({"hits": len(found), "took": 5, "items": found[first : first + int(size)]}).encode()

    options = HlsFetch(tile="06WVS", start="2024-04-29", stop="2024-05-20", bands=("red", "nir"), server="http://localhost:1/search")
    found = list(Hls.remotes(options, get))
    assert [(q["page_num"], q["page_size"]) for q in asked] == [(["1"], ["2"]), (["2"], ["2"]), (["1"], ["2"])]
    assert asked[0]["granule_ur"] == ["HLS.L30.T06WVS.*"]
    assert asked[0]["options[granule_ur][pattern]"] == ["true"]
    assert asked[0]["temporal"] == ["2024-04-29T00:00:00Z,2024-05-20T23:59:59Z"]
    assert asked[0]["version"] == ["2.0"]
    assert asked[0]["cloud_cover"] == ["0,50"]
    assert asked[0]["sort_key"] == ["start_date"]
    assert len(found) == 3 * 4
    assert {r.login for r in found} == {"earthdata"}
    assert [r.file for r in found if "S30" in r.file] == [f"{S30}/{S30}.{b}.tif" for b in ("B04", "B8A", "Fmask")]
    assert [r.file for r in found[:3]] == [f"{L30}/{L30}.{b}.tif" for b in ("B04", "B05", "Fmask")]
    assert found[0].url == f"https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSL30.020/{L30}/{L30}.B04.tif"
    assert [(r.bytes, r.checksum) for r in found[:2]] == [(77, f"sha256:{'ab' * 32}"), (None, None)]


@pytest.mark.parametrize(("limit", "sizes"), [(1, ["1"]), (2, ["2"]), (3, ["2", "2"]), (4, ["2", "2"]), (9, ["2", "2", "2"])])
def test_the_search_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, limit: int, sizes: list[str]) -> None:
    monkeypatch.setattr("scigpt.data_prep.cmr.PAGE", 2)
    asked: list[dict[str, list[str]]] = []
    names = [L30.replace("2024120", f"2024{day}") for day in range(120, 125)]

    def get(url: str) -> bytes:
        asked.append(parse_qs(urlsplit(url).query))
        first, size = (len(asked) - 1) * 2, int(asked[-1]["page_size"][0])
        return json.dumps({"hits": 5, "items": [umm("L30", name) for name in names[first : first + size]]}).encode()

    options = HlsFetch(box=(-149.0, 64.0, -148.0, 64.5), start="2024-04-29", products=("L30",), limit=limit)
    assert list(dict.fromkeys(r.file.partition("/")[0] for r in Hls.remotes(options, get))) == names[:limit]
    assert [q["page_size"][0] for q in asked] == sizes
    assert asked[0]["bounding_box"] == ["-149.0,64.0,-148.0,64.5"]
    assert "granule_ur" not in asked[0]


def test_a_granule_without_files_is_passed_over() -> None:
    body = json.dumps({"hits": 2, "items": [{"umm": {"GranuleUR": L30}}, umm("L30", L30)]}).encode()
    options = HlsFetch(tile="T06WVS", start="2024-04-29", products=("L30",), bands=("red",))
    assert [r.file for r in Hls.remotes(options, lambda _: body)] == [f"{L30}/{L30}.{b}.tif" for b in ("B04", "Fmask")]


@pytest.mark.parametrize("error", [UserError("http://localhost cannot be reached"), OSError("reset")])
def test_errors_of_the_network_pass_through_the_search(error: Exception) -> None:
    def get(url: str) -> bytes:
        raise error

    with pytest.raises(type(error)) as caught:
        list(Hls.remotes(HlsFetch(tile="T06WVS", start="2024-04-29"), get))
    assert caught.value is error


@pytest.mark.parametrize(
    ("options", "body", "words"),
    [
        ({}, b"", "needs start=2024-04-01 and either tile="),
        ({"start": "2024-04-01", "tile": "T06WVS", "box": (1.0, 2.0, 3.0, 4.0)}, b"", "needs start="),
        ({"start": "2024-04-01", "box": (1.0, 2.0)}, b"", "needs start="),
        ({"start": "2024-04-01", "tile": "T06WVS", "products": ("L8",)}, b"", "'L8' is not known to HLS"),
        ({"start": "2024-04-01", "tile": "T06WVS", "bands": ("B04",)}, b"", "'B04' is not known to HLS"),
        ({"start": "2024-04-01", "tile": "T06WVS"}, b"<html>", "is not a list of granules"),
        ({"start": "2024-04-01", "tile": "T06WVS"}, b'{"feed": {"entry": []}}', "is not a list of granules"),
        ({"start": "2024-04-01", "tile": "T06WVS"}, b'{"hits": 0, "items": []}', "found no granule of L30, S30 at T06WVS"),
    ],
)
def test_a_search_that_cannot_be(options: dict[str, Any], body: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        list(Hls.remotes(HlsFetch(**options), lambda _: body))


def test_a_corpus_of_tiles(tmp_path: Path) -> None:
    for day in range(100, 112):
        granule(tmp_path, f"HLS.S30.T06WVS.2024{day}T211159.v2.0", {"B04": counts(day), "B8A": counts(day + 500)})
    convert(Hls([tmp_path], Hls.Options(tile="32", gap=0, split_by="tile", splits=(0.4, 0.3, 0.3))), tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.splits == ("train", "valid", "test")
    sample = corpus.read("train", 0)
    assert sample.values.shape[1:] == (2, 1, 32, 32)
    assert {v.name for v in sample.variables} == {"surface_reflectance_red", "surface_reflectance_nir"}
    assert not sample.valid[:, :, 0, :4, :6].any()


def test_the_real_fmask_equals_rasterio_and_pyproj() -> None:
    path = real("hls/HLS.L30.T06WVS.2024120T211159.v2.0.Fmask.tif")
    with rasterio.open(path) as file:
        flags, crs = file.read(1), file.crs.to_epsg()
        assert "1      cloud" in file.tags()["Fmask bit description"]
    source = Hls([path], Hls.Options(tile="366"))
    refs = source.plan().refs
    with source.records([]) as (records, _):
        (record,) = records
        assert record.shape == (3660, 3660)
        for series, bit in zip(record.series, (1, 4, 5), strict=True):
            values = series.fields[0].read(np.array([0]), None)[0, 0]
            np.testing.assert_array_equal(np.isnan(values), flags == 255)
            np.testing.assert_array_equal(values[flags != 255], (flags[flags != 255] >> bit) & 1)
    for number in (0, 57, 99):
        (sample,) = source.samples([refs[number]])
        assert sample is not None
        assert sample.time.labels() == ["2024-04-29T21:11:59"]
        row, column = 366 * (number // 10), 366 * (number % 10)
        x, y = 399960 + 30 * (column + np.arange(366) + 0.5), 7200000 - 30 * (row + np.arange(366) + 0.5)
        longitude, latitude = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*np.meshgrid(x, y))
        np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-6)
        np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude, atol=1e-6)
        np.testing.assert_array_equal(sample.valid[0, 0, 0], flags[row : row + 366, column : column + 366] != 255)
    assert Hls.recognises(path)


def test_the_real_stacked_image_equals_rasterio() -> None:
    path = real("hls/segmentation_test_0_input.tif")
    with rasterio.open(path) as file:
        stored = file.read()
    (sample,) = read(path, bands=CHIP, date="2024-04-29", stack_scale="hls")
    assert [v.name.rpartition("_")[2] for v in sample.variables[-2:]] == ["11um", "12um"]
    expected = stored.astype(np.float64) * np.array([0.0001] * 8 + [0.01] * 2)[:, None, None]
    expected[8:] += 273.15
    np.testing.assert_allclose(sample.values[0, :, 0], expected, rtol=1e-6, atol=1e-9)
    assert sample.valid.all() == (stored != -9999).all()
    assert math.isclose(sample.coordinates["latitude"].values.mean(), 28.5, abs_tol=0.1)
    assert "give the common name of each in order" in refused(path)


def test_the_real_label_has_no_place() -> None:
    assert "segmentation_test_0_label.tif has no coordinate reference system" in refused(real("hls/segmentation_test_0_label.tif"))
    assert not Hls.recognises(real("hls/segmentation_test_0_label.tif"))


def test_the_real_files_truncated(tmp_path: Path) -> None:
    for name, options in (
        ("HLS.L30.T06WVS.2024120T211159.v2.0.Fmask.tif", {}),
        ("segmentation_test_0_input.tif", {"bands": CHIP, "date": "2024-04-29", "stack_scale": "hls"}),
    ):
        whole = real(f"hls/{name}").read_bytes()
        for share in (0.01, 0.5, 0.99):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            assert "is not a whole GeoTIFF" in refused(tmp_path / name, **options)
