"""Tool calls that an agent's own code asks for, in the form of a model's: policy, approval and claim are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from service.errors import AgentFault
from service.llm.client import ModelReply
from service.runs.attempt import Attempt
from service.runs.replies import well_formed
from service.runs.tool_execution import ToolExecution
from service.types import NO_USAGE


def direct_call(
    attempt: Attempt, execution: ToolExecution, name: str, tool: str, arguments: Mapping[str, Any]
) -> ModelReply:
    """Return the call as a reply. Its id is the same at every attempt: the step's number, and a digest of the call.

    Raises `AgentFault` if an earlier attempt claimed another call in this step or a later one: the code, or its new
    version, no longer asks for a call that may have been made.
    """
    journal = attempt.journal
    step = journal.steps + 1
    call = orjson.dumps([name, tool, dict(arguments)], option=orjson.OPT_SORT_KEYS)
    call_id = f"{journal.call_prefix}{step}_{hashlib.sha256(call).hexdigest()[:16]}"
    if attempt.run.attempt > 1 and not journal.is_stored("tools", name):
        claims, owns = execution.claimed(attempt.run), journal.owns_call
        if any(number >= step and other != call_id and owns(other) for other, number in claims.items()):
            raise AgentFault("The code of this agent took other steps than before it was interrupted.")
    given = orjson.loads(orjson.dumps(dict(arguments)))
    use = {"type": "tool_use", "id": call_id, "name": tool, "input": given}
    return well_formed(ModelReply("", [use], "tool_use", NO_USAGE), frozenset())
