"""Full scan of the ledger's entries, in pages, each in a short transaction of its own.

One long snapshot would keep PostgreSQL from vacuuming dead rows meanwhile, and is not needed: rows never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import sqlalchemy as sa

from service.store.database import Database, Row, Transaction
from service.store.ledger import TOKENS
from service.store.schema import ledger
from service.store.statement import Statement

PAGE = 5_000  # rows of one transaction
BATCH = 500  # ids of one query
# Not `end_user`, which the settlement of a release before lacks.
CALL = ("user_id", "key_id", "agent", "session_id", "run_id", "step", "model", "price_id", "called_at")
_COLUMNS = ("entry_id", "kind", "account", "amount_nano", "basis", "cap_nano", "end_user")
_READ = [ledger.c[name] for name in (*_COLUMNS, *CALL, *TOKENS, "counters")]
_KEY = (ledger.c.entry_id, ledger.c.kind, ledger.c.account)
_AFTER = [sa.bindparam(name, type_=sa.String()) for name in ("entry", "kind", "account")]
_PAGE = Statement(
    sa.select(*_READ)
    .where(sa.tuple_(*_KEY) > sa.tuple_(*_AFTER))
    .order_by(*_KEY)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
# SQLite numbers the rows, and none is ever deleted; PostgreSQL knows the count of its last ANALYZE, NULL before it.
_ESTIMATES = {
    True: "SELECT max(rowid) AS estimate FROM ledger",
    False: "SELECT NULLIF(GREATEST(reltuples, 0), 0) AS estimate FROM pg_class WHERE oid = 'ledger'::regclass",
}


def _ignore(rows: int) -> None:
    """Report no progress."""


def every(db: Database, *, page: int = PAGE, read: Callable[[int], object] = _ignore) -> Iterator[list[Row]]:
    """Yield every entry as its rows, in order of entry ids. `read(rows)` is called with the size of each page."""
    for _, rows in groupby(_rows(db, page, read), lambda row: (row["entry_id"], row["kind"])):
        yield list(rows)


def _rows(db: Database, page: int, read: Callable[[int], object]) -> Iterator[Row]:
    after = ("", "", "")
    while True:
        values = {**dict(zip(("entry", "kind", "account"), after, strict=True)), "most": page}
        rows = db.query(lambda tx, values=values: tx.rows(_PAGE, values))  # type: ignore[misc]
        read(len(rows))
        yield from rows
        if len(rows) < page:
            return
        last = rows[-1]
        after = (last["entry_id"], last["kind"], last["account"])


def of(tx: Transaction, ids: Iterable[str]) -> Iterator[list[Row]]:
    """Yield the entries of these ids, as `every` does."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), BATCH):
        in_batch = ledger.c.entry_id.in_(ordered[start : start + BATCH])
        rows = tx.rows(sa.select(*_READ).where(in_batch).order_by(*_KEY))
        for _, entry in groupby(rows, lambda row: (row["entry_id"], row["kind"])):
            yield list(entry)


def estimate(db: Database) -> int | None:
    """Estimate the number of the ledger's rows from the database's own statistics; None: unknown."""
    row = db.query(lambda tx: tx.row(sa.text(_ESTIMATES[db.sqlite])))
    return None if row is None or row["estimate"] is None else int(row["estimate"])
