"""Well logs: LAS written by lasio and by hand, equal to lasio's own reading; units, missing values, order, wrapping, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data_prep.formats.las import Item, degrees
from scigpt.data_prep.well_logs import WellLogs
from scigpt.errors import UserError

lasio = pytest.importorskip("lasio")

HEAD = """~VERSION INFORMATION
 VERS. {version} : CWLS
 WRAP. {wrap} : one line or more for each depth
~WELL INFORMATION
 STRT.{depth} {first} : START
 STOP.{depth} {last} : STOP
 STEP.{depth} {step} : STEP
 NULL. -999.25 : NULL
 WELL. {well} : WELL
{items}
~CURVE INFORMATION
 DEPT.{depth} : DEPTH
{curves}
~A
"""


def las(
    path: Path,
    columns: dict[str, np.ndarray],
    first: float = 100.0,
    step: float = 0.5,
    depth: str = "M",
    well: str = "A-1",
    version: str = "2.0",
    wrap: str = "NO",
    items: str = "",
    encoding: str = "utf-8",
) -> Path:
    """Columns by `MNEMONIC.UNIT`, NaN as NULL."""
    count = len(next(iter(columns.values())))
    depths = first + step * np.arange(count)
    table = np.column_stack([depths, *columns.values()])
    table = np.where(np.isfinite(table), table, -999.25)
    text = HEAD.format(
        version=version, wrap=wrap, depth=depth, first=first, last=depths[-1], step=step, well=well, items=items,
        curves="\n".join(f" {name} : curve" for name in columns),
    )  # fmt: skip
    if wrap == "YES":
        rows = [f"{row[0]:.4f}\n" + "\n".join(" ".join(f"{v:.6f}" for v in row[i : i + 3]) for i in range(1, len(row), 3)) for row in table]
    else:
        rows = [" ".join(f"{v:12.5f}" for v in row) for row in table]
    path.write_text(text + "\n".join(rows) + "\n", encoding=encoding)
    return path


def series(count: int = 200, seed: int = 0, low: float = 10, high: float = 90) -> np.ndarray:
    return np.round(np.random.default_rng(seed).uniform(low, high, count), 4)


def column(samples: list[Any], name: str) -> np.ndarray:
    """All values of a variable, NaN where they are invalid."""
    parts = []
    for s in samples:
        c = [v.name for v in s.variables].index(name)
        parts.append(np.where(s.valid[:, c, 0, 0, 0], s.values[:, c, 0, 0, 0], np.nan))
    return np.concatenate(parts)


def test_equal_to_lasio(tmp_path: Path) -> None:
    las_file = lasio.LASFile()
    depth = np.arange(100.0, 150.0, 0.5)
    gamma, density = series(100, 1), series(100, 2, 2.0, 2.8)
    gamma[20:25] = np.nan
    las_file.append_curve("DEPT", depth, unit="M")
    las_file.append_curve("GR", gamma, unit="GAPI")
    las_file.append_curve("RHOB", density, unit="G/C3")
    path = tmp_path / "a.las"
    las_file.write(str(path), version=2.0)
    samples = samples_of(WellLogs, path, split="train", frames_per_sample=40)
    reading = lasio.read(str(path))
    np.testing.assert_allclose(column(samples, "gamma_ray_index"), reading["GR"], rtol=1e-6)
    np.testing.assert_allclose(column(samples, "bulk_density"), reading["RHOB"] * 1000, rtol=1e-6)
    np.testing.assert_allclose(np.concatenate([s.time.seconds for s in samples]), reading.index, atol=1e-9)
    assert samples[0].time.calendar == "none"
    assert {v.name: v.unit for v in samples[0].variables} == {"gamma_ray_index": "1", "bulk_density": "kg m**-3"}


@pytest.mark.parametrize(
    ("curve", "name", "factor", "offset", "range_"),
    [
        ("DT.US/F", "sonic_slowness", 1e-6 / 0.3048, 0, (50, 120)),
        ("DT.US/M", "sonic_slowness", 1e-6, 0, (150, 400)),
        ("ILD.OHMM", "electrical_resistivity", 1, 0, (1, 500)),
        ("NPHI.PU", "neutron_porosity", 0.01, 0, (5, 40)),
        ("NPHI.V/V", "neutron_porosity", 1, 0, (0.05, 0.4)),
        ("RHOB.K/M3", "bulk_density", 1, 0, (2000, 2800)),
        ("CALI.IN", "borehole_diameter", 0.0254, 0, (6, 12)),
        ("CALI..1IN", "borehole_diameter", 0.00254, 0, (60, 120)),
        ("SP.MV", "spontaneous_potential", 1e-3, 0, (-90, 20)),
        ("TEMP.DEGF", "borehole_temperature", 5 / 9, 273.15 - 32 * 5 / 9, (60, 300)),
        ("TEMP.F", "borehole_temperature", 5 / 9, 273.15 - 32 * 5 / 9, (60, 300)),
        ("PEF.B/E", "photoelectric_factor", 1, 0, (1, 6)),
    ],
)
def test_units(tmp_path: Path, curve: str, name: str, factor: float, offset: float, range_: tuple[float, float]) -> None:
    values = series(50, 3, *range_)
    samples = samples_of(WellLogs, las(tmp_path / "a.las", {curve: values}), split="train")
    np.testing.assert_allclose(column(samples, name), values * factor + offset, rtol=1e-5)


@pytest.mark.parametrize(("unit", "metres"), [("F", 0.3048), ("FT", 0.3048), (".1IN", 0.00254), ("M", 1.0)])
def test_odd_units_of_depth(tmp_path: Path, unit: str, metres: float) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(40)}, first=1000, step=2, depth=unit)
    (sample,) = samples_of(WellLogs, path, split="train")
    np.testing.assert_allclose(sample.time.seconds, (1000 + 2 * np.arange(40)) * metres, rtol=1e-12)


def test_a_log_that_goes_up_is_turned(tmp_path: Path) -> None:
    values = series(40)
    (sample,) = samples_of(WellLogs, las(tmp_path / "a.las", {"GR.GAPI": values}, first=200, step=-0.5), split="train")
    np.testing.assert_allclose(sample.time.seconds, 200 - 0.5 * np.arange(40)[::-1])
    np.testing.assert_allclose(sample.values.ravel(), values[::-1], rtol=1e-6)


def test_every_mark_of_a_missing_value_is_invalid(tmp_path: Path) -> None:
    values = series(60)
    for i, mark in enumerate((-999.25, -99999, -9999.25, -999)):
        values[10 + i] = mark
    (sample,) = samples_of(WellLogs, las(tmp_path / "a.las", {"GR.GAPI": values}), split="train")
    np.testing.assert_array_equal(np.flatnonzero(~sample.valid.ravel()), [10, 11, 12, 13])
    text = (tmp_path / "a.las").read_text().replace("NULL. -999.25", f"NULL. {values[30]}")
    (tmp_path / "a.las").write_text(text)
    (sample,) = samples_of(WellLogs, tmp_path / "a.las", split="train")
    np.testing.assert_array_equal(np.flatnonzero(~sample.valid.ravel()), [10, 11, 12, 13, 30])


def test_wrapped_and_old_and_latin(tmp_path: Path) -> None:
    names = ("GR.GAPI", "RHOB.G/C3", "SP.MV", "CALI.MM", "PEF.B/E")
    columns = {n: series(30, i, 2, 2.9) for i, n in enumerate(names)}
    items = " FLD. Grönland : FIELD"
    wrapped = las(tmp_path / "w.las", columns, wrap="YES", version="1.2", encoding="latin-1", items=items)
    plain = las(tmp_path / "p.las", columns)
    (one,), (other,) = (samples_of(WellLogs, p, split="train") for p in (wrapped, plain))
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5)
    reading = lasio.read(str(wrapped))
    np.testing.assert_allclose(column([one], "gamma_ray_index"), reading["GR"], rtol=1e-6)


def test_an_empty_field_between_delimiters_is_missing(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(20), "SP.MV": series(20)})
    head, _, rows = path.read_text().partition("~A\n")
    for name, sign in (("COMMA", ","), ("TAB", "\t")):
        table = [row.split() for row in rows.splitlines()]
        table[3][1] = table[4][2] = table[5][1] = table[5][2] = ""
        head_ = head.replace("~WELL", f" DLM. {name} : delimiter\n~WELL")
        path.write_text(head_ + "~A\n" + "\n".join(sign.join(row) for row in table) + "\n")
        (sample,) = samples_of(WellLogs, path, split="train")
        np.testing.assert_array_equal(np.argwhere(~sample.valid[:, :, 0, 0, 0]), [[3, 0], [4, 1], [5, 0], [5, 1]])


def test_the_end_mark_of_old_text_files(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(20)})
    whole = path.read_bytes()
    for end in (whole + b"\x1a", whole + b"\x1a\r\n", whole[:-1] + b"\x1a"):
        path.write_bytes(end)
        (sample,) = samples_of(WellLogs, path, split="train")
        np.testing.assert_allclose(sample.values.ravel(), series(20), rtol=1e-6)


def test_a_curve_without_its_unit_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(), "NPHI.": series(), "RHOB.OHMM": series(), "NPOR.API": series(), "XYZ.M": series()})
    source = WellLogs([path], WellLogs.Options(split="train"))
    plan = source.plan()
    assert [v.name for v in next(source.samples(plan.refs)).variables] == ["gamma_ray_index"]  # type: ignore[union-attr]
    told = "; ".join(plan.notes)
    for words in (
        "NPHI is left out: it has no unit and neutron_porosity needs one; curves=NPHI:NAME:UNIT takes it",
        "RHOB is left out: its unit OHMM is none of bulk_density",
        "NPOR is left out: its unit API is none of neutron_porosity",
        "XYZ is left out: its mnemonic is not known",
    ):
        assert words in told
    assert "state it with curves=NPHI:neutron_porosity:UNIT" in refusal_of(WellLogs, path, curves=("NPHI",))
    (sample,) = samples_of(WellLogs, path, curves=("NPHI:neutron_porosity:percent", "XYZ:offset"), split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [("neutron_porosity", "1"), ("offset", "m")]
    assert "no file has this curve; did you mean NPHI?" in refusal_of(WellLogs, path, curves=("NPHJ",))


def test_the_best_of_several_curves_of_one_quantity(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"ILM.OHMM": series(50, 1), "ILD.OHMM": series(50, 2), "SN.OHMM": series(50, 3)})
    source = WellLogs([path], WellLogs.Options(split="train"))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    assert sample is not None
    np.testing.assert_allclose(sample.values.ravel(), series(50, 2), rtol=1e-6)
    assert "ILM is left out: ILD is taken for electrical_resistivity" in plan.notes
    assert sample.origin.about["curves"] == {"electrical_resistivity": "ILD"}


def test_wells_share_a_layout_and_never_part(tmp_path: Path) -> None:
    for w in range(10):
        columns = {"GR.GAPI": series(100, w)} | ({"SP.MV": series(100, w)} if w % 2 else {})
        place = f" LATI.DEG {30 + w} 30 00 N : LATITUDE\n LONG. -110.{w} : LONGITUDE"
        las(tmp_path / f"{w}.las", columns, well=f"W{w}", items=place)
        las(tmp_path / f"{w}b.las", columns, first=500, well=f"W{w}", items=place)
    source = WellLogs([tmp_path], WellLogs.Options(frames_per_sample=50))
    plan = source.plan()
    homes: dict[str, set[str]] = {}
    layouts = set()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        homes.setdefault(sample.origin.place, set()).add(ref.split)
        layouts.add(str(sample.layout))
    assert len(layouts) == 1
    assert len(homes) == 10
    assert all(len(own) == 1 for own in homes.values())
    assert {s.name for s in plan.splits} == {"train", "valid", "test"}
    assert sample is not None
    assert sample.geometry == "points"
    assert sample.coordinates["latitude"].values[0] % 1 == 0.5
    assert sample.coordinates["longitude"].values[0] < -110


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("45.25", 45.25),
        ("45 15 00 N", 45.25),
        ("45 15 00S", -45.25),
        ("-45.25", -45.25),
        ("45 deg 15 min 0 sec EAST", 45.25),
        ("unknown", None),
        ("35.1234 NAD27", 35.1234),
        ("35.1234 NAD 27", 35.1234),
        ("35 07 24.24 N (WGS84)", 35.1234),
        ("35.1234 20", None),
        ("35,1234", 35.1234),
        ("W 104 30", -104.5),
        ("35 30 N NAD83", 35.5),
    ],
)
def test_ways_to_write_a_place(text: str, value: float | None) -> None:
    assert degrees(Item("", text, ""), 180.0) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Smith 1", "42-001-12345", ""), ("SMITH #1", "4200112345", "")),  # two spellings
        (("Smith 1", "42-001-12345", ""), ("smith-1", "", "")),  # the number is missing in one
        (("Smith 1", "", "100/11-11"), ("Renamed", "", "100 11 11")),  # another name
        (("A", "42-001-12345-00-00", ""), ("B", "", "4200112345")),  # a number of 14 digits, and one of 10 as UWI
    ],
)
def test_one_well_by_any_of_its_names_is_in_one_split(tmp_path: Path, one: tuple[str, ...], other: tuple[str, ...]) -> None:
    def well(name: str, names: tuple[str, ...]) -> Path:
        items = f" API. {names[1]} : API\n UWI. {names[2]} : UWI"
        return las(tmp_path / name, {"GR.GAPI": series(20)}, well=names[0], items=items)

    homes = []
    for turn in range(6):  # the draw goes by names, so one set of wells can be right by chance
        rest = [well(f"w{i}.las", (f"T{turn} W{i}", "NA", "0000")) for i in range(8)]
        refs = WellLogs([*rest, well("x.las", one), well("y.las", other)], WellLogs.Options(splits=(0.4, 0.3, 0.3))).plan().refs
        homes.append([{r.split for r in refs if r.spec["file"] == n} for n in (8, 9)])
        assert len({r.split for r in refs}) == 3
    assert all(a == b for a, b in homes)


def test_overlapping_files_of_one_well_are_cut_at_the_same_depths(tmp_path: Path) -> None:
    las(tmp_path / "1.las", {"GR.GAPI": series(2000, 1)}, first=0, step=0.5, well="A")
    las(tmp_path / "2.las", {"GR.GAPI": series(2400, 2)}, first=800, step=0.5, well="A")
    las(tmp_path / "3.las", {"GR.GAPI": series(1000, 3)}, first=1900, step=-1.0, well="a")
    source = WellLogs([tmp_path], WellLogs.Options(gap=20))
    plan = source.plan()
    depths: dict[str, list[float]] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        depths.setdefault(ref.split, []).extend(sample.time.seconds[[0, -1]])
    ends = {split: (min(own), max(own)) for split, own in depths.items()}
    # 4000 depths from 0 to 1999.5, the cuts at 1600 and 1800, behind them 20 rows of each file left out
    assert ends == {"train": (0.0, 1599.5), "valid": (1610.0, 1799.5), "test": (1810.0, 1999.5)}
    starts = [r.spec["start"] for r in plan.refs if r.spec["file"] == 2 and r.split == "valid"]
    assert starts == [1620 - 901]  # of the third, of 1 m a row


def test_few_wells_are_cut_along_depth(tmp_path: Path) -> None:
    for w in "ab":
        las(tmp_path / f"{w}.las", {"GR.GAPI": series(1000)}, well=w)
    source = WellLogs([tmp_path], WellLogs.Options(gap=20))
    plan = source.plan()
    assert any("2 of split_by well are too few" in note for note in plan.notes)
    spans = {(r.split, r.spec["file"]): (r.spec["start"], r.spec["stop"]) for r in plan.refs}
    assert spans["train", 0] == (0, 800)
    assert spans["valid", 1] == (820, 900)


def test_a_hole_in_depth_begins_a_new_sample(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(60)})
    lines = path.read_text().splitlines()
    at = lines.index("~A") + 1
    path.write_text("\n".join(lines[: at + 20] + lines[at + 30 :]) + "\n")
    samples = samples_of(WellLogs, path, split="train")
    assert [len(s.time) for s in samples] == [20, 30]
    path.write_text("\n".join([*lines[: at + 20], lines[at + 10], *lines[at + 20 :]]) + "\n")
    assert "expected rising positions at one step" in refusal_of(WellLogs, path)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = las(tmp_path / "a.las", {"GR.GAPI": series(), "SP.MV": series()})
    whole = path.read_bytes()
    begin = whole.index(b"~A\n") + 3
    row = len(whole[begin:].splitlines()[0]) + 1
    spoilt = {
        "header": (whole[:120], "has no section of numbers"),
        "no numbers": (whole[:begin], "has no row of numbers"),
        "half a row": (whole[: begin + 50 * row + 15], "1 values for 3 curves|values for 3 curves"),
        "whole rows": (whole[: begin + 50 * row], "its header says that it stops at 199.5; it is truncated"),
        "last digit": (whole[:-5], "ends without a new line"),
        "word": (whole.replace(b"\n~A", b"\n~A", 1)[: begin + 3 * row + 20] + b"x" + whole[begin + 3 * row + 21 :], "is not a number"),
        "zeros": (whole[: begin + 5 * row] + bytes(row) + whole[begin + 6 * row :], "is not text"),
        "another": (b"<html>503</html>\n", "does not begin as LAS does"),
        "version 3": (whole.replace(b"VERS. 2.0", b"VERS. 3.0"), "expected version 1.2 or 2.0"),
        "time": (whole.replace(b".M ", b".S "), "expected depth along the well"),
    }
    for name, (data, told) in spoilt.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=told):
            WellLogs([path], WellLogs.Options(split="train")).plan()
        assert "a.las" in refusal_of(WellLogs, path), name
    path.write_bytes(whole[: begin + 50 * row])
    assert len(samples_of(WellLogs, path, whole=False, split="train")[0].time) == 50


def test_a_real_log() -> None:
    path = real("edx_gdr/6038187_v1.2.las")
    assert WellLogs.recognises(path)
    source = WellLogs([path], WellLogs.Options(split="train"))
    plan = source.plan()
    samples = [s for s in source.samples(plan.refs) if s is not None]
    reading = lasio.read(str(path))
    assert sum(len(s.time) for s in samples) == len(reading.index) == 2732
    np.testing.assert_allclose(np.concatenate([s.time.seconds for s in samples]), reading.index, atol=1e-9)
    for name, mnemonic, factor in (
        ("gamma_ray_index", "GAMN", 1),
        ("spontaneous_potential", "SP", 1e-3),
        ("borehole_diameter", "CALI", 1e-3),
    ):
        np.testing.assert_allclose(column(samples, name), reading[mnemonic] * factor, rtol=1e-6)
    assert samples[0].origin.place == "Scorpio E1 6038-187"
    assert any(note.startswith("NEUT is left out") for note in plan.notes)
    (own, *_) = samples_of(WellLogs, path, curves=("DFAR:bulk_density", "NEUT:neutron_counts"), split="train")
    assert [(v.name, v.unit) for v in own.variables] == [("bulk_density", "kg m**-3"), ("neutron_counts", "1/s")]
