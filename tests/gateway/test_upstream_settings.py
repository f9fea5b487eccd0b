"""An upstream in OpenAI's dialect under caps, without a setting, and with models of the operator's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.test_keys import key_of
from tests.gateway.upstream import COMPLETION, MODEL, chat
from tests.llm.wire_server import WireServer, whole

BODY = {"model": MODEL, "max_completion_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer(chat)
    yield server
    server.stop()


def test_cap_holds_for_many_at_once(tmp_path: Path, redis_server: RedisServer, server: WireServer) -> None:
    """Each call holds about 3 cents, and costs the same as no usage is told; the cap has room for a few."""
    server.otherwise = whole({**COMPLETION, "usage": None})
    body = {**BODY, "max_completion_tokens": 5_000}
    settings = {"openai_base_url": f"{server.url}/v1", "budget_user_day_usd": "0.10"}
    with house.gateway(tmp_path, redis_server.url, **settings) as capped, ThreadPoolExecutor(4) as pool:
        key = key_of(capped)
        answers = list(pool.map(lambda _: capped.post(key, body, PATH).status_code, range(12)))
        assert sorted(set(answers)) == [200, 429] and answers.count(200) == 4
        assert 0 < capped.spent <= 100_000_000 and capped.held == 0


def test_without_an_upstream_there_are_no_models_of_it(tmp_path: Path, redis_server: RedisServer) -> None:
    with house.gateway(tmp_path, redis_server.url) as alone:
        key = key_of(alone)
        assert alone.post(key, BODY, PATH).status_code == 404
        assert alone.post(alone.token(alone.run()), BODY, PATH).status_code == 404
        listed = httpx2.get(f"{alone.url}/v1/models", headers={"x-api-key": key}).text
        assert "gpt" not in listed


def test_models_of_ones_own_have_prices_in_a_file(
    tmp_path: Path, redis_server: RedisServer, server: WireServer
) -> None:
    tariff = {"above_tokens": 0, "input": "1", "output": "2", "cache_read": "1"}
    row = {
        "model": "llama-of-ours",
        "from": "2026-01-01",
        "provider": "openai",
        "tariffs": [{**tariff, "cache_write_5m": "1", "cache_write_1h": "1"}],
        "batch_discount": 0,
        "server_tool_use": "0",
        "source": "our own machines",
    }
    text = json.dumps({"prices": [row]}).replace('"2026-01-01"', "2026-01-01")
    (tmp_path / "prices.yaml").write_text(text)
    settings = {"openai_base_url": f"{server.url}/v1", "model_prices": str(tmp_path / "prices.yaml")}
    with house.gateway(tmp_path, redis_server.url, **settings) as made:
        key, body = key_of(made), {**BODY, "model": "llama-of-ours"}
        assert made.post(key, body, PATH).status_code == 200
        assert made.spent == 30 * 1_000 + 4 * 2_000
        assert "authorization" not in server.requests[0].headers
        unbounded = made.post(key, {**body, "max_completion_tokens": None}, PATH)
        assert unbounded.json()["error"]["param"] == "max_completion_tokens"
