"""What is being served, as it is: each look through one of Flask's proxies costs five calls more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from flask import Flask, Request, Response, current_app, g, request

# Called, these answer with the request, its `g`, and the application. Outside of one they raise `RuntimeError`.
asked: Callable[[], Request] = cast(Any, request)._get_current_object
own: Callable[[], Any] = cast(Any, g)._get_current_object
application: Callable[[], Flask] = cast(Any, current_app)._get_current_object


def add_headers(response: Response, *pairs: tuple[str, str]) -> None:
    """Add headers of our own making. Werkzeug would look through each value for line breaks: never call this with
    what a client or a model has sent, unless it was matched against a pattern without them."""
    response.headers._list.extend(pairs)
