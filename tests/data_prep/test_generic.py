"""A user's own data: tables and files of arrays through a map, from the command line to the corpus."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import xarray as xr
import yaml

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.draft import draft
from scigpt.data_prep.generic import Generic, GenericOptions
from scigpt.errors import UserError
from scigpt.launch.cli import main

WEATHER: dict[str, Any] = {
    "variables": {
        "Temp (F)": {"name": "air_temperature", "unit": "deg F", "level": "2 m"},
        "Wind": {"name": "wind_speed", "unit": "mph"},
        "Rain": {"name": "precipitation_flux", "unit": "in/day"},
    },
    "axes": {"time": {"column": "When", "format": "%d.%m.%Y %H:%M"}},
    "split": {"fractions": [1, 0, 0]},
    "licence": "CC0-1.0",
}


def weather(rows: int = 48, step: int = 3600, **cells: dict[int, str]) -> str:
    """A table of hourly weather; `cells` replaces some: column to {row: text}."""
    lines = ["When,Temp (F),Wind,Rain"]
    for i in range(rows):
        when = np.datetime64("2023-01-01") + np.timedelta64(i * step, "s")
        stamp = when.item().strftime("%d.%m.%Y %H:%M")
        row = {"When": stamp, "Temp": f"{50 + i % 24:.1f}", "Wind": f"{5 + i % 3}", "Rain": "0.5"}
        lines.append(",".join({**row, **{c: new[i] for c, new in cells.items() if i in new}}.values()))
    return "\n".join(lines) + "\n"


def prepare(folder: Path, files: dict[str, str] | list[Path], the_map: dict[str, Any], **options: Any) -> Corpus:
    """Files and map written, converted, verified."""
    paths = files if isinstance(files, list) else [folder / name for name in files]
    if isinstance(files, dict):
        for path in paths:
            path.write_text(files[path.name], encoding="utf-8")
    (folder / "map.yaml").write_text(yaml.safe_dump(the_map, sort_keys=False), encoding="utf-8")
    source = Generic(paths, GenericOptions(map=str(folder / "map.yaml"), **options))
    out = convert(source, folder / "corpus", progress=False)
    assert verify(out) == []
    return Corpus.open(out)


def every(corpus: Corpus, split: str = "train") -> list[Sample]:
    return [corpus.read(split, i) for i in range(len(corpus.entries(split)))]


def changed(**sections: Any) -> dict[str, Any]:
    return {**WEATHER, **sections}


# tables


def test_odd_units_become_those_of_the_registry(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, {"a.csv": weather(Temp={5: "-9999"}, Rain={7: ""})}, changed(format={"missing": [-9999]}))
    (sample,) = every(corpus)
    assert [(v.key, v.unit) for v in sample.variables] == [
        ("air_temperature@2m", "K"), ("wind_speed", "m s**-1"), ("precipitation_flux", "kg m**-2 s**-1"),
    ]  # fmt: skip
    hours = np.arange(48)
    fahrenheit = 50 + hours % 24
    valid = sample.valid[:, :, 0, 0, 0]
    np.testing.assert_array_equal(valid, np.stack([hours != 5, hours >= 0, hours != 7], 1))
    np.testing.assert_allclose(sample.values[hours != 5, 0, 0, 0, 0], ((fahrenheit - 32) / 1.8 + 273.15)[hours != 5], rtol=1e-6)
    np.testing.assert_allclose(sample.values[:, 1, 0, 0, 0], (5 + hours % 3) * 0.44704, rtol=1e-6)
    np.testing.assert_allclose(sample.values[hours != 7, 2, 0, 0, 0], 0.5 * 25.4 / 86400, rtol=1e-6)
    assert sample.time.labels()[:2] == ["2023-01-01T00:00:00", "2023-01-01T01:00:00"]
    assert (sample.geometry, sample.origin.licence, sample.origin.place) == ("plane", "CC0-1.0", "a")
    assert corpus.manifest["redistributable"] is False
    assert [i["name"] for i in corpus.manifest["recipe"]["inputs"]] == ["a.csv", "map.yaml"]


def test_the_same_bytes_for_any_number_of_workers_and_another_map_is_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(weather(300))
    (tmp_path / "b.csv").write_text(weather(300))
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(changed(split={"fractions": [0.8, 0.1, 0.1]})))
    for name, workers in (("one", 1), ("two", 2)):
        source = Generic([tmp_path / "a.csv", tmp_path / "b.csv"], GenericOptions(map=str(tmp_path / "map.yaml")))
        convert(source, tmp_path / name, "same", workers, 1 << 12, progress=False)
    assert (tmp_path / "one" / "manifest.json").read_bytes() == (tmp_path / "two" / "manifest.json").read_bytes()
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(WEATHER))
    with pytest.raises(UserError, match="another recipe"):
        convert(Generic([tmp_path / "a.csv"], GenericOptions(map=str(tmp_path / "map.yaml"))), tmp_path / "one", progress=False)


STATIONS = "\n".join(
    [
        "site;day;elev_ft;lat;lon;t",
        *(f"{s};2020-01-{d:02d};{e};{y};{x};{base + d},5" for d in range(1, 13) for s, e, y, x, base in
          (("B", 328.084, 47, 8, 10), ("A", 0, 46, 7, 0)) if (s, d) != ("B", 4)),
    ]
)  # fmt: skip
STATION_MAP: dict[str, Any] = {
    "format": {"decimal": ","},
    "variables": {"t": {"name": "air_temperature", "unit": "degC"}},
    "axes": {
        "time": "day", "station": "site", "latitude": "lat", "longitude": "lon", "height": {"name": "elev_ft", "unit": "ft"},
    },
    "split": {"fractions": [1, 0, 0]},
    "licence": "CC0-1.0",
}  # fmt: skip
STATION_TABLE = STATIONS.replace("328.084", "328,084")


def test_stations_as_points_of_one_sample(tmp_path: Path) -> None:
    (sample,) = every(prepare(tmp_path, {"s.csv": STATION_TABLE}, {**STATION_MAP, "layout": "points"}))
    assert (sample.values.shape, sample.geometry) == ((12, 1, 1, 1, 2), "points")
    assert sample.coordinates["latitude"].values.tolist() == [46, 47]
    np.testing.assert_allclose(sample.coordinates["height"].values, [0, 100], atol=1e-3)
    assert (~sample.valid).nonzero()[0].tolist() == [3]  # B has no row on the 4th: no value, and no cut in A
    np.testing.assert_allclose(sample.values[0, 0, 0, 0], [274.65, 284.65], rtol=1e-6)


def test_stations_as_series_are_cut_at_holes_and_split_whole(tmp_path: Path) -> None:
    samples = every(prepare(tmp_path, {"s.csv": STATION_TABLE}, STATION_MAP))
    assert [(s.origin.place, len(s.time)) for s in samples] == [("A", 12), ("B", 3), ("B", 8)]
    assert all(s.values.shape[2:] == (1, 1, 1) and s.geometry == "points" and s.valid.all() for s in samples)
    (tmp_path / "by").mkdir()
    corpus = prepare(tmp_path / "by", {"s.csv": STATION_TABLE}, {**STATION_MAP, "split": {"by": "station", "ood": ["B"]}})
    assert {s.origin.place for s in every(corpus)} == {"A"}
    assert {s.origin.place for s in every(corpus, "ood")} == {"B"}
    assert corpus.manifest["splits"]["ood"]["distribution"] == "out"


def test_many_stations_are_split_by_name_whatever_the_order(tmp_path: Path) -> None:
    homes = []
    for folder, order in (("one", range(10)), ("two", reversed(range(10)))):
        rows = [f"S{s},2020-01-{d:02d},{d + s}" for s in order for d in range(1, 6)]
        (tmp_path / folder).mkdir()
        the_map = {**STATION_MAP, "format": {}, "axes": {"time": "day", "station": "site"}, "split": {"by": "station"}}
        corpus = prepare(tmp_path / folder, {"s.csv": "\n".join(["site,day,t", *rows])}, the_map)
        homes.append({name: {s.origin.place for s in every(corpus, name)} for name in ("train", "valid", "test")})
    assert homes[0] == homes[1]
    assert [len(h) for h in homes[0].values()] == [8, 1, 1]


def test_a_step_fills_missing_rows_with_frames_without_values(tmp_path: Path) -> None:
    lines = weather(24).splitlines()
    del lines[5:9]
    axes = {"time": {"column": "When", "format": "%d.%m.%Y %H:%M", "step": 3600}}
    (sample,) = every(prepare(tmp_path, {"a.csv": "\n".join(lines)}, changed(axes=axes)))
    assert len(sample.time) == 24
    assert (~sample.valid.any(axis=(1, 2, 3, 4))).nonzero()[0].tolist() == [4, 5, 6, 7]
    (tmp_path / "cut").mkdir()
    assert [len(s.time) for s in every(prepare(tmp_path / "cut", {"a.csv": "\n".join(lines)}, WEATHER))] == [4, 16]


def test_splits_by_time_leave_a_gap_between_all_records(tmp_path: Path) -> None:
    corpus = prepare(tmp_path, {"s.csv": STATIONS_LONG}, {**STATION_MAP, "format": {}, "axes": {"time": "day", "station": "site"},
                                                          "split": {"fractions": [0.6, 0.2, 0.2], "gap": 3}})  # fmt: skip
    spans = {s: [x.time.seconds for x in every(corpus, s)] for s in ("train", "valid", "test")}
    day = 86400
    for before, after in (("train", "valid"), ("valid", "test")):
        assert min(s[0] for s in spans[after]) - max(s[-1] for s in spans[before]) == 4 * day
    assert all(len(v) == 2 for v in spans.values())


STATIONS_LONG = "\n".join(["site,day,t", *(f"{s},{np.datetime64('2020-01-01') + d},{d % 7}" for s in "AB" for d in range(100))])


JULY = ("2020-07-01 00:00", "2020-07-01 01:00", "2020-07-01 02:00")


@pytest.mark.parametrize(
    ("header", "cells", "axis", "first"),
    [
        ("t", ("20200101", "20200102", "20200103"), {"column": "t", "format": "%Y%m%d"}, "2020-01-01T00:00:00"),
        ("t", JULY, {"column": "t", "zone": "Europe/Berlin"}, "2020-06-30T22:00:00"),
        ("t", JULY, {"column": "t", "zone": "-05:00"}, "2020-07-01T05:00:00"),
        ("t", ("2020-07-01T00:00+02:00", "2020-07-01T01:00+02:00", "2020-07-01T02:00+02:00"), "t", "2020-06-30T22:00:00"),
        ("t", ("0", "6", "12"), {"column": "t", "unit": "hours since 1999-12-31"}, "1999-12-31T00:00:00"),
        ("t", ("0", "2", "4"), {"column": "t", "unit": "min"}, "t=0"),
        ("t", ("0.5", "0.75", "1"), {"column": "t", "unit": "1"}, "t=0.5"),
        ("y,m", ("1999,11", "1999,12", "2000,01"), {"column": ["y", "m"], "format": "%Y %m"}, "1999-11-01T00:00:00"),
        ("t", ("2000-02-29", "2000-02-30", "2000-03-01"), {"column": "t", "format": "%Y-%m-%d", "calendar": "360_day"},
         "2000-02-29T00:00:00"),
        ("t", ("a", "b", "c"), {"step": 10, "unit": "min", "start": "2020-01-01"}, "2020-01-01T00:00:00"),
        ("t", ("a", "b", "c"), {"step": 0.1}, "t=0"),
    ],
)  # fmt: skip
def test_times(tmp_path: Path, header: str, cells: tuple[str, ...], axis: Any, first: str) -> None:
    text = f"{header},level\n" + "".join(f"{c},{i}\n" for i, c in enumerate(cells))
    the_map = {"variables": {"level": {"name": "lake_level", "unit": "m"}}, "axes": {"time": axis}, "licence": "CC0-1.0"}
    (sample,) = every(prepare(tmp_path, {"a.csv": text}, the_map))
    assert sample.time.labels()[0] == first
    assert len(sample.time) == 3
    if axis == {"column": "t", "unit": "min"}:
        assert sample.time.seconds.tolist() == [0, 120, 240]


def test_the_hour_that_comes_twice_is_told_from_the_order_of_the_rows(tmp_path: Path) -> None:
    hours = ["2020-10-25 01:00", "2020-10-25 02:00", "2020-10-25 02:00", "2020-10-25 03:00"]
    the_map = {
        "variables": {"x": {"name": "lake_level", "unit": "m"}},
        "axes": {"time": {"column": "t", "zone": "Europe/Berlin"}}, "licence": "CC0-1.0",
    }  # fmt: skip
    (sample,) = every(prepare(tmp_path, {"a.csv": "t,x\n" + "".join(f"{h},{i}\n" for i, h in enumerate(hours))}, the_map))
    assert np.diff(sample.time.seconds).tolist() == [3600] * 3
    with pytest.raises(UserError, match=r"b\.csv, line 2, column 't': '2020-10-25 02:00' does not exist or exists twice in Europe/Berlin"):
        prepare(tmp_path, {"b.csv": "t,x\n2020-10-25 02:00,1\n2020-10-25 04:00,1\n2020-10-25 06:00,2\n"}, the_map)


def test_own_variables_have_the_bounds_of_the_map(tmp_path: Path) -> None:
    rows = "".join(f"{i},{20 + i % 5 if i != 7 else 900},{i}\n" for i in range(2000))
    the_map: dict[str, Any] = {
        "variables": {
            "s": {"name": "sap_flow", "unit": "g/hour", "bounds": [0, 100]},
            "w": {"name": "wind_speed", "unit": "km/h", "bounds": [0, 7200], "role": "forcing"},
        },
        "axes": {"time": {"column": "t", "unit": "s"}},
        "coefficients": {"porosity": 0.3},
        "split": {"fractions": [1, 0, 0]},
        "licence": "CC0-1.0",
        "redistributable": True,
    }  # fmt: skip
    corpus = prepare(tmp_path, {"a.csv": "t,s,w\n" + rows}, the_map, frames_per_sample=2000)
    (sample,) = every(corpus)
    assert corpus.manifest["out_of_bounds"] == {"sap_flow": 1, "wind_speed": 0}  # 0 to 2000 m s**-1 by the map, not 200 by the registry
    assert not sample.valid[7, 0, 0, 0, 0]
    assert sample.variables[0].unit == "g/hour"
    assert sample.variables[1].role == "forcing"
    assert (sample.coefficients, corpus.manifest["redistributable"]) == ({"porosity": 0.3}, True)
    the_map["variables"]["s"]["bounds"] = [0, 10]
    (tmp_path / "narrow").mkdir()
    with pytest.raises(UserError, match=r"of the values of sap_flow lie outside 0 to 10 g/hour"):
        prepare(tmp_path / "narrow", {"a.csv": "t,s,w\n" + rows}, the_map)


def test_comments_units_below_the_header_tabs_and_latin_letters(tmp_path: Path) -> None:
    text = "# Messstation Zürich\n\nZeit\tTemp\tOrt\n-\t°C\t-\n# pause\n"
    text += "".join(f"2020-01-{d:02d}\t{d},5\tZürich\n" for d in range(1, 8))
    (tmp_path / "a.tsv").write_bytes(text.encode("latin-1"))
    the_map = {
        "format": {"comment": "#", "skip": 1, "decimal": ",", "encoding": "latin-1"},
        "variables": {"Temp": {"name": "t2m", "unit": "°C"}},
        "axes": {"time": "Zeit", "latitude": 47.4, "longitude": 8.5},
        "licence": "CC0-1.0",
    }
    (sample,) = every(prepare(tmp_path, [tmp_path / "a.tsv"], the_map))
    assert sample.variables[0].name == "air_temperature"
    np.testing.assert_allclose(sample.values.ravel(), 273.15 + 0.5 + np.arange(1, 8), rtol=1e-6)
    assert (sample.geometry, sample.coordinates["longitude"].values.tolist()) == ("points", [8.5])


@pytest.mark.parametrize(
    ("text", "the_map", "sentence"),
    [
        (weather(Temp={3: "warm"}), WEATHER, r"a\.csv, line 5, column 'Temp \(F\)': 'warm' is not a number"),
        (weather(When={3: "2023-01-01"}), WEATHER,
         r"a\.csv, line 5, column 'When': '2023-01-01' is not a time of the form %d\.%m\.%Y %H:%M"),
        (weather(When={3: ""}), WEATHER, r"a\.csv, line 5, column 'When': '' is not a time"),
        (weather(When={3: "01.01.2023 02:00"}), WEATHER, r"a\.csv, line 5: the same time as in line 4"),
        (weather(When={3: "01.01.2022 02:00"}), WEATHER, r"a\.csv, line 5: an earlier time than in line 4; sort the rows"),
        (weather(20) + weather(20, 600).replace(".01.2023", ".02.2023").split("\n", 1)[1], WEATHER,
         r"a\.csv, line \d+: a step of (600|3600) stands beside the usual (3600|600) seconds; expected one step"),
        (weather(), changed(variables={"Tmp (F)": {"unit": "degF"}}),
         r"no column 'Tmp \(F\)' \(variables\.Tmp \(F\) in the map\); did you mean Temp \(F\)"),
        (weather(), changed(variables={"Wind": {"name": "wind_speed", "unit": "mpg"}}),
         r"column 'Wind': the unit 'mpg' cannot be converted to 'm s\*\*-1'"),
        (weather(), changed(variables={"Wind": {"name": "wind_speed"}}), r"column 'Wind' has no unit; state variables\.Wind\.unit"),
        (weather(), changed(variables={"Wind": {"unt": "mph"}}), r"map\.yaml: unknown key variables\.Wind\.unt; did you mean unit\?"),
        (weather(), changed(axis={}), r"map\.yaml: unknown key axis; did you mean axes\?"),
        (weather(), changed(variables={"Wind": {"unit": "mph", "role": "sate"}}),
         r"variables\.Wind\.role is 'sate'; expected one of .*did you mean state"),
        (weather(), changed(variables={}), r"variables is empty"),
        (weather(), changed(licence=""), r"licence is missing"),
        (weather(), changed(split={"by": "station"}), r"split\.by is station and records are not told apart"),
        (weather(), changed(split={"fractions": [1, 1, 0]}), r"map\.yaml: split: .*three fractions"),
        (weather(), changed(layout="points"), r"layout: points needs axes\.latitude"),
        (weather(), changed(axes={"time": {}}), r"neither a column nor a step"),
        (weather(), changed(axes={"time": {"column": "When", "zone": "Mars"}}), r"ISO 8601|zone 'Mars' is unknown"),
        (weather(), changed(coefficients={"c": "Temp (F)"}),
         r"a\.csv, line 3, column 'Temp \(F\)': 51 differs from 50 in line 2; coefficients\.c"),
        (weather() + "1,2,3,4,5\n", WEATHER, r"a\.csv cannot be read as a table"),
        ("When\n", WEATHER, r"a\.csv has 1 lines from the header on"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_place(tmp_path: Path, text: str, the_map: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as told:
        prepare(tmp_path, {"a.csv": text}, the_map)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "corpus").exists()
    assert not (tmp_path / ".corpus.partial").exists()


# arrays


def arrays(path: Path) -> xr.Dataset:
    """Six runs of a flow on odd dimensions, written as NetCDF."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(6, 9, 4, 5)).astype(np.float32).cumsum(1)
    u[0, 2, 1, 1] = np.nan
    data = xr.Dataset(
        {
            "vx": (("run", "tau", "south_north", "we"), u, {"units": "cm/s"}),
            "depth": (("south_north", "we"), rng.random((4, 5)), {"units": "km"}),
            "Re": (("run",), np.arange(6.0) * 100),
        },
        {"tau": ("tau", np.arange(9) * 0.5, {"units": "min"}), "we": ("we", np.arange(5) * 10.0, {"units": "km"})},
        {"nu": 0.25},
    )
    data.to_netcdf(path, engine="netcdf4")
    return data


