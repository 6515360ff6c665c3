"""ARM: equal to netCDF4 and to arithmetic; two layouts of place and quality, the interval of each time, validation only."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from damage import HTML, PNG, cut, protected
from readings import real, refusal_of, samples_of
from servers import ABOUT, QUICK, Answer, Page, web

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Level, Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.fetch import Network, fetch, look
from scigpt.data_prep.fetch.armlive import ArmLive
from scigpt.data_prep.source import Remote, parse_options
from scigpt.data_prep.sources.arm import Arm
from scigpt.errors import UserError

CLOUDS = "arm/layout_sgparmbecldradC1.c1.20200101.nc"
FLUXES = "arm/sgp30ecorE14.b1.20190601.000000.cdf"
WEATHER = "arm/sgpmetE13.b1.20190101.000000.cdf"
EPOCH = 946684800
"""2000-01-01 in seconds since 1970."""

read = functools.partial(samples_of, Arm, frames_per_sample=2000)
refusal = functools.partial(refusal_of, Arm)


def stored(path: Path, name: str) -> np.ndarray:
    """As it stands in the file, -9999 as NaN."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        values = np.asarray(file[name][...], np.float64)
    return np.where(values == -9999, np.nan, values)


def column(sample: Sample, key: str) -> np.ndarray:
    """Values of the first station with NaN in the gaps."""
    index = [v.key for v in sample.variables].index(key)
    return np.where(sample.valid, sample.values, np.nan)[:, index, 0, 0, 0]


def bounds(sample: Sample) -> np.ndarray:
    """Seconds since 1970."""
    assert sample.time.bounds is not None
    return sample.time.bounds + EPOCH


def arm(path: Path, variables: dict[str, Any], **told: Any) -> Path:
    """A file of ARM: six hours, a place, and variables `name: (dimensions, values, attributes)`."""
    told = {"lat": 36.6, "lon": -97.5, "lat_units": "degree_N", "lon_units": "degree_E", "attrs": {}, "step": 3600, "first": 1800, **told}
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts(told["attrs"])
        file.createDimension("time", None)
        times = told["first"] + told["step"] * np.arange(6.0)
        file.createVariable("base_time", "i4")[...] = 1577836800
        file["base_time"].units = "seconds since 1970-1-1 0:00:00 0:00"
        for name in ("time_offset", "time"):
            file.createVariable(name, "f8", ("time",))[:] = times
            file[name].units = "seconds since 2020-1-1 00:00:00.00, GMT"
        for name in ("lat", "lon"):
            file.createVariable(name, "f4")[...] = told[name]
            file[name].units = told[f"{name}_units"]
        for name, (dims, values, attrs) in variables.items():
            values = np.asarray(values)
            for dim, size in zip(dims, values.shape, strict=True):
                if dim not in file.dimensions:
                    file.createDimension(dim, size)
            file.createVariable(name, values.dtype, dims)[...] = values
            file[name].setncatts(attrs)
    return path


def cloud(values: Any, qc: Any = None, **attrs: Any) -> dict[str, Any]:
    """Surface temperature (the simplest variable) and its quality."""
    found = {"temperature_sfc": (("time",), np.asarray(values, np.float32), {"units": "K", "missing_value": np.float32(-9999)})}
    return found if qc is None else {**found, "qc_temperature_sfc": (("time",), np.asarray(qc), attrs)}


BEST = "sgparmbeatmC1.c1.20200101.003000.nc"


# --- the real files


def test_real_weather_equals_netcdf4_in_the_units_of_the_registry() -> None:
    path = real(WEATHER)
    (sample,) = read(path)
    get = functools.partial(stored, path)
    expected = {
        "surface_air_pressure": get("atmos_pressure") * 1000,
        "air_temperature": get("temp_mean") + 273.15,
        "relative_humidity": get("rh_mean"),
        "vapour_pressure": get("vapor_pressure_mean") * 1000,
        "wind_speed": get("wspd_arith_mean"),
        "precipitation_amount": get("tbrg_precip_total_corr"),
        "precipitation_flux": get("pwd_precip_rate_mean_1min") / 3600,
    }
    assert [v.key for v in sample.variables] == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(column(sample, key), values, rtol=2e-7, err_msg=key)
    for name, coordinate in {"lat": "latitude", "lon": "longitude", "alt": "height"}.items():
        np.testing.assert_array_equal(sample.coordinates[coordinate].values, [get(name)])
    assert sample.origin.about["stations"] == ["sgp.E13"]


