"""Plans of the offline model, and its answers that join the results of other agents."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from offline_model import planning
from offline_model.answer import blocks

TASKS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tasks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "agent": {"type": "string", "enum": ["billing", "chat"]},
                    "task": {"type": "string"},
                },
            },
        }
    },
}
SYSTEM = "- billing: prices, invoices, refunds\n- chat: greetings, letters"
FOUND = [
    {"agent": "one", "task": "A?", "ok": True, "result": "Cats\n\npurr."},
    {"agent": "two", "task": "B?", "ok": False, "result": "It broke."},
]


def body(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 500, **more}


def test_plan_has_a_task_for_each_part_and_the_agent_that_fits_it() -> None:
    form = {"format": {"type": "json_schema", "schema": TASKS}}
    asked = body("What do invoices cost? Write letters.", system=SYSTEM, output_config=form)
    plan = orjson.loads(blocks(asked, "1")[0]["text"])
    assert [(task["agent"], task["task"]) for task in plan["tasks"]] == [
        ("billing", "What do invoices cost?"),
        ("chat", "Write letters"),
    ]


def test_join_has_a_paragraph_for_each_result() -> None:
    text = f"Answer it.\n\n<results>\n{orjson.dumps(FOUND).decode()}\n</results>\n\n<question>\nWhat?\n</question>"
    assert blocks(body(text), "1")[0]["text"] == "one: “Cats purr.”\n\ntwo failed: “It broke.”"


@pytest.mark.parametrize("text", ["", "<results>\n[broken]\n</results>", "<results>\n[7, {}]\n</results>"])
def test_text_without_results_is_answered_as_any(text: str) -> None:
    assert planning.results(text) == []
