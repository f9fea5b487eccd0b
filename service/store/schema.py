"""Every table. Times are milliseconds since 1970 (UTC), money is integer nano-dollars, ids are text.

Changing a table is a migration first: see `docs/operator.md`, "Add a table".
"""

from __future__ import annotations

from typing import Any

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


def _where(sql: str) -> dict[str, Any]:
    """Of an index: it holds only the rows of which this is true."""
    return dict.fromkeys(("sqlite_where", "postgresql_where"), sa.text(sql))


CALLS_ONLY = _where("account = 'upstream'")
SESSION_CALLS_ONLY = _where("account = 'upstream' AND session_id IS NOT NULL")
# Rows of partial indexes of runs. Such an index serves only a query that says the same, in these words: values that
# are told later promise nothing.
UNFINISHED = "finished_at IS NULL"
ENDED_BADLY = "status IN ('failed', 'cancelled')"
DIED = "status = 'failed' AND losses > 0"

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
    Column("revoked_at", BigInteger, index=True),
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
    Column("revoked_at", BigInteger, index=True),
)

# Where a user has signed in before, as digests: attempts from there do not share the account's attempts.
sign_in_addresses = sa.Table(
    "sign_in_addresses",
    metadata,
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("seen_at", BigInteger, nullable=False, index=True),
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
    Index("ix_sessions_user_id_agent_id", "user_id", "agent", "id"),  # for keys with scopes
    Index("ix_sessions_agent_id", "agent", "id"),
)

