"""Turns of real runs: messages stored in the session and sent to the model, on either database."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Invalid
from service.store import runs as rows
from service.store import schema
from service.types import Event, RunStatus
from service.wiring import Services
from tests.llm.wire_server import Handler, WireServer, error
from tests.runs.scripted import call, calls, message, says
from tests.runs.test_kept_output import and_then_silence, says_and_calls
from tests.runs.turns import CANCELLED, Listener, begin, history_of, said, shown, turn


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
    upstream.script += [and_then_silence("Half an ", "opinion"), message(says("Whole."))]
    heard = Listener(kept_in_each, session_id, "Tell me.")
    heard.wait_for("Half an opinion")
    kept_in_each.runs.cancellation.cancel(heard.started.run)
    assert heard.last() is Event.RUN_CANCELLED
    turn(kept_in_each, session_id, "Go on.")
    assert said(kept_in_each, session_id)[:2] == [
        ("user", "Tell me.", "cancelled"),
        ("assistant", "Half an opinion", "cancelled"),
    ]
    assert history_of(upstream.requests[-1]) == [
        ("user", f"Tell me.|{CANCELLED}"),
        ("assistant", "Half an opinion"),
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
                cut_off = (by_id[at]["role"], by_id[at]["status"]) == ("user", "cancelled")
                way += [CANCELLED, by_id[at]["content"]] if cut_off else [by_id[at]["content"]]
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
