"""GHCN-daily: .dly and CSV equal to plain Python; flags, traces, totals of several days, places, and files that are damaged."""

from __future__ import annotations

import csv
import functools
import gzip
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from damage import HTML, PNG
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.formats import byte_text, ghcn_daily, ghcn_days
from scigpt.data_prep.sources.ghcn import Ghcn
from scigpt.errors import UserError

read = functools.partial(samples_of, Ghcn)
ONE = {"split": "train", "frames_per_sample": 30000}
Cell = tuple[int, str]  # a value, and its three flags
Table = Mapping[tuple[str, date, str], Cell]


def plain(value: int, flags: str = "  S") -> Cell:
    return value, flags


def dly(path: Path, table: Table) -> Path:
    """Records as the archive writes them: a month of one element of one station."""
    lines = []
    for id_, year, month, element in sorted({(i, d.year, d.month, e) for i, d, e in table}):
        cells = []
        for day in range(1, 32):
            try:
                value, flags = table.get((id_, date(year, month, day), element), (-9999, "   "))
            except ValueError:
                value, flags = -9999, "   "
            cells.append(f"{value:5d}{flags}")
        lines.append(f"{id_}{year:04d}{month:02d}{element}{''.join(cells)}\n")
    path.write_text("".join(lines))
    return path


def by_year(path: Path, table: Table, header: str = "", hours: str = "", order: int = 1) -> Path:
    rows = [
        f"{i},{d:%Y%m%d},{e},{v},{','.join(f.strip() for f in flags)},{hours}\n"
        for (i, d, e), (v, flags) in sorted(table.items(), key=lambda kv: kv[0][::order])
    ]
    data = (header + "".join(rows)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def places(folder: Path, stations: Mapping[str, tuple[float, float, float]]) -> Path:
    path = folder / "ghcnd-stations.txt"
    lines = (f"{i} {a:8.4f} {o:9.4f} {h:6.1f} {'NY'} {'NAME OF ' + i:30s} {'':3s} {'':3s} {'':5s}\n" for i, (a, o, h) in stations.items())
    path.write_text("".join(lines))
    return path


def days(first: str, count: int) -> list[date]:
    return [date.fromisoformat(first) + timedelta(n) for n in range(count)]


def column(sample: Sample, name: str, station: int = 0) -> dict[str, float]:
    """Valid values by date."""
    c = [v.name for v in sample.variables].index(name)
    labels = [label[:10] for label in sample.time.labels()]
    good = sample.valid[:, c, 0, 0, station]
    return {d: float(v) for d, v, ok in zip(labels, sample.values[:, c, 0, 0, station], good, strict=True) if ok}


A, B = "USW00094728", "GME00102380"
WHERE = {A: (40.7789, -73.9692, 42.7), B: (52.4639, 13.3017, -999.9)}


def weather(
    ids: Iterable[str], when: Iterable[date], elements: Iterable[str] = ("TMAX", "PRCP"), seed: int = 0
) -> dict[tuple[str, date, str], Cell]:
    draw = np.random.default_rng(seed)
    when = list(when)
    return {(i, d, e): plain(int(draw.integers(0, 300))) for i in ids for e in elements for d in when}


# the real files


def test_the_real_csv_equals_the_csv_module_and_flagged_values_are_gaps() -> None:
    path = real("ghcn/1763-1764.csv")
    (sample,) = read(path, **ONE)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {r["Q-FLAG"] for r in rows} == {"", "I"}
    for name, element in (("air_temperature_maximum", "TMAX"), ("air_temperature_minimum", "TMIN")):
        expected = {
            f"{r['YEAR/MONTH/DAY'][:4]}-{r['YEAR/MONTH/DAY'][4:6]}-{r['YEAR/MONTH/DAY'][6:]}": float(r["DATA VALUE"]) / 10 + 273.15
            for r in rows
            if r["ELEMENT"] == element and not r["Q-FLAG"]
        }
        found = column(sample, name)
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[d] for d in expected], list(expected.values()), rtol=2e-7)
    assert sample.geometry == "points"
    assert [float(sample.coordinates[n].values[0]) for n in ("latitude", "longitude", "height")] == [45.4717, 9.1892, 150.0]
    assert sample.time.labels()[0] == "1763-01-01T12:00:00"
    np.testing.assert_array_equal(np.diff(sample.time.seconds), 86400.0)
    assert sample.origin.about == {"stations": ["ITE00100554"], "name": ["MILAN"], "country": ["IT"], "network": ["ECA&D"]}