messages = sa.Table(
    "messages",
    metadata,
    Column("session_id", String(32), ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("parent_seq", Integer),  # the message it goes on from; 0: none; NULL: the one numbered before it
    Column("run_id", String(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", Json, nullable=False),
    Column("tokens", Integer, nullable=False),
    # Of its turn, which may have failed: `sources` and `tools` stand with the last message. NULL in older rows.
    Column("status", String(16)),  # succeeded | failed | cancelled
    Column("error_code", String(64)),
    Column("sources", Json),
    Column("tools", Json),
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
    # By the database's clock. Renewed all the time, so it is in no index: PostgreSQL then changes the row's page only.
    Column("alive_until", BigInteger, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("key_id", String(32)),
    Column("session_id", String(32)),
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
    # The last attempt that told its client something while Redis was away: its live stream is not whole.
    Column("live_gap_attempt", Integer),
    Column("parent_seq", Integer),  # the message of its session that its turn goes on from; 0: none
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
    # For lists, which do not read `request` and `result`. None in rows of versions before these were kept apart.
    Column("input", String(200)),
    Column("steps", Integer),
    Column("model", String(128)),
    Column("stop_reason", String(32)),
    Index("ix_runs_user_id_id", "user_id", "id"),
    Index("ix_runs_user_id_agent_id", "user_id", "agent", "id"),
    Index("ix_runs_agent_id", "agent", "id"),
    # Only unfinished runs are swept, so only they are indexed: the index stays small at a million runs.
    Index("ix_runs_unfinished", "status", "worker_id", **_where(UNFINISHED)),
    Index("ix_runs_session_id_id", "session_id", "id", **_where("session_id IS NOT NULL")),
    # Lists of what went wrong: few of a million, so none of them may read on until it has found a page.
    Index("ix_runs_status_id", "status", "id", **_where(ENDED_BADLY)),
    Index("ix_runs_user_id_status_id", "user_id", "status", "id", **_where(ENDED_BADLY)),
    Index("ix_runs_user_id_agent_status_id", "user_id", "agent", "status", "id", **_where(ENDED_BADLY)),
    Index("ix_runs_agent_status_id", "agent", "status", "id", **_where(ENDED_BADLY)),
    Index("ix_runs_died", "id", **_where(DIED)),
)

# What the user of a run thinks of it.
feedback = sa.Table(
    "feedback",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("score", Integer, nullable=False),  # -1 | 0 | 1
    Column("comment", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_feedback_score_run_id", "score", "run_id"),
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
    Column("user_id", String(32), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("call_id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments", Json, nullable=False),
    Column("reason", String(16), nullable=False),  # policy | unknown
    Column("status", String(16), nullable=False),  # pending | approved | denied | cancelled
    Column("comment", Text),
    Column("decided_by", String(32)),
    Column("decision_id", String(32)),  # random: a transaction that runs twice knows its own decision by it
    Column("decided_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_approvals_user_id_id", "user_id", "id"),
    Index("ix_approvals_status_id", "status", "id"),
    Index("ix_approvals_user_id_status_id", "user_id", "status", "id"),
    Index("ix_approvals_user_id_agent_id", "user_id", "agent", "id"),  # for keys with scopes
    Index("ix_approvals_agent_id", "agent", "id"),
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
    Column(
        "claim_id", String(32)
    ),  # random, of the attempt under way: what it came to is noted by that one only
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
)

# What is told by webhook and is no run's end: a cap that was used to half, to 80 percent, or up.
notices = sa.Table(
    "notices",
    metadata,
    Column("id", String(160), primary_key=True),  # what it is about, so that it is told once
    Column("url", Text, nullable=False),
    Column("signer", String(32), nullable=False),  # whose secret signs it
    Column("body", Json, nullable=False),
    Column("status", String(16), nullable=False),  # pending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column(
        "claim_id", String(32)
    ),  # random, of the attempt under way: what it came to is noted by that one only
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("delivered_at", BigInteger),
)

# --- money ------------------------------------------------------------------------------------------------

caps = sa.Table(
    "caps",
    metadata,
    Column(
        "scope", String(96), primary_key=True
    ),  # service | user:usr_… | key:key_… | agent:… | session:ses_…
    Column("period", String(8), primary_key=True),  # day | month | total
    Column("amount_nano", BigInteger),  # none: no limit, the settings' default included
    Column("updated_at", BigInteger, nullable=False),
)

# What one cap has spent and holds in one window. A cap that everyone shares has several, each with a part of it.
counters = sa.Table(
    "counters",
    metadata,
    Column("id", String(160), primary_key=True),  # the window's id / the stripe
    Column("window_id", String(144), nullable=False, index=True),  # scope/period/start
    Column("scope", String(96), nullable=False),
    Column("period", String(8), nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("cap_nano", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),  # grows by one with each entry of the ledger that touches it
    Column("warned", Integer, nullable=False, default=0),  # the highest percentage that was warned of
    # Of windows that end: upkeep looks for those that are over.
    Index("ix_counters_starts_at", "starts_at", **_where("period <> 'total'")),
)

# Counters whose window is over, added up: see `service.store.closed_windows`.
closed_windows = sa.Table(
    "closed_windows",
    metadata,
    Column("period", String(8), primary_key=True),  # day | month
    Column("starts_at", BigInteger, primary_key=True, autoincrement=False),
    Column("counters", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("digest", BigInteger, nullable=False),  # the sum of their last states' fingerprints, in 63 bits
)

# Money reserved for a model call under way. The row goes when the call is settled: that is what makes it once.
holds = sa.Table(
    "holds",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("user_id", String(32), nullable=False),
    Column("key_id", String(32)),
    Column("agent", String(64), nullable=False),
    Column("session_id", String(32)),
    Column("model", String(128), nullable=False),
    Column("price_id", String(144), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("counters", Json, nullable=False),  # ids of the counters it is held against
    Column("called_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,  # kept by its key: a page less to change with each of its rows
)

# Model steps of runs that can wait, until they are answered in a batch. Its run and step are the hold's too.
batch_items = sa.Table(
    "batch_items",
    metadata,
    Column("id", String(64), primary_key=True),  # the custom id: run-step
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("request", Json, nullable=False),
    Column("state", String(8), nullable=False),  # waiting | sent | done | failed
    Column("batch_id", String(32), index=True),
    Column("reply", Json),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_batch_items_state_created_at", "state", "created_at"),
    Index("ix_batch_items_run_id_step", "run_id", "step"),
)

batches = sa.Table(
    "batches",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("upstream_id", String(128)),  # none: it is on its way there, or was when its worker died
    Column("size", Integer, nullable=False),
    Column(
        "next_at", BigInteger, nullable=False, index=True
    ),  # when it is looked at next, by whoever moves this on
    Column("created_at", BigInteger, nullable=False),
)

# Append-only. The rows of one entry (a hold, its settlement) sum to zero; no row is ever changed.
ledger = sa.Table(
    "ledger",
    metadata,
    Column(
        "entry_id", String(32), primary_key=True
    ),  # the hold's id; of `open`, `cap` and `share` an id of their own
    Column("kind", String(8), primary_key=True),  # hold | settle | open | cap | share
    Column(
        "account", String(144), primary_key=True
    ),  # user:… | held | upstream; of a cap's entries the window
    Column("amount_nano", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column(
        "called_at", BigInteger, nullable=False
    ),  # when the call was held: a settlement belongs to that moment
    Column("user_id", String(32)),
    Column("key_id", String(32)),
    Column("agent", String(64)),
    Column("session_id", String(32)),
    Column("run_id", String(32)),
    Column("step", Integer),
    Column("model", String(128)),
    Column("price_id", String(144)),
    Column("basis", String(16)),  # of a settlement: exact | estimate | worst | nothing
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_creation_tokens", BigInteger),
    Column("cache_creation_1h_tokens", BigInteger),
    Column("server_tool_requests", BigInteger),
    Column("saved_nano", BigInteger),  # what the provider's prompt cache saved, less what filling it cost
    Column("cap_nano", BigInteger),  # the whole cap, in entries of kind open, cap and share
    Column("counters", Json),  # [[counter id, seq, spent, held, cap], …] as this entry left them
    # Of the five rows of a call only one is ever looked for, so only that is indexed.
    Index("ix_ledger_called_at", "called_at", **CALLS_ONLY),
    Index("ix_ledger_user_id_called_at", "user_id", "called_at", **CALLS_ONLY),
    Index("ix_ledger_session_id_called_at", "session_id", "called_at", **SESSION_CALLS_ONLY),
)

# --- usage reports: sums over the ledger's calls, written by upkeep (`service.usage.rollup`), never by a call ------

_SUMS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "amount_nano",
    "saved_nano",
)

# A day (since 1970, UTC) whose calls are in both tables below once `checked_at` is set; until then the ledger has them.
usage_days = sa.Table(
    "usage_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("rolled_until", BigInteger, nullable=False),  # calls made before this (ms) have been added
    Column("calls", BigInteger, nullable=False),  # how many those are
    Column("checked_at", BigInteger),  # when the day was closed, or last counted again since
)

# Everybody's calls of a day: small, however many users there are.
usage_daily = sa.Table(
    "usage_daily",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _SUMS),
)

# The same by user and API key; the key is empty for calls that were made with a token.
usage_daily_by_user = sa.Table(
    "usage_daily_by_user",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", String(32), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in _SUMS),
    Index("ix_usage_daily_by_user_user_id_day", "user_id", "day"),
)

# One row, kept by `migrations/env.py` beside Alembic's own table: see `service.store.fitness`.
compatibility = sa.Table(
    "schema_compatibility",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("oldest_code", String(32), nullable=False),
)
