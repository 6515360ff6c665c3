"""`scigpt data fetch`: a source's own catalogue search, recipe, list and download through the command line."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from servers import Page, Web, s3_server, web

from scigpt.data_prep.sources.era5 import Era5
from scigpt.data_prep.sources.era5_routes import WEATHERBENCH
from scigpt.data_prep.sources.prism import Prism
from scigpt.launch.cli import main

LICENCE = Prism.describe().licence
DAYS = ("20240101", "20240102")


@pytest.fixture
def prism(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """PRISM's web service for two days and one variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    with web() as state:
        state.pages |= {f"/us/4km/ppt/{day}": Page(f"PK{day}".encode() * 100) for day in DAYS}
        yield state


def words(server: Web) -> list[str]:
    return ["variables=ppt", "start=2024-01-01", "stop=2024-01-02", f"server={server.url('')}"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as left:
        main(["data", "fetch", *arguments])
    told = capsys.readouterr()
    assert left.value.code == code, told.err
    return told.out, told.err


def test_a_source_is_fetched_by_its_own_search(prism: Web, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["prism", *words(prism), "--out", "raw", "--accept-licence", LICENCE, "--json"]
    first = json.loads(run(capsys, *how)[0])
    assert len(first["fetched"]) == 2
    assert first["bytes"] == 2000
    assert first["licence"] == LICENCE
    assert sorted(hashlib.sha256(Path("raw", f).read_bytes()).hexdigest() for f in first["fetched"]) == sorted(
        hashlib.sha256(f"PK{day}".encode() * 100).hexdigest() for day in DAYS
    )
    again = json.loads(run(capsys, *how)[0])
    assert (again["fetched"], again["already_there"]) == ([], first["fetched"])
    assert len(prism.asked) == 2


def test_the_list_before_anything_is_fetched(prism: Web, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run(capsys, "prism", *words(prism), "--out", "raw", "--dry-run", "--json")[0])
    assert {k: told[k] for k in ("files", "already_there", "bytes_to_fetch", "files_of_unknown_size", "licence", "logins")} == {
        "files": 2,
        "already_there": 0,
        "bytes_to_fetch": 0,
        "files_of_unknown_size": 2,
        "licence": LICENCE,
        "logins": {},
    }
    assert [e["url"] for e in told["list"]] == [prism.url(f"/us/4km/ppt/{day}") for day in DAYS]
    assert told["disk_free"] > 0
    text = run(capsys, "prism", *words(prism), "--out", "raw", "--dry-run")[0]
    assert "2 files, 0 there already" in text
    assert f"licence: {LICENCE}" in text
    assert not prism.asked
    assert not Path("raw").exists()


def test_a_recipe_and_words_that_win_over_it(prism: Web, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = f"source: prism\nfetch:\n  variables: ppt\n  start: 2024-01-01\n  stop: 2024-01-02\n  server: {prism.url('')}\n"
    Path("prism.yaml").write_text(recipe)
    told = json.loads(run(capsys, "prism.yaml", "stop=2024-01-01", "--accept-licence", LICENCE, "--json")[0])
    assert len(told["fetched"]) == 1
    assert told["out"] == "downloads/prism"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prsm"], "there is no source 'prsm'; did you mean prism?"),
        (["generic"], "the source generic has no public route"),
        (["prism", "strat=2024"], "unknown option 'strat'; did you mean start?"),
        (["none.yaml"], "none.yaml"),
        (["modis", "tiles=h09v05", "start=2020-06-01", "stop=2020-06-02", "server=http://127.0.0.1:1"], "cannot be reached"),
        (["hls", "tile=T06WVS", "start=2024-04-29", "server=http://127.0.0.1:1"], "cannot be reached"),
    ],
)
def test_mistakes_are_one_sentence(
    prism: Web, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], said: str
) -> None:
    monkeypatch.setattr("scigpt.data_prep.fetch.network.Network.sleep", lambda *_: None)
    out, err = run(capsys, *arguments, code=2)
    assert said in err
    assert not out
    told = [line for line in err.splitlines() if not line.endswith("; trying again")]  # said once, so that nobody thinks it hangs
    assert len(told) == 1
    assert len(err) < 400


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start the tests with it ignored
from scigpt.launch.cli import main
main(sys.argv[1:])
"""


def test_ctrl_c_is_told_in_one_sentence(prism: Web, tmp_path: Path) -> None:
    prism.pages["/us/4km/ppt/20240102"].hold = 500
    arguments = ["data", "fetch", "prism", *words(prism), "--out", "raw", "--accept-licence", LICENCE, "--connections", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert prism.holding.wait(60)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert told.strip().splitlines() == ["scigpt: interrupted; what is finished is kept, and the same command goes on from there"]
    assert len(json.loads(Path("raw/.fetched.json").read_text())["files"]) == 1


def test_era5_from_its_store_to_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A region across Greenwich of a store laid out as WeatherBench is: longitude before latitude, hours before and after the period."""
    rng = np.random.default_rng(5)
    temperature, height = rng.normal(280, 9, (12, 8, 5)).astype("f4"), rng.normal(5e4, 1e3, (12, 2, 8, 5)).astype("f4")
    stored = xr.Dataset(
        {
            "2m_temperature": (("time", "longitude", "latitude"), temperature, {"units": "K"}),
            "geopotential": (("time", "level", "longitude", "latitude"), height, {"units": "m**2 s**-2"}),
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h"),
            "level": [500, 850],
            "longitude": np.arange(8) * 45.0,
            "latitude": np.linspace(-80, 80, 5),
        },
    )
    stored.to_zarr(tmp_path / "era5.zarr", zarr_format=2, consolidated=True)
    monkeypatch.chdir(tmp_path)
    with s3_server() as client:
        for file in (tmp_path / "era5.zarr").rglob("*"):
            if file.is_file():
                key = f"wb/{WEATHERBENCH['64x32']}/{file.relative_to(tmp_path / 'era5.zarr').as_posix()}"
                client.put_object(Bucket="open", Key=key, Body=file.read_bytes(), ACL="public-read")
        asked = ["variables=2m_temperature,geopotential", "levels=500", "start=2020-01-02", "stop=2020-01-02", "longitude=-90,90"]
        told = json.loads(run(capsys, "era5", *asked, "server=s3://open/wb", "--out", "raw", "--json")[0])
    source = Era5([Path("raw", f) for f in told["fetched"]], Era5.Options(split="train"))
    (sample,) = source.samples(source.plan().refs)
    by_name = {v.name: sample.values[:, c, 0] for c, v in enumerate(sample.variables)}
    east = [6, 7, 0, 1, 2]
    values = {tuple(sorted(map(float, v.ravel()))) for v in by_name.values()}
    assert values == {tuple(sorted(map(float, f[4:8][..., east, :].ravel()))) for f in (temperature, height[:, 0])}
    assert len(sample.time) == 4
    np.testing.assert_allclose(np.sort(np.unique(sample.coordinates["longitude"].values)), [-90, -45, 0, 45, 90])
