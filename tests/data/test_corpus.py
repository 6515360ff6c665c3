from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource

from scigpt.data.corpus import MANIFEST, Corpus, manifest_bytes
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(ToySource(), tmp_path_factory.mktemp("corpora") / "toy", shard_bytes=6000, progress=False)


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "toy"))


def rewrite(corpus: Path, **changes: object) -> None:
    """A manifest that someone changed and gave a new checksum."""
    manifest = json.loads((corpus / MANIFEST).read_bytes())
    (corpus / MANIFEST).write_bytes(manifest_bytes(manifest | changes))


def test_a_corpus_reads_what_the_source_made(made: Path) -> None:
    corpus, source = Corpus.open(made), ToySource()
    refs = source.plan().refs
    assert corpus.splits == ("train", "valid")
    assert corpus.layout.grid == (1, 8, 8)
    assert corpus.stats.step == corpus.manifest["step"] == 0.1
    assert corpus.manifest["coefficients"]["viscosity"]["min"] == pytest.approx(0.1)
    for split in corpus.splits:
        wanted = [r for r in refs if r.split == split]
        assert [e.key for e in corpus.entries(split)] == [r.key for r in wanted]
        assert corpus.manifest["splits"][split]["samples"] == len(wanted)
        for i, sample in enumerate(source.samples(wanted)):
            np.testing.assert_allclose(corpus.read(split, i).values, sample.values, atol=2e-4)
    assert max(e.shard for e in corpus.entries("train")) == 3
    again = pickle.loads(pickle.dumps(corpus))
    np.testing.assert_array_equal(again.read("train", 2).values, corpus.read("train", 2).values)
    assert verify(made) == []


def test_a_split_that_is_not_there_is_named(made: Path) -> None:
    with pytest.raises(UserError, match="no split 'test'; it has train, valid"):
        Corpus.open(made).read("test", 0)


@pytest.mark.parametrize(
    "name", ["train-000000.tar", "valid-000000.tar", "train-000001.index.json", "stats.json", "CARD.md", "manifest.json"]
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncation_is_found(corpus: Path, name: str, share: float) -> None:
    file = corpus / name
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert any(name in problem for problem in verify(corpus))
    if name != "CARD.md":
        with pytest.raises(UserError, match=name):
            Corpus.open(corpus)


def test_a_shard_cut_after_opening_is_an_error_and_not_a_crash(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    opened.read("train", 0)
    shard = corpus / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(UserError, match=r"train-000000.tar: has 700 bytes"):
        opened.read("train", 0)


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000001.index.json", "stats.json", "CARD.md", "manifest.json"])
def test_missing_files_are_found(corpus: Path, name: str) -> None:
    (corpus / name).unlink()
    assert any(name in problem for problem in verify(corpus))
    if name != "CARD.md":
        with pytest.raises(UserError, match=name):
            Corpus.open(corpus)


def test_a_manifest_that_disagrees_with_its_shards_is_found(corpus: Path) -> None:
    manifest = json.loads((corpus / MANIFEST).read_bytes())
    splits = manifest["splits"]
    splits["train"]["samples"] += 1
    rewrite(corpus, splits=splits)
    assert verify(corpus) == [f"{corpus / MANIFEST}: split train says 12 samples, its shards have 11"]
    with pytest.raises(UserError, match="said to have 12 samples"):
        Corpus.open(corpus)
    splits["train"]["samples"] -= 1
    manifest["shards"][0]["frames"] += 1
    rewrite(corpus, splits=splits, shards=manifest["shards"])
    assert any("samples and frames are not those of the manifest" in p for p in verify(corpus))
    with pytest.raises(UserError, match="the manifest says"):
        Corpus.open(corpus)


def test_shards_of_two_corpora_do_not_mix(corpus: Path, tmp_path: Path) -> None:
    other = convert(ToySource((), ToySource.Options(seed=50)), tmp_path / "other", shard_bytes=6000, progress=False)
    for suffix in (".tar", ".index.json"):
        shutil.copy(other / f"train-000000{suffix}", corpus / f"train-000000{suffix}")
    assert any("train-000000" in problem for problem in verify(corpus))
    with pytest.raises(UserError, match="train-000000"):
        Corpus.open(corpus)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"schema_version": 99}', b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(corpus: Path, content: bytes) -> None:
    (corpus / MANIFEST).write_bytes(content)
    assert any(MANIFEST in problem for problem in verify(corpus))
    with pytest.raises(UserError, match=MANIFEST):
        Corpus.open(corpus)


def test_a_folder_that_is_no_corpus_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(path)):
            Corpus.open(path)
        assert len(verify(path)) == 1
