"""Retries and resumed streams, against a server that fails as it is told."""

from __future__ import annotations

import threading

import anyio
import pytest
from slipway_client import (
    APIError,
    AsyncSlipway,
    ConflictError,
    ConnectionFailed,
    Event,
    NotFoundError,
    RateLimitError,
    RunResult,
    ServerError,
    Slipway,
    SlipwayError,
    TimedOut,
    UnavailableError,
    UnexpectedAnswer,
    exchange,
    following,
)

from tests.client.wire import RECONNECT, RUN, event, events, last, paths, problem, scripted, sent, text
from tests.llm.wire_server import Exchange, WireServer, chunk, close, head, silent, whole

pytestmark = pytest.mark.usefixtures("quick")


def client_of(server: WireServer, **options: float) -> Slipway:
    return Slipway("slp_1", base_url=server.url, **options)  # type: ignore[arg-type]


def stream_of(server: WireServer) -> tuple[list[Event], str, RunResult]:
    """What the synchronous client tells; the asynchronous one must tell the same."""
    script = list(server.script)
    with client_of(server) as client, client.agents.stream("assistant", "?") as told:
        found = list(told)
        text_, result = told.text, told.result()
    first = [(paths(server), sent(server, "last-event-id"))]
    server.script, server.requests = script, []

    async def main() -> None:
        other = AsyncSlipway("slp_1", base_url=server.url)
        async with other, other.agents.stream("assistant", "?") as events_:
            assert [each async for each in events_] == found
            assert (events_.text, await events_.result()) == (text_, result)

    anyio.run(main)
    assert [(paths(server), sent(server, "last-event-id"))] == first
    return found, text_, result


def test_a_call_is_retried_with_its_key_until_it_is_answered() -> None:
    with scripted(
        close, problem(503, "overloaded", 0), problem(429, "rate_limited", 0), whole(RUN)
    ) as server:
        with client_of(server) as client:
            assert client.agents.invoke("assistant", "?").output == "Good day."
        keys = sent(server, "idempotency-key")
        assert len(keys) == 4 and len(set(keys)) == 1 and keys[0]


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("slipway_client.client.time.sleep", slept.append)
    script = [problem(429, "rate_limited", 7), problem(503, "overloaded", 3), whole(RUN)]
    with scripted(*script) as server, client_of(server) as client:
        client.agents.invoke("assistant", "?")
    assert [7 <= slept[0] < 8, 3 <= slept[1] < 4, len(slept)] == [True, True, 2]


def test_retries_end() -> None:
    with scripted(*[problem(503, "overloaded", 0)] * 20) as server:
        with client_of(server, max_retries=2) as client, pytest.raises(UnavailableError) as refused:
            client.runs.cancel("run_1")
        assert len(server.requests) == 3
    assert (refused.value.retry_after, refused.value.request_id) == (0, "req_1")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(429, "rate_limited", 100), RateLimitError),  # longer than anybody wants to wait unasked
        (problem(409, "already_decided"), ConflictError),
        (problem(502, "model_refused", run_id="run_9"), ServerError),
        (problem(503, "price_unknown", 1), UnavailableError),
        (problem(500, "internal_error"), ServerError),
        (problem(418, "teapot"), APIError),
    ],
)
def test_what_would_fail_again_is_not_retried(answer: object, kind: type[APIError]) -> None:
    with scripted(answer) as server:  # type: ignore[arg-type]
        with client_of(server) as client, pytest.raises(APIError) as refused:
            client.agents.invoke("assistant", "?")
        assert len(server.requests) == 1 and type(refused.value) is kind


def test_an_answer_that_is_no_problem_document_is_an_error_all_the_same() -> None:
    def page(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 404 X\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>No</p>")

    script = [page, whole(b"<p>Yes</p>"), whole({"run_id": 1}), whole(b"[1]")]
    with scripted(*script) as server, client_of(server) as client:
        with pytest.raises(NotFoundError, match="<p>No</p>"):
            client.runs.get("run_1")
        for _ in range(3):
            with pytest.raises(UnexpectedAnswer):
                client.runs.get("run_1")


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    with scripted(close, problem(404, "not_found")) as server, client_of(server) as client:
        client.sessions.delete("ses_1")
    with (
        scripted(problem(404, "not_found")) as server,
        client_of(server) as client,
        pytest.raises(NotFoundError),
    ):
        client.sessions.delete("ses_1")


def test_silence_ends_in_a_time_out() -> None:
    with scripted(silent, silent) as server:
        with client_of(server, timeout=0.1, max_retries=1) as client, pytest.raises(TimedOut):
            client.agents.invoke("assistant", "?")
        assert len(server.requests) == 2


def test_a_stream_that_falls_silent_is_taken_up_and_one_that_begins_late_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "STREAM_SILENCE", 0.3)
    late = threading.Event()

    def begins_late(asked: Exchange) -> None:
        late.wait(1.0)
        asked.send(head(200, None, "content-type: text/event-stream\r\n") + chunk(text(1, "Good ")))
        silent(asked)

    with scripted(begins_late, events(text(2, "day."), last(3))) as server:
        found, _, _ = stream_of(server)
        assert paths(server) == ["/v1/agents/assistant/stream", "/v1/runs/run_1/events"]
        assert server.hung_up.is_set()  # it was the client that had enough
        with client_of(server) as client:
            assert client.agents.stream("assistant", "?")._place.start.slow
    assert [each.seq for each in found] == [1, 2, 3]


