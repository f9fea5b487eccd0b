from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

from service.llm.client import ModelRequest
from service.llm.prompt_cache import LEAST_BYTES, MARK, marked
from service.types import Message, Usage
from service.usage.prices import PriceTable
from tests.llm.conftest import MakeClaude, Offline, a_call, run

PROMPT = "You answer questions about Harbor. " * 150  # 5,250 bytes
QUESTION: Message = {"role": "user", "content": "What does the Team plan cost?"}
SAID: list[Message] = [
    {"role": "user", "content": "Hello, " + "tell me about Harbor. " * 200},
    {"role": "assistant", "content": "Harbor keeps folders in step."},
]


def a_request(**fields: Any) -> ModelRequest:
    return ModelRequest(**{"model": "claude-sonnet-5-5", "messages": [QUESTION], "max_tokens": 100, **fields})


def marks(request: ModelRequest) -> list[str]:
    """Where marks are: `tool 0`, `system 0`, `1.0` for the first block of the second message."""
    return [*_marks("tool", request.tools), *_marks("system", request.system), *_message_marks(request)]


def _marks(name: str, blocks: Any) -> Iterator[str]:
    if not isinstance(blocks, str):
        yield from (f"{name} {index}" for index, block in enumerate(blocks) if "cache_control" in block)


def _message_marks(request: ModelRequest) -> Iterator[str]:
    for number, message in enumerate(request.messages):
        for mark in _marks("", message["content"]):
            yield f"{number}.{mark.strip()}"


def a_round(number: int, size: int = 10) -> list[Message]:
    use = {"type": "tool_use", "id": f"toolu_{number}", "name": "search", "input": {}}
    result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": "word " * size}
    return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]


def test_short_prompt_is_not_marked() -> None:
    request = a_request(system="You are brief.", tools=[{"name": "search"}])
    assert marked(request) == request


def test_mark_follows_the_agent_prompt_and_precedes_varying_blocks() -> None:
    varies = {"type": "text", "text": "This question is about: billing."}
    request = marked(a_request(system=[{"type": "text", "text": PROMPT}, varies]))
    first, rest = list(request.system)
    assert first == {"type": "text", "text": PROMPT, "cache_control": MARK}
    assert rest == varies
    assert marks(request) == ["system 0"]


def test_long_tools_are_marked_with_the_system_prompt_after_them_or_by_themselves() -> None:
    tools = [{"name": "search", "description": "Searches. " * 400}]
    assert marks(marked(a_request(system="You are brief.", tools=tools))) == ["system 0"]
    assert marks(marked(a_request(tools=tools))) == ["tool 0"]


def test_a_long_history_is_marked_where_this_turn_begins() -> None:
    assert marks(marked(a_request(system="You are brief.", messages=[*SAID, QUESTION]))) == ["1.0"]
    assert marks(marked(a_request(messages=[SAID[0]]))) == []  # nothing was said before this turn


def test_a_growing_conversation_is_marked_at_its_end() -> None:
    messages = [QUESTION, *a_round(1, 700), *a_round(2)]
    assert marks(marked(a_request(messages=messages))) == ["4.0"]
    # With `tool_choice: none` no message of the steps before is read back: writing would be for nothing.
    assert marks(marked(a_request(messages=messages, may_call_tools=False))) == []


def test_never_more_than_four_marks() -> None:
    messages = [*SAID, QUESTION, *a_round(1), *a_round(2)]
    request = marked(a_request(system=PROMPT, tools=[{"name": "search"}], messages=messages))
    assert marks(request) == ["system 0", "1.0", "6.0"]


def test_a_thinking_block_and_an_empty_one_carry_no_mark() -> None:
    blocks = [
        {"type": "text", "text": "Well."},
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "text", "text": " "},
    ]
    messages = [SAID[0], {"role": "assistant", "content": blocks}, QUESTION]
    assert marks(marked(a_request(messages=messages))) == ["1.0"]
    only_thinking = [SAID[0], {"role": "assistant", "content": blocks[1:]}, QUESTION]
    assert marks(marked(a_request(messages=only_thinking))) == []


def test_a_request_that_is_marked_already_is_left_alone() -> None:
    system = [{"type": "text", "text": "You are brief.", "cache_control": MARK}]
    request = a_request(system=system, messages=[*SAID, QUESTION])
    assert marked(request) is request


def test_nothing_given_is_changed_in_place() -> None:
    messages = [*SAID, QUESTION, *a_round(1)]
    before = repr(messages)
    marked(a_request(system=PROMPT, messages=messages))
    assert repr(messages) == before


def test_half_a_surrogate_pair_does_not_get_in_the_way() -> None:
    marked(a_request(system="\ud800" * LEAST_BYTES))


def test_second_turn_reads_the_cache_of_the_first(offline: Offline, make_claude: MakeClaude) -> None:
    """By hand, at 2 dollars a million in, 10 out, 2.50 written and 0.10 read (from 2026-10-07)."""
    claude = make_claude(offline.url)
    price = PriceTable.load().price("claude-sonnet-5-5", date(2026, 11, 21))
    prompt = f"{PROMPT}Now is {time.time()}."  # nobody has sent this before
    request = marked(a_request(system=prompt))
    costs, seen = [], []
    for _ in range(2):
        _, reply = run(claude.create(request, a_call()))
        seen.append(reply.usage)
        costs.append(price.cost(reply.usage))
    _, plain = run(claude.create(a_request(system=prompt), a_call()))
    total, out = plain.usage.input_tokens, plain.usage.output_tokens
    kept = seen[0].cache_creation_input_tokens
    assert kept >= 1024
    assert seen == [
        Usage(total - kept, out, cache_creation_input_tokens=kept),
        Usage(total - kept, out, cache_read_input_tokens=kept),
    ]
    assert costs[0] == (total - kept) * 2_000 + out * 10_000 + kept * 2_500
    assert costs[1] == (total - kept) * 2_000 + out * 10_000 + kept * 100
    assert price.cost(plain.usage) == total * 2_000 + out * 10_000
    assert costs[1] < price.cost(plain.usage) < costs[0]
