"""npm's `@modelcontextprotocol/server-everything`, the field's own server for tests of clients."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import RedisServer, free_port, process, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.mcp.house import use

pytestmark = pytest.mark.slow
PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"
TOOLS = {name: {"risk": "read"} for name in ("echo", "get-sum", "get-tiny-image", "get-structured-content")}
LONG = "trigger-long-running-operation"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command of the server, installed by npm."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no node on this machine")
    home = tmp_path_factory.mktemp("everything")
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", PACKAGE]
    if subprocess.run(command, cwd=home, capture_output=True, timeout=200).returncode:
        pytest.skip(f"npm cannot install {PACKAGE} here")
    return [node, str(home / "node_modules" / "@modelcontextprotocol/server-everything/dist/index.js")]


@pytest.fixture(params=["stdio", "streamableHttp"])
def spec(program: list[str], request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    tools = {**TOOLS, LONG: {"risk": "write", "timeout_seconds": 1}}
    if request.param == "stdio":
        yield {"command": [*program, "stdio"], "tools": tools}
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    with process([*program, "streamableHttp"], {"PORT": str(port)}, stderr=subprocess.DEVNULL):
        wait_until(lambda: httpx2.get(url).status_code, "the server")
        yield {"url": url, "tools": tools}


def test_tools_of_server_everything(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, spec: dict[str, Any]
) -> None:
    with house.services(tmp_path, redis_server.url, upstream, {"any": spec}, "any.echo") as wired:
        assert "hello" in use(wired, "any.echo", message="hello").content
        assert "5" in use(wired, "any.get-sum", a=2, b=3).content
        assert "[image left out]" in use(wired, "any.get-tiny-image").content
        assert "temperature" in use(wired, "any.get-structured-content", location="Chicago").content
        wrong = use(wired, "any.get-sum", a="two")
        assert not wrong.ok and not wrong.timed_out
        assert use(wired, f"any.{LONG}", duration=60, steps=2).timed_out
        assert use(wired, "any.echo", message="on").ok
