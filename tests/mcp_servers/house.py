"""Mail and calendar as a program of the test's own, and what is in their stores."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp_types import CallToolResult

from tests.conftest import PYTHON, free_port, process, wait_until

KEY = "slipway/idempotency-key"


@dataclass
class Desk:
    """Running servers. `start` again after `kill` gives them the same addresses and stores."""

    home: Path
    ports: dict[str, int] = field(default_factory=lambda: {"mail": free_port(), "calendar": free_port()})
    child: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Addresses, as `mcp.yaml` reads them."""
        return {f"{name.upper()}_URL": self.url(name) for name in self.ports}

    def url(self, server: str) -> str:
        return f"http://127.0.0.1:{self.ports[server]}/mcp"

    @contextmanager
    def start(self) -> Iterator[Desk]:
        options = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]
        command = [PYTHON, "-m", "mcp_servers", *options]
        with process(command, {"SLIPWAY_HOME": str(self.home)}, stdout=subprocess.DEVNULL) as self.child:
            for port in self.ports.values():
                health = f"http://127.0.0.1:{port}/health"
                wait_until(lambda health=health: httpx2.get(health).status_code == 200, "mail and calendar")  # type: ignore[misc]
            yield self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Neither reads nor answers meanwhile; what is sent waits in its sockets."""
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.child.pid, signal.SIGCONT)

    def outbox(self) -> list[dict[str, Any]]:
        return self._rows("mail", "SELECT * FROM outbox ORDER BY sent")

    def bookings(self) -> list[dict[str, Any]]:
        return self._rows("calendar", "SELECT * FROM bookings ORDER BY start")

    def _rows(self, store: str, statement: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.home / "mcp" / f"{store}.db")) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(statement)]


def call(url: str, tool: str, key: str = "", **arguments: Any) -> CallToolResult:
    """Call a tool as an MCP client does."""

    async def called() -> CallToolResult:
        async with Client(url) as client:
            result = await client.call_tool(tool, arguments, meta={KEY: key} if key else None)  # type: ignore[misc]
            assert isinstance(result, CallToolResult)
            return result

    return anyio.run(called)


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    return str(getattr(block, "text", ""))
