"""ESS-DIVE: tables equal to the csv module and NumPy; units, missing codes, offsets and places from the package; nothing is guessed."""

from __future__ import annotations

import csv
import functools
import json
import urllib.parse
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.formats.data_package import gather
from scigpt.data_prep.formats.package_files import Entry
from scigpt.data_prep.formats.unit_words import spelled_short
from scigpt.data_prep.source import Remote
from scigpt.data_prep.sources.ess_dive import EssDive
from scigpt.data_prep.sources.ess_dive_routes import EssDiveFetch
from scigpt.errors import UserError

read = functools.partial(samples_of, EssDive)
refused = functools.partial(refusal_of, EssDive)
COUNT = 60
STEP = 900
START = datetime(2022, 7, 25, 15, 0)
DOI = "doi:10.15485/1234567"


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def stamps(count: int = COUNT, step: int = STEP) -> list[str]:
    return [str(START + timedelta(seconds=step * i)) for i in range(count)]


def sensor(seed: int) -> list[list[object]]:
    """Rows of temperature and oxygen; some are -9999 or N/A."""
    rng = np.random.default_rng(seed)
    rows: list[list[object]] = [
        [f" {t}", f"{a:.3f}", f"{b:.2f}"] for t, a, b in zip(stamps(), rng.normal(15, 3, COUNT), rng.normal(8, 1, COUNT), strict=True)
    ]
    rows[3][1], rows[4][2], rows[5][1] = "-9999", "N/A", "-9999.0"
    return rows


BLOCK = [
    ["# HeaderRows_6"],
    ["# HeaderRows_Format: Column_Header; Unit; InstallationMethod_ID; Instrument_Summary"],
    ["# DateTime; YYYY-MM-DD hh:mm:ss UTC-08:00; N/A; clock of the logger"],
    ["# Water_Temperature; degree_celsius; {0}; PME miniDOT Logger, real"],
    ["# Dissolved_Oxygen; milligrams_per_liter; {0}; PME miniDOT Logger"],
]
DICTIONARY = [
    ["Column_or_Row_Name", "Unit", "Definition", "Data_Type"],
    ["DateTime", "YYYY-MM-DD hh:mm:ss", "When.", "date"],
    ["Water_Temperature", "degree_celsius", "Of the water.", "numeric"],
    ["Dissolved_Oxygen", "milligrams_per_liter", "In the water.", "numeric"],
]
INSTALLATIONS = [
    [
        "InstallationMethod_ID",
        "InstallationMethod_Description",
        "Latitude",
        "Longitude",
        "Site_ID",
        "Depth",
        "Depth_Reference",
        "Site_Type",
    ],
    ["Minidot_01", "On a rope.", "46.25", "-119.47", "S01", "150", "centimeters below water surface", "fresh water river [ENVO:01000297]"],
    ["Minidot_02", "On a rope.", "46.30", "-119.40", "S02", "150", "centimeters below water surface", "lake [ENVO:00000020]"],
]
FLMD = [
    ["File_Name", "File_Description", "Standard", "Missing_Value_Codes", "Header_Rows", "Column_or_Row_Name_Position"],
    ["*_data.csv", "Sensors of the river.", "ESS-DIVE Hydrologic Monitoring v1", "-9999; N/A", "1", "1"],
]


def hydro(folder: Path, sites: Sequence[int] = (1, 2)) -> Path:
    """A package of the hydrologic reporting format: a table for each sensor."""
    for s in sites:
        block = [[line[0].format(f"Minidot_0{s}")] for line in BLOCK]
        write(folder / f"s{s}_data.csv", [*block, ["DateTime", "Water_Temperature", "Dissolved_Oxygen"], *sensor(s)])
    write(folder / "pkg_dd.csv", DICTIONARY)
    write(folder / "InstallationMethods.csv", INSTALLATIONS)
    write(folder / "pkg_flmd.csv", FLMD)
    return folder


