"""`scigpt bench model`: counts that agree with each other, and the promise that a step keeps up with a matrix product."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import command, done

from scigpt.launch import bench_model, timing
from scigpt.model.backbone import ModelConfig


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_figures_hang_together(precision: str) -> None:
    found = bench_model.measure(ModelConfig(depth=1, width=64), 2, 32, 8, 2, precision, 1, 2, device="cpu", peak=1e12, product_side=64)
    assert found["tokens"] == 2 * 2 * 16
    assert found["tokens_per_frame"] == 16
    assert found["flops_per_second"] == pytest.approx(found["flops_per_step"] / found["seconds_per_step"])
    assert found["mfu"] == pytest.approx(found["flops_per_second"] / 1e12)
    assert found["bare_blocks_flops_per_second"] > 0
    assert found["peak_memory_bytes"] > 2**20
    assert sum(found["time_shares"].values()) == pytest.approx(1.0, abs=0.1)
    assert found["compile"] is None
    text = bench_model.describe(found)
    assert "share of the matrix product" in text
    assert "bare blocks" in text


def test_blocks_and_the_rest_of_a_step_add_up() -> None:
    work = bench_model.Work(
        ModelConfig(depth=2, width=64), bench_model.synthetic_batch(1, 3, 32, 8), "fp32", torch.device("cpu"), False, False
    )
    whole, blocks = work.flops()
    hidden = work.model.blocks[0].down.in_features
    per_token = 2 * (8 * 64**2 + 3 * 64 * hidden) + 4 * (16 + 2) * 64  # linear maps; products of attention in space and in time
    assert blocks == 3 * 2 * (2 * 16) * per_token
    assert blocks < whole == 3 * work.model.flops(work.data)


def test_the_command_writes_a_trace_and_what_holds_memory(tmp_path: Path) -> None:
    words = ("bench", "model", "--depth", 1, "--width", 64, "--side", 32, "--batch", 1, "--rounds", 1, "--device", "cpu")
    found = json.loads(done(*words, "--profile", tmp_path / "profile", "--json"))
    trace = json.loads(Path(found["profile"]["trace"]).read_text())
    assert any(event.get("name") == "aten::mm" for event in trace["traceEvents"])
    memory = json.loads(Path(found["profile"]["memory"]).read_text())
    assert memory[0]["bytes"] != 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--device", "tpu"), "--device tpu: expected auto, cpu or cuda"),
        (("--precision", "fp16"), "--precision fp16: expected fp32 or bf16"),
        (("--recompute", "yes"), "--recompute yes: expected false, selective, true"),
        (("--attention", "falsh"), "--attention falsh: expected sdpa or flash"),
    ],
)
def test_mistakes_are_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    code, _, err = command("bench", "model", *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989.4), ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA A100-SXM4-40GB", 312.0), ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA H100 PCIe", None), ("NVIDIA H100 NVL", None), ("NVIDIA GeForce RTX 3060", None),
    ],
)  # fmt: skip
def test_peaks_are_those_of_the_maker_or_unknown(name: str, tflops: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "name_of", lambda _: name)
    assert timing.datasheet(torch.device("cuda"), "bf16") == (None if tflops is None else tflops * 1e12)
    assert timing.datasheet(torch.device("cpu"), "bf16") is None


@pytest.mark.drill
@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.7), ("bf16", 0.5)])
def test_a_step_at_width_512_keeps_up_with_a_matrix_product_and_with_its_blocks(precision: str, share: float) -> None:
    """One thread, 256 tokens a frame, 4 frames, batch 4: all timed in CPU time, in turn, in one process."""
    found = bench_model.measure(ModelConfig(depth=4, width=512), 4, 128, 8, 4, precision, 1, 5, device="cpu")
    assert found["share_of_matrix_product"] >= share
    assert found["slower_than_bare_blocks"] <= 0.05


@pytest.mark.drill
def test_a_compiled_step_is_one_graph() -> None:
    found = bench_model.measure(ModelConfig(depth=2, width=64), 2, 32, 8, 2, "fp32", 1, 2, device="cpu", compile=True)
    assert (found["compile"]["graphs"], found["compile"]["graph_breaks"], found["compile"]["recompiles"]) == (1, 0, 0)
    assert found["compile"]["seconds"] > 1
    assert "compiled in" in bench_model.describe(found)
