"""Entries of the ledger, read from the first to the last: a page at a time, each a short transaction of its own.

One snapshot of everything would keep PostgreSQL from clearing away dead rows for as long as the reading takes. It is
not needed: no row is ever changed, so whatever has been read stays true.
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
CALL = ("user_id", "key_id", "agent", "session_id", "run_id", "step", "model", "price_id", "called_at")
_COLUMNS = ("entry_id", "kind", "account", "amount_nano", "basis", "cap_nano")
_READ = [ledger.c[name] for name in (*_COLUMNS, *CALL, *TOKENS, "counters")]
_KEY = (ledger.c.entry_id, ledger.c.kind, ledger.c.account)
_AFTER = [sa.bindparam(name, type_=sa.String()) for name in ("entry", "kind", "account")]
_PAGE = Statement(
    sa.select(*_READ)
    .where(sa.tuple_(*_KEY) > sa.tuple_(*_AFTER))
    .order_by(*_KEY)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
# None: nobody knows. SQLite numbers the rows, and none is ever deleted; PostgreSQL counts when it analyses the table.
_MANY = {
    True: "SELECT max(rowid) AS many FROM ledger",
    False: "SELECT NULLIF(GREATEST(reltuples, 0), 0) AS many FROM pg_class WHERE oid = 'ledger'::regclass",
}


def every(db: Database, *, page: int = PAGE, read: Callable[[int], object] = int) -> Iterator[list[Row]]:
    """Yield every entry with all its rows, by the entries' ids. `read` is told how many rows each page had."""
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


def of(tx: Transaction, ids: Iterable[str], page: int = 500) -> Iterator[list[Row]]:
    """Yield the entries of these ids, as `every` does."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), page):
        some = ledger.c.entry_id.in_(wanted[start : start + page])
        rows = tx.rows(sa.select(*_READ).where(some).order_by(*_KEY))
        for _, entry in groupby(rows, lambda row: (row["entry_id"], row["kind"])):
            yield list(entry)


def estimate(db: Database) -> int | None:
    """Rows of the ledger, as far as the database knows without counting them."""
    row = db.query(lambda tx: tx.row(sa.text(_MANY[db.sqlite])))
    return None if row is None or row["many"] is None else int(row["many"])
