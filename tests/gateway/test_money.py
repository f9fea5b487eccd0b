"""Money of gateway calls: no cap is passed, nothing kept is paid twice, and the run tells all of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.store import runs as run_rows
from service.types import Event, Run
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, Gateway, says_hello
from tests.messages_api.asked import Asked, Said

STREAM = {**HELLO, "stream": True}


def reply_text(answer: httpx2.Response) -> Any:
    return answer.json()["content"][0]["text"]


def insist(gateway: Gateway, token: str) -> httpx2.Response:
    """Post, and again where the worker has no place for it, as an SDK would."""
    return wait_until(
        lambda: answer if (answer := gateway.post(token)).status_code != 529 else None, "a place"
    )


def tell(gateway: Gateway, run: Run) -> list[str]:
    """Tell the run's gateway calls; return the names of the events."""
    return [event.name for event in gateway.steps(run).tell()]


def test_cap_is_402_and_never_passed(tmp_path: Path, redis_server: RedisServer, url: str) -> None:
    # One call of 50 tokens holds some 5,000 nano-dollars at most, and costs some 300.
    with house.gateway(
        tmp_path, redis_server.url, database_url=url, budget_user_day_usd="0.000100"
    ) as gateway:
        token = gateway.token(gateway.run(), most_calls=500)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: insist(gateway, token), range(40)))
        codes = {answer.status_code for answer in answers}
        assert 402 in codes and codes <= {200, 402, 429}
        refused = next(answer for answer in answers if answer.status_code == 402)
        assert (
            refused.json()["error"]["type"] == "billing_error"
            and refused.headers["x-should-retry"] == "false"
        )
        assert 0 < gateway.spent <= 100_000 and gateway.held == 0


def test_most_of_a_run_is_never_passed_by_calls_side_by_side(
    tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    with house.gateway(tmp_path, redis_server.url, database_url=url, budget_run_usd="0.000100") as gateway:
        token = gateway.token(gateway.run(), most_calls=500)
        with ThreadPoolExecutor(8) as pool:
            codes = {answer.status_code for answer in pool.map(lambda _: insist(gateway, token), range(40))}
        assert codes <= {200, 402, 429} and 402 in codes
        assert 0 < gateway.spent <= 100_000 and gateway.held == 0


@pytest.mark.parametrize("body", [HELLO, STREAM])
def test_kept_answer_is_given_again_to_the_next_attempt_at_no_cost(gateway: Gateway, body: Any) -> None:
    run = gateway.run()
    token = gateway.token(run)
    first, second = gateway.post(token, body), gateway.post(token, body)
    assert len(gateway.api.requests) == 2  # of one attempt, each is a call
    spent = gateway.spent
    again = gateway.token(gateway.again(run))
    replayed = [gateway.post(again, body) for _ in range(2)]
    assert [answer.content for answer in replayed] == [first.content, second.content]
    assert {answer.headers["X-Cost-USD"] for answer in replayed} == {"0.000000"}
    assert gateway.spent == spent and len(gateway.api.requests) == 2
    gateway.post(again, body)  # a third is new
    assert len(gateway.api.requests) == 3 and gateway.spent > spent


def test_other_body_is_a_new_call(gateway: Gateway) -> None:
    run = gateway.run()
    gateway.post(gateway.token(run))
    gateway.post(gateway.token(gateway.again(run)), {**HELLO, "max_tokens": 51})
    assert len(gateway.api.requests) == 2


def test_calls_are_steps_of_the_run_told_once(gateway: Gateway) -> None:
    run = gateway.run()
    token = gateway.token(run)
    gateway.post(token), gateway.post(token)
    assert tell(gateway, run) == [Event.STEP_STARTED, Event.USAGE] * 2
    assert tell(gateway, run) == []
    stored = gateway.services.infra.db.query(lambda tx: run_rows.get(tx, run.id))
    assert stored is not None and stored.cost_nano == gateway.spent == run.cost_nano
    assert stored.usage.output_tokens > 0


def test_end_of_a_step_stops_calls_under_way_and_bills_them(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def hangs(asked: Asked) -> Said:
        begun.set()
        ended.wait(20)
        return says_hello(asked)

    with house.gateway(tmp_path, redis_server.url, hangs) as gateway, ThreadPoolExecutor(1) as pool:
        run = gateway.run()
        steps = gateway.steps(run)
        token = steps.begin(60, 20)
        answer = pool.submit(gateway.post, token)
        assert begun.wait(60)
        try:
            events = [event.name for event in steps.end()]
            assert answer.result(60).status_code == 401
        finally:
            ended.set()
        assert events == [Event.STEP_STARTED, Event.USAGE] and gateway.held == 0
        assert run.cost_nano == gateway.spent > 0  # what it used is not known: its hold
        assert gateway.post(token).status_code == 401


def test_call_that_outlives_its_attempt_is_billed_once_and_not_kept(
    tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hangs(asked: Asked) -> Said:
        begun.set()
        go_on.wait(20)
        return says_hello(asked)

    with (
        house.gateway(tmp_path, redis_server.url, hangs, database_url=url) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        run = gateway.run()
        answer = pool.submit(gateway.post, gateway.token(run))
        assert begun.wait(60)
        again = gateway.again(run)
        attempt = gateway.attempt(again)
        for settlement in gateway.services.usage.spending.settle_lost(again):  # as its next worker does first
            gateway.services.infra.db.transact(settlement.work)
        go_on.set()
        answer.result(60)
        wait_until(lambda: all(row["state"] != "open" for row in gateway.rows()), "the call's end")
        [row] = gateway.rows()
        assert (row["answer"], row["cost_nano"]) == (None, 0) and gateway.held == 0
        assert attempt.run.attempt == 2


def test_reader_that_leaves_is_billed(gateway: Gateway) -> None:
    token = gateway.token(gateway.run())
    with httpx2.stream(
        "POST", gateway.url + "/v1/messages", json=STREAM, headers={"x-api-key": token}, timeout=20
    ) as answer:
        next(answer.iter_raw())
    wait_until(lambda: gateway.held == 0, "the settlement")
    wait_until(lambda: [row["state"] for row in gateway.rows()] != ["open"], "the call's end")
    assert gateway.spent > 0


def test_failure_of_the_model_costs_nothing_and_keeps_nothing(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with house.gateway(tmp_path, redis_server.url, lambda asked: Said(status=400)) as gateway:
        answer = gateway.post(gateway.token(gateway.run()))
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert "UPSTREAM" not in answer.text and gateway.spent == 0 and gateway.held == 0
        assert [(row["state"], row["cost_nano"], row["answer"]) for row in gateway.rows()] == [
            ("failed", 0, None)
        ]


def test_run_that_ends_before_its_agent_is_asked_again_pays_for_its_calls(gateway: Gateway) -> None:
    """Its worker was lost after a call, and it is cancelled before another takes it up."""
    run = gateway.run()
    assert gateway.post(gateway.token(run)).status_code == 200
    db = gateway.services.infra.db
    db.transact(lambda tx: run_rows.ask_cancel(tx, run.id))
    assert db.transact(lambda tx: run_rows.abandon(tx, run.id, run.attempt))
    assert gateway.services.runs.execution.take_up(run.id)

    def ended() -> Run | None:
        found = db.query(lambda tx: run_rows.get(tx, run.id))
        return found if found is not None and found.status.ended else None

    wait_until(lambda: ended() is not None, "the run's end")
    found = ended()
    assert found is not None and found.cost_nano == gateway.spent > 0
