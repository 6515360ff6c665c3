"""Parameters that are not trained: no strategy moves them, all write them, and what is trained beside them is that of one process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import history, ledger, lines, make_corpus, settings, write
from safetensors import safe_open
from spawned import spawn
from torch import Tensor
from toy import ToySource, smooth_sample
from zero_worker import back_to

from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.train.checkpoint import Checkpoint, newest
from scigpt.train.config import load
from scigpt.train.engine import train

STEPS, CUT, CLIP = 4, 2, 0.05
MODES = ("frozen", "lora")
KINDS = {
    "ddp": ("strategy=ddp",),
    "fsdp2": ("strategy=fsdp2",),
    **{f"zero{stage}": ("strategy=deepspeed", f"strategy.stage={stage}") for stage in (1, 2, 3)},
    "zero3 again": ("strategy=deepspeed", "strategy.stage=3", "train.activation_checkpointing=true"),
}
PAIRS = [(mode, kind) for mode in MODES for kind in KINDS]
QUICK = [("frozen", "fsdp2"), ("lora", "zero3")]
each = pytest.mark.parametrize(("mode", "kind"), [pytest.param(*p, marks=[] if p in QUICK else [pytest.mark.drill]) for p in PAIRS])


class Richer(ToySource):
    """With a variable that the toys lack: a single row, so that of two processes one has nothing of it."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield smooth_sample(ref.spec["seed"], self.options.frames, (1, 8, 8), ("concentration", "salinity_like"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run and its corpus, another corpus to adapt it to, and the runs of one process."""
    folder = tmp_path_factory.mktemp("frozen")
    data = settings([make_corpus(folder)], folder / "pretrained", steps=8)
    data["model"]["depth"] = 2
    train(load(write(data, folder / "pretrained.yaml")))
    convert(Richer(options=Richer.Options(samples=20, frames=8)), folder / "richer", progress=False)
    for mode in MODES:
        alone(folder, folder / mode, mode)
    return folder


def adapted(folder: Path, run: Path, mode: str, **section: Any) -> Path:
    """The file of a configuration; `section` overrides values of `train`. Groups of two in passes of one window. With additions of low
    rank the corpus is that of the pretrained run: nothing before the first block is trained. Otherwise variable and head are new."""
    plain = {"steps": STEPS, "checkpoint_every": CUT, "groups": 2, "micro_batch": 1, "clip": CLIP, "validate_every": STEPS}
    data = settings([folder / ("toys" if mode == "lora" else "richer")], run, **plain | section)
    data["data"]["data_width"] = 2
    data |= {"init": str(folder / "pretrained"), "adapt": {"mode": mode, "rank": 3, "layer_decay": 0.5}}
    data["model"] = {"head": "point" if mode == "lora" else "gaussian"}
    return write(data, run.with_suffix(".yaml"))


def alone(folder: Path, run: Path, mode: str) -> dict[str, Any]:
    return train(load(adapted(folder, run, mode)))


def job(folder: Path, items: Sequence[tuple[Path, str, str, dict[str, Any]]]) -> None:
    """Runs (folder, mode, strategy, words of `zero_worker.py`), one after the other in one job of two processes."""
    plan = [{"config": str(adapted(folder, run, mode)), "overrides": KINDS[kind], **more} for run, mode, kind, more in items]
    (folder / "plan.json").write_text(json.dumps(plan))
    said = "\n".join(spawn("zero_worker.py", [str(folder / "plan.json")], folder))
    assert "DeepSpeed" not in said


