"""What a user can get wrong, through the program itself: exit code 2, one sentence that names file and place, nothing half-written, nothing
good lost. Cases that one module can show alone are in that module's tests."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from grids import make as make_grid
from runs import history, make_corpus, settings, tensors, write

from scigpt.data.corpus import MANIFEST, manifest_bytes
from scigpt.evaluate.evaluate import CARD
from scigpt.launch.cli import main
from scigpt.train.config import load
from scigpt.train.engine import train

STEPS = 6


def scigpt(*words: object, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "scigpt.launch.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=before)


def here(*words: object) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported everything already."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    return subprocess.CompletedProcess(words, int(left.value.code or 0), out.getvalue(), err.getvalue())


def refused(*words: object, run: Callable[..., subprocess.CompletedProcess[str]] = here, **more: object) -> str:
    """The sentence with which the program ends; beside it there is only a progress bar."""
    done = run(*words, **more)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("scigpt: ")
    return said[0].removeprefix("scigpt: ")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, one of another variable, a configuration, and its run `run`."""
    folder = tmp_path_factory.mktemp("bad")
    corpus = make_corpus(folder)
    make_grid(folder, "stations", train=3, held_out=1)
    write(settings([corpus], folder / "run", steps=STEPS, checkpoint_every=2, validate_every=STEPS), folder / "c.yaml")
    train(load(folder / "c.yaml"))
    return folder


@pytest.fixture
def damaged(trained: Path, tmp_path: Path) -> Path:
    """A copy of corpus and configuration; no run was begun."""
    shutil.copytree(trained / "toys", tmp_path / "toys")
    write(settings([tmp_path / "toys"], tmp_path / "run", steps=STEPS, checkpoint_every=2, validate_every=STEPS), tmp_path / "c.yaml")
    return tmp_path


def flip(file: Path, member: str) -> str:
    """Flip one bit of a member of the first sample of a shard; returns the key of the sample."""
    sample = json.loads(file.with_suffix(".index.json").read_bytes())["samples"][0]
    about, data = sample["members"][member], bytearray(file.read_bytes())
    data[about["offset"] + about["size"] // 2] ^= 1
    file.write_bytes(data)
    return sample["key"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{}/none.yaml"], "the config {}/none.yaml cannot be read (No such file or directory); give the path of a YAML file"),
        (["{}/c.yaml", "data.corpora.0.framse=3"], "{}/c.yaml: unknown key data.corpora[0].framse; did you mean frames?"),
        (["{}/c.yaml", "run={}/new", "data.frames=9"], "corpus toys ({}/toys): a window of 9 frames spans 9, and the longest record of "
         "split 'train' has 8; set frames to at most 8"),
        (["{}/c.yaml", "optim.lr=0.1"], "{}/run: was begun with another configuration (optim.lr: 0.01 -> 0.1); give the same one"),
    ],
)  # fmt: skip
def test_pretrain_refuses_what_cannot_be(trained: Path, words: list[str], sentence: str) -> None:
    before = tensors(trained / "run")
    assert sentence.format(trained, trained) in refused("pretrain", *(w.format(trained) for w in words))
    assert not (trained / "new").exists()
    assert tensors(trained / "run") == before


def test_evaluate_refuses_variables_that_the_checkpoint_does_not_know(trained: Path) -> None:
    run, stations = trained / "run", trained / "stations"
    told = refused("evaluate", run, "--corpus", stations)
    assert told.startswith(f"{stations}: does not fit the model of {run}: the model does not know the variable air_temperature")
    assert "it was trained on concentration" in told
    assert not list((trained / "run").glob(f"{CARD}*"))


def test_a_flipped_bit_is_named(damaged: Path) -> None:
    shard = damaged / "toys" / "train-000000.tar"
    key = flip(shard, "values.npy")
    assert refused("data", "verify", damaged / "toys", run=scigpt) == f"{shard}: member {key}.values.npy does not match its sha256"
    for sample in json.loads(shard.with_suffix(".index.json").read_bytes())["samples"]:
        data = bytearray(shard.read_bytes())
        data[sample["members"]["meta.json"]["offset"] + 1] ^= 1
        shard.write_bytes(data)
    told = refused("pretrain", damaged / "c.yaml")
    assert told.startswith(f"{shard}: ")
    assert told.endswith(".meta.json is damaged (it does not match its sha256); `scigpt data verify` lists the damage")


