"""Chain: rows are linked after their commit, once each, by one process at a time."""

from __future__ import annotations

import hashlib
import threading
from contextlib import ExitStack, closing

import pytest
import rfc8785
import sqlalchemy as sa

from service.audit import chain
from service.audit.chain import BATCH, FIRST, Chainer, link_all, link_next
from service.audit.record import Action, record
from service.ids import new_id
from service.store import audit as rows
from service.store import sweep
from service.store.actor import NOWHERE, serve
from service.store.database import Database, Transaction
from service.store.sweep import Work
from service.types import DEFAULT_WORKSPACE
from tests.audit.house import ADA, linked, links, read, verify, write
from tests.conftest import wait_until
from tests.exhausted import no_threads
from tests.twice import WAYS, Way, write_twice


def test_link_hashes_the_row_and_the_link_before(db: Database) -> None:
    """By the words of docs/audit.md, so that others can verify an export."""
    first, second = linked(db, 2)
    row = read(db, "SELECT * FROM audit ORDER BY id")[1]
    row["details"] = {"number": 1}
    link = {name: second[name] for name in ("workspace_id", "seq", "audit_id", "at")}
    text = rfc8785.dumps({**link, "previous": first["hash"], "row": row})
    assert (first["seq"], first["previous"], second["seq"]) == (1, FIRST, 2)
    assert second["hash"] == hashlib.sha256(text).hexdigest()


def test_row_that_commits_late_is_linked_later(db: Database) -> None:
    """Its id sorts before rows that are linked already."""
    early = new_id("aud")
    linked(db, 2)
    row = {**read(db, "SELECT * FROM audit ORDER BY id")[0], "id": early, "details": {}}
    db.transact(lambda tx: rows.insert(tx, row))
    link_all(db)
    assert [link["seq"] for link in links(db) if link["audit_id"] == early] == [3]
    assert verify(db).checked == 3 and verify(db).ok


def test_rolled_back_transaction_leaves_no_row(db: Database) -> None:
    def work(tx: Transaction) -> None:
        record(tx, Action.KEY_CREATED, "key:key_1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.transact(work)
    assert read(db, "SELECT id FROM audit") == read(db, "SELECT audit_id FROM audit_unlinked") == []


@pytest.mark.parametrize("way", WAYS)
def test_transaction_that_is_run_twice_adds_one_row(
    db: Database, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    with monkeypatch.context() as patched:
        write_twice(way, patched)
        write(db, 2)
        link_all(db)
    link_all(db)
    assert (verify(db).checked, verify(db).ok, verify(db).unlinked) == (2, True, 0)


def test_row_told_of_again_after_its_link_is_not_linked_twice(db: Database) -> None:
    """The commit's answer was lost, and the chainer was faster than the second run."""
    (link,) = linked(db, 1)
    again = {"audit_id": link["audit_id"], "workspace_id": DEFAULT_WORKSPACE}
    db.transact(
        lambda tx: tx.execute(sa.text("INSERT INTO audit_unlinked VALUES (:audit_id, :workspace_id)"), again)
    )
    link_all(db)
    assert links(db) == [link]
    assert read(db, "SELECT * FROM audit_unlinked") == []


def test_several_chainers_at_once_leave_one_chain(db: Database, url: str) -> None:
    write(db, 3 * BATCH)
    with ExitStack() as stack:
        others = [stack.enter_context(closing(Database(url))) for _ in range(3)]

        def work(other: Database) -> None:
            while read(other, "SELECT audit_id FROM audit_unlinked LIMIT 1"):
                other.transact(link_next)

        threads = [threading.Thread(target=work, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        write(db, 20)
        for thread in threads:
            thread.join()
    link_all(db)
    assert (verify(db).checked, verify(db).ok) == (3 * BATCH + 20, True)


@pytest.fixture
def chainer(db: Database) -> Chainer:
    chainer = Chainer(db)
    chainer.start()
    return chainer


def until_linked(db: Database) -> None:
    wait_until(lambda: not read(db, "SELECT audit_id FROM audit_unlinked LIMIT 1"), "the links")


def test_thread_that_could_not_start_starts_later(db: Database) -> None:
    write(db, 1)
    chainer = Chainer(db)
    with no_threads(), pytest.raises(RuntimeError):
        chainer.wake()
    chainer.wake()
    until_linked(db)
    chainer.close()


def test_thread_links_after_each_commit_and_ends(db: Database, chainer: Chainer) -> None:
    for _ in range(2):
        write(db, 3)
        until_linked(db)
        wait_until(lambda: chainer._thread is None, "the end of the thread")
    assert verify(db).checked == 6
    chainer.close()
    write(db, 1)
    assert verify(db).unlinked == 1


def test_thread_goes_on_after_a_failure(
    db: Database, chainer: Chainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[type[Exception]] = [ZeroDivisionError]

    def failing(tx: Transaction) -> int | None:
        if failures:
            raise failures.pop()
        return link_next(tx)

    monkeypatch.setattr(chain, "link_next", failing)
    write(db, 1)
    wait_until(lambda: not failures and chainer._thread is None, "a failure")
    write(db, 1)
    until_linked(db)
    chainer.close()


def test_chainer_waits_while_another_is_at_it(db: Database, url: str) -> None:
    if db.sqlite:
        pytest.skip("one writer")
    with closing(Database(url)) as other, other.begin() as tx:
        assert rows.may_link(tx)
        write(db, 1)
        assert db.transact(link_next) is None
        chainer = Chainer(db)
        chainer.wake()
    until_linked(db)
    chainer.close()


def test_sweep_knows_of_rows_to_link(db: Database) -> None:
    assert Work.UNLINKED_AUDIT not in db.query(lambda tx: sweep.due(tx, "wrk_1"))
    write(db, 1)
    assert Work.UNLINKED_AUDIT in db.query(lambda tx: sweep.due(tx, "wrk_1"))
    link_all(db)
    assert Work.UNLINKED_AUDIT not in db.query(lambda tx: sweep.due(tx, "wrk_1"))


@pytest.mark.parametrize("table", ["audit", "audit_links"])
@pytest.mark.parametrize("sql", ["UPDATE {} SET at = 1", "DELETE FROM {}", "TRUNCATE {}"])
def test_database_refuses_changes(db: Database, table: str, sql: str) -> None:
    linked(db, 1)
    if db.sqlite and sql.startswith("TRUNCATE"):
        pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(Exception, match=f"{table} is append-only"):
        db.transact(lambda tx: tx.execute(sa.text(sql.format(table))))
    assert verify(db).ok


def test_actor_and_origin_of_a_row(db: Database) -> None:
    serve(NOWHERE)  # a test before may have served a request
    write(db, 1)
    (row,) = read(db, "SELECT * FROM audit")
    found = {
        name: row[name] for name in ("actor", "user_id", "key_id", "workspace_id", "address", "request_id")
    }
    assert found == {
        "actor": "user",
        "user_id": ADA.user_id,
        "key_id": ADA.key_id,
        "workspace_id": DEFAULT_WORKSPACE,
        "address": None,
        "request_id": None,
    }
