"""A forecast on disk is what the blocks were, in NetCDF as in Zarr, and is whole or not there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from scigpt.errors import UserError
from scigpt.export.writing import CHUNK, check, chunks, write

FORMS = (".nc", ".zarr")


def block(first: int, count: int, side: int = 6) -> xr.Dataset:
    """Steps of one forecast, encoded as the forecaster encodes them."""
    steps = np.arange(first, first + count)
    values = np.random.default_rng(first).normal(size=(count, side, 2 * side)).astype(np.float32)
    values[:, 0, 0] = np.nan
    coordinates = {
        "time": ("time", 6.0 * steps, {"units": "hours since 2000-01-01", "calendar": "noleap", "standard_name": "time"}),
        "forecast_period": ("time", 6.0 * steps, {"units": "hours", "standard_name": "forecast_period"}),
        "latitude": ("latitude", np.linspace(50, 60, side), {"units": "degrees_north"}),
        "height": ((), np.float64(2.0), {"units": "m"}),
    }
    variable = (("time", "latitude", "longitude"), values, {"units": "K", "_FillValue": np.float32(np.nan)})
    return xr.Dataset({"tas": variable}, coordinates, {"Conventions": "CF-1.11"})


def records(labels: list[str], seed: int) -> xr.Dataset:
    values = np.random.default_rng(seed).normal(size=(len(labels), 3, 4)).astype(np.float32)
    coordinates = {"record": np.array(labels), "forecast_period": ("forecast_period", np.arange(3.0), {"units": "1"})}
    return xr.Dataset({"u": (("record", "forecast_period", "x"), values, {"units": "m s-1"})}, coordinates)


def read(out: Path) -> xr.Dataset:
    options = {"engine": "netcdf4"} if out.suffix == ".nc" else {"engine": "zarr", "consolidated": True}
    with xr.open_dataset(out, **options, decode_timedelta=False) as found:
        return found.load()


@pytest.mark.parametrize("form", FORMS)
def test_blocks_come_back_as_one_dataset(tmp_path: Path, form: str) -> None:
    parts = [block(0, 2), block(2, 3), block(5, 1)]
    write(iter(parts), "time", tmp_path / f"out{form}")
    found = read(tmp_path / f"out{form}")
    xr.testing.assert_identical(found, xr.decode_cf(xr.concat(parts, "time", data_vars="minimal"), decode_timedelta=False))
    assert found.time.values[3].isoformat() == "2000-01-01T18:00:00"
    assert set(os.listdir(tmp_path)) == {f"out{form}"}


@pytest.mark.parametrize("form", FORMS)
def test_labels_may_grow_and_a_solution_has_no_time(tmp_path: Path, form: str) -> None:
    parts = [records(["a", "bb"], 0), records(["a-longer-one"], 1)]
    write(parts, "record", tmp_path / f"out{form}")
    found = read(tmp_path / f"out{form}")
    assert list(found.record.values) == ["a", "bb", "a-longer-one"]
    np.testing.assert_array_equal(found.u, np.concatenate([p.u for p in parts]))
    steady = records(["a"], 2).isel(record=0, drop=True)
    write([steady], "time", tmp_path / f"steady{form}")
    np.testing.assert_array_equal(read(tmp_path / f"steady{form}").u, steady.u)


def test_the_file_is_as_conventions_and_readers_like_it(tmp_path: Path) -> None:
    write([block(0, 2), block(2, 1)], "time", tmp_path / "out.nc")
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        assert [d.name for d in file.dimensions.values() if d.isunlimited()] == ["time"]
        assert {n for n, v in file.variables.items() if "_FillValue" in v.ncattrs()} == {"tas"}
        assert file["tas"].filters()["zlib"]
        assert file["time"].units == "hours since 2000-01-01"


def test_a_chunk_is_a_field_neither_too_large_nor_too_small() -> None:
    def of(dtype: type, **sizes: int) -> tuple[int, ...]:
        return chunks(xr.Variable(tuple(sizes), np.broadcast_to(np.zeros((), dtype), tuple(sizes.values()))), "time")

    assert of(np.float32, time=8, y=721, x=1440) == (1, 721, 1440)
    assert of(np.float32, member=50, time=8, y=721, x=1440) == (1, 1, 721, 1440)
    assert of(np.float32, time=8, y=4000, x=4000)[0] == 1
    assert 4 * np.prod(of(np.float32, time=8, z=300, y=300, x=300)) <= CHUNK
    assert of(np.float64, time=8) == (8192,)
    assert of(np.float64, y=100) == (100,)


class Broken(Exception):
    pass


def failing(error: BaseException) -> Iterator[xr.Dataset]:
    yield block(0, 2)
    yield block(2, 2)
    raise error


def state(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out.parent)): p.read_bytes() for p in sorted(out.parent.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt(), UserError("no")])
def test_after_an_error_nothing_is_left_and_an_older_one_is_as_it_was(tmp_path: Path, form: str, error: BaseException) -> None:
    out = tmp_path / f"out{form}"
    with pytest.raises(type(error)):
        write(failing(error), "time", out)
    assert state(out) == {}
    write([block(9, 1)], "time", out)
    before = state(out)
    with pytest.raises(type(error)):
        write(failing(error), "time", out)
    assert state(out) == before
    write([block(0, 1), block(1, 1)], "time", out)
    assert read(out).sizes["time"] == 2
    assert set(os.listdir(tmp_path)) == {out.name}


PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_writing import block
from scigpt.errors import UserError
from scigpt.export.writing import write
def blocks():
    for i in range({count}):
        yield block(i, 1, {side})
    {after}
try:
    write(blocks(), "time", Path({out!r}))
except UserError as error:
    print(type(error).__name__, error)
"""