def plain(
    folder: Path, data: Sequence[Sequence[object]], units: dict[str, str], flmd: dict[str, str] | None = None, name: str = "met.csv"
) -> Path:
    """A package with one table of Site_ID, a list of sites, a dictionary and, where asked for, file-level metadata."""
    write(folder / name, data)
    write(folder / "met_dd.csv", [["name", "unit", "definition"], *([k, u, "."] for k, u in units.items())])
    write(folder / "sites.csv", [["Site_ID", "Latitude", "Longitude"], ["A", "40", "-105"], ["B", "41", "-106"]])
    if flmd:
        write(folder / "flmd.csv", [["file_name", "file_description", *flmd], [name, "weather", *flmd.values()]])
    return folder


def table(utc: str = "DateTime_UTC", step: int = STEP, count: int = 12, sites: str = "AB") -> list[list[object]]:
    rows: list[list[object]] = [[utc, "Site_ID", "Air_Temperature", "Notes"]]
    for s in sites:
        rows += [[t, s, f"{i + (s == 'B') * 0.5:g}", "fine"] for i, t in enumerate(stamps(count, step))]
    return rows


UNITS = {"DateTime_UTC": "YYYY-MM-DD hh:mm:ss", "Site_ID": "N/A", "Air_Temperature": "degree_celsius", "Notes": "N/A"}


def independent(rows: Sequence[Sequence[object]], column: int) -> np.ndarray:
    cells = [str(r[column]) for r in rows]
    return np.array([np.nan if c in ("-9999", "-9999.0", "N/A") else float(c) for c in cells])


def one(samples: list[Sample]) -> Sample:
    assert len(samples) == 1
    return samples[0]


def test_values_times_places_and_levels_equal_the_csv_module(tmp_path: Path) -> None:
    sample = one(read(hydro(tmp_path), split="train"))
    assert [(v.key, v.unit) for v in sample.variables] == [
        ("water_temperature@1.5mdepth", "degC"),
        ("dissolved_oxygen@1.5mdepth", "mg l**-1"),
    ]
    for x in range(2):
        for c in range(2):
            expected = independent(sensor(x + 1), c + 1)
            np.testing.assert_array_equal(sample.valid[:, c, 0, 0, x], np.isfinite(expected))
            np.testing.assert_allclose(sample.values[:, c, 0, 0, x], np.nan_to_num(expected), rtol=1e-6)
    began = START.replace(tzinfo=timezone(timedelta(hours=-8))).astimezone(UTC)
    assert sample.time.labels()[:2] == [(began + timedelta(seconds=i)).strftime("%Y-%m-%dT%H:%M:%S") for i in (0, STEP)]
    assert sample.time.bounds is None
    assert sample.coordinates["latitude"].values.tolist() == [46.25, 46.30]
    assert sample.coordinates["longitude"].values.tolist() == [-119.47, -119.40]
    assert sample.origin.about["stations"] == ["S01", "S02"]
    assert sample.origin.about["site_type"] == ["fresh water river [ENVO:01000297]", "lake [ENVO:00000020]"]
    assert "Water_Temperature: PME miniDOT Logger, real" in sample.origin.about["instruments"][0]


def test_a_zip_and_a_folder_give_the_same(tmp_path: Path) -> None:
    folder = hydro(tmp_path / "package")
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"package/{path.name}")
    a, b = one(read(folder, split="train")), one(read(tmp_path / "package.zip", split="train"))
    np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_array_equal(a.valid, b.valid)
    assert a.variables == b.variables


def test_metadata_outside_a_zip_hold_for_its_tables(tmp_path: Path) -> None:
    folder = hydro(tmp_path)
    with zipfile.ZipFile(folder / "tables.zip", "w") as archive:
        for path in sorted(folder.glob("*_data.csv")):
            archive.write(path, path.name)
            path.unlink()
    assert one(read(folder, split="train")).origin.about["stations"] == ["S01", "S02"]


@pytest.mark.parametrize("name", ["../evil.csv", "/evil.csv", "a/../../evil.csv"])
def test_a_zip_whose_names_lead_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        archive.writestr(name, "a,b\n")
    assert "leads out of it" in refused(tmp_path / "package.zip")


