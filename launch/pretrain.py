"""`scigpt pretrain`: train a model, or go on with a run that was stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.launch.output import Json, show

if TYPE_CHECKING:
    from scigpt.train.config import RunConfig

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; paths in it are relative to the current folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override values of the file: train.steps=500.")]


def pretrain(config: Config, overrides: Overrides = None, json: Json = False) -> None:
    """Train: here, in as many processes as `strategy` asks for, or as one process of the job that torchrun or srun has started. The same
    command goes on with a stopped run; a stop by a signal ends with code 75 ("requeue me")."""
    from scigpt.train.config import load

    begin("pretrain", config, overrides or (), load(config, overrides or ()), json)


def begin(
    command: str,
    config: Path,
    overrides: Sequence[str],
    settings: RunConfig,
    json: bool,
    before: Callable[[RunConfig, int], None] | None = None,
) -> None:
    """Train as a command says, in one process or several; `before` is called once, with the number of processes, where the run starts
    here."""
    from scigpt.launch import local
    from scigpt.train.engine import train
    from scigpt.train.preempt import EXIT_REQUEUE, SIGNALS
    from scigpt.train.processes import Place

    place = Place.here()
    count = local.wanted(settings.strategy)
    if place is None and before is not None:
        before(settings, count)
    if place is None and count > 1:
        words = [command, str(config), *overrides, *(["--json"] if json else [])]
        raise typer.Exit(local.run([sys.executable, "-m", "scigpt.launch.cli", *words], count))
    summary = train(settings)
    if place is None or place.rank == 0:
        show(summary, json, _text)
    if summary["status"] == "stopped":
        for number in SIGNALS:  # all is saved; srun ends the slower of two processes with SIGTERM, which must not become its exit code
            signal.signal(number, signal.SIG_IGN)
        raise typer.Exit(EXIT_REQUEUE)


def _text(summary: dict[str, Any]) -> str:
    lines = [f"{summary['run']}: {summary['status']} at step {summary['step']} of {summary['steps']}"]
    if summary["status"] == "stopped":
        lines[0] += f" by {summary['signal']} and saved; run the same command to go on"
    elif summary["step"] < summary["steps"]:
        lines[0] += ", where it no longer got better"
    if summary["best"] is not None and summary["best"]["step"] < summary["step"]:
        lines[0] += f"; best score {summary['best']['score']:.4g} at step {summary['best']['step']}"
    for corpus, scores in summary["validation"].items():
        lines.append(f"  {corpus}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if value is not None))
    if summary["processes"] > 1:
        lines[0] += f", {summary['processes']} processes"
    rates = f"{summary['tokens_per_second']:,.0f} tokens/s, {summary['flops_per_second'] / 1e9:.1f} GFLOP/s"
    waits = f"data wait {summary['data_wait_share']:.1%}, {summary['skipped_steps']} steps skipped"
    lines.append(f"  {summary['parameters']:,} parameters, {rates}, {waits}")
    lines.append(f"  checkpoint {summary['checkpoint']}" + (f", MLflow {summary['mlflow']}" if summary["mlflow"] else ""))
    return "\n".join(lines)
