"""Connections of a process: the breaker of each server, and the bound of connections of users."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.infra.sealing import Seal
from service.mcp.connections import Connections, Key
from service.mcp.credentials import PURPOSE
from service.store import mcp as rows
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.mcp.raw import Raw


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Raw]:
    server = Raw("http", tmp_path / "raw")
    with server.running():
        yield server


@pytest.fixture
def well(tmp_path: Path) -> Raw:
    return Raw("stdio", tmp_path / "well", "well")


@pytest.fixture
def recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.mcp.connections.RECOVERY", 2.0)


def services(tmp_path: Path, redis_url: str, upstream: WireServer, *servers: Raw, **more: Any) -> Any:
    specs = {server.name: server.spec(**more) for server in servers}
    return house.services(tmp_path, redis_url, upstream, specs, "raw.echo")


def test_breaker_opens_after_five_calls_without_an_answer_and_lets_one_through(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, well: Raw, recovery: None
) -> None:
    with services(tmp_path, redis_server.url, upstream, raw, well) as wired:
        assert raw.use(wired, "echo").ok
        for _ in range(5):
            assert raw.use(wired, "drop").timed_out
        refused = raw.use(wired, "echo")
        assert "is given a pause" in refused.content and not refused.timed_out
        assert raw.calls() == ["echo", *["drop"] * 5], "nothing is sent while it is open"
        assert well.use(wired, "echo").ok
        wait_until(lambda: raw.use(wired, "drop").timed_out, "the call that is let through")
        assert "is given a pause" in raw.use(wired, "echo").content, "it failed, so the breaker stays open"
        wait_until(lambda: raw.use(wired, "echo").ok, "the next one")
        assert raw.use(wired, "echo").ok
        assert raw.calls()[6:] == ["drop", "echo", "echo"]


def test_one_call_at_a_time_tests_a_server_that_failed(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, recovery: None
) -> None:
    with services(tmp_path, redis_server.url, upstream, raw) as wired:
        assert raw.use(wired, "echo").ok
        for _ in range(5):
            assert raw.use(wired, "drop").timed_out
        good: list[Any] = []

        def probe() -> None:
            wait_until(lambda: (told := raw.use(wired, "slow")).ok and not good.append(told), "the probe")

        beside = threading.Thread(target=probe)
        beside.start()
        wait_until((raw.folder / "slow").exists, "the call that is let through")
        assert "is given a pause" in raw.use(wired, "echo").content
        (raw.folder / "go").touch()
        beside.join(30)
        assert good and raw.use(wired, "echo").ok


def test_waits_cut_short_and_a_server_that_is_away_open_no_breaker(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, well: Raw
) -> None:
    away = Raw("http", tmp_path / "away", "away")
    with services(tmp_path, redis_server.url, upstream, raw, away) as wired:
        assert raw.use(wired, "echo").ok
        for _ in range(6):
            assert raw.use(wired, "hang", seconds=0.2).timed_out
            assert "is not reached now" in away.use(wired, "echo").content
        assert raw.use(wired, "echo").ok
        with away.running():
            wait_until(lambda: away.use(wired, "echo").ok, "the server")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.mcp.connections.MOST_CONNECTIONS", 2)


def keep(wired: Services, user_id: str) -> None:
    key = Seal(wired.settings.secret_key.get_secret_value(), PURPOSE)
    wired.infra.db.transact(lambda tx: rows.set_credential(tx, "raw", user_id, key.close(f"tok_{user_id}")))


def users(wired: Services) -> list[str]:
    connections = wired.mcp.connections
    assert isinstance(connections, Connections)
    return [key.user_id for key in connections._open]


def use(wired: Services, user_id: str, tool: str = "echo") -> Any:
    return house.use(wired, f"raw.{tool}", user_id, text="hi")


def test_connection_of_the_user_who_called_longest_ago_is_closed(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, few: None
) -> None:
    with services(tmp_path, redis_server.url, upstream, raw, credentials="user") as wired:
        for user in ("ada", "bob", "eve"):
            keep(wired, user)
        for user in ("ada", "bob", "ada", "eve"):
            assert use(wired, user).content == "hi"
        assert users(wired) == ["ada", "eve"]
        assert use(wired, "bob").ok and users(wired) == ["eve", "bob"]


def test_connection_with_a_call_is_not_closed_nor_the_newest(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, few: None
) -> None:
    with services(tmp_path, redis_server.url, upstream, raw, credentials="user") as wired:
        for user in ("ada", "bob", "eve"):
            keep(wired, user)
        good: list[str] = []
        busy = [
            threading.Thread(target=lambda user=user: good.append(use(wired, user, "slow").content))
            for user in ("ada", "bob")
        ]
        for each in busy:
            each.start()
        wait_until(lambda: raw.calls().count("slow") == 2, "both calls")
        assert use(wired, "eve").ok and len(users(wired)) == 3
        (raw.folder / "go").touch()
        for each in busy:
            each.join(30)
        assert good == ["hi", "hi"]
        assert use(wired, "eve").ok and len(users(wired)) == 2


def test_a_user_without_a_credential_takes_nothing_from_others(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw
) -> None:
    with services(tmp_path, redis_server.url, upstream, raw, credentials="user") as wired:
        keep(wired, "ada")
        for _ in range(6):
            assert "there is none for you" in use(wired, "eve").content
        assert use(wired, "ada").ok
        assert Key("raw", "") not in wired.mcp.connections._open
