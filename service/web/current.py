"""Current request, with the findings of its hooks and its guard, and the services of its application."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import flask
from flask import Flask, current_app

from service.auth.run_tokens import RunGrant
from service.infra.redis_trip import Trip
from service.observe.tracing import Span
from service.runs.bytes_in_flight import HeldBytes
from service.types import Caller, RunRequest
from service.usage.rate_limits import LimitWindow

if TYPE_CHECKING:
    from service.wiring import Services

F = TypeVar("F", bound=Callable[..., Any])


class Request(flask.Request):
    """Request under way, as `current` returns it.

    Headers that every request is asked for are read from `environ`: a look-up in `headers` is five calls.
    """

    id = ""  # in log lines, problems and the response
    began = 0.0  # time.perf_counter()
    caller: Caller  # set by a guard
    key: str | None = None  # API key of the caller, if they sent one
    grant: RunGrant | None = None  # of the token of a run, if one was sent
    trip: Trip  # begun by a guard: its first steps check the log-in and count the call
    check_again: Callable[[Request], None] | None = None  # set by a guard: its checks, once more
    made_up = False  # refused for a forged key or token
    limit_window: LimitWindow | None = None  # tightest, for the response's headers
    model_seconds = 0.0
    body: Any = ...  # its JSON, once read
    span: Span | None = None  # where tracing is on
    held: HeldBytes | None = None  # room for a large body, until the response is sent

    def hold_bytes(self, size: int) -> None:
        """Take room for a large body. Raises `Overloaded`."""
        self.held = self.services.runs.bodies.take(self.caller.user_id, size)

    def begun(self, asked: RunRequest) -> None:
        """Release the room of a large body whose run has begun: its files are in the database, and no longer here."""
        if self.held is not None and asked.files == {}:
            self.held.give()

    @property
    def itself(self) -> Request:
        return self

    @cached_property
    def extensions(self) -> dict[str, Any]:
        """Parts of the application by name, such as `slipway`: its `Services`."""
        return current_app.extensions

    @property
    def services(self) -> Services:
        services: Services = self.extensions["slipway"]
        return services


_proxy = cast(Request, flask.request)


class Application(Flask):
    """Flask with this request, and without asynchronous views."""

    request_class = Request

    def ensure_sync(self, func: F) -> F:
        """Return `func`: Flask would inspect each hook and view of each request."""
        return func


def current() -> Request:
    """Return the request itself: Flask's proxy would look it up again for each attribute."""
    return _proxy.itself


def services() -> Services:
    built: Services = current_app.extensions["slipway"]
    return built


def current_caller() -> Caller:
    """Return the authenticated caller of this request, set by a guard."""
    return current().caller
