"""`scigpt finetune` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import make_corpus, settings, write

from scigpt.errors import UserError
from scigpt.launch import plan as planning
from scigpt.launch.cli import main
from scigpt.launch.finetune import _tell_memory
from scigpt.train.config import load
from scigpt.train.engine import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finetune")
    train(load(write(settings([make_corpus(path)], path / "pretrained"), path / "pretrained.yaml")))
    make_corpus(path, "wide", size=12, seed=100)
    return path


def a_config(folder: Path, name: str, **changes: object) -> Path:
    data = settings([folder / "wide"], folder / name, steps=6) | {"init": str(folder / "pretrained")} | changes
    return write({k: v for k, v in data.items() if v is not None}, folder / f"{name}.yaml")


def scigpt(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "scigpt.launch.cli", *words], capture_output=True, text=True)


def here(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The same in this process: exit code, what it prints and what it says."""
    with pytest.raises(SystemExit) as left:
        main(words)
    return int(left.value.code or 0), *capsys.readouterr()


def test_one_command_adapts_and_says_what_it_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = a_config(folder, "adapted", adapt={"mode": "frozen"})
    done = scigpt("finetune", str(config), "train.steps=4", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "finished"
    assert result["step"] == 4
    assert 0 < result["trained_parameters"] < result["parameters"]
    told = f"{result['trained_parameters']:,} of {result['parameters']:,} parameters are trained (frozen); memory predicted: "
    assert told in done.stderr
    code, out, _ = here(capsys, "finetune", str(config), "train.steps=6")
    assert code == 0
    assert "finished at step 6 of 6" in out


@pytest.mark.drill
def test_two_processes_adapt_as_one(folder: Path) -> None:
    config = a_config(folder, "two")
    one = scigpt("finetune", str(config), f"run={folder / 'one'}", "data.data_width=2", "--json")
    two = scigpt("finetune", str(config), "strategy.name=ddp", "strategy.processes=2", "data.data_width=2", "--json")
    assert two.returncode == 0, two.stderr
    assert "on each of 2 processes" in two.stderr
    assert json.loads(two.stdout)["loss"] == pytest.approx(json.loads(one.stdout)["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"init": None}, "init is missing; name the pretrained model, as in init=runs/demo"),
        ({"init": "nowhere"}, "init: nowhere is no run with a complete checkpoint, no checkpoint and no export"),
        ({"adapt": {"mode": "lora", "rang": 2}}, "unknown key adapt.rang; did you mean rank?"),
    ],
)
def test_mistakes_end_with_code_2_and_leave_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], sentence: str
) -> None:
    code, _, said = here(capsys, "finetune", str(a_config(folder, "wrong", **changes)))
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said
    assert not (folder / "wrong").exists()


def test_too_little_memory_is_told_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(a_config(folder, "large"))
    small = planning.Hardware("a watch", 1.0, 2**16, 0.3, gpu=False)
    monkeypatch.setattr(planning, "memory_here", lambda: small)
    with pytest.raises(UserError, match="on 1 x a watch needs"):
        _tell_memory(config, 1)


def test_the_plan_knows_the_pretrained_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = a_config(folder, "planned", adapt={"mode": "lora", "rank": 2}, model={"size": "xl"})
    code, out, said = here(capsys, "plan", str(config), "--device", "h100", "--json")
    assert code == 0, said
    model = json.loads(out)["model"]
    assert (model["depth"], model["width"]) == (1, 32)
    assert model["trained"] < 0.2 * model["parameters"]
