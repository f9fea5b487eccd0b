"""Upper bounds on a call's tokens, and estimates for interrupted calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline_model.token_estimate import of_request
from service.types import Usage
from service.usage.bounds import FRAME, ON_THEIR_WAY, counted_bound, interrupted_usage, prompt_bound

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


def ask(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@given(st.lists(TEXT, min_size=1, max_size=5), TEXT, st.booleans())
def test_prompt_bound_is_above_the_token_count(texts: list[str], system: str, tools: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    bound = prompt_bound(system, messages, [TOOL] if tools else [])
    assert bound is not None
    body = {"messages": messages, "system": system, "tools": [TOOL] if tools else []}
    assert bound > of_request(body)
    assert bound >= len("".join([system, *texts]).encode())


def test_a_character_that_grows_in_its_normal_form_counts_as_grown() -> None:
    plain, grown = prompt_bound("", ask("x")), prompt_bound("", ask("\ufdfa" * 10))  # 3 bytes that become 33
    assert plain is not None and grown is not None
    assert grown - plain >= 320


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        },
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]},
        {"type": "container_upload", "file_id": "file_1"},
    ],
)
def test_blocks_without_text_have_no_bound(block: dict[str, Any]) -> None:
    assert prompt_bound("", ask([{"type": "text", "text": "See:"}, block])) is None


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "look", "input": {}},
        {"type": "tool_result", "tool_use_id": "t", "content": "seen"},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "seen"}]},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A page."}},
    ],
)
def test_text_blocks_have_a_bound(block: dict[str, Any]) -> None:
    assert (prompt_bound("", ask([block])) or 0) > FRAME


def test_text_that_cannot_be_sent_is_bounded_too() -> None:
    assert (prompt_bound("", ask("half a pair: \ud800")) or 0) > FRAME


def test_a_count_gets_a_margin() -> None:
    assert counted_bound(0) == FRAME and counted_bound(2_000) == 2_100 + FRAME


def test_usage_of_an_interrupted_stream() -> None:
    told = Usage(100, 1, 20)
    assert interrupted_usage(told, "", 500) == Usage(100, ON_THEIR_WAY, 20)
    assert interrupted_usage(told, "häßlich", 500) == Usage(100, 9 + ON_THEIR_WAY, 20)
    assert interrupted_usage(told, "x" * 1_000, 500) == Usage(100, 500, 20)
    assert interrupted_usage(told._replace(output_tokens=400), "", 500).output_tokens == 400
