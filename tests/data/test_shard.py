from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ORIGIN, smooth_sample

from scigpt.data import shard
from scigpt.data.sample import Boundary, Coordinate, Role, Sample, Time, Variable
from scigpt.data.shard import _AT_A_TIME, PACKING_ERROR, ShardReader, index_path, write_shard
from scigpt.errors import UserError


def round_trip(folder: Path, *samples: Sample) -> ShardReader:
    path = folder / "train-000000.tar"
    write_shard(path, [(f"{i:06d}", "train", s) for i, s in enumerate(samples)])
    return ShardReader(path)


def packed(reader: ShardReader, i: int = 0) -> bool:
    return reader._members[i]["values.npy"]["dtype"] == "<i2"


@st.composite
def any_sample(draw: st.DrawFn) -> Sample:
    shape = draw(st.tuples(*(st.integers(1, n) for n in (9, 3, 3, 6, 6))))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = generator.normal(size=shape).cumsum(0) * 10.0 ** draw(st.integers(-8, 8)) + draw(st.floats(-1e4, 1e4))
    valid = generator.random(shape) >= draw(st.sampled_from([0.0, 0.3, 1.0]))
    if draw(st.booleans()):  # a gap of whole frames
        valid[: draw(st.integers(0, shape[0]))] = False
    values[~valid] = draw(st.sampled_from([np.nan, np.inf, 0.0]))
    roles: list[Role] = [draw(st.sampled_from(get_args(Role))) for _ in range(shape[1])]
    variables = tuple(Variable(f"toy_{c}", "1", role) for c, role in enumerate(roles))
    return Sample(values.astype(np.float32), valid, variables, Time.regular(0, 1, shape[0]), ORIGIN)


@settings(max_examples=60, deadline=None)
@given(sample=any_sample())
def test_round_trip_keeps_gaps_exactly_and_values_within_the_packing_error(
    tmp_path_factory: pytest.TempPathFactory, sample: Sample
) -> None:
    reader = round_trip(tmp_path_factory.mktemp("shard"), sample)
    back = reader.read(0)
    np.testing.assert_array_equal(back.valid, sample.valid)
    assert back.meta() == sample.meta()
    assert not back.values[~sample.valid].any()
    if not packed(reader):
        np.testing.assert_array_equal(back.values[sample.valid], sample.values[sample.valid])
        return
    for c, variable in enumerate(sample.variables):
        valid = sample.valid[:, c]
        field = np.where(valid, sample.values[:, c], 0).astype(np.float64)
        if not valid.any():
            continue
        error = np.abs(back.values[:, c] - field)[valid].max()
        if variable.role == "static":
            bound = field[valid].std()
        else:
            steps = (field[1:] - field[:-1])[valid[1:] & valid[:-1]]
            bound = np.sqrt(np.mean(steps**2)) if steps.size else 0.0
        assert error == 0 or error < PACKING_ERROR * bound


def test_a_lively_field_is_packed_and_one_that_creeps_is_not(tmp_path: Path) -> None:
    lively, creeping = smooth_sample(frames=20), smooth_sample(frames=2000, grid=(1, 1, 1))
    creeping.values[:, 0, 0, 0, 0] = np.linspace(0, 1, 2000)
    reader = round_trip(tmp_path, lively, creeping)
    assert packed(reader, 0)
    assert not packed(reader, 1)
    np.testing.assert_array_equal(reader.read(1).values, creeping.values)


