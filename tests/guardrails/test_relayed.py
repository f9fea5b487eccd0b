"""Guardrails on relayed bodies and events: the same in any chunking, and valid for the SDKs that read them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from service.errors import ModelError
from service.guardrails.filter import Refused
from service.guardrails.policy import parse_rails
from service.guardrails.relayed.chunks import ChunkScreen
from service.guardrails.relayed.events import EventScreen
from service.guardrails.relayed.responses import ResponseScreen
from service.guardrails.relayed.sides import Inward
from service.guardrails.relayed.texts import TooDeep, screened
from service.guardrails.vault import Vault
from service.llm.relay import ChatRequest, RelayedRequest, ResponsesRequest
from service.runs.relay_screen import RelayScreen
from tests.gateway.responses_upstream import events as response_events
from tests.guardrails.relayed import (
    MAIL,
    chunk,
    chunks_of,
    cut,
    events_of,
    outward,
    passed,
    read,
    read_chunks,
)

SEEDS = range(25)
ARGUMENTS = json.dumps({"to": MAIL, MAIL: ["x", {"deep": f"<{MAIL}>"}], "n": 1})
HIDDEN = ARGUMENTS.replace("@", "\\u0040")
REDACTS = parse_rails({"input": {"email": "redact", "card": "redact"}})
REFUSES = parse_rails({"output": {"email": "refuse"}})


def is_clean(value: Any) -> bool:
    told = json.dumps(value, ensure_ascii=False)
    return "schmidt" not in told and "example.com" not in told


@pytest.mark.parametrize("seed", SEEDS)
def test_no_piece_of_a_match_passes_in_any_event(seed: int) -> None:
    blocks = [
        ("thinking", f"I know {MAIL}, so"),
        ("text", f"Write to {MAIL}. Or an"),
        ("text", "na.schmidt@exam"),
        ("text", "ple.com, please."),
        ("tool_use", HIDDEN),
        ("text", f"Done: {MAIL}"),
    ]
    told = passed(EventScreen(outward()), events_of(blocks, seed))
    assert is_clean(told)
    found = read(told)
    assert [kind for kind, _ in found] == [kind for kind, _ in blocks]
    assert found[0][1] == "I know [EMAIL], so"
    assert "".join(text for _, text in found[1:4]) == "Write to [EMAIL]. Or [EMAIL], please."
    assert json.loads(found[4][1]) == {"to": "[EMAIL]", "[EMAIL]": ["x", {"deep": "<[EMAIL]>"}], "n": 1}
    assert found[5][1] == "Done: [EMAIL]"


def test_events_without_a_match_are_the_models_own() -> None:
    events = events_of([("text", "Good day. How are you?"), ("tool_use", '{"a": 1.50}')], 1)
    assert read(passed(EventScreen(outward()), events)) == read(events)
    start, last = passed(EventScreen(outward()), events)[0], passed(EventScreen(outward()), events)[-1]
    assert start is events[0] and last is events[-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_refused_stream_tells_the_text_before_and_nothing_after(seed: int) -> None:
    screen = EventScreen(outward(REFUSES))
    told = passed(screen, events_of([("text", f"Write to {MAIL}. Bye.")], seed))
    assert screen.refused is not None and screen.refused.kind == "email"
    pieces = [event["delta"]["text"] for event in told if event["type"] == "content_block_delta"]
    assert "".join(pieces) == "Write to "


@pytest.mark.parametrize("seed", SEEDS)
def test_no_piece_of_a_match_passes_in_any_chunk(seed: int) -> None:
    texts = {"reasoning_content": f"hm {MAIL}", "content": f"Write to {MAIL}", "refusal": f"no {MAIL}!"}
    told = passed(ChunkScreen(outward()), chunks_of(texts, [ARGUMENTS, HIDDEN], seed))
    assert is_clean(told)
    found, calls, ends = read_chunks(told)
    assert found == {
        "content": "Write to [EMAIL]",
        "reasoning_content": "hm [EMAIL]",
        "refusal": "no [EMAIL]!",
    }
    assert all(json.loads(call)["to"] == "[EMAIL]" for call in calls) and len(calls) == 2
    assert ends == ["stop"] and told[-1]["usage"]["prompt_tokens"] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_last_chunk_may_have_text_itself(seed: int) -> None:
    chunks = chunks_of({"content": f"Write to {MAIL[:9]}"}, [], seed)
    chunks[-2]["choices"][0]["delta"] = {"content": MAIL[9:]}
    told = passed(ChunkScreen(outward()), chunks)
    assert is_clean(told) and read_chunks(told)[0] == {"content": "Write to [EMAIL]"}


def test_no_piece_of_a_match_passes_in_any_event_of_a_response() -> None:
    for seed in SEEDS:
        chance = random.Random(seed)
        events = response_events(cut(f"Write to {MAIL}. Bye", chance), cut(HIDDEN, chance))
        events = [{**one, "sequence_number": number} for number, one in enumerate(events, 7)]
        told = passed(ResponseScreen(outward()), events)
        assert is_clean(told), seed
        assert [one["sequence_number"] for one in told] == list(range(7, 7 + len(told)))
        deltas = [one["delta"] for one in told if one["type"] == "response.output_text.delta"]
        calls = [one["delta"] for one in told if one["type"] == "response.function_call_arguments.delta"]
        final = told[-1]["response"]["output"]
        assert "".join(deltas) == final[0]["content"][0]["text"] == "Write to [EMAIL]. Bye"
        assert [json.loads(one)["to"] for one in calls] == ["[EMAIL]"] and calls[0] == final[1]["arguments"]
        kinds = [one["type"] for one in events if not one["type"].endswith(".delta")]
        assert [one["type"] for one in told if not one["type"].endswith(".delta")] == kinds


def test_values_of_the_client_come_back_and_keep_their_places() -> None:
    vault = Vault()
    body = {
        "model": "m",
        "system": [{"type": "text", "text": f"Answer {MAIL}.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": f"I am {MAIL}, not [EMAIL_1]."},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": MAIL, "signature": "s"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": f"{MAIL}"}]},
        ],
        "tools": [
            {"name": "send", "input_schema": {"type": "object", "properties": {"to": {"type": "string"}}}}
        ],
        "metadata": {"user_id": MAIL},
    }
    told = screened(body, Inward(REDACTS.input, vault))
    assert told["system"][0] == {**body["system"][0], "text": "Answer [EMAIL_1]."}  # type: ignore[index,dict-item]
    assert told["messages"][0]["content"] == "I am [EMAIL_1], not [TEXT_1]."
    assert told["messages"][1] is body["messages"][1], "what the model has signed"
    assert told["messages"][2]["content"][0]["content"] == "[EMAIL_1]"
    assert told["tools"] is body["tools"] and told["metadata"] == {"user_id": "[EMAIL_1]"}
    side = outward(REDACTS, vault)
    answer = {"content": [{"type": "text", "text": "For [EMAIL_1], not [TEXT_1] or [EMAIL_2]."}]}
    assert screened(answer, side)["content"][0]["text"] == f"For {MAIL}, not [EMAIL_1] or [EMAIL_2]."
    events = events_of([("text", "For [EMAIL_1]."), ("tool_use", '{"to": "[EMAIL_1]"}')], 3)
    found = read(passed(EventScreen(side), events))
    assert found[0][1] == f"For {MAIL}." and json.loads(found[1][1]) == {"to": MAIL}


def test_arguments_and_long_numbers_are_read() -> None:
    card = 4111111111111111
    call = {"type": "tool_use", "id": "t", "name": "pay", "input": {"card": card, "id": MAIL, "n": 7}}
    told = screened({"content": [call]}, outward(parse_rails({"output": {"personal_data": "mask"}})))
    assert told["content"][0]["input"] == {"card": "[CARD]", "id": "[EMAIL]", "n": 7}
    assert told["content"][0]["id"] == "t"


def test_tokens_beside_the_text_are_left_out() -> None:
    choice = {"message": {"content": "x"}, "logprobs": {"content": [{"token": MAIL}]}}
    assert screened({"choices": [choice]}, outward())["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("request_of", "stream"),
    [
        (RelayedRequest, b"data: no json\n\n"),
        (RelayedRequest, b"data: 7\n\n"),
        (ChatRequest, b'data: {"choices": [{"index": [1], "delta": {"content": "x"}}]}\n\n'),
        (ChatRequest, b'data: {"choices": [{"delta": {"tool_calls": [7]}}]}\n\n'),
        (
            ResponsesRequest,
            b'data: {"type": "response.output_text.delta", "output_index": [], "delta": "x"}\n\n',
        ),
        (ResponsesRequest, b"data: [" + b"[" * 170 + b"]" * 170 + b"]\n\n"),
    ],
)
def test_events_that_cannot_be_read_are_an_error_of_the_model(
    request_of: type[RelayedRequest], stream: bytes
) -> None:
    request = request_of(model="m", messages=[], max_tokens=5, stream=True)
    with pytest.raises(ModelError):
        RelayScreen(request, outward()).feed(stream)


def test_refused_body_and_too_deep_one() -> None:
    with pytest.raises(Refused):
        screened({"messages": [MAIL]}, Inward(parse_rails({"input": {"email": "refuse"}}).input, Vault()))
    deep: Any = MAIL
    for _ in range(200):
        deep = [deep]
    with pytest.raises(TooDeep):
        screened(deep, outward())


def test_pieces_of_kinds_that_are_not_known_tell_nothing_of_a_match() -> None:
    for seed in SEEDS:
        pieces = cut(f"Write to {MAIL}. Bye", random.Random(seed))
        events = events_of([("text", "Hm."), ("text", "Well.")], seed)
        odd = [
            {"type": "content_block_delta", "index": 1, "delta": {"type": "odd_delta", "words": one, "n": 1}}
            for one in pieces
        ]
        told = passed(EventScreen(outward()), [*events[:-3], *odd, *events[-3:]])
        found = [one["delta"] for one in told if one.get("delta", {}).get("type") == "odd_delta"]
        assert found == [{"type": "odd_delta", "words": "Write to [EMAIL]. Bye", "n": 1}] and read(told)

        deltas = [{"audio": {"id": "a", "transcript": one}, "parts": [{"text": one}]} for one in pieces]
        deltas.append({"annotations": [{"type": "url_citation", "url_citation": {"title": "Of us"}}]})
        told = passed(ChunkScreen(outward()), [chunk(one) for one in deltas] + [chunk({}, "stop")])
        words = [one["choices"][0]["delta"] for one in told]
        assert "Write" not in str(words) and words[0]["audio"]["id"] == "a" and "Of us" in str(words)

        kind, place = "response.code_interpreter_call_code", {"item_id": "ci_1", "output_index": 0}
        many = [{"type": f"{kind}.delta", **place, "sequence_number": 1, "delta": one} for one in pieces]
        many.append({"type": f"{kind}.done", **place, "sequence_number": 1, "code": f"Write to {MAIL}. Bye"})
        told = passed(ResponseScreen(outward()), many)
        assert "".join(one.get("delta", "") for one in told) == told[-1]["code"] == "Write to [EMAIL]. Bye"
        kind = "response.mcp_call_arguments"
        pieces = cut(HIDDEN, random.Random(seed))
        many = [{"type": f"{kind}.delta", **place, "sequence_number": 1, "delta": one} for one in pieces]
        many.append({"type": f"{kind}.done", **place, "sequence_number": 1, "arguments": HIDDEN})
        told = passed(ResponseScreen(outward()), many)
        assert is_clean([json.loads(one.get("delta") or one["arguments"]) for one in told])