def test_trap_the_times_of_the_weather_are_the_ends_of_their_minutes() -> None:
    path = real(WEATHER)
    (sample,) = read(path)
    ends = 1546300800 + stored(path, "time_offset")
    np.testing.assert_array_equal(bounds(sample), np.stack([ends - 60, ends], 1))
    (other,) = read(path, stamp="begin")
    np.testing.assert_array_equal(bounds(other)[:, 0], ends)


def test_real_fluxes_equal_netcdf4_and_a_missing_value_without_a_fill_value_is_a_gap() -> None:
    path = real(FLUXES)
    (sample,) = read(path)
    get = functools.partial(stored, path)
    expected = {
        "surface_air_pressure": get("atm_pres") * 1000,
        "wind_speed": get("wind_spd"),
        "surface_upward_sensible_heat_flux": get("h"),
        "surface_upward_latent_heat_flux": get("lv_e"),
        "surface_upward_mole_flux_of_carbon_dioxide": get("fc") * 1e-6,
        "friction_velocity": get("ustar"),
    }
    quality = dict(zip(expected, ("atm_pres", "wind_spd", "h", "lv_e", "fc", "ustar"), strict=True))
    assert {v.key for v in sample.variables} == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(column(sample, key), np.where(get(f"qc_{quality[key]}") == 0, values, np.nan), rtol=2e-7, err_msg=key)
    assert np.isnan(expected["friction_velocity"]).any()
    begins = 1559347200 + get("time_offset")
    np.testing.assert_array_equal(bounds(sample), np.stack([begins, begins + 1800], 1))


def test_clouds_are_channels_at_the_levels_of_the_file_and_time_is_centred() -> None:
    path = real(CLOUDS)
    (sample,) = read(path, heights=())
    height, fraction, flags = stored(path, "height"), stored(path, "cld_frac"), stored(path, "qc_cld_frac")
    assert [v.level for v in sample.variables] == [Level("height", round(float(h), 2)) for h in height]
    values = np.where(sample.valid, sample.values, np.nan)[:, :, 0, 0, 0]
    np.testing.assert_allclose(values, np.where(flags == 0, fraction / 100, np.nan), rtol=1e-6)
    assert (flags == 2).any()
    (doubtful,) = read(path, heights=(), quality="indeterminate")
    np.testing.assert_array_equal(doubtful.valid[:, :, 0, 0, 0], np.isin(flags, (0, 2)) & np.isfinite(fraction))
    centre = 1577836800 + stored(path, "time_offset")
    np.testing.assert_array_equal(bounds(sample), np.stack([centre - 1800, centre + 1800], 1))
    (few,) = read(path, heights=(1000.0, 1100.0, 9000.0, 90000.0))
    assert [v.level.value for v in few.variables if v.level] == [1000.0, 9000.0]
    assert few.origin.about["levels"] == [
        {"cloud_area_fraction_in_layer@1000m": [1022.61], "cloud_area_fraction_in_layer@9000m": [8786.09]}
    ]
    np.testing.assert_allclose(column(few, "cloud_area_fraction_in_layer@1000m"), values[:, np.argmin(abs(height - 1000))])
    assert "doi:10.5439/1333228" in few.origin.attribution


@pytest.mark.parametrize("name", [CLOUDS, FLUXES, WEATHER])
def test_a_damaged_copy_of_a_real_file_is_refused(name: str, tmp_path: Path) -> None:
    whole, path = real(name).read_bytes(), tmp_path / Path(name).name
    spoilt = {**{f"cut at {s:.0%}": cut(whole, s) for s in (0.0, 0.3, 0.98)}, "HTML": HTML, "PNG": PNG}
    for about, data in spoilt.items():
        path.write_bytes(data)
        assert path.name.split(".")[0] in refusal(path), about
    path.write_bytes(whole)
    (before,) = read(path, heights=())
    for start, end in protected(path)[-3:]:
        at = (start + end) // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            (after,) = read(path, heights=())
        except UserError:
            continue
        np.testing.assert_array_equal(after.values, before.values)


