"""Discharge: text of GRDC and NetCDF of Caravan equal to plain Python and netCDF4; missing days, units, doubles, rivers, damage."""

from __future__ import annotations

import csv
import functools
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from damage import HTML, PNG
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.doubles import same
from scigpt.data_prep.source import Plan
from scigpt.data_prep.sources.grdc import Grdc
from scigpt.errors import UserError

read = functools.partial(samples_of, Grdc)
ONE = {"split": "train", "frames_per_sample": 30000}


@dataclass
class Text:
    """A file as the portal sends it: DOS line ends, Latin-1, about 36 lines of `#`."""

    rows: Sequence[str]
    columns: str = " Value"
    content: str = "MEAN DAILY DISCHARGE (Q)"
    number: str = "6335020"
    latitude: str = "51.757"
    area: str = "159300.0"
    altitude: str = "11.3"
    downstream: str = "-"
    unit: str = "m\xb3/s"
    lines: int | None = None
    extra: str = ""

    def write(self, path: Path, encoding: str = "latin-1") -> Path:
        head = f"""\
# Title:                 GRDC STATION DATA FILE
#                        --------------
# Format:                DOS-ASCII
# Field delimiter:       ;
# missing values are indicated by -999.000
#
# file generation date:  2025-05-15
#
# GRDC-No.:              {self.number}
# River:                 RHINE
# Station:               REES
# Country:               DE
# Latitude (DD):       {self.latitude}
# Longitude (DD):      6.395
# Catchment area (km\xb2):      {self.area}
# Altitude (m ASL):        {self.altitude}
# Next downstream station:      {self.downstream}
# Remarks:
# Owner of original data: Germany - Federal Institute of Hydrology (BfG)
#************************************************************
#
# Data Set Content:      {self.content}
#                        --------------------
# Unit of measure:                  {self.unit}
# Time series:           1990-02 - 1990-03
# No. of years:          1
# Last update:           2018-05-24
#
{self.extra}# Table Header:
#     YYYY-MM-DD - Date
#     hh:mm      - Time
#************************************************************
#
# Data lines: {len(self.rows) if self.lines is None else self.lines}
# DATA
YYYY-MM-DD;hh:mm;{self.columns}
"""
        text = head + "".join(f"{row}\n" for row in self.rows)
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
        return path


def daily(first: str, values: Sequence[float]) -> list[str]:
    return [f"{np.datetime64(first) + n};--:--; {v:10.3f}" for n, v in enumerate(values)]


def flow(count: int, seed: int = 0) -> np.ndarray:
    """Floods and their recession, mm/d as float32."""
    draw = np.random.default_rng(seed)
    found = np.empty(count)
    level = 1.0
    for i in range(count):
        level = 0.93 * level + (draw.exponential(4.0) if draw.random() < 0.15 else 0.0)
        found[i] = level
    return found.astype(np.float32)


UNITS = (
    "temperature_2m: 2m air temperature [\xb0C]\nsurface_pressure: Surface pressure [kPa]\ntotal_precipitation: Total precipitation [mm]\n"
    "streamflow: Observed streamflow [mm/d]"
)
PLACES = {"GRDC_1": (50.0, 7.0, 1500.0), "GRDC_2": (51.0, 8.0, 300.0), "camels_9": (50.01, 7.01, 1520.0)}


