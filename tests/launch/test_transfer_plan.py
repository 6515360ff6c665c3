"""What a transfer study is made of, and the mistakes that are told before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import make_corpus
from transfers import make_poisson, settings, write

from scigpt.errors import UserError
from scigpt.launch.transfer.cells import Cell, some
from scigpt.launch.transfer.config import changed, load_transfer
from scigpt.launch.transfer.design import Design


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    make_poisson(folder, "near", train=8, low=1, high=5)
    make_poisson(folder, "far", train=4, low=5, high=10)
    make_corpus(folder, samples=10)
    return folder


def design(folder: Path, tmp: Path, *overrides: str, **more: Any) -> Design:
    file = write(settings(tmp, folder / "near", folder / "far", **more), tmp / "study.yaml")
    return Design(load_transfer(file, overrides), "study.yaml")


def test_cells_are_those_asked_for(folder: Path, tmp_path: Path) -> None:
    made = design(folder, tmp_path, seeds=2, modes=["full", "lora"], lora={"adapt.rank": 2})
    cells = made.study.cells
    (pretrain,) = some(cells, kind="pretrain")
    (zero,) = some(cells, kind="zero-shot")
    assert zero.parent == pretrain.id
    assert len(some(cells, kind="finetuned", mode="full")) == len(some(cells, kind="finetuned", mode="lora")) == 4
    assert len(some(cells, kind="scratch")) == len(some(cells, kind="fno")) == 4
    assert len({c.id for c in cells}) == len(cells) == 18
    (tuned,) = some(cells, kind="finetuned", mode="lora", examples=2, seed=1)
    (scratch,) = some(cells, kind="scratch", examples=2, seed=1)
    (fno,) = some(cells, kind="fno", examples=2, seed=1)
    assert tuned.config["init"] == pretrain.run
    assert tuned.parent == pretrain.id
    assert tuned.config["adapt"]["rank"] == 2
    assert scratch.config["init"] is None
    assert scratch.parent is None
    for cell in (tuned, scratch, fno):
        assert cell.config["data"]["corpora"] == [scratch.config["data"]["corpora"][0]]
        assert (cell.config["data"]["corpora"][0]["limit"], cell.config["train"]["steps"], cell.config["seed"]) == (2, 2, 1)
        assert cell.config["model"] | {"head": "point"} == scratch.config["model"]
    assert (tuned.config["optim"]["lr"], scratch.config["optim"]["lr"]) == (1e-3, 3e-3)
    assert tuned.flops == scratch.flops > 0
    told = made.summary()
    assert told["flops"] == sum(c.flops for c in cells)
    assert {k["kind"]: k["cells"] for k in told["kinds"]}["fno"] == 4


def ids(made: Design, **wanted: Any) -> list[str]:
    found: list[Cell] = some(made.study.cells, **wanted)
    return [c.id for c in found]


def test_ids_follow_what_decides_a_number(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    before = design(folder, tmp_path)
    moved = design(folder, tmp_path / "other", workers=2, report={"mlflow": True})
    assert ids(moved) == ids(before)
    rate = design(folder, tmp_path, scratch={"optim.lr": 1e-2})
    for kind, same in (("pretrain", True), ("zero-shot", True), ("finetuned", True), ("fno", True), ("scratch", False)):
        assert (ids(rate, kind=kind) == ids(before, kind=kind)) is same, kind
    longer = design(folder, tmp_path, "pretrain.train.steps=4")
    for kind, same in (("pretrain", False), ("zero-shot", False), ("finetuned", False), ("fno", True), ("scratch", True)):
        assert (ids(longer, kind=kind) == ids(before, kind=kind)) is same, kind


def test_leaving_one_out_pretrains_on_the_others(folder: Path, tmp_path: Path) -> None:
    near, far = str(folder / "near"), str(folder / "far")
    base = settings(tmp_path, folder / "near", folder / "far")["pretrain"]
    base["data"]["corpora"] = [{"path": near}, {"path": far}]
    made = design(folder, tmp_path, pretrain=base, tasks=[], leave_one_out=[near, far], fno=None)
    cells = made.study.cells
    assert len(some(cells, kind="pretrain")) == 2
    for name, other in (("near", far), ("far", near)):
        (before,) = some(cells, kind="pretrain", pretraining=f"without-{name}")
        assert [c["path"] for c in before.config["data"]["corpora"]] == [other]
        assert {c.parent for c in some(cells, kind="finetuned", task=name)} == {before.id}
    assert {c.task for c in cells if c.task} == {"near", "far"}


def test_changes_reach_any_depth() -> None:
    data = {"train": {"steps": 1, "clip": 1.0}, "seed": 0}
    assert changed(data, {"train.steps": 5, "seed": 2}, "") == {"train": {"steps": 5, "clip": 1.0}, "seed": 2}
    assert changed(data, {"train": {"clip": 2.0}}, "") == {"train": {"steps": 1, "clip": 2.0}, "seed": 0}
    assert data["seed"] == 0
    with pytest.raises(UserError, match=r"seed\.x leads through seed"):
        changed(data, {"seed.x": 1}, "f")


MISTAKES = {
    "examples asks for 64": {"examples": [2, 64]},
    "different numbers of records": {"examples": [2, 2]},
    "there is nothing to transfer": {"tasks": [{"name": "toys", "corpus": "FOLDER/toys", "test": "valid"}], "fno": None},
    "no records in a split 'ood'": {"tasks": [{"name": "far", "corpus": "FOLDER/far", "test": "ood"}]},
    "is scored and trained": {"tasks": [{"name": "far", "corpus": "FOLDER/far", "test": "train"}]},
    "FOLDER/none": {"tasks": [{"name": "far", "corpus": "FOLDER/none"}]},
    "two tasks are named 'far'": {"tasks": [{"name": "far", "corpus": "FOLDER/far"}] * 2},
    "both must learn equally long": {"scratch": {"train.steps": 9}},
    "either pretrain": {"init": "FOLDER/run"},
    "no run with a complete checkpoint": {"init": "FOLDER/none", "pretrain": None},
    "did you mean steps": {"finetune": {"train.step": 5}},
    "did you mean examples": {"exampels": [2]},
    "modes is": {"modes": ["half"]},
    "is none of the corpora of pretrain": {"leave_one_out": ["FOLDER/far"]},
    "without FOLDER/near pretrain has no corpus": {"leave_one_out": ["FOLDER/near"]},
}


@pytest.mark.parametrize("told", MISTAKES)
def test_mistakes_are_told_in_a_sentence(told: str, folder: Path, tmp_path: Path) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("FOLDER", str(folder))
        if isinstance(value, list):
            return [filled(v) for v in value]
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

    with pytest.raises(UserError) as error:
        design(folder, tmp_path, **filled(MISTAKES[told]))
    assert filled(told) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "study").exists()
