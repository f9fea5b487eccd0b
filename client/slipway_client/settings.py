"""Settings of both clients, and httpx2's answers and errors in the terms of the logic."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

import slipway_client
from slipway_client.credentials import ApiKey, Credentials, Login
from slipway_client.effects import Answer, Request
from slipway_client.errors import BadArgument, ConnectionFailed, SlipwayError, TimedOut
from slipway_client.exchange import Exchange
from slipway_client.retry import Retry

E = TypeVar("E")
BASE_URL = "http://localhost:8000"
TIMEOUT = 330.0  # seconds; the server ends a run before
CONNECT_TIMEOUT = 5.0
POOL_TIMEOUT = 30.0
LIMITS = httpx2.Limits(max_connections=200, max_keepalive_connections=20)


class Settings:
    """Base of both clients: address, credentials, time-out and retries."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        login: Login | None = None,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        max_retries: int = 4,
    ) -> None:
        """Take `api_key`, else `login`, else SLIPWAY_API_KEY; `base_url`, else SLIPWAY_BASE_URL, else localhost.

        `timeout`: seconds for the answer of a call that waits for its run. Raises `BadArgument`.
        """
        url = base_url or os.environ.get("SLIPWAY_BASE_URL") or BASE_URL
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise BadArgument(f"The base URL is to be http:// or https:// and a host: {url!r}.")
        self._url = url.rstrip("/")
        agent = f"slipway-client/{slipway_client.__version__}"
        self.exchange = Exchange(_credentials(api_key, login), agent, Retry(max_retries), timeout)
        self._begin()

    def _begin(self) -> None:
        """Open the HTTP client, and make the resources."""
        raise NotImplementedError

    def built(self, client: httpx2.Client | httpx2.AsyncClient, request: Request) -> httpx2.Request:
        return client.build_request(
            request.method,
            self._url + request.path,
            headers=dict(request.headers),
            params=dict(request.query) or None,
            content=request.content,
            timeout=httpx2.Timeout(request.timeout, connect=CONNECT_TIMEOUT, pool=POOL_TIMEOUT),
        )


@dataclass(frozen=True, slots=True)
class Given:
    """Outcome of an effect: a value, or an error."""

    value: Any = None
    error: SlipwayError | None = None

    def to(self, flow: Generator[E, Any, Any]) -> E:
        """Send it into a flow; return the next effect. Raises `StopIteration` at the flow's end."""
        return flow.send(self.value) if self.error is None else flow.throw(self.error)


def is_stream(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return response.is_success and kind.startswith("text/event-stream")


def expect_silence(response: httpx2.Response, seconds: float) -> None:
    """Change the longest time between two reads, for the body that follows: the transport looks it up for each part."""
    response.request.extensions["timeout"]["read"] = seconds


def answer_of(response: httpx2.Response) -> Answer:
    return Answer(response.status_code, dict(response.headers), response.content)


def failure_of(failed: httpx2.RequestError) -> ConnectionFailed:
    kind = TimedOut if isinstance(failed, httpx2.TimeoutException) else ConnectionFailed
    url = failed.request.url
    where = f"{failed.request.method} {url.netloc.decode()}{url.path}"
    return kind(f"{where}: {failed or type(failed).__name__}")


def _credentials(api_key: str | None, login: Login | None) -> Credentials:
    if api_key is not None and login is not None:
        raise BadArgument("Give `api_key` or `login`, not both.")
    if login is not None:
        return login
    key = api_key or os.environ.get("SLIPWAY_API_KEY")
    if not key:
        raise BadArgument("Give `api_key` or `login`, or set SLIPWAY_API_KEY.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise BadArgument("The API key contains a space or a control character.")
    return ApiKey(key)
