"""The table of a sweep: written once, known by what it computes, at home wherever its folder lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs import config
from sweeps import row

from scigpt.data.files import dump_json
from scigpt.errors import UserError
from scigpt.launch.sweep.table import FILE, Table, checkpoint_of, identity
from scigpt.train.checkpoint import folder_of
from scigpt.train.config import RunConfig


@pytest.fixture
def table(tmp_path: Path) -> Table:
    corpora, sweep = [tmp_path / "toys"], tmp_path / "sweep"
    trunk = row(sweep, corpora, "long", "trunk", keep_steps=[6])
    branch = row(sweep, corpora, "short", "anneal", parent=trunk.id, branch_step=6, steps=8)
    return Table(sweep, "1", {"toys": "f"}, (trunk, replace(branch, axes={"patch": 4}), row(sweep, corpora, "last", "hold-out")))


def test_what_is_read_is_what_was_written(table: Table) -> None:
    assert table.write()
    assert Table.read(table.folder) == Table.read(table.folder / FILE) == table
    assert not table.write()  # the same is there
    assert [r.fitted for r in table.rows] == [True, True, False]
    with pytest.raises(UserError, match="has no row abc; expected one of its 3 ids"):
        table.row("abc")


def test_a_table_that_was_moved_is_at_home(table: Table, tmp_path: Path) -> None:
    table.write()
    moved = table.folder.rename(tmp_path / "elsewhere")
    found = Table.read(moved)
    trunk, branch, _ = found.rows
    assert found.config(trunk).run == str(moved / "runs" / trunk.id)
    assert found.config(branch).train.branch_from == str(folder_of(moved / "runs" / trunk.id / "checkpoints", 6))
    assert found.config(trunk).train.branch_from is None
    assert checkpoint_of(moved, trunk.id, 6) == found.branch(branch)
    again = replace(table, folder=moved, rows=tuple(replace(r, config=r.config | {"run": str(moved / "runs" / r.id)}) for r in table.rows))
    assert not again.write()  # it is the same plan, seen from another place


def test_another_plan_never_takes_its_place(table: Table) -> None:
    table.write()
    before = (table.folder / FILE).read_bytes()
    trunk, branch, last = table.rows
    for other, why in (
        (replace(table, rows=(trunk, branch)), r"another plan \(1 of its 3 rows are not in this one, 0 would be new\)"),
        (replace(table, rows=(trunk, branch, replace(last, config=last.config | {"seed": 1}))), r"other settings .*\(first: last\)"),
        (replace(table, rows=(branch, trunk, last)), "in another order"),
        (replace(table, code_version="2", rows=(trunk,)), "was planned with code 1, this is 2"),
        (replace(table, corpora={"toys": "g"}, rows=(trunk,)), r"on other data \(toys\)"),
    ):
        with pytest.raises(UserError, match=f"{why}.*choose another sweep=FOLDER"):
            other.write()
    assert (table.folder / FILE).read_bytes() == before


def test_a_table_that_was_touched_is_refused(table: Table, tmp_path: Path) -> None:
    table.write()
    file = table.folder / FILE
    data = json.loads(file.read_text())
    data["rows"][0]["steps"] += 1
    file.write_bytes(dump_json(data))
    with pytest.raises(UserError, match="changed after it was planned"):
        Table.read(table.folder)
    file.write_bytes(dump_json(data | {"schema_version": 9}))
    with pytest.raises(UserError, match="has schema 9, this version reads 1"):
        Table.read(table.folder)
    file.write_bytes(dump_json([1]))
    with pytest.raises(UserError, match="is not the table of a sweep"):
        Table.read(table.folder)
    with pytest.raises(UserError, match=r"there is no table\.json"):
        Table.read(tmp_path)


def test_an_id_is_of_what_decides_the_result(tmp_path: Path) -> None:
    asked = config([tmp_path / "toys"], tmp_path / "run")

    def of(c: RunConfig, data: str = "f", code: str = "1", parent: str | None = None) -> str:
        return identity(c, [data], code, parent, None if parent is None else 5)

    def trained(**values: object) -> RunConfig:
        return replace(asked, train=replace(asked.train, **values))

    same = [
        replace(asked, run="elsewhere", report=replace(asked.report, mlflow=True)),
        trained(threads=2, checkpoint_every=7, keep_steps=[3], branch_from="somewhere"),
        replace(asked, data=replace(asked.data, corpora=[replace(asked.data.corpora[0], path="moved")])),
    ]
    assert {of(c) for c in same} == {of(asked)}
    other = [of(replace(asked, seed=1)), of(trained(steps=21)), of(asked, data="g"), of(asked, code="2"), of(asked, parent="a"), of(asked)]
    assert len(set(other)) == len(other)
    assert all(len(i) == 12 and set(i) <= set("0123456789abcdef") for i in other)
