"""What a dataset must be to be forecast, and that a sample survives the way through one."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from scigpt.data.conventions import LATITUDE
from scigpt.data.domain import Domain, spacing
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Level, Origin, Sample, Time, Variable, month_starts
from scigpt.data.variables import QUANTITIES
from scigpt.errors import UserError
from scigpt.export.datasets import Given, choose, to_dataset

sys.path.append(str(Path(__file__).parents[1] / "data"))
CASES: dict[str, Callable[[], Sample]] = importlib.import_module("test_sample").CASES
ORIGIN = Origin("example", "CC-BY-4.0")
MAP = "hourly ERA5 map"


def domain_of(sample: Sample, name: str = "there", frames: int = 4) -> Domain:
    """As of a corpus of this one sample."""
    steps = np.diff(sample.time.seconds)
    count = len(sample.variables)
    return Domain(
        name,
        sample.layout,
        sample.time.calendar,
        float(np.median(steps)) if steps.size and not sample.steady else None,
        bool(steps.size and np.ptp(steps) > 1e-3 * steps.max()),
        frames,
        8,
        None,
        Scales((("identity", 1.0),) * count, (0.0,) * count, (1.0,) * count, (1.0,) * count),
        {n: (v, v) for n, v in sample.coefficients.items()},
        {n: {"axes": list(c.axes), "unit": c.unit, "spacing": spacing(c.values)} for n, c in sample.coordinates.items()},
    )


def assert_same(back: Sample, sample: Sample, hidden: tuple[int, ...] = (), digits: float = 1e-6) -> None:
    shown = [c for c in range(len(sample.variables)) if c not in hidden]
    valid = sample.valid.copy()
    for c, v in enumerate(sample.variables):
        if v.role == "static":  # known in one frame is known in all
            valid[:, c] = valid[:, c].any(0)
    np.testing.assert_array_equal(back.valid[:, shown], valid[:, shown])
    both = back.valid[:, shown] & sample.valid[:, shown]
    np.testing.assert_array_equal(back.values[:, shown][both], sample.values[:, shown][both])
    assert not back.valid[:, list(hidden)].any()
    assert back.layout == sample.layout
    assert dict(back.coefficients) == dict(sample.coefficients)
    assert back.time.calendar == sample.time.calendar
    np.testing.assert_allclose(back.time.seconds, sample.time.seconds, rtol=0, atol=digits)
    assert (back.time.bounds is None) == (sample.time.bounds is None)
    if sample.time.bounds is not None:
        np.testing.assert_allclose(back.time.bounds, sample.time.bounds, rtol=0, atol=digits)
    assert back.coordinates.keys() == sample.coordinates.keys()
    for name, coordinate in sample.coordinates.items():
        assert (back.coordinates[name].axes, back.coordinates[name].unit) == (coordinate.axes, coordinate.unit)
        np.testing.assert_array_equal(back.coordinates[name].values, coordinate.values)


@pytest.mark.parametrize("row", CASES)
def test_a_worked_case_survives_the_way_through_a_dataset(row: str) -> None:
    sample = CASES[row]()
    for c, variable in enumerate(sample.variables):
        if (quantity := QUANTITIES.find(variable.name)) is not None:  # the fields are random
            sample.values[:, c] = np.clip(sample.values[:, c], quantity.low, quantity.high)
    dataset = to_dataset(sample)
    domain = domain_of(sample)
    assert choose(dataset, [domain]) is domain
    back = Given.of(dataset, domain).sample(len(sample.time) - 1, len(sample.time), 0)
    assert_same(back, sample, hidden=tuple(c for c, v in enumerate(sample.variables) if sample.steady and v.role == "state"))


KINDS = [None, Level("pressure", 850.0), Level("pressure", 500.0), Level("height", 2.0), Level("height", 100.0), Level("depth", 5.0)]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    geometry = draw(st.sampled_from(["plane", "sphere", "curvilinear", "points"]))
    z = draw(st.sampled_from([1, 2])) if geometry == "plane" else 1
    y = 1 if geometry == "points" else draw(st.integers(1 + (geometry == "curvilinear"), 4))
    x = draw(st.integers(1 + (geometry == "curvilinear"), 4))
    frames = draw(st.integers(2, 4))
    calendar = "none" if geometry == "plane" else draw(st.sampled_from(["standard", "noleap", "360_day"]))
    levels = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique=True))
    more = draw(st.lists(st.sampled_from(["concentration", "made_up"]), unique=True))
    roles = st.sampled_from(["state", "forcing", "static"])
    variables = (
        Variable("air_temperature", "K", level=levels[0]),
        *(Variable("air_temperature", "K", draw(roles), v) for v in levels[1:]),
        *(Variable(n, "1", draw(roles)) for n in more),
    )
    shape = (frames, len(variables), z, y, x)
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    values, valid = generator.uniform(200, 300, shape).astype(np.float32), generator.random(shape) > 0.2
    for c, v in enumerate(variables):
        if v.role == "static":
            values[:, c], valid[:, c] = values[:1, c], valid[:1, c]
    valid[:, :, 0, 0, 0] = True
    values[~valid] = np.nan
    start = float(month_starts(np.array([12 * 2020]), calendar)[0]) if calendar != "none" else 0.0
    coordinates: dict[str, Coordinate] = {}
    if geometry == "plane":
        coordinates = {a: Coordinate((a,), 0.5 * np.arange(n), "1") for a, n in (("z", z), ("y", y), ("x", x)) if n > 1}
    elif geometry == "sphere":
        latitude, longitude = 40 - 1.5 * np.arange(y), 100 + 2.0 * np.arange(x)
        coordinates = {
            "latitude": Coordinate(("y",), latitude, "degrees_north"),
            "longitude": Coordinate(("x",), longitude, "degrees_east"),
        }
    else:
        axes = ("x",) if geometry == "points" else ("y", "x")
        places = generator.uniform(-50, 50, (2, y, x)).reshape((2, x) if geometry == "points" else (2, y, x))
        coordinates = {"latitude": Coordinate(axes, places[0], "degrees_north"), "longitude": Coordinate(axes, places[1], "degrees_east")}
    return Sample(
        values,
        valid,
        variables,
        Time.regular(start, 21600.0, frames, calendar),
        ORIGIN,
        {"curvilinear": "sphere"}.get(geometry, geometry),  # type: ignore[arg-type]
        Boundary(),
        coordinates,
    )


@given(samples())
@settings(max_examples=60)
def test_any_sample_survives(sample: Sample) -> None:
    back = Given.of(to_dataset(sample), domain_of(sample)).sample(None, len(sample.time), 0)
    assert_same(back, sample)


# finding variables


def weather(names: dict[str, dict[str, Any]] | None = None, frames: int = 6, **times: Any) -> xr.Dataset:
    """A small map as scientists have them: descending latitudes, `t2m` in degrees Celsius."""
    generator = np.random.default_rng(0)
    names = {"t2m": {"units": "degC"}} if names is None else names
    variables = {n: (("time", "lat", "lon"), generator.uniform(1, 20, (frames, 5, 8)).astype(np.float32), a) for n, a in names.items()}
    time = xr.date_range(**{"start": "2020-01-01", "periods": frames, "freq": "6h", **times})
    return xr.Dataset(variables, {"time": time, "lat": 40.0 - 2.5 * np.arange(5), "lon": 10 + 2.5 * np.arange(8)})


def learned(*variables: Variable, calendar: str = "standard", **changes: Any) -> Domain:
    variables = variables or (Variable("air_temperature", "K"),)
    shape = (3, len(variables), 1, 5, 8)
    sample = Sample(
        np.zeros(shape, np.float32),
        np.ones(shape, bool),
        variables,
        Time.regular(0.0, 21600.0, 3, calendar),
        ORIGIN,
        "sphere",
        coordinates={
            "latitude": Coordinate(("y",), 40 - 2.5 * np.arange(5), "degrees_north"),
            "longitude": Coordinate(("x",), 10 + 2.5 * np.arange(8), "degrees_east"),
        },
    )
    return replace(domain_of(sample, changes.pop("name", "weather")), **changes)


def test_names_units_and_levels_as_files_have_them() -> None:
    dataset = weather({"t2m": {"units": "degC"}, "u_850hPa": {"units": "m s-1"}, "q": {"units": "g kg-1", "standard_name": "unknown"}})
    dataset = dataset.assign(
        wind=(("time", "plev", "lat", "lon"), np.full((6, 2, 5, 8), 3.0), {"standard_name": "northward_wind", "units": "km h-1"}),
        plev=("plev", [85000.0, 50000.0], {"units": "Pa", "standard_name": "air_pressure"}),
        land=(("lat", "lon"), np.full((5, 8), 40.0), {"units": "%", "standard_name": "land_area_fraction"}),
    )
    dataset.wind[:, 1] = 36.0
    domain = learned(
        Variable("air_temperature", "K", level=Level("height", 2.0)),
        Variable("eastward_wind", "m s**-1", level=Level("pressure", 850.0)),
        Variable("northward_wind", "m s**-1", level=Level("pressure", 500.0)),
        Variable("specific_humidity", "kg kg**-1"),
        Variable("land_area_fraction", "1", "static"),
        Variable("precipitation_amount", "kg m**-2", "diagnostic"),
    )
    dataset["q"] = dataset.q * 0.1
    dataset["q"].attrs = {"units": "g kg-1", "standard_name": "unknown"}
    sample = Given.of(dataset, domain).sample(None, 4, 2)
    expected = [dataset.t2m + 273.15, dataset.u_850hPa, 0 * dataset.t2m + 10.0, dataset.q / 1000]
    for c, truth in enumerate(expected):
        np.testing.assert_allclose(sample.values[:4, c, 0], truth[2:], rtol=1e-5)
    assert np.allclose(sample.values[:, 4], 0.4)
    assert sample.valid[:, 4].all()
    assert (sample.valid[:4, :4].all(), sample.valid[4:, :4].any(), sample.valid[:, 5].any()) == (True, False, False)
    assert sample.time.labels()[-2:] == ["2020-01-02T12:00:00", "2020-01-02T18:00:00"]


def test_of_two_variables_the_one_that_says_so_is_taken() -> None:
    dataset = weather(
        {"tas": {"units": "K", "standard_name": "air_temperature"}, "tasmax": {"units": "K", "standard_name": "air_temperature"}}
    )
    dataset = dataset + 280
    for name in dataset:
        dataset[name].attrs = {"units": "K", "standard_name": "air_temperature"}
    assert Given.of(dataset, learned()).matches[0].name == "tas"
    both = learned(Variable("air_temperature", "K"), Variable("air_temperature_maximum", "K"))
    assert [m.name for m in Given.of(dataset, both).matches] == ["tas", "tasmax"]
    assert Given.of(dataset[["tasmax"]], learned()).matches[0].name == "tasmax"
    with pytest.raises(UserError, match=r"tas, other could each be air_temperature of weather; keep one of them, or call the right one"):
        Given.of(dataset.assign(other=dataset.tas), learned())
    assert (
        Given.of(
            dataset.assign(other=dataset.tas).rename(other="air_temperature@2m"),
            learned(Variable("air_temperature", "K", level=Level("height", 2))),
        )
        .matches[0]
        .name
        == "air_temperature@2m"
    )


def test_a_descending_axis_is_turned_round_and_other_sizes_are_fine() -> None:
    dataset = weather()
    straight = Given.of(dataset, learned()).sample(None, 4, 1)
    turned = Given.of(dataset.isel(lat=slice(None, None, -1)), learned()).sample(None, 4, 1)
    np.testing.assert_array_equal(turned.values, straight.values)
    np.testing.assert_array_equal(turned.coordinates["latitude"].values, straight.coordinates["latitude"].values)
    assert straight.coordinates["latitude"].values[0] == 40.0
    part = Given.of(dataset.isel(lat=slice(1, 4), lon=slice(0, 3)), learned()).sample(None, 4, 1)
    np.testing.assert_array_equal(part.values, straight.values[..., 1:4, :3])
    written_out = dataset.drop_vars(["lat", "lon"]).assign_coords(
        latitude=(("lat", "lon"), np.repeat(dataset.lat.values[:, None], 8, 1), {"units": "degrees_north"}),
        longitude=(("lat", "lon"), np.repeat(dataset.lon.values[None], 5, 0), {"units": "degrees_east"}),
    )
    np.testing.assert_array_equal(Given.of(written_out, learned()).sample(None, 4, 1).values, straight.values)


def test_a_globe_has_the_sides_of_a_globe() -> None:
    globe = weather().isel(lat=[0]).squeeze("lat", drop=True).isel(lon=[0] * 144)
    globe = globe.expand_dims(lat=72, axis=1).assign_coords(lat=88.75 - 2.5 * np.arange(72), lon=2.5 * np.arange(144))
    assert Given.of(globe, learned()).sample(None, 4, 1).boundary == Boundary(y=("pole", "pole"), x=("periodic", "periodic"))


def test_implausible_values_are_gaps_and_many_of_them_a_wrong_unit(caplog: pytest.LogCaptureFixture) -> None:
    dataset = weather(frames=40)
    dataset.t2m[38, 1, 2] = 900.0
    dataset.t2m[39, 0, 0] = np.nan
    sample = Given.of(dataset, learned()).sample(None, 30, 0)
    assert (~sample.valid).sum() == 2
    assert "1 values of the dataset's variable t2m are implausible" in caplog.text
    dataset.t2m.attrs["units"] = "K"
    with pytest.raises(UserError, match=r"100\.000% of the values of the dataset's variable t2m lie outside 150 to 350 K.*unit 'K' may be"):
        Given.of(dataset, learned()).sample(None, 30, 0)


# refusals


def months(calendar: str = "standard") -> tuple[xr.Dataset, Domain]:
    frames = 14
    starts = month_starts(12 * 1990 + np.arange(frames + 1), calendar)
    time = Time((starts[1:] + starts[:-1]) / 2, calendar, np.stack([starts[:-1], starts[1:]], 1))
    case = CASES["monthly CMIP6 on a curvilinear ocean grid"]()
    sample = replace(case, time=time)
    return to_dataset(sample), domain_of(sample)


def forced() -> tuple[xr.Dataset, Domain]:
    dataset = weather({"t2m": {"units": "degC"}, "rsdt": {"units": "W m-2"}}, frames=10)
    dataset["t2m"] = dataset.t2m.where(dataset.time < dataset.time[6])
    return dataset, learned(Variable("air_temperature", "K"), Variable("toa_incident_solar_radiation", "W m**-2", "forcing"))


def test_states_end_where_forcings_go_on() -> None:
    dataset, domain = forced()
    sample = Given.of(dataset, domain).sample(None, 3, 4)
    assert sample.time.labels()[2] == "2020-01-02T06:00:00"
    assert sample.valid[:, 1].all()
    assert (sample.valid[:3, 0].all(), sample.valid[3:, 0].any()) == (True, False)
    for steps, start in ((5, None), (1, 9)):
        with pytest.raises(
            UserError, match=r"forcing toa_incident_solar_radiation has to be .* ends at 2020-01-03T06.*variable rsdt.*up to 2020-01-03T12"
        ):
            Given.of(dataset, domain).sample(start, 7, steps)
    dataset["rsdt"] = dataset.rsdt.where(dataset.time < dataset.time[8])
    with pytest.raises(UserError, match=r"ends at 2020-01-02T18:00:00"):
        Given.of(dataset, domain).sample(None, 3, 4)


def changed(**attrs: Any) -> xr.Dataset:
    dataset = weather()
    dataset.t2m.attrs = attrs
    return dataset


def with_axis(name: str, values: np.ndarray) -> xr.Dataset:
    return weather().assign_coords({name: values})


REFUSED: dict[str, tuple[xr.Dataset, Domain, str]] = {
    "variable": (
        weather({"q": {"units": "1"}}),
        learned(),
        r"weather the dataset lacks air_temperature \[K\], looked for .*; the dataset has q$",
    ),
    "level": (
        weather(),
        learned(Variable("air_temperature", "K", level=Level("pressure", 850))),
        r"lacks air_temperature@850hPa .* has t2m at 2m",
    ),
    "unit": (changed(units="m"), learned(), r"variable t2m: the unit 'm' cannot be converted to 'K'"),
    "no unit": (changed(), learned(), r"variable t2m has no units attribute; expected one that converts to 'K'"),
    "calendar": (
        weather(calendar="noleap", use_cftime=True),
        learned(),
        r"time has the calendar noleap, and .* expects dates in the calendar standard",
    ),
    "calendar of dates": (
        weather(),
        learned(calendar="360_day"),
        r"time has the calendar proleptic_gregorian, and .* expects dates in the calendar 360_day",
    ),
    "simulated": (
        weather(),
        learned(calendar="none"),
        r"time holds dates, and the domain weather expects numbers, in the time of its simulation",
    ),
    "numbers": (with_axis("time", np.arange(6.0)), learned(), r"time holds numbers without a calendar date"),
    "not decoded": (
        with_axis("time", xr.Variable("time", np.arange(6), {"units": "hours since 2000-01-01"})),
        learned(),
        r"decode them with xarray\.decode_cf",
    ),
    "differences": (
        with_axis("time", np.arange(6) * np.timedelta64(1, "h")),
        learned(calendar="none"),
        r"open it with decode_timedelta=False",
    ),
    "no time": (weather().isel(time=0, drop=True), learned(), r"the dataset has no time .*on the dimensions lat, lon"),
    "no date": (
        with_axis("time", np.array(["2020-01-01", "NaT", *["2020-01-03"] * 4], "datetime64[ns]")),
        learned(),
        r"no date at frame 1",
    ),
    "order": (weather().isel(time=[0, 1, 3, 2]), learned(), r"time must increase from frame to frame; frame 3 does not"),
    "step": (
        weather(freq="1h"),
        learned(),
        r"frames are 1 hour apart, and .* with 6 hours; take every 6th frame, dataset\.isel\(time=slice\(None, None, 6\)",
    ),
    "coarser step": (weather(freq="12h"), learned(), r"frames are 12 hours apart, and .* with 6 hours; give data with that step"),
    "hole": (
        weather().isel(time=[0, 1, 2, 4, 5]),
        learned(),
        r"not regular in time: after 2020-01-01T12:00:00 comes 2020-01-02T00:00:00.*Dataset\.reindex",
    ),
    "spacing": (
        with_axis("lat", 40 - 1.0 * np.arange(5)),
        learned(),
        r"latitude has a spacing of 1 degrees, and .* with 2\.5 degrees; interpolate",
    ),
    "irregular": (
        with_axis("lon", np.array([0, 2, 5, 7, 10, 12, 15, 18])),
        learned(),
        r"longitude is not regular \(spacing 2 to 3 degrees\)",
    ),
    "dimension": (
        weather().expand_dims(member=3),
        learned(),
        r"dimension member of length 3 is none that the domain weather has; choose .*isel\(member=0\)",
    ),
    "no places": (weather().drop_vars(["lat", "lon"]), learned(), r"no coordinate latitude and longitude .*on the dimensions lat, lon"),
    "static over time": (
        weather({"t2m": {"units": "degC"}, "orog": {"units": "m"}}),
        learned(Variable("air_temperature", "K"), Variable("surface_altitude", "m", "static")),
        r"orog changes in time, and surface_altitude",
    ),
    "state without time": (
        weather().assign(t2m=weather().t2m[0].drop_vars("time"), x=weather().t2m.assign_attrs(units="1")),
        learned(Variable("air_temperature", "K"), Variable("x", "1")),
        r"t2m has no time, and air_temperature changes",
    ),
    "few frames": (weather(frames=1), learned(), r"from 2020-01-01T00:00:00 has 1 known frame, and at least 2 are needed"),
    "gaps only": (
        changed(units="K").where(False),
        learned(),
        r"no valid value of t2m in any frame",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused(why: str) -> None:
    dataset, domain, sentence = REFUSED[why]
    with pytest.raises(UserError, match=sentence):
        Given.of(dataset, domain).sample(None, 3, 1)


def test_a_step_or_spacing_that_differs_can_be_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        hourly = Given.of(weather(freq="1h"), learned(), strict=False).sample(None, 4, 2)
        Given.of(with_axis("lat", 40 - 1.0 * np.arange(5)), learned(), strict=False)
    assert [r.message.split(",")[0] for r in caplog.records] == [
        "the dataset's frames are 1 hour apart",
        "the dataset's latitude has a spacing of 1 degrees",
    ]
    assert hourly.time.labels()[-1] == "2020-01-01T07:00:00"
    for why in ("unit", "calendar", "variable"):
        with pytest.raises(UserError):
            Given.of(*REFUSED[why][:2], strict=False)


def test_planes_and_points_say_what_they_lack() -> None:
    box = CASES["3-D box"]()
    dataset, domain = to_dataset(box), domain_of(box)
    with pytest.raises(UserError, match=r"no one dimension for the y axis of the domain there \(it has row, x\); call it y, or give"):
        Given.of(dataset.drop_vars("y").rename(y="row"), domain)
    plain = Given.of(dataset.drop_vars(["x", "y", "z"]), domain).sample(None, 6, 0)
    np.testing.assert_array_equal(plain.values, box.values)
    named = dataset.rename(y="row", x="column")
    named.row.attrs, named.column.attrs = {"axis": "Y"}, {"axis": "X"}
    np.testing.assert_array_equal(Given.of(named, domain).sample(None, 6, 0).values, box.values)
    with pytest.raises(UserError, match=r"x has a spacing of 0\.2, and the domain there was learned with 0\.1;"):
        Given.of(dataset.assign_coords(x=("x", 2 * dataset.x.values, {"units": "1"})), domain)
    stations = CASES["500 GHCN stations"]()
    dataset, domain = to_dataset(stations), domain_of(stations)
    unknown = Given.of(dataset.drop_vars("height"), domain).sample(None, 3, 1)
    assert np.isnan(unknown.coordinates["height"].values).all()
    with pytest.raises(UserError, match="latitude and longitude lie on the dimensions"):
        Given.of(dataset.isel(station=slice(5)), learned(*stations.variables, step=86400.0))
    with pytest.raises(UserError, match="stations along one dimension, with both on it"):
        Given.of(weather({"air_temperature": {"units": "K"}, "precipitation_amount": {"units": "mm"}}, freq="1D"), domain)


# time


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_months_go_on_as_months(calendar: str) -> None:
    dataset, domain = months(calendar)
    given_, ahead = Given.of(dataset, domain), 13
    sample = given_.sample(None, 3, ahead)
    starts = month_starts(12 * 1990 + 11 + np.arange(3 + ahead + 1), calendar)
    np.testing.assert_allclose(sample.time.seconds, (starts[1:] + starts[:-1]) / 2, rtol=0, atol=1e-3)
    assert sample.time.bounds is not None
    np.testing.assert_allclose(sample.time.bounds, np.stack([starts[:-1], starts[1:]], 1), rtol=0, atol=1e-3)
    assert given_.index("1990-04") == 3
    if calendar != "360_day":  # whose months do not vary
        firsts = to_dataset(replace(given_.sample(None, 14, 0), time=Time(month_starts(12 * 1990 + np.arange(14), calendar), calendar)))
        assert Given.of(firsts, domain).sample(None, 2, 3).time.labels()[-1] == "1991-05-01T00:00:00"
        with pytest.raises(UserError, match=r"frames are 1[23]\d?.* days apart|not regular in time"):
            Given.of(dataset.isel(time=[0, 1, 3, 4, 5]), domain)


def test_frames_are_found_by_dates_and_numbers() -> None:
    hours = Given.of(weather(), learned())
    assert [hours.index(t) for t in ("2020-01-01", "2020-01-01T06", "2020-01-01 06:00")] == [0, 1, 1]
    assert hours.index("2020-01-02T06:00:00Z") == 5
    for text, sentence in {
        "2021-01-01": r"no frame at 2021-01-01; frames run from 2020-01-01T00:00:00 to 2020-01-02T06:00:00",
        "2020-02-30": "'2020-02-30' is not a date in the calendar standard",
        "today": "'today' is not a date such as",
    }.items():
        with pytest.raises(UserError, match=sentence):
            hours.index(text)
    waves = CASES["2-D waves with a static velocity model"]()
    simulated = Given.of(to_dataset(waves), domain_of(waves))
    assert [simulated.index(t) for t in ("0", "0.002", "3.8e-2")] == [0, 1, 19]
    with pytest.raises(UserError, match=r"no frame at 0\.003; frames run from 0 to 0\.038"):
        simulated.index("0.003")
    with pytest.raises(UserError, match="'2020-01-01' is not a number"):
        simulated.index("2020-01-01")


@pytest.mark.parametrize("calendar", ["standard", "proleptic_gregorian"])
def test_dates_without_cftime_are_those_of_cftime(calendar: str) -> None:
    generator = np.random.default_rng(0)
    seconds = np.sort(np.concatenate([generator.uniform(-1.3e10, 9e9, 300), month_starts(12 * np.arange(1583, 2300, 7), calendar), [0.5]]))
    time = Time(seconds, calendar)
    dates = cftime.num2date(seconds, "seconds since 2000-01-01", calendar)
    assert time.labels() == [d.isoformat() for d in dates]
    assert time.months().tolist() == [12 * d.year + d.month - 1 for d in dates]
    starts = [cftime.datetime(y, 1, 1, calendar=calendar) for y in range(dates[0].year, dates[-1].year + 2)]
    edges = np.asarray(cftime.date2num(starts, "seconds since 2000-01-01", calendar), float)
    years = np.searchsorted(edges, seconds, "right") - 1
    np.testing.assert_array_equal(time.season(), ((seconds - edges[years]) / np.diff(edges)[years]).astype(np.float32))
    stamps = np.array(["2020-02-29T12:34:56.789", "2100-03-01"], "datetime64[ns]")
    as_dates = [cftime.datetime(2020, 2, 29, 12, 34, 56, 789000, calendar=calendar), cftime.datetime(2100, 3, 1, calendar=calendar)]
    np.testing.assert_allclose(Time.from_dates(stamps, calendar).seconds, Time.from_dates(as_dates).seconds, rtol=3e-16)


def test_dates_that_nanoseconds_cannot_count() -> None:
    assert Time.from_dates(np.array(["2300-01-01"], "datetime64[us]")).labels() == ["2300-01-01T00:00:00"]


def test_before_the_reform_the_standard_calendar_is_that_of_caesar() -> None:
    early = Time.from_dates([cftime.datetime(1582, 10, 4, calendar="standard"), cftime.datetime(1582, 10, 15, calendar="standard")])
    assert np.diff(early.seconds) == 86400
    assert early.labels() == ["1582-10-04T00:00:00", "1582-10-15T00:00:00"]
    assert early.season() == pytest.approx(np.array([276, 277]) / 355, abs=1e-6)


# domains


def test_the_domain_is_chosen_by_what_the_dataset_holds() -> None:
    air, wind = learned(name="air"), learned(Variable("air_temperature", "K"), Variable("eastward_wind", "m s**-1"), name="wind")
    assert choose(weather(), [wind, air]) is air
    both = weather({"t2m": {"units": "degC"}, "u10": {"units": "m s-1"}})
    assert choose(both, [air, wind]) is wind
    assert choose(both, [air, wind], "air") is air
    hourly = learned(name="hourly", step=3600.0)
    assert choose(weather(), [hourly, air]) is air
    assert choose(weather(freq="1h"), [hourly, air]) is hourly
    with pytest.raises(UserError, match=r"no domain 'wnid' among air, wind; did you mean wind\?"):
        choose(both, [air, wind], "wnid")
    with pytest.raises(UserError, match="fits the domains air, twin equally; name one of them"):
        choose(weather(), [air, replace(air, name="twin")])
    with pytest.raises(UserError, match=r"fits none of the domains wind, sea; for wind it lacks air_temperature \[K\].*has u10"):
        choose(both[["u10"]], [wind, learned(Variable("sea_surface_temperature", "K"), name="sea")])


def test_coefficients_are_attributes_or_scalars(caplog: pytest.LogCaptureFixture) -> None:
    waves = CASES["2-D waves with a static velocity model"]()
    dataset, domain = to_dataset(waves), domain_of(waves)
    assert dataset.attrs["source_frequency"] == 15.0
    del dataset.attrs["source_frequency"]
    assert Given.of(dataset, domain).coefficients == {}
    assert Given.of(dataset.assign(source_frequency=20.0), domain).coefficients == {"source_frequency": 20.0}
    assert "is 20, and the domain there was learned with 15 to 15" in caplog.text
    with pytest.raises(UserError, match="coefficient source_frequency is 'high'; expected a number"):
        Given.of(dataset.assign_attrs(source_frequency="high"), domain)


LIGHT = """
import sys
for name in ("cftime", "pint", "scipy", "netCDF4", "omegaconf", "lightning", "mlflow", "zarr", "h5py", "yaml", "matplotlib", "dask"):
    sys.modules[name] = None