FLOW: dict[str, Any] = {
    "variables": {"vx": {"name": "eastward_wind"}, "depth": {"name": "water_depth", "role": "static"}},
    "axes": {"time": {"column": "tau", "unit": "min"}, "trajectory": "run", "x": "we", "y": "south_north"},
    "boundary": {"x": "periodic", "y": ["wall", "open"]},
    "coefficients": {"reynolds": "Re", "nu": "nu", "g": 9.81},
    "split": {"by": "trajectory", "fractions": [0.6, 0.2, 0.2]},
    "licence": "CC0-1.0",
}


def test_netcdf_with_odd_dimensions(tmp_path: Path) -> None:
    data = arrays(tmp_path / "flow.nc")
    corpus = prepare(tmp_path, [tmp_path / "flow.nc"], FLOW)
    seen = {}
    for split, count in (("train", 4), ("valid", 1), ("test", 1)):
        samples = every(corpus, split)
        assert len(samples) == count
        seen.update({int(s.origin.place.split()[-1]): s for s in samples})
    for run, sample in seen.items():
        expected = data["vx"].values[run] * 0.01
        np.testing.assert_array_equal(sample.valid[:, 0, 0], np.isfinite(expected))
        # stored as 16 bits, below a thousandth of what a frame changes
        np.testing.assert_allclose(sample.values[:, 0, 0][sample.valid[:, 0, 0]], expected[np.isfinite(expected)], atol=1e-5)
        np.testing.assert_allclose(sample.values[:, 1, 0], np.broadcast_to(data["depth"].values, (9, 4, 5)), atol=1e-4)
        assert sample.coefficients == {"reynolds": 100.0 * run, "nu": 0.25, "g": 9.81}
        assert sample.time.seconds.tolist() == (np.arange(9) * 30.0).tolist()
        assert (sample.boundary.x, sample.boundary.y) == (("periodic", "periodic"), ("wall", "open"))
        assert sample.coordinates["x"].values.tolist() == [0, 10, 20, 30, 40]
        assert [(v.name, v.unit, v.role) for v in sample.variables] == [
            ("eastward_wind", "m s**-1", "state"), ("water_depth", "km", "static"),
        ]  # fmt: skip


