"""Exchange of one call for its result: sign-in, retries, pages and waiting for a run. No input or output here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from slipway_client.calls import Call, Page
from slipway_client.credentials import Credentials
from slipway_client.effects import Answer, Effect, Flow, Items, Open, Out, Request, Send, Sleep
from slipway_client.errors import (
    APIError,
    ConnectionFailed,
    NotFoundError,
    SlipwayError,
    UnexpectedAnswer,
    WaitTimedOut,
)
from slipway_client.models import RunItem
from slipway_client.retry import Retry, persist

T = TypeVar("T")
R = TypeVar("R", bound=RunItem)
QUICK = 60.0  # seconds for the answer of a call that starts no run
STREAM_SILENCE = 45.0  # seconds; the server sends a comment every 15
FIRST_POLL, LONGEST_POLL = 0.1, 2.0  # seconds between looks at a run that is awaited


class Exchange:
    """Logic shared by both clients. `timeout`: seconds for the answer of a call that waits for its run."""

    def __init__(self, credentials: Credentials, user_agent: str, retry: Retry, timeout: float) -> None:
        self._credentials = credentials
        self._user_agent = user_agent
        self.retry = retry
        self._timeout = timeout

    def result(self, call: Call[T]) -> Flow[T]:
        """Return the result of a call, after retries. Raises `APIError` and `ConnectionFailed`."""
        answered = False

        def attempt() -> Flow[T]:
            nonlocal answered
            again, answered = answered, True
            try:
                answer = yield from self._authorised(Send, call)
            except NotFoundError:
                # The first try did it, and its answer was lost.
                if again and call.method == "DELETE":
                    return _read(call, None)
                raise
            return _read(call, answer.json())

        return (yield from persist(self.retry, attempt, worth_a_retry))

    def opened(self, call: Call[object]) -> Flow[Answer]:
        """Open the event stream of a call, in one try. Raises `APIError`, `ConnectionFailed` and `UnexpectedAnswer`."""
        call = call.with_headers(Accept="text/event-stream", Cache_Control="no-store")
        answer = yield from self._authorised(partial(Open, silence=STREAM_SILENCE), call)
        if not answer.streaming:
            raise UnexpectedAnswer("The answer is no event stream.")
        return answer

    def items(self, call: Call[Page[T]]) -> Items[T]:
        """Yield the items of all pages."""
        while True:
            page = yield from self.result(call)
            for item in page.items:
                yield Out(item)
            if page.next_cursor is None:
                return
            call = replace(call, query={**call.query, "cursor": page.next_cursor})

    def ended(self, look: Call[R], timeout: float) -> Flow[R]:
        """Return a run once it has ended. Raises `WaitTimedOut` after `timeout` seconds; the run goes on."""
        end, pause = time.monotonic() + timeout, FIRST_POLL
        while not (run := (yield from self.result(look))).ended:
            left = end - time.monotonic()
            if left <= 0:
                raise WaitTimedOut(f"The run {run.run_id} is {run.status} after {timeout:g} s.")
            yield Sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_POLL)
        return run

    def _authorised(self, effect: Callable[[Request], Effect], call: Call[object]) -> Flow[Answer]:
        """Send a call; where the token is refused, once more with another one. Raises the error of a refusal."""
        token = yield from self._credentials.current()
        answer: Answer = yield effect(self._request(call, token))
        if answer.status == 401 and (other := (yield from self._credentials.renewed(token))):
            answer = yield effect(self._request(call, other))
        if not answer.ok:
            raise answer.error()
        return answer

    def _request(self, call: Call[object], token: str) -> Request:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent}
        headers |= {"Authorization": f"Bearer {token}", **call.headers}
        content = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(call.body, ensure_ascii=False, allow_nan=False).encode()
        timeout = self._timeout if call.slow else min(QUICK, self._timeout)
        return Request(call.method, call.path, headers, call.query, content, timeout)


def worth_a_retry(failed: SlipwayError) -> bool:
    """Whether the same request may succeed later. Each is safe to repeat: a POST has its `Idempotency-Key`."""
    return isinstance(failed, ConnectionFailed) or (isinstance(failed, APIError) and failed.retryable)


def _read(call: Call[T], body: object) -> T:
    try:
        return call.read(body)
    except (KeyError, TypeError) as wrong:
        raise UnexpectedAnswer(f"{call.method} {call.path}: the answer does not fit: {wrong!r}") from None
