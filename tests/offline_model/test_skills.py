"""Skills: loaded by the words of a question, once, and quoted."""

from __future__ import annotations

from typing import Any

from offline_model.answer import blocks

TOOL = {
    "name": "load_skill",
    "description": "Load one.\n\n- growth-report: How to work out growth in percent of two months.\n- other: Poems.",
    "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}
TEXT = "Skill growth-report, SKILL.md.\n\nGrowth in percent is the difference divided by the figure of the first month."


def body(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "claude-haiku-5-5", "max_tokens": 500, "tools": [TOOL], "messages": list(messages)}


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_a_fitting_skill_is_loaded_once_and_quoted() -> None:
    question = asked("How do I work out growth in percent?")
    [call] = blocks(body(question), "s")
    assert (call["name"], call["input"]) == ("load_skill", {"name": "growth-report"})
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": TEXT}
    later = body(question, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]})
    [answer] = blocks(later, "s")
    assert "divided by the figure of the first month" in answer["text"]


def test_other_questions_load_none() -> None:
    assert [block["type"] for block in blocks(body(asked("How many teams are there in Rome?")), "s")] == [
        "text"
    ]
