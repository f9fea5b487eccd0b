"""Erasure of a user: a byte search of the database and of Redis finds none of their words; others keep theirs."""

from __future__ import annotations

import re
import threading
import time
from functools import partial

import pytest
import redis
import sqlalchemy as sa

from service.audit.chain import link_all
from service.audit.verify import verify_all
from service.auth.users import User
from service.privacy import redis_keys
from service.store import erasures as rows
from service.store import identities, schema, sign_in_addresses
from service.store.identities import Identity
from service.store.personal_data import ERASED
from service.store.schema import erasures
from service.types import now_ms
from service.usage import ledger
from tests.conftest import ROOT, Model
from tests.privacy.canaries import in_files, in_relations
from tests.privacy.house import House, house, postgres_url, url

__all__ = ["house", "postgres_url", "url"]
PAGE = (ROOT / "docs" / "personal-data.md").read_text()
# The house has no MCP servers. Tokens of runs are digests, as are names of files; slots are times.
NO_WORDS = {
    f"rows of {table}"
    for table in (
        *("token_families", "sign_in_addresses", "batch_items", "schedule_slots"),
        *("run_tokens", "mcp_credentials", "run_files", "session_files"),
    )
}


def people(house: House) -> tuple[str, User, User]:
    """Token of an admin, with Ada, and Bob who stays."""
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    root = house.token(demo)
    return root, house.create(house.words, root), house.create(house.kept, root)


def test_no_word_of_an_erased_user_is_left(house: House) -> None:
    root, ada, bob = people(house)
    house.live(ada, house.words, root, turns=80)
    house.live(bob, house.kept, root, turns=3)
    assert len(house.words.words) >= 1000
    kept = {word for words in house.kept.found(house.state()).values() for word in words}
    before = house.words.found(house.state())
    places = {re.sub("(slipway:[a-z]+).*", r"\1", name) for name in before}
    assert {f"rows of {table}" for table in ERASED} - places == NO_WORDS
    assert {"redis slipway:answer", "redis slipway:stream"} <= places
    done = house.erased(ada.id)
    assert done["status"] == "erased" and done["verified_at"], done
    left = house.words.found(house.state())
    assert not left, left
    assert kept == {word for words in house.kept.found(house.state()).values() for word in words}
    link_all(house.services.infra.db)
    assert all(found.ok for found in verify_all(house.services.infra.db))
    assert ledger.check(house.services.infra.db, house.services.usage.prices).faults == []
    engine = house.services.infra.db.engine
    if house.services.infra.db.sqlite:
        assert not house.words.found(in_files(house.folder, "*.db*"))
    else:  # what was deleted stays in the free space of its pages: see docs/personal-data.md
        (rewrite,) = re.findall(r"^VACUUM FULL .*;$", PAGE, re.M)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text(rewrite))
        assert not house.words.found(in_relations(engine))


def test_shared_answer_is_that_of_the_user_who_caused_it(house: House) -> None:
    """Ada's is asked anew once she is erased; Bob's is not."""
    _, ada, bob = people(house)
    token, tokens = house.token(bob), {"first": house.token(ada), "second": house.token(bob)}

    def ask(token: str, text: str) -> str:
        answer = house.ask(token, "POST /v1/agents/common/invoke", {"input": text})
        assert answer.status_code == 200, answer.text
        return answer.headers["X-Cache"]

    assert [ask(tokens[text], text) for text in tokens] == ["miss", "miss"]
    assert [ask(token, text) for text in tokens] == ["hit", "hit"]
    house.erased(ada.id)
    assert [ask(token, text) for text in tokens] == ["miss", "hit"]


