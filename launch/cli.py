"""The command line. Modules of commands import what is heavy inside their functions, so that `scigpt --help` is quick."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer

from scigpt.errors import ToldElsewhere, UserError
from scigpt.launch import bench, data, evaluate, export, finetune, forecast, plan, pretrain, submit
from scigpt.launch.sweep import commands as sweep
from scigpt.launch.transfer import commands as transfer

# torch's reducer warns in every process that it looks for unused parameters, as `scigpt.train.strategies.Replicated` asks it to
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

app = typer.Typer(
    name="scigpt",
    help="Pretrain, study and adapt a foundation model for the physical sciences.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(sweep.app, name="sweep")
app.command(epilog="Example: scigpt plan configs/demo.yaml model.size=base train.precision=bf16 --device h100")(plan.plan)
app.command(epilog="Example: scigpt pretrain configs/demo.yaml train.steps=2000")(pretrain.pretrain)
app.command(epilog="Example: scigpt finetune configs/finetune.yaml init=runs/demo adapt.mode=lora")(finetune.finetune)
app.command(epilog="Example: scigpt transfer configs/transfer.yaml --dry-run")(transfer.transfer)
app.command(epilog="Example: scigpt submit configs/demo.yaml strategy=fsdp2 --cluster perlmutter --nodes 4 --account m1234_g")(
    submit.submit
)
app.command(epilog="Example: scigpt status runs/demo")(submit.status)
app.command(epilog="Example: scigpt cancel runs/demo")(submit.cancel)
app.command(epilog="Example: scigpt evaluate runs/demo --split test")(evaluate.evaluate)
app.command(epilog="Example: scigpt export runs/demo --out exports/demo")(export.export)
app.command(epilog="Example: scigpt forecast exports/demo --input state.nc --steps 12 --out forecast.nc")(forecast.forecast)


@app.callback()
def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("scigpt")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code: 0, 2 for a mistake of the user (told in one sentence), 130 after Ctrl-C."""
    try:
        _run(arguments)
    except BaseException as error:
        if processes := sys.modules.get("scigpt.train.processes"):  # only a process that trains has reason to import it
            processes.leave(error)
        raise


def _run(arguments: Sequence[str] | None) -> None:
    try:
        app(arguments)
    except UserError as error:
        if isinstance(error, ToldElsewhere):
            sys.exit(2)
        _leave(str(error), 2)
    except OSError as error:
        if error.filename is None:
            raise
        _leave(f"{error.filename}: {error.strerror}", 2)
    except SystemExit as error:  # how Typer ends every command, Ctrl-C included
        if error.code == 130:
            _leave("interrupted; what is finished is kept, and the same command goes on from there", 130)
        raise


def _leave(sentence: str, code: int) -> NoReturn:
    typer.echo(f"scigpt: {sentence}", err=True)
    # set by the batch script: when one process ends SLURM kills the others, and srun tells only the largest of their codes
    if code == 2 and (file := os.environ.get("SCIGPT_MISTAKE")):
        with suppress(OSError):
            Path(file).write_text(sentence + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