def plainly(path: Path) -> dict[tuple[str, str], Cell]:
    """Every value of a .dly by date and element, read character by character."""
    found = {}
    for line in path.read_text().splitlines():
        for day in range(31):
            cell = line[21 + 8 * day : 29 + 8 * day]
            if int(cell[:5]) != -9999:
                found[f"{line[11:15]}-{line[15:17]}-{day + 1:02d}", line[17:21]] = (int(cell[:5]), cell[5:])
    return found


@pytest.fixture(scope="module")
def ottawa(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, dict[tuple[str, str], Cell]]:
    path = real("ghcn/CA006105978.dly")
    where = places(tmp_path_factory.mktemp("places"), {"CA006105978": (45.3833, -75.7167, 79.2)})
    (sample,) = read(path, places=str(where), **ONE)
    return sample, plainly(path)


def test_the_real_dly_equals_its_characters(ottawa: tuple[Sample, dict[tuple[str, str], Cell]]) -> None:
    sample, cells = ottawa
    for element, name, factor, offset in (
        ("TMAX", "air_temperature_maximum", 0.1, 273.15), ("TMIN", "air_temperature_minimum", 0.1, 273.15),
        ("TAVG", "air_temperature", 0.1, 273.15), ("PRCP", "precipitation_amount", 0.1, 0.0),
        ("SNWD", "surface_snow_thickness", 0.001, 0.0), ("WSFG", "wind_speed_of_gust", 0.1, 0.0),
    ):  # fmt: skip
        expected = {d: v * factor + offset for (d, e), (v, flags) in cells.items() if e == element and flags[1] == " "}
        found = column(sample, name)
        assert found.keys() == expected.keys(), element
        np.testing.assert_allclose([found[d] for d in expected], list(expected.values()), rtol=2e-7, atol=1e-7)
    assert {v.name for v in sample.variables} == {
        "air_temperature_maximum", "air_temperature_minimum", "air_temperature", "precipitation_amount", "surface_snow_thickness",
        "wind_speed_of_gust",
    }  # fmt: skip
    np.testing.assert_array_equal(np.diff(sample.time.seconds), 86400.0)


def test_quality_flags_of_the_real_dly_make_gaps(ottawa: tuple[Sample, dict[tuple[str, str], Cell]]) -> None:
    sample, cells = ottawa
    names = {"TMAX": "air_temperature_maximum", "PRCP": "precipitation_amount", "SNWD": "surface_snow_thickness"}
    flagged = [(d, e, flags[1]) for (d, e), (_, flags) in cells.items() if flags[1] != " "]
    assert {q for _, _, q in flagged} == set("IOSW")
    for day, element, _ in flagged:
        assert day not in column(sample, names[element])


def test_a_trace_in_the_real_dly_is_zero_and_valid(ottawa: tuple[Sample, dict[tuple[str, str], Cell]]) -> None:
    sample, cells = ottawa
    traces = [d for (d, _), (_, flags) in cells.items() if flags[0] == "T"]
    snow = column(sample, "surface_snow_thickness")
    assert len(traces) == 47
    assert [snow[d] for d in traces] == [0.0] * 47


def test_the_real_total_of_two_days_is_not_the_rain_of_one(ottawa: tuple[Sample, dict[tuple[str, str], Cell]]) -> None:
    sample, cells = ottawa
    assert cells["2006-12-09", "MDPR"][0] == 12
    rain = column(sample, "precipitation_amount")
    assert "2006-12-08" not in rain
    assert "2006-12-09" not in rain
    assert rain["2006-12-10"] == pytest.approx(0.6)


# forms and units


