"""The rule of what is visible says the same in Python and in SQL, over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest
import sqlalchemy as sa

from service.store.database import Database, Transaction
from service.store.schema import holds, ledger, users
from service.store.visibility import UNRESTRICTED, Visibility, allows, visible_to
from service.types import DEFAULT_WORKSPACE, Caller
from tests.tables import create_tables

USERS = {"usr_ada": DEFAULT_WORKSPACE, "usr_bob": "wsp_acme"}
AGENTS = ("support", "support-two", "Support", "supXport", "sup_port", "analyst", "a")
SCOPES: tuple[tuple[str, ...], ...] = (
    (),
    ("agents:*",),
    ("agents:support",),
    ("agents:sup_port",),
    ("agents:sup*",),
    ("agents:sup_*",),
    ("agents:none", "agents:a*"),
    ("agents:none",),
    ("agents:%",),
    ("agents:",),
)
ROWS = [
    {"user_id": user, "workspace_id": workspace, "agent": agent}
    for (user, workspace), agent in product(USERS.items(), AGENTS)
]


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    """One row for each user and agent."""
    with closing(Database(url.replace("postgresql://", "postgresql+psycopg://"))) as database:
        create_tables(database.engine)
        database.transact(_fill)
        yield database


def _fill(tx: Transaction) -> None:
    entry = {"kind": "hold", "account": "held", "amount_nano": 0, "at": 0, "called_at": 0}
    hold = {"run_id": "r", "attempt": 1, "step": 1, "model": "m", "price_id": "p", "amount_nano": 0}
    hold |= {"counters": [], "called_at": 0}
    user = {"password_hash": "", "role": "user", "disabled": False, "created_at": 0}
    for user_id, workspace_id in USERS.items():
        row = {"id": user_id, "username": user_id, "workspace_id": workspace_id, **user}
        tx.execute(sa.insert(users), row)
    for number, row in enumerate(ROWS):
        of_user = {name: row[name] for name in ("user_id", "agent")}
        tx.execute(sa.insert(ledger), {**entry, "entry_id": f"e{number}", **of_user})
        tx.execute(sa.insert(holds), {**hold, "id": f"h{number}", **row})


def test_sql_and_python_agree(db: Database) -> None:
    """With a column for the workspace, as `holds` has, and without one."""
    for table, (user_id, scopes, workspace_id) in product(
        (ledger, holds), product((None, "usr_ada", "usr_eve"), SCOPES, (None, *USERS.values(), "wsp_none"))
    ):
        visible = Visibility(user_id, scopes, workspace_id)
        query = sa.select(table.c.user_id, table.c.agent).where(*visible.where(table))
        found = {(row["user_id"], row["agent"]) for row in db.query(lambda tx: tx.rows(query))}  # noqa: B023
        expected = {(row["user_id"], row["agent"]) for row in ROWS if visible.covers(row)}
        assert found == expected, (table.name, visible)


@pytest.mark.parametrize(
    ("role", "own", "workspace", "visible"),
    [
        ("user", False, "wsp_acme", ("usr_ada", None)),
        ("operator", False, "wsp_acme", (None, "wsp_acme")),
        ("admin", False, "wsp_acme", (None, "wsp_acme")),
        ("operator", False, DEFAULT_WORKSPACE, (None, DEFAULT_WORKSPACE)),
        ("admin", False, DEFAULT_WORKSPACE, (None, None)),
        ("admin", True, DEFAULT_WORKSPACE, ("usr_ada", None)),
        ("operator", True, "wsp_acme", ("usr_ada", None)),
        ("anything else", False, "wsp_acme", ("usr_ada", None)),
    ],
)
def test_operators_see_everybodys_in_their_workspace(
    role: str, own: bool, workspace: str, visible: tuple[str | None, str | None]
) -> None:
    caller = Caller("usr_ada", "ada", role, ("agents:a",), workspace_id=workspace)  # type: ignore[arg-type]
    user_id, workspace_id = visible
    assert visible_to(caller, own=own) == Visibility(user_id, ("agents:a",), workspace_id)


def test_scopes_allow_the_agents_they_name() -> None:
    assert allows((), "agents:support") and UNRESTRICTED.covers(ROWS[0])
    assert allows(("agents:sup*",), "agents:support") and not allows(("agents:sup",), "agents:support")
    assert allows(("models:*",), "agents:support")  # free in a kind without scopes


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((), True),
        (("agents:*",), True),
        (("agents:support",), True),
        (("agents:sup*",), True),
        (("agents:other",), False),
    ],
)
def test_scopes_are_patterns(scopes: tuple[str, ...], allowed: bool) -> None:
    assert allows(scopes, "agents:support") is allowed
