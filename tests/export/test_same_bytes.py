"""The exported weights are those of the model, whatever strategy has held and written them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from jobs import pretrain
from runs import make_corpus, settings, write

from scigpt.export import weights
from scigpt.export.folder import WEIGHTS, Exported

TWO = "strategy.processes=2"
STRATEGIES = {"single": (), "fsdp2": ("strategy=fsdp2", TWO), "zero": ("strategy=deepspeed", "strategy.stage=3", TWO)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toys`, and `run`, which learned from them."""
    path = tmp_path_factory.mktemp("same")
    pretrain([make_corpus(path)], path / "run", steps=6)
    return path


@pytest.mark.drill
@pytest.mark.parametrize("name", ["fsdp2", "single", "zero"])
def test_equal_weights_give_equal_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    """Every strategy loads the run, takes two steps too small for any bit to change, and saves in its own way."""
    overrides = STRATEGIES[name]
    config = settings([folder / "toys"], tmp_path / "run", steps=2) | {"init": str(folder / "run")}
    del config["model"]
    config["optim"] = {"lr": 1e-30, "warmup": 0}
    config["data"]["data_width"] = 4
    file = write(config, tmp_path / "c.yaml")
    done = subprocess.run([sys.executable, "-m", "scigpt.launch.cli", "finetune", str(file), *overrides], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    written = (tmp_path / "run" / "checkpoints" / "step-00000002").glob("model*.safetensors")
    assert len(list(written)) == (2 if overrides else 1)  # of two processes each has had a part
    out = weights.write(tmp_path / "run", tmp_path / "out")
    assert Exported.open(out).facts["step"] == 2
    expected = weights.write(folder / "run", tmp_path / "expected")
    assert (out / WEIGHTS).read_bytes() == (expected / WEIGHTS).read_bytes()
