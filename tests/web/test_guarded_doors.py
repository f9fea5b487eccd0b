"""Guardrails behind every door: no part of a secret in any byte that leaves, however the model cuts its text."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import RedisServer, Slipway, redis_in, slipway_server, wait_until
from tests.jobs.house import Receiver, TaskWorker
from tests.llm.wire_server import Exchange, end, start, text_events
from tests.runs import scripted
from tests.runs.scripted import call, calls, message, says
from tests.web.sockets import LAST, bearer, chatting

# In the result of a tool, in a call, and in the answer. Each part that would tell something has a pattern below.
SECRETS = (
    "grace.hopper@navy.example, phone +49 30 901820115, card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, "
    "host 203.0.113.77, SSN 536-90-4399, born on 9 December 1906, token ghp_1234567890abcdefghijABCDEFGHIJ123456"
)
PARTS = re.compile(  # short runs of digits are in times and ids too
    r"grace|hopper|navy|30 9018|9018201|1820115|4111 ?1111|1111 1111|DE89|3704 0044|0532 0130|203\.0\.113|113\.77|"
    r"536-90|90-4399|December 1906|ghp_|abcdefghij"
)
AGENT = """description: Knows everybody.
pattern: react
tier: {default: simple, ask: false}
tools: [look_up, note]
limits: {steps: 4, seconds: 30}
guardrails:
  output: {personal_data: redact, secret: redact}
