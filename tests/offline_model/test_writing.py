"""Drafts, critiques, revisions and plans of the offline model."""

from __future__ import annotations

import json
from typing import Any

import pytest

NOTES = "The office is closed on Monday. Mail is answered. Come on Tuesday."
TASK = "Write a notice of at most {} from these notes: " + NOTES


def schema(**properties: Any) -> dict[str, Any]:
    form = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"output_config": {"format": {"type": "json_schema", "schema": form}}}


CRITIQUE = schema(good={"type": "boolean"}, points={"type": "array", "items": {"type": "string"}})


def after(task: str, answer: str, request: str) -> list[dict[str, str]]:
    turns = [("user", task), ("assistant", answer), ("user", request)]
    return [{"role": role, "content": text} for role, text in turns]


@pytest.mark.parametrize(
    ("asked", "drafted"),
    [
        (TASK.format("9 words"), NOTES),
        ("Please draft a reply: We come at 10:30.", "We come at 10:30."),
        ("Write a note for 10:30.", None),
        ("Draft a short thank-you.", None),
    ],
)
def test_draft_holds_the_notes(offline: Any, asked: str, drafted: str | None) -> None:
    text = offline.text(asked)
    assert text == drafted if drafted else text.startswith("I am Slipway's offline model")


@pytest.mark.parametrize(
    ("limit", "point"),
    [
        ("12 words", None),
        ("11 words", "The text has 12 words, and 11 were asked for at most: shorten it."),
        ("3 sentences", None),
        ("2 sentences", "The text has 3 sentences, and 2 were asked for at most: shorten it."),
    ],
)
def test_critique_counts_what_was_asked_for(offline: Any, limit: str, point: str | None) -> None:
    critique = json.loads(
        offline.text(after(TASK.format(limit), NOTES, "Review your last answer."), **CRITIQUE)
    )
    assert critique == {"good": point is None, "points": [point] if point else []}


@pytest.mark.parametrize(
    ("limit", "revised"),
    [
        ("9 words", "The office is closed on Monday. Mail is answered."),
        ("1 sentences", "The office is closed on Monday."),
        ("2 words", "The office is closed on Monday."),
        ("20 words", NOTES),
    ],
)
def test_revision_is_cut_to_length(offline: Any, limit: str, revised: str) -> None:
    assert offline.text(after(TASK.format(limit), NOTES, "Revise your last answer.\n- Shorter.")) == revised


def test_without_an_answer_before_there_is_nothing_to_revise(offline: Any) -> None:
    assert offline.text("Revise your last answer.").startswith("I am Slipway's offline model")
    assert json.loads(offline.text("Review it.", **CRITIQUE)) == {"good": True, "points": []}


def test_plan_has_the_parts_of_the_question(offline: Any) -> None:
    asked = schema(searches={"type": "array", "items": {"type": "string"}})
    plan = json.loads(offline.text("How do locks work, and why is a sync no backup?", **asked))
    assert plan == {"searches": ["How do locks work", "why is a sync no backup?"]}
