"""What the cells of a study say together: medians over seeds, ratios, what pretraining is worth in examples, in numbers and sentences."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.files import write_bytes
from scigpt.errors import UserError
from scigpt.launch.sweep.words import figure
from scigpt.launch.transfer.cells import Study
from scigpt.scaling.fit import RESAMPLES
from scigpt.scaling.transfer import FINETUNED, SCRATCH, Table, transfer

TABLE, TABLES = "table.csv", "tables"
FNO, FROM_SCRATCH = "FNO", "from scratch"
LEAST = 3
"""Numbers of examples that a curve with a floor can be fitted to."""
KNOBS = ("task", "distance", "kind", "mode", "examples", "seed")
COSTS = ("parameters", "trained_parameters", "steps", "flops", "seconds")
COLUMNS = (*KNOBS, "vrmse", "vrmse_median", "relative_l2", "windows", *COSTS, "status", "pretraining", "id")

Score = Mapping[str, Any]


def outcome(study: Study, tasks: Sequence[Mapping[str, str]], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Plain data of all that is done; STUDY/table.csv and STUDY/tables are written on the way.

    Args:
        tasks: name and distance of each.

    Returns:
        `tasks[]`: name, distance, corpus; `zero_shot` (None, or vrmse and relative_l2); `curves` {method: [{examples, vrmse {value, low,
        high}, relative_l2, seeds, diverged}]}, medians and the smallest and largest over seeds; `ratios` {method: [{examples, value, low,
        high}]} of fine-tuned over scratch, of medians, and the smallest and largest of a seed; `helps_until` {method: the largest number of
        examples at which the ratio is below 1}; `transfer` {method: `scigpt.scaling.transfer.Transfer.to_json`, or a reason}; `sentences`.
        `methods[]`: what each method costs; `cells`, `done`, `failures`, `summary`.
    """
    distances = {t["name"]: t["distance"] for t in tasks}
    scores = [found for cell in study.cells if cell.kind != "pretrain" and (found := study.score(cell))]
    _write(study.folder / TABLE, COLUMNS, ({**s, "distance": distances[s["task"]]} for s in scores))
    several = len({s["mode"] for s in scores if s["mode"]}) > 1
    told = [_task(study.folder, t, [s for s in scores if s["task"] == t["name"]], several, resamples) for t in tasks]
    states = list(study.states().values())
    return {
        "study": study.folder.name,
        "cells": len(states),
        "done": states.count("done"),
        "seeds": len({s["seed"] for s in scores}),
        "tasks": told,
        "methods": list(_methods(scores, several)),
        "failures": study.mistakes(),
        "diverged": [s["id"] for s in scores if s["status"] == "diverged" or s.get("diverged")],
        "summary": [line for t in told for line in t["sentences"]],
    }


def method(score: Score, several: bool) -> str:
    """What a score is told under."""
    if score["kind"] == "finetuned":
        return f"fine-tuned ({score['mode']})" if several else "fine-tuned"
    return FROM_SCRATCH if score["kind"] == "scratch" else FNO


def _task(folder: Path, task: Mapping[str, str], scores: Sequence[Score], several: bool, resamples: int) -> dict[str, Any]:
    zero = next((s for s in scores if s["kind"] == "zero-shot"), None)
    by: dict[str, list[Score]] = {}
    for s in scores:
        if s["kind"] != "zero-shot":
            by.setdefault(method(s, several), []).append(s)
    order = sorted(by, key=lambda m: (m == FNO, m == FROM_SCRATCH, m))
    curves = {m: [_point(n, [s for s in by[m] if s["examples"] == n]) for n in sorted({s["examples"] for s in by[m]})] for m in order}
    tuned = [m for m in order if m not in (FNO, FROM_SCRATCH)]
    ratios = {m: list(_ratios(by[m], by.get(FROM_SCRATCH, []))) for m in tuned}
    found: dict[str, Any] = {
        "name": task["name"],
        "distance": task["distance"],
        "corpus": task.get("corpus"),
        "zero_shot": None if zero is None else {k: zero[k] for k in ("vrmse", "relative_l2")},
        "curves": curves,
        "ratios": ratios,
        "helps_until": {m: max((r["examples"] for r in rows if r["value"] < 1), default=None) for m, rows in ratios.items()},
        "transfer": {m: _worth(folder, task["name"], m, by[m], by.get(FROM_SCRATCH, []), resamples) for m in tuned},
    }
    return found | {"sentences": list(_sentences(found))}


