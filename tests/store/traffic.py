"""Traffic of a service of any version on PostgreSQL, in statements valid from revision 0004 on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import IsolationLevel

PATIENCE_MS = 4_000  # a statement that takes longer is a failure: the service would answer 503
ZEROS = "0, false, 0, 0, 0, 0, 0, 0"  # from `losses` on
RUN_COLUMNS = (
    "id, user_id, agent, agent_version, door, request_id, request, status, cache, attempt, losses, cancel_requested, "
    "last_seq, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cost_nano, created_at"
)
HOLD_COLUMNS = "id, run_id, attempt, step, user_id, agent, model, price_id, amount_nano, counters, called_at"
LEDGER_COLUMNS = "entry_id, kind, account, amount_nano, at, called_at, user_id, run_id"

FILL = f"""
INSERT INTO users (id, username, password_hash, role, disabled, created_at)
SELECT 'usr_' || n, 'u' || n, 'x', 'user', false, 1 FROM generate_series(0, 9) n;
INSERT INTO sessions (id, user_id, agent, title, summary_upto, created_at, updated_at, expires_at)
SELECT 'ses_' || n, 'usr_' || n, 'a', '', 0, 1, 1, 1 FROM generate_series(0, 9) n;
INSERT INTO counters (id, window_id, scope, period, starts_at, cap_nano, spent_nano, held_nano, seq, warned)
SELECT 'c' || n, 'w', 's', 'day', 0, 0, 0, 0, 0, 0 FROM generate_series(0, 9) n;
INSERT INTO runs ({RUN_COLUMNS}, finished_at)
SELECT 'run_' || n, 'usr_' || n % 10, 'a', 'v', 'invoke', 'r', '{{}}', 'succeeded', 'miss', 1, {ZEROS}, n, n
FROM generate_series(1, :runs) n;
INSERT INTO ledger ({LEDGER_COLUMNS})
SELECT 'hld_' || n, 'settle', account, 1, n, n, 'usr_' || n % 10, 'run_' || n
FROM generate_series(1, :runs) n, unnest(ARRAY['upstream', 'held', 'user:usr_1', 'a', 'b']) account
"""

Work = Callable[[psycopg.Cursor, str, int], None]  # with an id of its own, and the number of its user


def fill(url: str, runs: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL.replace(":runs", str(runs)).split(";"):
            connection.execute(statement)


def start_run(cursor: psycopg.Cursor, name: str, user: int) -> None:
    cursor.execute("SELECT id FROM users WHERE id = %s", [f"usr_{user}"])
    cursor.execute(
        f"INSERT INTO runs ({RUN_COLUMNS}) VALUES "
        f"(%s, %s, 'a', 'v', 'invoke', 'r', '{{}}', 'running', 'miss', 1, {ZEROS}, 1)",
        [f"run_{name}", f"usr_{user}"],
    )
    cursor.execute(
        f"INSERT INTO holds ({HOLD_COLUMNS}) VALUES (%s, %s, 1, 1, %s, 'a', 'm', 'p', 1, '[]', 1)",
        [f"hld_{name}", f"run_{name}", f"usr_{user}"],
    )
    cursor.execute("UPDATE counters SET held_nano = held_nano + 1 WHERE id = %s", [f"c{user}"])
    _enter(cursor, name, user, "hold")


def end_run(cursor: psycopg.Cursor, name: str, user: int) -> None:
    cursor.execute("DELETE FROM holds WHERE run_id = %s RETURNING id", [f"run_{name}"])
    assert cursor.rowcount == 1
    cursor.execute("UPDATE counters SET held_nano = held_nano - 1 WHERE id = %s", [f"c{user}"])
    _enter(cursor, name, user, "settle")
    cursor.execute(
        "INSERT INTO messages (session_id, seq, run_id, role, content, tokens, created_at) "
        "SELECT %s, coalesce(max(seq), 0) + 1, %s, 'user', '[]', 1, 1 FROM messages WHERE session_id = %s",
        [f"ses_{user}", f"run_{name}", f"ses_{user}"],
    )
    cursor.execute(
        "INSERT INTO webhooks (run_id, url, status, attempts, created_at) VALUES (%s, '', 'failed', 0, 1)",
        [f"run_{name}"],
    )
    cursor.execute("UPDATE runs SET status = 'succeeded', finished_at = 2 WHERE id = %s", [f"run_{name}"])


def warn(cursor: psycopg.Cursor, name: str, user: int) -> None:
    """Lock the other way round: last what a run locks first."""
    cursor.execute(
        "INSERT INTO notices (id, url, signer, body, status, attempts, created_at) "
        "VALUES (%s, '', '', '{}', 'failed', 0, 1)",
        [name],
    )
    cursor.execute("SELECT count(*) FROM webhooks WHERE run_id = %s", [f"run_{name}"])
    _enter(cursor, name, user, "cap")
    cursor.execute("SELECT count(*) FROM holds WHERE run_id = %s", [f"run_{name}"])
    cursor.execute("UPDATE runs SET losses = 1 WHERE id = %s", [f"run_{name}"])


def look(cursor: psycopg.Cursor, name: str, user: int) -> None:
    for question in (
        "SELECT id FROM runs WHERE user_id = %s ORDER BY id DESC LIMIT 20",
        "SELECT sum(amount_nano) FROM ledger WHERE user_id = %s AND account = 'upstream' AND called_at > 1",
        "SELECT count(*) FROM approvals WHERE user_id = %s",
    ):
        cursor.execute(question, [f"usr_{user}"])


def _enter(cursor: psycopg.Cursor, name: str, user: int, kind: str) -> None:
    for account in ("upstream", "held"):
        cursor.execute(
            f"INSERT INTO ledger ({LEDGER_COLUMNS}) VALUES (%s, %s, %s, 1, 1, 1, %s, %s)",
            [f"hld_{name}", kind, account, f"usr_{user}", f"run_{name}"],
        )


@dataclass
class Traffic:
    """Threads that work as the service does. `failures`: what any of them was refused."""

    url: str
    threads: int = 6
    done: int = 0
    longest: float = 0.0  # seconds of a transaction
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(self.threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(30)

    def _work(self, number: int) -> None:
        options = f"-c statement_timeout={PATIENCE_MS}"
        # Prepared statements, as the service's: a changed table must not break them.
        with psycopg.connect(self.url, options=options, prepare_threshold=2) as connection:
            for count in range(1_000_000):
                if self._over.is_set():
                    return
                for work in (start_run, look, end_run, warn):
                    self._transact(connection, work, f"{number}_{count}_{id(self) % 9999}", number)
                time.sleep(random.uniform(0, 0.01))

    def _transact(self, connection: psycopg.Connection, work: Work, name: str, user: int) -> None:
        began, failure = time.monotonic(), ""
        try:
            with connection.transaction(), connection.cursor() as cursor:
                work(cursor, name, user)
        except (psycopg.Error, AssertionError) as error:
            failure = f"{work.__name__}: {type(error).__name__} {error}"
        with self._lock:
            self.done += 1
            self.longest = max(self.longest, time.monotonic() - began)
            if failure:
                self.failures.append(failure)


@contextmanager
def long_reader(
    url: str, *tables: str, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ
) -> Iterator[psycopg.Connection]:
    """Has read from each table in a transaction that is not over yet, as a report or a backup: with one snapshot."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = isolation
        for table in tables:
            connection.execute(f"SELECT count(*) FROM {table}")
        yield connection
