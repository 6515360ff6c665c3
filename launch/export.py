"""`scigpt export`: what a run has learned, in a folder that can be passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show

FORMATS = ("safetensors",)


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run (its best checkpoint, or its newest) or of a checkpoint.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The folder to write; an export that is there is replaced.")],
    form: Annotated[str, typer.Option("--format", help="safetensors: weights by name, and what they are of in JSON.")] = FORMATS[0],
    json: Json = False,
) -> None:
    """Write a run's weights without what only training needs: additions of low rank merged, with vocabulary, scales, and the licences and
    attributions of all data that it has learned from. `init` of `scigpt finetune` takes the folder."""
    if form not in FORMATS:
        raise UserError(f"--format {form}: runs are exported as {', '.join(FORMATS)} and, so far, as nothing else; leave it out")
    from scigpt.export.weights import Exported, write

    facts = dict(Exported.open(write(run, out)).facts)
    names = ", ".join(dict.fromkeys(c["name"] for c in facts["corpora"]))
    show(
        {"path": str(out), **facts},
        json,
        lambda f: (
            f"{out}: {f['run']}, step {f['step']}, {f['bytes'] / 2**20:.1f} MiB\n"
            f"learned from {names}; licences: {', '.join(f['licences'])}; to be credited: {'; '.join(f['attributions'])}"
        ),
    )
