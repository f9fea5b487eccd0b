from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelError
from service.llm.answer import Answer, SseData, usage_of
from service.types import Usage
from tests.llm.wire_server import end, sse, start, text_events


def answer_of(*events: dict[str, Any]) -> Answer:
    answer = Answer()
    for event in events:
        answer.feed(orjson.dumps(event))
    return answer


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    middle = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [
        {"type": "content_block_start", "index": index, "content_block": begin},
        *middle,
        {"type": "content_block_stop", "index": index},
    ]


def content(*events: dict[str, Any], stop_reason: str = "end_turn") -> list[dict[str, Any]]:
    return answer_of(start(), *events, *end(stop_reason)).reply("req_1", 1.0).content


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
    monkeypatch.setattr("service.llm.answer.MAX_EVENT_BYTES", 1000)
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


def test_a_tool_call_that_was_cut_off_is_left_out() -> None:
    piece = {"type": "input_json_delta", "partial_json": '{"amount": 1'}
    events = block(1, {"type": "tool_use", "id": "t1", "name": "pay", "input": {}}, piece)
    assert content(*text_events("Paying"), *events, stop_reason="max_tokens") == [
        {"type": "text", "text": "Paying"}
    ]
    with pytest.raises(ModelError):
        content(*events, stop_reason="tool_use")


def test_what_later_versions_add_is_passed_over() -> None:
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


def test_usage_that_cannot_be_read_leaves_none_to_estimate_from() -> None:
    answer = answer_of(start({"input_tokens": 10}))
    with pytest.raises(ModelError):
        answer.feed(orjson.dumps({"type": "message_delta", "delta": {}, "usage": {"output_tokens": "many"}}))
    assert answer.usage is None


def test_usage_of_nothing() -> None:
    assert answer_of().usage is None
    assert usage_of({"input_tokens": 3, "cache_creation": None}) == Usage(3)


def test_written_holds_every_kind_of_output() -> None:
    thought = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm "})
    call = {"type": "input_json_delta", "partial_json": '{"a"'}
    answer = answer_of(
        start(), *thought, *text_events("text ", index=1), *block(2, {"type": "tool_use"}, call)
    )
    assert answer.written == 'hm text {"a"'
