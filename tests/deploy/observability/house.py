"""Slipway with a task worker, watched by Prometheus, whose parts can be broken one by one."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos.conftest import Postgres
from tests.conftest import Model, RedisServer, Slipway
from tests.deploy.observability.prometheus import Prometheus
from tests.guardian import children_of
from tests.jobs.house import TaskWorker, until
from tests.loopback_proxy import LoopbackProxy, Way

SECONDS = 100.0  # until an alert fires or clears
AGENTS = {
    "flaky": ("pattern: react\ntools: [breaks]\n", "breaks"),
    "careful": ("pattern: react\ntools: [changes]\napprovals: [changes]\n", "changes"),
    "looper": ("pattern: react\ntools: [looks]\nlimits: {steps: 60, seconds: 120}\n", "looks"),
    "costly": ("pattern: single\ntier: {default: complex, ask: false}\n", ""),
    "reader": ("pattern: single\ncontext_tokens: 8000\nmax_tokens: 300\n", ""),
    "guarded": ("pattern: single\nguardrails: {input: {personal_data: redact}}\n", ""),
}
TOOLS = {
    "breaks": '@tool(idempotent=True, risk="read")\ndef breaks(place: str) -> str:\n    """Break at a place."""\n'
    '    raise ToolFailed("broken")\n',
    "changes": '@tool(risk="write", trusted=True)\ndef changes(text: str) -> str:\n    """Change a text."""\n'
    '    return "changed"\n',
    "looks": '@tool(idempotent=True, risk="read", trusted=True)\ndef looks(place: str) -> str:\n    """Look."""\n'
    '    return "nothing"\n',
}
# A million dollars for a billion tokens: an answer of a few hundred costs over half a dollar.
PRICES = """\
prices:
  - model: claude-opus-5-5
    from: 2026-11-01
    tariffs:
      - {above_tokens: 0, input: "1000", output: "1000",
         cache_write_5m: "1000", cache_write_1h: "1000", cache_read: "1000"}
    batch_discount: 0
    server_tool_use: "0"
    source: a test
"""


def add_agents(folder: Path) -> None:
    """Write the agents of these tests beside those in `folder`."""
    for name, (spec, uses) in AGENTS.items():
        agent = folder / name
        agent.mkdir()
        tier = "" if "tier" in spec else "tier: {default: simple, ask: false}\n"
        (agent / "agent.yaml").write_text(f"description: {name}, for tests of alerts\n{tier}{spec}")
        (agent / "prompt.md").write_text(
            "You answer what you are asked. " * 300
        )  # enough for the provider's cache
        if uses:
            (agent / "tools.py").write_text(f"from service.tools import ToolFailed, tool\n\n\n{TOOLS[uses]}")


class LimitingProxy(LoopbackProxy):
    """Proxy to the model; while `low`, answers tell that a twentieth of the input tokens is left."""

    low = False
    _FULL = b"anthropic-ratelimit-input-tokens-remaining: 1000000000"
    _LOW = b"anthropic-ratelimit-input-tokens-remaining: 0050000000"

    def _pass(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(
                    piece.replace(self._FULL, self._LOW) if self.low and way == "answered" else piece
                )
        self._end(source)
        self._end(sink)


@dataclass
class House:
    """All parts."""

    server: Slipway
    model: Model
    proxy: LimitingProxy
    redis: RedisServer
    postgres: Postgres
    worker: TaskWorker
    home: Path
    prometheus: Prometheus
    token: str  # of the admin

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Call as the admin; a lost connection is none of the test's matter."""
        headers = {"Authorization": self.token}
        return httpx2.request(
            method, f"{self.server.url}{path}", headers=headers, timeout=60, trust_env=False, **options
        )

    def ask(self, agent: str, text: str, door: str = "invoke", **more: Any) -> httpx2.Response:
        body = {"input": f"{text} ({time.time_ns()})", "cache": "bypass", **more}
        return self.call("POST", f"/v1/agents/{agent}/{door}", json=body)

    def many(self, count: int, agent: str, text: str, **more: Any) -> list[httpx2.Response]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.ask(agent, text, **more), range(count)))

    def decide(self, decision: str) -> None:
        """Decide all that waits for a person."""
        for asked in self.call("GET", "/v1/approvals?status=pending&limit=100").json()["data"]:
            self.call("POST", f"/v1/approvals/{asked['id']}", json={"decision": decision})

    def fires(self, *names: str, doing: Callable[[], object] | None = None) -> None:
        """Do it again and again until each of these alerts has fired."""
        seen: set[str] = set()

        def fired() -> bool:
            seen.update(self.prometheus.firing())
            return set(names) <= seen

        with self._meanwhile(doing):
            until(fired, " and ".join(names), SECONDS)

    def clears(self, *names: str, doing: Callable[[], object] | None = None) -> None:
        with self._meanwhile(doing):
            until(lambda: not set(names) & self.prometheus.firing(), f"the end of {names}", SECONDS)

    @contextmanager
    def _meanwhile(self, doing: Callable[[], object] | None) -> Iterator[None]:
        over = threading.Event()

        def work() -> None:
            while doing is not None and not over.wait(0.2):
                with suppress(httpx2.HTTPError):
                    doing()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        """Stop a process and its children for the length of the block."""
        pids = (pid, *children_of(pid))
        for each in pids:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in reversed(pids):
                os.kill(each, signal.SIGCONT)
