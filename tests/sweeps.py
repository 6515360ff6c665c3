"""Small tables of sweeps, made by hand, and the commands that run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from runs import history, settings, tensors

from scigpt.launch.sweep.table import Role, Row, Table, checkpoint_of
from scigpt.train.config import RunConfig, build


def row(
    sweep: Path,
    corpora: list[Path],
    name: str,
    role: Role = "grid",
    own_flops: int = 1000,
    parent: str | None = None,
    branch_step: int | None = None,
    optim: dict[str, Any] | None = None,
    decay: float = 0.25,
    strategy: str = "single",
    data_width: int | None = None,
    **train: Any,
) -> Row:
    """A row whose id is made of its name; its numbers are those that the workers look at, the others are ones."""
    id = name.encode().hex().ljust(12, "0")[:12]
    data = settings(corpora, sweep / "runs" / id, **train)
    data["data"]["data_width"], data["strategy"] = data_width, {"name": strategy}
    data["optim"] |= {"decay": decay} | (optim or {})
    data["train"]["branch_from"] = None if parent is None else str(checkpoint_of(sweep, parent, branch_step or 0))
    config = _filled(data)
    params = {"backbone": 1, "embedding": 1, "head": 1, "total": 3}
    steps = config["train"]["steps"]
    return Row(id, name, role, config, parent or id, params, 1, 1, 1, 1, 1.0, own_flops, own_flops, steps, parent, branch_step)


@cache
def _defaults() -> dict[str, Any]:
    return build(RunConfig, settings([Path("corpus")], Path("run")), "defaults").to_json()


def _filled(data: dict[str, Any]) -> dict[str, Any]:
    """With all defaults: as `build` does it, which takes a quarter of a second."""
    whole = _defaults()
    corpora = [whole["data"]["corpora"][0] | c for c in data["data"]["corpora"]]
    merged = {k: v | data.get(k, {}) if isinstance(v, dict) else data.get(k, v) for k, v in whole.items()}
    merged["data"]["corpora"] = corpora
    return merged


def write(sweep: Path, rows: Sequence[Row]) -> Table:
    table = Table(sweep, "test", {}, tuple(rows))
    table.write()
    return table


def start(sweep: Path, *options: str, command: str = "run", **more: Any) -> subprocess.Popen[str]:
    """`scigpt sweep run`; what it says goes to SWEEP.log."""
    words = [sys.executable, "-m", "scigpt.launch.cli", "sweep", command, str(sweep), *options, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(sweep.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, **more)


def finish(process: subprocess.Popen[str], sweep: Path, code: int = 0) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == code, said(sweep)
    return json.loads(out)


def said(sweep: Path) -> str:
    logs = [sweep.with_suffix(".log"), *sweep.glob("rows/*/log.txt"), *sweep.glob("slurm/*.out")]
    return "\n".join(f"{log}:\n{log.read_text()[-3000:]}" for log in logs if log.exists())


def attempts(table: Table, row: Row) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (table.folder / "rows" / row.id / "attempts.jsonl").read_text().splitlines()]


def begun(table: Table, row: Row) -> int:
    """How often a row was begun."""
    file = table.folder / "rows" / row.id / "attempts.jsonl"
    return file.read_bytes().count(b'"begin"') if file.exists() else 0


def result(table: Table, row: Row) -> dict[str, Any]:
    found = json.loads((table.run(row.id) / "result.json").read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "branch_from")}


def assert_equal(a: Table, b: Table) -> None:
    """Results, losses and tensors of every row, to the last bit."""
    for one in a.rows:
        assert result(a, one) == result(b, one)
        assert history(a.run(one.id)) == history(b.run(one.id))
        assert tensors(a.run(one.id)) == tensors(b.run(one.id))
