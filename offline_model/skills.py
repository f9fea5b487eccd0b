"""Skills: the instructions that a question calls for, loaded once and quoted like a document."""

from __future__ import annotations

import re

from offline_model.conversation import LOAD_SKILL, Conversation
from offline_model.shapes import Json
from offline_model.text import stems

_LISTED = re.compile(r"^- ([\w-]{1,64}): (.{1,1024})$", re.MULTILINE)
SHARED = 3  # words of a question that a skill's description needs to have


def next_call(parsed: Conversation) -> tuple[str, Json] | None:
    """Choose the skill whose description shares most words with the question; None: none does, or it is loaded."""
    tool = next((tool for tool in parsed.tools if tool["name"] == LOAD_SKILL), None)
    if tool is None or parsed.times_called(LOAD_SKILL):
        return None
    asked = stems(parsed.question)
    shared = {
        name: len(asked & stems(f"{name} {about}"))
        for name, about in _LISTED.findall(str(tool.get("description") or ""))
    }
    best = max(shared, key=lambda name: shared[name], default=None)
    return (LOAD_SKILL, {"name": best}) if best is not None and shared[best] >= SHARED else None
