"""The count of parameters, data and FLOPs without training, against what the ledger and the batches of a mixture say."""

from __future__ import annotations

import pytest
from runs import make_corpus
from torch.utils.flop_counter import FlopCounterMode

from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture
from scigpt.data.normalize import Scales
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.account import account, parameters

MODEL = ModelConfig(depth=2, width=32, heads=1)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Corpus]:
    folder = tmp_path_factory.mktemp("data")
    return [Corpus.open(make_corpus(folder, name, size=size)) for name, size in (("one", 8), ("two", 12))]


def mixture(corpora: list[Corpus], limit: int | None = None) -> Mixture:
    paths = [str(c.path) for c in corpora]
    listed = [CorpusConfig(paths[0], limit=limit), CorpusConfig(paths[1], weight=2, crop=[8, 12])]
    return Mixture(corpora, DataConfig(listed, frames=4, tokens=100, patch=4), seed=3)


@pytest.mark.parametrize("groups", [0, 1, 63, 64, 65, 200])
def test_windows_seen_are_those_of_the_groups(corpora: list[Corpus], groups: int) -> None:
    order = mixture(corpora)
    counted = [0, 0]
    for g in range(groups):
        group = order.group(g)
        counted[group.corpus] += len(group.items)
    assert order.seen(groups) == tuple(counted)


def test_data_and_flops_are_those_of_the_batches(corpora: list[Corpus]) -> None:
    order, vocabulary, groups = mixture(corpora), Vocabulary.from_corpora(corpora), 9
    model = SciGPT(MODEL, vocabulary)
    scales = [Scales.from_stats(c.layout, c.stats.to_json(), 1) for c in corpora]
    tokens = values = samples = flops = 0
    with BatchLoader(order, scales, 0, 3) as loader, FlopCounterMode(display=False) as counter:
        for _ in range(groups):
            _, batches = next(loader)
            for batch in batches:
                samples, tokens, flops = samples + len(batch), tokens + model.tokens(batch), flops + 3 * model.flops(batch)
                values += batch.values[:, 1:].numel()
                model(batch)
    found = account(order, MODEL, groups, 3)
    assert (found.data.samples, found.data.tokens, found.data.values) == (samples, tokens, values)
    assert found.flops["total"] == flops == sum(n for part, n in found.flops.items() if part != "total")
    assert found.flops["total"] == pytest.approx(3 * counter.get_total_flops(), rel=0.03)  # small products weigh more in a toy
    counted = parameters(MODEL, vocabulary)
    assert counted["total"] == sum(p.numel() for p in model.parameters()) == sum(counted[p] for p in ("backbone", "embedding", "head"))
    assert counted["head"] == sum(p.numel() for p in model.head.parameters())


def test_repeats_are_not_unique(corpora: list[Corpus]) -> None:
    order = mixture(corpora, limit=5)
    found = account(order, MODEL, 400)
    seen = {item[:4] for g in range(400) if (group := order.group(g)).corpus == 0 for item in group.items if item.epoch == 0}
    one = found.corpora["one"]
    assert one.unique_samples == len(seen) == order.epoch_windows[0] == 10
    assert one.epochs == one.samples / 10 > 4
    assert found.data.unique_samples == one.unique_samples + found.corpora["two"].unique_samples


def test_a_limit_takes_the_first_records(corpora: list[Corpus]) -> None:
    order = mixture(corpora, limit=5)
    entries = {item.entry for g in range(200) if (group := order.group(g)).corpus == 0 for item in group.items}
    assert entries == set(range(5))
    assert order.fingerprint != mixture(corpora).fingerprint
    assert mixture(corpora, limit=10**6).epoch_windows == mixture(corpora).epoch_windows
    with pytest.raises(UserError, match="limit is 0; expected 1 or more"):
        mixture(corpora, limit=0)
