"""Solar forcing: against published instants and extremes, Kepler's equation with Berger's daily integral, and Spencer's series."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from scigpt.data_prep import solar
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError

LAT, LON = np.array([-90.0, -66.5, -30.0, 0.0, 23.4, 51.5, 80.0]), np.array([-120.0, 0.0, 37.5, 180.0])


def seconds(*parts: int) -> float:
    return (datetime(*parts) - datetime(2000, 1, 1)).total_seconds()


def berger(days: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Mean insolation of days around `days` since 2000-01-01 UT: an orbit by Kepler's equation from the equinox of 20 March 2000 07:35,
    and the daily integral of Berger 1978 (eq. 10)."""
    eccentricity, perihelion, obliquity = 0.016704, np.deg2rad(282.95), np.deg2rad(23.4393)

    def mean_anomaly(true: float) -> float:
        eccentric = 2 * np.arctan(np.sqrt((1 - eccentricity) / (1 + eccentricity)) * np.tan(true / 2))
        return eccentric - eccentricity * np.sin(eccentric)

    equinox = 79 + (7 + 35 / 60) / 24
    anomaly = mean_anomaly(-perihelion) + 2 * np.pi * (days - equinox) / 365.2422
    eccentric = anomaly.copy()
    for _ in range(8):
        eccentric -= (eccentric - eccentricity * np.sin(eccentric) - anomaly) / (1 - eccentricity * np.cos(eccentric))
    true = 2 * np.arctan(np.sqrt((1 + eccentricity) / (1 - eccentricity)) * np.tan(eccentric / 2))
    distance = 1 - eccentricity * np.cos(eccentric)
    declination = np.arcsin(np.sin(obliquity) * np.sin(true + perihelion))[:, None]
    phi = np.deg2rad(latitude)[None]
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1, 1))
    daily = sunset * np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    return 1361.0 / np.pi * daily / distance[:, None] ** 2


@pytest.mark.parametrize("first", [0, 366 + 365 * 3, 366 + 365 * 19 + 5])
def test_daily_means_are_those_of_kepler_and_berger_within_half_a_percent(first: int) -> None:
    days, latitude = first + np.arange(0.0, 366, 3), np.linspace(-90, 90, 37)
    bounds = 86400.0 * np.stack([days, days + 1], axis=1)
    computed = solar.mean(bounds, "standard", latitude, np.array([10.0, 200.0]))
    expected = berger(days + 0.5, latitude)
    np.testing.assert_allclose(computed, np.broadcast_to(expected[..., None], computed.shape), rtol=5e-3, atol=0.5)
    assert expected.max() > 540


def test_the_sun_stands_where_almanacs_say() -> None:
    events = [seconds(2000, 6, 21, 1, 48), seconds(2024, 12, 21, 9, 21), seconds(2020, 3, 20, 3, 50), seconds(2018, 9, 23, 1, 54)]
    declination = np.rad2deg(solar.sun(np.array(events), "standard").declination)
    np.testing.assert_allclose(declination, [23.44, -23.44, 0, 0], atol=0.02)
    extremes = np.rad2deg(solar.sun(np.array([seconds(2019, 2, 11), seconds(2019, 11, 3)]), "standard").equation_of_time) * 4
    np.testing.assert_allclose(extremes, [-14.25, 16.43], atol=0.05)  # minutes
    nearest, farthest = solar.sun(np.array([seconds(2019, 1, 3, 5), seconds(2019, 7, 4, 22)]), "standard").distance
    assert (abs(nearest - 0.98330) < 1e-4, abs(farthest - 1.01675) < 1e-4) == (True, True)


