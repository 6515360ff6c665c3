"""ERA5 by every route: ARCO and WeatherBench Zarr, NetCDF of the new and the old data store, GRIB, and static files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
from readings import real

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Level, Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.files import sha256
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError

LAT, LON = np.arange(60.0, 50.0, -2.0), np.arange(350.0, 358.0, 1.0)
G = 9.80665


def read(*paths: Path, **options: Any) -> list[Sample]:
    source = Era5(paths, Era5.Options(**{"split": "train", **options}))
    return list(source.samples(source.plan().refs))


def hours(count: int, start: str = "2020-01-01", step: int = 1) -> np.ndarray:
    return np.datetime64(start, "ns") + step * np.arange(count) * np.timedelta64(1, "h")


def field(name: str, unit: str, frames: int = 6, low: float = 250.0, high: float = 300.0, seed: int = 0, **attrs: Any) -> xr.Dataset:
    values = np.random.default_rng(seed).uniform(low, high, (frames, LAT.size, LON.size)).astype("f4")
    return xr.Dataset(
        {name: (("time", "latitude", "longitude"), values, {"units": unit, **attrs})},
        coords={"time": hours(frames), "latitude": LAT, "longitude": LON},
    )


def orography(seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-300.0, 20000.0, (LAT.size, LON.size))


# Zarr on Google Cloud


def arco(path: Path) -> np.ndarray:
    """Reserved from 1900 to 1900-01-02, held from hour 5, final up to hour 11, preliminary up to hour 17 of the first day."""
    dataset = field("2m_temperature", "K", 48).assign_coords(time=hours(48, "1900-01-01"))
    held = (np.arange(48) >= 5) & (np.arange(48) <= 17)
    values = np.where(held[:, None, None], dataset["2m_temperature"].values, np.nan)
    dataset["2m_temperature"] = dataset["2m_temperature"].copy(data=values)
    dataset["geopotential_at_surface"] = (("latitude", "longitude"), orography(), {"units": "m**2 s**-2"})
    dataset.attrs = {
        "valid_time_start": "1900-01-01T05",
        "valid_time_stop": "1900-01-01T11",
        "valid_time_stop_era5t": "1900-01-01T17",
    }
    dataset.to_zarr(path, zarr_format=2, consolidated=True)
    return values


@pytest.mark.parametrize(("preliminary", "last"), [(True, 17), (False, 11)])
def test_arco_is_cut_to_the_times_that_it_holds(tmp_path: Path, preliminary: bool, last: int) -> None:
    values = arco(tmp_path / "arco.zarr")
    (sample,) = read(tmp_path / "arco.zarr", preliminary=preliminary)
    assert sample.time.labels()[0] == "1900-01-01T05:00:00"
    assert sample.time.labels()[-1] == f"1900-01-01T{last}:00:00"
    assert sample.valid.all()
    np.testing.assert_array_equal(sample.values[:, 0, 0], values[5 : last + 1])
    assert [(v.name, v.role) for v in sample.variables] == [("air_temperature", "state"), ("surface_altitude", "static")]
    np.testing.assert_allclose(sample.values[3, 1, 0], orography() / G, rtol=1e-6)


def test_a_part_of_arco_outside_what_it_holds_is_told(tmp_path: Path) -> None:
    arco(tmp_path / "arco.zarr")
    part = xr.open_zarr(tmp_path / "arco.zarr").isel(time=slice(30, 40)).load()
    part.to_zarr(tmp_path / "part.zarr", zarr_format=2)
    with pytest.raises(UserError, match=r"part\.zarr holds no time between valid_time_start 1900-01-01T05 and"):
        read(tmp_path / "part.zarr")


def test_weatherbench_has_longitude_before_latitude(tmp_path: Path) -> None:
    rng, levels = np.random.default_rng(1), [500, 850]
    high = rng.uniform(200, 300, (4, 2, LON.size, LAT.size)).astype("f4")
    low = rng.uniform(200, 300, (4, LON.size, LAT.size)).astype("f4")
    ground, land = orography().T, rng.uniform(0, 1, (LON.size, LAT.size)).astype("f4")
    dims = ("longitude", "latitude")
    rain = rng.uniform(0, 0.01, low.shape).astype("f4")
    xr.Dataset(
        {
            "temperature": (("time", "level", *dims), high, {"units": "K", "standard_name": "air_temperature"}),
            "2m_temperature": (("time", *dims), low, {"units": "K"}),
            "geopotential_at_surface": (dims, ground, {"units": "m**2 s**-2", "standard_name": "geopotential"}),
            "land_sea_mask": (dims, land, {"units": "(0 - 1)", "standard_name": "land_binary_mask"}),
            "10m_wind_speed": (("time", *dims), low / 100),  # computed by WeatherBench, without a unit
            "wind_speed": (("time", "level", *dims), high / 100),
            "total_precipitation_6hr": (("time", *dims), rain, {"units": "m"}),
        },
        coords={"time": hours(4, "1959-01-01", 6), "level": levels, "longitude": LON, "latitude": LAT[::-1]},
    ).to_zarr(tmp_path / "wb.zarr", zarr_format=2)
    (sample,) = read(tmp_path / "wb.zarr")
    channel = {v.key: c for c, v in enumerate(sample.variables)}
    assert {v.key for v in sample.variables if v.role == "static"} == {"surface_altitude", "land_area_fraction"}
    assert sample.values.shape[-2:] == (LAT.size, LON.size)
    for i, level in enumerate(levels):
        expected = high[:, i].transpose(0, 2, 1)
        np.testing.assert_array_equal(sample.values[:, channel[f"air_temperature@{level}hPa"], 0], expected)
        np.testing.assert_allclose(sample.values[:, channel[f"wind_speed@{level}hPa"], 0], expected / 100)
    np.testing.assert_array_equal(sample.values[:, channel["air_temperature"], 0], low.transpose(0, 2, 1))
    np.testing.assert_array_equal(sample.values[1, channel["land_area_fraction"], 0], land.T)
    np.testing.assert_allclose(sample.values[1, channel["surface_altitude"], 0], ground.T / G, rtol=1e-6)
    np.testing.assert_allclose(sample.values[:, channel["precipitation_amount"], 0], 1000 * rain.transpose(0, 2, 1), rtol=1e-6)
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, LAT[::-1])
    np.testing.assert_array_equal(sample.coordinates["longitude"].values, LON)
    (sample,) = read(tmp_path / "wb.zarr", levels=(850.0,), variables=("temperature", "2m_temperature"))
    assert [v.level for v in sample.variables] == [None, Level("pressure", 850.0)]


# NetCDF of the data stores


def new_store(path: Path, versions: list[str]) -> np.ndarray:
    """As the data store writes it since 2024: valid_time, pressure_level, the member a scalar, the version of each hour a string."""
    values = np.random.default_rng(3).uniform(200, 300, (len(versions), 2, LAT.size, LON.size)).astype("f4")
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("valid_time", len(versions)), ("pressure_level", 2), ("latitude", LAT.size), ("longitude", LON.size)):
            file.createDimension(name, size)
        file.createVariable("number", "i8", ())[...] = 0
        file["number"].setncatts({"units": "1", "standard_name": "realization"})
        time = file.createVariable("valid_time", "i8", ("valid_time",))
        time.setncatts({"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"})
        time[:] = 1577836800 + 3600 * np.arange(len(versions))
        level = file.createVariable("pressure_level", "f8", ("pressure_level",))
        level.setncatts({"units": "hPa", "positive": "down", "stored_direction": "decreasing", "standard_name": "air_pressure"})
        level[:] = [850.0, 500.0]
        for name, unit, numbers in (("latitude", "degrees_north", LAT), ("longitude", "degrees_east", LON)):
            file.createVariable(name, "f8", (name,))[:] = numbers
            file[name].setncatts({"units": unit, "standard_name": name})
        expver = file.createVariable("expver", str, ("valid_time",))
        for i, version in enumerate(versions):
            expver[i] = version
        t = file.createVariable("t", "f4", ("valid_time", "pressure_level", "latitude", "longitude"), fill_value=np.nan, zlib=True)
        t.setncatts({"units": "K", "standard_name": "air_temperature", "coordinates": "number valid_time latitude longitude expver"})
        t[:] = values
    return values


def test_netcdf_of_the_new_store_names_its_versions_by_hour(tmp_path: Path) -> None:
    values = new_store(tmp_path / "new.nc", ["0001"] * 4 + ["0005"] * 2)
    (sample,) = read(tmp_path / "new.nc")
    assert [v.key for v in sample.variables] == ["air_temperature@850hPa", "air_temperature@500hPa"]
    np.testing.assert_array_equal(sample.values[:, :, 0], values)
    assert sample.time.labels()[0] == "2020-01-01T00:00:00"
    (sample,) = read(tmp_path / "new.nc", preliminary=False)
    np.testing.assert_array_equal(sample.values[:, :, 0], values[:4])
    new_store(tmp_path / "young.nc", ["0005"] * 3)
    with pytest.raises(UserError, match=r"young\.nc holds only preliminary data \(expver 5\)"):
        read(tmp_path / "young.nc", preliminary=False)


@pytest.mark.parametrize("order", [(1, 5), (5, 1)])
def test_netcdf_of_the_old_store_mixes_final_and_preliminary_months(tmp_path: Path, order: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    packed = rng.integers(-30000, 30000, (10, 2, LAT.size, LON.size)).astype("i2")
    final, young = order.index(1), order.index(5)
    packed[6:, final] = packed[:5, young] = -32767  # hour 5 is held twice
    packed[2, final, 0, 0] = -32767
    scale, offset = 0.0014, 272.5
    with netCDF4.Dataset(tmp_path / "old.nc", "w", format="NETCDF3_64BIT_OFFSET") as file:
        for name, size in (("longitude", LON.size), ("latitude", LAT.size), ("expver", 2), ("time", 10)):
            file.createDimension(name, size)
        for name, unit, numbers in (("longitude", "degrees_east", LON), ("latitude", "degrees_north", LAT)):
            file.createVariable(name, "f4", (name,))[:] = numbers
            file[name].units = unit
        file.createVariable("expver", "i4", ("expver",))[:] = order
        time = file.createVariable("time", "i4", ("time",))
        time.setncatts({"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"})
        time[:] = 1051896 + np.arange(10)
        t = file.createVariable("t2m", "i2", ("time", "expver", "latitude", "longitude"), fill_value=-32767)
        t.setncatts({"scale_factor": scale, "add_offset": offset, "missing_value": np.int16(-32767), "units": "K"})
        t.set_auto_maskandscale(False)
        t[:] = packed
    values = packed.astype(np.float64) * scale + offset
    expected = np.concatenate([values[:6, final], values[6:, young]])
    (sample,) = read(tmp_path / "old.nc")
    assert sample.values.dtype == np.float32
    assert sample.time.labels()[0] == "2020-01-01T00:00:00"
    assert (~sample.valid).sum() == 1
    np.testing.assert_array_equal(sample.values[sample.valid], expected.astype("f4")[sample.valid[:, 0, 0]])
    (sample,) = read(tmp_path / "old.nc", preliminary=False)
    assert len(sample.time) == 6
    np.testing.assert_array_equal(sample.values[sample.valid], values[:6, final].astype("f4")[sample.valid[:, 0, 0]])


def test_longitudes_from_0_and_from_minus_180(tmp_path: Path) -> None:
    for name, longitude in (("east", np.arange(0, 360, 30.0)), ("west", np.arange(-180, 180, 30.0))):
        values = np.random.default_rng(5).uniform(250, 300, (3, LAT.size, 12))
        xr.Dataset(
            {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
            coords={"time": hours(3), "latitude": LAT, "longitude": longitude},
        ).to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
        (sample,) = read(tmp_path / f"{name}.nc")
        assert sample.boundary.x == ("periodic", "periodic")
        np.testing.assert_array_equal(sample.coordinates["longitude"].values, longitude)
        np.testing.assert_array_equal(sample.values[:, 0, 0], values.astype("f4"))


def test_accumulated_radiation_heat_fluxes_and_rain(tmp_path: Path) -> None:
    dataset = field("tisr", "J m**-2", low=0, high=4e6, seed=1)
    # the store gives its downward heat fluxes the CF name of the upward ones
    upward = "surface_upward_latent_heat_flux"
    dataset["slhf"] = field("slhf", "J m**-2", low=-1e6, high=3e5, seed=2, standard_name=upward).slhf
    dataset["sshf"] = field("sshf", "J m**-2", low=-1e6, high=3e5, seed=3, standard_name=upward.replace("latent", "sensible")).sshf
    dataset["tp"] = field("tp", "m", low=0, high=0.02, seed=4).tp
    packing = {"dtype": "int16", "scale_factor": 50.0, "add_offset": -3e5, "_FillValue": -32767}
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding={"sshf": packing})
    (sample,) = read(tmp_path / "a.nc")
    channel = {v.name: c for c, v in enumerate(sample.variables)}
    got = {name: sample.values[:, c, 0] for name, c in channel.items()}
    assert sample.variables[channel["toa_incident_solar_radiation"]].role == "forcing"
    np.testing.assert_allclose(got["toa_incident_solar_radiation"], dataset.tisr / 3600, rtol=1e-6)
    np.testing.assert_allclose(got[upward], -dataset.slhf / 3600, rtol=1e-6)
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        np.testing.assert_allclose(got[upward.replace("latent", "sensible")], -np.asarray(file["sshf"][:]) / 3600, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["precipitation_amount"], 1000 * dataset.tp, rtol=1e-6)


# static fields


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dated", [True, False])
def test_orography_and_land_mask_of_a_file_of_their_own(tmp_path: Path, first: bool, dated: bool) -> None:
    moving = field("t2m", "K", 12)
    moving.isel(time=slice(0, 7)).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    moving.isel(time=slice(7, 12)).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    ground = field("z", "m**2 s**-2", 1, standard_name="geopotential")
    ground["z"] = ground.z.copy(data=orography()[None])
    ground["lsm"] = field("lsm", "(0 - 1)", 1, 0.0, 1.0).lsm
    if not dated:
        ground = ground.isel(time=0, drop=True)
    packing = {"dtype": "int16", "scale_factor": 0.4, "add_offset": 10000.0, "_FillValue": -32767}
    ground.to_netcdf(tmp_path / "ground.nc", engine="netcdf4", encoding={"z": packing})
    names = ["a.nc", "b.nc"]
    paths = [tmp_path / n for n in (["ground.nc", *names] if first else [*names, "ground.nc"])]
    source = Era5(paths, Era5.Options(split="train"))
    plan = source.plan()
    assert dict(plan.inputs)["ground.nc"] == sha256(tmp_path / "ground.nc")
    (sample,) = source.samples(plan.refs)
    channel = {v.name: c for c, v in enumerate(sample.variables)}
    assert [sample.variables[channel[n]].role for n in ("air_temperature", "surface_altitude", "land_area_fraction")] == [
        "state",
        "static",
        "static",
    ]
    with netCDF4.Dataset(tmp_path / "ground.nc") as file:
        stored = np.asarray(file["z"][:]).reshape(LAT.size, LON.size) / G
        land = np.asarray(file["lsm"][:]).reshape(LAT.size, LON.size)
    np.testing.assert_array_equal(sample.values[:, channel["air_temperature"], 0], moving.t2m)
    for frame in (0, 6, 7, 11):
        np.testing.assert_allclose(sample.values[frame, channel["surface_altitude"], 0], stored, rtol=1e-6)
        np.testing.assert_allclose(sample.values[frame, channel["land_area_fraction"], 0], land, rtol=1e-6)
    (sample,) = read(*paths, variables=("air_temperature", "surface_altitude"))
    assert {v.name for v in sample.variables} == {"air_temperature", "surface_altitude"}


def test_static_files_alone_or_of_another_grid_are_told(tmp_path: Path) -> None:
    ground = field("lsm", "1", 1, 0.0, 1.0).isel(time=0, drop=True)
    ground.to_netcdf(tmp_path / "ground.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"ground\.nc has no variable that the source era5 can use: lsm: it has no time"):
        read(tmp_path / "ground.nc")
    ground.isel(latitude=slice(0, 4)).to_netcdf(tmp_path / "other.nc", engine="netcdf4")
    field("t2m", "K").to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"other\.nc, variable lsm is on another grid than a\.nc, variable t2m"):
        read(tmp_path / "a.nc", tmp_path / "other.nc")


def test_geopotential_on_a_level_is_no_orography(tmp_path: Path) -> None:
    for name, dataset in {
        "levels": field("z", "m**2 s**-2", 1, 48000, 55000).expand_dims(level=[500], axis=1),
        "unsaid": field("z", "m**2 s**-2", 4, 48000, 55000),  # one level, which the old store then left out
    }.items():
        if "level" in dataset.coords:
            dataset.level.attrs = {"units": "millibars"}
        dataset.to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
        (sample,) = read(tmp_path / f"{name}.nc")
        assert sample.variables[0].name == "geopotential"
        assert sample.variables[0].role == "state"
        np.testing.assert_array_equal(sample.values[:, 0, 0], dataset.z.values.reshape(-1, LAT.size, LON.size))


# GRIB


def write_grib(path: Path, messages: list[dict[str, Any]]) -> list[np.ndarray]:
    """GRIB messages made by ecCodes; returns the values that ecCodes reads back, NaN where the bitmap says missing."""
    eccodes = pytest.importorskip("eccodes")
    rng, stored = np.random.default_rng(6), []
    with path.open("wb") as file:
        for message in messages:
            keys = dict(message)
            low, high, holes = keys.pop("low", 250.0), keys.pop("high", 300.0), keys.pop("holes", 0)
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib1" if keys.get("edition") == 1 else "regular_ll_pl_grib2")
            keys.pop("edition", None)
            grid = {
                "Ni": LON.size, "Nj": LAT.size, "iDirectionIncrementInDegrees": 1, "jDirectionIncrementInDegrees": 2,
                "latitudeOfFirstGridPointInDegrees": LAT[0], "latitudeOfLastGridPointInDegrees": LAT[-1],
                "longitudeOfFirstGridPointInDegrees": LON[0], "longitudeOfLastGridPointInDegrees": LON[-1],
            }  # fmt: skip
            for key, value in {**grid, **keys, "bitsPerValue": 16}.items():
                eccodes.codes_set(handle, key, value)
            values = rng.uniform(low, high, LAT.size * LON.size)
            if holes:
                eccodes.codes_set(handle, "bitmapPresent", 1)
                values[rng.choice(values.size, holes, replace=False)] = eccodes.codes_get(handle, "missingValue")
            eccodes.codes_set_values(handle, values)
            back = eccodes.codes_get_values(handle)
            stored.append(np.where(back == eccodes.codes_get(handle, "missingValue"), np.nan, back).reshape(LAT.size, LON.size))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
    return stored


SURFACE = {"dataDate": 20200101, "typeOfLevel": "surface", "level": 0}


def test_grib_with_missing_values_and_the_ground(tmp_path: Path) -> None:
    fields = [{**SURFACE, "edition": 1, "dataTime": 100 * h, "shortName": "sst", "holes": 7} for h in range(4)]
    stored = write_grib(tmp_path / "sst.grib", fields)
    ground = write_grib(
        tmp_path / "ground.grib",
        [{**SURFACE, "shortName": "z", "low": -100, "high": 2e4}, {**SURFACE, "shortName": "lsm", "low": 0, "high": 1}],
    )
    (sample,) = read(tmp_path / "sst.grib", tmp_path / "ground.grib")
    channel = {v.name: c for c, v in enumerate(sample.variables)}
    sea = sample.values[:, channel["sea_surface_temperature"], 0]
    valid = sample.valid[:, channel["sea_surface_temperature"], 0]
    assert (~valid).sum() == 28
    np.testing.assert_array_equal(valid, np.isfinite(stored))
    np.testing.assert_array_equal(sea[valid], np.asarray(stored, np.float32)[valid])
    np.testing.assert_allclose(sample.values[2, channel["surface_altitude"], 0], ground[0] / G, rtol=1e-5)
    np.testing.assert_allclose(sample.values[2, channel["land_area_fraction"], 0], ground[1], rtol=1e-5)


def test_grib_accumulations_over_steps_become_fluxes_at_their_valid_times(tmp_path: Path) -> None:
    keys = [
        {**SURFACE, "dataTime": 100 * base, "shortName": name, "stepRange": f"{step - 1}-{step}", "low": 0, "high": high}
        for name, high in (("ssrd", 3e6), ("tp", 0.01))
        for base in (6, 9)
        for step in (1, 2, 3)
    ]
    stored = np.stack(write_grib(tmp_path / "a.grib", keys))
    (sample,) = read(tmp_path / "a.grib")
    channel = {v.name: c for c, v in enumerate(sample.variables)}
    assert [label[11:13] for label in sample.time.labels()] == ["07", "08", "09", "10", "11", "12"]
    np.testing.assert_allclose(sample.values[:, channel["surface_downwelling_shortwave_flux"], 0], stored[:6] / 3600, rtol=1e-5)
    np.testing.assert_allclose(sample.values[:, channel["precipitation_amount"], 0], stored[6:] * 1000, rtol=1e-5, atol=1e-7)


def test_preliminary_grib_is_refused_on_request(tmp_path: Path) -> None:
    keys = {"edition": 1, "dataDate": 20200101, "shortName": "2t", "setLocalDefinition": 1}
    write_grib(tmp_path / "a.grib", [{**keys, "dataTime": 100 * h, "expver": "0005" if h == 2 else "0001"} for h in range(3)])
    (sample,) = read(tmp_path / "a.grib")
    assert len(sample.time) == 3
    with pytest.raises(UserError, match=r"a\.grib holds preliminary data \(expver 5\) from 20200101 on"):
        read(tmp_path / "a.grib", preliminary=False)


def test_members_keep_their_orography_and_solar_forcing(tmp_path: Path) -> None:
    members = xr.concat([field("t2m", "K", seed=s) for s in (1, 2)], "number").assign_coords(number=[0, 3])
    members.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    field("lsm", "1", 1, 0.0, 1.0).to_netcdf(tmp_path / "ground.nc", engine="netcdf4")
    samples = read(tmp_path / "a.nc", tmp_path / "ground.nc", solar=True)
    assert [s.origin.place.split()[-1] for s in samples] == ["0", "3"]
    for number, sample in enumerate(samples):
        assert [v.role for v in sample.variables] == ["state", "static", "forcing"]
        np.testing.assert_array_equal(sample.values[:, 0, 0], members.t2m.values[number])
    np.testing.assert_array_equal(samples[0].values[:, 1:], samples[1].values[:, 1:])


def test_levels_ground_and_solar_forcing_become_a_corpus(tmp_path: Path) -> None:
    t = xr.concat([field("t", "K", 40, seed=s) for s in range(3)], "level").assign_coords(level=[300, 500, 850])
    t.level.attrs = {"units": "millibars"}
    t.transpose("time", "level", "latitude", "longitude").to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    field("lsm", "1", 1, 0.0, 1.0).to_netcdf(tmp_path / "ground.nc", engine="netcdf4")
    source = Era5([tmp_path / "a.nc", tmp_path / "ground.nc"], Era5.Options(solar=True, levels=(500.0, 850.0)))
    out = convert(source, tmp_path / "corpus", progress=False)
    assert verify(out) == []
    corpus = Corpus.open(out)
    sample = corpus.read("train", 0)
    assert [(v.key, v.role) for v in sample.variables] == [
        ("air_temperature@500hPa", "state"),
        ("air_temperature@850hPa", "state"),
        ("land_area_fraction", "static"),
        ("toa_incident_solar_radiation", "forcing"),
    ]
    np.testing.assert_allclose(sample.values[:, 1, 0], t.t.values[2][: len(sample.time)], atol=0.05)


# real files


def test_real_grib_of_missing_values_has_as_many_as_the_format_says() -> None:
    (sample,) = read(real("era5/fields_with_missing_values.grib"))
    assert sample.valid[:, 0].size == 32760
    assert (~sample.valid[:, 0]).sum() == 21699


def test_real_grib_of_levels_and_members_with_chosen_levels() -> None:
    samples = read(real("era5/era5-levels-members.grib"), variables=("geopotential",), levels=(850.0,), solar=True)
    assert len(samples) == 10
    assert {v.key for s in samples for v in s.variables} == {"geopotential@850hPa", "toa_incident_solar_radiation"}
    eccodes = pytest.importorskip("eccodes")
    with real("era5/era5-levels-members.grib").open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            found = [eccodes.codes_get(handle, k) for k in ("shortName", "level", "number", "dataDate", "dataTime")]
            if found[:2] == ["z", 850]:
                labels = samples[found[2]].time.labels()
                frame = labels.index(f"{found[3] // 10000}-{found[3] // 100 % 100:02d}-{found[3] % 100:02d}T{found[4] // 100:02d}:00:00")
                expected = eccodes.codes_get_values(handle).reshape(61, 120).astype("f4")
                np.testing.assert_array_equal(samples[found[2]].values[frame, 0, 0], expected)
            eccodes.codes_release(handle)


def test_real_zarr_levels_and_solar_forcing() -> None:
    (sample,) = read(real("zarr/test_zarr"), levels=(500.0,), solar=True)
    assert [v.key for v in sample.variables] == ["geopotential@500hPa", "air_temperature@500hPa", "toa_incident_solar_radiation"]
    weights = np.cos(np.deg2rad(sample.coordinates["latitude"].values))[:, None]
    mean = (sample.values[0, 2, 0] * weights).sum() / (weights.sum() * 360)
    assert mean == pytest.approx(1361 / 4 / 0.98330**2, rel=2e-3)  # 1 January 2007: a quarter of the constant at the perihelion


def test_recognised_by_content(tmp_path: Path) -> None:
    arco(tmp_path / "store")
    assert Era5.recognises(tmp_path / "store")
    assert Era5.recognises(real("era5/era5_1995-07-14T12.nc"))
    assert Era5.recognises(real("zarr/test_zarr"))
    assert not Era5.recognises(real("cmip6/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc"))
