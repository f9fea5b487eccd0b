"""Cookie of the web page: its refresh token, where no script can read it.

The page keeps its access token in memory only. Cross-site requests: the cookie is `SameSite=Strict`, and the routes
that read it want a header that no page of another site may send (CORS never allows it).
"""

from __future__ import annotations

from typing import Literal

from flask import Response, request

from service.auth.tokens import Pair
from service.errors import CrossSite
from service.web.current import services
from service.web.schemas import Shape, json_response

HEADER = "X-Slipway-Page"
_NAME = "slipway"


class AccessToken(Shape):
    access_token: str
    token_type: str
    expires_in: int


def answer_with(pair: Pair) -> Response:
    """Answer with the access token, and put the refresh token into the cookie."""
    shown = pair.public()
    del shown["refresh_token"]
    return keep(pair, json_response(shown))


def keep(pair: Pair, response: Response) -> Response:
    """Put the refresh token into the cookie."""
    return put(response, _NAME, pair.refresh_token, services().settings.refresh_token_days * 86_400)


def without_cookie(response: Response) -> Response:
    """Take the cookie out of the browser."""
    return put(response, _NAME, "", 0)


def refresh_token() -> str | None:
    """Return the refresh token of the page's cookie, if there is one. Raises `CrossSite` without the page's header."""
    # Sent by browsers over TLS and from this machine; elsewhere the header alone proves it.
    if HEADER not in request.headers or request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise CrossSite()
    return request.cookies.get(name_of(_NAME))


def put(
    response: Response, name: str, value: str, seconds: int, same_site: Literal["Strict", "Lax"] = "Strict"
) -> Response:
    """Add a cookie that no script can read; 0 seconds take it out of the browser."""
    secure = services().settings.page_cookie_secure
    response.set_cookie(name_of(name), value, seconds, secure=secure, httponly=True, samesite=same_site)
    return response


def name_of(name: str) -> str:
    """Return a cookie's full name. With `__Host-` a browser takes it over TLS from this very host only."""
    return f"__Host-{name}" if services().settings.page_cookie_secure else name
