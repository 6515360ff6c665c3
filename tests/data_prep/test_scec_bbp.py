"""SCEC Broadband Platform: equal to NumPy's reading of the text, units by name, copies of a component found, events kept whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.sources.scec_bbp import ScecBbp
from scigpt.errors import UserError

SRC = "#\n# event\n#\nMAGNITUDE = {magnitude}\nSTRIKE = 122\nDIP = 40\nDEPTH_TO_TOP = 5.00\nHYPO_DOWN_DIP =  19.40\nSEED = {seed}\n"


def motion(count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (count, 3))


def write(
    path: Path, values: np.ndarray, step: float = 0.01, header: Sequence[str] = ("#    time(sec)  N-S(cm/s)  E-W(cm/s)  U-D(cm/s)",)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i * step:e}\t" + "\t".join(f"{v:e}" for v in row) for i, row in enumerate(values)]
    path.write_text("\n".join([*header, *rows]) + "\n")
    return path


def east_north_up(table: np.ndarray) -> np.ndarray:
    return table[:, [1, 0, 2]]


def spectra(path: Path) -> Path:
    path.write_text("#  RotD50 RotD50 RotD50\n    0.0100    3.9e-01    3.9e-01    3.9e-01\n")
    return path


def test_components_are_named_by_direction_and_converted(tmp_path: Path) -> None:
    values = motion()
    (sample,) = samples_of(ScecBbp, write(tmp_path / "s01.vel.bbp", values), split="train")
    assert [(v.name, v.unit) for v in sample.variables] == [(f"ground_velocity_{d}", "m s**-1") for d in ("east", "north", "up")]
    np.testing.assert_allclose(sample.values[:, :, 0, 0, 0], east_north_up(values) / 100, rtol=2e-6)
    assert sample.valid.all()
    assert sample.time.calendar == "none"
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.01, atol=1e-9)


@pytest.mark.parametrize(("word", "quantity", "unit"), [("acc", "acceleration", "m s**-2"), ("dis", "displacement", "m")])
def test_the_extension_wins_over_a_lying_header(tmp_path: Path, word: str, quantity: str, unit: str) -> None:
    values = motion()
    source = ScecBbp([write(tmp_path / f"s01.{word}.bbp", values)], ScecBbp.Options(quantity=quantity, split="train"))
    plan = source.plan()
    assert any(f"s01.{word}.bbp: its header says velocity, its name {quantity}; the name is believed" in note for note in plan.notes)
    (sample,) = source.samples(plan.refs)
    assert {(v.name.rpartition("_")[0], v.unit) for v in sample.variables} == {(f"ground_{quantity}", unit)}
    np.testing.assert_allclose(sample.values[:, :, 0, 0, 0], east_north_up(values) / 100, rtol=2e-6)


@pytest.mark.parametrize(
    ("header", "quantity"), [("N-S(cm/s/s) E-W(cm/s/s) U-D(cm/s/s)", "acceleration"), ("N-S(cm/s) E-W(cm/s) U-D(cm/s)", "velocity")]
)
def test_a_plain_name_leaves_the_quantity_to_the_header(tmp_path: Path, header: str, quantity: str) -> None:
    path = write(tmp_path / "s01.bbp", motion(), header=(f"# time(sec) {header}",))
    (sample,) = samples_of(ScecBbp, path, quantity=quantity, split="train")
    assert sample.variables[0].name == f"ground_{quantity}_east"
    other = "velocity" if quantity == "acceleration" else "acceleration"
    assert f"has no record of {other}; it has 1 of {quantity}" in refusal_of(ScecBbp, path, quantity=other)


@pytest.mark.parametrize("unit", ["g", "m/s/s", "in/s"])
def test_a_plain_name_with_a_unit_that_is_not_the_platforms_is_refused(tmp_path: Path, unit: str) -> None:
    header = (f"# time(sec) N-S({unit}) E-W({unit}) U-D({unit})",)
    told = refusal_of(ScecBbp, write(tmp_path / "s01.bbp", motion(), header=header))
    assert f"s01.bbp: its header states the unit ({unit}) and its name none; expected cm, cm/s or cm/s/s" in told
    source = ScecBbp([write(tmp_path / "s01.vel.bbp", motion(), header=header)], ScecBbp.Options(split="train"))
    assert any(f"its header says {unit}, its name velocity" in note for note in source.plan().notes)


@pytest.mark.parametrize(("unit", "quantity"), [("cm/sec", "velocity"), ("cm/sec/sec", "acceleration"), ("cm/sec^2", "acceleration")])
def test_other_spellings_of_the_units(tmp_path: Path, unit: str, quantity: str) -> None:
    path = write(tmp_path / "s01.bbp", motion(), header=(f"# time(sec) N-S({unit}) E-W({unit}) U-D({unit})",))
    source = ScecBbp([path], ScecBbp.Options(quantity=quantity, split="train"))
    assert not source.plan().notes


@pytest.mark.parametrize(
    ("names", "order"), [(("E-W", "N-S", "U-D"), (1, 0, 2)), (("UP", "NS", "EW"), (2, 0, 1)), (("000", "090", "ver"), (0, 1, 2))]
)
def test_columns_are_in_the_order_of_the_header(tmp_path: Path, names: tuple[str, ...], order: tuple[int, ...]) -> None:
    values = motion()  # north, east, up
    header = ("# time(sec) " + " ".join(f"{n}(cm/s)" for n in names),)
    source = ScecBbp([write(tmp_path / "s01.vel.bbp", values[:, order], header=header)], ScecBbp.Options(split="train"))
    plan = source.plan()
    (sample,) = source.samples(plan.refs)
    np.testing.assert_allclose(sample.values[:, :, 0, 0, 0], east_north_up(values) / 100, rtol=2e-6)
    assert [note.startswith("s01.vel.bbp: its columns are") for note in plan.notes] == ([True] if order != (0, 1, 2) else [])


def test_a_name_and_header_that_say_nothing_mean_velocity(tmp_path: Path) -> None:
    source = ScecBbp([write(tmp_path / "s01.bbp", motion(), header=())], ScecBbp.Options(split="train"))
    plan = source.plan()
    assert any("says nowhere what it holds; it is taken for velocity" in note for note in plan.notes)
    assert len(plan.refs) == 1


def test_a_copied_component_is_invalid_and_noted_or_refused(tmp_path: Path) -> None:
    values = motion()
    values[:, 2] = values[:, 0]
    path = write(tmp_path / "s01.vel.bbp", values)
    source = ScecBbp([path], ScecBbp.Options(split="train", frames_per_sample=150))
    plan = source.plan()
    assert any("U-D is identical to N-S in every row" in note for note in plan.notes)
    for sample in source.samples(plan.refs):
        assert sample.valid[:, :2].all()
        assert not sample.valid[:, 2].any()
    assert "U-D is identical to N-S in every row; leave the file out" in refusal_of(ScecBbp, path, duplicates="refuse")
    values[7, 2] += 1e-3
    (sample,) = samples_of(ScecBbp, write(path, values), split="train")
    assert sample.valid.all()


def test_each_record_keeps_its_step_and_samples_their_place_in_it(tmp_path: Path) -> None:
    steps = {"a": 0.02, "b": 0.025, "c": 0.01}
    for name, step in steps.items():
        write(tmp_path / f"{name}.vel.bbp", motion(), step)
    samples = samples_of(ScecBbp, tmp_path, split="train", frames_per_sample=150)
    assert len(samples) == 9
    for sample in samples:
        np.testing.assert_allclose(np.diff(sample.time.seconds), steps[sample.origin.about["station"]], atol=1e-9)
    assert [round(s.time.seconds[0], 6) for s in samples[:3]] == [0.0, 2.66, 5.32]


def test_headers_of_1_to_21_lines_in_either_mark_with_their_count_of_rows(tmp_path: Path) -> None:
    values = motion(2000)
    rows = [f"  {i * 0.009372998029:.5f}   " + "  ".join(f"{v:.5E}" for v in row) for i, row in enumerate(values)]
    header = [
        "% ---",
        "% synthetic",
        *["%"] * 16,
        "% NPTS, DT:  2000 0.009372998029",
        "% time(s)    NS (cm/s)      EW(cm/s)       UP (cm/s)",
        "% ---",
    ]
    path = tmp_path / "5017.bbp"
    path.write_text("\n".join([*header, *rows]) + "\n")
    (sample,) = samples_of(ScecBbp, path, split="train")
    np.testing.assert_allclose(sample.time.seconds, 0.009372998029 * np.arange(2000), atol=1e-12)
    np.testing.assert_allclose(sample.values[:, :, 0, 0, 0], east_north_up(values) / 100, rtol=2e-5)
    path.write_text("\n".join([*header, *rows[:-1]]) + "\n")
    assert "has 1999 rows and its header promises 2000; it is truncated" in refusal_of(ScecBbp, path)


def test_irregular_times_are_refused_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "s01.vel.bbp", motion())
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:200] + lines[201:]) + "\n")
    assert "s01.vel.bbp, line 201: the time 2 s does not follow 1.98 s" in refusal_of(ScecBbp, path)


def test_places_and_vs30_come_from_the_station_list_and_the_earthquake_from_its_description(tmp_path: Path) -> None:
    write(tmp_path / "run/1096499.2001-SCE.vel.bbp", motion())
    write(tmp_path / "run/2002-SYL-lf.vel.bbp", motion(seed=1))
    (tmp_path / "nr.stl").write_text("# list\n-118.481 34.312  2001-SCE  371 0.2882  111.1111\n-118.444 34.326\t2002-SYL\n")
    (tmp_path / "nr.src").write_text(SRC.format(magnitude=6.73, seed=1))
    (tmp_path / "nr.srf").write_text("2.0\nPLANE 1\n -118.088524 34.011879 50 60 9.9960 12.5\n 280 30 12.0000 0.0000 5.2000\nPOINTS 3000\n")
    first, second = samples_of(ScecBbp, tmp_path, split="train")
    assert first.geometry == second.geometry == "points"
    assert (first.coordinates["latitude"].values[0], first.coordinates["longitude"].values[0]) == (34.312, -118.481)
    assert first.coefficients == {
        "magnitude": 6.73,
        "strike": 122.0,
        "dip": 40.0,
        "depth_to_top": 5.0,
        "hypocentre_down_dip": 19.4,
        "vs30": 371.0,
    }
    assert "vs30" not in second.coefficients
    about = first.origin.about
    assert (about["station"], about["run"], about["event"], about["trusted_band_hz"]) == ("2001-SCE", "1096499", "nr", [0.2882, 111.1111])
    assert about["source"]["SEED"] == 1
    assert about["rupture"]["planes"][0]["dip"] == 30
    assert about["rupture"]["planes"][0]["width_km"] == 12.5
    assert second.origin.about["part"] == "low frequencies"
    assert [f.name for f in first.origin.files] == ["1096499.2001-SCE.vel.bbp", "nr.src", "nr.srf", "nr.stl"]


def test_without_places_for_all_there_are_coordinates_for_none(tmp_path: Path) -> None:
    write(tmp_path / "known.vel.bbp", motion())
    write(tmp_path / "new.vel.bbp", motion())
    (tmp_path / "nr.stl").write_text("-118.481 34.312  known\n")
    source = ScecBbp([tmp_path], ScecBbp.Options(split="train"))
    plan = source.plan()
    assert any("no station list has new" in note for note in plan.notes)
    samples = list(source.samples(plan.refs))
    assert {s.geometry for s in samples} == {"plane"}
    assert samples[0].origin.about["latitude"] == 34.312


def test_runs_of_one_earthquake_never_part(tmp_path: Path) -> None:
    for event in range(12):
        for run in range(3):
            folder = tmp_path / f"e{event}-{run}"
            for station in "ab":
                write(folder / f"{station}.vel.bbp", motion(60, 100 * event + 10 * run + ord(station)))
            (folder / "x.src").write_text(SRC.format(magnitude=6 + event / 10, seed=run))
    source = ScecBbp([tmp_path], ScecBbp.Options(splits=(0.5, 0.25, 0.25)))
    homes: dict[float, set[str]] = {}
    plan = source.plan()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        homes.setdefault(sample.coefficients["magnitude"], set()).add(ref.split)
    assert len(homes) == 12
    assert all(len(own) == 1 for own in homes.values())
    assert {s for own in homes.values() for s in own} == {"train", "valid", "test"}
    by_station = ScecBbp([tmp_path], ScecBbp.Options(splits=(0.5, 0.0, 0.5), split_by="station"))
    assert len({(r.split, s.origin.about["station"]) for r in by_station.plan().refs for s in by_station.samples([r])}) == 2


def test_descriptions_beside_the_records_as_the_platform_lays_them_out(tmp_path: Path) -> None:
    for run in range(12):  # two seeds of each of six earthquakes
        write(tmp_path / f"outdata/{1000 + run}/{1000 + run}.s01.vel.bbp", motion(20, run))
        (tmp_path / f"indata/{1000 + run}").mkdir(parents=True)
        (tmp_path / f"indata/{1000 + run}/a.src").write_text(SRC.format(magnitude=5 + run // 2 / 10, seed=run))
    source = ScecBbp([tmp_path], ScecBbp.Options(splits=(0.5, 0.25, 0.25)))
    plan = source.plan()
    homes: dict[float, set[str]] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample.coefficients["magnitude"] == pytest.approx(5 + (int(sample.origin.about["run"]) - 1000) // 2 / 10)
        homes.setdefault(sample.coefficients["magnitude"], set()).add(ref.split)
    assert [len(own) for own in homes.values()] == [1] * 6
    assert {s for own in homes.values() for s in own} == {"train", "valid", "test"}
    assert not any("no record is of" in note for note in plan.notes)


def test_a_description_given_alone_serves_all_and_one_too_many_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "outdata/1/s01.vel.bbp", motion(20))
    write(tmp_path / "outdata/2/s02.vel.bbp", motion(20, 1))
    for name in ("nr.src", "elsewhere/lp.src"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SRC.format(magnitude=6 + ("lp" in name), seed=1))
    monkeypatch.chdir(tmp_path)  # the folder of a relative path is above the records too
    for source, magnitude in (("nr.src", 6), ("elsewhere/lp.src", 7), (str(tmp_path / "nr.src"), 6)):
        samples = samples_of(ScecBbp, [Path("outdata"), Path(source)], split="train")
        assert [s.coefficients["magnitude"] for s in samples] == [magnitude] * 2
    both = ScecBbp([Path("outdata"), Path("nr.src"), Path("elsewhere/lp.src")], ScecBbp.Options(split="train"))
    plan = both.plan()
    assert any(note.startswith("no record is of lp.src") for note in plan.notes)
    assert {s.coefficients["magnitude"] for s in both.samples(plan.refs)} == {6.0}


def test_records_of_one_station_are_cut_at_the_same_times(tmp_path: Path) -> None:
    steps = {"s01-lf": 0.1, "s01-hf": 0.01, "s01": 0.02}
    for name, step in steps.items():
        write(tmp_path / f"{name}.vel.bbp", motion(round(150 / step) if name != "s01" else 4000, len(name)), step)
    source = ScecBbp([tmp_path], ScecBbp.Options(gap=20, split_by="time"))
    times: dict[str, list[float]] = {}
    plan = source.plan()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        times.setdefault(ref.split, []).extend(sample.time.seconds[[0, -1]])
    assert max(times["train"]) < min(times["valid"]) - 0.2 + 1e-9
    assert max(times["valid"]) < min(times["test"]) - 0.2 + 1e-9
    assert max(times["train"]) == pytest.approx(120, abs=0.1)


def test_several_earthquakes_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.vel.bbp", motion(60))
    for n in (6, 7):
        (tmp_path / f"{n}.src").write_text(SRC.format(magnitude=n, seed=1))
    assert "describes several earthquakes (6.src, 7.src)" in refusal_of(ScecBbp, tmp_path)
    (tmp_path / "7.src").write_text(SRC.format(magnitude=6, seed=2))
    assert len(samples_of(ScecBbp, tmp_path, split="train")) == 1


def test_spectra_are_told_from_records(tmp_path: Path) -> None:
    path = spectra(tmp_path / "s01.rd50")
    assert ScecBbp.recognises(path)
    assert "s01.rd50 is a response spectrum, not a time history" in refusal_of(ScecBbp, path)
    write(tmp_path / "s01.vel.bbp", motion())
    source = ScecBbp([tmp_path], ScecBbp.Options())
    assert any(note.startswith("1 response spectra") for note in source.plan().notes)


def test_recognised_by_content(tmp_path: Path) -> None:
    assert ScecBbp.recognises(write(tmp_path / "s01.vel.bbp", motion(5)))
    assert ScecBbp.recognises(write(tmp_path / "renamed.txt", motion(5)))
    for name, text in {
        "a.bbp": "hello\n",
        "b.txt": "1 2 3 4\n",
        "c.bbp": "\x89HDF\r\n",
        "d.src": "PYTHON = 1\n",
        "e.stl": "solid cube\n",
    }.items():
        (tmp_path / name).write_text(text)
        assert not ScecBbp.recognises(tmp_path / name), name
    (tmp_path / "f.srf").write_text("2.0\nPLANE 1\n -118.0 34.0 50 60 9.9 12.5\n 280 30 12.0 0.0 5.2\n")
    assert ScecBbp.recognises(tmp_path / "f.srf")
    assert not ScecBbp.recognises(tmp_path)


def test_damaged_text_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "s01.vel.bbp", motion())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[4000] |= 0x80
    spoilt = {
        "cut": (whole[:9001], "ends without a new line, so it may be cut off"),
        "no row": (whole[:40], "has 0 rows of numbers"),
        "flipped": (bytes(flipped), "not plain text"),
        "word": (whole[:4000] + b"x" + whole[4001:], "is not four numbers"),
        "joined": (whole[:4000] + whole[4000:].replace(b"\n", b" ", 1), "is not four numbers"),
        "comment": (whole + b"# end\n", "a comment stands among the rows"),
    }
    for name, (data, told) in spoilt.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=told):
            ScecBbp([path], ScecBbp.Options(split="train")).plan()
        assert "s01" in refusal_of(ScecBbp, path), name
    path.write_bytes(b"")
    assert "is empty" in refusal_of(ScecBbp, path)
    assert "give --input" in refusal_of(ScecBbp, [])
    for name, text in {"a.stl": "1 2\n", "a.src": "MAGNITUDE 6\n"}.items():
        write(path, motion(60))
        (tmp_path / name).write_text(text)
        assert name in refusal_of(ScecBbp, tmp_path)
        (tmp_path / name).unlink()


def test_a_corpus(tmp_path: Path) -> None:
    for station in ("a", "b", "c"):
        write(tmp_path / f"in/{station}.vel.bbp", motion(600, ord(station)))
    corpus = Corpus.open(convert(ScecBbp([tmp_path / "in"], ScecBbp.Options(split_by="time", gap=10)), tmp_path / "out", progress=False))
    assert corpus.manifest["licences"] == ["BSD-3-Clause"]
    assert set(corpus.manifest["splits"]) == {"train", "valid", "test"}
    assert corpus.manifest["splits"]["train"]["frames"] == 3 * 480


def test_the_repository_is_asked_at_one_commit() -> None:
    found = list(ScecBbp.remotes(ScecBbp.Fetch(server="http://x", ref="abc"), lambda url: b""))
    assert found[0].url == "http://x/abc/bbp/tests/ref_data/ucb/80001.vel.bbp"
    assert [r.file for r in found][-1] == "ucb/rotd50.stl"
    with pytest.raises(UserError, match="files= is empty"):
        list(ScecBbp.remotes(ScecBbp.Fetch(files=()), lambda url: b""))


# --- real files


def whole(samples: Sequence[Any]) -> np.ndarray:
    return np.concatenate([s.values[:, :, 0, 0, 0] for s in samples])


def test_real_simulated_velocity() -> None:
    path = real("scec_bbp/s01.merged.bbp")
    samples = samples_of(ScecBbp, path, split="train")
    table = np.loadtxt(path)
    assert whole(samples).shape == (10240, 3)
    np.testing.assert_allclose(whole(samples), east_north_up(table[:, 1:]) / 100, rtol=1e-6)
    np.testing.assert_allclose(np.concatenate([s.time.seconds for s in samples]), table[:, 0], atol=5e-5)
    assert samples[0].origin.about["station"] == "s01"


def test_real_accelerations_of_one_earthquake() -> None:
    source = ScecBbp([real("scec_bbp")], ScecBbp.Options(quantity="acceleration", split="train"))
    plan = source.plan()
    assert any("2002-SYL.bbp: U-D is identical to N-S in every row" in note for note in plan.notes)
    assert any("1 files of velocity are left out" in note for note in plan.notes)
    simulated, recorded = source.samples(plan.refs)
    for sample, name, step in ((simulated, "2002-SYL.acc.bbp", 0.025), (recorded, "2002-SYL.bbp", 0.02)):
        table = np.loadtxt(real(f"scec_bbp/{name}"))
        np.testing.assert_allclose(sample.values[:, :2, 0, 0, 0], table[:, [2, 1]] / 100, rtol=1e-6)
        np.testing.assert_allclose(np.diff(sample.time.seconds), step, atol=1e-9)
        assert (sample.coefficients["magnitude"], sample.coefficients["vs30"]) == (6.73, 441.0)
        assert (sample.coordinates["latitude"].values[0], sample.coordinates["longitude"].values[0]) == (34.326, -118.444)
    assert simulated.valid.all()
    np.testing.assert_array_equal(recorded.valid.all(axis=(0, 2, 3, 4)), [True, True, False])
    # 0.84 g, the peak that the station is known for: the header, not the plain name, says what this file holds
    assert abs(np.abs(recorded.values[:, 1]).max() / 9.80665 - 0.843) < 0.001
