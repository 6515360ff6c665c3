"""From a real file to a forecast of it: corpus, run, export, and a file that other tools read and that keeps the CF conventions."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from runs import settings, write

from scigpt.launch.cli import main

FILES = {
    "era5": ("era5", "era5/era5-2mt-2019-03-uk.grib"),
    "daily": ("cmip6", "cmip6/tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc"),
    "regional": ("cmip6", "cmip6/tasmax_day_HadGEM2-CC_rcp85_r1i1p1_na10kgrid_qm-moving-50bins-detrend_2095.nc"),
}
LAST = {"era5": "2019-03-31T23:00:00", "daily": "2009-12-31T00:00:00", "regional": "2095-12-30T00:00:00"}
STEP = {"era5": np.timedelta64(1, "h"), "daily": np.timedelta64(1, "D"), "regional": np.timedelta64(1, "D")}


def scigpt(*words: object, alone: bool = False) -> str:
    """What a command prints. `alone`: in a process of its own, since one that has read GRIB must also end well."""
    if alone:
        done = subprocess.run([sys.executable, "-m", "scigpt.launch.cli", *map(str, words)], capture_output=True, text=True, check=False)
        code, out, told = done.returncode, done.stdout, done.stderr
    else:
        printed, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as left:
            main([str(w) for w in words])
        code, out, told = left.value.code or 0, printed.getvalue(), said.getvalue()
    assert code == 0, told
    return out


def gaps(file: Path) -> np.ndarray:
    """Points without a value in the last frame, by another reader than ours."""
    if file.suffix == ".grib":
        return np.zeros((33, 49), bool)
    with netCDF4.Dataset(file) as content:
        return np.ma.getmaskarray(content[file.name.partition("_")[0]][-1])


def errors(path: Path, report: Path) -> list[str]:
    """What the CF checker of IOOS calls so."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    ComplianceChecker.run_checker(str(path), ["cf:1.11"], 0, "strict", output_filename=str(report), output_format="json")
    (found,) = json.loads(report.read_text()).values()
    assert found["possible_points"] > 50
    return [message for check in found["high_priorities"] for message in check["msgs"]]


@pytest.fixture(scope="module", params=["daily", *(pytest.param(n, marks=pytest.mark.drill) for n in ("era5", "regional"))])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Name, the real file, and the export of a run of four steps on it."""
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    source, place = FILES[name]
    file = Path(os.environ["SCIGPT_REALDATA"]) / place
    scigpt("data", "prepare", source, "--input", file, "--out", folder / name, alone=name == "era5")
    data = settings([folder / name], folder / "run", steps=4)
    data["data"]["tokens"] = 512
    scigpt("pretrain", write(data, folder / "c.yaml"))
    scigpt("export", folder / "run", "--out", folder / "export")
    return name, file, folder / "export"


def test_a_real_file_is_forecast_from_its_last_state(model: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, file, export = model
    told = json.loads(
        scigpt("forecast", export, "--input", file, "--steps", 5, "--out", tmp_path / "out.nc", "--json", alone=name == "era5")
    )
    assert (told["steps"], told["initial_conditions"], told["domain"]) == (5, 1, name)
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as found:
        (variable,) = told["variables"]
        forecast = found[variable.partition("@")[0]].load()
        times = found.indexes["time"]
        start = found.forecast_reference_time.to_numpy()[()]
        period = found.forecast_period.to_numpy()
    assert _iso(start) == LAST[name]
    assert [_seconds(t - start) for t in times] == [_seconds((i + 1) * STEP[name]) for i in range(5)]
    assert len(period) == 5
    assert forecast.attrs["units"] == "K"
    assert forecast.attrs["standard_name"] == "air_temperature"
    assert (np.isnan(forecast) == gaps(file)).all(), "in every step"
    assert 200 < float(forecast.mean()) < 330
    assert errors(tmp_path / "out.nc", tmp_path / "report.json") == []


def test_several_starts_and_members_keep_the_conventions_too(model: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, file, export = model
    day = LAST[name][:7] + "-15T" + LAST[name][11:]
    words = ("--start", day, "--start", LAST[name], "--ensemble", "perturbed", "--members", 2, "--steps", 2)
    scigpt("forecast", export, "--input", file, "--out", tmp_path / "out.nc", *words, alone=name == "era5")
    scigpt("forecast", export, "--input", file, "--out", tmp_path / "out.zarr", *words, alone=name == "era5")
    with xr.open_dataset(tmp_path / "out.nc", engine="netcdf4") as first, xr.open_zarr(tmp_path / "out.zarr") as second:
        assert {"forecast_reference_time": 2, "realization": 2, "forecast_period": 2}.items() <= dict(first.sizes).items()
        assert [_iso(t) for t in first.forecast_reference_time.to_numpy()] == [day, LAST[name]]
        xr.testing.assert_equal(first, second)
    assert errors(tmp_path / "out.nc", tmp_path / "report.json") == []


def _iso(instant: object) -> str:
    return np.datetime_as_string(instant, "s") if isinstance(instant, np.datetime64) else instant.isoformat()  # type: ignore[attr-defined]


def _seconds(span: object) -> float:
    return span / np.timedelta64(1, "s") if isinstance(span, np.timedelta64) else span.total_seconds()  # type: ignore[attr-defined]
