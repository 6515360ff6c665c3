"""Daymet: grids, pixels and basins equal to netCDF4 and NumPy; years of 365 days, radiation of daylight, headers of free text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Remote
from scigpt.data_prep.sources.daymet import Daymet
from scigpt.errors import UserError

pyproj = pytest.importorskip("pyproj")

UNITS = {"dayl": "s", "prcp": "mm/day", "srad": "W/m2", "swe": "kg/m2", "tmax": "degrees C", "tmin": "degrees C", "vp": "Pa"}
RANGES = {
    "dayl": (3e4, 5e4), "prcp": (0, 60), "srad": (50, 600), "swe": (0, 90), "tmax": (0, 30), "tmin": (-20, 5), "vp": (100, 2000),
}  # fmt: skip
LAMBERT = "+proj=lcc +lat_1=25 +lat_2=60 +lat_0=42.5 +lon_0=-100 +datum=WGS84 +type=crs"
SHAPE = (5, 6)


read = functools.partial(samples_of, Daymet)


def places() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x and y of the projection in metres, and latitude and longitude by PROJ."""
    x, y = 1350000.0 + 1000.0 * np.arange(SHAPE[1]), -560000.0 - 1000.0 * np.arange(SHAPE[0])
    longitude, latitude = pyproj.Transformer.from_crs(LAMBERT, "EPSG:4326", always_xy=True).transform(*np.meshgrid(x, y))
    return x, y, latitude, longitude


def grid(folder: Path, name: str, year: int = 2019, calendar: str = "standard", seed: int = 0, shift: float = 0.0) -> Path:
    """A year of one variable as the archive stores it: 365 days, chunked and shuffled, -9999 over water."""
    path = folder / f"daymet_v4_daily_na_{name}_{year}.nc"
    x, y, latitude, longitude = places()
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"start_year": np.int16(year), "source": "Daymet Software Version 4.0", "Conventions": "CF-1.6"})
        for dim, size in (("time", 365), ("nv", 2), ("y", SHAPE[0]), ("x", SHAPE[1])):
            file.createDimension(dim, size)
        first = cftime.date2num(cftime.datetime(year, 1, 1, calendar="standard"), "days since 1950-01-01", "standard")
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 1950-01-01 00:00:00", "calendar": calendar, "standard_name": "time", "bounds": "time_bnds"})
        time[:] = first + np.arange(365) + 0.5 + shift
        file.createVariable("time_bnds", "f8", ("time", "nv"))[:] = (first + np.arange(365))[:, None] + [0.0, 1.0] + shift
        file.createVariable("yearday", "i2", ("time",))[:] = np.arange(1, 366)
        for axis, values, dims in (("x", x, ("x",)), ("y", y, ("y",)), ("lat", latitude, ("y", "x")), ("lon", longitude, ("y", "x"))):
            units = {"lat": "degrees_north", "lon": "degrees_east"}.get(axis, "m")
            names = {"lat": "latitude", "lon": "longitude", "x": "projection_x_coordinate", "y": "projection_y_coordinate"}
            variable = file.createVariable(axis, "f8", dims)
            variable.setncatts({"units": units, "standard_name": names[axis]})
            variable[:] = values
        values = np.random.default_rng(seed + year).uniform(*RANGES[name], (365, *SHAPE)).astype(np.float32)
        values[:, 0, :2] = -9999.0
        data = file.createVariable(
            name, "f4", ("time", "y", "x"), fill_value=np.float32(-9999), zlib=True, shuffle=True, chunksizes=(10, 3, 3)
        )  # fmt: skip
        data.setncatts({"units": UNITS[name], "missing_value": np.float32(-9999), "coordinates": "lat lon"})
        data[:] = values
    return path


def stored(path: Path, name: str) -> np.ndarray:
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        return file[name][:].astype(np.float64)


