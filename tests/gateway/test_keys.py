"""Models that are asked with a key: each call is a run, relayed as it is. By the official SDK and by hand."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from service.ids import new_id
from service.store import runs as run_rows
from service.store import users
from service.store.schema import holds, ledger, runs
from service.types import now_ms
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.messages_api.asked import Asked, Said, says
from tests.runs.inside import ADA

ASKED: list[Any] = [{"role": "user", "content": "Hello"}]
AGENTS = {
    "probe": house.SPEC,
    "claude-opus-5-5": "description: Has the name of a model.\npattern: single\n",
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Gateway]:
    home: Path = tmp_path_factory.mktemp("keys")
    with house.gateway(home, redis_server.url, specs=AGENTS) as made:
        yield made


@pytest.fixture(scope="module")
def key(keys: Gateway) -> str:
    return key_of(keys)


def key_of(gateway: Gateway, *scopes: str, user_id: str = ADA.user_id) -> str:
    made: str = gateway.services.auth.keys.create(user_id, f"key {uuid.uuid4()}", scopes)["key"]
    return made


def newest(gateway: Gateway) -> dict[str, Any]:
    """Return the newest run, as its list shows it."""
    answer = httpx2.get(f"{gateway.url}/v1/runs?limit=1", headers={"x-api-key": key_of(gateway)})
    found: dict[str, Any] = answer.json()["data"][0]
    return found


def test_answer_is_the_models_and_a_run_of_its_own(keys: Gateway, key: str) -> None:
    before = keys.spent
    answer = keys.sdk(key).messages.create(model=MODEL, max_tokens=50, messages=ASKED)
    assert answer.content[0].text == "Answer 5." and answer.stop_reason == "end_turn"  # type: ignore[union-attr]
    run = newest(keys)
    assert (run["agent"], run["door"], run["status"]) == (MODEL, "messages/invoke", "succeeded")
    assert run["input"] == "Hello" and run["usage"]["cost_usd"] != "0.000000"
    assert keys.spent > before and keys.held == 0
    paid = [row for row in keys.rows(ledger) if row["run_id"] == run["run_id"] and row["agent"] == MODEL]
    assert paid and {row["user_id"] for row in paid} == {ADA.user_id}
    whole = httpx2.get(f"{keys.url}/v1/runs/{run['run_id']}", headers={"x-api-key": key}).json()
    assert (whole["output"], whole["model"], whole["steps"]) == ("Answer 5.", MODEL, 1)


def test_stream_is_the_models_and_a_run_of_its_own(keys: Gateway, key: str) -> None:
    with keys.sdk(key).messages.stream(model=MODEL, max_tokens=50, messages=ASKED) as stream:
        text, final = "".join(stream.text_stream), stream.get_final_message()
    assert text == "Answer 5." and final.usage.output_tokens > 0
    run = newest(keys)
    assert (run["agent"], run["door"], run["status"]) == (MODEL, "messages/stream", "succeeded")
    assert keys.held == 0


def test_body_and_betas_reach_the_model_unchanged(keys: Gateway, key: str) -> None:
    marked = [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]
    body = {**HELLO, "messages": [{"role": "user", "content": marked}], "metadata": {"user_id": "me"}}
    body |= {"thinking": {"type": "adaptive"}, "a_field_of_tomorrow": [1, {"of": 2.50}]}
    answer = keys.post(key, {**body, "temperature": 0.5}, **{"anthropic-beta": "some-beta-2026-01-01"})
    assert answer.status_code == 200 and answer.headers["request-id"]
    assert answer.headers["X-Cache"] == "bypass" and answer.headers["X-Cost-USD"] != "0.000000"
    assert keys.api.requests[-1].body == body


def test_agents_name_wins(keys: Gateway, key: str) -> None:
    answer = keys.sdk(key).messages.create(model="claude-opus-5-5", max_tokens=50, messages=ASKED)
    assert answer.model == "claude-opus-5-5" and answer.id.startswith("msg_0")
    assert newest(keys)["agent_version"] != "model"


@pytest.mark.parametrize("stream", [False, True])
def test_same_idempotency_key_is_the_same_call(keys: Gateway, key: str, stream: bool) -> None:
    given = {"Idempotency-Key": str(uuid.uuid4())}
    body = {**HELLO, "stream": stream}
    asked, spent = len(keys.api.requests), keys.spent
    first = keys.post(key, body, **given)
    cost = keys.spent - spent
    again = keys.post(key, body, **given)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    assert again.headers["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first.headers
    assert len(keys.api.requests) == asked + 1 and keys.spent == spent + cost > spent
    assert keys.post(key, {**body, "max_tokens": 49}, **given).status_code == 400


def test_end_user_is_that_of_the_body(keys: Gateway, key: str) -> None:
    keys.post(key, {**HELLO, "metadata": {"user_id": "lin"}})
    asked = run_row(keys)["request"]
    assert asked["end_user"] == "lin" and keys.api.requests[-1].body["metadata"] == {"user_id": "lin"}
    keys.post(key, {**HELLO, "metadata": {"user_id": "x" * 65}})
    assert run_row(keys)["request"]["end_user"].startswith("sha256:")
    assert keys.api.requests[-1].body["metadata"] == {"user_id": "x" * 65}


def test_body_is_not_stored_but_for_the_last_words(keys: Gateway, key: str) -> None:
    turns = [{"role": "user", "content": "A first secret"}, {"role": "assistant", "content": "Well"}]
    blocks = [{"type": "text", "text": "And now?"}, {"type": "text", "text": 5}, {"type": "image"}]
    keys.post(
        key, {**HELLO, "system": "A second secret", "messages": [*turns, {"role": "user", "content": blocks}]}
    )
    assert run_row(keys)["request"]["messages"] == [{"role": "user", "content": "And now?"}]


def run_row(gateway: Gateway) -> Any:
    return max(gateway.rows(runs), key=lambda row: row["id"])


@pytest.mark.parametrize(
    ("change", "status", "kind"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"model": "claude-none-1"}, 404, "not_found_error"),
        ({"speed": "fast"}, 400, "invalid_request_error"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"max_tokens": 1_000_000_000}, 400, "invalid_request_error"),
    ],
)
def test_bad_request_is_refused_in_the_dialect(
    keys: Gateway, key: str, change: dict[str, Any], status: int, kind: str
) -> None:
    body = {name: value for name, value in {**HELLO, **change}.items() if value is not None}
    asked = len(keys.api.requests)
    answer = keys.post(key, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert len(keys.api.requests) == asked and keys.held == 0


@pytest.mark.parametrize("model", ["probe", MODEL])
def test_thread_is_refused_and_the_sdks_way_without_it_told(keys: Gateway, key: str, model: str) -> None:
    answer = keys.post(key, {**HELLO, "model": model, "thread": {"type": "create"}})
    assert answer.status_code == 400 and "`thread=False`" in answer.json()["error"]["message"]


def test_tokens_are_counted(keys: Gateway, key: str) -> None:
    sdk = keys.sdk(key)
    bare = sdk.messages.count_tokens(model=MODEL, messages=ASKED).input_tokens
    assert keys.api.counted[-1] == {"model": MODEL, "messages": ASKED}
    agents = sdk.messages.count_tokens(model="probe", messages=ASKED).input_tokens
    assert agents > bare > 0
    assert keys.api.counted[-1]["system"].endswith("\n\nBe good.")
    assert keys.held == 0


@pytest.mark.parametrize("stream", [False, True])
def test_failure_of_the_model_ends_the_run(keys: Gateway, key: str, stream: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(keys.api, "script", lambda asked: Said(status=400))
    answer = keys.post(key, {**HELLO, "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_rejected")
    assert "UPSTREAM" not in answer.text
    assert newest(keys)["status"] == "failed" and keys.held == 0


def test_cap_is_402_and_leaves_no_trace(keys: Gateway) -> None:
    user_id, capped = somebody_new(keys)
    keys.services.usage.budgets.put(f"user:{user_id}", "day", 1_000)
    with pytest.raises(anthropic.APIStatusError) as refused:
        keys.sdk(capped).messages.create(model=MODEL, max_tokens=20_000, messages=ASKED)
    assert (refused.value.status_code, refused.value.type) == (402, "billing_error")
    assert [row for row in keys.rows(runs) if row["user_id"] == user_id] == [] and keys.held == 0


def test_stopped_model_is_refused(keys: Gateway, key: str) -> None:
    stops, db = keys.services.runs.stops, keys.services.infra.db
    db.transact(lambda tx: stops.stop(tx, MODEL, "a test"))
    try:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = keys.post(key, HELLO, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (529, "agent_stopped"), path
    finally:
        stops.release(MODEL)
    assert keys.post(key).status_code == 200


def test_client_that_leaves_ends_its_run(keys: Gateway, key: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(keys.api, "script", lambda asked: says("word " * 200_000))
    body = {**HELLO, "stream": True, "max_tokens": 60_000}
    with httpx2.stream("POST", f"{keys.url}/v1/messages", json=body, headers={"x-api-key": key}) as answer:
        next(answer.iter_raw())
    wait_until(lambda: newest(keys)["status"] == "cancelled", "the run's end")
    assert keys.held == 0 and newest(keys)["usage"]["cost_usd"] != "0.000000"


def test_cancelled_run_stops_the_model(keys: Gateway, key: str, monkeypatch: Any) -> None:
    waits, go_on = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        waits.set()
        go_on.wait(20)
        return says("late")

    monkeypatch.setattr(keys.api, "script", slow)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(keys.post, key)
        assert waits.wait(10)
        run_id = newest(keys)["run_id"]
        httpx2.post(f"{keys.url}/v1/runs/{run_id}/cancel", headers={"x-api-key": key})
        answer = asked.result(20)
        go_on.set()
    assert answer.json()["error"]["code"] == "run_cancelled"
    assert newest(keys)["status"] == "cancelled" and keys.held == 0


def test_lost_worker_fails_the_run_and_asks_nobody_again(keys: Gateway, key: str, monkeypatch: Any) -> None:
    """As after `kill -9`: another worker takes the run up, settles its call at its worst, and ends it."""
    waits, go_on = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        waits.set()
        go_on.wait(20)
        return says("late")

    monkeypatch.setattr(keys.api, "script", slow)
    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(keys.post, key)
        assert waits.wait(10)
        asked, run_id, worst = (
            len(keys.api.requests),
            newest(keys)["run_id"],
            keys.rows(holds)[0]["amount_nano"],
        )
        db, spent = keys.services.infra.db, keys.spent
        assert db.transact(lambda tx: run_rows.abandon(tx, run_id, 1))
        assert keys.services.runs.execution.take_up(run_id)
        go_on.set()
        answer = given.result(20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "worker_lost")
    assert answer.headers["x-should-retry"] == "false"
    run = httpx2.get(f"{keys.url}/v1/runs/{run_id}", headers={"x-api-key": key}).json()
    assert (run["status"], run["error"]["code"]) == ("failed", "worker_lost")
    assert len(keys.api.requests) == asked and keys.held == 0 and keys.spent - spent == worst


def somebody_new(gateway: Gateway, *scopes: str) -> tuple[str, str]:
    """Return the id of a new user, and a key of theirs."""
    user_id = new_id("usr")
    row = {"id": user_id, "username": user_id, "password_hash": "", "role": "user", "created_at": now_ms()}
    gateway.services.infra.db.transact(lambda tx: users.insert(tx, row))
    return user_id, key_of(gateway, *scopes, user_id=user_id)
