"""A small transfer study: corpora of Poisson's equation and a configuration over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde.poisson import Poisson, PoissonOptions


def make_poisson(folder: Path, name: str, train: int, low: float, high: float) -> Path:
    options = PoissonOptions(train=train, valid=1, test=3, ood=0, grid=32, e_low=low, e_high=high)
    return convert(Poisson(options=options), folder / name, progress=False)


def settings(folder: Path, near: Path, far: Path, **more: Any) -> dict[str, Any]:
    """Plain data of a study in `folder`; `more` overrides."""
    return {
        "study": str(folder / "study"),
        "pretrain": {
            "data": {"frames": 2, "tokens": 64, "patch": 8, "corpora": [{"path": str(near)}]},
            "model": {"depth": 1, "width": 32, "heads": 1},
            "train": {"steps": 3, "groups": 1, "validate_windows": 1, "threads": 1},
            "optim": {"warmup": 1, "lr": 0.003},
            "report": {"mlflow": False},
        },
        "tasks": [{"name": "far", "distance": "mild", "corpus": str(far)}],
        "examples": [2, 4],
        "seeds": 1,
        "finetune": {"train.steps": 2, "optim.lr": 1e-3},
        "scratch": {"optim.lr": 3e-3},
        "fno": {"width": 8, "modes": 4},
        "report": {"mlflow": False},
    } | more


def write(data: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(data))  # JSON is YAML
    return path