def test_every_element_in_the_unit_of_the_registry(tmp_path: Path) -> None:
    when = days("2020-02-27", 4)
    raw = {
        "TMAX": (-36, "air_temperature_maximum", 269.55), "TMIN": (-501, "air_temperature_minimum", 223.05),
        "TAVG": (124, "air_temperature", 285.55), "PRCP": (281, "precipitation_amount", 28.1), "SNOW": (102, "snowfall_thickness", 0.102),
        "SNWD": (530, "surface_snow_thickness", 0.53), "WESD": (1234, "surface_snow_amount", 123.4), "AWND": (37, "wind_speed", 3.7),
        "WSFG": (221, "wind_speed_of_gust", 22.1), "ADPT": (-11, "dew_point_temperature", 272.05),
        "ASLP": (10132, "air_pressure_at_mean_sea_level", 101320.0), "ASTP": (9876, "surface_air_pressure", 98760.0),
        "RHAV": (87, "relative_humidity", 87.0), "WDFG": (270, "", 0.0),
    }  # fmt: skip
    path = dly(tmp_path / "a.dly", {(A, d, e): plain(v) for d in when for e, (v, _, _) in raw.items()})
    source = Ghcn([path, places(tmp_path, WHERE)], Ghcn.Options(**ONE))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert sample.time.labels() == [f"2020-{d}T12:00:00" for d in ("02-27", "02-28", "02-29", "03-01")]
    assert {v.name for v in sample.variables} == {name for _, name, _ in raw.values() if name}
    for c, variable in enumerate(sample.variables):
        expected = next(e for _, name, e in raw.values() if name == variable.name)
        np.testing.assert_allclose(sample.values[:, c], expected, rtol=2e-7)
    assert any("WDFG" in n for n in plan.notes)
    (chosen,) = read([path, tmp_path / "ghcnd-stations.txt"], variables=("TMAX", "wind_speed"), **ONE)
    assert [v.name for v in chosen.variables] == ["air_temperature_maximum", "wind_speed"]


def test_the_fastest_five_seconds_stand_in_where_no_peak_gust_is_measured(tmp_path: Path) -> None:
    when = days("2020-01-01", 3)
    table = {(A, d, "WSFG"): plain(100) for d in when} | {(i, d, "WSF5"): plain(50) for i in (A, B) for d in when}
    (sample,) = read([dly(tmp_path / "a.dly", table), places(tmp_path, WHERE)], **ONE)
    assert [v.name for v in sample.variables] == ["wind_speed_of_gust"]
    np.testing.assert_allclose(sample.values[:, 0, 0, 0].T, [[5.0] * 3, [10.0] * 3])


def test_all_forms_give_the_same_numbers_in_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = weather((A, B), days("2019-12-25", 20), ("TMAX", "TMIN", "PRCP"))
    table[A, date(2020, 1, 1), "TMAX"] = (9999, " X7")
    where = str(places(tmp_path, WHERE))
    header = "ID,DATE,ELEMENT,DATA_VALUE,M_FLAG,Q_FLAG,S_FLAG,OBS_TIME\n"
    files = [
        dly(tmp_path / "a.dly", table),
        by_year(tmp_path / "plain.csv", table),
        by_year(tmp_path / "header.csv", table, header, order=-1),
        by_year(tmp_path / "2019.csv.gz", table),
    ]
    crlf = tmp_path / "crlf.csv"
    crlf.write_bytes(files[1].read_bytes().replace(b"\n", b"\r\n"))
    (first,) = read(files[0], places=where, **ONE)
    assert first.values.shape == (20, 3, 1, 1, 2)
    assert list(first.valid.sum((0, 2, 3))[0]) == [20, 19]  # B comes before A
    monkeypatch.setattr(byte_text, "BLOCK", 700)
    monkeypatch.setattr(ghcn_daily, "BLOCK", 700)
    monkeypatch.setattr(ghcn_days, "IN_MEMORY", 100)
    for path in (*files, crlf):
        (sample,) = read(path, places=where, **ONE)
        np.testing.assert_array_equal(sample.values, first.values, err_msg=path.name)
        np.testing.assert_array_equal(sample.valid, first.valid)
        np.testing.assert_array_equal(sample.time.seconds, first.time.seconds)
        assert [v.name for v in sample.variables] == [v.name for v in first.variables]


