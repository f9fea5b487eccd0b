"""Local store of a server: one SQLite file, each change one transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

LOCK_SECONDS = 5.0
MAX_KEY = 200  # characters
_MADE = "CREATE TABLE IF NOT EXISTS made (key TEXT PRIMARY KEY, call TEXT NOT NULL, result TEXT NOT NULL)"

Change = Callable[[sqlite3.Connection], dict[str, Any]]


class Refused(Exception):
    """Raised for a call that is not made; the message is for the model."""


class Store:
    """Store in `path`, created with `tables`, and filled by `seed` when it is new.

    Thread-safe: each use has a connection of its own.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], seed: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # mails are nobody else's to read
        with self._transaction() as db:
            new = not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'made'").fetchall()
            for table in (_MADE, *tables):
                db.execute(table)
            if new and seed is not None:
                seed(db)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._connection() as db:
            return db.execute(statement, values).fetchall()

    def once(self, key: str, name: str, arguments: Mapping[str, Any], change: Change) -> dict[str, Any]:
        """Make a change and keep its result under `key`; a second call with that key only gets the result.

        Without a key the change is made. Raises `Refused` for a key of another call, and what `change` raises.
        """
        if len(key) > MAX_KEY:
            raise Refused(f"The idempotency key has more than {MAX_KEY} characters.")
        call = json.dumps([name, arguments], sort_keys=True)
        with self._transaction() as db:
            made = db.execute("SELECT call, result FROM made WHERE key = ?", (key,)).fetchone()
            if made is not None:
                if made["call"] != call:
                    raise Refused("This call was made before with other arguments, and is not made again.")
                return dict(json.loads(made["result"]))
            result = change(db)
            if key:
                db.execute("INSERT INTO made VALUES (?, ?, ?)", (key, call, json.dumps(result)))
            return result

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            yield db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.rollback()
                raise
