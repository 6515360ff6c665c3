"""BatchLoader on real corpora: what it yields is the mixture's order and the shards' bytes, whatever the threads do."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import ToySource, smooth_sample

from scigpt.data.batches import Batch, collate
from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader, evaluation_batches, windows
from scigpt.data.mixture import CorpusConfig, DataConfig, Group, Item, Mixture
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Sample, Time
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.errors import UserError

Parts = tuple[Mixture, list[Scales]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two corpora of several shards: 18 records of 12 frames on 8 x 8, 9 of 6 frames on 16 x 16; the rest of each for validation."""
    root = tmp_path_factory.mktemp("corpora")
    options = [ToySource.Options(samples=20, frames=12), ToySource.Options(samples=10, size=16, seed=100)]
    sources = {name: ToySource((), o) for name, o in zip(("small", "large"), options, strict=True)}
    return [convert(source, root / name, shard_bytes=9000, progress=False) for name, source in sources.items()]


def open_mixture(folders: list[Path], seed: int = 0, **options: object) -> Parts:
    corpora = [Corpus.open(f) for f in folders]
    defaults = {"frames": 4, "tokens": 24, "data_width": 4, "patch": 8}
    config = DataConfig([CorpusConfig(str(f)) for f in folders], **{**defaults, **options})  # type: ignore[arg-type]
    return Mixture(corpora, config, seed), [Scales.from_stats(c.layout, c.stats.to_json()) for c in corpora]


@pytest.fixture
def parts(folders: list[Path]) -> Parts:
    return open_mixture(folders)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("scigpt-read")]


def take(loader: BatchLoader, count: int) -> list[tuple[Group, list[Batch]]]:
    with loader:
        return list(itertools.islice(loader, count))


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


def equal(first: list[tuple[Group, list[Batch]]], second: list[tuple[Group, list[Batch]]]) -> bool:
    if [g for g, _ in first] != [g for g, _ in second]:
        return False
    return all(len(a) == len(b) and all(map(same, a, b)) for (_, a), (_, b) in zip(first, second, strict=True))


def test_batches_hold_the_windows_of_the_group(parts: Parts) -> None:
    mixture, scales = parts
    for group, batches in take(BatchLoader(mixture, scales), 12):
        assert group == mixture.group(group.index)
        (batch,) = batches
        corpus = mixture.corpora[group.corpus]
        assert (batch.corpus, batch.layout, len(batch)) == (corpus.name, corpus.layout, mixture.sizes[group.corpus])
        for item, values, seconds in zip(group.items, batch.values, batch.seconds, strict=True):
            whole = corpus.read("train", item.entry)
            assert np.array_equal(values.numpy(), whole.values[item.start : item.start + 4])
            assert np.array_equal(seconds.numpy(), whole.time.seconds[item.start : item.start + 4])


def test_prefetch_and_timing_change_nothing(parts: Parts, folders: list[Path]) -> None:
    expected = take(BatchLoader(*parts, prefetch=1), 20)
    for prefetch in (2, 4, 5):
        assert equal(take(BatchLoader(*parts, prefetch=prefetch), 20), expected)
    slow = []
    with BatchLoader(*open_mixture(folders), prefetch=4) as loader:
        for pair in itertools.islice(loader, 20):
            time.sleep(0.002 * (len(slow) % 3))
            slow.append(pair)
    assert equal(slow, expected)
    assert not equal(take(BatchLoader(*open_mixture(folders, seed=1)), 20), expected)


