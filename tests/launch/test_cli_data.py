from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from toy import ToySource

from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.sources import SOURCES
from scigpt.launch.cli import main


@pytest.fixture(autouse=True)
def _toy_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EQUATIONS, "toy", ToySource)
    monkeypatch.setitem(SOURCES, "toy", ToySource)


@pytest.fixture
def scigpt(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(w) for w in words])
        told = capfd.readouterr()
        return int(left.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def corpus(tmp_path: Path, scigpt: Any) -> Path:
    code, _, told = scigpt("data", "make", "toy", "--out", tmp_path / "toy", "samples=4")
    assert code == 0, told
    return tmp_path / "toy"


def test_every_command_has_help_with_an_example_and_json(scigpt: Any) -> None:
    for command in ("sources", "inspect", "make", "prepare", "fetch", "verify", "repair", "card"):
        code, told, _ = scigpt("data", command, "--help")
        assert code == 0
        assert f"Example: scigpt data {command}" in told
        assert "--json" in told


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    program = "import sys, scigpt.launch.cli; print([m for m in ('torch', 'xarray', 'numpy', 'mlflow', 'lightning') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sources_lists_sources_and_equations(scigpt: Any) -> None:
    code, told, _ = scigpt("data", "sources", "--json")
    rows = json.loads(told)["sources"]
    assert code == 0
    assert {(r["name"], r["kind"]) for r in rows} == {(n, "source") for n in SOURCES} | {(n, "equation") for n in EQUATIONS}
    code, told, _ = scigpt("data", "sources")
    assert told.count("\n") == len(rows) + 1


def test_make_reports_and_finds_what_is_there(scigpt: Any, tmp_path: Path) -> None:
    command = ("data", "make", "toy", "--out", tmp_path / "toy", "samples=4", "--json", "--name", "little")
    code, told, _ = scigpt(*command)
    made = json.loads(told)
    assert (code, made["name"], made["splits"]["train"]["samples"]) == (0, "little", 4)
    assert made["recipe"]["options"]["samples"] == 4
    code, told, beside = scigpt(*command)
    assert (code, json.loads(told)) == (0, made)
    assert beside == f"{tmp_path / 'toy'} is already there, made by the same recipe\n"


def test_card_prints_the_card_or_the_manifest(scigpt: Any, corpus: Path) -> None:
    assert scigpt("data", "card", corpus)[1] == (corpus / "CARD.md").read_text()
    code, told, _ = scigpt("data", "card", corpus, "--json")
    assert (code, json.loads(told)["layout"]["grid"]) == (0, [1, 8, 8])


def test_verify_leaves_with_2_and_names_file_and_place(scigpt: Any, corpus: Path) -> None:
    assert scigpt("data", "verify", corpus) == (0, f"{corpus}: every file is whole\n", "")
    assert json.loads(scigpt("data", "verify", corpus, "--json")[1]) == {"corpus": str(corpus), "ok": True, "problems": [], "notes": []}
    shard = corpus / "train-000000.tar"
    damaged = bytearray(shard.read_bytes())
    damaged[700] ^= 1
    shard.write_bytes(damaged)
    sentence = f"{shard}: member 000000.values.npy does not match its sha256"
    assert scigpt("data", "verify", corpus) == (2, "", f"scigpt: {sentence}\n")
    code, told, _ = scigpt("data", "verify", corpus, "--json")
    assert (code, json.loads(told)["problems"]) == (2, [sentence])


@pytest.mark.parametrize(
    "words",
    [
        ["--input", "a.toy", "b=1.toy", "c.toy", "samples=3", "--out", "made"],
        ["samples=3", "--input", "a.toy", "--input", "b=1.toy", "c.toy", "--out", "made"],
        ["--out", "made", "--input=a.toy", "--input", "b=1.toy", "--input", "c.toy", "samples=3"],
    ],
)
def test_inputs_may_follow_one_another(scigpt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    class Listing(ToySource):
        def __init__(self, inputs: Any = (), options: Any = None) -> None:
            super().__init__(inputs, options)
            assert [p.name for p in self.inputs] == ["a.toy", "b=1.toy", "c.toy"]

    monkeypatch.setitem(SOURCES, "toy", Listing)
    monkeypatch.chdir(tmp_path)
    for name in ("a.toy", "b=1.toy", "c.toy"):
        (tmp_path / name).touch()
    code, told, beside = scigpt("data", "prepare", "toy", *words, "--json")
    assert code == 0, beside
    assert json.loads(told)["splits"]["train"]["samples"] == 3


def test_an_accepted_licence_is_recorded(scigpt: Any, tmp_path: Path) -> None:
    command = ("data", "prepare", "toy", "--out", tmp_path / "toy", "--json", "--accept-licence")
    assert json.loads(scigpt(*command, "CC0-1.0")[1])["recipe"]["accepted_licence"] == "CC0-1.0"
    code, _, told = scigpt(*command, "MIT")
    assert (code, told) == (2, "scigpt: --accept-licence MIT: the licence of toy is 'CC0-1.0'; name that one\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["make", "tou", "--out", "x"], "there is no equation 'tou'; did you mean toy?"),
        (["make", "toy", "--out", "x", "sampels=3"], "unknown option 'sampels'; did you mean samples?"),
        (["make", "toy", "--out", "x", "samples=three"], "is not a valid int"),
        (["make", "toy", "--out", "x", "samples=0"], "finds no sample"),
        (["make", "toy", "--out", "file/x"], "Not a directory"),
        (["make", "toy", "--out", "x", "flaw=nan"], "sample 000003 (toy.bin): variable concentration"),
        (["prepare", "toy", "--input", "nowhere.nc", "--out", "x"], "nowhere.nc: there is no such file or folder"),
        (["inspect", "nowhere.nc"], "nowhere.nc: there is no such file or folder"),
        (["card", "nowhere"], "nowhere: there is no such folder"),
        (["verify", "nowhere"], "nowhere: there is no such folder"),
        (["card", "."], "has no manifest.json"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    scigpt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, told = scigpt("data", *words, "--json")
    last = told.splitlines()[-1]
    assert code == 2
    assert last.startswith("scigpt: ")
    assert sentence in last
    assert "Traceback" not in told
    assert not (tmp_path / "x").exists()
    if words[0] != "verify":
        assert out == ""


@pytest.mark.parametrize(
    "words", [["data", "verify"], ["data", "nonsense"], ["nonsense"], ["data", "make", "toy"], ["data", "card", "--what"]]
)
def test_wrong_usage_leaves_with_2(scigpt: Any, words: list[str]) -> None:
    code, _, told = scigpt(*words)
    assert code == 2
    assert "Usage" in told
    assert "Traceback" not in told


def test_a_reader_that_has_enough_ends_it_quietly(corpus: Path) -> None:
    program = f"from scigpt.launch.cli import main; main(['data', 'card', {str(corpus)!r}])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait()


def test_a_file_of_another_source_is_told(tmp_path: Path, scigpt: Any) -> None:
    dataset = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), np.full((4, 3, 4), 280.0), {"units": "K"})},
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D"),
            "latitude": ("latitude", [10.0, 20.0, 30.0], {"units": "degrees_north"}),
            "longitude": ("longitude", [0.0, 10.0, 20.0, 30.0], {"units": "degrees_east"}),
        },
    )
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    code, _, told = scigpt("data", "prepare", "cmip6", "--input", tmp_path / "a.nc", "--out", tmp_path / "out")
    assert code == 0, told
    assert "a.nc looks like a file of the source era5; as cmip6 its licence and attribution are told as those of cmip6" in told
    assert "looks like" not in scigpt("data", "prepare", "era5", "--input", tmp_path / "a.nc", "--out", tmp_path / "right")[2]


def test_mistakes_at_the_prompt_are_understood(tmp_path: Path, scigpt: Any) -> None:
    (tmp_path / "a.nc").write_bytes(b"x")
    out = ("--out", tmp_path / "out")
    assert "an equation and no source: scigpt data make navier-stokes" in scigpt("data", "prepare", "navier-stokes", *out)[2]
    assert f"give files with --input {tmp_path / 'a.nc'}" in scigpt("data", "prepare", "era5", tmp_path / "a.nc", *out)[2]
    assert "it holds 1 files" in scigpt("data", "inspect", tmp_path)[1]
