"""Streams that the official SDKs leave in their middle: the run is cancelled, billed, and gives its place back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.clients.conftest import key_of
from tests.conftest import Model, Slipway, wait_until

LONG = "[offline tokens=40 token_ms=300] A long answer for {}, please."
TIMES = 9  # more than there are runs for one user, and than half of the places


@pytest.fixture(scope="module")
def slipway(narrow: Slipway) -> Slipway:
    return narrow


def leave_anthropics(server: Slipway, key: str, http: httpx2.Client, question: str) -> str:
    """Return the id of the run whose stream was left."""
    sdk = anthropic.Anthropic(api_key=key, base_url=server.url, max_retries=5, http_client=http)
    messages: Any = [{"role": "user", "content": question}]
    with sdk.messages.stream(model="assistant", max_tokens=400, messages=messages) as events:
        next(iter(events.text_stream))
        return events.current_message_snapshot.id.removeprefix("msg_")


def leave_openais(server: Slipway, key: str, http: httpx2.Client, question: str) -> str:
    """Return the id of the run whose stream was left."""
    sdk = openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=5, http_client=http)
    messages: Any = [{"role": "user", "content": question}]
    with sdk.chat.completions.create(model="assistant", messages=messages, stream=True) as chunks:
        return next(chunk.id for chunk in chunks if chunk.choices[0].delta.content).removeprefix("chatcmpl-")


def ended(client: httpx2.Client, run_id: str) -> Any:
    run = client.get(f"/v1/runs/run_{run_id}").json()
    return run if run["status"] != "running" else None


@pytest.mark.parametrize("leave", [leave_anthropics, leave_openais], ids=["anthropic", "openai"])
def test_run_of_a_stream_that_is_left_is_cancelled(
    slipway: Slipway, model: Model, leave: Callable[[Slipway, str, httpx2.Client, str], str]
) -> None:
    key = key_of(slipway)
    with httpx2.Client(trust_env=False, timeout=60) as http, slipway.client() as client:
        left = [leave(slipway, key, http, LONG.format(f"{leave.__name__} {time}")) for time in range(TIMES)]
        for run_id in left:
            run = wait_until(partial(ended, client, run_id), "its end")
            assert (run["status"], run["error"]["code"]) == ("cancelled", "run_cancelled")
            assert run["output"] and run["usage"]["cost_usd"] > "0.000000"
        assert model.stats()["closed_early"] == TIMES
