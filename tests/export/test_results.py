"""Forecasts as datasets: their dimensions, and that they follow the CF conventions."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_datasets import CASES, MAP, domain_of, months

from scigpt.data.sample import Level, Sample, Time, Variable
from scigpt.errors import UserError
from scigpt.export.datasets import Given, result
from scigpt.export.writing import write


def made(sample: Sample, starts: int = 1, members: int = 1, context: int = 2, **options: Any) -> tuple[xr.Dataset, np.ndarray]:
    """A block of all steps after `context`, from `starts` initial conditions a step apart, and the values in it."""
    steps = len(sample.time) - context - starts + 1
    samples = [sample.window(slice(i, i + context + steps)) for i in range(starts)] if not sample.steady else [sample] * starts
    count = sum(v.predicted for v in sample.variables)
    shape = (members, starts, 1 if sample.steady else steps, count, *sample.values.shape[2:])
    values = np.random.default_rng(0).normal(280, 5, shape).astype(np.float32)
    values[..., -1] = np.nan
    return result(samples, values, **{"context": context, "first": 0, "dim": None, **options}), values


def test_one_start_has_time_and_several_have_periods() -> None:
    sample = CASES[MAP]()
    block, values = made(sample)
    one = xr.decode_cf(block, decode_timedelta=False)
    assert dict(one.sizes) == {"time": 22, "bnds": 2, "latitude": 19, "longitude": 36}
    assert one.air_temperature.dims == ("time", "latitude", "longitude")
    np.testing.assert_array_equal(one.air_temperature, values[0, 0, :, 0, 0])
    assert one.time.values[0] == np.datetime64("2019-03-01T02:00:00")
    assert one.forecast_reference_time.values == np.datetime64("2019-03-01T01:00:00")
    assert one.forecast_period.values.tolist() == list(range(1, 23))
    assert {n for n, v in one.coords.items() if v.ndim == 0} == {"forecast_reference_time", "height_2m"}
    assert one.air_temperature.attrs["standard_name"] == "air_temperature"
    block, values = made(sample, 3, 2, dim="forecast_reference_time")
    several = xr.decode_cf(block, decode_timedelta=False)
    assert several.air_temperature.dims == ("forecast_reference_time", "realization", "forecast_period", "latitude", "longitude")
    np.testing.assert_array_equal(several.air_temperature, values[:, :, :, 0, 0].swapaxes(0, 1))
    assert several.time.dims == ("forecast_reference_time", "forecast_period")
    assert (several.time - several.forecast_reference_time).dt.total_seconds().values[2].tolist() == [3600.0 * (i + 1) for i in range(20)]
    block, values = made(sample, 2, dim="record", labels=["a", "bb"])
    records = xr.decode_cf(block, decode_timedelta=False)
    assert (records.record_name.values.tolist(), records.forecast_reference_time.dims) == (["a", "bb"], ("record",))
    np.testing.assert_array_equal(records.air_temperature, values[0, :, :, 0, 0])


def test_blocks_follow_each_other() -> None:
    sample = CASES[MAP]()
    whole, values = made(sample)
    parts = [result([sample], values[:, :, a:b], context=2, first=a, dim=None) for a, b in ((0, 8), (8, 16), (16, 22))]
    joined = xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="override")
    xr.testing.assert_identical(joined, whole)


def test_a_steady_solution_has_no_time() -> None:
    sample = CASES["steady Poisson pair"]()
    block, values = made(sample, context=1)
    assert set(block.variables) == {"x", "y", "solution"}
    np.testing.assert_array_equal(block.solution, values[0, 0, 0, 0, 0])
    block, values = made(sample, 2, 3, context=1, dim="record", labels=["a", "b"])
    assert block.solution.dims == ("record", "realization", "y", "x")
    np.testing.assert_array_equal(block.solution, values[:, :, 0, 0, 0].swapaxes(0, 1))


def levelled() -> Sample:
    """Levels of one variable, a second set of another, single heights, and a name with and without a level."""
    sample = CASES[MAP]()
    variables = (
        *(Variable("air_temperature", "K", level=Level("pressure", p)) for p in (850.0, 500.0)),
        *(Variable("geopotential", "m**2 s**-2", level=Level("pressure", p)) for p in (1000.0, 850.0, 500.0)),
        Variable("air_temperature", "K"),
        Variable("eastward_wind", "m s**-1", level=Level("height", 10.0)),
        Variable("northward_wind", "m s**-1", level=Level("height", 100.0)),
        Variable("total_cloud_cover", "1"),
        Variable("relative_humidity", "percent"),
        Variable("seismic_counts_up", "count"),
    )
    values = np.random.default_rng(0).normal(size=(24, len(variables), *sample.values.shape[2:])).astype(np.float32)
    return replace(sample, values=values, valid=np.ones(values.shape, bool), variables=variables)


def test_levels_of_a_variable_are_one_variable() -> None:
    sample = levelled()
    block, values = made(sample)
    found = xr.decode_cf(block, decode_timedelta=False)
    assert found.air_temperature_at_pressure.dims == ("time", "pressure", "latitude", "longitude")
    assert found.geopotential.dims == ("time", "pressure_2", "latitude", "longitude")
    assert (found.pressure.values.tolist(), found.pressure.attrs["positive"]) == ([850, 500], "down")
    np.testing.assert_array_equal(found.air_temperature_at_pressure.sel(pressure=500), values[0, 0, :, 1, 0])
    np.testing.assert_array_equal(found.geopotential[:, 2], values[0, 0, :, 4, 0])
    np.testing.assert_array_equal(found.air_temperature, values[0, 0, :, 5, 0])
    assert "height" not in block.air_temperature.attrs["coordinates"]
    assert block.eastward_wind.attrs["coordinates"].split()[-1] == "height_10m"
    assert (block.total_cloud_cover.attrs["standard_name"], block.relative_humidity.attrs["units"]) == ("cloud_area_fraction", "%")
    assert block.geopotential.attrs["units"] == "m2 s-2"
    plausible = [(270, 0), (250, 0), (1e3, 0), (2e4, 0), (5e4, 0), (280, 0), (3, 0), (4, 0), (0.5, 0), (50, 0), (7, 0)]
    forecast = np.broadcast_to(np.array([p for p, _ in plausible], np.float32)[:, None, None, None], values.shape[3:])
    again = xr.decode_cf(result([sample], np.broadcast_to(forecast, values.shape), context=2, first=0, dim=None), decode_timedelta=False)
    back = Given.of(again, domain_of(sample)).sample(None, 5, 1)  # a forecast can be forecast
    np.testing.assert_array_equal(back.values[:5], np.broadcast_to(forecast, (5, *forecast.shape)))


def test_stations_of_records_have_their_own_places() -> None:
    sample = CASES["500 GHCN stations"]()
    other = replace(sample, coordinates={n: replace(c, values=c.values / 2) for n, c in sample.coordinates.items()})
    values = np.zeros((1, 2, 3, 2, 1, 1, 500), np.float32)
    block = result([sample, other], values, context=2, first=0, dim="record", labels=["a", "b"])
    assert block.latitude.dims == ("record", "station")
    np.testing.assert_array_equal(block.latitude[0], 2 * block.latitude[1])
    assert block.precipitation_amount.attrs["cell_methods"] == "time: sum"
    tiles = CASES["2-D waves with a static velocity model"]()
    moved = replace(tiles, coordinates={n: replace(c, values=c.values + 1) for n, c in tiles.coordinates.items()})
    with pytest.raises(UserError, match=r"the records lie on different grids \(their y differs\)"):
        result([tiles, moved], np.zeros((1, 2, 3, 1, 1, 16, 24), np.float32), context=2, first=0, dim="record", labels=["a", "b"])


def test_months_of_all_starts_share_an_axis() -> None:
    sample = Given.of(*months()).sample(None, 14, 0)
    block, _ = made(sample, 3, dim="forecast_reference_time")
    assert block.forecast_period.values / (24 * 30.436875) == pytest.approx(np.arange(1, 11))
    found = xr.decode_cf(block, decode_timedelta=False)
    assert str(found.time.values[1, 0])[:10] == "1990-04-16"
    one, _ = made(sample)
    assert one.forecast_period.values[:2].tolist() == [24 * 29.5 + 24 * 0, 24 * 60.0]


def checked(path: Path) -> list[str]:
    """What the compliance checker of IOOS finds fault with."""
    from compliance_checker.runner import CheckSuite, ComplianceChecker

    CheckSuite.load_all_available_checkers()
    report = path.with_suffix(".json")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ComplianceChecker.run_checker(str(path), ["cf:1.11"], 0, "lenient", output_filename=str(report), output_format="json")
    found = json.loads(report.read_text(encoding="utf-8"))["cf:1.11"]
    return [
        f"{each['name']}: {message}"
        for part in ("high_priorities", "medium_priorities", "low_priorities")
        for each in found[part]
        for message in each["msgs"]
    ]


def ensemble(sample: Sample) -> xr.Dataset:
    return made(sample, 3, 2, dim="forecast_reference_time")[0]


FILES = {
    "sphere": lambda: made(CASES[MAP]())[0],
    "months on an ocean grid": lambda: made(CASES["monthly CMIP6 on a curvilinear ocean grid"]())[0],
    "points": lambda: made(CASES["500 GHCN stations"]())[0],
    "simulated plane": lambda: made(CASES["2-D waves with a static velocity model"]())[0],
    "simulated box": lambda: made(CASES["3-D box"]())[0],
    "steady": lambda: made(CASES["steady Poisson pair"](), context=1)[0],
    "tile": lambda: made(_tile())[0],
    "levels": lambda: made(levelled())[0],
    "ensemble": lambda: ensemble(CASES[MAP]()),
    "ensemble of levels": lambda: ensemble(levelled()),
    "simulated ensemble": lambda: ensemble(CASES["3-D box"]()),
    "records": lambda: made(CASES["500 GHCN stations"](), 2, dim="record", labels=["a", "bb"])[0],
}


def _tile() -> Sample:
    tile = CASES["one-date satellite tile"]()
    return replace(
        tile,
        values=np.repeat(tile.values, 4, 0),
        valid=np.repeat(tile.valid, 4, 0),
        time=Time.regular(6e8, 86400.0, 4, "proleptic_gregorian"),
    )


NO_DATES = "Coordinate variable 'time' should have standard_name='time'"
"""Which the conventions keep for instants with a unit of time; a simulation without units has none."""


def test_the_checker_finds_faults(tmp_path: Path) -> None:
    block = FILES["sphere"]()
    block.air_temperature.attrs |= {"units": "banana", "standard_name": "temperature_of_the_air"}
    write([block], "time", tmp_path / "out.nc")
    assert [fault.partition(":")[0].split(maxsplit=1)[1] for fault in checked(tmp_path / "out.nc")] == ["Units", "Standard Name"]


@pytest.mark.parametrize("name", FILES)
def test_the_file_follows_the_conventions(name: str, tmp_path: Path) -> None:
    block = FILES[name]()
    along = next((d for d in ("record", "forecast_reference_time") if d in block.dims), "time")
    write([block], along, tmp_path / "out.nc")
    assert [fault for fault in checked(tmp_path / "out.nc") if not (name.startswith("simulated") and NO_DATES in fault)] == []
    with xr.open_dataset(tmp_path / "out.nc", decode_timedelta=False) as found:
        xr.testing.assert_equal(found, xr.decode_cf(block, decode_timedelta=False))
