"""`scigpt plan` as a command: its numbers are those of the run, and what it proposes fits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config, lines, make_corpus, settings, write
from toy import ToySource, smooth_sample

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.launch.cli import main
from scigpt.launch.plan import Hardware, Planner
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Piece
from scigpt.train.config import load
from scigpt.train.engine import train

GPU = ("--peak", "100", "--memory", "80")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("plan")
    return [make_corpus(folder), make_corpus(folder, "wide", size=12, seed=100)]


@pytest.fixture
def file(corpora: list[Path], tmp_path: Path) -> Path:
    """A run whose groups hold many windows: 1,024 and 455."""
    data = settings(corpora, tmp_path / "run", steps=64)
    data["data"]["tokens"] = 12288
    return write(data, tmp_path / "c.yaml")


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str, int]:
    """What it prints, what it says, and its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["plan", *arguments, "--json"])
    out, err = capsys.readouterr()
    return json.loads(out) if out else {}, err, int(left.value.code or 0)


def test_a_run_costs_what_was_planned(corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = config(corpora, tmp_path / "run", steps=64, validate_every=64)
    found, _, code = plan(capsys, str(tmp_path / "run.yaml"), *GPU, "--mfu", "0.5")
    assert code == 0
    assert not (tmp_path / "run").exists()
    summary = train(asked)
    metrics = lines(tmp_path / "run")
    assert found["model"]["parameters"] == sum(found["model"]["by_part"].values()) == summary["parameters"]
    assert found["total"]["tokens"] == pytest.approx(sum(m["tokens"] for m in metrics))
    assert found["total"]["flops"] == pytest.approx(sum(m["flops"] for m in metrics))
    assert found["step"]["seconds"] == pytest.approx(found["step"]["flops"] / (100e12 * 0.5))
    assert found["total"]["device_hours"] == pytest.approx(64 * found["step"]["seconds"] / 3600)
    seen = {c["name"]: c["epochs"] for c in found["corpora"]}
    groups = [g for line in lines(tmp_path / "run", "ledger/groups.jsonl") for g in line["groups"]]
    for name, epochs in seen.items():
        last = max(item[4] for g in groups if g["corpus"] == name for item in g["items"])
        assert last <= epochs <= last + 1


def test_each_strategy_has_its_row(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _, _ = plan(capsys, str(file), *GPU, "strategy=hsdp", "strategy.shard=2", "--processes", "4")
    rows = found["memory"]
    assert list(rows) == ["ddp", "hsdp", "fsdp2", "zero-1", "zero-2", "zero-3"]
    states = {name: row["parameters"] + row["gradients"] + row["optimizer"] for name, row in rows.items()}
    assert states["ddp"] > states["zero-1"] > states["zero-2"] > states["fsdp2"]
    assert states["ddp"] > states["hsdp"] > states["fsdp2"]
    parts = ("parameters", "gradients", "optimizer", "buffers", "activations", "temporary")
    assert all(row["total"] == sum(row[p] for p in parts) and row["fits"] for row in rows.values())
    hidden, _, _ = plan(capsys, str(file), *GPU, "strategy=deepspeed", "strategy.offload=true", "--processes", "4")
    assert hidden["memory"]["zero-1"]["host"] == rows["zero-1"]["optimizer"]


def test_recomputation_costs_a_third_more_time_and_less_memory(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, _, _ = plan(capsys, str(file), *GPU, "model.depth=6")
    again, _, _ = plan(capsys, str(file), *GPU, "model.depth=6", "train.activation_checkpointing=true")
    assert again["memory"]["single"]["activations"] < 0.5 * kept["memory"]["single"]["activations"]
    assert again["step"]["seconds"] == pytest.approx(4 / 3 * kept["step"]["seconds"])
    assert again["step"]["flops"] == kept["step"]["flops"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[str]]:
    """The sentence, and the words it proposes; these are tried."""
    found, said, code = plan(capsys, *arguments)
    assert code == 2
    assert "Traceback" not in said
    assert found["refusal"] in said
    words = found["refusal"].partition("the nearest that fits: ")[2].split()
    assert words, said
    again, said, code = plan(capsys, *arguments, *words)
    assert code == 0, said
    assert again["refusal"] is None
    return found["refusal"], words


def test_what_cannot_fit_is_refused_with_the_least_change(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer windows in a pass, then blocks computed again, then more processes, then a smaller model."""
    need = plan(capsys, str(file), *GPU)[0]["memory"]["single"]
    passes = need["activations"] + need["temporary"]
    state = need["total"] - passes

    def memory(wanted: float) -> tuple[str, ...]:
        return ("--peak", "100", "--memory", str(wanted / 0.9 / 2**30))

    sentence, words = refused(capsys, str(file), *memory(state + passes / 3))
    assert re.search(r"single on 1 x device needs [\d.]+ GiB .* for activations \(a pass of \d+ windows of (toys|wide)\)", sentence)
    assert len(words) == 1
    most = int(words[0].removeprefix("train.micro_batch="))
    assert plan(capsys, str(file), *memory(state + passes / 3), f"train.micro_batch={most + 1}")[2] == 2

    wide = ("model.width=768", "model.depth=4", "train.micro_batch=1")
    big = plan(capsys, str(file), *wide, *GPU)[0]["memory"]["single"]
    _, words = refused(capsys, str(file), *wide, *memory(0.75 * big["total"]))
    assert words[0] == "strategy=fsdp2"
    assert words[1] in ("strategy.processes=2", "strategy.processes=4")
    _, words = refused(capsys, str(file), *wide, *memory(0.1 * big["total"]))
    assert words[0].startswith("model.size=")


def test_more_processes_are_said_as_the_user_said_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = ("model.width=768", "model.depth=4", "train.micro_batch=1", "strategy=ddp")
    big = plan(capsys, str(file), *wide, *GPU, "--processes", "2")[0]["memory"]["ddp"]
    memory = ("--peak", "100", "--memory", str(0.45 * big["total"] / 0.9 / 2**30))
    found, _, _ = plan(capsys, str(file), *wide, *memory, "--processes", "2")
    words = found["refusal"].partition("the nearest that fits: ")[2]
    assert words.startswith("strategy=fsdp2")
    again, said, code = plan(capsys, str(file), *wide, *memory, "--processes", "2", *words.split())
    assert code == 0, said
    assert again["strategy"] == "fsdp2"


def test_nothing_fits_a_device_of_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said, code = plan(capsys, str(file), "--peak", "1", "--memory", "0.00001", "train.micro_batch=1")
    assert code == 2
    assert "nothing smaller that was tried fits" in found["refusal"]
    assert "Traceback" not in said


def test_mistakes_are_one_sentence_and_code_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (("--device", "h10"), "did you mean h100?"),
        (("--peak", "100"), "give --memory GIB too"),
        (("strategy=fsdp2", *GPU), "give --processes N"),
        (("--processes", "2", *GPU), "set strategy to ddp"),
        (("data.data_width=3", "strategy=ddp", "--processes", "2", *GPU), "cannot share groups made for data_width=3"),
    ):
        found, said, code = plan(capsys, str(file), *arguments)
        assert (found, code) == ({}, 2)
        assert sentence in said
        assert "Traceback" not in said


def test_text_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan", str(file), "strategy=ddp", "strategy.processes=2", "train.precision=bf16", "--device", "h100"])
    out = capsys.readouterr().out
    assert left.value.code in (0, None)
    assert "2 x h100: 989 TFLOP/s, 71.2 GiB usable each" in out
    assert re.search(r"^ddp\* ", out, re.M)
    assert re.search(r"^64 steps: .* device-hours, at 35% of the peak$", out, re.M)


def test_without_a_device_it_is_this_machine(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _, code = plan(capsys, str(file))
    assert code == 0
    assert found["device"]["name"] == "this machine's CPU"
    assert 1e9 < found["device"]["peak"] < 1e14


@pytest.fixture(scope="module")
def start(corpora: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained run, of one step."""
    run = tmp_path_factory.mktemp("start") / "pretrained"
    train(config(corpora[:1], run, steps=1, validate_every=1))
    return run


@pytest.mark.parametrize("mode", [*(pytest.param(m, marks=pytest.mark.drill) for m in ("full", "frozen")), "lora"])
def test_a_run_with_init(start: Path, corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    """Size and shape are those of `init`, and gradients and optimizer are of what is trained."""
    data = settings(corpora, tmp_path / "run", steps=2, validate_every=2)
    data |= {"init": str(start), "adapt": {"mode": mode, "rank": 2}}
    del data["model"]
    file = write(data, tmp_path / "c.yaml")
    found, _, code = plan(capsys, str(file), *GPU)
    assert code == 0
    assert (found["model"]["depth"], found["model"]["width"], found["model"]["heads"]) == (1, 32, 1)
    need = found["memory"]["single"]
    assert (need["gradients"], need["optimizer"]) == (4 * found["model"]["trained"], 8 * found["model"]["trained"])
    assert need["parameters"] == 4 * found["model"]["parameters"]
    made = Planner(load(file), Hardware("device", 1e14, 2**36, 0.35), "--processes {}").need(load(file), 1)
    assert made.total == need["total"]
    summary = train(load(file))
    assert (found["model"]["trained"], found["model"]["parameters"]) == (summary["trained_parameters"], summary["parameters"])
    assert (found["model"]["trained"] < found["model"]["parameters"]) == (mode != "full")
    with pytest.raises(SystemExit):
        main(["plan", str(file), *GPU])
    assert ("of them trained" in capsys.readouterr().out) == (mode != "full")


def test_a_run_with_init_that_cannot_fit_keeps_its_size(file: Path, start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = f"init={start}"
    need = plan(capsys, str(file), init, *GPU)[0]["memory"]["single"]
    memory = ("--peak", "100", "--memory", str(0.4 * need["total"] / 0.9 / 2**30))
    _, words = refused(capsys, str(file), init, *memory)
    assert not any(word.startswith("model.") for word in words)


class Weather(ToySource):
    """Five variables on 128 x 256 points."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield smooth_sample(ref.spec["seed"], self.options.frames, (1, 128, 256), ("t", "u", "v", "z", "q"))


def base(folder: Path, corpus: Path) -> Path:
    """A checkpoint of a model of the size base. Of its parameters a plan asks names and shapes only: they are zeros of one byte."""
    vocabulary, shape, step = Vocabulary.from_corpora([Corpus.open(corpus)]), ModelConfig(size="base"), folder / "step-00000001"
    with torch.device("meta"):
        model = SciGPT(shape, vocabulary)
    temporary = folder / "step-00000001.tmp"
    temporary.mkdir()
    pieces = (Piece("model", name, tuple(p.shape), 0, torch.zeros(p.numel(), dtype=torch.int8)) for name, p in model.named_parameters())
    part = checkpoint.write_pieces(temporary, pieces, 0, 1)
    state = {"step": 1, "config": {"model": asdict(shape)}, "vocabulary": vocabulary.to_json()}
    checkpoint.complete(temporary, step, [part], state)
    return step


def test_the_recipe_for_16_gb_fits(corpora: list[Path], tmp_path: Path) -> None:
    """What its first lines say is what is predicted."""
    corpus = convert(Weather(options=Weather.Options(samples=10, frames=8)), tmp_path / "weather", progress=False)
    recipe = Path(__file__).parents[2] / "configs" / "finetune-base-16gb.yaml"
    said = dict(re.findall(r"^#   (\S.*?) {2,}([\d.]+)(?: GiB|,|$)", recipe.read_text(), re.M))
    assert len(said) == 4
    given = (f"init={base(tmp_path, corpora[0])}", f"data.corpora.0.path={corpus}")
    machine = Hardware("16 GB", 1e14, 16 * 2**30, 0.35)
    for words, gib in said.items():
        planner = Planner(load(recipe, (*given, *(w for w in words.split() if "=" in w))), machine, "--processes {}")
        assert planner.config.model.resolved() == (13, 768, 6)
        need = planner.need(planner.config, 1)
        assert need.total <= 0.9 * 16 * 2**30
        assert need.total / 2**30 == pytest.approx(float(gib), abs=0.1)
        assert (planner.trained()[0] < 0.03 * planner.trained()[1]) == (planner.config.adapt.mode == "lora")