def test_every_variable_equals_netcdf4_in_its_unit_and_places_equal_proj(tmp_path: Path) -> None:
    paths = {name: grid(tmp_path, name, seed=i) for i, name in enumerate(UNITS)}
    samples = read(list(paths.values()), split="train", frames_per_sample=365, radiation="daylight")
    (sample,) = samples
    expected = {
        "day_length": stored(paths["dayl"], "dayl"),
        "precipitation_flux": stored(paths["prcp"], "prcp") / 86400.0,
        "surface_downwelling_shortwave_flux": stored(paths["srad"], "srad"),
        "surface_snow_amount": stored(paths["swe"], "swe"),
        "air_temperature_maximum": stored(paths["tmax"], "tmax") + 273.15,
        "air_temperature_minimum": stored(paths["tmin"], "tmin") + 273.15,
        "vapour_pressure": stored(paths["vp"], "vp"),
    }
    assert {v.key for v in sample.variables} == set(expected)
    land = np.ones(SHAPE, bool)
    land[0, :2] = False
    for channel, variable in enumerate(sample.variables):
        np.testing.assert_array_equal(sample.valid[:, channel, 0], np.broadcast_to(land, (365, *SHAPE)))
        np.testing.assert_allclose(sample.values[:, channel, 0][:, land], expected[variable.key][:, land], rtol=3e-7)
    _, _, latitude, longitude = places()
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-9)
    np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude, atol=1e-9)
    assert sample.geometry == "sphere"
    assert sample.origin.place == "region na"
    assert sample.time.labels()[0] == "2019-01-01T12:00:00"
    np.testing.assert_array_equal(np.asarray(sample.time.bounds)[0] - sample.time.seconds[0], [-43200.0, 43200.0])


def test_leap_years_have_a_29_february_and_lack_31_december(tmp_path: Path) -> None:
    paths = [grid(tmp_path, "tmax", year) for year in (2020, 2021)]
    samples = read(paths, split="train", frames_per_sample=1000)
    assert [len(s.time) for s in samples] == [365, 365]
    leap, next_year = (s.time.labels() for s in samples)
    assert leap[58:61] == ["2020-02-28T12:00:00", "2020-02-29T12:00:00", "2020-03-01T12:00:00"]
    assert (leap[-1], next_year[0]) == ("2020-12-30T12:00:00", "2021-01-01T12:00:00")
    np.testing.assert_allclose(samples[0].values[59, 0, 0, 1], stored(paths[0], "tmax")[59, 1] + 273.15, rtol=1e-6)
    whole = read([grid(tmp_path, "tmax", 2018), grid(tmp_path, "tmax", 2019)], split="train", frames_per_sample=1000)
    assert [len(s.time) for s in whole] == [730]


def test_times_that_do_not_follow_the_days_of_the_year_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not day 1 of the year"):
        read(grid(tmp_path, "tmax", 2020, calendar="noleap"))
    with pytest.raises(UserError, match="29 February"):
        read(grid(tmp_path, "tmax", 2019, shift=1.0))


def test_radiation_of_daylight_becomes_a_mean_over_24_hours(tmp_path: Path) -> None:
    srad, dayl, other = grid(tmp_path, "srad"), grid(tmp_path, "dayl"), grid(tmp_path, "dayl", 2018)
    land = np.ones(SHAPE, bool)
    land[0, :2] = False
    expected = stored(srad, "srad") * stored(dayl, "dayl") / 86400.0
    for inputs in ([srad, other, dayl], [dayl, srad]):
        source = Daymet(inputs, Daymet.Options(variables=("srad",), split="train", frames_per_sample=365))
        plan = source.plan()
        (sample,) = (s for s in source.samples(plan.refs) if s is not None)
        assert sample.variables[0].key == "surface_downwelling_shortwave_flux"
        np.testing.assert_allclose(sample.values[:, 0, 0][:, land], expected[:, land], rtol=2e-7)
        np.testing.assert_array_equal(sample.valid[:, 0, 0], np.broadcast_to(land, (365, *SHAPE)))
        assert {name for name, _ in plan.inputs} == {f.name for f in sample.origin.files} == {srad.name, dayl.name}
    for alone in ([srad], [srad, other]):
        with pytest.raises(UserError, match=r"srad is the mean over daylight; give the dayl file .* radiation=daylight"):
            read(alone, variables=("srad",))
    (kept,) = read(srad, radiation="daylight", split="train", frames_per_sample=365)
    np.testing.assert_allclose(kept.values[:, 0, 0][:, land], stored(srad, "srad")[:, land], rtol=1e-7)
    assert read([srad, grid(tmp_path, "prcp")], variables=("prcp",))


