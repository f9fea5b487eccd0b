"""A real offline model in a process of its own, and the official SDK to talk to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = "claude-sonnet-5"


class Offline:
    """One running program: its address, an SDK client, and its test doors."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid
        self.raw = httpx2.Client(base_url=url, timeout=10, trust_env=False, headers={"x-api-key": "offline"})
        self.client = anthropic.Anthropic(
            base_url=url, api_key="offline", max_retries=0, timeout=10, open_telemetry=False
        )

    def ask(self, messages: Any, **options: Any) -> Any:
        """messages.create with the dull parts filled in; a string is one user turn."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.client.messages.create(
            **{"model": MODEL, "max_tokens": 500, "messages": messages} | options
        )

    def text(self, messages: Any, **options: Any) -> str:
        return "".join(b.text for b in self.ask(messages, **options).content if b.type == "text")

    def stats(self) -> Any:
        return self.raw.get("/stats").json()

    def control(self, **knobs: Any) -> Any:
        return self.raw.post("/control", json=knobs).raise_for_status().json()


Start = Callable[..., Offline]


def _launch(*options: str) -> tuple[subprocess.Popen[str], Offline]:
    command = [sys.executable, "-m", "offline_model", "--port", "0", "--die-with-parent", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Offline(process.stdout.readline().split()[-1], process.pid)


def _stop(process: subprocess.Popen[str], offline: Offline) -> None:
    offline.raw.close()
    offline.client.close()
    process.terminate()
    process.wait(60)
    if process.stdout:
        process.stdout.close()


@pytest.fixture(scope="session")
def shared_offline() -> Iterator[Offline]:
    process, offline = _launch("--min-cache-tokens", "20", "--batch-delay-ms", "50")
    yield offline
    _stop(process, offline)


@pytest.fixture
def offline(shared_offline: Offline) -> Offline:
    """The shared program with fresh counters and nothing set."""
    shared_offline.control()
    shared_offline.raw.post("/stats/reset")
    return shared_offline


@pytest.fixture
def start() -> Iterator[Start]:
    """Start one with settings of its own."""
    started: list[tuple[subprocess.Popen[str], Offline]] = []

    def launch(*options: str) -> Offline:
        process, one = _launch(*options)
        started.append((process, one))
        return one

    yield launch
    for process, one in started:
        _stop(process, one)
