"""Servers that hang or flood, at every stage: calls to others go on, and the server is used again once it is well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.mcp.messages import Pace
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.mcp.raw import Raw

KINDS = pytest.mark.parametrize("raw", ["http", "stdio"], indirect=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"CONNECT_SECONDS": 1.5, "LIST_SECONDS": 1.0, "RELIST_SECONDS": 0.3}.items():
        monkeypatch.setattr(f"service.mcp.connection.{name}", seconds)
    monkeypatch.setattr("service.mcp.connections.RECOVERY", 1.0)


@pytest.fixture
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Raw]:
    server = Raw(request.param, tmp_path / "raw")
    with server.running():
        yield server


@pytest.fixture
def well(tmp_path: Path) -> Raw:
    """Server beside the one that misbehaves."""
    return Raw("stdio", tmp_path / "well", "well")


@pytest.fixture
def wired(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, raw: Raw, well: Raw
) -> Iterator[Services]:
    servers = {"raw": raw.spec(), "well": well.spec()}
    with house.services(tmp_path, redis_server.url, upstream, servers, "raw.echo, well.echo") as services:
        yield services


def serves(server: Raw, wired: Services) -> None:
    """Wait for an answer: a busy machine may take longer to connect than these tests' short time-outs."""
    wait_until(lambda: server.use(wired, "echo").content == "hi", "an answer")


@KINDS
@pytest.mark.parametrize("stage", ["initialize", "tools/list"])
@pytest.mark.parametrize("fault", ["hang", "error"])
def test_server_that_does_not_get_ready(raw: Raw, well: Raw, wired: Services, stage: str, fault: str) -> None:
    raw.set(**{stage: fault})
    refused = raw.use(wired, "echo", seconds=10.0)
    assert not refused.ok and not refused.timed_out and "is not reached now" in refused.content
    serves(well, wired)
    assert raw.calls() == []
    raw.set()
    wait_until(lambda: raw.use(wired, "echo").ok, "the server's return")


@KINDS
def test_server_that_hangs_at_its_list_later_comes_back(raw: Raw, wired: Services) -> None:
    serves(raw, wired)
    raw.set(**{"tools/list": "hang"})
    refused = wait_until(lambda: not (found := raw.use(wired, "echo")).ok and found, "the loss")
    assert not refused.timed_out
    raw.set()
    wait_until(lambda: raw.use(wired, "echo").ok, "the server's return")


@KINDS
@pytest.mark.parametrize("fault", ["million", "pages"])
def test_a_million_tools_take_nothing_from_others(raw: Raw, well: Raw, wired: Services, fault: str) -> None:
    raw.set(**{"tools/list": fault})
    refused = raw.use(wired, "echo", seconds=10.0)
    assert not refused.ok and not refused.timed_out and raw.calls() == []
    serves(well, wired)
    raw.set()
    wait_until(lambda: raw.use(wired, "echo").ok, "the server's return")


@pytest.mark.parametrize(
    ("raw", "tool"),
    [
        *(("stdio", tool) for tool in ("huge", "notes", "blank", "endless", "noise")),
        *(("http", tool) for tool in ("huge", "notes", "comments", "bomb")),
    ],
    indirect=["raw"],
)
def test_a_flood_takes_neither_memory_nor_other_calls(
    raw: Raw, well: Raw, wired: Services, tool: str
) -> None:
    serves(raw, wired)
    serves(well, wired)
    before = resident()
    flooded = raw.use(wired, tool, seconds=3.0)
    assert not flooded.ok and flooded.timed_out
    serves(well, wired)
    assert resident() - before < 100 * 2**20
    wait_until(lambda: raw.use(wired, "echo", seconds=5.0).ok, "the server's return")


def resident() -> int:
    """Memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_pace_slows_messages_down_once_the_first_are_through(monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> None:
        monkeypatch.setattr("service.mcp.messages.anyio.sleep", sleep)
        pace = Pace()
        for _ in range(2_000):
            await pace.take(0)
        assert slept == []
        for _ in range(300):
            await pace.take(0)
        assert slept
        await pace.take(64 * 2**20)
        assert max(slept) > 5

    anyio.run(main)


@KINDS
def test_a_server_that_is_killed_is_reached_again(
    raw: Raw, tmp_path: Path, wired: Services, request: Any
) -> None:
    serves(raw, wired)
    os.kill(int((raw.folder / "pid").read_text()), 9)
    if raw.kind == "http":
        with raw.running():
            wait_until(lambda: raw.use(wired, "echo").ok, "the server's return")
    else:
        wait_until(lambda: raw.use(wired, "echo").ok, "the server's return")
    assert "pay" not in raw.calls()
