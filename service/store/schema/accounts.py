"""Tables of accounts: workspaces, users, their erasure and identities, log-ins, signing keys, API keys, addresses."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String

from service.store.schema.base import OF_OTHERS, Json, metadata, rows_where, workspace_column
from service.store.schema.sealed import SealedText
from service.types import DEFAULT_WORKSPACE

workspaces = sa.Table(
    "workspaces",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", BigInteger, nullable=False),
    # Time since which keys of its users are to be looked up again, and an issuer's tokens from before are refused.
    Column("changed_at", BigInteger),
    Column("guardrails", Json),  # of all its runs, as `service.guardrails.policy` reads them
)
_DEFAULT = {"id": DEFAULT_WORKSPACE, "name": "default", "disabled": False, "created_at": 0}
sa.event.listen(  # the migration inserts it too
    workspaces, "after_create", lambda table, connection, **_: connection.execute(table.insert(), _DEFAULT)
)

users = sa.Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    workspace_column(),
    Column("username", String(128), nullable=False),
    Column("password_hash", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("limit_runs", String(64)),
    Column("limit_runs_until", BigInteger),  # end of an override; none: it stays
    Column("limit_runs_after", String(64)),  # of an override: the limit after it
    Column("created_at", BigInteger, nullable=False),
    Column("tokens_from", BigInteger),  # an issuer's tokens from before this time are refused
    Index("uq_users_workspace_id_username", "workspace_id", "username", unique=True),
    Index("ix_users_workspace_id_id", "workspace_id", "id", **rows_where(OF_OTHERS)),
)

# Users of an OpenID Connect issuer. `roles_at` (ms): when the newest token that set the user's role was issued.
identities = sa.Table(
    "identities",
    metadata,
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("roles_at", BigInteger, nullable=False),
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

# Keys that sign tokens, by number: of two processes that add one at once, one fails. The last that has begun signs.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kid", String(16), nullable=False, unique=True),
    Column("algorithm", String(8), nullable=False),
    Column("sealed", String(256), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
    Column("verifies_until", BigInteger),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", SealedText("api_keys.name"), nullable=False),  # 128 characters
    Column("digest", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger, index=True),
    Column("changed_at", BigInteger, index=True),  # time since which it is to be looked up again
    Column("limit_runs", String(64)),  # below that of its user
    Column("limit_runs_until", BigInteger),
    Column("limit_runs_after", String(64)),
    Column("previous_digest", String(64), index=True),  # works until `previous_expires_at`
    Column("previous_expires_at", BigInteger),
    Column("last_used_at", BigInteger),  # to a minute
)

# Addresses of earlier sign-ins, as digests: attempts from them do not count against the account's budget.
sign_in_addresses = sa.Table(
    "sign_in_addresses",
    metadata,
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("seen_at", BigInteger, nullable=False, index=True),
)

# Erasures of users' data. No foreign key: the row is the proof, whatever becomes of the user's.
erasures = sa.Table(
    "erasures",
    metadata,
    Column("user_id", String(32), primary_key=True),
    workspace_column(),
    Column("asked_at", BigInteger, nullable=False),
    Column("next_at", BigInteger, index=True),  # time of the next pass, by any worker; NULL: none is needed
    Column("erased_at", BigInteger),  # when a pass found nothing more
    Column("verified_at", BigInteger),  # when one did after whatever was under way had ended
    Column("counts", Json, nullable=False),
)
