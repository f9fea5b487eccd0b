"""Databases with a year of runs in them, made by SQL in seconds: for what a list costs once there is much.

Every user but one is one of many. `heavy` has half of all runs and three failures, the first thing it ever did. The
agent `rare` was run three times, long ago and by `heavy`; `retired` often, long ago and by others. Every fourth run
is a turn of one of `heavy`'s sessions, with `assistant`. Rows lie in the order of time, as they come to lie in use: a
join would leave them in any. One of the many users is in the workspace `ACME`, all others are in `default`.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from service.ids import first_id
from service.store.schema import metadata
from service.types import DEFAULT_WORKSPACE

ACME = "wsp_" + "a" * 26
YEAR_MS = 365 * 86_400_000
TURNS = 60  # of one session of `heavy`, the same at any size; each other has its share of all turns
MAX_SESSIONS = 900  # of `heavy`, who may have 10,000: a new one counts those that are there
TEXT = "What is said in a turn, as long as people write. " * 8
_JSON: dict[str, Any] = {
    "request": {"agent": "assistant", "messages": [{"role": "user", "content": TEXT[:200]}]},
    "result": {"output": TEXT, "sources": [], "tools": []},
    "error": {"code": "model_unavailable", "detail": "The model did not answer."},
    "events": [[1, "run.started", {}], [2, "text.delta", {"text": TEXT}], [3, "run.completed", {}]],
    "empty": {},
    "none": [],
    "said": TEXT[:100],
}
# Else each row looks for those it points at; and rows are sorted.
_FAST = {
    True: (
        "SET LOCAL session_replication_role = replica",
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL work_mem = '256MB'",
    ),
    False: ("PRAGMA foreign_keys = OFF",),
}
_OWNER = "CASE WHEN f.i % 2 = 0 THEN :heavy ELSE 'usr_' || u.k END"
_AGENT = """CASE WHEN f.i % 4 = 0 THEN 'assistant' WHEN f.i IN (10, 30, 50) THEN 'rare'
            WHEN f.i <= :n / 5 AND f.i % 10 = 1 THEN 'retired' WHEN f.i % 3 = 0 THEN 'support' ELSE 'assistant' END"""
_STATUS = """CASE WHEN f.i > :n - 15 THEN
                 CASE f.i % 3 WHEN 0 THEN 'queued' WHEN 1 THEN 'running' ELSE 'waiting_approval' END
             WHEN f.i IN (12, 14, 16) OR f.i IN (13, 15, 17) OR f.i % 100 = 51 THEN 'failed'
             WHEN f.i % 200 = 1 THEN 'cancelled' ELSE 'succeeded' END"""
_WORKSPACE = "CASE WHEN u.i = 8 AND f.i % 2 = 1 THEN :acme ELSE :default END"
_ENDED = "f.i <= :n - 15"
_RUN = """FROM filled f JOIN filled u ON u.i = 1 + f.i % :users
          LEFT JOIN filled s ON f.i % 4 = 0
          AND s.i = CASE WHEN f.i <= 4 * :turns THEN 2 ELSE 2 * (3 + (f.i / 4) % (:heavys - 2)) END"""
_INSERTS: dict[str, str] = {
    "users": """(id, workspace_id, username, password_hash, role, disabled, created_at)
        SELECT 'usr_' || k, CASE WHEN i = 8 THEN :acme ELSE :default END, 'user-' || i, '', 'user', FALSE, at
        FROM filled WHERE i <= :users""",
    "sessions": f"""(id, workspace_id, user_id, agent, title, summary_upto, created_at, updated_at, expires_at)
        SELECT 'ses_' || f.k, {_WORKSPACE},
            CASE WHEN f.i % 2 = 0 AND f.i <= 2 * :heavys THEN :heavy ELSE 'usr_' || u.k END,
            CASE WHEN f.i = 4 THEN 'rare' ELSE 'assistant' END,
            CASE WHEN f.i = 4 THEN 'A needle' ELSE 'Conversation ' || f.i END, 0, f.at, f.at, :until + f.i
        FROM filled f JOIN filled u ON u.i = 1 + f.i % :users WHERE f.i <= :sessions ORDER BY f.i""",
    "schedules": f"""(id, workspace_id, user_id, agent, input, cron, timezone, missed, enabled, next_at, created_at,
            updated_at)
        SELECT 'sch_' || f.k, {_WORKSPACE}, CASE WHEN f.i <= 20 THEN :heavy ELSE 'usr_' || u.k END,
            CASE WHEN f.i = 4 THEN 'rare' ELSE 'assistant' END, :said, '0 6 * * *', 'UTC', 'skip', TRUE, :until + f.i,
            f.at, f.at
        FROM filled f JOIN filled u ON u.i = 1 + f.i % :users WHERE f.i <= 20 + :users ORDER BY f.i""",
    "schedule_slots": """(schedule_id, slot, until, outcome, code, run_id, at)
        SELECT 'sch_' || s.k, f.at, f.at, CASE WHEN f.i % 20 = 6 THEN 'run' ELSE 'skipped' END,
            CASE WHEN f.i % 20 = 6 THEN NULL ELSE 'missed' END, CASE WHEN f.i % 20 = 6 THEN 'run_' || f.k END, f.at
        FROM filled f JOIN filled s ON s.i = 2 WHERE f.i % 10 = 6 ORDER BY f.i""",
    "runs": f"""(id, workspace_id, user_id, session_id, schedule_id, agent, agent_version, door, request_id,
            request, status, cache, attempt, losses, cancel_requested, last_seq, input_tokens, output_tokens,
            cache_read_tokens, cache_creation_tokens, cost_nano, result, error, created_at, started_at, finished_at,
            input, steps, model, worker_id)
        SELECT 'run_' || f.k, {_WORKSPACE}, {_OWNER}, 'ses_' || s.k,
            CASE WHEN f.i % 20 = 6 THEN 'sch_' || (SELECT k FROM filled WHERE i = 2) END, {_AGENT}, '1', 'invoke',
            'req_' || f.k, <request>,
            {_STATUS},
            'miss', 1, CASE WHEN f.i IN (13, 15, 17) THEN 3 WHEN f.i % 500 = 3 THEN 1 ELSE 0 END, FALSE, 3,
            900, 90, 0, 0, 4000000, CASE WHEN {_ENDED} THEN <result> END,
            CASE WHEN f.i IN (13, 15, 17) OR f.i % 100 = 51 THEN <error> END, f.at, f.at + 5,
            CASE WHEN {_ENDED} THEN f.at + 900 END, :said, 1, 'claude-sonnet-5-5',
            CASE WHEN f.i > :n - 15 AND f.i % 3 = 1 THEN 'wrk_1' END {_RUN} ORDER BY f.i""",
    "steps": """(run_id, n, kind, name, attempt, reply, events, first_seq, last_seq, cost_nano, started_at, finished_at)
        SELECT 'run_' || k, 1, 'model', 'answer', 1, <result>, <events>, 1, 3, 4000000, at, at + 900 FROM filled""",
    "tool_calls": """(run_id, call_id, step, name, arguments, status, result, claimed_at, finished_at)
        SELECT 'run_' || k, 'call_1', 1, 'clock', <empty>, 'done', <empty>, at, at + 1 FROM filled WHERE i % 10 = 3""",
    "approvals": f"""(id, run_id, workspace_id, user_id, agent, call_id, name, arguments, reason, status, created_at)
        SELECT 'apr_' || f.k, 'run_' || f.k, {_WORKSPACE}, {_OWNER}, {_AGENT}, 'call_1', 'refund', <empty>, 'policy',
            CASE WHEN f.i > :n - 15 THEN 'pending' WHEN f.i IN (12, 17, 33) THEN 'denied' WHEN f.i IN (22, 27)
            THEN 'cancelled' ELSE 'approved' END, f.at {_RUN} WHERE f.i % 5 = 2 OR f.i = 33 ORDER BY f.i""",
    "messages": """(session_id, seq, run_id, role, content, tokens, created_at)
        SELECT session_id, 2 * nth - half, id, CASE half WHEN 1 THEN 'user' ELSE 'assistant' END, <said>, 20, created_at
        FROM (SELECT id, session_id, created_at, row_number() OVER (PARTITION BY session_id ORDER BY id) AS nth
              FROM runs WHERE session_id IS NOT NULL) AS turns
        CROSS JOIN (SELECT 1 AS half UNION SELECT 0) AS halves ORDER BY id, half DESC""",
    "ledger": f"""(entry_id, kind, account, amount_nano, at, called_at, user_id, agent, session_id, run_id, step, model,
            price_id, basis, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, saved_nano,
            counters)
        SELECT 'hld_' || f.k, kind, CASE account WHEN 'user' THEN 'user:' || {_OWNER} ELSE account END, 0,
            f.at + 900, f.at, {_OWNER}, {_AGENT}, 'ses_' || s.k, 'run_' || f.k, 1, 'claude-sonnet-5-5', 'p', 'exact',
            900, 90, 0, 0, 0, <none> {_RUN}
        CROSS JOIN (SELECT 'hold' AS kind, 'user' AS account UNION SELECT 'hold', 'held' UNION SELECT 'settle', 'held'
            UNION SELECT 'settle', 'upstream' UNION SELECT 'settle', 'user') AS entry ORDER BY f.i""",
    "idempotency": f"""(user_id, key, fingerprint, run_id, created_at, expires_at)
        SELECT {_OWNER}, 'key-' || f.i, 'x', 'run_' || f.k, f.at, :until {_RUN} WHERE f.i % 10 = 0 ORDER BY f.i""",
    "approval_webhooks": """(approval_id, run_id, url, status, attempts, created_at, delivered_at)
        SELECT id, run_id, 'https://example.com/', 'delivered', 1, created_at, created_at FROM approvals""",
    "webhooks": """(run_id, url, status, attempts, created_at, delivered_at)
        SELECT 'run_' || k, 'https://example.com/', 'delivered', 1, at, at FROM filled WHERE i % 20 = 0""",
    "feedback": """(run_id, score, comment, created_at, updated_at)
        SELECT 'run_' || k, CASE WHEN i = 30 THEN -1 ELSE 1 END, 'Good.', at, at FROM filled WHERE i % 10 = 0""",
    "notices": """(id, url, signer, body, status, attempts, created_at, delivered_at)
        SELECT 'notice-' || k, 'https://example.com/', 'budget', <empty>, 'delivered', 1, at, at
        FROM filled WHERE i % 100 = 0""",
    "identities": """(issuer, subject, user_id, roles_at, created_at)
        SELECT 'https://login.example', k, 'usr_' || k, at, at FROM filled WHERE i <= :users""",
    "token_families": """(id, user_id, current_jti, created_at, expires_at, revoked_at)
        SELECT 'fam_' || f.k, 'usr_' || u.k, 'j', f.at, :until, CASE WHEN f.i % 2 = 0 THEN f.at END
        FROM filled f JOIN filled u ON u.i = 1 + f.i % :users WHERE f.i <= 3 * :users ORDER BY f.i""",
    "api_keys": """(id, user_id, name, digest, prefix, scopes, created_at)
        SELECT 'key_' || k, 'usr_' || k, 'key', k, 'sk', <none>, at FROM filled WHERE i <= :users""",
    "sign_in_addresses": """(user_id, digest, seen_at)
        SELECT 'usr_' || k, k, :until FROM filled WHERE i <= :users""",
    "audit": """(id, workspace_id, at, action, actor, user_id, subject, result, details)
        SELECT 'aud_' || f.k, :default, f.at, CASE WHEN f.i IN (12, 24) THEN 'user.role' ELSE 'sign_in' END, 'user',
            CASE WHEN f.i % 2 = 0 THEN :heavy ELSE 'usr_' || u.k END, 'user:usr_' || u.k, 'ok', <empty>
        FROM filled f JOIN filled u ON u.i = 1 + f.i % :users ORDER BY f.i""",
    "audit_links": """(workspace_id, seq, audit_id, previous, hash, at)
        SELECT :default, i, 'aud_' || k, k, k, at FROM filled""",
    "caps": """(scope, period, amount_nano, updated_at, workspace_id)
        SELECT 'user:usr_' || k, 'day', 1000000000, at, CASE WHEN i = 8 THEN :acme ELSE :default END
        FROM filled WHERE i <= :users / 10""",
    "counters": """(id, window_id, scope, period, starts_at, cap_nano, spent_nano, held_nano, seq, warned)
        SELECT 'user:usr_' || u.k || '/day/' || f.i || '/0', 'user:usr_' || u.k || '/day/' || f.i, 'user:usr_' || u.k,
            'day', f.at, 1000000000, 4000000, 0, 2, 0
        FROM filled f JOIN filled u ON u.i = 1 + f.i % :users WHERE f.i % 10 = 0 ORDER BY f.i""",
}


class Known(NamedTuple):
    """Ids in a filled database."""

    run: str  # in the middle of the year, with a session, feedback, a webhook and an idempotency key
    session: str  # of that run
    fixed_session: str  # with `TURNS` turns
    user: str  # one of many
    approval: str  # pending
    schedule: str  # of `heavy`, with a twentieth of all runs


def fill(engine: sa.Engine, runs: int, *, heavy: str) -> Known:
    """Fill empty tables. `heavy` is a user that is there."""
    now = time.time_ns() // 1_000_000
    step = YEAR_MS // runs
    keys = [
        (i, first_id("x", now - (runs - i) * step)[2:], now - (runs - i) * step) for i in range(1, runs + 1)
    ]
    numbers = {"n": runs, "users": max(20, runs // 100), "sessions": runs // 10 * 2, "until": now + YEAR_MS}
    numbers["heavys"] = min(numbers["sessions"] // 2, MAX_SESSIONS)
    given = {
        **numbers,
        "acme": ACME,
        "default": DEFAULT_WORKSPACE,
        "heavy": heavy,
        "turns": TURNS,
        "said": TEXT[:150],
    }
    postgresql = engine.dialect.name == "postgresql"
    indexes = [index for table in metadata.sorted_tables for index in table.indexes]
    if postgresql:  # the application's connections are in a transaction only where it begins one itself
        engine = sa.create_engine(engine.url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        for setting in _FAST[postgresql]:
            connection.exec_driver_sql(setting)
        for index in indexes:
            index.drop(connection)
        _list_keys(connection, keys)
        for table, select in _INSERTS.items():
            connection.execute(*_statement(f"INSERT INTO {table} {select}", postgresql, given))
        connection.exec_driver_sql("DROP TABLE filled")
        for index in indexes:
            index.create(connection)
        if not postgresql:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
    if postgresql:  # as autovacuum would have by then
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM ANALYZE")
            connection.exec_driver_sql("RESET ALL")
    ids = {i: key for i, key, _ in keys}
    middle = runs // 2 // 20 * 20
    session = 2 * (3 + (middle // 4) % (numbers["heavys"] - 2))
    pending = max(i for i in ids if i % 5 == 2)
    return Known(
        run=f"run_{ids[middle]}",
        session=f"ses_{ids[session]}",
        fixed_session=f"ses_{ids[2]}",
        user=f"usr_{ids[7]}",
        approval=f"apr_{ids[pending]}",
        schedule=f"sch_{ids[2]}",
    )


def _list_keys(connection: sa.Connection, keys: list[tuple[int, str, int]]) -> None:
    """Make the table that the others are made from: a number, an id's letters and a moment for each run."""
    connection.exec_driver_sql("CREATE TABLE filled (i BIGINT PRIMARY KEY, k VARCHAR(26), at BIGINT)")
    cursor = connection.connection.cursor()
    if connection.dialect.name == "sqlite":  # each statement is a transaction there
        cursor.execute("BEGIN")
        cursor.executemany("INSERT INTO filled VALUES (?, ?, ?)", keys)
        cursor.execute("COMMIT")
    else:
        with cursor.copy("COPY filled FROM STDIN") as copy:
            for row in keys:
                copy.write_row(row)
        cursor.execute("ANALYZE filled")


def _statement(sql: str, postgresql: bool, given: dict[str, Any]) -> tuple[sa.TextClause, dict[str, Any]]:
    """The statement for this database, with the values that it names."""
    for name in _JSON:
        sql = sql.replace(f"<{name}>", f"CAST(:json_{name} AS JSON)" if postgresql else f":json_{name}")
    values = {**given, **{f"json_{name}": orjson.dumps(value).decode() for name, value in _JSON.items()}}
    clause = sa.text(sql)
    return clause, {name: values[name] for name in clause._bindparams}