def test_a_package_becomes_a_corpus(tmp_path: Path) -> None:
    source = EssDive([hydro(tmp_path / "in")], EssDive.Options(split="train"))
    sample = Corpus.open(convert(source, tmp_path / "out", progress=False)).read("train", 0)
    np.testing.assert_allclose(
        sample.values[:, 0, 0, 0, 0][sample.valid[:, 0, 0, 0, 0]].mean(), np.nanmean(independent(sensor(1), 1)), rtol=1e-5
    )


# units


def test_a_table_without_units_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data.csv", table())
    assert "data.csv has no units" in refused(tmp_path / "data.csv", latitude=1.0, longitude=2.0)


def test_a_column_without_a_unit_is_refused_by_name_unless_it_is_skipped_or_told(tmp_path: Path) -> None:
    folder = plain(tmp_path, table(), {**UNITS, "Air_Temperature": ""})
    sentence = refused(folder)
    assert "Air_Temperature has no unit" in sentence
    assert "units=Air_Temperature:UNIT" in sentence
    assert one(read(folder, split="train", units=("Air_Temperature:degF",))).values[0, 0, 0, 0, 0] == pytest.approx(255.372, abs=1e-3)
    assert "no station" in refused(folder, skip=("air_*",))


def test_header_and_dictionary_must_say_the_same_unit(tmp_path: Path) -> None:
    folder = hydro(tmp_path)
    write(folder / "pkg_dd.csv", [*DICTIONARY[:2], ["Water_Temperature", "degree_fahrenheit", ".", "numeric"], DICTIONARY[3]])
    assert "Water_Temperature is in 'degree_celsius'" in refused(folder)
    write(folder / "pkg_dd.csv", [*DICTIONARY[:2], ["Water_Temperature", "Celsius", ".", "numeric"], DICTIONARY[3]])
    assert read(folder, split="train")


def test_the_dictionary_of_a_file_goes_before_that_of_all(tmp_path: Path) -> None:
    folder = plain(tmp_path, table(), UNITS)
    write(folder / "dd.csv", [["Column_or_Row_Name", "Unit", "Definition"], ["Air_Temperature", "kelvin", "elsewhere"]])
    assert one(read(folder, split="train")).values[0, 0, 0, 0, 0] == pytest.approx(273.15)
    (folder / "met_dd.csv").rename(folder / "all_dd.csv")
    assert "correct one of them" in refused(folder)


@pytest.mark.parametrize(
    ("words", "short"),
    [
        ("milligrams_per_liter", "mg l**-1"),
        ("degree_celsius", "degC"),
        ("microsiemens_per_centimeter", "uS cm**-1"),
        ("meters_above_mean_sea_level_NAVD88", "m"),
        ("grams_O2_per_square_meter_per_day", "g m**-2 day**-1"),
        ("cubic meters per second", "m**3 s**-1"),
        ("percent_saturation", "percent"),
        ("meters_of_H2O", "meters_of_H2O"),
        ("umol/m2/s", "umol/m2/s"),
    ],
)
def test_units_in_words(words: str, short: str) -> None:
    assert spelled_short(words) == short


def test_sure_names_become_quantities_and_temperature_alone_does_not(tmp_path: Path) -> None:
    rows = [["DateTime_UTC", "Site_ID", "Rainfall", "Discharge", "Temperature", "pH"], *([t, "A", "2", "3", "4", "7"] for t in stamps(12))]
    units = {**UNITS, "Rainfall": "millimeters", "Discharge": "liters_per_second", "Temperature": "degree_celsius", "pH": "pH"}
    sample = one(read(plain(tmp_path, rows, units), split="train"))
    assert [(v.name, v.unit) for v in sample.variables] == [
        ("precipitation_amount", "kg m**-2"), ("discharge", "l s**-1"), ("temperature", "degC"), ("ph", "1"),
    ]  # fmt: skip
    np.testing.assert_allclose(sample.values[0, :, 0, 0, 0], [2, 3, 4, 7], rtol=1e-6)


# missing values, flags


