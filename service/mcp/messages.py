"""Messages of an MCP server, as far as they are taken: answers. Its requests are refused, its notifications dropped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId

MAX_MESSAGE = 4 * 1024 * 1024  # bytes of one message over stdio, and of one HTTP answer
# Codes by which a transport tells what became of a request; one of a server's own is replaced.
NOT_SENT = -31_901  # the request was not made
NO_ANSWER = -31_902  # the request may have had its effect
REFUSED = -31_903  # a status of HTTP says that it had none
IDEMPOTENCY_KEY = "slipway/idempotency-key"  # in `_meta` of a call, the same for all attempts at it
TRACEPARENT = "traceparent"  # in `_meta` of a call, and the header of a request that is sent over HTTP
TOLD = frozenset([NOT_SENT, NO_ANSWER, REFUSED])  # their messages are our own words
_OURS = TOLD | {mcp_types.CONNECTION_CLOSED}
_RATE, _BURST, _EACH = 8 * 2**20, 64 * 2**20, 32 * 2**10  # bytes: per second, at once, added for each message

Inbox = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]
Transport = AbstractAsyncContextManager[Any]


class Pace:
    """Rate at which a server's messages are read: a flood is slowed down before it takes the processor from others."""

    def __init__(self) -> None:
        self._left, self._at = float(_BURST), anyio.current_time()

    async def take(self, size: int) -> None:
        """Wait until a message of `size` bytes may be read."""
        now = anyio.current_time()
        self._left = min(_BURST, self._left + (now - self._at) * _RATE) - size - _EACH
        self._at = now
        if self._left < 0:
            await anyio.sleep(-self._left / _RATE)


def parsed(text: bytes | str) -> JSONRPCMessage | None:
    """Parse a message; None for what is none. An error with a code of ours gets another one."""
    try:
        message: JSONRPCMessage = mcp_types.jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValueError:
        return None
    if isinstance(message, JSONRPCError) and message.error.code in _OURS:
        message.error.code = mcp_types.INTERNAL_ERROR
    return message


def answer_to(request: JSONRPCRequest) -> JSONRPCMessage:
    """Answer a server's request: a ping is answered; the model, the user and files of the client are not to be had."""
    if request.method == "ping":
        return JSONRPCResponse(jsonrpc="2.0", id=request.id, result={})
    message = f"{request.method[:100]} is not supported"
    error = mcp_types.ErrorData(code=mcp_types.METHOD_NOT_FOUND, message=message)
    return JSONRPCError(jsonrpc="2.0", id=request.id, error=error)


def failed(request_id: RequestId, code: int, why: str) -> JSONRPCError:
    """Make the answer to a request that got none. `why` is our own text."""
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=mcp_types.ErrorData(code=code, message=why))


def trace_of(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the header with the place in a trace that a request has in its `_meta`, if it has one."""
    meta = (request.get("params") or {}).get("_meta") or {}
    return {TRACEPARENT: meta[TRACEPARENT]} if TRACEPARENT in meta else {}


def meta_of(idempotency_key: str, traceparent: str) -> dict[str, str]:
    """Return the `_meta` of a call."""
    return {IDEMPOTENCY_KEY: idempotency_key, **({TRACEPARENT: traceparent} if traceparent else {})}
