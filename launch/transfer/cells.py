"""The cells of a transfer study: one number each, known by what it is computed from.

STUDY/study.yaml          the configuration
      cells.json          the cells of the last start
      pretrain/           the pretraining run (pretrain-without-NAME/ of leave_one_out)
      runs/ID/            the run of a cell; score.json, written last, makes it done
      cells/ID/           lease.json while a worker has it, mistake.txt where it could not be done
      logs/worker-N.txt   what the workers said
      report/             see `scigpt.launch.transfer.report`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.launch.sweep import lease

CONFIG, CELLS, RUNS, BOOKS, LOGS = "study.yaml", "cells.json", "runs", "cells", "logs"
LEASE, MISTAKE, SCORE, RESULT = "lease.json", "mistake.txt", "score.json", "result.json"

Kind = Literal["pretrain", "zero-shot", "finetuned", "scratch", "fno"]
State = Literal["done", "running", "failed", "waiting", "ready"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the study, or a pretraining run that others need.

    Args:
        id: of what decides the number.
        name: for people.
        run: its folder.
        config: resolved RunConfig as JSON; of zero-shot and the FNO only the data, the seed and the length of the training count.
        flops: predicted.
        pretraining: name of the pretraining, None for what needs none.
        parent: id of the cell of the pretraining, None where it was there before.
        test: split that is scored.
        fno: of an FNO: its FnoConfig.
        keep: whether the checkpoints stay.
    """

    id: str
    kind: Kind
    name: str
    run: str
    config: dict[str, Any]
    flops: int
    task: str | None = None
    examples: int = 0
    seed: int = 0
    mode: str | None = None
    pretraining: str | None = None
    parent: str | None = None
    test: str | None = None
    fno: dict[str, Any] | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Study:
    """A folder and the cells that are in it."""

    folder: Path
    cells: tuple[Cell, ...]

    @classmethod
    def read(cls, folder: Path) -> Study:
        return cls(folder, tuple(Cell(**c) for c in load_json(folder / CELLS, "the cells of a transfer study")))

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / CELLS, dump_json([asdict(c) for c in self.cells], indent=1))

    def book(self, cell: Cell) -> Path:
        """Folder of the lease of a cell."""
        return self.folder / BOOKS / cell.id

    def score(self, cell: Cell) -> dict[str, Any] | None:
        """What a cell has come to; of a pretraining run its result, when it has done all its steps."""
        if cell.kind != "pretrain":
            file = Path(cell.run) / SCORE
            return load_json(file, "the score of a cell") if file.exists() else None
        file = Path(cell.run) / RESULT
        found = load_json(file, "the result of a run") if file.exists() else None
        return found if found and found["status"] == "finished" and found["steps"] >= cell.config["train"]["steps"] else None

    def states(self) -> dict[str, State]:
        """Where every cell stands, by id."""
        now = lease.now(self.folder)
        found = {cell.id: self._state(cell, now) for cell in self.cells}
        for cell in self.cells:
            before = found[cell.parent] if cell.parent else "done"
            if found[cell.id] == "ready" and before != "done":
                found[cell.id] = "failed" if before == "failed" else "waiting"
        return found

    def _state(self, cell: Cell, now: float) -> State:
        if self.score(cell) is not None:
            return "done"
        held = lease.held(self.book(cell) / LEASE)
        if held is not None and not held.stale(now):
            return "running"
        return "failed" if (self.book(cell) / MISTAKE).exists() else "ready"

    def mistakes(self) -> list[dict[str, str]]:
        """Cells that could not be done, and why."""
        states, found = self.states(), []
        for cell in self.cells:
            file = self.book(cell) / MISTAKE
            if states[cell.id] == "failed":
                why = file.read_text(encoding="utf-8").strip() if file.exists() else f"its pretraining {cell.pretraining} has failed"
                found.append({"id": cell.id, "name": cell.name, "reason": why})
        return found

    def forgive(self) -> None:
        """Give cells that have failed another chance."""
        for cell in self.cells:
            (self.book(cell) / MISTAKE).unlink(missing_ok=True)


def some(cells: Sequence[Cell], **wanted: Any) -> list[Cell]:
    """The cells with these attributes."""
    return [c for c in cells if all(getattr(c, k) == v for k, v in wanted.items())]
