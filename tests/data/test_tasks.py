"""A task is a view of a batch: what is given, what is asked, and nothing of the answer among the inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import lines, make_corpus, settings, write
from toy import ToySource, smooth_sample
from toys import make_batch

from scigpt.data.batches import Batch, collate
from scigpt.data.corpus import Corpus
from scigpt.data.normalize import Scales, normalize
from scigpt.data.sample import Boundary, Variable
from scigpt.data.tasks import Inverse, Labelled, SuperResolution, TaskConfig, _coarsening, _interpolation, build_task
from scigpt.data_prep.convert import convert
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import evaluate
from scigpt.evaluate.plan import Options
from scigpt.train.config import load
from scigpt.train.engine import train


class Waves(ToySource):
    """Smooth waves with a coefficient of three values, which decides how many there are; periodic or not."""

    def samples(self, refs):  # type: ignore[no-untyped-def]
        for ref in refs:
            seed, n, t = ref.spec["seed"], self.options.size, self.options.frames
            rng = np.random.default_rng(seed)
            regime = seed % 3
            x = np.arange(n) / n
            phase = rng.uniform(0, 1, 2)
            one = np.stack([np.sin(2 * np.pi * ((1 + regime) * x[None] + phase[0] + 0.02 * f + 0 * x[:, None])) for f in range(t)])
            values = (one * np.cos(2 * np.pi * (x[:, None] + phase[1])))[:, None, None].astype(np.float32)
            sample = smooth_sample(seed, t, (1, n, n))
            valid = np.ones(values.shape, bool)
            yield replace(sample, values=values, valid=valid, coefficients={"regime": float(regime), "viscosity": 0.1 * (regime + 1)})


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    return convert(Waves(options=Waves.Options(samples=60, size=16, frames=4)), folder / "waves", progress=False)


def a_batch(path: Path, count: int = 3) -> tuple[Corpus, Scales, Batch]:
    corpus = Corpus.open(path)
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    return corpus, scales, collate([corpus.read("train", i) for i in range(count)], scales, corpus.name, 4)


def test_cubic_interpolation_agrees_with_torch() -> None:
    """Inside, where no side matters; torch's antialiased bicubic kernel has a = -1/2 too (its other one has -3/4)."""
    up, down = _interpolation(32, 4, False, True), _coarsening(32, 4, False, True)
    coarse = np.random.default_rng(1).normal(size=8)
    theirs = F.interpolate(torch.from_numpy(coarse).view(1, 1, 1, 8), size=(1, 32), mode="bicubic", antialias=True).numpy().ravel()
    assert (up @ coarse)[8:24] == pytest.approx(theirs[8:24], abs=1e-6)
    assert (up @ np.arange(8.0))[8:24] == pytest.approx((np.arange(32) + 0.5)[8:24] / 4 - 0.5, abs=1e-12)
    assert (down @ np.arange(32.0))[2:6] == pytest.approx((np.arange(8) * 4 + 1.5)[2:6], abs=1e-12)
    assert up.sum(1) == pytest.approx(1)
    assert down.sum(1) == pytest.approx(1)
    values = np.random.default_rng(0).normal(size=32)
    theirs = F.interpolate(torch.from_numpy(values).view(1, 1, 1, 32), size=(1, 8), mode="bicubic", antialias=True).numpy().ravel()
    assert (down @ values)[2:6] == pytest.approx(theirs[2:6], abs=1e-6)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_periodic_axis_has_no_seam(averaged: bool) -> None:
    up, down = _interpolation(24, 3, True, averaged), _coarsening(24, 3, True, averaged)
    both = up @ down
    shifted = np.roll(np.roll(both, 3, 0), 3, 1)
    assert both == pytest.approx(shifted, abs=1e-12)


@pytest.mark.parametrize("degrade", ["bicubic", "subsample", "noisy"])
def test_super_resolution_gives_the_coarse_field_and_asks_for_the_rest(waves: Path, degrade: str) -> None:
    corpus, scales, batch = a_batch(waves)
    task = build_task(TaskConfig("super-resolution", factor=4, degrade=degrade), corpus, scales, 0)  # type: ignore[arg-type]
    assert isinstance(task, SuperResolution)
    view = task.view(batch, [0, 1, 2])
    assert view.values.shape == (12, 2, 1, 1, 16, 16)
    assert torch.equal(view.target_values()[:, 0], batch.values.flatten(0, 1))
    again = task.view(batch, [0, 1, 2])
    assert torch.equal(view.values, again.values)
    other = task.view(batch, [0, 1, 3])
    assert torch.equal(view.values[:8], other.values[:8])
    assert torch.equal(view.values, other.values) == (degrade != "noisy")
    fields = normalize(view)
    # what is predicted is measured in the size of what the coarse field lacks
    assert float(fields.target.square().mean().sqrt()) == pytest.approx(1.0, rel=0.5)
    assert torch.allclose(fields.base + fields.unit * fields.target, scales.forward(view.target_values()), atol=1e-4)
    if degrade == "subsample":
        assert torch.allclose(view.values[:, 0, :, :, ::4, ::4], view.target_values()[:, 0, :, :, ::4, ::4], atol=1e-5)