def test_codes_of_missing_values_come_from_dictionary_and_file_level_metadata(tmp_path: Path) -> None:
    rows = table()
    rows[1][2], rows[2][2], rows[3][2], rows[4][2] = "-9999", "-77.0", "BDL", ""
    folder = plain(tmp_path, rows, UNITS, {"missing_value_codes": "-77|BDL"})
    np.testing.assert_array_equal(one(read(folder, split="train")).valid[:6, 0, 0, 0, 0], [False, False, False, False, True, True])
    (folder / "flmd.csv").unlink()
    assert "line 4, column Air_Temperature: 'BDL' is not a number" in refused(folder)
    write(folder / "met_dd.csv", [["name", "unit", "definition", "missing_value_code"], ["Air_Temperature", "degC", ".", "-77|BDL"]])
    assert one(read(folder, split="train")).valid[:6, 0, 0, 0, 0].sum() == 2


def test_flagged_values_stay_unless_their_codes_are_given(tmp_path: Path) -> None:
    rows = [["DateTime_UTC", "Site_ID", "Air_Temperature", "Wind_Speed", "DataFlag_Air_Temperature"]]
    rows += [[t, "A", "1", "2", "bad" if i == 4 else ""] for i, t in enumerate(stamps(12))]
    folder = plain(tmp_path, rows, {**UNITS, "Wind_Speed": "m/s"})
    assert one(read(folder, split="train")).valid.all()
    valid = one(read(folder, split="train", flags=("bad",))).valid[:, :, 0, 0, 0]
    assert (~valid).sum() == 1
    assert not valid[4, 0]


# times


def test_the_offset_from_utc_comes_from_header_name_or_metadata_and_is_never_guessed(tmp_path: Path) -> None:
    expected = {"DateTime_UTC": "2022-07-25T15:00:00", "DateTime_PST": "2022-07-25T23:00:00"}
    for name, label in expected.items():
        assert one(read(plain(tmp_path / name, table(name), {**UNITS, name: ""}), split="train")).time.labels()[0] == label
    folder = plain(tmp_path / "none", table("DateTime"), UNITS)
    assert "nobody says where its clock hangs" in refused(folder)
    assert one(read(folder, split="train", utc_offset="+05:30")).time.labels()[0] == "2022-07-25T09:30:00"
    folder = plain(tmp_path / "flmd", table("DateTime"), UNITS, {"utc_offset": "-7"})
    assert one(read(folder, split="train")).time.labels()[0] == "2022-07-25T22:00:00"
    folder = plain(tmp_path / "two", table("DateTime_UTC"), UNITS, {"utc_offset": "-7"})
    assert "different offsets" in refused(folder)
    rows = [[f"{r[0]}-06:00" if i else r[0], *r[1:]] for i, r in enumerate(table("DateTime"))]
    assert one(read(plain(tmp_path / "own", rows, UNITS), split="train")).time.labels()[0] == "2022-07-25T21:00:00"


def test_a_form_of_time_that_is_not_iso_is_read_as_the_dictionary_says(tmp_path: Path) -> None:
    rows = [["Date", "Time", "Site_ID", "Air_Temperature"]]
    rows += [[f"07/0{1 + i // 4}/2022", f"{6 * (i % 4):02d}:00", "A", str(i)] for i in range(12)]
    units = {"Date": "MM/DD/YYYY", "Time": "hh:mm UTC", "Air_Temperature": "degC"}
    labels = one(read(plain(tmp_path, rows, units), split="train")).time.labels()
    assert labels[1] == "2022-07-01T06:00:00"
    assert labels[-1] == "2022-07-03T18:00:00"
    rows[6][0] = "25/07/2022"
    assert "met.csv, line 7: the time reads '25/07/2022 06:00'" in refused(plain(tmp_path, rows, units))


def test_dates_are_local_days_and_first_days_are_months(tmp_path: Path) -> None:
    days = [["Date", "Site_ID", "Air_Temperature"], *([f"2022-07-{d:02d}", "A", "1"] for d in range(1, 13))]
    sample = one(read(plain(tmp_path / "d", days, UNITS), split="train"))
    assert np.asarray(sample.time.bounds)[0].tolist() == [(datetime(2022, 7, 1 + i) - datetime(2000, 1, 1)).total_seconds() for i in (0, 1)]
    months = [["Date", "Site_ID", "Air_Temperature"], *([f"2022-{m:02d}-01", "A", "1"] for m in range(1, 13))]
    sample = one(read(plain(tmp_path / "m", months, UNITS), split="train"))
    assert len(sample.time) == 12
    assert np.diff(np.asarray(sample.time.bounds)[1])[0] == 28 * 86400


