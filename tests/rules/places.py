"""Applications over filled databases: what a request or a command costs there, and small beside large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from click.testing import Result
from flask import Flask

from service.app import create_app
from service.jobs.upkeep import delete_expired
from service.store import closed_windows, workspaces
from service.types import now_ms
from service.usage.caps import closed_before
from service.usage.rollup import roll_up
from service.wiring import Services
from tests.made import settings_in
from tests.store.filled import ACME, Known, fill
from tests.store.spied import Spy, watch
from tests.tables import create_tables

MORE = 3  # times: the most that anything may cost more
# Pages, or hundreds of SQLite's steps, that are no growth: a level more of each index.
SLACK = 80
SCOPED = {"root": "a key of root", "ada": "a key of ada"}  # keys that name few agents
# A session's messages and its export are as long as it is: of the same length in both places.
PATHS = {
    "response_id": "resp_" + "0" * 26,
    "run_id": "run",
    "session_id": "fixed_session",
    "schedule_id": "schedule",
    "agent": "assistant",
    "document_id": "doc_" + "0" * 26,
    "workspace_id": ACME,
    "user_id": "user",
}


@dataclass
class Place:
    """One application over a filled database."""

    app: Flask
    spy: Spy
    known: Known
    tokens: dict[str, str]

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["slipway"]
        return found

    def get(self, who: str, path: str, query: dict[str, str]) -> int:
        """Measure the cost of an answer."""
        path = path.format(**{name: getattr(self.known, known, known) for name, known in PATHS.items()})
        filled = {"<session>": self.known.session, "<user>": self.known.user, "<cursor>": self._cursor(path)}
        for part, value in filled.items():
            query = {name: text.replace(part, value) for name, text in query.items()}
        client, headers = self.app.test_client(), {"Authorization": f"Bearer {self.tokens[who]}"}

        def ask() -> None:
            with client.get(path, query_string=query, headers=headers, buffered=True) as answer:
                assert answer.status_code in (200, 403, 404), (path, query, answer.text)

        return self.spy.cost(ask)

    def _cursor(self, path: str) -> str:
        """A place in the middle of a list."""
        if path.startswith("/v1/sessions/"):
            return "2"
        kind = path.rpartition("/")[2]
        prefix = {"sessions": "ses", "approvals": "apr", "audit": "aud"}.get(kind, "run")
        return f"{prefix}{self.known.run[3:]}"

    def command(self, *words: str) -> int:
        """Measure the cost of a command."""

        def run() -> None:
            done: Result = self.app.test_cli_runner().invoke(args=list(words))
            assert done.exit_code == 0, (words, done.output, done.exception)

        return self.spy.cost(run)


class Opened:
    """Makes a place, and closes it."""

    def __init__(self, folder: Path, url: str, model_url: str, count: int) -> None:
        no_limit = dict.fromkeys(("LIMIT_READS", "LIMIT_WRITES", "LIMIT_RUNS", "LIMIT_LOGIN"), "none")
        parts = {"DATABASE_URL": url, "ANTHROPIC_BASE_URL": model_url}
        self._app = create_app(settings_in(folder, **parts, **no_limit))
        services: Services = self._app.extensions["slipway"]
        spy = watch(services.infra.db.engine)
        create_tables(services.infra.db.engine)
        users = {
            name: services.auth.users.create(name, f"{name}-password", role)
            for name, role in (("root", "admin"), ("ada", "user"))
        }
        acme = {"id": ACME, "name": "acme", "disabled": False, "created_at": 1}
        services.infra.db.transact(lambda tx: workspaces.insert(tx, acme))
        users["eve"] = services.auth.users.create("eve", "eve-password", "operator")
        users["zoe"] = services.auth.users.create("zoe", "zoe-password", "admin", workspace_id=ACME)
        known = fill(services.infra.db.engine, count, heavy=users["ada"].id)
        tokens = {name: services.auth.tokens.begin(user).access_token for name, user in users.items()}
        for name, called in SCOPED.items():
            key = services.auth.keys.create(users[name].id, "key", ("agents:rar*", "agents:none"), None)
            tokens[called] = key["key"]
        self.place = Place(self._app, spy, known, tokens)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.place.services.close()


class Costs(NamedTuple):
    """Costs of one action on a small and on a large database."""

    what: str
    small: int
    large: int
    plan: str  # the dearest statement of the large one

    def fault(self, times: int = MORE, slack: int = SLACK) -> str | None:
        """Describe the fault if the large database does more work than it may."""
        if self.large <= times * self.small + slack:
            return None
        return f"{self.what}: {self.small} -> {self.large}; {self.plan}"


Pair = tuple[Place, Place]


def compare(pair: Pair, what: str, cost: Callable[[Place], int]) -> Costs:
    small, large = map(cost, pair)
    return Costs(what, small, large, pair[1].spy.told())


def tell(costs: list[Costs]) -> None:
    """Print the dearest as a line of the table in docs/growing.md, which `pytest -s` shows."""
    dearest = max(costs, key=lambda each: each.large)
    print(f"| {dearest.what} | {dearest.small:,} | {dearest.large:,} |")


def rest(place: Place) -> None:
    """Do what upkeep has to do, until there is nothing left; in larger batches than upkeep's."""
    db, before = place.services.infra.db, closed_before(now_ms())
    while db.transact(lambda tx: closed_windows.roll_up(tx, before, 5_000)):
        pass
    while roll_up(db, size=20_000):
        pass
    while any(delete_expired(db, 400, seconds=600).values()):
        pass


def database(server: str, name: str) -> str:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres?", f"/{name}?")
