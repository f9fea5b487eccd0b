from __future__ import annotations

from collections.abc import Callable

import anthropic
import pytest

from service import errors
from service.llm.claude import ClaudeClient
from tests.llm.conftest import MakeClaude, a_call, ask, run
from tests.llm.wire_server import Exchange, Handler, WireServer, error


def test_the_headers_are_those_of_the_sdk(claude: ClaudeClient, server: WireServer) -> None:
    for seconds in (5.0, 60.0):
        run(claude.create(ask(), a_call(seconds)))
    with anthropic.Anthropic(api_key="offline", base_url=server.url, max_retries=0) as sdk:
        sdk.messages.create(max_tokens=1, messages=[], model="claude-haiku-5-5", timeout=10.0)
    first, second, own = ({**one.headers} for one in server.requests)
    assert float(first.pop("x-stainless-timeout")) <= 5 and float(first.pop("x-stainless-read-timeout")) <= 5
    assert second.pop("x-stainless-timeout") == own.pop("x-stainless-timeout") == "10.0"
    assert second.pop("x-stainless-read-timeout") == own.pop("x-stainless-read-timeout") == "10.0"
    for headers in (first, second, own):
        for name in ("accept-encoding", "connection", "content-length", "user-agent"):
            headers.pop(name, None)
    assert first == second == own


def test_a_proxy_of_the_environment_is_used(
    server: WireServer, make_claude: MakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    run(make_claude("http://model.invalid").create(ask(), a_call()))
    assert server.requests[0].head.startswith(b"POST http://model.invalid/v1/messages ")


def leave(exchange: Exchange) -> None:
    exchange.close()


PAID = [
    lambda claude: run(claude.create(ask(), a_call())),
    lambda claude: run(claude.create(ask(stream=True), a_call())),
    lambda claude: claude.submit({"one": ask()}, a_call()),
]


@pytest.mark.parametrize("through", ["", "proxy"])
@pytest.mark.parametrize("paid", PAID)
@pytest.mark.parametrize(
    "answer", [leave, error(529, "overloaded_error", "x-should-retry: true\r\nretry-after: 0\r\n")]
)
def test_nothing_below_the_hold_sends_again(
    server: WireServer,
    make_claude: MakeClaude,
    monkeypatch: pytest.MonkeyPatch,
    through: str,
    paid: Callable[[ClaudeClient], object],
    answer: Handler,
) -> None:
    """Neither the SDK, nor the transport over a kept connection, nor by way of a proxy."""
    monkeypatch.setenv("http_proxy", server.url if through else "")
    monkeypatch.setenv("no_proxy", "")
    claude = make_claude("http://model.invalid" if through else server.url)
    run(claude.create(ask(), a_call()))
    server.script = [answer]
    with pytest.raises(errors.ModelUnavailable):
        paid(claude)
    assert (len(server.requests), server.connections) == (2, 1)


def test_no_proxy_is_used_where_none_applies(
    server: WireServer, make_claude: MakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    run(make_claude(server.url).create(ask(), a_call()))
    assert server.requests[0].head.startswith(b"POST /v1/messages ")