def test_pieces_of_a_grid_and_days_hold_the_same_numbers(tmp_path: Path) -> None:
    inputs = [grid(tmp_path, "srad"), grid(tmp_path, "dayl")]
    (whole,) = read(inputs, split="train", frames_per_sample=365)
    pieces = read(inputs, split="train", frames_per_sample=73, tile="2x3")
    assert len(pieces) == 5 * 4
    for piece in pieces:
        row, column = int(piece.origin.place.split()[-3]), int(piece.origin.place.split()[-1])
        frame = int((piece.time.seconds[0] - whole.time.seconds[0]) / 86400)
        own = (slice(frame, frame + 73), slice(None), slice(None), slice(row, row + 2), slice(column, column + 3))
        np.testing.assert_array_equal(piece.valid, whole.valid[own])
        np.testing.assert_array_equal(piece.values[piece.valid], whole.values[own][piece.valid])


def test_the_same_days_twice_are_refused(tmp_path: Path) -> None:
    again = grid(tmp_path, "prcp").rename(tmp_path / "daymet_v4_daily_na_prcp_again.nc")
    with pytest.raises(UserError, match="twice"):
        read([grid(tmp_path, "prcp"), again])


PIXEL = """Latitude: 35.9621  Longitude: -84.2916
X & Y on Lambert Conformal Conic: 1358546.5 -567164.6
Tile: 11207
Elevation: 267 meters
All years; all variables; Daymet Software Version 4.0; Daymet Data Version 4.1
How to cite: Thornton; M.M.; and others. 2022. Daymet: Daily Surface Weather Data on a 1-km Grid. https://doi.org/10.3334/ORNLDAAC/2129

"""


def pixel(
    path: Path, years: tuple[int, ...] = (2019, 2020, 2021), columns: tuple[str, ...] = tuple(UNITS), seed: int = 0, **place: str
) -> Path:
    units = {**UNITS, "srad": "W/m^2", "swe": "kg/m^2", "tmax": "deg c", "tmin": "deg c"}
    rng = np.random.default_rng(seed)
    text = PIXEL
    for old, new in place.items():
        text = text.replace({"latitude": "35.9621", "longitude": "-84.2916"}[old], new)
    lines = ["year,yday," + ",".join(f"{c} ({units[c]})" for c in columns)]
    for year in years:
        lines += [f"{year},{day}," + ",".join(f"{rng.uniform(*RANGES[c]):.2f}" for c in columns) for day in range(1, 366)]
    path.write_text(text + "\n".join(lines) + "\n")
    return path


