"""Configurations: defaults, overrides, and one clear sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import settings, write

from scigpt.errors import UserError
from scigpt.train.config import differences, load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(settings([Path("a"), Path("b")], tmp_path / "run"), tmp_path / "config.yaml")


def test_defaults_values_and_overrides(file: Path) -> None:
    config = load(file, ["train.steps=500", "optim.lr=1e-4", "data.corpora.1.weight=2", "train.micro_batch=null", "optim.betas=[0.8,0.9]"])
    assert config.train.steps == 500
    assert config.train.checkpoint_every == 5
    assert config.train.precision == "fp32"
    assert config.optim.lr == 1e-4
    assert config.optim.betas == (0.8, 0.9)
    assert [c.weight for c in config.data.corpora] == [1.0, 2.0]
    assert config.data.corpora[0].valid == ["valid"]


def test_the_resolved_config_reads_back_as_itself(file: Path, tmp_path: Path) -> None:
    config = load(file, ["data.corpora.0.crop=[4,4]"])
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    assert load(tmp_path / "again.yaml") == config


def test_differences_name_what_changed(file: Path) -> None:
    old = load(file)
    assert differences(old, load(file, ["train.steps=30", "report.experiment=other", "run=elsewhere"])) == []
    harmless = ["train.validate_every=7", "train.keep=9", "train.micro_batch=2", "data.corpora.0.path=moved", "data.corpora.0.valid=[]"]
    assert differences(old, load(file, harmless)) == []
    new = load(file, ["train.steps=10", "data.corpora.1.weight=2"])
    assert differences(old, new) == ["data.corpora.1.weight: 1.0 -> 2.0", "train.steps: 20 -> 10"]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trian.steps=3", "unknown key trian; did you mean train?"),
        ("train.step=3", "unknown key train.step; did you mean steps?"),
        ("data.corpora.1.wieght=3", r"unknown key data.corpora\[1\].wieght; did you mean weight?"),
        ("model.qqq=1", "unknown key model.qqq; expected one of size, depth"),
        ("train.steps=many", "train.steps is 'many'; value 'many' of type 'str' could not be converted to Integer"),
        ("data.corpora.0.weight=heavy", r"data.corpora\[0\].weight is 'heavy'; value 'heavy' of type 'str' could not be"),
        ("train.precision=fp8", r"train.precision is 'fp8'; invalid value 'fp8', expected one of \['fp32', 'bf16'\]"),
        ("train.clip=-1", "train: clip is -1.0; expected a number above 0"),
        ("train.clip=nan", "train.clip is nan; expected a finite number"),
        ("guard.factor=inf", "guard.factor is inf; expected a finite number"),
        ("train.threads=99999", "train: threads is 99999; expected at most 1024"),
        ("train.hide_coefficients=2", "train: hide_coefficients is 2.0; expected a share between 0 and 1"),
        ("optim.lr=0", "optim: lr is 0.0; expected a number above 0"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("guard.factor=1", "guard: expected a factor above 1"),
        ("train=5", "train is 5; expected keys of TrainConfig"),
        ("data.corpora=all", "data.corpora is 'all'; expected a list of CorpusConfig"),
        ("steps", "'steps' is not an override; expected key=value"),
        ("data.corpora.7.weight=1", r"the override 'data.corpora.7.weight=1' cannot be applied to .*: list index out of range$"),
        ("data.corpora.0.valid=test", r"data.corpora\[0\].valid is 'test'; expected a list$"),
    ],
)
def test_mistakes_are_told_with_their_place(file: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load(file, [override])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    for content in (b"run: [", b"run: \xff\xfe"):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(UserError, match="is not valid YAML"):
            load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="expected keys of RunConfig"):
        load(tmp_path / "list.yaml")
    (tmp_path / "lacks.yaml").write_text("data: {corpora: [{weight: 1}]}\nrun: x")
    with pytest.raises(UserError, match=r"data\.corpora\[0\]\.path is missing"):
        load(tmp_path / "lacks.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(UserError, match="run is missing"):
        load(tmp_path / "empty.yaml")
