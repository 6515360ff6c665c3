"""The table of a sweep: what is to be run, fixed before anything runs.

`SWEEP/table.json` is written once and never changed; its rows are known by what they compute, so planning the same again gives the same
table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.train.config import RunConfig

FILE, CONFIG, RUNS, ROWS = "table.json", "sweep.yaml", "runs", "rows"
SCHEMA = 1
Role = Literal["grid", "trunk", "anneal", "lr-probe", "seed-repeat", "hold-out"]


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a sweep.

    Args:
        id: 12 hex digits of the hash of what decides the result (`identity`).
        name: for people.
        role: `trunk` is a run that others branch from, `anneal` such a branch; both, `grid` and `seed-repeat` enter the fit. `lr-probe` and
            `hold-out` do not.
        config: resolved RunConfig as JSON; its folders are those of the sweep as it was planned, see `Table.config`.
        parent, branch_step: of an anneal: id of its trunk, and the step it goes on from.
        group: id of the trunk of a trunk and its branches, else its own: runs of a group are not independent.
        budget: nominal FLOPs of its isoFLOP line.
        axes: what varies beside size and length, by name: `patch`, `frames`, `unique` (share of the records), `mixture`, `crop`, `stride`,
            `lr`.
        params: number of parameters: `backbone`, `embedding`, `head`, `total`.
        tokens, samples, values, unique_samples, epochs, flops: of the whole trajectory, the trunk's part included; see
            `scigpt.train.account`.
        own_flops: what it costs to run this row; less than `flops` for an anneal.
        steps: optimizer steps of the whole trajectory.
    """

    id: str
    name: str
    role: Role
    config: dict[str, Any]
    group: str
    params: dict[str, int]
    tokens: int
    samples: int
    values: int
    unique_samples: int
    epochs: float
    flops: int
    own_flops: int
    steps: int
    parent: str | None = None
    branch_step: int | None = None
    budget: float | None = None
    axes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def fitted(self) -> bool:
        """Whether its loss enters the fit."""
        return self.role not in ("lr-probe", "hold-out")


@dataclass(frozen=True)
class Table:
    """The rows of a sweep, cheapest first, hold-outs last; a trunk stands before its branches.

    Args:
        folder: of the sweep, where it lies now.
        code_version: of the code that planned it.
        corpora: name to fingerprint.
    """

    folder: Path
    code_version: str
    corpora: dict[str, str]
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> Table:
        """A sweep's folder, or the table.json in it.

        Raises:
            UserError: no table there, another schema, or a table that was changed by hand.
        """
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{path}: there is no {FILE}; give the folder of a sweep, as `scigpt sweep plan` has made it")
        data = load_json(file, "the table of a sweep")
        if not isinstance(data, dict) or "rows" not in data or "checksum" not in data:
            raise UserError(f"{file}: is not the table of a sweep; give the folder that `scigpt sweep plan` has made")
        if data.get("schema_version") != SCHEMA:
            raise UserError(
                f"{file}: has schema {data.get('schema_version')}, this version reads {SCHEMA}; plan the sweep anew into another folder"
            )
        if data.pop("checksum") != _checksum(data):
            raise UserError(
                f"{file}: was changed after it was planned (its checksum differs); a table is immutable, restore it or plan another sweep"
            )
        return cls(file.parent, data["code_version"], data["corpora"], tuple(map(Row.from_json, data["rows"])))

    def write(self) -> bool:
        """Write SWEEP/table.json; False when the same table is there already.

        Raises:
            UserError: another table is there.
        """
        file = self.folder / FILE
        if file.exists():
            self._compare(Table.read(file))
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.to_json()
        write_bytes(file, dump_json(data | {"checksum": _checksum(data)}, indent=1))
        return True

    def to_json(self) -> dict[str, Any]:
        """What is written, without the checksum."""
        about = {"schema_version": SCHEMA, "sweep": str(self.folder), "code_version": self.code_version, "corpora": self.corpora}
        return about | {"rows": [r.to_json() for r in self.rows]}

    def _compare(self, before: Table) -> None:
        same = [_placeless(o) == _placeless(n) for o, n in zip(before.rows, self.rows, strict=False)]
        if all(same) and len(before.rows) == len(self.rows):
            return
        was, now = {r.id for r in before.rows}, {r.id for r in self.rows}
        if before.code_version != self.code_version:
            why = f"was planned with code {before.code_version}, this is {self.code_version}"
        elif moved := [n for n, f in self.corpora.items() if before.corpora.get(n, f) != f]:
            why = f"was planned on other data ({', '.join(moved)})"
        elif was != now:
            why = f"holds another plan ({len(was - now)} of its {len(was)} rows are not in this one, {len(now - was)} would be new)"
        else:
            name = self.rows[same.index(False)].name
            why = f"holds the same runs with other settings or in another order (first: {name})"
        raise UserError(f"{self.folder / FILE}: {why}; the table is immutable: choose another sweep=FOLDER")

    @cached_property
    def by_id(self) -> dict[str, Row]:
        return {r.id: r for r in self.rows}

    def row(self, id: str) -> Row:
        """
        Raises:
            UserError: an id that the table lacks.
        """
        if id not in self.by_id:
            raise UserError(f"{self.folder / FILE}: has no row {id}; expected one of its {len(self.rows)} ids")
        return self.by_id[id]

    def run(self, id: str) -> Path:
        """Folder of the run of a row."""
        return self.folder / RUNS / id

    def branch(self, row: Row) -> Path | None:
        """The checkpoint of its trunk that an anneal goes on from, None for all others."""
        return None if row.parent is None else checkpoint_of(self.folder, row.parent, row.branch_step or 0)

    def config(self, row: Row) -> RunConfig:
        """What is run for a row: its configuration, with the folders where the sweep lies now."""
        from scigpt.train.config import RunConfig, build

        found = build(RunConfig, row.config, f"{self.folder / FILE}: row {row.id}")
        branch = self.branch(row)
        return replace(found, run=str(self.run(row.id)), train=replace(found.train, branch_from=None if branch is None else str(branch)))


def checkpoint_of(sweep: Path, trunk: str, step: int) -> Path:
    """Folder of a trunk's checkpoint."""
    return sweep / RUNS / trunk / "checkpoints" / f"step-{step:08d}"


def identity(
    config: RunConfig, fingerprints: Sequence[str], code_version: str, parent: str | None = None, branch_step: int | None = None
) -> str:
    """Id of a row: of what decides its result. Folders, reports and whatever a run may change when it goes on (`scigpt.train.config.FREE`)
    do not; a trunk counts by its id, wherever it lies."""
    from scigpt.train.config import FREE, flatten

    deciding = {k: v for k, v in flatten(config).items() if not FREE.fullmatch(k) and k != "train.branch_from"}
    about = {"config": deciding, "corpora": list(fingerprints), "code": code_version, "parent": parent, "branch_step": branch_step}
    return hashlib.sha256(dump_json(about)).hexdigest()[:12]


def code_version() -> str:
    """Version of scigpt, and the commit where it is imported from a source tree."""
    import scigpt
    from scigpt.train.provenance import commit

    found = commit()
    return scigpt.__version__ + (f"+{found}" if found else "")


def _placeless(row: Row) -> Row:
    """The row, wherever its sweep lies."""
    train = row.config["train"] | {"branch_from": None}
    return replace(row, config=row.config | {"run": "", "train": train})


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(data)).hexdigest()
