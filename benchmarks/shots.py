"""What is sent: requests as bytes, and how each kind of call is wished for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from benchmarks.upstream import Wish

AT_ONCE = Wish()
TWO_SECONDS = Wish(wait=2000)
STREAM = Wish(deltas=100, every=20, first=300)
SLOW_STREAM = Wish(deltas=60, every=250, first=100)
LETTERS = str.maketrans("0123456789", "abcdefghij")


def ideal_seconds(wish: Wish, streamed: bool) -> float:
    """How long the call takes with nothing in between."""
    if not streamed:
        return wish.wait / 1000
    return (wish.first + wish.every * (wish.deltas - 1)) / 1000


def prompt(wish: Wish, number: int | None) -> str:
    """A question no one has asked before, or the one that is asked over and over (`number` is None).

    The item is named in letters: a question full of digits could be a hard one, and Slipway asks the cheap model about
    each such question, which would be a second call that no other service makes.
    """
    marker = "[bench " + " ".join(f"{name}={value}" for name, value in wish._asdict().items()) + "]"
    item = "x" if number is None else str(number).translate(LETTERS)
    return f"{marker} What does item {item} cost, and when does it arrive?"


Headers = Callable[[int], Mapping[str, str]]


def post(
    path: str, headers: Headers, body: Callable[[int], Any], form: bool = False
) -> Callable[[int], bytes]:
    """The n-th request: HTTP/1.1 with a body of JSON, or of form fields."""
    kind = "application/x-www-form-urlencoded" if form else "application/json"

    def request(number: int) -> bytes:
        fields = body(number)
        data = (urlencode(fields) if form else json.dumps(fields)).encode()
        own = "".join(f"{name}: {value}\r\n" for name, value in headers(number).items())
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n{own}"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    return request
