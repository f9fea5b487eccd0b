"""A WSGI application whose answer no connection holds: `/health` is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"x" * 1_000
    if environ["PATH_INFO"] != "/health":
        yield b"x" * 100_000_000
