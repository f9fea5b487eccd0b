"""An application with settled calls in its ledger, and its usage reports as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from service.store.database import Database, InsertOnce
from service.store.schema import users
from service.usage import reports
from service.usage.rollup import roll_up
from tests.made import app_in, close
from tests.usage.calls import TODAY, book, some

CSV = {"Accept": "text/csv"}
DAYS, USERS, GROUPS = 20, 300, "day,user,agent"
SPAN = {"from": reports.day_of(TODAY - DAYS), "to": reports.day_of(TODAY - 1)}


class House:
    """An application with an admin who is signed in, and 6,000 calls of others."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.app: Flask = app_in(folder, **environ)
        services = self.app.extensions["slipway"]
        self.db: Database = services.infra.db
        self.bulkhead = services.runs.bulkhead
        user = services.auth.users.by_name("demo")
        self.user_id = user.id
        self.signed_in = {
            "Authorization": f"Bearer {services.auth.tokens.begin(user).public()['access_token']}"
        }

    def get(self, headers: dict[str, str] | None = None, buffered: bool = True, **query: Any) -> TestResponse:
        return self.app.test_client().get(
            "/v1/usage",
            query_string={**SPAN, **query},
            headers={**self.signed_in, "Accept": "application/json", **(headers or {})},
            buffered=buffered,
        )

    def pages(self, **query: Any) -> Iterator[Any]:
        cursor: dict[str, str] = {}
        while True:
            body = self.get(**query, **cursor).json
            yield body
            if body["next_cursor"] is None:
                return
            cursor = {"cursor": body["next_cursor"]}


@contextmanager
def opened(folder: Path, **environ: str) -> Iterator[House]:
    """A house with 6,000 calls of 300 users, those of some days rolled up."""
    made = House(folder, **environ)
    book(made.db, some(6_000, TODAY - DAYS, TODAY, users=USERS))
    roll_up(made.db, batches=5)
    rows = [user_row(n) for n in range(USERS)]
    made.db.transact(lambda tx: tx.execute(InsertOnce(users), rows))
    yield made
    close(made.app)


def user_row(number: int) -> dict[str, Any]:
    name = f"usr_{number:04}"
    about = {"password_hash": "x", "role": "user", "disabled": False, "created_at": 1}
    return {"id": name, "username": name, **about}


def sheet_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
