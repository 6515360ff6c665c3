"""NARR and other Lambert grids: values, places, winds, intervals and surfaces as netCDF4, ecCodes and pyproj give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from readings import real, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Level, Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.lambert import Lambert, turned
from scigpt.data_prep.sources.narr import Narr, NarrFetch
from scigpt.errors import UserError

pyproj = pytest.importorskip("pyproj")

EASTING, NORTHING, STEP = 5632642.22547, 4612545.65137, 32463.0
NARR = {"lat_1": 50.0, "lat_2": 50.0, "lat_0": 50.0, "lon_0": -107.0}
X, Y = STEP * np.arange(10, 28, 2), STEP * np.arange(200, 230, 4)  # over the Bering Sea, on both sides of 180 degrees


def projection(**changes: Any) -> Any:
    return pyproj.Proj(proj="lcc", **({**NARR, "x_0": EASTING, "y_0": NORTHING, "R": 6371200.0} | changes))


def places() -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of the cells, longitudes from -180 to 180 as PSL stores them."""
    longitude, latitude = projection()(*np.meshgrid(X, Y), inverse=True)
    return longitude, latitude


def to_the_earth(plane: Any, longitude: np.ndarray, latitude: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components along the grid projected onto true east and north, whose directions are differences of projected places."""
    h = 1e-4
    north = np.stack(plane(longitude, latitude + h)) - np.stack(plane(longitude, latitude - h))
    east = np.stack(plane(longitude + h, latitude)) - np.stack(plane(longitude - h, latitude))
    north, east = north / np.hypot(*north), east / np.hypot(*east)
    return u * east[0] + v * east[1], u * north[0] + v * north[1]


def read(path: Path | list[Path], **options: Any) -> list[Sample]:
    return samples_of(Narr, path, **{"split": "train", **options})


def write(
    path: Path,
    name: str,
    values: np.ndarray,
    units: str,
    start: float = 1569072.0,
    places_too: bool = True,
    levels: list[float] | None = None,
    time: dict[str, Any] | None = None,
    storage: tuple[str, dict[str, Any]] = ("f4", {}),
    **attrs: Any,
) -> Path:
    """A file as PSL lays it out, values stored as they are given; `start` in hours since 1800, by default 1979-01-01."""
    with netCDF4.Dataset(path, "w") as file:
        file.title = "8x Daily NARR"
        for dim, size in {"time": None, "level": len(levels or []), "y": Y.size, "x": X.size}.items():
            if dim != "level" or levels:
                file.createDimension(dim, size)
        clock = file.createVariable("time", "f8", ("time",))
        clock.setncatts(
            {"units": "hours since 1800-1-1 00:00:0.0", "standard_name": "time", "delta_t": "0000-00-00 03:00:00", **(time or {})}
        )
        clock[:] = start + 3.0 * np.arange(len(values))
        for axis, numbers in (("y", Y), ("x", X)):
            coordinate = file.createVariable(axis, "f8", (axis,))
            coordinate.setncatts({"units": "m", "standard_name": f"projection_{axis}_coordinate"})
            coordinate[:] = numbers
        if places_too:
            for place, numbers, unit in zip(("lon", "lat"), places(), ("degrees_east", "degrees_north"), strict=True):
                coordinate = file.createVariable(place, "f4", ("y", "x"))
                coordinate.units = unit
                coordinate[:] = numbers
        if levels:
            level = file.createVariable("level", "f4", ("level",))
            level.setncatts({"units": "millibar", "positive": "down"})
            level[:] = levels
        mapping = file.createVariable("Lambert_Conformal", "i4", ())
        mapping.setncatts(
            {
                "grid_mapping_name": "lambert_conformal_conic",
                "standard_parallel": [50.0, 50.0],
                "longitude_of_central_meridian": -107.0,
                "latitude_of_projection_origin": 50.0,
                "false_easting": EASTING,
                "false_northing": NORTHING,
            }
        )
        dims = ("time", "level", "y", "x") if levels else ("time", "y", "x")
        dtype, packing = storage
        variable = file.createVariable(name, dtype, dims, fill_value=packing.get("_FillValue"))
        variable.set_auto_maskandscale(False)
        rest = {k: v for k, v in packing.items() if k != "_FillValue"}
        variable.setncatts(
            {"units": units, "grid_mapping": "Lambert_Conformal", "coordinates": "lat lon", "dataset": "NARR 3-hourly", **rest, **attrs}
        )
        variable[:] = values
    return path


def field(seed: int, low: float, high: float, frames: int = 6, levels: tuple[int, ...] = ()) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (frames, *levels, Y.size, X.size)).astype(np.float32)


# the projection


@pytest.mark.parametrize(
    ("keys", "lon", "lat"),
    [
        (NARR | {"R": 6371200.0}, (-200.0, -2.0), (1.0, 80.0)),
        ({"lat_1": 25.0, "lat_2": 60.0, "lat_0": 42.5, "lon_0": -100.0, "ellps": "WGS84"}, (-150.0, -50.0), (10.0, 75.0)),
        ({"lat_1": 30.0, "lat_2": 45.0, "lat_0": 40.0, "lon_0": 265.0, "R": 6370000.0}, (-140.0, -60.0), (15.0, 60.0)),
        ({"lat_1": -20.0, "lat_2": -45.0, "lat_0": -30.0, "lon_0": 134.0, "ellps": "GRS80"}, (110.0, 160.0), (-60.0, -5.0)),
    ],
    ids=["narr", "ellipsoid", "secant", "south"],
)
def test_convergence_equals_differences_of_projected_places_and_keeps_the_speed(keys: dict[str, Any], lon: Any, lat: Any) -> None:
    plane, rng = pyproj.Proj(proj="lcc", **keys), np.random.default_rng(3)
    longitude, latitude = rng.uniform(*lon, (9, 11)), rng.uniform(*lat, (9, 11))
    u, v = rng.normal(0, 20, (2, 9, 11))
    crs = plane.crs.ellipsoid
    attrs = {
        "grid_mapping_name": "lambert_conformal_conic",
        "standard_parallel": [keys["lat_1"], keys["lat_2"]],
        "longitude_of_central_meridian": keys["lon_0"],
        "latitude_of_projection_origin": keys["lat_0"],
        "semi_major_axis": crs.semi_major_metre,
        **({"inverse_flattening": crs.inverse_flattening} if "ellps" in keys else {}),
    }
    east, north = turned(u, v, Lambert.from_cf(attrs, "here").convergence(longitude))
    expected = to_the_earth(plane, longitude, latitude, u, v)
    np.testing.assert_allclose(east, expected[0], atol=1e-5)
    np.testing.assert_allclose(north, expected[1], atol=1e-5)
    np.testing.assert_allclose(np.hypot(east, north), np.hypot(u, v), rtol=1e-12)


def test_places_of_a_file_without_latitudes_are_those_of_pyproj(tmp_path: Path) -> None:
    path = write(tmp_path / "air.2m.1979.nc", "air", field(0, 250, 280), "degK", places_too=False)
    (sample,) = read(path)
    longitude, latitude = places()
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-9)
    np.testing.assert_allclose((sample.coordinates["longitude"].values - longitude + 180) % 360 - 180, 0, atol=1e-9)


def test_longitudes_are_continuous_across_180_degrees(tmp_path: Path) -> None:
    stored, _ = places()
    assert np.abs(np.diff(stored, axis=1)).max() > 300
    (sample,) = read(write(tmp_path / "air.2m.1979.nc", "air", field(0, 250, 280), "degK"))
    longitude = sample.coordinates["longitude"].values
    assert np.abs(np.diff(longitude, axis=0)).max() < 5
    assert np.abs(np.diff(longitude, axis=1)).max() < 5
    np.testing.assert_allclose((longitude - stored + 180) % 360 - 180, 0, atol=1e-4)
    assert sample.boundary.x == ("open", "open")


def test_a_grid_mapping_of_another_kind_or_without_parallels_is_refused() -> None:
    with pytest.raises(UserError, match=r"a\.nc has the grid mapping 'mercator'; expected 'lambert_conformal_conic'"):
        Lambert.from_cf({"grid_mapping_name": "mercator"}, "a.nc")
    with pytest.raises(UserError, match=r"a\.nc lacks standard_parallel"):
        Lambert.from_cf({"grid_mapping_name": "lambert_conformal_conic"}, "a.nc")


# values


def test_packing_and_fills_are_those_of_each_file(tmp_path: Path) -> None:
    """Scale and offset differ from file to file, and both `_FillValue` and `missing_value` are missing."""
    expected, paths, rng = [], [], np.random.default_rng(5)
    for i, (scale, offset) in enumerate(((0.01, 477.65), (0.02, 500.0))):
        packed = rng.integers(-20000, -11000, (6, Y.size, X.size)).astype(np.int16)
        packed[0, 0, 0], packed[1, 2, 3], packed[:, -1, -1] = 32767, 32766, 32766
        packing = {"scale_factor": scale, "add_offset": offset, "_FillValue": np.int16(32767), "missing_value": np.int16(32766)}
        name = tmp_path / f"air.2m.{1979 + i}.nc"
        paths.append(write(name, "air", packed, "degK", 1569072.0 + 18 * i, storage=("i2", packing), long_name="3-hourly Air Temperature"))
        expected.append(np.where(packed >= 32766, np.nan, packed.astype(np.float64) * scale + offset))
    (sample,) = read(paths)
    joined = np.concatenate(expected)
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.isfinite(joined))
    assert (~sample.valid).sum() == 2 * (2 + 6)
    np.testing.assert_array_equal(sample.values[:, 0, 0][np.isfinite(joined)], joined[np.isfinite(joined)].astype(np.float32))
    assert sample.variables[0].key == "air_temperature"
    assert sample.time.calendar == "standard"
    assert sample.time.labels()[::6] == ["1979-01-01T00:00:00", "1979-01-01T18:00:00"]


def test_fills_of_opposite_sign_are_both_missing(tmp_path: Path) -> None:
    """PSL's float files carry `_FillValue` 9.96921e+36 and `missing_value` -9.96921e+36."""
    values, fill = field(1, 250, 300), np.float32(9.96921e36)
    values[0, 0, 0], values[2, 3, 4] = fill, -fill
    path = write(tmp_path / "air.2m.1979.nc", "air", values, "degK", storage=("f4", {"_FillValue": fill, "missing_value": -fill}))
    (sample,) = read(path)
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.abs(values) < 1e30)