def test_what_is_decoded_in_place_is_what_samples_give_one_by_one(tmp_path: Path) -> None:
    """Gaps, a sphere whose places repeat, cuts in time and space: to the last byte as `collate` makes it of samples read by themselves."""

    class Globe(ToySource):
        def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
            for i, ref in enumerate(refs):
                sample = smooth_sample(i, 9, (1, 6, 8), ("a", "b"), gaps=0.2 * (i % 2))
                latitude, longitude = np.meshgrid(np.linspace(-80, 80, 6), np.arange(8) * 45.0, indexing="ij")
                places = {n: Coordinate(("y", "x"), v, "degrees") for n, v in (("latitude", latitude), ("longitude", longitude))}
                yield replace(
                    sample, geometry="sphere", coordinates=places, time=Time.regular(86400.0 * 360 * int(ref.key), 1e5, 9, "noleap")
                )

    corpus = Corpus.open(convert(Globe((), ToySource.Options(samples=9)), tmp_path / "globe", progress=False))
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    for crop in (None, [4, 8]):
        config = CorpusConfig(str(corpus.path), frames=3, stride=2, crop=crop)
        mixture = Mixture([corpus], DataConfig([config], tokens=8, patch=4), 0)
        for group, (batch,) in take(BatchLoader(mixture, [scales]), 4):
            samples = [corpus.read("train", item.entry, *mixture.windows[0].slices(item)) for item in group.items]
            boundary = corpus.layout.boundary if crop is None else corpus.layout.cropped(4, 8).boundary
            expected = collate([replace(s, boundary=boundary) for s in samples], scales, corpus.name, 4)
            assert same(batch, expected)
            assert batch.values.numpy().tobytes() == expected.values.numpy().tobytes()
            assert not batch.values[~batch.valid].any()
            assert np.array_equal(batch.season, [s.time.season() for s in samples])
            assert np.array_equal(batch.hour, [s.time.hour() for s in samples])


def test_a_record_of_another_shape_is_refused(folders: list[Path], tmp_path: Path) -> None:
    """A corpus has one layout. Nothing may be spread over a batch because its shape happens to allow it."""
    shutil.copytree(folders[0], tmp_path / "small")
    corpus = Corpus.open(tmp_path / "small")
    mixture = Mixture([corpus], DataConfig([CorpusConfig(str(corpus.path))], frames=4), 0)
    corpus.layout = replace(corpus.layout, grid=(2, 8, 8))
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    with pytest.raises(UserError, match=r"train-.*sample .*shape \(4, 1, 1, 8, 8\), expected \(4, 1, 2, 8, 8\)"):
        take(BatchLoader(mixture, [scales]), 1)


def test_a_restart_goes_on_as_if_nothing_had_happened(parts: Parts, folders: list[Path]) -> None:
    whole = take(BatchLoader(*parts), 15)
    assert equal(take(BatchLoader(*open_mixture(folders), start=7), 8), whole[7:])


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_ranks_and_micro_batches_split_the_same_groups(parts: Parts, world: int, micro_batch: int | None) -> None:
    mixture, scales = parts
    expected = take(BatchLoader(mixture, scales), 6)
    ranks = [take(BatchLoader(mixture, scales, micro_batch=micro_batch, rank=r, world=world), 6) for r in range(world)]
    for i, (group, (whole,)) in enumerate(expected):
        assert all(rank[i][0] == group for rank in ranks)
        batches = [rank[i][1] for rank in ranks]
        assert len({tuple(map(len, b)) for b in batches}) == 1
        assert all(len(b) <= (micro_batch or len(whole)) for rank in batches for b in rank)
        assert torch.equal(torch.cat([b.values for rank in batches for b in rank]), whole.values)


def test_strides_and_crops_are_read(folders: list[Path]) -> None:
    corpus = Corpus.open(folders[1])
    config = DataConfig([CorpusConfig(str(folders[1]), stride=2, frames=3, crop=[16, 6])], patch=4)
    mixture = Mixture([corpus], config, 0)
    for group, (batch,) in take(BatchLoader(mixture, [Scales.from_stats(corpus.layout, corpus.stats.to_json())]), 4):
        assert batch.layout.grid == (1, 16, 6)
        assert batch.layout.boundary.y == ("periodic", "periodic"), "a side that is not cut keeps its boundary"
        assert batch.layout.boundary.x == ("open", "open")
        for item, values in zip(group.items, batch.values, strict=True):
            whole = corpus.read("train", item.entry).values
            assert np.array_equal(values.numpy(), whole[item.start : item.start + 5 : 2, :, :, :, item.x : item.x + 6])


def test_crops_at_an_edge_and_inside_share_a_batch(tmp_path: Path) -> None:
    class Walled(ToySource):
        def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
            return (replace(s, boundary=Boundary.all("wall")) for s in super().samples(refs))

    folder = convert(Walled((), ToySource.Options(samples=9)), tmp_path / "walled", progress=False)
    corpus = Corpus.open(folder)
    mixture = Mixture([corpus], DataConfig([CorpusConfig(str(folder), frames=2, crop=[7, 8])], tokens=20), 0)
    ((group, (batch,)),) = take(BatchLoader(mixture, [Scales.from_stats(corpus.layout, corpus.stats.to_json())]), 1)
    assert {i.y for i in group.items} == {0, 1}
    assert batch.layout.boundary == Boundary(("wall", "wall"), ("open", "open"), ("wall", "wall"))


