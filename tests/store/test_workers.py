"""Leases of workers, which are renewed all the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from service.store import workers
from service.store.database import Database, Row
from tests.conftest import wait_until
from tests.tables import create_tables

RENEWED = 30
COUNTED = sa.text(
    "SELECT n_tup_upd AS rows, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'workers'"
)


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    database = Database(url)
    create_tables(database.engine)
    yield database
    database.close()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_renewed_lease_is_written_to_no_index(db: Database) -> None:
    """PostgreSQL clears up such a row's older versions by itself (HOT), so that the table stays small."""
    db.transact(lambda tx: workers.register(tx, "wrk_1", "web", "here", 1, 15_000))
    for _ in range(RENEWED):
        assert db.transact(lambda tx: workers.renew(tx, "wrk_1", 15_000))

    def counted() -> Row | None:
        db.query(lambda tx: tx.rows(sa.text("SELECT pg_stat_force_next_flush()")))
        found = db.query(lambda tx: tx.row(COUNTED))
        return found if found is not None and found["rows"] == RENEWED else None

    assert wait_until(counted, "the count of renewals") == {"rows": RENEWED, "hot": RENEWED}
