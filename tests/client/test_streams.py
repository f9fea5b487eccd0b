"""Streams of a real server, through cut connections and a killed server."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from slipway_client import Login, Slipway

from tests import conftest as parts
from tests.conftest import slipway_server
from tests.cutter import Cutter
from tests.loopback_proxy import Way

LOGIN = ("demo", "demo-password")
pytestmark = pytest.mark.usefixtures("quick")


def kept(client: Slipway, run_id: str) -> list[tuple[int, str]]:
    """Numbers and names of the events that the server has of a run."""
    with client.runs.events(run_id) as events:
        return [(event.seq, event.type) for event in events]


class Unkind(Cutter):
    """Network that cuts one connection after the other, each after so many bytes of answers."""

    def __init__(self, target: int, counts: Sequence[int]) -> None:
        super().__init__(target)
        self._counts = iter(counts)

    def cut_next(self) -> None:
        if count := next(self._counts, None):
            self.cut_after("answered", count)

    def _allowed(self, way: Way, size: int) -> int | None:
        allowed = super()._allowed(way, size)
        if allowed is not None:
            self.cut_next()
        return allowed


def test_connections_cut_at_any_byte_lose_and_repeat_nothing(
    server: parts.Slipway, model: parts.Model
) -> None:
    model.control(token_ms=4)
    counts = (1, 150, 700, 450, 613, 900, 1_731, 2_000)  # some within the head of an answer
    network = Unkind(server.port, counts)
    url = f"http://127.0.0.1:{network.port}"
    with network.standing(), Slipway(login=Login(*LOGIN), base_url=url) as client:
        client.account.me()
        network.cut_next()
        with client.agents.stream("assistant", "[offline tokens=80] Tell.", cache="bypass") as events:
            told = [(event.seq, event.type) for event in events]
        result = events.result()
        assert network.cuts == len(counts)
        assert told == kept(client, result.run_id)
        assert events.text == result.output


def test_a_server_that_is_killed_and_started_again_ends_no_stream(
    scratch: Path, redis_server: parts.RedisServer, model: parts.Model
) -> None:
    model.control(token_ms=25)
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "8"}
    home = scratch / "killed"
    with ExitStack() as stack:
        first = stack.enter_context(slipway_server(home, redis_server.url, model.url, **settings))
        door = Cutter(first.port)
        stack.enter_context(door.standing())
        client = stack.enter_context(Slipway(login=Login(*LOGIN), base_url=f"http://127.0.0.1:{door.port}"))
        with client.agents.stream("assistant", "[offline tokens=50] Tell.", cache="bypass") as events:
            told = []
            for event in events:
                told.append((event.seq, event.type))
                if len(told) == 8:
                    os.killpg(first.child.pid, signal.SIGKILL)
                    again = slipway_server(home, redis_server.url, model.url, migrated=False, **settings)
                    door.turn_to(stack.enter_context(again).port)
        result = events.result()
        assert (result.status, events.text) == ("succeeded", result.output)
        assert [number for number, _ in told] == sorted({number for number, _ in told})
        assert told[-1] == kept(client, result.run_id)[-1]
