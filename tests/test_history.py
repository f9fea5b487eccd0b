"""History of a session: ids, what a turn leaves, branches, and what a prompt has room for."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import history
from service.history import alternating, branch, message_id, message_seq, plan
from service.ids import first_id, new_id
from service.types import Run, RunRequest, RunStatus

# --- ids --------------------------------------------------------------------------------------------


def test_an_id_names_a_message_of_one_session() -> None:
    one, other = first_id("ses", 1_764_000_000_000), new_id("ses")
    ids = [message_id(one, seq) for seq in (1, 2, 31, 32, 33, 1_000, 2**24 - 1)]
    assert ids == sorted(ids) and len({len(new_id("run")), *map(len, ids)}) == 1
    assert [message_seq(one, id_) for id_ in ids] == [1, 2, 31, 32, 33, 1_000, 2**24 - 1]
    assert not any(message_seq(other, id_) for id_ in ids)
    assert max(ids) < message_id(new_id("ses"), 1), "a later session's come after"


@pytest.mark.parametrize("id_", ["", "msg_", "msg_" + "0" * 26, "msg_" + "ä" * 26, "run_" + "0" * 26])
def test_malformed_message_id_names_no_message(id_: str) -> None:
    assert message_seq(new_id("ses"), id_) is None


# --- what a turn leaves -----------------------------------------------------------------------------


def ended(status: RunStatus, output: str, **result: Any) -> Run:
    asked = RunRequest("a", ({"role": "user", "content": "Why?"},))
    run = Run("run_1", "usr_1", "a", "1", "invoke", asked, status=status)
    run.result = {"output": output, **result}
    return run


def test_sources_and_tools_stand_with_the_last_message() -> None:
    found: dict[str, Any] = {
        "sources": [{"title": "T", "uri": "u", "quote": "q"}],
        "tools": [{"name": "echo", "ok": True, "ms": 1}],
    }
    question, answer = history.turn_rows(ended(RunStatus.SUCCEEDED, "Because.", **found), 1)
    assert (question["sources"], question["tools"]) == (None, None)
    assert {name: answer[name] for name in found} == found
    (alone,) = history.turn_rows(ended(RunStatus.FAILED, " ", **found), 1)
    assert (alone["role"], alone["status"], alone["tools"]) == ("user", "failed", found["tools"])


def test_a_title_is_one_short_line() -> None:
    assert history.title_of("What\n is  this?") == "What is this?"
    assert history.title_of("word " * 40).endswith("word …")


# --- branches ---------------------------------------------------------------------------------------


def link(seq: int, parent: int | None = None, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "parent_seq": parent, "run_id": f"run_{seq}", "role": "user", "tokens": 1, **more}


def test_a_branch_is_the_way_back_to_its_beginning() -> None:
    rows = [link(1), link(2), link(3), link(4), link(5, 2), link(6), link(7, 0)]

    def way(last: int, after: int = 0) -> list[int] | None:
        found = branch([row for row in rows if row["seq"] > after], last, after)
        return found and [row["seq"] for row in found]

    assert (way(4), way(6), way(7)) == ([1, 2, 3, 4], [1, 2, 5, 6], [7])
    assert way(6, after=2) == [5, 6] and way(4, after=2) == [3, 4]
    assert way(6, after=4) is None and way(2, after=4) is None
    assert branch([], 0, 0) == branch([], 3, 3) == []


@given(st.integers(0, 2**32))
def test_every_branch_begins_at_the_first_message_and_only_goes_on(seed: int) -> None:
    chance = random.Random(seed)
    rows = [
        link(seq, chance.choice([None, None, chance.randrange(seq)]))
        for seq in range(1, chance.randint(2, 40))
    ]
    for last in range(1, len(rows) + 1):
        way = branch(rows, last, 0)
        assert way is not None and way[-1]["seq"] == last and history.parent_of(way[0]) == 0
        for before, row in pairwise(way):
            assert history.parent_of(row) == before["seq"]
            part = branch([each for each in rows if each["seq"] > before["seq"]], last, before["seq"])
            assert part == way[way.index(row) :]


# --- history ----------------------------------------------------------------------------------------


def said(*sizes: int) -> list[dict[str, Any]]:
    """Turns of a question and an answer, each of half so many tokens."""
    return [
        {
            "seq": 2 * n + part + 1,
            "run_id": f"run_{n}",
            "role": role,
            "content": f"{role} {n}",
            "tokens": size // 2,
        }
        for n, size in enumerate(sizes)
        for part, role in enumerate(("user", "assistant"))
    ]


def test_history_within_the_limit_is_complete() -> None:
    past = plan("", said(100, 100, 100), 300)
    assert (past.older, len(past.recent)) == ((), 6)


def test_older_turns_are_summarised_and_newer_ones_kept_whole() -> None:
    past = plan("They met.", said(100, 100, 100, 100), 310)
    assert [row["seq"] for row in past.older] == [1, 2, 3, 4, 5, 6]
    assert [row["seq"] for row in past.recent] == [7, 8]
    asked = past.summary_request()[0]["content"]
    assert "They met." in asked and "User: user 0" in asked and "user 3" not in asked
    told = past.summarised("They met, and then talked.").conversation([{"role": "user", "content": "Now?"}])
    assert [message["role"] for message in told] == ["user", "assistant", "user"]
    assert "and then talked" in told[0]["content"][0]["text"]
    assert told[0]["content"][1]["text"] == "user 3"


def test_a_turn_that_passes_the_budget_alone_is_summarised_too() -> None:
    past = plan("", said(100, 5_000), 1_000)
    assert (len(past.older), past.recent) == (4, ())
    told = past.summarised("All.").conversation([{"role": "user", "content": "Now?"}])
    assert [message["role"] for message in told] == ["user"]


def test_a_summary_that_was_not_to_be_had_leaves_the_one_before() -> None:
    past = plan("Before.", said(600, 600), 1_000).summarised("")
    assert past.summary == "Before."


def test_a_summary_cannot_end_its_element() -> None:
    told = plan("x</conversation>y", said(10), 100).conversation([])
    assert told[0]["content"][0]["text"].count("</conversation>") == 1


def test_history_begins_with_the_user_and_alternates() -> None:
    turns = [("assistant", "a"), ("user", "b"), ("user", "c"), ("assistant", "d")]
    told = alternating({"role": role, "content": text} for role, text in turns)
    assert [message["role"] for message in told] == ["user", "assistant"]
    assert [block["text"] for block in told[0]["content"]] == ["b", "c"]


def test_repeated_question_is_sent_once() -> None:
    turns = [("user", "a"), ("user", "b"), ("user", "b"), ("assistant", "c"), ("user", "b"), ("user", "b")]
    told = alternating({"role": role, "content": text} for role, text in turns)
    assert [message["role"] for message in told] == ["user", "assistant", "user"]
    assert [block["text"] for block in told[0]["content"]] == ["a", "b"]
    assert told[2]["content"] == "b"


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from("abc"))))
def test_whatever_was_said_alternates(turns: list[tuple[str, str]]) -> None:
    told = alternating({"role": role, "content": text} for role, text in turns)
    roles = [message["role"] for message in told]
    assert roles == (["user", "assistant"] * len(roles))[: len(roles)]


def test_summary_reads_only_its_share_of_the_messages() -> None:
    rows = [link(seq, tokens=history.MAX_MESSAGE // 4) for seq in range(1, 101)]
    past = plan("", rows, 1_000).truncated()
    assert [row["seq"] for row in past.older][-1] == 100
    assert len(past.older) == -(-history.MAX_TRANSCRIPT // history.MAX_MESSAGE)
