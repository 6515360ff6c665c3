"""ERA5: GRIB, NetCDF and Zarr read to the same numbers as the formats' own libraries, with axes, levels, members and times in place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from readings import real

from scigpt.data.sample import Level, Sample
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError

LAT = np.arange(50.0, 40.0, -2.0)
LON = np.arange(-10.0, 4.0, 2.0)


def read(path: Path | list[Path], **options: Any) -> list[Sample]:
    source = Era5(path if isinstance(path, list) else [path], Era5.Options(**options))
    return list(source.samples(source.plan().refs))


def hourly(frames: int = 48, start: str = "2019-03-01", **attrs: Any) -> xr.Dataset:
    values = 280.0 + 10.0 * np.random.default_rng(0).standard_normal((frames, LAT.size, LON.size))
    times = np.datetime64(start, "ns") + np.arange(frames) * np.timedelta64(1, "h")
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K", **attrs})},
        coords={
            "time": times,
            "latitude": ("latitude", LAT, {"units": "degrees_north"}),
            "longitude": ("longitude", LON, {"units": "degrees_east"}),
        },
    )


def write_grib(path: Path, fields: list[dict[str, Any]]) -> list[np.ndarray]:
    """GRIB messages made by ecCodes on a 5 x 7 grid; returns the values that ecCodes itself reads back."""
    eccodes = pytest.importorskip("eccodes")
    rng, stored = np.random.default_rng(1), []
    with path.open("wb") as file:
        for field in fields:
            handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            grid = {
                "Ni": LON.size, "Nj": LAT.size, "iDirectionIncrementInDegrees": 2, "jDirectionIncrementInDegrees": 2,
                "latitudeOfFirstGridPointInDegrees": LAT[0], "latitudeOfLastGridPointInDegrees": LAT[-1],
                "longitudeOfFirstGridPointInDegrees": 350, "longitudeOfLastGridPointInDegrees": 2,
            }  # fmt: skip
            for key, value in {**grid, **field}.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_set(handle, "bitsPerValue", 16)
            eccodes.codes_set_values(handle, rng.uniform(250, 300, LAT.size * LON.size))
            stored.append(eccodes.codes_get_values(handle).reshape(LAT.size, LON.size))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return stored


def test_packed_netcdf_equals_netcdf4_arithmetic_in_float64(tmp_path: Path) -> None:
    dataset = hourly()
    dataset.t2m[3, 1, 2] = np.nan
    dataset.t2m[4, 0, 0] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.0013, "add_offset": 281.17, "_FillValue": -32767}
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding={"t2m": packing})
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:  # two marks for missing, as old data stores wrote them
        file["t2m"].missing_value = np.int16(32766)
        file["t2m"].set_auto_maskandscale(False)
        file["t2m"][4, 0, 0] = 32766
        packed = file["t2m"][:]
    bad = (packed == -32767) | (packed == 32766)
    samples = read(tmp_path / "a.nc", split="train")
    (sample,) = samples
    assert bad.sum() == 2
    np.testing.assert_array_equal(sample.valid[:, 0, 0], ~bad)
    expected = (packed.astype(np.float64) * 0.0013 + 281.17).astype(np.float32)
    np.testing.assert_array_equal(sample.values[:, 0, 0][~bad], expected[~bad])
    assert sample.layout.variables[0].key == "air_temperature"
    assert sample.time.calendar == "proleptic_gregorian"
    assert sample.time.labels()[:2] == ["2019-03-01T00:00:00", "2019-03-01T01:00:00"]
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, LAT)
    assert sample.boundary.x == ("open", "open")
    assert sample.origin.files[0].name == "a.nc"
    assert len(sample.origin.files[0].sha256) == 64


@pytest.mark.parametrize("order", [("time", "level", "longitude", "latitude"), ("level", "time", "latitude", "longitude")])
def test_levels_become_channels_whatever_the_order_of_the_axes(tmp_path: Path, order: tuple[str, ...]) -> None:
    values = np.random.default_rng(2).uniform(200, 300, (4, 3, LAT.size, LON.size)).astype("f4")
    dataset = xr.Dataset(
        {"t": (("time", "level", "latitude", "longitude"), values, {"units": "K", "standard_name": "air_temperature"})},
        coords={**hourly(4).coords, "level": ("level", [850, 500, 200], {"units": "millibars"})},
    )
    dataset.transpose(*order).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    (sample,) = read(tmp_path / "a.nc")
    assert [v.level for v in sample.variables] == [Level("pressure", p) for p in (850.0, 500.0, 200.0)]
    np.testing.assert_array_equal(sample.values[:, :, 0], values)


def test_names_and_versions_of_the_new_data_store(tmp_path: Path) -> None:
    old = hourly(6)
    versions = xr.concat([old.isel(time=slice(0, 6)).where(old.time < old.time[3]), old.where(old.time >= old.time[3])], "expver")
    versions = versions.assign_coords(expver=["0001", "0005"]).transpose("time", "expver", "latitude", "longitude")
    new = versions.rename(time="valid_time")
    new.valid_time.attrs = {"standard_name": "time", "long_name": "time"}
    new = new.expand_dims(pressure_level=[1000.0], axis=1)
    new.pressure_level.attrs = {"units": "hPa", "standard_name": "air_pressure"}
    new = new.rename(t2m="t")
    new.t.attrs = {"units": "K"}
    new.to_netcdf(tmp_path / "new.nc", engine="netcdf4")
    (sample,) = read(tmp_path / "new.nc")
    assert sample.valid.all()
    assert sample.variables[0].key == "air_temperature@1000hPa"
    np.testing.assert_array_equal(sample.values[:, 0, 0], old.t2m.values.astype("f4"))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_stores(tmp_path: Path, version: int) -> None:
    dataset = hourly(10)
    dataset.to_zarr(tmp_path / "store.zarr", zarr_format=version, consolidated=False)
    (sample,) = read(tmp_path / "store.zarr", split="train")
    np.testing.assert_array_equal(sample.values[:, 0, 0], dataset.t2m.values.astype("f4"))


def test_files_that_follow_each_other_are_one_record_and_holes_cut_it(tmp_path: Path) -> None:
    whole = hourly(60)
    for i, part in enumerate((slice(24, 60), slice(0, 24))):
        whole.isel(time=part).drop_sel(time=whole.time.values[40], errors="ignore").to_netcdf(tmp_path / f"{i}.nc", engine="netcdf4")
    samples = read([tmp_path / "0.nc", tmp_path / "1.nc"], split="train", frames_per_sample=100)
    assert [len(s.time) for s in samples] == [40, 19]
    for sample in samples:
        assert set(np.diff(sample.time.seconds)) == {3600.0}
    joined = np.concatenate([s.values[:, 0, 0] for s in samples])
    np.testing.assert_array_equal(joined, np.delete(whole.t2m.values, 40, axis=0).astype("f4"))
    assert [f.name for f in samples[0].origin.files] == ["0.nc", "1.nc"]


def test_variables_of_two_files_side_by_side_with_static_orography(tmp_path: Path) -> None:
    dataset = hourly(8)
    dataset["z0"] = (("latitude", "longitude"), np.full((LAT.size, LON.size), 120.0), {"units": "m", "standard_name": "surface_altitude"})
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    pressure = dataset[["t2m"]].rename(t2m="sp") * 0 + 1000.0
    pressure.sp.attrs = {"units": "hPa"}
    pressure.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    (sample,) = read([tmp_path / "a.nc", tmp_path / "b.nc"])
    assert [(v.name, v.role) for v in sample.variables] == [
        ("air_temperature", "state"),
        ("surface_altitude", "static"),
        ("surface_air_pressure", "state"),
    ]
    assert (sample.values[:, 1] == 120.0).all()
    assert (sample.values[:, 2] == 100000.0).all()


def test_splits_are_blocks_of_time_with_a_gap_and_members_stay_together(tmp_path: Path) -> None:
    dataset = xr.concat([hourly(100), hourly(100) + 1], "number").assign_coords(number=[0, 7])
    dataset.t2m.attrs["units"] = "K"
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    source = Era5([tmp_path / "a.nc"], Era5.Options(gap=3, frames_per_sample=30))
    plan = source.plan()
    assert len({r.key for r in plan.refs}) == len(plan.refs)
    times: dict[str, dict[int, list[float]]] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert len(sample.time) <= 30
        assert sample.values.nbytes <= plan.bytes_per_sample <= 27 * LAT.size * LON.size * 4  # no more than the longest piece
        times.setdefault(ref.split, {}).setdefault(ref.spec["member"], []).extend(sample.time.seconds / 3600)
        assert sample.origin.place.endswith(f"member {ref.spec['member']}")
    begin = times["train"][0][0]
    for split, (first, last) in {"train": (0, 79), "valid": (83, 89), "test": (93, 99)}.items():
        for member in (0, 7):
            assert times[split][member] == [begin + i for i in range(first, last + 1)]


def test_accumulated_energy_and_depth_of_water(tmp_path: Path) -> None:
    dataset = hourly(6).rename(t2m="ssrd")
    dataset["ssrd"] = dataset.ssrd * 0 + 7200.0
    dataset.ssrd.attrs = {"units": "J m**-2"}
    dataset["tp"] = dataset.ssrd * 0 + 0.002
    dataset.tp.attrs = {"units": "m"}
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    (sample,) = read(tmp_path / "a.nc")
    np.testing.assert_allclose(sample.values[:, 0], 2.0, rtol=1e-6)
    np.testing.assert_allclose(sample.values[:, 1], 2.0, rtol=1e-6)
    (sample,) = read(tmp_path / "a.nc", accumulation_hours=2.0)
    np.testing.assert_allclose(sample.values[:, 0], 1.0, rtol=1e-6)


def test_a_global_grid_is_periodic_and_ends_at_poles(tmp_path: Path) -> None:
    for latitude, expected in ((np.arange(-90, 91, 30.0), ("pole", "pole")), (np.arange(0, 91, 30.0), ("open", "pole"))):
        dataset = xr.Dataset(
            {"t2m": (("time", "lat", "lon"), np.full((2, latitude.size, 12), 280.0), {"units": "K"})},
            coords={"time": hourly(2).time, "lat": latitude, "lon": np.arange(-180, 180, 30.0)},
        )
        dataset.to_netcdf(tmp_path / "g.nc", engine="netcdf4")
        (sample,) = read(tmp_path / "g.nc")
        assert sample.boundary.x == ("periodic", "periodic")
        assert sample.boundary.y == expected


def test_grib_of_levels_and_members_equals_eccodes(tmp_path: Path) -> None:
    keys = [
        {"dataDate": 20170101, "dataTime": hour * 100, "shortName": "t", "level": level, "productDefinitionTemplateNumber": 1,
         "perturbationNumber": member}
        for member in (0, 1) for hour in (0, 6, 12) for level in (850, 500)
    ]  # fmt: skip
    stored = write_grib(tmp_path / "a.grib", keys)
    before = set(tmp_path.iterdir())
    samples = read(tmp_path / "a.grib")
    assert set(tmp_path.iterdir()) == before
    assert len(samples) == 2
    for member, sample in enumerate(samples):
        assert [v.key for v in sample.variables] == ["air_temperature@850hPa", "air_temperature@500hPa"]
        assert sample.time.labels() == ["2017-01-01T00:00:00", "2017-01-01T06:00:00", "2017-01-01T12:00:00"]
        expected = np.stack(stored[6 * member : 6 * member + 6]).reshape(3, 2, LAT.size, LON.size)
        np.testing.assert_array_equal(sample.values[:, :, 0], expected.astype(np.float32))


def test_grib_steps_of_an_accumulation_join_the_time_of_an_analysis(tmp_path: Path) -> None:
    surface = {"typeOfLevel": "surface", "level": 0}
    keys = [{"dataDate": 20170101, "dataTime": hour * 100, "shortName": "sp", **surface} for hour in range(1, 5)]
    keys += [
        {"dataDate": 20170101, "dataTime": base * 100, "shortName": "tp", **surface, "stepRange": f"{step - 1}-{step}"}
        for base in (0, 2)
        for step in (1, 2)
    ]
    stored = write_grib(tmp_path / "a.grib", keys)
    (sample,) = read(tmp_path / "a.grib")
    assert {v.name for v in sample.variables} == {"surface_air_pressure", "precipitation_amount"}
    assert [label[11:13] for label in sample.time.labels()] == ["01", "02", "03", "04"]
    names = [v.name for v in sample.variables]
    metres = np.stack(stored[4:])
    np.testing.assert_allclose(sample.values[:, names.index("precipitation_amount"), 0], 1000.0 * metres, rtol=1e-6)


def test_reading_grib_ends_with_status_zero(tmp_path: Path) -> None:
    write_grib(tmp_path / "a.grib", [{"dataDate": 20170101, "dataTime": h * 100, "shortName": "t", "level": 850} for h in range(3)])
    program = (
        "import sys; from pathlib import Path; from scigpt.data_prep.sources.era5 import Era5\n"
        "s = Era5([Path(sys.argv[1])]); print(sum(x.values.size for x in s.samples(s.plan().refs)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.grib")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(3 * LAT.size * LON.size)]


def test_a_climatology_by_month_number_is_refused(tmp_path: Path) -> None:
    hourly(2).rename(time="month").assign_coords(month=[1, 7]).to_netcdf(tmp_path / "clim.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"clim\.nc .*dimension month of length 2 is not a CF time"):
        read(tmp_path / "clim.nc")


def test_the_same_time_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a.nc", "b.nc"):
        hourly(5).to_netcdf(tmp_path / name, engine="netcdf4")
    with pytest.raises(UserError, match=r"air_temperature is given twice for the same time, in a\.nc and in b\.nc"):
        read([tmp_path / "a.nc", tmp_path / "b.nc"])


@pytest.mark.parametrize("name", ["era5-2mt-2019-03-uk.grib", "era5-levels-members.grib", "fields_with_missing_values.grib"])
def test_real_grib_equals_eccodes(name: str) -> None:
    path = real(f"era5/{name}")
    eccodes = pytest.importorskip("eccodes")
    messages: dict[tuple[Any, ...], np.ndarray] = {}
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            number = eccodes.codes_get(handle, "number") if eccodes.codes_is_defined(handle, "number") else 0
            level = eccodes.codes_get(handle, "level")
            when = eccodes.codes_get(handle, "validityDate"), eccodes.codes_get(handle, "validityTime") // 100
            values = eccodes.codes_get_values(handle).reshape(eccodes.codes_get(handle, "Nj"), eccodes.codes_get(handle, "Ni"))
            if eccodes.codes_get(handle, "bitmapPresent"):
                values[values == eccodes.codes_get(handle, "missingValue")] = np.nan
            messages[eccodes.codes_get(handle, "cfVarName"), number, level, *when] = values
            eccodes.codes_release(handle)
    short = {"air_temperature": "t", "geopotential": "z"}
    seen = 0
    for sample in read(path, split="train"):
        for c, variable in enumerate(sample.variables):
            for t, date in enumerate(sample.time.dates()):
                member = int(sample.origin.place.split("member ")[1]) if "member" in sample.origin.place else 0
                name = short[variable.name] if variable.level else "t2m"
                key = (name, member, int(variable.level.value) if variable.level else 0, int(date.strftime("%Y%m%d")), date.hour)
                expected = messages[key]
                np.testing.assert_array_equal(sample.valid[t, c, 0], np.isfinite(expected))
                np.testing.assert_array_equal(sample.values[t, c, 0][sample.valid[t, c, 0]], expected[np.isfinite(expected)].astype("f4"))
                seen += 1
    assert seen == len(messages)


def test_real_netcdf_and_zarr_equal_their_own_libraries() -> None:
    import netCDF4
    import zarr

    with netCDF4.Dataset(real("era5/era5_1995-07-14T12.nc")) as file:
        (sample,) = read(real("era5/era5_1995-07-14T12.nc"))
        for c, name in enumerate(("u10", "v10", "d2m", "t2m", "sp")):
            np.testing.assert_allclose(sample.values[0, c, 0], np.asarray(file[name][:]), rtol=1e-6, atol=1e-6)
    assert sample.time.labels() == ["1995-07-14T12:00:00"]
    store = zarr.open_group(real("zarr/test_zarr"), mode="r")
    (sample,) = read(real("zarr/test_zarr"))
    for c, (name, level) in enumerate((("z", 0), ("z", 1), ("t", 0), ("t", 1))):
        array = store[name]
        expected = np.asarray(array[0, level], np.float64) * array.attrs["scale_factor"] + array.attrs["add_offset"]
        np.testing.assert_array_equal(sample.values[0, c, 0], expected.astype(np.float32))
    assert sample.boundary.y == ("pole", "pole")


def test_real_climatology_is_refused() -> None:
    with pytest.raises(UserError, match=r"eraint_uvz\.nc .*month"):
        read(real("era5/eraint_uvz.nc"))