def test_units_of_psl_and_levels(tmp_path: Path) -> None:
    height, cover = field(2, 5000, 6000, levels=(2,)), field(3, 0, 100)
    paths = [
        write(tmp_path / "hgt.197901.nc", "hgt", height, "m", levels=[1000.0, 500.0]),
        write(tmp_path / "tcdc.1979.nc", "tcdc", cover, "%", level_desc="Entire Atmosphere"),
        write(tmp_path / "prmsl.1979.nc", "prmsl", field(4, 98000, 103000), "Pascals", level_desc="Mean Sea Level"),
        write(tmp_path / "omega.197901.nc", "omega", field(5, -2, 2, levels=(2,)), "Pascal/s", levels=[1000.0, 500.0]),
    ]
    (sample,) = read(paths)
    keys = {v.key: c for c, v in enumerate(sample.variables)}
    assert set(keys) == {
        "geopotential_height@1000hPa", "geopotential_height@500hPa", "total_cloud_cover", "air_pressure_at_mean_sea_level",
        "vertical_velocity@1000hPa", "vertical_velocity@500hPa",
    }  # fmt: skip
    np.testing.assert_array_equal(sample.values[:, keys["geopotential_height@500hPa"], 0], height[:, 1])
    np.testing.assert_allclose(sample.values[:, keys["total_cloud_cover"], 0], cover / 100, rtol=1e-6)
    assert sample.variables[keys["vertical_velocity@500hPa"]].level == Level("pressure", 500.0)