def runs(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[tuple[Path, str, str, dict[str, Any]]]:
    """Each from the beginning; then from where it was cut, and from where a run of one process was."""
    whole = [(folder / f"{mode}-{kind}", mode, kind, {}) for mode, kind in pairs]
    resumed = [(folder / f"{run.name}-resumed", mode, kind, {"copy": str(run), "step": CUT}) for run, mode, kind, _ in whole]
    taken = [(folder / f"{run.name}-taken", mode, kind, {"copy": str(folder / mode), "step": CUT}) for run, mode, kind, _ in whole]
    return [*whole, *resumed, *taken]


@pytest.fixture(scope="module")
def done(folder: Path) -> None:
    job(folder, runs(folder, QUICK))


@pytest.fixture(scope="module")
def rest(folder: Path, done: None) -> None:
    job(folder, runs(folder, [p for p in PAIRS if p not in QUICK]))


@pytest.fixture(autouse=True)
def _made(request: pytest.FixtureRequest, done: None) -> None:
    if request.node.get_closest_marker("drill"):
        request.getfixturevalue("rest")


def saved(run: Path) -> Checkpoint:
    found = newest(run / "checkpoints")
    assert found is not None
    return found


def assert_close(run: Path, other: Path, rel: float = 1e-6) -> None:
    assert ledger(run) == ledger(other)
    for key in ("loss", "grad_norm"):
        assert [x[key] for x in lines(run)] == pytest.approx([x[key] for x in lines(other)], rel=rel), key
    for mine, expected in ((saved(run).model(), saved(other).model()), (saved(run).optimizer(), saved(other).optimizer())):
        assert mine.keys() == expected.keys()
        for name in expected:
            assert mine[name].shape == expected[name].shape
            assert (mine[name] - expected[name]).abs().max() <= 100 * rel * expected[name].abs().max() + 1e-9, name


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("mode", MODES)
def test_what_is_trained_of_one_process(folder: Path, mode: str) -> None:
    """And the norm that is clipped is that of the gradients there are."""
    run, start = saved(folder / mode), saved(folder / "pretrained").model()
    trained = {name.removeprefix("exp_avg.") for name in run.optimizer() if name.startswith("exp_avg.")}
    moved = {name for name, values in run.model().items() if name not in start or not same(values, start[name])}
    assert moved <= trained
    assert len(moved) > 0.5 * len(trained)
    assert any(name.startswith("blocks.") for name in trained) == (mode == "lora")
    assert all(line["grad_norm"] > CLIP for line in lines(folder / mode))


@each
def test_a_run_is_that_of_one_process(folder: Path, mode: str, kind: str) -> None:
    run = folder / f"{mode}-{kind}"
    assert_close(run, folder / mode)
    start, found = saved(folder / "pretrained").model(), saved(run).model()
    frozen = [name for name in found if f"exp_avg.{name}" not in saved(run).optimizer()]
    assert len(frozen) > 10
    assert all(same(found[name], start[name]) for name in frozen)


@each
def test_every_element_is_written_once(folder: Path, mode: str, kind: str) -> None:
    found, one = saved(folder / f"{mode}-{kind}"), saved(folder / mode)
    for part in ("model", "optimizer"):
        assert found.index[part].keys() == one.index[part].keys()
        for name, entry in found.index[part].items():
            end = 0
            for file, start in entry["pieces"]:
                assert start == end, name
                with safe_open(found.path / file, "pt") as opened:
                    end += opened.get_tensor(name).numel()
            assert end == math.prod(entry["shape"]), name


@each
def test_a_stopped_run_goes_on_to_the_last_bit(folder: Path, mode: str, kind: str) -> None:
    whole, resumed = folder / f"{mode}-{kind}", folder / f"{mode}-{kind}-resumed"
    assert history(resumed) == history(whole)
    for one, two in ((saved(resumed).model(), saved(whole).model()), (saved(resumed).optimizer(), saved(whole).optimizer())):
        assert one.keys() == two.keys()
        assert all(same(one[name], two[name]) for name in one)


@each
def test_one_process_and_two_go_on_from_each_other(folder: Path, mode: str, kind: str) -> None:
    assert_close(folder / f"{mode}-{kind}-taken", folder / mode)
    run = folder / f"{mode}-{kind}-alone"
    back_to(CUT, folder / f"{mode}-{kind}", run)
    assert alone(folder, run, mode)["resumed_from_step"] == CUT
    assert_close(run, folder / mode)
