"""Work of several agents: the answer that joins their results.

A plan needs no rule of its own: `schema.Filler` fills `tasks` with one task per sentence of the question, and at each
`and`; `agent` is the one whose words in the system prompt the task shares.
"""

from __future__ import annotations

import re

import orjson

from offline_model.shapes import Json
from offline_model.text import quote

MAX_RESULT = 600  # characters quoted of each result
_RESULTS = re.compile(r"<results>\n(\[.*?\])\n</results>", re.DOTALL)


def results(text: str) -> list[Json]:
    """Parse the results of other agents in a user's turn: a JSON list in an element `results`; empty without one."""
    found = _RESULTS.search(text)
    try:
        items = orjson.loads(found[1]) if found else []
    except orjson.JSONDecodeError:
        return []
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("result"), str)]


def join(found: list[Json]) -> str:
    """Join results: a paragraph for each, in their order; of a failed one its reason."""
    return "\n\n".join(_paragraph(item) for item in found)


def _paragraph(item: Json) -> str:
    agent, text = item.get("agent", "an agent"), quote(item["result"], MAX_RESULT)
    return f"{agent}: {text}" if item.get("ok") else f"{agent} failed: {text}"
