"""However a run is spread over processes, it trains on the same samples and gets the same losses, norms and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobs import pretrain, written
from runs import history, ledger, lines, tensors
from spawned import spawn

from scigpt.train.checkpoint import newest

TWO = "strategy.processes=2"
FOUR = "strategy.processes=4"
MANY = {
    "ddp x2": ("strategy=ddp", TWO),
    "fsdp2 x2": ("strategy=fsdp2", TWO),
    "ddp x4": ("strategy=ddp", FOUR),
    "fsdp2 x4": ("strategy=fsdp2", FOUR),
    "hsdp 2 x 2": ("strategy=hsdp", FOUR, "strategy.shard=2"),
    "every pass x2": ("strategy=fsdp2", TWO, "strategy.reduce_every_pass=true"),
}


@pytest.fixture(scope="module")
def alone(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    pretrain(corpora, run, groups=2)
    return run


@pytest.fixture(scope="module")
def many(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs one after the other in one job of two processes: of FSDP2, in several micro-batches; of DDP, with a width still to be told."""
    folder = tmp_path_factory.mktemp("many")
    runs: dict[str, dict[str, Any]] = {
        "plain": {},
        "bf16": {"precision": "bf16", "steps": 8},
        "again": {"activation_checkpointing": "selective", "micro_batch": None},
    }
    plan = [
        {"config": str(written(corpora, folder / name, **{"groups": 2, "micro_batch": 1, **train})), "overrides": ["strategy=fsdp2"]}
        for name, train in runs.items()
    ]
    plain = {"config": str(written(corpora, folder / "wide")), "copy": str(folder / "wide-begun"), "step": 5}
    words = ["strategy=ddp", "data.data_width=null"]
    plan.append({"config": plain["config"], "overrides": [*words, f"run={folder / 'wide-begun'}", "train.steps=5"]})
    plan.append({**plain, "overrides": [*words, "train.steps=10"]})
    (folder / "plan.json").write_text(json.dumps(plan))
    spawn("zero_worker.py", [str(folder / "plan.json")], folder)
    return folder


def assert_close(a: Path, b: Path, rel: float) -> None:
    assert ledger(a) == ledger(b)
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in lines(a)] == pytest.approx([line[key] for line in lines(b)], rel=rel), key
    first, second = newest(a / "checkpoints"), newest(b / "checkpoints")
    assert first is not None
    assert second is not None
    for mine, other in ((first.model(), second.model()), (first.optimizer(), second.optimizer())):
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            assert tensor.shape == other[name].shape
            assert (tensor - other[name]).abs().max() <= 100 * rel * other[name].abs().max() + 1e-9, name
    for step, line in enumerate(lines(b)):
        for corpus, scores in line.get("validation", {}).items():
            assert lines(a)[step]["validation"][corpus] == pytest.approx(scores, rel=10 * rel)


def test_a_run_of_fsdp2_is_the_run_of_one(alone: Path, many: Path) -> None:
    assert_close(many / "plain", alone, 2e-6)


@pytest.mark.parametrize("kind", ["ddp x2", *(pytest.param(k, marks=pytest.mark.drill) for k in list(MANY)[1:])])
def test_a_run_of_many_is_the_run_of_one(corpora: list[Path], alone: Path, tmp_path: Path, kind: str) -> None:
    """Groups in several micro-batches: gradients are summed up before they are exchanged."""
    summary = pretrain(corpora, tmp_path / "run", MANY[kind], groups=2, micro_batch=1)
    assert summary["processes"] == int(kind[-1]) * (2 if kind.startswith("hsdp") else 1)
    assert_close(tmp_path / "run", alone, 2e-6)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_one_process_of_a_strategy_for_many_is_the_single_one(corpora: list[Path], alone: Path, tmp_path: Path, name: str) -> None:
    assert pretrain(corpora, tmp_path / "run", (f"strategy={name}",), groups=2)["processes"] == 1
    assert history(tmp_path / "run") == history(alone)
    assert tensors(tmp_path / "run") == tensors(alone)


def test_bfloat16(corpora: list[Path], many: Path, tmp_path: Path) -> None:
    """The rounding of the products may differ, their sums are float32: one step apart by far less than bfloat16's 0.4 %."""
    pretrain(corpora, tmp_path / "one", precision="bf16", groups=2, steps=8)
    assert_rounded_alike(many / "bf16", tmp_path / "one")


@pytest.mark.drill
def test_bfloat16_of_ddp(corpora: list[Path], tmp_path: Path) -> None:
    pretrain(corpora, tmp_path / "one", precision="bf16", groups=2, steps=8)
    pretrain(corpora, tmp_path / "two", MANY["ddp x2"], precision="bf16", groups=2, micro_batch=1, steps=8)
    assert_rounded_alike(tmp_path / "two", tmp_path / "one")


def assert_rounded_alike(two: Path, one: Path) -> None:
    found, expected = ([line["loss"] for line in lines(run)] for run in (two, one))
    assert found == pytest.approx(expected, rel=2e-3)
    assert found != expected


def test_activation_checkpointing_changes_no_bit(corpora: list[Path], alone: Path, many: Path, tmp_path: Path) -> None:
    for kind in (True, "selective"):
        pretrain(corpora, tmp_path / str(kind), groups=2, activation_checkpointing=kind)
        assert history(tmp_path / str(kind)) == history(alone)
        assert tensors(tmp_path / str(kind)) == tensors(alone)
    assert_close(many / "again", alone, 2e-6)


@pytest.mark.drill
@pytest.mark.parametrize("kind", [(), MANY["fsdp2 x2"], MANY["ddp x2"]])
def test_compiled_blocks(corpora: list[Path], alone: Path, tmp_path: Path, kind: tuple[str, ...]) -> None:
    pretrain(corpora, tmp_path / "run", kind, groups=2, compile=True, activation_checkpointing=bool(kind))
    assert_close(tmp_path / "run", alone, 2e-5)


def test_a_job_that_the_groups_cannot_be_shared_by_is_refused_once(corpora: list[Path], tmp_path: Path) -> None:
    from jobs import log, start

    job = start(corpora, tmp_path / "run", ("strategy=ddp", "strategy.processes=3"))
    job.communicate()
    assert job.returncode == 2
    assert log(tmp_path / "run").count("3 data-parallel processes cannot share groups made for data_width=4") == 1
    assert "Traceback" not in log(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_width_of_the_data_is_that_of_the_first_launch(many: Path) -> None:
    assert "data_width: 2" in (many / "wide-begun" / "config.yaml").read_text()
    assert json.loads((many / "wide.json").read_text())["resumed_from_step"] == 5
    assert "data_width: 2" in (many / "wide" / "config.yaml").read_text()