def test_a_pixel_is_a_point_with_seven_lines_of_free_text_before_it(tmp_path: Path) -> None:
    path = pixel(tmp_path / "p.csv")
    samples = read(path, split="train", frames_per_sample=2000)
    table = np.loadtxt(path, delimiter=",", skiprows=8)
    assert [len(s.time) for s in samples] == [730, 365]
    values = np.concatenate([s.values[:, :, 0, 0, 0] for s in samples])
    by = dict(zip(UNITS, table[:, 2:].T, strict=True))
    expected = {
        "day_length": by["dayl"], "precipitation_flux": by["prcp"] / 86400, "surface_snow_amount": by["swe"],
        "surface_downwelling_shortwave_flux": by["srad"] * by["dayl"] / 86400, "air_temperature_maximum": by["tmax"] + 273.15,
        "air_temperature_minimum": by["tmin"] + 273.15, "vapour_pressure": by["vp"],
    }  # fmt: skip
    for channel, variable in enumerate(samples[0].variables):
        np.testing.assert_allclose(values[:, channel], expected[variable.key], rtol=2e-7)
    sample = samples[0]
    assert sample.geometry == "points"
    assert {n: (c.axes, float(c.values[0])) for n, c in sample.coordinates.items()} == {
        "latitude": (("x",), 35.9621), "longitude": (("x",), -84.2916), "height": (("x",), 267.0),
    }  # fmt: skip
    assert sample.origin.attribution.startswith("Daymet data version 4.1; Thornton")
    assert sample.origin.place == "pixel 35.9621 -84.2916"
    assert np.asarray(sample.time.bounds)[0].tolist() == [sample.time.seconds[0] - 43200, sample.time.seconds[0] + 43200]


def test_day_60_of_a_leap_year_of_a_pixel_is_29_february_and_day_365_is_30_december(tmp_path: Path) -> None:
    (sample,) = read(pixel(tmp_path / "p.csv", (2020,)), split="train", frames_per_sample=2000)
    labels = sample.time.labels()
    assert (labels[59], labels[364]) == ("2020-02-29T12:00:00", "2020-12-30T12:00:00")


def test_a_pixel_without_the_length_of_the_day_keeps_its_radiation_only_on_request(tmp_path: Path) -> None:
    path = pixel(tmp_path / "p.csv", (2019,), ("srad", "tmax"))
    with pytest.raises(UserError, match="radiation=daylight"):
        read(path)
    (sample,) = read(path, radiation="daylight", split="train", frames_per_sample=365)
    table = np.loadtxt(path, delimiter=",", skiprows=8)
    np.testing.assert_allclose(sample.values[:, 0, 0, 0, 0], table[:, 2], rtol=1e-7)


def test_missing_numbers_of_a_pixel_are_gaps(tmp_path: Path) -> None:
    path = pixel(tmp_path / "p.csv", (2019,), ("tmax", "vp"))
    lines = path.read_text().splitlines()
    lines[10] = ",".join([*lines[10].split(",")[:3], "-9999"])
    path.write_text("\n".join(lines) + "\n")
    (sample,) = read(path, split="train", frames_per_sample=365)
    gaps = np.argwhere(~sample.valid[:, :, 0, 0, 0])
    np.testing.assert_array_equal(gaps, [[2, 1]])


CAMELS = "  44.82\n 133.00\n 587675987\nYear Mnth Day Hr dayl(s) prcp(mm/day) srad(W/m2) swe(mm) tmax(C) tmin(C) vp(Pa)\n"


def basin(path: Path, snow: float = 0.0, days: int = 366) -> Path:
    rng = np.random.default_rng(3)
    dates = np.datetime64("2000-01-01") + np.arange(days)
    rows = [
        f"{str(d).replace('-', ' ')} 12\t" + "\t".join(f"{rng.uniform(*RANGES[n]) * (snow if n == 'swe' else 1):.2f}" for n in UNITS)
        for d in dates
    ]
    path.write_text(CAMELS + "\n".join(rows))
    return path


