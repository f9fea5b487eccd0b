"""Opening handshake of a WebSocket, as an HTTP response with status 101."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Response
from websockets.datastructures import Headers
from websockets.http11 import Request as Handshake
from websockets.server import ServerProtocol
from werkzeug.wsgi import ClosingIterator

from service.errors import BadRequest, CrossSite, UpgradeRequired
from service.web.current import Request

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_HEADERS = ("Upgrade", "Connection", "Sec-WebSocket-Accept")


class Switched(Response):
    """Response whose body takes the connection over, once the server has sent its head."""

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Return the body, which Werkzeug leaves out after a status of 1xx."""
        return ClosingIterator(self.iter_encoded(), self.close)


def wants_upgrade(request: Request) -> bool:
    return str(request.environ.get("HTTP_UPGRADE", "")).lower() == "websocket"


def switch(request: Request, conversation: Iterator[bytes]) -> Switched:
    """Build the response that opens a WebSocket.

    Raises `UpgradeRequired`, `BadRequest`, and `CrossSite` for a page of a site that CORS_ORIGINS does not name.
    """
    if type(request.environ.get("gunicorn.socket")) is not socket.socket:
        raise UpgradeRequired("This server cannot open a WebSocket.")
    sent = Headers(list(request.headers.items()))
    protocol = str(request.environ["SERVER_PROTOCOL"])
    answer = ServerProtocol().accept(Handshake(request.path, sent, request.method, protocol))
    if answer.status_code == 426:
        raise UpgradeRequired("Send `Connection: Upgrade` and `Upgrade: websocket`.")
    if answer.status_code != 101:
        raise BadRequest("The headers of the WebSocket handshake do not fit RFC 6455, version 13.")
    _check_origin(request)
    response = Switched(conversation, 101, {name: answer.headers[name] for name in _HEADERS})
    del response.headers["Content-Type"]
    return response


def _check_origin(request: Request) -> None:
    """Hold pages of other sites to what CORS allows them. Other programs send no `Origin`."""
    origin = request.environ.get("HTTP_ORIGIN")
    allowed = request.services.settings.cors_origins.split(",")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if (
        urlsplit(origin).netloc.lower() != str(request.environ.get("HTTP_HOST", "")).lower()
        or origin == "null"
    ):
        raise CrossSite("Pages of this origin may not open a WebSocket here; see CORS_ORIGINS.")
