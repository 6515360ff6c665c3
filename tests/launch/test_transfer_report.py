"""The report of a study whose errors obey known laws: it finds them, shows them and tells MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scigpt.data.files import dump_json
from scigpt.launch.transfer.cells import SCORE, Cell, Study
from scigpt.launch.transfer.outcome import TABLES, outcome
from scigpt.launch.transfer.report import report
from scigpt.scaling.transfer import Table
from scigpt.train.report import ReportConfig

EXAMPLES, SEEDS = (16, 32, 64, 128, 256, 512), 3
TASKS = [{"name": "e 5-10", "distance": "mild"}, {"name": "e 10-20", "distance": "strong"}]
WORTH = 9.0
"""Times as many examples from scratch, of the first task; the second crosses at 128 examples."""


def error(kind: str, task: int, n: int) -> float:
    """Of the first task 9 n examples from scratch do what n do after pretraining; of the second the curves meet."""
    scratch = 0.01 + 2.0 * n**-0.5
    if kind == "finetuned":
        return 0.01 + 2.0 * (WORTH * n) ** -0.5 if task == 0 else 0.01 + 2.0 * 128**-0.25 * n**-0.25
    return scratch if kind == "scratch" else 3 * scratch


def known_study(folder: Path) -> Study:
    generator, cells = np.random.default_rng(0), []
    for t, task in enumerate(TASKS):
        for kind, n, seed in [
            ("zero-shot", 0, 0),
            *((k, n, s) for k in ("finetuned", "scratch", "fno") for n in EXAMPLES for s in range(SEEDS)),
        ]:
            id = f"{len(cells):012x}"
            mode = "full" if kind == "finetuned" else None
            cell = Cell(id, kind, f"{kind} {n}", str(folder / "runs" / id), {}, 10, task["name"], n, seed, mode)  # type: ignore[arg-type]
            vrmse = 0.4 * (t + 1) if kind == "zero-shot" else error(kind, t, n) * float(np.exp(generator.normal(0, 0.01)))
            score: dict[str, Any] = {"id": id, "kind": kind, "task": task["name"], "mode": mode, "examples": n, "seed": seed, "flops": 10}
            score |= {"status": "finished", "vrmse": vrmse, "vrmse_median": vrmse, "relative_l2": vrmse / 2, "windows": 9, "diverged": 0}
            score |= {} if kind == "zero-shot" else {"parameters": 1000, "trained_parameters": 500, "steps": 7, "seconds": 2.0}
            Path(cell.run).mkdir(parents=True)
            (Path(cell.run) / SCORE).write_bytes(dump_json(score))
            cells.append(cell)
    missing = Cell("f" * 12, "scratch", "missing", str(folder / "runs" / "missing"), {}, 10, TASKS[0]["name"], 16, 3)
    book = folder / "cells" / missing.id
    book.mkdir(parents=True)
    (book / "mistake.txt").write_text("it fell down <here>\n")
    study = Study(folder, (*cells, missing))
    study.write()
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return known_study(tmp_path_factory.mktemp("study") / "poisson")


def test_it_finds_what_pretraining_is_worth(study: Study) -> None:
    found = outcome(study, TASKS, 50)
    near, far = found["tasks"]
    assert (found["done"], found["cells"], found["seeds"]) == (110, 111, 3)
    assert [t["zero_shot"]["vrmse"] for t in found["tasks"]] == [0.4, 0.8]
    for point, n in zip(near["curves"]["from scratch"], EXAMPLES, strict=True):
        assert point["examples"] == n
        assert point["vrmse"]["low"] < point["vrmse"]["value"] < point["vrmse"]["high"]
        assert point["vrmse"]["value"] == pytest.approx(error("scratch", 0, n), rel=0.03)
    for worth in near["transfer"]["fine-tuned"]["effective"]:
        if not worth["extrapolated"]:
            assert worth["multiplier"]["value"] == pytest.approx(WORTH, rel=0.25)
    assert near["transfer"]["fine-tuned"]["crossing"]["value"] is None
    assert near["helps_until"]["fine-tuned"] == 512
    assert far["transfer"]["fine-tuned"]["crossing"]["value"] == pytest.approx(128, rel=0.3)
    assert far["helps_until"]["fine-tuned"] in (64, 128)
    for row in near["ratios"]["fine-tuned"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["value"] == pytest.approx(error("finetuned", 0, row["examples"]) / error("scratch", 0, row["examples"]), rel=0.04)
    assert {m["method"]: m["trained"] for m in found["methods"]} == {"fine-tuned": 500, "from scratch": 500, "FNO": 500}
    assert found["failures"] == [{"id": "f" * 12, "name": "missing", "reason": "it fell down <here>"}]
    assert "from scratch over that of fine-tuning is" in " ".join(found["summary"])

    table = Table.read(study.folder / TABLES / "e-5-10-fine-tuned.csv")
    assert len(table.scratch["loss"]) == len(table.finetuned["loss"]) == len(EXAMPLES) * SEEDS
    assert (study.folder / "table.csv").read_text().count("\n") == 1 + 110


def test_few_numbers_of_examples_have_no_curve(study: Study) -> None:
    cells = tuple(c for c in study.cells if c.examples in (0, 16, 32))
    found = outcome(Study(study.folder, cells), TASKS, 50)
    assert found["tasks"][0]["transfer"]["fine-tuned"] == {"reason": "a curve needs 3 numbers of examples, and there are 2"}


def test_the_page_tells_all(study: Study) -> None:
    found = report(study, TASKS, {"Pretrained": "corpora/poisson-1-5"}, ["a note"], ReportConfig(mlflow=False), 50)
    page = Path(found["report"]).read_text()
    assert page.count("data:image/png;base64,") == len(found["pictures"]) == 4
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in found["pictures"])
    told = ["e 5-10", "zero-shot", "a note", "it fell down &lt;here&gt;", "1 cells are missing", "FNO", "corpora/poisson-1-5"]
    for words in (*told, found["summary"][0]):
        assert words in page, words
    saved = json.loads((study.folder / "report" / "outcome.json").read_text())
    assert saved["tasks"] == found["tasks"]


def test_mlflow_has_a_run_for_each_cell(study: Study) -> None:
    from mlflow.tracking import MlflowClient

    few = Study(study.folder, tuple(c for c in study.cells if c.examples == 16 and c.seed == 0))
    found = report(few, TASKS, {}, [], ReportConfig(experiment="studies"), 50)
    client = MlflowClient(f"sqlite:///{study.folder / 'mlflow.db'}")
    runs = json.loads((study.folder / "mlflow.json").read_text())["runs"]
    assert set(runs) == {"study", *(c.id for c in few.cells)}
    parent, one = client.get_run(runs["study"]), client.get_run(runs[few.cells[0].id])
    assert one.data.tags["mlflow.parentRunId"] == runs["study"]
    assert one.data.params["kind"] == "finetuned"
    assert one.data.metrics["vrmse"] == pytest.approx(error("finetuned", 0, 16), rel=0.05)
    assert parent.data.metrics["e 5-10/fine-tuned/16/ratio"] == pytest.approx(found["tasks"][0]["ratios"]["fine-tuned"][0]["value"])
    assert "report/index.html" in {f.path for f in client.list_artifacts(runs["study"], "report")}
    report(few, TASKS, {}, [], ReportConfig(experiment="studies"), 50)
    assert json.loads((study.folder / "mlflow.json").read_text())["runs"] == runs
