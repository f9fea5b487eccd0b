"""Tables: tool calls, and approvals of them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String

from service.store.schema.base import OF_OTHERS, metadata, rows_where, workspace_column
from service.store.schema.sealed import ERASED, SealedJson, SealedText

EXPIRING = "status = 'pending' AND expires_at IS NOT NULL"  # of approvals
# Result of a call whose key is destroyed.
_RESULT = {"ok": False, "content": ERASED, "preview": ERASED, "ms": 0, "sources": []}

tool_calls = sa.Table(
    "tool_calls",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("call_id", String(64), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments", SealedJson("tool_calls.arguments", {}), nullable=False),
    Column("status", String(16), nullable=False),  # claimed | done | failed | unknown
    Column("result", SealedJson("tool_calls.result", _RESULT)),
    Column("claimed_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
)

approvals = sa.Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    workspace_column(),
    Column("user_id", String(32), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("call_id", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("arguments", SealedJson("approvals.arguments", {}), nullable=False),
    Column("explanation", SealedText("approvals.explanation")),  # the model's words before the call, cut
    Column("reason", String(16), nullable=False),  # policy | unknown | untrusted
    Column(
        "untrusted", SealedJson("approvals.untrusted")
    ),  # sources of untrusted text, pointers of arguments
    Column("status", String(16), nullable=False),  # pending | approved | denied | cancelled
    Column("comment", SealedText("approvals.comment")),
    Column("decided_by", String(32)),
    Column("decision_id", String(32)),  # random: a transaction that runs twice knows its own decision by it
    Column("decided_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),  # NULL: never
    Index("ix_approvals_user_id_id", "user_id", "id"),
    Index("ix_approvals_status_id", "status", "id"),
    Index("ix_approvals_user_id_status_id", "user_id", "status", "id"),
    Index("ix_approvals_user_id_agent_id", "user_id", "agent", "id"),  # for keys with scopes
    Index("ix_approvals_agent_id", "agent", "id"),
    Index("ix_approvals_decided_by", "decided_by", **rows_where("decided_by IS NOT NULL")),
    Index("ix_approvals_expires_at", "expires_at", **rows_where(EXPIRING)),
    Index("ix_approvals_workspace_id_id", "workspace_id", "id", **rows_where(OF_OTHERS)),
    Index("ix_approvals_workspace_id_status_id", "workspace_id", "status", "id", **rows_where(OF_OTHERS)),
)

# Webhooks of approvals that wait, for runs with a `callback_url`.
approval_webhooks = sa.Table(
    "approval_webhooks",
    metadata,
    Column("approval_id", String(32), ForeignKey("approvals.id", ondelete="CASCADE"), primary_key=True),
    Column("run_id", String(32), nullable=False, index=True),
    Column("url", SealedText("approval_webhooks.url"), nullable=False),
    Column("status", String(16), nullable=False),  # pending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column("claim_id", String(32)),  # random, of the attempt under way: only that one stores its outcome
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
)
