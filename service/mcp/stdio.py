"""Bounded transport to MCP servers that are child processes. One message a line, as the protocol says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest

from service.mcp import child
from service.mcp.messages import MAX_MESSAGE, Inbox, Outgoing, Pace, Streams, answer_to, parsed

log = logging.getLogger("slipway.mcp")
MAX_SKIPPED = 256 * 1024 * 1024  # bytes of one line that is too long: after it the connection ends
MAX_STDERR = 64 * 1024  # bytes of a process's stderr that are logged; the rest is read and dropped
STDERR_LINES, STDERR_LINE = 200, 500  # lines that are logged, and characters of one
INHERITED = ("HOME", "LANG", "PATH", "TMPDIR")  # no setting and no secret of ours
END_SECONDS = 2.0  # for a server to end after its stdin is closed, and again after each signal
WAITING = 16  # messages to a server; an answer to its own requests is dropped when there are as many
# Ends the server, and what it started, with its worker.
CHILD = (sys.executable, "-I", "-S", str(Path(child.__file__)))


@asynccontextmanager
async def stdio(server: str, command: Sequence[str], env: Mapping[str, str]) -> AsyncIterator[Streams]:
    """Start a server as a child process with its own process group; end all of the group on exit."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = await anyio.open_process(
        [*CHILD, str(os.getpid()), *command],
        stdin=subprocess.PIPE,
        env={**inherited, **env},
        start_new_session=True,
    )
    to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_server, outgoing = anyio.create_memory_object_stream[SessionMessage](WAITING)
    try:
        async with anyio.create_task_group() as tasks:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            tasks.start_soon(_read, process.stdout, to_us, to_server)
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


async def _read(
    stdout: ByteReceiveStream, to_us: Inbox, to_server: MemoryObjectSendStream[SessionMessage]
) -> None:
    """Read lines until the end of the output, or of a line without end: then the connection ends.

    A line that is too long is skipped: its call waits in vain, others go on.
    """
    line, skipped, pace = bytearray(), 0, Pace()
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with to_us:
            async for chunk in stdout:
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    line += end
                    await pace.take(len(line))
                    if not skipped:
                        await _take(bytes(line), to_us, to_server)
                    line.clear()
                    skipped = 0
                line += rest
                if skipped or len(line) > MAX_MESSAGE:
                    skipped += len(line)
                    line.clear()
                if skipped > MAX_SKIPPED:
                    return


async def _take(line: bytes, to_us: Inbox, to_server: MemoryObjectSendStream[SessionMessage]) -> None:
    """Pass an answer on, and refuse a request; what is no message is dropped, as its text is a stranger's."""
    message = parsed(line)
    if isinstance(message, JSONRPCRequest):
        with suppress(anyio.WouldBlock):  # a server that does not read gets no answers
            to_server.send_nowait(SessionMessage(answer_to(message)))
    elif message is not None and not isinstance(message, JSONRPCNotification):
        await to_us.send(SessionMessage(message))


async def _write(stdin: ByteSendStream, outgoing: Outgoing, to_us: Inbox) -> None:
    try:
        async for item in outgoing:
            await stdin.send(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        to_us.close()  # the session sees the end, instead of waiting for answers


async def _log_lines(server: str, stderr: ByteReceiveStream) -> None:
    left, lines, pace = MAX_STDERR, STDERR_LINES, Pace()
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for chunk in stderr:
            text = chunk[: max(left, 0)].decode("utf-8", "replace")
            for line in text.splitlines()[: max(lines, 0)]:
                log.info("mcp_stderr", extra={"server": server, "line": line[:STDERR_LINE]})
                lines -= 1
            left -= len(chunk)
            await pace.take(len(chunk))


async def _end(process: Process) -> None:
    """Close stdin, then send SIGTERM to the group, then have the supervisor end all, then kill the group; reap it."""
    if process.stdin is not None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    for end, signum in (
        (None, 0),
        (os.killpg, signal.SIGTERM),
        (os.kill, child.END),
        (os.killpg, signal.SIGKILL),
    ):
        if end is not None:
            with suppress(ProcessLookupError, PermissionError):
                end(process.pid, signum)
        with anyio.move_on_after(END_SECONDS):
            await process.wait()
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()
