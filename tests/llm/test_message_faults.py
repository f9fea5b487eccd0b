"""Streams that are not valid Unicode or break the rules of the Messages API."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelError
from service.llm.message_builder import MessageBuilder
from service.types import Usage
from tests.llm.messages import DEEP, block, call_of, content, reply_of, whole_reply
from tests.llm.wire_server import end, start, text_events


def fed(*events: dict[str, Any] | bytes) -> tuple[str, MessageBuilder]:
    """Everything that was told, and the answer. `json.dumps` writes what orjson refuses."""
    answer = MessageBuilder()
    data = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    return "".join([answer.feed(one) for one in data]), answer


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("\ud83d", "\ude00"), "\U0001f600"),
        (("a\ud83d", "\ude00b"), "a\U0001f600b"),
        (("a\ud83d", "b"), "a\ufffdb"),
        (("\ude00", "a"), "\ufffda"),
        (("a\ud83d",), "a\ufffd"),
        (("\ud83d", "", "\ude00"), "\U0001f600"),
        (("\ud83d\ud83d", "\ude00\ude00"), "\ufffd\U0001f600\ufffd"),
        (("a\0b",), "a\ufffdb"),
        (("zw\xf6lf \U0001f600",), "zw\xf6lf \U0001f600"),
    ],
)
def test_halves_of_a_character_are_joined_or_replaced(pieces: tuple[str, ...], text: str) -> None:
    told, answer = fed(start(), *text_events(*pieces), *end())
    assert told == text == answer.reply(None, 0.0).text
    thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    _, answer = fed(start(), *block(0, {"type": "thinking", "thinking": ""}, *thoughts), *end())
    assert answer.reply(None, 0.0).content[0]["thinking"] == text
    assert whole_reply([{"type": "text", "text": "".join(pieces)}]).text == text


@pytest.mark.parametrize("data", [b'{"type": "ping", "x": "\xff"}', b'{"type": "ping", "x": "\xed\xa0\xbd"}'])
def test_bytes_that_are_no_utf_8_are_read_all_the_same(data: bytes) -> None:
    told, _ = fed(start(), data, *text_events("a"), *end())
    assert told == "a"


def test_halves_in_tool_calls_and_names() -> None:
    raw = json.dumps({"k\ud83d": ["v\ude00", {"n": "\0"}]})
    _, answer = fed(start(), *call_of(raw, id="t\ud83d", name="n\ude00"), *end("tool_use"))
    [use] = answer.reply(None, 0.0).tool_uses
    assert (use["id"], use["name"]) == ("t\ufffd", "n\ufffd")
    assert use["input"] == {"k\ufffd": ["v\ufffd", {"n": "\ufffd"}]}
    _, answer = fed(start(), *call_of('{"a": "\ud83d', '\ude00"}'), *end("tool_use"))
    assert answer.reply(None, 0.0).tool_uses[0]["input"] == {"a": "\U0001f600"}


@given(st.lists(st.text(st.characters(), max_size=3), max_size=8), st.sampled_from(["text", "call", "odd"]))
def test_whatever_is_written_can_be_kept(pieces: list[str], kind: str) -> None:
    events = text_events(*pieces) if kind == "text" else call_of(*pieces)
    if kind == "odd":
        events = block(0, {"type": "odd", "x": "".join(pieces)})
    told, answer = fed(start(), *events, *end("tool_use"))
    orjson.dumps([told, answer.reply(None, 0.0).content])


FAULTS: list[list[Any]] = [
    [{"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "a"}}],
    *[text_events("a", index=index) for index in (-1, 1_000, "0", True, None, 1.0, [])],  # type: ignore[arg-type]
    [*text_events("a"), *text_events("b")],
    block(0, {"type": "text", "text": 7}),
    block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": None}),
    block(0, {"type": 7}),
    [{"type": "content_block_start", "index": 0, "content_block": None}],
    [{"type": "message_delta", "delta": {"stop_reason": 7}}],
    [{"type": "message_delta"}],
    [{"type": "error"}],
    [[]],
    [None],
    [{}],
    [block(0, {"type": "odd", "x": json.loads(DEEP)})[0]],
]


@pytest.mark.parametrize("events", FAULTS)
def test_unusable_events_are_a_model_error_with_their_usage(events: list[Any]) -> None:
    answer = MessageBuilder()
    answer.feed(orjson.dumps(start()))
    with pytest.raises(ModelError):
        for event in events:
            answer.feed(json.dumps(event).encode())
    assert answer.usage == Usage(20, 1)


def test_blocks_may_come_in_any_order() -> None:
    events = [*text_events("b", index=1), *text_events("a", index=0)]
    assert [one["text"] for one in reply_of(*events).content] == ["a", "b"]


def test_blocks_of_a_later_version_are_kept_as_they_began() -> None:
    deltas = [{"type": "text_delta", "text": "x"}, {"type": "rhyme_delta", "rhyme": 7}]
    told, answer = fed(start(), *block(0, {"type": "poem", "lines": []}, *deltas), *end())
    assert told == "" and answer.reply(None, 0.0).content == [{"type": "poem", "lines": []}]
    assert answer.written == "x"


def test_a_second_start_or_end_changes_nothing() -> None:
    other = start({"input_tokens": 5, "output_tokens": 1})
    told, answer = fed(start(), *text_events("a"), other, *end(), *end(output_tokens=9), *text_events("b"))
    reply = answer.reply(None, 0.0)
    assert (told, reply.text, reply.usage, reply.usage_source) == ("a", "a", Usage(20, 4), "estimated")


def test_stream_without_a_start_has_the_requested_model() -> None:
    answer = MessageBuilder("claude-haiku-5-5")
    for event in [*text_events("a"), *end()]:
        answer.feed(orjson.dumps(event))
    reply = answer.reply(None, 0.0)
    assert (reply.model, reply.text, reply.usage_source) == ("claude-haiku-5-5", "a", "estimated")


def test_malformed_citations_are_left_out() -> None:
    good = {"type": "char_location", "cited_text": "x"}
    cited = [good, None, {"cited_text": 7}, "x"]
    deltas = [{"type": "citations_delta", "citation": one} for one in cited]
    text = {"type": "text", "text": "a"}
    assert content(*block(0, dict(text), *deltas)) == [{**text, "citations": [good]}]
    assert whole_reply([{**text, "citations": cited}]).content == [{**text, "citations": [good]}]
