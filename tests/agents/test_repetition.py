"""Loops of tool calls: the same calls with the same results three times in a row, or two turns in alternation."""

from __future__ import annotations

from typing import Any

import pytest

from service.agents.repetition import LoopDetector, with_notice
from service.tools import ToolResult


def turn(text: str) -> tuple[list[dict[str, Any]], list[ToolResult]]:
    """One turn: each letter is a call, a digit after it its result."""
    pairs = text.split()
    uses = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": pair[0], "input": {"x": 1}}
        for n, pair in enumerate(pairs)
    ]
    return uses, [ToolResult(ok=True, content=pair[1:], preview="", ms=n) for n, pair in enumerate(pairs)]


def found(*turns: str) -> list[tuple[str, ...]]:
    loop = LoopDetector()
    return [loop.add(*turn(one)) for one in turns]


@pytest.mark.parametrize(
    ("turns", "names"),
    [
        (["a1", "a1", "a1"], ("a",)),
        (["b1", "a1", "a1", "a1"], ("a",)),
        (["a1 b1"] * 3, ("a", "b")),
        (["a1", "b1"] * 3, ("a", "b")),
        (["c1", *["a1", "b1"] * 3], ("a", "b")),
    ],
)
def test_third_time_is_a_loop(turns: list[str], names: tuple[str, ...]) -> None:
    assert found(*turns) == [()] * (len(turns) - 1) + [names]


@pytest.mark.parametrize(
    "turns",
    [
        ["a1", "a1", "a2", "a2", "a1", "a1"],
        ["a1", "a1", "b1", "a1", "a1", "b1", "a1"],
        ["a1", "a2", "a3", "a4"],
        ["a1", "b1", "a1", "b1", "a1"],
        ["a1", "b1", "c1"] * 4,
        ["a1 b1", "a1 b2", "a1 b3"],
        ["a1", "a1 a1", "a1"],
    ],
)
def test_progress_is_no_loop(turns: list[str]) -> None:
    assert not any(found(*turns))


def test_arguments_count() -> None:
    loop = LoopDetector()
    for number in range(6):
        uses, results = turn("a1")
        assert loop.add([{**uses[0], "input": {"x": number}}], results) == ()


def test_failed_call_with_the_text_of_a_good_one_is_another_result() -> None:
    loop = LoopDetector()
    uses, results = turn("a1")
    for result in (results[0], results[0], ToolResult.failed("1")):
        assert loop.add(uses, [result]) == ()


def test_notice_stands_after_the_results() -> None:
    results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}]}
    told = with_notice(results, ("a", "b"))
    assert [block["type"] for block in told["content"]] == ["tool_result", "text"]
    assert "a, b" in told["content"][1]["text"] and len(results["content"]) == 1