# --- layouts


def test_trap_old_files_write_west_and_south_as_positive_numbers(tmp_path: Path) -> None:
    path = arm(
        tmp_path / "twpcmbeC3.c1.20200101.000000.cdf",
        cloud([280.0] * 6),
        lat=12.425,
        lat_units="degrees_south",
        lon=130.9,
        lon_units="degrees_east",
    )
    (sample,) = read(path)
    assert sample.coordinates["latitude"].values[0] == np.float32(-12.425)
    assert sample.coordinates["longitude"].values[0] == np.float32(130.9)
    path = arm(
        tmp_path / "sgpcmbeC1.c1.20200101.000000.cdf", cloud([280.0] * 6), lat_units="degrees_north", lon=97.485, lon_units="degrees_west"
    )
    assert read(path)[0].coordinates["longitude"].values[0] == np.float32(-97.485)
    path = arm(tmp_path / "sgpcmbeC1.c1.20200102.000000.cdf", cloud([280.0] * 6), lon=-97.485, lon_units="degrees_west")
    assert "could mean either side" in refusal(path)


def test_trap_old_quality_is_a_number_with_a_sign_and_new_quality_is_bits(tmp_path: Path) -> None:
    values = [280.0, 281.0, 282.0, 283.0, -9999.0, 285.0]
    old = arm(tmp_path / BEST, cloud(values, np.array([0, -1, -2, 0, 0, -9999], np.float32)))
    for quality, kept in {"good": [0, 3], "indeterminate": [0, 1, 3], "any": [0, 1, 2, 3, 5]}.items():
        assert np.flatnonzero(read(old, quality=quality)[0].valid).tolist() == kept, quality
    told = {"bit_1_assessment": "Bad", "bit_2_assessment": "Indeterminate", "bit_4_assessment": "Indeterminate"}
    bits = arm(tmp_path / BEST, cloud(values, np.array([0, 1, 2, 10, 0, 4], np.int32), flag_method="bit", **told))
    for quality, kept in {"good": [0], "indeterminate": [0, 2, 3], "any": [0, 1, 2, 3, 5]}.items():
        assert np.flatnonzero(read(bits, quality=quality)[0].valid).tolist() == kept, quality  # bit 3 is assessed by nobody
    everywhere = {f"qc_{k}": v for k, v in told.items()}
    of_file = arm(tmp_path / BEST, cloud(values, np.array([0, 1, 2, 3, 0, 8], np.int32)), attrs=everywhere)
    assert np.flatnonzero(read(of_file, quality="indeterminate")[0].valid).tolist() == [0, 2, 5]
    numbers = {"flag_method": "integer", "flag_1_assessment": "Bad", "flag_3_assessment": "Indeterminate"}
    integer = arm(tmp_path / BEST, cloud(values, np.array([0, 1, 3, 2, 0, 0], np.int32), **numbers))
    assert np.flatnonzero(read(integer, quality="indeterminate")[0].valid).tolist() == [0, 2, 5]


def test_trap_minus_9999_is_a_gap_whatever_the_attributes_say(tmp_path: Path) -> None:
    path = arm(
        tmp_path / BEST,
        {
            "pressure_sfc": (
                ("time",),
                np.array([980.0, -9999, 981, -888, 982, 983], np.float32),
                {"units": "hPa", "missing_value": np.float32(-888)},
            )
        },
    )
    (sample,) = read(path)
    np.testing.assert_allclose(column(sample, "surface_air_pressure"), [98000, np.nan, 98100, np.nan, 98200, 98300])


def test_trap_the_two_copies_of_time_must_agree_and_calendars_are_checked(tmp_path: Path) -> None:
    path = arm(tmp_path / BEST, cloud([280.0] * 6))
    assert bounds(read(path)[0])[0].tolist() == [1577836800, 1577840400]  # centred, as best estimates are, also without bounds
    with netCDF4.Dataset(path, "a") as file:
        file["time"].calendar = "proleptic_gregorian"
    assert len(read(path)) == 1
    with netCDF4.Dataset(path, "a") as file:
        file["time"].calendar = "360_day"
    assert "'360_day'" in refusal(path)
    with netCDF4.Dataset(path, "a") as file:
        file["time"].calendar = "gregorian"
        file["time"][3] = 1.0
    assert "do not agree" in refusal(path)


