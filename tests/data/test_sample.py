"""The worked cases of docs/samples.md, one function a row: built, written through a shard, read back equal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import pytest

from scigpt.data.sample import Boundary, Coordinate, Level, Origin, Sample, SourceFile, Time, Variable
from scigpt.data.shard import ShardReader, write_shard
from scigpt.errors import UserError

CASES: dict[str, Callable[[], Sample]] = {}
ORIGIN = Origin("example", "CC-BY-4.0", (SourceFile("a.nc", "a" * 64), SourceFile("b.nc", "b" * 64)), "Somebody", "somewhere")


def case(row: str) -> Callable[[Callable[[], Sample]], Callable[[], Sample]]:
    def register(build: Callable[[], Sample]) -> Callable[[], Sample]:
        CASES[row] = build
        return build

    return register


def fields(*shape: int, seed: int = 0) -> np.ndarray:
    """Random fields that change little from frame to frame."""
    return np.random.default_rng(seed).normal(size=shape).cumsum(0).astype(np.float32)


def line(axis: str, values: np.ndarray, unit: str) -> Coordinate:
    return Coordinate((axis,), values, unit)


def box(z: int, y: int, x: int) -> dict[str, Coordinate]:
    return {a: line(a, (np.arange(n) + 0.5) / n, "1") for a, n in (("z", z), ("y", y), ("x", x)) if n > 1}


def stations(n: int) -> dict[str, Coordinate]:
    generator = np.random.default_rng(n)
    height = generator.uniform(0, 3000, n)
    height[n // 2 :: 3] = np.nan if n > 1 else height[0]
    return {
        "latitude": line("x", generator.uniform(-90, 90, n), "degrees_north"),
        "longitude": line("x", generator.uniform(-180, 180, n), "degrees_east"),
        "height": line("x", height, "m"),
    }


@case("hourly ERA5 map")
def hourly_map() -> Sample:
    frames, ny, nx = 24, 19, 36
    values = fields(frames, 3, 1, ny, nx)
    values[:, 0] += 280
    values[:, 2] = values[:1, 2]  # static: the same in every frame
    start = cftime.datetime(2019, 3, 1, calendar="standard")
    hours = Time.regular(float(cftime.date2num(start, "seconds since 2000-01-01", "standard")), 3600.0, frames, "standard")
    seconds = hours.seconds
    return Sample(
        values,
        np.ones(values.shape, bool),
        (
            Variable("air_temperature", "K", level=Level("height", 2.0)),
            Variable("toa_incident_solar_radiation", "W m**-2", "forcing"),
            Variable("surface_altitude", "m", "static"),
        ),
        replace(hours, bounds=np.stack([seconds - 3600, seconds], 1)),
        ORIGIN,
        "sphere",
        Boundary(y=("pole", "pole"), x=("periodic", "periodic")),
        {
            "latitude": line("y", np.linspace(90, -90, ny), "degrees_north"),
            "longitude": line("x", np.arange(nx) * 10.0, "degrees_east"),
        },
    )


@case("monthly CMIP6 on a curvilinear ocean grid")
def curvilinear_months() -> Sample:
    frames, ny, nx = 14, 12, 16
    values = fields(frames, 1, 1, ny, nx) + np.float32(285)
    land = np.random.default_rng(5).random((ny, nx)) < 0.3
    valid = np.broadcast_to(~land, values.shape).copy()
    values[~valid] = np.nan
    starts = [cftime.datetime(1990 + m // 12, m % 12 + 1, 1, calendar="noleap") for m in range(frames + 1)]
    bounds = np.array([starts[:-1], starts[1:]]).T
    dates = [a + (b - a) / 2 for a, b in bounds]
    j, i = np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij")
    return Sample(
        values,
        valid,
        (Variable("sea_surface_temperature", "K"),),
        Time.from_dates(dates, bounds=bounds),
        ORIGIN,
        "sphere",
        Boundary(x=("periodic", "periodic")),
        {
            "latitude": Coordinate(("y", "x"), -70 + 12.0 * j + np.sin(i), "degrees_north"),
            "longitude": Coordinate(("y", "x"), 22.5 * i + np.cos(j), "degrees_east"),
        },
    )


@case("three-component seismogram with gaps")
def seismogram() -> Sample:
    frames = 1000
    values = fields(frames, 3, 1, 1, 1) * np.float32(1e-6)
    valid = np.ones(values.shape, bool)
    valid[100:150, 0] = False
    valid[140:400, 2] = False
    values[~valid] = np.nan
    variables = tuple(Variable(f"ground_velocity_{c}", "m s**-1") for c in ("east", "north", "up"))
    return Sample(values, valid, variables, Time.regular(3.2e8, 0.01, frames, "standard"), ORIGIN, "points", coordinates=stations(1))


@case("500 GHCN stations")
def rain_gauges() -> Sample:
    frames, n = 31, 500
    values = fields(frames, 2, 1, 1, n)
    values[:, 0] += 290
    values[:, 1] = np.abs(values[:, 1])
    valid = np.random.default_rng(2).random(values.shape) > 0.1
    seconds = 86400.0 * np.arange(frames)
    return Sample(
        values,
        valid,
        (Variable("air_temperature", "K", level=Level("height", 2.0)), Variable("precipitation_amount", "kg m**-2")),
        Time(seconds + 43200, "standard", np.stack([seconds, seconds + 86400], 1)),
        ORIGIN,
        "points",
        coordinates=stations(n),
    )


@case("one-date satellite tile")
def satellite_tile() -> Sample:
    ny = nx = 24
    bands = ("surface_reflectance_red", "surface_reflectance_green", "surface_reflectance_nir")
    values = np.abs(fields(1, len(bands), 1, ny, nx)) / 5
    clouds = np.random.default_rng(3).random((ny, nx)) < 0.2
    valid = np.broadcast_to(~clouds, values.shape).copy()
    return Sample(
        values,
        valid,
        tuple(Variable(b, "1") for b in bands),
        Time.from_dates(np.array(["2021-07-04T10:20:31"], "datetime64[s]")),
        ORIGIN,
        coordinates={"y": line("y", 5.0e6 - 10 * np.arange(ny), "m"), "x": line("x", 4.0e5 + 10 * np.arange(nx), "m")},
    )


@case("2-D waves with a static velocity model")
def waves() -> Sample:
    frames, ny, nx = 20, 16, 24
    values = fields(frames, 2, 1, ny, nx)
    values[:, 1] = np.linspace(1500, 4500, ny)[:, None]
    return Sample(
        values,
        np.ones(values.shape, bool),
        (Variable("pressure_field", "1"), Variable("seismic_velocity_model", "m s**-1", "static")),
        Time.regular(0.0, 0.002, frames),
        ORIGIN,
        boundary=Boundary(y=("wall", "open")),
        coordinates=box(1, ny, nx),
        coefficients={"source_frequency": 15.0},
    )


@case("3-D box")
def turbulent_box() -> Sample:
    values = fields(6, 3, 8, 9, 10)
    variables = tuple(Variable(f"velocity_{a}", "1") for a in "xyz")
    valid = np.ones(values.shape, bool)
    time = Time.regular(0.0, 0.1, 6)
    return Sample(
        values,
        valid,
        variables,
        time,
        ORIGIN,
        boundary=Boundary.all("periodic"),
        coordinates=box(8, 9, 10),
        coefficients={"viscosity": 1e-3},
    )


@case("steady Poisson pair")
def poisson_pair() -> Sample:
    values = fields(2, 2, 1, 16, 16)
    values[1, 0] = values[0, 0]
    valid = np.ones(values.shape, bool)
    valid[0, 1] = False  # the solution is what is to be found
    variables = (Variable("source", "1", "forcing"), Variable("solution", "1"))
    time = Time.regular(0.0, 1.0, 2)
    return Sample(
        values,
        valid,
        variables,
        time,
        ORIGIN,
        boundary=Boundary.all("wall"),
        coordinates=box(1, 16, 16),
        coefficients={"wavenumber": 3.0},
        steady=True,
    )


@case("porous medium with an inflow prescribed in time")
def porous_medium() -> Sample:
    frames, ny, nx = 12, 8, 16
    values = np.abs(fields(frames, 2, 1, ny, nx))
    valid = np.ones(values.shape, bool)
    valid[:, 1, :, :, 1:] = False  # prescribed in the first column, unknown to the rest
    values[~valid] = np.nan
    return Sample(
        values,
        valid,
        (Variable("concentration", "1"), Variable("inflow", "1", "forcing")),
        Time.regular(0.0, 0.05, frames),
        ORIGIN,
        boundary=Boundary(y=("wall", "wall"), x=("given", "open")),
        coordinates=box(1, ny, nx),
        coefficients={"exponent": 2.0},
    )


@pytest.mark.parametrize("row", CASES)
def test_the_case_comes_back_equal_from_a_shard(tmp_path: Path, row: str) -> None:
    sample = CASES[row]()
    write_shard(tmp_path / "train-000000.tar", [("case", "train", sample)])
    back = ShardReader(tmp_path / "train-000000.tar").read(0)
    np.testing.assert_array_equal(back.valid, sample.valid)
    for c, variable in enumerate(sample.variables):
        valid, field = sample.valid[:, c], np.where(sample.valid[:, c], sample.values[:, c], 0).astype(np.float64)
        steps = np.diff(field, axis=0)[valid[1:] & valid[:-1]]
        moves = np.sqrt(np.mean(steps**2)) if steps.size else 0.0
        tolerance = 1e-3 * (field[valid].std() if variable.role == "static" else moves)
        np.testing.assert_allclose(back.values[:, c][valid], sample.values[:, c][valid], rtol=0, atol=tolerance)
    np.testing.assert_equal(back.meta(), sample.meta())
    assert (back.layout, back.origin, dict(back.coefficients)) == (sample.layout, sample.origin, dict(sample.coefficients))
    np.testing.assert_array_equal(back.time.seconds, sample.time.seconds)
    np.testing.assert_equal(back.time.bounds, sample.time.bounds)
    for name, coordinate in sample.coordinates.items():
        assert (back.coordinates[name].axes, back.coordinates[name].unit) == (coordinate.axes, coordinate.unit)
        np.testing.assert_array_equal(back.coordinates[name].values, coordinate.values)


def test_the_page_has_one_row_for_each_case() -> None:
    page = (Path(__file__).parents[2] / "docs" / "samples.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ([^|]+?) \| (?!axes|---)", page, re.MULTILINE) == list(CASES)


def test_what_each_case_is_for() -> None:
    made = {row: build() for row, build in CASES.items()}
    assert {len(made[r].time) for r in ("one-date satellite tile", "steady Poisson pair")} == {1, 2}
    ocean = made["monthly CMIP6 on a curvilinear ocean grid"]
    assert ocean.time.bounds is not None
    months = np.diff(ocean.time.bounds, axis=1)[:, 0] / 86400
    assert months[:3].tolist() == [31, 28, 31]
    assert ocean.time.season()[12] == ocean.time.season()[0]
    pair = made["steady Poisson pair"]
    assert pair.steady
    assert (pair.valid[0, 0].all(), pair.valid[0, 1].any(), pair.valid[1].all()) == (True, False, True)
    porous = made["porous medium with an inflow prescribed in time"]
    assert (porous.valid[:, 1, ..., 0].all(), porous.valid[:, 1, ..., 1:].any()) == (True, False)
    assert made["three-component seismogram with gaps"].values.shape[2:] == (1, 1, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"values": np.zeros((2, 2, 1, 16, 16))}, "expected float32"),
        ({"values": np.zeros((2, 2, 0, 16, 16), np.float32)}, "never 0"),
        ({"valid": np.ones((1, 1, 1, 1, 1), bool)}, "valid is"),
        ({"variables": (Variable("source", "1"),)}, "one variable per channel"),
        ({"variables": (Variable("source", "1"),) * 2}, "not unique"),
        ({"time": Time.regular(0, 1, 3)}, "one time per frame"),
        ({"geometry": "sphere"}, "lacks the coordinate latitude and longitude"),
        ({"geometry": "points", "coordinates": stations(16)}, "points lie along X"),
        ({"coordinates": {"y": line("y", np.arange(3.0), "m")}}, "coordinate y has the shape"),
        ({"coefficients": {"viscosity": float("nan")}}, "expected a finite number"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(poisson_pair(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_the_season_starts_anew_with_each_year(calendar: str) -> None:
    days = {"standard": 366, "noleap": 365, "360_day": 360}[calendar]  # of the year 2000
    season = Time.regular(0.0, 86400.0, 3 * days, calendar).season()
    np.testing.assert_allclose(season[:days], np.arange(days) / days, atol=1e-6)
    assert season[days] == 0
    assert (season >= 0).all()
    assert (season < 1).all()
    assert Time(np.array([86400.0 * days / 2]), calendar).season() == pytest.approx(0.5)
