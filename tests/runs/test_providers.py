"""Runs of agents, and relayed calls, over Bedrock and Vertex AI, and over a second provider while the first is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
import sqlalchemy as sa

from service.store.schema import holds, ledger, steps
from service.types import Event, Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.test_keys import key_of
from tests.llm.platform_servers import AWS, REGION, aws_stream, signed
from tests.llm.test_vertex import bearer, google
from tests.llm.wire_server import (
    MESSAGE,
    WireServer,
    close,
    end,
    error,
    silent,
    start,
    stream,
    text_events,
    whole,
)
from tests.runs import inside
from tests.runs.inside import ADA

__all__ = ["google"]
MODELS = {f"model_{tier}": "claude-haiku-5-5" for tier in ("simple", "medium", "complex")}
COST = 20 * 100 + 4 * 500  # nano-dollars of `MESSAGE`
EVENTS = [start(), *text_events("Good ", "day."), *end()]
GONE = error(529, "overloaded_error")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def api() -> Iterator[WireServer]:
    server = WireServer(GONE)
    yield server
    server.stop()


@pytest.fixture
def bedrock() -> Iterator[WireServer]:
    server = WireServer(signed(whole(MESSAGE)))
    yield server
    server.stop()


@contextmanager
def providing(
    home: Path, redis: RedisServer, api: WireServer, bedrock: WireServer, **settings: Any
) -> Iterator[Services]:
    chosen: dict[str, Any] = {
        "model_providers": "anthropic,bedrock",
        "aws_region": REGION,
        "anthropic_bedrock_base_url": bedrock.url,
        "model_retries": 0,
        **MODELS,
        **settings,
    }
    with inside.services(home, redis.url, api.url, own_model=False, **chosen) as wired:
        yield wired


def stored(wired: Services, run: Run) -> dict[str, Any]:
    """Return the model's reply as its step stores it."""
    query = sa.select(steps).where(steps.c.run_id == run.id)
    found = wired.infra.db.query(lambda tx: tx.rows(query))
    reply: dict[str, Any] = next(row["reply"] for row in found if row["kind"] == "model")
    return reply


def paid(wired: Services) -> list[int]:
    """Return what each model call has cost, in nano-dollars; nothing may be held any more."""
    query = sa.select(ledger.c.amount_nano).where(ledger.c.account == "upstream")
    assert not wired.infra.db.query(lambda tx: tx.rows(sa.select(holds)))
    return [abs(row["amount_nano"]) for row in wired.infra.db.query(lambda tx: tx.rows(query))]


def test_second_provider_answers_a_run_and_is_billed_once(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    with providing(tmp_path, redis_server, api, bedrock) as wired:
        run = inside.ask(wired)
        assert (run.result or {})["output"] == "Good day." and len(api.requests) == 1
        assert stored(wired, run)["provider"] == "bedrock" and paid(wired) == [COST]
        told = wired.infra.metrics.render()[0].decode()
    calls = 'slipway_model_calls_total{attempt="1",model="claude-haiku-5-5",outcome='
    assert f'{calls}"model_unavailable",provider="anthropic"}} 1.0' in told
    assert f'{calls}"ok",provider="bedrock"}} 1.0' in told


def test_refused_connection_leaves_the_run_to_the_second(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    api.stop()
    with providing(tmp_path, redis_server, api, bedrock) as wired:
        assert (inside.ask(wired).result or {})["output"] == "Good day." and paid(wired) == [COST]


def test_slow_call_is_settled_at_its_worst_before_the_second_is_asked(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    api.otherwise = silent
    with providing(tmp_path, redis_server, api, bedrock, model_timeout=0.3) as wired:
        assert (inside.ask(wired).result or {})["output"] == "Good day."
        worst, *rest = sorted(paid(wired), reverse=True)
        assert rest == [COST] and worst > 100_000


def test_cap_without_room_for_both_ends_the_run(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    """The slow call may be billed, and what is left does not hold another: the cap is never passed."""
    api.otherwise = silent
    settings = {"model_timeout": 0.3, "budget_run_usd": "0.0009"}
    with providing(tmp_path, redis_server, api, bedrock, **settings) as wired:
        run = inside.ask(wired)
        assert run.error is not None and run.error["code"] == "budget_exceeded"
        assert not bedrock.requests and sum(paid(wired)) <= 900_000


def test_stream_that_breaks_is_not_begun_elsewhere_and_billed_once(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    api.otherwise = stream(EVENTS[:3], then=close)
    with providing(tmp_path, redis_server, api, bedrock) as wired:
        _, batches = wired.runs.start.stream(ADA, inside.request("Hi", cache="bypass"), None, "req")
        names = [event.name for batch in batches for event in batch]
        assert names[-1] == Event.RUN_FAILED
        assert not bedrock.requests and len(paid(wired)) == 1


def test_run_streams_over_bedrock_alone(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer
) -> None:
    bedrock.otherwise = signed(aws_stream(EVENTS, size=40))
    with providing(tmp_path, redis_server, api, bedrock, model_providers="bedrock") as wired:
        _, batches = wired.runs.start.stream(ADA, inside.request("Hi", cache="bypass"), None, "req")
        events = [event for batch in batches for event in batch]
        text = "".join(event.data["text"] for event in events if event.name == Event.TEXT_DELTA)
        assert text == "Good day." and paid(wired) == [COST] and not api.requests


def test_run_over_vertex_alone(
    tmp_path: Path, redis_server: RedisServer, api: WireServer, bedrock: WireServer, google: WireServer
) -> None:
    vertex = WireServer(bearer(whole(MESSAGE)))
    settings = {
        "model_providers": "vertex",
        "cloud_ml_region": "global",
        "anthropic_vertex_project_id": "acme",
        "anthropic_vertex_base_url": f"{vertex.url}/v1",
    }
    with providing(tmp_path, redis_server, api, bedrock, **settings) as wired:
        run = inside.ask(wired)
        assert (run.result or {})["output"] == "Good day." and stored(wired, run)["provider"] == "vertex"
        assert paid(wired) == [COST]
    vertex.stop()


def test_relayed_calls_go_to_the_second_provider_too(
    tmp_path: Path, redis_server: RedisServer, bedrock: WireServer
) -> None:
    bedrock.otherwise = signed(aws_stream(EVENTS, size=40))
    settings = {
        "model_providers": "bedrock",
        "aws_region": REGION,
        "anthropic_bedrock_base_url": bedrock.url,
    }
    with house.gateway(tmp_path, redis_server.url, **settings) as gateway:
        for token in (key_of(gateway), gateway.token(gateway.run())):
            before = gateway.spent
            with gateway.sdk(token).messages.stream(
                model=house.MODEL, max_tokens=50, messages=[{"role": "user", "content": "Hello"}]
            ) as answer:
                assert "".join(answer.text_stream) == "Good day."
            assert gateway.spent == before + COST
        bedrock.otherwise = GONE
        with pytest.raises(anthropic.APIStatusError):
            gateway.sdk(token).messages.create(
                model=house.MODEL, max_tokens=50, messages=[{"role": "user", "content": "Hello"}]
            )
        assert gateway.held == 0
