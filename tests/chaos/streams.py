"""Clients that follow runs to the last event across reconnects, and checks of the received events."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from tests.chaos.test_worker_killed import Reader
from tests.conftest import Slipway, wait_until

LAST = ("run.completed", "run.failed", "run.cancelled")
Told = tuple[int, str, dict[str, Any]]


class Listener(threading.Thread):
    """Client of one streamed run; reconnects with `Last-Event-ID` when the connection ends early."""

    def __init__(self, server: Slipway, client: httpx2.Client, number: int) -> None:
        super().__init__(daemon=True)
        self.reader = Reader(server, kill_at=-1, client=client)
        self.question = {"input": f"Question {number} {time.time_ns()}", "cache": "bypass", "tier": "simple"}

    def run(self) -> None:
        with suppress(AssertionError):  # no last event came: `told` shows it
            self.reader.read(self.question, agent="assistant")

    @property
    def told(self) -> list[Told]:
        return self.reader.events

    @property
    def words(self) -> int:
        return sum(name == "text.delta" for _, name, _ in self.told)


@contextmanager
def listening(server: Slipway, count: int, words: int = 3) -> Iterator[list[Listener]]:
    """Open streams, each with some text received; all are awaited at the end."""
    with server.client() as signed_in:
        headers = {"Authorization": signed_in.headers["Authorization"]}
    limits = httpx2.Limits(max_keepalive_connections=0)
    clients = [
        httpx2.Client(base_url=server.url, timeout=60, trust_env=False, headers=headers, limits=limits)
        for _ in range(count)
    ]
    listeners = [Listener(server, client, number) for number, client in enumerate(clients)]
    for listener in listeners:
        listener.start()
    wait_until(lambda: all(one.words >= words for one in listeners), "words for everybody")
    yield listeners
    for listener in listeners:
        listener.join(120)
    for client in clients:
        client.close()


def text_of(told: list[Told]) -> str:
    """Assemble the answer as `docs/events.md` tells clients to."""
    standing: list[tuple[int, str]] = []
    for seq, name, data in told:
        if name == "text.delta":
            standing.append((seq, data["text"]))
        elif name == "run.resumed":
            standing = [(at, text) for at, text in standing if at <= data["from_seq"]]
    return "".join(text for _, text in standing)


def fault_of(told: list[Told]) -> str | None:
    """Return the fault of a client's events; None: one whole answer, one last event, in order."""
    names = [name for _, name, _ in told]
    if [name for name in names if name in LAST] != names[-1:] or names[-1] != "run.completed":
        return f"last events: {[name for name in names if name in LAST]}, ends with {names[-1:]}"
    seqs = [seq for seq, name, _ in told if name != "reconnect"]
    if seqs != sorted(set(seqs)):
        return f"numbers: {seqs}"
    result = told[-1][2]
    if (text := text_of(told)) != result["output"]:
        return f"text {text!r} but output {result['output']!r}"
    calls = {word.partition(".")[0] for word in text.split()}
    return None if len(calls) == 1 else f"words of calls {sorted(calls)}: {text!r}"
