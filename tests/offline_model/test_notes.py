"""Notes on tool calls: counts and facts, and what an answer makes of them."""

from __future__ import annotations

from typing import Any

SYSTEM = "You keep notes on the tool calls of an assistant."
WORK = """Call page: {"number": 3}
Result: The vault code is K-7731. It rained.
Call page: {"number": 4}
Error: The vault code is lost.
Call sum: {}
Result: 12"""
NOTES = "Calls of page: 40\nThe vault code of Rome is B-2."
QUESTION = "Use the page tool 50 times. What is the vault code?"
PAGE: Any = {
    "name": "page",
    "description": "Read a page.",
    "input_schema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
}


def request(last: str, notes: str = NOTES) -> str:
    given = f"<conversation>\n{WORK}\n</conversation>\n\n<notes>\n{notes}\n</notes>"
    return f"{given}\n\n<question>\n{QUESTION}\n</question>\n\n{last}"


def test_notes_count_calls_and_keep_what_fits_the_question(offline: Any) -> None:
    told = offline.text(request("Write notes on the calls above."), system=SYSTEM)
    assert told.splitlines() == ["Calls of page: 2", "Calls of sum: 1", "The vault code is K-7731."]


def test_rewritten_notes_carry_over_every_line(offline: Any) -> None:
    told = offline.text(request("Rewrite the notes."), system=SYSTEM)
    assert told.splitlines() == [
        *("Calls of page: 42", "Calls of sum: 1"),
        *("The vault code of Rome is B-2.", "The vault code is K-7731."),
    ]


def test_noted_calls_count_towards_those_asked_for(offline: Any) -> None:
    for noted, stop in ((49, "tool_use"), (50, "end_turn")):
        counted = f"Calls of page: 20\nCalls of page: {noted - 20}"
        notes = f'<notes about="x">\n{counted}\nThe vault code is K-7731.\n</notes>'
        blocks = [{"type": "text", "text": text} for text in (QUESTION, notes)]
        answer = offline.ask([{"role": "user", "content": blocks}], tools=[PAGE])
        assert answer.stop_reason == stop
    assert "The vault code is K-7731." in answer.content[0].text
