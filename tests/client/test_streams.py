"""Streams of a real server, through cut connections and a killed server."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
from slipway_client import Login, Slipway

from tests import conftest as parts
from tests.conftest import slipway_server
from tests.cutter import Cutter

LOGIN = ("demo", "demo-password")
pytestmark = pytest.mark.usefixtures("quick")


def kept(client: Slipway, run_id: str) -> list[tuple[int, str]]:
    """Numbers and names of the events that the server has of a run."""
    with client.runs.events(run_id) as events:
        return [(event.seq, event.type) for event in events]


def test_connections_cut_at_any_byte_lose_and_repeat_nothing(
    server: parts.Slipway, model: parts.Model
) -> None:
    model.control(token_ms=4)
    cutter = Cutter(server.port)
    with (
        cutter.standing(),
        Slipway(login=Login(*LOGIN), base_url=f"http://127.0.0.1:{cutter.port}") as client,
    ):
        client.account.me()
        for first in (1, 150, 700):
            before = cutter.cuts
            cutter.cut_after("answered", first)
            with client.agents.stream("assistant", "[offline tokens=60] Tell.", cache="bypass") as events:
                told = []
                for event in events:
                    told.append((event.seq, event.type))
                    if len(told) in (5, 20, 40):
                        cutter.cut_after("answered", 97 * len(told))
            result = events.result()
            assert cutter.cuts - before >= 3
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
