from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelError
from service.llm.sse_data import SseData
from service.types import Usage
from tests.llm.messages import DEEP, answer_of, block, call_of, content, delta, reply_of, whole_reply
from tests.llm.wire_server import sse, start, text_events


@given(st.lists(st.integers(0, 400)), st.booleans())
def test_events_survive_any_cut(cuts: list[int], windows: bool) -> None:
    wire = b": a comment\n\n" + b"".join(map(sse, [start(), *text_events("zwölf", "two\nlines")]))
    wire = wire.replace(b"\n", b"\r\n") if windows else wire
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    chunks = [wire[a:b] for a, b in pairwise(places)]
    parser = SseData()
    found = [orjson.loads(data) for chunk in chunks for data in parser.feed(chunk)]
    assert found == [start(), *text_events("zwölf", "two\nlines")]


def test_data_over_several_lines_is_one_event() -> None:
    assert [orjson.loads(data) for data in SseData().feed(b'data: {"a":\ndata: 1}\n\n')] == [{"a": 1}]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.llm.sse_data.MAX_EVENT_BYTES", 1000)
    parser = SseData()
    with pytest.raises(ModelError):
        for _ in range(20):
            parser.feed(b"data: " + b"a" * 100)


def test_text_with_citations() -> None:
    citation = {"type": "char_location", "cited_text": "x", "document_index": 0}
    begin = {"type": "text", "text": "", "citations": None}
    delta = {"type": "citations_delta", "citation": citation}
    events = block(
        0, begin, {"type": "text_delta", "text": "a"}, delta, {"type": "text_delta", "text": "b"}, delta
    )
    assert content(*events) == [{"type": "text", "text": "ab", "citations": [citation, citation]}]


def test_thinking_with_its_signature() -> None:
    thought = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "thinking_delta", "thinking": "m"}]
    signed = {"type": "signature_delta", "signature": "sig"}
    events = block(0, {"type": "thinking", "thinking": "", "signature": ""}, *thought, signed)
    assert content(*events) == [{"type": "thinking", "thinking": "hmm", "signature": "sig"}]


def test_hidden_thinking_keeps_only_its_signature() -> None:
    signed = {"type": "signature_delta", "signature": "sig"}
    events = block(0, {"type": "thinking", "thinking": "", "signature": ""}, signed)
    assert content(*events) == [{"type": "thinking", "thinking": "", "signature": "sig"}]


def test_tool_calls_side_by_side() -> None:
    def pieces(*texts: str) -> list[dict[str, Any]]:
        return [{"type": "input_json_delta", "partial_json": text} for text in texts]

    one = block(
        1, {"type": "tool_use", "id": "t1", "name": "calc", "input": {}}, *pieces("", '{"a": ', "[1, 2]}")
    )
    two = block(2, {"type": "tool_use", "id": "t2", "name": "now", "input": {}}, *pieces(""))
    assert content(*text_events("Let me see."), *one, *two, stop_reason="tool_use") == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "t1", "name": "calc", "input": {"a": [1, 2]}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}},
    ]


def test_server_tool_blocks_pass_through() -> None:
    result = {
        "type": "web_search_tool_result",
        "tool_use_id": "s1",
        "content": [{"type": "web_search_result"}],
    }
    piece = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
    use = block(0, {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}, piece)
    assert content(*use, *block(1, result))[1] == result
    assert content(*use)[0]["input"] == {"query": "x"}


@pytest.mark.parametrize("stop_reason", ["max_tokens", "end_turn", "refusal", "pause_turn", "new_reason"])
@pytest.mark.parametrize("pieces", [(), ("{",), ('{"amount": 1',), ('{"amount": 1}',)])
def test_no_call_of_an_answer_that_was_cut_off_is_made(stop_reason: str, pieces: tuple[str, ...]) -> None:
    reply = reply_of(*text_events("Paying"), *call_of(*pieces), stop_reason=stop_reason)
    assert reply.tool_uses == [] and reply.text == "Paying" and not reply.unreadable
    assert len(reply.content) == (1 if pieces in (("{",), ('{"amount": 1',)) else 2)


UNREADABLE = [
    "{",
    '{"amount": 1',
    "[]",
    '"text"',
    "null",
    "7",
    '{"a": NaN}',
    '{"a": -Infinity}',
    '{"a": 1e999}',
]
UNREADABLE += [f'{{"a": {DEEP}}}', '{"a": ' * 2_000, "nonsense"]


@pytest.mark.parametrize("written", UNREADABLE)
def test_arguments_that_cannot_be_read_are_marked(written: str) -> None:
    reply = reply_of(*text_events("Paying"), *call_of(written), *call_of("{}", index=2, id="t2"))
    assert reply.unreadable == {"t1"}
    assert [(use["id"], use["input"]) for use in reply.tool_uses] == [("t1", {}), ("t2", {})]
    orjson.dumps(reply.content)


