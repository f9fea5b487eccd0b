"""Tables of the gateway: tokens of runs, and the model calls made with them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String

from service.store.schema.base import metadata, rows_where
from service.store.schema.sealed import SealedPacked

UNTOLD = "NOT told"

# Token of one step of one attempt at a run, by its digest. Its row is the lock of its calls.
run_tokens = sa.Table(
    "run_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("agent", String(64), nullable=False),  # that has the token: the run's, or a sub-agent
    Column("branch", String(32), nullable=False),  # of a sub-agent; empty: the run's own agent
    Column("tree_id", String(32)),  # hold of a tree, from which its calls take theirs
    Column("most_calls", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),  # end of its step: no call begins after it
    Column("refused", sa.JSON(none_as_null=True)),  # error of a call that a bound of the run has refused
)

gateway_calls = sa.Table(
    "gateway_calls",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", String(64), nullable=False),  # digest of it
    Column("branch", String(32), nullable=False),
    Column("hold_id", String(32), nullable=False),
    Column(
        "replayed_by", Integer, nullable=False, default=0
    ),  # latest attempt that was given this answer again
    Column("digest", String(64), nullable=False),  # of the request's body
    Column("state", String(8), nullable=False),  # open | done | failed
    Column("model", String(128), nullable=False),
    Column("answer", SealedPacked("gateway_calls.answer")),  # the body as it was sent
    Column("usage", sa.JSON(none_as_null=True)),  # figures of `Usage`, in their order
    Column("source", String(16)),  # of the usage: reported | estimated | worst
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("told", Boolean, nullable=False, default=False),  # a step of the run by now
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Index("ix_gateway_calls_run_id_id", "run_id", "id"),
    Index("ix_gateway_calls_token", "token"),
    Index("ix_gateway_calls_untold", "run_id", "id", **rows_where(UNTOLD)),
)
