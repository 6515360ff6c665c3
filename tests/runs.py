"""A tiny corpus, a configuration that trains on it in a second or two, and what two runs are compared by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from toy import ToySource

from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.train.config import RunConfig, load


def make_corpus(folder: Path, name: str = "toys", **options: Any) -> Path:
    source = ToySource(options=ToySource.Options(**{"samples": 20, "size": 8, "frames": 8} | options))
    return convert(source, folder / name, progress=False)


class Plain(ToySource):
    """Stored as float32 (increments are small beside the range), so that a NaN can be written into its shards."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            ramp = np.linspace(0, 1000, sample.values.shape[-1], dtype=np.float32)
            yield replace(sample, values=sample.values * np.float32(1e-2) + ramp)


def make_poisoned(folder: Path, samples: int = 10) -> Path:
    """A corpus whose sample 000003 is NaN in one point that its mask calls valid, as a disk error would leave it."""
    corpus = convert(Plain(options=Plain.Options(samples=samples, frames=6)), folder / "poisoned", progress=False)
    index = json.loads((corpus / "train-000000.index.json").read_text())
    (member,) = [s["members"]["values.npy"] for s in index["samples"] if s["key"] == "000003"]
    assert member["dtype"] == "<f4"
    with open(corpus / "train-000000.tar", "r+b") as shard:
        shard.seek(member["data_offset"] + 4 * (2 * 64 + 17))  # frame 2, cell (2, 1)
        shard.write(np.float32(np.nan).tobytes())
    return corpus


def settings(corpora: list[Path], run: Path, **train: Any) -> dict[str, Any]:
    """Plain data of a configuration; `train` overrides values of its section."""
    return {
        "run": str(run),
        "data": {"corpora": [{"path": str(c)} for c in corpora], "frames": 4, "tokens": 48, "patch": 4},
        "model": {"depth": 1, "width": 32, "heads": 1},
        "train": {"steps": 20, "groups": 1, "validate_every": 10, "validate_windows": 4, "checkpoint_every": 5, "threads": 1, "keep": 9}
        | train,
        "optim": {"warmup": 4, "lr": 0.01},
        "report": {"mlflow": False},
    }


def write(data: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def config(corpora: list[Path], run: Path, **train: Any) -> RunConfig:
    run.parent.mkdir(parents=True, exist_ok=True)
    return load(write(settings(corpora, run, **train), run.with_suffix(".yaml")))


def lines(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


TIMES = ("seconds", "data_wait")


def history(run: Path) -> list[dict[str, Any]]:
    """Metrics of every step without what the clock says; losses in hex, so equal means equal to the last bit."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(run)]


def ledger(run: Path) -> str:
    return (run / "ledger" / "groups.jsonl").read_text()


def tensors(run: Path) -> dict[str, bytes]:
    """Bytes of the parameters and of the optimizer's state in the newest checkpoint."""
    last = max((run / "checkpoints").iterdir())
    return {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