def test_bounds_tell_the_interval_and_must_enclose_the_times(tmp_path: Path) -> None:
    edges = np.array([[0.0, 3600.0]]) + 3600 * np.arange(6)[:, None]
    path = arm(tmp_path / "sgpotherC1.c1.20200101.nc", {**cloud([280.0] * 6), "time_bounds": (("time", "bound"), edges, {})}, first=3600)
    assert bounds(read(path)[0])[0].tolist() == [1577836800, 1577840400]
    path = arm(tmp_path / "sgpotherC1.c1.20200101.nc", {**cloud([280.0] * 6), "time_bounds": (("time", "bound"), edges + 7200, {})})
    assert "does not enclose" in refusal(path)
    path = arm(tmp_path / "sgpotherC1.c1.20200101.nc", cloud([280.0] * 6), first=3600)
    assert "state it with stamp=" in refusal(path)
    assert bounds(read(path, stamp="end")[0])[0].tolist() == [1577836800, 1577840400]
    (instant,) = read(path, stamp="instant")
    assert instant.time.bounds is None
    assert instant.time.seconds[0] + EPOCH == 1577840400


def test_soundings_units_and_what_is_left_out(tmp_path: Path) -> None:
    profile = np.arange(18, dtype=np.float32).reshape(6, 3) + 250
    radiation = {"units": "W m-2", "standard_name": "surface_downwelling_longwave_flux_in_air"}
    rate = {"precip_rate_sfc": (("time",), np.full(6, 3.6, np.float32), {"units": "mm/hour"})}
    variables = {
        **cloud([280.0] * 6), **rate,
        "pressure": (("pressure",), np.array([1000.0, 850.0, 700.0], np.float32), {"units": "hPa"}),
        "temperature_p": (("time", "pressure"), profile, {"units": "K"}),
        "pwv": (("time",), np.full(6, 2.5, np.float32), {"units": "cm"}),
        "wind_spd": (("time",), np.full(6, 2.5, np.float32), {"units": "furlong"}),
        "stdev_lwdn": (("time",), np.ones(6, np.float32), radiation),
        "radiation": (("time",), np.full(6, 300, np.float32), radiation),
    }  # fmt: skip
    path = arm(tmp_path / BEST, variables)
    (sample,) = read(path, pressures=(850.0, 690.0))
    expected = {
        "air_temperature": 280.0,
        "precipitation_flux": 0.001,
        "total_column_water_vapour": 25.0,
        "surface_downwelling_longwave_flux": 300.0,
    }
    for key, value in expected.items():
        np.testing.assert_allclose(column(sample, key), value, rtol=1e-6, err_msg=key)
    np.testing.assert_array_equal(column(sample, "air_temperature@850hPa"), profile[:, 1])
    np.testing.assert_array_equal(column(sample, "air_temperature@690hPa"), profile[:, 2])
    assert sample.origin.about["levels"] == [{"air_temperature@690hPa": [700.0]}]
    assert len(sample.variables) == 6
    assert any("wind_spd is left out" in n for n in Arm([path], Arm.Options()).plan().notes)


def surface(value: float, **attrs: Any) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
    return ("time",), np.full(6, value, np.float32), {"units": "W/m^2", **attrs}


