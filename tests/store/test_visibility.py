"""The rule of what is visible says the same in Python and in SQL, over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest
import sqlalchemy as sa

from service.store.database import Database
from service.store.schema import ledger, metadata
from service.store.visibility import UNRESTRICTED, Visibility, allows, visible_to
from service.types import Caller

USERS = ("usr_ada", "usr_bob")
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
    ("models:*",),
    ("models:*", "agents:a"),
)


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    """One row for each user and agent."""
    with closing(Database(url.replace("postgresql://", "postgresql+psycopg://"))) as database:
        metadata.create_all(database.engine)
        plain = {"kind": "hold", "account": "held", "amount_nano": 0, "at": 0, "called_at": 0}
        rows = [
            {**plain, "entry_id": f"e{number}", "user_id": user, "agent": agent}
            for number, (user, agent) in enumerate(product(USERS, AGENTS))
        ]
        database.transact(lambda tx: tx.execute(sa.insert(ledger), rows))
        yield database


def test_sql_and_python_agree(db: Database) -> None:
    for user_id, scopes in product((None, "usr_ada", "usr_eve"), SCOPES):
        visible = Visibility(user_id, scopes)
        query = sa.select(ledger.c.user_id, ledger.c.agent).where(*visible.where(ledger))
        found = {(row["user_id"], row["agent"]) for row in db.query(lambda tx: tx.rows(query))}  # noqa: B023
        assert found == {row for row in product(USERS, AGENTS) if visible.covers(*row)}, visible


@pytest.mark.parametrize(
    ("role", "own", "user_id"),
    [
        ("user", False, "usr_ada"),
        ("operator", False, None),
        ("admin", False, None),
        ("operator", True, "usr_ada"),
        ("anything else", False, "usr_ada"),
    ],
)
def test_operators_see_everybodys(role: str, own: bool, user_id: str | None) -> None:
    caller = Caller("usr_ada", "ada", role, ("agents:a",))  # type: ignore[arg-type]
    assert visible_to(caller, own=own) == Visibility(user_id, ("agents:a",))


def test_scopes_allow_the_agents_they_name() -> None:
    assert allows((), "agents:support") and UNRESTRICTED.covers("usr_x", "support")
    assert allows(("agents:sup*",), "agents:support") and not allows(("agents:sup",), "agents:support")
    assert not allows(("models:*",), "agents:support")


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