def test_one_name_on_several_surfaces_is_told_apart(tmp_path: Path) -> None:
    files = {
        "air.2m.1979.nc": ("air", "degK", {"level_desc": "2 m"}),
        "air.sfc.1979.nc": ("air", "degK", {"level_desc": "Surface"}),
        "pres.sfc.1979.nc": ("pres", "Pa", {"level_desc": "Surface"}),
        "pres.tropo.1979.nc": ("pres", "Pa", {"level_desc": "Tropopause"}),
        "dpt.2m.1979.nc": ("dpt", "degK", {}),
        "shum.30m.1979.nc": ("shum", "kg/kg", {}),
    }
    low = {"air": 250.0, "pres": 9e4, "dpt": 240.0, "shum": 0.001}
    values = {f: field(i, low[n], 1.1 * low[n]) for i, (f, (n, _, _)) in enumerate(files.items())}
    paths = [write(tmp_path / f, n, values[f], u, **attrs) for f, (n, u, attrs) in files.items()]
    source = Narr(paths, Narr.Options(split="train"))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert {v.key: i for i, v in enumerate(sample.variables)} == {
        "air_temperature": 0, "surface_temperature": 1, "surface_air_pressure": 2, "dew_point_temperature": 3, "specific_humidity@30m": 4,
    }  # fmt: skip
    for channel, file in enumerate(f for f in files if "tropo" not in f):
        np.testing.assert_array_equal(sample.values[:, channel, 0], values[file])
    assert any("pres_tropopause: the registry has no quantity for it on the surface tropopause" in n for n in plan.notes)
    with pytest.raises(UserError, match="pres_tropopause cannot be used"):
        read(paths, variables=("pres_tropopause",))


