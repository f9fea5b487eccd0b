"""Expand, then contract: on the newest schema the code of the release before still runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from tests.store.test_migrations import RELEASED, REVISIONS, config

SCRIPTS = list(ScriptDirectory.from_config(config("sqlite://")).walk_revisions())[::-1]
Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]


def tables(engine: sa.Engine) -> Tables:
    inspector = sa.inspect(engine)
    return {
        table: {column["name"]: dict(column) for column in inspector.get_columns(table)}
        for table in inspector.get_table_names()
    }


def missed(before: Tables, after: Tables) -> list[str]:
    """List changes that break code written for `before`: dropped columns, and new ones without a default."""
    faults: list[str] = []
    for table, columns in before.items():
        if table not in after:
            faults.append(f"{table} is gone")
            continue
        now = after[table]
        faults += [f"{table}.{column} is gone" for column in columns if column not in now]
        for name, column in now.items():
            was_filled = name in columns and not columns[name]["nullable"]
            if not (column["nullable"] or column["default"] is not None or was_filled):
                faults.append(f"{table}.{name} must be filled")
    return faults


def test_the_release_before_runs_on_the_newest_schema(tmp_path: Path) -> None:
    """Take a column out of the code in one release, and drop it in the next: `scripts/released_schema.py`."""
    address = f"sqlite:///{tmp_path}/x.db"
    command.upgrade(config(address), "head")
    assert missed(RELEASED["tables"], tables(sa.create_engine(address))) == []


def test_no_migration_shuts_out_the_release_before() -> None:
    released = RELEASED["revision"]
    since = [script for script in SCRIPTS if script.revision > released]
    assert [script.revision for script in since if released < script.module.OLDEST_CODE] == []


def test_a_migration_that_contracts_says_so(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/x.db"
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool)
    before: Tables = {}
    oldest = SCRIPTS[0].revision
    for script in SCRIPTS:
        command.upgrade(config(address), script.revision)
        after = tables(engine)
        said = script.module.OLDEST_CODE
        if faults := missed(before, after):
            assert oldest < said, f"{script.revision}: {faults}"
        assert oldest <= said
        before, oldest = after, said
    assert before.keys() >= RELEASED["tables"].keys()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DROP TABLE notes", "notes is gone"),
        ("ALTER TABLE notes RENAME TO remarks", "notes is gone"),
        ("ALTER TABLE notes DROP COLUMN text", "notes.text is gone"),
        ("ALTER TABLE notes RENAME COLUMN text TO body", "notes.text is gone"),
        ("ALTER TABLE notes ADD COLUMN kind TEXT NOT NULL DEFAULT 'x'", None),
        ("ALTER TABLE notes ADD COLUMN kind TEXT", None),
        ("CREATE TABLE others (id INTEGER NOT NULL)", None),
    ],
)
def test_the_rule_sees_them(statement: str, fault: str | None) -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id INTEGER NOT NULL, text TEXT)")
    before = tables(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert missed(before, tables(engine)) == ([] if fault is None else [fault])


def test_rule_finds_columns_without_a_default() -> None:
    column = {"nullable": True, "default": None}
    filled = {**column, "nullable": False}
    assert missed({"t": {"a": column}}, {"t": {"a": filled}}) == ["t.a must be filled"]
    assert missed({"t": {}}, {"t": {"a": filled}}) == ["t.a must be filled"]
    assert missed({"t": {"a": filled}}, {"t": {"a": column}}) == []


def test_every_revision_is_a_number_that_grows() -> None:
    assert sorted(REVISIONS, reverse=True) == REVISIONS
