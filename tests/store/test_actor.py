"""Actors of transactions, over both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from service.store.actor import SERVICE, Actor, act_as, acting_as
from service.store.database import Database
from service.types import Caller, Run, RunRequest

ADA, BOB = Actor("user", "usr_ada", "key_1"), Actor("user", "usr_bob")


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(Database(url)) as database:
        yield database


def actors(db: Database) -> set[Actor]:
    """Actors of one transaction of each kind."""
    with db.begin() as tx:
        found = {tx.actor}
    return found | {db.transact(lambda tx: tx.actor), db.query(lambda tx: tx.actor)}


def test_thread_without_an_actor_is_the_service(db: Database) -> None:
    with ThreadPoolExecutor(1) as pool, acting_as(ADA):
        assert pool.submit(actors, db).result() == {SERVICE}


def test_transaction_has_the_actor_of_its_thread(db: Database) -> None:
    with ThreadPoolExecutor(1) as pool:
        for actor in (ADA, BOB):
            pool.submit(act_as, actor).result()
            assert pool.submit(actors, db).result() == {actor}


def test_actor_of_a_block_ends_with_it_also_on_an_error(db: Database) -> None:
    with acting_as(ADA):
        with pytest.raises(ZeroDivisionError), acting_as(BOB):
            assert actors(db) == {BOB}
            raise ZeroDivisionError
        assert actors(db) == {ADA}


def test_user_acts_in_requests_and_runs_with_the_key_they_used() -> None:
    run = Run("run_1", "usr_ada", "assistant", "1", "task", RunRequest("assistant", ()), key_id="key_1")
    assert Actor.of(run) == Actor.of(Caller("usr_ada", "ada", "user", key_id="key_1")) == ADA
    assert [str(actor) for actor in (ADA, BOB, SERVICE)] == ["usr_ada/key_1", "usr_bob", "service"]
