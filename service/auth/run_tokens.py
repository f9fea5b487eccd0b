"""Tokens of runs: with one a remote agent calls models for one step of one run, and may do nothing else.

Random, and stored as a digest. A token is valid while its attempt executes the run: every use reads the run's row, so
an end, a cancellation, another attempt or a refused user ends it at once, on every replica.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import AgentStopped, BudgetExceeded, InvalidToken, RunLimit, SlipwayError
from service.store import gateway_calls as rows
from service.store.database import Database
from service.store.holds import Hold
from service.types import Caller, Run, now_ms

PREFIX = "slr_"
_ENDED = "This token of a run is not valid, or no longer."


@dataclass(frozen=True, slots=True)
class RunGrant:
    """Valid token of a run, by its digest. `most_calls`: model calls that may be made with it.

    `branch`: of the sub-agent that has it; empty: the run's own agent. `tree_id`: hold that its calls take theirs from.
    """

    digest: str
    run_id: str
    attempt: int
    step: int
    agent: str
    branch: str
    tree_id: str | None
    most_calls: int
    expires_at: int
    user_id: str
    workspace_id: str
    key_id: str | None

    @property
    def caller(self) -> Caller:
        """Return the run's user, as the caller of the door."""
        return Caller(self.user_id, "", "user", key_id=self.key_id, workspace_id=self.workspace_id)


class TokenStep(NamedTuple):
    """Step that a token is for: its number, and see `RunGrant`."""

    number: int
    agent: str
    branch: str = ""
    tree: Hold | None = None


@dataclass(frozen=True, slots=True)
class RunTokens:
    """Issues, finds and ends tokens. One per process."""

    db: Database

    def issue(self, run: Run, step: TokenStep, *, seconds: float, most_calls: int) -> str:
        """Return a token for a step of this attempt at a run, valid for at most `seconds`."""
        token = PREFIX + secrets.token_hex(24)
        row = {
            "digest": digest_of(token),
            "run_id": run.id,
            "attempt": run.attempt,
            "step": step.number,
            "agent": step.agent,
            "branch": step.branch,
            "tree_id": None if step.tree is None else step.tree.id,
            "most_calls": most_calls,
            "expires_at": now_ms() + int(seconds * 1000),
        }
        self.db.transact(lambda tx: rows.add_token(tx, row))
        return token

    def find(self, token: str) -> RunGrant:
        """Return what a token grants. Raises `InvalidToken`, and `AgentStopped`."""
        digest = digest_of(token)
        row = self.db.query(lambda tx: rows.valid(tx, [digest])).get(digest)
        if row is None:
            error = InvalidToken(_ENDED)
            error.expired = self.db.query(lambda tx: rows.has_token(tx, digest))
            raise error
        if row["stopped"]:
            raise AgentStopped("The agent of this run is stopped.")
        return RunGrant(**{name: row[name] for name in RunGrant.__slots__})

    def still_valid(self, digests: Collection[str]) -> Collection[str]:
        """Return those of these digests whose tokens are valid and whose agents are not stopped."""
        found = self.db.query(lambda tx: rows.valid(tx, sorted(digests)), patience=0)
        return {digest for digest, row in found.items() if not row["stopped"]}

    def note_refusal(self, grant: RunGrant, error: BudgetExceeded | RunLimit) -> None:
        """Store that a bound has refused a call: an agent that fails then ends its run with this error."""
        refused = {"code": error.code, "detail": error.detail, "extra": error.extra}
        self.db.transact(lambda tx: rows.note_refused(tx, grant.digest, refused))

    def refusal(self, token: str) -> SlipwayError | None:
        """Return the last error that `note_refusal` has stored."""
        refused = self.db.query(lambda tx: rows.refused(tx, digest_of(token)))
        if refused is None:
            return None
        kind = BudgetExceeded if refused["code"] == BudgetExceeded.code else RunLimit
        return kind(refused["detail"], extra=refused["extra"])

    def end(self, token: str) -> None:
        """End a token: no call begins with it any more, and those under way are stopped."""
        digest = digest_of(token)
        self.db.transact(lambda tx: rows.end_token(tx, digest))


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