def _point(examples: int, scores: Sequence[Score]) -> dict[str, Any]:
    errors = [s["vrmse"] for s in scores if s["vrmse"] is not None]
    relative = [s["relative_l2"] for s in scores if s["relative_l2"] is not None]
    return {
        "examples": examples,
        "vrmse": _spread(errors),
        "relative_l2": _spread(relative),
        "seeds": len(errors),
        "diverged": len(scores) - len(errors),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, smallest and largest."""
    return {"value": float(np.median(values)), "low": min(values), "high": max(values)} if values else None


def _ratios(tuned: Sequence[Score], scratch: Sequence[Score]) -> Iterator[dict[str, Any]]:
    for n in sorted({s["examples"] for s in tuned}):
        ours, theirs = ({s["seed"]: s["vrmse"] for s in some if s["examples"] == n and s["vrmse"]} for some in (tuned, scratch))
        pairs = [ours[seed] / theirs[seed] for seed in ours if seed in theirs]
        if pairs:
            value = float(np.median(list(ours.values())) / np.median(list(theirs.values())))
            yield {"examples": n, "value": value, "low": min(pairs), "high": max(pairs)}


def _worth(folder: Path, task: str, name: str, tuned: Sequence[Score], scratch: Sequence[Score], resamples: int) -> dict[str, Any]:
    """The curves of fine-tuning and scratch against each other, by way of a file that others can read too."""
    rows = [
        {"kind": kind, "examples": s["examples"], "loss": s["vrmse"], "seed": s["seed"], "id": s["id"]}
        for kind, some in ((SCRATCH, scratch), (FINETUNED, tuned))
        for s in some
        if s["vrmse"]
    ]
    file = folder / TABLES / (re.sub(r"[^A-Za-z0-9.]+", "-", f"{task}-{name}").strip("-") + ".csv")
    _write(file, ("kind", "examples", "loss", "seed", "id"), rows)
    fewest = min(len({r["examples"] for r in rows if r["kind"] == kind}) for kind in (SCRATCH, FINETUNED))
    if fewest < LEAST:
        return {"reason": f"a curve needs {LEAST} numbers of examples, and there are {fewest}"}
    try:
        return transfer(Table.read(file), resamples=resamples).to_json()
    except UserError as error:
        return {"reason": str(error)}


def _sentences(task: Mapping[str, Any]) -> Iterator[str]:
    where = task["name"] + (f" ({task['distance']})" if task["distance"] else "")
    if (zero := task["zero_shot"]) is not None:
        yield f"{where}: zero-shot VRMSE {figure(zero['vrmse'])}, relative L2 error {figure(zero['relative_l2'])}."
    for name, rows in task["ratios"].items():
        if rows:
            told = ", ".join(f"{figure(1 / r['value'])} with {r['examples']:,}" for r in rows)
            yield f"{where}, {name}: the error from scratch over that of fine-tuning is {told} examples."
        found = task["transfer"][name]
        yield f"{where}, {name}: {found.get('sentence') or found['reason']}."


def _methods(scores: Sequence[Score], several: bool) -> Iterator[dict[str, Any]]:
    """What a run of each method costs; the error at the largest number of examples, relative to scratch, over all tasks."""
    few = [s for s in scores if s["kind"] != "zero-shot" and "parameters" in s]
    most = max((s["examples"] for s in few), default=0)
    for name in dict.fromkeys(method(s, several) for s in few):
        some = [s for s in few if method(s, several) == name]
        errors = [s["vrmse"] for s in some if s["examples"] == most and s["vrmse"]]
        yield {
            "method": name,
            "runs": len(some),
            "parameters": int(np.median([s["parameters"] for s in some])),
            "trained": int(np.median([s["trained_parameters"] for s in some])),
            "steps": some[0]["steps"],
            "seconds": float(np.median([s["seconds"] for s in some])),
            "flops": float(np.median([s["flops"] for s in some])),
            "vrmse": float(np.median(errors)) if errors else None,
            "examples": most,
        }


def _write(path: Path, columns: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())
