"""Audit rows: by whom, what, on what, from where, with which result; ids only, never names or texts.

A row is written in the transaction it tells of. A refusal has none: `Refusals` writes it apart, within a rate.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import threading
import time
from collections import Counter, OrderedDict
from enum import StrEnum
from typing import Any, Literal

import rfc8785

from service.errors import InvalidToken
from service.store import audit as rows
from service.store import credentials
from service.store.actor import current_actor, current_origin
from service.store.database import Database, Transaction
from service.types import now_ms

log = logging.getLogger("slipway.audit")
MAX_DETAILS = 8192  # bytes of JSON
_MADE_BY_MACHINES = re.compile(r"[0-9A-Fa-f-]{16,64}")  # UUIDs and trace ids, with or without hyphens
# Refusals written by one process; more are counted in the next row of their workspace.
PER_SECOND, BURST = 10.0, 600.0  # of sign-ins, in all
USER_PER_SECOND, USER_BURST = 1.0, 60.0  # of calls of a user
MOST_USERS = 4096  # whose refusals are counted at once
Result = Literal["ok", "refused", "failed", "unknown"]


class Action(StrEnum):
    """Audited action. Each is documented in docs/audit.md."""

    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"
    REFRESH_REUSED = "refresh.reused"
    ACCESS_REFUSED = "access.refused"
    CHANGE_REFUSED = "change.refused"
    KEY_CREATED = "key.created"
    KEY_LIMIT = "key.limit"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    SIGNING_KEYS_ENDED = "signing_keys.ended"
    USER_CREATED = "user.created"
    USER_ROLE = "user.role"
    USER_LIMIT = "user.limit"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_LOGINS = "user.logins"
    USER_PASSWORD = "user.password"
    USER_DELETED = "user.deleted"
    IDENTITY_LINKED = "identity.linked"
    USER_EXPORTED = "user.exported"
    USER_ERASED = "user.erased"
    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_CHANGED = "workspace.changed"
    WORKSPACE_DELETED = "workspace.deleted"
    AGENT_STOPPED = "agent.stopped"
    AGENT_RELEASED = "agent.released"
    AGENT_PUBLISHED = "agent.published"
    AGENT_PINNED = "agent.pinned"
    AGENT_CANARY = "agent.canary"
    AGENT_CANARY_ENDED = "agent.canary_ended"
    RUN_FORKED = "run.forked"
    CAP_SET = "cap.set"
    CAP_REMOVED = "cap.removed"
    APPROVAL_APPROVED = "approval.approved"
    APPROVAL_DENIED = "approval.denied"
    SCHEDULE_CREATED = "schedule.created"
    SCHEDULE_CHANGED = "schedule.changed"
    SCHEDULE_DELETED = "schedule.deleted"
    SCHEDULE_STOPPED = "schedule.stopped"
    GUARDRAIL = "guardrail"
    MEMORY_CHANGED = "memory.changed"
    MEMORY_DELETED = "memory.deleted"
    TOOL_CALLED = "tool.called"
    TOOL_FINISHED = "tool.finished"
    MCP_ACCEPTED = "mcp.accepted"
    MCP_CREDENTIAL = "mcp.credential"
    DOCUMENT_ADDED = "document.added"
    DOCUMENT_REMOVED = "document.removed"
    SETTINGS = "settings"


# A second sign-out is no error. Tools are called, and guardrails act, in runs, which are cancelled once their user is
# refused.
_WITHOUT_CREDENTIALS = (
    Action.SIGN_IN,
    Action.SIGN_OUT,
    Action.TOOL_CALLED,
    Action.TOOL_FINISHED,
    Action.GUARDRAIL,
)


def record(
    tx: Transaction,
    action: Action,
    subject: str,
    *,
    result: Result = "ok",
    workspace_id: str | None = None,
    **details: Any,
) -> None:
    """Add a row about this transaction, after its change; hold the log-in or key of the request that asked for it.

    `subject`: `kind:id`, as in `user:usr_…`. `details`: ids, names of settings, tools and roles, amounts; no text that
    people wrote. Raises `InvalidToken` where the log-in or key has ended since the request was admitted, and
    `ValueError` for more than `MAX_DETAILS`, and for a number beyond 2^53.
    """
    # In the form that is hashed, which some values do not have: the row must be one that a link can be made of.
    if len(rfc8785.dumps(details)) > MAX_DETAILS:
        raise ValueError(f"the details of {action} are too large")
    actor, origin = tx.actor, current_origin()
    audit_id = tx.id("aud")
    row = {
        "id": audit_id,
        "workspace_id": workspace_id or actor.workspace_id,
        "at": now_ms(),
        "action": str(action),
        "actor": actor.kind,
        "user_id": actor.user_id,
        "key_id": actor.key_id,
        "subject": subject,
        "address": None if origin.address is None else network(origin.address),
        "request_id": None if origin.request_id is None else wordless(origin.request_id),
        "result": result,
        "details": details,
    }
    if result == "ok" and action not in _WITHOUT_CREDENTIALS:
        _check_credentials(tx, audit_id)
    rows.insert(tx, row)


def _check_credentials(tx: Transaction, audit_id: str) -> None:
    """Raise `InvalidToken` where the actor's log-in or key has ended, unless by this same change.

    The row is there already where the answer to an earlier commit was lost: a user who changes their own password ends
    their own log-in.
    """
    if not credentials.hold(tx, tx.actor) and not rows.exists(tx, audit_id):
        raise InvalidToken("This log-in has ended.")


def wordless(request_id: str) -> str:
    """Return a request id, or the digest of one that may have words in it, which the audit would keep for good."""
    if _MADE_BY_MACHINES.fullmatch(request_id):
        return request_id
    return f"sha256-{hashlib.sha256(request_id.encode()).hexdigest()[:32]}"


def network(address: str) -> str | None:
    """Return the network of an address: the /24 of IPv4, the /48 of IPv6. None: not an address.

    It tells a sign-in from abroad from one at the office, and no household from its neighbours.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network(f"{parsed}/{bits}", strict=False))


