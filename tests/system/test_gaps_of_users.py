"""A user's file with holes, all the way: NaN becomes invalid, and a variable without a value neither stops nor spoils the training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from grids import waves
from runs import config, lines, tensors
from safetensors.numpy import load

from scigpt.data.corpus import Corpus
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.evaluate.evaluate import evaluate
from scigpt.evaluate.study import Options
from scigpt.train.engine import train

FRAMES, NY, NX = 80, 12, 18


@pytest.fixture(scope="module", params=["never", "only late"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A corpus of temperature with holes (an island, a lost day, single points) and of pressure that was never measured, or only after the
    time that is trained on; and the temperatures."""
    folder = tmp_path_factory.mktemp("holes")
    generator = np.random.default_rng(0)
    tas = (285 + 5 * waves(generator, (1, NY, NX), FRAMES, 0.1)[:, 0]).astype(np.float32)
    tas[:, 3:6, 4:9] = np.nan
    tas[17] = np.nan
    tas[generator.random(tas.shape) < 0.05] = np.nan
    psl = np.full_like(tas, np.nan)
    if request.param == "only late":
        psl[66:] = 1e5 + generator.normal(0, 500, psl[66:].shape)
    axes = ("time", "lat", "lon")
    xr.Dataset(
        {
            "tas": (axes, tas, {"units": "K", "standard_name": "air_temperature"}),
            "psl": (axes, psl, {"units": "Pa", "standard_name": "air_pressure_at_mean_sea_level"}),
        },
        {
            "time": xr.date_range("2000-01-01", periods=FRAMES, calendar="noleap", use_cftime=True),
            "lat": ("lat", np.linspace(-55, 55, NY), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(NX) * 20.0, {"units": "degrees_east"}),
        },
    ).to_netcdf(folder / "user.nc", engine="netcdf4")
    source = Cmip6([folder / "user.nc"], Cmip6.Options(frames_per_sample=16))
    return convert(source, folder / "corpus", progress=False), tas


def test_nan_becomes_invalid(made: tuple[Path, np.ndarray]) -> None:
    path, tas = made
    assert verify(path) == []
    corpus = Corpus.open(path)
    names = [v.name for v in corpus.layout.variables]
    c, seen = names.index("air_temperature"), 0
    for split in corpus.splits:
        for i in range(len(corpus.entries(split))):
            sample = corpus.read(split, i)
            days = np.round((sample.time.seconds - sample.time.seconds[0]) / 86400).astype(int)
            truth = tas[(sample.time.dates()[0].dayofyr - 1) + days]
            np.testing.assert_array_equal(sample.valid[:, c, 0], np.isfinite(truth))
            np.testing.assert_allclose(sample.values[:, c, 0][sample.valid[:, c, 0]], truth[np.isfinite(truth)], atol=1e-2)
            assert np.isfinite(sample.values).all()
            assert split != "train" or not sample.valid[:, 1 - c].any()
            seen += len(sample.time)
    assert seen == FRAMES - 4, "two frames are left out between splits"


def test_a_variable_without_values_trains_without_nan(
    made: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path, _ = made
    if "only late" in request.node.name:  # pictures take longer than all else; those of the other case are drawn
        monkeypatch.setattr("scigpt.evaluate.evaluate.draw", lambda *_: [])
    summary = train(config([path], tmp_path / "run", steps=30))
    assert summary["skipped_steps"] == 0
    seen = lines(tmp_path / "run")
    assert all(math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]) for line in seen)
    assert np.mean([line["loss"] for line in seen[-8:]]) < np.mean([line["loss"] for line in seen[:8]])
    for data in tensors(tmp_path / "run").values():
        assert all(np.isfinite(tensor).all() for tensor in load(data).values())
    results = evaluate(tmp_path / "run", options=Options(windows=4, rollouts=1, steps=3), progress=False)
    for part in results["corpora"][0]["splits"]:
        assert part["one_step"]["air_temperature"]["methods"]["model"]["vrmse"] is not None
        assert math.isfinite(part["one_step"]["air_temperature"]["methods"]["model"]["rmse"])
