"""Float8: a run goes on to the bit, its weights need no torchao, its scores are those of plain products, and mistakes are told."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import pretrain
from runs import history, lines, settings, tensors, write
from toys import make_batch, make_model

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.export import weights
from scigpt.model.backbone import SciGPT
from scigpt.train import float8, strategies
from scigpt.train.checkpoint import newest
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.strategies import LayoutConfig, Single

STEPS = 4
MAP = make_batch((5, 1, 32, 48), ("a", "f"))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "NARROWEST", 32)


def settled(corpora: list[Path], run: Path, **options: Any) -> RunConfig:
    train = {"steps": STEPS, "validate_every": 4, "checkpoint_every": 2, "precision": "bf16", "float8": True}
    return load(write(settings(corpora, run, **{**train, **options}), run.with_suffix(".yaml")))


def laid_out(model: SciGPT, eight: bool, compile: bool = False, recompute: bool = False) -> Single:
    strategy = Single.__new__(Single)
    strategy.model, strategy.layout, strategy.device = model, LayoutConfig(True, recompute, compile, eight), torch.device("cpu")
    strategies.prepare(model, strategy.layout)
    return strategy


def step(strategy: Single, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss, and gradients by name."""
    with strategy.autocast():
        loss = share_of_loss(strategy.forward(batch), strategy.model.head, group_weight([batch])).loss
    loss.backward()
    found = {n: p.grad for n, p in strategy.model.named_parameters() if p.grad is not None}
    strategy.model.zero_grad()
    return float(loss.detach()), found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_products_of_the_blocks_are_in_float8() -> None:
    """Three bits of mantissa, two for what comes back: gradients are some per cent apart, and bfloat16's are not."""
    model = make_model()
    names = [n for n, _ in model.named_parameters()]
    groups = [(g["names"], g["lr_scale"], g["decay"]) for g in model.parameter_groups()]
    identities = [id(p) for p in model.parameters()]
    eight = laid_out(model, True)
    assert [n for n, _ in model.named_parameters()] == names == list(model.state_dict())
    assert [(g["names"], g["lr_scale"], g["decay"]) for g in model.parameter_groups()] == groups
    assert [id(p) for p in model.parameters()] == identities
    exact = laid_out(make_model(), False)
    exact.layout = LayoutConfig(False, False, False)
    (loss, expected), (found, mine), (half, others) = step(exact, MAP), step(eight, MAP), step(laid_out(make_model(), False), MAP)
    assert found == pytest.approx(loss, rel=5e-3)
    assert half == pytest.approx(loss, rel=5e-3)
    for name in (n for n in names if n.startswith("blocks.") and n.endswith(("qkv.weight", "out.weight", "gate_up.weight", "down.weight"))):
        assert 0.03 < apart(mine[name], expected[name]) < 0.2, name
        assert apart(others[name], expected[name]) < 0.03, name
        assert mine[name].dtype == torch.float32


def test_what_needs_no_gradient_and_odd_numbers_of_tokens_are_plain() -> None:
    eight, plain = laid_out(make_model(), True), laid_out(make_model(), False)
    with torch.no_grad(), eight.autocast():
        assert torch.equal(eight.forward(MAP).raw, plain.forward(MAP).raw)
    odd = make_batch((4, 1, 1, 23), geometry="points", patch=1)  # 2 windows x 3 frames x 23 stations
    assert step(eight, odd)[0] == step(plain, odd)[0]
    assert step(eight, MAP)[0] != step(plain, MAP)[0]