def test_precipitation_over_three_hours_is_stamped_at_its_end_and_keeps_its_interval(tmp_path: Path) -> None:
    """PSL stamps an accumulation at its start; a frame at that instant would hold the rain of the next three hours."""
    air, rain, snow = field(6, 250, 280), field(7, 0, 9), field(8, 0, 90)
    paths = [
        write(tmp_path / "air.2m.1979.nc", "air", air, "degK"),
        write(tmp_path / "apcp.1979.nc", "apcp", rain, "kg/m^2", time={"coordinate_defines": "start"}, level_desc="Surface"),
        write(tmp_path / "weasd.1979.nc", "weasd", snow, "kg/m^2", long_name="3-hourly Water Equiv of Accum Snow Depth at Surface"),
    ]
    (alone,) = read(paths[1])
    assert alone.variables[0].key == "precipitation_amount"
    assert alone.time.labels()[:2] == ["1979-01-01T03:00:00", "1979-01-01T06:00:00"]
    assert alone.time.bounds is not None
    np.testing.assert_array_equal(alone.time.bounds, alone.time.seconds[:, None] + [-10800.0, 0.0])
    np.testing.assert_array_equal(alone.values[:, 0, 0], rain)
    (together,) = read(paths)
    assert together.time.labels() == [f"1979-01-01T{h:02d}:00:00" for h in (3, 6, 9, 12, 15)]
    for channel, expected in enumerate((air[1:], rain[:-1], snow[1:])):
        np.testing.assert_array_equal(together.values[:, channel, 0], expected)
    ends = write(tmp_path / "end.nc", "apcp", rain, "kg/m^2", time={"coordinate_defines": "end"})
    assert read(ends)[0].time.labels()[0] == "1979-01-01T00:00:00"


def test_daily_means_keep_their_stamp_and_have_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "apcp.1979.nc", "apcp", field(7, 0, 9), "kg/m^2", time={"avg_period": "0000-00-01 00:00:00"})
    with netCDF4.Dataset(path, "a") as file:
        file["time"][:] = 1569072.0 + 24.0 * np.arange(6)
    (sample,) = read(path)
    assert sample.time.labels()[0] == "1979-01-01T00:00:00"
    assert sample.time.bounds is not None
    np.testing.assert_array_equal(sample.time.bounds, sample.time.seconds[:, None] + [0.0, 86400.0])


# winds