def test_a_station_goes_on_over_files_of_years(tmp_path: Path) -> None:
    for year in (2019, 2020):
        by_year(tmp_path / f"{year}.csv", weather((A,), days(f"{year}-01-01", 360), ("TMAX",), seed=year))
    places(tmp_path, WHERE)
    (sample,) = read(tmp_path, **ONE)
    assert len(sample.time) == 365 + 360
    assert not sample.valid[360:365].any()
    assert {f.name for f in sample.origin.files} == {"2019.csv", "2020.csv"}


# traps


def test_a_total_of_several_days_covers_them_whatever_stands_there(tmp_path: Path) -> None:
    table = {(A, d, "PRCP"): plain(0) for d in days("2019-12-28", 10)}
    total = date(2020, 1, 2)
    table |= {(A, total, "MDPR"): plain(120), (A, total, "DAPR"): plain(4)}
    for d in days("2019-12-30", 4)[1:]:
        table.pop((A, d, "PRCP"))
    covered = [f"{d}" for d in days("2019-12-30", 4)]
    places(tmp_path, WHERE)
    one = [dly(tmp_path / "a.dly", table)]
    parts = [by_year(tmp_path / f"{y}.csv", {k: v for k, v in table.items() if k[1].year == y}) for y in (2019, 2020)]
    for paths in (one, parts):
        (sample,) = read(paths, **ONE)
        rain = column(sample, "precipitation_amount")
        assert not set(covered) & set(rain)
        assert set(rain.values()) == {0.0}
        assert len(rain) == 6
    (spread,) = read(one, multiday="spread", **ONE)
    rain = column(spread, "precipitation_amount")
    assert [rain[d] for d in covered] == pytest.approx([3.0] * 4)
    assert sum(rain.values()) == pytest.approx(12.0)


def test_totals_are_looked_for_once_however_many_files_a_station_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    rows = ghcn_days.Days.rows
    monkeypatch.setattr(ghcn_days.Days, "rows", lambda self, station: looks.append(station) or rows(self, station))
    places(tmp_path, WHERE)
    for year in range(1990, 2002):
        table = weather([A, B], days(f"{year}-03-01", 3))
        table[A, date(year, 6, 2), "MDPR"], table[A, date(year, 6, 2), "DAPR"] = plain(90), plain(2)
        by_year(tmp_path / f"{year}.csv", table)
        if year in (1995, 2001):
            looks.clear()
            (sample,) = read([tmp_path], **ONE, multiday="spread")
            count = year - 1989
            assert len(looks) <= 9 * count, year
            assert len([v for d, v in column(sample, "precipitation_amount", 1).items() if d[5:] == "06-02" and v == 4.5]) == count


def test_a_file_given_twice_counts_once_and_a_folder_is_no_list_of_places(tmp_path: Path) -> None:
    places(tmp_path, WHERE)
    table = weather([A], days("2020-01-01", 9))
    table[A, date(2020, 1, 3), "TMAX"] = plain(1, " GS")
    path = by_year(tmp_path / "2020.csv", table)
    for given in ([path], [path, path]):
        assert "1 values that failed a check of the archive (QFLAG), or were presumed, are invalid" in Ghcn(given).plan().notes
    for wrong, what in ((tmp_path, "a folder"), (tmp_path / "list.txt", "not there")):
        assert refusal_of(Ghcn, path, places=str(wrong)).endswith(f" is {what}; expected the file ghcnd-stations.txt")


def test_a_total_without_its_days_is_never_spread_and_one_that_failed_a_check_still_covers(tmp_path: Path) -> None:
    table = {(A, d, "PRCP"): plain(5) for d in days("2020-01-01", 9)}
    table[A, date(2020, 1, 4), "MDPR"] = plain(70)
    table[A, date(2020, 1, 8), "MDPR"] = (900, " L7")
    table[A, date(2020, 1, 8), "DAPR"] = plain(2)
    paths = [dly(tmp_path / "a.dly", table), places(tmp_path, WHERE)]
    for multiday in ("invalid", "spread"):
        rain = column(read(paths, multiday=multiday, **ONE)[0], "precipitation_amount")
        assert set(rain) == {f"2020-01-0{d}" for d in (1, 2, 3, 5, 6, 9)}
        assert set(rain.values()) == {0.5}


