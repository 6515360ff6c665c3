"""A Forecaster says what the model in the framework says, in the terms of the data it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from runs import make_corpus, settings, write

import scigpt
from scigpt.data.batches import collate
from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.rollout import rollout
from scigpt.export import weights
from scigpt.export.datasets import to_dataset
from scigpt.export.forecaster import Forecaster
from scigpt.train.config import load
from scigpt.train.engine import train

FRAMES = 30
"""Of a record; a training window has 4."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toys`; `run` with a gaussian head and `point` of it, and their exports `export` and `plain`."""
    path = tmp_path_factory.mktemp("forecaster")
    corpus = make_corpus(path, frames=FRAMES)
    for run, head, out in (("run", "gaussian", "export"), ("point", "point", "plain")):
        data = settings([corpus], path / run, steps=12)
        data["model"]["head"] = head
        train(load(write(data, path / f"{run}.yaml")))
        weights.write(path / run, path / out)
    return path


@pytest.fixture(scope="module")
def forecaster(folder: Path) -> Forecaster:
    return scigpt.load(folder / "export")


def record(folder: Path, i: int = 0) -> Sample:
    return Corpus.open(folder / "toys").read("valid", i)


@pytest.mark.parametrize("name", ["export", "run", "run/checkpoints/step-00000012"])
def test_a_step_is_the_step_of_the_framework(folder: Path, name: str) -> None:
    """On a record that training has not seen, in units of the corpus."""
    forecaster = scigpt.load(folder / name)
    (domain,) = forecaster.domains
    sample = record(folder)
    found = forecaster.forecast(to_dataset(sample.window(slice(0, 3))), 1)
    with torch.no_grad():
        expected = TrainedRun.open(folder / "run").model(collate([sample.window(slice(0, 4))], domain.scales, "toys", 4))
    error = (torch.from_numpy(found["concentration"].values[0]) - expected.physical()[0, -1, 0, 0]) / domain.scales.scale[0]
    assert float(error.abs().max()) < 1e-5
    assert float((expected.z() - expected.normalized.base)[0, -1].abs().max()) > 1e-3  # no persistence
    assert found.time.values[0] == pytest.approx(sample.time.seconds[3])
    assert found.sizes == {"time": 1, "y": 8, "x": 8}


def test_a_rollout_is_the_rollout_of_the_framework(folder: Path, forecaster: Forecaster) -> None:
    sample = record(folder)
    (domain,) = forecaster.domains
    batch = collate([sample], domain.scales, "toys", 4)
    model = TrainedRun.open(folder / "run").model
    for method in ("cache", "recompute", "sliding"):
        found = forecaster.forecast(to_dataset(sample.window(slice(0, 3))), 20, method=method)
        expected = rollout(model, batch, 3, 20, 3, method=method)[0, :, 0, 0]  # type: ignore[arg-type]
        assert float((torch.from_numpy(found["concentration"].values) - expected).abs().max()) < 1e-4
        assert np.allclose(found.time, sample.time.seconds[3:23])


def test_it_comes_in_blocks(folder: Path, forecaster: Forecaster) -> None:
    dataset, told = to_dataset(record(folder).window(slice(0, 5))), []
    blocks = forecaster.stream(dataset, 20, members=3, ensemble="head", batch=2, progress=told.append)
    parts = list(blocks)
    assert (blocks.dim, [p.sizes["time"] for p in parts]) == ("time", [8, 8, 4])
    assert (sum(told), blocks.total) == (60, 60)
    whole = forecaster.forecast(dataset, 20, members=3, ensemble="head")
    assert whole.sizes == {"realization": 3, "time": 20, "y": 8, "x": 8}
    assert np.allclose(np.concatenate([p["concentration"].values for p in parts], 1), whole["concentration"].values, atol=1e-4)


def test_several_starts_are_so_many_forecasts(folder: Path, forecaster: Forecaster) -> None:
    sample = record(folder)
    dataset = to_dataset(sample)
    starts = [str(sample.time.seconds[i]) for i in (4, 9, 15)]
    found = forecaster.forecast(dataset, 6, starts=starts, batch=2)
    assert {d: found.sizes[d] for d in ("forecast_reference_time", "forecast_period")} == {
        "forecast_reference_time": 3,
        "forecast_period": 6,
    }
    for i, last in enumerate((4, 9, 15)):
        alone = forecaster.forecast(to_dataset(sample.window(slice(0, last + 1))), 6)
        assert np.allclose(found["concentration"].values[i], alone["concentration"].values, atol=1e-5)
        assert np.allclose(found["time"].values[i], alone["time"].values)


def test_records_are_so_many_forecasts(folder: Path, forecaster: Forecaster) -> None:
    samples = [record(folder, i).window(slice(0, 9)) for i in (0, 1)]
    found = forecaster.forecast(samples, 6, labels=["a", "b"])
    assert list(found["record_name"].values) == ["a", "b"]
    for i, sample in enumerate(samples):
        alone = forecaster.forecast(to_dataset(sample.window(slice(0, 3))), 6)
        assert np.allclose(found["concentration"].values[i], alone["concentration"].values, atol=1e-5)


