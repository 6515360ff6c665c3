"""PRISM: BIL zips and GeoTIFF read to the same numbers as NumPy and rasterio, days that end at 12 UTC, releases told, damage found."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.formats import rasters
from scigpt.data_prep.sources.prism import Prism
from scigpt.errors import UserError

rasterio = pytest.importorskip("rasterio")

ROWS, COLUMNS, CELL = 40, 60, 1 / 24
NORTH, WEST = 49.9166666666664, -125.0
PRJ = (
    'GEOGCS["GCS_North_American_1983",DATUM["D_North_American_1983",SPHEROID["GRS_1980",6378137.0,298.257222101]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.017453292519943295]]'
)
HDR = f"""BYTEORDER I
LAYOUT BIL
NROWS {ROWS}
NCOLS {COLUMNS}
NBANDS 1
NBITS 32
BANDROWBYTES {COLUMNS * 4}
TOTALROWBYTES {COLUMNS * 4}
PIXELTYPE FLOAT
ULXMAP {WEST}
ULYMAP {NORTH}
XDIM {CELL}
YDIM {CELL}
NODATA -9999
"""
INFO = (
    "PRISM_DATASET_FILENAME: adj_best.bil\nPRISM_DATASET_CREATE_DATE: 20150908\nPRISM_DATASET_TYPE: an81/r1503\nPRISM_DATASET_VERSION: D2\n"
)


def grid(seed: int, low: float = 0.0, high: float = 50.0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(low, high, (ROWS, COLUMNS)).astype("<f4")
    values[:3, :5] = -9999.0
    return values


def bil_zip(path: Path, grids: dict[str, np.ndarray], info: str = INFO, **replaced: bytes) -> Path:
    """A zip as the old service wrote it: `grids` by stem."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for stem, values in grids.items():
            parts = {"bil": values.tobytes(), "hdr": HDR.encode(), "prj": PRJ.encode(), "info.txt": info.encode()} | replaced
            for suffix, content in parts.items():
                archive.writestr(f"{stem}.{suffix}", content)
    return path


