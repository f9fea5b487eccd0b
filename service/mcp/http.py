"""Streamable HTTP to MCP servers: each request is a POST that fails alone, bounded in size and time, without redirects.

Ours and not the SDK's, where one failed POST ends the connection with all other calls, a call that was given up keeps
its POST, and a server that does not answer a notice holds up every request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from service.mcp.messages import (
    MAX_MESSAGE,
    NO_ANSWER,
    NOT_SENT,
    REFUSED,
    Inbox,
    Outgoing,
    Pace,
    Streams,
    answer_to,
    failed,
    parsed,
    trace_of,
)

SESSION, RESUME = "mcp-session-id", "last-event-id"  # headers
TIMEOUT = httpx2.Timeout(310, connect=5, pool=5)  # seconds; each call has its own, shorter time-out
LIMITS = httpx2.Limits(max_connections=64, max_keepalive_connections=8)
NOTICE_SECONDS = 5.0  # for a message that needs no answer
NOTICES = 8  # such messages at once: others are dropped
PAUSE = 1.0  # seconds before a broken stream is asked for again; a server may name another …
SHORTEST, LONGEST = 250, 30_000  # … of so many milliseconds
MAX_HEADER = 1024  # characters of a server's text that we send back in one
BREAKS = 3  # requests in a row for a broken stream that fail
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


@asynccontextmanager
async def http(url: str, credential: str | None) -> AsyncIterator[Streams]:
    """Connect to a server's address. Redirects and the environment's proxies are not followed."""
    headers = {"Accept-Encoding": "identity"}  # a compressed answer could be of any size
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    client = httpx2.AsyncClient(
        headers=headers,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none is kept
        timeout=TIMEOUT,
        limits=LIMITS,
        follow_redirects=False,
        trust_env=False,
    )
    to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    with to_us, ours, to_server, outgoing:
        async with client, anyio.create_task_group() as tasks:
            sender = _Sender(url, client, to_us, tasks)
            tasks.start_soon(sender.send_all, outgoing)
            try:
                yield ours, to_server
            finally:
                tasks.cancel_scope.cancel()
                await sender.end_session()


@dataclass(slots=True)
class _Waiting:
    """Request without an answer yet, and what is known of its stream of events."""

    id: RequestId
    received: int = 0  # bytes
    last_event: str = ""
    pause: float = PAUSE


class _TooLong(Exception):
    """Raised for an answer of more than `MAX_MESSAGE` bytes."""


class _Sender:
    """Sends messages to one server, and puts the answers into `to_us`."""

    def __init__(self, url: str, client: httpx2.AsyncClient, to_us: Inbox, tasks: TaskGroup) -> None:
        self._url, self._client, self._to_us, self._tasks = url, client, to_us, tasks
        self._session = ""
        self._version = ""  # of the protocol, as the last request said
        self._open: dict[RequestId, anyio.CancelScope] = {}
        self._notices = 0
        self._pace = Pace()

    async def send_all(self, outgoing: Outgoing) -> None:
        """Send each message, requests side by side. A call that is given up ends its POST."""
        async for item in outgoing:
            message = item.message
            if isinstance(message, JSONRPCRequest):
                headers = item.metadata.headers if isinstance(item.metadata, ClientMessageMetadata) else None
                self._keep_version(message, headers or {})
                scope = self._open[message.id] = anyio.CancelScope()
                self._tasks.start_soon(self._request, message, headers or {}, scope)
                continue
            method = getattr(message, "method", "")
            if method == "notifications/cancelled":
                self._give_up((getattr(message, "params", None) or {}).get("requestId"))
                if self._version in MODERN_PROTOCOL_VERSIONS:
                    continue  # there the end of the POST says it
            if method == "notifications/initialized":  # servers refuse what comes before
                await self._notice(message)
                self._tasks.start_soon(self._listen)
            elif self._notices < NOTICES:
                self._tasks.start_soon(self._notice, message)

    async def end_session(self) -> None:
        """Tell a server that keeps sessions that this one has ended."""
        if self._session:
            with anyio.move_on_after(1, shield=True), suppress(httpx2.HTTPError):
                async with self._client.stream("DELETE", self._url, headers=self._headers({})):
                    pass  # its body is not read

    def _keep_version(self, message: JSONRPCRequest, headers: Mapping[str, str]) -> None:
        if message.method == "initialize":  # which negotiates it
            self._version = ""
        else:
            self._version = headers.get(MCP_PROTOCOL_VERSION_HEADER, self._version)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        found = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        if self._session:
            found[SESSION] = self._session
        if self._version:
            found[MCP_PROTOCOL_VERSION_HEADER] = self._version
        return {**found, **more}

    def _give_up(self, request_id: Any) -> None:
        if isinstance(request_id, str | int) and request_id in self._open:
            self._open[request_id].cancel()

    async def _notice(self, message: JSONRPCMessage) -> None:
        """Send a message that needs no answer; one that cannot be sent is dropped."""
        self._notices += 1
        try:
            with anyio.move_on_after(NOTICE_SECONDS), suppress(Exception):
                async with self._post(message, {}):
                    pass
        finally:
            self._notices -= 1

    @asynccontextmanager
    async def _post(
        self, message: JSONRPCMessage, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        body = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        sent = self._headers({**headers, **trace_of(body)})
        async with self._client.stream("POST", self._url, json=body, headers=sent) as response:
            yield response

    def _bound(self, response: httpx2.Response, waiting: _Waiting) -> None:
        """Bound all that is read for a request, comments of a stream of events included."""
        response.headers.pop("content-encoding", None)  # none was asked for, and one could be of any size
        response.encoding = "utf-8"
        response.stream = _Bounded(response.stream, waiting, self._pace)

    async def _request(
        self, message: JSONRPCRequest, headers: Mapping[str, str], scope: anyio.CancelScope
    ) -> None:
        """Send a request and pass on its answer, or an error that says what is known of it. Raises nothing."""
        with scope:
            try:
                answer = await self._answer(message, headers)
            except _UNSENT as error:
                answer = failed(message.id, NOT_SENT, type(error).__name__)
            except Exception as error:  # whatever a server sends, other calls go on
                answer = failed(message.id, NO_ANSWER, type(error).__name__)
            finally:
                del self._open[message.id]
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._to_us.send(SessionMessage(answer))

    async def _answer(self, message: JSONRPCRequest, headers: Mapping[str, str]) -> JSONRPCMessage:
        waiting = _Waiting(message.id)
        async with self._post(message, headers) as response:
            self._bound(response, waiting)
            if response.status_code != 200:
                return await self._refusal(response, waiting)
            if message.method == "initialize":
                self._session = _plain(response.headers.get(SESSION, ""))
            if _kind(response) == "application/json":
                answer = parsed(await response.aread())
                if isinstance(answer, JSONRPCResponse | JSONRPCError) and _is_for(answer, message.id):
                    return _as(answer, message.id)
                return failed(message.id, NO_ANSWER, "the answer is none")
            if _kind(response) != "text/event-stream":
                return failed(message.id, NO_ANSWER, "the answer is none")
            found = await self._events(response, waiting)
        return found or await self._resumed(waiting)

    async def _refusal(self, response: httpx2.Response, waiting: _Waiting) -> JSONRPCMessage:
        """Return the server's error, or one for the status. One of 500 or more says nothing of what was done."""
        if _kind(response) == "application/json":
            answer = parsed(await response.aread())
            if isinstance(answer, JSONRPCError):
                return JSONRPCError(jsonrpc="2.0", id=waiting.id, error=answer.error)
        status = response.status_code
        code = REFUSED if 300 <= status < 500 else NO_ANSWER
        if status == 404 and self._session:  # the server does not know the session any more
            code = NOT_SENT
        return failed(waiting.id, code, f"HTTP {status}")

    async def _events(self, response: httpx2.Response, waiting: _Waiting) -> JSONRPCMessage | None:
        """Read events until the answer; None: the stream ended before it. Requests of the server are refused."""
        async for event in httpx2.EventSource(response, max_event_size=MAX_MESSAGE):
            await self._pace.take(0)
            waiting.last_event = _plain(event.id) or waiting.last_event
            if event.retry is not None:
                waiting.pause = min(max(event.retry, SHORTEST), LONGEST) / 1000
            message = parsed(event.data) if event.event == "message" and event.data else None
            if isinstance(message, JSONRPCRequest) and self._notices < NOTICES:
                self._tasks.start_soon(self._notice, answer_to(message))
            if isinstance(message, JSONRPCResponse | JSONRPCError) and _is_for(message, waiting.id):
                return _as(message, waiting.id)
        return None

    async def _listen(self) -> None:
        """Refuse what a server asks on a stream of its own, where it has one: else it would wait for an answer."""
        while True:
            waiting, pause = _Waiting(""), LONGEST / 1000
            with suppress(Exception):  # whatever a server sends, calls go on
                headers = self._headers({"Accept": "text/event-stream"})
                async with self._client.stream("GET", self._url, headers=headers) as response:
                    self._bound(response, waiting)
                    if response.status_code != 200 or _kind(response) != "text/event-stream":
                        return
                    await self._events(response, waiting)
                pause = waiting.pause
            await anyio.sleep(pause)

    async def _resumed(self, waiting: _Waiting) -> JSONRPCMessage:
        """Ask for the rest of a stream that ended, until the call is given up."""
        failures = 0
        while waiting.last_event and failures < BREAKS:
            await anyio.sleep(waiting.pause)
            headers = self._headers({RESUME: waiting.last_event, "Accept": "text/event-stream"})
            try:
                async with self._client.stream("GET", self._url, headers=headers) as response:
                    self._bound(response, waiting)
                    if response.status_code != 200 or _kind(response) != "text/event-stream":
                        break
                    if found := await self._events(response, waiting):
                        return found
                failures = 0
            except httpx2.HTTPError:
                failures += 1
        return failed(waiting.id, NO_ANSWER, "the stream ended without an answer")


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _plain(text: str) -> str:
    """Return a server's text if a header can carry it; else nothing."""
    return text if len(text) <= MAX_HEADER and text.isascii() and text.isprintable() else ""


class _Bounded(httpx2.AsyncByteStream):
    """Body that is read at a pace, and ends with `_TooLong` once all of a request's have `MAX_MESSAGE` bytes."""

    def __init__(self, inner: Any, waiting: _Waiting, pace: Pace) -> None:
        self._inner, self._waiting, self._pace = inner, waiting, pace

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._waiting.received += len(chunk)
            if self._waiting.received > MAX_MESSAGE:
                raise _TooLong
            await self._pace.take(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _is_for(message: JSONRPCResponse | JSONRPCError, request_id: RequestId) -> bool:
    """Return whether a message answers this request; an error may have no id."""
    return str(message.id) == str(request_id) or (message.id is None and isinstance(message, JSONRPCError))


def _as(message: JSONRPCResponse | JSONRPCError, request_id: RequestId) -> JSONRPCMessage:
    message.id = request_id
    return message
