from __future__ import annotations

import threading
from typing import Any

import pytest

from service import errors
from service.llm import retry
from service.llm.client import ModelCall
from service.observe.observer import ModelAttempt
from service.types import Usage
from tests.llm.conftest import MakeClaude, Offline, a_call, ask, run
from tests.llm.resilient import OVERLOADED, REJECTED, MakeResilient, attempts, make
from tests.llm.wire_server import (
    Exchange,
    WireServer,
    chunk,
    close,
    end,
    error,
    head,
    silent,
    sse,
    start,
    stream,
    text_events,
    whole,
)

__all__ = ["attempts", "make"]


def say_overloaded(exchange: Exchange) -> None:
    exchange.send(chunk(sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})))


def codes(attempts: list[ModelAttempt]) -> list[str | None]:
    return [attempt.error_code for attempt in attempts]


@pytest.mark.parametrize("streaming", [False, True])
def test_twice_overloaded_then_an_answer(
    make: MakeResilient, server: WireServer, attempts: list[ModelAttempt], streaming: bool
) -> None:
    answer = stream([start(), *text_events("Good ", "day."), *end()]) if streaming else server.otherwise
    server.script = [OVERLOADED, OVERLOADED, answer]
    pieces, reply = run(make().create(ask(stream=streaming), a_call()))
    assert (reply.text, reply.attempts, len(server.requests)) == ("Good day.", 3, 3)
    assert pieces == (["Good ", "day."] if streaming else [])
    assert codes(attempts) == ["model_unavailable", "model_unavailable", None]
    last = attempts[2]
    assert last == ModelAttempt(
        "claude-haiku-5-5", 3, True, last.ms, reply.usage, None, streaming, first_ms=last.first_ms
    )
    assert last.first_ms is not None if streaming else last.first_ms is None


def test_the_same_with_the_offline_model(
    make: MakeResilient, offline: Offline, make_claude: MakeClaude
) -> None:
    offline.control(fault="529", times=2)
    _, reply = run(make(make_claude(offline.url)).create(ask("Hello", stream=True), a_call()))
    assert reply.attempts == 3 and reply.text


def test_last_attempt_raises_its_error(make: MakeResilient, server: WireServer) -> None:
    server.otherwise = OVERLOADED
    with pytest.raises(errors.ModelUnavailable):
        run(make(retries=2).create(ask(), a_call()))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "streaming"),
    [
        (close, False),
        (close, True),
        (error(500, "api_error"), True),
        (error(429, "rate_limit_error"), True),
        (lambda x: (x.send(head(200, 1000) + b"half"), x.close()), False),
        (stream([start(), *text_events()], say_overloaded), True),
    ],
)
def test_retryable_failures_are_retried(
    make: MakeResilient, server: WireServer, fault: Any, streaming: bool
) -> None:
    server.script = [fault, stream([start(), *text_events("ok"), *end()]) if streaming else server.otherwise]
    assert run(make().create(ask(stream=streaming), a_call()))[1].attempts == 2


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (REJECTED, errors.ModelRejected),
        (error(401, "authentication_error"), errors.ModelKeyRefused),
        (error(429, "rate_limit_error", error_code="enforced_spend_limit_reached"), errors.ModelRejected),
        (whole(b"garbage"), errors.ModelError),
        (stream([start(), *text_events("one")], close), errors.ModelInterrupted),
        (stream([start(), *text_events("one")], say_overloaded), errors.ModelUnavailable),
        (stream([start(), *text_events()], close), errors.ModelInterrupted),
    ],
)
def test_permanent_failures_are_not_retried(
    make: MakeResilient, server: WireServer, fault: Any, expected: type[Exception]
) -> None:
    server.script = [fault]
    with pytest.raises(expected) as caught:
        run(make().create(ask(stream="stream" in repr(fault)), a_call()))
    assert type(caught.value) is expected
    assert len(server.requests) == 1


def test_silence_is_tried_again_until_the_model_has_begun(
    make: MakeResilient, server: WireServer, make_claude: MakeClaude
) -> None:
    impatient = make(make_claude(server.url, timeout=0.1))
    answer = stream([start(), *text_events("ok"), *end()])
    server.script = [silent, answer]
    assert run(impatient.create(ask(stream=True), a_call()))[1].attempts == 2
    server.script = [stream([start()], silent), answer]
    with pytest.raises(errors.ModelTimeout):
        run(impatient.create(ask(stream=True), a_call()))


class SleeplessCall(ModelCall):
    """Tells how long it was to sleep, and does not."""

    slept: tuple[float, ...] = ()

    def sleep(self, seconds: float) -> None:
        self.slept += (seconds,)


def test_a_retry_after_that_fits_is_kept(make: MakeResilient, server: WireServer) -> None:
    server.script = [error(529, "overloaded_error", "retry-after: 6\r\n")]
    call = SleeplessCall(a_call(20).deadline)
    assert run(make().create(ask(), call))[1].attempts == 2
    assert len(call.slept) == 1 and 6 <= call.slept[0] < 7


def test_a_retry_after_that_does_not_fit_is_passed_on_at_once(
    make: MakeResilient, server: WireServer
) -> None:
    server.script = [error(429, "rate_limit_error", "retry-after: 60\r\n")]
    with pytest.raises(errors.ModelRateLimited) as caught:
        run(make().create(ask(), a_call(20)))
    assert caught.value.retry_after == 60 and len(server.requests) == 1


def test_pauses_double_up_to_a_cap(make: MakeResilient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.25)
    client, request = make(retries=10), ask()
    pauses = [client._pause(errors.ModelUnavailable(), request, a_call(), number) for number in range(1, 9)]
    for pause, longest in zip(pauses, [0.25, 0.5, 1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= pause <= longest


def test_an_abort_ends_the_pause(
    make: MakeResilient, server: WireServer, attempts: list[ModelAttempt]
) -> None:
    class Aborted(ModelCall):
        def sleep(self, seconds: float) -> None:
            threading.Timer(0.01, self.abort).start()
            super().sleep(seconds)

    server.script = [error(529, "overloaded_error", "retry-after: 100\r\n")]
    with pytest.raises(errors.RunCancelled):
        run(make().create(ask(), Aborted(a_call(200).deadline)))
    assert len(attempts) == 1


def test_a_reader_that_leaves_is_observed(
    make: MakeResilient, server: WireServer, attempts: list[ModelAttempt]
) -> None:
    server.script = [stream([start(), *text_events("one")], silent)]
    answering = make().create(ask(stream=True), a_call())
    next(answering)
    answering.close()
    assert server.hung_up.wait(30)
    assert codes(attempts) == ["caller_left"] and attempts[0].usage == Usage(20, 1)
