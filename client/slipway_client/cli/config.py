"""Stored log-in of the command line: one file of mode 0600, for one base URL."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slipway_client.client import Slipway
from slipway_client.credentials import Login, TokenPair
from slipway_client.errors import SlipwayError
from slipway_client.settings import BASE_URL

SIGN_IN = "Sign in first: `slipway login`, or set SLIPWAY_API_KEY."


def folder() -> Path:
    """Return the folder of the XDG specification; a relative XDG_CONFIG_HOME is ignored, as it says."""
    named = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".config"
    return base / "slipway"


class LoginFile:
    """File with a base URL and an API key or tokens. A `TokenStore` that several processes share."""

    def __init__(self) -> None:
        self.path = folder() / "login.json"
        self._lock: int | None = None

    def read(self) -> dict[str, Any]:
        """Return the contents; empty without a file. Raises `SlipwayError` for one that cannot be read."""
        try:
            value = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as wrong:
            raise SlipwayError(f"{self.path} cannot be read ({wrong}): sign in again.") from None
        return value if isinstance(value, dict) else {}

    def write(self, value: dict[str, Any]) -> None:
        """Replace the file at once; only its owner can read it, from its first byte on."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(value, file)
            os.replace(name, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def load(self) -> TokenPair | None:
        tokens = self.read().get("tokens")
        try:
            return None if tokens is None else TokenPair(**tokens)
        except TypeError:
            raise SlipwayError(f"{self.path} has no tokens: sign in again.") from None

    def save(self, pair: TokenPair | None) -> None:
        if pair is None:
            self.remove()
        else:
            self.write({**self.read(), "tokens": asdict(pair)})

    def acquire(self) -> bool:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def base_url(named: str | None, stored: str | None = None) -> str:
    """Return where to: the option, else SLIPWAY_BASE_URL, else that of the log-in, else localhost."""
    return (named or os.environ.get("SLIPWAY_BASE_URL") or stored or BASE_URL).rstrip("/")


def connected(named: str | None) -> Slipway:
    """Return a client by SLIPWAY_API_KEY or the stored log-in. Raises `SlipwayError` where neither is for this URL."""
    file = LoginFile()
    if os.environ.get("SLIPWAY_API_KEY"):
        return Slipway(base_url=base_url(named))
    kept = file.read()
    if not kept:
        raise SlipwayError(SIGN_IN)
    url = base_url(named, kept.get("base_url"))
    if url != kept.get("base_url"):  # a token is sent to no other server than the one that gave it
        raise SlipwayError(f"The log-in is for {kept.get('base_url')}, not for {url}: `slipway login` there.")
    if key := kept.get("api_key"):
        return Slipway(key, base_url=url)
    return Slipway(login=Login.stored(file), base_url=url)
