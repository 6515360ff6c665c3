"""The model card tells what the run recorded, and its code works."""

from __future__ import annotations

import copy
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml
from runs import make_corpus, settings, write

from scigpt.data.corpus import Corpus
from scigpt.evaluate.evaluate import evaluate
from scigpt.evaluate.plan import Options
from scigpt.export import weights
from scigpt.export.card import hub_licence, model_card
from scigpt.export.datasets import to_dataset
from scigpt.export.folder import CARD, WEIGHTS, Exported
from scigpt.train.config import load
from scigpt.train.engine import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, evaluated, and `out`, its export."""
    path = tmp_path_factory.mktemp("card")
    train(load(write(settings([make_corpus(path)], path / "run", steps=10), path / "run.yaml")))
    evaluate(path / "run", options=Options(windows=4, rollouts=2, steps=3), progress=False)
    weights.write(path / "run", path / "out")
    return path


@pytest.fixture
def facts(folder: Path) -> dict[str, Any]:
    return copy.deepcopy(dict(Exported.open(folder / "out").facts))


def front(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?\n)---\n\n# ", card, re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1])


def rows(card: str, title: str) -> list[list[str]]:
    """Cells of the first table after a title."""
    lines = card[card.index(f"# {title}\n") :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert {len(row) for row in found} == {len(found[0])}
    return found[2:]


def test_it_tells_what_was_recorded(folder: Path, facts: dict[str, Any]) -> None:
    card = (folder / "out" / CARD).read_text()
    assert front(card) == {"license": "cc0-1.0", "library_name": "scigpt", "tags": ["scigpt", "physics", "forecast"]}
    domain = Exported.open(folder / "out").domains[0]
    (variable,) = rows(card, "toys")
    assert variable[:5] == ["concentration", "1", "state", "", "identity"]
    scales = domain.scales
    told = [scales.center[0], scales.scale[0], scales.increment[0] * scales.scale[0]]
    assert [float(cell) for cell in variable[5:]] == pytest.approx(told, rel=1e-4)
    for line in (
        "- grid (Z, Y, X): 1 x 8 x 8, geometry plane",
        "- boundary: z: periodic / periodic; y: periodic / periodic; x: periodic / periodic",
        "- time: step 0.1, simulated",
        "- window: 4 frames, the predicted one included; patch 4",
        "- coefficient viscosity: 0.1 to 2",
        "- licences: CC0-1.0 (https://creativecommons.org/publicdomain/zero/1.0/)",
        "- to be credited: nobody",
        "- Its head predicts one value and says nothing of its uncertainty.",
    ):
        assert line in card.splitlines()
    parameters = sum(p.numel() for p in Exported.open(folder / "out").model().parameters())
    assert f"({parameters / 1e3:.3g} thousand parameters, depth 1, width 32, head point)" in card
    training = dict(rows(card, "Training"))
    assert training["windows seen"] == f"{facts['training']['data']['samples']}"
    assert (training["seed"], training["made with scigpt"]) == ("0", facts["code_version"])
    assert rows(card, "Files") == [[WEIGHTS, f"{(folder / 'out' / WEIGHTS).stat().st_size:,}", facts["files"][WEIGHTS]["sha256"]]]


def test_scores_stand_beside_the_baseline(folder: Path, facts: dict[str, Any]) -> None:
    results = yaml.safe_load((folder / "run" / "card" / "results.json").read_text())
    (split,) = results["corpora"][0]["splits"]
    found = rows((folder / "out" / CARD).read_text(), "Evaluation")
    assert [row[:4] for row in found] == [["toys", "valid", "in", "next frame"], ["toys", "valid", "in", "steps 1-3"]]
    for row, summary in zip(found, (split["summary"], split["rollout"]["summary"]["1-3"]), strict=True):
        assert float(row[4]) == pytest.approx(summary["vrmse"]["model"], rel=5e-3)
        assert row[5] == summary["best_baseline"]
        assert float(row[6]) == pytest.approx(summary["vrmse"][row[5]], rel=5e-3)
        verdict = {"even": "even", "better": "better", "worse": "worse"}[summary["verdict"]]
        assert row[8].endswith(verdict)
    later = copy.deepcopy(results)
    later["corpora"][0]["splits"][0] |= {"rollout": None}
    assert len(rows(model_card(facts, later), "Evaluation")) == 1
    assert "has not been evaluated" in model_card(facts, None)


def test_an_evaluation_of_another_checkpoint_is_not_told(folder: Path, tmp_path: Path) -> None:
    first = min((folder / "run" / "checkpoints").iterdir())
    card = (weights.write(first, tmp_path / "out") / CARD).read_text()
    assert f"checkpoint {first.name} (step 5 of 10)" in card
    assert "has not been evaluated" in card


def code(card: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return found


def ran(card: str, where: Path) -> dict[str, Any]:
    """The names that the code of a card makes."""
    (where / "card.py").write_text(code(card))
    return runpy.run_path(str(where / "card.py"))


def place(folder: Path, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code of the card supposes."""
    link = where / "path" / "of" / "this" / "folder"
    link.parent.mkdir(parents=True)
    link.symlink_to(folder / "out")
    to_dataset(Corpus.open(folder / "toys").read("valid", 0, slice(0, 3))).to_netcdf(where / "states.nc")
    monkeypatch.chdir(where)