class Bucket:
    """Token bucket: `burst` places, `per_second` of them back each second. Not thread-safe."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._filled_at = burst, time.monotonic()

    def take(self) -> bool:
        """Take a place. False: there is none."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Refusals:
    """Writer of refused actions, each in a transaction of its own. One per process.

    Sign-ins are bounded by LIMIT_LOGIN, other calls by LIMIT_READS and LIMIT_WRITES, but per address and per user. So a
    flood from many is bounded here: sign-ins by one bucket, which knows no accounts (else the time of an answer would
    tell which exist), calls by a bucket of each user, so that nobody hides the refusals of others.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._sign_ins = Bucket(PER_SECOND, BURST)
        self._users: OrderedDict[str, Bucket] = OrderedDict()  # the one that was used last at the end
        self._left_out: Counter[str] = Counter()  # by workspace

    def record(
        self, action: Action, subject: str, *, workspace_id: str | None = None, **details: Any
    ) -> None:
        """Write a refusal. Raises `DatabaseUnavailable`."""
        actor = current_actor()
        workspace_id = workspace_id or actor.workspace_id
        left_out = self._take(actor.user_id, workspace_id)
        if left_out is None:
            return
        if left_out:
            log.warning("audit_left_out", extra={"refusals": left_out})
            details["left_out"] = left_out
        self._db.transact(
            lambda tx: record(tx, action, subject, result="refused", workspace_id=workspace_id, **details)
        )

    def _take(self, user_id: str | None, workspace_id: str) -> int | None:
        """Take a place; return the number left out before in this workspace. None: this one is left out.

        `user_id`: None while nobody is signed in.
        """
        with self._lock:
            bucket = self._sign_ins if user_id is None else self._bucket_of(user_id)
            if bucket.take():
                return self._left_out.pop(workspace_id, 0)
            self._left_out[workspace_id] += 1
            return None

    def _bucket_of(self, user_id: str) -> Bucket:
        bucket = self._users.setdefault(user_id, Bucket(USER_PER_SECOND, USER_BURST))
        self._users.move_to_end(user_id)
        if len(self._users) > MOST_USERS:
            self._users.popitem(last=False)
        return bucket
