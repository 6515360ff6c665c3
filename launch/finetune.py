"""`scigpt finetune`: adapt a pretrained model to data of one's own, or go on with that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json
from scigpt.launch.pretrain import Config, Overrides, begin

if TYPE_CHECKING:
    from scigpt.train.config import RunConfig


def finetune(config: Config, overrides: Overrides = None, json: Json = False) -> None:
    """Adapt the model that `init` names (the folder of a run, of a checkpoint or of an export): every parameter, the ends only, or
    additions of low rank. What it will need of memory is told before anything starts; strategies, signals, resuming are as in pretrain."""
    from scigpt.train.config import load

    settings = load(config, overrides or ())
    if settings.init is None:
        raise UserError(f"{config}: init is missing; name the pretrained model, as in init=runs/demo, or train one with `scigpt pretrain`")
    begin("finetune", config, overrides or (), settings, json, _tell_memory)


def _tell_memory(settings: RunConfig, processes: int) -> None:
    """One line before the start.

    Raises:
        UserError: more than this machine has, with what would fit.
    """
    import torch

    from scigpt.launch.plan import GIB, Planner, memory_here

    machine = memory_here()
    planner = Planner(settings, machine, "strategy.processes={}")
    need, limit = planner.need(settings, processes), machine.limit(processes)
    if need.total > limit:
        raise UserError(f"{settings.run}: {planner.refusal(need, processes)}")
    where = torch.cuda.get_device_name() if machine.gpu else machine.name
    share = f" on each of {processes} processes" if processes > 1 else ""
    trained, whole = planner.trained()
    typer.echo(
        f"{trained:,} of {whole:,} parameters are trained ({settings.adapt.mode}); memory predicted{share}: {need.total / GIB:.2f} GiB of "
        f"{limit / GIB:.1f} on {where} (weights {need.parameters / GIB:.2f}, gradients and optimizer "
        f"{(need.gradients + need.optimizer) / GIB:.2f}, a pass of {need.windows} windows {(need.activations + need.temporary) / GIB:.2f})",
        err=True,
    )
