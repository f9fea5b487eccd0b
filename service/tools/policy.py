"""Policy of tool calls: one function decides whether a call is made, put to a person, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from service.tools.base import Tool


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's decision about a call. `reason`: why it was asked for, `policy` or `unknown`.

    `spent`: it allowed an attempt of which nobody knows the end. A decision allows one attempt, no more.
    """

    approved: bool
    reason: str
    comment: str | None = None
    spent: bool = False


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """A call that the model asks for, and what is known of it.

    `tool`: None where the agent has none of that name. `readable`: its arguments are a JSON object. `needs_approval`:
    the agent's `approvals` name the tool. `made`: by an earlier attempt, which may have ended before it was reported.
    """

    name: str
    tool: Tool | None
    readable: bool = True
    needs_approval: bool = False
    made: Literal["no", "unknown", "yes"] = "no"
    approval: Approval | None = None


class Verdict(NamedTuple):
    """Decision about a call. `reason` of `ask`: `policy` or `unknown`; of `deny`: text for the model."""

    action: Literal["allow", "ask", "deny"]
    reason: str = ""


def policy(call: ProposedCall) -> Verdict:
    """Decide about one call: a new one, or one that an earlier attempt of its run has made or begun."""
    if call.readable and (reason := _question(call)):
        return Verdict("ask", reason)
    if call.tool is None:
        return Verdict("deny", f"There is no tool named {call.name}.")
    if not call.readable:
        return Verdict("deny", "The arguments could not be read: send one JSON object, not deeply nested.")
    if call.made != "yes" and call.approval is not None and not call.approval.approved:
        return Verdict("deny", _denial(call.approval))
    return Verdict("allow")


def _question(call: ProposedCall) -> str:
    """Return why a person has to decide first, or an empty text."""
    if call.made == "unknown":
        return "unknown" if call.approval is None or call.approval.spent else ""
    return "policy" if call.made == "no" and call.needs_approval and call.approval is None else ""


def _denial(approval: Approval) -> str:
    why = f": {approval.comment}" if approval.comment else "."
    if approval.reason == "unknown":
        return f"It is not known whether this call was made, and a person decided not to make it again{why}"
    return f"A person denied this call{why}"
