"""The tool `fetch` in a run: hosts of the setting are read, others of this machine are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.infra.test_http import Peer
from tests.llm.wire_server import WireServer
from tests.runs.scripted import ask, bodies, call, calls, services

FETCHES = """description: A test agent.
pattern: react
tier: {default: simple, ask: false}
tools: [fetch, current_time]
"""
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nCrew is 8.00"


@pytest.fixture
def page() -> Iterator[Peer]:
    peer = Peer(PAGE)
    yield peer
    peer.close()


@pytest.mark.parametrize("listed", [True, False])
def test_the_operators_hosts_may_be_read(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, page: Peer, listed: bool
) -> None:
    upstream.script.append(calls(call("fetch", {"url": page.url}), call("current_time", {}, "toolu_2")))
    hosts = page.url.split("/")[2] if listed else ""
    with services(tmp_path, redis_server.url, upstream, FETCHES, fetch_hosts=hosts) as wired:
        result = ask(wired).result
    assert result is not None and [tool["ok"] for tool in result["tools"]] == [listed, True]
    told = bodies(upstream)[1]["messages"][-1]["content"][0]
    assert ("Crew is 8.00" in told["content"]) is listed and told["is_error"] is not listed
    assert [source["uri"] for source in result["sources"]] == ([page.url] if listed else [])
    assert len(page.got) == listed
