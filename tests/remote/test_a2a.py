"""Remote agents over A2A 1.0, before the official SDK's own server; and answers that break its rules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.types import Event
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, close, whole
from tests.remote import a2a_server, house
from tests.remote.a2a_server import Executor
from tests.remote.house import Far, spec, streams
from tests.remote.test_questions import decide
from tests.runs import inside

Talking = tuple[Far, Executor]


@pytest.fixture(params=["streamed", "whole"])
def talking(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[Talking]:
    with a2a_server.serving(streaming=request.param == "streamed") as (url, executor):
        probe = spec(url, protocol="a2a", silence_seconds=5)
        place = url.removeprefix("http://").partition("/")[0]
        with house.gateways.gateway(
            tmp_path, redis_server.url, specs={"probe": probe}, remote_hosts=place
        ) as door:
            yield Far(door.services, None, door), executor  # type: ignore[arg-type]


def test_artifacts_are_the_answer_told_as_they_come(talking: Talking) -> None:
    far, executor = talking
    events = far.stream("Hello?")
    pieces = [one.data["text"] for one in events if one.name is Event.TEXT_DELTA]
    assert "".join(pieces) == events[-1].data["output"] == "Good day."
    [metadata] = executor.metadata
    assert metadata["slipway"]["run_token"].startswith("slr_")
    assert metadata["slipway"]["base_url"]
    assert metadata["slipway"]["messages"] == [{"role": "user", "content": "Hello?"}]


def test_input_required_is_an_approval(talking: Talking) -> None:
    far, _ = talking
    run = far.ask("asks first")
    assert run.status == "waiting_approval"
    decide(far, run, comment="Yes")
    run = far.again(run)
    assert run.error is None and run.result["output"] == "You said Yes"  # type: ignore[index]


def test_failed_task_is_a_failed_run_without_its_words(talking: Talking) -> None:
    far, _ = talking
    run = far.ask("fails always")
    assert run.error["code"] == "remote_failed" and "SECRET" not in str(run.error)  # type: ignore[index]


def test_cancel_reaches_the_task(talking: Talking) -> None:
    far, executor = talking
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(far.ask("hangs")))
    thread.start()
    assert executor.hanging.wait(60)
    [handle] = far.services.runs.execution.slots.all()
    far.services.runs.cancellation.cancel(far.services.runs.queries.get(handle.run_id))
    thread.join(15)
    assert ended[0].status == "cancelled" and executor.cancelled.wait(60)


def rpc(result: Any) -> bytes:
    import json

    return f"data: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': result})}\n\n".encode()


WORKING = {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}}


@pytest.mark.parametrize(
    "handler",
    [
        whole({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "SECRET"}}),
        whole({"jsonrpc": "2.0", "id": 1, "result": WORKING}),
        whole([1]),
        streams(rpc(WORKING)),
        streams(b"data: {\n\n"),
        streams(rpc([])),
        streams(rpc({"task": {"status": {"state": "TASK_STATE_REJECTED"}}})),
        streams(rpc({"artifactUpdate": {"artifact": {"parts": [{"text": "x" * 1_100_000}]}}})),
    ],
)
def test_answer_that_breaks_the_rules_is_a_failed_run(
    tmp_path: Path, redis_server: RedisServer, handler: Any
) -> None:
    with house.far(tmp_path, redis_server.url, handler, protocol="a2a") as far:
        run = far.ask()
        assert run.error["code"] == "remote_failed" and "SECRET" not in str(run.error)  # type: ignore[index]


ENDED = {
    "id": "t",
    "contextId": "c",
    "status": {"state": "TASK_STATE_COMPLETED"},
    "artifacts": [{"artifactId": "a", "parts": [{"text": "Good day."}]}],
}
HALF = {
    "artifactUpdate": {
        "taskId": "t",
        "contextId": "c",
        "artifact": {"artifactId": "a", "parts": [{"text": "Good "}]},
    }
}


def broken(exchange: Exchange) -> None:
    streams(rpc(WORKING), rpc(HALF), then=close)(exchange)


@pytest.mark.parametrize(
    ("then", "status", "output"),
    [
        (whole({"jsonrpc": "2.0", "id": 1, "result": ENDED}), "succeeded", "Good day."),
        # Its process has gone, and the task with it: the run is left to its next attempt.
        (whole({"jsonrpc": "2.0", "id": 1, "error": {"code": -32001}}), "running", None),
        (close, "running", None),
    ],
)
def test_task_whose_stream_breaks_off_is_looked_for(
    tmp_path: Path, redis_server: RedisServer, then: Any, status: str, output: str | None
) -> None:
    with house.far(tmp_path, redis_server.url, then, protocol="a2a") as far:
        far.service.script = [broken]
        run = far.services.runs.start.queue(inside.ADA, inside.request("Hello?"), None, "req").run
        run = far.again(run)
        assert (run.status, (run.result or {}).get("output")) == (status, output)
        assert [one.json["method"] for one in far.service.requests][:2] == ["SendStreamingMessage", "GetTask"]


def test_message_without_a_task_is_an_answer(tmp_path: Path, redis_server: RedisServer) -> None:
    message = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "Good day."}]}}
    with house.far(tmp_path, redis_server.url, streams(rpc(message)), protocol="a2a") as far:
        assert inside.ask(far.services, "Hi", cache="bypass").result["output"] == "Good day."  # type: ignore[index]
