"""`scigpt sweep predict`: one budget told in four ways, and a configuration that costs and reads what was predicted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from known_sweep import TRUTH, isoflop_csv

from scigpt.data.corpus import Corpus
from scigpt.data.mixture import Mixture
from scigpt.errors import UserError
from scigpt.launch.sweep.predict import predict
from scigpt.launch.sweep.table import Table
from scigpt.model.backbone import Vocabulary
from scigpt.scaling.cost import Cost
from scigpt.train.account import account, parameters
from scigpt.train.config import load


def found(capsys: pytest.CaptureFixture[str], path: Path, **options: Any) -> dict[str, Any]:
    capsys.readouterr()
    predict(path, json=True, form="chinchilla", resamples=50, **options)
    return json.loads(capsys.readouterr().out)


def test_flops_params_tokens_and_hours_name_the_same_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = isoflop_csv(tmp_path / "runs.csv")
    best = Cost().optimum(TRUTH, 5e20)
    by_flops = found(capsys, file, flops=5e20)
    assert by_flops["params"]["value"] == pytest.approx(float(best.params), rel=1e-3)
    assert by_flops["tokens_per_param"]["value"] == pytest.approx(float(best.tokens / best.params), rel=1e-3)
    for other in (
        found(capsys, file, params=by_flops["params"]["value"]),
        found(capsys, file, tokens=by_flops["tokens"]["value"]),
        found(capsys, file, device_hours=5e20 / (3600 * 989.4e12 * 0.5), device="h100", mfu=0.5),
    ):
        assert other["flops"] == pytest.approx(5e20, rel=1e-6)
        assert other["loss"]["value"] == pytest.approx(by_flops["loss"]["value"], rel=1e-6)


def test_far_beyond_the_runs_it_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = isoflop_csv(tmp_path / "runs.csv", noise=0.003)  # the largest budget that is fitted is 2.7e19
    near = found(capsys, file, device_hours=5.4e19 / (3600 * 400e12 * 0.5), peak=400.0, mfu=0.5)
    far = found(capsys, file, flops=2.7e21)
    assert near["extrapolation"] == pytest.approx(2)
    assert far["extrapolation"] == pytest.approx(100)
    assert not any("times the largest budget" in w for w in near["warnings"])
    assert "100 times the largest budget" in far["warnings"][0]
    assert far["loss"]["high"] / far["loss"]["low"] > near["loss"]["high"] / near["loss"]["low"]


def test_the_configuration_has_the_size_and_reads_the_data(known_sweep: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = known_sweep
    told = found(capsys, table.folder, flops=1e13, out=tmp_path / "next.yaml")
    config = load(tmp_path / "next.yaml")
    corpora = [Corpus.open(c.path) for c in config.data.corpora]
    mixture = Mixture(corpora, config.data, config.seed)
    real = account(mixture, config.model, config.train.steps * config.train.groups)
    size = parameters(config.model, Vocabulary.from_corpora(corpora))["total"]
    assert size == told["model"]["params"]
    assert abs(math.log(size / told["params"]["value"])) < 0.2
    assert real.data.tokens == pytest.approx(told["tokens"]["value"], abs=real.data.tokens / config.train.steps)
    assert config.train.steps == told["steps"]
    assert config.optim.warmup == round(0.05 * config.train.steps)
    assert config.train.branch_from is None
    assert config.optim.lr == load(tmp_path / "next.yaml").optim.lr == table.config(table.rows[0]).optim.lr
    with pytest.raises(UserError, match="is there already"):
        predict(table.folder, flops=1e13, out=tmp_path / "next.yaml")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "no budget given"),
        ({"flops": 1e20, "params": 1e9}, "--flops and --params given"),
        ({"tokens": -1.0}, "expected a number above 0"),
        ({"flops": 1e20, "out": Path("next.yaml")}, "has no sweep.yaml"),
        ({"device_hours": 1.0, "device": "h10"}, "did you mean h100"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        predict(isoflop_csv(tmp_path / "runs.csv"), **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
