"""`scigpt bench train`: the real loop beside a bare one, and the script for one GPU, rehearsed on a CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import runs
import torch
from commands import done

from scigpt.errors import UserError
from scigpt.launch import bench_train, profiling

ROOT = Path(__file__).parents[2]


def test_the_command_measures_a_configuration_and_leaves_nothing(tmp_path: Path) -> None:
    corpus = runs.make_corpus(tmp_path)
    file = runs.write(runs.settings([corpus], tmp_path / "run"), tmp_path / "run.yaml")
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    words = ("bench", "train", file, "train.groups=2", "--steps", 2, "--rounds", 1, "--profile", tmp_path / "profile", "--json")
    found = json.loads(done(*words))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["profile", "run.yaml", "toys"]
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
    assert found["compile"] is None
    assert "recompilation" not in text
    trace = json.loads(Path(found["profile"]["trace"]).read_text())["traceEvents"]
    marked = {(event["name"], event["tid"]) for event in trace if event.get("cat") == "user_annotation"}
    assert {"read a group", "forward", "backward", "optimizer"} <= {name for name, _ in marked}
    assert len({thread for _, thread in marked}) > 1, "the loader's threads are in the trace"
    assert json.loads(Path(found["profile"]["memory"]).read_text())[0]["self_bytes"] > 0


def test_a_gpu_is_not_passed_over_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="training takes the GPU that torch sees; hide it"):
        bench_train.measure(None, bench_train.Amount(1, 1), "cpu")


def test_a_snapshot_of_memory_has_each_stack_once() -> None:
    here, there = ({"filename": name, "line": 3, "name": "f"} for name in ("a.py", "b.py"))
    entries = [{"action": "alloc", "addr": n, "frames": frames} for n, frames in enumerate(([here], [here], [there, here]))]
    found = profiling.compact({"segments": [{"blocks": ({"size": 512, "frames": [here]},)}], "device_traces": [entries]})
    assert found == {
        "segments": [{"blocks": [{"size": 512, "frames": 0}]}],
        "device_traces": [[{"action": "alloc", "addr": n, "frames": stack} for n, stack in enumerate((0, 0, 1))]],
        "stacks": [("a.py:3 f",), ("b.py:3 f", "a.py:3 f")],
    }


@pytest.mark.drill
def test_two_processes_measure_together_and_one_of_them_tells(tmp_path: Path) -> None:
    file = runs.write(runs.settings([runs.make_corpus(tmp_path)], tmp_path / "run"), tmp_path / "run.yaml")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "scigpt.launch.cli",
        "bench",
        "train",
        str(file),
    ]
    more = ["strategy=ddp", "--rounds", "1", "--profile", str(tmp_path / "profile"), "--json"]
    ended = subprocess.run([*command, *more], capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    assert (found["processes"], found["strategy"]) == (2, "ddp")
    assert found["time_shares"]["communication"] > 0
    assert {p.name for p in (tmp_path / "profile").iterdir()} == {"trace.json", "memory.json"}


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
    assert found["attention"]["finite_gradients"].keys() == {"4", "7", "64", "192", "704", "832"}
    assert found["attention"]["enough"] is True
    assert found["waits"]["loop"] == [[]] * 4
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


def test_a_part_is_a_process_whose_end_is_told_however_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = gpu()
    for text, expected in (
        ("print('a library says so'); print('{\"mfu\": 0.5}')", {"mfu": 0.5}),
        ("import sys; sys.exit('no such device')", {"error": "exit code 1", "said": "no such device"}),
        ("import time; print('{}', flush=True); time.sleep(60)", {"error": "not done after 1 s", "said": ""}),
    ):
        (tmp_path / "part.py").write_text(text)
        monkeypatch.setattr(script, "__file__", str(tmp_path / "part.py"))
        assert script.apart("any", 1.0 if "sleep" in text else 30.0) == expected


def test_windows_of_the_script_fit_the_device_as_training_memory_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    script, memory = gpu(), {"H100": 79.1, "H200": 139.8}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = {}
    for card, gib in memory.items():
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, gib=gib: SimpleNamespace(total_memory=gib * 2**30))
        found[card] = {name: size.fitting() for name, size in script.SIZES.items()}
    assert found == {"H100": {"85M": 8, "300M": 8, "1B": 3}, "H200": {"85M": 8, "300M": 8, "1B": 4}}


@pytest.mark.drill
@pytest.mark.parametrize("name", ["85M", "300M", "1B"])
def test_a_window_needs_what_the_script_says(name: str) -> None:
    from scigpt.launch.bench_model import synthetic_batch
    from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
    from scigpt.train.memory import activations
    from scigpt.train.strategies import LayoutConfig

    size, data = gpu().SIZES[name], synthetic_batch(1, 5, 256, 8)
    config, vocabulary = ModelConfig(depth=size.depth, width=size.width), Vocabulary({v.name: v.unit for v in data.layout.variables}, {})
    with torch.device("meta"):
        count = sum(p.numel() for p in SciGPT(config, vocabulary).parameters())
    need = activations(config, vocabulary, data, LayoutConfig(True, False, False), False, True)
    assert (need.saved + need.temporary) / 2**30 <= size.window <= 1.1 * (need.saved + need.temporary) / 2**30
    assert 24 * count / 2**30 == pytest.approx(size.held, rel=0.05)


@pytest.mark.drill
def test_the_loop_costs_three_percent_and_shards_five() -> None:
    found = [f for _ in range(2) if (f := bench_train.measure(None, bench_train.Amount(1, 40)))]  # what else the machine does is noise
    assert min(f["over_bare_loop"] for f in found) <= 0.03
    assert min(f["real_over_synthetic"] for f in found) <= 0.05
    assert max(f["loader_headroom"] for f in found) > 10
