"""Relayed answers in pieces, and what a client's SDK makes of the filtered ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from service.guardrails.policy import Rail, parse_rails
from service.guardrails.relayed.chunks import ChunkScreen
from service.guardrails.relayed.events import EventScreen
from service.guardrails.relayed.responses import ResponseScreen
from service.guardrails.relayed.sides import Outward
from service.guardrails.vault import Vault

Event = dict[str, Any]
MAIL = "anna.schmidt@example.com"
MASKS: Rail = parse_rails({"output": {"email": "mask"}})
DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}
MEMBERS = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "send", "input": {}}


def outward(rail: Rail = MASKS, vault: Vault | None = None) -> Outward:
    return Outward(rail.output, vault or Vault())


def cut(text: str, chance: random.Random) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        size = chance.randint(1, 7)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def events_of(blocks: Sequence[tuple[str, str]], seed: int) -> list[Event]:
    """Return the events of an answer whose blocks are given by type and text, cut by the seed."""
    chance = random.Random(seed)
    told: list[Event] = [{"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": {}}}]
    for index, (kind, text) in enumerate(blocks):
        begun = CALL if kind == "tool_use" else {"type": kind, MEMBERS[kind]: ""}
        told.append({"type": "content_block_start", "index": index, "content_block": begun})
        for piece in cut(text, chance):
            delta = {"type": DELTAS[kind], MEMBERS[kind]: piece}
            told.append({"type": "content_block_delta", "index": index, "delta": delta})
        if kind == "thinking":
            signed = {"type": "signature_delta", "signature": "sig"}
            told.append({"type": "content_block_delta", "index": index, "delta": signed})
        told.append({"type": "content_block_stop", "index": index})
    told.append(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
    )
    return [*told, {"type": "message_stop"}]


def passed(screen: EventScreen | ChunkScreen | ResponseScreen, events: Sequence[Event]) -> list[Event]:
    told: list[Event] = []
    for event in events:
        told += screen.feed(event)
        if screen.refused is not None:
            return told
    return [*told, *screen.close()]


def read(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Put blocks together as an SDK does. Asserts that each event is in its place."""
    blocks: list[tuple[str, str]] = []
    names, is_open = [event["type"] for event in events], False
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == len(blocks)
            blocks.append((event["content_block"]["type"], event["content_block"].get("text", "")))
            is_open = True
        elif event["type"] == "content_block_delta":
            assert is_open and event["index"] == len(blocks) - 1
            kind, text = blocks[-1]
            member = MEMBERS[kind]
            blocks[-1] = (kind, text + event["delta"].get(member, ""))
        elif event["type"] == "content_block_stop":
            assert is_open and event["index"] == len(blocks) - 1
            is_open = False
    assert not is_open
    return blocks


def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": {"content": [{"token": MAIL}]}}
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt", "choices": [choice], "usage": None}


def chunks_of(texts: dict[str, str], calls: Sequence[str], seed: int) -> list[Event]:
    """Return the chunks of an answer with texts by member and calls by arguments, cut by the seed."""
    chance = random.Random(seed)
    told = [chunk({"role": "assistant", "content": ""})]
    for name, text in texts.items():
        told += [chunk({name: piece}) for piece in cut(text, chance)]
    for index, given in enumerate(calls):
        named = {"index": index, "id": f"call_{index}", "type": "function"}
        told.append(chunk({"tool_calls": [{**named, "function": {"name": "send", "arguments": ""}}]}))
        for piece in cut(given, chance):
            told.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    told.append(chunk({}, "stop"))
    return [*told, {**chunk({}), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}]


def read_chunks(chunks: Sequence[Event]) -> tuple[dict[str, str], list[str], list[str]]:
    """Put chunks together: texts by member, arguments of calls, finish reasons."""
    texts: dict[str, str] = {}
    calls: dict[int, str] = {}
    ends: list[str] = []
    for one in chunks:
        for choice in one["choices"]:
            assert not ends, "nothing follows the end"
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    for call in value:
                        calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
                elif name != "role":
                    texts[name] = texts.get(name, "") + value
            if choice["finish_reason"] is not None:
                ends.append(choice["finish_reason"])
    return texts, [calls[index] for index in sorted(calls)], ends