def test_a_basin_of_camels_has_every_day_of_a_leap_year_and_no_longitude(tmp_path: Path) -> None:
    path = basin(tmp_path / "01022500_lump_cida_forcing_leap.txt", snow=1.0)
    (sample,) = read(path, split="train", frames_per_sample=400)
    table = np.loadtxt(path, skiprows=4)
    assert (sample.time.labels()[59], sample.time.labels()[-1]) == ("2000-02-29T12:00:00", "2000-12-31T12:00:00")
    assert sample.geometry == "plane"
    assert {n: float(c.values[0]) for n, c in sample.coordinates.items()} == {"latitude": 44.82, "height": 133.0}
    keys = [v.key for v in sample.variables]
    snow, rain = (sample.values[:, keys.index(k), 0, 0, 0] for k in ("surface_snow_amount", "precipitation_flux"))
    np.testing.assert_allclose(snow, table[:, 7], rtol=1e-7)
    np.testing.assert_allclose(rain, table[:, 5] / 86400, rtol=2e-7)
    radiation = sample.values[:, keys.index("surface_downwelling_shortwave_flux"), 0, 0, 0]
    np.testing.assert_allclose(radiation, table[:, 6] * table[:, 4] / 86400, rtol=2e-7)
    (bare,) = read(basin(tmp_path / "01022500_bare.txt"), split="train", frames_per_sample=400)
    assert "surface_snow_amount" not in {v.key for v in bare.variables}


def test_the_list_of_gauges_gives_a_basin_its_longitude(tmp_path: Path) -> None:
    path = basin(tmp_path / "01022500_lump_cida_forcing_leap.txt")
    gauges = tmp_path / "camels_topo.txt"
    gauges.write_text("gauge_id;gauge_lat;gauge_lon;elev_mean\n01013500;47.23739;-68.58264;250.31\n01022500;44.60797;-67.93524;92.68\n")
    source = Daymet([path], Daymet.Options(gauges=str(gauges), split="train", frames_per_sample=400))
    plan = source.plan()
    (sample,) = (s for s in source.samples(plan.refs) if s is not None)
    assert sample.geometry == "points"
    assert float(sample.coordinates["longitude"].values[0]) == -67.93524
    assert [name for name, _ in plan.inputs] == [path.name, gauges.name]
    unknown = basin(tmp_path / "09999999_lump_cida_forcing_leap.txt")
    with pytest.raises(UserError, match="basin 09999999 has no longitude and other points have one"):
        read([path, unknown], gauges=str(gauges))


def test_points_and_grids_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a grid and p\.csv a table of a point"):
        read([pixel(tmp_path / "p.csv"), grid(tmp_path, "tmax")])
    with pytest.raises(UserError, match="leave regrid= out"):
        read(pixel(tmp_path / "p.csv"), regrid=1.0)


def test_a_corpus_of_pixels_and_one_of_a_grid(tmp_path: Path) -> None:
    inputs = [pixel(tmp_path / "a.csv", (2018, 2019)), pixel(tmp_path / "b.csv", (2018, 2019), seed=1, latitude="36.5", longitude="-85.5")]
    out = convert(Daymet(inputs, Daymet.Options(frames_per_sample=100)), tmp_path / "points", progress=False)
    corpus = Corpus.open(out)
    assert set(corpus.splits) == {"train", "valid", "test"}
    sample = corpus.read("train", 0)
    assert sample.geometry == "points"
    assert len({corpus.read("train", i).origin.place for i in range(len(corpus.entries("train")))}) == 2
    out = convert(Daymet([grid(tmp_path, n) for n in ("tmax", "tmin")], Daymet.Options()), tmp_path / "grid", progress=False)
    assert Corpus.open(out).read("train", 0).values.shape[1:] == (2, 1, *SHAPE)


def refused(path: Path, data: bytes, **options: Any) -> str:
    path.write_bytes(data)
    text = refusal_of(Daymet, path, **options)
    assert path.name in text
    return text


def test_truncated_tables_are_found_wherever_they_end(tmp_path: Path) -> None:
    data = pixel(tmp_path / "p.csv", (2019,), ("tmax", "vp")).read_bytes()
    for size in range(len(data) - 30, len(data)):
        if data[size - 1 : size] != b"\n":
            assert "truncated" in refused(tmp_path / "q.csv", data[:size])
    data = basin(tmp_path / "01022500_a.txt").read_bytes()
    for size in range(len(data) - 70, len(data), 3):
        assert "truncated" in refused(tmp_path / "01022500_b.txt", data[:size])


