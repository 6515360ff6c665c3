"""ZeRO of every stage is the run of one process, resumes to the bit, drops a gradient without a trace, and trades checkpoints with all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jobs import pretrain
from runs import history, ledger, lines, settings, write
from spawned import spawn
from zero_worker import back_to

from scigpt.errors import UserError
from scigpt.train.checkpoint import newest
from scigpt.train.processes import Place
from scigpt.train.strategies import LayoutConfig, StrategyConfig, build

STAGES = (1, 2, 3)
PLAIN = {"groups": 2, "micro_batch": 1}
OFFLOAD = "strategy.offload=true"
BF16 = {"precision": "bf16", "activation_checkpointing": True, "steps": 10}
NOT_TRAIN = ("copy", "step", "refuse")


def drill(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.drill)


def zero(stage: int) -> tuple[str, ...]:
    return ("strategy=deepspeed", f"strategy.stage={stage}")


def item(corpora: list[Path], run: Path, overrides: Sequence[str], **more: Any) -> dict[str, Any]:
    """One thing for `zero_worker.py` to do; the words it does not know are values of the section `train`."""
    data = settings(corpora, run, **(PLAIN | {k: v for k, v in more.items() if k not in NOT_TRAIN}))
    data["data"]["data_width"] = 4
    own = {k: str(v) if k == "copy" else v for k, v in more.items() if k in NOT_TRAIN}
    return {"config": str(write(data, run.with_suffix(".yaml"))), "overrides": list(overrides), **own}


def job(plan: list[dict[str, Any]], folder: Path) -> str:
    """Do all of it in one job of two processes; returns what they say."""
    file = folder / "plan.json"
    file.write_text(json.dumps(plan))
    return "\n".join(spawn("zero_worker.py", [str(file)], folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def alone(corpora: list[Path], folder: Path) -> Path:
    """The run of one process, plainly."""
    pretrain(corpora, folder / "alone", **PLAIN)
    return folder / "alone"


@pytest.fixture(scope="module")
def done(corpora: list[Path], alone: Path, folder: Path) -> str:
    """What the tests look at; returns what was said."""

    def updates(stage: int) -> list[dict[str, Any]]:
        return [item(corpora, folder / f"updates{stage}-{refuse}", zero(stage), refuse=refuse) for refuse in (False, True)]

    plan = [item(corpora, folder / f"zero{stage}", zero(stage)) for stage in STAGES]
    plan.append(item(corpora, folder / "zero3-resumed", zero(3), copy=folder / "zero3", step=10))
    plan.append(item(corpora, folder / "alone-zero1", zero(1), copy=alone, step=10))
    plan += updates(1) + updates(3)
    plan.append(item(corpora, folder / "offload1", (*zero(1), OFFLOAD), steps=10))
    plan.append(item(corpora, folder / "bf16-3", zero(3), **BF16))
    return job(plan, folder)


@pytest.fixture(scope="module")
def rest(corpora: list[Path], alone: Path, done: str, folder: Path) -> str:
    """What the drills look at besides."""
    plan = [item(corpora, folder / f"zero{s}-resumed", zero(s), copy=folder / f"zero{s}", step=10) for s in (1, 2)]
    plan += [item(corpora, folder / f"alone-zero{s}", zero(s), copy=alone, step=10) for s in (2, 3)]
    plan += [item(corpora, folder / f"zero3-zero{s}", zero(s), copy=folder / "zero3", step=10) for s in (1, 2)]
    plan += [item(corpora, folder / f"updates2-{refuse}", zero(2), refuse=refuse) for refuse in (False, True)]
    plan += [item(corpora, folder / f"offload{s}", (*zero(s), OFFLOAD), steps=10) for s in (2, 3)]
    plan += [item(corpora, folder / f"bf16-{s}", zero(s), **BF16) for s in (1, 2)]
    return job(plan, folder)


@pytest.fixture(autouse=True)
def _made(request: pytest.FixtureRequest, done: str) -> None:
    if request.node.get_closest_marker("drill"):
        request.getfixturevalue("rest")


def assert_close(run: Path, alone: Path, count: int = 20) -> None:
    assert len(lines(run)) == count
    assert ledger(run).splitlines() == ledger(alone).splitlines()[:count]
    for key in ("loss", "grad_norm"):
        assert [x[key] for x in lines(run)] == pytest.approx([x[key] for x in lines(alone)][:count], rel=1e-5), key


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_is_that_of_one_process(alone: Path, folder: Path, stage: int) -> None:
    """Groups in several micro-batches."""
    run = folder / f"zero{stage}"
    assert_close(run, alone)
    mine, other = newest(run / "checkpoints"), newest(alone / "checkpoints")
    assert mine is not None
    assert other is not None
    for found, expected in ((mine.model(), other.model()), (mine.optimizer(), other.optimizer())):
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name].shape == expected[name].shape
            assert (found[name] - expected[name]).abs().max() <= 2e-4 * expected[name].abs().max() + 1e-9, name
    for one, two in zip(lines(run), lines(alone), strict=True):
        for corpus, scores in two.get("validation", {}).items():
            assert one["validation"][corpus] == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_each_process_writes_half(folder: Path, stage: int) -> None:
    saved = folder / f"zero{stage}" / "checkpoints" / "step-00000020"
    for kind in ("model", "optimizer"):
        one, two = (p.stat().st_size for p in saved.glob(f"{kind}-*-of-00002.safetensors"))
        assert one == pytest.approx(two, rel=0.1)


@pytest.mark.parametrize("stage", [drill(1), drill(2), 3])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(folder: Path, stage: int) -> None:
    whole, resumed = folder / f"zero{stage}", folder / f"zero{stage}-resumed"
    assert history(resumed) == history(whole)
    one, two = ({p.name: p.read_bytes() for p in run.glob("checkpoints/step-00000020/*.safetensors")} for run in (whole, resumed))
    assert one == two


@pytest.mark.parametrize("name", ["alone-zero1", *map(drill, ("alone-zero2", "alone-zero3", "zero3-zero1", "zero3-zero2"))])
def test_checkpoints_of_other_strategies_are_taken_up(alone: Path, folder: Path, name: str) -> None:
    assert_close(folder / name, alone)


@pytest.mark.parametrize("stage", [drill(1), drill(2), 3])
def test_one_process_goes_on_with_a_checkpoint_of_zero(corpora: list[Path], alone: Path, folder: Path, stage: int) -> None:
    run = folder / f"zero{stage}-alone"
    back_to(10, folder / f"zero{stage}", run)
    assert pretrain(corpora, run, **PLAIN)["resumed_from_step"] == 10
    assert_close(run, alone)


@pytest.mark.parametrize("stage", [1, drill(2), 3])
def test_dropped_gradients_leave_no_trace(folder: Path, stage: int) -> None:
    plain, refused = (
        [json.loads((folder / f"updates{stage}-{refuse}.{rank}.json").read_text()) for rank in (0, 1)] for refuse in (False, True)
    )
    for rank in (0, 1):
        assert plain[rank]["begin"] == [], "nothing was updated yet"
        first, second = plain[rank]["held"]
        assert first != second
        assert refused[rank]["held"] == [first, first, first, second]
        assert str(refused[rank]["norms"][1]) == "nan", "on both processes, though one has the NaN"
        assert [refused[rank]["norms"][i] for i in (0, 3)] == plain[rank]["norms"] == plain[0]["norms"]


@pytest.mark.parametrize("stage", [1, drill(2), drill(3)])
def test_offload(alone: Path, folder: Path, stage: int) -> None:
    assert_close(folder / f"offload{stage}", alone, 10)


@pytest.fixture(scope="module")
def rounded(corpora: list[Path], folder: Path) -> list[float]:
    """Losses of one process in bfloat16."""
    pretrain(corpora, folder / "bf16-alone", **PLAIN, precision="bf16", steps=10)
    return [x["loss"] for x in lines(folder / "bf16-alone")]


@pytest.mark.parametrize("stage", [drill(1), drill(2), 3])
def test_bfloat16_with_activation_checkpointing(rounded: list[float], folder: Path, stage: int) -> None:
    assert [x["loss"] for x in lines(folder / f"bf16-{stage}")] == pytest.approx(rounded, rel=2e-3)


@pytest.mark.drill
@pytest.mark.parametrize("stage", [1, 3])
def test_compiled_blocks(alone: Path, corpora: list[Path], folder: Path, stage: int) -> None:
    pretrain(corpora, folder / f"compiled{stage}", (*zero(stage), "strategy.processes=2"), **PLAIN, compile=True)
    assert_close(folder / f"compiled{stage}", alone)


@pytest.mark.drill
def test_all_blocks_of_stage_3_are_one_graph(corpora: list[Path], folder: Path) -> None:
    code = """
import sys, torch
plain = torch.compile
torch.compile = lambda f, **options: plain(f, **{**options, "backend": "eager"})
from scigpt.train.config import load
from scigpt.train.engine import train
train(load(sys.argv[1], ["strategy=deepspeed", "strategy.stage=3", "model.depth=4"]))
found = torch._dynamo.utils.counters
print("graphs", found["stats"]["unique_graphs"], "breaks", len(found["graph_break"]))
"""
    file = write(settings(corpora[:1], folder / "graphs", **{**PLAIN, "steps": 2, "compile": True}), folder / "graphs.yaml")
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "graphs 1 breaks 0" in done.stdout


@pytest.mark.drill
def test_one_process_alone(corpora: list[Path], alone: Path, folder: Path) -> None:
    pretrain(corpora, folder / "zero3 x1", zero(3), **PLAIN)
    assert_close(folder / "zero3 x1", alone)


def test_deepspeed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=r"pip install 'scigpt\[deepspeed\]'"):
        build(StrategyConfig("deepspeed"), LayoutConfig(bf16=False, activation_checkpointing=False, compile=False), Place())


def test_nothing_is_said_besides(done: str) -> None:
    assert "DeepSpeed" not in done
    assert "Warning" not in done
