"""Answer cache at the doors: hits, stale answers and concurrent requests."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from service.ids import new_id
from service.types import Caller, Event, RunEvent
from tests.conftest import wait_until
from tests.runs import inside
from tests.web.cache_house import House, house, standing, text
from tests.web.test_doors import events_of

__all__ = ["house", "standing", "text"]
BOB = Caller("usr_bob", "bob", "user")


def test_a_near_question_costs_nothing(house: House, text: str) -> None:
    first = house.ask(text)
    near = house.ask(f"  Hi, {text.rstrip('?')} please ")
    assert [answer.headers["X-Cache"] for answer in (first, near)] == ["miss", "near"]
    assert (
        near.headers["X-Cost-USD"]
        == near.json["usage"]["cost_usd"]
        == "0.000000"
        != first.headers["X-Cost-USD"]
    )
    assert near.json["cache"] == "near" and near.json["output"] == first.json["output"]
    assert near.json["run_id"] != first.json["run_id"]
    assert house.ask(f"{text} not").headers["X-Cache"] == "miss"
    assert house.model.stats()["calls"] == 2


def test_both_doors_keep_and_find_the_same_answers(house: House, text: str) -> None:
    told = events_of(house.ask(text, "stream").text)
    invoked = house.ask(text)
    again = house.ask(text.upper(), "stream")
    # The last event is told a moment before the answer is kept: asked within it, one waits for that.
    assert invoked.headers["X-Cache"] in ("hit", "coalesced")
    assert again.headers["X-Cache"] == "near"
    assert house.ask(text).headers["X-Cache"] == "hit"  # it is kept by now
    events = events_of(again.text)
    assert [name for _, name, _ in events] == ["run.started", "text.delta", "run.completed"]
    run_id = events[0][2]["run_id"]
    assert [event_id for event_id, _, _ in events] == [f"{run_id}:{number}" for number in (1, 2, 3)]
    result = events[-1][2]
    assert events[1][2]["text"] == result["output"] == invoked.json["output"] == told[-1][2]["output"]
    assert (result["cache"], result["usage"]["cost_usd"], result["run_id"]) == ("near", "0.000000", run_id)
    assert house.model.stats()["calls"] == 1


def test_a_hit_under_a_key_of_the_clients_own_is_kept(house: House, text: str) -> None:
    house.ask(text)
    for door in ("invoke", "stream"):
        key = {"Idempotency-Key": new_id("k")}
        first, second = (house.ask(text, door, headers=key) for _ in range(2))
        assert first.headers["X-Cache"] == "hit" and second.headers["Idempotency-Replayed"] == "true"
        if door == "stream":
            assert first.text == second.text
            run_id = events_of(first.text)[0][2]["run_id"]
        else:
            assert first.json == second.json
            run_id = first.json["run_id"]
        kept = events_of(house.client.get(f"/v1/runs/{run_id}/events").text)
        assert [name for _, name, _ in kept] == ["run.started", "text.delta", "run.completed"]


# --- while the model is away ------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_stale_answer_while_the_model_is_away(house: House, text: str, door: str) -> None:
    fresh = house.ask(text, agent="brief").json
    time.sleep(1.1)
    house.model.control(fault="503")
    for _ in range(8):  # until the breaker is open, and after
        answer = house.ask(text, door, agent="brief")
        result = answer.json if door == "invoke" else events_of(answer.text)[-1][2]
        assert (answer.status_code, result["cache"], result["output"]) == (200, "stale", fresh["output"])
    if door == "invoke":
        assert answer.headers["X-Cache"] == "stale"
    else:
        names = [name for _, name, _ in events_of(answer.text)]
        assert names[0] == "run.started" and names[-2:] == ["text.delta", "run.completed"]
    kept: Any = house.client.get(f"/v1/runs/{result['run_id']}").json
    assert (kept["status"], kept["cache"]) == ("succeeded", "stale")
    assert house.ask(f"{text} else", agent="brief").status_code == 503
    house.model.control()
    wait_until(lambda: house.ask(text, door, agent="brief").headers["X-Cache"] == "miss", "the model again")


def test_a_stale_answer_is_no_answer_to_a_question_the_model_refuses(house: House, text: str) -> None:
    house.ask(text, agent="brief")
    time.sleep(1.1)
    house.model.control(fault="400")
    answer = house.ask(text, agent="brief")
    assert (answer.status_code, answer.json["code"]) == (502, "model_rejected")


def test_stale_answer_is_not_used_after_published_text(house: House, text: str) -> None:
    house.ask(text, agent="brief")
    time.sleep(1.1)
    house.model.control(fault="error_event", token_ms=5)
    events = events_of(house.ask(text, "stream", agent="brief").text)
    names = [name for _, name, _ in events]
    assert names[-1] == "run.failed" and "text.delta" in names
    assert (
        events[-1][2]["error"]["code"] == "model_unavailable"
    )  # for which a stale answer is served otherwise


# --- many at once -----------------------------------------------------------------------------------


def test_many_at_once_make_one_call(house: House, text: str) -> None:
    house.model.control(first_token_ms=700, token_ms=10)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(house.ask, text, door) for door in ("invoke", "stream") * 10]
        answers = [future.result(30) for future in asked]
    assert house.model.stats()["calls"] == 1
    caches = Counter(answer.headers["X-Cache"] for answer in answers)
    assert caches == {"miss": 1, "coalesced": 19}
    outputs = set()
    for answer in answers:
        result = answer.json if answer.is_json else events_of(answer.text)[-1][2]
        assert result["status"] == "succeeded"
        outputs.add(result["output"])
        if answer.is_json and answer.headers["X-Cache"] == "coalesced":
            assert answer.headers["X-Cost-USD"] == result["usage"]["cost_usd"] == "0.000000"
    assert len(outputs) == 1


def test_concurrent_streams_of_a_caller_follow_one_run(house: House, text: str) -> None:
    """The same caller gets the very same run, so it can be resumed anywhere."""
    house.model.control(first_token_ms=300, token_ms=30)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(house.ask, text, "stream") for _ in range(4)]
        streams = [events_of(future.result(30).text) for future in asked]
    assert streams[0] == streams[1] == streams[2] == streams[3]
    assert sum(name == "text.delta" for _, name, _ in streams[0]) > 1
    assert house.client.get(f"/v1/runs/{streams[0][0][2]['run_id']}").status_code == 200


def told_to(house: House, caller: Caller, text: str, agent: str, **fields: Any) -> list[RunEvent]:
    _, batches = house.wired.runs.start.stream(
        caller, inside.request(text, agent=agent, **fields), None, "req"
    )
    return [event for batch in batches for event in batch]


def test_stream_of_another_user_shares_its_answer_only(house: House, text: str) -> None:
    house.model.control(first_token_ms=300, token_ms=20)
    tell = partial(told_to, house, text=text, agent="shared")
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(tell, inside.ADA, metadata={"of": "ada"})
        wait_until(lambda: house.model.stats()["in_flight"], "the leader at the model")
        theirs = pool.submit(tell, BOB, metadata={"of": "bob"}).result(30)
        mine = leading.result(30)
    assert house.model.stats()["calls"] == 1
    result = theirs[-1].data
    assert result["output"] == mine[-1].data["output"]
    assert (result["cache"], result["usage"]["cost_usd"]) == ("coalesced", "0.000000")
    assert result["metadata"] == {"of": "bob"}
    assert result["run_id"] != mine[-1].data["run_id"]
    assert [event.name for event in theirs] == [Event.RUN_STARTED, Event.TEXT_DELTA, Event.RUN_COMPLETED]


def test_disconnected_follower_or_owner_ends_no_other_request(house: House, text: str) -> None:
    """Not the one who follows, and not the one who leads, though it wanted its run cancelled then."""
    house.model.control(first_token_ms=500, token_ms=20)
    runs, queries, cancellation = house.wired.runs, house.wired.runs.queries, house.wired.runs.cancellation
    ask = partial(inside.request, text, agent="probe", on_disconnect="cancel")
    leader, leading = runs.start.stream(inside.ADA, ask(), None, "req")
    next(leading)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(list, leading)
        staying = pool.submit(runs.start.invoke, inside.ADA, inside.request(text, agent="probe"), None, "req")
        gone, following = runs.start.stream(inside.ADA, ask(), None, "req")
        first = next(following)
        cancellation.client_gone(gone.run)
        assert (first, gone.run.cache) == ([], "coalesced") or first
        assert queries.get(leader.run.id).status == "running"
        cancellation.client_gone(leader.run)
        answer = staying.result(30).run
    assert answer.status == "succeeded" and answer.cache == "miss"  # it took the cancelled leader's place
    assert queries.get(leader.run.id).status == "cancelled"


def test_waiters_leave_threads_for_other_requests(house: House, text: str) -> None:
    bulkhead = house.wired.runs.bulkhead
    slots = (
        bulkhead.total - bulkhead.taken
    )  # streams that other tests began and did not read to their end have some
    house.model.control(first_token_ms=1500)
    with ThreadPoolExecutor(slots + 8) as pool:
        asked = [pool.submit(house.ask, text) for _ in range(slots + 8)]
        answers = [future.result(30) for future in asked]
    refused = [answer.json["detail"] for answer in answers if answer.status_code == 503]
    assert len(refused) in range(1, 9)
    assert any(detail.startswith("Every place") for detail in refused), "the bulkhead refuses before the gate"
    assert [answer.status_code for answer in answers].count(200) == slots + 8 - len(refused)
    assert house.model.stats()["calls"] == 1


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize(
    "body", [b"x", b"9999999999999 x {", b"9999999999999 x []", b"0 x {}", b"9999999999999 \xff {}"]
)
def test_an_entry_that_cannot_be_read_is_asked_anew(house: House, text: str, door: str, body: bytes) -> None:
    house.ask(text)
    changed = house.wired.infra.redis_store.call(
        lambda client: [client.set(key, body) for key in client.scan_iter("slipway:answer:*")], default=[]
    )
    assert changed
    asked = house.ask(text, door)
    assert asked.status_code == 200 and house.model.stats()["calls"] == 2
    if door == "stream":
        assert events_of(asked.text)[-1][1] == "run.completed"
    assert house.ask(text).headers["X-Cache"] == "hit"
