"""The benchmark's upstream as a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from benchmarks.load import Shot
from benchmarks.shots import post, prompt
from benchmarks.upstream import Wish
from tests.conftest import free_port, process, wait_until


@dataclass
class Upstream:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(f"{self.url}/stats", timeout=30, trust_env=False).json()
        return found

    def shot(self, wish: Wish, *, stream: bool = False, **changes: Any) -> Shot:
        """A request for what `wish` says; `changes` replace what is expected of the answer."""

        def body(number: int) -> dict[str, Any]:
            messages = [{"role": "user", "content": prompt(wish, number)}]
            return {"model": "claude-haiku-5-5", "messages": messages, "stream": stream}

        last = b"event: message_stop"
        expected: dict[str, Any] = {"must": b'"end_turn"'}
        if stream:
            expected = {"must": last, "first": b"content_block_delta", "end": last, "pieces": wish.deltas}
        return Shot(self.port, post("/v1/messages", lambda _: {}, body), **{**expected, **changes})


@pytest.fixture(scope="session")
def upstream_process() -> Iterator[Upstream]:
    server = Upstream(free_port())
    with process([sys.executable, "-m", "benchmarks.upstream", "--port", str(server.port)]):
        wait_until(server.stats, "the upstream")
        yield server


@pytest.fixture
def upstream(upstream_process: Upstream) -> Upstream:
    """With counters at nought."""
    httpx2.post(f"{upstream_process.url}/stats", timeout=30, trust_env=False).raise_for_status()
    return upstream_process
