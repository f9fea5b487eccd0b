"""Synchronous client: performs the effects of the logic in the caller's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from slipway_client import kept_resources as kept
from slipway_client import resources
from slipway_client.effects import (
    Alone,
    Answer,
    Close,
    Effect,
    Flow,
    Items,
    Open,
    Out,
    Read,
    Request,
    Send,
    Sleep,
)
from slipway_client.errors import SlipwayError
from slipway_client.following import Place, follow
from slipway_client.settings import LIMITS, Given, Settings, answer_of, expect_silence, failure_of, is_stream
from slipway_client.streams import EventStream

T = TypeVar("T")


class Slipway(Settings):
    """Synchronous client; threads may share it. Close it, or use `with`."""

    def _begin(self) -> None:
        self._http = httpx2.Client(limits=LIMITS)
        self._alone = threading.Lock()
        self.account = kept.Account(self)
        self.agents = resources.Agents(self)
        self.tasks = resources.Tasks(self)
        self.runs = resources.Runs(self)
        self.approvals = resources.Approvals(self)
        self.usage = resources.Usage(self)
        self.sessions = kept.Sessions(self)
        self.schedules = kept.Schedules(self)
        self.memory = kept.Memory(self)

    def perform(self, flow: Flow[T]) -> T:
        """Perform the effects of a flow; return its result."""
        given = Given()
        with closing(flow), closing(_Hands(self)) as hands:
            while True:
                try:
                    effect = given.to(flow)
                except StopIteration as end:
                    result: T = end.value
                    return result
                given = hands.outcome(effect)

    def each(self, items: Items[T]) -> Generator[T, None, None]:
        """Perform the effects of a flow; yield its items."""
        given = Given()
        with closing(items), closing(_Hands(self)) as hands:
            while True:
                try:
                    effect = given.to(items)
                except StopIteration:
                    return
                if isinstance(effect, Out):
                    yield effect.item
                    given = Given()
                else:
                    given = hands.outcome(effect)

    def listen(self, place: Place) -> EventStream:
        return EventStream(place, self.each(follow(self.exchange, place)))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Hands:
    """Performs the effects of one flow, which has at most one open stream."""

    def __init__(self, client: Slipway) -> None:
        self._client = client
        self._stream: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def outcome(self, effect: Effect) -> Given:
        try:
            return Given(self._do(effect))
        except httpx2.RequestError as failed:
            return Given(error=failure_of(failed))
        except SlipwayError as error:
            return Given(error=error)

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                response = self._client._http.send(self._client.built(self._client._http, request))
                return answer_of(response)
            case Open(request, silence):
                return self._open(request, silence)
            case Read():
                return next(self._chunks, None)
            case Close():
                return self.close()
            case Sleep(seconds):
                return time.sleep(seconds)
            case Alone(flow):
                with self._client._alone:
                    return self._client.perform(flow)

    def _open(self, request: Request, silence: float) -> Answer:
        self.close()
        http = self._client._http
        self._stream = http.send(self._client.built(http, request), stream=True)
        if is_stream(self._stream):
            expect_silence(self._stream, silence)
            self._chunks = self._stream.iter_bytes()
            return Answer(self._stream.status_code, dict(self._stream.headers), streaming=True)
        self._stream.read()
        return answer_of(self._stream)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream, self._chunks = None, iter(())