def test_gaps_do_not_bleed(waves: Path) -> None:
    corpus, scales, batch = a_batch(waves)
    task = build_task(TaskConfig("super-resolution", factor=4), corpus, scales, 0)
    assert task is not None
    valid = batch.valid.clone()
    valid[..., :4] = False
    holes = replace(batch, valid=valid, values=torch.where(valid, batch.values, 1e20))
    view = task.view(holes, [0, 1, 2])
    assert float(view.values[view.valid].abs().max()) < 10


def test_a_coarse_simulation_of_the_corpus_takes_the_place_of_the_field(tmp_path: Path) -> None:
    class Paired(ToySource):
        def samples(self, refs):  # type: ignore[no-untyped-def]
            for sample in ToySource.samples(self, refs):
                both = np.concatenate([sample.values, sample.values + np.float32(0.25)], 1)
                names = (*sample.variables, Variable("coarse_concentration", "1", "forcing"))
                yield replace(sample, values=both, valid=np.ones(both.shape, bool), variables=names)

    path = convert(Paired(options=Paired.Options(samples=12)), tmp_path / "paired", progress=False)
    corpus, scales, batch = a_batch(path)
    task = build_task(TaskConfig("super-resolution", degrade="paired"), corpus, scales)
    assert task is not None
    view = task.view(batch, [0, 1, 2])
    assert [v.name for v in view.layout.variables] == ["concentration"]
    assert (view.values[:, 0] - view.target_values()[:, 0]).numpy() == pytest.approx(0.25, abs=1e-2)
    assert view.layout == task.shape(batch.layout, 3, 6)[0]


def test_inverse_problems_hide_what_they_ask_for() -> None:
    task = Inverse(("f",))
    batch = make_batch((2, 1, 8, 8), ("a", "f"), steady=True)
    view = task.view(batch, [0, 1])
    assert [v.role for v in view.layout.variables] == ["forcing", "diagnostic"]
    changed = replace(batch, values=batch.values.clone())
    changed.values[:, :, 1] += 5.0
    a, b = normalize(view), normalize(task.view(changed, [0, 1]))
    for name in ("value", "increment", "log_amplitude", "base", "unit"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert not torch.equal(a.target, b.target)
    assert a.mask[:, :, 1].all()
    assert not a.mask[:, :, 0].any()
    assert a.value[:, :, 0].abs().sum() > 0


def test_coefficients_that_are_asked_for_are_not_told(waves: Path) -> None:
    corpus, scales, batch = a_batch(waves, 6)
    task = build_task(TaskConfig("coefficients", coefficients=["viscosity"]), corpus, scales)
    assert task is not None
    view = task.view(batch, range(6))
    i = view.coefficient_names.index("viscosity")
    assert not view.known[:, i].any()
    assert (view.coefficients[:, i] == 0).all()
    assert view.known[:, 1 - i].all()
    moments = corpus.stats.to_json()["coefficients"]["viscosity"]
    spread = (moments["m2"] / moments["count"]) ** 0.5
    assert view.answers is not None
    assert (view.answers[:, 0] * spread + moments["mean"]).tolist() == pytest.approx(batch.coefficients[:, i].tolist(), rel=1e-4)
    classes = build_task(TaskConfig("classes", coefficients=["regime"], values=[0, 1]), corpus, scales)
    assert classes is not None
    found = classes.view(batch, range(6)).answers
    assert found is not None
    assert found[:2, 0].tolist() == [0, 1]
    assert found[2, 0].isnan()  # a value that is none of the classes


def test_a_series_is_labelled_along_x() -> None:
    samples = []
    for seed in range(2):
        sample = smooth_sample(seed, 32, (1, 1, 1), ("a", "p_like"))
        sample = replace(sample, variables=(Variable("a", "1"), Variable("p_like", "1", "diagnostic")), boundary=Boundary())
        sample.values[:, 1] = np.arange(32)[:, None, None, None] > 20
        samples.append(sample)
    scales = Scales((("identity", 1.0),) * 2, (0.1, 5.0), (1.3, 7.0), (0.4, 0.4))
    batch = collate(samples, scales, "series", 8)
    task = Labelled(("p_like",))
    view = task.view(batch, [0, 1])
    assert view.values.shape == (2, 2, 2, 1, 1, 32)
    assert view.patch == (1, 1, 8)
    assert view.values[0, 1, 0, 0, 0].tolist() == pytest.approx(samples[0].values[:, 0, 0, 0, 0].tolist())
    assert view.target_values()[0, 0, 1, 0, 0].tolist() == samples[0].values[:, 1, 0, 0, 0].tolist()
    assert scales.scale[1] == 7.0
    assert view.scales.scale[1] == 1.0
    assert (task.shape(batch.layout, 2, 32)) == (view.layout, 2, 2)


@pytest.mark.parametrize(
    ("task", "train_"),
    [
        ({"name": "super-resolution", "factor": 4}, {}),
        ({"name": "coefficients", "coefficients": ["viscosity"]}, {}),
        ({"name": "classes", "coefficients": ["regime"], "values": [0, 1, 2]}, {}),
    ],
    ids=lambda t: t.get("name", ""),
)
def test_a_task_is_trained_and_evaluated(tmp_path: Path, waves: Path, task: dict[str, object], train_: dict[str, object]) -> None:
    data = settings([waves], tmp_path / "run", steps=60, validate_every=60, **train_)
    data |= {"task": task}
    data["data"]["tokens"] = 256
    data["data"]["frames"] = 2
    summary = train(load(write(data, tmp_path / "run.yaml")))
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10]) or min(losses) < 0
    results = evaluate(tmp_path / "run", options=Options(6, 0, 0), progress=False)
    part = results["corpora"][0]["splits"][0]
    if task["name"] == "super-resolution":
        assert "interpolation" in part["summary"]["vrmse"]
        assert part["summary"]["vrmse"]["model"] < part["summary"]["vrmse"]["interpolation"]
        assert part["images"]["concentration"]["model"]["psnr"] > part["images"]["concentration"]["interpolation"]["psnr"]
    else:
        assert part["answers"]
    assert (tmp_path / "run" / "card" / "index.html").exists()
    assert summary["status"] == "finished"


