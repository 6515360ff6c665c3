"""Variables, levels, roles, dimensions, coefficients and patch sizes that a pretrained model has never seen are added, and change nothing
of what it knew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import history, lines, make_corpus, settings, tensors, write
from toy import ToySource, smooth_sample
from toys import make_batch

from scigpt.adapt.start import Start, check_scales
from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.loader import evaluation_batches
from scigpt.data.mixture import CorpusConfig
from scigpt.data.normalize import Scales
from scigpt.data.sample import Level, Variable
from scigpt.data_prep.convert import convert
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.model.initial import Initial
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train

NEW = ("salinity_like", "depth_like", "coast_like")


class Ocean(ToySource):
    """Records on another grid, with two variables that the toys lack (one on a level, one forcing), and another coefficient."""

    def samples(self, refs: Sequence[object]) -> object:  # type: ignore[override]
        for ref in refs:
            seed = ref.spec["seed"]  # type: ignore[attr-defined]
            sample = smooth_sample(seed, self.options.frames, (1, 6, 10), ("concentration", *NEW[:2]), gaps=0.1)
            first = np.random.default_rng(seed).normal(size=(3, 1, 6, 10)).astype(np.float32)
            moved = np.stack([np.roll(first, t, -1) for t in range(self.options.frames)])  # one cell a frame: it can be learned
            sample = replace(sample, values=np.where(sample.valid, moved, np.float32(np.nan)))
            variables = (
                Variable("concentration", "1"),
                Variable(NEW[0], "g kg**-1", level=Level("depth", 10.0)),
                Variable(NEW[1], "m", "forcing"),
            )
            scale = np.array([1.0, 1e-12, 1e12], np.float32)[None, :, None, None, None]
            yield replace(sample, values=sample.values * scale, variables=variables, coefficients={"tide": float(seed)})


def ocean(folder: Path, name: str = "ocean") -> Path:
    return convert(Ocean(options=Ocean.Options(samples=20, frames=8)), folder / name, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run and its corpus, and a corpus it has never seen."""
    path = tmp_path_factory.mktemp("surgery")
    train(load(write(settings([make_corpus(path)], path / "pretrained"), path / "pretrained.yaml")))
    ocean(path)
    return path


def adapted(folder: Path, name: str, corpora: Sequence[str] = ("ocean",), **changes: object) -> RunConfig:
    data = settings([folder / c for c in corpora], folder / name)
    data |= {"init": str(folder / "pretrained"), **{k: v for k, v in changes.items() if k != "train"}}
    data["train"] |= changes.get("train", {})  # type: ignore[arg-type]
    data.pop("model")
    return load(write(data, folder / f"{name}.yaml"))


def grown(start: Start, extra: Vocabulary, **shape: object) -> SciGPT:
    model = SciGPT(replace(start.config, **shape), start.vocabulary.extended(extra, "test"))  # type: ignore[arg-type]
    whole = start.fill(model, Initial(model, 5))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(whole(name))
    return model.eval()


def with_invalid(batch: Batch, variables: Sequence[Variable]) -> Batch:
    """The batch with more variables of which nothing is valid; their values are NaN, to be caught if used."""
    shape = (*batch.values.shape[:2], len(variables), *batch.values.shape[3:])
    s, n = batch.scales, len(variables)
    scales = replace(
        s, transform=s.transform + (("identity", 1.0),) * n, center=s.center + (3.0,) * n, scale=s.scale + (2.0,) * n,
        increment=s.increment + (0.5,) * n,
    )  # fmt: skip
    layout = replace(batch.layout, variables=batch.layout.variables + tuple(variables))
    values = torch.cat([batch.values, torch.full(shape, torch.nan)], 2)
    valid = torch.cat([batch.valid, torch.zeros(shape, dtype=torch.bool)], 2)
    return replace(batch, values=values, valid=valid, layout=layout, scales=scales)


@given(
    grid=st.sampled_from([(1, 1, 1), (1, 1, 24), (1, 8, 8), (1, 12, 20), (4, 8, 8)]),
    names=st.sampled_from([("a", "b"), ("a",), ("b", "f", "s"), ("a", "d")]),
    new=st.lists(st.sampled_from(["state", "forcing", "static", "diagnostic"]), min_size=1, max_size=3),
    steady=st.booleans(),
    patch=st.sampled_from([4, 8]),
    seed=st.integers(0, 3),
)
def test_old_samples_give_the_old_numbers_to_the_last_bit(grid, names, new, steady, patch, seed) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    vocabulary = Vocabulary(dict.fromkeys(("a", "b", "d", "f", "s"), "1"), {"viscosity": (0.5, 0.3)})
    old = SciGPT(ModelConfig(depth=2, width=32, heads=1), vocabulary)
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    start = Start(Path("old"), old.config, vocabulary, dict(old.state_dict()), vocabulary)
    variables = [Variable(f"new_{i}", "1", role, Level("height", 2.0) if i else None) for i, role in enumerate(new)]
    model = grown(start, Vocabulary({v.name: "1" for v in variables}, {"omega": (3.0, 1.0)}))
    batch = make_batch((2 if steady else 4, *grid), names, patch=patch, seed=seed, gaps=0.2, steady=steady)
    with torch.no_grad():
        before = old.eval()(batch).physical()
        assert torch.equal(model(batch).physical(), before)
        after = model(with_invalid(batch, variables)).physical()
    assert torch.equal(after[:, :, : len(names)], before)


