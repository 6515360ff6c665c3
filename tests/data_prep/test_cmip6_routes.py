"""CMIP6 to its full width: pressure levels, scalar heights, vertices, fill values, the table fx, versions, stores and licences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr
from readings import real

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Level, Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.errors import UserError

LAT, LON = np.arange(-75.0, 90.0, 30.0), np.arange(0.0, 360.0, 45.0)
MODEL = {"source_id": "MRI-ESM2-0", "experiment_id": "historical", "variant_label": "r1i1p1f1", "grid_label": "gn"}


def read(*paths: Path, **options: Any) -> list[Sample]:
    source = Cmip6(paths, Cmip6.Options(**{"split": "train", **options}))
    return list(source.samples(source.plan().refs))


def write(
    path: Path,
    name: str,
    values: np.ndarray,
    attrs: dict[str, str],
    model: dict[str, str] = MODEL,
    calendar: str | None = "noleap",
    plev: np.ndarray | None = None,
    height: bool = False,
) -> None:
    """A file as CMOR writes it: bounds of every axis, fill 1e20, a height of 2 m as a scalar coordinate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w", format="NETCDF4_CLASSIC") as file:
        file.setncatts({**model, "variable_id": name, "tracking_id": f"hdl:21.14100/{name}"})
        file.createDimension("bnds", 2)
        dims: list[str] = []
        if calendar is not None:
            file.createDimension("time", None)
            time = file.createVariable("time", "f8", ("time",))
            time.setncatts(
                {"units": "days since 1850-1-1", "calendar": calendar, "axis": "T", "standard_name": "time", "bounds": "time_bnds"}
            )
            time[:] = 0.5 + np.arange(len(values))
            bounds = file.createVariable("time_bnds", "f8", ("time", "bnds"))
            bounds[:] = np.stack([np.arange(len(values)), np.arange(len(values)) + 1.0], axis=1)
            dims.append("time")
        if plev is not None:
            file.createDimension("plev", plev.size)
            file.createVariable("plev", "f8", ("plev",))[:] = plev
            file["plev"].setncatts({"units": "Pa", "axis": "Z", "positive": "down", "standard_name": "air_pressure"})
            dims.append("plev")
        for axis, numbers, unit, standard in (("lat", LAT, "degrees_north", "latitude"), ("lon", LON, "degrees_east", "longitude")):
            file.createDimension(axis, numbers.size)
            file.createVariable(axis, "f8", (axis,))[:] = numbers
            letter = "Y" if axis == "lat" else "X"
            file[axis].setncatts({"units": unit, "axis": letter, "standard_name": standard, "bounds": f"{axis}_bnds"})
            half = (numbers[1] - numbers[0]) / 2
            file.createVariable(f"{axis}_bnds", "f8", (axis, "bnds"))[:] = np.stack([numbers - half, numbers + half], axis=1)
            dims.append(axis)
        if height:
            file.createVariable("height", "f8", ())[...] = 2.0
            file["height"].setncatts({"units": "m", "axis": "Z", "positive": "up", "standard_name": "height"})
        variable = file.createVariable(name, "f4", dims, fill_value=1e20)
        variable.setncatts({"missing_value": np.float32(1e20), **attrs, **({"coordinates": "height"} if height else {})})
        variable[:] = values


def random(*shape: int, low: float = 220.0, high: float = 300.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype("f4")


TAS = {"units": "K", "standard_name": "air_temperature", "cell_methods": "time: mean"}


def test_pressure_levels_in_pascal_and_the_fill_value_in_single_precision(tmp_path: Path) -> None:
    plev = np.array([100000.0, 92500.00000001, 85000.0, 50000.0, 1000.0])
    values = random(4, 5, LAT.size, LON.size)
    values[:, 0, 2] = 1e20  # below the ground
    write(tmp_path / "ta.nc", "ta", values, TAS, plev=plev)
    (sample,) = read(tmp_path / "ta.nc")
    assert [v.level for v in sample.variables] == [Level("pressure", p) for p in (1000.0, 925.0, 850.0, 500.0, 10.0)]
    np.testing.assert_array_equal(sample.valid[:, :, 0], values < 1e19)
    np.testing.assert_array_equal(sample.values[:, :, 0][values < 1e19], values[values < 1e19])
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, LAT)  # ascending, as stored
    (sample,) = read(tmp_path / "ta.nc", levels=(500.0,))
    np.testing.assert_array_equal(sample.values[:, 0, 0], values[:, 3])


