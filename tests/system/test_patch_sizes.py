"""A model trained at one patch size forecasts at half of it, untrained, better than persistence: kernels and positions are functions of
space, not of the token grid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runs import settings, write

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde.navier_stokes import NavierStokes
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.study import Options, Subject, plan, study
from scigpt.train.config import load
from scigpt.train.engine import train

PATCH = 8


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    """VRMSE by patch size and method on held-out Navier-Stokes trajectories, of a model trained at patch 8 alone."""
    folder = tmp_path_factory.mktemp("patches")
    options = NavierStokes.Options(train=20, valid=2, test=6, ood=0, grid=32, frames=24, viscosity_low=2e-2)
    corpus = convert(NavierStokes((), options), folder / "ns", progress=False)
    data = settings([corpus], folder / "run", steps=200, groups=1, validate_every=200, checkpoint_every=200)
    data["data"] |= {"frames": 8, "tokens": 1024, "patch": PATCH}
    data["model"] = {"depth": 2, "width": 64}
    data["optim"] = {"lr": 5e-3, "warmup": 40, "decay": 0.3}
    config = load(write(data, folder / "run.yaml"))
    train(config)
    run = TrainedRun.open(folder / "run")
    subject = Subject.of(Corpus.open(corpus), config.data.corpora[0], config.data)
    found = {p: study(run.model, plan(replace(subject, patch=p), "test", Options(rollouts=0))).numbers for p in (PATCH, PATCH // 2)}
    return {p: numbers["summary"]["vrmse"] for p, numbers in found.items()}


@pytest.mark.drill
def test_half_the_patch_size_still_beats_persistence(scores: dict[int, dict[str, float]], record_property: pytest.RecordProperty) -> None:
    trained, half = scores[PATCH], scores[PATCH // 2]
    for p, found in scores.items():
        record_property(f"vrmse at patch {p}", {method: round(value, 4) for method, value in found.items()})
    assert trained["persistence"] == pytest.approx(half["persistence"], rel=1e-5), "the truth does not depend on the patch"
    assert trained["model"] < 0.6 * trained["persistence"]
    assert half["model"] < 0.75 * half["persistence"], scores
    assert half["model"] != trained["model"]
