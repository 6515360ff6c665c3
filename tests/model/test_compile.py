"""Compiled blocks (no graph breaks, one graph for each shape of the data, the numbers of eager ones), and a step without waiting."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import make_batch, make_model

from scigpt.data.batches import Batch
from scigpt.model.backbone import Recompute, SciGPT
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.strategies import LayoutConfig, Single, prepare

CORPORA = (
    make_batch((4, 1, 1, 128), gaps=0.2),
    make_batch((5, 1, 32, 48), ("a", "f")),
    make_batch((4, 1, 1, 24), geometry="points", patch=1),
)
"""A series, a map and stations."""


@pytest.fixture(autouse=True)
def _compiler() -> Iterator[None]:
    import torch._dynamo.config

    with torch._dynamo.config.patch(recompile_limit=2):  # torch's own limit is 8, and a mixture may have more corpora than that
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        yield
        torch._dynamo.reset()


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def breaks() -> dict[str, int]:
    return dict(torch._dynamo.utils.counters["graph_break"])


def compiled(model: SciGPT, backend: str, recompute: Recompute = False) -> Single:
    """The model as a strategy has it, compiled by a backend of our choice."""
    strategy = Single.__new__(Single)
    strategy.model, strategy.layout = model, LayoutConfig(False, recompute, True)
    compile_block = type(model.blocks[0]).compile

    def by_backend(block: torch.nn.Module, **options: object) -> None:
        compile_block(block, backend=backend, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.blocks[0]), "compile", by_backend)
        prepare(model, strategy.layout)
    return strategy


def step(strategy: Single, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Prediction and gradients of the blocks."""
    found = strategy.forward(batch)
    share_of_loss(found, strategy.model.head, group_weight([batch])).loss.backward()
    gradients = [p.grad.clone() for p in strategy.model.blocks.parameters() if p.grad is not None]
    strategy.model.zero_grad()
    return found.raw.detach(), gradients


def check(backend: str, tolerance: float, recompute: Recompute = False, **config: object) -> None:
    torch.manual_seed(0)
    plain, model = make_model(**config), make_model(**config)
    eager = Single.__new__(Single)
    eager.model, eager.layout = plain, LayoutConfig(False, False, False)
    expected = [step(eager, batch) for batch in CORPORA]
    strategy = compiled(model, backend, recompute)
    for round_ in range(2):
        for i, (batch, (raw, gradients)) in enumerate(zip(CORPORA, expected, strict=True)):
            found = step(strategy, batch)
            assert graphs() == (i + 1 if round_ == 0 else len(CORPORA))
            torch.testing.assert_close(found[0], raw, rtol=tolerance, atol=tolerance)
            for mine, other in zip(found[1], gradients, strict=True):
                torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
            with torch.no_grad():  # validation, and the last batch of a split
                torch.testing.assert_close(strategy.forward(batch).raw, raw, rtol=tolerance, atol=tolerance)
                strategy.forward(batch.select(slice(0, 1)))
    assert graphs() == len(CORPORA), "one for each shape, in training; what needs no gradient makes none"
    assert breaks() == {}


def test_one_graph_for_each_shape_and_no_break() -> None:
    check("eager", 1e-5)


@pytest.mark.parametrize("recompute", [True, "selective"])
def test_windows_reach_and_recomputation_make_no_more_graphs(recompute: Recompute) -> None:
    check("eager", 1e-5, recompute, window_tokens=8, reach=2)


@pytest.mark.drill
@pytest.mark.parametrize("recompute", [False, True, "selective"])
@pytest.mark.parametrize("config", [{}, {"window_tokens": 8, "reach": 2}], ids=["plain", "windows"])
def test_generated_code_gives_the_same_numbers(config: dict[str, int], recompute: Recompute) -> None:
    check("inductor", 1e-5, recompute, **config)


def test_flash_attention_is_part_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
        return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=causal).transpose(1, 2)

    module = types.ModuleType("flash_attn")
    module.flash_attn_func = flash  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    strategy = compiled(make_model(depth=2, attention="flash"), "eager")
    with torch.autocast("cpu", torch.bfloat16):
        step(strategy, CORPORA[1])
    assert graphs() == 1
    assert breaks() == {}


class Host(TorchDispatchMode):
    """Collects operations that take or give a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(isinstance(t, torch.Tensor) and t.device.type == "cpu" for t in tree_leaves((args, kwargs, made))):
            self.found.append(str(func))
        return made


class Made(TorchFunctionMode):
    """Collects tensors made of Python numbers, which a GPU would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        index = args[1] if func is torch.Tensor.__getitem__ else ()
        lists = any(isinstance(i, list) for i in (index, *(index if isinstance(index, tuple) else ())))
        if lists or func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "batch",
    [*CORPORA, make_batch((3, 1, 16, 16), ("a", "s"), "sphere"), make_batch((2, 1, 16, 16), ("a", "f"), steady=True)],
    ids=["series", "map", "points", "sphere", "steady"],
)
def test_nothing_in_a_step_comes_from_the_host(batch: Batch) -> None:
    """Shown on the device that has no numbers: reading one is an error there. What is made of Python's is kept from the first step."""
    model = make_model().to("meta")
    there, total = batch.to("meta"), group_weight([batch])
    for step_ in range(2):
        with Host() as host, Made() as made:
            share_of_loss(model(there), model.head, total).loss.backward()
        if step_:
            assert host.found == []
            assert made.found == []
