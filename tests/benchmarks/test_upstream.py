"""The upstream speaks to the official SDK, and does what a prompt asks of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from benchmarks.shots import prompt
from benchmarks.upstream import Wish, wish_of
from tests.benchmarks.conftest import Upstream
from tests.conftest import wait_until


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    with anthropic.Anthropic(
        api_key="bench", base_url=upstream.url, max_retries=0, http_client=http
    ) as client:
        yield client


def asked(wish: Wish) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt(wish, 1)}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": messages}


def test_an_answer_as_json(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    message = claude.messages.create(**asked(Wish()))
    assert message.model == "claude-sonnet-5-5"
    assert message.stop_reason == "end_turn"
    assert message.content[0].type == "text" and "piece" in message.content[0].text
    assert message.usage.output_tokens == 100
    assert upstream.stats()["calls"] == upstream.stats()["finished"] == 1


def test_the_tool_of_the_clerk_is_called_once(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "file_note", "input_schema": {"type": "object"}}]
    called = claude.messages.create(**asked(Wish()), tools=tools)
    assert called.stop_reason == "tool_use"
    [use] = called.content
    assert use.type == "tool_use" and use.name == "file_note"
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "filed"}
    question = asked(Wish())
    question["messages"] += [
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    assert claude.messages.create(**question, tools=tools).stop_reason == "end_turn"


@pytest.mark.parametrize("every", [0, 1])
def test_a_stream_has_as_many_deltas_as_asked_for(claude: anthropic.Anthropic, every: int) -> None:
    with claude.messages.stream(**asked(Wish(deltas=37, every=every, first=5))) as stream:
        texts = list(stream.text_stream)
        last = stream.get_final_message()
    assert texts == [f"piece {n:04d} " for n in range(37)]
    assert last.stop_reason == "end_turn"
    assert last.usage.output_tokens == 100


def test_calls_on_one_connection(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    for stream in (True, False, True):
        answer = claude.messages.create(**asked(Wish(deltas=3)), stream=stream)
        if isinstance(answer, anthropic.Stream):
            assert [event.type for event in answer][-1] == "message_stop"
    assert upstream.stats()["calls"] == 3
    assert upstream.stats()["most_open"] == 2  # the SDK's one, and that of the question itself


def test_a_client_that_leaves_is_noticed(upstream: Upstream) -> None:
    request = upstream.shot(Wish(deltas=100, every=100), stream=True).request(1)
    with socket.create_connection(("127.0.0.1", upstream.port), 5) as client:
        client.sendall(request)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert upstream.stats()["left"] == []
    wait_until(lambda: len(upstream.stats()["left"]) == 1, "the note of the client that left")
    assert upstream.stats()["finished"] == 0


def test_other_paths_are_answered_too(upstream: Upstream) -> None:
    counted = httpx2.post(f"{upstream.url}/v1/messages/count_tokens", json={}, timeout=30, trust_env=False)
    assert counted.json() == {"input_tokens": 24}
    assert httpx2.get(f"{upstream.url}/v1/models?limit=1", timeout=30, trust_env=False).json()["data"] == []
    assert upstream.stats()["calls"] == 0


def test_a_marker() -> None:
    assert wish_of(b"no marker") == Wish()
    text = b"[bench wait=5 deltas=1] and later [bench wait=2000 deltas=100 every=20 first=300]"
    assert wish_of(text) == Wish(2000, 100, 20, 300)
    assert wish_of(prompt(Wish(1, 2, 3, 4), 9).encode()) == Wish(1, 2, 3, 4)
    assert wish_of(b"[bench wait=999999999 deltas=999999999]") == Wish(600_000, 1_000)
