"""Writing in rounds: a draft from notes, a critique of its length, a shortened revision."""

from __future__ import annotations

import re

from offline_model.conversation import Conversation
from offline_model.shapes import Json
from offline_model.text import sentences

_NOTES = re.compile(r"\s*(?:please\s+)?(?:write|draft)\b[^:\n]{0,200}:\s+(\S.*)", re.IGNORECASE | re.DOTALL)
_MOST = re.compile(
    r"\b(?:at most|no more than|up to|within)\s+(\d{1,5})\s+(words|sentences)\b", re.IGNORECASE
)
_REVISE = re.compile(r"\s*revise your (?:last )?answer\b", re.IGNORECASE)


def draft(parsed: Conversation) -> str | None:
    """Join the notes of `Write a notice from these notes: …`; None for another request."""
    notes = _NOTES.match(parsed.question)
    return " ".join(sentence.plain for sentence in sentences(notes[1])) if notes else None


def critique(parsed: Conversation, schema: Json) -> Json | None:
    """Compare the last answer with the length asked for; None for a schema other than `good` and `points`."""
    if set(schema.get("properties") or ()) != {"good", "points"}:
        return None
    task, answer = _last_answer(parsed)
    limit = _MOST.search(task)
    points = []
    if limit and (has := _length(answer, limit[2])) > int(limit[1]):
        points.append(f"The text has {has} {limit[2]}, and {limit[1]} were asked for at most: shorten it.")
    return {"good": not points, "points": points}


def revision(parsed: Conversation) -> str | None:
    """Cut sentences off the end of the last answer until its length is as asked; None for another request."""
    if not _REVISE.match(parsed.question):
        return None
    task, answer = _last_answer(parsed)
    limit = _MOST.search(task)
    kept = [sentence.plain for sentence in sentences(answer)]
    while limit and len(kept) > 1 and _length(" ".join(kept), limit[2]) > int(limit[1]):
        kept.pop()
    return " ".join(kept) or None


def _last_answer(parsed: Conversation) -> tuple[str, str]:
    """Return the last answer, after the request before it; empty where there is none."""
    turns = parsed.earlier
    last = max((i for i, (role, _) in enumerate(turns) if role == "assistant"), default=None)
    if last is None:
        return "", ""
    task = next((text for role, text in reversed(turns[:last]) if role == "user"), "")
    return task, turns[last][1]


def _length(text: str, unit: str) -> int:
    return len(text.split()) if unit.lower() == "words" else len(sentences(text))
