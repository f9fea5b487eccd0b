"""Runs handed over or lost under a connected client: one whole answer, and one last event."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import Overloaded
from service.llm.client import ModelReply
from service.runs.attempt import Attempt
from service.runs.events.event_stream import stream_key
from service.runs.journal import Journal
from service.runs.replay import JUMP
from service.runs.slots import Handle, LeaseLost
from service.store import runs as rows
from service.types import Event, RunEvent, RunStatus, Usage
from service.wiring import Services
from tests.conftest import Model, RedisServer, wait_until
from tests.runs import inside

SLOW = "[offline tokens=40 token_ms=30] A long answer, please."


class Heard(threading.Thread):
    """A client of a stream that is driven by the thread that reads it."""

    def __init__(self, wired: Services) -> None:
        super().__init__(daemon=True)
        self.started, self._told = wired.runs.start.stream(
            inside.ADA, inside.request(SLOW, cache="bypass"), None, "req"
        )
        self.run_id = self.started.run.id
        self.events: list[RunEvent] = []

    def run(self) -> None:
        for batch in self._told:
            self.events += batch

    def words(self) -> int:
        return sum(event.name is Event.TEXT_DELTA for event in self.events)


@pytest.fixture
def heard(wired: Services) -> Iterator[Heard]:
    client = Heard(wired)
    client.start()
    wait_until(lambda: client.words() > 2, "some words")
    yield client
    client.join(20)


def stop(wired: Services, run_id: str) -> None:
    handle = wired.runs.supervisor._slots.get(run_id)
    assert handle is not None
    handle.stop("drain")


def assert_whole(wired: Services, client: Heard) -> None:
    client.join(20)
    assert not client.is_alive()
    names = [event.name for event in client.events]
    assert [name for name in names if name.is_last] == [Event.RUN_COMPLETED] == names[-1:]
    text = "".join(event.data["text"] for event in client.events if event.name is Event.TEXT_DELTA)
    assert text == client.events[-1].data["output"]
    seqs = [event.seq for event in client.events]
    assert seqs == list(range(1, len(seqs) + 1))


def given_back(wired: Services, run_id: str) -> bool:
    return wired.runs.queries.get(run_id).status is RunStatus.QUEUED


def test_handed_over_run_has_all_published_events_stored(wired: Services, heard: Heard) -> None:
    """So that who goes on needs no Redis to know it."""
    stop(wired, heard.run_id)
    wait_until(lambda: given_back(wired, heard.run_id), "the run in the queue")
    wired.infra.redis_store.client.delete(stream_key(heard.run_id))
    assert wired.runs.execution.take_up(heard.run_id)
    assert_whole(wired, heard)
    assert wired.runs.queries.get(heard.run_id).last_seq < JUMP


def test_a_run_that_cannot_be_handed_over_ends_all_the_same(wired: Services, heard: Heard) -> None:
    database = wired.settings.slipway_home / "slipway.db"
    handle = wired.runs.supervisor._slots.get(heard.run_id)
    with closing(sqlite3.connect(database, isolation_level=None)) as locks:
        locks.execute("BEGIN EXCLUSIVE")
        stop(wired, heard.run_id)
        wait_until(lambda: handle not in wired.runs.supervisor._slots.all(), "the thread to give it up")
    assert heard.is_alive() and wired.runs.queries.get(heard.run_id).status is RunStatus.RUNNING
    wired.infra.db.transact(lambda tx: rows.abandon(tx, heard.run_id, 1))  # as its supervisor does
    assert wired.runs.execution.take_up(heard.run_id)
    assert_whole(wired, heard)


def test_run_on_a_stopping_worker_is_refused(wired: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    driving = wired.runs.supervisor._slots.executing

    def stopping(handle: object) -> object:
        handle.stop("drain")  # type: ignore[attr-defined]
        return driving(handle)  # type: ignore[arg-type]

    monkeypatch.setattr(wired.runs.supervisor._slots, "executing", stopping)
    for begin in (lambda: inside.ask(wired), lambda: Heard(wired)):
        with pytest.raises(Overloaded):
            begin()


def test_follower_beyond_the_last_event_gets_the_end(wired: Services) -> None:
    run = inside.ask(wired)
    ((last,),) = list(wired.runs.queries.follow(run.id, after=run.last_seq + 7))
    assert (last.name, last.seq) == (Event.RUN_COMPLETED, run.last_seq + 8)


TOOLS = '''\
import os
import sqlite3

from service.tools import ToolContext, tool


@tool(risk="write", idempotent={idempotent})
def note(text: str, context: ToolContext) -> str:
    """Note a line. Meanwhile another worker takes the run over."""
    with open(os.environ["TEST_NOTES"], "a") as file:
        file.write(text + "\\n")
    with sqlite3.connect(os.environ["TEST_DATABASE"], timeout=10) as database:
        database.execute("UPDATE runs SET attempt = attempt + 1, worker_id = 'wrk_another'")
    return "noted"
'''
NOTES = "description: Notes.\npattern: react\ntools: [note]\n"


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_run_that_is_anothers_calls_no_tool_more(
    tmp_path: Path,
    redis_server: RedisServer,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    idempotent: bool,
) -> None:
    """Two calls in one step: another worker takes the run over during the first."""
    monkeypatch.setenv("TEST_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("TEST_DATABASE", str(tmp_path / "slipway.db"))
    folder = tmp_path / "agents" / "probe"
    folder.mkdir(parents=True)
    (folder / "tools.py").write_text(TOOLS.format(idempotent=idempotent))
    with inside.services(tmp_path, redis_server.url, model.url, {"probe": NOTES}) as wired:
        queued = wired.runs.start.queue(inside.ADA, inside.request("Note."), None, "req").run
        assert wired.infra.db.transact(lambda tx: rows.claim(tx, queued.id, wired.runs.execution.worker_id))
        run = wired.runs.queries.get(queued.id)
        journal = Journal(wired.infra.db, run, lambda events: None)
        uses = [
            {"type": "tool_use", "id": f"toolu_{text}", "name": "note", "input": {"text": text}}
            for text in ("one", "two")
        ]
        reply = ModelReply("m", uses, "tool_use", Usage())
        tool_execution, agent = (
            wired.runs.execution.runner.steps.tool_execution,
            wired.runs.start.new_runs.agent("probe"),
        )
        attempt = Attempt(run, journal, Handle(run.id, 60, 1))
        using = tool_execution.use(agent, attempt, {"step": 1}, reply)
        with pytest.raises(LeaseLost):
            list(using)
    assert (tmp_path / "notes").read_text() == "one\n"