@pytest.mark.parametrize("head", ["gaussian", "quantile", "ensemble"])
def test_a_distribution_is_scored(tmp_path: Path, waves: Path, head: str) -> None:
    data = settings([waves], tmp_path / "run", steps=60, validate_every=60)
    data["model"] |= {"head": head}
    data["data"] |= {"tokens": 256, "frames": 3}
    train(load(write(data, tmp_path / "run.yaml")))
    results = evaluate(tmp_path / "run", options=Options(6, 0, 0), progress=False)
    part = results["corpora"][0]["splits"][0]
    scores = part["uncertainty"]["concentration"]["model"]
    assert 0 < scores["crps"] < scores["skill"]
    assert scores["spread"] > 0
    assert scores["coverage_50"] < scores["coverage_90"]
    observed = part["reliability"]["concentration"]["observed"]
    assert observed == sorted(observed)
    assert any("reliability" in p["file"] for p in part["pictures"])
    assert "Uncertainty" in (tmp_path / "run" / "card" / "index.html").read_text()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (TaskConfig("super-resolution", factor=3), r"task\.factor=3 does not divide the grid"),
        (TaskConfig("super-resolution", degrade="paired"), "has no variable 'coarse_concentration'"),
        (TaskConfig("inverse", predict=["concentratoin"]), "did you mean concentration"),
        (TaskConfig("coefficients", coefficients=["speed"]), "has no coefficient 'speed' of task.coefficients; it has regime, viscosity"),
    ],
)
def test_mistakes_are_told(waves: Path, task: TaskConfig, sentence: str) -> None:
    corpus, scales, _ = a_batch(waves)
    with pytest.raises(UserError, match=sentence):
        build_task(task, corpus, scales)


def test_tasks_that_ask_for_nothing_are_refused() -> None:
    for name, lacks in (("inverse", "predict"), ("coefficients", "coefficients"), ("classes", "coefficients"), ("labels", "predict")):
        with pytest.raises(UserError, match=f"the task {name} needs {lacks}"):
            TaskConfig(name)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="two or more values"):
        TaskConfig("classes", coefficients=["regime"], values=[1.0])


def test_corpora_of_toys_are_still_forecast(tmp_path: Path) -> None:
    corpus, scales, _ = a_batch(make_corpus(tmp_path))
    assert build_task(TaskConfig(), corpus, scales) is None
