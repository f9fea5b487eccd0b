"""Events of A2A tasks in the orders and forms that the protocol allows, and those that it does not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from service.errors import RemoteFailed
from service.infra.http import StreamedAnswer
from service.remote import a2a
from service.remote.task import RemoteAnswer, RemoteEvent

IDS = {"taskId": "t", "contextId": "c"}


def artifact(text: str, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"artifactUpdate": {**IDS, "artifact": {"artifactId": name, "parts": [{"text": text}]}, **more}}


def status(state: str, words: str = "") -> dict[str, Any]:
    message = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": words}]}
    return {"statusUpdate": {**IDS, "status": {"state": f"TASK_STATE_{state}", "message": message}}}


def whole(state: str, *texts: str) -> dict[str, Any]:
    found = [
        {"artifactId": name, "parts": [{"text": text}]} for name, text in zip("abc", texts, strict=False)
    ]
    return {
        "task": {"id": "t", "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}, "artifacts": found}
    }


def read(*results: dict[str, Any]) -> tuple[list[RemoteEvent], RemoteAnswer]:
    lines = (
        b"data: " + orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": one}) + b"\n\n" for one in results
    )
    stream = StreamedAnswer(200, {"content-type": "text/event-stream"}, lines)
    *events, answer = a2a.read(stream)
    assert isinstance(answer, RemoteAnswer)
    return [one for one in events if isinstance(one, RemoteEvent)], answer


@pytest.mark.parametrize(
    "results",
    [
        [artifact("Good "), artifact("day.", append=True), status("COMPLETED")],
        [artifact("Good "), artifact("Good day."), status("COMPLETED")],
        [artifact("Good day."), whole("COMPLETED", "Good day.")],
        [artifact("Good "), whole("WORKING", "Good "), whole("COMPLETED", "Good ", "day.")],
        [status("WORKING", "Thinking…"), status("COMPLETED", "Good day.")],
    ],
    ids=["appended", "grown", "told again", "two artifacts", "last message"],
)
def test_text_is_told_once(results: list[dict[str, Any]]) -> None:
    events, answer = read(*results)
    assert "".join(one.data["text"] for one in events if one.kind == "text") == answer.output == "Good day."
    assert [one.data for one in events if one.kind == "task"] == [{"id": "t"}]


def test_text_that_was_told_cannot_be_replaced() -> None:
    with pytest.raises(RemoteFailed):
        read(artifact("Good day."), artifact("Bad day."), status("COMPLETED"))


def test_artifacts_are_bounded_in_number() -> None:
    with pytest.raises(RemoteFailed):
        read(*(artifact("", str(number)) for number in range(a2a.MAX_ARTIFACTS + 1)), status("COMPLETED"))


def test_question_keeps_the_ids_of_a_task_that_began_with_an_update() -> None:
    """As after a decision, when no `task` comes first: a second decision must reach the same task."""
    _, answer = read(status("WORKING"), status("INPUT_REQUIRED", "And now?"))
    assert answer.state == {"task_id": "t", "context_id": "c"}
    assert answer.questions[0].arguments == {"question": "And now?"}
