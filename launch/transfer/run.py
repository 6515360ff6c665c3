"""The workers of a transfer study: started, told to stop, replaced when one is lost. They end with the command, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tqdm import tqdm

from scigpt.launch.parent import dies_with_parent
from scigpt.launch.transfer.cells import LOGS, Study
from scigpt.train.preempt import Preemption

POLL = 0.2
"""Seconds between two looks at the workers."""
LOOK = 2.0
"""Seconds between two looks at the cells."""
LOST = 3
"""Workers that may be lost, of each asked for, before the command gives up."""
GRACE = 60.0
"""Seconds after a signal in which a worker must have saved what it has."""
ENDS = (0, 2, 75)


def run_cells(study: Study, workers: int, stop: Preemption) -> str | None:
    """Do all cells that can be done; what went wrong with the workers in a sentence, None when nothing did."""
    states = study.states()
    if all(state == "done" for state in states.values()):
        return None
    (study.folder / LOGS).mkdir(parents=True, exist_ok=True)
    job = [_start(study, i) for i in range(workers)]
    bar = tqdm(total=len(study.cells), initial=0, desc=study.folder.name, unit="cell", file=sys.stderr, dynamic_ncols=True)
    left, told, looked = LOST * workers, 0.0, 0.0
    try:
        while any(p.poll() is None for p in job):
            time.sleep(POLL)
            if time.monotonic() - looked > LOOK:
                looked, states = time.monotonic(), study.states()
                _show(bar, list(states.values()))
            if stop.signal is not None and not told:
                told = time.monotonic()
                for process in job:
                    if process.poll() is None:
                        process.send_signal(signal.Signals[stop.signal])
            if told and time.monotonic() - told > GRACE:
                return None
            for i, process in enumerate(job):
                code = process.poll()
                if code not in (None, *ENDS) and not told:
                    if not left:
                        return f"{study.folder}: too many workers were lost, the last with code {code}; look into {study.folder / LOGS}"
                    left -= 1
                    job[i] = _start(study, i)
        return None
    finally:
        for process in job:
            if process.poll() is None:
                process.kill()
            process.wait()
        _show(bar, list(study.states().values()))
        bar.close()


def _show(bar: tqdm, states: list[str]) -> None:
    bar.n = states.count("done")
    shown = [f"{states.count('running')} running"] + ([f"{n} failed"] if (n := states.count("failed")) else [])
    bar.set_postfix_str(", ".join(shown))


def _start(study: Study, i: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(study.folder / LOGS / f"worker-{i}.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "scigpt.launch.transfer.worker", str(study.folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # or Ctrl-C would reach it twice: from the terminal and from us
            preexec_fn=dies_with_parent(),
        )
