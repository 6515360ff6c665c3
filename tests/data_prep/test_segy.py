"""SEG-Y surveys: volumes, lines and shot records equal segyio's reading; dead traces and holes are invalid; splits lie apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from damage import HTML, PNG, cut
from readings import real, refusal_of, samples_of
from segy_files import line, write_segy

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import parse_options
from scigpt.data_prep.sources.segy import Segy, SegyFetch, surveys
from scigpt.errors import UserError

segyio = pytest.importorskip("segyio")
REAL = ("small.sgy", "shot-gather.sgy", "viking_small.segy")


def grid(path: Path, rows: int = 50, columns: int = 12, samples: int = 20, keep: Any = None, **headers: Any) -> tuple[Path, np.ndarray]:
    """A volume of inlines 100, 102, ... and crosslines 7, 8, ..., rotated by 30 degrees, bins of 50 m by 25 m; and its values."""
    cube = np.random.default_rng(1).normal(0, 10, (rows, columns, samples)).astype(np.float32)
    row, column = (a.ravel() for a in np.indices((rows, columns)))
    chosen = np.arange(rows * columns) if keep is None else keep
    x = 1000 + 50 * row * np.sin(np.pi / 6) + 25 * column * np.cos(np.pi / 6)
    y = 2000 + 50 * row * np.cos(np.pi / 6) - 25 * column * np.sin(np.pi / 6)
    words = {
        189: 100 + 2 * row,
        193: 7 + column,
        181: np.rint(100 * x),
        185: np.rint(100 * y),
        71: np.full(row.size, -100),
        89: 1 + 0 * row,
    }
    words |= {int(k.removeprefix("byte")): np.broadcast_to(v, row.size) for k, v in headers.items()}
    write_segy(path, cube.reshape(-1, samples)[chosen], {k: v[chosen] for k, v in words.items()})
    return path, cube


def shots(path: Path, counts: tuple[int, ...] = (8,) * 20, samples: int = 16, **headers: Any) -> tuple[Path, list[np.ndarray]]:
    """Records 11, 12, ... with so many receivers each."""
    total = sum(counts)
    values = line(total, samples, 2)
    record = np.repeat(np.arange(len(counts)) + 11, counts)
    channel = np.concatenate([np.arange(n) for n in counts])
    words = {
        9: record,
        13: channel + 1,
        37: 100 + 25 * channel,
        81: 5000 + 25 * channel + 50 * record,
        85: 0 * record,
        73: 5000 + 50 * record,
    }
    write_segy(path, values, words | {int(k.removeprefix("byte")): v for k, v in headers.items()})
    return path, [np.asarray(v) for v in np.split(values, np.cumsum(counts)[:-1])]


def plan_of(*paths: Path, **options: Any) -> Any:
    return Segy(paths, Segy.Options(**options)).plan()


def rows_of(plan: Any, which: int = 0) -> dict[str, set[int]]:
    """Rows (or columns) of the windows of each split."""
    found: dict[str, set[int]] = {}
    for ref in plan.refs:
        start, size = ref.spec["window"][which], ref.spec["window"][2 + which]
        found.setdefault(ref.split, set()).update(range(start, start + size))
    return found


# --- real files


def test_the_real_volume_equals_segyio() -> None:
    path = real("segy/small.sgy")
    (sample,) = samples_of(Segy, path)
    cube = segyio.tools.cube(str(path))
    np.testing.assert_array_equal(sample.values[:, 0, 0], cube.transpose(2, 0, 1))
    assert sample.valid.all()
    assert sample.time.calendar == "none"
    with segyio.open(path) as file:
        np.testing.assert_allclose(sample.time.seconds, file.samples / 1000, atol=1e-12)
        assert sample.origin.about["inlines"] == [file.ilines[0], file.ilines[-1]]
        assert sample.origin.about["crosslines"] == [file.xlines[0], file.xlines[-1]]
    assert [(v.name, v.unit, v.role) for v in sample.variables] == [("seismic_amplitude", "1", "state")]
    assert sample.origin.about["text"].startswith("DATE: 2016-09-19 AN INCREASE IN AMPLITUDE EQUALS")
    assert not sample.coordinates  # it has none


def test_the_real_shot_records_equal_segyio() -> None:
    """Inline and crossline are 0 in all traces; the trace headers say 1500 samples, the file has 600; code 3 is no degree here."""
    path = real("segy/viking_small.segy")
    samples = samples_of(Segy, path, frames_per_sample=600)
    with segyio.open(path, strict=False) as file:
        raw, record, offset, group = file.trace.raw[:], *(file.attributes(b)[:] for b in (9, 37, 81))
    assert [s.origin.about["record"] for s in samples] == [3, 4, 5, 6]
    for sample in samples:
        here = record == sample.origin.about["record"]
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0], raw[here].T)
        np.testing.assert_array_equal(sample.coordinates["offset"].values, offset[here])
        np.testing.assert_array_equal(sample.coordinates["x"].values, group[here])
        assert sample.coordinates["x"].unit == "m"
        assert sample.valid.all()
        np.testing.assert_allclose(np.diff(sample.time.seconds), 0.004)


def test_real_records_of_unequal_length_are_left_out_or_cut() -> None:
    path = real("segy/shot-gather.sgy")
    plan = plan_of(path)
    assert any("3 of 4 records are left out, because they do not have 26 traces" in note for note in plan.notes)
    pieces = samples_of(Segy, path, tile="10")
    assert [s.origin.about["record"] for s in pieces] == [2, 3, 5, 8, 8]
    with segyio.open(path, strict=False) as file:
        raw = file.trace.raw[:]
    np.testing.assert_array_equal(pieces[-1].values[:, 0, 0, 0], raw[45:55].T)


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_cut_off_or_another_is_refused(name: str, tmp_path: Path) -> None:
    whole = real(f"segy/{name}").read_bytes()
    path = tmp_path / name
    for data in (b"", cut(whole, 0.3), cut(whole, 0.99), whole[:-1], HTML, PNG, HTML * 100):
        path.write_bytes(data)
        assert name in refusal_of(Segy, path)
        assert not Segy.recognises(path)


@pytest.mark.parametrize("name", REAL)
def test_a_flipped_bit_in_what_says_how_to_read_is_seen(name: str, tmp_path: Path) -> None:
    """SEG-Y has no checksum: a flip in an amplitude, or one between formats of equal width, cannot be seen."""
    whole = real(f"segy/{name}").read_bytes()
    path = tmp_path / name
    for at, bit in ((3220, 7), (3221, 1), (3221, 6), (3224, 3), (3225, 3), (3225, 5)):  # number of samples, format
        flipped = bytearray(whole)
        flipped[at] ^= 1 << bit
        path.write_bytes(flipped)
        source = Segy([path], Segy.Options(split="train"))
        with contextlib.suppress(UserError):  # or a trace header that agrees with the length gives the same values
            found = [s.values for s in source.samples(source.plan().refs) if s is not None]
            expected = [s.values for s in samples_of(Segy, real(f"segy/{name}"), split="train")]
            np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))


def test_real_files_are_recognised(tmp_path: Path) -> None:
    assert all(Segy.recognises(real(f"segy/{name}")) for name in REAL)
    assert not Segy.recognises(real("segy"))
    assert not Segy.recognises(tmp_path / "nothing")


# --- volumes


def test_a_volume_with_holes_on_a_rotated_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    keep = np.sort(rng.permutation(50 * 12)[:500])
    path, cube = grid(tmp_path / "a.sgy", keep=keep)
    (sample,) = samples_of(Segy, path, split="train")
    known = np.zeros(600, bool)
    known[keep] = True
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.broadcast_to(known.reshape(50, 12), (20, 50, 12)))
    np.testing.assert_array_equal(sample.values[:, 0, 0][:, known.reshape(50, 12)], cube.reshape(600, 20)[keep].T)
    assert sample.origin.about["bins_without_trace"] == 100
    assert (sample.origin.about["inlines"], sample.origin.about["crosslines"]) == ([100, 198], [7, 18])
    r, c = np.indices((50, 12))
    assert sample.coordinates["x"].axes == ("y", "x")
    np.testing.assert_allclose(sample.coordinates["x"].values, 1000 + 25 * r + 12.5 * 3**0.5 * c, atol=0.02)
    np.testing.assert_allclose(sample.coordinates["y"].values, 2000 + 25 * 3**0.5 * r - 12.5 * c, atol=0.02)


def test_traces_in_any_order_fall_into_their_bins(tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(600)
    path, cube = grid(tmp_path / "a.sgy", keep=order)
    (sample,) = samples_of(Segy, path, split="train")
    np.testing.assert_array_equal(sample.values[:, 0, 0], cube.transpose(2, 0, 1))


def test_coordinates_along_the_axes_are_on_one_axis_each(tmp_path: Path) -> None:
    row, column = (a.ravel() for a in np.indices((50, 12)))
    path, _ = grid(tmp_path / "a.sgy", byte181=3 * column, byte185=2 * row, byte71=10)
    (sample,) = samples_of(Segy, path, split="train")
    assert (sample.coordinates["x"].axes, sample.coordinates["y"].axes) == (("x",), ("y",))
    np.testing.assert_allclose(sample.coordinates["x"].values, 30 * np.arange(12), atol=1e-6)  # a positive scalar multiplies
    np.testing.assert_allclose(sample.coordinates["y"].values, 20 * np.arange(50), atol=1e-6)


def test_dead_traces_and_numbers_that_are_none_are_invalid_and_a_mute_is_not(tmp_path: Path) -> None:
    cube = np.random.default_rng(1).normal(0, 10, (5, 4, 20)).astype(np.float32)
    cube[0, 0] = 0  # dead by its values
    cube[1, 1, :12] = 0  # muted
    cube[2, 2, 3], cube[2, 3, 4] = np.nan, np.inf
    row, column = (a.ravel() for a in np.indices((5, 4)))
    code = np.where((row == 3) & (column == 3), 2, 1)
    path = write_segy(tmp_path / "a.sgy", cube.reshape(20, 20), {189: row + 1, 193: column + 1, 29: code})
    first, second = samples_of(Segy, path, frames_per_sample=10)
    expected = np.ones((5, 4, 20), bool)
    expected[0, 0] = expected[3, 3] = expected[2, 2, 3] = expected[2, 3, 4] = False
    for sample, part in ((first, slice(0, 10)), (second, slice(10, 20))):
        np.testing.assert_array_equal(sample.valid[:, 0, 0], expected[..., part].transpose(2, 0, 1))
        assert sample.origin.about["dead_traces"] == 2
    assert first.valid[0, 0, 0, 1, 1]  # all of this window is muted, and it is not dead
    assert first.origin.about["values_not_finite"] == 2
    assert "values_not_finite" not in second.origin.about


def test_blocks_of_inlines_with_a_gap_between_the_splits(tmp_path: Path) -> None:
    path, _ = grid(tmp_path / "a.sgy", samples=4)
    rows = rows_of(plan_of(path, gap=2, tile="3x4"))
    assert rows["train"] <= set(range(40))
    assert rows["valid"] == {42, 43, 44}
    assert rows["test"] == {47, 48, 49}
    cut_by_default = rows_of(plan_of(path))  # a gap of one, tiles that fit the smallest block
    assert min(cut_by_default["valid"]) - max(cut_by_default["train"]) >= 2
    assert min(cut_by_default["test"]) - max(cut_by_default["valid"]) >= 2


def test_blocks_of_time_and_of_depth_along_z(tmp_path: Path) -> None:
    path, cube = grid(tmp_path / "a.sgy", rows=6, samples=100)
    spans = {r.split: r.spec["samples"] for r in plan_of(path, split_by="time", gap=2).refs}
    assert spans == {"train": [0, 80], "valid": [82, 90], "test": [92, 100]}
    (sample,) = samples_of(Segy, path, vertical="z", frames_per_sample=100, domain="depth", dt=5.0)
    assert sample.values.shape == (1, 1, 100, 6, 12)
    np.testing.assert_array_equal(sample.values[0, 0], cube.transpose(2, 0, 1))
    assert (sample.coordinates["z"].axes, sample.coordinates["z"].unit) == (("z",), "m")
    np.testing.assert_array_equal(sample.coordinates["z"].values, 5.0 * np.arange(100))
    sizes = {s.values.shape for s in samples_of(Segy, path, vertical="z", split_by="time", frames_per_sample=30)}
    assert sizes == {(1, 1, 8, 6, 12)}


def test_bytes_of_the_survey_instead_of_those_of_the_standard(tmp_path: Path) -> None:
    row, column = (a.ravel() for a in np.indices((50, 12)))
    path, cube = grid(tmp_path / "a.sgy", byte189=0, byte193=0, byte9=row + 1, byte21=column + 1)
    (sample,) = samples_of(Segy, path, inline_byte=9, crossline_byte=21, split="train")
    np.testing.assert_array_equal(sample.values[:, 0, 0], cube.transpose(2, 0, 1))
    said = refusal_of(Segy, path, dims="volume")
    assert "no volume by inline (byte 189) and crossline (byte 193): every trace has the inline 0" in said
    assert "byte 300 is not in a trace header" in refusal_of(Segy, path, inline_byte=300)


def test_numbers_of_inlines_are_never_coordinates(tmp_path: Path) -> None:
    row, column = (a.ravel() for a in np.indices((50, 12)))
    keys = {"byte189": 0, "byte193": 0, "byte181": 100 + row, "byte185": 7 + column, "byte71": 1}
    options = {"inline_byte": 181, "crossline_byte": 185, "split": "train"}
    path, _ = grid(tmp_path / "a.sgy", **keys)
    (sample,) = samples_of(Segy, path, **options)
    assert sample.origin.about["inlines"] == [100, 149]
    assert not sample.coordinates  # the file has no other words that vary
    for x, y in ((73, 77), (81, 85)):
        path, _ = grid(tmp_path / "a.sgy", **keys, **{f"byte{x}": 700_000 + 25 * column, f"byte{y}": 900_000 + 50 * row})
        (sample,) = samples_of(Segy, path, **options)
        np.testing.assert_allclose(sample.coordinates["x"].values, 700_000 + 25 * np.arange(12), rtol=1e-12)
        np.testing.assert_allclose(sample.coordinates["y"].values, 900_000 + 50 * np.arange(50), rtol=1e-12)
    assert "x_byte= and y_byte= go together" in refusal_of(Segy, path, x_byte=73)
    assert "x_byte= and y_byte= go together" in refusal_of(Segy, path, y_byte=77)


def test_why_a_file_is_no_volume_is_told(tmp_path: Path) -> None:
    row, column = (a.ravel() for a in np.indices((50, 12)))
    path, _ = grid(tmp_path / "a.sgy", byte189=0, byte193=0, byte9=row + 1, byte21=column + 1)
    grid(tmp_path / "b.sgy", byte189=0, byte193=0, byte9=row + 1, byte21=column + 1)
    told = "read as shot records, as it is no volume by inline (byte 189) and crossline (byte 193): every trace has the inline 0"
    assert any(note.startswith(f"a.sgy: {told}") for note in plan_of(path).notes)
    assert any(note.startswith(f"a.sgy and 1 more files: {told}") for note in plan_of(tmp_path).notes)
    assert any("a.sgy: read as a line, as it is no" in note for note in plan_of(write_segy(tmp_path / "a.sgy", line(30, 20))).notes)


def part(path: Path, rows: slice, columns: slice = slice(None), inlines: int = 60, crosslines: int = 6) -> Path:
    """Some inlines and crosslines of one survey."""
    row, column = (a[rows, columns].ravel() for a in np.indices((inlines, crosslines)))
    return write_segy(path, line(row.size, 8), {189: 100 + row, 193: 1 + column})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((slice(0, 30),), (slice(30, 60),)),  # one follows the other
        ((slice(0, 40),), (slice(20, 60),)),  # they overlap
        ((slice(0, 60), slice(0, 3)), (slice(0, 60), slice(3, 6))),  # side by side
        ((slice(30, 60),), (slice(0, 30),)),  # the later one first
    ],
)
def test_files_of_one_survey_are_cut_at_common_inlines(tmp_path: Path, one: tuple[slice, ...], other: tuple[slice, ...]) -> None:
    paths = [part(tmp_path / "a.sgy", *one), part(tmp_path / "b.sgy", *other)]
    source = Segy(paths, Segy.Options(splits=(0.5, 0.25, 0.25), gap=3, tile="1x3"))
    plan = source.plan()
    inlines: dict[str, set[int]] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        low, high = sample.origin.about["inlines"]
        inlines.setdefault(ref.split, set()).update(range(low, high + 1))
    assert max(inlines["train"]) == 129
    assert (min(inlines["valid"]), max(inlines["valid"])) == (133, 144)
    assert min(inlines["test"]) == 148


def test_parts_of_one_line_are_cut_at_common_cdps(tmp_path: Path) -> None:
    def cdps(paths: list[Path]) -> dict[str, set[int]]:
        source = Segy(paths, Segy.Options(splits=(0.5, 0.25, 0.25), gap=3, tile="5"))
        plan = source.plan()
        found: dict[str, set[int]] = {}
        for ref in plan.refs:
            own = source._surveys[ref.spec["survey"]].panels[0].columns[ref.spec["window"][1] :][:5]
            found.setdefault(ref.split, set()).update(own.tolist())
        return found

    def write(name: str, first: int, last: int, north: int = 0) -> Path:
        cdp = np.arange(first, last)
        return write_segy(tmp_path / name, line(cdp.size, 8), {21: cdp, 181: 25 * cdp, 185: 10 + north, 71: 1})

    follows = cdps([write("a.sgy", 1, 101), write("b.sgy", 101, 201)])
    overlaps = cdps([write("a.sgy", 1, 121), write("b.sgy", 81, 201)])
    for found in (follows, overlaps):
        assert max(found["train"]) <= 100 < 104 <= min(found["valid"])
        assert max(found["valid"]) <= 150 < 154 <= min(found["test"])
    others = cdps([write("a.sgy", 1, 101), write("b.sgy", 1, 201, 5000)])  # two lines, each numbered from 1
    assert max(others["train"]) == 100
    assert min(others["valid"]) == 54


def test_records_in_several_files_of_one_survey_keep_to_their_split(tmp_path: Path) -> None:
    path, _ = shots(tmp_path / "a.sgy")
    copy = tmp_path / "b.sgy"
    copy.write_bytes(path.read_bytes())
    plan = plan_of(path, copy)
    assert {(r.spec["panel"], r.split) for r in plan.refs} == {(r.spec["panel"], r.split) for r in plan_of(path).refs}
    assert len(plan.refs) == 2 * len(plan_of(path).refs)
    (tmp_path / "x").mkdir()
    assert plan_of(path, tmp_path / "x/../a.sgy").inputs == plan_of(path).inputs  # one file, however it is written
    for by in ("auto", "tile"):
        assert "gap=-5 must be a number of" in refusal_of(Segy, path, gap=-5, split_by=by)


def test_one_short_line_does_not_decide_for_all(tmp_path: Path) -> None:
    paths = [write_segy(tmp_path / f"{n}.sgy", line(n, 8), {21: np.arange(n) + 1}) for n in (1000, 900, 45)]
    plan = plan_of(*paths)
    assert {r.spec["window"][3] for r in plan.refs} == {72}
    assert {r.spec["survey"] for r in plan.refs} == {0, 1}
    assert any("3 of 9 blocks of a split are smaller than a sample (1 x 72) and are left out" in note for note in plan.notes)
    assert any("samples of 1 x 72 leave out" in note and "tile= chooses another size" in note for note in plan.notes)
    assert {r.spec["window"][3] for r in plan_of(*paths, tile="50").refs} == {50}
    assert "within 1 x 80" in refusal_of(Segy, paths, tile="81")
    assert len(plan_of(paths[2]).refs) > 2  # alone it is read


def test_traces_that_samples_of_one_size_leave_out_are_told(tmp_path: Path) -> None:
    path, _ = grid(tmp_path / "a.sgy", rows=95, samples=4)
    plan = plan_of(path)
    left = 1 - sum(r.spec["window"][2] * r.spec["window"][3] for r in plan.refs) / ((76 + 8 + 9) * 12)
    assert left > 0.03
    assert any(f"samples of 8 x 12 leave out {left:.1%} of the bins" in note for note in plan.notes)


def test_traces_before_stack_are_no_volume(tmp_path: Path) -> None:
    row, column = (a.ravel() for a in np.indices((50, 12)))
    path, _ = grid(tmp_path / "a.sgy", byte189=row // 2, byte193=column)
    assert "inline 0, crossline 0 has several traces (before stack?)" in refusal_of(Segy, path, dims="volume")
    path, _ = grid(tmp_path / "b.sgy", byte189=np.arange(600) * 1000, byte193=np.arange(600) * 777)
    assert "its 600 traces would lie in 600 x 600 bins" in refusal_of(Segy, path, dims="volume")


# --- lines and shots


def test_a_line_is_binned_by_its_cdps(tmp_path: Path) -> None:
    values = line(60, 20)
    cdp = np.delete(np.arange(100, 225, 2), [5, 17, 30])
    path = write_segy(tmp_path / "a.sgy", values, {21: cdp, 181: 10 * cdp, 185: 7, 71: 1})
    (sample,) = samples_of(Segy, path, split="train")
    assert sample.values.shape == (20, 1, 1, 1, 63)
    assert list(np.flatnonzero(~sample.valid[0, 0, 0, 0])) == [5, 17, 30]
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0][:, sample.valid[0, 0, 0, 0]], values.T)
    np.testing.assert_allclose(sample.coordinates["x"].values, 10 * np.arange(100, 225, 2))
    columns = rows_of(plan_of(path, gap=1), which=1)
    assert max(columns["train"]) < min(columns["valid"]) - 1


def test_a_line_without_any_number_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    values = line(30, 20)
    (sample,) = samples_of(Segy, write_segy(tmp_path / "a.sgy", values), split="train")
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0], values.T)
    assert sample.origin.about["columns"] == [1, 30]


def test_whole_shots_fall_into_one_split_with_a_gap(tmp_path: Path) -> None:
    path, records = shots(tmp_path / "a.sgy")
    plan = plan_of(path)
    split = {r.spec["panel"]: r.split for r in plan.refs}
    assert split == {**dict.fromkeys(range(16), "train"), 17: "valid", 19: "test"}
    assert {r.spec["panel"] for r in plan_of(path, gap=0).refs} == set(range(20))
    for sample in samples_of(Segy, path):
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0], records[sample.origin.about["record"] - 11].T)
        np.testing.assert_array_equal(sample.coordinates["offset"].values, 100 + 25.0 * np.arange(8))
    assert "split_by=shot needs shot records" in refusal_of(Segy, grid(tmp_path / "b.sgy")[0], split_by="shot")


def test_whole_files_fall_into_one_split(tmp_path: Path) -> None:
    paths = [write_segy(tmp_path / f"{n}.sgy", line(30, 20, n)) for n in range(10)]
    plan = plan_of(*paths, split_by="file")
    split = {r.spec["files"][0][0]: r.split for r in plan.refs}
    assert list(split.values()) == ["train"] * 8 + ["valid", "test"]
    assert any("the amplitudes of 10 files stand side by side as they are stored" in note for note in plan.notes)
    assert "split_by=file: 2 files leave none for valid" in refusal_of(Segy, paths[:2], split_by="file")
    assert {r.spec["files"][0][0] for r in plan_of(tmp_path, split="train").refs} == {p.name for p in paths}


def test_auxiliary_traces_are_left_out(tmp_path: Path) -> None:
    values = line(6, 20)
    path = write_segy(tmp_path / "a.sgy", values, {29: [1, 4, 1, 6, 1, 11]})
    source = Segy([path], Segy.Options(split="train"))
    assert any("2 of 6 traces are left out by their identification code" in note for note in source.plan().notes)
    (sample,) = source.samples(source.plan().refs)
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0], values[[0, 2, 4, 5]].T)
    (sample,) = samples_of(Segy, path, split="train", trace_id=(11,))
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0], values[5:].T)
    assert "has no trace to use; its traces have the identification codes 1, 4, 6, 11" in refusal_of(Segy, path, trace_id=(12,))


def test_traces_that_begin_later_are_shifted_and_their_gaps_are_invalid(tmp_path: Path) -> None:
    values = line(4, 20)
    path = write_segy(tmp_path / "a.sgy", values, {109: [100, 100, 140, 100], 215: 1}, interval=4000)
    (sample,) = samples_of(Segy, path, split="train")
    assert sample.values.shape[0] == 30
    np.testing.assert_allclose(sample.time.seconds, 0.1 + 0.004 * np.arange(30))
    np.testing.assert_array_equal(sample.values[:20, 0, 0, 0, 0], values[0])
    np.testing.assert_array_equal(sample.values[10:, 0, 0, 0, 2], values[2])
    np.testing.assert_array_equal(sample.valid[:, 0, 0, 0].sum(0), 20)
    path = write_segy(tmp_path / "b.sgy", values, {109: [0, 0, 30000, 0]})
    assert "its traces begin up to 30 s apart by the delay at byte 109" in refusal_of(Segy, path)
    path = write_segy(tmp_path / "c.sgy", values, {109: 250, 215: -10})  # tenths of a millisecond
    assert samples_of(Segy, path, split="train")[0].time.seconds[0] == 0.025


# --- units


@pytest.mark.parametrize(("scalar", "factor"), [(-100, 0.01), (10, 10), (0, 1), (1, 1), (-1, 1)])
def test_a_negative_scalar_divides_and_a_positive_one_multiplies(scalar: int, factor: float, tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(10), {181: np.arange(10) * 500, 185: 1000, 71: scalar})
    (sample,) = samples_of(Segy, path, split="train")
    np.testing.assert_allclose(sample.coordinates["x"].values, 500 * factor * np.arange(10))
    np.testing.assert_allclose(sample.coordinates["y"].values, 1000 * factor)


def test_feet_become_metres(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(10), {181: np.arange(10) * 100}, binary={3255: (2, 2)})
    (sample,) = samples_of(Segy, path, split="train", domain="depth")
    np.testing.assert_allclose(sample.coordinates["x"].values, 30.48 * np.arange(10))
    np.testing.assert_allclose(np.diff(sample.time.seconds), 4 * 0.3048)


def test_angles_only_where_the_code_says_so(tmp_path: Path) -> None:
    longitude = np.linspace(-120, -119, 10) * 3600
    words = {181: np.rint(longitude * 100), 185: 40 * 3600 * 100, 71: -100}
    (sample,) = samples_of(Segy, write_segy(tmp_path / "a.sgy", line(10), words | {89: 2}), split="train")
    np.testing.assert_allclose(sample.coordinates["longitude"].values, longitude / 3600, atol=1e-6)
    np.testing.assert_allclose(sample.coordinates["latitude"].values, 40)
    (sample,) = samples_of(Segy, write_segy(tmp_path / "b.sgy", line(10), words | {89: 1}), split="train")
    assert set(sample.coordinates) == {"x", "y"}
    packed = {181: 1203000 + np.arange(10), 185: -400000, 89: 4}
    (sample,) = samples_of(Segy, write_segy(tmp_path / "c.sgy", line(10), packed), split="train")
    np.testing.assert_allclose(sample.coordinates["longitude"].values, 120.5 + np.arange(10) / 3600)
    np.testing.assert_allclose(sample.coordinates["latitude"].values, -40)


def test_an_interval_that_no_header_has_is_asked_for(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(), {117: 0}, interval=0)
    assert "a.sgy has no sample interval in its headers; say it with dt= in s" in refusal_of(Segy, path)
    (sample,) = samples_of(Segy, path, dt=0.002, split="train")
    np.testing.assert_allclose(sample.time.seconds, 0.002 * np.arange(20))
    assert "dt=-1 must be a positive number" in refusal_of(Segy, path, dt=-1.0)


def test_other_quantities_in_their_units(tmp_path: Path) -> None:
    values = 1.5 + np.abs(line()) / 100
    path = write_segy(tmp_path / "a.sgy", values)
    (sample,) = samples_of(Segy, path, quantity="seismic_velocity_model", unit="km/s", split="train")
    assert (sample.variables[0].name, sample.variables[0].unit) == ("seismic_velocity_model", "m s**-1")
    np.testing.assert_allclose(sample.values[:, 0, 0, 0], 1000 * values.T, rtol=1e-6)
    (sample,) = samples_of(Segy, path, quantity="chimney_probability", unit="1", split="train")
    assert sample.variables[0].name == "chimney_probability"
    assert "quantity=chimney is not in the registry" in refusal_of(Segy, path, quantity="chimney")
    assert "unit=K" in refusal_of(Segy, path, quantity="seismic_velocity_model", unit="K")


# --- the corpus


def test_samples_do_not_depend_on_which_are_asked_for(tmp_path: Path) -> None:
    path, _ = grid(tmp_path / "a.sgy", keep=np.arange(7, 600))
    source = Segy([path], Segy.Options(tile="4x5", frames_per_sample=8))
    refs = source.plan().refs
    for ref, sample in zip(refs[::7], source.samples(refs[::7]), strict=True):
        (alone,) = Segy([path], source.options).samples([ref])
        assert sample is not None
        assert alone is not None
        np.testing.assert_array_equal(alone.values, sample.values)
        np.testing.assert_array_equal(alone.valid, sample.valid)
        assert alone.meta() == sample.meta()


def test_a_volume_becomes_a_corpus(tmp_path: Path) -> None:
    path, cube = grid(tmp_path / "a.sgy", keep=np.arange(96, 600))
    corpus = Corpus.open(convert(Segy([path], Segy.Options(tile="3x6", licence="CC-BY-4.0")), tmp_path / "corpus", progress=False))
    manifest, first = corpus.manifest, corpus.read("train", 0)
    np.testing.assert_allclose(first.values[:, 0, 0], cube[8:11, :6].transpose(2, 0, 1), atol=1e-2)
    assert (first.origin.about["inlines"], first.origin.about["crosslines"]) == ([116, 120], [7, 12])
    assert manifest["layout"]["grid"] == [1, 3, 6]
    assert "CC-BY-4.0" in str(manifest)
    assert set(manifest["splits"]) == {"train", "valid", "test"}


def test_pieces_with_few_traces_are_left_out(tmp_path: Path) -> None:
    path, _ = grid(tmp_path / "a.sgy", keep=np.r_[0:1, 30:600])
    assert len(plan_of(path, tile="2x6", split="train").refs) == 49
    plan = plan_of(path, tile="2x6", split="train", min_valid=0.5)
    assert any("windows with too few traces are left out" in note for note in plan.notes)
    assert len(plan.refs) < 49


def test_tiles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, _ = grid(tmp_path / "a.sgy")
    assert "tile=10x4 must be rows x columns, such as 64x64, within 4 x 12" in refusal_of(Segy, path, tile="10x4")
    assert "tile=0x4 must be" in refusal_of(Segy, path, tile="0x4")
    assert "tile=big must be" in refusal_of(Segy, path, tile="big")


def test_a_volume_and_a_line_are_two_corpora(tmp_path: Path) -> None:
    volume, _ = grid(tmp_path / "a.sgy")
    said = refusal_of(Segy, [volume, write_segy(tmp_path / "b.sgy", line())])
    assert "the inputs are not alike: a.sgy a volume and b.sgy a line; prepare two corpora or say dims=" in said


def test_only_surveys_with_an_open_licence_are_passed_on() -> None:
    assert not Segy([]).redistributable
    assert not Segy([], Segy.Options(licence="ask the owner")).redistributable
    assert Segy([], Segy.Options(licence="CC-BY-SA-3.0")).redistributable
    assert "segy has no input" in refusal_of(Segy, [])


# --- fetching


def remotes(**options: Any) -> Iterator[Any]:
    return Segy.remotes(SegyFetch(**options), lambda url: pytest.fail("there is no catalogue to ask"))


def test_surveys_of_the_list_are_fetched_from_their_owners() -> None:
    (found,) = remotes(survey="teapot")
    assert (found.url, found.file, found.bytes) == ("https://s3.amazonaws.com/teapot/filt_mig.sgy", "teapot/filt_mig.sgy", 404989440)
    assert found.bytes == 3600 + 64860 * (240 + 4 * 1501)  # traces and samples of this survey
    for name, about in surveys().items():
        assert set(about) == {"about", "licence", "page", "files"}, name
        assert all(f.url.startswith("https://s3.amazonaws.com/") for f in remotes(survey=name))


def test_addresses_of_ones_own_and_names_that_are_wrong() -> None:
    assert [r.file for r in remotes(url=("https://example.org/x/a.sgy?k=1", "https://example.org/b.sgy"))] == ["a.sgy", "b.sgy"]
    with pytest.raises(UserError, match=r"survey=teapo is not in the list; .* one of viking-graben, teapot, stratton"):
        list(remotes(survey="teapo"))
    with pytest.raises(UserError, match="needs url=ADDRESS or survey= one of"):
        list(remotes())


def test_the_recipe_is_of_this_source() -> None:
    recipe = yaml.safe_load((Path(__file__).parents[2] / "configs/data/segy.yaml").read_text(encoding="utf-8"))
    assert recipe["source"] == Segy.name
    words = [f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in recipe["options"].items()]
    assert parse_options(Segy.Options, words).licence == "public domain"
    assert list(remotes(**recipe["fetch"]))
