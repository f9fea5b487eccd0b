"""Every earlier revision can be brought to the newest with data in it, and the newest is what the code expects."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.store import schema
from service.store.sealer import Sealer
from service.types import DEFAULT_WORKSPACE
from tests.conftest import ROOT
from tests.nginx.pair import database

SPINE, MONEY = "0001", "0002"
USER = {
    "id": "usr_1",
    "username": "ada",
    "password_hash": "x",
    "role": "user",
    "disabled": False,
    "created_at": 1,
}
RUN = {
    "id": "run_1",
    "user_id": "usr_1",
    "agent": "assistant",
    "agent_version": "v",
    "door": "invoke",
    "request_id": "r",
    "request": {"agent": "assistant", "messages": [{"role": "user", "content": "Wörter 🙂"}]},
    "status": "succeeded",
    "cache": "miss",
    "created_at": 1,
    "finished_at": 2,
}
STEP = {
    "run_id": "run_1",
    "n": 1,
    "kind": "model",
    "name": "answer",
    "attempt": 1,
    "reply": {"content": []},
    "events": [[1, "run.started", {}]],
    "first_seq": 1,
    "last_seq": 1,
    "started_at": 1,
    "finished_at": 2,
}


HOLD = {
    "id": "hld_1",
    "run_id": "run_1",
    "attempt": 1,
    "step": 1,
    "user_id": "usr_1",
    "agent": "assistant",
    "model": "m",
    "price_id": "p",
    "amount_nano": 5,
    "counters": ["user:usr_1/day/0/0"],
    "called_at": 1,
}


CAP = {"scope": "service", "period": "day", "amount_nano": 7, "updated_at": 1}
COUNTER = {
    "id": "service/day/0/0",
    "window_id": "service/day/0",
    "scope": "service",
    "period": "day",
    "starts_at": 0,
    "cap_nano": 7,
    "spent_nano": 5,
    "held_nano": 0,
    "seq": 1,
}


def config(url: str) -> Config:
    alembic = Config(ROOT / "alembic.ini")
    alembic.attributes["url"] = url
    return alembic


REVISIONS = [script.revision for script in ScriptDirectory.from_config(config("sqlite://")).walk_revisions()]
# What the code of the release before uses: see `scripts/released_schema.py`.
RELEASED: dict[str, Any] = json.loads((ROOT / "migrations" / "released.json").read_text())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(str(request.param), tmp_path) as address:
        yield address.replace("postgresql://", "postgresql+psycopg://", 1)


def test_data_of_every_revision_reaches_the_newest(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    for revision in reversed(REVISIONS):
        command.upgrade(config(url), revision)
        if revision == SPINE:
            with engine.begin() as connection:
                for table, row in ((schema.users, USER), (schema.runs, RUN), (schema.steps, STEP)):
                    columns = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                    old = sa.table(
                        table.name, *(column._copy() for column in table.c if column.name in columns)
                    )
                    defaults = {"last_seq": 0, "cost_nano": 0, "losses": 0, "cancel_requested": False}
                    tokens = dict.fromkeys((name for name in columns if name.endswith("_tokens")), 0)
                    given = {**defaults, "attempt": 1, **tokens, **row}
                    stored = Sealer(None).values(table, given, ())
                    connection.execute(sa.insert(old), {k: v for k, v in stored.items() if k in columns})
        if revision == MONEY:
            with engine.begin() as connection:
                connection.execute(sa.insert(schema.holds), HOLD)
                connection.execute(sa.insert(schema.caps), CAP)
                connection.execute(sa.insert(schema.counters), COUNTER)
    with engine.connect() as connection:
        hold = connection.execute(sa.select(schema.holds)).mappings().one()
        later = {"key_id": None, "session_id": None, "workspace_id": DEFAULT_WORKSPACE}
        later |= {"end_user": None, "tree_id": None}
        assert dict(hold) == {**later, **HOLD}
        run = connection.execute(sa.select(schema.runs)).mappings().one()
        assert (run["id"], run["request"]) == ("run_1", RUN["request"])
        user = connection.execute(sa.select(schema.users)).mappings().one()
        assert user["workspace_id"] == run["workspace_id"] == DEFAULT_WORKSPACE
        names = sa.select(schema.workspaces.c.id, schema.workspaces.c.name)
        assert connection.execute(names).all() == [(DEFAULT_WORKSPACE, "default")]
        assert connection.execute(sa.select(schema.steps.c.events)).scalar_one() == STEP["events"]

        for table, row in ((schema.caps, CAP), (schema.counters, COUNTER)):
            kept = connection.execute(sa.select(table)).mappings().one()
            assert {name: kept[name] for name in row} == row


def test_cap_before_an_override_is_back_in_older_code(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    command.upgrade(config(url), "head")
    common = {"period": "day", "updated_at": 1, "until": 2**45}
    longest = f"end_user:key_{'1' * 26}/{'🙂' * 64}"
    with engine.begin() as connection:
        for scope, amount, after in ((longest, 9, 7), ("service", 9, 10**18), ("agent:x", 9, None)):
            row = {**common, "scope": scope, "amount_nano": amount, "after_nano": after}
            connection.execute(sa.insert(schema.caps), row)
        user = {**USER, "limit_runs": "9/minute", "limit_runs_until": 2**45, "limit_runs_after": None}
        connection.execute(sa.insert(schema.users), user)
    command.downgrade(config(url), "0026")
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT scope, amount_nano FROM caps")).all()
        assert dict(map(tuple, found)) == {longest: 7, "service": None}
        assert connection.execute(sa.text("SELECT limit_runs FROM users")).all() == [(None,)]
    command.upgrade(config(url), "head")


@pytest.mark.filterwarnings("ignore:Did not recognize type .halfvec.")
def test_newest_revision_matches_the_schema(url: str) -> None:
    command.upgrade(config(url), "head")
    with sa.create_engine(url, poolclass=sa.pool.NullPool).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, schema.metadata)
        assert [
            each for each in found if not (_kept(each) or _width_of_sqlite(each) or of_search(each))
        ] == []


def of_search(difference: Any) -> bool:
    """Tell whether it is a structure for searches of one of the databases, beside the tables of knowledge."""
    kind, *found = difference
    if kind == "remove_table":
        return str(found[0].name).startswith(("knowledge_words", "knowledge_vectors"))
    if kind == "remove_column":
        return found[-1].name == "lexemes"
    return kind == "remove_index" and str(found[0].name).endswith("_lexemes")


def _width_of_sqlite(difference: Any) -> bool:
    """Whether it is a width that SQLite does not enforce; to change it would rewrite the table."""
    if difference[0][0] != "modify_type":
        return False
    *_, old, new = difference[0]
    return isinstance(old, sa.VARCHAR) and isinstance(new, schema.SealedText)


def _kept(difference: Any) -> bool:
    """Whether it is a column that only the release before uses: a later migration drops it, see `test_expand.py`."""
    if difference[0] != "remove_column":
        return False
    _, _, table, column = difference
    return column.name in RELEASED["tables"].get(table, {}) and (
        column.nullable or column.server_default is not None
    )


def test_each_revision_can_be_taken_back(url: str) -> None:
    command.upgrade(config(url), "head")
    command.downgrade(config(url), "base")
    command.upgrade(config(url), "head")


def test_a_machine_that_has_nothing_yet_gets_a_private_folder(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    environment = {
        **os.environ,
        "SLIPWAY_HOME": str(home),
        "APP_ENV": "development",
        "FLASK_SKIP_DOTENV": "1",
    }
    environment.pop("DATABASE_URL", None)
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, stat.S_IMODE(home.stat().st_mode)) == (0, 0o700), done.stderr
    assert (home / "slipway.db").is_file()