def test_what_a_stamp_means_comes_from_its_definition(tmp_path: Path) -> None:
    folder = plain(tmp_path, table(), UNITS)
    for word, first in (("start", "2022-07-25T15:07:30"), ("end", "2022-07-25T14:52:30")):
        rows = [
            ["name", "unit", "definition"],
            ["DateTime_UTC", "N/A", f"The time stamp indicates the {word} of the 15 minute averaging period."],
        ]
        write(folder / "met_dd.csv", [*rows, ["Air_Temperature", "degC", "."]])
        assert one(read(folder, split="train")).time.labels()[0] == first
    assert one(read(folder, split="train", stamp="instant")).time.bounds is None


def test_gaps_stay_gaps_and_steps_must_be_regular(tmp_path: Path) -> None:
    rows = table(sites="A")
    del rows[5:7]
    sample = one(read(plain(tmp_path / "gap", rows, UNITS), split="train"))
    assert np.flatnonzero(~sample.valid[:, 0, 0, 0, 0]).tolist() == [4, 5]
    rows[8][0] = str(START + timedelta(seconds=9 * STEP + 4))
    folder = plain(tmp_path / "off", rows, UNITS)
    assert "lies 4 s beside the steps of 900 s" in refused(folder)
    assert one(read(folder, split="train", tolerance=5)).valid.sum() == 10


def test_two_rows_of_one_instant_need_a_column_that_tells_them_apart(tmp_path: Path) -> None:
    rows = [["DateTime_UTC", "Site_ID", "Sensor_ID", "pH"]]
    rows += [[t, "A", s, f"{7 + (s == 'q')}"] for t in stamps(12) for s in "pq"]
    folder = plain(tmp_path, rows, {"pH": "pH"})
    assert "two rows of A at 2022-07-25T15:00:00" in refused(folder)
    sample = one(read(folder, split="train", site="Sensor_ID", latitude=1.0, longitude=2.0))
    np.testing.assert_array_equal(sample.values[0, 0, 0, 0], [7, 8])


def test_tables_of_different_steps_are_told_apart(tmp_path: Path) -> None:
    folder = plain(tmp_path, table(), UNITS)
    write(folder / "hourly.csv", table(step=3600))
    write(folder / "hourly_dd.csv", [["name", "unit", "definition"], ["Air_Temperature", "degC", "."]])
    assert "different clocks" in refused(folder)
    assert len(one(read(folder, split="train", files=("hourly*",))).time) == 12


# header rows


@pytest.mark.parametrize(
    ("stated", "good"),
    [
        ({"header_rows": "1", "column_or_row_name_position": "1"}, True),
        ({"header_rows": "2"}, True),
        ({"header_rows": "4"}, False),
        ({"header_rows": "0"}, False),
        ({}, False),
    ],
)
def test_header_rows_may_be_counted_from_the_names_or_from_the_top(tmp_path: Path, stated: dict[str, str], good: bool) -> None:
    rows = table()
    rows.insert(1, ["UTC", "none", "degrees", "text"])
    folder = plain(tmp_path, rows, UNITS, stated or {"notes": "none"})
    if good:
        assert one(read(folder, split="train")).values[0, 0, 0, 0, 0] == pytest.approx(273.15)
    else:
        assert "expected a time of the form" in refused(folder)


def test_lines_above_the_names_are_passed_over_where_the_metadata_say_so(tmp_path: Path) -> None:
    rows = [["Weather of the hill", "", "", ""], ["Version 2", "", "", ""], *table()]
    for position in ("3", "2"):
        folder = plain(tmp_path / position, rows, UNITS, {"column_or_row_name_position": position})
        assert one(read(folder, split="train")).valid.all()
    assert "correct column_or_row_name_position" in refused(plain(tmp_path / "5", rows, UNITS, {"column_or_row_name_position": "5"}))