def test_a_trace_is_zero_and_a_presumed_zero_is_a_gap(tmp_path: Path) -> None:
    table = {(A, d, "PRCP"): plain(50) for d in days("2020-01-01", 5)}
    table[A, date(2020, 1, 2), "PRCP"] = (0, "T 7")
    table[A, date(2020, 1, 3), "PRCP"] = (0, "P 7")
    table[A, date(2020, 1, 4), "PRCP"] = (80, "A 7")
    paths = [dly(tmp_path / "a.dly", table), places(tmp_path, WHERE)]
    rain = column(read(paths, **ONE)[0], "precipitation_amount")
    assert rain == {"2020-01-01": 5.0, "2020-01-02": 0.0, "2020-01-05": 5.0}
    rain = column(read(paths, presumed_zero="zero", **ONE)[0], "precipitation_amount")
    assert rain == {"2020-01-01": 5.0, "2020-01-02": 0.0, "2020-01-03": 0.0, "2020-01-05": 5.0}


def test_every_quality_flag_makes_a_gap(tmp_path: Path) -> None:
    when = days("2020-01-01", 16)
    letters = "DGIKLMNORSTWXZ"
    table = {(A, d, "TMAX"): (100, f" {q}7") for d, q in zip(when, letters + "  ", strict=True)}
    source = Ghcn([dly(tmp_path / "a.dly", table), places(tmp_path, WHERE)], Ghcn.Options(split="train"))
    plan = source.plan()
    assert set(column(next(s for s in source.samples(plan.refs) if s), "air_temperature_maximum")) == {"2020-01-15", "2020-01-16"}
    assert any(n.startswith(f"{len(letters)} values that failed a check") for n in plan.notes)


def test_the_hour_of_observation_is_told(tmp_path: Path) -> None:
    by_year(tmp_path / "2020.csv", weather((A,), days("2020-01-01", 9)), hours="0700")
    places(tmp_path, WHERE)
    (sample,) = read(tmp_path, layout="series", **ONE)
    assert sample.origin.place == A
    assert sample.origin.about == {
        "station": A, "name": f"NAME OF {A}", "country": "US", "network": "WBAN", "state": "NY", "observation_time": "0700",
    }  # fmt: skip


# places and choice


def test_a_station_whose_place_is_not_known_is_not_used(tmp_path: Path) -> None:
    table = weather((A, B), days("2020-01-01", 9))
    path = dly(tmp_path / "a.dly", table)
    text = refusal_of(Ghcn, path)
    assert "ghcnd-stations.txt" in text
    assert "places=" in text
    where = places(tmp_path, {A: WHERE[A]})
    source = Ghcn([path], Ghcn.Options(split="train"))
    plan = source.plan()
    assert any("1 stations are left out: the list of places does not have them" in n for n in plan.notes)
    assert where.name in {name for name, _ in plan.inputs}
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    assert sample.origin.about["stations"] == [A]


def test_an_unknown_height_is_unknown(tmp_path: Path) -> None:
    (sample,) = read([dly(tmp_path / "a.dly", weather((A, B), days("2020-01-01", 9))), places(tmp_path, WHERE)], **ONE)
    np.testing.assert_array_equal(sample.coordinates["height"].values, [np.nan, 42.7])
    np.testing.assert_allclose(sample.coordinates["longitude"].values, [13.3017, -73.9692])


def test_networks_and_boxes_choose_before_values_are_kept(tmp_path: Path) -> None:
    by_year(tmp_path / "2020.csv", weather((A, B), days("2020-01-01", 9)))
    places(tmp_path, WHERE)
    for options in ({"stations": ("US*",)}, {"box": (30.0, 50.0, -80.0, -70.0)}):
        source = Ghcn([tmp_path], Ghcn.Options(split="train", **options))
        (sample,) = source.samples(source.plan().refs)
        assert sample is not None
        assert sample.origin.about["stations"] == [A]
        assert [d.stations for d in source._days.values()] == [[A]]
    assert "USW00094728" in refusal_of(Ghcn, tmp_path, stations=("USW00094729",))
    assert "variables=snowfall_thickness: no station of the input has it" in refusal_of(Ghcn, tmp_path, variables=("SNOW",))
    assert "variables=wind: no station of the input has it" in refusal_of(Ghcn, tmp_path, variables=("wind",))


