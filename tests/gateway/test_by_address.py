"""Content by address, which a provider fetches anew for the count and for the call: held at the largest prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import HELLO, Gateway
from tests.gateway.test_keys import key_of
from tests.llm.wire_server import MESSAGE, Exchange, WireServer, whole

ADDRESS = {"type": "url", "url": "https://example.com/a"}
PICTURE: dict[str, Any] = {"type": "image", "source": ADDRESS}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [PICTURE]}
PARTS = {"type": "document", "source": {"type": "content", "content": [PICTURE]}}
GROWN = 900_000  # tokens of the call's prompt, of which 20 were counted


def grows(exchange: Exchange) -> None:
    """Answer as a provider that fetches a small picture for the count, and a long document for the call."""
    if b"/count_tokens" in exchange.head:
        whole({"input_tokens": 20})(exchange)
    else:
        whole({**MESSAGE, "usage": {"input_tokens": GROWN, "output_tokens": 4}})(exchange)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Gateway]:
    server, home = WireServer(grows), tmp_path_factory.mktemp("address")
    settings: dict[str, Any] = {"anthropic_base_url": server.url, "own_model": False}
    with house.gateway(home, redis_server.url, **settings) as made:
        yield made
    server.stop()


def body(*content: dict[str, Any]) -> dict[str, Any]:
    return {**HELLO, "messages": [{"role": "user", "content": list(content)}]}


@pytest.mark.parametrize("content", [PICTURE, {**PICTURE, "type": "document"}, RESULT, PARTS])
@pytest.mark.parametrize("kind", ["key", "token of a run"])
def test_hold_covers_what_an_address_may_become(
    gateway: Gateway, content: dict[str, Any], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = key_of(gateway) if kind == "key" else gateway.token(gateway.run())
    answer = gateway.post(token, body(content))
    assert (answer.status_code, answer.headers["X-Cost-USD"]) == (200, "0.450010")
    assert "hold_overrun" not in caplog.messages and gateway.held == 0


def test_address_in_arguments_of_a_call_is_text(gateway: Gateway) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "see", "input": {"source": ADDRESS}}
    turns = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": [call]}]
    answer = gateway.post(key_of(gateway), {**HELLO, "messages": turns})
    assert answer.headers["X-Cost-USD"] < "0.01"  # more than its bytes can have been is its hold


def test_cap_that_cannot_cover_an_address_refuses_it(tmp_path: Path, redis_server: RedisServer) -> None:
    with house.gateway(tmp_path, redis_server.url, budget_user_day_usd="0.02") as gateway:
        answer = gateway.post(key_of(gateway), body(PICTURE))
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exceeded")
        assert (gateway.api.requests, gateway.api.counted, gateway.held) == ([], [], 0)