@pytest.mark.parametrize("given", [None, [], "text", 7, float("nan"), {"a": float("inf")}])
def test_arguments_of_a_whole_answer_are_held_to_the_same(given: Any) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "pay", "input": given}
    reply = whole_reply([use])
    assert reply.unreadable == {"t1"} and reply.tool_uses == [{**use, "input": {}}]
    deep = whole_reply([{**use, "input": {"a": json.loads(DEEP)}}])
    assert deep.unreadable == {"t1"}
    without = whole_reply([{name: use[name] for name in ("type", "id", "name")}])
    assert without.unreadable == {"t1"} and without.tool_uses[0]["input"] == {}


@pytest.mark.parametrize(("given", "handed_on"), [(None, ""), (7, ""), ("", ""), ("x" * 500, "x" * 500)])
def test_ids_and_names_are_text_whatever_they_were(given: Any, handed_on: str) -> None:
    [use] = reply_of(*call_of('{"a": 1}', id=given, name=given)).tool_uses
    assert use == {"type": "tool_use", "id": handed_on, "name": handed_on, "input": {"a": 1}}


def test_a_readable_call_is_not_marked() -> None:
    reply = reply_of(*call_of('{"a": [1, ', "2.5, null, true]}"))
    assert not reply.unreadable and reply.tool_uses[0]["input"] == {"a": [1, 2.5, None, True]}


# --- usage ----------------------------------------------------------------------------------------


def test_unknown_events_and_deltas_are_ignored() -> None:
    news: list[dict[str, Any]] = [{"type": "ping"}, {"type": "weather_report", "sunny": True}]
    events = block(
        0,
        {"type": "text", "text": ""},
        {"type": "mood_delta", "mood": "x"},
        {"type": "text_delta", "text": "a"},
    )
    assert content(*news, *events) == [{"type": "text", "text": "a"}]


def test_usage_is_cumulative_not_added_up() -> None:
    first: dict[str, Any] = {
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "output_tokens": 1,
        "cache_creation_input_tokens": 8,
    }
    first["cache_creation"] = {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 5}
    later = {"output_tokens": 70, "input_tokens": None, "server_tool_use": {"web_search_requests": 2}}
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {**later, "output_tokens": 40},
    }
    answer = answer_of(start(first), delta, {**delta, "usage": later})
    assert answer.usage == Usage(10, 70, 5, 8, 3, 2)


@pytest.mark.parametrize(
    ("first", "last", "source", "usage"),
    [
        ({"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 7}, "reported", Usage(10, 7)),
        ({"input_tokens": 10, "output_tokens": 1}, None, "estimated", Usage(10, 1)),
        ({"input_tokens": 10, "output_tokens": 1}, {}, "estimated", Usage(10, 1)),
        ({"input_tokens": 10, "output_tokens": 1}, {"output_tokens": None}, "estimated", Usage(10, 1)),
        ({"input_tokens": 10, "output_tokens": 5}, {"output_tokens": 0}, "estimated", Usage(10, 5)),
        ({"input_tokens": 10}, {"output_tokens": 0}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": -3}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": "many"}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": 2.5}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": True}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": 10**12}, "estimated", Usage(10, 0)),
        ({"input_tokens": 10}, {"output_tokens": 7, "input_tokens": 0}, "estimated", Usage(10, 7)),
        ({"input_tokens": 10}, [], "estimated", Usage(10, 0)),
        ({"input_tokens": 10, "cache_creation": 7}, {"output_tokens": 7}, "estimated", Usage(10, 7)),
        ({"input_tokens": 10, "cache_creation": None}, {"output_tokens": 7}, "reported", Usage(10, 7)),
        ({"cache_read_input_tokens": 9}, {"output_tokens": 7}, "estimated", None),
        ({"input_tokens": 0}, {"output_tokens": 7}, "estimated", None),
        (
            {"input_tokens": 0, "cache_read_input_tokens": 9},
            {"output_tokens": 7},
            "reported",
            Usage(0, 7, 9),
        ),
        (None, {"output_tokens": 7}, "estimated", None),
    ],
)
def test_missing_usage_is_estimated(first: Any, last: Any, source: str, usage: Usage | None) -> None:
    begin = start()
    begin["message"]["usage"] = first
    answer = answer_of(begin, *text_events("text"), delta(last))
    assert answer.usage == usage
    assert answer.reply(None, 0.0).usage_source == source


def test_an_answer_of_nothing_may_have_used_none() -> None:
    assert whole_reply([], usage={"input_tokens": 3, "output_tokens": 0}).usage_source == "reported"
    silent = whole_reply([{"type": "text", "text": "a"}], usage={"input_tokens": 3, "output_tokens": 0})
    assert silent.usage_source == "estimated"


def test_usage_of_nothing() -> None:
    assert answer_of().usage is None


def test_written_holds_every_kind_of_output() -> None:
    thought = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm "})
    answer = answer_of(start(), *thought, *text_events("text ", index=1), *call_of('{"a"', index=2))
    assert answer.written == 'hm text {"a"'