def test_instants_are_those_of_spencer() -> None:
    times = np.array([seconds(2001, m, 10, h, 20) for m in range(1, 13) for h in range(0, 24, 5)])
    computed = solar.instantaneous(times, "proleptic_gregorian", LAT, LON)
    # Spencer 1971, Fourier series of the position of the Sun
    day = np.array([(datetime(2001, m, 10) - datetime(2001, 1, 1)).days + (h + 1 / 3) / 24 for m in range(1, 13) for h in range(0, 24, 5)])
    g = 2 * np.pi * day / 365
    c, s = np.cos, np.sin
    declination = 0.006918 - 0.399912 * c(g) + 0.070257 * s(g) - 0.006758 * c(2 * g) + 0.000907 * s(2 * g) - 0.002697 * c(3 * g)
    declination += 0.00148 * s(3 * g)
    equation = 0.0000075 + 0.001868 * c(g) - 0.032077 * s(g) - 0.014615 * c(2 * g) - 0.040849 * s(2 * g)
    nearness = 1.00011 + 0.034221 * c(g) + 0.00128 * s(g) + 0.000719 * c(2 * g) + 0.000077 * s(2 * g)
    hour = (2 * np.pi * (day % 1) - np.pi + equation)[:, None, None] + np.deg2rad(LON)
    phi, d = np.deg2rad(LAT)[:, None], declination[:, None, None]
    expected = 1361.0 * nearness[:, None, None] * np.maximum(s(phi) * s(d) + c(phi) * c(d) * c(hour), 0)
    assert np.abs(computed - expected).max() < 0.005 * 1361


def test_means_of_an_hour_are_integrals_of_instants() -> None:
    starts = np.array([seconds(2010, 3, 5, h) for h in range(24)])
    computed = solar.mean(np.stack([starts, starts + 3600], axis=1), "standard", LAT, LON)
    middles = (np.arange(400) + 0.5) * 9.0
    expected = np.stack([solar.instantaneous(t + middles, "standard", LAT, LON).mean(axis=0, dtype=np.float64) for t in starts])
    np.testing.assert_allclose(computed, expected, atol=0.05)
    assert computed.min() == 0.0
    longer = solar.mean(np.array([[starts[0], starts[0] + 31 * 86400.0 + 3600]]), "standard", LAT, LON)
    hours = starts[0] + 3600.0 * np.arange(31 * 24 + 1)
    np.testing.assert_allclose(
        longer, solar.mean(np.stack([hours, hours + 3600], 1), "standard", LAT, LON).mean(0)[None], rtol=2e-3, atol=0.2
    )


@pytest.mark.parametrize(("calendar", "days"), [("noleap", 365), ("360_day", 360), ("all_leap", 366)])
def test_calendars_of_one_length_of_year_repeat_and_follow_the_seasons(calendar: str, days: int) -> None:
    year = 86400.0 * days
    fractions = np.arange(0.0, 1.0, 0.05)
    bounds = np.round(fractions * days)[:, None] * 86400.0 + np.array([0.0, 86400.0])
    now, later = (solar.mean(bounds + y * year, calendar, LAT, LON) for y in (0, 137))
    np.testing.assert_array_equal(now, later)
    expected = berger(365.2422 * (bounds.mean(axis=1) / year) + 0.387, LAT)
    np.testing.assert_allclose(now[..., 0], expected, rtol=5e-3, atol=0.5)


def test_the_julian_calendar_is_thirteen_days_behind() -> None:
    julian = solar.sun(np.array([0.0]), "julian").declination  # 1 January of the Julian calendar
    np.testing.assert_allclose(julian, solar.sun(np.array([seconds(2000, 1, 14)]), "standard").declination)


def test_a_curvilinear_grid_has_the_values_of_its_places() -> None:
    y, x = np.meshgrid(LAT, LON, indexing="ij")
    bounds = np.array([[0.0, 3600.0], [7200.0, 10800.0], [0.0, 86400.0]])
    np.testing.assert_array_equal(solar.mean(bounds, "standard", y, x), solar.mean(bounds, "standard", LAT, LON))
    np.testing.assert_array_equal(
        solar.instantaneous(bounds[:, 0], "standard", y, x), solar.instantaneous(bounds[:, 0], "standard", LAT, LON)
    )


def weather(frames: int = 30, **names: str) -> xr.Dataset:
    values = 280.0 + np.random.default_rng(0).standard_normal((frames, LAT.size, LON.size)).astype("f4")
    times = np.datetime64("2019-03-20T12:00", "ns") + np.arange(frames) * np.timedelta64(1, "h")
    return xr.Dataset(
        {names.get("name", "t2m"): (("time", "latitude", "longitude"), values, {"units": names.get("units", "K")})},
        coords={"time": times, "latitude": LAT, "longitude": LON},
    )


