"""Every table. Times are milliseconds since 1970 (UTC), money is integer nano-dollars, ids are text.

Changing a table is a migration first: see `docs/operator.md`, "Add a table".
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Text

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Json = sa.JSON(none_as_null=True)

users = sa.Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("username", String(128), nullable=False, unique=True),
    Column("password_hash", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("limit_runs", String(64)),
    Column("created_at", BigInteger, nullable=False),
)

token_families = sa.Table(
    "token_families",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("current_jti", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("revoked_at", BigInteger),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

sessions = sa.Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("title", String(256), nullable=False, default=""),
    Column("metadata", Json),
    Column("summary", Text),  # what the turns up to `summary_upto` said, once they no longer fit a prompt
    Column("summary_upto", Integer, nullable=False, default=0),
    Column("busy_run_id", String(32)),  # the turn under way; only it may add messages
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Index("ix_sessions_user_id_id", "user_id", "id"),
)

messages = sa.Table(
    "messages",
    metadata,
    Column("session_id", String(32), ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", Json, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # web | task
    Column("host", String(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("alive_until", BigInteger, nullable=False, index=True),  # by the database's clock; renewed
)

runs = sa.Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("key_id", String(32)),
    Column("session_id", String(32), index=True),
    Column("agent", String(64), nullable=False),
    Column("agent_version", String(32), nullable=False),
    Column("door", String(16), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("request", Json, nullable=False),
    Column("status", String(24), nullable=False),
    Column("tier", String(16)),
    Column("cache", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),  # grows with every taking up; fences writes
    Column("losses", Integer, nullable=False, default=0),  # how many workers died under it
    Column("worker_id", String(64)),  # who drives it; the run is free once that worker's lease is over
    Column("wake_at", BigInteger),  # a queued run that nobody took up by then is announced again
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("last_seq", Integer, nullable=False, default=0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("cache_read_tokens", BigInteger, nullable=False, default=0),
    Column("cache_creation_tokens", BigInteger, nullable=False, default=0),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("result", Json),
    Column("error", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Index("ix_runs_user_id_id", "user_id", "id"),
    # Only unfinished runs are swept, so only they are indexed: the index stays small at a million runs.
    Index(
        "ix_runs_unfinished",
        "status",
        "worker_id",
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    ),
    Index("ix_runs_finished_at", "finished_at"),
)

steps = sa.Table(
    "steps",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # model | tools
    Column("name", String(128), nullable=False),  # the step's name in its pattern
    Column("attempt", Integer, nullable=False),
    Column("reply", Json, nullable=False),  # what the pattern gets back when the run is taken up
    Column("events", Json, nullable=False),  # [[seq, name, data], ...]: what clients were told in this step
    Column("first_seq", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
)

tool_calls = sa.Table(
    "tool_calls",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("call_id", String(64), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments", Json, nullable=False),
    Column("status", String(16), nullable=False),  # claimed | done | failed | unknown
    Column("result", Json),
    Column("claimed_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
)

approvals = sa.Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("user_id", String(32), nullable=False, index=True),
    Column("agent", String(64), nullable=False),
    Column("call_id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments", Json, nullable=False),
    Column("reason", String(16), nullable=False),  # policy | unknown
    Column("status", String(16), nullable=False, index=True),  # pending | approved | denied
    Column("comment", Text),
    Column("decided_by", String(32)),
    Column("decided_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    Column("user_id", String(32), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("run_id", String(32)),
    Column("status", Integer),
    Column("body", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("status", String(16), nullable=False),  # waiting | pending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
)
