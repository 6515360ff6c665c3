from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource

from scigpt.data.corpus import CARD, MANIFEST, STATS
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert

STRIDE = 97


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = ToySource((), ToySource.Options(samples=10, frames=3, size=4))
    return convert(source, tmp_path_factory.mktemp("corpora") / "toy", shard_bytes=1000, progress=False)


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "toy"))


def test_a_flipped_bit_is_found_wherever_it_is(corpus: Path) -> None:
    """One bit in every 97th byte of every file, and in the last one; a prime, so that no period of the format hides a place."""
    generator = np.random.default_rng(0)
    tried: dict[str, int] = {}
    for file in sorted(corpus.iterdir()):
        whole = file.read_bytes()
        for place in (*range(0, len(whole), STRIDE), len(whole) - 1):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(generator.integers(8))
            file.write_bytes(flipped)
            problems = verify(corpus)
            assert any(file.name in p for p in problems), (file.name, place, problems)
            tried[file.suffix] = tried.get(file.suffix, 0) + 1
        file.write_bytes(whole)
    assert verify(corpus) == []
    assert tried[".tar"] > 300
    assert {MANIFEST, STATS, CARD} <= {f.name for f in corpus.iterdir()}


def test_damage_is_named_by_member(corpus: Path) -> None:
    shard = corpus / "train-000001.tar"
    sample = json.loads((corpus / "train-000001.index.json").read_bytes())["samples"][1]
    damaged = bytearray(shard.read_bytes())
    damaged[sample["members"]["values.npy"]["data_offset"] + 5] ^= 4
    shard.write_bytes(damaged)
    assert verify(corpus) == [f"{shard}: member {sample['key']}.values.npy does not match its sha256"]


def test_unlisted_files_are_found(corpus: Path) -> None:
    (corpus / "train-000009.tar").touch()
    assert verify(corpus) == [f"{corpus / 'train-000009.tar'}: is not listed in the manifest"]


def test_a_number_that_is_no_json_in_the_manifest_is_told(corpus: Path) -> None:
    text = (corpus / MANIFEST).read_text()
    (corpus / MANIFEST).write_text(text.replace('"step": 0.1', '"step": 1e999'))
    assert verify(corpus) == [
        f"{corpus / MANIFEST}: does not match its own checksum; it was changed or damaged, restore it or make the corpus again"
    ]
