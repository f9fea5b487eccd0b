"""Fills a Slipway database with finished runs and with users, as copies of a run that really happened.

Only for SQLite, and only while nothing else uses the file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

DAYS = 80  # the copies lie evenly in so many days before the original: younger than what is pruned
CHUNK = 50_000  # rows per transaction
# Times (ms) that move with a copy, and texts that name its run, its hold or its user.
TIMES = ("created_at", "started_at", "finished_at", "at", "called_at", "wake_at")
USERS = {"id": "printf('usr_0bench%016d', i)", "username": "printf('bench-%d', i)", "role": "'user'"}
LOG_INS = {"id": "printf('fam_0bench%016d', i)", "user_id": USERS["id"]}
WHICH = {
    "runs": "id = ?",
    "steps": "run_id = ?",
    "ledger": "entry_id IN (SELECT entry_id FROM ledger WHERE run_id = ?)",  # one row of an entry names its run
}


def user_id(number: int) -> str:
    return f"usr_0bench{number:016d}"


def family_id(number: int) -> str:
    """Of a user's log-in."""
    return f"fam_0bench{number:016d}"


def fill(database: Path, runs: int, users: int) -> None:
    """Raises `LookupError` when there is no finished run to copy."""
    with closing(sqlite3.connect(database)) as db:
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-400000", "foreign_keys=OFF"):
            db.execute(f"PRAGMA {pragma}")
        found = db.execute(
            "SELECT id, user_id FROM runs WHERE status = 'succeeded' ORDER BY id LIMIT 1"
        ).fetchone()
        if found is None:
            raise LookupError("there is no finished run to copy")
        run, owner = found
        _copy(db, "users", "id = ?", owner, USERS, users)
        family = db.execute("SELECT min(id) FROM token_families WHERE user_id = ?", (owner,)).fetchone()[0]
        _copy(db, "token_families", "id = ?", family, LOG_INS, users)
        for table, which in WHICH.items():
            _copy(db, table, which, run, _of_runs(table, owner, runs, users), runs)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _of_runs(table: str, owner: str, runs: int, users: int) -> dict[str, str]:
    user = f"printf('usr_0bench%016d', i % {max(users, 1)})"
    run = "printf('run_0bench%016d', i)"
    new = {  # of the rows of an entry of the ledger only one says whose it is
        "user_id": f"iif(user_id IS NULL, NULL, {user})",
        "run_id": f"iif(run_id IS NULL, NULL, {run})",
        "request_id": "printf('bench-%d', i)",
        "entry_id": "printf('%s_0bench%016d', substr(entry_id, 1, 3), i)",
        "account": f"replace(account, '{owner}', {user})",
    }
    if table == "runs":
        new["id"] = run
    step = DAYS * 86_400_000 // max(runs, 1)
    return new | {name: f"{name} - ({runs} - i) * {step}" for name in TIMES}


def _copy(
    db: sqlite3.Connection, table: str, which: str, original: str, new: dict[str, str], count: int
) -> None:
    """`which`: the original's rows. `new`: what makes a column of a copy, where it is not as there; `i` numbers the
    copies from 0."""
    columns = _columns(db, table)
    names, values = ", ".join(columns), ", ".join(new.get(column, column) for column in columns)
    for begin in range(0, count, CHUNK):
        end = min(begin + CHUNK, count) - 1
        db.execute(
            f"WITH RECURSIVE n(i) AS (SELECT {begin} UNION ALL SELECT i + 1 FROM n WHERE i < {end})"
            f" INSERT INTO {table} ({names}) SELECT {values} FROM n CROSS JOIN"
            f" (SELECT * FROM {table} WHERE {which})",
            (original,),
        )
        db.commit()
