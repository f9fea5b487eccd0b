"""Policy of tool calls: decide whether a call is made, put to a person, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from service.tools.base import Tool


@dataclass(frozen=True, slots=True)
class Approval:
    """Decision about a call. `reason`: why it was requested, `policy`, `untrusted` or `unknown`.

    A decision allows one attempt. `spent`: that attempt was made and its outcome is unknown. `expired`: denied, as no
    person decided in time.
    """

    approved: bool
    reason: str
    comment: str | None = None
    spent: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True)
class ProposedCall:
    """Call that the model requests, and its known state.

    `tool`: None if the agent has none of that name, or the run's user may not use it. `readable`: the arguments are a
    JSON object. `fault`: why the arguments are refused, for the model. `needs_approval`: the agent's `approvals` list
    the tool. `untrusted`: the run holds text that the agent's `flows` do not let the tool follow. `made`: by an earlier
    attempt, which may have ended before it was reported.
    """

    name: str
    tool: Tool | None
    readable: bool = True
    fault: str = ""
    needs_approval: bool = False
    untrusted: bool = False
    made: Literal["no", "unknown", "yes"] = "no"
    approval: Approval | None = None


class Verdict(NamedTuple):
    """Decision about a call. `reason`: for `ask`, that of an `Approval`; for `deny`, text for the model."""

    action: Literal["allow", "ask", "deny"]
    reason: str = ""


def policy(call: ProposedCall) -> Verdict:
    """Decide about a call: a new one, or one already made or begun by an earlier attempt of its run."""
    if call.readable and (reason := _question(call)):
        return Verdict("ask", reason)
    if call.tool is None:
        return Verdict("deny", f"There is no tool named {call.name}.")
    if not call.readable:
        return Verdict("deny", "The arguments could not be read: send one JSON object, not deeply nested.")
    if call.made != "yes" and call.approval is not None and not call.approval.approved:
        return Verdict("deny", _denial(call.approval))
    if call.made != "yes" and call.fault:
        return Verdict("deny", call.fault)
    return Verdict("allow")


def _question(call: ProposedCall) -> str:
    """Return the reason why a person has to decide first; empty if none."""
    if call.made == "unknown":
        return "unknown" if call.approval is None or call.approval.spent else ""
    if call.made == "yes" or call.approval is not None or call.tool is None or call.fault:
        return ""  # a call that will be refused is no question for a person
    if call.needs_approval or call.tool.risk == "danger":
        return "policy"
    return "untrusted" if call.untrusted and call.tool.acts else ""


def _denial(approval: Approval) -> str:
    if approval.expired and approval.reason != "unknown":
        return "Nobody approved this call in time, so it was not made."
    why = f": {approval.comment}" if approval.comment else "."
    if approval.reason == "unknown":
        decided = (
            "nobody decided to make it again" if approval.expired else "a person decided not to make it again"
        )
        return f"It is not known whether this call was made, and {decided}{why}"
    return f"A person denied this call{why}"
