"""`scigpt export`: what a run has learned, in a folder that can be passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scigpt.launch.output import Json, show


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run (its best checkpoint, or its newest) or of a checkpoint.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The folder to write; an export that is there is replaced.")],
    form: Annotated[str, typer.Option("--format", help="safetensors, torch-export or onnx; the last two add programs.")] = "safetensors",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the rollout programs.")] = 4,
    json: Json = False,
) -> None:
    """Write a run's weights without what only training needs: additions of low rank merged, with variables, units, normalisation, and the
    licences and attributions of all data that it has learned from. `scigpt forecast`, `scigpt.load` and `init` of `scigpt finetune` take
    the folder; programs of a step and of a rollout run without scigpt."""
    from scigpt.export.folder import Exported
    from scigpt.export.weights import write

    facts = dict(Exported.open(write(run, out, form, steps)).facts)
    names = ", ".join(dict.fromkeys(c["name"] for c in facts["learned_from"]))
    size = sum(f["bytes"] for f in facts["files"].values())
    show(
        {"path": str(out), **facts},
        json,
        lambda f: (
            f"{out}: {f['run']}, step {f['step']}, {size / 2**20:.1f} MiB: {', '.join(sorted(f['files']))}\n"
            f"learned from {names}; licences: {', '.join(f['licences'])}; to be credited: {'; '.join(f['attributions'])}"
        ),
    )
