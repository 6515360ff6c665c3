"""One model of a corpus of each domain: gridded weather, images, stations, earthquakes, a survey, a simulation."""

from __future__ import annotations

import json
from pathlib import Path

import earth
import ground
import numpy as np
import pytest
from commands import done
from runs import lines, write

from scigpt.data.corpus import Corpus

pytestmark = pytest.mark.drill
for extra in ("rasterio", "obspy", "segyio"):
    pytest.importorskip(extra)

GEOMETRY = {"era5": "sphere", "hls": "sphere", "ghcn": "points", "earthscope": "points", "segy": "plane", "shallow-water": "plane"}

FRAMES = {"earthscope": 128}


def corpora(folder: Path) -> dict[str, Path]:
    """By name, each made by the command line of files in the format of its source."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    inputs: dict[str, tuple[list[Path], list[str]]] = {
        "era5": ([earth.era5(raw / "era5.nc")], ["gap=1"]),
        "hls": ([earth.hls(raw / "hls")], ["gap=1"]),
        "ghcn": (ground.ghcn(raw / "ghcn", ground.network(48, 730)), ["frames_per_sample=64"]),
        "earthscope": ([ground.earthquakes(raw / "earthquakes")], ["before=2", "after=48", "labels=none"]),
        "segy": ([ground.survey(raw / "survey.sgy")], ["tile=5x40", "gap=1"]),
    }
    for source, (files, options) in inputs.items():
        done("data", "prepare", source, "--input", *files, "--out", folder / source, *options)
    done("data", "make", "shallow-water", "--out", folder / "shallow-water", "train=16", "valid=2", "test=2", "ood=2", "grid=36")
    return {name: folder / name for name in (*inputs, "shallow-water")}


def test_every_domain_trains_in_one_model_and_is_evaluated(tmp_path: Path) -> None:
    made = corpora(tmp_path / "corpora")
    for path in made.values():
        done("data", "verify", path)
        page = path.with_suffix(".html")
        done("data", "card", path, "--html", page)
        assert page.read_text().count("data:image/png;base64,") >= 2
    assert {name: Corpus.open(path).layout.geometry for name, path in made.items()} == GEOMETRY
    config = {
        "run": str(tmp_path / "run"),
        "data": {"corpora": [{"path": str(p), "frames": FRAMES.get(n, 4)} for n, p in made.items()], "tokens": 512},
        "model": {"size": "nano"},
        "train": {"steps": 200, "groups": 2, "validate_every": 100, "validate_windows": 4, "checkpoint_every": 200, "threads": 1},
        "optim": {"lr": 2e-3, "warmup": 20},
        "report": {"mlflow": False},
    }
    summary = json.loads(done("pretrain", write(config, tmp_path / "c.yaml"), "--json"))
    assert (summary["step"], summary["skipped_steps"]) == (200, 0)
    seen = [line for line in lines(tmp_path / "run") if np.isfinite(line["loss"])]
    assert len(seen) == 200
    assert {c for line in seen for c in line["corpora"]} == set(made)
    results = json.loads(done("evaluate", tmp_path / "run", "--windows", 8, "--rollouts", 1, "--json"))
    for corpus in results["corpora"]:
        for part in corpus["splits"]:
            assert np.isfinite(part["summary"]["vrmse"]["model"]), (corpus["name"], part["split"])
    assert {c["name"] for c in results["corpora"]} == set(made)
    assert (tmp_path / "run" / "card" / "index.html").exists()
