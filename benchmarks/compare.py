"""What the scripts of this folder share: options, a clock, contenders timed in turn, and a Markdown table."""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any

import torch
import typer

from scigpt.errors import UserError

KEPT = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), "4000000000")
"""What tells glibc to keep what is freed."""
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads of torch.")]


class Missing(Exception):
    """A package that a row needs is not installed; the text says which, and how to get it."""


def run(command: Callable[..., None]) -> None:
    """The command line of a script: a user's mistake is one sentence and exit code 2. It begins anew where the C library would hand memory
    back between contenders: asking for it again would be charged to whoever runs next."""
    if not os.environ.keys() >= KEPT.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], KEPT | os.environ)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    try:
        app()
    except UserError as error:
        typer.echo(f"scigpt: {error}", err=True)
        sys.exit(2)


def prepare(device: str, threads: int) -> torch.device:
    """The device, with torch set up for it.

    Raises:
        UserError: neither cpu nor a GPU that is there.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu")
    torch.set_num_threads(threads)
    return torch.device(device)


def needed(module: str, install: str) -> ModuleType:
    """An optional module; `install` is what brings it.

    Raises:
        Missing: it, or something it needs, is not there.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # neuralop imports wandb, which would report its errors to its makers
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # torchvision built for another torch fails with the latter
        raise Missing(f"not here ({str(error).splitlines()[0]}): {install}") from None


def seconds(device: torch.device) -> float:
    """CPU time of this process, which other load does not touch; on a GPU the wall clock once the device is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(contenders: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each contender, which is warm, in each round. All run in every round, so that what slows the machine down falls on all
    alike."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            began = seconds(device)
            work()
            times[name].append(seconds(device) - began)
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, the first column flush left."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