def test_a_run_is_adapted_to_variables_on_an_unseen_grid(folder: Path) -> None:
    result = train(adapted(folder, "adapted", train={"steps": 30}))
    state = json.loads((folder / "adapted" / "checkpoints" / "step-00000030" / "state.json").read_text())
    assert state["vocabulary"]["added"] == [sorted(NEW[:2]), ["tide"]]
    assert "tokenizer.kernel_added" in state["new_parameters"]
    losses = [line["loss"] for line in lines(folder / "adapted")]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    run = TrainedRun.open(folder / "adapted")
    assert list(run.model.vocabulary.units) == sorted(["concentration", *NEW[:2]])
    assert result["trained_parameters"] == result["parameters"]
    # the old corpus is still known, and before the first step it was known exactly
    corpus = Corpus.open(folder / "toys")
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    (batch,) = evaluation_batches(corpus, scales, CorpusConfig(str(corpus.path)), 4, "valid", 8, 4, 4)
    start = Start.open(str(folder / "pretrained"))
    first = grown(start, run.model.vocabulary)
    assert torch.equal(first(batch).physical(), start.model().eval()(batch).physical())
    assert not torch.equal(run.model(batch).physical(), first(batch).physical())


def test_adapting_twice_merges_what_was_added(folder: Path) -> None:
    train(adapted(folder, "once"))

    class Sky(Ocean):
        def samples(self, refs: Sequence[object]) -> object:  # type: ignore[override]
            for sample in Ocean.samples(self, refs):  # type: ignore[attr-defined]
                yield replace(sample, variables=(sample.variables[0], sample.variables[1], Variable("albedo_like", "1", "static")))

    convert(Sky(options=Sky.Options(samples=20, frames=8)), folder / "sky", progress=False)
    second = adapted(folder, "twice", ("sky", "ocean"), init=str(folder / "once"))
    train(second)
    state = json.loads((folder / "twice" / "checkpoints" / "step-00000020" / "state.json").read_text())
    assert state["vocabulary"]["added"] == [["albedo_like"], []]
    once, first = TrainedRun.open(folder / "once").model, Start.open(str(folder / "once")).model()
    for (name, a), (_, b) in zip(once.named_parameters(), first.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_new_rows_learn_at_their_own_rate(folder: Path) -> None:
    slow = adapted(folder, "slow", adapt={"new_rate": 1e-6}, train={"steps": 1, "validate_every": 1})
    train(slow)
    found = Start.of(_newest(folder / "slow"))
    model = SciGPT(slow.model if slow.init is None else found.config, found.raw)
    initial = Initial(model, 0)
    moved = {n: float((found.tensors[n] - initial(n)).abs().max()) for n in found.tensors if n.endswith("_added")}
    old = Start.open(str(folder / "pretrained"))
    assert max(moved.values()) < 1e-7
    assert float((found.tensors["tokenizer.kernel"] - old["tokenizer.kernel"]).abs().max()) > 1e-4


def test_a_new_variable_may_begin_as_a_known_one(folder: Path) -> None:
    config = adapted(folder, "like", adapt={"like": {NEW[0]: "concentration"}, "new_rate": 1e-9}, train={"steps": 1, "validate_every": 1})
    train(config)
    found, old = Start.of(_newest(folder / "like")), Start.open(str(folder / "pretrained"))
    row = sorted(NEW[:2]).index(NEW[0])
    for name in ("tokenizer.kernel", "tokenizer.amplitude", "head.detokenizer.kernel"):
        assert torch.allclose(found.tensors[f"{name}_added"][row], old[name][0], atol=1e-7), name
        assert not torch.allclose(found.tensors[f"{name}_added"][1 - row], old[name][0], atol=1e-7), name
    wrong = {"is not new to the model": {"concentration": "concentration"}, "is not known to the model": {NEW[0]: "heat"}}
    for sentence, like in wrong.items():
        with pytest.raises(UserError, match=sentence):
            train(adapted(folder, "like-wrong", adapt={"like": like}))


def test_frozen_parameters_stay_to_the_last_bit(folder: Path) -> None:
    result = train(adapted(folder, "frozen", adapt={"mode": "frozen"}))
    assert result["trained_parameters"] < result["parameters"]
    old, new = Start.open(str(folder / "pretrained")), Start.of(_newest(folder / "frozen"))
    for name in old.tensors:
        if name.startswith(("blocks.", "conditions.layout", "modulate")):
            assert torch.equal(old[name], new.tensors[name]), name
    assert not torch.equal(old["head.detokenizer.kernel"], new.tensors["head.detokenizer.kernel"])


@pytest.mark.parametrize("mode", ["full", "frozen", "lora"])
def test_a_stopped_adaptation_goes_on_exactly_even_without_its_beginning(folder: Path, mode: str) -> None:
    whole, broken = f"whole-{mode}", f"broken-{mode}"
    how = {"adapt": {"mode": mode, "rank": 2, "layer_decay": 0.8}, "optim": {"decay": 0.0}}
    train(adapted(folder, whole, **how))
    aside = folder / f"pretrained-{mode}"
    (folder / "pretrained").rename(aside)
    (folder / "pretrained").symlink_to(aside)
    try:
        train(adapted(folder, broken, **how, train={"steps": 10}))
        (folder / "pretrained").unlink()  # the weights it began with are gone
        train(adapted(folder, broken, **how))
    finally:
        (folder / "pretrained").unlink(missing_ok=True)
        aside.rename(folder / "pretrained")
    assert history(folder / whole)[10:] == history(folder / broken)[10:]
    assert tensors(folder / whole) == tensors(folder / broken)


def test_extreme_scales_do_not_matter_or_are_refused(folder: Path) -> None:
    corpus = Corpus.open(folder / "ocean")  # 1e-12 and 1e12
    check_scales(corpus, NEW)
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    (batch,) = evaluation_batches(corpus, scales, CorpusConfig(str(corpus.path)), 4, "valid", 8, 4, 4)
    model = grown(Start.open(str(folder / "pretrained")), Vocabulary.from_corpora([corpus]))
    assert torch.isfinite(model(batch).z()).all()

    class Tiny(Ocean):
        def samples(self, refs: Sequence[object]) -> object:  # type: ignore[override]
            for sample in Ocean.samples(self, refs):  # type: ignore[attr-defined]
                yield replace(sample, values=sample.values * np.array([1, 1e-20, 1], np.float32)[None, :, None, None, None])

    convert(Tiny(options=Tiny.Options(samples=20, frames=8)), folder / "tiny", progress=False)
    with pytest.raises(UserError, match=r"new variable salinity_like@10mdepth has a standard deviation of .*e-3\d g kg"):
        train(adapted(folder, "tiny-run", ("tiny",)))
    assert not (folder / "tiny-run").exists()


def test_early_stopping_keeps_the_best_checkpoint(folder: Path) -> None:
    config = adapted(
        folder, "early", optim={"lr": 0.3, "warmup": 0},
        train={"steps": 200, "validate_every": 1, "patience": 4, "keep_best": True, "keep": 1, "checkpoint_every": 1000, "clip": 1e9},
    )  # fmt: skip
    result = train(config)
    scores = [line["validation"] for line in lines(folder / "early")]
    assert result["status"] == "finished"
    assert result["step"] == len(scores) == result["best"]["step"] + 4 < 200
    values = [s["ocean"]["loss"] for s in scores]
    assert int(np.argmin(values)) + 1 == result["best"]["step"]
    kept = sorted(p.name for p in (folder / "early" / "checkpoints").iterdir())
    assert kept == [f"step-{result['best']['step']:08d}", f"step-{result['step']:08d}"]
    assert TrainedRun.open(folder / "early").facts["step"] == result["best"]["step"]
    assert train(config)["step"] == result["step"]  # it is done, and says so again


def _newest(run: Path):  # type: ignore[no-untyped-def]
    from scigpt.train.checkpoint import newest

    found = newest(run / "checkpoints")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"init": "nowhere"}, "is no run with a complete checkpoint, no checkpoint and no export"),
        ({"adapt": {"mode": "lora", "rank": 2, "targets": ["qvk"]}}, "qvk"),
        ({"adapt": {"rank": 0}}, "rank is 0; expected 1 or more"),
        ({"adapt": {"layer_decay": 1.5}}, "layer_decay is 1.5; expected at most 1"),
    ],
)
def test_mistakes_are_told_before_anything_starts(folder: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        train(adapted(folder, "mistaken", **changes))
    assert not (folder / "mistaken").exists()


def test_a_variable_in_another_unit_is_refused(folder: Path) -> None:
    class Percent(Ocean):
        def samples(self, refs: Sequence[object]) -> object:  # type: ignore[override]
            for sample in Ocean.samples(self, refs):  # type: ignore[attr-defined]
                yield replace(sample, variables=(*sample.variables[:1], replace(sample.variables[1], unit="%"), *sample.variables[2:]))

    train(adapted(folder, "permille"))
    convert(Percent(options=Percent.Options(samples=20, frames=8)), folder / "percent", progress=False)
    with pytest.raises(UserError, match=r"was trained on salinity_like in g kg\*\*-1, and the data has it in %"):
        train(adapted(folder, "percent-run", ("percent",), init=str(folder / "permille")))
