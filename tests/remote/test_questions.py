"""Questions of remote agents: approvals of the run, and the decisions given back with the agent's state."""

from __future__ import annotations

from typing import Any

import pytest

from service import approvals
from service.store.approvals import Decision, of_run
from service.types import Caller, Event, Run
from tests.llm.wire_server import whole
from tests.remote.house import SUCCEEDED, Far, event, streams, text, waiting

OPERATOR = Caller("usr_ada", "ada", "admin")


def decide(far: Far, run: Run, decision: Any = "approve", **fields: Any) -> None:
    """Decide alike about all that the run waits for."""
    db = far.services.infra.db
    for row in db.query(lambda tx: of_run(tx, run.id)):
        if row["status"] == "pending":
            made = Decision(decision, fields.get("comment"), fields.get("arguments"), f"dec_{row['id'][4:]}")
            db.transact(lambda tx: approvals.decide(tx, OPERATOR, row["id"], made))  # noqa: B023


def asked_about(far: Far, run: Run) -> list[Any]:
    return far.services.infra.db.query(lambda tx: of_run(tx, run.id))


def test_question_suspends_the_run_and_the_decision_goes_back_with_the_state(far_in_each: Far) -> None:
    far = far_in_each
    far.service.script = [whole(waiting("c1", "c2")), whole(SUCCEEDED)]
    run = far.ask()
    assert run.status == "waiting_approval" and len(asked_about(far, run)) == 2
    [row, _] = asked_about(far, run)
    assert (row["name"], row["arguments"], row["untrusted"]["sources"]) == (
        "send_mail",
        {"to": "c1"},
        ["remote"],
    )
    decide(far, run, arguments={"to": "another"}, comment="So.")
    run = far.again(run)
    assert run.status == "succeeded", run.error
    resume = far.bodies[1]["resume"]
    assert resume["state"] == {"at": 7}
    decided = {"name": "send_mail", "decision": "approve", "arguments": {"to": "another"}, "comment": "So."}
    assert resume["decisions"] == [{"call_id": call, **decided} for call in ("c1", "c2")]
    tokens = [body["run_token"] for body in far.bodies]
    assert len(set(tokens)) == 2 and far.door.post(tokens[0]).status_code == 401


def test_denied_question_goes_back_too_and_another_may_follow(far: Far) -> None:
    far.service.script = [whole(waiting("c1")), whole(waiting("c1", state="more")), whole(SUCCEEDED)]
    run = far.ask()
    decide(far, run, "deny")
    run = far.again(run)
    assert run.status == "waiting_approval" and far.bodies[1]["resume"]["decisions"][0]["decision"] == "deny"
    decide(far, run)
    run = far.again(run)
    assert run.status == "succeeded" and far.bodies[2]["resume"]["state"] == "more"


def test_run_that_is_taken_up_before_the_decision_waits_on(far: Far) -> None:
    far.service.script = [whole(waiting("c1"))]
    run = far.ask()
    db = far.services.infra.db
    from service.store import runs as rows
    from service.types import RunStatus, now_ms

    assert db.transact(lambda tx: rows.requeue(tx, run.id, [RunStatus.WAITING_APPROVAL], now_ms()))
    run = far.again(run)
    assert run.status == "waiting_approval" and len(far.bodies) == 1 and len(asked_about(far, run)) == 1


def test_stream_tells_the_question_and_goes_on_after_it(far: Far) -> None:
    far.service.script = [
        streams(text("One moment. "), event("run.waiting", waiting("c1"))),
        streams(text("Sent."), event("run.completed", {**SUCCEEDED, "output": "Sent."})),
    ]
    events = far.stream()
    assert Event.APPROVAL_REQUIRED in [one.name for one in events]
    [run_id] = {one.data["run_id"] for one in events if "run_id" in one.data}
    run = far.services.runs.queries.get(run_id)
    decide(far, run)
    run = far.again(run)
    assert (run.status, run.result["output"]) == ("succeeded", "Sent.")  # type: ignore[index]
    told = [one.name for batch in far.services.runs.queries.follow(run.id, 0) for one in batch]
    assert told.count(Event.APPROVAL_REQUIRED) == told.count(Event.APPROVAL_DECIDED) == 1
    assert [name.is_last for name in told].count(True) == 1


@pytest.mark.parametrize("status", [200, 409])
def test_decision_over_http(far: Far, status: int) -> None:
    """The tool of a remote agent is not known here: the call can be approved all the same; twice is 409."""
    import sqlalchemy as sa

    from service.store.schema import users

    far.services.infra.db.transact(lambda tx: tx.execute(sa.update(users).values(role="admin")))
    key = far.services.auth.keys.create("usr_ada", "k")["key"]
    far.service.script = [whole(waiting("c1"))]
    run = far.ask()
    [row] = asked_about(far, run)
    path = f"/v1/approvals/{row['id']}"
    answers = [far.door.post(key, {"decision": "approve"}, path) for _ in range(1 if status == 200 else 2)]
    assert answers[-1].status_code == status, answers[-1].text
