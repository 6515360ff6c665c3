"""A table of training runs as columns: read from a sweep, or from any CSV or Parquet file, and checked."""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scigpt.errors import UserError

Count = Literal["total", "backbone"]
NEEDED = ("params", "tokens", "loss")
OPTIONAL = ("flops", "unique_tokens", "patch", "context", "samples")
TEXT = ("group", "role", "id")
ROLES = ("grid", "trunk", "anneal", "seed-repeat", "hold-out", "lr-probe")
CELL = ("params", "tokens", "flops", "unique_tokens", "patch", "context", "samples", "pretraining", "examples")
"""Runs that agree in these differ in their seed alone."""
ALIKE = 0.01
"""Seeds draw other windows: the tokens of two runs of a cell may differ by so much."""
PROBE = "a learning-rate probe is not trained at the rate of the sweep"
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs by column.

    Attributes:
        columns: float64 `(n,)` by name: `loss`, and what it is a function of (`params`, `tokens`, `flops`, `unique_tokens`, ...).
        ids: of each run, for the reader.
        roles: of each run, one of `ROLES`. A `hold-out` is in the table and in no fit.
        clusters: which runs depend on each other (branches of one trunk), a number per run; what a bootstrap draws.
        dropped: `{"row", "reason"}` of each run that the file has and the table has not.
        ignored: columns of the file that nothing here reads.
        source: where they come from, for the reader.
        count: which parameters `params` counts; None where the file does not say.
    """

    columns: dict[str, np.ndarray]
    ids: tuple[str, ...]
    roles: tuple[str, ...]
    clusters: np.ndarray
    dropped: list[dict[str, str]] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    source: str = "table"
    count: Count | None = None

    @classmethod
    def of(
        cls,
        loss: Iterable[float],
        *,
        group: Sequence[Any] | None = None,
        role: Sequence[str] | None = None,
        id: Sequence[str] | None = None,
        source: str = "table",
        dropped: Sequence[Mapping[str, str]] = (),
        ignored: Sequence[str] = (),
        count: Count | None = None,
        **columns: Iterable[float],
    ) -> Runs:
        """From arrays of one length; every number must be positive and finite.

        Raises:
            UserError: a number that is not; lengths that differ; an unknown role.
        """
        arrays = {name: np.array(values, np.float64, ndmin=1) for name, values in {**columns, "loss": loss}.items()}
        size = arrays["loss"].size
        ids = tuple(str(i) for i in (range(1, size + 1) if id is None else id))
        roles = tuple(str(r) or "grid" for r in (("grid",) * size if role is None else role))
        for name, values in {**arrays, "role": np.array(roles), "id": np.array(ids)}.items():
            if values.shape != (size,):
                raise UserError(f"{source}: column {name} has {values.size} rows and loss has {size}; every run needs both")
        for name, values in arrays.items():
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if bad.size:
                hint = "; leave the cell empty to drop the run" if name == "loss" else ""
                raise UserError(
                    f"{source}: {name} is {values[bad[0]]:g} in run {ids[bad[0]]}{_others(bad.size)}; expected a positive number{hint}"
                )
        for i, name in zip(ids, roles, strict=True):
            if name not in ROLES:
                raise UserError(f"{source}: the role {name!r} of run {i} is unknown; {_nearest(name, ROLES)}")
        labels = np.array([f"\0{i}" if group is None or str(group[i]) == "" else str(group[i]) for i in range(size)], dtype=object)
        _, clusters = np.unique(labels.astype(str), return_inverse=True)
        return cls(arrays, ids, roles, clusters, [dict(d) for d in dropped], tuple(ignored), source, count)

    @classmethod
    def read(cls, path: str | Path, count: Count = "total") -> Runs:
        """A sweep folder (one with a `table.json`), a `.csv` or a `.parquet` file.

        Args:
            count: for a sweep, which parameters are N: all trainable ones, or those of the backbone. A file has its own `params`.

        Raises:
            UserError: nothing readable there; columns that are missing; numbers that are not positive; no run left.
        """
        path = Path(path)
        if path.name == "table.json":
            path = path.parent
        if (path / "table.json").is_file():
            return _sweep(path, count)
        if path.is_dir():
            raise UserError(f"{path} has no table.json; expected a sweep folder, a .csv or a .parquet file")
        if not path.is_file():
            raise UserError(f"{path} does not exist; expected a sweep folder, a .csv or a .parquet file")
        return _file(path)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def groups(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    def select(self, which: np.ndarray) -> Runs:
        """The runs of a mask or of indices."""
        rows = np.arange(len(self))[which]
        columns = {name: values[rows] for name, values in self.columns.items()}
        ids, roles = tuple(self.ids[i] for i in rows), tuple(self.roles[i] for i in rows)
        return Runs(columns, ids, roles, self.clusters[rows], self.dropped, self.ignored, self.source, self.count)

    def fitted(self) -> Runs:
        """Those that a fit may see."""
        return self.select(np.array([role != "hold-out" for role in self.roles], bool))

    def held_out(self) -> Runs:
        return self.select(np.array([role == "hold-out" for role in self.roles], bool))

    def seed_sigma(self) -> float | None:
        """Relative standard deviation of the loss among runs that differ in their seed alone, pooled; None without such runs."""
        names = [name for name in CELL if name in self.columns]
        logs = np.stack([np.log(self.columns[name]) for name in names], 1)
        cells: list[list[int]] = []
        for i in range(len(self)):
            cell = next((cell for cell in cells if np.all(np.abs(logs[i] - logs[cell[0]]) < ALIKE)), None)
            if cell is None:
                cells.append([i])
            else:
                cell.append(i)
        losses = [np.log(self["loss"][cell]) for cell in cells if len(cell) > 1]
        free = sum(cell.size - 1 for cell in losses)
        return math.sqrt(sum(float(np.var(cell)) * cell.size for cell in losses) / free) if free else None


def _nearest(name: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(name.lower(), names, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"


def _others(count: int) -> str:
    return f" (and in {count - 1} more)" if count > 1 else ""


def _file(path: Path) -> Runs:
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"{path} ends with {suffix or 'no extension'}; expected a sweep folder, a .csv or a .parquet file")
    try:
        if suffix == ".csv":  # as text: an empty cell drops a run, "nan" is a mistake
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header: which cell is which?
                frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False)
        else:
            frame = pd.read_parquet(path, dtype_backend="pyarrow")
    except (ValueError, OSError, pd.errors.ParserWarning) as error:  # pandas' and Arrow's own errors are of the first two
        raise UserError(f"{path} cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    for name in NEEDED:
        if name not in frame.columns:
            unused = [column for column in frame.columns if column not in (*NEEDED, *OPTIONAL, *TEXT)]
            near = difflib.get_close_matches(name, [column.lower() for column in unused], 1, 0.5)
            meant = next((column for column in unused if near and column.lower() == near[0]), None)
            hint = f"rename {meant!r} if that is it" if meant else f"it has {', '.join(map(repr, frame.columns[:SHOWN]))}"
            raise UserError(f"{path} has no column {name!r}; {hint}; params, tokens and loss are needed")
    ignored = [name for name in frame.columns if name not in (*NEEDED, *OPTIONAL, *TEXT)]
    rows: list[dict[str, Any]] = [
        {name: None if cell is pd.NA or cell == "" else cell for name, cell in row.items()} for row in frame.to_dict("records")
    ]
    present = [name for name in (*NEEDED, *OPTIONAL) if name in frame.columns]
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, str]] = []
    for number, row in enumerate(rows, 2 if suffix == ".csv" else 1):  # line 1 of a CSV is its header
        row["id"] = str(row.get("id") or f"{'line' if suffix == '.csv' else 'row'} {number}")
        if row["loss"] is None:
            dropped.append({"row": row["id"], "reason": "it has no loss"})
        elif row.get("role") == "lr-probe":
            dropped.append({"row": row["id"], "reason": PROBE})
        else:
            kept.append(row)
    present = [name for name in present if name in NEEDED or any(row[name] is not None for row in kept)]
    numbers = {name: [_number(row[name], name, row["id"], path) for row in kept] for name in present}
    return _table(kept, numbers, str(path), dropped, ignored)


def _number(cell: Any, name: str, run: str, path: Path) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        said = "empty" if cell is None else repr(cell)
        raise UserError(f"{path}: {name} is {said} in {run}; expected a positive number in every run") from None


def _table(
    kept: Sequence[Mapping[str, Any]],
    numbers: dict[str, list[float]],
    source: str,
    dropped: list[dict[str, str]],
    ignored: Sequence[str] = (),
    count: Count | None = None,
) -> Runs:
    if not kept:
        why = f"; {dropped[0]['row']}: {dropped[0]['reason']}{_others(len(dropped))}" if dropped else ""
        raise UserError(f"{source} has no run with a loss{why}")
    return Runs.of(
        group=[row.get("group") or "" for row in kept],
        role=[row.get("role") or "grid" for row in kept],
        id=[row["id"] for row in kept],
        source=source,
        dropped=dropped,
        ignored=ignored,
        count=count,
        **numbers,
    )


def _sweep(folder: Path, count: Count) -> Runs:
    """The rows of a sweep's table joined with the results of its runs."""
    rows = _json(folder / "table.json")["rows"]
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, str]] = []
    numbers: dict[str, list[float]] = {name: [] for name in (*NEEDED, *OPTIONAL)}
    for row in rows:
        file = folder / "runs" / row["id"] / "result.json"
        result = _json(file) if file.is_file() else None
        reason = _unusable(row, result)
        if reason is not None or result is None:
            dropped.append({"row": row["id"], "reason": reason or ""})
            continue
        data = result["data"]
        kept.append(row)
        for name, value in {
            "params": result["parameters"][count],
            "tokens": data["tokens"],
            "loss": result["score"],
            "flops": result["flops"]["total"],
            "unique_tokens": data["tokens"] * data["unique_samples"] / data["samples"],
            "patch": row["axes"].get("patch", row["config"]["data"]["patch"]),
            "context": row["axes"].get("frames", row["config"]["data"]["frames"]),
            "samples": data["samples"],
        }.items():
            numbers[name].append(float(value))
    return _table(kept, numbers, str(folder), dropped, count=count)


def _unusable(row: Mapping[str, Any], result: Mapping[str, Any] | None) -> str | None:
    """Why a row of a sweep gives no point; None where it gives one."""
    if row["role"] == "lr-probe":
        return PROBE
    if result is None:
        return "it is not finished"
    if result["status"] == "diverged":
        return f"it diverged at step {result['step']}"
    if result["step"] != row["steps"]:
        return f"it is not finished: step {result['step']} of {row['steps']}"
    if row["role"] == "trunk" and not row["config"]["optim"]["decay"]:
        return "a trunk ends before its learning rate falls: its loss is not comparable with that of its branches"
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); the sweep wrote it whole, so copy it again or plan the sweep anew") from None
