"""The newsroom in pieces: the answer, the bill and the caps of the newsroom in one, on both databases."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.agent_server import house
from tests.agent_server.house import Piece
from tests.agent_server.room import Room, room
from tests.conftest import ROOT, RedisServer, children_of, wait_until

SAME = ("status", "output", "sources", "stop_reason")


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Piece]:
    """`research` and `writer`, as one program."""
    folders = [ROOT / "agents" / name for name in ("research", "writer")]
    with house.served(tmp_path / "pieces.log", folders) as running:
        yield running


@pytest.fixture
def in_pieces(tmp_path: Path, redis_server: RedisServer, url: str, pieces: Piece) -> Iterator[Room]:
    with room(tmp_path / "pieces", redis_server, url, pieces) as found:
        yield found


@pytest.fixture
def in_one(tmp_path: Path, redis_server: RedisServer) -> Iterator[Room]:
    with room(tmp_path / "one", redis_server, f"sqlite:///{tmp_path}/one.db") as found:
        yield found


def test_newsroom_in_pieces_gives_the_ledger_rows_of_newsroom_in_one(in_one: Room, in_pieces: Room) -> None:
    one, pieces = in_one.ask(), in_pieces.ask()
    assert one["status"] == "succeeded", one.get("error")
    assert {name: pieces[name] for name in SAME} == {name: one[name] for name in SAME}, pieces.get("error")
    assert in_pieces.calls() == in_one.calls()
    assert pieces["usage"] == one["usage"]
    in_pieces.assert_books_balance()


@pytest.mark.parametrize("agent", ["research", "writer"])
def test_a_piece_that_is_asked_by_itself_costs_the_same(in_one: Room, in_pieces: Room, agent: str) -> None:
    one, pieces = in_one.ask(agent), in_pieces.ask(agent)
    assert {name: pieces[name] for name in SAME} == {name: one[name] for name in SAME}, pieces.get("error")
    assert in_pieces.calls() == in_one.calls()


def test_one_cap_holds_over_all_pieces(in_pieces: Room) -> None:
    """A cap with room for two trees of `newsroom`, and six runs at once."""
    with in_pieces.server.client() as client:
        put = {"amount_usd": "1.20", "period": "day"}
        assert client.put("/v1/admin/budgets/agent:newsroom", json=put).status_code == 200
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(lambda number: in_pieces.ask(), range(6)))
    codes = {run.get("code") or (run.get("error") or {}).get("code") for run in runs}
    assert codes <= {None, "budget_exceeded", "not_found"}
    assert any(run.get("status") == "succeeded" for run in runs)
    in_pieces.assert_books_balance()


def test_piece_that_is_killed_in_mid_answer_leaves_the_books_right(in_pieces: Room, pieces: Piece) -> None:
    in_pieces.model.control(first_token_ms=1_500)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        stack.callback(in_pieces.model.control)
        asked = pool.submit(in_pieces.ask)
        wait_until(lambda: '"event":"tool_call"' in pieces.log.read_text(), "research at its work")
        (worker,) = children_of(pieces.child.pid)
        os.kill(worker, signal.SIGKILL)
        run = asked.result(120)
    assert run["status"] in ("succeeded", "failed")  # the lead may join what is left
    in_pieces.assert_books_balance()
    in_pieces.model.control()
    assert in_pieces.ask()["status"] == "succeeded"  # by the process that took its place