def test_a_global_grid_has_poles_levels_and_dates_of_its_calendar(tmp_path: Path) -> None:
    shape = (4, 2, 6, 12)
    values = 250 + np.arange(np.prod(shape), dtype=np.float64).reshape(shape) / 100
    dates = xr.date_range("2001-02-27", periods=4, freq="D", calendar="noleap", use_cftime=True)
    data = xr.Dataset(
        {"T": (("date", "p", "phi", "lam"), values, {"units": "K"})},
        {
            "date": dates,
            "p": ("p", [85000.0, 50000.0], {"units": "Pa", "standard_name": "air_pressure"}),
            "phi": ("phi", np.arange(-75, 90, 30.0)),
            "lam": ("lam", np.arange(0, 360, 30.0)),
        },
    )
    data.to_zarr(tmp_path / "t.zarr", consolidated=False)
    the_map = {
        "variables": {"T": {"name": "air_temperature", "level": "p"}},
        "axes": {"time": "date", "latitude": "phi", "longitude": "lam"},
        "licence": "CC0-1.0",
    }
    (sample,) = every(prepare(tmp_path, [tmp_path / "t.zarr"], the_map))
    assert [v.key for v in sample.variables] == ["air_temperature@850hPa", "air_temperature@500hPa"]
    np.testing.assert_allclose(sample.values[:, :, 0], values, rtol=1e-6)
    assert (sample.geometry, sample.boundary.x, sample.boundary.y) == ("sphere", ("periodic", "periodic"), ("pole", "pole"))
    assert (sample.time.calendar, sample.time.labels()[2]) == ("noleap", "2001-03-01T00:00:00")