def test_a_run_goes_on_and_its_weights_need_no_torchao(
    corpora: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, cut, half = tmp_path / "run", tmp_path / "cut" / "run", tmp_path / "half"
    train(settled(corpora, run))
    assert not caplog.records
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000004")
    assert train(settled(corpora, cut))["resumed_from_step"] == 2
    assert history(cut) == history(run)
    assert tensors(cut) == tensors(run)

    train(settled(corpora, half, float8=False))
    losses, plain = ([line["loss"] for line in lines(r)] for r in (run, half))
    assert losses != plain
    assert losses == pytest.approx(plain, rel=0.03)
    found, other = newest(run / "checkpoints"), newest(half / "checkpoints")
    assert found is not None
    assert other is not None
    assert found.model().keys() == other.model().keys()
    assert found.optimizer().keys() == other.optimizer().keys()

    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    opened = TrainedRun.open(run).model
    weights.write(run, tmp_path / "out")
    with torch.no_grad():
        assert all(torch.equal(p, found.model()[n]) for n, p in opened.named_parameters())
    with pytest.raises(UserError, match=r"pip install 'scigpt\[float8\]', or set train.float8=false"):
        train(settled(corpora, run, steps=STEPS + 1))
    assert train(settled(corpora, run, steps=STEPS + 1, float8=False))["step"] == STEPS + 1  # another machine may have no torchao


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train": {"precision": "fp32"}}, "train: float8 is true and precision is fp32; set precision to bf16, or float8 to false"),
        ({"strategy": {"name": "deepspeed"}}, "train.float8 does not go with strategy deepspeed; set strategy to fsdp2"),
        ({"init": "somewhere", "adapt": {"mode": "lora"}}, "train.float8 trains all weights and adapt.mode is lora"),
        (
            {"model": {"width": 1472, "heads": 23}},
            "train.float8 pays from width 1536 on, in multiples of 16, and this model has width 1472",
        ),
        ({"model": {"width": 1544, "heads": 1}}, "train.float8 pays from width 1536 on, in multiples of 16, and this model has width 1544"),
    ],
)
def test_what_float8_does_not_go_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], sentence: str) -> None:
    monkeypatch.setattr(float8, "NARROWEST", 1536)
    data = settings([tmp_path], tmp_path / "run", precision="bf16", float8=True)
    data["model"] = {"size": "xl"}
    for key, value in change.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(UserError, match=sentence) as caught:
        load(write(data, tmp_path / "run.yaml"))
    assert "\n" not in str(caught.value)


def test_a_pretrained_model_that_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "NARROWEST", 1536)
    with pytest.raises(UserError, match="this model has width 64"):
        laid_out(make_model(), True)


@pytest.mark.parametrize(
    ("capability", "compile", "sentence"),
    [
        ((8, 6), True, "needs a GPU of compute capability 8.9 or newer .*, and this one has 8.6"),
        ((9, 0), False, "train.float8 without train.compile is slower than bfloat16"),
    ],
)
def test_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], compile: bool, sentence: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    with pytest.raises(UserError, match=sentence):
        float8.convert(make_model(), compile)


def test_what_was_not_to_be_logged_is_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(UserError, match="needs torchao"):
        float8.convert(make_model(), False)
    assert logging.getLogger("scigpt").isEnabledFor(logging.WARNING)


@pytest.mark.drill
@pytest.mark.parametrize("recompute", [False, True])
def test_one_graph_for_each_shape_and_no_break(monkeypatch: pytest.MonkeyPatch, recompute: bool) -> None:
    """Traced as for a GPU, forward and backward, but for the code that inductor would write."""
    import torch._dynamo

    compile_block = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda block, **options: compile_block(block, backend="aot_eager", **options))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager, compiled = laid_out(make_model(), True, recompute=recompute), laid_out(make_model(), True, True, recompute)
    for i, batch in enumerate((MAP, make_batch((4, 1, 1, 128), gaps=0.2))):
        for _ in range(2):
            (loss, gradients), (found, mine) = step(eager, batch), step(compiled, batch)
            assert found == pytest.approx(loss, rel=1e-6)
            assert max(apart(mine[n], g) for n, g in gradients.items() if g.any()) < 1e-5
            with torch.no_grad(), compiled.autocast():
                compiled.forward(batch)
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == i + 1
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.drill
def test_several_processes_at_full_width(corpora: list[Path], tmp_path: Path) -> None:
    """Each process has scales of its own, so the numbers are those of one process up to float8's rounding."""
    words = ("model.width=1536", "model.heads=12", "optim.lr=1e-3")
    options = {"steps": 4, "validate_every": 4, "checkpoint_every": 4, "groups": 2, "precision": "bf16", "float8": True}
    pretrain(corpora, tmp_path / "one", words, **options)
    expected = [line["loss"] for line in lines(tmp_path / "one")]
    for name in ("ddp", "fsdp2"):
        pretrain(corpora, tmp_path / name, (*words, f"strategy={name}", "strategy.processes=2"), **options)
        found = [line["loss"] for line in lines(tmp_path / name)]
        assert found == pytest.approx(expected, rel=0.02)
        assert found != expected
