"""One model of a corpus of each domain: gridded weather, images, stations, earthquakes, a survey, a simulation."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import earth
import ground
import numpy as np
import pytest
from runs import lines, write

from scigpt.data.corpus import Corpus
from scigpt.launch.cli import main

pytestmark = pytest.mark.drill
for extra in ("rasterio", "obspy", "segyio"):
    pytest.importorskip(extra)

GEOMETRY = {"era5": "sphere", "hls": "sphere", "ghcn": "points", "earthscope": "points", "segy": "plane", "shallow-water": "plane"}

FRAMES = {"earthscope": 128}


def command(*words: object) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    assert not left.value.code, err.getvalue()
    return out.getvalue()


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
        command("data", "prepare", source, "--input", *files, "--out", folder / source, *options)
    command("data", "make", "shallow-water", "--out", folder / "shallow-water", "train=16", "valid=2", "test=2", "ood=2", "grid=36")
    return {name: folder / name for name in (*inputs, "shallow-water")}


def test_every_domain_trains_in_one_model_and_is_evaluated(tmp_path: Path) -> None:
    made = corpora(tmp_path / "corpora")
    for path in made.values():
        command("data", "verify", path)
        page = path.with_suffix(".html")
        command("data", "card", path, "--html", page)
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
    summary = json.loads(command("pretrain", write(config, tmp_path / "c.yaml"), "--json"))
    assert (summary["step"], summary["skipped_steps"]) == (200, 0)
    seen = [line for line in lines(tmp_path / "run") if np.isfinite(line["loss"])]
    assert len(seen) == 200
    assert {c for line in seen for c in line["corpora"]} == set(made)
    results = json.loads(command("evaluate", tmp_path / "run", "--windows", 8, "--rollouts", 1, "--json"))
    for corpus in results["corpora"]:
        for part in corpus["splits"]:
            assert np.isfinite(part["summary"]["vrmse"]["model"]), (corpus["name"], part["split"])
    assert {c["name"] for c in results["corpora"]} == set(made)
    assert (tmp_path / "run" / "card" / "index.html").exists()