import json, numpy as np, xarray as xr
from scigpt.data.domain import Domain
from scigpt.data.sample import Time
from scigpt.errors import UserError
from scigpt.export.datasets import Given, choose, result
domain = Domain.from_json(json.loads(sys.argv[1]))
variable = (("time", "lat", "lon"), np.full((6, 5, 8), 280, np.float32), {"units": "kelvin"})
time = xr.date_range("2020-01-01", periods=6, freq="6h")
dataset = xr.Dataset({"t2m": variable}, {"time": time, "lat": 40 - 2.5 * np.arange(5), "lon": 10 + 2.5 * np.arange(8)})
given = Given.of(dataset, choose(dataset, [domain]))
sample = given.sample(given.index("2020-01-02"), 4, 3)
sample.time.season(), sample.time.hour(), sample.time.labels()
block = result([sample], np.zeros((1, 1, 3, 1, 1, 5, 8), np.float32), context=4, first=0, dim=None)
print(xr.decode_cf(block, decode_timedelta=False).time.values[-1])
dataset.t2m.attrs["units"] = "degC"
for needed in (lambda: Given.of(dataset, domain), lambda: Time.regular(0.0, 1.0, 2, "noleap").season()):
    try:
        needed()
    except UserError as error:
        print(str(error).rpartition("run: ")[2])
