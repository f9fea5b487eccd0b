"""Messages of a session, a tree: the parent of each is `parent_seq`, or the message numbered before it where NULL.

A turn is appended by the run that holds the session, at its end; or for a run that ended while it was queued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.lists import fitting
from service.store.schema import messages, runs, sessions
from service.store.statement import Statement
from service.types import Run, RunStatus

BATCH = 1_000  # messages read by one statement: databases bound the number of values
# Columns of the tree, without the content, which may be large.
_LINKS = [
    messages.c[name]
    for name in ("seq", "parent_seq", "run_id", "role", "tokens", "status", "error_code", "untrusted")
]
# Tools of a turn that was cut off: what they did has no other trace in the conversation.
_TOOLS_OF_CANCELLED = messages.c.status == RunStatus.CANCELLED
_SESSION: sa.BindParameter[str] = sa.bindparam("session")
_RUN: sa.BindParameter[str] = sa.bindparam("run")
_PARENT = sa.bindparam("parent", type_=sa.Integer())
# Number of the session's last message; 0: none.
_LAST = (
    sa.select(sa.func.coalesce(sa.func.max(messages.c.seq), 0))
    .where(messages.c.session_id == _SESSION)
    .correlate(None)
    .scalar_subquery()
)
_EXISTS = Statement(
    sa.select(messages.c.seq).where(messages.c.session_id == _SESSION, messages.c.seq == sa.bindparam("seq"))
)
_SET_PARENT = Statement(
    sa.update(runs).where(runs.c.id == _RUN).values(parent_seq=sa.func.coalesce(_PARENT, _LAST))
)
_NEXT = sa.insert(messages).values(seq=_LAST + 1).inline()  # without RETURNING, which nobody would read
_STORED_PARENT = sa.select(runs.c.parent_seq).where(runs.c.id == _RUN).scalar_subquery()
_APPEND = Statement(_NEXT)
_APPEND_FIRST = Statement(
    _NEXT.values(parent_seq=sa.func.nullif(sa.func.coalesce(_STORED_PARENT, _PARENT, _LAST), _LAST))
)


def exists(tx: Transaction, session_id: str, seq: int) -> bool:
    return tx.row(_EXISTS, {"session": session_id, "seq": seq}, expect={"seq": seq}) is not None


def has_turn(tx: Transaction, session_id: str, run_id: str) -> bool:
    query = sa.select(messages.c.seq).where(messages.c.session_id == session_id, messages.c.run_id == run_id)
    return tx.row(query.limit(1)) is not None


def size(tx: Transaction, session_id: str) -> int:
    """Return the tokens of a session's messages, of all branches, as they are estimated when they are stored."""
    total = sa.func.coalesce(sa.func.sum(messages.c.tokens), 0).label("tokens")
    row = tx.row(sa.select(total).where(messages.c.session_id == session_id))
    return 0 if row is None else int(row["tokens"])


def set_parent(tx: Transaction, session_id: str, run_id: str, parent: int | None) -> None:
    """Store the parent message of a run's turn; None: the session's last one now."""
    tx.send(_SET_PARENT, {"session": session_id, "run": run_id, "parent": parent})


def append(tx: Transaction, run: Run, turn: Sequence[dict[str, Any]], parent: int | None) -> None:
    """Append the turn of a run. Its parent is the run's stored one, else `parent`, else the session's last message.

    The caller holds a lock on the session's row.
    """
    session_id = run.request.session_id
    of_run = {"session": session_id, "session_id": session_id, "run_id": run.id}
    first, *others = (tx.sealed(messages, message, run.user_id) | of_run for message in turn)
    tx.send(_APPEND_FIRST, {**first, "run": run.id, "parent": parent})
    tx.send(_APPEND, *others)


class Past(NamedTuple):
    """Messages before a run's turn, of all branches: `links` are those after the first `upto`, up to the `last`.

    `summary` replaces the others; `untrusted` are its sources of untrusted text, None:
    not known. The newest links have their content; that of the rest is None. `placeholders`: of values that models did
    not see.
    """

    summary: str
    untrusted: tuple[str, ...] | None
    upto: int
    last: int
    links: list[Row]
    placeholders: Mapping[str, str]


