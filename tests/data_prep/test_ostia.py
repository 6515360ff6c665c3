"""OSTIA: the embedded monthly fields equal netCDF4's reading, land is invalid, and a packed daily file reads too."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from scigpt.data_prep.embedded import resolve
from scigpt.data_prep.sources.ostia import Ostia


def test_embedded_fields_equal_netcdf4() -> None:
    source = Ostia(options=Ostia.Options(split="train"))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    with netCDF4.Dataset(resolve("embedded:ostia_monthly.nc")) as file:
        stored = file["surface_temperature"][:]
    np.testing.assert_array_equal(sample.valid[:, 0, 0], ~np.ma.getmaskarray(stored))
    assert 0.2 < 1 - sample.valid.mean() < 0.3
    np.testing.assert_array_equal(sample.values[sample.valid], stored.compressed())
    assert sample.variables[0].name == "sea_surface_temperature"
    assert len(sample.time) == 54
    assert sample.time.bounds is not None
    assert sample.boundary.x == ("periodic", "periodic")
    assert sample.boundary.y == ("open", "open")
    assert sample.origin.files[0].name == "ostia_monthly.nc"
    assert sample.origin.licence == "OGL-UK-3.0"


def test_default_splits_of_the_embedded_fields() -> None:
    plan = Ostia().plan()
    assert [(r.split, r.spec["stop"] - r.spec["start"]) for r in plan.refs] == [("train", 38), ("valid", 4), ("test", 10)]


def test_the_daily_product(tmp_path: Path) -> None:
    kelvin = np.random.default_rng(0).uniform(271, 303, (3, 4, 8))
    kelvin[:, 0, 0] = np.nan
    dataset = xr.Dataset(
        {"analysed_sst": (("time", "lat", "lon"), kelvin, {"units": "kelvin", "standard_name": "sea_surface_foundation_temperature"})},
        coords={
            "time": np.datetime64("2024-02-28T12", "ns") + np.arange(3) * np.timedelta64(1, "D"),
            "lat": np.arange(4.0),
            "lon": np.arange(8.0),
        },
    )
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -32768}
    dataset.to_netcdf(tmp_path / "day.nc", engine="netcdf4", encoding={"analysed_sst": packing})
    assert Ostia.recognises(tmp_path / "day.nc")
    source = Ostia([tmp_path / "day.nc"])
    (sample,) = source.samples(source.plan().refs)
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.isfinite(kelvin))
    np.testing.assert_allclose(sample.values[sample.valid], kelvin[np.isfinite(kelvin)], atol=0.0051)