@pytest.fixture
def winds(tmp_path: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    u, v = field(10, -20, 20), field(11, -20, 20)
    u[0, 1, 1] = v[1, 2, 2] = -9999.0
    storage = ("f4", {"_FillValue": np.float32(-9999.0)})
    paths = [write(tmp_path / f"{n}.10m.1979.nc", n, a, "m/s", storage=storage, level_desc="10 m") for n, a in (("uwnd", u), ("vwnd", v))]
    return paths, np.where(u < -999, np.nan, u), np.where(v < -999, np.nan, v)


@pytest.mark.parametrize("order", [1, -1])
def test_winds_of_two_files_are_turned_to_the_earth_together(winds: Any, order: int) -> None:
    paths, u, v = winds
    (sample,) = read(paths[::order])
    expected = to_the_earth(projection(), *places(), u, v)
    names = [v.name for v in sample.variables]
    for name, right in zip(("eastward_wind", "northward_wind"), expected, strict=True):
        values, valid = (a[:, names.index(name), 0] for a in (sample.values, sample.valid))
        np.testing.assert_array_equal(valid, np.isfinite(right))  # one component missing: neither is known
        np.testing.assert_allclose(values[valid], right[valid], atol=2e-4)
        assert np.abs(values[valid] - (u if "east" in name else v)[valid]).max() > 10  # the angle here is about 50 degrees
    speed = np.hypot(*(sample.values[:, c, 0] for c in (0, 1)))
    np.testing.assert_allclose(speed[sample.valid[:, 0, 0]], np.hypot(u, v)[sample.valid[:, 0, 0]], rtol=1e-5)
    assert {f.name for f in sample.origin.files} == {p.name for p in paths}


def test_pieces_of_winds_are_those_of_the_whole(winds: Any) -> None:
    paths, _, _ = winds
    (whole,) = read(paths)
    parts = read(paths, frames_per_sample=2)
    assert len(parts) == 3
    np.testing.assert_array_equal(np.concatenate([p.values for p in parts]), whole.values)
    for tile in read(paths, tile="4x3"):
        row, column = (int(tile.origin.place.split()[i]) for i in (-3, -1))
        np.testing.assert_array_equal(tile.values, whole.values[..., row : row + 4, column : column + 3])


def test_winds_that_are_along_the_earth_are_left_as_they_are(winds: Any) -> None:
    paths, u, v = winds
    (sample,) = read(paths, winds="earth")
    for channel, stored in enumerate((u, v)):
        known = sample.valid[:, channel, 0]
        np.testing.assert_array_equal(sample.values[:, channel, 0][known], stored[known])


def test_a_wind_without_its_other_component_is_left_out_or_refused(winds: Any, tmp_path: Path) -> None:
    paths, _, _ = winds
    with pytest.raises(UserError, match=r"uwnd: it is a wind along the grid and cannot be turned without vwnd \(of vwnd\.10m\.1979\.nc\)"):
        read(paths[:1])
    with pytest.raises(UserError, match=r"uwnd is turned together with vwnd of vwnd\.10m\.1979\.nc; ask for both"):
        read(paths, variables=("eastward_wind",))
    air = write(tmp_path / "air.2m.1979.nc", "air", field(0, 250, 280), "degK")
    assert [v.name for v in read([air, paths[1]])[0].variables] == ["air_temperature"]
    with netCDF4.Dataset(paths[1], "a") as file:
        file["time"][:] = file["time"][:] + 3
    with pytest.raises(UserError, match="are both components of a wind and have other times"):
        read(paths)


def test_winds_on_levels_and_at_another_height(tmp_path: Path) -> None:
    u, v = field(12, -20, 20, levels=(3,)), field(13, -20, 20, levels=(3,))
    aloft = [write(tmp_path / f"{n}.197901.nc", n, a, "m/s", levels=[1000.0, 850.0, 500.0]) for n, a in (("uwnd", u), ("vwnd", v))]
    (sample,) = read(aloft)
    expected = to_the_earth(projection(), *places(), u, v)
    np.testing.assert_allclose(sample.values[:, :, 0], np.concatenate(expected, axis=1), atol=2e-4)
    assert [v.key for v in sample.variables][2:4] == ["eastward_wind@500hPa", "northward_wind@1000hPa"]
    high = [write(tmp_path / f"{n}.30m.1979.nc", n, a[:, 0], "m/s", level_desc="30 m") for n, a in (("uwnd", u), ("vwnd", v))]
    (sample,) = read(high)
    assert [v.key for v in sample.variables] == ["eastward_wind@30m", "northward_wind@30m"]
    np.testing.assert_allclose(sample.values[:, 1, 0], expected[1][:, 0], atol=2e-4)


# GRIB


def write_grib(path: Path, fields: list[dict[str, Any]], edition: int = 1, seed: int = 0) -> list[np.ndarray]:
    """Messages as NCEP writes NARR's (edition 1, table 131) on a small Lambert grid; returns what ecCodes reads back, NaN where missing."""
    eccodes = pytest.importorskip("eccodes")
    rng, stored = np.random.default_rng(seed), []
    with path.open("wb") as file:
        for keys in fields:
            handle = eccodes.codes_grib_new_from_samples(f"GRIB{edition}")
            grid = {
                "gridType": "lambert", "Nx": 7, "Ny": 5, "latitudeOfFirstGridPointInDegrees": 20.0,
                "longitudeOfFirstGridPointInDegrees": 190.0,
                "LoVInDegrees": 253.0, "DxInMetres": 324630, "DyInMetres": 324630, "Latin1InDegrees": 50.0, "Latin2InDegrees": 50.0,
                "iScansNegatively": 0, "jScansPositively": 1, "uvRelativeToGrid": 1,
            }  # fmt: skip
            table = {"centre": "kwbc", "subCentre": 15, "table2Version": 131} if edition == 1 else {"centre": "kwbc", "LaDInDegrees": 50.0}
            low, high = keys.pop("values", (250.0, 300.0))
            hole = keys.pop("hole", False)
            for key, value in {**table, **grid, **keys}.items():
                eccodes.codes_set(handle, key, value)
            values = rng.uniform(low, high, 35)
            eccodes.codes_set(handle, "missingValue", 9.999e20)
            eccodes.codes_set(handle, "bitmapPresent", int(hole))
            eccodes.codes_set(handle, "bitsPerValue", 16)
            if hole:
                values[[0, 6]] = 9.999e20
            eccodes.codes_set_values(handle, values)
            back = eccodes.codes_get_values(handle)
            stored.append(np.where(back == 9.999e20, np.nan, back).reshape(5, 7))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return stored


def surface(number: int, kind: int, level: int, hour: int = 0, **keys: Any) -> dict[str, Any]:
    return {
        "indicatorOfParameter": number, "indicatorOfTypeOfLevel": kind, "level": level, "dataDate": 19790101, "dataTime": 100 * hour, **keys
    }  # fmt: skip


def test_parameters_of_ncep_table_131_are_named_here(tmp_path: Path) -> None:
    """ecCodes reads NARR's parameter 61, total precipitation, as another centre's 'probability of 5 mm'."""
    rain = {"timeRangeIndicator": 4, "P1": 0, "P2": 3, "indicatorOfUnitOfTimeRange": 1, "values": (0.0, 20.0)}
    fields = [
        field
        for hour in (0, 3, 6)
        for field in (
            surface(11, 105, 2, hour, hole=True),
            surface(33, 105, 10, hour, values=(-20.0, 20.0)),
            surface(34, 105, 10, hour, values=(-20.0, 20.0)),
            surface(11, 105, 30, hour),
            *(surface(7, 100, p, hour, values=(100.0, 5000.0)) for p in (500, 850)),
            surface(61, 1, 0, hour - 3 if hour else 0, **rain),
        )
    ]
    fields[6] |= {"dataDate": 19781231, "dataTime": 2100}
    stored = write_grib(tmp_path / "narr.grb", fields)
    assert Narr.recognises(tmp_path / "narr.grb")
    (sample,) = read(tmp_path / "narr.grb")
    keys = {v.key: c for c, v in enumerate(sample.variables)}
    assert sample.time.labels() == [f"1979-01-01T{h:02d}:00:00" for h in (0, 3, 6)]
    series = [np.stack(stored[i::7]) for i in range(7)]
    for key, expected in {
        "air_temperature": series[0], "air_temperature@30m": series[3], "geopotential_height@500hPa": series[4],
        "geopotential_height@850hPa": series[5], "precipitation_amount": series[6],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(sample.valid[:, keys[key], 0], np.isfinite(expected), err_msg=key)
        known = np.isfinite(expected)
        np.testing.assert_array_equal(sample.values[:, keys[key], 0][known], expected[known].astype(np.float32), err_msg=key)
    plane = pyproj.Proj(proj="lcc", **NARR, R=6367470.0)
    x, y = plane(190.0, 20.0)
    longitude, latitude = plane(*np.meshgrid(x + 324630.0 * np.arange(7), y + 324630.0 * np.arange(5)), inverse=True)
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-5)
    expected = to_the_earth(plane, longitude, latitude, series[1], series[2])
    for key, right in zip(("eastward_wind", "northward_wind"), expected, strict=True):
        np.testing.assert_allclose(sample.values[:, keys[key], 0], right, atol=1e-3, err_msg=key)


def test_grib_accumulations_end_at_their_valid_time(tmp_path: Path) -> None:
    rain = {"timeRangeIndicator": 4, "P1": 0, "P2": 3, "indicatorOfUnitOfTimeRange": 1, "values": (0.0, 20.0)}
    write_grib(tmp_path / "rain.grb", [surface(61, 1, 0, hour, **rain) for hour in (0, 3, 6)])
    (sample,) = read(tmp_path / "rain.grb")
    assert sample.time.labels() == [f"1979-01-01T{h:02d}:00:00" for h in (3, 6, 9)]
    assert sample.time.bounds is not None
    np.testing.assert_array_equal(sample.time.bounds, sample.time.seconds[:, None] + [-10800.0, 0.0])


def test_grib_winds_along_the_earth_are_not_turned(tmp_path: Path) -> None:
    along = {"uvRelativeToGrid": 0, "values": (-20.0, 20.0)}
    stored = write_grib(tmp_path / "earth.grb", [surface(p, 105, 10, 0, **along) for p in (33, 34)])
    for options in ({}, {"winds": "earth"}):
        (sample,) = read(tmp_path / "earth.grb", **options)
        np.testing.assert_array_equal(sample.values[0, :, 0], np.float32(stored))
    (turned_too,) = read(tmp_path / "earth.grb", winds="grid")
    assert np.abs(turned_too.values[0, :, 0] - np.float32(stored)).max() > 1


def test_damaged_grib_is_refused(tmp_path: Path) -> None:
    write_grib(tmp_path / "a.grb", [surface(11, 105, 2, hour) for hour in (0, 3, 6)])
    whole = (tmp_path / "a.grb").read_bytes()
    size = len(whole) // 3
    for name, damaged in {
        "cut": whole[:-20],
        "head": whole[:size] + b"GRIX" + whole[size + 4 :],
        "first": b"\0" + whole[1:],
        "last": whole[: 2 * size] + b"XRIB" + whole[2 * size + 4 :],
        "end": whole[:-4] + b"7778",
    }.items():
        (tmp_path / f"{name}.grb").write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name}\.grb"):
            read(tmp_path / f"{name}.grb")
    write_grib(tmp_path / "twice.grb", [surface(11, 105, 2, 0)] * 2)
    with pytest.raises(UserError, match=r"twice\.grb holds t on heightAboveGround 2 twice for 1979-01-01T00:00"):
        read(tmp_path / "twice.grb")


