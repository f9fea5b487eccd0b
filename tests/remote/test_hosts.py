"""Hosts of remote agents: one that `REMOTE_HOSTS` does not name gets no byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import RemoteFailed
from service.remote.client import RemoteHosts
from tests.conftest import RedisServer
from tests.llm.wire_server import whole
from tests.remote import house
from tests.remote.house import SUCCEEDED, Far, text

HOSTS = RemoteHosts.of("research:9100, Agents.Example.com", "research:9100=abc")


@pytest.mark.parametrize(
    "url", ["http://research:9100/x", "https://agents.example.com/", "http://AGENTS.example.com:8080/a"]
)
def test_named_host_is_asked(url: str) -> None:
    HOSTS.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "http://example.com/",
        "http://research:9101/",
        "http://agents.example.com.evil.example/",
        "http://169.254.169.254/",
        "http://agents.example.com@evil.example/",
    ],
)
def test_any_other_is_refused(url: str) -> None:
    with pytest.raises(RemoteFailed):
        HOSTS.check(url)


def test_token_goes_to_its_own_host_alone() -> None:
    assert HOSTS.bearer("http://research:9100/x") == {"Authorization": "Bearer abc"}
    assert HOSTS.bearer("http://research:9101/x") == HOSTS.bearer("https://agents.example.com/") == {}


def test_run_at_a_host_that_is_not_named_fails_before_anything_is_sent(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    with house.far(tmp_path, redis_server.url, whole(SUCCEEDED), remote_hosts="") as far:
        run = far.ask()
        assert (run.status, run.error["code"]) == ("failed", "remote_failed")  # type: ignore[index]
        assert far.service.requests == [] and far.door.held == 0


def test_text_is_bounded_in_all(far: Far) -> None:
    piece = text("x" * 300_000)
    far.service.script = [house.streams(*[piece] * 8, house.completed())]
    run = far.ask()
    assert run.error["code"] == "remote_failed"  # type: ignore[index]
    assert len(run.result["output"]) <= 1024 * 1024  # type: ignore[index]