def test_the_wait_is_measured(parts: Parts) -> None:
    with BatchLoader(*parts) as loader:
        next(loader)
        first = loader.wait_seconds
        next(loader)
        assert 0 < first <= loader.wait_seconds


def test_an_exception_of_the_consumer_ends_the_threads(parts: Parts) -> None:
    def consume() -> None:
        with BatchLoader(*parts, prefetch=3) as loader:
            next(loader)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()


def test_a_truncated_shard_is_told_by_its_name(folders: list[Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path / "small")
    mixture, scales = open_mixture([tmp_path / "small"])
    shard = sorted((tmp_path / "small").glob("train-*.tar"))[1]
    os.truncate(shard, shard.stat().st_size - 512)
    with pytest.raises(UserError, match=rf"{shard}.*truncated"):
        take(BatchLoader(mixture, scales), 50)


def test_a_process_that_forgets_to_close_ends(folders: list[Path]) -> None:
    program = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_loader import open_mixture
from scigpt.data.loader import BatchLoader
loader = iter(BatchLoader(*open_mixture([Path(sys.argv[1])]), prefetch=4))
next(loader)
raise SystemExit(3)
"""
    here = Path(__file__).parent
    command = [sys.executable, "-c", program, str(folders[0]), str(here), str(here.parent)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 3


def test_mistakes_are_told(parts: Parts, folders: list[Path]) -> None:
    with pytest.raises(UserError, match="sizes that work: 1, 2, 4"):
        BatchLoader(*parts, rank=0, world=3)
    with pytest.raises(UserError, match=r"data.prefetch is 0; expected 1 or more"):
        open_mixture(folders, prefetch=0)
    with pytest.raises(UserError, match="micro_batch is 0"):
        BatchLoader(*parts, micro_batch=0)
    corpus = Corpus.open(folders[0])
    with pytest.raises(UserError, match="no split 'trian'; it has train, valid"):
        Mixture([corpus], DataConfig([CorpusConfig("a", train="trian")]), 0)
    with pytest.raises(UserError, match="no split 'test'"):
        windows(corpus, CorpusConfig("a"), 4, "test")
    with pytest.raises(UserError, match="set frames to at most 12"):
        windows(corpus, CorpusConfig("a"), 13, "valid")


def test_validation_windows_tile_the_records(folders: list[Path]) -> None:
    corpus = Corpus.open(folders[0])
    records = len(corpus.entries("train"))
    items = windows(corpus, CorpusConfig("a"), 5, "train")
    assert [(i.entry, i.start) for i in items] == [(e, s) for e in range(records) for s in (0, 5)]
    tiled = windows(corpus, CorpusConfig("a", crop=[4, 3]), 12, "train")
    assert [(i.y, i.x) for i in tiled if i.entry == 1] == [(0, 0), (0, 3), (4, 0), (4, 3)]
    some = windows(corpus, CorpusConfig("a"), 5, "train", limit=7)
    assert len(some) == 7
    assert {i._replace(position=0) for i in some} <= {i._replace(position=0) for i in items}
    assert len({i.entry for i in some}) == 7, "few windows are spread over all records"
    assert some == windows(corpus, CorpusConfig("a"), 5, "train", limit=7)
    assert windows(corpus, CorpusConfig("a"), 5, "train", limit=10**6) == items


def test_evaluation_batches_read_those_windows(folders: list[Path]) -> None:
    corpus = Corpus.open(folders[0])
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    config = CorpusConfig("a", stride=2, patch=4)
    batches = list(evaluation_batches(corpus, scales, config, 3, "valid", batch_size=3))
    items = windows(corpus, config, 3, "valid")
    assert [len(b) for b in batches] == [3, len(items) - 3]
    values = torch.cat([b.values for b in batches])
    for item, window in zip(items, values, strict=True):
        assert np.array_equal(window.numpy(), corpus.read("valid", item.entry).values[item.start : item.start + 5 : 2])
    assert batches[0].patch == (1, 4, 4)
    assert items[0] == Item(0, 0, 0, 0, 0, 0)
