"""`scigpt pretrain` as a command: what it prints and the code it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runs import make_corpus, settings, write

from scigpt.launch.cli import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("pretrain"))


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(["pretrain", *arguments])
    return left.value.code


def test_json_is_the_only_thing_on_stdout(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(settings([corpus], tmp_path / "run"), tmp_path / "c.yaml")
    assert code_of(str(file), "train.steps=3", "--json") in (0, None)
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["status"], summary["step"], summary["steps"]) == ("finished", 3, 3)
    assert Path(summary["checkpoint"]).is_dir()
    assert "loss" in err


def test_text_for_people(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(settings([corpus], tmp_path / "run"), tmp_path / "c.yaml")
    assert code_of(str(file), "train.steps=2") in (0, None)
    out = capsys.readouterr().out
    assert f"{tmp_path / 'run'}: finished at step 2 of 2" in out
    assert "toys: loss" in out


def test_mistakes_are_one_sentence_and_code_2(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(settings([corpus], tmp_path / "run"), tmp_path / "c.yaml")
    for arguments, sentence in (
        ((str(tmp_path / "none.yaml"),), "cannot be read"),
        ((str(file), "trian.steps=3"), "did you mean train?"),
        ((str(file), "data.corpora.0.path=nowhere"), "there is no such folder"),
        ((str(file), "data.frames=99"), "a window of 99 frames"),
    ):
        assert code_of(*arguments) == 2
        err = capsys.readouterr().err
        assert sentence in err
        assert "Traceback" not in err


def test_a_run_says_that_it_trains_on_what_another_corpus_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpora = [make_corpus(tmp_path, "one"), make_corpus(tmp_path, "two", seed=5)]  # the held-out sample 14 of two is one of one's
    config = write(settings(corpora, tmp_path / "run", steps=1, validate_every=1), tmp_path / "c.yaml")
    assert code_of(str(config)) in (0, None)
    told = capsys.readouterr().err
    assert f"{corpora[0]}, split train, sample 000014 and {corpora[1]}, split valid, sample 000009 hold the same values" in told