def test_volumes_lines_points_and_steady_problems(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = xr.Dataset(
        {
            "box": (("n", "c", "b", "a"), rng.random((5, 2, 3, 4))),
            "line": (("n", "a"), rng.random((5, 4))),
            "at": (("n", "place"), rng.random((5, 3))),
            "north": (("place",), [10.0, 20.0, 30.0]),
            "east": (("place",), [1.0, 2.0, 3.0]),
            "f": (("case", "b", "a"), rng.random((2, 3, 4))),
            "u": (("case", "b", "a"), rng.random((2, 3, 4))),
        }
    )
    data.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    time = {"column": "n", "step": 0.1, "unit": "1"}

    def made(name: str, **sections: Any) -> list[Sample]:
        (tmp_path / name).mkdir()
        return every(prepare(tmp_path / name, [tmp_path / "a.nc"], {"licence": "CC0-1.0", **sections}))

    one = {"name": "concentration", "unit": "1"}
    (box,) = made("box", variables={"box": one}, axes={"time": time, "z": "c", "y": "b", "x": "a"})
    np.testing.assert_allclose(box.values[:, 0], data["box"].values, atol=1e-4)  # stored as 16 bits
    np.testing.assert_allclose(box.time.seconds, np.arange(5) * 0.1)
    (turned,) = made("turned", variables={"box": one}, axes={"time": time, "z": "a", "y": "b", "x": "c"})
    np.testing.assert_allclose(turned.values[:, 0], data["box"].values.transpose(0, 3, 2, 1), atol=1e-4)
    (line,) = made("line", variables={"line": one}, axes={"time": time, "x": "a"})
    assert line.values.shape == (5, 1, 1, 1, 4)
    (points,) = made("points", variables={"at": one}, axes={"time": time, "latitude": "north", "longitude": "east"})
    assert (points.geometry, points.coordinates["latitude"].values.tolist()) == ("points", [10, 20, 30])
    steady = made(
        "steady",
        variables={"f": {"name": "source", "unit": "1", "role": "forcing"}, "u": {"name": "solution", "unit": "1"}},
        axes={"trajectory": "case", "y": "b", "x": "a"},
        steady=True,
    )
    assert len(steady) == 2
    assert steady[1].steady
    np.testing.assert_array_equal(steady[1].valid.all(axis=(2, 3, 4)), [[True, False], [True, True]])
    np.testing.assert_allclose(steady[1].values[1, 1, 0], data["u"].values[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"variables": {"vxx": {}}}, r"flow\.nc has no variable 'vxx' \(variables\.vxx in the map\); did you mean vx\?"),
        ({"axes": {**FLOW["axes"], "x": "west"}}, r"flow\.nc has no dimension 'west' \(axes\.x in the map\)"),
        ({"axes": {"time": {"column": "tau", "unit": "min"}, "x": "we", "y": "south_north"}, "split": {}},
         r"variable vx: the dimension run of length 6 has no part to play"),
        ({"variables": {"vx": {}, "depth": {"name": "water_depth"}}}, r"variable depth has no dimension tau.*role: static"),
        ({"axes": {**FLOW["axes"], "time": "tau"}}, r"tau has no dates; state axes\.time\.unit"),
        ({"coefficients": {"r": "depth"}}, r"coefficients\.r names depth, which is not one number"),
        ({"layout": "points"}, r"layout: points and axes\.station are for tables"),
        ({"split": {"by": "trajectory", "test": ["flow run 9"]}}, r"split\.test lists 'flow run 9', which is no trajectory of the input"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_map_of_arrays(tmp_path: Path, sections: dict[str, Any], sentence: str) -> None:
    arrays(tmp_path / "flow.nc")
    with pytest.raises(UserError, match=sentence):
        prepare(tmp_path, [tmp_path / "flow.nc"], {**FLOW, **sections})


# drafts


def from_draft(folder: Path, path: Path) -> Corpus:
    """inspect --draft, prepare, verify: the commands, in this process."""
    for words in (
        ["data", "inspect", path, "--draft", folder / "map.yaml"],
        ["data", "prepare", "generic", "--map", folder / "map.yaml", "--input", path, "--out", folder / "corpus"],
        ["data", "verify", folder / "corpus"],
    ):
        with pytest.raises(SystemExit) as left:
            main([str(w) for w in words])
        assert not left.value.code
    return Corpus.open(folder / "corpus")


def test_the_draft_of_a_clean_table_is_usable_as_it_is(tmp_path: Path) -> None:
    rows = "".join(
        f"{s},2021-03-{d:02d} {h:02d}:00,{lat},{lon},{40 + h + d / 10:.1f},{5 + h % 4},{29.9 + h / 100:.2f},{50 + h}\n"
        for s, lat, lon in (("KDEN", 39.8, -104.7), ("KBOS", 42.4, -71.0))
        for d in range(1, 6)
        for h in range(24)
    )
    (tmp_path / "a.csv").write_text("station,valid,lat,lon,Temp (F),wind_mph,Pressure [inHg],RH (%)\n".replace("valid", "time") + rows)
    corpus = from_draft(tmp_path, tmp_path / "a.csv")
    assert [(v.name, v.unit) for v in corpus.layout.variables] == [
        ("air_temperature", "K"), ("wind_speed", "m s**-1"), ("surface_air_pressure", "Pa"), ("relative_humidity", "percent"),
    ]  # fmt: skip
    assert corpus.layout.geometry == "points"
    assert "# check" not in "".join(line for line in draft(tmp_path / "a.csv").splitlines(True)[1:] if not line.startswith("licence"))
    with pytest.raises(SystemExit):
        main(["data", "inspect", str(tmp_path / "a.csv"), "--draft", str(tmp_path / "map.yaml")])  # never over an edited map
    assert corpus.manifest["splits"].keys() == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Date,Hour,t\n" + "".join(f"03/{d:02d}/2020,{h:02d}:00,{h}\n" for d in (14, 15) for h in range(24)),
         'column: [Date, Hour], format: "%m/%d/%Y %H:%M"'),
        ("year,yday,t\n" + "".join(f"2020,{d},{d % 9}\n" for d in range(1, 30)), 'column: [year, yday], format: "%Y %j"'),
        ("t (ms),v\n" + "".join(f"{d},{d % 9}\n" for d in range(30)), 'column: "t (ms)"'),
        ("time_s,v\n" + "".join(f"{d},{d % 9}\n" for d in range(30)), "column: time_s, unit: s"),
        ("date;v\n" + "".join(f"{d:02d}.03.2020;{d % 9},5\n" for d in range(1, 30)), 'format: "%d.%m.%Y"'),
        ("date,v\n" + "".join(f"{d:02d}/{d:02d}/2020,{d % 9}\n" for d in range(1, 12)), "# check: or %d/%m/%Y"),
    ],
)  # fmt: skip
def test_times_are_guessed(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert expected in draft(tmp_path / "a.csv")


def test_the_draft_of_a_clean_netcdf_is_usable_as_it_is(tmp_path: Path) -> None:
    arrays(tmp_path / "flow.nc")
    corpus = from_draft(tmp_path, tmp_path / "flow.nc")
    assert corpus.layout.grid == (1, 4, 5)
    assert [(v.name, v.role) for v in corpus.layout.variables] == [("vx", "state"), ("depth", "static")]
    dates = [cftime.DatetimeNoLeap(2001, 1, d) for d in range(1, 31)]
    attrs = {"units": "K", "standard_name": "air_temperature"}
    tas = xr.DataArray(280 + np.random.default_rng(0).random((30, 4, 8)), dims=("t", "lat", "lon"), attrs=attrs)
    tas = tas.assign_coords(t=dates, lat=np.linspace(-60, 60, 4), lon=np.arange(0, 360, 45.0))
    (tmp_path / "b").mkdir()
    tas.to_dataset(name="temp").to_netcdf(tmp_path / "b" / "tas.nc", engine="netcdf4")
    corpus = from_draft(tmp_path / "b", tmp_path / "b" / "tas.nc")
    assert (corpus.layout.geometry, corpus.manifest["calendar"]) == ("sphere", "noleap")
    assert [v.name for v in corpus.layout.variables] == ["air_temperature"]


def test_a_draft_is_refused_where_there_is_nothing_to_map(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A letter.\n\nIt has, as letters go, no columns.\nNone at all.\nBye.\n")
    with pytest.raises(UserError, match=r"a\.txt is neither a table"):
        draft(tmp_path / "a.txt")


def test_without_a_map_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(weather())
    with pytest.raises(UserError, match="needs a map: give --map"):
        Generic([tmp_path / "a.csv"]).plan()
    with pytest.raises(UserError, match=r"nomap\.yaml does not exist"):
        Generic([tmp_path / "a.csv"], GenericOptions(map=str(tmp_path / "nomap.yaml"))).plan()


# the guide and real files


def test_the_story_of_the_guide_is_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = [(b.split("\n", 1)[0], b.split("\n", 1)[1]) for b in guide.split("```")[1::2]]
    (script,) = [body for kind, body in blocks if kind == "python"]
    subprocess.run([sys.executable, "-c", script], check=True)
    ran = 0
    for _, body in (b for b in blocks if b[0] == "console"):
        for story in body.split("$ ")[1:]:
            command, _, expected = story.partition("\n")
            program, *words = command.split()
            if program == "head":
                told = "\n".join(Path(words[-1]).read_text().splitlines()[: -int(words[0])]) + "\n"
            elif program == "cat":
                told = Path(words[0]).read_text()
            else:
                assert program == "scigpt"
                with pytest.raises(SystemExit) as left:
                    main(words)
                assert not left.value.code
                told = capfd.readouterr().out
            shown, told = expected.strip(), told.strip().replace(f"{tmp_path}/", "")
            if words[:2] == ["data", "card"]:  # a part of it
                assert set(shown.splitlines()) <= {"...", *told.splitlines()}
            else:
                assert told == shown
            ran += 1
    assert ran >= 5


@pytest.mark.parametrize("name", ["daymet/demo_data.csv", "grdc/test_file_grdc_Q_Day.Cmd.txt"])
def test_real_tables_through_their_drafts(tmp_path: Path, name: str) -> None:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    corpus = from_draft(tmp_path, Path(os.environ["SCIGPT_REALDATA"]) / name)
    assert sum(s["frames"] for s in corpus.manifest["splits"].values()) > 0