@pytest.mark.parametrize("ensemble", ["head", "perturbed"])
def test_ensembles_follow_their_seed_alone(folder: Path, forecaster: Forecaster, ensemble: str) -> None:
    dataset = to_dataset(record(folder).window(slice(0, 4)))

    def members(seed: int = 1, batch: int = 8, count: int = 4) -> np.ndarray:
        return forecaster.forecast(dataset, 5, members=count, ensemble=ensemble, seed=seed, batch=batch)["concentration"].values  # type: ignore[no-any-return]

    first = members()
    assert np.array_equal(first, members())
    assert np.allclose(first, members(batch=1), atol=1e-5)
    assert np.allclose(first[:2], members(count=2), atol=1e-5)  # a larger ensemble begins with the smaller one
    assert not np.allclose(first, members(seed=2), atol=1e-2)
    assert (first.std(0) > 1e-4).mean() > 0.9
    alone = forecaster.forecast(dataset, 5)["concentration"].values
    assert np.allclose(first[0], alone, atol=1e-5) == (ensemble == "perturbed")  # its first member is the control


def test_perturbations_have_the_size_that_is_asked_for(folder: Path, forecaster: Forecaster) -> None:
    (domain,) = forecaster.domains
    dataset = to_dataset(record(folder).window(slice(0, 4)))
    small, large = (forecaster.forecast(dataset, 1, members=40, ensemble="perturbed", spread=s)["concentration"].values for s in (0.1, 0.4))
    unit = domain.scales.scale[0] * domain.scales.increment[0]
    assert small[1:].std(0).mean() == pytest.approx(0.1 * unit, rel=0.5)
    assert large[1:].std(0).mean() == pytest.approx(4 * small[1:].std(0).mean(), rel=0.3)


def test_members_of_other_models_follow(folder: Path, forecaster: Forecaster) -> None:
    dataset = to_dataset(record(folder).window(slice(0, 4)))
    other = scigpt.load(folder / "plain")
    both = forecaster.forecast(dataset, 3, also=[other])
    assert both.sizes["realization"] == 2
    assert np.allclose(both["concentration"].values[0], forecaster.forecast(dataset, 3)["concentration"].values, atol=1e-6)
    assert np.allclose(both["concentration"].values[1], other.forecast(dataset, 3)["concentration"].values, atol=1e-6)


def test_gaps_stay_gaps(folder: Path, forecaster: Forecaster) -> None:
    """A point that is missing in all frames is land; one that is missing now and then is forecast."""
    dataset = to_dataset(record(folder).window(slice(0, 4))).copy(deep=True)
    dataset["concentration"].values[:, 2, 3] = np.nan
    dataset["concentration"].values[1, 5, 5] = np.nan
    found = forecaster.forecast(dataset, 4)["concentration"].values
    assert np.isnan(found[:, 2, 3]).all()
    assert np.isnan(found).sum() == 4


def test_what_cannot_be_done_is_said_before_anything_is_computed(folder: Path, forecaster: Forecaster) -> None:
    dataset = to_dataset(record(folder).window(slice(0, 4)))
    point = scigpt.load(folder / "plain")
    for model, options, sentence in (
        (forecaster, {"steps": 0}, "steps is 0; expected 1 or more"),
        (forecaster, {"members": 3}, "3 members would be equal"),
        (forecaster, {"members": 3, "ensemble": "hope"}, "expected none, head or perturbed"),
        (forecaster, {"method": "guess"}, "expected cache, recompute or sliding"),
        (forecaster, {"spread": -1.0}, "spread is -1.0"),
        (forecaster, {"domain": "seas"}, "seas"),
        (forecaster, {"context": 0}, "context is 0"),
        (point, {"members": 2, "ensemble": "head"}, "its head is point, which has nothing to sample"),
    ):
        with pytest.raises(UserError, match=sentence):
            model.stream(dataset, **{"steps": 2, **options})  # type: ignore[arg-type]
    for path, sentence in ((folder / "toys", "is no export and has no complete checkpoint"), (folder / "nowhere", "nowhere")):
        with pytest.raises(UserError, match=sentence):
            scigpt.load(path)
    with pytest.raises(UserError, match="make an export of it"):
        scigpt.load(folder / "run").save_pretrained(folder / "copy")


def test_a_model_of_another_task_does_not_forecast(folder: Path, tmp_path: Path) -> None:
    data = settings([folder / "toys"], tmp_path / "run", steps=1)
    data["task"] = {"name": "coefficients", "coefficients": ["viscosity"]}
    train(load(write(data, tmp_path / "c.yaml")))
    for path in (tmp_path / "run", weights.write(tmp_path / "run", tmp_path / "out")):
        with pytest.raises(UserError, match="its task is coefficients, and a forecast is asked for"):
            scigpt.load(path)
    with pytest.raises(UserError, match="its task is coefficients, and programs forecast; use --format safetensors"):
        weights.write(tmp_path / "run", tmp_path / "programs", "onnx")
    assert not (tmp_path / "programs").exists()


def test_what_it_returns_goes_on(folder: Path, forecaster: Forecaster) -> None:
    """A forecast is a dataset like any other: it can be forecast from."""
    dataset = to_dataset(record(folder).window(slice(0, 3)))
    first = forecaster.forecast(dataset, 3, method="recompute")
    again = forecaster.forecast(first[["concentration"]].assign_attrs(dataset.attrs), 2, method="recompute")
    assert isinstance(again, xr.Dataset)
    whole = forecaster.forecast(dataset, 5, method="recompute")
    assert np.allclose(again["concentration"].values, whole["concentration"].values[3:], atol=1e-4)