def test_a_wrong_count_of_header_rows_is_refused(tmp_path: Path) -> None:
    folder = hydro(tmp_path)
    path = folder / "s1_data.csv"
    path.write_text(path.read_text().replace("HeaderRows_6", "HeaderRows_7"))
    assert "says 7 header rows, and 6 are there" in refused(folder)


# places


def test_without_a_place_a_table_is_refused(tmp_path: Path) -> None:
    folder = hydro(tmp_path)
    (folder / "InstallationMethods.csv").unlink()
    assert "where s1_data lies is not said" in refused(folder)
    assert one(read(folder, split="train", latitude=1.0, longitude=2.0)).coordinates["latitude"].values.tolist() == [1.0, 1.0]


def test_a_place_in_the_rows_goes_before_others(tmp_path: Path) -> None:
    rows = [["DateTime_UTC", "Site_ID", "Latitude", "Longitude", "Air_Temperature"], *([t, "A", "12.5", "-3", "1"] for t in stamps(12))]
    sample = one(read(plain(tmp_path / "a", rows, UNITS), split="train"))
    assert sample.coordinates["latitude"].values.tolist() == [12.5]
    rows[4][2] = "13.5"
    assert "expected one place" in refused(plain(tmp_path / "b", rows, UNITS))


def test_columns_of_one_table_at_two_depths_keep_their_levels(tmp_path: Path) -> None:
    block = [
        ["# HeaderRows_5"],
        BLOCK[1],
        BLOCK[2],
        ["# Soil_Temperature_1; degree_celsius; T1; x"],
        ["# Soil_Temperature_2; degree_celsius; T2; x"],
    ]
    block[0] = ["# HeaderRows_6"]
    write(tmp_path / "soil.csv", [*block, ["DateTime", "Soil_Temperature_1", "Soil_Temperature_2"], *([t, "1", "2"] for t in stamps(12))])
    methods = [[*INSTALLATIONS[0], "Elevation", "Elevation_Reference"]]
    methods += [
        [f"T{n}", ".", "40", "-105", "A", d, "meters below ground surface", "soil", "1500", "meters above mean sea level (NAVD88)"]
        for n, d in ((1, "0.1"), (2, "0.5"))
    ]
    write(tmp_path / "InstallationMethods.csv", methods)
    sample = one(read(tmp_path, split="train"))
    assert [v.key for v in sample.variables] == ["soil_temperature_1@0.1mdepth", "soil_temperature_2@0.5mdepth"]
    assert sample.coordinates["height"].values.tolist() == [1500.0]


# the package, templates, damage


def described(folder: Path, licence: str = "https://creativecommons.org/licenses/by/4.0/") -> None:
    files = [{"name": p.name, "contentUrl": f"https://x/{p.name}", "contentSize": p.stat().st_size / 1024} for p in folder.iterdir()]
    dataset = {
        "@id": DOI,
        "name": "River",
        "license": licence,
        "datePublished": "2023",
        "distribution": files,
        "creator": [{"familyName": "Wan"}],
    }
    (folder / "package.jsonld").write_text(json.dumps({"id": "ess-dive-1", "dataset": dataset}))


def test_licence_authors_and_sizes_come_from_the_json_ld(tmp_path: Path) -> None:
    hydro(tmp_path / "one", [1])
    hydro(tmp_path / "two", [2])
    described(tmp_path / "one")
    described(tmp_path / "two", "http://creativecommons.org/publicdomain/zero/1.0/")
    a, b = read(tmp_path, split="train", layout="series")
    assert (a.origin.licence, b.origin.licence) == ("CC-BY-4.0", "CC0-1.0")
    assert "Wan (2023): River. ESS-DIVE, doi:10.15485/1234567" in a.origin.attribution
    assert a.origin.about["package"] == DOI
    lines = (tmp_path / "one" / "s1_data.csv").read_text().splitlines(keepends=True)
    (tmp_path / "one" / "s1_data.csv").write_text("".join(lines[:-5]))
    assert "package.jsonld says" in refused(tmp_path)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    folder = plain(tmp_path, table(), UNITS)
    write(folder / "samples.csv", [["Sample_ID", "Carbon"], ["1", "2"]])
    (folder / "grid.nc").write_bytes(b"CDF\x01" + bytes(40))
    (folder / "notes.pdf").write_bytes(b"%PDF")
    notes = EssDive([folder], EssDive.Options(split="train")).plan().notes
    assert any("samples.csv is left out: it has no column of time" in n for n in notes)
    assert any("grid.nc is left out" in n for n in notes)
    assert not any("pdf" in n for n in notes)


