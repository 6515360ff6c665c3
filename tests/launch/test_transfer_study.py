"""A whole small study: every kind of cell, one that cannot be done, and a study that is killed and begun again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transfers import make_poisson, settings, write

from scigpt.launch.cli import main
from scigpt.launch.transfer.cells import LEASE, SCORE, Study, some
from scigpt.launch.transfer.config import load_transfer
from scigpt.launch.transfer.design import Design
from scigpt.launch.transfer.worker import work
from scigpt.train.preempt import Preemption


def start(file: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scigpt.launch.cli", "transfer", str(file), *words]
    with open(file.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[str], file: Path, code: int) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    logs = "\n".join(p.read_text()[-2000:] for p in (file.parent / "study" / "logs").glob("*.txt"))
    assert process.returncode == code, f"{file.with_suffix('.log').read_text()[-2000:]}\n{logs}"
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    make_poisson(folder, "near", train=8, low=1, high=5)
    make_poisson(folder, "far", train=4, low=5, high=10)
    return folder


def do(study: Study) -> None:
    with Preemption() as stop:
        assert work(study, stop) == 0


def scores(study: Study) -> dict[str, dict[str, Any]]:
    return {c.id: json.loads((Path(c.run) / SCORE).read_text()) for c in study.cells if c.kind != "pretrain"}


def test_every_cell_gets_its_score(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = settings(tmp_path, folder / "near", folder / "far", modes=["full", "frozen"])
    file = write(given, tmp_path / "study.yaml")
    study = Design(load_transfer(file), "study.yaml").study
    study.write()
    # a cell that cannot be done does not stop the others
    broken = next(c for c in study.cells if c.kind == "scratch")
    Path(broken.run).mkdir(parents=True)
    (Path(broken.run) / "strange.txt").write_text("")
    do(study)
    (failure,) = study.mistakes()
    assert failure["id"] == broken.id
    assert "is not empty" in failure["reason"]
    assert {state for id, state in study.states().items() if id != broken.id} == {"done"}
    done = {p: p.stat().st_mtime_ns for p in Path(study.folder).glob(f"runs/*/{SCORE}")}

    (Path(broken.run) / "strange.txt").unlink()
    study.forgive()
    do(study)
    assert set(study.states().values()) == {"done"}
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())  # what was done was not done again
    assert not list(study.folder.glob(f"cells/*/{LEASE}"))
    assert not list(study.folder.glob("runs/*/checkpoints"))
    found = scores(study)
    for cell in some(study.cells, mode="full") + some(study.cells, kind="scratch"):
        about = found[cell.id]
        assert (about["windows"], about["steps"]) == (3, 2)
        assert about["trained_parameters"] == about["parameters"]
    for cell in some(study.cells, mode="frozen"):
        assert found[cell.id]["trained_parameters"] < found[cell.id]["parameters"]
    (zero,) = some(study.cells, kind="zero-shot")
    assert len({round(f["vrmse"], 9) for f in found.values()}) == len(found)  # no two are the same model

    with pytest.raises(SystemExit) as ended:
        main(["transfer", str(file), "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["done"] == told["cells"] == len(study.cells)
    (task,) = told["tasks"]
    assert task["zero_shot"]["vrmse"] == found[zero.id]["vrmse"]
    assert list(task["curves"]) == ["fine-tuned (frozen)", "fine-tuned (full)", "from scratch", "FNO"]
    assert all(p["seeds"] == 1 and p["vrmse"]["value"] > 0 for points in task["curves"].values() for p in points)

    # the pretrained run as it is there gives the same numbers
    other = write(
        given | {"study": str(tmp_path / "there"), "pretrain": None, "init": str(study.folder / "pretrain")}, tmp_path / "there.yaml"
    )
    there = Design(load_transfer(other), "there.yaml").study
    assert not some(there.cells, kind="pretrain")
    assert {c.id for c in some(there.cells, kind="fno")} == {c.id for c in some(study.cells, kind="fno")}
    few = Study(there.folder, tuple(c for c in there.cells if c.kind == "zero-shot" or (c.mode == "full" and c.examples == 2)))
    few.write()
    do(few)
    for cell in few.cells:
        (same,) = some(study.cells, kind=cell.kind, mode=cell.mode, examples=cell.examples)
        assert scores(few)[cell.id]["vrmse"] == found[same.id]["vrmse"]


@pytest.mark.drill
def test_a_killed_study_goes_on(folder: Path, tmp_path: Path) -> None:
    file, place = write(settings(tmp_path, folder / "near", folder / "far"), tmp_path / "study.yaml"), tmp_path / "study"
    process, limit = start(file), time.monotonic() + 60
    while len(list(place.glob(f"runs/*/{SCORE}"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    study = Study.read(place)
    done = {p: p.stat().st_mtime_ns for p in place.glob(f"runs/*/{SCORE}")}
    assert 2 <= len(done) < len(study.cells) - 1

    process, limit = start(file), time.monotonic() + 60
    while len(list(place.glob(f"runs/*/{SCORE}"))) < len(done) + 1 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert process.returncode == 75
    found = finish(start(file, "workers=2", "--json"), file, 0)
    assert found["done"] == found["cells"]
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())

    other = write(settings(tmp_path, folder / "near", folder / "far", study=str(tmp_path / "again")), tmp_path / "again.yaml")
    finish(start(other, "--json"), other, 0)
    again = Study.read(tmp_path / "again")
    assert {id: s["vrmse"] for id, s in scores(again).items()} == {id: s["vrmse"] for id, s in scores(study).items()}
