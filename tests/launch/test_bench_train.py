"""`scigpt bench train`: the real loop beside a bare one, and the script for one GPU, rehearsed on a CPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import runs
import torch
from commands import done

from scigpt.launch import bench_train

ROOT = Path(__file__).parents[2]


def test_the_command_measures_a_configuration_and_leaves_nothing(tmp_path: Path) -> None:
    corpus = runs.make_corpus(tmp_path)
    file = runs.write(runs.settings([corpus], tmp_path / "run"), tmp_path / "run.yaml")
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    found = json.loads(done("bench", "train", file, "train.groups=2", "--steps", 2, "--rounds", 1, "--device", "cpu", "--json"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.yaml", "toys"]
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before
    assert found["corpora"] == ["toys"]
    assert found["tokens_per_step"] == 2 * 48
    assert min(found["seconds_per_step"].values()) > 0
    assert found["loader_headroom"] > 0
    assert found["windows_per_reader_second"] > 0
    assert list(found["time_shares"]) == list(bench_train.PARTS)
    assert sum(found["time_shares"].values()) == pytest.approx(1.0)
    assert min(found["time_shares"][part] for part in ("data", "forward", "backward", "optimizer", "host")) > 0
    real = found["seconds_per_step"]["real"]
    assert found["over_bare_loop"] == pytest.approx(real / found["seconds_per_step"]["bare"] - 1)
    text = bench_train.describe(found)
    assert "over a bare loop" in text
    assert "over synthetic batches" in text


def test_synthetic_batches_have_the_shape_and_the_gaps_of_real_ones() -> None:
    from toys import make_batch

    batch = make_batch((3, 1, 8, 8), gaps=0.3)
    made = bench_train.random_like(batch)
    assert made.values.shape == batch.values.shape
    assert torch.equal(made.valid, batch.valid)
    assert torch.equal(made.values == 0, ~batch.valid)
    assert not torch.equal(made.values, batch.values)


def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_script_for_one_gpu_runs_everything_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = gpu()

    def broken(tiny: bool) -> dict[str, object]:
        raise RuntimeError("an illegal memory access")

    parts = dict(script.PARTS)
    monkeypatch.setattr(script, "PARTS", {"waits": parts.pop("waits"), "broken": (5.0, broken), **parts})
    script.main(["--tiny", "--out", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert found.pop("broken")["error"] == "RuntimeError: an illegal memory access"
    assert {name: part.get("error") for name, part in found.items()} == dict.fromkeys(parts | {"waits": 0})
    assert found["mfu 1B"]["peak_memory_bytes"] > 0
    assert found["attention"]["finite_gradients"].keys() == {"64", "192", "704", "832"}
    assert found["attention"]["enough"] is True
    assert found["loop 300M"]["loader_headroom"] > 0
    script.main(["--tiny", "--minutes", "0", "--out", str(tmp_path / "late.json")])
    assert not (tmp_path / "late.json").exists()


def test_the_models_of_the_script_have_the_sizes_they_are_called_by() -> None:
    from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary

    script = gpu()
    for name, millions in (("85M", 85), ("300M", 302), ("1B", 1019)):
        size = script.SIZES[name]
        with torch.device("meta"):
            model = SciGPT(ModelConfig(depth=size.depth, width=size.width), Vocabulary({}, {}))
        assert sum(p.numel() for p in model.blocks.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)
        assert model.width // model.heads == 128
    assert sum(limit for limit, _ in script.PARTS.values()) < 60 * 12, "limits; what is left of eight minutes is the last part's"


@pytest.mark.drill
def test_the_loop_costs_three_percent_and_shards_five() -> None:
    found = [bench_train.measure(None, bench_train.Amount(1, 40), "cpu") for _ in range(2)]  # what else the machine does is noise
    assert min(f["over_bare_loop"] for f in found) <= 0.03
    assert min(f["real_over_synthetic"] for f in found) <= 0.05
    assert max(f["loader_headroom"] for f in found) > 10
