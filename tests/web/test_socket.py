"""Conversations over a WebSocket, with a real Gunicorn: turns, their session, errors, cancelled and busy ones."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from service.ids import new_id
from tests.conftest import Model, Slipway, wait_until
from tests.web.sockets import LAST, QUICK, SLOW, Chat, bearer, chatting
from tests.web.test_doors import events_of


@pytest.fixture
def chat(client: httpx2.Client, slipway: Slipway) -> Iterator[Chat]:
    with chatting(slipway.url, bearer(client)) as opened:
        yield opened


def test_a_turn_tells_the_events_of_its_run(chat: Chat, client: httpx2.Client) -> None:
    chat.say(**QUICK)
    told = chat.until(*LAST)
    run_id = told[-1]["data"]["run_id"]
    kept = events_of(client.get(f"/v1/runs/{run_id}/events").text)
    assert [(event["id"], event["event"], event["data"]) for event in told] == kept
    assert told[0]["event"] == "run.started" and told[-1]["event"] == "run.completed"
    assert (
        "".join(event["data"]["text"] for event in told if event["event"] == "text.delta")
        == kept[-1][2]["output"]
    )
    assert kept[-1][2]["door"] == "socket"


def test_turns_follow_each_other_in_the_session_of_the_connection(chat: Chat, client: httpx2.Client) -> None:
    first, second = chat.ask(**QUICK)["data"], chat.ask(input="And when?", cache="bypass")["data"]
    assert first["session_id"] == second["session_id"] is not None
    session = client.get(f"/v1/sessions/{first['session_id']}").json()
    assert [each["content"] for each in session["messages"] if each["role"] == "user"] == [
        QUICK["input"],
        "And when?",
    ]


def test_a_turn_may_stand_alone_or_name_its_session(chat: Chat, client: httpx2.Client) -> None:
    session_id = client.post("/v1/sessions", json={"agent": "assistant"}).json()["id"]
    assert chat.ask(**QUICK, session_id=None)["data"]["session_id"] is None
    assert chat.ask(**QUICK, session_id=session_id)["data"]["session_id"] == session_id
    assert chat.ask(**QUICK)["data"]["session_id"] not in (None, session_id)


def test_a_session_that_was_deleted_is_followed_by_another(chat: Chat, client: httpx2.Client) -> None:
    first = chat.ask(**QUICK)["data"]["session_id"]
    assert client.delete(f"/v1/sessions/{first}").status_code == 204
    assert chat.ask(**QUICK)["data"]["code"] == "not_found"
    assert chat.ask(**QUICK)["data"]["session_id"] not in (None, first)


def test_a_bad_message_is_told_and_the_connection_goes_on(chat: Chat) -> None:
    bad = {
        "{": ("invalid_json", None),
        '"text"': ("invalid", ""),
        "{}": ("invalid", ""),
        '{"input": ""}': ("invalid", "/input"),
        '{"input": "Hello", "colour": "red"}': ("invalid", "/colour"),
        '{"type": "stop"}': ("invalid", "/type"),
        '{"input": "Hello", "idempotency_key": 7}': ("invalid", "/idempotency_key"),
        '{"input": "Hello", "session_id": "ses_' + "0" * 26 + '"}': ("not_found", None),
        '{"type": "cancel"}': ("run_finished", None),
    }
    for message, (code, pointer) in bad.items():
        chat.socket.send(message)
        told = chat.next()
        assert told["event"] == "error" and told["data"]["code"] == code, message
        assert [fault["pointer"] for fault in told["data"].get("errors", [])] == (
            [] if pointer is None else [pointer]
        )
        assert told["data"]["instance"].endswith("/chat") and told["data"]["request_id"]
    assert chat.ask(**QUICK)["event"] == "run.completed"


def test_a_turn_is_cancelled_in_its_midst(chat: Chat, client: httpx2.Client, model: Model) -> None:
    chat.say(**SLOW)
    chat.until("text.delta")
    chat.say(type="cancel")
    ended = chat.until(*LAST)[-1]
    assert ended["event"] == "run.cancelled" and ended["data"]["output"]
    assert client.get(f"/v1/runs/{ended['data']['run_id']}").json()["status"] == "cancelled"
    assert chat.ask(**QUICK)["event"] == "run.completed"


def test_a_second_turn_is_refused_waits_or_interrupts(chat: Chat) -> None:
    chat.say(**SLOW)
    chat.until("text.delta")
    chat.say(**QUICK)
    refused = chat.until("error")[-1]["data"]
    assert (refused["code"], refused["status"]) == ("session_busy", 409)
    chat.say(**QUICK, on_conflict="queue")  # waits for what the next one cancels
    chat.say(type="cancel")
    assert chat.until(*LAST)[-1]["event"] == "run.cancelled"
    assert chat.until(*LAST)[-1]["event"] == "run.completed"
    chat.say(**SLOW)
    chat.until("text.delta")
    chat.say(**QUICK, on_conflict="interrupt")
    assert chat.until(*LAST)[-1]["event"] == "run.cancelled"
    assert chat.until(*LAST)[-1]["event"] == "run.completed"


def test_a_turn_sent_again_by_its_key_is_the_same_run(
    chat: Chat, client: httpx2.Client, slipway: Slipway
) -> None:
    key = new_id("run")
    first = chat.ask(**QUICK, idempotency_key=key)["data"]
    with chatting(slipway.url, bearer(client)) as again:
        assert again.ask(**QUICK, idempotency_key=key)["data"]["run_id"] == first["run_id"]
        assert again.ask(input="Another", idempotency_key=key)["data"]["code"] == "idempotency_mismatch"
        assert again.ask(**QUICK)["data"]["run_id"] != first["run_id"]


def test_a_run_goes_on_when_its_client_leaves_or_ends_as_it_asked(
    client: httpx2.Client, slipway: Slipway
) -> None:
    for wish, status in (("continue", "running"), ("cancel", "cancelled")):
        with chatting(slipway.url, bearer(client)) as leaver:
            leaver.say(**SLOW, on_disconnect=wish)
            run_id = leaver.until("text.delta")[0]["data"]["run_id"]
        wait_until(lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == status, "its status", 20)  # noqa: B023
        client.post(f"/v1/runs/{run_id}/cancel")


def test_a_turn_that_was_sent_before_the_end_is_executed(client: httpx2.Client, slipway: Slipway) -> None:
    question = f"Are you there, {new_id('run')}?"
    with chatting(slipway.url, bearer(client)) as leaver:
        leaver.say(input=question, cache="bypass")

    def ended() -> bool:
        runs = client.get("/v1/runs?status=succeeded").json()["data"]
        return question in {run["input"] for run in runs}

    wait_until(ended, "the run", 20)


def test_long_messages_pass_whole_and_in_fragments(chat: Chat) -> None:
    for size in (126, 65_536, 390_000):
        assert chat.ask(input="x" * size, cache="bypass", session_id=None)["event"] in (
            "run.completed",
            "run.failed",
        )
    parts = ['{"input": "Grü', "ße, in drei", ' Teilen?", "cache": "bypass"}']
    chat.socket.send(iter(parts))
    assert chat.until(*LAST)[-1]["data"]["input"] == "Grüße, in drei Teilen?"
