"""Tokens in the wrong hands, and requests that try to be held for less than they cost: refused, and nothing is held.

`GATEWAY_TOKENS` says how many are used at once.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.auth.run_tokens import TokenStep
from service.types import Event, RunStatus
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.gateway.test_cap_trials import token_of_somebody_new

MANY = int(os.environ.get("GATEWAY_TOKENS", "100"))
MIB = 1024 * 1024


@pytest.fixture
def attacked(tmp_path: Path, redis_server: RedisServer) -> Iterator[Gateway]:
    with house.gateway(tmp_path, redis_server.url, threads=64) as made:
        yield made


def assert_untouched(gateway: Gateway) -> None:
    assert (gateway.api.requests, gateway.rows(), gateway.held) == ([], [], 0)


def sent(gateway: Gateway, token: str, content: bytes, **headers: str) -> httpx2.Response:
    given = {"x-api-key": token, "Content-Type": "application/json", **headers}
    answer = httpx2.post(f"{gateway.url}/v1/messages", content=content, headers=given, timeout=60)
    gateway.description.hook(answer)
    return answer


MODELS = (
    "claude-haiku-5-5 ",
    " claude-haiku-5-5",
    "CLAUDE-HAIKU-5-5",
    "claude-haiku-5-5\u200b",
    "claude-haiku-5-5\n",
    "offline-offline-claude-haiku-5-5",
    "claude-haiku-5-5-2026100",
    "claude-haiku-5-5-20261007-20261007",
    "../claude-haiku-5-5",
    "probe",
    "gpt-6",
    "",
    "x" * 5_000,
)
LIMITS: tuple[Any, ...] = (0, -1, 10**7, 10**30, "50", 50.5, True, None, [50], float("nan"))


def test_model_that_has_no_price_is_asked_nothing(attacked: Gateway) -> None:
    token = attacked.token(attacked.run())
    for model in MODELS:
        assert attacked.post(token, {**HELLO, "model": model}).status_code in (400, 404), model
    assert_untouched(attacked)


def test_most_tokens_are_a_number_that_a_hold_can_be_made_of(attacked: Gateway) -> None:
    token = attacked.token(attacked.run())
    for most in LIMITS:
        body = json.dumps({**HELLO, "max_tokens": most}).encode()
        assert sent(attacked, token, body).status_code == 400, most
    without = json.dumps({name: value for name, value in HELLO.items() if name != "max_tokens"}).encode()
    assert sent(attacked, token, without).status_code == 400
    assert_untouched(attacked)


def test_call_that_may_cost_more_than_the_cap_is_refused_whole(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with house.gateway(tmp_path, redis_server.url, budget_run_usd="0.01") as gateway:
        answer = gateway.post(gateway.token(gateway.run()), {**HELLO, "max_tokens": 1_000_000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exceeded")
        assert_untouched(gateway)


def test_body_that_is_too_large_is_not_read(attacked: Gateway) -> None:
    answer = sent(attacked, attacked.token(attacked.run()), b" " * (32 * MIB + 1))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")
    assert_untouched(attacked)


def test_bodies_that_are_no_request_are_400(attacked: Gateway) -> None:
    token = attacked.token(attacked.run())
    deep = b'{"model": "%b", "messages": ' % MODEL.encode() + b"[" * 100_000
    bodies = (b"", b"[]", b"null", b'"x"', b"{", deep, gzip.compress(json.dumps(HELLO).encode()), b"\xff\xfe")
    for body in bodies:
        assert sent(attacked, token, body).status_code == 400, body[:40]
    assert sent(attacked, token, b"a=b", **{"Content-Type": "text/plain"}).status_code == 400
    assert_untouched(attacked)


def test_headers_reach_the_model_only_where_they_are_names_of_betas(attacked: Gateway) -> None:
    token = attacked.token(attacked.run())
    for betas in ("a b;c", "a: b", "x" * 1_001, "{}"):
        assert attacked.post(token, **{"anthropic-beta": betas}).status_code == 400, betas
    assert_untouched(attacked)
    own = {"x-stainless-retry-count": "5", "Host": "evil.example", "Cookie": "a=b", "X-Forwarded-Host": "e"}
    assert attacked.post(token, **own).status_code == 200
    assert attacked.api.bodies[-1] == json.dumps(HELLO, separators=(",", ":")).encode()


def test_two_credentials_are_not_added_up(attacked: Gateway) -> None:
    """The bearer token counts alone: a token that has ended does not work beside one that is valid."""
    token, ended = attacked.token(attacked.run()), attacked.token(attacked.run())
    attacked.services.auth.run_tokens.end(ended)
    assert attacked.post(token, Authorization=f"Bearer {ended}").status_code == 401
    assert attacked.post(ended, Authorization=f"Bearer {token}").status_code == 200


def test_other_betas_are_not_answered_with_what_was_kept(attacked: Gateway) -> None:
    run = attacked.run()
    attacked.post(attacked.token(run), **{"anthropic-beta": "one"})
    again = attacked.token(attacked.again(run))
    assert "Idempotency-Replayed" not in attacked.post(again, **{"anthropic-beta": "two"}).headers
    assert "Idempotency-Replayed" in attacked.post(again, **{"anthropic-beta": "one"}).headers


def test_token_pays_from_its_own_run_alone_and_not_after_its_end(attacked: Gateway) -> None:
    bob, token_of_bob = token_of_somebody_new(attacked)
    run = attacked.run()
    token = attacked.token(run)
    assert attacked.post(token_of_bob).status_code == 200
    [row] = attacked.rows()
    assert row["run_id"] != run.id and attacked.services.auth.run_tokens.find(token).user_id != bob
    attempt = attacked.attempt(run)
    attempt.journal.finish(RunStatus.SUCCEEDED, lambda: (Event.RUN_COMPLETED, {}))
    assert attacked.post(token).status_code == 401
    assert attacked.post(token_of_bob).status_code == 200
    assert len(attacked.rows()) == 2


@pytest.mark.timeout(60 + MANY)
def test_many_tokens_at_once_leave_no_hold_and_no_failure(attacked: Gateway) -> None:
    """Half of them of one run."""
    of_runs = [attacked.run() for _ in range(MANY // 2)]
    runs = [*of_runs, *[attacked.run()] * (MANY - len(of_runs))]
    issue = attacked.services.auth.run_tokens.issue
    tokens = [issue(run, TokenStep(1, "probe"), seconds=900, most_calls=1) for run in runs]
    with ThreadPoolExecutor(24) as pool:
        statuses = Counter(answer.status_code for answer in pool.map(attacked.post, tokens))
    print(dict(statuses))
    assert set(statuses) <= {200, 429, 529} and statuses[200] > MANY / 10, statuses
    wait_until(lambda: attacked.held == 0, "the end of every hold")
    assert len(attacked.rows()) == statuses[200] == len(attacked.api.requests)
