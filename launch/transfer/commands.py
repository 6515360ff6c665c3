"""`scigpt transfer`: what a pretrained model is worth on other data, beside training from scratch and a Fourier neural operator."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scigpt.launch.output import Json, show, table
from scigpt.launch.pretrain import Config, Overrides

INCOMPLETE = 1
"""Exit code of a study that ended with cells that could not be done."""


def transfer(
    config: Config,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the cells and their FLOPs; train nothing.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the report of what is done so far.")] = False,
    json: Json = False,
) -> None:
    """Pretrain, adapt and compare: the error on each task zero-shot, fine-tuned with more and more examples, from scratch, and of a Fourier
    neural operator, at equal data and steps, over several seeds; STUDY/report tells it. The same command goes on where it was stopped, and
    tries again what has failed. Ends with code 1 when cells have failed, with 75 when it was stopped by a signal."""
    from scigpt.data.files import write_bytes
    from scigpt.errors import UserError
    from scigpt.launch.transfer.cells import CONFIG
    from scigpt.launch.transfer.config import load_transfer
    from scigpt.launch.transfer.design import Design
    from scigpt.launch.transfer.report import report as write_report
    from scigpt.launch.transfer.run import run_cells
    from scigpt.train.preempt import EXIT_REQUEUE, Preemption

    settings = load_transfer(config, overrides or ())
    design = Design(settings, str(config))
    study = design.study
    if dry_run:
        show(design.summary(), json, _plan)
        return
    stopped = None
    if not report:
        study.write()
        write_bytes(study.folder / CONFIG, settings.to_yaml().encode())
        study.forgive()
        with Preemption() as stop:
            trouble = run_cells(study, settings.workers, stop)
        stopped = stop.signal if "ready" in study.states().values() or "waiting" in study.states().values() else None
        if trouble is not None:
            raise UserError(trouble)
    if stopped:
        typer.echo(f"scigpt: stopped by {stopped}; run the same command to go on", err=True)
        raise typer.Exit(EXIT_REQUEUE)
    tasks = design.summary()["tasks"]
    found = write_report(study, tasks, design.facts(), design.notes, settings.report)
    show(found, json, _text)
    if found["done"] < found["cells"] and not report:
        raise typer.Exit(INCOMPLETE)


def _plan(found: dict[str, Any]) -> str:
    rows = [[k["kind"], k["cells"], k["done"], f"{k['flops']:.3g}"] for k in found["kinds"]]
    rows.append(["in all", len(found["cells"]), sum(k["done"] for k in found["kinds"]), f"{found['flops']:.3g}"])
    tasks = ", ".join(t["name"] + (f" ({t['distance']})" if t["distance"] else "") for t in found["tasks"])
    return "\n".join([f"{found['study']}: {tasks}", "", table(["cells", "number", "done", "FLOPs"], rows), *found["notes"]])


def _text(found: dict[str, Any]) -> str:
    from scigpt.launch.sweep.words import figure, interval

    rows = []
    for task in found["tasks"]:
        examples = sorted({p["examples"] for points in task["curves"].values() for p in points})
        zero = figure((task["zero_shot"] or {}).get("vrmse"))
        for n in examples:
            scores = {m: next((p["vrmse"] for p in points if p["examples"] == n), None) for m, points in task["curves"].items()}
            rows += [[task["name"], n, zero, m, interval(score)] for m, score in scores.items()]
    lines = [table(["task", "examples", "zero-shot", "method", "VRMSE"], rows), "", *found["summary"], *found["notes"]]
    lines += [f"failed: {f['name']} ({f['id']}): {f['reason']}" for f in found["failures"]]
    lines.append(f"{found['done']} of {found['cells']} cells are done; the report is {found['report']}")
    return "\n".join(lines)