def test_era5_gets_the_mean_over_the_hour_before_as_a_forcing_once_for_several_files(tmp_path: Path) -> None:
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    weather(name="sp", units="K").assign(sp=lambda d: (d.sp * 0 + 1e5).assign_attrs(units="Pa")).to_netcdf(
        tmp_path / "b.nc", engine="netcdf4"
    )
    for hours in (1.0, 6.0):
        source = Era5([tmp_path / "a.nc", tmp_path / "b.nc"], Era5.Options(solar=True, split="train", accumulation_hours=hours))
        (sample,) = source.samples(source.plan().refs)
        assert [(v.name, v.role) for v in sample.variables] == [
            ("air_temperature", "state"),
            ("surface_air_pressure", "state"),
            ("toa_incident_solar_radiation", "forcing"),
        ]
        assert sample.valid[:, 2].all()
        ends = seconds(2019, 3, 20, 12) + 3600.0 * np.arange(30)
        expected = solar.mean(np.stack([ends - 3600 * hours, ends], 1), "standard", LAT, LON)
        np.testing.assert_allclose(sample.values[:, 2, 0], expected, rtol=1e-6)
        assert sample.time.bounds is None
    noon = sample.values[:, 2, 0, list(LAT).index(0.0), list(LON).index(0.0)]
    assert noon.max() < 1361 * 1.01


def test_a_file_that_holds_the_forcing_keeps_its_own(tmp_path: Path) -> None:
    dataset = weather()
    dataset["tisr"] = (dataset.t2m * 0 + 3.6e6).assign_attrs(units="J m**-2")
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    source = Era5([tmp_path / "a.nc"], Era5.Options(split="train"))
    (sample,) = source.samples(source.plan().refs)
    assert sample.variables[1].role == "forcing"
    np.testing.assert_allclose(sample.values[:, 1], 1000.0)
    with pytest.raises(UserError, match=r"a\.nc holds toa_incident_solar_radiation already; leave out solar=true"):
        Era5([tmp_path / "a.nc"], Era5.Options(solar=True)).plan()


@pytest.mark.parametrize("bounded", [True, False])
def test_cmip6_takes_the_bounds_of_a_frame_or_its_instant_in_its_calendar(tmp_path: Path, bounded: bool) -> None:
    y, x = np.meshgrid(np.linspace(-60, 60, 5), np.linspace(0, 300, 6), indexing="ij")
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("time", None), ("bnds", 2), ("j", 5), ("i", 6)):
            file.createDimension(name, size)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 1850-01-01", "calendar": "360_day", "standard_name": "time"})
        time[:] = 15.25 + 30.0 * np.arange(12)
        if bounded:
            time.bounds = "time_bnds"
            file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = 30.0 * np.stack([np.arange(12), np.arange(1, 13)], axis=1)
        for name, unit, numbers in (("lat", "degrees_north", y), ("lon", "degrees_east", x)):
            file.createVariable(name, "f8", ("j", "i"))[:] = numbers
            file[name].units = unit
        tos = file.createVariable("tos", "f4", ("time", "j", "i"))
        tos.setncatts({"units": "degC", "coordinates": "lat lon"})
        tos[:] = 10.0
    source = Cmip6([tmp_path / "a.nc"], Cmip6.Options(solar=True, split="train"))
    (sample,) = source.samples(source.plan().refs)
    assert [v.name for v in sample.variables] == ["sea_surface_temperature", "toa_incident_solar_radiation"]
    months = 86400.0 * 30.0 * (np.arange(12) - 150 * 12)
    if bounded:
        expected = solar.mean(np.stack([months, months + 86400.0 * 30], 1), "360_day", y, x)
        assert sample.time.bounds is not None
    else:
        expected = solar.instantaneous(months + 86400.0 * 15.25, "360_day", y, x)
    np.testing.assert_allclose(sample.values[:, 1, 0], expected, rtol=1e-6)