def test_heat_fluxes_of_the_best_estimates_are_read_and_their_sign_is_what_the_file_says(tmp_path: Path) -> None:
    fluxes = {
        "sensible_heat_flux_baebbr": surface(-9999.0),
        "sensible_heat_flux_qcecor": surface(50.0),
        "latent_heat_flux_baebbr": surface(60.0),
        "latent_heat_flux_qcecor": surface(61.0),
        "lwp": surface(1.0, units="g/m2"),
        "stdev_lwp": surface(1.0, units="g/m2"),
    }
    path = arm(tmp_path / BEST, {**cloud([280.0] * 6), **fluxes})
    (sample,) = read(path)
    np.testing.assert_array_equal(column(sample, "surface_upward_sensible_heat_flux"), [50.0] * 6)
    np.testing.assert_array_equal(column(sample, "surface_upward_latent_heat_flux"), [60.0] * 6)
    notes = Arm([path]).plan().notes
    assert "armbeatm: sensible_heat_flux_baebbr is left out: it has no value" in notes
    assert "armbeatm: columns left out, because nothing of the registry is known for them: lwp" in notes
    old = "sgparmbeatmC1.c1.20050101.003000.cdf"
    for attrs, sign in (
        ({"long_name": "Surface sensible heat flux, positive upward, negative downward"}, 1),
        ({"long_name": "surface_upward_sensible_heat_flux"}, 1),
        ({"comment": "Negative values indicate upward fluxes"}, -1),
        ({"units": "W/m^2", "long_name": "sensible heat flux (positive toward the surface)"}, -1),
        ({"positive": "down"}, -1),
        ({"long_name": "sensible heat flux"}, 0),
    ):
        path = arm(tmp_path / old, {**cloud([280.0] * 6), "SH_baebbr": surface(50.0, **attrs)})
        (sample,) = read(path)
        if sign:
            np.testing.assert_array_equal(column(sample, "surface_upward_sensible_heat_flux"), [sign * 50.0] * 6, err_msg=str(attrs))
        else:
            assert [v.name for v in sample.variables] == ["air_temperature"]
            assert any("does not say whether heat that leaves the surface is positive" in n for n in Arm([path]).plan().notes)


def test_the_temperature_within_the_gas_analyser_is_not_that_of_the_air() -> None:
    notes = Arm([real(FLUXES)]).plan().notes
    assert "30ecor: temp_irga is left out: it is the temperature within the gas analyser, not that of the air" in notes
    (unknown,) = (n for n in notes if "columns left out" in n)
    listed = unknown.rpartition(": ")[2].split(", ")
    assert listed[:2] == ["mean_u", "mean_v"]
    assert not {n for n in listed if n.startswith(("qc_", "n_", "std_", "time"))}


def profile(path: Path, day: int, heights: np.ndarray) -> Path:
    clouds = np.tile(np.arange(heights.size, dtype=np.float32), (6, 1))
    return arm(
        path,
        {
            "height": (("height",), heights.astype(np.float32), {"units": "m", "long_name": "Height above ground"}),
            "cld_frac": (("time", "height"), clouds, {"units": "%"}),
        },
        first=1800 + 86400 * day,
    )


def test_trap_years_of_two_height_axes_are_one_channel_for_each_height_asked_for(tmp_path: Path) -> None:
    old, new = 105 + 45 * np.arange(40.0), 160 + 30 * np.arange(60.0)
    paths = [profile(tmp_path / f"sgparmbecldradC1.c1.{20200101 + n}.nc", n, h) for n, h in enumerate((old, new))]
    (sample,) = read(paths, heights=(500.0, 1000.0), frames_per_sample=48)
    assert [v.key for v in sample.variables] == ["cloud_area_fraction_in_layer@500m", "cloud_area_fraction_in_layer@1000m"]
    found = column(sample, "cloud_area_fraction_in_layer@500m")
    np.testing.assert_allclose(found[:6], np.argmin(abs(old - 500)) / 100, rtol=1e-6)
    np.testing.assert_allclose(found[24:], np.argmin(abs(new - 500)) / 100, rtol=1e-6)
    assert sample.origin.about["levels"] == [
        {"cloud_area_fraction_in_layer@500m": [490.0, 510.0], "cloud_area_fraction_in_layer@1000m": [1005.0]}
    ]
    assert "has 60 from 160 to 1930 and sgparmbecldradC1.c1.20200101.nc has 40 from 105 to 1860" in refusal(paths, heights=())
    assert len(read(paths[:1], heights=())[0].variables) == 40


def test_a_height_that_no_file_has_is_named(tmp_path: Path) -> None:
    path = profile(tmp_path / "sgparmbecldradC1.c1.20200101.nc", 0, 105 + 45 * np.arange(40.0))
    assert "its levels reach from 105 to 1860 m, none is near 1e+09" in refusal(path, heights=(1e9,))
    for wrong in (np.nan, -500.0):
        with pytest.raises(UserError, match=r"is no level; expected numbers from 0 on, in m$"):
            Arm.Options(heights=(wrong,))