def test_the_scalar_height_of_near_surface_air_is_no_level(tmp_path: Path) -> None:
    write(tmp_path / "tas.nc", "tas", random(4, LAT.size, LON.size), TAS, height=True)
    write(
        tmp_path / "hus.nc", "huss", random(4, LAT.size, LON.size, low=0, high=0.02), {"units": "1", "standard_name": "specific_humidity"}
    )
    (sample,) = read(tmp_path / "tas.nc", tmp_path / "hus.nc")
    assert [v.key for v in sample.variables] == ["air_temperature", "specific_humidity"]


def test_the_thirtieth_of_february_is_a_day(tmp_path: Path) -> None:
    values = random(90, LAT.size, LON.size)
    write(tmp_path / "tas.nc", "tas", values, TAS, calendar="360_day")
    (sample,) = read(tmp_path / "tas.nc", frames_per_sample=90)
    dates = sample.time.dates()
    assert [(d.month, d.day) for d in dates[58:61]] == [(2, 29), (2, 30), (3, 1)]
    np.testing.assert_array_equal(sample.values[:, 0, 0], values)
    np.testing.assert_allclose(sample.time.seconds - sample.time.bounds[:, 0], 43200.0)  # type: ignore[index]


@pytest.mark.parametrize("names", [("vertices_latitude", "vertices_longitude"), ("lat_bnds", "lon_bnds")])
def test_vertices_of_a_curvilinear_grid_are_no_coordinates(tmp_path: Path, names: tuple[str, str]) -> None:
    y, x = np.meshgrid(LAT, LON, indexing="ij")
    values = random(3, *y.shape, low=0, high=30)
    with netCDF4.Dataset(tmp_path / "tos.nc", "w") as file:
        for dim, size in (("time", None), ("j", LAT.size), ("i", LON.size), ("vertices", 4)):
            file.createDimension(dim, size)
        file.createVariable("time", "f8", ("time",))[:] = [15.0, 45.0, 75.0]
        file["time"].setncatts({"units": "days since 0001-01-01", "calendar": "365_day", "standard_name": "time"})
        corners = np.array([-1.0, 1.0, 1.0, -1.0])
        # the corners come first, as in some files, with units that look like a coordinate's
        for name, centre, unit in zip(names, (y, x), ("degrees_north", "degrees_east"), strict=True):
            file.createVariable(name, "f8", ("j", "i", "vertices"))[:] = centre[..., None] + corners
            file[name].units = unit
        for name, centre, bounds, unit in (("latitude", y, names[0], "degrees_north"), ("longitude", x, names[1], "degrees_east")):
            file.createVariable(name, "f8", ("j", "i"))[:] = centre
            file[name].setncatts({"units": unit, "bounds": bounds, "standard_name": name})
        tos = file.createVariable("tos", "f4", ("time", "j", "i"), fill_value=1e20)
        tos.setncatts({"units": "degC", "coordinates": "latitude longitude", "standard_name": "sea_surface_temperature"})
        values[:, 1, 1] = 1e20
        tos[:] = values
    (sample,) = read(tmp_path / "tos.nc")
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, y)
    np.testing.assert_array_equal(sample.coordinates["longitude"].values, x)
    expected = np.where(values > 1e19, np.nan, values.astype(np.float64) + 273.15)
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.isfinite(expected))
    np.testing.assert_allclose(sample.values[:, 0, 0][sample.valid[:, 0, 0]], expected[np.isfinite(expected)], rtol=1e-7)
    assert sample.time.calendar == "noleap"
    assert sample.time.dates()[0].year == 1


# the table fx