def test_another_worker_goes_on_where_one_died(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    root, ada, _ = people(house)
    house.live(ada, house.words, root, turns=1)
    services = house.services
    with monkeypatch.context() as patch:

        def dies(*_: object) -> None:
            raise redis.ResponseError

        patch.setattr(redis_keys, "erase", dies)
        answer = house.ask(root, f"POST /v1/admin/users/{ada.id}/erase")
    assert answer.status_code == 202 and answer.get_json()["status"] == "erasing"
    services.erasures.go_on()  # not due yet: the one that died has its claim
    assert house.words.found(house.state())
    with services.infra.db.begin() as tx:
        tx.execute(erasures.update(), {"next_at": now_ms()})
    services.erasures.go_on()
    again = house.ask(root, f"POST /v1/admin/users/{ada.id}/erase", words=house.kept).get_json()
    assert (again["status"], again["verified_at"]) == ("erased", None)
    assert not house.words.found(house.state())


def test_run_under_way_is_cancelled_and_leaves_nothing(house: House, model: Model) -> None:
    _, ada, _ = people(house)
    services, token = house.services, house.token(ada)
    services.runs.supervisor.start()  # which stops cancelled runs
    model.control(token_ms=100)
    question = {"input": f"[offline tokens=400] Tell me at length of {house.words.word()}"}
    asked = [
        threading.Thread(target=house.ask, args=(token, f"POST /v1/agents/common/{door}", question))
        for door in ("invoke", "stream")
    ]
    for each in asked:
        each.start()
    under_way = "SELECT id FROM runs WHERE status = 'running'"
    while len(services.infra.db.query(lambda tx: tx.rows(sa.text(under_way)))) < 1:
        time.sleep(0.02)
    house.erased(ada.id)
    for each in asked:
        each.join(60)
    assert not house.words.found(house.state())
    assert services.infra.db.query(lambda tx: tx.rows(sa.text("SELECT id FROM runs"))) == []
    answer = house.ask(token, "POST /v1/agents/common/invoke", question)
    assert answer.status_code == 401


def test_word_that_comes_late_is_found_by_the_last_pass(house: House) -> None:
    """As the last event of a run whose row is deleted already, held up on its way to Redis."""
    root, ada, _ = people(house)
    assert house.ask(root, f"POST /v1/admin/users/{ada.id}/erase").get_json()["status"] == "erased"
    client = redis.Redis.from_url(house.redis.url)
    client.xadd("slipway:stream:run_late", {"e": house.words.word()})
    done = house.erased(ada.id)
    assert client.keys("slipway:stream:*") == []
    assert set(done["erased"]) == {"idempotency_keys"}, "whose stream that was, nobody can know"
    client.close()


def test_append_only_file_of_redis_is_written_anew(house: House) -> None:
    """The embedded Redis has one."""
    _, ada, _ = people(house)
    client = redis.Redis.from_url(house.redis.url)
    client.config_set("appendonly", "yes")

    def rest() -> None:
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.02)

    rest()
    house.ask(house.token(ada), "POST /v1/agents/common/stream", {"input": house.words.word()})
    assert house.words.found(in_files(house.redis.folder))
    house.erased(ada.id)
    rest()
    client.close()
    assert not house.words.found(in_files(house.redis.folder))


def test_user_of_another_workspace_and_oneself_are_not_erased(house: House) -> None:
    root, ada, _ = people(house)
    demo = house.services.auth.users.by_name("demo")
    assert demo is not None
    assert house.ask(root, f"POST /v1/admin/users/{demo.id}/erase").status_code == 409
    for path in ("usr_none", ada.id.lower() + "x"):
        assert house.ask(root, f"POST /v1/admin/users/{path}/erase").status_code == 404
    assert house.services.auth.users.get(ada.id) == ada


def test_pass_is_claimed_by_one_worker(house: House) -> None:
    _, ada, _ = people(house)
    db = house.services.infra.db
    house.services.auth.users.begin_erasure(ada.id)
    [row] = db.query(lambda tx: rows.of_user(tx, ada.id))
    later = now_ms() + 60_000
    mine, others = (
        partial(rows.claim, erasure=row, next_at=later),
        partial(rows.claim, erasure=row, next_at=later + 1),
    )
    assert [db.transact(claim) for claim in (mine, mine, others)] == [True, True, False]
    assert db.query(lambda tx: rows.due(tx, now_ms(), 10)) == []


def test_account_that_is_written_to_late_is_cleared_by_the_next_pass(house: House) -> None:
    """As by a sign-in that was verified before its user was erased."""
    root, ada, _ = people(house)
    db, word = house.services.infra.db, house.words.word
    house.ask(house.token(ada), "POST /v1/auth/keys", {"name": word()})
    house.ask(root, f"POST /v1/admin/users/{ada.id}/erase")
    db.transact(partial(sign_in_addresses.remember, user_id=ada.id, digest="0" * 64, now=now_ms()))
    remembered = sa.select(schema.sign_in_addresses).where(schema.sign_in_addresses.c.user_id == ada.id)
    assert db.query(lambda tx: tx.rows(remembered)) == []
    late = Identity("https://idp.example.com", word())
    db.transact(partial(identities.insert, identity=late, user_id=ada.id, roles_at=0))
    db.transact(lambda tx: tx.execute(sa.text(f"UPDATE api_keys SET name = '{word()}', prefix = 'slp'")))
    house.erased(ada.id)
    assert not house.words.found(house.state())


def test_pass_that_was_claimed_by_another_worker_since_ends_nothing(house: House) -> None:
    _, ada, _ = people(house)
    db = house.services.infra.db
    house.services.auth.users.begin_erasure(ada.id)
    [row] = db.query(lambda tx: rows.of_user(tx, ada.id))
    slow, fast = now_ms() + 60_000, now_ms() + 120_000
    assert db.transact(partial(rows.claim, erasure=row, next_at=slow))
    assert db.transact(partial(rows.claim, erasure={**row, "next_at": slow}, next_at=fast))
    for until, ended in ((slow, False), (fast, True)):
        claimed = {**row, "next_at": until}
        db.transact(partial(rows.finish, erasure=claimed, changes={"next_at": None}))
        [left] = db.query(lambda tx: rows.of_user(tx, ada.id))
        assert (left["next_at"] is None) is ended
