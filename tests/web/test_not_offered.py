"""Paths of OpenAI's and Anthropic's APIs that Slipway does not have, before the official SDKs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.conftest import Slipway


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False, timeout=60) as client:
        yield client


OPENAI: dict[str, Callable[[openai.OpenAI], object]] = {
    "POST /v1/embeddings": lambda sdk: sdk.embeddings.create(model="support", input="x"),
    "POST /v1/completions": lambda sdk: sdk.completions.create(model="support", prompt="x"),
    "GET /v1/files": lambda sdk: sdk.files.list(),
    "POST /v1/audio/speech": lambda sdk: sdk.audio.speech.create(model="x", voice="alloy", input="x"),
    "POST /v1/images/generations": lambda sdk: sdk.images.generate(prompt="x"),
    "POST /v1/moderations": lambda sdk: sdk.moderations.create(input="x"),
    "GET /v1/batches": lambda sdk: sdk.batches.list(),
    "GET /v1/fine_tuning/jobs": lambda sdk: sdk.fine_tuning.jobs.list(),
    "GET /v1/vector_stores": lambda sdk: sdk.vector_stores.list(),
    "POST /v1/conversations": lambda sdk: sdk.conversations.create(),
    "GET /v1/chat/completions/chatcmpl-1/messages": lambda sdk: sdk.chat.completions.messages.list(
        "chatcmpl-1"
    ),
}
ANTHROPIC: dict[str, Callable[[anthropic.Anthropic], object]] = {
    "GET /v1/messages/batches": lambda sdk: sdk.messages.batches.list(),
    "GET /v1/files": lambda sdk: sdk.files.list(),
    "GET /v1/skills": lambda sdk: sdk.skills.list(),
    "POST /v1/environments": lambda sdk: sdk.beta.environments.create(name="x"),
}


@pytest.mark.parametrize("path", OPENAI)
def test_openais_sdk_is_told(slipway: Slipway, http: httpx2.Client, path: str) -> None:
    sdk = openai.OpenAI(api_key="slp_any", base_url=f"{slipway.url}/v1", max_retries=0, http_client=http)
    with pytest.raises(openai.NotFoundError) as missing:
        OPENAI[path](sdk)
    told: Any = missing.value.body
    assert told["message"] == f"{path} is not offered here."
    assert (missing.value.code, missing.value.type) == ("unknown_url", "invalid_request_error")
    assert missing.value.request_id == told["request_id"]


@pytest.mark.parametrize("path", ANTHROPIC)
def test_anthropics_sdk_is_told(slipway: Slipway, http: httpx2.Client, path: str) -> None:
    sdk = anthropic.Anthropic(api_key="slp_any", base_url=slipway.url, max_retries=0, http_client=http)
    with pytest.raises(anthropic.NotFoundError) as missing:
        ANTHROPIC[path](sdk)
    told: Any = missing.value.body
    assert told["error"] == {
        "type": "not_found_error",
        "message": f"{path} is not offered here.",
        "code": "not_offered",
    }
    assert missing.value.request_id == told["request_id"]


def test_agents_of_the_vendors_are_not_taken_for_ours(slipway: Slipway, http: httpx2.Client) -> None:
    with slipway.client() as client:
        key = client.post("/v1/auth/keys", json={"name": "hosted"}).json()["key"]
    theirs = anthropic.Anthropic(api_key=key, base_url=slipway.url, max_retries=0, http_client=http)
    for asked in (theirs.beta.agents.list, theirs.beta.sessions.list):
        with pytest.raises(anthropic.NotFoundError) as missing:
            asked()
        told: Any = missing.value.body
        assert (told["type"], told["error"]["code"]) == ("error", "not_offered")
    other = openai.OpenAI(api_key=key, base_url=f"{slipway.url}/v1", max_retries=0, http_client=http)
    with pytest.raises(openai.NotFoundError) as unknown:
        other.beta.agents.list()
    assert unknown.value.code == "unknown_url"
    assert http.get(f"{slipway.url}/v1/agents", headers={"x-api-key": key}).json()["data"]


def test_paths_of_no_api_stay_problems(slipway: Slipway) -> None:
    with slipway.visitor() as visitor:
        for path in ("/v1/nothing", "/v1/filesystem", "/files"):
            assert visitor.get(path).json()["code"] == "not_found"