def test_its_code_forecasts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(folder, tmp_path, monkeypatch)
    forecast = ran((folder / "out" / CARD).read_text(), tmp_path)["forecast"]
    assert isinstance(forecast, xr.Dataset)
    assert forecast["concentration"].shape == (4, 8, 8)
    assert bool(forecast["concentration"].notnull().all())


def test_another_task_is_loaded_as_a_module(folder: Path, facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(folder, tmp_path, monkeypatch)
    model = ran(model_card(facts | {"task": {"name": "super-resolution"}}, None), tmp_path)["model"]
    assert sum(p.numel() for p in model.parameters()) > 0
    assert not model.training


@pytest.mark.parametrize(
    ("licences", "name"),
    [
        (["CC0-1.0"], "cc0-1.0"),
        (["CC-BY-4.0", "CC0-1.0"], "cc-by-4.0"),
        (["CC-BY-4.0", "CC-BY-SA-4.0"], "cc-by-sa-4.0"),
        (["CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"], "cc-by-nc-4.0"),
        (["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"], "cc-by-nc-sa-4.0"),
        (["CC-BY-NC-4.0", "CC-BY-SA-4.0"], "other"),  # each forbids what the other asks for
        (["CC-BY-ND-4.0"], "other"),
        (["CC0-1.0", "OGL-UK-3.0"], "other"),
        ([], "other"),
    ],
)
def test_the_hub_is_told_no_licence_that_is_freer_than_the_data(licences: Sequence[str], name: str) -> None:
    assert hub_licence(licences) == name


def test_what_is_not_known_or_not_allowed_is_said(facts: dict[str, Any]) -> None:
    facts["learned_from"].append({**facts["learned_from"][0], "name": "survey", "licences": ["by-agreement"], "redistributable": False})
    facts |= {"unknown": ["elder"], "redistributable": False}
    card = model_card(facts, None)
    assert front(card)["license"] == "other"  # not CC0, which is all that `licences` names
    assert front(card)["license_link"] == CARD
    assert "- not to be redistributed: the data of survey" in card
    assert "- not known: the licences of the data of elder" in card
    assert "Not known: the data of elder," in card
    assert [row[:3] for row in rows(card, "Training")][-1][0] == "made with scigpt"


def test_what_others_wrote_cannot_leave_its_place(facts: dict[str, Any]) -> None:
    odd = "a | b\n## Licences\n<script>alert(1)</script> [x](y) `c` m**2"
    facts |= {"run": odd, "attributions": [odd], "licences": [odd]}
    facts["domains"][0]["name"] = facts["domains"][0]["layout"]["variables"][0]["unit"] = odd
    facts["learned_from"][0] |= {"name": odd, "run": odd, "licences": [odd]}
    card = model_card(facts, None)
    assert front(card)["license"] == "other"
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == [
        f"## {t}" for t in ("Domains", "Use", "Training", "Evaluation", "Licences and attributions of the data", "Limits", "Files")
    ]
    outside = re.sub(r"```python\n.*?```", "", card, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script", outside)
    assert len(rows(card, "Files")) == 1
    compile(code(card), "card", "exec")


def test_a_run_that_recorded_little_has_a_card(facts: dict[str, Any]) -> None:
    card = model_card(facts | {"training": {}, "code_version": None}, None)
    assert "(step 10)" in card
    assert rows(card, "Training") == [["made with scigpt", "an unknown version"]]
