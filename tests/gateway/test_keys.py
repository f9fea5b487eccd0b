"""Models that are asked with a key: each call is a run, relayed as it is. By the official SDK and by hand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from service.store.schema import ledger
from service.types import Caller, RunStatus
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
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
    assert keys.rows(ledger)[-1]["agent"] == MODEL
    whole = httpx2.get(f"{keys.url}/v1/runs/{run['run_id']}", headers={"x-api-key": key}).json()
    assert (whole["output"], whole["model"], len(whole["steps_detail"] if "steps_detail" in whole else [1])) == (
        "Answer 5.", MODEL, 1
    )


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
