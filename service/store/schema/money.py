"""Tables of money: caps and their counters, holds, the ledger, daily sums for usage reports."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, String

from service.store.schema.base import Json, metadata, rows_where

CALLS_ONLY = rows_where("account = 'upstream'")
SESSION_CALLS_ONLY = rows_where("account = 'upstream' AND session_id IS NOT NULL")

caps = sa.Table(
    "caps",
    metadata,
    Column("scope", String(96), primary_key=True),  # service | user:… | key:… | agent:… | session:…
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
    Index("ix_counters_starts_at", "starts_at", **rows_where("period <> 'total'")),
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

# Append-only. The rows of one entry (a hold, its settlement) sum to zero; no row is ever changed.
ledger = sa.Table(
    "ledger",
    metadata,
    Column("entry_id", String(32), primary_key=True),  # the hold's; `open`, `cap` and `share` have their own
    Column("kind", String(8), primary_key=True),  # hold | settle | open | cap | share
    Column("account", String(144), primary_key=True),  # user:… | held | upstream; a cap has its window
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
    Column("saved_nano", BigInteger),  # what the provider's prompt cache saved, less what filling it cost
    Column("cap_nano", BigInteger),  # the whole cap, in entries of kind open, cap and share
    Column("counters", Json),  # [[counter id, seq, spent, held, cap], …] as this entry left them
    # Of the five rows of a call only one is ever looked for, so only that is indexed.
    Index("ix_ledger_called_at", "called_at", **CALLS_ONLY),
    Index("ix_ledger_user_id_called_at", "user_id", "called_at", **CALLS_ONLY),
    Index("ix_ledger_session_id_called_at", "session_id", "called_at", **SESSION_CALLS_ONLY),
)

SUMS = (
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
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
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
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
    Index("ix_usage_daily_by_user_user_id_day", "user_id", "day"),
)
