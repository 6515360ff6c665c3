"""The command line. Modules of commands import what is heavy inside their functions, so that `scigpt --help` is quick."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from scigpt.errors import UserError
from scigpt.launch import bench, data, evaluate, pretrain

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
app.command(epilog="Example: scigpt pretrain configs/demo.yaml train.steps=2000")(pretrain.pretrain)
app.command(epilog="Example: scigpt evaluate runs/demo --split test")(evaluate.evaluate)


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
        app(arguments)
    except UserError as error:
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
    sys.exit(code)


if __name__ == "__main__":
    main()