"""
TOOLS = f'''
from service.tools import tool


@tool(idempotent=True, risk="read", trusted=True)
def look_up(who: str) -> str:
    """Look a person up."""
    return "{SECRETS}"


@tool(idempotent=True, risk="read", trusted=True)
def note(text: str) -> str:
    """Note something down."""
    return "Noted: " + text
'''
ANSWER = f"She is: {SECRETS}. That is all."
ASKED = "Who is she?"
KEEP = "keep"  # a tool of the client, which the model gives all it has read
PROMPT = "Be good."


def _has_results(body: dict[str, Any]) -> bool:
    content = body["messages"][-1]["content"]
    return not isinstance(content, str) and any(block["type"] == "tool_result" for block in content)


def _prompt_of(body: dict[str, Any]) -> str:
    system = body["system"]
    return system if isinstance(system, str) else str(system[0]["text"])


def answers(exchange: Exchange) -> None:
    """Answer as a model that tells all it reads, its text cut anywhere."""
    body = exchange.json
    if KEEP in [tool["name"] for tool in body.get("tools", ())]:
        use = call(KEEP, {"text": f"Sure: {SECRETS}. {_prompt_of(body)}"})
        return (streams if body.get("stream") else calls)(says("I keep it."), use)(exchange)
    if not _has_results(body):
        uses = (call("look_up", {"who": "her"}), call("note", {"text": SECRETS}, "toolu_2"))
        blocks = (says(f"I look up {SECRETS}."), *uses)
        return (streams if body.get("stream") else calls)(*blocks)(exchange)
    cuts = sorted(random.sample(range(1, len(ANSWER)), 30))
    pieces = [ANSWER[a:b] for a, b in zip([0, *cuts], [*cuts, len(ANSWER)], strict=True)]
    if body.get("stream"):
        return scripted.stream_of(*pieces)(exchange)
    return message(says(ANSWER))(exchange)


def streams(*blocks: dict[str, Any]) -> Callable[[Exchange], None]:
    """A handler: text letter by letter, and tool calls."""
    events = [start()]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            events += text_events(*block["text"], index=index)
        else:
            begun = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            events += [
                {"type": "content_block_start", "index": index, "content_block": begun},
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
    return scripted.streamed([*events, *end("tool_use")])


@pytest.fixture(scope="module")
def redis_server(scratch: Path) -> Iterator[RedisServer]:
    """Redis of this file alone, which is read as a whole."""
    with redis_in(scratch / "guarded-redis") as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Slipway]:
    home = tmp_path_factory.mktemp("guarded")
    folder = home / "agents" / "knows"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(AGENT)
    (folder / "prompt.md").write_text(PROMPT)
    (folder / "tools.py").write_text(TOOLS)
    upstream = scripted.Upstream(answers)
    settings = {"AGENTS_DIR": str(home / "agents"), "WEBHOOK_ALLOW_PRIVATE": "true", "WEB_CONCURRENCY": "1"}
    try:
        with slipway_server(home, redis_server.url, upstream.url, **settings) as server:
            yield server
    finally:
        upstream.stop()


@pytest.fixture
def caller(guarded: Slipway) -> Iterator[httpx2.Client]:
    with guarded.shared_client() as signed_in:
        yield signed_in


def whole_of(answer: httpx2.Response) -> str:
    assert answer.status_code in (200, 202), answer.text
    return f"{answer.headers}{answer.text}"


def post(path: str, body: dict[str, Any], **headers: str) -> Callable[[httpx2.Client], str]:
    return lambda client: whole_of(client.post(path, json=body, headers=headers))


def told_over_a_socket(client: httpx2.Client) -> str:
    with chatting(str(client.base_url).rstrip("/"), bearer(client), "knows") as chat:
        chat.say(input=ASKED, cache="bypass")
        return str(chat.until(*LAST))


NATIVE = {"input": ASKED, "cache": "bypass"}
SAID = {"model": "knows", "messages": [{"role": "user", "content": ASKED}]}
DOORS: dict[str, Callable[[httpx2.Client], str]] = {
    "invoke": post("/v1/agents/knows/invoke", NATIVE),
    "stream": post("/v1/agents/knows/stream", NATIVE),
    "socket": told_over_a_socket,
    "messages": post("/v1/messages", {**SAID, "max_tokens": 500}),
    "messages stream": post("/v1/messages", {**SAID, "max_tokens": 500, "stream": True}),
    "chat": post("/v1/chat/completions", SAID),
    "chat stream": post("/v1/chat/completions", {**SAID, "stream": True}),
    "responses": post("/v1/responses", {"model": "knows", "input": ASKED}),
    "responses stream": post("/v1/responses", {"model": "knows", "input": ASKED, "stream": True}),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_tells_a_part_of_a_secret(caller: httpx2.Client, door: str) -> None:
    told = DOORS[door](caller)
    assert "She is: [EMAIL_" in told.replace("\\", "") or re.search(
        r"She .*is: .*\[EMAIL_", told, re.DOTALL
    ), told
    assert not PARTS.search(told), PARTS.findall(told)


SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOL = {"name": KEEP, "description": "Keep a text."}
WITH_TOOL: dict[str, dict[str, Any]] = {
    "/v1/messages": {**SAID, "max_tokens": 500, "tools": [{**TOOL, "input_schema": SCHEMA}]},
    "/v1/chat/completions": {
        **SAID,
        "tools": [{"type": "function", "function": {**TOOL, "parameters": SCHEMA}}],
    },
    "/v1/responses": {
        "model": "knows",
        "input": ASKED,
        "tools": [{"type": "function", **TOOL, "parameters": SCHEMA}],
    },
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("path", WITH_TOOL)
def test_call_of_the_clients_tool_tells_neither_prompt_nor_secret(
    caller: httpx2.Client, path: str, *, streaming: bool
) -> None:
    told = post(path, {**WITH_TOOL[path], "stream": streaming})(caller)
    assert "[system prompt removed]" in told and KEEP in told
    assert PROMPT not in told and not PARTS.search(told), PARTS.findall(told)


def test_task_and_its_webhook_tell_none_either(caller: httpx2.Client, guarded: Slipway) -> None:
    log = guarded.log.with_name("worker.log")
    with closing(Receiver()) as receiver, TaskWorker(guarded.env, log).running():
        body = {"input": ASKED, "callback_url": receiver.url}
        run_id = caller.post("/v1/agents/knows/tasks", json=body).json()["run_id"]
        wait_until(lambda: receiver.of(run_id), 60)
    told = str([each.body for each in receiver.deliveries]) + caller.get(f"/v1/runs/{run_id}/events").text
    told += log.read_text(errors="replace")
    assert "She is: [EMAIL_" in told and not PARTS.search(told), PARTS.findall(told)


def test_nor_do_lists_sessions_redis_and_logs(
    caller: httpx2.Client, guarded: Slipway, redis_server: RedisServer
) -> None:
    session = caller.post("/v1/sessions", json={"agent": "knows"}).json()["id"]
    for door in ("invoke", "stream"):
        caller.post(f"/v1/agents/knows/{door}", json={"input": ASKED, "session_id": session})
    run_id = caller.get("/v1/runs?limit=1").json()["data"][0]["run_id"]
    paths = (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events", f"/v1/sessions/{session}")
    told = [
        caller.get(path).text for path in (*paths, "/v1/runs", f"/v1/sessions/{session}/export", "/metrics")
    ]
    told.append(caller.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).text)
    told += [dump_of(redis_server), guarded.log.read_text(errors="replace")]
    told.append(caller.get("/v1/admin/audit?action=guardrail").text)
    for text in told:
        assert not PARTS.search(text), (PARTS.findall(text), text[:300])
    assert 'slipway_guardrail_total{action="redact",kind="email",where="output"}' in "".join(told)


def test_refusals_have_the_shape_of_each_dialect(caller: httpx2.Client, guarded: Slipway) -> None:
    caller.patch("/v1/admin/workspaces/wsp_" + "0" * 26, json={"guardrails": {"input": {"email": "refuse"}}})
    time.sleep(2.1)  # that a process uses the guardrails that it has read
    asked = "Write to ada@engine.example."
    said = {**SAID, "messages": [{"role": "user", "content": asked}]}
    try:
        bodies = {
            "/v1/agents/knows/invoke": {"input": asked},
            "/v1/agents/knows/stream": {"input": asked},
            "/v1/messages": {**said, "max_tokens": 100},
            "/v1/chat/completions": {**said, "stream": True},
            "/v1/responses": {"model": "knows", "input": asked},
        }
        for path, body in bodies.items():
            answer = caller.post(path, json=body)
            assert (answer.status_code // 100, "engine" in answer.text) == (4, False), (path, answer.text)
            assert "guardrail_refused" in answer.text, answer.text
            if path.startswith("/v1/agents"):
                assert answer.status_code == 422
            else:
                assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    finally:
        caller.patch("/v1/admin/workspaces/wsp_" + "0" * 26, json={"guardrails": {}})


def dump_of(server: RedisServer) -> str:
    """Return everything in Redis, as text."""
    with redis.Redis.from_url(server.url) as client:
        return str([_value(client, key) for key in client.scan_iter()])


def _value(client: Any, key: bytes) -> object:
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"stream": client.xrange,
        b"set": client.smembers,
        b"list": lambda name: client.lrange(name, 0, -1),
        b"zset": lambda name: client.zrange(name, 0, -1),
    }
    kind = client.type(key)
    return key, read[kind](key) if kind in read else None
