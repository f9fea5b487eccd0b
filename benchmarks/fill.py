"""Fills a Slipway's PostgreSQL with finished runs and with users, as copies of a run that really happened."""

from __future__ import annotations

import psycopg

DAYS = 80  # the copies lie evenly in so many days before the original: younger than what is pruned
CHUNK = 50_000  # rows per transaction
# Times (ms) that move with a copy, and texts that name its run, its hold or its user.
TIMES = ("created_at", "started_at", "finished_at", "at", "called_at", "wake_at")
NUMBER = "lpad(i::text, 16, '0')"
USERS = {"id": f"'usr_0bench' || {NUMBER}", "username": "'bench-' || i", "role": "'user'"}
LOG_INS = {"id": f"'fam_0bench' || {NUMBER}", "user_id": USERS["id"]}
WHICH = {
    "runs": "id = %s",
    "steps": "run_id = %s",
    "ledger": "entry_id IN (SELECT entry_id FROM ledger WHERE run_id = %s)",  # one row of an entry names its run
}

Connection = psycopg.Connection[tuple[str, ...]]


def user_id(number: int) -> str:
    return f"usr_0bench{number:016d}"


def family_id(number: int) -> str:
    """Of a user's log-in."""
    return f"fam_0bench{number:016d}"


def fill(database: str, runs: int, users: int) -> None:
    """Copy rows, then vacuum and analyse as autovacuum would in time. Raises `LookupError` without a finished run."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("SET session_replication_role = replica")  # copies refer to copies: no check is needed
        db.execute("SET synchronous_commit = off")
        chosen = "SELECT id, user_id FROM runs WHERE status = 'succeeded' ORDER BY id LIMIT 1"
        found = db.execute(chosen).fetchone()
        if found is None:
            raise LookupError("there is no finished run to copy")
        run, owner = found
        _copy(db, "users", "id = %s", owner, USERS, users)
        first = db.execute("SELECT min(id) FROM token_families WHERE user_id = %s", (owner,)).fetchone()
        _copy(db, "token_families", "id = %s", first[0] if first else "", LOG_INS, users)
        for table, which in WHICH.items():
            _copy(db, table, which, run, _of_runs(table, owner, runs, users), runs)
        db.execute("VACUUM ANALYZE")


def _columns(db: Connection, table: str) -> list[str]:
    named = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s"
    )
    return [row[0] for row in db.execute(named, (table,))]


def _of_runs(table: str, owner: str, runs: int, users: int) -> dict[str, str]:
    user = f"'usr_0bench' || lpad(mod(i, {max(users, 1)})::text, 16, '0')"
    run = f"'run_0bench' || {NUMBER}"
    new = {  # of the rows of an entry of the ledger only one says whose it is
        "user_id": f"CASE WHEN user_id IS NOT NULL THEN {user} END",
        "run_id": f"CASE WHEN run_id IS NOT NULL THEN {run} END",
        "request_id": "'bench-' || i",
        "entry_id": f"substr(entry_id, 1, 3) || '_0bench' || {NUMBER}",
        "account": f"replace(account, '{owner}', {user})",
    }
    if table == "runs":
        new["id"] = run
    step = DAYS * 86_400_000 // max(runs, 1)
    return new | {name: f'"{name}" - ({runs} - i) * {step}::bigint' for name in TIMES}


def _copy(db: Connection, table: str, which: str, original: str, new: dict[str, str], count: int) -> None:
    """`which`: the original's rows. `new`: what makes a column of a copy, where it is not as there; `i` numbers the
    copies from 0."""
    columns = _columns(db, table)
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(new.get(column, f'"{column}"') for column in columns)
    for begin in range(0, count, CHUNK):
        statement = (
            f"INSERT INTO {table} ({names}) SELECT {values} FROM generate_series(%s::bigint, %s::bigint) AS n(i)"
            f" CROSS JOIN (SELECT * FROM {table} WHERE {which}) AS original"
        )
        end = min(begin + CHUNK, count) - 1
        db.execute(statement.encode(), (begin, end, original))
