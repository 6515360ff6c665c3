"""Parts of Zarr stores; against moto's S3 and a server on this machine, compared with xarray's own selection."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from servers import ABOUT, QUICK, Page, Web, web
from servers import fetch as run

from scigpt.data_prep.fetch import Network, Report, fetch, look
from scigpt.data_prep.fetch import stores as stores_module
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def upload(client: Any, store: Path, prefix: str) -> str:
    for file in store.rglob("*"):
        if file.is_file():
            client.put_object(
                Bucket="open", Key=f"{prefix}/{file.relative_to(store).as_posix()}", Body=file.read_bytes(), ACL="public-read"
            )
    return f"s3://open/{prefix}"


def reanalysis(store: Path, zarr_format: int = 2, valid: tuple[str, str] | None = None) -> xr.Dataset:
    """A store such as ARCO-ERA5: descending latitude, packed and plain variables, a scalar, an auxiliary coordinate."""
    rng = np.random.default_rng(2)
    shape = (24, 3, 9, 12)
    temperature = rng.normal(280, 10, shape).astype("f4")
    temperature[:, :, 0, 0] = np.nan
    dataset = xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), temperature, {"units": "K", "coordinates": "valid"}),
            "u10": (("time", "latitude", "longitude"), rng.normal(0, 5, (24, 9, 12)), {"units": "m s**-1"}),
            "orography": (("latitude", "longitude"), rng.uniform(0, 100, (9, 12)).astype("f4"), {"units": "m"}),
        },
        coords={
            "time": np.datetime64("2020-02-28", "ns") + np.arange(24) * np.timedelta64(3, "h"),
            "level": [500, 700, 850],
            "latitude": np.linspace(90, -90, 9, dtype="f4"),
            "longitude": np.arange(12, dtype="f4") * 30,
            "valid": ("time", np.arange(24)),
        },
        attrs={"title": "toy"} | ({"valid_time_start": valid[0], "valid_time_stop": valid[1]} if valid else {}),
    )
    packing = {"u10": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -32768}}
    chunks = {"temperature": {"chunks": (1, 3, 9, 12)}}
    both: dict[str, Any] = {**packing, **chunks}
    dataset.to_zarr(store, zarr_format=zarr_format, encoding=both, consolidated=zarr_format == 2)
    return xr.open_dataset(store, engine="zarr", consolidated=zarr_format == 2).load()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_part_of_a_store_equals_xarrays_selection(s3: Any, tmp_path: Path, zarr_format: int) -> None:
    stored = reanalysis(tmp_path / "remote.zarr", zarr_format)
    url = upload(s3, tmp_path / "remote.zarr", f"v{zarr_format}.zarr")
    select = {
        "variables": ("temperature", "u10"),
        "start": "2020-02-29",
        "stop": "2020-03-01",
        "levels": (850, 500),
        "latitude": (-50, 50),
        "longitude": (-60, 60),
    }
    remote = Remote(url, "era.zarr", kind="zarr", select=select)
    out = tmp_path / "out"
    report = run([remote], out)
    got = xr.open_dataset(out / "era.zarr", engine="zarr", consolidated=False).load()
    wanted = stored[["temperature", "u10"]].sel(time=slice("2020-02-29", "2020-03-01"), level=[500, 850], latitude=slice(50, -50))
    wanted = wanted.isel(longitude=[10, 11, 0, 1, 2]).assign_coords(longitude=np.array([-60, -30, 0, 30, 60], "f4"))
    xr.testing.assert_identical(got, wanted)
    assert got.sizes["time"] == 16
    raw = xr.open_dataset(out / "era.zarr", engine="zarr", consolidated=False, mask_and_scale=False)
    assert raw["u10"].dtype == np.int16
    assert report.bytes == sum(f.stat().st_size for f in (out / "era.zarr").rglob("*") if f.is_file())
    assert run([remote], out) == Report((), ("era.zarr",), 0)
    other = Remote(url, "era.zarr", kind="zarr", select={**select, "stop": "2020-02-29"})
    with pytest.raises(UserError, match="holds another part of a store"):
        run([other], out)


def test_all_of_a_store_over_http(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    stored = reanalysis(tmp_path / "remote.zarr")
    with web() as server:
        for file in (tmp_path / "remote.zarr").rglob("*"):
            if file.is_file():
                server.pages[f"/{file.relative_to(tmp_path).as_posix()}"] = Page(file.read_bytes(), ranges=False)
        listing = look([Remote(server.url("/remote.zarr"), "a.zarr", kind="zarr")], tmp_path / "out", ABOUT, Network(QUICK))
        assert listing.needed == sum(v.nbytes if n != "u10" else v.size * 2 for n, v in stored.variables.items())
        fetch(listing, Network(QUICK))
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "out/a.zarr", engine="zarr", consolidated=False).load(), stored)


def test_a_store_is_cut_to_the_times_that_it_says_are_valid(s3: Any, tmp_path: Path) -> None:
    """Outside `valid_time_start` to `valid_time_stop` ARCO-ERA5 holds NaN as if it were data."""
    reanalysis(tmp_path / "remote.zarr", valid=("2020-02-28", "2020-02-29"))
    url = upload(s3, tmp_path / "remote.zarr", "valid.zarr")
    run([Remote(url, "era.zarr", kind="zarr", select={"variables": ("u10",), "start": "2020-02-29"})], tmp_path / "out")
    got = xr.open_dataset(tmp_path / "out/era.zarr", engine="zarr", consolidated=False)
    assert [str(t)[:13] for t in (got["time"].values[0], got["time"].values[-1])] == ["2020-02-29T00", "2020-02-29T21"]
    with pytest.raises(UserError, match="nothing lies between start=2020-03-01 and stop=None; the store holds 2020-02-28 to 2020-02-29"):
        run([Remote(url, "b.zarr", kind="zarr", select={"start": "2020-03-01"})], tmp_path / "out")


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_periods_of_other_calendars(s3: Any, tmp_path: Path, calendar: str) -> None:
    time = xr.date_range("1850-01-16", periods=48, freq="MS", calendar=calendar, use_cftime=True)
    stored = xr.Dataset({"tas": (("time", "y", "x"), np.random.default_rng(3).normal(280, 9, (48, 4, 5)).astype("f4"))}, {"time": time})
    stored.to_zarr(tmp_path / "remote.zarr", zarr_format=2, consolidated=True)
    url = upload(s3, tmp_path / "remote.zarr", f"{calendar}.zarr")
    run([Remote(url, "a.zarr", kind="zarr", select={"variables": ["tas"], "start": "1851-02", "stop": "1852-02"})], tmp_path / "out")
    got = xr.open_dataset(tmp_path / "out/a.zarr", engine="zarr", consolidated=False).load()
    xr.testing.assert_equal(got, stored.sel(time=slice("1851-02", "1852-02")))
    assert got.sizes["time"] == 13


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ({"variables": ("temprature",)}, "no variable 'temprature'; did you mean temperature"),
        ({"levels": (925,)}, "no level 925; it holds 500, 700, 850"),
        ({"start": "soon"}, "start=soon and stop=None are not dates"),
        ({"start": "2021-01-01"}, "nothing lies between start=2021-01-01"),
        ({"latitude": (1, 2)}, "no point of its grid lies in latitude=1,2"),
        ({"variables": ("orography",), "levels": (500,)}, "there is no axis of levels"),
        ({"variables": ("orography",), "start": "2020-01-01"}, "there is no axis of time"),
        ({"member": 1}, "not by member"),
    ],
)
def test_a_selection_that_cannot_be_is_one_sentence(s3: Any, tmp_path: Path, select: dict[str, Any], said: str) -> None:
    reanalysis(tmp_path / "remote.zarr")
    url = upload(s3, tmp_path / "remote.zarr", "wrong.zarr")
    with pytest.raises(UserError, match=said) as caught:
        run([Remote(url, "era.zarr", kind="zarr", select=select)], tmp_path / "out")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "place",
    [
        {"filters": [{"id": "pickle", "protocol": 5}]},
        {"compressor": {"id": "pickle", "protocol": 5}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle", "protocol": 5}, "fill_value": None},
    ],
)
def test_a_store_that_would_run_code_is_refused(s3: Any, tmp_path: Path, place: dict[str, Any]) -> None:
    group = zarr.open_group(tmp_path / "remote.zarr", mode="w", zarr_format=2)
    group.create_array("a", shape=(3,), dtype="f4")
    meta = json.loads((tmp_path / "remote.zarr/a/.zarray").read_text())
    (tmp_path / "remote.zarr/a/.zarray").write_text(json.dumps(meta | place))
    (tmp_path / "remote.zarr/a/0").write_bytes(pickle.dumps(Evil(str(tmp_path / "ran"))))
    url = upload(s3, tmp_path / "remote.zarr", "codec.zarr")
    with pytest.raises(UserError, match="pickle"):
        run([Remote(url, "a.zarr", kind="zarr")], tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_chunk_is_not_stored(s3: Any, tmp_path: Path) -> None:
    reanalysis(tmp_path / "remote.zarr")
    chunk = tmp_path / "remote.zarr/temperature/3.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    url = upload(s3, tmp_path / "remote.zarr", "damaged.zarr")
    with pytest.raises(UserError, match=r"reading failed \(\w+\), 3 times in a row"):
        run([Remote(url, "a.zarr", kind="zarr")], tmp_path / "out", patience=replace(QUICK, attempts=3))
    assert not (tmp_path / "out/a.zarr").exists()


def test_a_store_is_gone_on_with(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = reanalysis(tmp_path / "remote.zarr")
    url = upload(s3, tmp_path / "remote.zarr", "resume.zarr")
    monkeypatch.setattr(stores_module, "_BLOCK", 4 * 3 * 9 * 12 * 4)
    remote = Remote(url, "era.zarr", kind="zarr")
    read, names = stores_module._read, []

    def counted(remote: Remote, selection: Any, block: Any) -> np.ndarray:
        names.append(block[0])
        if len(names) == 6:
            raise KeyboardInterrupt
        return read(remote, selection, block)

    monkeypatch.setattr(stores_module, "_read", counted)
    with pytest.raises(KeyboardInterrupt):
        run([remote], tmp_path / "out")
    first = names[:5]
    names[:] = ["again"] * 6
    run([remote], tmp_path / "out")
    assert (first + names[6:]).count("temperature") == 6
    assert first == sorted(first)
    assert names[6] >= first[-1]
    xr.testing.assert_identical(xr.open_dataset(tmp_path / "out/era.zarr", engine="zarr", consolidated=False).load(), stored)


PROGRAM = """
import signal, sys
from pathlib import Path
from scigpt.data_prep.fetch import Network, fetch, look, stores
from scigpt.data_prep.source import Description, Remote
stores._BLOCK = 1296
network = Network()
remote = Remote(sys.argv[1], "era.zarr", kind="zarr")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start the tests with it ignored
try:
    fetch(look([remote], Path(sys.argv[2]), Description("toy", "test", "any", "CC0"), network), network)
