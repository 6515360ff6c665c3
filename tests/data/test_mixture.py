"""The order of the data: a pure function of (seed, g) with exact shares, whole epochs and bounded spread over the shards."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from scigpt.data import mixture as module
from scigpt.data.keyed import generator, key, permute, torch_generator, uniform
from scigpt.data.mixture import BLOCK, MIXED_SHARDS, CorpusConfig, DataConfig, Item, Mixture
from scigpt.data.sample import Boundary, Layout, Variable
from scigpt.errors import UserError


@dataclass(frozen=True)
class Record:
    """What the order needs to know of a sample."""

    shard: int
    frames: int


class Listing:
    """A corpus without data: the order is made from names, layout and lengths alone."""

    def __init__(self, name: str, shards: list[list[int]], grid: tuple[int, int, int] = (1, 16, 16), steady: bool = False) -> None:
        self.name, self.path, self.fingerprint = name, f"corpora/{name}", f"sha256 of {name}"
        self.layout = Layout((Variable("vorticity", "1"),), grid, "plane", Boundary(), steady)
        self._records = [Record(s, n) for s, lengths in enumerate(shards) for n in lengths]

    def entries(self, split: str) -> list[Record]:
        return self._records


def mix(*parts: tuple[Listing, CorpusConfig], seed: int = 0, **options: object) -> Mixture:
    config = DataConfig([c for _, c in parts], **options)  # type: ignore[arg-type]
    return Mixture([c for c, _ in parts], config, seed)  # type: ignore[misc]


def plain(name: str = "a", shards: int = 6, each: int = 5, length: int = 20, **options: object) -> tuple[Listing, CorpusConfig]:
    return Listing(name, [[length] * each] * shards), CorpusConfig(name, **options)  # type: ignore[arg-type]


def stream(order: Mixture, windows: int) -> list[Item]:
    """The first windows of a mixture of one corpus."""
    items: list[Item] = []
    for g in itertools.count():
        if len(items) >= windows:
            return items[:windows]
        items += order.group(g).items
    raise AssertionError


listings = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=40)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    frames = draw(st.integers(2, 5))
    parts = []
    for i in range(draw(st.integers(1, 4))):
        shards = draw(listings)
        assume(max(max(s) for s in shards) >= frames)
        weight = draw(st.floats(0.001, 100, allow_nan=False))
        parts.append((Listing(f"c{i}", shards, steady=False), CorpusConfig(f"c{i}", weight)))
    return mix(
        *parts,
        seed=draw(st.integers(0, 2**40)),
        frames=frames,
        tokens=draw(st.integers(1, 200)),
        data_width=draw(st.sampled_from([1, 2, 4, 6])),
        every=draw(st.none() | st.integers(1, 7)),
    )


# --- the keys


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection_at_any_point(n: int, seed: int) -> None:
    everything = permute(np.arange(n), n, seed)
    assert sorted(everything.tolist()) == list(range(n))
    some = np.array([0, n // 2, n - 1])
    assert permute(some, n, seed).tolist() == everything[some].tolist()


def test_permute_has_no_favourites() -> None:
    n, draws = 50, 4000
    counts = np.zeros((n, n))
    for seed in range(draws):
        counts[np.arange(n), permute(np.arange(n), n, key(seed, "favourites"))] += 1
    expected = draws / n
    # chi-square of n * n cells with (n - 1)^2 degrees of freedom, six deviations
    freedom = (n - 1) ** 2
    assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 6 * (2 * freedom) ** 0.5
    assert np.bincount(uniform(np.arange(7000), 7, 3)).tolist() == pytest.approx([1000] * 7, abs=180)


def test_keys_name_purposes() -> None:
    names = [key(1, 2, "a"), key(2, 1, "a"), key(1, 2, "b"), key(12, "a"), key("1", 2, "a"), key(1, 2)]
    assert len(set(names)) == len(names)
    assert generator(1, "x").random() == generator(1, "x").random() != generator(2, "x").random()
    assert torch_generator(1, "x").initial_seed() == torch_generator(1, "x").initial_seed() != torch_generator(1, "y").initial_seed()


# --- the order


@given(mixtures(), st.data())
def test_a_group_does_not_depend_on_what_was_asked_before(order: Mixture, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 10**6))
    groups = {g: order.group(g) for g in range(start, start + 40)}
    again = Mixture(order.corpora, order.config, order.seed)
    for g in random.Random(start).sample(sorted(groups), 40):
        assert again.group(g) == groups[g]
        assert groups[g].index == g
        assert len(groups[g].items) == order.sizes[groups[g].corpus]


@given(mixtures(), st.data())
def test_ranks_and_accumulation_only_split_a_group(order: Mixture, data: st.DataObject) -> None:
    items = order.group(data.draw(st.integers(0, 1000))).items
    for world in (w for w in range(1, 7) if order.data_width % w == 0):
        accumulation = data.draw(st.integers(1, len(items) // world))
        parts = [order.split(items, rank, world, accumulation) for rank in range(world)]
        assert tuple(itertools.chain(*itertools.chain(*parts))) == items
        sizes = {tuple(len(p) for p in rank) for rank in parts}
        assert len(sizes) == 1, "every rank has the same shapes"
        assert max(*sizes.pop(), 1) - len(items) // world // accumulation <= 1


@given(mixtures(), st.integers(0, 10**6), st.integers(1, 4))
def test_shares_are_exact_over_any_run_of_blocks(order: Mixture, first: int, count: int) -> None:
    weights = [Fraction(str(c.weight)) for c in order.config.corpora]
    found = Counter(order.group(g).corpus for g in range(order._start(first), order._start(first + count)))
    for c, weight in enumerate(weights):
        assert abs(found[c] - weight / sum(weights) * BLOCK * count) < 1


def test_a_rare_corpus_comes_exactly_as_often_as_its_share() -> None:
    order = mix(plain("common", weight=199), plain("rare", weight=1), tokens=1)
    blocks = 50
    assert sum(order.group(g).corpus for g in range(order._start(blocks))) == blocks * BLOCK // 200


@given(mixtures())
def test_an_epoch_visits_each_window_once(order: Mixture) -> None:
    for c, total in enumerate(order.epoch_windows):
        record = order.corpora[c].entries("train")
        span, every = order.windows[c].span, order._orders[c].every
        for epoch in (0, 1, every):
            items = order._orders[c].items(epoch * total, total)
            assert {i.epoch for i in items} == {epoch}
            assert [i.position for i in items] == list(range(epoch * total, (epoch + 1) * total))
            assert len({(i.entry, i.start) for i in items}) == total
            for entry, count in Counter(i.entry for i in items).items():
                assert count == -(-(record[entry].frames - span + 1) // every)
            assert all(0 <= i.start <= record[i.entry].frames - span for i in items)
            fit = {e for e, r in enumerate(record) if r.frames >= span}
            assert {i.entry for i in items} == fit


@given(mixtures())
def test_every_start_occurs_within_as_many_epochs_as_starts_are_apart(order: Mixture) -> None:
    for c, total in enumerate(order.epoch_windows):
        every = order._orders[c].every
        seen = {(i.entry, i.start) for i in order._orders[c].items(0, total * every)}
        assert len(seen) == int(order._orders[c].starts.sum())


def test_windows_tile_a_record() -> None:
    order = mix(plain(shards=1, each=1, length=40), frames=8)
    starts = sorted(i.start for i in stream(order, order.epoch_windows[0]))
    gaps = np.diff(starts)
    assert len(starts) == 5
    assert (gaps == 8).sum() >= 3


def test_a_group_straddles_two_epochs() -> None:
    order = mix(plain(shards=1, each=3, length=8), frames=8, tokens=4 * 7 * 5)
    assert (order.epoch_windows, order.sizes) == ((3,), (5,))
    assert [i.epoch for i in order.group(0).items] == [0, 0, 0, 1, 1]
    assert [i.epoch for i in order.group(1).items] == [1, 2, 2, 2, 3]
    assert sorted(i.entry for i in stream(order, 6)[3:]) == [0, 1, 2]


def test_seeds_epochs_and_corpora_have_orders_of_their_own() -> None:
    first, second = (stream(mix(plain(), seed=s), 60) for s in (0, 1))
    assert first != second
    total = mix(plain()).epoch_windows[0]
    epochs = stream(mix(plain()), 2 * total)
    assert [i.entry for i in epochs[:total]] != [i.entry for i in epochs[total:]]
    assert [i.entry for i in stream(mix(plain("a")), 60)] != [i.entry for i in stream(mix(plain("b")), 60)]


def test_the_order_of_a_corpus_does_not_depend_on_its_companions() -> None:
    alone = mix(plain("a"))
    both = mix(plain("b"), plain("a"))
    mine = [g.items for g in map(both.group, range(200)) if g.corpus == 1]
    assert mine[:50] == [alone.group(g).items for g in range(50)]


def test_consecutive_groups_touch_few_shards() -> None:
    each = 10
    order = mix(plain(shards=400, each=each, length=8), frames=8, tokens=4 * 7 * 10)
    assert order.sizes == (10,)
    shards = [{order.corpora[0].entries("train")[i.entry].shard for i in order.group(g).items} for g in range(400)]
    in_a_chunk = MIXED_SHARDS * each // 10
    assert all(len(set().union(*shards[g : g + in_a_chunk])) <= 2 * MIXED_SHARDS for g in range(400 - in_a_chunk))
    assert len(set().union(*shards)) == 400
    # and within them the windows are mixed: a group is not one shard after the other
    assert np.mean([len(s) for s in shards]) > 6


@given(st.integers(0, 10**9), st.integers(0, 2**32))
def test_crops_lie_inside_the_grid_and_follow_position(position: int, seed: int) -> None:
    part = Listing("map", [[4, 4]], grid=(1, 12, 30)), CorpusConfig("map", crop=[5, 30], frames=2)
    items = mix(part, seed=seed)._orders[0].items(position, 50)
    assert all(0 <= i.y <= 7 and i.x == 0 for i in items)
    assert len({i.y for i in items}) > 2
    assert mix(part, seed=seed)._orders[0].items(position + 3, 1) == items[3:4]


def test_group_sizes_follow_the_token_budget() -> None:
    # 16 x 16 points in patches of 8 are 4 tokens, 7 predicted frames of them 28
    assert mix(plain(), tokens=280).sizes == (10,)
    assert mix(plain(), tokens=280, data_width=4).sizes == (8,)
    assert mix(plain(), tokens=1, data_width=4).sizes == (4,)
    assert mix(plain(frames=2), tokens=280).sizes == (70,)
    assert mix(plain(patch=4), tokens=280).sizes == (2,)
    assert mix(plain(crop=[8, 8]), tokens=280).sizes == (40,)
    steady = Listing("poisson", [[2] * 5], steady=True), CorpusConfig("poisson", stride=3)
    order = mix(steady, frames=8, tokens=280)
    assert (order.windows[0].frames, order.windows[0].stride, order.sizes) == (2, 1, (70,))


def test_strides_reach_across_the_record() -> None:
    order = mix(plain(length=20, stride=3), frames=5)
    assert order.windows[0].span == 13
    assert {i.start for i in stream(order, 2000)} == set(range(8))
    frames, y, x = order.windows[0].slices(Item(0, 7, 0, 0, 0, 0))
    assert (list(range(20))[frames], y, x) == ([7, 10, 13, 16, 19], None, None)


def test_the_fingerprint_tells_orders_apart_and_nothing_else() -> None:
    base = mix(plain("a"), plain("b"))
    same = mix(plain("a", valid=["other"], weight=2.0), plain("b", weight=2.0), tokens=4097, prefetch=7)
    assert base.sizes == same.sizes
    assert base.fingerprint == same.fingerprint
    assert [base.group(g) for g in range(100)] == [same.group(g) for g in range(100)]
    others = [
        mix(plain("a"), plain("b"), seed=1),
        mix(plain("a", weight=3.0), plain("b")),
        mix(plain("b"), plain("a")),
        mix(plain("a"), plain("b"), tokens=1000),
        mix(plain("a"), plain("b"), every=3),
        mix(plain("a", stride=2), plain("b")),
        mix(plain("a", crop=[8, 8]), plain("b")),
        mix(plain("a", train="other"), plain("b")),
        mix(plain("a"), plain("b"), data_width=3),
    ]
    changed = plain("a")
    changed[0].fingerprint = "other data"
    others.append(mix(changed, plain("b")))
    assert len({base.fingerprint, *(o.fingerprint for o in others)}) == len(others) + 1


def test_golden_orders() -> None:
    """Numbers that must never change: they hold for runs that are to be continued. A wanted change raises `ORDER_VERSION`."""
    order = mix(
        (Listing("weather", [[48] * 7] * 40, grid=(1, 32, 64)), CorpusConfig("weather", 0.7, crop=[16, 16])),
        (Listing("waves", [[9, 20, 30]] * 3), CorpusConfig("waves", 0.2, stride=2, frames=4)),
        (Listing("poisson", [[2] * 50], steady=True), CorpusConfig("poisson", 0.1)),
        seed=20,
        tokens=300,
        data_width=2,
    )
    assert module.ORDER_VERSION == 1
    assert order.sizes == (10, 24, 74)
    text = repr([order.group(g) for g in [*range(130), 10**6]])
    assert [order.group(g).corpus for g in range(12)] == GOLDEN_CORPORA
    assert tuple(order.group(0).items[0]) == GOLDEN_ITEM
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN_HASH


GOLDEN_CORPORA = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]
GOLDEN_ITEM = (113, 22, 11, 47, 0, 0)
GOLDEN_HASH = "91c56cb6f27be83c806a483eca9827f31ac4f5b4ee91b30e380f55781faeb2bd"


# --- what a user can get wrong


def test_mistakes_are_told() -> None:
    cases: list[tuple[str, list[tuple[Listing, CorpusConfig]], dict[str, object]]] = [
        ("no corpora", [], {}),
        (r"corpora/a\).* spans 30, and the longest record .* has 20; set frames to at most 20", [plain()], {"frames": 30}),
        (r"at stride 4 spans 29.* set frames to at most 5", [plain(stride=4)], {}),
        (r"at stride 30 spans 211.* set stride to at most 19", [plain(stride=30)], {}),
        (r"no record of split 'train' has more than 1 frame", [(Listing("a", [[1, 1]]), CorpusConfig("a"))], {}),
        ("weight is 0.0", [plain(weight=0.0)], {}),
        ("weight is nan", [plain(weight=float("nan"))], {}),
        ("two corpora .* named a", [plain(), plain("b"), plain()], {}),
        ("is empty", [(Listing("a", []), CorpusConfig("a"))], {}),
        (r"crop \[17, 4\].* within \[16, 16\]", [plain(crop=[17, 4])], {}),
        ("frames to 2 or more", [plain(frames=1)], {}),
        ("stride is 0", [plain(stride=0)], {}),
        ("patch is 0", [plain(patch=0)], {}),
        (r"data\.tokens is 0", [plain()], {"tokens": 0}),
        (r"data\.every is 0", [plain()], {"every": 0}),
    ]
    for sentence, parts, options in cases:
        with pytest.raises(UserError, match=sentence):
            mix(*parts, **options)


def test_records_that_are_too_short_are_left_out_and_counted() -> None:
    order = mix((Listing("a", [[20, 3], [5], [4, 30]]), CorpusConfig("a")))
    assert order.notes == ("corpus a: 3 of 5 records of split 'train' are shorter than the 8 frames of a window and left out",)
    assert {i.entry for i in stream(order, 200)} == {0, 4}


def test_a_world_size_that_does_not_divide_is_refused_with_those_that_do() -> None:
    order = mix(plain(), data_width=12)
    with pytest.raises(UserError, match=r"5 data-parallel .* sizes that work: 1, 2, 3, 4, 6, 12"):
        order.split(order.group(0).items, 0, 5)
    with pytest.raises(UserError, match="choose 1 to"):
        order.split(order.group(0).items, 0, 12, accumulation=1000)


def test_the_config_is_a_structured_config() -> None:
    given_ = {"corpora": [{"path": "a", "crop": [64, 64], "weight": 2}, {"path": "b", "frames": 4}], "frames": 6, "every": None}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.create(given_)))
    assert config == DataConfig([CorpusConfig("a", 2.0, crop=[64, 64]), CorpusConfig("b", frames=4)], frames=6)
    assert isinstance(config, DataConfig)
    assert replace(config.corpora[0], crop=None) == CorpusConfig("a", 2.0)