def test_a_truncated_shard_is_named_and_the_run_begins_once_it_is_mended(damaged: Path, trained: Path) -> None:
    shard = damaged / "toys" / "train-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    told = refused("pretrain", damaged / "c.yaml", run=scigpt)
    assert told.startswith(f"{shard}: has {len(whole) - 1000} bytes, the manifest says {len(whole)} bytes")
    assert not (damaged / "run").exists()
    shard.write_bytes(whole)
    assert here("pretrain", damaged / "c.yaml").returncode == 0
    assert history(damaged / "run") == history(trained / "run")


def test_a_manifest_that_disagrees_with_its_shards(damaged: Path) -> None:
    file = damaged / "toys" / MANIFEST
    manifest = json.loads(file.read_bytes())
    manifest["splits"]["train"]["samples"] += 1
    file.write_bytes(manifest_bytes(manifest))
    count = manifest["splits"]["train"]["samples"]
    assert refused("data", "verify", damaged / "toys") == f"{file}: split train says {count} samples, its shards have {count - 1}"
    assert f"{file}: split train is said to have {count} samples" in refused("pretrain", damaged / "c.yaml")
    file.write_bytes(file.read_bytes().replace(b'"toys"', b'"toyz"'))
    assert refused("data", "card", damaged / "toys").startswith(f"{file}: does not match its own checksum")
    assert not (damaged / "run").exists()


def test_a_checkpoint_that_is_cut_off_is_passed_over_and_without_any_there_is_nothing_to_evaluate(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    for parameters in run.glob("checkpoints/*/model.safetensors"):
        parameters.write_bytes(parameters.read_bytes()[:-1])
    done = here("evaluate", run)
    assert done.returncode == 2
    *warnings, last = done.stderr.splitlines()
    assert len(warnings) == STEPS / 2
    assert all("is passed over: model.safetensors has" in w for w in warnings)
    assert last.startswith(f"scigpt: {run}: has no complete checkpoint under checkpoints")


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(damaged: Path, trained: Path) -> None:
    """A limit on the size of files stands for the disk: the tensors of the first checkpoint do not fit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    told = refused("pretrain", damaged / "c.yaml", run=scigpt, before=limit)
    assert told.startswith(f"{damaged / 'run' / 'checkpoints' / 'step-00000002'}: no room to write the checkpoint")
    assert not list((damaged / "run" / "checkpoints").iterdir())
    assert here("pretrain", damaged / "c.yaml").returncode == 0
    assert history(damaged / "run") == history(trained / "run")
    assert tensors(damaged / "run") == tensors(trained / "run")


def test_a_file_that_is_cut_off_or_in_another_unit_becomes_no_corpus(tmp_path: Path) -> None:
    time = np.datetime64("2000-01-01", "ns") + np.arange(8) * np.timedelta64(1, "D")
    field = np.random.default_rng(0).normal(280, 5, (8, 20, 30))
    for unit in ("K", "kg"):
        variable = xr.Variable(("time", "lat", "lon"), field, {"units": unit, "standard_name": "air_temperature"})
        coordinates = {"time": time, "lat": np.arange(20.0), "lon": np.arange(30.0)}
        xr.Dataset({"tas": variable}, coordinates).to_netcdf(tmp_path / f"{unit}.nc", engine="netcdf4")
    (tmp_path / "K.nc").write_bytes((tmp_path / "K.nc").read_bytes()[:20_000])
    for name, word in (("K.nc", "truncated"), ("kg.nc", "kg")):
        told = refused(
            "data", "prepare", "cmip6", "--input", tmp_path / name, "--out", tmp_path / "out", run=scigpt if name == "K.nc" else here
        )
        assert name in told
        assert word in told
    assert {p.name for p in tmp_path.iterdir()} == {"K.nc", "kg.nc"}
