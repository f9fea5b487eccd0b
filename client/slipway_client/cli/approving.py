"""`slipway approvals`: list, show, approve and deny tool calls that wait for a person."""

from __future__ import annotations

import argparse
import json

from slipway_client.cli.console import answered, as_json, card, clean, fail, line, note, person, table
from slipway_client.client import Slipway
from slipway_client.errors import APIError, SlipwayError
from slipway_client.models import Approval, Untrusted

WHY = {
    "policy": "the agent or the tool asks each time",
    "untrusted": "the run has untrusted text",
    "unknown": "it may have been made already",
}


def list_approvals(client: Slipway, options: argparse.Namespace) -> int:
    status = None if options.status == "all" else options.status
    found = list(client.approvals.list(status))
    if options.json:
        as_json(found)
        return 0
    rows = [(each.id, each.created_at, each.username, each.agent, each.name, each.status) for each in found]
    table(rows, "ID", "CREATED", "USER", "AGENT", "CALL", "STATUS", empty="Nothing waits for a decision.")
    return 0


def show_approval(client: Slipway, options: argparse.Namespace) -> int:
    approval = find(client, options.id)
    if options.json:
        as_json(approval)
    else:
        show(approval)
    return 0


def approve(client: Slipway, options: argparse.Namespace) -> int:
    """Approve the call that is shown now: with its digest, so that no other call is approved."""
    approval = find(client, options.id)
    if not options.json:
        show(approval)
    if not options.yes and not confirmed("Approve this call?"):
        return 1
    decided = client.approvals.approve(approval.id, digest=approval.digest, comment=options.comment)
    return told(decided, options.json)


def deny(client: Slipway, options: argparse.Namespace) -> int:
    return told(client.approvals.deny(options.id, comment=options.comment), options.json)


def told(decided: Approval, as_raw: bool) -> int:
    if as_raw:
        as_json(decided)
    else:
        line(f"{decided.id}: {decided.status}")
    return 0


def decide_here(client: Slipway, approval_id: str) -> bool:
    """Let the person at the terminal decide about a call. False: nobody is there, or they may not, or not now."""
    approval = find(client, approval_id)
    if approval.status != "pending":
        return True  # the events before a decision are told again to whoever follows from the start
    if not person():
        note(f"  {approval.name} needs an approval: `slipway approvals approve {approval_id}`")
        return False
    show(approval)
    answer = word("Approve? [y/n, anything else: later] ")
    try:
        if answer in ("y", "yes"):
            client.approvals.approve(approval.id, digest=approval.digest)
        elif answer in ("n", "no"):
            client.approvals.deny(approval.id)
        else:
            return False
    except APIError as refused:
        fail(str(refused))
        return refused.code == "already_decided"
    return True


def find(client: Slipway, approval_id: str) -> Approval:
    """Return one approval: of those that wait, else of all. Raises `SlipwayError`."""
    for status in ("pending", None):
        for approval in client.approvals.list("pending" if status else None):
            if approval.id == approval_id:
                return approval
    raise SlipwayError(f"There is no approval {approval_id}.")


def _origin(untrusted: Untrusted) -> str:
    """Tell where untrusted text is from, and which arguments have it."""
    sources = "from " + ", ".join(untrusted.sources)
    return f"{sources}, in {', '.join(untrusted.pointers)}" if untrusted.pointers else sources


def show(approval: Approval) -> None:
    """Print the card: the call, why it waits, and what it follows from."""
    tool = approval.tool
    untrusted = approval.untrusted
    rows: list[tuple[str, object]] = [
        ("status", approval.status),
        ("for", f"{approval.username}, agent {approval.agent}, run {approval.run_id}"),
        ("question", approval.input),
        ("model says", approval.explanation),
        ("tool", None if tool is None else f"{tool.description} (risk: {tool.risk})"),
        ("because", WHY.get(approval.reason, approval.reason)),
        ("untrusted", None if untrusted is None else _origin(untrusted)),
        ("until", approval.expires_at),
    ]
    card(f"{approval.name}  {approval.id}", [row for row in rows if row[1] not in (None, "")])
    arguments = json.dumps(approval.arguments, indent=2, ensure_ascii=False)
    line("\n".join(f"    {clean(each)}" for each in arguments.splitlines()))


def confirmed(question: str) -> bool:
    """Ask at the terminal. Raises `SlipwayError` where nobody is there."""
    if not person():
        raise SlipwayError("Nobody can be asked here: add `--yes`.")
    return word(f"{question} [y/n] ") in ("y", "yes")


def word(question: str) -> str:
    return (answered(question) or "").strip().lower()
