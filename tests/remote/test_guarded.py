"""Guardrails on a remote agent: it reads placeholders, and its answer passes as a model's does."""

from __future__ import annotations

from pathlib import Path

from service.types import Event
from tests.conftest import RedisServer
from tests.remote import house
from tests.remote.house import completed, streams, text
from tests.runs import guarded, inside
from tests.runs.guarded import MAIL, OTHER


def test_it_reads_placeholders_and_tells_none_of_a_value(tmp_path: Path, redis_server: RedisServer) -> None:
    told = streams(
        text("Ask grace.hop"), text("per@navy.example, "), text("or not."), completed(f"Ask {OTHER}, or not.")
    )
    with house.far(tmp_path, redis_server.url, told) as far:
        guarded.of_workspace(far.services, {"input": {"email": "redact"}, "output": {"email": "mask"}})
        events = far.stream(f"I am {MAIL}.", context=f'{{"me": "{MAIL}"}}')
        body = far.bodies[0]
    assert MAIL not in str(body) and "[EMAIL_" in body["input"] and "[EMAIL_" in body["context"]["me"]
    assert (
        "".join(event.data["text"] for event in events if event.name is Event.TEXT_DELTA)
        == "Ask [EMAIL], or not."
    )
    assert events[-1].data["output"] == "Ask [EMAIL], or not." and "navy" not in str(events)


def test_refused_answer_is_heard_no_further(tmp_path: Path, redis_server: RedisServer) -> None:
    told = streams(text(f"Ask {OTHER}, "), text("or not."), completed())
    with house.far(tmp_path, redis_server.url, told) as far:
        guarded.of_workspace(far.services, {"output": {"email": "refuse"}})
        events = far.stream()
    assert events[-1].name is Event.RUN_FAILED and "navy" not in str(events)
    assert events[-1].data["error"]["code"] == "guardrail_refused"


def test_person_sees_the_true_value_of_a_remote_call(tmp_path: Path, redis_server: RedisServer) -> None:
    with house.far(tmp_path, redis_server.url) as far:
        guarded.of_workspace(far.services, {"input": {"email": "redact"}})

        def asks(exchange: house.Exchange) -> None:
            house.whole(house.waiting(exchange.json["input"].removeprefix("Write to ")))(exchange)

        far.service.script = [asks]
        run = far.ask(f"Write to {MAIL}")
        from service.store import approvals

        (row,) = far.services.infra.db.query(lambda tx: approvals.of_run(tx, run.id))
    assert row["arguments"] == {"to": MAIL} and inside.ADA.user_id == row["user_id"]


def test_its_names_of_tools_and_its_end_user_are_texts_too(tmp_path: Path, redis_server: RedisServer) -> None:
    called = house.event("tool.called", {"call_id": "c1", "name": f"Look up {OTHER}", "arguments": {}})
    ended = house.event("tool.finished", {"call_id": "c1", "ok": True, "ms": 1, "preview": "x"})
    tools = [{"name": f"Look up {OTHER}", "ok": True, "ms": 1}]
    with house.far(tmp_path, redis_server.url, streams(called, ended, completed(tools=tools))) as far:
        guarded.of_workspace(far.services, {"input": {"email": "redact"}, "output": {"email": "mask"}})
        events = far.stream("Hello?", end_user=MAIL)
        body = far.bodies[0]
    assert MAIL not in str(body) and "[EMAIL_" in body["end_user"]
    assert "navy" not in str(events) and events[-1].data["tools"][0]["name"] == "Look up [EMAIL]"