_UNTIL = sa.func.coalesce(runs.c.parent_seq, _LAST)  # NULL: begun by a worker of a version without branches
_IS_FIRST = sa.func.row_number().over(order_by=messages.c.seq) == 1  # of all rows, the one with the summary
_TOKENS = sa.func.sum(messages.c.tokens).over(order_by=messages.c.seq.desc())
_FITS = sa.bindparam("tokens", type_=sa.Integer()) >= _TOKENS
_PAST = Statement(
    sa.select(
        sa.case((_IS_FIRST, sessions.c.summary)).label("summary"),
        sa.case((_IS_FIRST, sessions.c.summary_untrusted)).label("summary_untrusted"),
        sa.case((_IS_FIRST, sessions.c.placeholders)).label("placeholders"),
        sessions.c.summary_upto.label("upto"),
        _UNTIL.label("last"),
        *_LINKS,
        sa.case((_FITS, messages.c.content)).label("content"),
        sa.case((sa.and_(_FITS, _TOOLS_OF_CANCELLED), messages.c.tools)).label("tools"),
    )
    .select_from(
        sessions.outerjoin(runs, runs.c.id == _RUN).outerjoin(
            messages,
            sa.and_(
                messages.c.session_id == sessions.c.id,
                messages.c.seq > sessions.c.summary_upto,
                messages.c.seq <= _UNTIL,
            ),
        )
    )
    .where(sessions.c.id == _SESSION)
    .order_by(messages.c.seq)
)


def past(tx: Transaction, session_id: str, run_id: str, tokens: int) -> Past | None:
    """Read what a run's turn may continue, also of an expired session; with the content of the last `tokens`."""
    rows = tx.rows(_PAST, {"session": session_id, "run": run_id, "tokens": tokens})
    if not rows:
        return None
    first, links = rows[0], [row for row in rows if row["seq"] is not None]
    marked = first["summary_untrusted"]
    untrusted = None if marked is None else tuple(marked)
    placeholders = first["placeholders"] or {}
    return Past(first["summary"] or "", untrusted, first["upto"], first["last"], links, placeholders)


def links(tx: Transaction, session_id: str, last: int) -> list[Row]:
    """Read messages up to number `last`, in order, without their content."""
    query = sa.select(*_LINKS).where(messages.c.session_id == session_id, messages.c.seq <= last)
    return tx.rows(query.order_by(messages.c.seq))


def content(tx: Transaction, session_id: str, seqs: Sequence[int]) -> dict[int, Row]:
    """Read messages' `content`, and the `tools` of turns that were cut off, by number."""
    tools = sa.case((_TOOLS_OF_CANCELLED, messages.c.tools)).label("tools")
    query = sa.select(messages.c.seq, messages.c.content, tools).where(messages.c.session_id == session_id)
    return {
        row["seq"]: row
        for start in range(0, len(seqs), BATCH)
        for row in tx.rows(query.where(messages.c.seq.in_(seqs[start : start + BATCH])))
    }


def latest(tx: Transaction, session_id: str, *, limit: int, before: int | None) -> list[Row]:
    """Read the last messages, or the last before number `before`: newest first.

    Fewer than `limit` where they are long, see `fitting`.
    """
    sizes = _sizes(session_id)
    if before is not None:
        sizes = sizes.where(messages.c.seq < before)
    found = _whole(tx, session_id, sizes.order_by(messages.c.seq.desc()).limit(limit))
    return found[::-1]


def following(tx: Transaction, session_id: str, *, after: int, limit: int) -> list[Row]:
    """Read the first messages after number `after`, oldest first; fewer than `limit` where they are long."""
    sizes = _sizes(session_id).where(messages.c.seq > after)
    return _whole(tx, session_id, sizes.order_by(messages.c.seq).limit(limit))


def _sizes(session_id: str) -> sa.Select[Any]:
    return sa.select(messages.c.seq, messages.c.tokens).where(messages.c.session_id == session_id)


def _whole(tx: Transaction, session_id: str, sizes: sa.Select[Any]) -> list[Row]:
    """Read whole rows of the messages of `sizes`, as far as they fit one list; in order of their numbers."""
    # Estimated as four characters a token.
    seqs = fitting((row["seq"], 4 * row["tokens"]) for row in tx.rows(sizes))
    query = sa.select(messages).where(messages.c.session_id == session_id, messages.c.seq.in_(seqs))
    return tx.rows(query.order_by(messages.c.seq))
