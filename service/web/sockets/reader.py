"""Receiving thread of a WebSocket: takes messages also in mid-turn, and ends the connection when it must."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from websockets.frames import CloseCode

from service.auth.permissions import PERMISSIONS
from service.errors import Conflict, Invalid, InvalidToken, NotFound, SlipwayError, fault
from service.store.actor import Actor, acting_as
from service.types import Caller, Run
from service.web.body import parsed
from service.web.lifecycle import draining
from service.web.sockets.client import Client
from service.web.sockets.connection import Closed, Connection
from service.web.sockets.turns import Turn, Turns, policy_of
from service.wiring import Services

log = logging.getLogger("slipway.websocket")
TICK = 1.0  # seconds between two looks at the connection
RECHECK = 5.0  # seconds between two checks of its log-in or key
CANCEL = PERMISSIONS["POST /v1/runs/<run_id>/cancel"]
DEAF, DEAF_SECONDS = 6, 3.0  # heartbeats, and at least seconds, without a byte: not even an answer to a ping


class Reader:
    """Reads one connection. `caller` and `may_read` change with a new token."""

    def __init__(
        self, client: Client, turns: Turns, services: Services, caller: Caller, may_read: Callable[[], bool]
    ) -> None:
        self.caller, self.may_read = caller, may_read
        self._client = client
        self._connection: Connection = client.connection
        self._turns = turns
        self._services = services
        self._pinged = self._checked = time.monotonic()

    def read(self, first: Iterable[bytes]) -> None:
        """Read until the connection has ended; `first` are messages that were received already."""
        try:
            for message in first:
                self._take(message)
            while not self._connection.closing:
                for message in self._connection.receive(TICK):
                    self._take(message)
                self._watch()
        except Closed:
            pass
        except SlipwayError as error:  # neither store can say whether the caller may stay
            with suppress(Closed):
                self._client.leave(error)
        except Exception:
            log.exception("websocket_reader_failed")
        finally:
            self._turns.end()
            self._connection.close(CloseCode.INTERNAL_ERROR)
            drain(self._connection)

    def cancel(self, run: Run) -> None:
        """Cancel the run of a turn, wherever it executes. One from the cache has ended already."""
        with acting_as(Actor.of_request(self.caller)), suppress(Conflict, NotFound):
            self._services.runs.cancellation.cancel(run)

    def _take(self, message: bytes) -> None:
        try:
            body = parsed(message)
            if not isinstance(body, dict):
                raise fault("", "must be an object")
            if "type" in body or body.keys() == {"token"}:
                self._control(body)
            else:
                policy = policy_of(body, self._services.settings.session_conflict)
                if (run := self._turns.offer(Turn(body, len(message)), policy)) is not None:
                    self.cancel(run)
        except SlipwayError as error:
            self._client.refuse(error)

    def _control(self, body: dict[str, Any]) -> None:
        """Take a message that is no turn. Raises `Invalid`, `RunFinished`, and `Forbidden`."""
        self._client.count()
        if body.keys() == {"token"}:
            self._turns.renew(token_of(body))
        elif body == {"type": "cancel"}:
            CANCEL.check(self.caller)
            if (run := self._turns.cancel()) is not None:
                self.cancel(run)
        else:
            raise fault("/type", "is only `cancel`, without other fields")

    def _watch(self) -> None:
        """Ping, and end a connection that is deaf, idle, no longer admitted, or whose worker stops."""
        now, settings, connection = time.monotonic(), self._services.settings, self._connection
        executes = self._turns.busy and not self._turns.paused
        if now > connection.heard + max(DEAF_SECONDS, DEAF * settings.heartbeat_seconds):
            connection.close(CloseCode.INTERNAL_ERROR, "No answer to pings.")
        elif not executes and now > connection.used + settings.socket_idle_seconds:
            connection.close(4408, "Idle.")
        elif draining() and not self._turns.busy:
            connection.close(CloseCode.SERVICE_RESTART, "This server stops; connect again.")
        elif now > self._pinged + settings.heartbeat_seconds:
            self._pinged = now
            connection.ping()
        if now > self._checked + RECHECK:
            self._checked = now
            if not self.may_read():
                raise InvalidToken("This log-in or key has ended.")


def token_of(body: Any) -> str:
    """Return the token of a message that signs in. Raises `Invalid`."""
    token = body.get("token") if isinstance(body, dict) and body.keys() == {"token"} else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Invalid('Sign in first: `{"token": "…"}`.')
    return token


def drain(connection: Connection) -> None:
    """Let the closing handshake end."""
    while not connection.over:
        connection.receive(0.2)
