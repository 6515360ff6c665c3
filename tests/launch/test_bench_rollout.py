"""`scigpt bench rollout`: figures that hang together; the promise that the cache is worth having."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import make_corpus, settings, write

from scigpt.launch import bench_rollout
from scigpt.launch.cli import main
from scigpt.model.backbone import ModelConfig


@pytest.fixture(autouse=True)
def _threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_errors_of_a_run_by_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_corpus(tmp_path, frames=16)
    assert code_of("pretrain", write(settings([corpus], tmp_path / "run", steps=3), tmp_path / "c.yaml")) in (0, None)
    capsys.readouterr()
    assert code_of("bench", "rollout", tmp_path / "run", "--split", "valid", "--steps", 9, "--json") in (0, None)
    found = json.loads(capsys.readouterr().out)
    assert (found["corpus"], found["records"], found["window"]) == ("toys", 2, 3)
    assert {len(curve) for curve in found["vrmse"].values()} == {found["steps"]}
    # the first step is the same, whatever is kept of it
    assert found["vrmse"]["cache"][0] == pytest.approx(found["vrmse"]["recompute"][0], rel=1e-5)
    assert found["vrmse"]["cache"][-1] != found["vrmse"]["recompute"][-1]
    assert code_of("bench", "rollout", tmp_path / "run", "--corpus", "seas") == 2
    assert "--corpus seas:" in capsys.readouterr().err


def code_of(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code


@pytest.mark.drill
@pytest.mark.parametrize(("batch", "side"), [(4, 64), (1, 128)])
def test_a_rollout_from_the_cache_is_three_times_as_fast(batch: int, side: int) -> None:
    """32 steps from 8 frames in CPU time, both in turn in one process; recomputing shows the model the last 8 frames."""
    found = bench_rollout.speed(ModelConfig(), 8, 32, 8, side, 8, batch, 1, 3)
    assert found["times_faster"]["cache"] >= 3.0
    assert "times faster" in bench_rollout.describe(found)
