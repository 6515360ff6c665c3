"""A worker of a transfer study: takes the next cell that can be done, does it, takes the next.

    python -m scigpt.launch.transfer.worker STUDY

Several of them share a study through leases; one that is lost leaves its cell to the others.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import scigpt
from scigpt.adapt.start import Start
from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.errors import UserError
from scigpt.evaluate.fno import STEM, FnoConfig, train_few
from scigpt.launch.sweep.lease import HEARTBEAT, Lease
from scigpt.launch.transfer.cells import CELLS, LEASE, MISTAKE, RESULT, SCORE, Cell, Study
from scigpt.launch.transfer.score import score_model
from scigpt.train.config import RunConfig, build
from scigpt.train.engine import train
from scigpt.train.preempt import EXIT_REQUEUE, Preemption
from scigpt.train.run import CHECKPOINTS

IDLE = 0.5
"""Seconds between two looks at a study in which nothing can be begun now."""
USER_ERROR = 2


class Stopped(Exception):
    """A run was asked to stop and has saved itself."""


def work(study: Study, stop: Preemption) -> int:
    """Do cells until there is nothing left to begin, or a signal comes; returns 0, or 75 after a signal."""
    while stop.signal is None:
        states = study.states()
        if not any(state in ("ready", "waiting", "running") for state in states.values()):
            return 0
        taken = None
        for cell in study.cells:
            if states[cell.id] == "ready" and (taken := Lease.take(study.book(cell) / LEASE)):
                try:
                    if study.score(cell) is None:
                        _do(study, cell, taken)
                except Stopped:
                    return EXIT_REQUEUE
                finally:
                    taken.release()
                break
        if taken is None:
            time.sleep(IDLE)
    return EXIT_REQUEUE


def _do(study: Study, cell: Cell, lease: Lease) -> None:
    """One cell whose lease is ours; what goes wrong is noted beside it."""
    try:
        with _kept(lease):
            run_cell(cell)
    except UserError as error:
        write_bytes(study.book(cell) / MISTAKE, f"{error}\n".encode())
    except Exception as error:  # the others go on
        traceback.print_exc()
        write_bytes(study.book(cell) / MISTAKE, f"{type(error).__name__}: {error}\n".encode())


@contextmanager
def _kept(lease: Lease) -> Iterator[None]:
    """Touch a lease as long as the block runs."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            lease.touch()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run_cell(cell: Cell) -> None:
    """Train, score, and write the score last.

    Raises:
        Stopped: by a signal, with everything saved.
        UserError: what a user can mend. A run that diverged is a score without a number.
    """
    config = build(RunConfig, cell.config, f"cell {cell.id}")
    if cell.kind == "pretrain":
        if _trained(config)["status"] == "diverged":
            raise UserError(f"{cell.run}: the pretraining diverged; lower optim.lr of pretrain, and begin another run")
        return
    folder, began = Path(cell.run), time.perf_counter()
    about: dict[str, Any] = {}
    if cell.kind == "zero-shot":
        assert config.init is not None
        found = _scored(cell, config, Start.open(config.init).model())
    elif cell.kind == "fno":
        corpus, train_ = Corpus.open(config.data.corpora[0].path), config.train
        settings = FnoConfig(**cell.fno or {})
        folder.mkdir(parents=True, exist_ok=True)
        args = folder, corpus, config.data.corpora[0], config.data, config.seed, settings, train_.steps, train_.groups
        net, told = train_few(*args, device=_device(), progress=False)
        about = {"parameters": told["parameters"], "trained_parameters": told["parameters"], "steps": told["steps"]}
        about |= {"fno": {"width": told["width"], "modes": told["modes"]}, "seconds": time.perf_counter() - began}
        found = _scored(cell, config, net)
    else:
        result = _trained(config)
        about = {"parameters": result["parameters"]["total"], **{k: result[k] for k in ("trained_parameters", "steps", "seconds")}}
        found = {"status": "diverged"}
        if result["status"] == "finished":
            found = _scored(cell, config, Start.open(cell.run).model())
    known = {k: v for k, v in asdict(cell).items() if k not in ("config", "run", "keep", "fno")}
    folder.mkdir(parents=True, exist_ok=True)
    empty = {"vrmse": None, "vrmse_median": None, "relative_l2": None}
    score = {"schema_version": 1, "code_version": scigpt.__version__, **known, **about, "status": "finished", **empty, **found}
    write_bytes(folder / SCORE, dump_json(score, indent=1))
    if not cell.keep:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        for weights in folder.glob(f"{STEM}*.safetensors"):
            weights.unlink()


def _trained(config: RunConfig) -> dict[str, Any]:
    """The result of a run that is trained now, as far as it is not."""
    file = Path(config.run) / RESULT
    try:
        if train(config)["status"] == "stopped":
            raise Stopped
    except UserError:
        if not file.exists() or load_json(file, "the result of a run")["status"] != "diverged":
            raise
    found: dict[str, Any] = load_json(file, "the result of a run")
    return found


def _scored(cell: Cell, config: RunConfig, model: torch.nn.Module) -> dict[str, Any]:
    corpus, settings = Corpus.open(config.data.corpora[0].path), config.data.corpora[0]
    assert cell.test is not None
    return score_model(model.to(_device()).eval(), corpus, settings, config.data, cell.test, _device())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a worker; returns the exit code: 0, 2 for a mistake of the user, 75 when stopped by a signal."""
    parser = argparse.ArgumentParser(description=f"A worker of a transfer study, started by `scigpt transfer`; it needs STUDY/{CELLS}.")
    parser.add_argument("study", type=Path, help="the folder of the study")
    folder = parser.parse_args(arguments).study
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)
    try:
        with Preemption() as stop:
            return work(Study.read(folder), stop)
    except UserError as error:
        sys.stderr.write(f"scigpt: {error}\n")
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
