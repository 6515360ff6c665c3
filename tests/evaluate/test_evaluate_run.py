"""A real run, trained for a moment, evaluated through the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name
from worlds import make

from scigpt.data.corpus import Corpus
from scigpt.data.loader import windows
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import evaluate, flatten
from scigpt.evaluate.plan import Options
from scigpt.launch.cli import main
from scigpt.model.backbone import ModelConfig
from scigpt.train.config import RunConfig, TrainConfig
from scigpt.train.engine import train
from scigpt.train.report import ReportConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a map and a steady problem; beside it corpora it has not seen."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [make(folder, kind) for kind in ("map", "steady")]
    make(folder, "map", name="sea")
    make(folder, "volume")
    make(folder, "map", 2, name="brief")
    train(
        RunConfig(
            run=str(folder / "run"),
            data=DataConfig(corpora=[CorpusConfig(str(p)) for p in paths], frames=5, tokens=256),
            model=ModelConfig(depth=1, width=32, heads=2),
            train=TrainConfig(steps=2, validate_windows=1, threads=1),
            report=ReportConfig(mlflow=False),
        )
    )
    return folder


def test_evaluate(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "run"
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(run), "--windows", "3", "--rollouts", "1", "--steps", "4", "--json"])
    assert done.value.code == 0
    out, err = capsys.readouterr()
    results = json.loads(out)
    assert results == json.loads((run / "card" / "results.json").read_text())
    assert "map/ood rollout" in err
    assert [(c["name"], [s["split"] for s in c["splits"]]) for c in results["corpora"]] == [
        ("map", ["valid", "ood"]),
        ("steady", ["valid", "ood"]),
    ]
    assert [c["trained_on"] for c in results["corpora"]] == [True, True]
    assert (results["run"]["step"], results["run"]["checkpoint"]) == (2, "step-00000002")
    assert results["corpora"][0]["fingerprint"] == Corpus.open(trained / "map").fingerprint
    pictures = {p["file"] for c in results["corpora"] for s in c["splits"] for p in s["pictures"]}
    assert {f.name for f in (run / "card").iterdir()} == pictures | {"index.html", "results.json"}
    page = (run / "card" / "index.html").read_text()
    assert all(f'src="{name}"' in page for name in pictures)
    scores = flatten(results)
    assert scores["map/ood/one_step/sea_surface_temperature/trailing_mean/vrmse"] > 0
    assert scores["map/valid/vrmse/model"] == results["corpora"][0]["splits"][0]["summary"]["vrmse"]["model"]
    assert "map/valid/rollout/sea_surface_temperature/model/vrmse_1-4" in scores
    for name, value in scores.items():
        _validate_metric_name(name)
        assert np.isfinite(value)


def test_persistence_is_that_of_the_stored_records(trained: Path) -> None:
    """The whole path, from shards to a number, against numpy on the records of the corpus."""
    results = evaluate(trained / "run", [trained / "sea"], "valid", Options(steps=0), progress=False)
    (part,) = results["corpora"][0]["splits"]
    corpus = Corpus.open(trained / "sea")
    expected = []
    for item in windows(corpus, CorpusConfig(str(trained / "sea")), 5, "valid"):
        sample = corpus.read("valid", item.entry, slice(item.start, item.start + 5))
        area = np.cos(np.radians(sample.coordinates["latitude"].values))[:, None] * np.ones(24)
        kept = sample.valid[0, 0, 0]
        truth, before = sample.values[2:, 0, 0][:, kept].astype(float), sample.values[1:-1, 0, 0][:, kept].astype(float)
        weights = np.broadcast_to(area[kept], truth.shape)
        mean = np.average(truth, weights=weights)
        expected.append((np.average((before - truth) ** 2, weights=weights) / np.average((truth - mean) ** 2, weights=weights)) ** 0.5)
    assert part["windows"] == len(expected) == 4
    assert part["one_step"]["sea_surface_temperature"]["methods"]["persistence"]["vrmse"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert part["rollout"] is None
    assert not results["corpora"][0]["trained_on"]


def test_a_second_evaluation_replaces_the_card_and_a_text_is_printed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = trained / "run" / "card"
    card.mkdir(exist_ok=True)
    (card / "old.png").write_bytes(b"")
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(trained / "run"), "--corpus", str(trained / "steady"), "--split", "ood"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    head = ("corpus", "split", "distribution", "VRMSE", "best baseline", "its VRMSE", "difference (95 %)", "the model is")
    assert tuple(re.split(r"\s{2,}", out.splitlines()[0].strip())) == head
    assert out.splitlines()[1].split()[:3] == ["steady", "ood", "out"]
    assert str(card / "index.html") in out
    assert not (card / "old.png").exists()
    assert not list((trained / "run").glob("card.*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "is not the folder of a run"),
        (["empty"], "has no complete checkpoint"),
        (["run", "--corpus", "nowhere"], "there is no such folder"),
        (["run", "--corpus", "volume"], "does not fit the model of"),
        (["run", "--corpus", "brief"], "a window of 3 frames spans 3, and the longest record of split 'valid' has 2"),
        (["run", "--split", "test"], "no corpus has a split 'test' (map has train, valid, ood; steady has train, valid, ood)"),
        (["run", "--windows", "0"], "at least 1 window"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_card_stays(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(trained)
    shutil.copytree("run", "empty", dirs_exist_ok=True)
    for manifest in Path("empty").glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    os.makedirs("run/card", exist_ok=True)
    Path("run/card/kept").touch()
    with pytest.raises(SystemExit) as done:
        main(["evaluate", *arguments])
    out, err = capsys.readouterr()
    assert done.value.code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("scigpt: ")
    assert sentence in last
    assert Path("run/card/kept").exists()
    assert not Path("run/card.tmp").exists()


def test_records_too_short_for_a_score_do_not_stop_the_others(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpora = [trained / "brief", trained / "map"]
    results = evaluate(trained / "run", corpora, None, Options(1, 0, 0), progress=False)
    assert [c["name"] for c in results["corpora"]] == ["map"]
    assert "not scored" in caplog.text
    with pytest.raises(UserError, match="brief"):
        evaluate(trained / "run", corpora, "valid", Options(1, 0, 0), progress=False)
