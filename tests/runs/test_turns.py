"""Turns of real runs: what stays in the session, and what the model is told of it, on either database."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Invalid, SessionBusy, SlipwayError
from service.history import public
from service.store import runs as rows
from service.store import schema, users
from service.types import Caller, Event, Run, RunEvent, RunStatus
from service.wiring import Services
from tests.conftest import wait_until
from tests.llm.wire_server import Exchange, Handler, WireServer, error
from tests.runs import inside
from tests.runs.scripted import call, calls, message, says, stream_of
from tests.runs.test_kept_output import and_then_silence, says_and_calls


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
    """What a model call was told: roles and texts."""
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

        wait_until(told, "the text", 10)

    def last(self) -> Event:
        self.join(20)
        assert not self.is_alive()
        return self.events[-1].name


def test_rejected_turn_is_stored_and_left_out_of_the_prompt(
    kept_in_each: Services, upstream: WireServer
) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [error(400, "invalid_request_error"), message(says("Four."))]
    failed = turn(kept_in_each, session_id, "Two and two?")
    assert failed.status is RunStatus.FAILED
    turn(kept_in_each, session_id, "Try again.")
    assert said(kept_in_each, session_id) == [
        ("user", "Two and two?", "failed"),
        ("user", "Try again.", "succeeded"),
        ("assistant", "Four.", "succeeded"),
    ]
    assert history_of(upstream.requests[-1]) == [("user", "Try again.")], "what was refused is not told again"


def looks(n: int) -> Handler:
    """A model that calls a tool once more: three times are too many."""
    return calls(says(f"Looking {n}. "), call("echo", {"text": "a"}, f"toolu_{n}_{random.random()}"))


def test_prompt_includes_a_failed_turn(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [
        says_and_calls("Looking. ", call("echo", {"text": "a"}, f"toolu_{n}")) for n in range(3)
    ]
    assert Listener(kept_in_each, session_id, "Find it.").last() is Event.RUN_FAILED
    turn(kept_in_each, session_id, "Where is it?")
    question, answer, *_ = shown(kept_in_each, session_id)
    assert (question["status"], answer["error_code"], len(answer["tools"])) == ("failed", "run_limit", 2)
    assert answer["content"] == "Looking. Looking. Looking. "
    told = history_of(upstream.requests[-1])
    assert told == [("user", "Find it."), ("assistant", answer["content"]), ("user", "Where is it?")]


def test_cancelled_turn_is_stored_with_its_partial_answer(
    kept_in_each: Services, upstream: WireServer
) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [and_then_silence("Half an ", "answer"), message(says("Whole."))]
    heard = Listener(kept_in_each, session_id, "Tell me.")
    heard.wait_for("Half an answer")
    kept_in_each.runs.cancellation.cancel(heard.started.run)
    assert heard.last() is Event.RUN_CANCELLED
    turn(kept_in_each, session_id, "Go on.")
    assert said(kept_in_each, session_id)[:2] == [
        ("user", "Tell me.", "cancelled"),
        ("assistant", "Half an answer", "cancelled"),
    ]
    assert history_of(upstream.requests[-1]) == [
        ("user", "Tell me."),
        ("assistant", "Half an answer"),
        ("user", "Go on."),
    ]


def test_tools_and_sources_can_be_read_again(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script += [calls(call("echo", {"text": "a"})), message(says("Said."))]
    run = turn(kept_in_each, session_id, "Say it.")
    question, answer = shown(kept_in_each, session_id)
    assert run.result is not None and run.result["tools"]
    assert (answer["tools"], answer["sources"]) == (run.result["tools"], run.result["sources"])
    assert question["tools"] == question["sources"] == []
    assert (question["run_id"], answer["parent_message_id"]) == (run.id, question["id"])


def test_a_turn_whose_agent_and_worker_are_gone_stays_too(
    kept_in_each: Services, upstream: WireServer
) -> None:
    session_id = begin(kept_in_each)
    upstream.script.append(and_then_silence("Half"))
    heard = Listener(kept_in_each, session_id, "Tell me.")
    heard.wait_for("Half")
    lost = sa.update(schema.runs).values(worker_id=None, losses=5)
    kept_in_each.infra.db.transact(lambda tx: tx.execute(lost))
    kept_in_each.runs.execution.take_up(heard.run_id)
    assert heard.last() is Event.RUN_FAILED
    found = said(kept_in_each, session_id)
    assert found[0] == ("user", "Tell me.", "failed")
    assert len(found) <= 2, "what the attempt that was overtaken came to is not added"


def test_a_task_sent_off_again_leaves_a_turn_of_its_own(kept_in_each: Services, upstream: WireServer) -> None:
    session_id = begin(kept_in_each)
    upstream.script.append(error(400, "invalid_request_error"))
    failed = turn(kept_in_each, session_id, "Why?")
    kept_in_each.infra.db.transact(lambda tx: rows.requeue(tx, failed.id, [RunStatus.FAILED], 0))
    assert kept_in_each.runs.execution.take_up(failed.id)
    assert said(kept_in_each, session_id) == [
        ("user", "Why?", "failed"),
        ("user", "Why?", "succeeded"),
        ("assistant", "Good day.", "succeeded"),
    ]


# --- conflicts --------------------------------------------------------------------------------------


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
    assert history_of(upstream.requests[-1])[-2:] == [("assistant", "Once upon"), ("user", "A short one!")]


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


# --- whatever happens -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_any_series_of_turns_is_a_conversation(
    kept_in_each: Services, upstream: WireServer, seed: int
) -> None:
    """Turns, branches, failures, cancellations and interruptions: nothing asked is lost, and history alternates."""
    chance, session_id = random.Random(seed), begin(kept_in_each)
    asked: list[str] = []
    for n in range(14):
        question = f"Question {n}"
        known = [each["id"] for each in shown(kept_in_each, session_id)]
        fields = {"parent_message_id": chance.choice(["", *known])} if known and chance.random() < 0.4 else {}
        asked.append(question)
        what = chance.choice(["answer", "fail", "refuse", "say nothing", "cancel", "interrupt"])
        if what in ("cancel", "interrupt"):
            upstream.script.append(and_then_silence(f"Begun {n}"))
            heard = Listener(kept_in_each, session_id, question, **fields)
            heard.wait_for(f"Begun {n}")
            if what == "cancel":
                kept_in_each.runs.cancellation.cancel(heard.started.run)
            else:
                asked.append(f"Instead of {n}")
                turn(kept_in_each, session_id, asked[-1], on_conflict="interrupt")
            assert heard.last() is Event.RUN_CANCELLED
            continue
        script = {
            "answer": [message(says(f"Answer {n}"))],
            "fail": [looks(n) for _ in range(3)],
            "refuse": [message(says("No."), stop="refusal")],
            "say nothing": [message(says(" "))],
        }
        upstream.script += script[what]
        turn(kept_in_each, session_id, question, **fields)
    found = shown(kept_in_each, session_id)
    assert [each["content"] for each in found if each["role"] == "user"] == asked
    assert [each["id"] for each in found] == sorted({each["id"] for each in found})
    before = {each["id"] for each in found} | {None}
    assert all(each["parent_message_id"] in before for each in found)
    for exchange in upstream.requests:
        told = history_of(exchange)
        assert [role for role, _ in told] == (["user", "assistant"] * len(told))[: len(told)] and len(
            told
        ) % 2
        assert all(text.strip() for _, text in told)
    assert_told_its_branch(upstream, found)


def assert_told_its_branch(upstream: WireServer, found: list[dict[str, Any]]) -> None:
    """Each question was asked with what leads to it, but for what the model refused, and with nothing else."""
    by_id = {each["id"]: each for each in found}
    last_asked = {history_of(each)[-1][1].split("|")[-1]: history_of(each) for each in upstream.requests}
    for each in found:
        if each["role"] != "user" or each["content"] not in last_asked:
            continue
        way = []
        at = each["parent_message_id"]
        while at is not None:
            if by_id[at]["error_code"] not in ("model_refused", "model_rejected"):
                way.append(by_id[at]["content"])
            at = by_id[at]["parent_message_id"]
        told = [text for _, texts in last_asked[each["content"]] for text in texts.split("|")]
        assert told == [*way[::-1], each["content"]]


def test_a_parent_needs_to_be_of_the_session(kept_in_each: Services, upstream: WireServer) -> None:
    session_id, other = begin(kept_in_each), begin(kept_in_each)
    turn(kept_in_each, other, "Elsewhere.")
    (question, _) = shown(kept_in_each, other)
    with pytest.raises(Invalid):
        turn(kept_in_each, session_id, "Here?", parent_message_id=question["id"])
    assert said(kept_in_each, session_id) == []
