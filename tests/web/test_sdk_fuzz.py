"""Requests of the types that the official SDKs have: the dialect's answer, or its error, which names a field."""

from __future__ import annotations

import json
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from service.web.anthropic.agent_body import AgentBody
from service.web.openai.chat_body import ChatBody
from tests.conftest import Model, RedisServer, slipway_server
from tests.web.sdk_params import Sampler

pytestmark = pytest.mark.slow
REQUESTS = 300  # for each dialect
HELLO = [{"role": "user", "content": "Hello"}]
DIALECTS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "anthropic": ("/v1/messages", MessageCreateParamsNonStreaming, AgentBody, {"max_tokens": 99}),
    "openai": ("/v1/chat/completions", CompletionCreateParamsNonStreaming, ChatBody, {}),
}


@pytest.fixture(scope="module")
def sent_to(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[httpx2.Client]:
    most: Any = {"LIMIT_RUNS": "1000000/minute"}
    with (
        slipway_server(scratch / "sdkfuzz", redis_server.url, model.url, **most) as server,
        server.client() as client,
    ):
        yield client
        assert "unhandled_error" not in server.log.read_text(errors="replace")


def bodies(kind: Any, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Requests with up to three more fields, every other one spoiled."""
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [name for name in hints if name != "model"]
    for seed in range(REQUESTS):
        sampler = Sampler(seed)
        body = {"model": "assistant", "messages": HELLO, **fields}
        for name in sampler.rng.sample(names, sampler.rng.randrange(4)):
            body[name] = sampler.value(hints[name], 1)
        if sampler.rng.random() < 0.3:
            body["stream"] = True
        body = json.loads(json.dumps(body))
        yield sampler.spoiled(body) if seed % 2 else body


@pytest.mark.parametrize("dialect", DIALECTS)
def test_requests_of_its_types(sent_to: httpx2.Client, dialect: str) -> None:
    path, kind, known, fields = DIALECTS[dialect]
    statuses: Counter[int] = Counter()
    for body in bodies(kind, fields):
        answer = sent_to.post(path, json=body)
        statuses[answer.status_code] += 1
        about = f"{json.dumps(body)[:1000]}\n{answer.status_code} {answer.text[:1000]}"
        media = answer.headers["Content-Type"].partition(";")[0]
        if answer.status_code == 200:
            assert media == ("text/event-stream" if body.get("stream") else "application/json"), about
            assert '"error"' not in answer.text, about
        else:
            assert (answer.status_code, media) in ((400, "application/json"), (404, "application/json")), (
                about
            )
            message = refusal(dialect, answer, about)
            unknown = [name for name in body if name not in known.model_fields]
            assert "NUL" in message or all(name in message for name in unknown), about
    assert statuses[200] > 50 and statuses[400] > 100, statuses  # else this shows little


def refusal(dialect: str, answer: httpx2.Response, about: str) -> str:
    """The message of an error in the dialect's shape, of which one of 400 names a field."""
    told = answer.json()
    error = told["error"]
    if dialect == "anthropic":
        assert (told["type"], told["request_id"]) == ("error", answer.headers["request-id"]), about
        assert answer.status_code != 400 or error["message"].startswith(("/", "body: ")), about
    else:
        assert set(error) == {"message", "type", "param", "code", "request_id"}, about
        assert answer.status_code != 400 or error["param"], about
    return str(error["message"])
