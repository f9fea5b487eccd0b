"""npm's `@modelcontextprotocol/server-everything`, the field's own server for tests of clients."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import RedisServer, free_port, process, wait_until
from tests.guardian import children_of
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


def test_server_everything_hangs_and_is_killed(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, spec: dict[str, Any]
) -> None:
    """One over stdio is started again; one over HTTP is its operator's to start."""
    with house.services(tmp_path, redis_server.url, upstream, {"any": spec}, "any.echo") as wired:
        assert use(wired, "any.echo", message="before").ok
        [pid] = [pid for pid in descendants(os.getpid()) if "server-everything" in command_of(pid)]
        os.kill(pid, signal.SIGSTOP)
        hung = use(wired, "any.echo", seconds=2.0, message="hung")
        assert not hung.ok and hung.timed_out
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: use(wired, "any.echo", message="on").ok, "the server's return")
        os.kill(pid, signal.SIGKILL)
        if "command" in spec:
            wait_until(lambda: use(wired, "any.echo", message="on").ok, "the server's return")
        else:
            refused = wait_until(
                lambda: "is not reached" in (told := use(wired, "any.echo", message="on")).content and told,
                "the loss",
            )
            assert not refused.timed_out


def descendants(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(below for child in children for below in descendants(child))]


def command_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    return words[1] if words[0].endswith("node") else ""