def test_damaged_tables_and_other_files_are_told(tmp_path: Path) -> None:
    data = pixel(tmp_path / "p.csv", (2020,), ("tmax", "vp")).read_bytes()
    assert "empty" in refused(tmp_path / "q.csv", b"")
    assert "neither" in refused(tmp_path / "q.csv", b"a,b\n1,2\n")
    assert "days 1 to 365" in refused(tmp_path / "q.csv", data.replace(b"2020,365,", b"2020,366,"))
    assert "does not come after" in refused(tmp_path / "q.csv", data.replace(b"2020,12,", b"2020,11,"))
    assert "is not a number" in refused(tmp_path / "q.csv", data.replace(b"2020,12,", b"2020,1x,"))
    assert "no latitude" in refused(tmp_path / "q.csv", data.replace(b"Latitude: 35", b"Latitude: 95"))
    assert "fewer values" in refused(tmp_path / "q.csv", data.replace(b"\n2020,12,", b"\n12,"))
    lines = basin(tmp_path / "01022500_a.txt").read_bytes()
    assert "do not begin with a date" in refused(tmp_path / "01022500_b.txt", lines.replace(b"2000 03 04", b"2000 33 04"))
    whole = grid(tmp_path, "tmax").read_bytes()
    refused(tmp_path / "daymet_v4_daily_na_tmin_2019.nc", whole[: len(whole) // 2])


def test_recognises_by_content(tmp_path: Path) -> None:
    for path in (grid(tmp_path, "tmax"), pixel(tmp_path / "p.csv"), basin(tmp_path / "b.txt")):
        assert Daymet.recognises(path)
    for name, data in {"daymet.nc": b"nothing", "daymet.csv": b"year,yday\n1,2\n", "b.bin": bytes(range(256)), "e.csv": b""}.items():
        (tmp_path / name).write_bytes(data)
        assert not Daymet.recognises(tmp_path / name)
    assert not Daymet.recognises(tmp_path / "absent")
    assert not Daymet.recognises(tmp_path)


def remotes(**options: Any) -> list[Remote]:
    def get(url: str) -> bytes:
        raise AssertionError("these routes have no catalogue")

    return list(Daymet.remotes(Daymet.Fetch(**options), get))  # type: ignore[misc]


def test_remotes() -> None:
    found = remotes(region="na", variables=("srad", "dayl"), years="2019-2020")
    base = "https://data.ornldaac.earthdata.nasa.gov/protected/daymet/Daymet_Daily_V4R1/data"
    name = "daymet_v4_daily_na_srad_2019.nc"
    assert found[0] == Remote(f"{base}/{name}", name, login="earthdata")
    assert [r.file for r in found[1:]] == [f"daymet_v4_daily_na_{v}.nc" for v in ("srad_2020", "dayl_2019", "dayl_2020")]
    (one,) = remotes(variables=("tmax",), server="http://localhost:1/d682806", anonymous=True)
    assert one == Remote("http://localhost:1/d682806/daymet_v4_daily_pr_tmax_2023.nc", "daymet_v4_daily_pr_tmax_2023.nc")
    (point,) = remotes(route="pixel", latitude=35.9621, longitude=-84.2916, variables=("tmax", "tmin"), years="2012-2013")
    assert point.url == "https://daymet.ornl.gov/single-pixel/api/data?lat=35.9621&lon=-84.2916&vars=tmax,tmin&years=2012,2013"
    assert (point.file, point.login) == ("daymet_pixel_35.9621_-84.2916_2012-2013.csv", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"years": "20"}, "not of the form 2019"),
        ({"years": "2020-2019"}, "not of the form 2019"),
        ({"variables": ("rain",)}, "not one of Daymet's"),
        ({"route": "pixel"}, "needs latitude= and longitude="),
    ],
)
def test_remotes_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        remotes(**options)


