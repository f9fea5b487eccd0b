"""Tool calls that a model's reply proposes, with what earlier attempts and decisions say about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.flows import uncovered
from service.guardrails.prompt_marker import without_prompt
from service.guardrails.taint import Taint
from service.llm.client import ModelReply
from service.runs.journal_codec import decode_result
from service.runs.untrusted import clean
from service.store.database import Row
from service.tools import Tool, ToolResult
from service.tools.base import listed
from service.tools.policy import Approval, ProposedCall, policy
from service.types import Block


class Call:
    """Tool call of a reply, with an earlier attempt's claim and the latest approval about it.

    `arguments` are those of the approval, where they may have been changed. `former`, `result`: claim and result of an
    earlier attempt. `explanation`: the model's words before the call.
    """

    def __init__(
        self,
        use: Block,
        agent: AgentDefinition,
        readable: bool,
        claim: Row | None,
        question: Row | None,
        taint: Taint,
    ) -> None:
        self.id: str = use["id"]
        self.name: str = use["name"]
        self.explanation = ""
        self.former = claim
        self.is_asked = question is not None and question["status"] == "pending"
        decision = question if question is not None and is_decided(question) else None
        self.allowed_by: str | None = decision["id"] if decision is not None else None
        self.arguments: dict[str, Any] = dict(decision["arguments"] if decision is not None else use["input"])
        finished = claim is not None and claim["status"] in ("done", "failed")
        self.result = decode_result(claim["result"]) if claim is not None and finished else None
        self.tool = agent.tools.get(self.name)
        self._taint = taint
        self._untrusted = uncovered(agent, self.tool, taint.sources, self.arguments, taint.is_said)
        self.verdict = policy(
            ProposedCall(
                name=self.name,
                tool=self.tool,
                readable=readable,
                fault=_fault(agent, self.tool, self.arguments),
                needs_approval=self.name in agent.approvals,
                untrusted=bool(self._untrusted),
                made="no" if claim is None else "yes" if finished else "unknown",
                approval=_approval(decision, claim) if decision is not None else None,
            )
        )
        self.is_due = self.verdict.action == "allow" and self.result is None
        self.told = {"call": self.id, "tool": self.name, "agent": agent.id, "allowed_by": self.allowed_by}

    def marks(self) -> dict[str, list[str]] | None:
        """Return the sources of untrusted text, and the arguments taken from it; None: the run holds none."""
        sources = self._untrusted or self._taint.sources
        return self._taint.marks(self.arguments, sources) if sources else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the sources of untrusted text in the run."""
        return self._taint.sources

    @property
    def to_claim(self) -> bool:
        """Return whether the call must not be repeated unnoticed: one approval allows one call of any tool."""
        may_repeat = self.tool is not None and self.tool.idempotent and self.allowed_by is None
        return self.is_due and not may_repeat

    @property
    def audited(self) -> bool:
        """Return whether the call changes something; not every one that must not be repeated does."""
        return self.is_due and self.tool is not None and self.tool.changes

    @property
    def can_overlap(self) -> bool:
        """Return whether the call may run beside others: it only reads, and may be repeated."""
        return self.is_due and not self.to_claim and not self.audited


def proposed(
    reply: ModelReply,
    agent: AgentDefinition,
    claims: dict[str, Row],
    questions: Sequence[Row],
    taint: Taint,
) -> list[Call]:
    """Return the calls of a reply; `claims` by call id and `questions`, oldest first, are those of its run."""
    latest = {(row["call_id"], row["name"]): row for row in questions}
    calls, said = [], ""
    for block in reply.content if reply.tool_uses else ():
        if block.get("type") == "text":
            said += block["text"]
        elif block.get("type") == "tool_use":
            question = latest.get((block["id"], block["name"]))
            readable = block["id"] not in reply.unreadable
            call = Call(block, agent, readable, claims.get(block["id"]), question, taint)
            call.explanation = clean(said.strip(), taint, agent)  # a sub-agent's words have their links still
            calls.append(call)
    return calls


def side_by_side(calls: Sequence[Call], most: int) -> list[list[Call]]:
    """Group calls that may overlap with their neighbours, at most `most`; any other is alone, in its place."""
    groups: list[list[Call]] = []
    for call in calls:
        if groups and call.can_overlap and groups[-1][-1].can_overlap and len(groups[-1]) < most:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


def called(call: Call, marker: str) -> dict[str, Any]:
    """Build the data of the `tool.called` event, without the system prompt that has the marker."""
    arguments = without_prompt(call.arguments, marker)
    return {"call_id": call.id, "name": call.name, "arguments": arguments}


def finished(call: Call, result: ToolResult) -> dict[str, Any]:
    """Build the data of the `tool.finished` event."""
    return {"call_id": call.id, "ok": result.ok, "ms": round(result.ms), "preview": result.preview}


def is_decided(question: Row) -> bool:
    return question["status"] in ("approved", "denied")


def _fault(agent: AgentDefinition, tool: Tool | None, arguments: dict[str, Any]) -> str:
    """Return why the arguments are refused, for the model; empty if they are not."""
    if tool is None:
        return ""
    if invalid := tool.faults(arguments):
        return f"Invalid arguments. {listed(invalid)}"
    if without_prompt(arguments, agent.marker) is not arguments:
        return "This call holds the agent's own instructions, which are confidential, so it was not made."
    beyond = agent.beyond(tool.name, arguments)
    return f"This call is beyond its bounds, so it was not made. {listed(beyond)}" if beyond else ""


def _approval(decision: Row, claim: Row | None) -> Approval:
    # A claim without a result names the approval that allowed it.
    spent = claim is not None and claim["result"].get("allowed_by") == decision["id"]
    approved, expired = decision["status"] == "approved", decision["decided_by"] is None
    return Approval(approved, decision["reason"], decision["comment"], spent, expired)