def test_static_variables_do_not_keep_a_sample_from_being_packed(tmp_path: Path) -> None:
    sample = smooth_sample(frames=12, names=("concentration", "source", "inflow"))
    sample.values[:, 1] = sample.values[:1, 1]
    sample.values[:, 2] = 1.0
    variables = (sample.variables[0], Variable("source", "1", "static"), Variable("inflow", "1", "static"))
    reader = round_trip(tmp_path, replace(sample, variables=variables))
    assert packed(reader)
    np.testing.assert_array_equal(reader.read(0).values[:, 2], 1.0)


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        round_trip(tmp_path / name, smooth_sample(1, gaps=0.2), smooth_sample(2))
    for file in ("train-000000.tar", "train-000000.index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_plain_webdataset_reads_the_same_arrays(tmp_path: Path) -> None:
    samples = [smooth_sample(0, gaps=0.3), smooth_sample(1, frames=1), smooth_sample(2, names=("density", "source"))]
    reader = round_trip(tmp_path, *samples)
    assert [packed(reader, i) for i in range(3)] == [True, False, True]
    rows = list(webdataset.WebDataset(str(reader.path), shardshuffle=False).decode())
    assert [row["__key__"] for row in rows] == list(reader.keys)
    for i, row in enumerate(rows):
        values, packing = row["values.npy"], row["meta.json"]["packing"]
        if packing is not None:
            scale, offset = (np.array(packing[k]).reshape(1, -1, 1, 1, 1) for k in ("scale", "offset"))
            values = (values * scale + offset).astype(np.float32)
        valid = np.broadcast_to(row["valid.npy"], values.shape)
        back = reader.read(i)
        np.testing.assert_array_equal(valid, samples[i].valid)
        np.testing.assert_array_equal(values[valid], back.values[valid])


def test_a_window_is_a_slice_of_the_whole_and_its_cut_sides_are_open(tmp_path: Path) -> None:
    sample = smooth_sample(frames=9, grid=(2, 7, 8), gaps=0.2)
    coordinates = {
        "y": Coordinate(("y",), np.arange(7.0), "m"),
        "latitude": Coordinate(("y", "x"), np.arange(56.0).reshape(7, 8), "degrees_north"),
    }
    boundary = Boundary(("open", "open"), ("wall", "given"), ("periodic", "periodic"))
    reader = round_trip(tmp_path, replace(sample, coordinates=coordinates, boundary=boundary))
    whole, window = reader.read(0), reader.read(0, slice(1, 8, 3), slice(2, None), slice(0, 5))
    np.testing.assert_array_equal(window.values, whole.values[1:8:3, :, :, 2:, :5])
    np.testing.assert_array_equal(window.valid, whole.valid[1:8:3, :, :, 2:, :5])
    np.testing.assert_array_equal(window.time.seconds, whole.time.seconds[1:8:3])
    np.testing.assert_array_equal(window.coordinates["latitude"].values, coordinates["latitude"].values[2:, :5])
    np.testing.assert_array_equal(window.coordinates["y"].values, np.arange(2.0, 7.0))
    assert window.boundary == Boundary(("open", "open"), ("open", "given"), ("open", "open"))
    assert whole.boundary == boundary
    window.values[:] = 0  # its arrays are its own
    np.testing.assert_array_equal(reader.read(0).values, whole.values)


def test_a_window_is_decoded_into_a_place_of_its_own(tmp_path: Path) -> None:
    """Piece by piece, and to the last bit what the format says: `stored * scale + offset` in float64, as float32; 0 where invalid."""
    sample = smooth_sample(frames=9, grid=(3, 70, 80), names=("a", "b"), gaps=0.1)
    offset = replace(sample, values=sample.values + np.float32(-40))
    reader = round_trip(tmp_path, offset)
    stored, data = reader._array(0, "values.npy", reader._bytes()), reader._described(0)
    cut = (slice(0, 9, 2), slice(None), slice(None), slice(3, 69), slice(0, 77))
    _, scale, shift = data
    assert stored.dtype == np.int16
    expected = (stored[cut].astype(np.float64) * scale + shift).astype(np.float32)
    expected[~offset.valid[cut]] = 0
    assert expected.size > _AT_A_TIME
    values, valid = np.full((2, *expected.shape), np.nan, np.float32), np.zeros((2, *expected.shape), bool)
    window = reader.read(0, cut[0], cut[3], cut[4], (values[1], valid[1]))
    assert np.shares_memory(window.values, values)
    assert values[1].tobytes() == expected.tobytes()
    assert np.array_equal(valid[1], offset.valid[cut])
    assert np.isnan(values[0]).all()
    with pytest.raises(UserError, match=r"sample 000000: a window has the shape \(1, .*expected \(5, "):
        reader.read(0, slice(0, 1), cut[3], cut[4], (values[1], valid[1]))


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4, 5), (1, 1, 1, 40), (9, 1, 1, 1)])
def test_pieces_cover_an_array_once(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(shard, "_AT_A_TIME", 7)
    seen = np.zeros(shape, int)
    for piece in shard._pieces(shape):
        assert 0 < seen[piece].size <= 7
        seen[piece] += 1
    assert (seen == 1).all()


def test_half_of_a_steady_problem_is_refused(tmp_path: Path) -> None:
    reader = round_trip(tmp_path, replace(smooth_sample(frames=2), steady=True))
    assert reader.read(0).steady
    with pytest.raises(UserError, match=r"sample 000000: is a steady problem, whose 2 frames belong together"):
        reader.read(0, slice(1, 2))


def test_an_unknown_height_survives(tmp_path: Path) -> None:
    coordinates = {n: Coordinate(("x",), np.array(v), u) for n, v, u in [
        ("latitude", [1.0, 2.0], "degrees_north"), ("longitude", [3.0, 4.0], "degrees_east"), ("height", [np.nan, 7.0], "m")]}  # fmt: skip
    sample = replace(smooth_sample(grid=(1, 1, 2)), geometry="points", boundary=Boundary(), coordinates=coordinates)
    back = round_trip(tmp_path, sample).read(0)
    np.testing.assert_array_equal(back.coordinates["height"].values, [np.nan, 7.0])


@pytest.mark.parametrize("window", [slice(3, 3), slice(0, 7), slice(9, 12), slice(4, 2), slice(None, None, -1)])
def test_a_window_that_is_empty_or_too_long_is_refused(tmp_path: Path, window: slice) -> None:
    with pytest.raises(UserError, match=r"train-000000.tar: sample 000000: frames has 6 entries"):
        round_trip(tmp_path, smooth_sample(frames=6)).read(0, window)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_among_valid_values_is_refused_and_leaves_nothing(tmp_path: Path, value: float) -> None:
    sample = smooth_sample(names=("concentration", "density"))
    sample.values[2, 1, 0, 3, 4] = value
    with pytest.raises(UserError, match=r"000000 \(toy.bin\): variable density has 1 valid values .* frame 2 at \(z, y, x\) = \(0, 3, 4\)"):
        round_trip(tmp_path, sample)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [[("a.b", "train")], [("a", "train"), ("a", "train")], [("a", "train"), ("b", "test")], []])
def test_bad_keys_mixed_splits_and_empty_shards_are_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    with pytest.raises(UserError):
        write_shard(tmp_path / "x-000000.tar", [(k, s, smooth_sample()) for k, s in rows])
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_or_missing_shard_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    reader = round_trip(tmp_path, smooth_sample(frames=400))
    reader.read(0)
    with open(reader.path, "r+b") as file:
        file.truncate(reader.bytes // 2)
    for broken in (reader, ShardReader(reader.path)):
        with pytest.raises(UserError, match="cut off or replaced"):
            broken.read(0)
    reader.path.unlink()
    with pytest.raises(UserError, match="No such file"):
        ShardReader(reader.path).read(0)
    index_path(reader.path).unlink()
    with pytest.raises(UserError, match=r"index.json: cannot read the index"):
        ShardReader(reader.path)


def test_a_reader_travels_to_another_process(tmp_path: Path) -> None:
    reader = round_trip(tmp_path, smooth_sample())
    reader.read(0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read(0).values, reader.read(0).values)
