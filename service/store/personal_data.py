"""Register of personal data: whose the rows of each table are, how they are exported, and how they are erased.

A table that is missing here fails `tests/rules/test_personal_data.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.schema import (
    api_keys,
    approval_webhooks,
    approvals,
    batch_items,
    feedback,
    files,
    gateway_calls,
    idempotency,
    identities,
    ledger,
    mcp_credentials,
    memory_notes,
    messages,
    run_files,
    run_tokens,
    runs,
    schedule_slots,
    schedules,
    session_files,
    sessions,
    sign_in_addresses,
    steps,
    token_families,
    tool_calls,
    users,
    webhooks,
)


class PersonalRows(NamedTuple):
    """Rows of a person in a table: `of` names their owner, `by` orders them within it.

    `kind`: name in an export; None: not exported. `hidden`: columns that an export leaves out: secrets, and what
    belongs to somebody else. `packed`: columns of compressed text. `page`: rows that are read at once.
    """

    kind: str | None
    of: sa.Column[str]
    by: tuple[sa.Column[Any], ...]
    hidden: tuple[str, ...] = ()
    where: str = ""  # literal condition of the partial index that finds them
    packed: tuple[str, ...] = ()
    page: int = 20  # each of up to a megabyte

    @property
    def table(self) -> sa.Table:
        table: sa.Table = self.of.table
        return table


USER = PersonalRows("user", users.c.id, (users.c.id,), ("password_hash",))
RUNS = PersonalRows("run", runs.c.user_id, (runs.c.id,))
SESSIONS = PersonalRows("session", sessions.c.user_id, (sessions.c.id,))
SCHEDULES = PersonalRows("schedule", schedules.c.user_id, (schedules.c.id,))
SLOTS = PersonalRows("schedule_slot", schedule_slots.c.schedule_id, (schedule_slots.c.slot,))
MESSAGES = PersonalRows("message", messages.c.session_id, (messages.c.seq,))
OF_USER = (
    USER,
    PersonalRows("key", api_keys.c.user_id, (api_keys.c.id,), ("digest",)),
    PersonalRows("log_in", token_families.c.user_id, (token_families.c.id,), ("current_jti",)),
    PersonalRows("identity", identities.c.user_id, (identities.c.issuer, identities.c.subject)),
    PersonalRows("address", sign_in_addresses.c.user_id, (sign_in_addresses.c.digest,)),
    PersonalRows("note", memory_notes.c.user_id, (memory_notes.c.holder, memory_notes.c.digest), ("digest",)),
    PersonalRows("file", files.c.user_id, (files.c.digest,), page=1),
    PersonalRows("mcp_credential", mcp_credentials.c.user_id, (mcp_credentials.c.server,), ("secret",)),
    PersonalRows(
        "decision", approvals.c.decided_by, (approvals.c.id,), ("arguments", "untrusted", "decision_id")
    ),
    PersonalRows(
        "usage",
        ledger.c.user_id,
        (ledger.c.called_at, ledger.c.entry_id, ledger.c.kind),
        ("counters", "cap_nano"),
        "account = 'upstream'",
    ),
)
OF_RUN = (
    PersonalRows("step", steps.c.run_id, (steps.c.n,)),
    PersonalRows("tool_call", tool_calls.c.run_id, (tool_calls.c.call_id,)),
    PersonalRows("approval", approvals.c.run_id, (approvals.c.id,), ("decision_id",)),
    PersonalRows(
        "approval_webhook", approval_webhooks.c.run_id, (approval_webhooks.c.approval_id,), ("claim_id",)
    ),
    PersonalRows("feedback", feedback.c.run_id, (feedback.c.run_id,)),
    PersonalRows("webhook", webhooks.c.run_id, (webhooks.c.run_id,), ("claim_id",)),
    PersonalRows("batch_item", batch_items.c.run_id, (batch_items.c.id,)),
    PersonalRows(
        "gateway_call", gateway_calls.c.run_id, (gateway_calls.c.id,), ("token",), packed=("answer",)
    ),
    PersonalRows("run_token", run_tokens.c.run_id, (run_tokens.c.digest,), ("digest", "refused")),
)
NOT_EXPORTED = (
    PersonalRows(None, idempotency.c.user_id, (idempotency.c.key,)),
    # The requests and messages name them too.
    PersonalRows(None, run_files.c.user_id, (run_files.c.run_id, run_files.c.digest)),
    PersonalRows(None, session_files.c.user_id, (session_files.c.session_id, session_files.c.digest)),
)
# How the rows of each table are erased.
ERASED = {
    "users": "anonymised: the id stays, for the ledger and the audit",
    "api_keys": "emptied: the id stays, for the ledger and the audit",
    "token_families": "ended; ids and times, deleted once no token can be valid",
    "identities": "deleted",
    "sign_in_addresses": "deleted",
    "mcp_credentials": "deleted",
    "idempotency": "deleted; other people's answers that name the user too",
    "sessions": "deleted",
    "messages": "deleted with their session",
    "memory_notes": "deleted",
    "schedules": "deleted",
    "schedule_slots": "deleted with their schedule",
    "runs": "deleted; one under way is cancelled first",
    "files": "deleted",
    "run_files": "deleted with their run",
    "session_files": "deleted with their session",
    **{rows.table.name: "deleted with their run" for rows in OF_RUN},
}
# Texts and JSON of those tables that are not sealed, and why: any other column is one of `SealedText` and `SealedJson`.
NOT_SEALED = {
    "users": {
        "username": "found by it at sign-in",
        "password_hash": "a hash",
        "role": "one of our words",
        "limit_runs": "a rate",
        "limit_runs_after": "a rate",
    },
    "identities": {"issuer": "found by it at sign-in", "subject": "found by it at sign-in"},
    "token_families": {"current_jti": "random"},
    "sign_in_addresses": {"digest": "a digest"},
    "api_keys": {
        "digest": "a digest",
        "previous_digest": "a digest",
        "prefix": "random",
        "scopes": "our words, and names of agents and models",
        "limit_runs": "a rate",
        "limit_runs_after": "a rate",
    },
    "mcp_credentials": {
        "server": "a name of the operator's",
        "secret": "encrypted under SECRET_KEY: the service sends it without the user",
    },
    "memory_notes": {
        "holder": "found by it, as in the ledger: a key's id and the caller's name for an end user",
        "digest": "a digest",
        "agent": "a name of the author's",
        "untrusted": "names of tools",
    },
    "files": {"digest": "a digest", "media_type": "one of our words"},
    "run_files": {"digest": "a digest"},
    "session_files": {"digest": "a digest"},
    "sessions": {"agent": "a name of the author's", "summary_untrusted": "names of tools"},
    "messages": {
        "untrusted": "names of tools",
        "role": "one of our words",
        "status": "one of our words",
        "error_code": "one of our words",
    },
    "schedules": {
        "agent": "a name of the author's",
        "cron": "read to find the next slot",
        "timezone": "read to find the next slot",
        "missed": "one of our words",
        "stopped": "one of our words",
    },
    "schedule_slots": {"outcome": "one of our words", "code": "one of our words"},
    "runs": {
        "agent": "a name of the author's",
        "agent_version": "a digest",
        "door": "one of our words",
        "status": "one of our words",
        "tier": "one of our words",
        "cache": "one of our words",
        "worker_id": "random",
        "model": "a name of the provider's",
        "stop_reason": "a word of the provider's",
    },
    "steps": {"kind": "one of our words", "name": "a name of the author's"},
    "tool_calls": {"call_id": "random", "name": "a name of the author's", "status": "one of our words"},
    "approvals": {
        "agent": "a name of the author's",
        "call_id": "random",
        "name": "a name of the author's",
        "reason": "one of our words",
        "status": "one of our words",
        "decided_by": "an id",
        "decision_id": "random",
    },
    "feedback": {},
    "webhooks": {"status": "one of our words", "claim_id": "random", "last_error": "our words"},
    "approval_webhooks": {"status": "one of our words", "claim_id": "random", "last_error": "our words"},
    "batch_items": {"state": "one of our words"},
    "gateway_calls": {
        "token": "a digest",
        "branch": "a number of ours",
        "digest": "a digest",
        "state": "one of our words",
        "model": "a name of the provider's",
        "usage": "numbers",
        "source": "one of our words",
    },
    "run_tokens": {
        "digest": "a digest",
        "agent": "a name of the author's",
        "branch": "a number of ours",
        "refused": "our words, and amounts",
    },
    "idempotency": {"key": "a digest where texts are sealed", "fingerprint": "a digest"},
}
# Tables without personal data, and why.
NOBODYS = {
    "workspaces": "names of tenants",
    "workers": "processes",
    "signing_keys": "keys of the service",
    "task_turns": "ids and numbers: the order in which tasks are taken",
    "agent_stops": "a reason that is about an agent, and the id of the admin who gave it",
    "agent_versions": "files by authors of agents, and the id of the admin who published them",
    "agent_pins": "versions, and the id of the admin who pinned them",
    "agent_canaries": "versions and sums, and the id of the admin who started them",
    "mcp_tools": "definitions of tools, by operators of servers",
    "batches": "ids of the provider",
    "notices": "scopes of caps, as ids, and amounts",
    "caps": "scopes, as ids, and amounts",
    "counters": "scopes, as ids, and amounts",
    "closed_windows": "sums",
    "holds": "ids and amounts, until the call is settled",
    "ledger": "ids and amounts: the proof of all spending",
    "usage_days": "sums",
    "usage_daily": "sums",
    "usage_daily_by_user": "ids and sums",
    "savings_hourly": "ids and sums",
    "savings_daily": "sums",
    "savings_daily_by_user": "ids and sums",
    "audit": "ids: the proof of who did what",
    "audit_links": "hashes",
    "audit_unlinked": "ids",
    "erasures": "the user's id, and counts: the proof of the erasure",
    "knowledge_scopes": "sums",
    "knowledge_documents": "documents of a workspace, which its admins answer for",
    "knowledge_passages": "documents of a workspace, which its admins answer for",
    "schema_compatibility": "revisions",
}


def page(
    tx: Transaction, kind: PersonalRows, owner: str, after: Sequence[Any] | None, limit: int
) -> list[Row]:
    """Read an owner's rows of a kind after the values `after` of `by`, in order."""
    query = sa.select(kind.table).where(kind.of == owner)
    if kind.where:
        query = query.where(sa.text(kind.where))
    if after is not None:
        query = query.where(sa.tuple_(*kind.by) > sa.tuple_(*map(sa.literal, after)))
    return tx.rows(query.order_by(*kind.by).limit(limit))