def geotiff(values: np.ndarray, driver: str = "COG", **tags: str) -> bytes:
    profile = {
        "driver": driver, "height": ROWS, "width": COLUMNS, "count": 1, "dtype": "float32", "crs": "EPSG:4269", "nodata": -9999.0,
        "compress": "deflate", "transform": rasterio.Affine(CELL, 0, WEST - CELL / 2, 0, -CELL, NORTH + CELL / 2),
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(values, 1)
            file.update_tags(**tags)
        return bytes(memory.read())


def tif_zip(path: Path, values: np.ndarray, info: str = "", **tags: str) -> Path:
    """A zip as the service writes it since October 2025."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(path.stem + ".tif", geotiff(values, **tags))
        if info:
            archive.writestr(path.stem + ".info.txt", info)
    return path


read = functools.partial(samples_of, Prism)
refused = functools.partial(refusal_of, Prism)


def test_a_bil_in_a_zip_equals_numpy_with_cell_centres_and_gaps(tmp_path: Path) -> None:
    stored = grid(0)
    path = bil_zip(tmp_path / "PRISM_ppt_stable_4kmD2_20110101_bil.zip", {"PRISM_ppt_stable_4kmD2_20110101_bil": stored})
    (sample,) = read(path)
    valid = stored != -9999.0
    np.testing.assert_array_equal(sample.valid[0, 0, 0], valid)
    np.testing.assert_array_equal(sample.values[0, 0, 0][valid], stored[valid])
    assert (sample.values[~sample.valid] == 0).all()
    assert [(v.name, v.unit) for v in sample.variables] == [("precipitation_amount", "kg m**-2")]
    np.testing.assert_allclose(sample.coordinates["latitude"].values, NORTH - CELL * np.arange(ROWS), atol=1e-9)
    np.testing.assert_allclose(sample.coordinates["longitude"].values, WEST + CELL * np.arange(COLUMNS), atol=1e-9)
    assert sample.origin.place == "us 4km daily"


@pytest.mark.parametrize("packed", ["zip", "tif", "plain"])
def test_a_geotiff_equals_rasterio(tmp_path: Path, packed: str) -> None:
    stored = grid(1, -20, 30)
    if packed == "zip":
        path = tif_zip(tmp_path / "prism_tmax_us_25m_20240301.zip", stored)
        direct = f"/vsizip/{path}/prism_tmax_us_25m_20240301.tif"
    else:
        path = tmp_path / "prism_tmax_us_25m_20240301.tif"
        path.write_bytes(geotiff(stored, "COG" if packed == "tif" else "GTiff"))
        direct = str(path)
    (sample,) = read(path)
    with rasterio.open(direct) as file:
        expected, (north, west) = file.read(1, masked=True), file.xy(0, 0)[::-1]
    np.testing.assert_array_equal(sample.valid[0, 0, 0], ~expected.mask)
    celsius = expected.data[~expected.mask].astype(np.float64)
    np.testing.assert_allclose(sample.values[0, 0, 0][~expected.mask], celsius + 273.15, rtol=1e-6)
    assert [v.name for v in sample.variables] == ["air_temperature_maximum"]
    assert sample.coordinates["latitude"].values[0] == pytest.approx(north, abs=1e-9)
    assert sample.coordinates["longitude"].values[0] == pytest.approx(west, abs=1e-9)
    assert sample.time.labels() == ["2024-03-01T00:00:00"]


def test_the_day_is_the_24_hours_that_end_at_12_utc_of_its_date(tmp_path: Path) -> None:
    (sample,) = read([tif_zip(tmp_path / f"prism_ppt_us_25m_2024030{d}.zip", grid(d)) for d in (1, 2)])
    assert sample.time.bounds is not None
    edges = (np.datetime64("2000-01-01", "s") + sample.time.bounds.astype("timedelta64[s]")).astype(str)
    assert edges.tolist() == [["2024-02-29T12:00:00", "2024-03-01T12:00:00"], ["2024-03-01T12:00:00", "2024-03-02T12:00:00"]]
    np.testing.assert_array_equal(sample.time.seconds, sample.time.bounds.mean(axis=1))


@pytest.mark.parametrize(
    ("dates", "edges"),
    [
        (("202401", "202402", "202403"), ("2023-12-31T12", "2024-01-31T12", "2024-02-29T12", "2024-03-31T12")),
        (("2023", "2024"), ("2022-12-31T12", "2023-12-31T12", "2024-12-31T12")),
    ],
)
def test_months_and_years_are_made_of_such_days(tmp_path: Path, dates: tuple[str, ...], edges: tuple[str, ...]) -> None:
    old = [f"PRISM_tmean_stable_4kmM3_{d}_bil" for d in dates]
    (sample,) = read([bil_zip(tmp_path / f"{s}.zip", {s: grid(i)}) for i, s in enumerate(old)])
    assert sample.time.bounds is not None
    expected = np.array([[np.datetime64(a, "s"), np.datetime64(b, "s")] for a, b in itertools.pairwise(edges)])
    np.testing.assert_array_equal(np.datetime64("2000-01-01", "s") + sample.time.bounds.astype("timedelta64[s]"), expected)
    assert sample.origin.place == f"us 4km {'monthly' if len(dates) == 3 else 'annual'}"


def test_units_of_every_variable_and_names_of_both_schemes_side_by_side(tmp_path: Path) -> None:
    ranges = {"ppt": (0, 90), "tmin": (-20, 0), "tmean": (0, 9), "tmax": (9, 30), "tdmean": (-30, 0), "vpdmin": (0, 5), "vpdmax": (5, 60)}
    stored = {name: grid(i, *span) for i, (name, span) in enumerate(ranges.items())}
    paths = []
    for i, (name, values) in enumerate(stored.items()):
        stem = f"PRISM_{name}_provisional_4kmD2_20230710_bil"
        new = tmp_path / f"prism_{name}_us_25m_20230710.zip"
        paths.append(tif_zip(new, values) if i % 2 else bil_zip(tmp_path / f"{stem}.zip", {stem: values}))
    (sample,) = read(paths)
    found = {v.name: (v.unit, sample.values[0, c, 0][5:]) for c, v in enumerate(sample.variables)}
    kelvin, pascal = (lambda v: v.astype(np.float64) + 273.15), (lambda v: v.astype(np.float64) * 100)
    for own, name, unit, to in (
        ("precipitation_amount", "ppt", "kg m**-2", lambda v: v),
        ("air_temperature_minimum", "tmin", "K", kelvin),
        ("air_temperature", "tmean", "K", kelvin),
        ("air_temperature_maximum", "tmax", "K", kelvin),
        ("dew_point_temperature", "tdmean", "K", kelvin),
        ("vapour_pressure_deficit_minimum", "vpdmin", "Pa", pascal),
        ("vapour_pressure_deficit_maximum", "vpdmax", "Pa", pascal),
    ):
        assert found[own][0] == unit
        np.testing.assert_allclose(found[own][1], to(stored[name][5:]), rtol=1e-6)


def test_the_release_is_kept_from_the_old_name_from_texts_and_from_tags(tmp_path: Path) -> None:
    stem = "PRISM_ppt_early_4kmD2_20230710_bil"
    third = "PRISM_DATASET_RELEASE_NUMBER: 3\nPRISM_DATASET_CREATE_DATE: 20230901\n"
    (sample,) = read(
        [
            bil_zip(tmp_path / f"{stem}.zip", {stem: grid(0)}),
            tif_zip(tmp_path / "prism_ppt_us_25m_20230711.zip", grid(1), PRISM_DATASET_RELEASE_NUMBER="8", PRISM_DATASET_TYPE="an91/r2112"),
            tif_zip(
                tmp_path / "prism_ppt_us_25m_20230712.zip",
                grid(2),
                third,
            ),
            tif_zip(tmp_path / "prism_ppt_us_25m_20230713.zip", grid(3)),
        ]
    )
    told = sample.origin.attribution.partition("releases: ")[2]
    assert told == "early an81/r1503 D2, created 20150908; release 3, created 20230901; release not stated; stable an91/r2112"


def test_two_releases_of_one_day_are_refused(tmp_path: Path) -> None:
    stems = [f"PRISM_ppt_{word}_4kmD2_20230710_bil" for word in ("provisional", "stable")]
    sentence = refused([bil_zip(tmp_path / f"{s}.zip", {s: grid(0)}) for s in stems])
    assert "ppt of 20230710 is given twice" in sentence
    assert "keep the later release" in sentence
    for folder in ("a", "b"):  # the names of now do not tell releases apart
        (tmp_path / folder).mkdir()
        tif_zip(tmp_path / folder / "prism_ppt_us_25m_20230710.zip", grid(0), PRISM_DATASET_RELEASE_NUMBER="8" if folder == "a" else "1")
    sentence = refused([tmp_path / "a", tmp_path / "b"])
    assert "(stable)" in sentence
    assert "(release 1)" in sentence


def test_a_folder_a_zip_of_many_days_and_mixed_frequencies(tmp_path: Path) -> None:
    days = {f"PRISM_ppt_stable_4kmD2_201101{d:02d}_bil": grid(d) for d in range(1, 6)}
    bil_zip(tmp_path / "PRISM_ppt_stable_4kmD2_20110101_20110105_bil.zip", days)
    (sample,) = read(tmp_path, split="train")
    np.testing.assert_array_equal(sample.values[:, 0, 0, 5:], np.stack([v[5:] for v in days.values()]))
    month = "PRISM_ppt_stable_4kmM2_201101_bil"
    bil_zip(tmp_path / f"{month}.zip", {month: grid(9)})
    assert "choose one with frequency=" in refused(tmp_path)
    (sample,) = read(tmp_path, frequency="monthly")
    np.testing.assert_array_equal(sample.values[0, 0, 0, 5:], grid(9)[5:])
    (tmp_path / "none").mkdir()
    assert "holds no PRISM grid" in refused(tmp_path / "none")


def test_an_unpacked_bil_and_what_is_read_with_it(tmp_path: Path) -> None:
    stem = "PRISM_ppt_stable_4kmD2_20110101_bil"
    with zipfile.ZipFile(bil_zip(tmp_path / "a.zip", {stem: grid(0)})) as archive:
        archive.extractall(tmp_path / "out")
    source = Prism([tmp_path / "out" / f"{stem}.bil"])
    plan = source.plan()
    assert [name for name, _ in plan.inputs] == [f"{stem}{s}" for s in (".bil", ".hdr", ".prj", ".info.txt")]
    sample = next(s for s in source.samples(plan.refs) if s is not None)
    np.testing.assert_array_equal(sample.values[0, 0, 0, 5:], grid(0)[5:])
    assert [f.name for f in sample.origin.files] == [name for name, _ in plan.inputs]
    assert Prism.recognises(tmp_path / "out" / f"{stem}.bil")
    with (tmp_path / "out" / f"{stem}.bil").open("ab") as file:
        file.truncate(ROWS * COLUMNS * 4 - 100)
    assert "its header asks for 9600; it is damaged or truncated" in refused(tmp_path / "out" / f"{stem}.bil")


def test_a_piece_of_the_grid_is_the_same_numbers(tmp_path: Path) -> None:
    path = tif_zip(tmp_path / "prism_ppt_us_25m_20240301.zip", grid(3))
    (whole,) = read(path)
    pieces = read(path, tile="20x30")
    assert [p.origin.place.split("daily ")[1] for p in pieces] == [f"row {y} column {x}" for y in (0, 20) for x in (0, 30)]
    for piece, (y, x) in zip(pieces, [(y, x) for y in (0, 20) for x in (0, 30)], strict=True):
        np.testing.assert_array_equal(piece.values, whole.values[..., y : y + 20, x : x + 30])
        np.testing.assert_array_equal(piece.coordinates["longitude"].values, whole.coordinates["longitude"].values[x : x + 30])


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_zip_is_found_before_its_last_lines_are_read(tmp_path: Path, share: float) -> None:
    whole = bil_zip(tmp_path / "a.zip", {"PRISM_ppt_stable_4kmD2_20110101_bil": grid(0)}).read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: int(share * len(whole))])
    assert "cut.zip" in refused(cut)


def test_a_bil_that_was_cut_before_it_was_zipped_is_found(tmp_path: Path) -> None:
    stem = "PRISM_ppt_stable_4kmD2_20110101_bil"
    path = bil_zip(tmp_path / f"{stem}.zip", {stem: grid(0)}, bil=grid(0).tobytes()[:-4])
    assert f"{stem}.bil holds {ROWS * COLUMNS * 4 - 4} bytes and its header asks for {ROWS * COLUMNS * 4}" in refused(path)
    tif = geotiff(grid(0))
    for cut in (8, 300, len(tif) // 2, len(tif) - 1):
        path = tmp_path / "prism_ppt_us_25m_20240301.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("prism_ppt_us_25m_20240301.tif", tif[:cut])
        assert "is not a whole GeoTIFF" in refused(path)


def test_a_flipped_bit_in_a_zip_is_found(tmp_path: Path) -> None:
    whole = bil_zip(tmp_path / "a.zip", {"PRISM_ppt_stable_4kmD2_20110101_bil": grid(0)}).read_bytes()
    for at in np.linspace(60, ROWS * COLUMNS * 3, 8).astype(int):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        (tmp_path / "b.zip").write_bytes(damaged)
        assert "b.zip is not a whole zip file" in refused(tmp_path / "b.zip")


def test_zips_that_no_service_makes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("../prism_ppt_us_25m_20240301.tif", "/prism_ppt_us_25m_20240301.tif", "a\\..\\prism_ppt_us_25m_20240301.tif"):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr(name, geotiff(grid(0)))
        assert "a path outside its own folder" in refused(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "holds no grid that can be read" in refused(tmp_path / "empty.zip")
    path = tif_zip(tmp_path / "prism_ppt_us_25m_20240301.zip", grid(0))
    monkeypatch.setattr(rasters, "MAX_UNPACKED", 100)
    assert "MiB when unpacked" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(rasters, "MAX_MEMBERS", 0)
    os.utime(path, (1, 1))  # another file, as far as can be told
    assert "holds 1 files" in refused(path)


def test_files_that_are_no_grid_of_a_time(tmp_path: Path) -> None:
    refusal = tmp_path / "prism_ppt_us_25m_20240301.zip"
    refusal.write_text("You have tried to download this file more than twice in a day")
    assert "is neither a zip nor a GeoTIFF by its first bytes" in refused(refusal)
    assert not Prism.recognises(refusal)
    for name, words in (
        ("prism_ppt_us_25m_202001_avg_30y", "is a climatology over 30 years"),
        ("PRISM_ppt_30yr_normal_4kmM2_01", "is a climatology over 30 years"),
        ("prism_soltotal_us_25m_20240301", "PRISM variable 'soltotal' is not known; expected one of ppt"),
        ("prism_ppt_us_25m_20241301", "20241301 in its name is no date"),
        ("rain_of_today", "its name is not that of a PRISM grid"),
    ):
        assert words in refused(tif_zip(tmp_path / f"{name}.zip", grid(0)))
    (tmp_path / "prism_ppt_us_25m_20240302.tif").write_bytes(b"")
    assert "is empty (0 bytes)" in refused(tmp_path / "prism_ppt_us_25m_20240302.tif")


def test_recognised_by_content_and_name(tmp_path: Path) -> None:
    path = tif_zip(tmp_path / "prism_ppt_us_25m_20240301.zip", grid(0))
    assert Prism.recognises(path)
    assert Prism.recognises(tmp_path)
    (tmp_path / "renamed.zip").write_bytes(path.read_bytes())
    assert Prism.recognises(tmp_path / "renamed.zip")
    (tmp_path / "other.tif").write_bytes(geotiff(grid(0)))
    assert not Prism.recognises(tmp_path / "other.tif")
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:50])
    assert not Prism.recognises(tmp_path / "cut.zip")
    assert not Prism.recognises(tmp_path / "missing.zip")


def no_get(url: str) -> bytes:
    raise AssertionError(url)


def test_what_is_fetched_from_the_web_service() -> None:
    options = Prism.Fetch(variables=("ppt", "tmax"), start="2024-02-28", stop="2024-03-01", server="http://localhost:1/get/")
    found = list(Prism.remotes(options, no_get))
    assert len(found) == 2 * 3
    assert found[2].url == "http://localhost:1/get/us/4km/ppt/20240229"
    assert found[2].file == "ppt/prism_ppt_us_25m_20240229.zip"
    assert {r.login for r in found} == {None}
    options = Prism.Fetch(variables=("tmean",), start="2023-12", stop="2024-01", resolution="800m", format="bil")
    assert [(r.url, r.file) for r in Prism.remotes(options, no_get)] == [
        (f"https://services.nacse.org/prism/data/get/us/800m/tmean/{d}?format=bil", f"tmean/prism_tmean_us_30s_{d}.zip")
        for d in ("202312", "202401")
    ]
    for wrong, words in (
        ({}, "do not name a period"),
        ({"start": "2024-02-30"}, "do not name a period"),
        ({"start": "2024-02", "stop": "2024-02-03"}, "do not name a period"),
        ({"start": "2024-02", "stop": "2023-02"}, "comes after"),
        ({"start": "2024", "variables": ("rain",)}, "PRISM variable 'rain' is not known"),
    ):
        with pytest.raises(UserError, match=words):
            list(Prism.remotes(Prism.Fetch(**wrong), no_get))


def test_a_corpus(tmp_path: Path) -> None:
    for day in range(1, 31):
        for name, low, high in (("ppt", 0, 20), ("tmean", -5, 15)):
            tif_zip(tmp_path / f"prism_{name}_us_25m_202404{day:02d}.zip", grid(day, low, high))
    convert(Prism([tmp_path], Prism.Options(splits=(0.6, 0.2, 0.2), gap=1)), tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.manifest["redistributable"] is False
    assert corpus.splits == ("train", "valid", "test")
    sample = corpus.read("train", 0)
    assert {v.name for v in sample.variables} == {"precipitation_amount", "air_temperature"}
    rain = sample.values[:, [v.name for v in sample.variables].index("precipitation_amount"), 0]
    np.testing.assert_allclose(rain[3, 5:], grid(4, 0, 20)[5:], rtol=1e-3, atol=1e-2)
    assert not sample.valid[:, :, 0, :3, :5].any()


def test_without_rasterio_the_extra_is_named(tmp_path: Path) -> None:
    path = tif_zip(tmp_path / "prism_ppt_us_25m_20240301.zip", grid(0))
    program = (
        "import sys; sys.modules['rasterio'] = None\n"
        "from pathlib import Path; from scigpt.data_prep.sources.prism import Prism; from scigpt.errors import UserError\n"
        "try:\n    Prism([Path(sys.argv[1])]).plan()\nexcept UserError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "reading GeoTIFF needs rasterio, which is not installed; run: pip install 'scigpt[raster]'", done.stderr


def test_the_real_zip_equals_numpy() -> None:
    path = real("prism/PRISM_ppt_stable_4kmD2_20110101_bil.zip")
    with zipfile.ZipFile(path) as archive:
        stored = np.frombuffer(archive.read("PRISM_ppt_stable_4kmD2_20110101_bil.bil"), "<f4").reshape(621, 1405)
    (sample,) = read(path)
    valid = stored != -9999.0
    np.testing.assert_array_equal(sample.valid[0, 0, 0], valid)
    np.testing.assert_array_equal(sample.values[0, 0, 0][valid], stored[valid])
    assert stored[valid].max() == pytest.approx(144.454, abs=1e-3)  # the statistics that the zip states
    assert stored[valid].mean(dtype=np.float64) == pytest.approx(3.5645, abs=1e-4)
    assert sample.coordinates["longitude"].values[0] == pytest.approx(-125.0, abs=1e-9)
    assert sample.coordinates["latitude"].values[0] == pytest.approx(49.9166666666664, abs=1e-9)
    assert sample.coordinates["latitude"].values[-1] == pytest.approx(49.9166666666664 - 620 / 24, abs=1e-8)
    assert sample.time.labels() == ["2011-01-01T00:00:00"]
    assert sample.time.bounds is not None
    assert np.diff(sample.time.bounds).item() == 86400.0
    assert sample.origin.attribution.endswith("releases: stable an81/r1503 D2, created 20150908")
    assert Prism.recognises(path)


def test_the_real_zip_truncated(tmp_path: Path) -> None:
    whole = real("prism/PRISM_ppt_stable_4kmD2_20110101_bil.zip").read_bytes()
    for share in (0.2, 0.7, 0.99):
        (tmp_path / "PRISM_ppt_stable_4kmD2_20110101_bil.zip").write_bytes(whole[: int(share * len(whole))])
        assert "is not a whole zip file" in refused(tmp_path / "PRISM_ppt_stable_4kmD2_20110101_bil.zip")
