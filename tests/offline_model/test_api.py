"""The shapes: messages, events, errors, models, tokens, prompt cache, batches, counters."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anthropic
import pytest

ROOT = Path(__file__).resolve().parents[2]
HI = [{"role": "user", "content": "hi"}]


def test_message(offline: Any) -> None:
    raw = offline.client.messages.with_raw_response.create(
        model="claude-sonnet-5-5", max_tokens=99, messages=HI
    )
    message = raw.parse()
    assert message.model == "offline-claude-sonnet-5-5"
    assert message.stop_reason == "end_turn" and message.usage.output_tokens > 1
    assert message.usage.cache_creation.ephemeral_5m_input_tokens == 0
    assert raw.headers["request-id"] and "anthropic-ratelimit-tokens-remaining" in raw.headers
    assert offline.ask("hi", model="offline-x").model == "offline-x"


def test_stream_says_what_json_says(offline: Any) -> None:
    whole = offline.ask("hi").to_dict()
    events = list(offline.ask("hi", stream=True))
    assert [e.type for e in events[:2]] == ["message_start", "content_block_start"]
    assert [e.type for e in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(e.delta.text for e in events if e.type == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].usage.output_tokens == whole["usage"]["output_tokens"]


def test_max_tokens_and_stop_sequences(offline: Any) -> None:
    cut = offline.ask("hi", max_tokens=3)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)
    stopped = offline.ask("hi", stop_sequences=["offline"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "offline")
    assert "offline" not in stopped.content[0].text


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"top_p": 1},
        {"top_k": 5},
        {"messages": []},
        {"messages": [*HI, {"role": "assistant", "content": "The answer is"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}
            ]
        },
        {"messages": [{"role": "user", "content": ""}]},
        {"max_tokens": -1},
        {"max_tokens": 10_000_000},
        {"max_tokens": "many"},
        {"surprise": 1},
        {"tools": [{"name": "a b", "input_schema": {"type": "object"}}]},
        {"tool_choice": {"type": "tool", "name": "nobody"}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"thinking": {"type": "later"}},
        {"metadata": {"user_id": 5}},
        {"messages": [{"role": [], "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": []}]}]},
        {"tools": [{"name": "t", "input_schema": {"type": "object", "properties": 1}}]},
    ],
    ids=lambda change: f"{next(iter(change))}-{str(next(iter(change.values())))[:12]}",
)
def test_what_the_api_refuses(offline: Any, change: dict[str, Any]) -> None:
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": HI} | change
    answer = offline.raw.post("/v1/messages", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("missing", ["model", "max_tokens", "messages"])
def test_missing_fields(offline: Any, missing: str) -> None:
    body = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": HI}
    del body[missing]
    assert (
        f"{missing}: Field required" in offline.raw.post("/v1/messages", json=body).json()["error"]["message"]
    )


def test_other_refusals(offline: Any) -> None:
    post = offline.raw.post
    assert post("/v1/messages", content=b"{no").status_code == 400
    assert post("/v1/messages", content=b" " * (32 * 1024 * 1024 + 1)).status_code == 413
    assert post("/v1/nothing", json={}).status_code == 404
    assert post("/v1/models", json={}).status_code == 405
    assert post("/v1/messages", json={}, headers={"x-api-key": ""}).status_code == 401
    with pytest.raises(anthropic.NotFoundError):
        offline.ask("hi", model="gpt-4")


def test_count_tokens_agrees_with_usage(offline: Any) -> None:
    tools = [{"name": "t", "input_schema": {"type": "object", "properties": {}}}]
    said = {"model": "claude-sonnet-5", "messages": HI, "system": "Be kind.", "tools": tools}
    counted = offline.client.messages.count_tokens(**said)
    assert counted.input_tokens == offline.client.messages.create(**said, max_tokens=9).usage.input_tokens


def test_models(offline: Any) -> None:
    active = list(offline.client.models.list(lifecycle=["active"], limit=3))
    assert len(active) > 3 and all(m.lifecycle == "active" for m in active)
    one = offline.client.models.retrieve("claude-opus-5-5")
    assert one.max_input_tokens and one.max_tokens and one.capabilities.structured_outputs.supported
    retired = next(iter(offline.client.models.list(lifecycle=["retired"])))
    with pytest.raises(anthropic.NotFoundError), pytest.warns(DeprecationWarning):
        offline.ask("hi", model=retired.id)


def test_prompt_cache(offline: Any) -> None:
    long = f"{time.time_ns()} " + "Slipway keeps its promises. " * 30
    system = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    first, second = (offline.ask("hi", system=system).usage for _ in range(2))
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 100
    assert first.cache_creation.ephemeral_1h_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0 == first.cache_read_input_tokens
    other = offline.ask("hi", system=system, model="claude-opus-5").usage
    assert other.cache_read_input_tokens == 0
    total = offline.client.messages.count_tokens(
        model="claude-sonnet-5", messages=HI, system=long
    ).input_tokens
    assert first.input_tokens + first.cache_creation_input_tokens == total


def test_the_clock_of_the_prompt_cache_can_be_put_forward(offline: Any) -> None:
    long = f"{time.time_ns()} " + "Slipway keeps its promises. " * 30
    system = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}]
    offline.ask("hi", system=system)
    for passed, read in ((200, True), (200, True), (301, False)):  # reading renews it
        assert offline.raw.post("/clock", json={"forward": passed}).json() == {"forward": passed}
        assert (offline.ask("hi", system=system).usage.cache_read_input_tokens > 0) == read, passed
    for wrong in ({}, {"forward": -1}, {"forward": "an hour"}, {"forward": True}):
        assert offline.raw.post("/clock", json=wrong).status_code == 400, wrong


def test_automatic_cache_follows_the_conversation(offline: Any) -> None:
    talk = [{"role": "user", "content": f"{time.time_ns()} " + "a long story about a harbour. " * 10}]
    auto = {"cache_control": {"type": "ephemeral"}}
    first = offline.ask(talk, **auto)
    talk += [
        {"role": "assistant", "content": first.content[0].text},
        {"role": "user", "content": "and then?"},
    ]
    second = offline.ask(talk, **auto).usage
    assert second.cache_read_input_tokens == first.usage.cache_creation_input_tokens > 0
    assert second.cache_creation_input_tokens > 0


def test_batches(offline: Any) -> None:
    good = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": HI}
    requests = [{"custom_id": "a", "params": good}, {"custom_id": "b", "params": good | {"max_tokens": -1}}]
    batches = offline.client.messages.batches
    batch = batches.create(requests=requests)
    assert batch.processing_status == "in_progress" and batch.request_counts.processing == 2
    while batch.processing_status != "ended":
        time.sleep(0.02)
        batch = batches.retrieve(batch.id)
    rows = {row.custom_id: row.result for row in batches.results(batch.id)}
    assert rows["a"].message.usage.service_tier == "batch"
    assert rows["b"].error.error.type == "invalid_request_error"
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)
    assert batch.id in [b.id for b in batches.list()]
    assert offline.stats()["batch_calls"] == 2
    assert batches.delete(batch.id).type == "message_batch_deleted"


def test_batch_cancelled(offline: Any) -> None:
    good = {"model": "claude-haiku-5-5", "max_tokens": 50, "messages": HI}
    batches = offline.client.messages.batches
    batch = batches.cancel(batches.create(requests=[{"custom_id": "a", "params": good}]).id)
    assert batch.processing_status == "canceling"
    while batch.processing_status != "ended":
        time.sleep(0.02)
        batch = batches.retrieve(batch.id)
    assert [row.result.type for row in batches.results(batch.id)] == ["canceled"]


def test_stats(offline: Any) -> None:
    usage = offline.ask("hi", metadata={"user_id": "u1"}).usage
    list(offline.ask("hi", stream=True, model="claude-opus-5"))
    stats = offline.stats()
    assert stats["calls"] == 2 and stats["in_flight"] == 0
    assert stats["models"]["claude-sonnet-5"]["output_tokens"] == usage.output_tokens
    assert stats["output_tokens"] == 2 * usage.output_tokens
    assert [(c["user_id"], c["stream"], c["outcome"]) for c in stats["last_calls"]] == [
        ("u1", False, "ok"),
        (None, True, "ok"),
    ]
    assert offline.raw.post("/stats/reset").json()["calls"] == 0


def test_one_connection_serves_many_and_in_order(offline: Any) -> None:
    host, port = offline.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(
            b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        said = b""
        while piece := line.recv(65536):
            said += piece
    assert said.index(b"200 OK") < said.index(b"404 Not Found")


def test_sigterm_and_port_file(start: Any, tmp_path: Path) -> None:
    one = start("--port-file", str(tmp_path / "port"))
    assert one.url.endswith(":" + (tmp_path / "port").read_text())
    os.kill(one.pid, signal.SIGTERM)
    assert os.waitpid(one.pid, 0)[1] == 0


@pytest.mark.parametrize("option", ["--die-with-parent", "--parent-pid"])
def test_dies_with_its_parent(option: str) -> None:
    """A parent that starts one, prints its pid and is killed."""
    code = (
        "import os, subprocess, sys\n"
        f"extra = [{option!r}] + ([str(os.getpid())] if {option!r} == '--parent-pid' else [])\n"
        "p = subprocess.Popen([sys.executable, '-m', 'offline_model', '--port', '0', *extra], stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < end, "it outlived its parent"
        time.sleep(0.05)
