"""Tables of money: caps and their counters, holds, the ledger, daily sums for usage reports."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, String

from service.store.schema.base import OF_OTHERS, Json, metadata, rows_where, workspace_column

CALLS_ONLY = rows_where("account = 'upstream'")
SESSION_CALLS_ONLY = rows_where("account = 'upstream' AND session_id IS NOT NULL")
END_USER_CALLS_ONLY = rows_where("account = 'upstream' AND end_user IS NOT NULL")

caps = sa.Table(
    "caps",
    metadata,
    # service | workspace:… | user:… | key:… | agent:… | session:… | end_user:key_…/name
    Column("scope", String(104), primary_key=True),
    Column("period", String(8), primary_key=True),  # day | month | total
    Column("amount_nano", BigInteger),  # none: no limit, the default included
    Column("until", BigInteger),  # end of an override, by the database's clock; none: it stays
    Column("after_nano", BigInteger),  # of an override: the amount after it; none: no cap stood before it
    Column("updated_at", BigInteger, nullable=False),
    workspace_column(),  # of the cap's subject; those of the service and of agents are in `default`
    Index("ix_caps_workspace_id_scope_period", "workspace_id", "scope", "period", **rows_where(OF_OTHERS)),
)

# Spent and held amounts of a cap in a window. A cap shared by all users has several counters, each with a share.
counters = sa.Table(
    "counters",
    metadata,
    Column("id", String(160), primary_key=True),  # the window's id / the stripe
    Column("window_id", String(144), nullable=False, index=True),  # scope/period/start
    Column("scope", String(104), nullable=False),
    Column("key_id", String(32)),  # of an end user's counter
    Column("period", String(8), nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("cap_nano", BigInteger, nullable=False),
    Column(
        "cap_until", BigInteger
    ),  # from then on, by the database's clock, the cap has to be looked up again
    Column("spent_nano", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),  # grows by one with each entry of the ledger that touches it
    Column("warned", Integer, nullable=False, default=0),  # highest percentage for which a warning was sent
    # For upkeep, which searches for windows that are over.
    Index("ix_counters_starts_at", "starts_at", **rows_where("period <> 'total'")),
    Index(
        "ix_counters_key_id_period_starts_at",
        *("key_id", "period", "starts_at"),
        **rows_where("key_id IS NOT NULL"),
    ),
)

# Sums of counters whose window is over: see `service.store.closed_windows`.
closed_windows = sa.Table(
    "closed_windows",
    metadata,
    Column("period", String(8), primary_key=True),  # day | month
    Column("starts_at", BigInteger, primary_key=True, autoincrement=False),
    Column("counters", BigInteger, nullable=False),
    Column("spent_nano", BigInteger, nullable=False),
    Column("digest", BigInteger, nullable=False),  # the sum of their last states' fingerprints, in 63 bits
)

# Money reserved for a model call in flight, or for a tree of sub-agents. Settling deletes the row, so a call is settled
# exactly once.
holds = sa.Table(
    "holds",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    workspace_column(),
    Column("user_id", String(32), nullable=False),
    Column("key_id", String(32)),
    Column("agent", String(64), nullable=False),
    Column("session_id", String(32)),
    Column("model", String(128), nullable=False),
    Column("price_id", String(144), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("counters", Json, nullable=False),  # ids of the counters it is held against
    Column("called_at", BigInteger, nullable=False),
    Column("end_user", String(64)),
    Column(
        "tree_id", String(32)
    ),  # hold of the tree of sub-agents it was taken from; its own id: it is that hold
    sqlite_with_rowid=False,  # clustered by key: one page less to write per row
)

# Append-only. The rows of one entry (a hold, its settlement) sum to zero; no row is ever changed.
ledger = sa.Table(
    "ledger",
    metadata,
    Column("entry_id", String(32), primary_key=True),  # the hold's; `open`, `cap` and `share` have their own
    Column("kind", String(8), primary_key=True),  # hold | settle | release | open | cap | share
    Column(
        "account", String(144), primary_key=True
    ),  # user:… | tree:… | held | upstream; a cap has its window
    Column("amount_nano", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("called_at", BigInteger, nullable=False),  # of the hold: a settlement belongs to that moment
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
    Column("saved_nano", BigInteger),  # savings by the provider's prompt cache, less the cost of writing it
    Column(
        "batch_saved_nano", BigInteger
    ),  # savings by the Batches API; none of calls settled by a release before
    Column("cap_nano", BigInteger),  # the whole cap, in entries of kind open, cap and share
    Column("counters", Json),  # [[counter id, seq, spent, held, cap], …] as this entry left them
    Column("end_user", String(64)),  # none where a release before has settled the call
    # Only one of the five rows of a call is searched for, so only that one is indexed.
    Index("ix_ledger_called_at", "called_at", **CALLS_ONLY),
    Index("ix_ledger_user_id_called_at", "user_id", "called_at", **CALLS_ONLY),
    Index("ix_ledger_session_id_called_at", "session_id", "called_at", **SESSION_CALLS_ONLY),
    Index(
        "ix_ledger_key_id_end_user_called_at",
        *("key_id", "end_user", "called_at"),
        **END_USER_CALLS_ONLY,
    ),
)

SUMS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "amount_nano",
    "saved_nano",
    "batch_saved_nano",
)
# Answers given without a model call, and what their calls would have cost, by layer: the same question (hit), one with
# the same meaning (near), and the answer that another request was waiting for (coalesced).
SAVED = ("hits", "near_hits", "coalesced", "hit_saved_nano", "near_saved_nano", "coalesced_saved_nano")

# A day (since 1970, UTC) whose calls are in both tables below once `checked_at` is set; until then the ledger has them.
usage_days = sa.Table(
    "usage_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("rolled_until", BigInteger, nullable=False),  # calls made before this (ms) have been added
    Column("calls", BigInteger, nullable=False),  # number of calls added
    Column("checked_at", BigInteger),  # time at which the day was closed or last recounted
)


def _sums() -> list[Column[int]]:
    """Build the columns of sums; the default is for replicas of releases that do not know all of them."""
    defaults = {"batch_saved_nano": "0"}
    return [Column(name, BigInteger, nullable=False, server_default=defaults.get(name)) for name in SUMS]


def _saved() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in SAVED]


# Calls of a day over all users: small, however many users there are.
usage_daily = sa.Table(
    "usage_daily",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *_sums(),
)

# Calls of a day by user and API key; the key is empty for calls authenticated by a token.
usage_daily_by_user = sa.Table(
    "usage_daily_by_user",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", String(32), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *_sums(),
    Index("ix_usage_daily_by_user_user_id_day", "user_id", "day"),
)

# Answers that no model was asked for, by the hour (since 1970, UTC) in which they were given; a key, an end user or a
# model that there is none of is empty. Each process adds its own: see `service.usage.savings`.
savings_hourly = sa.Table(
    "savings_hourly",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", String(32), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("end_user", String(64), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *_saved(),
    Index("ix_savings_hourly_user_id_hour", "user_id", "hour"),
)

# The same by day: over all users, and by user and API key.
savings_daily = sa.Table(
    "savings_daily",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *_saved(),
)
savings_daily_by_user = sa.Table(
    "savings_daily_by_user",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("user_id", String(32), primary_key=True),
    Column("key_id", String(32), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("model", String(128), primary_key=True),
    *_saved(),
    Index("ix_savings_daily_by_user_user_id_day", "user_id", "day"),
)
