"""Images of runs and sessions: stored once for each owner, read by whoever asks the model, gone with the last use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Invalid, TooLarge
from service.files import put_aside
from service.jobs.upkeep import delete_expired
from service.runs import file_content
from service.store import runs as rows
from service.store import users
from service.store.database import Transaction
from service.store.schema import files, run_files, runs, session_files, steps
from service.types import Caller, Run, now_ms
from service.usage.prices import PriceTable, today
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, killed, scripted
from tests.web.made_files import block, made, sentence

BOB = Caller("usr_bob", "bob", "user")
DAY = 86_400_000


@pytest.fixture
def house(tmp_path: Path, redis_server: RedisServer, model: Model, url: str) -> Iterator[Services]:
    with inside.services(tmp_path, redis_server.url, model.url, database_url=url) as services:
        yield services


def asked(image: bytes | None, text: str = "What is this?") -> dict[str, Any]:
    """Fields of a request with an image."""
    content = [*([block("image/png", image)] if image else []), {"type": "text", "text": text}]
    messages, found = put_aside([{"role": "user", "content": content}])
    return {"messages": messages, "files": found, "cache": "bypass"}


def ask(house: Services, image: bytes | None, caller: Caller = inside.ADA, **fields: Any) -> Run:
    request = inside.request("", **{**asked(image), **fields})
    return house.runs.start.invoke(caller, request, None, "req").run


def output(run: Run) -> str:
    assert run.result is not None
    return str(run.result["output"])


def count(house: Services, table: sa.Table) -> int:
    query = sa.select(sa.func.count().label("rows")).select_from(table)
    return int(house.infra.db.query(lambda tx: tx.rows(query))[0]["rows"])


def counts(house: Services) -> tuple[int, int, int]:
    return count(house, files), count(house, run_files), count(house, session_files)


def end_days_ago(house: Services, run: Run, days: int = 400) -> None:
    """Let a run be one of long ago, and upkeep pass."""
    old = "run_" + "0" * 25 + run.id[-1]
    changed = {"id": old, "finished_at": now_ms() - days * DAY}
    digest = run.request.messages[0]["content"][0]["source"]["digest"]
    with house.infra.db.begin() as tx:
        for table in (run_files, steps):
            tx.execute(sa.delete(table).where(table.c.run_id == run.id))
        tx.execute(sa.update(runs).where(runs.c.id == run.id).values(**changed))
        tx.execute(run_files.insert(), {"run_id": old, "user_id": run.user_id, "digest": digest})
    delete_expired(house.infra.db, 90)


def test_content_is_stored_once_for_each_owner_and_goes_with_its_last_run(house: Services) -> None:
    bob = {"id": BOB.user_id, "username": "bob", "password_hash": "", "role": "user", "created_at": 0}
    house.infra.db.transact(lambda tx: users.insert(tx, bob))
    image = made("image/png", 100_000)
    first, second, third = ask(house, image), ask(house, image), ask(house, image, BOB)
    assert {sentence("image/png", image) in output(run) for run in (first, second, third)} == {True}
    assert first.request.files == {}  # let go of
    assert counts(house) == (2, 3, 0)
    end_days_ago(house, first)
    assert counts(house) == (2, 2, 0)
    end_days_ago(house, second)
    assert counts(house) == (1, 1, 0)
    assert sentence("image/png", image) in output(ask(house, image))


def test_later_turns_of_a_session_have_the_image_also_without_its_run(house: Services) -> None:
    image = made("image/png")
    row = house.sessions.new(inside.ADA, "probe", "", None)
    house.infra.db.transact(lambda tx: house.sessions.create(tx, row))
    run = ask(house, image, session_id=row["id"])
    assert counts(house) == (1, 1, 1)
    end_days_ago(house, run)
    assert counts(house) == (1, 0, 1)
    assert sentence("image/png", image) in output(ask(house, None, session_id=row["id"]))
    assert house.sessions.delete(row["id"])
    assert counts(house) == (0, 0, 0)


def test_another_worker_has_the_image_too(acting: Services, upstream: WireServer) -> None:
    image = made("image/png")
    upstream.otherwise = scripted.stream_of("A cat.")
    fields = {name: value for name, value in asked(image).items() if name != "cache"}
    killed.assert_whole(killed.told_with_a_loss(acting, upstream, 1, **fields))
    sent = [one.json["messages"] for one in upstream.requests if b"POST /v1/messages " in one.head]
    assert len(sent) == 2 and sent[0] == sent[1]
    assert block("image/png", image) in sent[0][0]["content"]


def test_a_call_is_never_held_below_its_cost(house: Services, caplog: pytest.LogCaptureFixture) -> None:
    run = ask(house, made("image/png"), max_tokens=100)
    assert run.usage.input_tokens > 1_500
    assert "hold_overrun" not in caplog.messages


def test_a_model_that_takes_no_files_is_named(house: Services) -> None:
    agent = house.runs.start.new_runs.agent("probe")
    prices = [house.usage.prices.price(model, today()) for model in agent.models]
    table = PriceTable([price._replace(takes_files=False) for price in prices])
    messages = asked(made("image/png"))["messages"]
    with pytest.raises(Invalid) as refused:
        file_content.check(agent, messages, table)
    assert agent.models[0] in str(refused.value.errors)
    file_content.check(agent, messages, house.usage.prices)
    file_content.check(agent, asked(None)["messages"], table)


def open_run(house: Services, image: bytes) -> tuple[Run, Callable[[Transaction], object]]:
    run = house.runs.start.new_runs.make(inside.ADA, inside.request("", **asked(image)), "wait", "req")
    return run, house.runs.start.new_runs.opening(run, None)


@pytest.mark.parametrize("first", ["refers", "deletes"])
def test_content_outlives_a_deletion_at_the_same_moment(house: Services, first: str) -> None:
    """Whichever of the two comes first, the other waits for it."""
    image = made("image/png")
    old = ask(house, image)
    run, refer = open_run(house, image)
    works = [refer, lambda tx: rows.delete(tx, [old.id])]
    if first == "deletes":
        works.reverse()
    done = threading.Event()

    def other() -> None:
        done.wait(10)
        house.infra.db.transact(works[1])

    thread = threading.Thread(target=other)
    thread.start()

    def slowly(tx: Transaction) -> None:
        works[0](tx)
        done.set()
        time.sleep(0.3)  # the other begins meanwhile, and waits

    house.infra.db.transact(slowly)
    thread.join(20)
    assert not thread.is_alive()
    assert counts(house)[:2] == (1, 1)
    query = sa.select(run_files.c.run_id)
    assert house.infra.db.query(lambda tx: tx.rows(query)) == [{"run_id": run.id}]


def test_contents_of_one_user_are_bounded(house: Services) -> None:
    """What is stored already is not counted again. A call beyond leaves nothing."""
    start = house.runs.start
    new_runs = replace(start.new_runs, file_bytes=1_999)
    house = replace(house, runs=replace(house.runs, start=replace(start, new_runs=new_runs)))
    image = made("image/png", 1_000)
    assert [ask(house, image).status for _ in range(2)] == ["succeeded"] * 2
    with pytest.raises(TooLarge):
        ask(house, made("image/png", 1_000))
    assert counts(house) == (1, 2, 0) and count(house, runs) == 2
