from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from service import errors
from service.llm import retry
from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall
from service.llm.retry import RetryingClient
from service.observe.observer import ModelAttempt
from service.types import Usage
from tests.llm.conftest import MakeClaude, Offline, a_call, ask, run
from tests.llm.wire_server import (
    Exchange,
    WireServer,
    chunk,
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

OVERLOADED = error(529, "overloaded_error")
REJECTED = error(400, "invalid_request_error")
MakeResilient = Callable[..., RetryingClient]


def close(exchange: Exchange) -> None:
    exchange.close()


def say_overloaded(exchange: Exchange) -> None:
    exchange.send(chunk(sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})))


@pytest.fixture
def attempts() -> list[ModelAttempt]:
    return []


@pytest.fixture
def make(
    claude: ClaudeClient, attempts: list[ModelAttempt], monkeypatch: pytest.MonkeyPatch
) -> MakeResilient:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)

    def make(
        inner: Any = claude, retries: int = 3, failures: int = 100, recovery: float = 10.0
    ) -> RetryingClient:
        return RetryingClient(inner, retries, failures, recovery, attempts.append)

    return make


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
    assert attempts[2] == ModelAttempt(
        "claude-haiku-5-5", 3, True, attempts[2].ms, reply.usage, None, streaming
    )


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
    assert server.hung_up.wait(5)
    assert codes(attempts) == ["caller_left"] and attempts[0].usage == Usage(20, 1)


# --- the breaker --------------------------------------------------------------------------------


def fail(client: RetryingClient, expected: type[Exception] = errors.ModelError, **fields: Any) -> None:
    with pytest.raises(expected):
        run(client.create(ask(**fields), a_call()))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("fault", [OVERLOADED, close, whole(b"garbage")])
def test_a_failing_model_is_left_alone(
    make: MakeResilient, server: WireServer, fault: Any, streaming: bool
) -> None:
    server.otherwise = fault
    client = make(retries=0, failures=2)
    fail(client, stream=streaming)
    fail(client, stream=streaming)
    with pytest.raises(errors.ModelUnavailable) as caught:
        run(client.create(ask(stream=streaming), a_call()))
    assert caught.value.retry_after and len(server.requests) == 2
    assert client.breaker("claude-haiku-5-5").state == "open"


def test_breaker_opened_between_attempts_ends_the_retries(make: MakeResilient, server: WireServer) -> None:
    server.otherwise = OVERLOADED
    fail(make(retries=9, failures=2))
    assert len(server.requests) == 2


def test_each_model_has_its_own(make: MakeResilient, server: WireServer) -> None:
    server.script = [OVERLOADED]
    client = make(retries=0, failures=1)
    fail(client)
    run(client.create(ask(model="claude-opus-5-5"), a_call()))
    assert {name: client.breaker(name).state for name in ("claude-haiku-5-5", "claude-opus-5-5")} == {
        "claude-haiku-5-5": "open",
        "claude-opus-5-5": "closed",
    }


@pytest.mark.parametrize(
    "fault", [REJECTED, error(429, "rate_limit_error"), error(401, "authentication_error")]
)
def test_its_4xx_say_nothing_of_its_health(make: MakeResilient, server: WireServer, fault: Any) -> None:
    server.otherwise = fault
    client = make(retries=0, failures=1)
    fail(client)
    assert client.breaker("claude-haiku-5-5").state == "closed"


def test_a_deadline_of_ours_says_nothing_of_its_health(make: MakeResilient, server: WireServer) -> None:
    server.script = [silent]
    client = make(retries=0, failures=1)
    with pytest.raises(errors.ModelTimeout):
        run(client.create(ask(), a_call(0.1)))
    assert client.breaker("claude-haiku-5-5").state == "closed"


@pytest.mark.parametrize(("silence", "state"), [(0.1, "closed"), (60.0, "open")])
def test_the_haste_of_one_agent_says_nothing_of_its_health(
    make: MakeResilient, server: WireServer, make_claude: MakeClaude, silence: float, state: str
) -> None:
    server.script = [silent]
    client = make(make_claude(server.url, timeout=0.2), retries=0, failures=1)
    with pytest.raises(errors.ModelTimeout):
        run(client.create(ask(), ModelCall(time.monotonic() + 20, silence)))
    assert client.breaker("claude-haiku-5-5").state == state


def test_a_reader_that_leaves_says_nothing_of_its_health(make: MakeResilient, server: WireServer) -> None:
    server.script = [OVERLOADED, stream([start(), *text_events("one")], silent), OVERLOADED]
    client = make(retries=0, failures=2)
    fail(client)
    answering = client.create(ask(stream=True), a_call())
    next(answering)
    answering.close()
    fail(client)
    assert client.breaker("claude-haiku-5-5").state == "open"


def test_a_probe_that_speaks_lets_the_others_in(make: MakeResilient, server: WireServer) -> None:
    go_on = threading.Event()

    def then(exchange: Exchange) -> None:
        assert go_on.wait(5)
        exchange.send(b"".join(chunk(sse(event)) for event in end()) + b"0\r\n\r\n")

    server.script = [OVERLOADED, stream([start(), *text_events("one")], then)]
    client = make(retries=0, failures=1, recovery=0.05)
    fail(client)
    threading.Event().wait(0.06)
    probe = client.create(ask(stream=True), a_call())
    next(probe)
    run(client.create(ask(), a_call()))
    go_on.set()
    assert run(probe)[1].text == "one"


def test_closing_before_the_start_needs_nothing(make: MakeResilient) -> None:
    answering: Generator[Any, None, Any] = make().create(ask(), a_call())
    answering.close()
