"""Models under the guardrails of a workspace: with a key and with the token of a run, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from service.guardrails import effort
from service.store.schema import audit, gateway_calls, steps
from service.types import Caller
from tests.conftest import RedisServer, wait_until
from tests.gateway import house, responses_upstream
from tests.gateway.house import HELLO, Gateway
from tests.gateway.responses_upstream import events as response_events
from tests.gateway.upstream import COMPLETION, MODEL, PARTS, part, streamed
from tests.guardrails.relayed import MAIL, events_of
from tests.llm.wire_server import MESSAGE, Exchange, WireServer, start, stream, whole

OWN = "bob.miller@example.org"  # that the caller sends
RAILS: dict[str, dict[str, Any]] = {
    "none": {},
    "redact": {"input": {"email": "redact"}, "output": {"email": "redact"}},
    "mask": {"input": {"email": "mask"}},
    "refuse in": {"input": {"email": "refuse"}},
    "mask out": {"output": {"email": "mask"}},
    "judge": {"judge": {"input": "Anything about weapons."}},
    "mild judge": {"judge": {"input": "Anything about weapons.", "on_error": "allow"}},
    "refuse out": {"output": {"email": "refuse"}},
}
ASKED = [{"role": "user", "content": f"I am {OWN}."}]
BODY = {**HELLO, "messages": ASKED}
CHAT = {"model": MODEL, "max_completion_tokens": 50, "messages": ASKED}
RESPONSES = {"model": MODEL, "max_output_tokens": 50, "input": f"I am {OWN}."}
BODIES = {"messages": BODY, "chat": CHAT, "responses": RESPONSES}
PATHS = {"messages": "/v1/messages", "chat": "/v1/chat/completions", "responses": "/v1/responses"}
SAID = f"Hello [EMAIL_1], write to {MAIL}."
TOLD = f"Hello {OWN}, write to [EMAIL]."
_HTTP = httpx2.Client(timeout=30)


@dataclass
class Guarded:
    """A gateway with workspaces under guardrails, before models that say what a test tells them to."""

    gateway: Gateway
    claude: WireServer
    upstream: WireServer
    callers: dict[str, Caller] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, rails: dict[str, Any]) -> None:
        services = self.gateway.services
        auth = services.auth
        row = auth.workspaces.new_row(name.replace(" ", "-"))
        services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
        if rails:
            auth.workspaces.change(row["id"], guardrails=rails)
        user = auth.users.create(f"u-{row['name']}", "long-enough-1", workspace_id=row["id"])
        self.callers[name] = Caller(user.id, user.username, "user", workspace_id=row["id"])
        self.keys[name] = auth.keys.create(user.id, "k", ())["key"]

    def credential(self, name: str, kind: str) -> str:
        if kind == "key":
            return self.keys[name]
        return self.gateway.token(self.gateway.run(self.callers[name]))

    def post(self, name: str, dialect: str, kind: str = "key", **changes: Any) -> httpx2.Response:
        return self.gateway.post(self.credential(name, kind), {**BODIES[dialect], **changes}, PATHS[dialect])

    def asked(self, dialect: str) -> str:
        server = self.claude if dialect == "messages" else self.upstream
        return json.dumps(server.requests[-1].json)

    @property
    def calls(self) -> int:
        return len(self.claude.requests) + len(self.upstream.requests)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Guarded]:
    claude, upstream = WireServer(whole(MESSAGE)), WireServer(whole(COMPLETION))
    settings = {
        "anthropic_base_url": claude.url,
        "openai_base_url": f"{upstream.url}/v1",
        "openai_api_key": "sk-upstream",
        "model_retries": 0,
        "breaker_failures": 1_000,
    }
    with house.gateway(tmp_path_factory.mktemp("guarded"), redis_server.url, **settings) as made:
        guarded = Guarded(made, claude, upstream)
        for name, rails in RAILS.items():
            guarded.add(name, rails)
        yield guarded
    claude.stop()
    upstream.stop()


@pytest.fixture
def guarded(running: Guarded) -> Guarded:
    """The models say `SAID`, and call a tool for its two addresses."""
    arguments = {"to": ["[EMAIL_1]", MAIL]}
    call = {"type": "tool_use", "id": "toolu_1", "name": "send", "input": arguments}
    content = [{"type": "text", "text": SAID}, call]
    answer = {**MESSAGE, "content": content, "stop_reason": "tool_use"}
    events = events_of([("text", SAID), ("tool_use", json.dumps(arguments))], 5)
    events[0] = start()
    running.claude.otherwise = lambda one: (stream(events) if one.json.get("stream") else whole(answer))(one)
    function = {"name": "send", "arguments": json.dumps(arguments)}
    message = {
        "role": "assistant",
        "content": SAID,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    completion = {**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    named = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "send", "arguments": ""}}
    parts = [PARTS[0], part({"tool_calls": [named]})]
    parts[0] = part({"role": "assistant", "content": ""})
    parts[1:1] = [part({"content": piece}) for piece in (SAID[:10], SAID[10:30], SAID[30:])]
    parts += [
        part({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        for piece in (function["arguments"][:20], function["arguments"][20:])
    ]
    parts.append(part({}, "tool_calls"))
    told = response_events(
        [SAID[:10], SAID[10:30], SAID[30:]], [function["arguments"][:20], function["arguments"][20:]]
    )

    def answers(exchange: Exchange) -> None:
        responds, streams = exchange.head.startswith(b"POST /v1/responses "), exchange.json.get("stream")
        if responds:
            handler = responses_upstream.streamed(told, size=40) if streams else whole(told[-1]["response"])
        else:
            handler = streamed(parts, size=40) if streams else whole(completion)
        handler(exchange)

    running.upstream.otherwise = answers
    return running


def anthropic_answer(guarded: Guarded, name: str, kind: str, *, streams: bool) -> tuple[str, Any]:
    client = anthropic.Anthropic(
        api_key=guarded.credential(name, kind), base_url=guarded.gateway.url, max_retries=0
    )
    if streams:
        with client.messages.stream(**BODY) as open_stream:
            message = open_stream.get_final_message()
    else:
        message = client.messages.create(**BODY)
    text, call = message.content
    return text.text, call.input


def openai_answer(guarded: Guarded, name: str, kind: str, *, streams: bool) -> tuple[str, Any]:
    token = guarded.credential(name, kind)
    client = openai.OpenAI(
        api_key=token, base_url=f"{guarded.gateway.url}/v1", max_retries=0, http_client=_HTTP
    )
    if streams:
        with client.chat.completions.stream(**CHAT) as open_stream:
            completion: Any = open_stream.get_final_completion()
    else:
        completion = client.chat.completions.create(**CHAT)
    message = completion.choices[0].message
    return message.content, json.loads(message.tool_calls[0].function.arguments)


def said_in(stream: str) -> str:
    """Return the text of a stream in either dialect."""
    data = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    deltas = [one["delta"].get("text") for one in data if one.get("type") == "content_block_delta"]
    deltas += [one["delta"] for one in data if one.get("type") == "response.output_text.delta"]
    deltas += [choice["delta"].get("content") for one in data for choice in one.get("choices", ())]
    return "".join(filter(None, deltas))


def response_answer(guarded: Guarded, name: str, kind: str, *, streams: bool) -> tuple[str, Any]:
    token = guarded.credential(name, kind)
    client = openai.OpenAI(
        api_key=token, base_url=f"{guarded.gateway.url}/v1", max_retries=0, http_client=_HTTP
    )
    if streams:
        with client.responses.stream(**RESPONSES) as open_stream:
            response: Any = open_stream.get_final_response()
    else:
        response = client.responses.create(**RESPONSES)
    return response.output_text, json.loads(response.output[1].arguments)


ANSWERS = {"messages": anthropic_answer, "chat": openai_answer, "responses": response_answer}


@pytest.mark.parametrize("kind", ["key", "token of a run"])
@pytest.mark.parametrize("dialect", list(PATHS))
@pytest.mark.parametrize("streams", [False, True])
def test_model_reads_placeholders_and_the_client_its_own_data(
    guarded: Guarded, dialect: str, kind: str, streams: bool
) -> None:
    before = guarded.gateway.spent
    text, call = ANSWERS[dialect](guarded, "redact", kind, streams=streams)
    assert OWN not in guarded.asked(dialect) and "I am [EMAIL_1]." in guarded.asked(dialect)
    assert text == TOLD and call == {"to": [OWN, "[EMAIL]"]}
    wait_until(lambda: guarded.gateway.held == 0, "the settlement", 5)
    assert guarded.gateway.spent > before
    stored = json.dumps([guarded.gateway.rows(steps), guarded.gateway.rows(gateway_calls)], default=str)
    assert MAIL not in stored


@pytest.mark.parametrize("streams", [False, True])
def test_run_tells_what_was_found_and_not_what(guarded: Guarded, streams: bool) -> None:
    anthropic_answer(guarded, "redact", "key", streams=streams)
    headers = {"x-api-key": guarded.keys["redact"]}
    [run] = httpx2.get(f"{guarded.gateway.url}/v1/runs?limit=1", headers=headers).json()["data"]
    url = f"{guarded.gateway.url}/v1/runs/{run['run_id']}/events"
    told = httpx2.get(url, headers={**headers, "Accept": "application/json"}).json()
    events = told["data"] if isinstance(told, dict) else told
    found = [one["data"] for one in events if one.get("event", one.get("name")) == "guardrail"]
    assert {(one["where"], one["kind"], one["action"], one["count"]) for one in found} == {
        ("input", "email", "redact", 1),
        ("output", "email", "redact", 2),
    }
    rows = [row for row in guarded.gateway.rows(audit) if row["subject"] == f"run:{run['run_id']}"]
    assert "guardrail" in {row["action"] for row in rows}
    assert MAIL not in json.dumps(told) + json.dumps(rows, default=str)


@pytest.mark.parametrize("dialect", list(PATHS))
@pytest.mark.parametrize("kind", ["key", "token of a run"])
def test_refused_question_is_not_sent_and_costs_nothing(guarded: Guarded, dialect: str, kind: str) -> None:
    calls, before = guarded.calls, guarded.gateway.spent
    answer = guarded.post("refuse in", dialect, kind)
    assert answer.status_code in (400, 422), answer.text
    error = answer.json()["error"]
    assert error["code"] == "guardrail_refused" and OWN not in answer.text
    assert (guarded.calls, guarded.gateway.spent, guarded.gateway.held) == (calls, before, 0)


def test_counting_is_under_guardrails_too(guarded: Guarded) -> None:
    guarded.claude.otherwise = whole({"input_tokens": 7})
    for kind in ("key", "token of a run"):
        token = guarded.credential("redact", kind)
        counted = guarded.gateway.post(token, BODY, "/v1/messages/count_tokens")
        assert counted.json() == {"input_tokens": 7} and OWN not in guarded.asked("messages")
        refused = guarded.gateway.post(
            guarded.credential("refuse in", kind), BODY, "/v1/messages/count_tokens"
        )
        assert refused.json()["error"]["code"] == "guardrail_refused"


@pytest.mark.parametrize("kind", ["key", "token of a run"])
@pytest.mark.parametrize("dialect", list(PATHS))
@pytest.mark.parametrize("streams", [False, True])
def test_refused_answer_is_billed_and_tells_nothing_of_the_match(
    guarded: Guarded, dialect: str, kind: str, streams: bool
) -> None:
    before = guarded.gateway.spent
    answer = guarded.post("refuse out", dialect, kind, stream=streams)
    assert MAIL not in answer.text and "schmidt" not in answer.text and "guardrail_refused" in answer.text
    assert answer.status_code == 200 if streams else answer.status_code in (400, 422)
    assert said_in(answer.text) == ("Hello [EMAIL_1], write to " if streams else "")
    assert not any(end in answer.text for end in ('"end_turn"', '"tool_calls"}', '"response.completed"'))
    wait_until(lambda: guarded.gateway.held == 0, "the settlement", 5)
    assert guarded.gateway.spent > before
    if kind == "key":
        headers = {"x-api-key": guarded.keys["refuse out"]}
        [run] = httpx2.get(f"{guarded.gateway.url}/v1/runs?limit=1", headers=headers).json()["data"]
        assert run["status"] == "failed" and run["usage"]["cost_usd"] != "0.000000"
        whole_run = httpx2.get(f"{guarded.gateway.url}/v1/runs/{run['run_id']}", headers=headers).text
        assert MAIL not in whole_run and "guardrail_refused" in whole_run


@pytest.mark.parametrize("kind", ["key", "token of a run"])
def test_judge_is_not_passed_by(guarded: Guarded, kind: str) -> None:
    calls = guarded.calls
    refused = guarded.post("judge", "chat", kind)
    assert refused.json()["error"]["code"] == "guardrail_refused" and guarded.calls == calls
    assert guarded.post("mild judge", "chat", kind).status_code == 200


def test_masked_data_does_not_come_back(guarded: Guarded) -> None:
    text, call = anthropic_answer(guarded, "mask", "key", streams=True)
    assert "I am [EMAIL]." in guarded.asked("messages") and OWN not in guarded.asked("messages")
    assert text == SAID and call == {"to": ["[EMAIL_1]", MAIL]}


@pytest.mark.parametrize("dialect", list(PATHS))
def test_without_guardrails_bytes_pass_untouched(guarded: Guarded, dialect: str) -> None:
    answer = guarded.post("none", dialect)
    assert MAIL in answer.text and OWN in guarded.asked(dialect)


@pytest.mark.parametrize("dialect", list(PATHS))
def test_more_than_guardrails_read_is_not_sent(guarded: Guarded, dialect: str) -> None:
    calls, before, text = guarded.calls, guarded.gateway.spent, "a " * (effort.MOST // 2)
    changes = {"input": text} if dialect == "responses" else {"messages": [{"role": "user", "content": text}]}
    answer = guarded.post("redact", dialect, **changes)
    assert answer.status_code in (400, 422), answer.text[:500]
    error = answer.json()["error"]
    assert error["code"] == "guardrail_refused" and "length" in error["message"]
    assert (guarded.calls, guarded.gateway.spent, guarded.gateway.held) == (calls, before, 0)


@pytest.mark.parametrize("streams", [False, True])
def test_answer_of_more_than_guardrails_read_ends_as_a_refused_one(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, streams: bool
) -> None:
    monkeypatch.setattr(effort, "MOST", 3_000)
    text = "a@ " * 300
    answer = {**MESSAGE, "content": [{"type": "text", "text": text}]}
    events = [start(), *events_of([("text", text)], 5)[1:]]
    guarded.claude.otherwise = stream(events) if streams else whole(answer)
    told = guarded.post("mask out", "messages", stream=streams)
    assert told.status_code == (200 if streams else 400), told.text
    assert "guardrail_refused" in told.text and "end_turn" not in told.text
    wait_until(lambda: guarded.gateway.held == 0, "the settlement", 5)