# damage


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    table = weather((A,), days("2020-01-01", 40))
    where = str(places(tmp_path, WHERE))
    good = dly(tmp_path / "good.dly", table).read_bytes()
    text = by_year(tmp_path / "good.csv", table).read_bytes()
    packed = by_year(tmp_path / "good.csv.gz", table).read_bytes()
    lines = text.decode().splitlines(keepends=True)
    spoilt = {
        "cut.dly": (good[:500], "truncated"),
        "inside.dly": (good[:-1], "truncated"),
        "value.dly": (good[:24] + b"x" + good[25:], "line 1: expected 31 days"),
        "minus.dly": (good[:21] + b"-1-23" + good[26:], "line 1: expected 31 days"),
        "month.dly": (good[:15] + b"13" + good[17:], "line 1: expected a station, a month"),
        "flag.dly": (good[:27] + b"\x7f" + good[28:], "flag.dly"),
        "late.dly": (good[: 540 + 21 + 30 * 8] + b"   12" + good[540 + 21 + 30 * 8 + 5 :], "line 3: expected no value after the month"),
        "twice.dly": (good + good[:270], "PRCP of USW00094728 on 2020-01-01 for the second time"),
        "cut.csv": (text[:-4], "truncated"),
        "fields.csv": ("".join([*lines[:3], lines[3].replace(",", ";", 1), *lines[4:]]).encode(), "line 4: expected 8 fields"),
        "number.csv": ("".join([*lines[:3], "USW00094728,20200104,PRCP,1e2,,,S,\n"]).encode(), "line 4: expected a whole number"),
        "date.csv": ("".join([*lines[:3], "USW00094728,20200230,PRCP,12,,,S,\n"]).encode(), "line 4: expected a date that exists"),
        "hour.csv": ("".join([*lines[:3], "USW00094728,20200204,PRCP,12,,,S,7am\n"]).encode(), "line 4: expected the hour"),
        "twice.csv": (text + lines[0].encode(), "for the second time"),
        "cut.csv.gz": (packed[:-30], "cut.csv.gz"),
        "flip.csv.gz": (packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:], "flip.csv.gz"),
        "wide.csv": (b"STATION,DATE,LATITUDE,LONGITUDE,PRCP,PRCP_ATTRIBUTES\nUSW00094728,2020-01-01,40,-73,1,S\n", "no file of GHCN-daily"),
        "page.csv": (HTML, "no file of GHCN-daily"),
        "image.dly": (PNG, "no file of GHCN-daily"),
        "empty.dly": (b"", "empty"),
    }  # fmt: skip
    for name, (data, words) in spoilt.items():
        path = tmp_path / name
        path.write_bytes(data)
        found = refusal_of(Ghcn, path, places=where)
        assert words in found, found
        assert name in found
    bad = tmp_path / "bad"
    bad.mkdir()
    for data, words in (
        (b"A" * 60, "truncated"),
        (b"USW00094728  40.7x89  -73.9692   42.7\n", "line 1"),
        (b"USW00094728  99.7789  -73.9692   42.7\n", "line 1"),
    ):
        (bad / "list.txt").write_bytes(data)
        assert words in refusal_of(Ghcn, tmp_path / "good.dly", places=str(bad / "list.txt"))


@pytest.mark.parametrize("name", ["ghcn/1763-1764.csv", "ghcn/CA006105978.dly"])
def test_real_files_that_are_cut_off_are_refused(name: str, tmp_path: Path) -> None:
    data = real(name).read_bytes()
    where = str(places(tmp_path, {"CA006105978": (45.3833, -75.7167, 79.2)}))
    path = tmp_path / Path(name).name
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        assert path.name in refusal_of(Ghcn, path, places=where)


# the rest of the interface


def test_recognised_by_content(tmp_path: Path) -> None:
    table = weather((A,), days("2020-01-01", 3))
    files = [dly(tmp_path / "a.txt", table), by_year(tmp_path / "b.dat", table), by_year(tmp_path / "c.gz", table), places(tmp_path, WHERE)]
    assert all(Ghcn.recognises(p) for p in (*files, tmp_path))
    other = tmp_path / "own.csv"
    other.write_text("id,date,value\n1,2020-01-01,3\n")
    for data in (HTML, PNG, b""):
        (tmp_path / "x.bin").write_bytes(data)
        assert not Ghcn.recognises(tmp_path / "x.bin")
    assert not Ghcn.recognises(other)
    assert not Ghcn.recognises(tmp_path / "nothing")


