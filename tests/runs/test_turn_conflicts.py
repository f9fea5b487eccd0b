"""Turns of a busy session: interrupting, queueing and refused ones, on either database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import SessionBusy, SlipwayError
from service.store import users
from service.types import Caller, Event, RunStatus
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.scripted import message, says, stream_of
from tests.runs.test_kept_output import and_then_silence
from tests.runs.turns import CANCELLED, Listener, begin, history_of, said, turn


def test_interrupting_cancels_and_goes_on_from_there(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon"), message(says("Short."))]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    run = turn(kept_in_each, session_id, "A short one!", on_conflict="interrupt")
    assert heard.last() is Event.RUN_CANCELLED and run.status is RunStatus.SUCCEEDED
    cancelled = kept_in_each.runs.queries.get(heard.run_id)
    assert cancelled.cost_nano > 0, "what it used is billed"
    assert said(kept_in_each, session_id)[1] == ("assistant", "Once upon", "cancelled")
    assert history_of(upstream.requests[-1]) == [
        ("user", f"A long story.|{CANCELLED}"),
        ("assistant", "Once upon"),
        ("user", "A short one!"),
    ]


def test_a_task_that_interrupts_is_queued(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon"), stream_of("Short.")]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    request = inside.request("A short one!", session_id=session_id, on_conflict="interrupt")
    task = kept_in_each.runs.start.queue(inside.ADA, request, None, "req").run
    assert heard.last() is Event.RUN_CANCELLED
    assert kept_in_each.runs.execution.take_up(task.id)
    assert said(kept_in_each, session_id)[-1] == ("assistant", "Short.", "succeeded")


def test_interrupt_leaves_queued_turns(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon")]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    request = inside.request("Later.", session_id=session_id, on_conflict="queue")
    task = kept_in_each.runs.start.queue(inside.ADA, request, None, "req").run
    assert turn(kept_in_each, session_id, "Now!", on_conflict="interrupt").status is RunStatus.SUCCEEDED
    assert kept_in_each.runs.queries.get(task.id).status is RunStatus.QUEUED
    assert kept_in_each.runs.execution.take_up(task.id)
    asked = [content for role, content, _ in said(kept_in_each, session_id) if role == "user"]
    assert asked == ["A long story.", "Now!", "Later."]


def test_turn_of_another_user_is_not_interrupted(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon")]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    eve = Caller("usr_eve", "eve", "admin")
    row = {"id": eve.user_id, "username": "eve", "password_hash": "", "role": "admin", "created_at": 0}
    kept_in_each.infra.db.transact(lambda tx: users.insert(tx, row))
    request = inside.request("Now!", session_id=session_id, on_conflict="interrupt")
    for ask in (kept_in_each.runs.start.invoke, kept_in_each.runs.start.queue):
        with pytest.raises(SlipwayError) as refused:
            ask(eve, request, None, "req")
        assert refused.value.code == "not_found"
    assert kept_in_each.runs.queries.get(heard.run_id).status is RunStatus.RUNNING
    kept_in_each.runs.cancellation.cancel(heard.started.run)
    heard.join(20)


def test_many_interruptions_at_once_end_and_the_newest_wins(
    kept_in_each: Services, upstream: WireServer
) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon")]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    ends: list[str] = []

    def interrupt(n: int) -> None:
        try:
            run = turn(kept_in_each, session_id, f"Turn {n}", on_conflict="interrupt")
            ends.append(str(run.status))
        except SessionBusy:
            ends.append("busy")

    threads = [threading.Thread(target=interrupt, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ends) == 5 and "succeeded" in ends and set(ends) <= {"succeeded", "cancelled", "busy"}
    assert heard.last() is Event.RUN_CANCELLED
    assert kept_in_each.sessions.unfinished(session_id) == []
    kept = [each for each in said(kept_in_each, session_id) if each[0] == "user"]
    assert len(kept) == 1 + sum(end != "busy" for end in ends)


def test_on_conflict_applies_per_request(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Once upon")]
    heard = Listener(kept_in_each, session_id, "A long story.")
    heard.wait_for("Once upon")
    doors: list[Callable[..., Any]] = [
        kept_in_each.runs.start.invoke,
        kept_in_each.runs.start.stream,
        kept_in_each.runs.start.queue,
    ]
    for ask in doors:
        with pytest.raises(SessionBusy):
            ask(inside.ADA, inside.request("Now?", session_id=session_id, on_conflict="reject"), None, "req")
    ends: list[RunStatus] = []

    def wait() -> None:
        ends.append(turn(kept_in_each, session_id, "Then.", on_conflict="queue").status)

    waiting = threading.Thread(target=wait)
    waiting.start()
    kept_in_each.runs.cancellation.cancel(heard.started.run)
    waiting.join(30)
    assert ends == [RunStatus.SUCCEEDED]
    heard.join(20)
