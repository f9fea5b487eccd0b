"""Several threads' writes in one transaction of SQLite: each is told its own outcome, and fails by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable, NotFound
from service.store.actor import Actor, act_as
from service.store.database import Database, Transaction
from service.store.sqlite_writers import Writers
from tests.conftest import wait_until

WAIT = 10  # seconds
who: ContextVar[str] = ContextVar("who")
names = sa.Table("names", sa.MetaData(), sa.Column("name", sa.String, primary_key=True))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/x.db", patience=1)
    names.create(found.engine)
    yield found
    found.close()


def insert(name: str) -> Callable[[Transaction], int]:
    def work(tx: Transaction) -> int:
        tx.execute(names.insert(), {"name": name})
        return threading.get_ident()

    return work


def written(db: Database) -> list[str]:
    return [row["name"] for row in db.query(lambda tx: tx.rows(sa.select(names).order_by(names.c.name)))]


def writers(db: Database) -> Writers:
    assert db._writers is not None
    return db._writers


class Group:
    """Threads whose writes wait for one that writes already, until `go` is called."""

    def __init__(self, db: Database, pool: ThreadPoolExecutor) -> None:
        self._db, self._pool = db, pool
        self._writes, self._go = threading.Event(), threading.Event()
        self.threads: dict[str, int] = {}

    def first(self, work: Callable[[Transaction], Any]) -> Future[Any]:
        def held(tx: Transaction) -> Any:
            self._writes.set()
            assert self._go.wait(WAIT)
            writers(self._db)._turn_ends += WAIT  # however slow this machine is
            return work(tx)

        future = self.start("first", held)
        assert self._writes.wait(WAIT)
        return future

    def add(self, name: str, work: Callable[[Transaction], Any], *, priority: bool = False) -> Future[Any]:
        before = len(writers(self._db)._queue)
        future = self.start(name, work, priority)
        wait_until(lambda: len(writers(self._db)._queue) == before + 1, "a thread that waits", timeout=WAIT)
        return future

    def go(self) -> None:
        self._go.set()

    def start(self, name: str, work: Callable[[Transaction], Any], priority: bool = False) -> Future[Any]:
        def run() -> Any:
            self.threads[name] = threading.get_ident()
            who.set(name)
            act_as(Actor("user", name))
            return self._db.transact(work, priority=priority)

        return self._pool.submit(run)


@pytest.fixture
def group(db: Database) -> Iterator[Group]:
    with ThreadPoolExecutor(8) as pool:
        found = Group(db, pool)
        try:
            yield found
        finally:
            found.go()


def test_waiting_writes_join_the_group_and_return_their_own_results(db: Database, group: Group) -> None:
    futures = [group.first(insert("first")), *(group.add(name, insert(name)) for name in "abc")]
    group.go()
    assert {future.result(WAIT) for future in futures} == {group.threads["first"]}
    assert written(db) == ["a", "b", "c", "first"]


def test_failed_write_is_rolled_back_alone(db: Database, group: Group) -> None:
    def fail(tx: Transaction) -> None:
        insert("bad")(tx)
        tx.after_commit(lambda: hooks.append("bad"))
        raise NotFound("It is not there.")

    hooks: list[str] = []
    first, bad = group.first(insert("first")), group.add("bad", fail)
    twice, good = group.add("twice", insert("first")), group.add("good", insert("good"))
    group.go()
    assert first.result(WAIT) == good.result(WAIT) == group.threads["first"]
    with pytest.raises(NotFound):
        bad.result(WAIT)
    with pytest.raises(sa.exc.IntegrityError):
        twice.result(WAIT)
    assert written(db) == ["first", "good"] and hooks == []


def test_failed_first_write_leaves_the_others(db: Database, group: Group) -> None:
    def fail(tx: Transaction) -> None:
        insert("bad")(tx)
        raise NotFound("It is not there.")

    bad = group.first(fail)
    futures = [group.add(name, insert(name)) for name in "ab"]
    group.go()
    with pytest.raises(NotFound):
        bad.result(WAIT)
    assert {future.result(WAIT) for future in futures} == {group.threads["a"]}
    assert written(db) == ["a", "b"]


def test_after_commit_hooks_run_in_their_own_thread_and_context(db: Database, group: Group) -> None:
    def work(tx: Transaction) -> str:
        insert(who.get())(tx)
        tx.after_commit(lambda: after.append((who.get(), threading.get_ident(), who.get() in written(db))))
        return who.get()

    after: list[tuple[str, int, bool]] = []
    futures = [group.first(work), group.add("a", work), group.add("b", work)]
    group.go()
    assert [future.result(WAIT) for future in futures] == ["first", "a", "b"]
    assert sorted(after) == sorted((name, ident, True) for name, ident in group.threads.items())


def test_each_write_of_a_group_has_the_actor_of_its_own_thread(db: Database, group: Group) -> None:
    def work(tx: Transaction) -> tuple[str | None, int]:
        return tx.actor.user_id, threading.get_ident()

    futures = [group.first(work), group.add("a", work), group.add("b", work)]
    group.go()
    assert [future.result(WAIT) for future in futures] == [
        (name, group.threads["first"]) for name in ("first", "a", "b")
    ]


def test_where_all_is_undone_all_try_again(db: Database, group: Group) -> None:
    """SQLite may undo a whole transaction, as on a full disk: nobody may take for written what is gone."""

    def count(name: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            ran.append(name)
            insert(name)(tx)

        return work

    trigger = "CREATE TRIGGER undo AFTER INSERT ON names WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'x'); END"
    db.transact(lambda tx: tx.execute(sa.text(trigger)))
    ran: list[str] = []
    futures = [group.first(count("first")), group.add("before", count("before"))]
    bad = group.add("bad", count("bad"))
    futures.append(group.add("after", count("after")))
    group.go()
    for future in futures:
        future.result(WAIT)
    with pytest.raises(sa.exc.IntegrityError):
        bad.result(WAIT)
    assert min(ran.count("first"), ran.count("before")) >= 2
    assert written(db) == ["after", "before", "first"]


def test_one_that_may_not_wait_is_written_before_the_others(db: Database, group: Group) -> None:
    def note(name: str) -> Callable[[Transaction], None]:
        return lambda tx: order.append(name)

    order: list[str] = []
    futures = [
        group.first(note("first")),
        group.add("a", note("a")),
        group.add("lease", note("lease"), priority=True),
    ]
    group.go()
    for future in futures:
        future.result(WAIT)
    assert order == ["first", "lease", "a"]


def test_expired_turn_writes_alone(db: Database, group: Group) -> None:
    first, other = group.first(insert("first")), group.add("other", insert("other"))
    writers(db)._turn_ends = -2.0 * WAIT
    group.go()
    assert first.result(WAIT) == group.threads["first"]
    assert other.result(WAIT) == group.threads["other"]


def test_write_that_timed_out_in_a_group_fails_as_unknown(db: Database, group: Group) -> None:
    """The write may have happened, as after a lost answer to a commit."""

    def slow(tx: Transaction) -> None:
        assert seen.wait(WAIT)
        insert("other")(tx)

    seen = threading.Event()
    first = group.first(insert("first"))
    writers(db)._patience = 0.2
    other = group.add("other", slow)
    group.go()
    with pytest.raises(DatabaseUnavailable, match="busy"):
        other.result(WAIT)
    seen.set()
    first.result(WAIT)
    assert written(db) == ["first", "other"]