def test_orography_and_land_fraction_belong_to_every_experiment_of_their_model(tmp_path: Path) -> None:
    values = {e: random(40, LAT.size, LON.size, seed=i) for i, e in enumerate(("historical", "ssp585"))}
    for experiment, numbers in values.items():
        write(tmp_path / f"tas_{experiment}.nc", "tas", numbers, TAS, {**MODEL, "experiment_id": experiment})
    orog, land = random(LAT.size, LON.size, low=0, high=4000), random(LAT.size, LON.size, low=0, high=100)
    orog[0, 0] = 1e20
    control = {**MODEL, "experiment_id": "piControl"}
    write(tmp_path / "orog_fx.nc", "orog", orog, {"units": "m", "standard_name": "surface_altitude"}, control, calendar=None)
    write(tmp_path / "sftlf_fx.nc", "sftlf", land, {"units": "%", "standard_name": "land_area_fraction"}, control, calendar=None)
    paths = [tmp_path / n for n in ("orog_fx.nc", "tas_historical.nc", "tas_ssp585.nc", "sftlf_fx.nc")]
    source = Cmip6(paths, Cmip6.Options(split="train"))
    plan = source.plan()
    assert {name for name, _ in plan.inputs} == {p.name for p in paths}
    seen = set()
    for sample in source.samples(plan.refs):
        assert [(v.name, v.role) for v in sample.variables] == [
            ("air_temperature", "state"),
            ("surface_altitude", "static"),
            ("land_area_fraction", "static"),
        ]
        experiment = sample.origin.place.split("_")[1]
        seen.add(experiment)
        np.testing.assert_array_equal(sample.values[:, 0, 0], values[experiment])
        np.testing.assert_allclose(sample.values[5, 2, 0], land / 100, rtol=1e-6)
        np.testing.assert_array_equal(sample.valid[7, 1, 0], orog < 1e19)
        np.testing.assert_array_equal(sample.values[7, 1, 0][orog < 1e19], orog[orog < 1e19])
        assert {f.name for f in sample.origin.files} == {"orog_fx.nc", "sftlf_fx.nc", f"tas_{experiment}.nc"}
    assert seen == set(values)
    out = convert(source, tmp_path / "corpus", progress=False)
    assert verify(out) == []
    assert [v.role for v in Corpus.open(out).read("train", 0).variables] == ["state", "static", "static"]


def test_fixed_fields_of_another_model_or_grid_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "tas.nc", "tas", random(4, LAT.size, LON.size), TAS)
    orog = random(LAT.size, LON.size, low=0, high=4000)
    altitude = {"units": "m", "standard_name": "surface_altitude"}
    write(tmp_path / "other.nc", "orog", orog, altitude, {**MODEL, "source_id": "CanESM5"}, calendar=None)
    with xr.open_dataset(tmp_path / "other.nc", engine="netcdf4") as whole:  # "gn" of the ocean is another grid
        whole.isel(lat=slice(0, 3)).assign_attrs(MODEL).to_netcdf(tmp_path / "ocean.nc", engine="netcdf4")
    (sample,) = read(tmp_path / "tas.nc", tmp_path / "other.nc", tmp_path / "ocean.nc")
    assert [v.name for v in sample.variables] == ["air_temperature"]
    with pytest.raises(UserError, match=r"other\.nc has no variable that the source cmip6 can use: orog: it has no time"):
        read(tmp_path / "other.nc")


# provenance


def test_the_version_goes_with_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "CMIP6/CMIP/MRI/MRI-ESM2-0/historical/r1i1p1f1/Amon/tas/gn/v20190222"
    write(folder / "tas_Amon.nc", "tas", random(4, LAT.size, LON.size), TAS)
    rain = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"}
    write(tmp_path / "pr_Amon.nc", "pr", random(4, LAT.size, LON.size, low=0, high=1e-3), rain)
    (sample,) = read(folder / "tas_Amon.nc", tmp_path / "pr_Amon.nc")
    assert sample.origin.attribution.endswith("; pr hdl:21.14100/pr, tas v20190222")


