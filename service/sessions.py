"""Conversations: whose turn it is, what a turn goes on from, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from service.errors import Forbidden, Invalid, NotFound
from service.history import REFUSED, History, branch, message_seq, plan, summary_tokens, title_of, turn_of
from service.store import messages, session_expiry
from service.store import sessions as rows
from service.store.database import Database, Row, Transaction
from service.store.visibility import Visibility, visible_to
from service.types import Caller, Run, RunRequest, new_id, now_ms, rfc3339

DAY_MS = 86_400_000
READ_AT_ONCE = 100  # messages of a transcript
BATCH = 100  # rows of a session that are deleted in one transaction
CLEARED_FOR = 20.0  # seconds that whoever deletes a session waits at most


class Sessions:
    """Sessions and their turns. What belongs to a run is done in that run's own transactions."""

    def __init__(self, db: Database, *, ttl_days: int, history_tokens: int) -> None:
        self._db = db
        self._life = ttl_days * DAY_MS
        self._history_tokens = history_tokens

    # --- for the doors ------------------------------------------------------------------------------

    def create(self, tx: Transaction, row: dict[str, Any]) -> None:
        """Keep a row that `new` made."""
        rows.insert(tx, row)

    def new(self, caller: Caller, agent: str, title: str, metadata: str | None) -> dict[str, Any]:
        """A session that is not kept yet."""
        now = now_ms()
        times = {"created_at": now, "updated_at": now, "expires_at": now + self._life}
        about = {"id": new_id("ses"), "user_id": caller.user_id, "agent": agent, "title": title}
        return {**about, "metadata": metadata, "summary_upto": 0, **times}

    def page(self, caller: Caller, *, everyones: bool, limit: int, before: str | None) -> list[Row]:
        """Newest first: the caller's own, or everyone's for an operator. Raises `Forbidden`."""
        visible = _listed_for(caller, everyones)
        return self._db.query(lambda tx: rows.recent(tx, limit=limit, before=before, visible=visible))

    def search(
        self, caller: Caller, text: str, *, everyones: bool, limit: int, before: str | None
    ) -> tuple[list[Row], str | None]:
        """The same for those with `text` in their title; and where the search broke off, if it did."""
        visible = _listed_for(caller, everyones)
        return self._db.query(lambda tx: rows.titled(tx, text, limit=limit, before=before, visible=visible))

    def get(self, caller: Caller, session_id: str, *, own: bool = False) -> Row:
        """Find a session that has not expired; `own`: the caller's only. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.get(tx, session_id, visible_to(caller, own=own)))
        if row is None:
            raise NotFound(f"There is no session {session_id}.")
        return row

    def messages(self, session_id: str, *, limit: int, before: int | None) -> list[Row]:
        """Newest first, of all branches."""
        return self._db.query(lambda tx: messages.latest(tx, session_id, limit=limit, before=before))

    def transcript(self, session_id: str) -> Iterator[Row]:
        """Every message of all branches, oldest first; a page of them is in memory at a time."""
        after = 0
        read = partial(messages.following, session_id=session_id, limit=READ_AT_ONCE)
        while page := self._db.query(partial(read, after=after)):
            yield from page
            after = page[-1]["seq"]

    def change(self, session_id: str, changes: dict[str, Any]) -> None:
        self._db.transact(lambda tx: rows.update(tx, session_id, changes))

    def unfinished(self, session_id: str) -> list[str]:
        """Runs of the session that have not ended."""
        return self._db.query(lambda tx: rows.unfinished(tx, session_id))

    def delete(self, session_id: str) -> bool:
        """Delete a session with its messages and runs. False: a turn is under way.

        It is gone at once. Of what it holds as much as `CLEARED_FOR` allows is deleted here, the rest by upkeep.
        """
        if not self._db.transact(lambda tx: session_expiry.close(tx, session_id)):
            return False
        end = time.monotonic() + CLEARED_FOR
        while (began := time.monotonic()) < end:
            if self._db.transact(lambda tx: session_expiry.clear(tx, [session_id], BATCH)) < BATCH:
                break
            time.sleep(time.monotonic() - began)  # others write meanwhile
        return True

    # --- for runs -----------------------------------------------------------------------------------

    def begin(self, tx: Transaction, run: Run) -> bool:
        """A new turn takes its session. False: another turn has it.

        Raises `NotFound`, and `Invalid` for a session of another agent or a parent that is no message of it.
        """
        session_id = run.request.session_id
        if session_id is None:
            return True
        row = rows.get(tx, session_id, Visibility(run.user_id))
        if row is None:
            raise NotFound(f"There is no session {session_id}.")
        if row["agent"] != run.agent:
            raise _misfit("/session_id", f"This session belongs to the agent {row['agent']}.")
        parent = _parent(run.request)
        if parent and not messages.exists(tx, session_id, parent):
            raise _misfit("/parent_message_id", "There is no such message in this session.")
        ahead = run.mode != "queue" and run.request.on_conflict == "interrupt"
        return rows.take(tx, session_id, run.id, parent, ahead=ahead, begins=True)

    def resume(self, tx: Transaction, run: Run) -> bool:
        """The turn of a run that waited takes its session, if it is its turn now."""
        session_id = run.request.session_id
        return session_id is None or rows.take(tx, session_id, run.id, _parent(run.request))

    def under_way(self, session_id: str) -> list[Row]:
        """Runs of the session that have not ended, oldest first: `id`, and whether it `holds` the session."""
        return self._db.query(lambda tx: rows.under_way(tx, session_id))

    def past(self, run: Run, budget: int | None) -> History:
        """What was said on the branch that this turn goes on from. The same at every attempt: it only grows by turns.

        Turns that the model refused are left out: it would refuse every later one with them.
        """
        session_id = run.request.session_id
        assert session_id is not None

        def read(tx: Transaction) -> History:
            row = rows.standing(tx, session_id, run.id)
            if row is None:
                return History()
            last, upto, summary = row["parent_seq"], row["summary_upto"], row["summary"] or ""
            if last is None:  # taken by a worker of a version without branches
                last = messages.newest(tx, session_id)
            said = branch(messages.links(tx, session_id, upto, last), last, upto)
            if said is None:  # the summary is of another branch, or of what came after
                summary, said = "", branch(messages.links(tx, session_id, 0, last), last, 0) or []
            told = [link for link in said if link["error_code"] not in REFUSED]
            past = plan(summary, told, budget or self._history_tokens).readable()
            wanted = [link["seq"] for link in (*past.older, *past.kept)]
            return past.with_content(messages.content(tx, session_id, wanted))

        return self._db.query(read, patience=30)

    def summary_limit(self, budget: int | None) -> int:
        return summary_tokens(budget or self._history_tokens)

    def ended(self, tx: Transaction, run: Run, summary: tuple[int, str] | None = None) -> None:
        """End a turn: its question and answer stay in the session, with its status. `summary` replaces the messages up
        to the one of that number."""
        session_id = run.request.session_id
        if session_id is None:
            return
        now = run.finished_at or now_ms()
        changes: dict[str, Any] = {"updated_at": now, "expires_at": now + self._life}
        if summary is not None:
            changes["summary_upto"], changes["summary"] = summary
        held = rows.release(tx, session_id, run.id, changes, title_of(run.request.question))
        # A run that ends while it is queued has never held its session.
        if held or rows.misses(tx, session_id, run.id):
            messages.append(tx, session_id, run.id, turn_of(run, now), _parent(run.request))


def item(row: Row) -> dict[str, Any]:
    """A session in a list."""
    times = {name: rfc3339(row[name]) for name in ("created_at", "updated_at", "expires_at")}
    return {name: row[name] for name in ("id", "user_id", "agent", "title")} | times


def public(row: Row) -> dict[str, Any]:
    """A session by itself; its metadata is JSON text."""
    return item(row) | {"metadata": row["metadata"]}


def _listed_for(caller: Caller, everyones: bool) -> Visibility:
    """Return what a list shows: the caller's own, or everyone's for an operator. Raises `Forbidden`."""
    if everyones and caller.role == "user":
        raise Forbidden("Only operators see everyone's sessions.")
    return visible_to(caller, own=not everyones)


def _parent(request: RunRequest) -> int | None:
    """Number of the message that a turn is asked to go on from; 0: from none; None: from the session's newest.

    Raises `Invalid` for an id that is not of this session.
    """
    asked = request.parent_message_id
    if not asked or request.session_id is None:
        return None if asked is None else 0
    seq = message_seq(request.session_id, asked)
    if not seq:
        raise _misfit("/parent_message_id", "There is no such message in this session.")
    return seq


def _misfit(pointer: str, fault: str) -> Invalid:
    return Invalid(fault, errors=[{"pointer": pointer, "detail": fault}])