def test_nobody_there_is_told_as_such() -> None:
    with scripted() as server:
        url = server.url
    with Slipway("slp_1", base_url=url, max_retries=1) as client, pytest.raises(ConnectionFailed) as failed:
        client.account.me()
    assert f"{url.removeprefix('http://')}/v1/auth/me" in str(failed.value)


def test_a_broken_stream_goes_on_after_the_last_event() -> None:
    script = [
        events(event(1, "run.started"), text(2, "Good "), b"id: run_1:3\nevent: text.delta\nda", cut=True),
        problem(503, "overloaded", 0),
        close,
        events(text(2, "Good "), text(3, "day.")),  # repeats one, and ends without `reconnect`
        events(RECONNECT),
        events(last(4)),
    ]
    with scripted(*script) as server:
        found, told, result = stream_of(server)
        assert paths(server) == ["/v1/agents/assistant/stream"] + ["/v1/runs/run_1/events"] * 5
        assert sent(server, "last-event-id") == [None, *["run_1:2"] * 3, *["run_1:3"] * 2]
    assert [each.seq for each in found] == [1, 2, 3, 4]
    assert told == result.output == "Good day."


def test_a_stream_that_breaks_before_its_first_event_is_the_same_request_again() -> None:
    with scripted(close, events(), events(text(1, "Good day."), last(2))) as server:
        with client_of(server) as client, client.agents.stream("assistant", "?") as told:
            assert told.result().output == "Good day."
        keys = sent(server, "idempotency-key")
        assert len(keys) == 3 and len(set(keys)) == 1


def test_void_text_is_left_out_and_a_gap_is_told() -> None:
    parts = [
        text(1, "Good "),
        text(2, "evening"),
        event(3, "run.resumed", from_seq=1),
        text(4, "day."),
        event(7, "gap", from_seq=5, to_seq=7),
        event(8, "sometime.later", any=1),
        last(9),
    ]
    with scripted(events(*parts)) as server:
        found, told, _ = stream_of(server)
    assert told == "Good day." and [each.type for each in found][3:6] == [
        "text.delta",
        "gap",
        "sometime.later",
    ]


def test_a_failed_run_is_a_result_that_can_be_raised() -> None:
    error = {"status": 502, "code": "model_error", "detail": "It broke."}
    failed = event(1, "run.failed", **{**RUN, "status": "failed", "error": error})
    with scripted(events(failed)) as server:
        _, _, result = stream_of(server)
    assert result.status == "failed"
    with pytest.raises(ServerError) as raised:
        result.raise_for_error()
    assert (raised.value.code, raised.value.run_id) == ("model_error", "run_1")


@pytest.mark.parametrize("answer", [problem(402, "budget_exceeded"), whole(RUN), events(b"data: x\n\n")])
def test_a_stream_that_is_refused_is_not_tried_again(answer: object) -> None:
    with scripted(answer) as server:  # type: ignore[arg-type]
        with client_of(server) as client, client.agents.stream("assistant", "?") as told:
            with pytest.raises(SlipwayError):
                next(told)
            with pytest.raises(SlipwayError, match="closed before"):
                told.result()
        assert len(server.requests) == 1 and told.last_event_id == ""


def test_a_stream_gives_up_where_nothing_comes_and_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RECONNECTS", 3)
    with scripted(events(text(1, "a")), *[events()] * 9) as server:
        with client_of(server) as client:
            told = client.agents.stream("assistant", "?")
            with pytest.raises(ConnectionFailed):
                list(told)
        assert len(server.requests) == 4 and told.last_event_id == "run_1:1"


def test_a_run_that_waits_is_awaited_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RECONNECTS", 3)
    with scripted(*[events(RECONNECT), events(), close] * 3, events(last(1))) as server:
        with client_of(server) as client, client.runs.events("run_1") as told:
            assert told.result().status == "succeeded"
        assert len(server.requests) == 10


def told_and_silent(exchange: Exchange) -> None:
    exchange.send(head(200, None, "content-type: text/event-stream\r\n") + chunk(text(1, "a")))
    silent(exchange)


def test_a_closed_stream_leaves_no_connection() -> None:
    with scripted(told_and_silent) as server, client_of(server) as client:
        with client.agents.stream("assistant", "?") as told:
            next(told)
        assert server.hung_up.wait(60) and list(told) == []


def test_a_closed_or_cancelled_asynchronous_stream_leaves_no_connection() -> None:
    async def main(server: WireServer, seconds: float) -> None:
        async with AsyncSlipway("slp_1", base_url=server.url) as client:
            with anyio.move_on_after(seconds):
                async with client.agents.stream("assistant", "?") as told:
                    await anext(told)
                    if seconds < 9:
                        await anext(told)  # which never comes
            assert await anyio.to_thread.run_sync(server.hung_up.wait, 5)

    for seconds in (9.0, 1.0):
        with scripted(told_and_silent) as server:
            anyio.run(main, server, seconds)


def test_events_go_on_after_an_id_of_that_run_only() -> None:
    with scripted(events(last(6))) as server, client_of(server) as client:
        with client.runs.events("run_1", after="run_1:5") as told:
            assert [each.id for each in told] == ["run_1:6"]
        assert sent(server, "last-event-id") == ["run_1:5"]
        for bad in ("run_2:5", "run_1:x", "5", "run_1:-1"):
            with pytest.raises(ValueError, match="no event"):
                client.runs.events("run_1", after=bad)
