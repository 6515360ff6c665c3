"""An FNO beside a run: the same windows, no more FLOPs, kept for the next evaluation; and what MLflow is told."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from worlds import make, subject

from scigpt.data.corpus import Corpus
from scigpt.data.loader import evaluation_batches
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.sample import Layout
from scigpt.evaluate import fno
from scigpt.evaluate.evaluate import evaluate, flatten
from scigpt.evaluate.fno import Fno, Shape, train_beside
from scigpt.evaluate.plan import Options
from scigpt.launch.cli import main
from scigpt.model.backbone import ModelConfig
from scigpt.train.config import RunConfig, TrainConfig
from scigpt.train.engine import train
from scigpt.train.report import ReportConfig, log_evaluation

OPTIONS = Options(windows=3, rollouts=1, steps=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a map, a steady problem and stations, reported to MLflow."""
    folder = tmp_path_factory.mktemp("fno")
    paths = [make(folder, kind) for kind in ("map", "steady", "points")]
    train(
        RunConfig(
            run=str(folder / "run"),
            data=DataConfig(corpora=[CorpusConfig(str(p)) for p in paths], frames=5, tokens=256),
            model=ModelConfig(depth=2, width=64, heads=2),
            train=TrainConfig(steps=6, validate_windows=1, threads=1),
            report=ReportConfig(experiment="toys"),
        )
    )
    return folder


def test_the_card_has_an_fno_of_the_runs_budget_and_keeps_it(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    run = trained / "run"
    with pytest.raises(SystemExit) as done:
        main(["evaluate", str(run), "--windows", "3", "--rollouts", "1", "--steps", "4", "--fno", "--json"])
    assert done.value.code == 0
    results = json.loads(capsys.readouterr().out)
    by_name = {c["name"]: c for c in results["corpora"]}
    assert by_name["points"]["fno"] is None
    seen = [g for line in (run / "ledger" / "groups.jsonl").read_text().splitlines() for g in json.loads(line)["groups"]]
    for name in ("map", "steady"):
        about = by_name[name]["fno"]
        assert about["windows"] == sum(len(g["items"]) for g in seen if g["corpus"] == name)
        assert about["flops_per_window"] <= about["model_flops_per_window"]
        assert about["flops_per_window"] > 0.3 * about["model_flops_per_window"]
        for part in by_name[name]["splits"]:
            assert part["summary"]["vrmse"]["FNO"] > 0
    assert by_name["map"]["splits"][0]["rollout"]["variables"]["sea_surface_temperature"]["FNO"]["vrmse"][0] > 0
    weights = run / "card" / "fno-map.safetensors"
    page = (run / "card" / "index.html").read_text()
    assert "FNO beside" in page

    client = MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    told = json.loads((run / "mlflow.json").read_text())["run_id"]
    found = client.get_run(told)
    assert found.info.status == "FINISHED"
    for name, value in flatten(results).items():
        assert found.data.metrics[name] == pytest.approx(value), name
    assert {"card/index.html", "card/results.json"} <= {f.path for f in client.list_artifacts(told, "card")}

    before = weights.read_bytes()
    monkeypatch.setattr("scigpt.evaluate.evaluate.draw", lambda *_: [])  # pictures take longer than all else
    again = evaluate(run, [trained / "map"], "valid", OPTIONS, progress=True, with_fno=True)
    assert "FNO on map" not in capsys.readouterr().err  # it was not trained again
    assert weights.read_bytes() == before
    scores = [r["corpora"][0]["splits"][0]["one_step"] for r in (again, results)]
    assert scores[0] == scores[1]
    evaluate(run, [trained / "map"], "valid", OPTIONS, progress=False)
    assert weights.read_bytes() == before


def test_it_learns_to_move_a_field(tmp_path: Path) -> None:
    path = make(tmp_path, "line")
    corpus, settings = Corpus.open(path), CorpusConfig(str(path))
    data = DataConfig(corpora=[settings], frames=5, tokens=64)
    given = subject(path)
    errors = []
    for groups in (1, 40):
        net, about = train_beside(tmp_path / str(groups), corpus, settings, data, 0, groups, lambda batch: 10**9, progress=False)
        assert (about["axes"], about["modes"], about["width"]) == ((32,), (32,), fno.WIDTHS[-1])
        (batch,) = evaluation_batches(corpus, given.scales, settings, 5, "valid", 99)
        with torch.no_grad():
            errors.append(float(net.loss(batch)))
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("kind", ["line", "map", "volume"])
def test_flops_are_those_that_torch_counts_and_the_transforms(tmp_path: Path, kind: str) -> None:
    """torch counts a complex multiply-add as 2 FLOPs instead of 8, and no transforms."""
    layout: Layout = Corpus.open(make(tmp_path, kind)).layout
    shape = replace(Shape.of(layout, 0, 16), inputs=2)
    net = Fno(shape, (), ())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.net(torch.zeros(1, 2, *shape.axes))
    points = torch.tensor(shape.axes).prod().item()
    transforms = fno.LAYERS * 10 * points * torch.log2(torch.tensor(float(points))).item() * shape.width
    kept = torch.tensor(shape.modes[:-1]).prod().item() * (shape.modes[-1] // 2 + 1)
    complex_ = fno.LAYERS * kept * shape.width**2
    assert counter.get_total_flops() == pytest.approx(shape.forward_flops() - transforms - 6 * complex_, rel=0.02)


def test_a_store_without_the_run_or_switched_off_never_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run" / "card").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        log_evaluation(ReportConfig(mlflow=False), tmp_path / "run", {"a": 1.0}, 1, tmp_path / "run" / "card")
        assert not caplog.records
        log_evaluation(ReportConfig(), tmp_path / "run", {"a": 1.0}, 1, tmp_path / "run" / "card")
    (record,) = caplog.records
    assert "misses the evaluation" in record.getMessage()
