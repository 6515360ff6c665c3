"""Additions of low rank: nothing at first, then trained alone, at last merged into the matrices."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from toys import VOCABULARY, make_batch, make_model

from scigpt.adapt import trainable
from scigpt.adapt.config import AdaptConfig
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.model.initial import Initial
from scigpt.model.lora import LoRALinear, insert, merge

TARGETS = AdaptConfig().targets
EVERY = [*TARGETS, "modulate"]


def adapted(model: SciGPT, targets: list[str] = EVERY, rank: int = 4, moved: bool = False) -> SciGPT:
    """A copy with additions; `moved`: as after training, all of them at work."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    insert(model, rank, 2.0 * rank, targets)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if moved and name.endswith("lora_b"):
                parameter.normal_(std=0.05)
    return model


def additions(model: SciGPT) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize(("checkpointing", "half"), itertools.product((False, True), repeat=2))
def test_nothing_changes_at_first(checkpointing: bool, half: bool) -> None:
    model, batch = make_model(), make_batch((4, 1, 16, 16), gaps=0.1)
    grown = adapted(model)
    for block in [*model.blocks, *grown.blocks]:
        block.recompute = checkpointing  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        before, after = model(batch).raw, grown(batch).raw
    assert torch.equal(before, after)
    after.float().square().sum().backward()
    for name, parameter in additions(grown).items():  # A waits for B to leave zero
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == name.endswith("lora_b"), name


def test_merged_gives_the_same_numbers() -> None:
    model, batch = make_model(), make_batch((4, 1, 16, 16), gaps=0.1)
    grown = adapted(model, moved=True)
    with torch.no_grad():
        first, before = model(batch).physical(), grown(batch).physical()
        merge(grown)
        after = grown(batch).physical()
    scale = float(before.abs().max())
    assert float((before - first).abs().max()) > 0.01 * scale
    assert float((before - after).abs().max()) < 1e-5 * scale
    assert [n for n, _ in grown.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert not any(isinstance(m, LoRALinear) for m in grown.modules())


def test_the_sum_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    base = nn.Linear(6, 10)
    layer = LoRALinear(base, 2, 3.0)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = x @ (base.weight.double() + 3.0 / 2 * layer.lora_b.double() @ layer.lora_a.double()).T + base.bias.double()
    assert torch.allclose(layer(x.float()).double(), expected, rtol=1e-6, atol=1e-6)
    merge(outer := nn.Sequential(layer))
    assert torch.allclose(outer(x.float()).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("targets", [["qkv"], TARGETS, EVERY])
def test_targets_and_names(targets: list[str]) -> None:
    model = make_model()
    grown = adapted(model, targets)
    there = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rpartition(".")[2] in targets]
    assert sorted(n for n, m in grown.named_modules() if isinstance(m, LoRALinear)) == sorted(there)
    assert additions(grown).keys() == {f"{n}.{side}" for n in there for side in ("lora_a", "lora_b")}
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in grown.named_parameters() if ".lora_" not in n]
    for name in there:
        old, new = model.get_submodule(name), grown.get_submodule(name)
        assert (new.lora_a.shape, new.lora_b.shape) == ((4, old.in_features), (old.out_features, 4))


def test_initial_weights_are_those_of_a_model_without_storage() -> None:
    with torch.device("meta"):
        model = SciGPT(ModelConfig(depth=2, width=64), VOCABULARY)
    insert(model, 4, 8.0, EVERY)
    assert all(p.is_meta for p in model.parameters())
    initial = Initial(model, 3)
    for name in additions(model):
        values = initial(name)
        if name.endswith("lora_b"):
            assert not values.any()
        else:
            assert float(values.std()) == pytest.approx(values.shape[1] ** -0.5, rel=0.2), name


@pytest.mark.parametrize(("size", "rank"), [("nano", 4), ("tiny", 8), ("small", 8), ("base", 8)])
def test_less_than_three_in_a_hundred_are_trained(size: str, rank: int) -> None:
    with torch.device("meta"):
        model = SciGPT(ModelConfig(size=size), Vocabulary({f"v{i}": "1" for i in range(20)}, {"viscosity": (0.0, 1.0)}))
    trainable.prepare(model, AdaptConfig(mode="lora", rank=rank))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in additions(model).values())
    assert 0 < trained < 0.03 * sum(p.numel() for p in model.parameters())


def test_training_moves_the_additions_alone() -> None:
    batch = make_batch((4, 1, 16, 16))
    model = make_model()
    trainable.prepare(model, AdaptConfig(mode="lora", rank=4))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for group in model.parameter_groups() for p in group["params"]], 1e-2)
    losses = []
    for _ in range(8):
        error = model(batch).z()[:, -1] - batch.scales.forward(batch.values)[:, -1]
        loss = error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == additions(model).keys()
    assert losses[-1] < losses[0]


def test_compiled_blocks_give_the_same_numbers() -> None:
    batch, grown = make_batch((3, 1, 16, 16)), adapted(make_model(depth=1), moved=True)
    with torch.no_grad():
        before = grown(batch).raw
        for block in grown.blocks:
            block.compile(backend="aot_eager")
        assert torch.allclose(grown(batch).raw, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "targets", "sentence"),
    [
        (0, TARGETS, "adapt.rank is 0; expected 1 to 64, the width of the model"),
        (65, TARGETS, "adapt.rank is 65; expected 1 to 64"),
        (4, ["qvk"], "no matrix 'qvk'; did you mean qkv"),
        (4, ["head"], "no matrix 'head'; expected some of down, gate_up, modulate, out, qkv"),
        (4, ["qkv", "final_modulate"], "no matrix 'final_modulate'"),
    ],
)
def test_mistakes_change_nothing(rank: int, targets: list[str], sentence: str) -> None:
    model = make_model()
    with pytest.raises(UserError, match=sentence):
        insert(model, rank, 8.0, targets)
    assert not additions(model)
