"""Every fault, through every door it can be asked for, as the SDK sees it."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest

from tests.conftest import wait_until

STATUSES = {
    "400": anthropic.BadRequestError,
    "401": anthropic.AuthenticationError,
    "429": anthropic.RateLimitError,
    "500": anthropic.InternalServerError,
    "503": anthropic.InternalServerError,
    "529": anthropic.InternalServerError,
}


def collect(offline: Any, fault: str, question: str = "hello there") -> list[Any]:
    """The events of a stream that may break; they are kept for the caller in `offline.seen`."""
    offline.seen = []
    header = {"x-offline-fault": fault}
    for event in offline.ask(question, stream=True, extra_headers=header):
        offline.seen.append(event)
    return offline.seen


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", STATUSES)
def test_status_faults(offline: Any, fault: str, stream: bool) -> None:
    with pytest.raises(STATUSES[fault]) as caught:
        offline.ask("hi", stream=stream, extra_headers={"x-offline-fault": fault})
    assert caught.value.status_code == int(fault)
    assert caught.value.request_id
    assert caught.value.body["request_id"] == caught.value.request_id
    assert (caught.value.response.headers.get("retry-after") == "1") == (fault == "429")
    assert offline.stats()["outcomes"] == {f"error:{fault}": 1}


def test_overloaded_has_its_type(offline: Any) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        offline.ask("hi [offline fault=529 retry_after=7]")
    assert caught.value.type == "overloaded_error"
    assert caught.value.response.headers["retry-after"] == "7"


def test_drop_in_a_stream(offline: Any) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        collect(offline, "drop")
    kinds = [event.type for event in offline.seen]
    assert "content_block_delta" in kinds and "message_stop" not in kinds


def test_drop_in_json(offline: Any) -> None:
    with pytest.raises((anthropic.APIConnectionError, httpx2.RemoteProtocolError)):
        offline.ask("hi", extra_headers={"x-offline-fault": "drop"})


@pytest.mark.parametrize("stream", [False, True])
def test_drop_first(offline: Any, stream: bool) -> None:
    with pytest.raises(anthropic.APIConnectionError):
        offline.ask("hi", stream=stream, extra_headers={"x-offline-fault": "drop_first"})


def test_hang_is_ended_by_the_client_and_noticed(offline: Any) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        offline.ask("hi", timeout=0.3, extra_headers={"x-offline-fault": "hang"})
    wait_until(lambda: offline.stats()["closed_early"] == 1, "what was done")
    assert offline.stats()["in_flight"] == 0


def test_slow_first_token(offline: Any) -> None:
    with pytest.raises(anthropic.APITimeoutError):
        offline.ask("hi", timeout=0.5, extra_headers={"x-offline-fault": "slow"})


def test_garbage(offline: Any) -> None:
    with pytest.raises((json.JSONDecodeError, anthropic.APIError)):
        offline.ask("hi", extra_headers={"x-offline-fault": "garbage"})
    with pytest.raises((json.JSONDecodeError, anthropic.APIError)):
        collect(offline, "garbage")
    assert offline.seen[0].type == "message_start"


def test_error_event(offline: Any) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        collect(offline, "error_event")
    assert caught.value.type == "overloaded_error" and caught.value.status_code == 200
    assert any(event.type == "content_block_delta" for event in offline.seen)
    with pytest.raises(anthropic.InternalServerError):
        offline.ask("hi", extra_headers={"x-offline-fault": "error_event"})


def test_no_stop(offline: Any) -> None:
    kinds = [event.type for event in collect(offline, "no_stop")]
    assert kinds[-1] == "content_block_stop"
    assert offline.ask("hi", extra_headers={"x-offline-fault": "no_stop"}).stop_reason is None


def test_marker_times_counts_per_request(offline: Any) -> None:
    for question in ("one [offline fault=503 times=2]", "two [offline fault=503 times=2]"):
        for _ in range(2):
            with pytest.raises(anthropic.InternalServerError):
                offline.ask(question)
        assert "[offline" not in offline.text(question)


def test_control_times_and_model(offline: Any) -> None:
    offline.control(fault="529", times=1, retry_after=3, model="claude-opus-5")
    assert offline.ask("hi").stop_reason == "end_turn"
    with pytest.raises(anthropic.InternalServerError):
        offline.ask("hi", model="claude-opus-5")
    assert offline.ask("hi", model="claude-opus-5").stop_reason == "end_turn"
    assert offline.raw.get("/control").json()["set"]["fault"] is None


def test_header_beats_marker_beats_control(offline: Any) -> None:
    offline.control(fault="500")
    with pytest.raises(anthropic.RateLimitError):
        offline.ask("hi [offline fault=429]")
    with pytest.raises(anthropic.BadRequestError):
        offline.ask("hi [offline fault=429]", extra_headers={"x-offline-fault": "400"})
    assert offline.ask("hi", extra_headers={"x-offline-fault": "none"}).stop_reason


@pytest.mark.parametrize("text", ["[offline fault=530]", "[offline speed=1]", "[offline token_ms=x]"])
def test_a_typo_is_an_error(offline: Any, text: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match="offline model"):
        offline.ask(f"hi {text}")


def test_fault_at_start(start: Any) -> None:
    with pytest.raises(anthropic.InternalServerError):
        start("--fault", "503").ask("hi")


@pytest.mark.parametrize("stream", [False, True])
def test_closed_connection_is_noticed_during_a_pause(offline: Any, stream: bool) -> None:
    """The next token is a minute away, so only the closing itself can be what is noticed."""
    if stream:
        events = offline.ask("hi", stream=True, extra_headers={"x-offline-token-ms": "60000"})
        for event in events:
            if event.type == "content_block_delta":
                break
        assert offline.stats()["in_flight"] == 1
        events.close()
    else:
        with pytest.raises(anthropic.APITimeoutError):
            offline.ask("hi", timeout=0.3, extra_headers={"x-offline-first-token-ms": "60000"})
    wait_until(lambda: offline.stats()["closed_early"] == 1, "what was done")
    call = offline.stats()["last_calls"][-1]
    assert call["outcome"] == "closed_early" and call["stream"] is stream
    assert call["usage"]["output_tokens"] == (1 if stream else 0)


def test_exact_number_of_deltas(offline: Any) -> None:
    events = list(offline.ask("hi", stream=True, extra_headers={"x-offline-tokens": "123"}))
    deltas = [e for e in events if e.type == "content_block_delta"]
    assert len(deltas) == 123
    assert events[-2].usage.output_tokens == 123
