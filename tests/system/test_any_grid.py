"""One run trains on series, lines, maps, volumes and stations at once, is scored on each of them, and resumes over all of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from grids import KINDS, make
from runs import history, ledger, lines, settings, tensors, write

from scigpt.evaluate.evaluate import evaluate
from scigpt.evaluate.study import Options
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train

STEPS, CHECKPOINT = 90, 80
RECORD = {"series": 256, "line": 24, "map": 16, "volume": 12, "stations": 72}
WINDOW = {"series": 64, "line": 8, "map": 6, "volume": 5, "stations": 25}


def config(folder: Path, run: str) -> RunConfig:
    data = settings([], folder / run, steps=STEPS, groups=1, validate_every=5, validate_windows=8, checkpoint_every=CHECKPOINT)
    data["data"] = {"corpora": [{"path": str(folder / k), "frames": WINDOW[k]} for k in KINDS], "tokens": 1024, "patch": 6}
    data["model"] = {"depth": 2, "width": 64}
    data["optim"] = {"lr": 4e-3, "warmup": 10}
    return load(write(data, folder / f"{run}.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five corpora and the run `whole` on all of them."""
    folder = tmp_path_factory.mktemp("grids")
    for kind in KINDS:
        make(folder, kind, frames=RECORD[kind])
    summary = train(config(folder, "whole"))
    assert (summary["status"], summary["skipped_steps"]) == ("finished", 0)
    return folder


def test_the_loss_of_every_corpus_falls(folder: Path) -> None:
    seen = lines(folder / "whole")
    assert {name for line in seen for name in line["corpora"]} == set(KINDS)
    validations = [line["validation"] for line in seen if "validation" in line]
    first, last = validations[0], validations[-1]
    for kind in KINDS:
        for score in ("loss", "vrmse"):
            assert last[kind][score] < 0.8 * first[kind][score], (kind, score, first[kind], last[kind])


def test_every_corpus_is_scored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scigpt.evaluate.evaluate.draw", lambda *_: [])  # pictures take longer than all else; `test_study.py` draws them
    results = evaluate(folder / "whole", split="test", options=Options(windows=8, rollouts=2, steps=4), progress=False)
    assert [c["name"] for c in results["corpora"]] == list(KINDS)
    for corpus in results["corpora"]:
        (part,) = corpus["splits"]
        (variable,) = part["one_step"].values()
        for method, score in variable["methods"].items():
            assert score["diverged"] == 0
            assert all(math.isfinite(score[name]) for name in ("vrmse", "vrmse_median", "nrmse", "rmse")), (corpus["name"], method, score)
        assert part["summary"]["vrmse"]["model"] < part["summary"]["vrmse"]["persistence"], corpus["name"]
        (curves,) = part["rollout"]["variables"].values()
        assert all(math.isfinite(v) for v in curves["model"]["vrmse"])


def test_a_resumed_run_over_all_grids_is_equal_to_the_last_bit(folder: Path) -> None:
    whole, cut = folder / "whole", folder / "cut"
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("card"))
    shutil.rmtree(cut / "checkpoints" / f"step-{STEPS:08d}")
    summary = train(config(folder, "cut"))
    assert summary["resumed_from_step"] == CHECKPOINT
    assert {name for line in lines(cut)[CHECKPOINT:] for name in line["corpora"]} == set(KINDS)
    assert history(cut) == history(whole)
    assert ledger(cut) == ledger(whole)
    assert tensors(cut) == tensors(whole)
