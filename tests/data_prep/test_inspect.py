"""`scigpt data inspect`: what a file is, told before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ground
import numpy as np
import pytest
import xarray as xr

from scigpt.data_prep.inspect import format_report, inspect
from scigpt.errors import UserError


def test_a_netcdf_file(tmp_path: Path) -> None:
    values = np.full((10, 3, 4), 15.0)
    values[:, 0, 0] = np.nan
    times = np.datetime64("2001-01-01", "ns") + np.delete(np.arange(11), 5) * np.timedelta64(6, "h")
    dataset = xr.Dataset(
        {"tos": (("time", "lat", "lon"), values, {"units": "degC"}), "index": (("time", "lat", "lon"), values, {"units": "1"})},
        coords={"time": times, "lat": [0.0, 1.0, 2.0], "lon": np.arange(4.0)},
    )
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    report = inspect(tmp_path / "a.nc")
    assert json.loads(json.dumps(report)) == report
    (variable,) = report["variables"]
    assert (variable["name"], variable["unit"], variable["file_unit"]) == ("sea_surface_temperature", "K", "degC")
    assert variable["invalid_share"] == pytest.approx(1 / 12)
    assert (report["frames"], report["holes"], report["calendar"]) == (10, 1, "proleptic_gregorian")
    assert report["step_seconds"] == {"min": 21600.0, "median": 21600.0, "max": 43200.0}
    assert report["grid"]["shape"] == [3, 4]
    assert any("index" in reason for reason in report["left_out"])
    text = format_report(report)
    assert "sea_surface_temperature [K] from tos [degC], 8.33 % missing" in text
    assert f"scigpt data prepare {report['source']} --input {tmp_path / 'a.nc'}" in text


@pytest.mark.parametrize(
    ("name", "source", "calendar"),
    [
        ("embedded:A1B_north_america.nc", "cmip6", "360_day"),
        ("embedded:ostia_monthly.nc", "ostia", "standard"),
        ("embedded:BW.BGLD.EHE.gaps.mseed", "miniseed", "standard"),
    ],
)
def test_embedded_files_name_their_source(name: str, source: str, calendar: str) -> None:
    report = inspect(name)
    assert (report["source"], report["calendar"]) == (source, calendar)
    assert name in format_report(report)


def test_seismograms_tell_their_gaps() -> None:
    (channel,) = inspect("embedded:BW.BGLD.EHE.gaps.mseed")["variables"]
    assert (channel["name"], channel["sampling_rate"], channel["samples"], channel["gaps"]) == ("BW.BGLD..EHE", 200.0, 52728, 3)
    assert channel["invalid_share"] == pytest.approx(0.0303, abs=1e-4)


def test_what_no_source_reads_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    report = inspect(tmp_path / "a.csv")
    assert report["source"] is None
    assert "no source reads it" in format_report(report)
    xr.Dataset({"wind": ("station", np.zeros(3), {"units": "m s-1"})}).to_netcdf(tmp_path / "p.nc", engine="netcdf4")
    report = inspect(tmp_path / "p.nc")
    assert report["source"] is None
    assert report["variables"] == [{"file_name": "wind", "file_unit": "m s-1", "dims": {"station": 3}}]
    with pytest.raises(UserError, match=r"nothing\.nc does not exist"):
        inspect(tmp_path / "nothing.nc")


@pytest.mark.parametrize(
    ("name", "source", "frames"),
    [
        ("era5/era5-2mt-2019-03-uk.grib", "era5", 744),
        ("era5/era5_1995-07-14T12.nc", "era5", 1),
        ("zarr/test_zarr", "era5", 1),
        ("cmip6/tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc", "cmip6", 3650),
        ("cmip6/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc", "cmip6", 1),
    ],
)
def test_real_files(name: str, source: str, frames: int) -> None:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    report = inspect(Path(os.environ["SCIGPT_REALDATA"]) / name)
    assert (report["source"], report["frames"]) == (source, frames)


def test_stations_are_told_as_they_would_be_prepared(tmp_path: Path) -> None:
    listed, year = ground.ghcn(tmp_path / "ghcn", ground.network(5, 40))
    report = inspect(tmp_path / "ghcn")
    assert report["source"] == "ghcn"
    assert report["samples"] == {"train": 1}
    assert report["first_sample"]["grid"] == [1, 1, 5]
    assert report["first_sample"]["frames"] == 40
    (variable,) = report["variables"]
    assert (variable["name"], variable["unit"]) == ("air_temperature", "K")
    told = format_report(report)
    assert "the first: stations 00000, 40 frames of points 1 x 1 x 5 (z, y, x)" in told
    assert "from 2001-01-01T12:00:00 to 2001-02-09T12:00:00, calendar proleptic_gregorian" in told
    listed.unlink()
    alone = inspect(year)
    assert (alone["source"], "ghcnd-stations.txt" in alone["problem"]) == ("ghcn", True)
    assert "options are needed" in format_report(alone)