except KeyboardInterrupt:
    sys.exit(130)
"""


def chunks_of_temperature(server: Web) -> set[str]:
    return {a.path for a in server.asked if "temperature/" in a.path and not a.path.endswith((".zarray", ".zattrs"))}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_store_killed_in_the_middle_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals) -> None:
    stored = reanalysis(tmp_path / "remote.zarr")
    out = tmp_path / "out"
    with web() as server:
        for file in (tmp_path / "remote.zarr").rglob("*"):
            if file.is_file():
                server.pages[f"/{file.relative_to(tmp_path).as_posix()}"] = Page(file.read_bytes(), ranges=False)
        server.pages["/remote.zarr/temperature/12.0.0.0"].hold = 10
        url = server.url("/remote.zarr")
        command = [sys.executable, "-c", PROGRAM, url, str(out)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert server.holding.wait(60)
        time.sleep(0.1)
        process.send_signal(how)
        assert process.communicate(timeout=20)[1] == ""
        server.release.set()
        before = chunks_of_temperature(server) - {"/remote.zarr/temperature/12.0.0.0"}
        server.asked.clear()
        monkeypatch.setattr(stores_module, "_BLOCK", 1296)
        run([Remote(url, "era.zarr", kind="zarr")], out)
        after = chunks_of_temperature(server)
    assert len(before) == 12
    assert len(after) == 12
    assert not before & after
    xr.testing.assert_identical(xr.open_dataset(out / "era.zarr", engine="zarr", consolidated=False).load(), stored)
    assert sorted(p.name for p in out.iterdir()) == [".fetched.json", "era.zarr"]
