"""What commands print: a text for people on standard output, or with `--json` one JSON object there and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; everything else goes to standard error.")]


def show(data: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """The result of a command; `text` is called only where a person reads it."""
    typer.echo(json.dumps(data, indent=1, default=str) if as_json else text(data))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns set flush left, two spaces apart."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def si(number: float) -> str:
    """Three digits and a prefix, which the unit follows: `f"{si(flops)}FLOP"`."""
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
    place = 0 if number < 1 else min(int(math.log10(number) // 3), len(prefixes) - 1)
    return f"{number / 1000**place:.3g} {prefixes[place]}"