def basin(path: Path, streamflow: np.ndarray, first: str = "1980-01-01", seed: int = 0, **also: np.ndarray) -> Path:
    """A file of one basin, as the archive holds it: no unit at the variables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("date", streamflow.size)
        date = file.createVariable("date", "i8", ("date",))
        date.setncatts({"units": f"days since {first} 00:00:00", "calendar": "proleptic_gregorian"})
        date[:] = np.arange(streamflow.size)
        file.setncatts({"Timezone": "Europe/Berlin", "Units": UNITS})
        for name, values in {
            "streamflow": streamflow,
            "total_precipitation_sum": draw.exponential(3, streamflow.size),
            "temperature_2m_mean": draw.normal(10, 5, streamflow.size),
            "temperature_2m_max": draw.normal(15, 5, streamflow.size),
            "dewpoint_temperature_2m_mean": draw.normal(5, 5, streamflow.size),
            "surface_pressure_mean": draw.normal(98, 1, streamflow.size),
            "surface_pressure_max": draw.normal(99, 1, streamflow.size),
            "potential_evaporation_sum_ERA5_LAND": draw.exponential(9, streamflow.size),
            "potential_evaporation_sum_FAO_PENMAN_MONTEITH": draw.exponential(3, streamflow.size),
            **also,
        }.items():
            variable = file.createVariable(name, "f4", ("date",), fill_value=np.float32(np.nan), zlib=True)
            variable[:] = values
    return path


def attributes(folder: Path, ids: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{i},{PLACES[i][2]},Germany,{PLACES[i][0]},{PLACES[i][1]},NAME OF {i}\n" for i in ids]
    (folder / "attributes_other_grdc.csv").write_text("gauge_id,area,country,gauge_lat,gauge_lon,gauge_name\n" + "".join(rows))
    heights = [f"{i},{-999 if i == 'GRDC_2' else 42}\n" for i in ids]
    (folder / "attributes_additional_grdc.csv").write_text("gauge_id,altitude\n" + "".join(heights))


def archive(folder: Path, flows: Mapping[str, np.ndarray]) -> Path:
    """An unpacked archive."""
    for seed, (id_, values) in enumerate(flows.items()):
        basin(folder / "timeseries" / "netcdf" / "grdc" / f"{id_}.nc", values, seed=seed)
    attributes(folder / "attributes" / "grdc", list(flows))
    (folder / "licenses").mkdir()
    (folder / "licenses" / "license_grdc.md").write_text("CC-BY-4.0\n")
    return folder


def planned(inputs: list[Path], **options: Any) -> tuple[Plan, list[Sample]]:
    source = Grdc(inputs, Grdc.Options(**{**ONE, **options}))
    plan = source.plan()
    return plan, [s for s in source.samples(plan.refs) if s is not None]


def channel(sample: Sample, key: str) -> int:
    return [v.key for v in sample.variables].index(key)


# the real files


def test_the_real_text_equals_plain_python() -> None:
    path = real("grdc/test_file_grdc_Q_Day.Cmd.txt")
    (sample,) = read(path, **ONE)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split(";") for line in lines[lines.index("# DATA") + 2 :]]
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, 0], [float(r[2]) for r in rows])
    assert [label[:10] for label in sample.time.labels()] == [r[0] for r in rows]
    assert [(v.name, v.unit, v.role) for v in sample.variables] == [
        ("river_discharge", "m**3 s**-1", "state"), ("catchment_area", "m**2", "static"),
    ]  # fmt: skip
    assert sample.valid.all()
    np.testing.assert_allclose(sample.values[:, 1], 123465.0e6, rtol=1e-7)
    assert {n: float(c.values[0]) for n, c in sample.coordinates.items()} == {
        "latitude": 12.3456789, "longitude": 12.3456789, "height": 1234.0,
    }  # fmt: skip
    assert sample.origin.about["stations"] == ["123456789"]
    assert sample.origin.about["river"] == ["TEST RIVER"]
    assert "Ministry of Testing" in sample.origin.attribution
    assert Grdc([path]).redistributable is False


def test_the_real_caravan_equals_netcdf4_in_its_units() -> None:
    path = real("grdc/test_caravan_file.nc")
    (sample,) = read(path, **ONE)
    with netCDF4.Dataset(path) as file:
        assert file["dewpoint_temperature_2m_mean"].unit == "-"
        expected = {
            "runoff_flux": file["streamflow"][:].data.astype(float) / 86400,
            "precipitation_amount": file["total_precipitation_sum"][:].data.astype(float),
            "air_temperature@2m": file["temperature_2m_mean"][:].data.astype(float) + 273.15,
            "air_temperature_maximum@2m": file["temperature_2m_max"][:].data.astype(float) + 273.15,
            "air_temperature_minimum@2m": file["temperature_2m_min"][:].data.astype(float) + 273.15,
            "dew_point_temperature@2m": file["dewpoint_temperature_2m_mean"][:].data.astype(float) + 273.15,
            "surface_air_pressure": file["surface_pressure_mean"][:].data.astype(float) * 1000,
            "eastward_wind@10m": file["u_component_of_wind_10m_mean"][:].data.astype(float),
            "northward_wind@10m": file["v_component_of_wind_10m_mean"][:].data.astype(float),
            "surface_net_downward_shortwave_flux": file["surface_net_solar_radiation_mean"][:].data.astype(float),
            "surface_net_downward_longwave_flux": file["surface_net_thermal_radiation_mean"][:].data.astype(float),
            "surface_snow_amount": file["snow_depth_water_equivalent_mean"][:].data.astype(float),
            "water_potential_evaporation_amount": file["potential_evaporation_sum"][:].data.astype(float),
            **{
                f"soil_water_content@{d}mdepth": file[f"volumetric_soil_water_layer_{i}_mean"][:].data.astype(float)
                for i, d in enumerate((0.035, 0.175, 0.64, 1.945), 1)
            },
            "catchment_area": np.repeat(file["area"][:].data[:, None], 366, 1) * 1e6,
        }
        places = [file[n][:].data for n in ("lat", "lon")]
        ids = ["".join(c.decode() for c in row if c).strip() for row in file["basin_id"][:].data]
    assert {v.key for v in sample.variables} == set(expected)
    for c, variable in enumerate(sample.variables):
        np.testing.assert_allclose(sample.values[:, c, 0, 0].T, expected[variable.key], rtol=3e-7, err_msg=variable.key)
    assert sample.valid.all()
    assert {v.role for v in sample.variables if v.name == "runoff_flux"} == {"state"}
    assert {v.role for v in sample.variables if v.name not in ("runoff_flux", "catchment_area")} == {"forcing"}
    for name, values in zip(("latitude", "longitude"), places, strict=True):
        np.testing.assert_array_equal(sample.coordinates[name].values, values)
    assert sample.origin.about["stations"] == ids
    assert sample.time.labels()[0] == "1981-01-01T12:00:00"
    np.testing.assert_array_equal(np.diff(sample.time.seconds), 86400.0)
    assert Grdc([path]).redistributable is True


# text


def test_missing_days_are_gaps_and_days_that_do_not_exist_are_dropped(tmp_path: Path) -> None:
    rows = [
        "1990-02-27;--:--;     10.500", "1990-02-28;--:--;   -999.000", "1990-02-29;--:--;    -10.000", "1990-02-30;--:--;    -10.000",
        "1990-03-01;--:--;      0.000", "1990-03-02;--:--;     -2.500", "1990-03-04;--:--;     12.250",
    ]  # fmt: skip
    (sample,) = read(Text(rows).write(tmp_path / "a.txt"), **ONE)
    assert [label[:10] for label in sample.time.labels()] == [f"1990-{d}" for d in ("02-27", "02-28", "03-01", "03-02", "03-03", "03-04")]
    np.testing.assert_array_equal(sample.valid[:, 0, 0, 0, 0], [True, False, True, True, False, True])
    np.testing.assert_array_equal(sample.values[sample.valid[:, 0, 0, 0, 0], 0, 0, 0, 0], [10.5, 0.0, -2.5, 12.25])
    rows[3] = "1990-02-30;--:--;     11.000"
    text = refusal_of(Grdc, Text(rows).write(tmp_path / "a.txt"))
    assert "line 40: expected a date that exists" in text


def test_an_unknown_area_or_altitude_is_unknown_and_an_unknown_place_is_refused(tmp_path: Path) -> None:
    rows = daily("1990-01-01", range(1, 9))
    (sample,) = read(Text(rows, area="-999.0", altitude="-999.0").write(tmp_path / "a.txt"), **ONE)
    assert [v.name for v in sample.variables] == ["river_discharge"]
    assert "height" not in sample.coordinates
    assert "no latitude and longitude" in refusal_of(Grdc, Text(rows, latitude="-999.0").write(tmp_path / "a.txt"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_headers_of_any_length_and_encoding(encoding: str, tmp_path: Path) -> None:
    path = Text(daily("1990-01-01", range(1, 9)), extra="# Remarks: l\xe4nger\n" * 9).write(tmp_path / "a.txt", encoding)
    (sample,) = read(path, **ONE)
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0, 0], np.arange(1, 9))
    assert "its unit of measure is" in refusal_of(Grdc, Text(daily("1990-01-01", [1, 2, 3]), unit="l/s").write(tmp_path / "b.txt"))


def test_months_calculated_from_enough_days_or_as_their_providers_say(tmp_path: Path) -> None:
    rows = [
        "1990-01-00;--:--;   10.0;   11.0;  100", "1990-02-00;--:--;   20.0;   21.0;   50", "1990-03-00;--:--; -999.0;   31.0;   95",
        "1990-04-00;--:--;   40.0; -999.0;    0", "1990-05-00;--:--;   50.0;   51.0;   99",
    ]  # fmt: skip
    table = Text(rows, " Original; Calculated; Flag", "MEAN MONTHLY DISCHARGE (MQ)")
    path = table.write(tmp_path / "a_Q_Month.txt")
    for options, expected in (
        ({}, [11.0, np.nan, 31.0, np.nan, 51.0]),
        ({"min_days": 40.0}, [11.0, 21.0, 31.0, np.nan, 51.0]),
        ({"column": "original"}, [10.0, 20.0, np.nan, 40.0, 50.0]),
    ):
        (sample,) = read(path, **ONE, **options)
        np.testing.assert_array_equal(np.where(sample.valid, sample.values, np.nan)[:, 0, 0, 0, 0], expected)
        assert [label[:10] for label in sample.time.labels()][:2] == ["1990-01-16", "1990-02-15"]
        assert sample.time.bounds is not None
        np.testing.assert_array_equal(np.diff(sample.time.bounds)[:, 0] / 86400, [31, 28, 31, 30, 31])
    table.number, table.rows = "7", [r.replace("21.0", "-999.0").replace("11.0", "-999.0") for r in rows[:2]]
    plan, _ = planned([path, table.write(tmp_path / "b_Q_Month.txt")])
    assert any("1 stations have no calculated value (7); column=original" in n for n in plan.notes)
    days = Text(daily("1990-01-01", range(1, 9))).write(tmp_path / "c_Q_Day.Cmd.txt")
    assert "the other months; prepare them as two corpora" in refusal_of(Grdc, [path, days])


def test_values_that_their_provider_advises_against_are_gaps(tmp_path: Path) -> None:
    rows = ["1990-01-01;--:--; 1.0; 2.0; -999", "1990-01-02;--:--; 3.0; 4.0;   99", "1990-01-03;--:--; 5.0; 6.0;    1"]
    path = Text(rows, " Original; Calculated; Flag").write(tmp_path / "a.txt")
    for column, expected in (("calculated", [2.0, np.nan, 6.0]), ("original", [1.0, np.nan, 5.0])):
        (sample,) = read(path, column=column, **ONE)
        np.testing.assert_array_equal(np.where(sample.valid, sample.values, np.nan)[:, 0, 0, 0, 0], expected)


def test_gauges_of_one_river_stay_in_one_split(tmp_path: Path) -> None:
    paths = []
    for n in range(12):  # six rivers of two gauges, 5 degrees apart
        below = "-" if n % 2 else str(101 + n)
        text = Text(daily("1990-01-01", flow(40, n)), number=str(100 + n), latitude=str(-60 + 10 * n), downstream=below)
        paths.append(text.write(tmp_path / f"{n}.txt"))
    _, samples = planned(paths, split=None, split_by="station", splits=(0.5, 0.25, 0.25), stations_per_sample=1)
    source = Grdc(paths, Grdc.Options(split_by="station", splits=(0.5, 0.25, 0.25), layout="series"))
    plan = source.plan()
    home = {s.origin.place: ref.split for ref, s in zip(plan.refs, source.samples(plan.refs), strict=True) if s is not None}
    assert set(home.values()) == {"train", "valid", "test"}
    assert all(home[str(100 + n)] == home[str(101 + n)] for n in range(0, 12, 2))
    assert samples


# Caravan


def test_an_archive_unpacked_and_in_its_zip(tmp_path: Path) -> None:
    flows = {"GRDC_1": flow(400, 1), "GRDC_2": np.where(np.arange(400) < 50, np.nan, flow(400, 2))}
    folder = archive(tmp_path / "GRDC_Caravan_extension_nc", flows)
    packed = tmp_path / "GRDC_Caravan_extension_nc.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(tmp_path).as_posix())
    found = [planned([given]) for given in (folder, packed, folder / "timeseries" / "netcdf" / "grdc")]
    for plan, (sample,) in found:
        np.testing.assert_array_equal(sample.values, found[0][1][0].values)
        np.testing.assert_array_equal(sample.valid, found[0][1][0].valid)
        assert sample.coordinates.keys() == {"latitude", "longitude", "height"}
        np.testing.assert_array_equal(sample.coordinates["height"].values, [42.0, np.nan])
        assert any("climate indices" in n for n in plan.notes)
    (sample,) = found[0][1]
    for i, id_ in enumerate(flows):
        raw = flows[id_].astype(np.float64)
        good = np.isfinite(raw)
        np.testing.assert_array_equal(sample.valid[:, 0, 0, 0, i], good)
        np.testing.assert_allclose(sample.values[good, 0, 0, 0, i], raw[good] / 86400, rtol=2e-7)
        with netCDF4.Dataset(folder / "timeseries" / "netcdf" / "grdc" / f"{id_}.nc") as file:
            for key, name, factor, offset in (
                ("dew_point_temperature@2m", "dewpoint_temperature_2m_mean", 1, 273.15),
                ("surface_air_pressure", "surface_pressure_mean", 1000, 0),
                ("water_potential_evaporation_amount", "potential_evaporation_sum_ERA5_LAND", 1, 0),
                ("water_potential_evaporation_amount_penman_monteith", "potential_evaporation_sum_FAO_PENMAN_MONTEITH", 1, 0),
            ):  # fmt: skip
                expected = file[name][:].data.astype(np.float64) * factor + offset
                np.testing.assert_allclose(sample.values[:, channel(sample, key), 0, 0, i], expected, rtol=3e-7)
        np.testing.assert_allclose(sample.values[:, channel(sample, "catchment_area"), 0, 0, i], PLACES[id_][2] * 1e6, rtol=1e-7)
    assert sample.origin.licence == "CC-BY-4.0"
    assert "GRDC-Caravan" in sample.origin.attribution
    assert sample.origin.about["timezone"] == ["Europe/Berlin"] * 2
    for options in ({"stations": ("GRDC_1",)}, {"box": (49.0, 50.5, 6.0, 8.0)}):
        for given in (folder, packed):
            _, (chosen,) = planned([given], variables=("runoff_flux",), **options)
            assert chosen.origin.about["stations"] == ["GRDC_1"]
            assert [v.name for v in chosen.variables] == ["runoff_flux"]


def test_a_unit_that_the_file_states_wins(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", {"GRDC_1": flow(40)})
    path = folder / "timeseries" / "netcdf" / "grdc" / "GRDC_1.nc"

    def pressure(listed: str, own: str = "") -> np.ndarray:
        with netCDF4.Dataset(path, "a") as file:
            file.Units = listed
            file["surface_pressure_mean"].unit = own
        _, (sample,) = planned([folder])
        return sample.values[:, channel(sample, "surface_air_pressure"), 0, 0, 0]

    with netCDF4.Dataset(path) as file:
        stored = file["surface_pressure_mean"][:].data.astype(np.float64)
    in_list = UNITS.replace("[kPa]", "[Pa]")
    for listed, own, factor in ((UNITS, "", 1000), ("", "", 1000), (in_list, "", 1), (in_list, "hPa", 100), ("", "-", 1000)):
        np.testing.assert_allclose(pressure(listed, own), stored * factor, rtol=2e-7)
    with netCDF4.Dataset(path, "a") as file:
        file.Units = UNITS.replace("[mm/d]", "[m3/s]")
    assert "the unit 'm3/s' cannot be converted" in refusal_of(Grdc, folder)


def test_a_basin_without_a_place_is_refused(tmp_path: Path) -> None:
    path = basin(tmp_path / "GRDC_1.nc", flow(40))
    assert "attributes_other_*.csv" in refusal_of(Grdc, path)
    attributes(tmp_path / "tables", ["GRDC_1"])
    table = tmp_path / "tables" / "attributes_other_grdc.csv"
    for inputs, options in (([path, table], {}), ([path], {"places": str(table)})):
        (sample,) = read(inputs, **ONE, **options)
        assert float(sample.coordinates["latitude"].values[0]) == 50.0


def test_a_table_of_places_that_is_not_there_is_refused_and_one_that_is_of_no_use_noted(tmp_path: Path) -> None:
    path = Text(daily("1990-01-01", range(1, 9))).write(tmp_path / "a.txt")
    assert "nowhere.csv is no file; expected attributes_other_*.csv" in refusal_of(Grdc, path, places=str(tmp_path / "nowhere.csv"))
    attributes(tmp_path, ["GRDC_1"])
    plan = Grdc([path], Grdc.Options(places=str(tmp_path / "attributes_other_grdc.csv"))).plan()
    assert any("places= is not used" in note for note in plan.notes)


def test_text_and_caravan_are_two_corpora(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", {"GRDC_1": flow(40)})
    text = Text(daily("1990-01-01", range(1, 9))).write(tmp_path / "a.txt")
    assert "two corpora" in refusal_of(Grdc, [folder, text])


def test_a_part_under_another_licence_says_so(tmp_path: Path) -> None:
    path = basin(tmp_path / "lamahice_5.nc", flow(40))
    (tmp_path / "attributes_other_lamahice.csv").write_text("gauge_id,gauge_lat,gauge_lon\nlamahice_5,65,-18\n")
    (sample,) = read([path, tmp_path / "attributes_other_lamahice.csv"], **ONE)
    assert sample.origin.licence == "CC-BY-NC-4.0"
    assert "catchment_area" not in {v.name for v in sample.variables}


# doubles


def test_a_gauge_of_two_collections_is_used_once(tmp_path: Path) -> None:
    whole = flow(900, 3)
    part = np.round(whole * (1500.0 / 1520.0), 2)  # by another area, and rounded
    part[:300] = np.nan
    folder = archive(tmp_path / "a", {"GRDC_1": whole, "GRDC_2": flow(900, 4), "camels_9": part})
    plan, (sample,) = planned([folder])
    assert sample.origin.about["stations"] == ["GRDC_1", "GRDC_2"]
    assert any("1 stations are left out as doubles of others (camels_9 of GRDC_1)" in n for n in plan.notes)
    _, (sample,) = planned([folder], duplicates="keep")
    assert sample.origin.about["stations"] == ["GRDC_1", "GRDC_2", "camels_9"]


def test_neighbours_on_one_river_are_no_doubles(tmp_path: Path) -> None:
    upper = flow(900, 3)
    lower = upper * np.random.default_rng(0).normal(1.0, 0.05, 900).astype(np.float32)
    assert np.corrcoef(upper, lower)[0, 1] > 0.98
    _, (sample,) = planned([archive(tmp_path / "a", {"GRDC_1": upper, "camels_9": lower})])
    assert sample.origin.about["stations"] == ["GRDC_1", "camels_9"]


def test_what_counts_as_the_same_series() -> None:
    a = flow(900, 5).astype(np.float64)
    assert same(a, a)
    assert same(np.round(a, 2), np.round(a, 1))
    assert same(a, np.round(a * 1.1, 3), scaled=True)
    assert not same(a, a * 1.1)
    assert not same(a, a * 1.5, scaled=True)
    assert not same(a, a + 0.3 * np.sin(np.arange(900)))
    assert not same(a[:300], a[:300])
    assert not same(np.zeros(900), np.zeros(900))
    assert not same(np.zeros(900), np.zeros(900), scaled=True)
    assert not same(np.ones(900), np.ones(900), scaled=True)
    few = np.round(np.random.default_rng(1).uniform(0, 0.03, 900), 2)
    assert not same(few, np.round(few * 0.9 + 0.002, 2), scaled=True)


# damage


def test_damaged_text_is_one_sentence(tmp_path: Path) -> None:
    rows = daily("1990-01-01", np.arange(1.0, 30.0))
    good = Text(rows).write(tmp_path / "good.txt").read_bytes()
    at = good.index(b"1990-01-05")
    line = good[:at].count(b"\n") + 1
    spoilt = {
        "half": (good[: len(good) // 2], "truncated"),
        "end": (good[:-5], "truncated"),
        "rows": (good[: good.index(b"1990-01-20")], "19 lines of data and its header says 29"),
        "header": (good[:900], "truncated"),
        "no data": (good[:900] + b"\r\n", "no line '# DATA'"),
        "number": (good.replace(b" 5.000", b" 5.0x0"), f"line {line}: expected a number in column 3"),
        "digit": (good[:at] + b"1990-0q-05" + good[at + 10 :], f"line {line}: expected a date as YYYY-MM-DD"),
        "order": (good[:at] + b"1990-01-03" + good[at + 10 :], f"line {line}: expected a date after"),
        "hour": (good[:at] + b"1990-01-05;12:00" + good[at + 16 :], f"line {line}: expected --:--"),
        "fields": (good[:at] + b"1990-01-05,--:--" + good[at + 16 :], f"line {line}: expected 3 fields"),
        "columns": (good.replace(b"YYYY-MM-DD;hh:mm; Value", b"day;hh:mm; Value"), "has the columns"),
        "page": (HTML, "neither"),
        "image": (PNG, "neither"),
        "empty": (b"", "empty"),
    }
    for name, (data, words) in spoilt.items():
        path = tmp_path / f"{name.replace(' ', '_')}.txt"
        path.write_bytes(data)
        found = refusal_of(Grdc, path)
        assert words in found, found
        assert path.name in found


def test_damaged_netcdf_is_one_sentence(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", {"GRDC_1": flow(4000)})
    path = folder / "timeseries" / "netcdf" / "grdc" / "GRDC_1.nc"
    good = path.read_bytes()
    for data in (good[: len(good) // 2], good[:-900], HTML, b""):
        path.write_bytes(data)
        assert path.name in refusal_of(Grdc, path)
    for change, words in (("hours since never", "its dates are in"), ("hours since 1980-01-01", "is no day after")):
        path.write_bytes(good)
        with netCDF4.Dataset(path, "a") as file:
            file["date"].units = change
        assert words in refusal_of(Grdc, folder)
    path.write_bytes(good)
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("streamflow", "q")
    assert "neither" in refusal_of(Grdc, folder)
    packed = tmp_path / "x_nc.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/timeseries/netcdf/grdc/GRDC_1.nc", good)
        file.write(folder / "attributes" / "grdc" / "attributes_other_grdc.csv", "x/attributes/grdc/attributes_other_grdc.csv")
    data = packed.read_bytes()
    assert len(read(packed, **ONE)) == 1
    middle = len(data) // 3
    for spoilt in (data[: len(data) // 2], data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]):
        packed.write_bytes(spoilt)
        assert packed.name in refusal_of(Grdc, packed)
    (folder / "attributes" / "grdc" / "attributes_other_grdc.csv").write_text("gauge_id,gauge_lat,gauge_lon\nGRDC_1,99,7\n")
    path.write_bytes(good)
    assert "expected a latitude" in refusal_of(Grdc, folder)


@pytest.mark.parametrize("name", ["grdc/test_caravan_file.nc", "grdc/test_file_grdc_Q_Day.Cmd.txt"])
def test_real_files_that_are_cut_off_are_refused(name: str, tmp_path: Path) -> None:
    data = real(name).read_bytes()
    path = tmp_path / Path(name).name
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        assert path.name in refusal_of(Grdc, path)


# the rest of the interface


def test_recognised_by_content(tmp_path: Path) -> None:
    text = Text(daily("1990-01-01", [1, 2, 3])).write(tmp_path / "a.dat")
    file = basin(tmp_path / "GRDC_1.nc", flow(9))
    assert Grdc.recognises(text)
    assert Grdc.recognises(file)
    assert Grdc.recognises(tmp_path)
    with netCDF4.Dataset(tmp_path / "other.nc", "w") as other:
        other.createDimension("time", 2)
        other.createVariable("tas", "f4", ("time",))
    for name, data in (("x", HTML), ("y.zip", PNG), ("z", b""), ("broken.nc", file.read_bytes()[:300])):
        (tmp_path / name).write_bytes(data)
        assert not Grdc.recognises(tmp_path / name)
    assert not Grdc.recognises(tmp_path / "other.nc")
    assert not Grdc.recognises(tmp_path / "nothing")


def test_what_is_fetched() -> None:
    record = {
        "id": 15349031,
        "metadata": {"title": "GRDC-Caravan", "license": {"id": "cc-by-4.0"}},
        "files": [
            {
                "key": f"GRDC_Caravan_extension_{form}.zip", "size": 7580000000, "checksum": "md5:0123456789abcdef0123456789abcdef",
                "links": {"self": f"https://zenodo.org/api/records/15349031/files/GRDC_Caravan_extension_{form}.zip/content"},
            }
            for form in ("csv", "nc")
        ],
    }  # fmt: skip
    asked = []

    def get(url: str) -> bytes:
        asked.append(url)
        return json.dumps(record).encode()

    (remote,) = Grdc.remotes(Grdc.Fetch(), get)
    assert asked == ["https://zenodo.org/api/records/15349031"]
    assert (remote.file, remote.bytes) == ("GRDC_Caravan_extension_nc.zip", 7580000000)
    assert remote.url == "https://zenodo.org/api/records/15349031/files/GRDC_Caravan_extension_nc.zip/content"
    assert remote.checksum == "md5:0123456789abcdef0123456789abcdef"
    with pytest.raises(UserError, match="portal of GRDC sends files by mail"):
        list(Grdc.remotes(Grdc.Fetch(route="portal"), get))
    with pytest.raises(UserError, match=r"has GRDC_Caravan_extension_csv.zip"):
        list(Grdc.remotes(Grdc.Fetch(files="shapes"), get))
    with pytest.raises(UserError, match="did not answer with a record"):
        list(Grdc.remotes(Grdc.Fetch(record="1"), lambda url: b"{}"))


def test_a_corpus_of_text_is_not_to_be_redistributed(tmp_path: Path) -> None:
    path = Text(daily("1980-01-01", flow(400) + 1)).write(tmp_path / "6335020_Q_Day.Cmd.txt")
    out = convert(Grdc([path], Grdc.Options(frames_per_sample=100)), tmp_path / "out", progress=False)
    corpus = Corpus.open(out)
    assert corpus.manifest["redistributable"] is False
    assert set(corpus.splits) == {"train", "valid", "test"}
    assert corpus.read("train", 0).origin.licence.startswith("GRDC data policy")


def test_a_corpus_of_caravan(tmp_path: Path) -> None:
    folder = archive(tmp_path / "a", {"GRDC_1": flow(400, 1), "GRDC_2": flow(400, 2)})
    out = convert(Grdc([folder], Grdc.Options(frames_per_sample=100)), tmp_path / "out", progress=False)
    corpus = Corpus.open(out)
    assert corpus.manifest["redistributable"] is True
    sample = corpus.read("train", 0)
    assert sample.values.shape[3:] == (1, 2)
    table = list(csv.DictReader(io.StringIO((folder / "attributes" / "grdc" / "attributes_other_grdc.csv").read_text())))
    assert sample.origin.about["name"] == [r["gauge_name"] for r in table]
