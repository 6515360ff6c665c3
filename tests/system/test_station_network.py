"""Five hundred stations over ten years: gaps and all they become points, and the model finds what hidden ones measure."""

from __future__ import annotations

import json
from pathlib import Path

import ground
import numpy as np
import pytest
from commands import done
from runs import write

from scigpt.data.corpus import Corpus

pytestmark = pytest.mark.drill


def kriging_over_nearest_three(made: ground.Network, hidden: float, seed: int = 0) -> float:
    """RMSE of the best linear estimate, which knows the covariance, over that of the mean of the nearest three, on a day without gaps."""
    count = len(made.places)
    chosen = np.random.default_rng(seed).permutation(count)[: round(hidden * count)]
    seen = np.setdiff1d(np.arange(count), chosen)
    field, distance = made.covariance, made.distances
    measured = field[np.ix_(seen, seen)] + made.noise * np.eye(len(seen))
    shared = field[np.ix_(seen, chosen)]
    best = 1 + made.noise - np.einsum("ij,ij->j", shared, np.linalg.solve(measured, shared))
    near = [seen[np.argsort(distance[h, seen])[:3]] for h in chosen]
    simple = [
        1 + made.noise - 2 * field[h, n].mean() + field[np.ix_(n, n)].mean() + made.noise / 3 for h, n in zip(chosen, near, strict=True)
    ]
    return float(np.sqrt(best.mean() / np.mean(simple)))


def test_hidden_stations_are_found_better_than_by_their_neighbours(tmp_path: Path) -> None:
    made = ground.network(500, 3652)
    files = ground.ghcn(tmp_path / "raw", made)
    done("data", "prepare", "ghcn", "--input", *files, "--out", tmp_path / "network", "frames_per_sample=64")
    done("data", "verify", tmp_path / "network")
    corpus = Corpus.open(tmp_path / "network")
    assert corpus.layout.geometry == "points"
    assert corpus.layout.grid == (1, 1, 500)
    invalid = corpus.manifest["splits"]["train"]["invalid"]["air_temperature"]
    assert 0.1 < invalid < 0.3
    # the last frames of the test split, one by one
    entries = corpus.entries("test")
    last = corpus.read("test", len(entries) - 1)
    truth = made.values[-last.values.shape[0] :].round(1) + 273.15
    assert np.array_equal(last.valid[:, 0, 0, 0], np.isfinite(truth))
    np.testing.assert_allclose(np.where(last.valid, last.values, np.nan)[:, 0, 0, 0], truth, atol=0.02)

    config = {
        "run": str(tmp_path / "run"),
        "task": {"name": "reconstruction", "hidden": 0.2},
        "data": {"corpora": [{"path": str(tmp_path / "network")}], "frames": 4, "tokens": 8192},
        "model": {"size": "nano"},
        "train": {"steps": 400, "groups": 1, "validate_every": 200, "validate_windows": 16, "checkpoint_every": 200, "threads": 2},
        "optim": {"lr": 3e-3, "warmup": 50, "decay": 0.4},
        "report": {"mlflow": False},
    }
    done("pretrain", write(config, tmp_path / "c.yaml"), "--json")
    results = json.loads(done("evaluate", tmp_path / "run", "--corpus", tmp_path / "network", "--json"))
    (test,) = [s for s in results["corpora"][0]["splits"] if s["split"] == "test"]
    summary = test["summary"]
    bound = kriging_over_nearest_three(made, 0.2)
    scores = summary["vrmse"]
    told = f"model {scores['model']:.4f}, nearest three {scores['nearest three']:.4f}: {summary['ratio']:.3f}; kriging {bound:.3f}"
    print(told)  # noqa: T201
    assert summary["best_baseline"] == "nearest three"
    assert summary["verdict"] == "better", told
    assert summary["ratio"] < 0.96, told
