"""`scigpt bench model`: counts that agree with each other, and the promise that a step keeps up with a matrix product."""

from __future__ import annotations

import pytest
import torch

from scigpt.launch import bench_model
from scigpt.model.backbone import ModelConfig


@pytest.fixture(autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_figures_hang_together(precision: str) -> None:
    found = bench_model.measure(ModelConfig(depth=1, width=64), 2, 32, 8, 2, precision, 1, 2)
    assert found["tokens"] == 2 * 2 * 16
    assert found["flops_per_cpu_second"] > 0
    assert sum(found["time_shares"].values()) == pytest.approx(1.0, abs=0.1)
    assert "share of the matrix product" in bench_model.describe(found)


@pytest.mark.drill
def test_a_step_at_width_512_runs_at_70_percent_of_a_matrix_product() -> None:
    """fp32, one thread, 256 tokens a frame, 4 frames: both timed in CPU time, in turn, in one process."""
    found = bench_model.measure(ModelConfig(depth=4, width=512), 4, 128, 8, 4, "fp32", 1, 5)
    assert found["share_of_matrix_product"] >= 0.7