@pytest.mark.parametrize("name", ["HydroRF_Template_DataFile.csv", "HydroRF_Template_InstallationMethods.csv", "HydroRF_Template_dd.csv"])
def test_real_templates_are_told_as_such(name: str) -> None:
    sentence = refused(real(f"essdive/{name}"))
    assert name in sentence
    assert "template" in sentence


def test_a_template_without_its_notes_is_told_by_its_brackets(tmp_path: Path) -> None:
    lines = real("essdive/HydroRF_Template_DataFile.csv").read_text().splitlines(keepends=True)
    (tmp_path / "data.csv").write_text("".join(lines[1:-1]))
    assert "[INSERT total number of header rows" in refused(tmp_path / "data.csv")


def test_the_real_file_level_metadata_equal_the_csv_module_and_lead_to_a_table(tmp_path: Path) -> None:
    path = real("essdive/flmd_template_example.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        expected = list(csv.DictReader(file))
    notes = gather([Entry(path)]).files
    assert [n.file for n in notes] == [r["file_name"] for r in expected]
    assert [n.description for n in notes] == [r["file_description"] for r in expected]
    assert [(n.header_rows, n.position) for n in notes] == [
        (int(r["header_rows"] or 0) or None, int(r["column_or_row_name_position"] or 0) or None) for r in expected
    ]
    rows = table(step=86400, sites="A")
    folder = plain(tmp_path, [["Soil", "of", "the", "hill"], *rows], UNITS, name=expected[0]["file_name"])
    (folder / "met_dd.csv").rename(folder / "dd.csv")
    (folder / "flmd.csv").write_bytes(path.read_bytes())
    np.testing.assert_allclose(one(read(folder, split="train")).values[:, 0, 0, 0, 0], np.arange(12) + 273.15, rtol=1e-6)


def test_truncated_and_damaged_tables_are_refused(tmp_path: Path) -> None:
    folder = hydro(tmp_path / "p", [1])
    path = folder / "s1_data.csv"
    good = path.read_bytes()
    middle = good.index(b"2022-07-25 20:00:00")
    for bad, word in (
        (good[:-4], "ends within its last line"),
        (good[: good.rindex(b",") + 1] + b"\r\n", None),
        (good[: good.rindex(b",")] + b"\r\n", "2 cells; expected 3"),
        (good[:middle] + b"2\x00" + good[middle + 2 :], "bytes of zero"),
        (good[:middle] + b"2022-17" + good[middle + 7 :], "the time reads"),
        (good[:middle] + b"\xff" + good[middle + 1 :], "is not text in utf-8"),
        (good[: middle - 1] + b'"' + good[middle:], "cannot be read"),
        (good.replace(b"; degree_celsius", b""), "correct one"),
        (good[: good.index(b"DateTime,")], "no table"),
        (b"", "no table"),
    ):  # fmt: skip
        path.write_bytes(bad)
        if word is None:
            assert read(folder, split="train")[0].valid[-1, 1].sum() == 0
        else:
            assert word in refused(folder)
    path.write_bytes(good)
    (folder / "pkg_dd.csv").write_bytes((folder / "pkg_dd.csv").read_bytes()[:-12])
    assert "pkg_dd.csv, line 4: 3 cells under 4 names" in refused(folder)


def test_a_last_line_that_does_not_end_is_whole_where_the_size_is_known(tmp_path: Path) -> None:
    folder = hydro(tmp_path, [1])
    path = folder / "s1_data.csv"
    path.write_bytes(path.read_bytes()[:-2])
    assert "ends within its last line" in refused(folder)
    described(folder)
    assert one(read(folder, split="train")).valid[-1].all()


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    folder = hydro(tmp_path / "p", [1])
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(folder.iterdir()):
            archive.write(member, member.name)
        at = archive.getinfo("s1_data.csv").header_offset + 200
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :]):
        path.write_bytes(bad)
        refused(path)