def test_grib_on_another_grid_is_refused(tmp_path: Path) -> None:
    eccodes = pytest.importorskip("eccodes")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    (tmp_path / "ll.grb").write_bytes(eccodes.codes_get_message(handle))
    assert not Narr.recognises(tmp_path / "ll.grb")
    with pytest.raises(UserError, match=r"ll\.grb is on a regular_ll grid; expected a Lambert conformal one"):
        read(tmp_path / "ll.grb")


# the source


def test_corpus_from_winds_and_temperature(winds: Any, tmp_path: Path) -> None:
    air = write(tmp_path / "air.2m.1979.nc", "air", field(0, 250, 280), "degK")
    source = Narr([air, *winds[0]], Narr.Options())
    convert(source, tmp_path / "corpus", progress=False)
    corpus = Corpus.open(tmp_path / "corpus")
    assert sorted(corpus.stats.to_json()["variables"]) == ["air_temperature", "eastward_wind", "northward_wind"]
    plan = source.plan()
    made = [s for s in source.samples(plan.refs) if s is not None]
    kept = corpus.read(plan.splits[0].name, 0)
    np.testing.assert_array_equal(kept.valid, made[0].valid)
    assert np.abs(kept.values - made[0].values)[kept.valid].max() < 0.05  # packed into 16 bits
    np.testing.assert_array_equal(kept.coordinates["longitude"].values, made[0].coordinates["longitude"].values)


