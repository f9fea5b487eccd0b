"""Remote agents over one POST: good answers become answers of the run, bad ones failed runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store.schema import runs, users
from service.types import Event
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import Exchange, chunk, close, head, silent, whole
from tests.remote import house
from tests.remote.house import SUCCEEDED, Far, completed, event, streams, text
from tests.runs import inside

HTML = lambda exchange: exchange.send(head(200, 4, "content-type: text/html\r\n") + b"<h1>")  # noqa: E731
MOVED = lambda exchange: exchange.send(  # noqa: E731
    head(302, 0, "location: http://127.0.0.1:1/elsewhere\r\n")
)


def test_json_answer_is_the_runs(far: Far) -> None:
    far.service.script = [whole({**SUCCEEDED, "tools": [{"name": "look", "ok": True, "ms": 3}], "more": 1})]
    run = far.ask()
    assert (run.status, run.result["output"]) == ("succeeded", "Good day.")  # type: ignore[index]
    assert [tool["name"] for tool in run.result["tools"]] == ["look"]  # type: ignore[index]
    [body] = far.bodies
    assert body["input"] == "Hello?" and body["messages"][-1]["role"] == "user" and body["resume"] is None
    assert body["run_id"] == run.id and body["run_token"].startswith("slr_") and body["base_url"]
    [asked] = far.service.requests
    assert asked.headers["idempotency-key"].startswith(run.id)


def test_stream_is_told_as_it_comes(far: Far) -> None:
    called = {"call_id": "c1", "name": "look", "arguments": {"at": "it"}}
    finished = {"call_id": "c1", "ok": True, "ms": 4, "preview": "seen"}
    far.service.script = [
        streams(
            event("tool.called", called),
            event("tool.finished", finished),
            text("Good "),
            text("day."),
            completed(),
        )
    ]
    events = far.stream()
    names = [one.name for one in events]
    assert names == [
        Event.RUN_STARTED,
        Event.STEP_STARTED,
        Event.TOOL_CALLED,
        Event.TOOL_FINISHED,
        Event.TEXT_DELTA,
        Event.TEXT_DELTA,
        Event.RUN_COMPLETED,
    ]
    assert events[2].data["call_id"] == events[3].data["call_id"] != "c1"
    assert "".join(one.data["text"] for one in events if one.name is Event.TEXT_DELTA) == "Good day."
    assert events[-1].data["output"] == "Good day."


def test_what_it_says_is_untrusted(far: Far) -> None:
    far.service.script = [whole({**SUCCEEDED, "output": "See https://evil.example/x now."})]
    run = far.ask()
    assert "evil.example" not in run.result["output"]  # type: ignore[index]
    assert run.untrusted == ("remote",)


def test_lie_about_usage_changes_nothing(far: Far) -> None:
    far.service.script = [whole({**SUCCEEDED, "usage": {"input_tokens": 10**9, "cost_usd": "-5.0"}})]
    run = far.ask()
    assert run.result["usage"]["cost_usd"] == "0.000000"  # type: ignore[index]
    assert far.door.spent == 0 and run.cost_nano == 0


def big(exchange: Exchange) -> None:
    exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
    for _ in range(40):
        exchange.send(chunk(b"data: " + b"x" * 65_536 + b"\n"))


BAD: dict[str, Any] = {
    "no json": (whole(b"{"), "remote_failed"),
    "list": (whole(b"[]"), "remote_failed"),
    "no status": (whole({"output": "x"}), "remote_failed"),
    "odd status": (whole({"status": "done", "output": "x"}), "remote_failed"),
    "odd output": (whole({"status": "succeeded", "output": {"a": 1}}), "remote_failed"),
    "deep": (whole(b'{"status":' + b"[" * 100_000), "remote_failed"),
    "html": (HTML, "remote_failed"),
    "redirect": (MOVED, "remote_failed"),
    "status 500": (whole({"secret": "words"}, 500), "remote_failed"),
    "status 404": (whole({}, 404), "remote_failed"),
    "huge": (whole(b'"' + b"x" * (5 * 1024 * 1024) + b'"'), "remote_failed"),
    "huge event": (big, "remote_failed"),
    "no last event": (streams(text("Half")), "remote_failed"),
    "bad last event": (streams(event("run.completed", "{")), "remote_failed"),
    "failed": (whole({"status": "failed", "error": {"code": "boom", "detail": "SECRET"}}), "remote_failed"),
    "failed like us": (whole({"status": "failed", "error": {"code": "run_limit"}}), "run_limit"),
    "waits for nothing": (whole({"status": "waiting_approval", "approvals": []}), "remote_failed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_answer_is_a_failed_run_without_its_words(far: Far, name: str) -> None:
    handler, code = BAD[name]
    far.service.otherwise = handler
    run = far.ask()
    assert (run.status, run.error["code"]) == ("failed", code)  # type: ignore[index]
    assert "SECRET" not in str(run.error) and "secret" not in str(run.error) and far.door.held == 0


def test_answer_that_breaks_off_leaves_the_run_to_other_attempts_and_then_fails_it(far: Far) -> None:
    far.service.otherwise = streams(text("Half"), then=close)
    run = far.services.runs.start.queue(inside.ADA, inside.request("Hello?"), None, "req").run
    statuses = []
    for _ in range(3):
        statuses.append(far.again(run).status)
    run = far.services.runs.queries.get(run.id)
    assert statuses == ["running", "running", "failed"] and run.losses == 2
    assert run.error["code"] == "remote_failed"  # type: ignore[index]
    keys = {one.headers["idempotency-key"] for one in far.service.requests}
    assert len(far.service.requests) == 3 and len(keys) == 1


def test_stream_without_length_or_chunks_may_have_lost_its_process(far: Far) -> None:
    def ends(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + text("Half"))
        exchange.close()

    far.service.script = [ends]
    run = far.services.runs.start.queue(inside.ADA, inside.request("Hello?"), None, "req").run
    assert [far.again(run).status for _ in range(2)] == ["running", "succeeded"]


def test_closed_connection_is_asked_once_more_with_the_same_key(far: Far) -> None:
    far.service.script = [close]
    assert far.ask().status == "succeeded"
    keys = [one.headers["idempotency-key"] for one in far.service.requests]
    assert len(keys) == 2 and len(set(keys)) == 1


def test_service_that_is_away_ends_the_run_and_is_paused(far: Far) -> None:
    far.service.stop()
    errors = [far.ask().error for _ in range(4)]
    assert {error["code"] for error in errors if error} == {"remote_unavailable"}
    assert errors[-1] is not None and errors[-1]["retry_after"] > 0


def test_overloaded_service_is_unavailable(far: Far) -> None:
    far.service.otherwise = whole({}, 503)
    run = far.ask()
    assert run.error["code"] == "remote_unavailable" and len(far.service.requests) == 2  # type: ignore[index]


def test_silence_ends_the_run(tmp_path: Path, redis_server: RedisServer) -> None:
    with house.far(tmp_path, redis_server.url, streams(text("Well, "), then=silent), silence=0.5) as far:
        run = far.ask()
        assert run.error["code"] == "remote_failed" and run.result["output"] == "Well, "  # type: ignore[index]


def test_cancel_closes_the_connection_and_tells_the_service(far: Far) -> None:
    begun = threading.Event()

    def begins(exchange: Exchange) -> None:
        begun.set()
        streams(text("Well, "), then=silent)(exchange)

    far.service.script = [begins]
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(far.ask()))
    thread.start()
    assert begun.wait(60)
    [run_id] = [handle.run_id for handle in far.services.runs.execution.slots.all()]
    far.services.runs.cancellation.cancel(far.services.runs.queries.get(run_id))
    thread.join(60)
    assert ended[0].status == "cancelled"
    told = [one for one in far.service.requests if one.head.startswith(b"POST /cancel")]
    assert len(told) == 1 and told[0].json == {"run_id": run_id}
    assert far.service.hung_up.wait(60)


def test_events_after_the_last_are_not_told(far: Far) -> None:
    far.service.script = [streams(text("Good day."), completed(), text("More."), completed("Other."))]
    events = far.stream()
    assert [one.name.is_last for one in events].count(True) == 1
    assert events[-1].data["output"] == "Good day."


def test_odd_events_are_left_out(far: Far) -> None:
    odd = [
        event("text.delta", []),
        event("text.delta", {"text": 7}),
        event("tool.called", {"call_id": "", "name": "x", "arguments": {}}),
        event("tool.called", {"call_id": "a", "name": "x", "arguments": "no"}),
        event("run.started", {"run_id": "run_x"}),
        event("usage", {"cost_usd": "9"}),
    ]
    far.service.script = [streams(*odd, b": heartbeat\n\n", text("Good day."), completed())]
    events = far.stream()
    told = {one.name for one in events}
    assert (
        Event.TOOL_CALLED not in told and Event.USAGE not in told and events[-1].data["output"] == "Good day."
    )


def test_gateway_call_is_a_step_of_the_run(far: Far) -> None:
    def calls(exchange: Exchange) -> None:
        far.door.post(exchange.json["run_token"])
        whole(SUCCEEDED)(exchange)

    far.service.otherwise = calls
    events = far.stream()
    assert [one.name for one in events if one.name is Event.USAGE] == [Event.USAGE]
    result = events[-1].data
    assert result["usage"]["output_tokens"] > 0 and result["steps"] == 2
    wait_until(lambda: far.door.held == 0, "the books")
    [row] = far.door.rows()
    assert row["told"] and row["cost_nano"] == far.door.spent


def test_cancelled_run_is_cancelled_also_after_a_call_was_refused_at_a_bound(far: Far) -> None:
    begun = threading.Event()

    def spends_and_hangs(exchange: Exchange) -> None:
        codes = [far.door.post(exchange.json["run_token"]).status_code for _ in range(6)]
        assert codes[-1] == 403
        begun.set()
        streams(text("Well, "), then=silent)(exchange)

    far.service.script = [spends_and_hangs]
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(far.ask()))
    thread.start()
    assert begun.wait(20)
    [handle] = far.services.runs.execution.slots.all()
    far.services.runs.cancellation.cancel(far.services.runs.queries.get(handle.run_id))
    thread.join(20)
    assert ended[0].status == "cancelled"


@pytest.mark.parametrize("why", ["cancelled", "refused"])
def test_agent_that_fails_as_its_run_must_stop_does_not_make_it_a_failed_one(far: Far, why: str) -> None:
    """Its calls are refused before the worker of the run is told."""

    def is_refused(exchange: Exchange) -> None:
        change = sa.update(runs).where(runs.c.id == exchange.json["run_id"]).values(cancel_requested=True)
        if why == "refused":
            change = sa.update(users).values(disabled=True)
        far.services.infra.db.transact(lambda tx: tx.execute(change))
        assert far.door.post(exchange.json["run_token"]).status_code == 401
        whole({"status": "failed", "error": {"code": "model_error"}})(exchange)

    far.service.script = [is_refused]
    assert far.ask().status == "cancelled"