"""


def test_a_forecast_needs_little_besides_torch_and_xarray() -> None:
    about = json.dumps(learned().to_json())
    done = subprocess.run([sys.executable, "-c", LIGHT, about], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2020-01-02T18:00:00.000000000", "pip install pint", "pip install cftime"]


REAL = {
    "era5": "era5/era5-2mt-2019-03-uk.grib",
    "cmip6": "cmip6/tasmax_day_HadGEM2-CC_rcp85_r1i1p1_na10kgrid_qm-moving-50bins-detrend_2095.nc",
}


@pytest.mark.parametrize("source", REAL)
def test_a_real_file_gives_what_its_corpus_holds(source: str, tmp_path: Path) -> None:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    from scigpt.data.corpus import Corpus
    from scigpt.data.mixture import CorpusConfig, DataConfig

    path = Path(os.environ["SCIGPT_REALDATA"]) / REAL[source]
    words = ["data", "prepare", source, "--input", str(path), "--out", str(tmp_path / "corpus"), "split=train"]
    done = subprocess.run([sys.executable, "-m", "scigpt.launch.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    corpus = Corpus.open(tmp_path / "corpus")
    domain = Domain.from_json(json.loads(json.dumps(Domain.of(corpus, CorpusConfig(str(tmp_path)), DataConfig(frames=4)).to_json())))
    dataset = xr.open_dataset(
        path, engine="cfgrib" if source == "era5" else "netcdf4", backend_kwargs={"indexpath": ""} if source == "era5" else {}
    )
    assert choose(dataset, [domain]) is domain
    held = corpus.read("train", 0)
    frames = min(len(held.time), 40)
    given_ = Given.of(dataset, domain)
    start = given_.index(held.time.labels()[frames - 1])
    sample = given_.sample(start, frames, 0)
    np.testing.assert_array_equal(sample.valid, held.valid[:frames])
    moves = np.diff(held.values[:frames], axis=0)
    np.testing.assert_allclose(sample.values[sample.valid], held.values[:frames][sample.valid], rtol=0, atol=2e-3 * float(np.nanstd(moves)))
    np.testing.assert_array_equal(sample.time.seconds, held.time.seconds[:frames])
    assert sample.layout == held.layout
    assert any(str(n) in LATITUDE[2] for n in dataset.variables)
    for name, coordinate in held.coordinates.items():
        np.testing.assert_allclose(sample.coordinates[name].values, coordinate.values)
