"""Chain of responses: the conversation of an earlier run, for one that goes on from it by `previous_response_id`."""

from __future__ import annotations

import orjson

from service.errors import PreviousResponseNotFound, PromptTooLong, fault
from service.runs.client_tools import wire_id
from service.types import Block, Message, Run, RunStatus

MAX_BYTES = 4 * 1024 * 1024  # of a conversation that goes on: more than any model reads
MAX_TURNS = 2_000
_WHERE = "/previous_response_id"


def continuable(run: Run | None, response_id: str, agent: str) -> Run:
    """Return the run of an earlier response, if a response of `agent` may go on from it.

    Raises `PreviousResponseNotFound`, and `Invalid`.
    """
    if run is None or run.request.asked_as is None:
        detail = f"Previous response with id '{response_id}' not found."
        raise PreviousResponseNotFound(detail, errors=[{"pointer": _WHERE, "detail": detail}])
    if run.agent != agent:
        raise fault(_WHERE, f"is a response of another model: {run.agent}")
    if run.status is not RunStatus.SUCCEEDED:
        raise fault(_WHERE, f"is a response that has not ended well: its run is {run.status}")
    return run


def earlier_turns(run: Run) -> list[Message]:
    """Return the conversation of a run that has succeeded, with its answer. Raises `PromptTooLong`."""
    result = run.result or {}
    answer: list[Block] = [{"type": "text", "text": result["output"]}] if result["output"].strip() else []
    answer += [
        {
            "type": "tool_use",
            "id": wire_id("call", run.id, call["id"]),
            "name": call["name"],
            "input": call["arguments"],
        }
        for call in result.get("client_calls", ())
    ]
    turns = [*run.request.messages, *([{"role": "assistant", "content": answer}] if answer else [])]
    if len(turns) > MAX_TURNS or len(orjson.dumps(turns)) > MAX_BYTES:
        raise PromptTooLong("The conversation of the previous response is too long to go on from it.")
    return turns
