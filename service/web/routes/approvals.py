"""Approvals: tool calls that wait for a person's decision, and the decisions."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, model_validator

from service import approvals, errors
from service.agents.sub_agents import owners_of
from service.errors import fault
from service.ids import new_id
from service.runs.remote_questions import is_remote
from service.store.approvals import Decision
from service.store.database import Row, Transaction
from service.tools.base import Risk, Tool
from service.types import Caller
from service.web.admission import check_role, guard
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, choice_argument, page, page_arguments
from service.web.schemas import Body, Page, Shape, json_response, no_nul
from service.web.validation import located, parse

blueprint = Blueprint("approvals", __name__)
MAX_DESCRIPTION = 500  # characters of a tool's description
STATUSES = ("pending", "approved", "denied", "cancelled")


def _representable(value: Any) -> Any:
    """Validate JSON for a tool: no number that would change or become infinite."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _representable(item)
    if isinstance(value, int | float) and not abs(value) < (2**63 if isinstance(value, int) else math.inf):
        raise ValueError("must not contain a number that is out of range")
    return value


class DecisionBody(Body):
    """Decision on a tool call; `arguments` replace the model's, `digest` is that of the call as it was shown."""

    decision: Literal["approve", "deny"]
    comment: Annotated[str, Field(max_length=1_000), AfterValidator(no_nul)] | None = None
    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    arguments: Annotated[dict[str, Any], AfterValidator(_representable)] | None = None

    @model_validator(mode="after")
    def _arguments_of_a_call(self) -> DecisionBody:
        if self.arguments is not None and self.decision == "deny":
            raise fault("/arguments", "a call that is denied takes none")
        return self


class ToolView(Shape):
    """Tool of a call, as it is now. `idempotent`: a call may be repeated without a further effect."""

    description: str
    risk: Risk
    idempotent: bool


class UntrustedView(Shape):
    """Untrusted text in the run. `sources`: tools that returned it, `context`, `messages` or `session`.

    `pointers`: JSON pointers of the arguments that are taken from it.
    """

    sources: list[str]
    pointers: list[str]


class ApprovalView(Shape):
    """Approval of a tool call. `input` is the question of the run, cut at 200 characters.

    `reason`: `policy` if agent or tool require approval, `untrusted` if the call follows untrusted text, `unknown` if
    it may have been made already. `explanation`: the model's words before the call. `tool`: null if the agent has it no
    more. `digest` stands for name and arguments. After `expires_at` the call is denied.
    """

    id: str
    run_id: str
    user_id: str
    username: str
    agent: str
    session_id: str | None
    session_title: str | None
    input: str | None
    explanation: str | None
    call_id: str
    name: str
    arguments: dict[str, Any]
    digest: str
    tool: ToolView | None
    reason: Literal["policy", "untrusted", "unknown"]
    untrusted: UntrustedView | None
    status: Literal["pending", "approved", "denied", "cancelled"]
    comment: str | None
    decided_by: str | None
    created_at: str
    expires_at: str | None
    decided_at: str | None
    truncated: list[str] | None = None


class ApprovalPage(Page[ApprovalView]): ...


@blueprint.get("/v1/approvals")
@api(
    "List approvals, newest first: of own runs, for operators of all runs",
    returns={200: ApprovalPage},
    errors=[errors.Invalid],
    query={**PAGE, "status": {"type": "string", "enum": list(STATUSES)}},
)
@guard()
def list_approvals() -> Response:
    limit, before = page_arguments()
    status = choice_argument("status", STATUSES)
    found = approvals.page(
        services().infra.db, current_caller(), limit=limit + 1, before=before, status=status
    )
    return json_response(page(list(map(_shown, found)), limit))


@blueprint.post("/v1/approvals/<approval_id>")
@api(
    "Approve or deny a tool call; the last pending decision resumes the run",
    body=DecisionBody,
    returns={200: ApprovalView},
    errors=[
        errors.NotFound,
        errors.Forbidden,
        errors.OwnApproval,
        errors.AlreadyDecided,
        errors.DigestMismatch,
        errors.ToolGone,
        errors.Invalid,
        errors.IdempotencyMismatch,
    ],
    headers=["Idempotency-Replayed"],
)
@guard()
def decide(approval_id: str) -> Response:
    """Store a decision; the run resumes in this process if a slot is free, else by the next sweep."""
    body, caller = parse(DecisionBody), current_caller()
    # Check access first: the response stored for an Idempotency-Key may belong to a key with wider scopes.
    row = approvals.get(services().infra.db, caller, approval_id)
    check_role()
    if row["status"] == "pending" and body.decision == "approve":
        _check_call(row, row["arguments"] if body.arguments is None else body.arguments)
    decision = Decision(body.decision, body.comment, body.arguments, new_id("dec"), body.digest)
    return once(partial(_decide, caller=caller, approval_id=approval_id, decision=decision), 200)


def _decide(tx: Transaction, caller: Caller, approval_id: str, decision: Decision) -> dict[str, Any]:
    by_others = services().settings.approval_by_others
    row, resumes = approvals.decide(tx, caller, approval_id, decision, by_others=by_others)
    told = partial(services().infra.metrics.approval, row["agent"], row["status"], approvals.waited(row))
    tx.after_commit(told)
    if resumes:
        tx.after_commit(partial(services().runs.execution.take_up_in_background, row["run_id"]))
    return _shown(row)


def _shown(row: Row) -> dict[str, Any]:
    owners = owners_of(row["name"], row["agent"], services().agents.agents)
    return {**approvals.public(row), "tool": _about(owners[0].tools[row["name"]]) if owners else None}


def _about(tool: Tool) -> dict[str, Any]:
    return {
        "description": str(tool.for_model()["description"])[:MAX_DESCRIPTION],
        "risk": tool.risk,
        "idempotent": tool.idempotent,
    }


def _check_call(row: Row, arguments: dict[str, Any]) -> None:
    """Check that the call can be made, before the decision is stored.

    Raises `ToolGone`, and `Invalid` for arguments that do not fit the tool or are beyond its policy: changed ones, or
    those of an older version. Where sub-agents have a tool of the same name, the one that asked checks again.
    """
    services().agents.refresh()  # as the worker that resumes the run does
    name = row["name"]
    owners = owners_of(name, row["agent"], services().agents.agents)
    if not owners and is_remote(row):
        return  # the service that makes the call knows its tools
    if not owners:
        detail = f"The agent {row['agent']} has no tool {name} any more: deny the call, or cancel its run."
        raise errors.ToolGone(detail)
    wrong = [owner.tools[name].faults(arguments) or owner.beyond(name, arguments) for owner in owners]
    if all(wrong):
        detail = f"The arguments do not fit the tool {name}; see `errors`. Change them, or deny."
        raise errors.Invalid(detail, errors=located(wrong[0], arguments, "/arguments"))
