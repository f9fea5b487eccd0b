"""Servers without an SDK before an agent, over stdio and HTTP, which may be killed and started again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from service.tools import ToolResult
from service.wiring import Services
from tests.conftest import free_port, process, wait_until
from tests.mcp import house, raw_server

SERVER = Path(raw_server.__file__)
ACT = (
    *("pay", "slow_pay", "huge", "s401", "s404", "s500", "s502", "drop", "cut", "text"),
    *("accepted", "sse_end", "lost", "foreign"),
)


class Raw:
    """One server, by `stdio` or `http`. `name` is that of the file of servers."""

    def __init__(self, kind: str, folder: Path, name: str = "raw") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind, self.folder, self.name = kind, folder, name
        self.port = free_port()

    def spec(self, seconds: float = 20, **more: Any) -> dict[str, Any]:
        tools = {
            tool: {"risk": "write" if tool in ACT else "read", "timeout_seconds": seconds, "sends": False}
            for tool in raw_server.TOOLS
        }
        if self.kind == "http":
            return {"url": f"http://127.0.0.1:{self.port}/mcp", "tools": tools, **more}
        return {"command": [sys.executable, str(SERVER), str(self.folder)], "tools": tools, **more}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes] | None]:
        """Run the server; one over stdio is started by the service."""
        if self.kind == "stdio":
            yield None
            return
        command = [sys.executable, str(SERVER), str(self.folder), str(self.port)]
        with process(command, stderr=subprocess.DEVNULL) as child:
            wait_until(lambda: httpx2.get(f"http://127.0.0.1:{self.port}/").status_code == 405, "the server")
            yield child

    def set(self, **faults: str) -> None:
        (self.folder / "mode").write_text(json.dumps(faults))

    def use(self, wired: Services, tool: str, seconds: float = 60.0, **arguments: Any) -> ToolResult:
        """Call a tool as a run does."""
        return house.use(wired, f"{self.name}.{tool}", seconds=seconds, **{"text": "hi", **arguments})

    def calls(self) -> list[str]:
        return house.made(self.folder)

    def told(self) -> list[Any]:
        """Answers that the client gave to requests of the server."""
        file = self.folder / "told"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
