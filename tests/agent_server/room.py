"""Newsrooms of real processes: in one Slipway, or with `research` and `writer` served alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from service.store.database import Database
from service.store.schema import holds, ledger
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.agent_server.house import TOKEN, Piece
from tests.conftest import ROOT, Model, RedisServer, Slipway, model_server, slipway_server

QUESTION = "How does delta sync find changed blocks? Why is a sync no backup?"
TABLE = PriceTable.load()
CALL = (
    "model",
    "price_id",
    "basis",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "amount_nano",
    "agent",
)


@dataclass
class Room:
    """A Slipway with its database and a model of its own, whose prompt cache no other one fills."""

    server: Slipway
    database_url: str
    model: Model

    def ask(self, agent: str = "newsroom", **fields: Any) -> dict[str, Any]:
        """Return the result of a run that ends with an answer or an error."""
        body = {"input": QUESTION, "cache": "bypass", **fields}
        with self.server.client() as client:
            started = client.post(f"/v1/agents/{agent}/invoke", json=body)
            run_id = started.headers.get("Location", "").rpartition("/")[2] or started.json().get("run_id")
            found: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
            return found

    def calls(self) -> Counter[tuple[Any, ...]]:
        """Return the ledger's rows of model calls, without their ids and times."""
        rows = sa.select(*(ledger.c[name] for name in CALL)).where(
            ledger.c.account == "upstream", ledger.c.kind == "settle"
        )
        return Counter(tuple(row) for row in self._rows(rows))

    def assert_books_balance(self) -> None:
        db = Database(self.database_url, pool_size=2)
        try:
            checked = check(db, TABLE)
        finally:
            db.engine.dispose()
        assert (checked.faults, checked.held) == ([], 0)
        assert self._rows(sa.select(holds.c.id)) == []

    def _rows(self, statement: Any) -> list[Any]:
        db = Database(self.database_url, pool_size=2)
        try:
            with db.engine.connect() as connection:
                return list(connection.execute(statement))
        finally:
            db.engine.dispose()


def unmarked(folder: Path) -> Path:
    """Copy the agents, their prompts without the marker, which agents served alone do not have: it costs tokens."""
    shutil.copytree(ROOT / "agents", folder)
    for path in folder.glob("*/agent.yaml"):
        path.write_text(f"{path.read_text()}\nprompt_secret: false\n")
    return folder


@contextmanager
def room(
    home: Path, redis_server: RedisServer, database_url: str, piece: Piece | None = None, **settings: str
) -> Iterator[Room]:
    """A Slipway that has `research` and `writer` in itself, or asks the piece for them."""
    elsewhere = {}
    if piece is not None:
        host = urlsplit(piece.url).netloc
        elsewhere = {
            "REMOTE_AGENTS": f"research={piece.url}/research,writer={piece.url}/writer",
            "REMOTE_HOSTS": host,
            "REMOTE_CREDENTIALS": f"{host}={TOKEN}",
        }
    with (
        model_server() as model,
        slipway_server(
            home,
            redis_server.url,
            model.url,
            DATABASE_URL=database_url,
            AGENTS_DIR=str(unmarked(home.with_name(f"{home.name}-agents"))),
            **elsewhere,
            **settings,
        ) as server,
    ):
        yield Room(server, database_url, model)
