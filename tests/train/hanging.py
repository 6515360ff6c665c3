"""A program for `test_processes.py`: trains the run of a configuration; process 1 hangs for good once it has done step 6."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from scigpt.train import engine
from scigpt.train.config import load
from scigpt.train.processes import Place


class Hanging(engine.Trainer):
    def _record(self, *arguments: Any) -> None:
        super()._record(*arguments)
        if self.step == 6 and self.processes.rank == 1:
            forever()


def forever() -> None:
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    assert Place.here() is not None
    engine.Trainer = Hanging  # type: ignore[misc]
    engine.train(load(Path(sys.argv[1]), sys.argv[2:]))
