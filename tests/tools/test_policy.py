"""Policy of tool calls: allowed, put to a person, or denied with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.tools import tool
from service.tools.policy import Approval, ProposedCall, Verdict, policy


@tool()
def refund(order: str) -> str:
    """Pay money back."""
    return order


ALLOW = Verdict("allow")
CALL = ProposedCall("refund", refund)
ASKED = replace(CALL, needs_approval=True)
LOST = replace(CALL, made="unknown")
YES = Approval(approved=True, reason="policy")
NO = Approval(approved=False, reason="policy", comment="Too much.")


def test_call_without_approval_rule_is_allowed() -> None:
    assert policy(CALL) == ALLOW


def test_tool_under_approval_is_asked_about_once() -> None:
    assert policy(ASKED) == ("ask", "policy")
    assert policy(replace(ASKED, approval=YES)) == ALLOW
    assert policy(replace(ASKED, approval=NO)) == ("deny", "A person denied this call: Too much.")
    assert policy(replace(ASKED, approval=replace(NO, comment=None))) == (
        "deny",
        "A person denied this call.",
    )


def test_call_of_unknown_outcome_is_asked_about() -> None:
    assert policy(LOST) == ("ask", "unknown")
    assert policy(replace(LOST, approval=YES)) == ALLOW
    refused = policy(replace(LOST, approval=Approval(False, "unknown")))
    assert (refused.action, "not known whether" in refused.reason) == ("deny", True)


def test_spent_decision_is_asked_again() -> None:
    assert policy(replace(LOST, approval=replace(YES, spent=True))) == ("ask", "unknown")


@pytest.mark.parametrize("approval", [None, YES, NO])
def test_completed_call_is_allowed_whatever_the_approval(approval: Approval | None) -> None:
    assert policy(replace(ASKED, made="yes", approval=approval)) == ALLOW


@pytest.mark.parametrize("call", [CALL, ASKED, LOST])
def test_unreadable_arguments_are_denied_without_asking(call: ProposedCall) -> None:
    verdict = policy(replace(call, readable=False))
    assert (verdict.action, verdict.reason[:13]) == ("deny", "The arguments")


def test_unknown_tool_is_denied_unless_possibly_called() -> None:
    gone = replace(CALL, tool=None)
    assert policy(gone) == ("deny", "There is no tool named refund.")
    assert policy(replace(gone, readable=False)) == ("deny", "There is no tool named refund.")
    assert policy(replace(gone, made="unknown")) == ("ask", "unknown")


def test_dangerous_tool_is_asked_about_whatever_the_agent_says() -> None:
    danger = replace(CALL, tool=replace(refund, risk="danger"))
    assert policy(danger) == ("ask", "policy")
    assert policy(replace(danger, approval=YES)) == ALLOW
    assert policy(replace(danger, made="yes")) == ALLOW


@pytest.mark.parametrize("call", [CALL, ASKED, replace(ASKED, approval=YES)])
def test_call_with_refused_arguments_is_denied_and_nobody_is_asked(call: ProposedCall) -> None:
    assert policy(replace(call, fault="Too far.")) == ("deny", "Too far.")


def test_call_that_was_made_has_its_result_whatever_its_arguments() -> None:
    assert policy(replace(CALL, fault="Too far.", made="yes")) == ALLOW
    assert policy(replace(CALL, fault="Too far.", made="unknown")) == ("ask", "unknown")
    assert policy(replace(CALL, fault="Too far.", made="unknown", approval=YES)) == ("deny", "Too far.")


def test_expired_approval_is_a_denial_by_nobody() -> None:
    late = Approval(False, "policy", "Nobody decided in time.", expired=True)
    assert (
        policy(replace(ASKED, approval=late)).reason
        == "Nobody approved this call in time, so it was not made."
    )
    lost = policy(replace(LOST, approval=replace(late, reason="unknown")))
    assert (lost.action, "nobody decided to make it again" in lost.reason) == ("deny", True)


def test_call_after_untrusted_text_is_asked_about() -> None:
    untrusted = replace(CALL, untrusted=True)
    assert policy(untrusted) == ("ask", "untrusted")
    assert policy(replace(untrusted, needs_approval=True)) == ("ask", "policy")
    assert policy(replace(untrusted, approval=Approval(True, "untrusted"))) == ALLOW
    assert policy(replace(untrusted, made="yes")) == ALLOW
    assert policy(replace(untrusted, tool=replace(refund, risk="read"))) == ALLOW
    assert policy(replace(untrusted, tool=replace(refund, risk="read", sends=True))) == ("ask", "untrusted")
    assert policy(replace(untrusted, tool=replace(refund, risk="danger"))).action == "ask"
    assert policy(replace(untrusted, tool=None)).action == "deny"
