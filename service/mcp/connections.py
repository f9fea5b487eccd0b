"""Connections of this process: one per server, or per server and user, on one event loop in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import anyio
import mcp_types
from anyio.from_thread import BlockingPortal, start_blocking_portal

from service.llm.breaker import Breaker
from service.mcp.config import ServerSpec
from service.mcp.connection import Connection, ConnectionLost, Found, NotConnected
from service.mcp.credentials import Credentials
from service.mcp.http import http
from service.mcp.messages import Transport, meta_of
from service.mcp.pins import Pins
from service.mcp.stdio import stdio
from service.observe import tracing

log = logging.getLogger("slipway.mcp")
MOST_CALLS = 16  # to one server at once: a server that hangs leaves slots for other tools
MOST_CONNECTIONS = 64  # of users, in one process; the one used longest ago is closed
FAILURES = 5  # calls in a row without an answer that open the breaker of a server
RECOVERY = 30.0  # seconds until it lets one through
EVIDENCE_SECONDS = 2.0  # a wait that a run's deadline cuts shorter says nothing of the server
CLOSE_SECONDS = 10.0


class Key(NamedTuple):
    server: str
    user_id: str  # empty: of the service


class Busy(Exception):
    """Raised when a server has as many calls under way as it may."""


class Connections:
    """Connections by key. Thread-safe; the loop starts with the first use, so after a fork."""

    def __init__(
        self,
        servers: Mapping[str, ServerSpec],
        pins: Pins,
        credentials: Credentials,
        changed: Callable[[str, bool], None],
    ) -> None:
        self._servers, self._pins, self._credentials = servers, pins, credentials
        self._told = changed
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._open: OrderedDict[Key, Connection] = OrderedDict()
        self._breakers = {name: Breaker(f"mcp:{name}", FAILURES, RECOVERY) for name in servers}
        self._places = {name: threading.BoundedSemaphore(MOST_CALLS) for name in servers}
        self._up: dict[Key, bool] = {}
        self._closed = False

    def start(self) -> None:
        """Connect to the servers that all users share."""
        for name, spec in self._servers.items():
            if spec.credentials != "user":
                self.of(Key(name, ""))

    def of(self, key: Key) -> Connection:
        """Return the connection, begun if there is none. Raises `NotConnected` after `close`."""
        with self._lock:
            if self._closed:
                raise NotConnected
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = self._begin(key)
            self._open.move_to_end(key)
            self._evict()
            return found

    @contextmanager
    def place(self, server: str) -> Iterator[None]:
        """Take one of a server's places for calls. Raises `Busy` when all are taken."""
        if not self._places[server].acquire(blocking=False):
            raise Busy
        try:
            yield
        finally:
            self._places[server].release()

    def call(
        self, key: Key, tool: str, arguments: Mapping[str, Any], seconds: float, idempotency_key: str = ""
    ) -> mcp_types.CallToolResult:
        """Call a tool. Raises as `Connection.call`, `TimeoutError`, or `ModelUnavailable` while the breaker is open."""
        breaker, meta = self._breakers[key.server], meta_of(idempotency_key, tracing.traceparent())
        permit = breaker.allow()
        try:
            result: mcp_types.CallToolResult = self._wait(
                partial(self.of(key).call, tool, arguments, meta), seconds
            )
        except (
            NotConnected
        ):  # nothing was sent; the connection itself keeps calls away from a server that is away
            breaker.release(permit)
            raise
        except (TimeoutError, ConnectionLost) as error:
            if isinstance(error, TimeoutError) and seconds < EVIDENCE_SECONDS:
                breaker.release(permit)
            else:
                breaker.record_failure(permit)
            raise
        except BaseException:
            breaker.record_success(permit)  # an answer, if not a good one
            raise
        breaker.record_success(permit)
        return result

    def look(self, key: Key, seconds: float) -> Found:
        """Return the definitions that the server sends now. Raises `NotConnected`, `TimeoutError`."""
        connection = self.of(key)
        self._wait(connection.look, seconds)
        return connection.found

    def is_open(self, server: str) -> bool:
        """Return whether a server is reached by any connection of this process."""
        return any(up for key, up in list(self._up.items()) if key.server == server)

    def states(self) -> list[tuple[str, bool | None, str]]:
        """List the servers: name, whether it is reached (None: nobody has tried), state of its breaker."""
        tried = {key.server for key in list(self._up)}
        return [
            (name, self.is_open(name) if name in tried else None, breaker.state)
            for name, breaker in self._breakers.items()
        ]

    def close(self) -> None:
        """End all connections and their processes, within `CLOSE_SECONDS`."""
        with self._lock:
            closed, self._closed, portal = self._closed, True, self._portal
        if portal is not None and not closed:
            for connection in list(self._open.values()):
                portal.start_task_soon(_close, connection)
            ending = threading.Thread(target=self._stack.close, name="mcp-close", daemon=True)
            ending.start()
            ending.join(CLOSE_SECONDS)

    def _begin(self, key: Key) -> Connection:
        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        spec = self._servers[key.server]
        connection = self._portal.call(
            lambda: Connection(
                partial(self._transport, key, spec),
                frozenset(spec.tools),
                partial(self._listed, key),
                partial(self._changed, key),
            )
        )
        self._portal.start_task_soon(connection.keep)
        return connection

    def _evict(self) -> None:
        """Close connections of users beyond the bound: of those without a call, the ones used longest ago."""
        of_users = [key for key in self._open if key.user_id]
        idle = [key for key in of_users[:-1] if not self._open[key].calls]
        for key in idle[: max(0, len(of_users) - MOST_CONNECTIONS)]:
            connection = self._open.pop(key)
            self._up.pop(key, None)
            if self._portal is not None:
                self._portal.start_task_soon(_close, connection)

    def _wait(self, work: Callable[[], Any], seconds: float) -> Any:
        if self._portal is None:
            raise NotConnected
        done = self._portal.start_task_soon(_bounded, work, seconds)
        try:
            return done.result(seconds + 1)
        finally:
            done.cancel()  # what has not begun by then must not

    async def _transport(self, key: Key, spec: ServerSpec) -> Transport:
        secret = await anyio.to_thread.run_sync(
            self._credentials.find, key.server, spec.credentials, key.user_id
        )
        if spec.command:
            env = dict(spec.env) if secret is None else {**spec.env, spec.credential_env: secret}
            return stdio(key.server, spec.command, env)
        return http(spec.address, secret)

    async def _listed(self, key: Key, found: Found) -> None:
        await anyio.to_thread.run_sync(self._pins.see, key.server, found)

    def _changed(self, key: Key, up: bool, reason: str) -> None:
        """Log and count a change of state, once."""
        if self._up.get(key) is up:
            return
        self._up[key] = up
        self._told(key.server, self.is_open(key.server))
        if up:
            log.info("mcp_connected", extra={"server": key.server})
        else:
            log.warning("mcp_disconnected", extra={"server": key.server, "error": reason})


async def _bounded(work: Callable[[], Any], seconds: float) -> Any:
    with anyio.fail_after(seconds):
        return await work()


async def _close(connection: Connection) -> None:
    connection.close()