def program(out: Path, count: int, side: int, after: str = "", before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    source = PROGRAM.format(tests=str(Path(__file__).parent), count=count, side=side, out=str(out), after=after)
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, preexec_fn=before)


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_one_leaves_the_older_and_the_next_one_clears_up(tmp_path: Path, form: str) -> None:
    out = tmp_path / f"out{form}"
    write([block(9, 1)], "time", out)
    before = read(out)
    process = program(out, 3, 6, after="print('here', flush=True); time.sleep(600)")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert set(os.listdir(tmp_path)) == {out.name, f".{out.name}.tmp"}
    xr.testing.assert_identical(read(out), before)
    write([block(0, 2)], "time", out)
    assert set(os.listdir(tmp_path)) == {out.name}


def test_a_store_that_was_moved_away_when_the_process_was_killed_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write([block(9, 1)], "time", out)
    before = state(out)
    out.rename(tmp_path / ".out.zarr.old")
    with pytest.raises(Broken):
        write(failing(Broken()), "time", out)
    assert state(out) == before


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, form: str) -> None:
    """A limit on the size of files stands for the disk; it lets the first block through in NetCDF."""
    out = tmp_path / f"out{form}"
    write([block(9, 1)], "time", out)
    before = state(out)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000 if form == ".nc" else 20_000, resource.RLIM_INFINITY))

    process = program(out, 40, 100, before=limit)
    said, _ = process.communicate()
    assert process.returncode == 0
    assert said == f"DiskFull {out}: no room left to write the forecast; make room, or choose another place\n"
    assert state(out) == before


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("hello")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.nc").mkdir()
    write([block(0, 1)], "time", tmp_path / "in.nc")
    write([block(0, 1)], "time", tmp_path / "in.zarr")
    for name, inputs, sentence in (
        ("out.grib", (), "out.grib: a forecast is written as NetCDF or Zarr; give a name that ends in .nc or .zarr"),
        ("deep/out.nc", (), f"deep/out.nc: there is no folder {tmp_path / 'deep'}; make it"),
        ("text.nc", (), "text.nc: is there and is not a NetCDF file; choose another place, or remove it yourself"),
        ("folder.nc", (), "folder.nc: is there and is not a NetCDF file"),
        ("folder.zarr", (), "folder.zarr: is there and is not a Zarr store"),
        ("in.nc", ("in.nc",), f"in.nc: the forecast would be written over or into {tmp_path / 'in.nc'}, which it is made from"),
        ("in.zarr", ("in.zarr",), "in.zarr: the forecast would be written over"),
        ("in.zarr/out.nc", ("in.zarr",), "in.zarr/out.nc: the forecast would be written over or into"),
    ):
        with pytest.raises(UserError) as told:
            check(tmp_path / name, [tmp_path / i for i in inputs])
        assert sentence in str(told.value)
    check(tmp_path / "in.nc")
    check(tmp_path / "in.zarr", [tmp_path / "in.nc"])