@pytest.mark.parametrize("rows", [slice(0, 3, 2), slice(3, 4)], ids=["two rows an hour apart", "a single row"])
def test_a_short_day_has_the_step_of_its_datastream(rows: slice, tmp_path: Path) -> None:
    days = [arm(tmp_path / f"sgp30ecorE14.b1.2020010{n + 1}.cdf", cloud([280.0 + n] * 6), first=86400 * n, step=1800) for n in range(3)]
    with netCDF4.Dataset(days[1]) as whole, netCDF4.Dataset(tmp_path / "short.cdf", "w", format="NETCDF3_CLASSIC") as short:
        short.createDimension("time", None)
        for name, variable in whole.variables.items():
            made = short.createVariable(name, variable.dtype, variable.dimensions)
            made.setncatts({k: variable.getncattr(k) for k in variable.ncattrs()})
            made[...] = variable[...][rows] if variable.dimensions else variable[...]
    (tmp_path / "short.cdf").replace(days[1])
    (sample,) = read(days)
    begins = 1577836800 + 86400 + 1800 * np.arange(6)[rows]
    there = (bounds(sample)[:, 0] >= 1577836800 + 86400) & (bounds(sample)[:, 0] < 1577836800 + 2 * 86400) & sample.valid[:, 0, 0, 0, 0]
    np.testing.assert_array_equal(bounds(sample)[there], np.stack([begins, begins + 1800], 1))
    if len(begins) == 1:
        assert "give longer files of sgp30ecorE14.b1 beside it" in refusal(days[1])


def test_an_odd_file_does_not_make_the_clock_of_the_others_finer(tmp_path: Path) -> None:
    paths = [
        arm(tmp_path / f"sgp30ecorE14.b1.2020010{n + 1}.cdf", cloud([280.0] * 6), first=86400 * n, step=900 if n == 2 else 1800)
        for n in range(3)
    ]
    assert "values of two clocks" in refusal(paths)


def test_days_of_one_facility_are_one_station_and_two_clocks_are_refused(tmp_path: Path) -> None:
    whole = read(real(WEATHER))[0]
    second = tmp_path / "sgpmetE13.b1.20190102.000000.cdf"
    shutil.copyfile(real(WEATHER), second)
    with netCDF4.Dataset(second, "a") as file:
        file["base_time"][...] = 1546300800 + 86400
        for name in ("time", "time_offset"):
            file[name].units = "seconds since 2019-01-02 00:00:00 0:00"
    (both,) = read([second, real(WEATHER)], frames_per_sample=4000)
    np.testing.assert_array_equal(both.values[:1440], whole.values)
    np.testing.assert_array_equal(both.values[1440:], whole.values)
    assert "values of two clocks" in refusal([real(WEATHER), real(FLUXES)])


# --- the source as a whole


def test_it_is_for_validation_only(tmp_path: Path) -> None:
    assert Arm.describe().use == "validate"
    for split in ("train", None):
        with pytest.raises(UserError, match="for validation only"):
            Arm([real(WEATHER)], Arm.Options(split=split))
    source = Arm([real(CLOUDS)], parse_options(Arm.Options, ["frames_per_sample=60", "heights=1000,5000"]))
    corpus = Corpus.open(convert(source, tmp_path / "corpus", progress=False))
    assert corpus.splits == ("test",)
    assert len(corpus.entries("test")) == 4
    assert corpus.read("test", 0).geometry == "points"


def test_recognised_by_content(tmp_path: Path) -> None:
    for name in (CLOUDS, FLUXES, WEATHER):
        assert Arm.recognises(real(name))
    for name, data in {"sgpmetE13.b1.20190101.cdf": HTML, "a.nc": b"", "b.nc": b"CDF\x01"}.items():
        (tmp_path / name).write_bytes(data)
        assert not Arm.recognises(tmp_path / name)
    assert not Arm.recognises(tmp_path)
    assert not Arm.recognises(real("ilamb/layout_gpp_grid.nc"))


