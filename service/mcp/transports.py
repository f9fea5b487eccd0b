"""Bounded transports to MCP servers: child processes over stdio, and streamable HTTP without redirects."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

log = logging.getLogger("slipway.mcp")
MAX_MESSAGE = 4 * 1024 * 1024  # bytes of one message over stdio, and of one HTTP answer
MAX_STDERR = 64 * 1024  # bytes of a process's stderr that are logged; the rest is read and dropped
STDERR_LINE = 500  # characters
INHERITED = ("HOME", "LANG", "PATH", "TMPDIR")  # no setting and no secret of ours
END_SECONDS = 2.0  # for a server to end after its stdin is closed, and again after SIGTERM
# Ends the server with its worker, also one that does not notice the end of its stdin.
CHILD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py")))
HTTP_WAIT = httpx2.Timeout(330, connect=5)  # seconds; a call has its own, shorter time-out

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
Transport = AbstractAsyncContextManager[Any]


class MessageTooLong(Exception):
    """Raised for a message of more than `MAX_MESSAGE` bytes: the connection ends."""


@asynccontextmanager
async def stdio(server: str, command: Sequence[str], env: Mapping[str, str]) -> AsyncIterator[Streams]:
    """Start a server as a child process with its own process group; end the group on exit."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = await anyio.open_process(
        [*CHILD, str(os.getpid()), *command],
        stdin=subprocess.PIPE,
        env={**inherited, **env},
        start_new_session=True,
    )
    to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as tasks:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            tasks.start_soon(_read, process.stdout, to_us)
            tasks.start_soon(_write, process.stdin, outgoing, to_us)
            tasks.start_soon(_log_lines, server, process.stderr)
            try:
                yield ours, to_server
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
        for stream in (to_us, ours, to_server, outgoing):
            stream.close()


async def _read(stdout: ByteReceiveStream, to_us: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    """Pass messages on, one a line; a line that is no message is dropped, as its text is a stranger's."""
    pieces = bytearray()
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with to_us:
            async for chunk in stdout:
                *lines, rest = chunk.split(b"\n")
                for line in lines:
                    pieces += line
                    if message := _message(bytes(pieces)):
                        await to_us.send(message)
                    pieces.clear()
                pieces += rest
                if len(pieces) > MAX_MESSAGE:
                    return  # closes the stream, which ends the connection


def _message(line: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None


async def _write(
    stdin: ByteSendStream,
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    to_us: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    try:
        async for item in outgoing:
            await stdin.send(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        to_us.close()  # the session sees the end, instead of waiting for answers


async def _log_lines(server: str, stderr: ByteReceiveStream) -> None:
    left = MAX_STDERR
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for chunk in stderr:
            for line in chunk[: max(left, 0)].decode("utf-8", "replace").splitlines():
                log.info("mcp_stderr", extra={"server": server, "line": line[:STDERR_LINE]})
            left -= len(chunk)


async def _end(process: Process) -> None:
    """Close stdin, then send SIGTERM, then SIGKILL to the group of the process; reap it."""
    if process.stdin is not None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    for signum in (None, signal.SIGTERM, signal.SIGKILL):
        if signum is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signum)
        with anyio.move_on_after(END_SECONDS):
            await process.wait()
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children that it left
    await process.aclose()


@asynccontextmanager
async def http(url: str, credential: str | None) -> AsyncIterator[Any]:
    """Connect to a server's address. Redirects and the environment's proxies are not followed."""
    headers = {"Accept-Encoding": "identity"}  # a compressed answer could be of any size
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    client = httpx2.AsyncClient(
        headers=headers,
        timeout=HTTP_WAIT,
        follow_redirects=False,
        trust_env=False,
        transport=_Bounded(httpx2.AsyncHTTPTransport()),
    )
    async with client, streamable_http_client(url, http_client=client) as streams:
        yield streams


class _Bounded(httpx2.AsyncBaseTransport):
    """Transport that ends an answer to a POST after `MAX_MESSAGE` bytes."""

    def __init__(self, inner: httpx2.AsyncHTTPTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if 300 <= response.status_code < 400:  # the SDK would follow one within the origin
            await response.aclose()
            raise httpx2.RemoteProtocolError("The server redirects")
        if request.method == "POST" and isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._inner:
            received += len(chunk)
            if received > MAX_MESSAGE:
                raise httpx2.ReadError("The answer is too long")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