def test_recognised_by_content(tmp_path: Path) -> None:
    assert Narr.recognises(write(tmp_path / "x.nc", "air", field(0, 250, 280), "degK"))
    (tmp_path / "broken.nc").write_bytes((tmp_path / "x.nc").read_bytes()[:900])
    (tmp_path / "text.nc").write_text("NARR")
    assert not Narr.recognises(tmp_path / "broken.nc")
    assert not Narr.recognises(tmp_path / "text.nc")


def test_remotes_are_the_files_of_psl() -> None:
    def get(url: str) -> bytes:
        raise AssertionError(url)

    found = list(Narr.remotes(NarrFetch(years="1979-1980"), get))
    assert [r.url for r in found[:2]] == [
        f"https://downloads.psl.noaa.gov/Datasets/NARR/monolevel/air.2m.{year}.nc" for year in (1979, 1980)
    ]
    assert len(found) == 6
    found = list(Narr.remotes(NarrFetch(("air",), "2019", (1, 12), "pressure", "http://localhost:1/narr/"), get))
    assert [(r.url, r.file) for r in found] == [
        (f"http://localhost:1/narr/pressure/air.2019{m}.nc", f"pressure/air.2019{m}.nc") for m in ("01", "12")
    ]
    assert len(list(Narr.remotes(NarrFetch(("air",), group="pressure"), get))) == 12
    for wrong in (NarrFetch(years="last year"), NarrFetch(months=(1,)), NarrFetch(("air",), months=(13,), group="pressure"), NarrFetch(())):
        with pytest.raises(UserError):
            list(Narr.remotes(wrong, get))


