"""Asynchronous client: performs the effects of the logic in the caller's task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
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
from slipway_client.streams import AsyncEventStream

T = TypeVar("T")
CLOSE_TIMEOUT = 2.0  # seconds


class AsyncSlipway(Settings):
    """Asynchronous client, for asyncio. Close it, or use `async with`."""

    def _begin(self) -> None:
        self._http = httpx2.AsyncClient(limits=LIMITS)
        self._alone = anyio.Lock()
        self.account = kept.AsyncAccount(self)
        self.agents = resources.AsyncAgents(self)
        self.tasks = resources.AsyncTasks(self)
        self.runs = resources.AsyncRuns(self)
        self.approvals = resources.AsyncApprovals(self)
        self.usage = resources.AsyncUsage(self)
        self.sessions = kept.AsyncSessions(self)
        self.schedules = kept.AsyncSchedules(self)
        self.memory = kept.AsyncMemory(self)

    async def perform(self, flow: Flow[T]) -> T:
        """Perform the effects of a flow; return its result."""
        given = Given()
        async with aclosing(_AsyncHands(self)) as hands:
            with closing(flow):
                while True:
                    try:
                        effect = given.to(flow)
                    except StopIteration as end:
                        result: T = end.value
                        return result
                    given = await hands.outcome(effect)

    async def each(self, items: Items[T]) -> AsyncGenerator[T, None]:
        """Perform the effects of a flow; yield its items."""
        given = Given()
        async with aclosing(_AsyncHands(self)) as hands:
            with closing(items):
                while True:
                    try:
                        effect = given.to(items)
                    except StopIteration:
                        return
                    if isinstance(effect, Out):
                        yield effect.item
                        given = Given()
                    else:
                        given = await hands.outcome(effect)

    def listen(self, place: Place) -> AsyncEventStream:
        return AsyncEventStream(place, self.each(follow(self.exchange, place)))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _AsyncHands:
    """Performs the effects of one flow, which has at most one open stream."""

    def __init__(self, client: AsyncSlipway) -> None:
        self._client = client
        self._stream: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def outcome(self, effect: Effect) -> Given:
        try:
            return Given(await self._do(effect))
        except httpx2.RequestError as failed:
            return Given(error=failure_of(failed))
        except SlipwayError as error:
            return Given(error=error)

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                http = self._client._http
                return answer_of(await http.send(self._client.built(http, request)))
            case Open(request, silence):
                return await self._open(request, silence)
            case Read():
                return None if self._chunks is None else await anext(self._chunks, None)
            case Close():
                return await self.aclose()
            case Sleep(seconds):
                return await anyio.sleep(seconds)
            case Alone(flow):
                async with self._client._alone:
                    return await self._client.perform(flow)

    async def _open(self, request: Request, silence: float) -> Answer:
        await self.aclose()
        http = self._client._http
        self._stream = await http.send(self._client.built(http, request), stream=True)
        if is_stream(self._stream):
            expect_silence(self._stream, silence)
            self._chunks = self._stream.aiter_bytes()
            return Answer(self._stream.status_code, dict(self._stream.headers), streaming=True)
        await self._stream.aread()
        return answer_of(self._stream)

    async def aclose(self) -> None:
        """Close the stream, also where the task is being cancelled."""
        stream, self._stream, self._chunks = self._stream, None, None
        if stream is not None:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await stream.aclose()
