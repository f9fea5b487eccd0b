"""Sessions: conversations with a turn lock, branches, history and expiry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from service.errors import Forbidden, InvalidToken, NotForkable, NotFound, fault
from service.history import (
    EXCLUDED_ERRORS,
    History,
    branch,
    max_summary_tokens,
    message_seq,
    plan,
    title_of,
    turn_rows,
)
from service.ids import new_id
from service.infra.backends import Infra
from service.store import messages, session_expiry, users
from service.store import sessions as rows
from service.store.database import Database, Row, Transaction
from service.store.visibility import visible_to
from service.types import Caller, Run, RunRequest, now_ms, public_fields

if TYPE_CHECKING:
    from config.base import Settings

DAY_MS = 86_400_000
READ_BATCH = 100  # messages of a transcript per query
DELETE_BATCH = 100  # rows of a session deleted per transaction
DELETE_TIMEOUT = 20.0  # seconds a delete request takes at most
NO_SESSION = "The session of the run that this is a fork of is gone."
NO_MESSAGE = "There is no such message in this session."


def build(settings: Settings, infra: Infra) -> Sessions:
    """Build the sessions service."""
    days, tokens = settings.session_ttl_days, settings.session_history_tokens
    return Sessions(infra.db, ttl_days=days, history_tokens=tokens)


class Sessions:
    """Sessions and their turns. `begin`, `resume` and `end` run inside the run's own transactions."""

    def __init__(self, db: Database, *, ttl_days: int, history_tokens: int) -> None:
        self._db = db
        self._ttl_ms = ttl_days * DAY_MS
        self._history_tokens = history_tokens

    # --- for the doors ------------------------------------------------------------------------------

    def create(self, tx: Transaction, row: dict[str, Any]) -> None:
        """Insert a session. Raises `InvalidToken` for a user disabled or deleted meanwhile, and `TooMany`.

        An erasure finds the session, or the session finds its user deleted.
        """
        if users.hold(tx, row["user_id"]) is None:
            raise InvalidToken("This log-in has ended.")
        rows.insert(tx, row)

    def new(self, caller: Caller, agent: str, title: str, metadata: str | None) -> dict[str, Any]:
        """Build a `sessions` row without inserting."""
        now = now_ms()
        times = {"created_at": now, "updated_at": now, "expires_at": now + self._ttl_ms}
        whose = {"workspace_id": caller.workspace_id, "user_id": caller.user_id}
        about = {"id": new_id("ses"), **whose, "agent": agent, "title": title}
        return {**about, "metadata": metadata, "summary_upto": 0, **times}

    def begin_for(self, caller: Caller, agent: str) -> str:
        """Insert a session without a title; return its id. Raises as `create`."""
        row = self.new(caller, agent, "", None)
        self._db.transact(lambda tx: self.create(tx, row))
        return str(row["id"])

    def page(
        self, caller: Caller, text: str | None, *, all_users: bool, limit: int, before: str | None
    ) -> tuple[list[Row], str | None]:
        """List the caller's sessions, or all users' for an operator, newest first. Raises `Forbidden`.

        `text`: only those with it in their title; then also return the id to continue after, if cut off.
        """
        if all_users and visible_to(caller).user_id is not None:
            raise Forbidden("Only operators see everyone's sessions.")
        wanted: Any = {"limit": limit, "before": before, "visible": visible_to(caller, own=not all_users)}
        if text is None:
            return self._db.query(partial(rows.recent, **wanted)), None
        return self._db.query(partial(rows.by_title, text=text, **wanted))

    def get(self, caller: Caller, session_id: str, *, own: bool = False) -> Row:
        """Find an unexpired session; `own`: only the caller's, also for operators. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.get(tx, session_id, visible_to(caller, own=own)))
        if row is None:
            raise NotFound(f"There is no session {session_id}.")
        return row

    def messages(self, session_id: str, *, limit: int, before: int | None) -> list[Row]:
        """List messages of all branches, newest first."""
        return self._db.query(lambda tx: messages.latest(tx, session_id, limit=limit, before=before))

    def transcript(self, session_id: str) -> Iterator[Row]:
        """Iterate over all messages of all branches, oldest first, one page in memory."""
        after = 0
        read = partial(messages.following, session_id=session_id, limit=READ_BATCH)
        while page := self._db.query(partial(read, after=after)):
            yield from page
            after = page[-1]["seq"]

    def change(self, session: Row, changes: dict[str, Any]) -> None:
        self._db.transact(lambda tx: rows.update(tx, session["id"], session["user_id"], changes))

    def unfinished(self, session_id: str) -> list[str]:
        """List ids of the session's runs that have not ended."""
        return self._db.query(lambda tx: rows.unfinished(tx, session_id))

    def delete(self, session_id: str) -> bool:
        """Delete a session with its messages and runs. False: a turn is running.

        Hidden at once; rows are deleted for up to `DELETE_TIMEOUT`, the remaining ones by upkeep.
        """
        if not self._db.transact(lambda tx: session_expiry.close(tx, session_id)):
            return False
        end = time.monotonic() + DELETE_TIMEOUT
        while (began := time.monotonic()) < end:
            deleted = self._db.transact(lambda tx: session_expiry.clear(tx, [session_id], DELETE_BATCH))
            if deleted < DELETE_BATCH:
                break
            time.sleep(time.monotonic() - began)  # lets others write
        return True

    # --- for runs -----------------------------------------------------------------------------------

    def begin(self, tx: Transaction, run: Run) -> bool:
        """Lock the session for a new turn. False: another turn holds the lock.

        Raises `NotFound`, and `Invalid` for a session of another agent or a parent that is no message of it.
        """
        session_id = run.request.session_id
        if session_id is None:
            return True
        free = {"user_id": run.user_id, "agent": run.agent, "busy_run_id": None, "alive": True}
        row = rows.lock(tx, session_id, free)
        # The deletion of a session did not see this run, which would outlive the conversation.
        if row is None or row["user_id"] != run.user_id or not row["alive"]:
            raise NotFound(f"There is no session {session_id}.")
        if row["agent"] != run.agent:
            detail = f"This session belongs to the agent {row['agent']}."
            raise fault("/session_id", detail, detail)
        parent = _parent(run.request)
        if parent and not messages.exists(tx, session_id, parent):
            raise fault("/parent_message_id", NO_MESSAGE, NO_MESSAGE)
        if row["busy_run_id"] == run.id:
            return True  # taken by an earlier commit, whose answer was lost
        ahead = run.mode != "queue" and run.request.on_conflict == "interrupt"
        return rows.take(tx, session_id, run.id, parent, ahead=ahead)

    def resume(self, tx: Transaction, run: Run) -> bool:
        """Lock the session for a queued run, if its turn has come."""
        session_id = run.request.session_id
        row = None if session_id is None else rows.lock(tx, session_id)
        if session_id is None or row is None or row["busy_run_id"] == run.id:
            return True
        return rows.take(tx, session_id, run.id, _parent(run.request))

    def under_way(self, session_id: str) -> list[Row]:
        """List unfinished runs, oldest first: `id`, and `holds`, whether the run has the session's lock."""
        return self._db.query(lambda tx: rows.under_way(tx, session_id))

    def history(self, run: Run, budget: int | None) -> History:
        """Load the history of the branch that this turn continues; the same at every attempt of the run.

        That of a fork is the history of the turn that it is of. Turns with `EXCLUDED_ERRORS` are left out. `budget` is
        in tokens; None: the setting's. Raises `NotForkable` for a fork of a turn whose session is gone.
        """
        fork, tokens = run.request.fork or {}, budget or self._history_tokens
        session_id, turn = run.request.session_id or fork["session_id"], fork.get("turn", run.id)

        def read(tx: Transaction) -> History:
            past = messages.past(tx, session_id, turn, tokens)
            if past is None and fork:
                raise NotForkable(NO_SESSION)
            if past is None:
                return History()
            summary, links = past.summary, branch(past.links, past.last, past.upto)
            if links is None:  # the summary is of another branch, or of later messages
                summary, links = "", branch(messages.links(tx, session_id, past.last), past.last, 0) or []
            included = [link for link in links if link["error_code"] not in EXCLUDED_ERRORS]
            history = plan(summary, included, tokens).truncated()
            content = {link["seq"]: link for link in past.links if link["content"] is not None}
            seqs = {link["seq"] for link in (*history.older, *history.recent)}
            whole = history.with_content(
                content | messages.content(tx, session_id, sorted(seqs - content.keys()))
            )
            untrusted = past.untrusted if summary else ()
            return whole._replace(untrusted=untrusted, placeholders=past.placeholders)

        return self._db.query(read, patience=30)

    def summary_limit(self, budget: int | None) -> int:
        return max_summary_tokens(budget or self._history_tokens)

    def end(
        self,
        tx: Transaction,
        run: Run,
        summary: tuple[int, str] | None = None,
        *,
        title: str | None = None,
        placeholders: Mapping[str, str] | None = None,
    ) -> None:
        """Release the session's lock and append the turn's messages, whatever the run's status.

        `summary` replaces the messages up to the one of that number; `title`: for a session without one, None: the
        beginning of the question; `placeholders`: of values that models did not see, None: as they are.
        """
        session_id = run.request.session_id
        if session_id is None:
            return
        now = run.finished_at or now_ms()
        changes: dict[str, Any] = {"updated_at": now, "expires_at": now + self._ttl_ms}
        if summary is not None:
            changes["summary_upto"], changes["summary"] = summary
            changes["summary_untrusted"] = None if run.untrusted is None else list(run.untrusted)
        if placeholders is not None:
            changes["placeholders"] = dict(placeholders)
        held = rows.release(tx, run, changes, title or title_of(run.request.question))
        # A run that ends while it is queued has never held its session.
        if held or rows.lacks_turn(tx, session_id, run.id):
            messages.append(tx, run, turn_rows(run, now), _parent(run.request))


def item(row: Row) -> dict[str, Any]:
    """Return the list form of a session."""
    return public_fields(row, "id user_id agent title created_at updated_at expires_at")


def public(row: Row) -> dict[str, Any]:
    """Return the API's session object; `metadata` is JSON text."""
    return item(row) | {"metadata": row["metadata"]}


def _parent(request: RunRequest) -> int | None:
    """Return the `seq` of the requested parent message; 0: none; None: the session's newest.

    Raises `Invalid` for an id of another session.
    """
    parent_id = request.parent_message_id
    if not parent_id or request.session_id is None:
        return None if parent_id is None else 0
    seq = message_seq(request.session_id, parent_id)
    if not seq:
        raise fault("/parent_message_id", NO_MESSAGE, NO_MESSAGE)
    return seq