# real samples


def test_layout_of_psl_equals_netcdf4() -> None:
    path = real("narr/layout_narr_air.2m.nc")
    assert Narr.recognises(path)
    (sample,) = read(path)
    with netCDF4.Dataset(path) as file:
        values, longitude, latitude = file["air"][:], file["lon"][:], file["lat"][:]
        dates = netCDF4.num2date(file["time"][:], file["time"].units)
    assert [v.key for v in sample.variables] == ["air_temperature"]
    np.testing.assert_array_equal(sample.valid[:, 0, 0], ~np.ma.getmaskarray(values))
    np.testing.assert_array_equal(sample.values[:, 0, 0][sample.valid[:, 0, 0]], values.compressed())
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, latitude)
    np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude, atol=1e-5)
    assert sample.time.labels() == [d.isoformat() for d in dates]


def test_real_grib_equals_eccodes_and_pyproj() -> None:
    path = real("narr/nam.t00z.awp21100.tm00.grib2")
    eccodes = pytest.importorskip("eccodes")
    messages: dict[tuple[str, str, float], np.ndarray] = {}
    eccodes.codes_grib_multi_support_on()
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            name, kind, level = (eccodes.codes_get(handle, k) for k in ("shortName", "typeOfLevel", "level"))
            messages[name, kind, float(level)] = eccodes.codes_get_values(handle).reshape(65, 93)
            corner = [eccodes.codes_get(handle, f"{k}itudeOfFirstGridPointInDegrees") for k in ("long", "lat")]
            assert eccodes.codes_get(handle, "uvRelativeToGrid") == 1
            eccodes.codes_release(handle)
    eccodes.codes_grib_multi_support_off()
    source = Narr([path], Narr.Options(split="test"))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert sample.time.labels() == ["2018-09-17T00:00:00"]
    plane = pyproj.Proj(proj="lcc", lat_1=25.0, lat_2=25.0, lat_0=25.0, lon_0=265.0, R=6371229.0)
    x, y = plane(*corner)
    longitude, latitude = plane(*np.meshgrid(x + 81271.0 * np.arange(93), y + 81271.0 * np.arange(65)), inverse=True)
    np.testing.assert_allclose(sample.coordinates["latitude"].values, latitude, atol=1e-4)
    np.testing.assert_allclose((sample.coordinates["longitude"].values - longitude + 180) % 360 - 180, 0, atol=1e-4)

    names = {"air_temperature": "t", "geopotential_height": "gh", "relative_humidity": "r", "vertical_velocity": "w"}
    alone = {
        "air_temperature": ("2t", "heightAboveGround", 2.0), "relative_humidity": ("2r", "heightAboveGround", 2.0),
        "surface_air_pressure": ("sp", "surface", 0.0), "surface_altitude": ("orog", "surface", 0.0),
        "air_pressure_at_mean_sea_level": ("prmsl", "meanSea", 0.0),
        "total_column_water_vapour": ("pwat", "atmosphereSingleLayer", 0.0),
    }  # fmt: skip
    compared = 0
    for channel, variable in enumerate(sample.variables):
        value = sample.values[0, channel, 0]
        if variable.name.endswith("ward_wind"):
            where = ("isobaricInhPa", variable.level.value) if variable.level else ("heightAboveGround", 10.0)
            u, v = (messages[n if variable.level else f"10{n}", *where] for n in "uv")
            expected = to_the_earth(plane, longitude, latitude, u, v)[variable.name == "northward_wind"]
            np.testing.assert_allclose(value, expected, atol=2e-3)
        else:
            key = (names[variable.name], "isobaricInhPa", variable.level.value) if variable.level else alone[variable.name]
            np.testing.assert_array_equal(value, messages[key].astype(np.float32), err_msg=variable.key)
        compared += 1
    assert compared == 122
    assert sample.valid.all()
    assert {v.level.value for v in sample.variables if v.level and v.name == "eastward_wind"} == set(np.arange(100.0, 1001.0, 50.0))
    notes = " ".join(plan.notes)
    for left_out in ("t_tropopause", "pres_cloudTop", "u_maxWind", "r_pressureFromGroundLayer", "cape", "tp: it is an amount"):
        assert left_out in notes