def test_real_pixel_equals_numpy() -> None:
    path = real("daymet/demo_data.csv")
    samples = read(path, split="train", frames_per_sample=10000)
    with path.open() as file:
        start = next(i for i, line in enumerate(file) if line.startswith("year,yday"))
    table = np.loadtxt(path, delimiter=",", skiprows=start + 1)
    # leap years 2000, 2004 and 2008 end on 30 December
    assert [(s.time.labels()[0][:10], s.time.labels()[-1][:10]) for s in samples] == [
        ("2000-01-01", "2000-12-30"), ("2001-01-01", "2004-12-30"), ("2005-01-01", "2008-12-30"), ("2009-01-01", "2010-12-31"),
    ]  # fmt: skip
    values = np.concatenate([s.values[:, :, 0, 0, 0] for s in samples])
    assert len(values) == len(table) == 11 * 365
    columns = dict(zip(UNITS, table[:, 2:].T, strict=True))
    expected = [
        columns["dayl"], columns["prcp"] / 86400, columns["srad"] * columns["dayl"] / 86400, columns["swe"], columns["tmax"] + 273.15,
        columns["tmin"] + 273.15, columns["vp"],
    ]  # fmt: skip
    for channel, own in enumerate(expected):
        np.testing.assert_allclose(values[:, channel], own, rtol=2e-7, atol=1e-12)
    assert all(s.valid.all() for s in samples)
    assert samples[0].origin.attribution.startswith("Daymet data version 3.0; Thornton")
    assert {n: float(c.values[0]) for n, c in samples[0].coordinates.items()} == {
        "latitude": 36.0133,
        "longitude": -84.2625,
        "height": 279.0,
    }


def test_real_basin_equals_numpy(tmp_path: Path) -> None:
    path = real("daymet/01022500_lump_cida_forcing_leap.txt")
    (sample,) = read(path, split="train", frames_per_sample=10000)
    table = np.loadtxt(path, skiprows=4)
    dates = [f"{int(y):04d}-{int(m):02d}-{int(d):02d}T12:00:00" for y, m, d in table[:, :3]]
    assert sample.time.labels() == dates
    assert not table[:, 7].any()
    expected = [
        table[:, 4],
        table[:, 5] / 86400,
        table[:, 6] * table[:, 4] / 86400,
        table[:, 8] + 273.15,
        table[:, 9] + 273.15,
        table[:, 10],
    ]
    for channel, own in enumerate(expected):
        np.testing.assert_allclose(sample.values[:, channel, 0, 0, 0], own, rtol=2e-7, atol=1e-12)
    data = path.read_bytes()
    assert "truncated" in refused(tmp_path / path.name, data[: len(data) // 2])


def test_real_layout_equals_netcdf4() -> None:
    path = real("daymet/layout_daymet_v4_daily_na_prcp_2019.nc")
    (sample,) = read(path, split="train", frames_per_sample=365)
    rain = stored(path, "prcp")
    np.testing.assert_array_equal(sample.valid[:, 0, 0], rain != -9999)
    np.testing.assert_allclose(sample.values[:, 0, 0][sample.valid[:, 0, 0]], (rain / 86400)[rain != -9999], rtol=2e-7, atol=1e-15)
    with netCDF4.Dataset(path) as file:
        dates = netCDF4.num2date(file["time"][:], file["time"].units, "standard")
        np.testing.assert_array_equal(sample.coordinates["longitude"].values, file["lon"][:].astype(np.float64))
        x, y = np.meshgrid(file["x"][:].astype(np.float64), file["y"][:].astype(np.float64))
    assert sample.time.labels() == [d.isoformat() for d in dates]
    longitude, latitude = pyproj.Transformer.from_crs(LAMBERT, "EPSG:4326", always_xy=True).transform(x, y)
    np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude, atol=1e-4)
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-4)
    assert sample.variables[0].unit == "kg m**-2 s**-1"
