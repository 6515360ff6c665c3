"""What leaves the framework predicts what the framework predicts: every format, on real and simulated records that training has not seen.

The real ones are a sea-surface analysis (monthly maps on the sphere, a quarter of them land) and a day of seismograms; their files come
with PyPI packages. Turbulence, a vortex in a box and Poisson's equation are simulated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import write

import scigpt
from scigpt.data.batches import Batch, collate
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.export.folder import Exported
from scigpt.export.programs import load_program
from scigpt.launch.cli import main

pytestmark = pytest.mark.drill  # torch takes seconds to trace a program

CORPORA = {
    "sea": ("prepare", "ostia", "--input", "embedded:ostia_monthly.nc", "splits=0.6,0.2,0.2"),
    "seismograms": ("prepare", "miniseed", "--input", "embedded:CH.BALST.LH.mseed"),
    "turbulence": ("make", "navier-stokes", "train=4", "valid=1", "test=2", "ood=0", "grid=32", "frames=12"),
    "box": ("make", "taylor-green", "train=2", "valid=1", "test=1", "ood=0", "grid=12", "frames=8"),
    "poisson": ("make", "poisson", "train=16", "valid=4", "test=4", "ood=0", "grid=32"),
}


def call(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    assert left.value.code in (0, None), words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpora, `run` that learned from all of them for a few steps, and its exports by format."""
    path = tmp_path_factory.mktemp("formats")
    for name, words in CORPORA.items():
        call("data", *words, "--out", path / name)
    config = {
        "run": str(path / "run"),
        "data": {"corpora": [{"path": str(path / n)} for n in CORPORA], "frames": 5, "tokens": 512, "patch": 8},
        "model": {"depth": 1, "width": 64, "heads": 2},
        "train": {"steps": 25, "validate_every": 25, "validate_windows": 2, "checkpoint_every": 25, "threads": 1},
        "optim": {"lr": 0.01, "warmup": 5},
        "report": {"mlflow": False},
    }
    call("pretrain", write(config, path / "run.yaml"))
    for form in ("safetensors", "torch-export", "onnx"):
        call("export", path / "run", "--format", form, "--steps", 2, "--out", path / form)
    return path


def held_out(folder: Path, domain: Domain) -> Batch:
    """Two windows of the test split, of a record and of its end."""
    corpus = Corpus.open(folder / domain.name)
    samples = [corpus.read("test", i, slice(0, domain.frames)) for i in range(min(2, len(corpus.entries("test"))))]
    if len(samples) == 1 and not domain.layout.steady:
        last = corpus.entries("test")[0].frames
        samples.append(corpus.read("test", 0, slice(last - domain.frames, last)))
    return collate(samples, domain.scales, domain.name, domain.patch)


def arrays(batch: Batch, names: list[str]) -> dict[str, np.ndarray]:
    return {n: getattr(batch, n).numpy() for n in names}


@pytest.mark.parametrize("name", list(CORPORA))
def test_every_format_predicts_the_same(folder: Path, name: str) -> None:
    model = TrainedRun.open(folder / "run").model
    (domain,) = [d for d in Exported.open(folder / "onnx").domains if d.name == name]
    batch = held_out(folder, domain)
    predicted = [c for c, v in enumerate(domain.layout.variables) if v.predicted]
    with torch.no_grad():
        whole = model(batch)
        loaded = scigpt.load(folder / "safetensors").model(batch)
    moved = (whole.z() - whole.normalized.base)[:, -1, predicted]
    assert float(moved.abs().mean()) > 1e-3  # no persistence is compared
    found = {"safetensors": loaded.physical()[:, -1]}
    for form, suffix in (("torch-export", "pt2"), ("onnx", "onnx")):
        program = load_program(folder / form / f"step-{name}.{suffix}")
        found[form] = torch.from_numpy(program(**arrays(batch, [i["name"] for i in program.description["inputs"]])))
    expected = whole.physical()[:, -1]
    for form, values in found.items():
        for c in predicted:
            there = batch.valid[:, -1, c]
            # 300 K in units of 2 K is no more exact than 1e-5 in float32: two steps of the number itself are allowed for
            step = 2 * float(np.spacing(expected[:, c][there].abs().max().numpy()))
            error = float((values[:, c] - expected[:, c])[there].abs().max())
            assert error < 1e-5 * domain.scales.scale[c] + step, (form, c, error)


def test_the_programs_of_all_domains_are_there(folder: Path) -> None:
    for form, suffix in (("torch-export", "pt2"), ("onnx", "onnx")):
        exported = Exported.open(folder / form)
        expected = {f"step-{n}.{suffix}" for n in CORPORA} | {f"rollout-{n}.{suffix}" for n in CORPORA if n != "poisson"}
        assert {p["file"] for p in exported.facts["programs"]} == expected
        assert expected < set(exported.facts["files"])
    assert Exported.open(folder / "safetensors").facts["programs"] == []
