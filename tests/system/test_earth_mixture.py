"""Five kinds of public data in one model: weather on levels with its forcing, an ocean grid, a climate map, two kinds of images."""

from __future__ import annotations

import json
from pathlib import Path

import earth
import numpy as np
import pytest
from commands import command
from runs import lines, write

from scigpt.data.corpus import Corpus

pytestmark = pytest.mark.drill
for extra in ("rasterio", "pyhdf.SD", "pyproj"):
    pytest.importorskip(extra)


def test_a_mixture_of_all_learns_and_each_has_a_card(tmp_path: Path) -> None:
    inputs = {
        "era5": [earth.era5(tmp_path / "era5.nc")],
        "cmip6": [earth.cmip6_ocean(tmp_path / "tos_Omon_TOY-1_historical_r1i1p1f1_gn.nc")],
        "prism": earth.prism(tmp_path / "zips"),
        "modis": earth.modis(tmp_path / "hdf"),
        "hls": [earth.hls(tmp_path / "hls")],
    }
    options = {"era5": ["solar=true"], "modis": ["tile=none"]}
    for source, files in inputs.items():
        words = [*options.get(source, []), "gap=1"]
        done = command("data", "prepare", source, "--input", *files, "--out", tmp_path / "corpora" / source, *words)
        assert done[0] == 0, done[2]
        assert command("data", "verify", tmp_path / "corpora" / source)[0] == 0
        code, card, _ = command("data", "card", tmp_path / "corpora" / source)
        corpus = Corpus.open(tmp_path / "corpora" / source)
        assert code == 0
        assert all(v.key in card for v in corpus.layout.variables)
        page = tmp_path / f"{source}.html"
        assert command("data", "card", tmp_path / "corpora" / source, "--html", page)[0] == 0
        assert page.read_text().count("data:image/png;base64,") >= 2 * len(corpus.layout.variables)

    weather = Corpus.open(tmp_path / "corpora" / "era5").layout.variables
    assert {(v.key, v.role) for v in weather} >= {
        ("air_temperature@850hPa", "state"),
        ("geopotential@500hPa", "state"),
        ("toa_incident_solar_radiation", "forcing"),
        ("surface_altitude", "static"),
    }
    assert Corpus.open(tmp_path / "corpora" / "cmip6").manifest["splits"]["train"]["invalid"]["sea_surface_temperature"] > 0

    data = {
        "run": str(tmp_path / "run"),
        "data": {"corpora": [{"path": str(tmp_path / "corpora" / n), "frames": 4} for n in inputs], "frames": 4, "tokens": 256},
        "model": {"size": "nano"},
        "train": {"steps": 200, "groups": 1, "validate_every": 100, "validate_windows": 4, "checkpoint_every": 200, "threads": 1},
        "optim": {"lr": 2e-3, "warmup": 20},
        "report": {"mlflow": False},
    }
    code, out, told = command("pretrain", write(data, tmp_path / "c.yaml"), "--json")
    assert code == 0, told
    assert (json.loads(out)["step"], json.loads(out)["skipped_steps"]) == (200, 0)
    for name in inputs:
        losses = [line["loss"] for line in lines(tmp_path / "run") if line["corpora"] == [name]]
        assert len(losses) > 20
        assert np.isfinite(losses).all()
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10]), (name, np.mean(losses[:10]), np.mean(losses[-10:]))
