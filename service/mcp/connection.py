"""One connection to an MCP server, kept by a task of the portal: made again for ever, with backoff and jitter."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import anyio
import mcp_types
from mcp import Client, MCPError

from service.mcp.messages import NO_ANSWER, NOT_SENT, TOLD, Transport
from service.store.mcp import Definition

log = logging.getLogger("slipway.mcp")
logging.getLogger("mcp").setLevel(logging.CRITICAL)  # the SDK logs what servers send
CONNECT_SECONDS = 15.0  # for the handshake and the first list; `npx` may have to start a program
LIST_SECONDS = 10.0
RELIST_SECONDS = 10.0  # between two looks at the definitions of a server
READY_SECONDS = 5.0  # wait of a call for a connection that is being made
FIRST_DELAY, MAX_DELAY = 0.25, 60.0  # seconds between attempts, doubled each time
STEADY_SECONDS = 10.0  # a connection that lasted so long was good: the next is made at once
DRAIN_SECONDS = 30.0  # for calls under way before a connection that seems lost is made again
MAX_PAGES, MAX_TOOLS = 20, 2_000  # of a list of tools
MAX_DEFINITION = 32 * 1024  # bytes of JSON of one tool
Found = Mapping[str, Definition]


class NotConnected(Exception):
    """Raised when a call cannot be sent: nothing has happened."""


class ConnectionLost(Exception):
    """Raised when a call, which may have happened, got no answer, or one that cannot be read."""


class Connection:
    """Connection to a server. All methods run on the portal's event loop.

    `connect` makes a transport; `allowed` are the tools that matter; `listed` gets their definitions; `changed` is told
    whether the server is reached.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Transport]],
        allowed: frozenset[str],
        listed: Callable[[Found], Awaitable[None]],
        changed: Callable[[bool, str], None],
    ) -> None:
        self._connect, self._allowed = connect, allowed
        self._listed, self._changed = listed, changed
        self._client: Client | None = None
        self._settled = anyio.Event()  # connected, or known to be away
        self._nudge = anyio.Event()  # look at the server now
        self._idle = anyio.Event()  # no call is under way
        self._scope = anyio.CancelScope()
        self.found: Found = {}
        self.calls = 0  # under way

    async def keep(self) -> None:
        """Keep the connection until `close`."""
        failures = 0
        with self._scope:
            while True:
                reason, lasted = await self._once()
                failures = 0 if lasted > STEADY_SECONDS else failures + 1
                self._changed(False, reason)
                if failures:  # calls fail at once; after a good connection they wait for the next
                    self._settled.set()
                delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(failures, 10))
                await anyio.sleep(delay * random.uniform(0.5, 1))

    def close(self) -> None:
        self._scope.cancel()

    async def call(
        self, tool: str, arguments: Mapping[str, Any], meta: Mapping[str, str]
    ) -> mcp_types.CallToolResult:
        """Call a tool, with `meta` as its `_meta`.

        Raises `NotConnected`, `ConnectionLost`, or `MCPError`: the server's refusal.
        """
        with anyio.move_on_after(READY_SECONDS):
            await self._settled.wait()
        client = self._client
        if client is None:
            raise NotConnected
        self.calls += 1
        try:
            return await self._called(client, tool, arguments, meta)
        finally:
            self.calls -= 1
            if not self.calls:
                self._idle.set()

    async def look(self) -> None:
        """Read the definitions again, once connected. Raises `NotConnected` where they cannot be read."""
        await self._settled.wait()
        if self._client is None:
            raise NotConnected
        try:
            await self._list(self._client)
        except (MCPError, ValueError, TimeoutError):
            self._nudge.set()
            raise NotConnected from None

    async def _called(
        self, client: Client, tool: str, arguments: Mapping[str, Any], meta: Mapping[str, str]
    ) -> mcp_types.CallToolResult:
        sent = cast("mcp_types.RequestParamsMeta", dict(meta))
        params = mcp_types.CallToolRequestParams(name=tool, arguments=dict(arguments), _meta=sent)
        request = mcp_types.CallToolRequest(params=params)
        try:
            # Not `call_tool`: it validates results by the server's schema, whose references it would follow.
            result = await client.session.send_request(request, mcp_types.CallToolResult)
        except MCPError as error:
            if error.code not in (NOT_SENT, NO_ANSWER, mcp_types.CONNECTION_CLOSED):
                raise
            self._nudge.set()  # whether the server is lost, and not only this call, its list tells
            raise NotConnected if error.code == NOT_SENT else ConnectionLost from None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, ValueError):
            self._nudge.set()
            raise ConnectionLost from None
        if result.result_type == "input_required":
            raise MCPError(mcp_types.INVALID_REQUEST, "it asks for input, which it is not given")
        return result

    async def _once(self) -> tuple[str, float]:
        """Connect and stay until the connection ends; return why, and for how many seconds it was up."""
        up = float("inf")
        with anyio.CancelScope(deadline=anyio.current_time() + CONNECT_SECONDS) as scope:
            try:
                transport = await self._connect()
                async with Client(transport, cache=None) as client:
                    await self._list(client)
                    scope.deadline, up = float("inf"), anyio.current_time()
                    self._client = client
                    self._changed(True, "")
                    self._settled.set()
                    try:
                        await self._stay(client)
                    finally:
                        self._client, self._settled = None, anyio.Event()
                        await self._drain()
            except (
                Exception,
                BaseExceptionGroup,
            ) as error:  # whatever a server sends, the next attempt is made
                return _kind(error), anyio.current_time() - up
        return "TimeoutError", anyio.current_time() - up  # the scope ended by its deadline

    async def _stay(self, client: Client) -> None:
        """Look at the definitions now and then. Raises when the server is lost: it does not list them."""
        while True:
            self._nudge = anyio.Event()
            with anyio.move_on_after(RELIST_SECONDS):
                await self._nudge.wait()
            try:
                await self._list(client)
            except TimeoutError:
                if (
                    not self.calls
                ):  # a server that is busy with calls may not answer, and keeps its connection
                    raise

    async def _drain(self) -> None:
        """Wait for the calls under way: they do not end with a connection on which they may still be answered."""
        if self.calls:
            self._idle = anyio.Event()
            with anyio.move_on_after(DRAIN_SECONDS):
                await self._idle.wait()

    async def _list(self, client: Client) -> None:
        """Read the definitions of the allowed tools. Raises `TimeoutError` after `LIST_SECONDS`."""
        found: dict[str, Definition] = {}
        cursor: str | None = None
        seen = 0
        with anyio.fail_after(LIST_SECONDS):
            for _ in range(MAX_PAGES):
                params = mcp_types.PaginatedRequestParams(cursor=cursor)
                page = await client.session.list_tools(params=params)
                for tool in page.tools:
                    definition = definition_of(tool) if tool.name in self._allowed else None
                    if definition is not None and tool.name not in found:
                        found[tool.name] = definition
                seen += len(page.tools)
                cursor = page.next_cursor
                if not cursor or seen > MAX_TOOLS:
                    break
        self.found = found
        await self._listed(found)


def definition_of(tool: mcp_types.Tool) -> Definition | None:
    """Return name, description and schema with their digest; None for one that is too large or not JSON."""
    body = {
        "name": tool.name,
        "description": tool.description or tool.title or tool.name,
        "input_schema": {"type": "object", "properties": {}, **tool.input_schema},
    }
    try:
        text = json.dumps(body, sort_keys=True, ensure_ascii=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return None
    if len(text) > MAX_DEFINITION or "\\u0000" in text or not text.isascii():
        return None
    return Definition(hashlib.sha256(text.encode()).hexdigest(), json.loads(text))


def _kind(error: BaseException) -> str:
    """Return the class of the first error in a group, or our own words about it: its text is a stranger's."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error.message if isinstance(error, MCPError) and error.code in TOLD else type(error).__name__