def test_stores_of_the_cloud(tmp_path: Path) -> None:
    values = random(5, LAT.size, LON.size)
    values[0, 0, 0] = np.nan
    dates = [cftime.DatetimeNoLeap(1850, m, 15) for m in range(1, 6)]
    xr.Dataset(
        {"tas": (("time", "lat", "lon"), values, TAS)},
        coords={
            "time": dates,
            "lat": ("lat", LAT, {"units": "degrees_north"}),
            "lon": ("lon", LON, {"units": "degrees_east"}),
            "height": 2.0,
        },
        attrs={**MODEL, "version_id": "v20190222", "variable_id": "tas"},
    ).to_zarr(tmp_path / "tas.zarr", zarr_format=2, consolidated=True, encoding={"tas": {"_FillValue": np.float32(1e20)}})
    (sample,) = read(tmp_path / "tas.zarr")
    assert sample.time.calendar == "noleap"
    assert (~sample.valid).sum() == 1
    np.testing.assert_array_equal(sample.values[sample.valid], values[np.isfinite(values)])
    assert sample.origin.attribution.endswith("; tas v20190222")
    assert Cmip6.recognises(tmp_path / "tas.zarr")


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("is licensed under a Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License", "CC-BY-NC-SA-4.0"),
        ("is licensed under a Creative Commons Attribution 4.0 International License (https://creativecommons.org/)", "CC-BY-4.0"),
        ("CC BY-NC 4.0; https://creativecommons.org/licenses/", "CC-BY-NC-4.0"),
    ],
)
def test_each_file_states_its_licence(tmp_path: Path, said: str, licence: str) -> None:
    write(tmp_path / "tas.nc", "tas", random(4, LAT.size, LON.size), TAS, {**MODEL, "license": f"CMIP6 model data produced by X {said}."})
    (sample,) = read(tmp_path / "tas.nc")
    assert sample.origin.licence == licence


# real files


def test_real_files_keep_their_tracking_identifiers_heights_and_bounds() -> None:
    path = real("cmip6/tasmax_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_185001-201412.nc")
    with netCDF4.Dataset(path) as file:
        tracking = file.tracking_id
        calendar, units = file["time"].calendar, file["time"].units
        edges = cftime.num2date(file["time_bnds"][:], units, calendar)
        latitude = np.asarray(file["lat"][:])
    (sample,) = read(path)
    assert sample.origin.attribution.endswith(f"; tasmax {tracking}")
    assert [v.key for v in sample.variables] == ["air_temperature_maximum"]
    assert sample.time.bounds is not None
    epoch = cftime.datetime(2000, 1, 1, calendar=calendar)
    np.testing.assert_allclose(sample.time.bounds, [[(d - epoch).total_seconds() for d in row] for row in edges])
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, latitude)
    assert latitude[0] < latitude[-1]


@pytest.mark.parametrize("name", ["tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc",
                                  "tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc"])  # fmt: skip
def test_real_files_take_the_solar_forcing_of_their_grid_and_calendar(name: str) -> None:
    samples = read(real(f"cmip6/{name}"), solar=True)
    for sample in samples[:2]:
        assert sample.variables[-1].name == "toa_incident_solar_radiation"
        known = sample.valid[:, -1, 0]
        assert (known == known[0]).all()  # only cells without a place have none
        got = sample.values[:, -1, 0]
        latitude = np.deg2rad(sample.coordinates["latitude"].values)
        latitude = latitude if latitude.ndim == 2 else np.broadcast_to(latitude[:, None], got.shape[1:])
        near_equator = known & (np.abs(latitude) < 0.2)
        near_equator = near_equator if near_equator.any() else known
        assert 150 < got[near_equator].mean() < 450
        day = sample.time.season() * 365
        expected = _daily(day[0], latitude)
        bounds = sample.time.bounds
        if bounds is not None and abs(bounds[0, 1] - bounds[0, 0] - 86400) < 1:
            np.testing.assert_allclose(got[0][known[0]], expected[known[0]], rtol=0.02, atol=2)


def _daily(day: float, latitude: np.ndarray) -> np.ndarray:
    """Spencer 1971 declination and distance, integrated over the day."""
    g = 2 * np.pi * day / 365
    d = 0.006918 - 0.399912 * np.cos(g) + 0.070257 * np.sin(g) - 0.006758 * np.cos(2 * g) + 0.000907 * np.sin(2 * g)
    h = np.arccos(np.clip(-np.tan(latitude) * np.tan(d), -1, 1))
    nearness = 1.00011 + 0.034221 * np.cos(g) + 0.00128 * np.sin(g) + 0.000719 * np.cos(2 * g)
    return 1361 / np.pi * nearness * (h * np.sin(latitude) * np.sin(d) + np.cos(latitude) * np.cos(d) * np.sin(h))
