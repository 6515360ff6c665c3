"""One process of a job that does several things one after the other: DeepSpeed takes longer to import than a toy to train."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from scigpt.data.loader import BatchLoader
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import Trainer
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.preempt import Preemption
from scigpt.train.processes import Processes
from scigpt.train.record import Read
from scigpt.train.run import open_run, settled
from scigpt.train.strategies import Strategy


def trainer(config: RunConfig, processes: Processes, preemption: Preemption, stack: ExitStack) -> Trainer:
    """As `scigpt.train.engine.train` makes it; the job goes on after it."""
    with processes.together():
        config = settled(config, config.strategy.mesh(processes.place).data_world)
        run = stack.enter_context(open_run(config)) if processes.first else Path(config.run)
    return Trainer(config, run, processes, preemption, stack)


def back_to(step: int, source: Path, run: Path) -> None:
    """A copy of a run as it was after a step, as if it had been killed soon after."""
    shutil.copytree(source, run)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


def numbers(strategy: Strategy) -> str:
    """Hash of every number that this process holds of parameters and optimizer."""
    found = hashlib.sha256()
    for p in strategy.state():
        found.update(f"{p.kind} {p.name} {p.start} {p.values.tolist()}".encode())
    return found.hexdigest()


def passes(strategy: Strategy, groups: Sequence[Read], poison: bool = False) -> float:
    """Gradients of these groups in micro-batches; returns their norm."""
    batches = [batch for _, found in groups for batch in found]
    for i, batch in enumerate(batches):
        with strategy.accumulate(i + 1 == len(batches)):
            loss = share_of_loss(strategy.forward(batch), strategy.model.head, 2 * group_weight(batches)).loss
            strategy.backward(loss * float("nan") if poison and i == 0 else loss)
    return strategy.norm()


def updates(made: Trainer, processes: Processes, refuse: bool) -> dict[str, Any]:
    """What this process holds after each of two updates; with `refuse` after gradients between them that are dropped, too: once they are
    NaN on the last process only, once an evaluation comes before."""
    strategy, mesh = made.strategy, made.strategy.mesh
    with BatchLoader(made.mixture, made.scales, 0, 1, mesh.data_rank, mesh.data_world) as loader:
        groups = [next(loader) for _ in range(8)]
    strategy.optimizer.set_rate(0.01)
    told: dict[str, Any] = {"begin": [p.name for p in strategy.state() if p.kind == "optimizer"], "norms": [], "held": []}

    def gradients(which: slice, poison: bool = False) -> float:
        told["norms"].append(passes(strategy, groups[which], poison))
        return told["norms"][-1]

    def drop() -> None:
        strategy.forget()
        told["held"].append(numbers(strategy))

    strategy.update(0.01, gradients(slice(0, 2)))
    drop()
    if refuse:
        gradients(slice(2, 4), poison=processes.rank == processes.world - 1)
        drop()
        with torch.no_grad():
            strategy.forward(groups[2][1][0])
        gradients(slice(4, 5))
        drop()
    strategy.update(0.01, gradients(slice(5, 8)))
    drop()
    return told


def main(plan: Sequence[dict[str, Any]]) -> None:
    logging.getLogger("scigpt").addHandler(logging.StreamHandler())  # as the command line does
    torch.set_num_threads(1)
    with Preemption() as preemption, Processes.join(600) as job:
        assert job.store is not None
        for number, item in enumerate(plan):
            processes = Processes(job.place, dist.PrefixStore(str(number), job.store))
            config = load(Path(item["config"]), item["overrides"])
            if "copy" in item and processes.first:
                back_to(item["step"], Path(item["copy"]), Path(config.run))
            processes.barrier()
            with ExitStack() as stack:
                made = trainer(config, processes, preemption, stack)
                if "refuse" in item:
                    told = updates(made, processes, item["refuse"])
                    Path(f"{config.run}.{processes.rank}.json").write_text(json.dumps(told))
                else:
                    summary = made.fit()
                    if processes.first:
                        Path(f"{config.run}.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