def test_what_is_fetched(tmp_path: Path) -> None:
    listed = places(tmp_path, WHERE).read_bytes()
    asked = []

    def get(url: str) -> bytes:
        asked.append(url)
        return listed

    def found(**options: object) -> list[tuple[str, str]]:
        return [(r.url, r.file) for r in Ghcn.remotes(Ghcn.Fetch(**options), get)]

    aws, ncei = "https://noaa-ghcn-pds.s3.amazonaws.com", "https://www.ncei.noaa.gov/pub/data/ghcn/daily"
    assert found(by="year", years="2019-2020") == [
        (f"{aws}/ghcnd-stations.txt", "ghcnd-stations.txt"),
        (f"{aws}/csv/by_year/2019.csv", "by_year/2019.csv"),
        (f"{aws}/csv/by_year/2020.csv", "by_year/2020.csv"),
    ]
    assert found(by="year", years="1763", route="ncei")[1:] == [(f"{ncei}/by_year/1763.csv.gz", "by_year/1763.csv.gz")]
    assert found(stations=(A,), route="ncei")[1:] == [(f"{ncei}/all/{A}.dly", f"by_station/{A}.dly")]
    assert not asked
    assert found(stations=("GM*",), server="http://localhost:1/")[1:] == [
        (f"http://localhost:1/csv/by_station/{B}.csv", f"by_station/{B}.csv")
    ]
    assert found(box=(30.0, 50.0, -80.0, -70.0))[1:] == [(f"{aws}/csv/by_station/{A}.csv", f"by_station/{A}.csv")]
    assert asked == ["http://localhost:1/ghcnd-stations.txt", f"{aws}/ghcnd-stations.txt"]
    for wrong, words in (
        ({}, "needs stations="),
        ({"by": "year", "years": "1600"}, "not of the form"),
        ({"by": "year", "years": "2020-2019"}, "not of the form"),
        ({"stations": ("XX*",)}, "matches none of the 2 stations"),
        ({"box": (0.0, 1.0, 0.0, 1.0)}, "holds none"),
    ):
        with pytest.raises(UserError, match=words):
            found(**wrong)


def test_a_corpus_of_points(tmp_path: Path) -> None:
    table = weather((A, B), days("2015-01-01", 300), ("TMAX", "PRCP"))
    dly(tmp_path / "a.dly", table)
    places(tmp_path, WHERE)
    out = convert(Ghcn([tmp_path], Ghcn.Options(frames_per_sample=100)), tmp_path / "out", progress=False)
    corpus = Corpus.open(out)
    assert set(corpus.splits) == {"train", "valid", "test"}
    sample = corpus.read("train", 0)
    assert sample.geometry == "points"
    assert sample.values.shape[1:] == (2, 1, 1, 2)
    assert corpus.manifest["redistributable"] is True
    high = column(sample, "air_temperature_maximum", 1)  # by id: B, A
    assert high["2015-01-07"] == pytest.approx(table[A, date(2015, 1, 7), "TMAX"][0] / 10 + 273.15, abs=0.02)


@pytest.mark.drill
def test_a_year_of_all_stations_stays_within_two_gigabytes(tmp_path: Path) -> None:
    ids = [f"US1ABCD{n:04d}" for n in range(9000)]
    with (tmp_path / "2020.csv").open("w") as file:
        for day in days("2020-01-01", 366):
            file.write("".join(f"{i},{day:%Y%m%d},PRCP,{n % 90},,,N,0700\n" for n, i in enumerate(ids)))
    places(tmp_path, {i: (n % 80, n % 170, 1.0) for n, i in enumerate(ids)})
    program = (
        "import sys, resource; from pathlib import Path; from scigpt.data_prep.sources.ghcn import Ghcn\n"
        "s = Ghcn([Path(sys.argv[1])], Ghcn.Options()); p = s.plan(); next(s.samples(p.refs[:1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 << 20