def test_files_are_recognised_by_what_they_hold(tmp_path: Path) -> None:
    folder = hydro(tmp_path / "p")
    assert EssDive.recognises(folder)
    assert EssDive.recognises(folder / "s1_data.csv")
    assert EssDive.recognises(folder / "InstallationMethods.csv")
    assert not EssDive.recognises(write(tmp_path / "other.csv", [["time", "t"], [0, 1]]))
    assert not EssDive.recognises(tmp_path / "absent.csv")


# fetch


def answer(number: int, names: Sequence[str]) -> dict[str, object]:
    server = "https://data.ess-dive.lbl.gov/catalog/d1/mn/v2/object"
    files = [
        {"name": n, "contentUrl": f"{server}/{n}-{number}", "encodingFormat": "text/csv", "contentSize": 1402.1103515625} for n in names
    ]
    return {"id": f"ess-dive-{number}", "viewUrl": "https://x", "dataset": {"@id": f"doi:10.15485/{number}", "distribution": files}}


def serve(asked: list[str], url: str) -> bytes:
    asked.append(url)
    parts = urllib.parse.urlsplit(url)
    query = dict(urllib.parse.parse_qsl(parts.query))
    if parts.netloc.startswith("fusion"):
        results = [
            {"field_name": "x", "data_file_url": f"https://fusion.ess-dive.lbl.gov/api/v1/deepdive/doi:10.15485/{n}:a.csv"}
            for n in (1, 1, 2)
        ]
        return json.dumps({"results": results, "pageCount": 1}).encode()
    if query:
        row, size = int(query["rowStart"]), int(query["pageSize"])
        return json.dumps({"total": 3, "result": [{"id": f"ess-dive-{n}"} for n in range(row, min(row + min(size, 2), 4))]}).encode()
    return json.dumps(answer(int(parts.path.rpartition("-")[2].rpartition("/")[2]), ["a.csv", "b/../c.csv", "d.pdf"])).encode()


def test_remotes_of_a_package_bring_its_json_ld_and_files() -> None:
    asked: list[str] = []
    found = list(
        EssDive.remotes(EssDiveFetch(package=("https://doi.org/10.15485/7",), pattern=("*.csv",)), functools.partial(serve, asked))
    )
    assert asked == ["https://api.ess-dive.lbl.gov/packages/doi:10.15485/7"]
    assert found[0] == Remote("https://api.ess-dive.lbl.gov/packages/doi:10.15485/7", "ess-dive-7/package.jsonld")
    assert [(r.file, r.bytes) for r in found[1:]] == [("ess-dive-7/a.csv", 1435761), ("ess-dive-7/b_.._c.csv", 1435761)]
    assert found[1].url == "https://data.ess-dive.lbl.gov/catalog/d1/mn/v2/object/a.csv-7"


def test_searches_go_through_pages_and_deep_dive_finds_packages_by_field() -> None:
    asked: list[str] = []
    found = list(EssDive.remotes(EssDiveFetch(text="soil temperature", limit=3), functools.partial(serve, asked)))
    assert asked[0] == "https://api.ess-dive.lbl.gov/packages?text=soil+temperature&isPublic=true&rowStart=1&pageSize=3"
    assert "rowStart=3" in next(u for u in asked[1:] if "?" in u)
    assert sorted({r.file.partition("/")[0] for r in found}) == ["ess-dive-1", "ess-dive-2", "ess-dive-3"]
    found = list(EssDive.remotes(EssDiveFetch(field="Water_Temperature"), functools.partial(serve, [])))
    assert sorted({r.file.partition("/")[0] for r in found}) == ["ess-dive-1", "ess-dive-2"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"dataset": {"distribution": [{"name": "a"}]}}'])
def test_strange_answers_are_one_sentence(body: bytes) -> None:
    with pytest.raises(UserError, match="the answer of"):
        list(EssDive.remotes(EssDiveFetch(package=("1",)), lambda url: body))
    with pytest.raises(UserError, match="needs package="):
        list(EssDive.remotes(EssDiveFetch(), lambda url: body))
