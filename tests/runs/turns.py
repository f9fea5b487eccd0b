"""Turns of real runs, by hand."""

from __future__ import annotations

import threading
from typing import Any

from service.history import CUT_OFF, public
from service.types import Event, Run, RunEvent
from service.wiring import Services
from tests.conftest import wait_until
from tests.llm.wire_server import Exchange
from tests.runs import inside

# Note in a prompt, after the question of a turn that was cancelled.
CANCELLED = f'<turn status="cancelled">{CUT_OFF}</turn>'


def begin(wired: Services) -> str:
    row = wired.sessions.new(inside.ADA, "probe", "", None)
    wired.infra.db.transact(lambda tx: wired.sessions.create(tx, row))
    return str(row["id"])


def turn(wired: Services, session_id: str, question: str, **fields: Any) -> Run:
    return inside.ask(wired, question, session_id=session_id, **fields)


def shown(wired: Services, session_id: str) -> list[dict[str, Any]]:
    return [public(row) for row in wired.sessions.transcript(session_id)]


def said(wired: Services, session_id: str) -> list[tuple[str, str, str]]:
    return [(each["role"], each["content"], each["status"]) for each in shown(wired, session_id)]


def history_of(exchange: Exchange) -> list[tuple[str, str]]:
    """Return roles and texts of a model call's messages."""
    told = []
    for each in exchange.json["messages"]:
        content = each["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        told.append((each["role"], "|".join(block.get("text", block.get("type")) for block in blocks)))
    return told


class Listener(threading.Thread):
    """A client of a stream; its run is under way once the test has `words`."""

    def __init__(self, wired: Services, session_id: str, question: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        request = inside.request(question, session_id=session_id, **fields)
        self.started, self._told = wired.runs.start.stream(inside.ADA, request, None, "req")
        self.run_id = self.started.run.id
        self.events: list[RunEvent] = []
        self.start()
        self._wired = wired

    def run(self) -> None:
        for batch in self._told:
            self.events += batch
        if self.started.place is not None:
            self.started.place.give()

    def wait_for(self, text: str) -> None:
        def told() -> bool:
            events = self._wired.runs.queries.so_far(self.run_id)
            return text in "".join(e.data["text"] for e in events if e.name is Event.TEXT_DELTA)

        wait_until(told, "the text")

    def last(self) -> Event:
        self.join(20)
        assert not self.is_alive()
        return self.events[-1].name
