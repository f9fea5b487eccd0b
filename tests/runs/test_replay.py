"""Replay of an interrupted step: published events are kept if they match, else voided."""

from __future__ import annotations

from service.runs.replay import Replay
from service.types import Event, RunEvent


def delta(text: str, seq: int = 0) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": text}, seq)


def again(told: Replay, *pieces: str) -> list[RunEvent]:
    return [event for piece in pieces for event in told.sift(Event.TEXT_DELTA, {"text": piece})]


CUT = (RunEvent(Event.STEP_STARTED, {"step": 2}, 5), delta("The answer", 6), delta(" is", 7))


def test_the_same_text_just_goes_on() -> None:
    told = Replay(CUT, stored_seq=4)
    assert told.last_seq == 7
    assert told.sift(Event.STEP_STARTED, {"step": 2}) == []
    assert again(told, "The ans", "wer is", " 42") == [delta(" 42")]


def test_pieces_may_be_cut_elsewhere() -> None:
    assert again(Replay(CUT, 4), "The answer is 4", "2") == [delta(" 4"), delta("2")]


def test_different_text_voids_published_events() -> None:
    void = RunEvent(Event.RUN_RESUMED, {"from_seq": 4})
    assert again(Replay(CUT, 4), "The ans", "wers are", " 42") == [
        void,
        delta("The answers are"),
        delta(" 42"),
    ]


def test_shorter_text_voids_published_events() -> None:
    told = Replay(CUT, 4)
    assert again(told, "The") == []
    usage = {"step": 2}
    void = RunEvent(Event.RUN_RESUMED, {"from_seq": 4})
    assert told.sift(Event.USAGE, usage) == [void, delta("The"), RunEvent(Event.USAGE, usage)]


def test_that_the_run_was_resumed_does_not_end_the_text() -> None:
    told = Replay(CUT, 4)
    resumed = {"from_seq": 7}
    assert told.sift(Event.RUN_RESUMED, resumed) == [RunEvent(Event.RUN_RESUMED, resumed)]
    assert again(told, "The answer is", "!") == [delta("!")]


def test_text_that_was_void_already_is_not_compared() -> None:
    voided = (*CUT, RunEvent(Event.RUN_RESUMED, {"from_seq": 4}, 8), delta("Another", 9))
    assert again(Replay(voided, 4), "Another one") == [delta(" one")]


def test_published_tool_call_is_not_published_again() -> None:
    call = {"call_id": "toolu_1", "name": "calculator", "arguments": {}}
    told = Replay((RunEvent(Event.TOOL_CALLED, call, 5),), 4)
    assert told.sift(Event.TOOL_CALLED, call) == []
    assert told.sift(Event.TOOL_CALLED, {**call, "call_id": "toolu_2"}) != []


def test_when_redis_lost_the_stream_all_that_is_not_kept_is_void() -> None:
    told = Replay(CUT, stored_seq=4, lost=True)
    assert told.resumes_after == 4
    assert told.last_seq > 7
    assert again(told, "The answer", " is 42") == [delta("The answer"), delta(" is 42")]


def test_each_attempt_publishes_its_own_void() -> None:
    before = (*CUT, RunEvent(Event.RUN_RESUMED, {"from_seq": 4}, 8))
    again_void = RunEvent(Event.RUN_RESUMED, {"from_seq": 4})
    told = Replay(before, stored_seq=4, lost=True, attempts=2)
    assert told.sift(Event.RUN_RESUMED, again_void.data) == [again_void]


def test_wait_for_money_is_told_once_and_voids_no_text() -> None:
    waits = RunEvent(Event.BUDGET_REQUIRED, {"step": 2}, 8)
    told = Replay((*CUT, waits), 4)
    assert told.sift(waits.name, {"step": 2}) == []
    assert told.sift(waits.name, {"step": 3}) == [RunEvent(waits.name, {"step": 3})]
    assert again(told, "The answer is 42") == [delta(" 42")]
