"""Repair: the same bytes again, nothing else touched, and nothing done that cannot be done right."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from toy import ToySource

from scigpt.data.corpus import CARD, MANIFEST, STATS, manifest_bytes
from scigpt.data.sample import Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.repair import repair
from scigpt.data_prep.source import SampleRef
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError

SHARD = 6000


class Noisy(ToySource):
    """Never makes the same sample twice."""

    name = "noisy"
    calls = 0

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            Noisy.calls += 1
            yield Sample(sample.values + np.float32(Noisy.calls), sample.valid, sample.variables, sample.time, sample.origin)


class Quiet(ToySource):
    """Varies far more from place to place than from frame to frame, so that int16 would not do."""

    name = "quiet"

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            values = sample.values * np.float32(1e-3) + np.arange(8, dtype=np.float32)
            yield Sample(values, sample.valid, sample.variables, sample.time, sample.origin)


@dataclass(frozen=True)
class State:
    """Bytes, inode and time of each file."""

    files: dict[str, tuple[bytes, int, int]]

    @classmethod
    def of(cls, folder: Path) -> State:
        return cls({f.name: (f.read_bytes(), f.stat().st_ino, f.stat().st_mtime_ns) for f in folder.iterdir()})

    @property
    def contents(self) -> dict[str, bytes]:
        return {name: data for name, (data, _, _) in self.files.items()}

    def touched(self, before: State) -> set[str]:
        return {name for name, state in self.files.items() if before.files.get(name) != state}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EQUATIONS, "toy", ToySource)
    monkeypatch.setitem(EQUATIONS, "noisy", Noisy)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(ToySource(), tmp_path_factory.mktemp("made") / "toy", shard_bytes=SHARD, progress=False)


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toy"))


def write_hours(folder: Path) -> list[Path]:
    """Two files that follow each other, of which the later one comes first by name."""
    times = np.datetime64("2019-03-01", "ns") + np.arange(40) * np.timedelta64(1, "h")
    values = np.random.default_rng(0).normal(280, 5, (40, 6, 8)).astype("f4")
    whole = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": times, "latitude": np.arange(6.0), "longitude": np.arange(8.0)},
    )
    files = [folder / "a.nc", folder / "b.nc"]
    for file, part in zip(files, (slice(20, 40), slice(0, 20)), strict=True):
        whole.isel(time=part).to_netcdf(file, engine="netcdf4")
    return files


def flip(file: Path, place: int = 700) -> None:
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 8
    file.write_bytes(data)


def only_the_corpus(corpus: Path) -> bool:
    return not [p for p in corpus.parent.iterdir() if p.name.startswith(".")]


def test_a_whole_corpus_needs_nothing(corpus: Path) -> None:
    before = State.of(corpus)
    assert repair(corpus, progress=False) == []
    assert State.of(corpus) == before
    assert only_the_corpus(corpus)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_broken_is_made_again_and_the_rest_is_not_touched(corpus: Path, workers: int) -> None:
    whole = State.of(corpus)
    flip(corpus / "train-000001.tar")
    (corpus / "valid-000000.tar").unlink()
    (corpus / "valid-000000.index.json").unlink()
    flip(corpus / "train-000002.index.json")
    (corpus / CARD).write_text("mine")
    (corpus / "notes.txt").write_text("mine")
    damaged = State.of(corpus)
    assert set(repair(corpus, (), workers, progress=False)) == {
        "train-000001.tar: made again from toy",
        "valid-000000.tar: made again from toy",
        "valid-000000.index.json: written with its shard",
        "train-000002.index.json: read off its shard",
        "CARD.md: written again",
        "notes.txt: is not listed in the manifest; it was left where it is",
    }
    now = State.of(corpus)
    assert {n: b for n, b in now.contents.items() if n != "notes.txt"} == whole.contents
    assert now.touched(damaged) == {"train-000001.tar", "valid-000000.tar", "valid-000000.index.json", "train-000002.index.json", CARD}
    (corpus / "notes.txt").unlink()
    assert verify(corpus) == []
    assert only_the_corpus(corpus)


@pytest.mark.parametrize("lost", [[STATS], [STATS, CARD], [CARD], [STATS, "train-000000.tar"], [STATS, "train-000000.index.json"]])
def test_statistics_and_card_are_counted_again(corpus: Path, lost: list[str]) -> None:
    whole = State.of(corpus)
    for name in lost:
        (corpus / name).unlink()
    repair(corpus, progress=False)
    assert State.of(corpus).contents == whole.contents


def test_statistics_of_values_that_are_not_packed_need_no_source(tmp_path: Path) -> None:
    out = convert(Quiet(), tmp_path / "quiet", shard_bytes=SHARD, progress=False)
    index = json.loads((out / "train-000000.index.json").read_bytes())
    assert index["samples"][0]["members"]["values.npy"]["dtype"] == "<f4", "this test needs values that are not packed"
    whole = State.of(out)
    (out / STATS).unlink()
    assert repair(out, progress=False) == ["stats.json: counted again"]
    assert State.of(out).contents == whole.contents


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_inputs_are_known_by_their_bytes_wherever_they_lie_and_in_whatever_order(tmp_path: Path, order: tuple[int, int]) -> None:
    files = write_hours(tmp_path)
    options = Era5.Options(frames_per_sample=4, splits=(0.7, 0.0, 0.3), variables=("air_temperature",))
    out = convert(Era5(files, options), tmp_path / "era5", shard_bytes=2000, progress=False)
    whole = State.of(out)
    elsewhere = [Path(shutil.move(f, tmp_path / f"renamed-{f.name}")) for f in files]
    for shard in (out / "train-000001.tar", out / STATS):
        flip(shard)
    with pytest.raises(UserError, match=r"its inputs are needed: give --input with a\.nc, b\.nc"):
        repair(out, progress=False)
    # a sample names its files, so without the old names there are no old bytes
    with pytest.raises(UserError, match=r"another plan than the one .*; files keep their names"):
        repair(out, [elsewhere[i] for i in order], progress=False)
    moved = tmp_path / "moved"
    moved.mkdir()
    back = [Path(shutil.move(f, moved / n)) for f, n in zip(elsewhere, ("a.nc", "b.nc"), strict=True)]
    done = repair(out, [back[i] for i in order], progress=False)
    assert done == ["train-000001.tar: made again from era5", "stats.json: counted again"]
    assert State.of(out).contents == whole.contents
    assert only_the_corpus(out)


def test_a_folder_of_files_is_an_input_too(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    write_hours(folder)
    out = convert(Era5([folder], Era5.Options(split="train")), tmp_path / "era5", progress=False)
    whole = State.of(out)
    flip(out / "train-000000.tar")
    assert repair(out, [Path(shutil.move(folder, tmp_path / "elsewhere"))], progress=False) == ["train-000000.tar: made again from era5"]
    assert State.of(out).contents == whole.contents


def test_inputs_that_are_others_are_refused(tmp_path: Path) -> None:
    files = write_hours(tmp_path)
    out = convert(Era5(files, Era5.Options(split="train")), tmp_path / "era5", progress=False)
    flip(out / "train-000000.tar")
    damaged = State.of(out)
    with pytest.raises(UserError, match=r"none of the inputs has the bytes of the b\.nc that the corpus was made from"):
        repair(out, files[:1], progress=False)
    (tmp_path / "c.nc").write_bytes(files[0].read_bytes() + b" ")
    with pytest.raises(UserError, match=r"c\.nc is none of the files that the corpus was made from"):
        repair(out, [*files, tmp_path / "c.nc"], progress=False)
    with xr.open_dataset(files[0], engine="netcdf4") as data:
        (data.load() + 1).assign_attrs(changed="yes").to_netcdf(tmp_path / "new.nc", engine="netcdf4")
    os.replace(tmp_path / "new.nc", files[0])
    with pytest.raises(UserError, match=r"a\.nc has other bytes than the file of that name"):
        repair(out, files, progress=False)
    assert State.of(out) == damaged
    assert only_the_corpus(out)


def test_bytes_that_come_out_different_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    out = convert(Noisy(), tmp_path / "noisy", shard_bytes=SHARD, progress=False)
    flip(out / "train-000000.tar")
    damaged = State.of(out)
    with pytest.raises(UserError, match=r"train-000000\.tar comes out with other bytes than the manifest names, so nothing was changed"):
        repair(out, progress=False)
    assert State.of(out) == damaged
    assert only_the_corpus(out)


def test_a_broken_manifest_cannot_be_repaired_from_itself(corpus: Path) -> None:
    flip(corpus / MANIFEST)
    flip(corpus / CARD)
    damaged = State.of(corpus)
    with pytest.raises(UserError, match=r"manifest\.json: .*that one itself cannot be: run the command that made the corpus again"):
        repair(corpus, progress=False)
    assert State.of(corpus) == damaged
    with pytest.raises(UserError, match="no such folder"):
        repair(corpus.parent / "nowhere")


def test_a_source_that_is_not_there_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EQUATIONS, "toy")
    flip(corpus / "train-000001.tar")
    with pytest.raises(UserError, match="made by the source toy, which is not installed"):
        repair(corpus, progress=False)


def test_a_recipe_that_says_less_or_more_than_this_version_knows(corpus: Path) -> None:
    flip(corpus / "train-000001.tar")
    manifest = json.loads((corpus / MANIFEST).read_bytes())
    for change, sentence in (
        ({"options": {**manifest["recipe"]["options"], "colour": 3}}, "does not know the option colour"),
        ({"options": {**manifest["recipe"]["options"], "seed": 3}}, "another plan than the one"),
        ({"shard_bytes": None}, "did not record its recipe in full"),
    ):
        recipe = {k: v for k, v in {**manifest["recipe"], **change}.items() if k != "shard_bytes" or v is not None}
        (corpus / MANIFEST).write_bytes(manifest_bytes({**manifest, "recipe": recipe}))
        with pytest.raises(UserError, match=sentence):
            repair(corpus, progress=False)


def test_an_interrupted_repair_goes_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = State.of(corpus)
    broken = ["train-000000.tar", "train-000002.tar"]
    for name in broken:
        flip(corpus / name)
    made: list[str] = []
    samples = ToySource.samples

    def once(self: ToySource, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        if len(made) == 1:
            made.append("stop")
            raise KeyboardInterrupt
        made.append(refs[0].key)
        return samples(self, refs)

    monkeypatch.setattr(ToySource, "samples", once)
    with pytest.raises(KeyboardInterrupt):
        repair(corpus, progress=False)
    assert {f.name for f in (corpus.parent / ".toy.repair").glob("*.tar")} == {broken[0]}
    repair(corpus, progress=False)
    assert made[2:] == ["000006"], "the first shard was not made twice"
    assert State.of(corpus).contents == whole.contents
    assert only_the_corpus(corpus)