def test_the_list_of_arm_live_is_asked_for_with_the_account_and_the_files_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_USER", "some.body")
    monkeypatch.setenv("ARM_TOKEN", "12+ab")
    asked: list[str] = []

    def get(url: str) -> bytes:
        asked.append(url)
        return json.dumps({"status": "success", "files": ["sgpmetE13.b1.20190102.000000.cdf", "sgpmetE13.b1.20190101.000000.cdf"]}).encode()

    options = parse_options(Arm.Fetch, ["datastreams=sgpmetE13.b1", "start=2019-01-01", "end=2019-01-02"])
    found = list(Arm.remotes(options, get))
    base = "https://adc.arm.gov/armlive/data"
    assert asked == [f"{base}/query?user=some.body:12%2Bab&ds=sgpmetE13.b1&start=2019-01-01&end=2019-01-02&wt=json"]
    assert [r.url for r in found] == [f"{base}/saveData?file=sgpmetE13.b1.2019010{d}.000000.cdf" for d in (1, 2)]
    assert {r.login for r in found} == {"arm"}
    assert found[0].file == "sgpmetE13.b1/sgpmetE13.b1.20190101.000000.cdf"
    for body, words in (
        (HTML, "check ARM_USER and ARM_TOKEN"),
        (b'{"files": []}', "no file of sgpmetE13"),
        (b'{"files": ["../x"]}', "expected names"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            list(Arm.remotes(options, lambda _, b=body: b))
        assert "12" not in str(caught.value).replace("2019", "")
    for wrong in (["datastreams=met"], ["start=2019"], ["server=https://example.org"]):  # the account has one place to go
        with pytest.raises(UserError):
            list(Arm.remotes(parse_options(Arm.Fetch, wrong), get))


def test_the_account_goes_to_its_own_host_over_tls_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_USER", "me")
    monkeypatch.setenv("ARM_TOKEN", "secret")
    account = ArmLive()
    assert (
        account.signed("https://adc.arm.gov/armlive/data/saveData?file=a")
        == "https://adc.arm.gov/armlive/data/saveData?user=me:secret&file=a"
    )
    for url in ("http://adc.arm.gov/armlive/data/saveData?file=a", "https://adc.arm.gov.example.org/x", "https://example.org/adc.arm.gov"):
        with pytest.raises(UserError, match="over https alone") as caught:
            account.signed(url)
        assert "secret" not in str(caught.value)
    monkeypatch.delenv("ARM_TOKEN")
    assert not account.available()
    with pytest.raises(UserError, match="needs an account; register at"):
        account.signed("https://adc.arm.gov/armlive/data/query")


def test_files_of_arm_live_are_fetched_and_the_token_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARM_USER", "me")
    monkeypatch.setenv("ARM_TOKEN", "secret")
    body = real(FLUXES).read_bytes()
    with web() as server:

        def answer(_: dict[str, str], query: dict[str, list[str]]) -> Answer:
            return (200, {}, body) if query == {"user": ["me:secret"], "file": ["sgp30ecorE14.b1.x.cdf"]} else (401, {}, b"")

        server.pages["/data/saveData"] = Page(answer=answer)
        base = server.url("/data")
        network = Network(QUICK, arm=ArmLive(base))
        remote = Remote(f"{base}/saveData?file=sgp30ecorE14.b1.x.cdf", "a/x.cdf", login="arm")
        listing = look([remote], tmp_path / "out", ABOUT, network)
        assert "secret" not in json.dumps(listing.summary())
        fetch(listing, network)
        assert (tmp_path / "out" / "a" / "x.cdf").read_bytes() == body
        assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
        monkeypatch.setenv("ARM_TOKEN", "wr0ng")
        with pytest.raises(UserError, match="does not accept the account") as caught:
            fetch(look([remote], tmp_path / "other", ABOUT, network), network)
        assert "wr0ng" not in str(caught.value)
        server.pages["/data/query"] = Page(answer=lambda *_: (403, {}, b"who is wr0ng?"))
        network = Network(QUICK, arm=ArmLive(base))
        with pytest.raises(UserError, match=r"does not accept the account \(403\); check it, or register") as caught:
            network.get(ArmLive(base).signed(f"{base}/query?ds=sgpmetE13.b1"))
        assert "wr0ng" not in str(caught.value)
        with pytest.raises(UserError, match="access is refused"):
            network.get(f"{base}/query?ds=sgpmetE13.b1")
