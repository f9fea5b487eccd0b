"""Limits per kind of call, on tool calls and on tokens, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.web.people import join
from tests.web.test_doors import events_of

LIMITS = {
    "LIMIT_INVOKE": "3/hour",
    "LIMIT_STREAM": "2/hour",
    "LIMIT_TASK": "1/hour",
    "LIMIT_TOOL": "1/hour",
    "LIMIT_TOKENS": "2000/hour",
    "LIMIT_SESSION": "2/hour",
}


@pytest.fixture(scope="module")
def limited(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    with slipway_server(
        scratch / "limited", redis_server.url, model.url, WEB_CONCURRENCY="2", **LIMITS
    ) as server:
        yield server


@pytest.fixture
def user(limited: Slipway, model: Model) -> Iterator[httpx2.Client]:
    """Sign in as a new user without usage."""
    model.reset()
    with limited.client() as admin, join(limited, admin) as client:
        yield client


def ask(
    client: httpx2.Client, door: str = "invoke", agent: str = "assistant", text: str = "Hello", **more: str
) -> httpx2.Response:
    return client.post(f"/v1/agents/{agent}/{door}", json={"input": text, "cache": "bypass", **more})


@pytest.mark.parametrize(
    ("door", "most", "good"), [("invoke", 3, 200), ("stream", 2, 200), ("tasks", 1, 202)]
)
def test_each_kind_of_call_has_its_own_limit_over_both_workers(
    user: httpx2.Client, door: str, most: int, good: int
) -> None:
    answers = [ask(user, door) for _ in range(most + 1)]
    assert [answer.status_code for answer in answers] == [good] * most + [429]
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == (str(most), "0")
    assert 0 < int(refused.headers["Retry-After"]) <= 7200
    other = "invoke" if door != "invoke" else "stream"
    assert ask(user, other).status_code == 200


def test_tokens_count_after_the_call_and_keep_the_next_one_out(user: httpx2.Client) -> None:
    first = ask(user, text="Tell me about this. " + "word " * 2_000)  # 2,500 tokens: known only afterwards
    assert first.status_code == 200
    used = first.json()["usage"]
    assert used["input_tokens"] + used["output_tokens"] > 2_000
    second = ask(user)
    assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
    assert "tokens" in second.json()["detail"]
    assert (second.headers["RateLimit-Limit"], second.headers["RateLimit-Remaining"]) == ("2000", "0")
    assert int(second.headers["Retry-After"]) > 0


def test_tool_call_over_the_limit_is_a_failed_result(user: httpx2.Client) -> None:
    outcomes = []
    for question in ("What is 17% of 2,340?", "What is 18% of 2,340?"):
        answer = ask(user, "stream", "analyst", question)
        outcomes += [data for _, name, data in events_of(answer.text) if name == "tool.finished"]
    assert outcomes[0]["ok"] and not outcomes[-1]["ok"]
    assert "Too many tool calls" in outcomes[-1]["preview"]


@pytest.mark.parametrize("door", ["invoke", "stream", "tasks"])
def test_turns_of_one_session_are_limited_at_every_door(
    limited: Slipway, user: httpx2.Client, door: str
) -> None:
    one, other = (
        user.post("/v1/sessions", json={"agent": "assistant"}).json()["id"] for _ in ("one", "other")
    )
    with limited.client() as admin, join(limited, admin) as stranger:
        foreign = [ask(stranger, session_id=one).status_code for _ in range(3)]
        assert foreign == [404, 404, 429], "a stranger uses up nothing of it"
    assert [ask(user, turn, session_id=one).status_code for turn in ("invoke", "stream")] == [200, 200]
    refused = ask(user, door, session_id=one)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert (refused.headers["RateLimit-Limit"], refused.headers["RateLimit-Remaining"]) == ("2", "0")
    assert 0 < int(refused.headers["Retry-After"]) <= 7200
    assert len(user.get(f"/v1/runs?session_id={one}").json()["data"]) == 2, "nothing was started"
    assert ask(user, session_id=other).status_code == 200
