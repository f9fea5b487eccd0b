"""Credentials: an API key, or a log-in that is renewed by itself, one renewal at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from slipway_client.account_models import Tokens
from slipway_client.effects import Alone, Answer, Flow, Request, Send, Sleep
from slipway_client.errors import AuthenticationError, ConnectionFailed, SlipwayError

MARGIN = 30.0  # seconds before its end that an access token is renewed
TIMEOUT = 30.0
LOCK_TRIES = 600
LOCK_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Tokens of a log-in; `ends` is the access token's end in seconds since 1970."""

    access: str
    refresh: str
    ends: float


class TokenStore(Protocol):
    """Place for the tokens. `acquire` never waits: False means that another process holds it."""

    def load(self) -> TokenPair | None: ...
    def save(self, pair: TokenPair | None) -> None: ...
    def acquire(self) -> bool: ...
    def release(self) -> None: ...


class Memory:
    """Tokens of this process alone; several clients may share them."""

    def __init__(self) -> None:
        self._pair: TokenPair | None = None
        self._lock = threading.Lock()

    def load(self) -> TokenPair | None:
        return self._pair

    def save(self, pair: TokenPair | None) -> None:
        self._pair = pair

    def acquire(self) -> bool:
        return self._lock.acquire(blocking=False)

    def release(self) -> None:
        self._lock.release()


class Credentials(Protocol):
    def current(self) -> Flow[str]:
        """Return the token to send."""
        ...

    def renewed(self, refused: str) -> Flow[str | None]:
        """Return another token in place of one that was refused; None: there is no other."""
        ...


class ApiKey:
    """A key `slp_…`, or an access token that somebody else renews."""

    def __init__(self, key: str) -> None:
        self._key = key

    def current(self) -> Flow[str]:
        yield from ()
        return self._key

    def renewed(self, refused: str) -> Flow[str | None]:
        yield from ()
        return None


class Login:
    """Log-in of a user, renewed by itself. `workspace`: the user's, if not `default`."""

    def __init__(self, username: str, password: str, workspace: str | None = None) -> None:
        self._login: dict[str, str] | None = {"username": username, "password": password}
        if workspace is not None:
            self._login["workspace"] = workspace
        self._store: TokenStore = Memory()

    @classmethod
    def stored(cls, store: TokenStore) -> Login:
        """Return a log-in without a password, of kept tokens: it lasts as long as these can be renewed."""
        login = cls("", "")
        login._login, login._store = None, store
        return login

    @property
    def tokens(self) -> TokenPair | None:
        return self._store.load()

    def current(self) -> Flow[str]:
        pair = self._store.load()
        if pair is not None and time.time() < pair.ends - MARGIN:
            return pair.access
        token: str = yield Alone(self._renew(None if pair is None else pair.access))
        return token

    def renewed(self, refused: str) -> Flow[str | None]:
        token: str = yield Alone(self._renew(refused))
        return token

    def _renew(self, stale: str | None) -> Flow[str]:
        yield from self._acquire()
        try:
            pair = self._store.load()
            if pair is None or pair.access == stale:  # else another flow or process was first
                pair = yield from self._another(pair)
                self._store.save(pair)
            return pair.access
        finally:
            self._store.release()

    def _acquire(self) -> Flow[None]:
        for _ in range(LOCK_TRIES):
            if self._store.acquire():
                return
            yield Sleep(LOCK_PAUSE)
        raise SlipwayError("Another process has held the stored log-in for a minute.")

    def _another(self, pair: TokenPair | None) -> Flow[TokenPair]:
        """Spend the refresh token, else log in."""
        if pair is not None:
            try:
                return (yield from _asked("/v1/auth/refresh", None, pair.refresh))
            except AuthenticationError:
                pass  # ended or revoked
            except ConnectionFailed:
                # The token may be spent. Without a password a second try has nothing to lose.
                if self._login is None:
                    raise
            self._store.save(None)
        if self._login is None:
            detail = "The log-in has ended: log in again."
            raise AuthenticationError(401, {"code": "signed_out", "detail": detail})
        return (yield from _asked("/v1/auth/login", self._login, None))


def _asked(path: str, body: Mapping[str, Any] | None, bearer: str | None) -> Flow[TokenPair]:
    """Ask for a pair, once: the call that needs it is what is retried."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    content = None if body is None else json.dumps(body).encode()
    answer: Answer = yield Send(Request("POST", path, headers, {}, content, TIMEOUT))
    if not answer.ok:
        raise answer.error()
    tokens = Tokens.parse(answer.json())
    return TokenPair(tokens.access_token, tokens.refresh_token, time.time() + tokens.expires_in)
