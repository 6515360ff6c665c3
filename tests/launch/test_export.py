"""`scigpt export` as a command: what it prints, the code it ends with, and `init` of what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import make_corpus, settings, write

from scigpt.launch.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toys`, `run`, and `c.yaml` that made it."""
    path = tmp_path_factory.mktemp("export")
    write(settings([make_corpus(path)], path / "run"), path / "c.yaml")
    assert code_of("pretrain", path / "c.yaml", "train.steps=2") in (0, None)
    return path


def code_of(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code


def test_what_is_exported_can_be_adapted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("export", folder / "run", "--format", "safetensors", "--out", tmp_path / "out") in (0, None)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: run, step 2, " in said
    assert "learned from toys; licences: CC0-1.0; to be credited: nobody" in said
    tuned = tmp_path / "tuned"
    config = settings([folder / "toys"], tuned, steps=2) | {"init": str(tmp_path / "out"), "adapt": {"mode": "lora", "rank": 2}}
    del config["model"]
    assert code_of("finetune", write(config, tmp_path / "tuned.yaml")) in (0, None)
    capsys.readouterr()
    assert code_of("export", tuned, "--out", tmp_path / "out", "--json") in (0, None)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["path"], facts["run"], facts["step"]) == (str(tmp_path / "out"), "tuned", 2)
    assert [c["run"] for c in facts["learned_from"]] == ["tuned", "run"]


def test_mistakes_are_one_sentence_and_code_2(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, sentence in (
        ((folder / "run", "--out", out, "--format", "gguf"), "--format gguf: a run is exported as safetensors, torch-export, onnx"),
        ((folder / "toys", "--out", out), "toys: has no complete checkpoint"),
        ((tmp_path / "nowhere", "--out", out), "nowhere: has no complete checkpoint"),
        ((folder / "run", "--out", folder / "toys"), "toys: is there and is not an export"),
        ((folder / "run", "--out", folder / "c.yaml"), "c.yaml: is there and is not an export"),
    ):
        assert code_of("export", *words) == 2
        printed, said = capsys.readouterr()
        assert (printed, said.count("\n")) == ("", 1)
        assert said.startswith("scigpt: ")
        assert sentence in said
    assert not out.exists()
    assert code_of("export", folder / "run") == 2
    assert "--out" in capsys.readouterr().err
